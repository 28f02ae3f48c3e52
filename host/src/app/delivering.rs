//! The sinks that are served: one task each, that another may take over from while the collector runs.

use crate::journal::{DeadLetters, Journal, SinkId};
use crate::pipeline::deliver::{self, Ends};
use crate::sinks::{self, Sink};
use crate::telemetry::Metrics;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long the sinks may take to empty the journal when the collector stops, or when they are removed.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// What a sink is, and how it is served.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) sink: sinks::Settings,
    pub(super) deliver: deliver::Settings,
}

#[derive(Debug)]
pub(super) struct Delivering {
    journal: Arc<Journal>,
    letters: Option<Arc<DeadLetters>>,
    metrics: Metrics,
    tasks: JoinSet<()>,
    served: BTreeMap<String, Served>,
}

#[derive(Debug)]
struct Served {
    settings: Settings,
    ends: Ends,
    /// Cancelled when its task has ended.
    ended: CancellationToken,
}

impl Delivering {
    pub(super) fn new(
        journal: Arc<Journal>,
        letters: Option<Arc<DeadLetters>>,
        metrics: Metrics,
    ) -> Delivering {
        Delivering { journal, letters, metrics, tasks: JoinSet::new(), served: BTreeMap::new() }
    }

    /// Whether a sink of this name is served just so.
    pub(super) fn is_served(&self, name: &str, settings: &Settings) -> bool {
        self.served.get(name).is_some_and(|served| served.settings == *settings)
    }

    /// Serves this sink from now on. One that is served is handed over first: what is on its way to it may arrive.
    pub(super) async fn serve(&mut self, name: &str, id: SinkId, sink: Arc<Sink>, settings: Settings) {
        if let Some(before) = self.served.remove(name) {
            before.ends.hand_over.cancel();
            before.ended.cancelled().await;
        }
        let (ends, ended) = (Ends::default(), CancellationToken::new());
        let drain_for = DRAIN_MAX.min(settings.deliver.drain_for);
        let served = deliver::Settings { drain_for, ..settings.deliver };
        let delivering = deliver::run(
            name.to_owned(),
            sink,
            self.journal.cursor(id),
            served,
            self.letters.clone(),
            self.metrics.clone(),
            ends.clone(),
        );
        let has_ended = ended.clone().drop_guard();
        self.tasks.spawn(async move {
            delivering.await;
            drop(has_ended);
        });
        self.served.insert(name.to_owned(), Served { settings, ends, ended });
        // Of those that were handed over.
        while self.tasks.try_join_next().is_some() {}
    }

    /// Those of which `is_kept` is false take what is there, for a while, then are served no more; their names.
    pub(super) async fn retire(&mut self, is_kept: impl Fn(&str) -> bool) -> Vec<String> {
        let gone: Vec<String> = self.served.keys().filter(|name| !is_kept(name)).cloned().collect();
        let ending = gone.iter().filter_map(|name| self.served.remove(name));
        let ending: Vec<Served> = ending.inspect(|served| served.ends.drain.cancel()).collect();
        join_all(ending.iter().map(|served| served.ended.cancelled())).await;
        gone
    }

    /// The sinks deliver what is there, for a while.
    pub(super) async fn end(&mut self) {
        self.served.values().for_each(|served| served.ends.drain.cancel());
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_MAX + Duration::from_secs(1), drained).await.is_err() {
            tracing::warn!("the sinks were not drained in time");
        }
        self.tasks.shutdown().await;
    }
}
