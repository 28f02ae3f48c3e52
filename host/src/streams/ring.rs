//! What a stream's viewers have still to take.
//!
//! Entries in the journal's order. One that every viewer has taken leaves; one that would make the ring too large
//! leaves with its oldest, lost to those who have not taken it. A ring exists while somebody views its stream.

use crate::batch::{Entry, RecordId};
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;

/// Numbers of records of one stream: one entry's, or those of many that are told together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) first: u64,
    pub(super) below: u64,
    records: u64,
    node: [u8; 4],
    /// Of the last record.
    time_ms: u64,
}

/// What an entry costs beside its bytes.
const SLOT_BYTES: usize = 128;

/// Spans kept of one lane; the oldest ones beyond are kept as one.
pub(super) const SPANS_MAX: usize = 1024;

pub(super) struct Ring {
    pub(super) viewers: usize,
    slots: VecDeque<Slot>,
    /// The sequence number of the next entry; the front of `slots` has `next - slots.len()`.
    next: u64,
    bytes: usize,
    /// Records ever put in.
    records: u64,
    /// The last record that was lost to somebody.
    evicted: Option<RecordId>,
    /// Who has not got to here misses what never came.
    missed_at: u64,
    /// Published entries that the store will never have: the last ones, and how many there were before.
    given_up: VecDeque<Span>,
    given_up_before: usize,
    pub(super) changed: watch::Sender<()>,
}

struct Slot {
    line: Arc<Line>,
    bytes: usize,
    /// Viewers that have not taken it.
    waiting: usize,
    /// Records put in before it.
    before: u64,
}

/// A published entry and, once somebody has needed it, its JSON for all who view the stream.
pub(super) struct Line {
    pub(super) entry: Arc<Entry>,
    pub(super) hash: [u8; 8],
    pub(super) rendered: OnceLock<Arc<[(RecordId, String)]>>,
}

/// A viewer's place in the ring of its stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    next: u64,
    records: u64,
    given_up: usize,
}

pub(super) enum Taken {
    /// `at` names it for [`Ring::note_bytes`].
    Line {
        at: u64,
        line: Arc<Line>,
    },
    /// Records that went over the bound before this viewer took them (0: nobody knows), and the last of them.
    Lost {
        records: u64,
        last: RecordId,
    },
    Nothing,
}

impl Span {
    pub(super) fn of(entry: &Entry) -> Span {
        let (first, records) = (entry.first, u64::from(entry.records));
        Span { first, below: first + records, records, node: entry.node, time_ms: entry.time_ms }
    }

    pub(super) fn joined(self, next: Span) -> Span {
        Span { first: self.first, records: self.records + next.records, ..next }
    }

    /// Whether this record comes after all of it.
    pub(super) fn is_before(&self, id: &RecordId) -> bool {
        self.node == id.node() && self.below <= id.number()
    }

    /// How many of its records a viewer lacks who has had `last` of this node.
    pub(super) fn missing(&self, last: Option<u64>) -> u64 {
        let seen_below = last.map_or(0, |last| last + 1);
        self.records.min(self.below.saturating_sub(seen_below))
    }

    pub(super) fn node(&self) -> [u8; 4] {
        self.node
    }

    pub(super) fn last_id(&self, hash: [u8; 8]) -> RecordId {
        RecordId::new(hash, self.time_ms, self.node, self.below - 1)
    }
}

impl Ring {
    pub(super) fn empty() -> Ring {
        Ring {
            viewers: 0,
            slots: VecDeque::new(),
            next: 0,
            bytes: 0,
            records: 0,
            evicted: None,
            missed_at: 0,
            given_up: VecDeque::new(),
            given_up_before: 0,
            changed: watch::Sender::new(()),
        }
    }

    fn start(&self) -> u64 {
        self.next - self.slots.len() as u64
    }

    pub(super) fn end(&self) -> Cursor {
        Cursor {
            next: self.next,
            records: self.records,
            given_up: self.given_up_before + self.given_up.len(),
        }
    }

