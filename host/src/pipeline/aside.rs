//! Records that a plugin failed on and is to put aside: in the dead letters before the commit, and out of them again if
//! the commit does not come.
//!
//! So what was acknowledged and put aside is safe, and a request that is refused leaves no letter, unless the process
//! dies between the two. A letter that cannot be kept in time is dropped, and counted so: nobody waits for it longer
//! than for the request.

use super::left::{Left, PutAside};
use super::tally::Tally;
use crate::batch::Entry;
use crate::journal::{DeadLetters, LetterId};
use crate::sandbox::Quarantined;
use futures_util::future::join_all;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// The reason of such a letter; its sink is `plugin:NAME`.
pub(super) const REASON: &str = "quarantined";
/// Before the name of the plugin, where a letter names its sink.
pub(super) const PLUGIN: &str = "plugin:";

/// Letters of a request that is not committed yet.
#[derive(Debug, Default)]
pub(super) struct Kept(Vec<KeptLetter>);

/// One of them. Dropped, it goes.
#[derive(Debug)]
struct KeptLetter {
    store: Arc<DeadLetters>,
    /// `None`: its request is committed.
    id: Option<LetterId>,
}

impl Kept {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The request is committed.
    pub(super) fn stay(self) {
        self.0.into_iter().for_each(|mut letter| letter.id = None);
    }
}

impl Drop for KeptLetter {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.store.finish_unseen(vec![id]);
        }
    }
}

/// Keeps what was put aside, and counts it: `quarantined:NAME` what is kept, `plugin:NAME` what is not. Both were
/// acknowledged, and are dropped on the way to the sinks. Cancelled, nothing stays.
pub(super) async fn keep(
    store: Option<&Arc<DeadLetters>>,
    left: &mut [Left],
    tally: &mut Tally,
    deadline: Instant,
) -> Kept {
    let mut kept = Kept::default();
    for left in left {
        let aside = std::mem::take(&mut left.aside);
        let mut lost = std::mem::take(&mut left.not_aside);
        let mut safe = 0;
        let keeping = aside.into_iter().map(|one| keep_one(store, &left.plugin, one, deadline));
        for (records, letter) in join_all(keeping).await {
            match letter {
                Some(letter) => {
                    kept.0.push(letter);
                    safe += records;
                }
                None => lost += records,
            }
        }
        let dropped =
            [(format!("{REASON}:{}", left.plugin), safe), (format!("{PLUGIN}{}", left.plugin), lost)];
        for (reason, records) in dropped.into_iter().filter(|(_, records)| *records > 0) {
            *tally.outcome(&left.tenant).dropped.entry(reason.into()).or_default() += records;
        }
    }
    kept
}

/// How many records, and the letter that has them.
async fn keep_one(
    store: Option<&Arc<DeadLetters>>,
    plugin: &str,
    put_aside: PutAside,
    deadline: Instant,
) -> (u64, Option<KeptLetter>) {
    let PutAside { stream, signal, records: Quarantined { records, bytes, error } } = put_aside;
    let Some(store) = store else { return (records.into(), None) };
    // It was never committed: it has no number of its own.
    let entry = Entry { stream, signal, first: 0, records, time_ms: store.now_ms(), node: [0; 4], bytes };
    let sink = format!("{PLUGIN}{plugin}");
    let keeping = store.keep(&sink, &entry, REASON, &error);
    let id = timeout_at(deadline, keeping).await.ok().and_then(Result::ok);
    (records.into(), id.map(|id| KeptLetter { store: store.clone(), id: Some(id) }))
}
