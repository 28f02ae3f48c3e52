//! A sink's place in the journal.
//!
//! What a cursor gives out is in flight until somebody finishes it; an [`InFlight`] that is dropped unfinished goes
//! back to its place in the queue, so that no task's end loses a record.

use super::ledger::Done;
use super::queue::{Queue, Waiting};
use super::{Journal, SinkId};
use crate::batch::Entry;
use std::sync::Arc;
use std::time::Duration;

/// How far ahead a cursor looks for entries that join: bounds the work when many tenants take turns.
const LOOK_AHEAD_ENTRIES: usize = 256;

/// The entries of one sink, in order.
#[derive(Debug)]
pub struct Cursor {
    journal: Arc<Journal>,
    sink: SinkId,
}

/// Which entries may be sent at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joining {
    /// Together at most; a larger entry goes alone.
    pub records_max: u64,
    pub bytes_max: usize,
    /// Whether entries of several tenants may stand together. They are always of one signal.
    pub is_across_tenants: bool,
}

impl Cursor {
    pub(super) fn new(journal: Arc<Journal>, sink: SinkId) -> Cursor {
        Cursor { journal, sink }
    }

    pub fn sink(&self) -> SinkId {
        self.sink
    }

    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// The oldest entry that waits and those that join it, in order. Waits for one if there is none, never for more.
    /// Empty if what was to be read from the disk came to nothing: it had expired, or was for others.
    ///
    /// Entries that do not join keep their places: between tenants there is no order to keep. Cancelled, nothing is
    /// taken.
    pub async fn next(&self, joining: Joining) -> Vec<InFlight> {
        let Some(waiting) = self.journal.waiting(self.sink) else { return std::future::pending().await };
        loop {
            let taken = self.try_next(joining);
            if !taken.is_empty() {
                return taken;
            }
            let is_behind = self.journal.start_reading(self.sink);
            // A permit is kept if the commit, or what was read, came between the look and the wait.
            waiting.notified().await;
            if is_behind {
                return self.try_next(joining);
            }
        }
    }

    /// As [`Cursor::next`]; empty if nothing waits in memory.
    pub fn try_next(&self, joining: Joining) -> Vec<InFlight> {
        let taken = self.journal.change_queue(self.sink, |queue| take(queue, joining)).unwrap_or_default();
        let in_flight = |waiting: Waiting| InFlight {
            journal: self.journal.clone(),
            sink: self.sink,
            entry: waiting.entry,
            is_resend: waiting.is_resend,
            is_finished: false,
        };
        taken.into_iter().map(in_flight).collect()
    }

    /// Whether the sink is done with all that was committed.
    pub fn is_done(&self) -> bool {
        self.journal.with_queue(self.sink, |queue| queue.is_done()).unwrap_or(true)
    }
}

fn take(queue: &mut Queue, joining: Joining) -> Vec<Waiting> {
    let Some(oldest) = queue.take(0) else { return Vec::new() };
    let (mut records, mut bytes) = (u64::from(oldest.entry.records), oldest.entry.bytes.len());
    let mut taken = vec![oldest];
    let mut at = 0;
    while at < queue.waiting.len().min(LOOK_AHEAD_ENTRIES) {
        let (first, other) = (&taken[0].entry, &queue.waiting[at].entry);
        if !joins(first, other, joining) {
            at += 1;
            continue;
        }
        records += u64::from(other.records);
        bytes += other.bytes.len();
        // One that would make it too large ends it: a later, smaller one must not overtake.
        if records > joining.records_max || bytes > joining.bytes_max {
            break;
        }
        taken.extend(queue.take(at));
    }
    taken
}

fn joins(first: &Entry, other: &Entry, joining: Joining) -> bool {
    first.signal == other.signal && (joining.is_across_tenants || first.stream.tenant == other.stream.tenant)
}

/// An entry on its way to a sink.
#[derive(Debug)]
pub struct InFlight {
    journal: Arc<Journal>,
    sink: SinkId,
    pub entry: Arc<Entry>,
    /// It may have been sent before.
    pub is_resend: bool,
    is_finished: bool,
}

impl InFlight {
    /// How long the journal still keeps it, whatever its sink does. `None`: no longer than the process.
    pub fn kept_for(&self) -> Option<Duration> {
        self.journal.kept_for(self.sink, &self.entry)
    }

    /// The sink is done with it. The parts of `done` add up to the entry's records.
    pub fn finish(mut self, done: &Done) {
        self.is_finished = true;
        self.journal.finish(self.sink, &self.entry, done);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        self.journal.change_queue(self.sink, |queue| queue.put_back(&self.entry));
        if let Some(waiting) = self.journal.waiting(self.sink) {
            waiting.notify_one();
        }
    }
}
