//! What is kept, and for whom: the moment of a commit, the sinks' queues.
//!
//! In memory, what was acknowledged dies with the process; on disk, it is with the queues once it is safe.

use super::disk::{self, Position};
use super::expire::Added;
use super::follow::Ring;
use super::ledger::{Done, Ledger, Outcome, Pending};
use super::queue::{Queue, Waiting};
use super::sinks::Sinks;
use super::start::{Recovered, Starts};
use super::write::OnDisk;
use super::{
    CannotOpen, Cursor, FRAME_BYTES_MAX, Followed, Follower, Settings, SinkId, SinkSet, SinkSettings,
};
use crate::batch::{Entry, Signal, Stream};
use crate::telemetry::Metrics;
use arc_swap::ArcSwap;
use bytes::Bytes;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// A day of 100 kB/s; a full disk is the operator's, so at most half of what is free.
const BYTES_MAX: u64 = 10 << 30;

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
    /// The disk has no room for it.
    #[error("the disk is full")]
    Full,
    /// The disk fails, and went on failing.
    #[error("the disk fails")]
    Failed,
    /// An essential sink has no room for it in its share.
    #[error("an essential sink is behind")]
    Behind,
    /// Larger than a frame can be: it never will be kept.
    #[error("larger than {FRAME_BYTES_MAX} bytes")]
    TooLarge,
}

impl CommitRefused {
    /// In the ledger.
    pub(super) fn reason(self) -> &'static str {
        match self {
            CommitRefused::Stopping => "stopping",
            CommitRefused::Full => "disk_full",
            CommitRefused::Failed => "disk_failed",
            CommitRefused::Behind => "sink_behind",
            CommitRefused::TooLarge => "too_large",
        }
    }
}

/// How much is kept on disk, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) bytes_max: u64,
    pub(super) age_max: Duration,
    pub(super) memory_bytes_max: usize,
}

/// What all sinks share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    pub(super) bytes_max: usize,
    pub(super) memory_bytes_max: usize,
}

/// What is kept until every sink is done.
pub struct Journal {
    pub ledger: Arc<Ledger>,
    pub(super) node: [u8; 4],
    /// Changed under the lock of `state` alone.
    pub(super) sinks: ArcSwap<Sinks>,
    pub(super) shares: Shares,
    pub(super) clock: Clock,
    state: Mutex<State>,
    /// Held while what takes effect with a frame does so. Taken before `state` is let go: the order of commits.
    effects: Mutex<()>,
    /// Something for followers.
    pub(super) followed: Notify,
    /// Records below this number are of a process before.
    pub(super) recovered_until: u64,
    /// `None`: in memory.
    pub(super) on_disk: Option<OnDisk>,
}

pub(super) struct State {
    pub(super) next_number: u64,
    pub(super) time_ms: u64,
    /// While a round is on its way: its time. What happens before its frames has it as well.
    pub(super) round_ms: Option<u64>,
    pub(super) is_closed: bool,
    /// One per known sink, and empty for one that is gone.
    pub(super) queues: Vec<Queue>,
    pub(super) ring: Ring,
    /// On disk: behind the last frame that is with the queues.
    pub(super) end: Position,
    /// On disk: number and bytes of the segments, ascending.
    pub(super) segments: Vec<(u64, u64)>,
    pub(super) starts: Starts,
    /// The room that the files take.
    pub(super) disk_bytes: u64,
    /// Goes on with all that marks tell.
    pub(super) changes: u64,
    /// A sink is new: marks that name it come before the first entry for it.
    pub(super) wants_marks: bool,
}

impl Journal {
    /// `sinks` by their numbers; at most [`super::SINKS_MAX`]. The ledger's lines go into `metrics`. Blocks while it
    /// reads what is on disk.
    pub fn open<S: Clone + Into<SinkSettings>>(
        settings: &Settings,
        sinks: &[S],
        clock: Clock,
        metrics: &Metrics,
    ) -> Result<Arc<Journal>, CannotOpen> {
        let sinks: Vec<SinkSettings> = sinks.iter().cloned().map(Into::into).collect();
        let sinks = &sinks[..];
        match settings {
            Settings::Memory { bytes_max } => {
                let shares = Shares { bytes_max: *bytes_max, memory_bytes_max: *bytes_max };
                Ok(Journal::assemble(shares, sinks, clock, metrics, Recovered::new(), None))
            }
            Settings::Disk { folder, bytes_max, age_max, memory_bytes_max } => {
                let place =
                    |error: &dyn std::fmt::Display| CannotOpen(format!("{}: {error}", folder.display()));
                let disk = disk::Disk::real(folder).map_err(|error| place(&error))?;
                let free_bytes = disk.free_bytes().unwrap_or(u64::MAX);
                let bytes_max = bytes_max.unwrap_or_else(|| BYTES_MAX.min(free_bytes / 2));
                let limits = Limits { bytes_max, age_max: *age_max, memory_bytes_max: *memory_bytes_max };
                let files = disk::Settings::within(bytes_max);
                Journal::open_on(disk, files, limits, sinks, clock, metrics).map_err(|error| place(&error))
            }
        }
    }

