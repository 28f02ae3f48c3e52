//! The journal in memory.
//!
//! What was acknowledged dies with the process. Each sink has an equal share of the bytes and is charged for what it
//! still has to deliver; beyond its share its own oldest entries expire, which neither the sender nor another sink
//! notices. Entries that are being sent stay, since they may arrive: so a share can be exceeded by those (a few
//! deliveries), and an entry larger than a whole share is kept by a sink that has nothing else.

use super::follow::Ring;
use super::ledger::{Done, Ledger, Outcome, Pending};
use super::{Cursor, Followed, Follower, Settings, SinkId, SinkSet};
use crate::batch::{Entry, Signal, Stream};
use crate::telemetry::Metrics;
use bytes::Bytes;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// What an entry costs beside its bytes: names, counters, its places in the queues.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// Milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The time of the system.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// One request: all of it is kept, or nothing.
#[derive(Default)]
pub struct Frame {
    /// What became of the records that were received; settled at the moment of the commit.
    pub settled: Vec<(Pending, Outcome)>,
    /// What is kept.
    pub parts: Vec<FramePart>,
    /// Called once the frame is kept, in commit order; never for a frame that is refused. Short, and never waits.
    pub after: Option<After>,
}

/// What takes effect with a frame.
pub type After = Box<dyn FnOnce(Committed) + Send>;

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Frame { settled, parts, after } = self;
        let after = after.is_some();
        f.debug_struct("Frame")
            .field("settled", settled)
            .field("parts", parts)
            .field("after", &after)
            .finish()
    }
}

/// An entry before it has its number and time.
#[derive(Clone, Debug)]
pub struct FramePart {
    pub stream: Stream,
    pub signal: Signal,
    /// An Export*ServiceRequest.
    pub bytes: Bytes,
    pub records: u32,
    /// At least one: what no sink wants is not kept.
    pub sinks: SinkSet,
}

/// The frame is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The number of its first record; the records of its parts follow in order without a gap.
    pub first: u64,
    pub records: u64,
    /// Commit time in ms since 1970, the same for the whole frame; never goes back from one frame to the next.
    pub time_ms: u64,
}

/// Nothing of the frame is kept; its records are counted as refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitRefused {
    /// The journal was closed.
    #[error("stopping")]
    Stopping,
}

/// What is kept until every sink is done.
pub struct Journal {
    pub ledger: Arc<Ledger>,
    node: [u8; 4],
    share_bytes: usize,
    clock: Clock,
    state: Mutex<State>,
    /// Held while what takes effect with a frame does so. Taken before `state` is let go: the order of commits.
    effects: Mutex<()>,
    /// One per sink: something waits for it.
    waiting: Vec<Notify>,
    /// Something for followers.
    pub(super) followed: Notify,
}

pub(super) struct State {
    next_number: u64,
    time_ms: u64,
    is_closed: bool,
    queues: Vec<Queue>,
    pub(super) ring: Ring,
}

/// What one sink still has to deliver.
#[derive(Default)]
pub(super) struct Queue {
    /// Ascending by number.
    pub(super) waiting: VecDeque<Waiting>,
    /// Charged to the sink: what waits and what is in flight.
    charged_bytes: usize,
    /// Entries that a cursor gave out and nobody finished.
    pub(super) in_flight: usize,
}

#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) entry: Arc<Entry>,
    /// It was in flight before and came back.
    pub(super) is_resend: bool,
}

