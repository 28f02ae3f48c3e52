//! Dead letters in the hands of an operator: listed, looked at, sent again, dropped.
//!
//! A letter that is sent again is a new entry for its sink alone: with new numbers, the time of now, and counted as
//! added by `replay`. It does not pass the plugins, which it has passed. One that a plugin put aside has no sink: it goes
//! through the pipeline of its stream from the first plugin on, as it is now, so that what was mended is called too. It
//! is finished once the entry is committed; after a crash between the two it is there still, and sent again with the
//! others.

use super::Pipeline;
use super::aside::{PLUGIN, REASON};
use super::tally::REPLAY;
use crate::batch::{Batch, Request, Signal, Stream, json as batch_json};
use crate::journal::{
    Amount, DeadLetters, Frame, FramePart, Letter, Outcome, PAGE_MAX, SinkId, SinkSet, WholeLetter,
};
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

pub use crate::journal::{LetterId, WhichLetters};

/// Sent again at one time: that many are in memory, and that many come twice if their caller goes at the wrong moment.
const TOGETHER_LETTERS: usize = 64;
const TOGETHER_BYTES: usize = 4 << 20;
/// For the reading of a page, and for the commit of those that are sent together.
const STEP_DEADLINE: Duration = Duration::from_secs(30);
/// Content beyond it is not shown.
const SHOWN_BYTES_MAX: usize = 4 << 20;

/// The dead letters, and the pipeline that they go back to. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Letters {
    store: Arc<DeadLetters>,
    pipeline: Pipeline,
    /// Two that send the same letters would send them twice.
    turn: Arc<Mutex<()>>,
}

/// Which letters something is done with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// At most [`CHOSEN_MAX`]; the others are left alone.
    These(Vec<LetterId>),
    /// The next page of these, up to the newest that there is now, or to `until`.
    All(WhichLetters),
}

/// Letters that one call handles.
pub const CHOSEN_MAX: usize = PAGE_MAX;

/// A letter as it is listed: without its content, and without the words of the server, which may quote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownLetter {
    pub id: String,
    pub sink: String,
    pub tenant: String,
    pub project: String,
    pub signal: &'static str,
    pub records: u32,
    pub bytes: usize,
    /// Of its commit, as RFC 3339 writes it.
    pub time: String,
    pub refused_at: String,
    pub reason: String,
}

/// The oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownPage {
    pub letters: Vec<ShownLetter>,
    /// Where to go on; a page can be short, or empty, and have it still.
    pub next: Option<String>,
}

/// A letter with all that it says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownWhole {
    #[serde(flatten)]
    pub letter: ShownLetter,
    pub message: String,
    /// The request in OTLP's JSON; a text that says why where it is too large.
    pub content: Value,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Handled {
    pub letters: u64,
    pub records: u64,
    /// Of those that were named: finished before, expired, damaged, or never there.
    pub not_there: u64,
    /// Letters that cannot be sent again, by the name of their sink: it is not in the configuration.
    pub without_sink: BTreeMap<String, u64>,
    /// Where to go on, up to `until`. `null`: that was all.
    pub after: Option<String>,
    pub until: Option<String>,
}

/// Why nothing more was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LettersError {
    #[error("other dead letters are being sent again: come back")]
    Busy,
    #[error("the disk of the dead letters does not answer: come back")]
    Late,
    /// So many letters were sent before.
    #[error("the journal does not take them now ({why}), {letters} letters were sent before: come back")]
    NotTaken { why: String, letters: u64 },
    /// They were sent, or were to be dropped, and are there still.
    #[error("they cannot be marked as finished: {0}")]
    NotFinished(String),
}

impl Letters {
    pub fn new(store: Arc<DeadLetters>, pipeline: Pipeline) -> Letters {
        Letters { store, pipeline, turn: Arc::default() }
    }

    /// At most `limit` letters.
    pub async fn page(&self, which: WhichLetters, limit: usize) -> Result<ShownPage, LettersError> {
        let page = self.blocking(move |store| store.page(&which, limit)).await?;
        let letters = page.letters.iter().map(shown).collect();
        Ok(ShownPage { letters, next: page.next.map(|next| next.to_string()) })
    }