    pub(super) fn open_on(
        disk: disk::Disk,
        files: disk::Settings,
        limits: Limits,
        sinks: &[SinkSettings],
        clock: Clock,
        metrics: &Metrics,
    ) -> Result<Arc<Journal>, disk::OpenError> {
        let mut recovered = Recovered::new();
        let (log, opened) =
            disk::Log::open(disk.clone(), files, |at, kind, payload| recovered.replay(at, kind, payload))?;
        recovered.end(&opened);
        let on_disk = OnDisk::new(disk, log, files, &limits, metrics);
        opened.skipped.iter().for_each(|skipped| on_disk.tell_skipped(skipped));
        if recovered.is_damaged {
            on_disk.notice_damage();
        }
        let bytes_max = usize::try_from(limits.bytes_max).unwrap_or(usize::MAX);
        let shares = Shares { bytes_max, memory_bytes_max: limits.memory_bytes_max };
        Ok(Journal::assemble(shares, sinks, clock, metrics, recovered, Some(on_disk)))
    }

    fn assemble(
        shares: Shares,
        sinks: &[SinkSettings],
        clock: Clock,
        metrics: &Metrics,
        mut recovered: Recovered,
        on_disk: Option<OnDisk>,
    ) -> Arc<Journal> {
        assert!(sinks.len() <= super::SINKS_MAX, "the configuration was checked for the number of sinks");
        let named: Vec<String> = sinks.iter().map(|sink| sink.name.clone()).collect();
        let (names, numbers) = recovered.names(&named);
        let ledger = Ledger::new(&names, metrics.tenant_labels.clone());
        metrics.add_collector(Box::new(ledger.clone()));
        let mut queues: Vec<Queue> =
            numbers.iter().take(sinks.len()).map(|number| recovered.queue(*number)).collect();
        queues.resize_with(names.len(), Queue::default);
        let time_ms = recovered.time_ms;
        let next_number = recovered.next;
        let end = on_disk.as_ref().map(OnDisk::end).unwrap_or_default();
        ledger.restore(recovered.accounts.into_iter(), &numbers);
        for (gone, sink) in names.iter().enumerate().skip(sinks.len()) {
            let records = ledger.expire_in_flight(SinkId(gone as u16), "removed");
            if records > 0 {
                tracing::warn!(sink, records, "the sink was removed, and what it had not taken expires");
            }
        }
        // What sinks hold anyway, unless a viewer's hub lags behind all of them.
        let ring_bytes = (shares.bytes_max.min(shares.memory_bytes_max)) / sinks.len().max(1);
        let known = Sinks::new(sinks, names, numbers, shares.bytes_max, shares.memory_bytes_max);
        let journal = Arc::new(Journal {
            ledger,
            node: recovered.node.unwrap_or_else(node),
            sinks: ArcSwap::from_pointee(known),
            shares,
            clock,
            state: Mutex::new(State {
                next_number,
                time_ms,
                round_ms: None,
                is_closed: false,
                queues,
                ring: Ring::new(ring_bytes, next_number),
                end,
                disk_bytes: 0,
                segments: Vec::new(),
                starts: recovered.starts,
                changes: 1,
                wants_marks: false,
            }),
            effects: Mutex::default(),
            followed: Notify::new(),
            recovered_until: next_number,
            on_disk,
        });
        metrics.add_collector(Box::new(journal.clone()));
        journal
    }

    /// Keeps the frame, gives its records their numbers and their time, and settles them in the ledger, at one moment.
    /// On disk, it is safe when this returns.
    ///
    /// Cancelled before it returns, the frame is kept as a whole or not at all.
    pub async fn commit(self: &Arc<Journal>, frame: Frame) -> Result<Committed, CommitRefused> {
        if let Some(on_disk) = &self.on_disk {
            return self.commit_on(on_disk, frame).await;
        }
        let committed = self.keep_in_memory(frame);
        if committed.is_ok() {
            self.notify();
        }
        committed
    }

    pub(super) fn notify(&self) {
        self.sinks.load().known.iter().for_each(|known| known.waiting.notify_one());
        self.followed.notify_waiters();
    }

    fn keep_in_memory(&self, frame: Frame) -> Result<Committed, CommitRefused> {
        let mut state = self.state();
        let refused = if state.is_closed {
            Some(CommitRefused::Stopping)
        } else {
            (!self.has_room(&state, &mut Added::default(), &frame)).then_some(CommitRefused::Behind)
        };
        if let Some(refused) = refused {
            drop(state);
            refuse(frame, refused);
            return Err(refused);
        }
        state.time_ms = state.time_ms.max((self.clock)());
        Ok(self.keep(state, frame, Position::default()))
    }

