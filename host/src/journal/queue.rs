//! What one sink still has to deliver.
//!
//! Entries are in memory up to a bound in bytes. A queue that is behind has more of them on the disk: all from the
//! place on where it will read on, and none of those is in memory.

use super::disk::Position;
use super::payload::SinkMark;
use crate::batch::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Ascending by number.
    pub(super) waiting: VecDeque<Waiting>,
    /// What a cursor gave out and nobody finished, by first number.
    pub(super) in_flight: BTreeMap<u64, Flying>,
    /// Charged to the sink: all that is outstanding.
    pub(super) charged_bytes: usize,
    /// Of what is in memory, waiting and in flight.
    pub(super) memory_bytes: usize,
    /// Everything from this number on is outstanding. Below it that holds for what is in flight, what waits there,
    /// and what is unread.
    pub(super) frontier: u64,
    /// Where to read on.
    pub(super) behind: Option<Position>,
    pub(super) is_reading: bool,
    /// How often the sink was taken on again: what was read for the one before is not for this one.
    pub(super) turn: u32,
    /// Entries below this number were in memory, or were done before the start.
    pub(super) seen_until: u64,
    /// Except these, which were outstanding at the start and were not read yet.
    pub(super) unread: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) entry: Arc<Entry>,
    /// It may have been sent before.
    pub(super) is_resend: bool,
    pub(super) at: Position,
}

#[derive(Clone, Debug)]
pub(super) struct Flying {
    pub(super) entry: Arc<Entry>,
    pub(super) at: Position,
}

impl Queue {
    /// Nothing that is committed is outstanding.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty() && self.behind.is_none()
    }

    /// Whether the next entry is on the disk and nobody reads it.
    pub(super) fn wants_reading(&self) -> bool {
        self.waiting.is_empty() && self.behind.is_some() && !self.is_reading
    }

    /// A new entry, in order.
    pub(super) fn push(&mut self, waiting: Waiting, memory_bytes_max: usize) {
        let charge = charge(&waiting.entry);
        self.charged_bytes += charge;
        let has_room = self.memory_bytes == 0 || self.memory_bytes + charge <= memory_bytes_max;
        if self.behind.is_none() && has_room {
            self.hold(waiting);
        } else {
            self.behind.get_or_insert(waiting.at);
        }
    }

    /// One that was read and is charged for already.
    pub(super) fn push_read(&mut self, waiting: Waiting) {
        if self.is_outstanding(waiting.entry.first) {
            self.unread.remove(&waiting.entry.first);
            self.hold(waiting);
        }
    }

    /// Of an entry that was read from where the queue is behind.
    pub(super) fn is_outstanding(&self, first: u64) -> bool {
        first >= self.seen_until || self.unread.contains(&first)
    }

    fn hold(&mut self, waiting: Waiting) {
        self.memory_bytes += charge(&waiting.entry);
        self.seen_until = self.seen_until.max(waiting.entry.first + u64::from(waiting.entry.records));
        self.waiting.push_back(waiting);
    }

    /// Moves the one that waits at this place to what is in flight.
    pub(super) fn take(&mut self, at: usize) -> Option<Waiting> {
        let taken = self.waiting.remove(at)?;
        self.frontier = self.frontier.max(taken.entry.first + 1);
        self.in_flight.insert(taken.entry.first, Flying { entry: taken.entry.clone(), at: taken.at });
        Some(taken)
    }

    /// It comes back from its flight to its place.
    pub(super) fn put_back(&mut self, entry: &Entry) {
        let Some(Flying { entry, at }) = self.in_flight.remove(&entry.first) else { return };
        let place = self.waiting.partition_point(|waiting| waiting.entry.first < entry.first);
        self.waiting.insert(place, Waiting { entry, is_resend: true, at });
    }

    /// False if it had expired on its way.
    pub(super) fn finish(&mut self, entry: &Entry) -> bool {
        let is_there = self.in_flight.remove(&entry.first).is_some();
        if is_there {
            self.forget(entry);
        }
        is_there
    }

    /// The oldest that waits is outstanding no more.
    pub(super) fn drop_oldest(&mut self) -> Option<Arc<Entry>> {
        let entry = self.waiting.pop_front()?.entry;
        self.frontier = self.frontier.max(entry.first + 1);
        self.forget(&entry);
        Some(entry)
    }

    fn forget(&mut self, entry: &Entry) {
        let charge = charge(entry);
        self.charged_bytes = self.charged_bytes.saturating_sub(charge);
        self.memory_bytes = self.memory_bytes.saturating_sub(charge);
    }

    /// Whether it is the only one outstanding.
    pub(super) fn is_alone(&self) -> bool {
        self.waiting.len() + self.in_flight.len() <= 1 && self.behind.is_none()
    }

    /// The oldest segment that is still needed.
    pub(super) fn oldest_segment(&self) -> Option<u64> {
        let in_flight = self.in_flight.values().map(|flying| flying.at);
        let waiting = self.waiting.front().map(|waiting| waiting.at);
        in_flight.chain(waiting).chain(self.behind).map(|at| at.segment).min()
    }

    /// `next` is the number of the next record.
    pub(super) fn mark(&self, number: u16, name: &str, next: u64) -> SinkMark {
        let has_all = self.waiting.is_empty() && self.behind.is_none();
        let frontier = if has_all { next } else { self.frontier };
        let waiting = self.waiting.iter().map(|waiting| waiting.entry.first);
        let open = self.in_flight.keys().copied().chain(waiting).chain(self.unread.iter().copied());
        let mut open: Vec<u64> = open.filter(|first| *first < frontier).collect();
        open.sort_unstable();
        let charged_bytes = self.charged_bytes as u64;
        SinkMark { number, name: name.to_owned(), frontier, charged_bytes, open }
    }
}

/// What an entry is charged for beside its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// What an entry costs as long as it is kept.
pub(super) fn charge(entry: &Entry) -> usize {
    charge_of(entry.bytes.len())
}

/// The same, of an entry with so many bytes.
pub(super) fn charge_of(bytes: usize) -> usize {
    bytes + ENTRY_OVERHEAD_BYTES
}