    /// `None`: it is not there, or no longer.
    pub async fn show(&self, id: LetterId) -> Result<Option<ShownWhole>, LettersError> {
        let show = move |store: &DeadLetters| {
            let WholeLetter { letter, message, content } = store.read(id)?;
            let content = rendered(letter.signal, content);
            Some(ShownWhole { letter: shown(&letter), message, content })
        };
        self.blocking(show).await
    }

    /// Sends them to their sinks again, the oldest first. Cancelled, or after a crash, up to 64 may be sent twice.
    pub async fn replay(&self, chosen: Chosen) -> Result<Handled, LettersError> {
        let _turn = timeout(STEP_DEADLINE, self.turn.lock()).await.map_err(|_| LettersError::Busy)?;
        let (ids, mut handled) = self.choose(chosen).await?;
        let mut ids = ids.into_iter();
        loop {
            let (left, letters, gone) = self
                .blocking(move |store| {
                    let (mut together, mut bytes, mut gone) = (Vec::new(), 0, 0);
                    while together.len() < TOGETHER_LETTERS && bytes < TOGETHER_BYTES {
                        let Some(id) = ids.next() else { break };
                        match store.read(id) {
                            Some(letter) => {
                                bytes += letter.content.len();
                                together.push(letter);
                            }
                            None => gone += 1,
                        }
                    }
                    (ids, together, gone)
                })
                .await?;
            (ids, handled.not_there) = (left, handled.not_there + gone);
            if letters.is_empty() {
                return Ok(handled);
            }
            self.replay_together(letters, &mut handled).await?;
        }
    }

    async fn replay_together(
        &self,
        letters: Vec<WholeLetter>,
        handled: &mut Handled,
    ) -> Result<(), LettersError> {
        let mut sent = Vec::new();
        let mut failed = None;
        let committing = letters.into_iter().filter_map(|whole| {
            let (id, sink) = (whole.letter.id, whole.letter.sink.clone());
            let target = match is_put_aside(&whole.letter) {
                true => Some(None),
                false => self.pipeline.sink(&sink).map(Some),
            };
            match target {
                Some(sink) => Some(async move { (id, self.pipeline.replay(whole, sink).await) }),
                None => {
                    *handled.without_sink.entry(sink).or_default() += 1;
                    None
                }
            }
        });
        let committing: Vec<_> = committing.collect();
        match timeout(STEP_DEADLINE, join_all(committing)).await {
            Err(_) => failed = Some("it does not answer in time".to_owned()),
            Ok(committed) => {
                for (id, committed) in committed {
                    match committed {
                        Ok(()) => sent.push(id),
                        Err(why) => failed = Some(why),
                    }
                }
            }
        }
        self.finish(sent, handled).await?;
        match failed {
            Some(why) => Err(LettersError::NotTaken { why, letters: handled.letters }),
            None => Ok(()),
        }
    }

    /// They are gone.
    pub async fn drop(&self, chosen: Chosen) -> Result<Handled, LettersError> {
        // Not while they are being sent.
        let _turn = timeout(STEP_DEADLINE, self.turn.lock()).await.map_err(|_| LettersError::Busy)?;
        let (ids, mut handled) = self.choose(chosen).await?;
        let count = ids.len() as u64;
        self.finish(ids, &mut handled).await?;
        handled.not_there += count - handled.letters;
        Ok(handled)
    }

    async fn finish(&self, ids: Vec<LetterId>, handled: &mut Handled) -> Result<(), LettersError> {
        if ids.is_empty() {
            return Ok(());
        }
        let finished = self.store.finish(ids).await;
        let Amount { letters, records } =
            finished.map_err(|error| LettersError::NotFinished(error.to_string()))?;
        handled.letters += letters;
        handled.records += records;
        Ok(())
    }

