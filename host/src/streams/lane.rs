//! Where each stream stands between the journal, its store and its viewers.
//!
//! A lane has one write in flight, numbers ascending, and knows which published entries are not stored yet. While
//! somebody views the stream it also has a ring: the entries that not every viewer has taken, bounded in bytes. What
//! goes over the bound is lost to those who have not taken it; they are told, and nobody else notices.
//!
//! All lanes stand behind one lock that is held for moments and never over an await. A lane without viewers whose
//! entries are all stored is forgotten.

use crate::batch::{Entry, RecordId, Stream};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use tokio::sync::watch;

/// Computes the head of an id from a stream; tests put another in to make streams collide.
pub(super) type Hash = fn(&Stream) -> [u8; 8];

/// Bytes of rings: of one, and of all together (then each has an equal share, if that is less).
#[derive(Clone, Copy, Debug)]
pub(super) struct RingBytes {
    pub(super) one: usize,
    pub(super) all: usize,
}

/// However many rings there are, each may hold this much.
const SHARE_MIN: usize = 64 * 1024;
/// What an entry costs beside its bytes.
const SLOT_BYTES: usize = 128;

pub(super) struct Lanes {
    inner: Mutex<Inner>,
    ring_bytes: RingBytes,
    hash: Hash,
    opened_ms: u64,
}

#[derive(Default)]
struct Inner {
    lanes: HashMap<Stream, Lane>,
    published: Option<Published>,
    rings: usize,
}

/// How far the journal's order has been published.
#[derive(Clone, Copy, Debug)]
struct Published {
    time_ms: u64,
    node: [u8; 4],
    below: u64,
}

impl Published {
    fn last(&self, hash: [u8; 8]) -> RecordId {
        RecordId::new(hash, self.time_ms, self.node, self.below.saturating_sub(1))
    }
}

struct Lane {
    hash: [u8; 8],
    /// Every entry of this stream with a smaller number is stored, or was given up.
    stored_below: u64,
    /// Published and not stored, ascending.
    pending: VecDeque<Span>,
    /// Held by the one write in flight, until it has really ended.
    write: Arc<tokio::sync::Mutex<()>>,
    ring: Option<Ring>,
}

/// Numbers of records of one stream: one entry's, or those of many that are told together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    first: u64,
    below: u64,
    records: u64,
    node: [u8; 4],
    /// Of the last record.
    time_ms: u64,
}

/// Spans kept apart; further ones are told together with the last.
const SPANS_MAX: usize = 16 * 1024;

struct Ring {
    viewers: usize,
    slots: VecDeque<Slot>,
    /// The sequence number of the next entry; the front of `slots` has `next - slots.len()`.
    next: u64,
    bytes: usize,
    /// Records ever put in.
    records: u64,
    /// The last record that was lost to somebody.
    evicted: Option<RecordId>,
    /// Published entries that the store will never have.
    given_up: Vec<Span>,
    changed: watch::Sender<()>,
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

/// What a viewer knows from the moment it joined.
pub(super) struct Joined {
    pub(super) cursor: Cursor,
    /// The last record published, of any stream: what comes after it comes through the ring.
    pub(super) last: Option<RecordId>,
    /// No entry that is published later has an earlier time.
    pub(super) time_ms: u64,
    pub(super) hash: [u8; 8],
    pub(super) changed: watch::Receiver<()>,
}

pub(super) enum Taken {
    /// `at` names it for [`Lanes::rendered`].
    Line {
        at: u64,
        line: Arc<Line>,
    },
    /// Records that went over the bound before this viewer took them, and the last of them.
    Lost {
        records: u64,
        last: RecordId,
    },
    Nothing,
}

impl Lanes {
    pub(super) fn new(ring_bytes: RingBytes, hash: Hash, opened_ms: u64) -> Lanes {
        Lanes { inner: Mutex::default(), ring_bytes, hash, opened_ms }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while the lanes are locked")
    }

    pub(super) fn publish(&self, entry: &Arc<Entry>) {
        let mut inner = self.lock();
        let below = entry.first + u64::from(entry.records);
        inner.published = Some(Published { time_ms: entry.time_ms, node: entry.node, below });
        let share = self.ring_bytes.all / inner.rings.max(1);
        let lane = inner.lane(&entry.stream, self.hash);
        if below > lane.stored_below {
            lane.pend(Span::of(entry));
        }
        let hash = lane.hash;
        if let Some(ring) = &mut lane.ring {
            ring.push(entry, hash);
            ring.evict(self.ring_bytes.one.min(share.max(SHARE_MIN)));
            ring.changed.send_replace(());
        }
        inner.forget(&entry.stream);
    }