impl Journal {
    /// `sinks` by their numbers; at most [`super::SINKS_MAX`]. The ledger's lines go into `metrics`.
    pub fn open(settings: &Settings, sinks: &[String], clock: Clock, metrics: &Metrics) -> Arc<Journal> {
        assert!(sinks.len() <= super::SINKS_MAX, "the configuration was checked for the number of sinks");
        let Settings::Memory { bytes_max } = *settings;
        let ledger = Ledger::new(sinks, metrics.tenant_labels.clone());
        metrics.add_collector(Box::new(ledger.clone()));
        let share_bytes = bytes_max / sinks.len().max(1);
        let journal = Arc::new(Journal {
            ledger,
            node: node(),
            share_bytes,
            clock,
            state: Mutex::new(State {
                next_number: 1,
                time_ms: 0,
                is_closed: false,
                queues: sinks.iter().map(|_| Queue::default()).collect(),
                // The ring holds what the sinks hold anyway, unless a viewer's hub lags behind all of them.
                ring: Ring::new(share_bytes),
            }),
            effects: Mutex::default(),
            waiting: sinks.iter().map(|_| Notify::new()).collect(),
            followed: Notify::new(),
        });
        metrics.add_collector(Box::new(journal.clone()));
        journal
    }

    /// Keeps the frame, gives its records their numbers and their time, and settles them in the ledger, at one moment.
    ///
    /// Cancelled before it returns, the frame is kept as a whole or not at all.
    pub async fn commit(&self, frame: Frame) -> Result<Committed, CommitRefused> {
        let committed = self.keep(frame);
        if committed.is_ok() {
            self.waiting.iter().for_each(Notify::notify_one);
            self.followed.notify_waiters();
        }
        committed
    }

    fn keep(&self, frame: Frame) -> Result<Committed, CommitRefused> {
        let mut state = self.state();
        if state.is_closed {
            drop(state);
            for (mut pending, _) in frame.settled {
                pending.refuse(pending.open(), "stopping");
            }
            return Err(CommitRefused::Stopping);
        }
        state.time_ms = state.time_ms.max((self.clock)());
        let first = state.next_number;
        // The ledger first: once an entry stands in a queue its sink may be done with it.
        self.ledger.settle(frame.settled, &frame.parts);
        for part in frame.parts {
            self.push(&mut state, part);
        }
        let committed = Committed { first, records: state.next_number - first, time_ms: state.time_ms };
        if let Some(after) = frame.after {
            let _turn = self.effects.lock().unwrap_or_else(PoisonError::into_inner);
            drop(state);
            // The frame is kept and must be told so, whatever happens to what it leaves.
            if catch_unwind(AssertUnwindSafe(|| after(committed))).is_err() {
                tracing::error!("what was to take effect with a frame panicked");
            }
        }
        Ok(committed)
    }

    /// Calls `f` between two commits with the time that the next one would have: what was committed before has taken
    /// effect, and no later frame has an earlier time. Short, and never waits.
    pub fn between_commits<T>(&self, f: impl FnOnce(u64) -> T) -> T {
        let mut state = self.state();
        let time_ms = state.time_ms.max((self.clock)());
        state.time_ms = time_ms;
        let _turn = self.effects.lock().unwrap_or_else(PoisonError::into_inner);
        drop(state);
        f(time_ms)
    }

    fn push(&self, state: &mut State, part: FramePart) {
        let entry = Arc::new(Entry {
            stream: part.stream,
            signal: part.signal,
            first: state.next_number,
            records: part.records,
            time_ms: state.time_ms,
            node: self.node,
            bytes: part.bytes,
        });
        state.next_number += u64::from(part.records);
        state.ring.push(&entry, part.sinks);
        for sink in part.sinks.iter() {
            if let Some(queue) = state.queues.get_mut(usize::from(sink.0)) {
                queue.charged_bytes += charge(&entry);
                queue.waiting.push_back(Waiting { entry: entry.clone(), is_resend: false });
                self.make_room(sink, queue);
            }
        }
    }

    /// Beyond the share the oldest entries expire, as long as others are left.
    fn make_room(&self, sink: SinkId, queue: &mut Queue) {
        while queue.charged_bytes > self.share_bytes && queue.waiting.len() + queue.in_flight > 1 {
            let Some(oldest) = queue.waiting.pop_front() else { return };
            queue.charged_bytes -= charge(&oldest.entry);
            self.expire(sink, &oldest.entry, "room");
        }
    }

