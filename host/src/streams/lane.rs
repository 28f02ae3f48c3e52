//! Where each stream stands between the journal, its store and its viewers.
//!
//! A lane has one write in flight, numbers ascending, and knows which published entries are not stored yet. While
//! somebody views the stream it also has a ring: the entries that not every viewer has taken, bounded in bytes. What
//! goes over the bound is lost to those who have not taken it; they are told, and nobody else notices.
//!
//! All lanes stand behind one lock that is held for moments and never over an await. A lane without viewers whose
//! entries are all stored is forgotten.

use super::ring::{Cursor, Ring, SPANS_MAX, Span, Taken};
use crate::batch::{Entry, RecordId, Stream};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
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
    /// Given up before they were published: from this number, below that one.
    given_up: VecDeque<(u64, u64)>,
    /// Held by the one write in flight, until it has really ended.
    write: Arc<tokio::sync::Mutex<()>>,
    ring: Option<Ring>,
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

impl Lanes {
    pub(super) fn new(ring_bytes: RingBytes, hash: Hash, opened_ms: u64) -> Lanes {
        Lanes { inner: Mutex::default(), ring_bytes, hash, opened_ms }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while the lanes are locked")
    }

    /// What one ring may hold.
    fn bytes_max(&self, inner: &Inner) -> usize {
        let share = self.ring_bytes.all / inner.rings.max(1);
        self.ring_bytes.one.min(share.max(SHARE_MIN))
    }

    pub(super) fn publish(&self, entry: &Arc<Entry>) {
        if entry.records == 0 {
            return;
        }
        let mut inner = self.lock();
        let below = entry.first + u64::from(entry.records);
        inner.published = Some(Published { time_ms: entry.time_ms, node: entry.node, below });
        let bytes_max = self.bytes_max(&inner);
        let lane = inner.lane(&entry.stream, self.hash);
        if below > lane.stored_below {
            lane.pend(Span::of(entry));
        }
        let (hash, is_given_up) = (lane.hash, lane.is_given_up(entry.first, below));
        if let Some(ring) = &mut lane.ring {
            if is_given_up {
                ring.give_up(Span::of(entry));
            }
            ring.push(entry, hash);
            ring.evict(bytes_max);
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

    /// Entries up to number `until`, not including it, were not published and never will be.
    pub(super) fn miss(&self, until: u64) {
        let mut inner = self.lock();
        let Some(published) = &mut inner.published else { return };
        published.below = published.below.max(until);
        let published = *published;
        for lane in inner.lanes.values_mut() {
            if let Some(ring) = &mut lane.ring {
                ring.miss(published.last(lane.hash));
                ring.changed.send_replace(());
            }
        }
    }

    /// The entries of this stream that begin with these numbers, ascending, are stored, and all below `below` were before or are
    /// given up: writes ascend.
    pub(super) fn stored(&self, stream: &Stream, firsts: &[u64], below: u64) {
        self.advance(stream, below, |span| firsts.binary_search(&span.first).is_err());
    }

    /// What is not stored of this stream below `below` never will be.
    pub(super) fn given_up(&self, stream: &Stream, below: u64) {
        {
            let mut inner = self.lock();
            let lane = inner.lane(stream, self.hash);
            if below > lane.stored_below && lane.given_up.len() < SPANS_MAX {
                lane.given_up.push_back((lane.stored_below, below));
            }
        }
        self.advance(stream, below, |_| true);
    }

    fn advance(&self, stream: &Stream, below: u64, is_given_up: impl Fn(&Span) -> bool) {
        let mut inner = self.lock();
        let lane = inner.lane(stream, self.hash);
        lane.stored_below = lane.stored_below.max(below);
        while let Some(span) = lane.pending.pop_front_if(|span| span.below <= below) {
            if let Some(ring) = lane.ring.as_mut().filter(|_| is_given_up(&span)) {
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
            ring.skip_to_end(cursor);
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

    /// Whether the first of these spans is still not stored.
    pub(super) fn is_stuck(&self, stream: &Stream, pending: &[Span]) -> bool {
        let inner = self.lock();
        let first = inner.lanes.get(stream).and_then(|lane| lane.pending.front());
        first.map(|span| span.first) == pending.first().map(|span| span.first)
    }

    /// Entries below `below` that were given up since this viewer joined. Told once.
    pub(super) fn holes(&self, stream: &Stream, cursor: &mut Cursor, below: u64) -> Vec<Span> {
        self.lock().ring(stream).map(|ring| ring.holes(cursor, below)).unwrap_or_default()
    }

    /// Whether the ring has lost entries that this viewer had not taken.
    pub(super) fn is_lost(&self, stream: &Stream, cursor: &Cursor) -> bool {
        self.lock().ring(stream).is_some_and(|ring| ring.has_lost(cursor))
    }

    pub(super) fn take(&self, stream: &Stream, cursor: &mut Cursor) -> Taken {
        let mut inner = self.lock();
        match inner.ring(stream) {
            Some(ring) => ring.take(cursor),
            None => Taken::Nothing,
        }
    }

    /// The entry `at` of the ring now holds this many bytes of JSON as well.
    pub(super) fn rendered(&self, stream: &Stream, at: u64, bytes: usize) {
        let mut inner = self.lock();
        let bytes_max = self.bytes_max(&inner);
        if let Some(ring) = inner.ring(stream) {
            ring.note_bytes(at, bytes);
            ring.evict(bytes_max);
        }
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
        Lane {
            hash,
            stored_below: 0,
            pending: VecDeque::new(),
            given_up: VecDeque::new(),
            write: Arc::default(),
            ring: None,
        }
    }

    /// Whether an entry that is published only now was given up before.
    fn is_given_up(&mut self, first: u64, below: u64) -> bool {
        while self.given_up.front().is_some_and(|(_, end)| *end <= first) || self.given_up.len() > SPANS_MAX {
            self.given_up.pop_front();
        }
        self.given_up.front().is_some_and(|(start, end)| *start <= first && below <= *end)
    }

    fn pend(&mut self, span: Span) {
        self.pending.push_back(span);
        if self.pending.len() > SPANS_MAX
            && let Some(oldest) = self.pending.pop_front()
            && let Some(next) = self.pending.front_mut()
        {
            *next = oldest.joined(*next);
        }
    }
}
