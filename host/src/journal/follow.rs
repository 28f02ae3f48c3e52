//! Followers: who reads every entry once it is committed, for the live tail.
//!
//! Entries that a follower has not read yet stay in a ring, up to a bound in bytes; one that lags further is told of
//! a hole and goes on behind it. Nobody waits for a follower.

use super::queue::charge;
use super::{Journal, SinkId, SinkSet};
use crate::batch::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// What a follower reads.
#[derive(Clone, Debug)]
pub enum Followed {
    Entry(Arc<Entry>),
    /// Entries that were not read in time: records from number `first` up to, not including, `until`. Some of these
    /// numbers may belong to entries that the follower would not have been given.
    Hole {
        first: u64,
        until: u64,
    },
}

/// Reads every entry that is committed after [`Journal::follow`], in order.
#[derive(Debug)]
pub struct Follower {
    journal: Arc<Journal>,
    place: u64,
}

impl Follower {
    pub(super) fn new(journal: Arc<Journal>, place: u64) -> Follower {
        Follower { journal, place }
    }

    /// The next entry, or the hole before it. Cancelled, nothing is lost.
    pub async fn next(&mut self) -> Followed {
        loop {
            let notified = self.journal.followed.notified();
            if let Some(followed) = self.journal.followed_of(self.place) {
                return followed;
            }
            notified.await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.journal.state().ring.leave(self.place);
    }
}

/// Entries that some follower still has to read.
pub(super) struct Ring {
    bytes_max: usize,
    bytes: usize,
    entries: VecDeque<(Arc<Entry>, SinkSet)>,
    /// The position of the first of `entries`; positions go on by one per entry.
    start: u64,
    /// The number after the last record that left the ring or never was in it.
    gone_until: u64,
    places: HashMap<u64, Place>,
    next_place: u64,
}

struct Place {
    sink: Option<SinkId>,
    position: u64,
    /// The number of the next record that this follower has not heard of.
    number: u64,
}

impl Ring {
    /// `next` is the number of the next record.
    pub(super) fn new(bytes_max: usize, next: u64) -> Ring {
        Ring {
            bytes_max,
            bytes: 0,
            entries: VecDeque::new(),
            start: 0,
            gone_until: next,
            places: HashMap::new(),
            next_place: 0,
        }
    }

    pub(super) fn join(&mut self, sink: Option<SinkId>) -> u64 {
        self.next_place += 1;
        let number = self.entries.back().map_or(self.gone_until, |(entry, _)| until(entry));
        let place = Place { sink, position: self.start + self.entries.len() as u64, number };
        self.places.insert(self.next_place, place);
        self.next_place
    }

    pub(super) fn leave(&mut self, place: u64) {
        self.places.remove(&place);
        self.forget_read();
    }

    pub(super) fn push(&mut self, entry: &Arc<Entry>, sinks: SinkSet) {
        self.bytes += charge(entry);
        self.entries.push_back((entry.clone(), sinks));
        if self.places.is_empty() {
            return self.forget_read();
        }
        while self.bytes > self.bytes_max && self.forget_first() {}
    }

    /// `None`: it has read all there is.
    pub(super) fn next(&mut self, place: u64) -> Option<Followed> {
        let place = self.places.get_mut(&place)?;
        if place.position < self.start {
            let hole = Followed::Hole { first: place.number, until: self.gone_until };
            (place.position, place.number) = (self.start, self.gone_until);
            return Some(hole);
        }
        let mut found = None;
        while let Some((entry, sinks)) = self.entries.get((place.position - self.start) as usize) {
            place.position += 1;
            place.number = until(entry);
            if place.sink.is_none_or(|sink| sinks.contains(sink)) {
                found = Some(Followed::Entry(entry.clone()));
                break;
            }
        }
        self.forget_read();
        found
    }

    fn forget_read(&mut self) {
        let end = self.start + self.entries.len() as u64;
        let read = self.places.values().map(|place| place.position).min().unwrap_or(end);
        while self.start < read && self.forget_first() {}
    }

    fn forget_first(&mut self) -> bool {
        let Some((entry, _)) = self.entries.pop_front() else { return false };
        self.bytes -= charge(&entry);
        self.start += 1;
        self.gone_until = until(&entry);
        true
    }
}

fn until(entry: &Entry) -> u64 {
    entry.first + u64::from(entry.records)
}