    /// The moment of the commit: `state` has its number and time.
    pub(super) fn keep(&self, mut state: MutexGuard<'_, State>, frame: Frame, at: Position) -> Committed {
        let first = state.next_number;
        state.changes += 1;
        // The ledger first: once an entry stands in a queue its sink may be done with it.
        self.ledger.settle(frame.settled, &frame.parts);
        for part in frame.parts {
            self.push(&mut state, part, at);
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
        committed
    }

    /// Calls `f` between two commits with the time that the next one would have: what was committed before has taken
    /// effect, and no later frame has an earlier time. Short, and never waits.
    pub fn between_commits<T>(&self, f: impl FnOnce(u64) -> T) -> T {
        let mut state = self.state();
        let time_ms = state.round_ms.unwrap_or_else(|| state.time_ms.max((self.clock)()));
        state.time_ms = time_ms;
        let _turn = self.effects.lock().unwrap_or_else(PoisonError::into_inner);
        drop(state);
        f(time_ms)
    }

    fn push(&self, state: &mut State, part: FramePart, at: Position) {
        let entry = Arc::new(Entry {
            stream: part.stream,
            signal: part.signal,
            first: state.next_number,
            records: part.records,
            time_ms: state.time_ms,
            node: self.node,
            bytes: part.bytes,
        });
        if part.records == 0 {
            return;
        }
        state.next_number += u64::from(part.records);
        state.ring.push(&entry, part.sinks);
        let sinks = self.sinks.load();
        let memory_bytes_max = self.on_disk.as_ref().map_or(usize::MAX, |_| sinks.memory_share_bytes);
        for sink in part.sinks.iter() {
            if sinks.terms(sink).is_none() {
                self.expire_retired(sink, &entry);
            } else if let Some(queue) = state.queues.get_mut(usize::from(sink.0)) {
                queue.push(Waiting { entry: entry.clone(), is_resend: false, at }, memory_bytes_max);
                self.make_room(sink, queue);
            }
        }
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

    /// Whether what is acknowledged outlives the process.
    pub fn is_durable(&self) -> bool {
        self.on_disk.is_some()
    }

    /// From now on nothing is committed.
    pub fn close(&self) {
        self.state().is_closed = true;
    }

    /// Bytes that this sink is charged for, waiting and in flight.
    pub fn charged_bytes(&self, sink: SinkId) -> usize {
        self.state().queues.get(usize::from(sink.0)).map_or(0, |queue| queue.charged_bytes)
    }

    /// The most that this sink may be charged for, in bytes.
    pub fn share_bytes(&self, sink: SinkId) -> usize {
        self.terms(sink).map_or(0, |terms| terms.share_bytes)
    }

    /// What of one sink may be in memory at a time, in bytes.
    pub fn memory_share_bytes(&self) -> usize {
        self.sinks.load().memory_share_bytes
    }

    pub(super) fn waiting(&self, sink: SinkId) -> Option<Arc<Notify>> {
        self.sinks.load().get(sink).map(|known| known.waiting.clone())
    }

    pub(super) fn with_queue<T>(&self, sink: SinkId, f: impl FnOnce(&mut Queue) -> T) -> Option<T> {
        self.state().queues.get_mut(usize::from(sink.0)).map(f)
    }

    /// As [`Journal::with_queue`], where marks will tell of it.
    pub(super) fn change_queue<T>(&self, sink: SinkId, f: impl FnOnce(&mut Queue) -> T) -> Option<T> {
        let mut state = self.state();
        state.changes += 1;
        state.queues.get_mut(usize::from(sink.0)).map(f)
    }

    pub(super) fn followed_of(&self, place: u64) -> Option<Followed> {
        self.state().ring.next(place)
    }

    pub(super) fn finish(&self, sink: SinkId, entry: &Entry, done: &Done) {
        let mut state = self.state();
        state.changes += 1;
        let is_there = state.queues.get_mut(usize::from(sink.0)).is_some_and(|queue| queue.finish(entry));
        // Else it expired meanwhile, and was counted.
        if is_there {
            self.ledger.done(sink, entry, done);
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while the journal is locked")
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("sinks", &self.sinks).finish_non_exhaustive()
    }
}

/// Nothing of it is kept.
pub(super) fn refuse(frame: Frame, refused: CommitRefused) {
    for (mut pending, _) in frame.settled {
        pending.refuse(pending.open(), refused.reason());
    }
}

/// Four random bytes: the keys of a `RandomState` come from the system.
fn node() -> [u8; 4] {
    let random = RandomState::new().hash_one(SystemTime::now());
    (random as u32).to_be_bytes()
}