    fn expire(&self, sink: SinkId, entry: &Entry, reason: &'static str) {
        self.finish_in_ledger(sink, entry, &Done::expired(entry.records, reason));
    }

    fn finish_in_ledger(&self, sink: SinkId, entry: &Entry, done: &Done) {
        self.ledger.done(sink, &entry.stream.tenant, entry.signal, entry.records, done);
    }

    /// The entries of this sink, in order. One cursor per sink: two would share them.
    pub fn cursor(self: &Arc<Journal>, sink: SinkId) -> Cursor {
        Cursor::new(self.clone(), sink)
    }

    /// Every entry that is committed from now on, in order; with `sink`, only those that go there.
    pub fn follow(self: &Arc<Journal>, sink: Option<SinkId>) -> Follower {
        let place = self.state().ring.join(sink);
        Follower::new(self.clone(), place)
    }

    /// From now on nothing is committed.
    pub fn close(&self) {
        self.state().is_closed = true;
    }

    /// What this sink still has waiting expires with this reason; how many records that were.
    pub fn expire_rest(&self, sink: SinkId, reason: &'static str) -> u64 {
        let mut state = self.state();
        let Some(queue) = state.queues.get_mut(usize::from(sink.0)) else { return 0 };
        let mut records = 0;
        for waiting in std::mem::take(&mut queue.waiting) {
            queue.charged_bytes -= charge(&waiting.entry);
            records += u64::from(waiting.entry.records);
            self.expire(sink, &waiting.entry, reason);
        }
        records
    }

    /// Bytes that this sink is charged for, waiting and in flight.
    pub fn charged_bytes(&self, sink: SinkId) -> usize {
        self.state().queues.get(usize::from(sink.0)).map_or(0, |queue| queue.charged_bytes)
    }

    /// The most that one sink may be charged for, in bytes.
    pub fn share_bytes(&self) -> usize {
        self.share_bytes
    }

    pub(super) fn waiting(&self, sink: SinkId) -> Option<&Notify> {
        self.waiting.get(usize::from(sink.0))
    }

    pub(super) fn with_queue<T>(&self, sink: SinkId, f: impl FnOnce(&mut Queue) -> T) -> Option<T> {
        self.state().queues.get_mut(usize::from(sink.0)).map(f)
    }

    pub(super) fn followed_of(&self, place: u64) -> Option<Followed> {
        self.state().ring.next(place)
    }

    pub(super) fn finish(&self, sink: SinkId, entry: &Entry, done: &Done) {
        let mut state = self.state();
        if let Some(queue) = state.queues.get_mut(usize::from(sink.0)) {
            queue.in_flight -= 1;
            queue.charged_bytes -= charge(entry);
        }
        self.finish_in_ledger(sink, entry, done);
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while the journal is locked")
    }
}

/// What each sink is charged for, at the moment of the scrape.
impl Collector for Journal {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let help = "What a sink still has to take, in bytes of the journal";
        let name = "deliver_waiting_bytes";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (number, sink) in self.ledger.sinks().iter().enumerate() {
            let bytes = i64::try_from(self.charged_bytes(SinkId(number as u16))).unwrap_or(i64::MAX);
            metric.encode_family(&[("sink", sink.as_str())])?.encode_gauge(&bytes)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("share_bytes", &self.share_bytes).finish_non_exhaustive()
    }
}

/// What an entry costs as long as it is kept.
pub(super) fn charge(entry: &Entry) -> usize {
    entry.bytes.len() + ENTRY_OVERHEAD_BYTES
}

/// Four random bytes: the keys of a `RandomState` come from the system.
fn node() -> [u8; 4] {
    let random = RandomState::new().hash_one(SystemTime::now());
    (random as u32).to_be_bytes()
}