    async fn choose(&self, chosen: Chosen) -> Result<(Vec<LetterId>, Handled), LettersError> {
        match chosen {
            Chosen::These(mut ids) => {
                ids.sort_unstable();
                ids.dedup();
                ids.truncate(CHOSEN_MAX);
                Ok((ids, Handled::default()))
            }
            Chosen::All(mut which) => {
                // Those that are refused again meanwhile are new letters: it would not end.
                which.until = which.until.or(self.store.newest());
                let until = which.until;
                let page = self.blocking(move |store| store.page(&which, CHOSEN_MAX)).await?;
                let text = |id: LetterId| id.to_string();
                let until = page.next.and(until).map(text);
                let handled = Handled { after: page.next.map(text), until, ..Handled::default() };
                Ok((page.letters.iter().map(|letter| letter.id).collect(), handled))
            }
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DeadLetters) -> T + Send + 'static,
    ) -> Result<T, LettersError> {
        let store = self.store.clone();
        let working = tokio::task::spawn_blocking(move || work(&store));
        let worked = timeout(STEP_DEADLINE, working).await.map_err(|_| LettersError::Late)?;
        worked.map_err(|_| LettersError::Late)
    }
}

impl Pipeline {
    fn sink(&self, name: &str) -> Option<SinkId> {
        self.shared.snapshot.load().arrangement.sinks.get(name).copied()
    }

    /// To this sink, or through the plugins and to all that take it.
    async fn replay(&self, whole: WholeLetter, sink: Option<SinkId>) -> Result<(), String> {
        let Some(sink) = sink else {
            let WholeLetter { letter: Letter { stream, signal, .. }, content, .. } = whole;
            let batch = Batch::over(signal, stream, content);
            let again = self.submit_again(batch, Instant::now() + STEP_DEADLINE).await;
            return again.map(|_| ()).map_err(|refused| refused.to_string());
        };
        let shared = &self.shared;
        if shared.is_stopping.load(Ordering::Relaxed) {
            return Err("stopping".into());
        }
        let WholeLetter { letter: Letter { stream, signal, records, .. }, content, .. } = whole;
        let pending = shared.journal.ledger.receive(&stream.tenant, signal, 0);
        let outcome =
            Outcome { added: BTreeMap::from([(REPLAY.into(), records.into())]), ..Outcome::default() };
        let part = FramePart { stream, signal, bytes: content, records, sinks: SinkSet::NONE.with(sink) };
        let frame = Frame { settled: vec![(pending, outcome)], parts: vec![part], after: None };
        shared.journal.commit(frame).await.map(|_| ()).map_err(|refused| refused.to_string())
    }
}

/// By a plugin, and not refused by a sink.
fn is_put_aside(letter: &Letter) -> bool {
    letter.sink.starts_with(PLUGIN) && letter.reason == REASON
}

fn shown(letter: &Letter) -> ShownLetter {
    let Letter { id, sink, stream, signal, time_ms, refused_ms, records, bytes, reason, first: _ } = letter;
    let Stream { tenant, project } = stream;
    ShownLetter {
        id: id.to_string(),
        sink: sink.clone(),
        tenant: tenant.to_string(),
        project: project.to_string(),
        signal: signal.name(),
        records: *records,
        bytes: *bytes,
        time: time_text(*time_ms),
        refused_at: time_text(*refused_ms),
        reason: reason.clone(),
    }
}

fn time_text(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| ms.to_string(), |time| format!("{time:.3}"))
}

/// What the sink was sent, in OTLP's JSON.
fn rendered(signal: Signal, content: bytes::Bytes) -> Value {
    if content.len() > SHOWN_BYTES_MAX {
        return json!(format!("{} bytes, which is too large to be shown", content.len()));
    }
    // Walked again: the writer trusts the depth of what it is given.
    let request = Request::check(signal, content).ok();
    request.map_or_else(unreadable, |request| {
        batch_json::value_of(batch_json::request_of(signal), &request.bytes)
    })
}

fn unreadable() -> Value {
    json!("what was kept is no OTLP request")
}