    /// The locks of these streams' writes. Taken in this order by everybody, so that no two wait for each other.
    pub(super) fn writes<'s>(
        &self,
        streams: impl Iterator<Item = &'s Stream>,
    ) -> Vec<Arc<tokio::sync::Mutex<()>>> {
        let mut inner = self.lock();
        streams.map(|stream| inner.lane(stream, self.hash).write.clone()).collect()
    }

    /// Everything of this stream below `below` is stored.
    pub(super) fn stored(&self, stream: &Stream, below: u64) {
        self.advance(stream, below, false);
    }

    /// What is not stored of this stream below `below` never will be.
    pub(super) fn given_up(&self, stream: &Stream, below: u64) {
        self.advance(stream, below, true);
    }

    fn advance(&self, stream: &Stream, below: u64, is_given_up: bool) {
        let mut inner = self.lock();
        let lane = inner.lane(stream, self.hash);
        lane.stored_below = lane.stored_below.max(below);
        while let Some(&span) = lane.pending.front()
            && span.below <= below
        {
            lane.pending.pop_front();
            if let (true, Some(ring)) = (is_given_up, &mut lane.ring) {
                ring.give_up(span);
            }
        }
        if let Some(ring) = &lane.ring {
            ring.changed.send_replace(());
        }
        inner.forget(stream);
    }

    pub(super) fn join(&self, stream: &Stream) -> Joined {
        let mut inner = self.lock();
        let published = inner.published;
        let lane = inner.lane(stream, self.hash);
        let hash = lane.hash;
        let is_first = lane.ring.is_none();
        let ring = lane.ring.get_or_insert_with(Ring::empty);
        ring.viewers += 1;
        let (cursor, changed) = (ring.end(), ring.changed.subscribe());
        inner.rings += usize::from(is_first);
        Joined {
            cursor,
            last: published.map(|published| published.last(hash)),
            time_ms: published.map_or(self.opened_ms, |published| published.time_ms),
            hash,
            changed,
        }
    }

    /// Moves a viewer who still reads the store to the end of the ring: what it skips it will find in the store.
    /// Returns the last record published; what comes after it comes through the ring.
    pub(super) fn rejoin(&self, stream: &Stream, cursor: &mut Cursor) -> Option<RecordId> {
        let mut inner = self.lock();
        if let Some(ring) = inner.ring(stream) {
            ring.release(cursor);
            // What was given up since the viewer joined stays to be told.
            let given_up = cursor.given_up;
            *cursor = Cursor { given_up, ..ring.end() };
        }
        let published = inner.published?;
        Some(published.last(inner.lane(stream, self.hash).hash))
    }

    pub(super) fn leave(&self, stream: &Stream, cursor: &Cursor) {
        let mut inner = self.lock();
        let Some(ring) = inner.ring(stream) else { return };
        ring.release(cursor);
        ring.viewers -= 1;
        if ring.viewers == 0 {
            inner.lane(stream, self.hash).ring = None;
            inner.rings -= 1;
            inner.forget(stream);
        }
    }

    /// Entries of this stream that were published below `below` and are not stored.
    pub(super) fn pending(&self, stream: &Stream, below: u64) -> Vec<Span> {
        let inner = self.lock();
        let pending = inner.lanes.get(stream).into_iter().flat_map(|lane| &lane.pending);
        pending.take_while(|span| span.first < below).copied().collect()
    }

    /// Whether there are any.
    pub(super) fn is_behind(&self, stream: &Stream, below: u64) -> bool {
        let inner = self.lock();
        let first = inner.lanes.get(stream).and_then(|lane| lane.pending.front());
        first.is_some_and(|span| span.first < below)
    }

    /// Entries below `below` that were given up since this viewer joined. Told once.
    pub(super) fn holes(&self, stream: &Stream, cursor: &mut Cursor, below: u64) -> Vec<Span> {
        let mut inner = self.lock();
        let Some(ring) = inner.ring(stream) else { return Vec::new() };
        let since = ring.given_up.iter().skip(cursor.given_up);
        let holes: Vec<Span> = since.take_while(|span| span.first < below).copied().collect();
        cursor.given_up += holes.len();
        holes
    }

    /// Whether the ring has lost entries that this viewer had not taken.
    pub(super) fn is_lost(&self, stream: &Stream, cursor: &Cursor) -> bool {
        self.lock().ring(stream).is_some_and(|ring| cursor.next < ring.start())
    }

    pub(super) fn take(&self, stream: &Stream, cursor: &mut Cursor) -> Taken {
        let mut inner = self.lock();
        match inner.ring(stream) {
            Some(ring) => ring.take(cursor),
            None => Taken::Nothing,
        }
    }