    pub(super) fn push(&mut self, entry: &Arc<Entry>, hash: [u8; 8]) {
        let bytes = entry.bytes.len() + SLOT_BYTES;
        let line = Arc::new(Line { entry: entry.clone(), hash, rendered: OnceLock::new() });
        self.slots.push_back(Slot { line, bytes, waiting: self.viewers, before: self.records });
        self.next += 1;
        self.bytes += bytes;
        self.records += u64::from(entry.records);
    }

    pub(super) fn give_up(&mut self, span: Span) {
        self.given_up.push_back(span);
        if self.given_up.len() > SPANS_MAX {
            self.given_up.pop_front();
            self.given_up_before += 1;
        }
    }

    /// The newest entry stays, whatever its size: otherwise a large one would never be seen by anybody.
    pub(super) fn evict(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max && self.slots.len() > 1 {
            let slot = self.slots.pop_front().expect("there are two at least");
            self.bytes -= slot.bytes;
            let entry = &slot.line.entry;
            self.evicted = Some(entry.record_id(slot.line.hash, entry.records.saturating_sub(1)));
        }
    }

    pub(super) fn holes(&self, cursor: &mut Cursor, below: u64) -> Vec<Span> {
        cursor.given_up = cursor.given_up.max(self.given_up_before);
        let since = self.given_up.iter().skip(cursor.given_up - self.given_up_before);
        let holes: Vec<Span> = since.take_while(|span| span.first < below).copied().collect();
        cursor.given_up += holes.len();
        holes
    }

    pub(super) fn has_lost(&self, cursor: &Cursor) -> bool {
        cursor.next < self.start()
    }

    /// Moves a viewer behind the newest entry. What was given up since it joined stays to be told.
    pub(super) fn skip_to_end(&mut self, cursor: &mut Cursor) {
        self.release(cursor);
        *cursor = Cursor { given_up: cursor.given_up, ..self.end() };
    }

    /// This viewer waits for none of the entries from its place on.
    pub(super) fn release(&mut self, cursor: &Cursor) {
        let seen = cursor.next.saturating_sub(self.start()) as usize;
        for slot in self.slots.iter_mut().skip(seen) {
            slot.waiting -= 1;
        }
        self.drop_taken();
    }

    /// The entry `at` now holds this many bytes of JSON as well.
    pub(super) fn note_bytes(&mut self, at: u64, bytes: usize) {
        let start = self.start();
        if let Some(slot) = at.checked_sub(start).and_then(|at| self.slots.get_mut(at as usize)) {
            slot.bytes += bytes;
            self.bytes += bytes;
        }
    }

    /// Entries up to record `last` never came: every viewer is told, and nobody knows how many were of this stream.
    pub(super) fn miss(&mut self, last: RecordId) {
        self.slots.clear();
        self.bytes = 0;
        self.next += 1;
        self.evicted = Some(last);
        self.missed_at = self.next;
    }

    fn drop_taken(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.waiting == 0) {
            let slot = self.slots.pop_front().expect("there is one");
            self.bytes -= slot.bytes;
        }
    }

    pub(super) fn take(&mut self, cursor: &mut Cursor) -> Taken {
        let start = self.start();
        if cursor.next < start {
            let records = self.slots.front().map_or(self.records, |slot| slot.before);
            let lost = if cursor.next < self.missed_at { 0 } else { records - cursor.records };
            *cursor = Cursor { next: start, records, ..*cursor };
            let last = self.evicted.expect("what is gone without being taken was evicted");
            return Taken::Lost { records: lost, last };
        }
        let Some(slot) = self.slots.get_mut((cursor.next - start) as usize) else { return Taken::Nothing };
        slot.waiting -= 1;
        let line = slot.line.clone();
        let at = cursor.next;
        cursor.next += 1;
        cursor.records += u64::from(line.entry.records);
        self.drop_taken();
        Taken::Line { at, line }
    }
}