    /// The entry `at` now holds this many bytes of JSON as well.
    pub(super) fn rendered(&self, stream: &Stream, at: u64, bytes: usize) {
        let mut inner = self.lock();
        let share = self.ring_bytes.all / inner.rings.max(1);
        let Some(ring) = inner.ring(stream) else { return };
        let start = ring.start();
        let Some(slot) = at.checked_sub(start).and_then(|at| ring.slots.get_mut(at as usize)) else { return };
        slot.bytes += bytes;
        ring.bytes += bytes;
        ring.evict(self.ring_bytes.one.min(share.max(SHARE_MIN)));
    }

    /// Forgets lanes that nothing waits for: replayed entries are stored and never published.
    pub(super) fn sweep(&self) {
        let mut inner = self.lock();
        let streams: Vec<Stream> = inner.lanes.keys().cloned().collect();
        for stream in streams {
            inner.forget(&stream);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().lanes.len()
    }
}

impl Inner {
    fn lane(&mut self, stream: &Stream, hash: Hash) -> &mut Lane {
        if !self.lanes.contains_key(stream) {
            self.lanes.insert(stream.clone(), Lane::new(hash(stream)));
        }
        self.lanes.get_mut(stream).expect("it was just put in where it was missing")
    }

    fn ring(&mut self, stream: &Stream) -> Option<&mut Ring> {
        self.lanes.get_mut(stream).and_then(|lane| lane.ring.as_mut())
    }

    fn forget(&mut self, stream: &Stream) {
        // A store that is ahead of the publisher must be remembered until the publisher has passed, or the entry
        // would wait for a write that has long happened.
        let published_below = self.published.map_or(0, |published| published.below);
        let is_idle = self.lanes.get(stream).is_some_and(|lane| {
            lane.ring.is_none()
                && lane.pending.is_empty()
                && lane.stored_below <= published_below
                && Arc::strong_count(&lane.write) == 1
        });
        if is_idle {
            self.lanes.remove(stream);
        }
    }
}

impl Lane {
    fn new(hash: [u8; 8]) -> Lane {
        Lane { hash, stored_below: 0, pending: VecDeque::new(), write: Arc::default(), ring: None }
    }

    fn pend(&mut self, span: Span) {
        let is_full = self.pending.len() >= SPANS_MAX;
        match self.pending.back_mut() {
            Some(last) if is_full => last.join(span),
            _ => self.pending.push_back(span),
        }
    }
}

impl Span {
    fn of(entry: &Entry) -> Span {
        let (first, records) = (entry.first, u64::from(entry.records));
        Span { first, below: first + records, records, node: entry.node, time_ms: entry.time_ms }
    }

    fn join(&mut self, next: Span) {
        *self = Span { first: self.first, records: self.records + next.records, ..next };
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
    fn empty() -> Ring {
        Ring {
            viewers: 0,
            slots: VecDeque::new(),
            next: 0,
            bytes: 0,
            records: 0,
            evicted: None,
            given_up: Vec::new(),
            changed: watch::Sender::new(()),
        }
    }

    fn start(&self) -> u64 {
        self.next - self.slots.len() as u64
    }

    fn end(&self) -> Cursor {
        Cursor { next: self.next, records: self.records, given_up: self.given_up.len() }
    }

    fn push(&mut self, entry: &Arc<Entry>, hash: [u8; 8]) {
        let bytes = entry.bytes.len() + SLOT_BYTES;
        let line = Arc::new(Line { entry: entry.clone(), hash, rendered: OnceLock::new() });
        self.slots.push_back(Slot { line, bytes, waiting: self.viewers, before: self.records });
        self.next += 1;
        self.bytes += bytes;
        self.records += u64::from(entry.records);
    }

    fn give_up(&mut self, span: Span) {
        let is_full = self.given_up.len() >= SPANS_MAX;
        match self.given_up.last_mut() {
            Some(last) if is_full => last.join(span),
            _ => self.given_up.push(span),
        }
    }

    /// The newest entry stays, whatever its size: otherwise a large one would never be seen by anybody.
    fn evict(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max && self.slots.len() > 1 {
            let slot = self.slots.pop_front().expect("there are two at least");
            self.bytes -= slot.bytes;
            let entry = &slot.line.entry;
            self.evicted = Some(entry.record_id(slot.line.hash, entry.records.saturating_sub(1)));
        }
    }

    /// This viewer waits for none of the entries from its place on.
    fn release(&mut self, cursor: &Cursor) {
        let seen = cursor.next.saturating_sub(self.start()) as usize;
        for slot in self.slots.iter_mut().skip(seen) {
            slot.waiting -= 1;
        }
        self.drop_taken();
    }

    fn drop_taken(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.waiting == 0) {
            let slot = self.slots.pop_front().expect("there is one");
            self.bytes -= slot.bytes;
        }
    }

    fn take(&mut self, cursor: &mut Cursor) -> Taken {
        let start = self.start();
        if cursor.next < start {
            let records = self.slots.front().map_or(self.records, |slot| slot.before);
            let lost = records - cursor.records;
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
