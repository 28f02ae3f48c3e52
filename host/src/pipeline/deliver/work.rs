//! One delivery: what is refused as a whole is halved until the records at fault stand alone.
//!
//! Between entries first, then within one; the first half first, so that the order is kept. An entry whose parts went
//! separately is finished once, when the last of them is done. Dropped before, it goes back whole: what was sent of it
//! is sent again.

use super::cut;
use super::lane::{Attempted, Lane};
use crate::batch::Entry;
use crate::journal::{Done, InFlight};
use crate::sinks::{Sending, Sent};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;

/// Refusals in a row, and nothing taken between, after which what is refused is halved no further: on the way down to
/// one record of 8,192 there are 13. What is left is still asked for, as it stands, so that one entry with nothing but
/// bad records costs no other.
const REFUSALS_IN_A_ROW_MAX: u32 = 32;
/// The same for all refusals of a delivery: one bad record of two must not hold up the sink for long.
const REFUSALS_MAX: u32 = 1000;

/// Until all entries are finished.
pub(super) async fn deliver(lane: Lane, entries: Vec<InFlight>) {
    let mut work = Work::of(entries);
    while let Some(mut group) = work.groups.pop() {
        let can_be_halved = work.can_be_halved(&group);
        match lane.attempts(&mut group, can_be_halved).await {
            Attempted::Taken(sent) => {
                work.refused_in_a_row = 0;
                work.taken(&lane, group, sent).await;
            }
            Attempted::Smaller => work.halve(group).await,
            Attempted::Rejected { .. } if can_be_halved => work.halve(group).await,
            Attempted::Rejected { reason, message } => {
                work.count_refusal();
                work.give_up(&lane, group, reason, &message).await;
            }
            Attempted::RejectedAny { reason, message } => {
                work.give_up(&lane, group, reason, &message).await;
            }
            Attempted::Expired => {
                for (part, done) in group.iter().zip(lane.expire(&group)) {
                    work.settle(part.flight, &part.sending.entry, &done);
                }
            }
        }
    }
}

/// A part of an entry that is sent on its own: at first, all of it.
#[derive(Debug)]
pub(super) struct Part {
    /// Of which entry.
    flight: usize,
    pub(super) sending: Sending,
    /// Of the entry.
    pub(super) kept_for: Option<Duration>,
}

/// An entry, and what became of those of its records that are done.
#[derive(Debug)]
struct Flight {
    in_flight: InFlight,
    left: u32,
    done: Done,
}

#[derive(Debug)]
pub(super) struct Work {
    /// `None`: finished.
    flights: Vec<Option<Flight>>,
    /// What is to be sent, each at once; the last is next.
    pub(super) groups: Vec<Vec<Part>>,
    refused_in_a_row: u32,
    refused: u32,
}

impl Work {
    pub(super) fn of(entries: Vec<InFlight>) -> Work {
        let part = |(flight, in_flight): (usize, &InFlight)| Part {
            flight,
            sending: Sending { entry: in_flight.entry.clone(), is_resend: in_flight.is_resend },
            kept_for: in_flight.kept_for(),
        };
        let groups = vec![entries.iter().enumerate().map(part).collect()];
        let flight = |in_flight: InFlight| {
            let left = in_flight.entry.records;
            Some(Flight { in_flight, left, done: Done::default() })
        };
        Work { flights: entries.into_iter().map(flight).collect(), groups, refused_in_a_row: 0, refused: 0 }
    }

    fn can_be_halved(&self, group: &[Part]) -> bool {
        let is_one = group.len() == 1 && group.iter().all(|part| part.sending.entry.records < 2);
        let is_spent = self.refused_in_a_row >= REFUSALS_IN_A_ROW_MAX || self.refused >= REFUSALS_MAX;
        !is_one && !is_spent
    }

    fn count_refusal(&mut self) {
        self.refused += 1;
        self.refused_in_a_row += 1;
    }

    /// It was refused, and can be halved: both halves are next.
    async fn halve(&mut self, mut group: Vec<Part>) {
        self.count_refusal();
        if group.len() > 1 {
            let second = group.split_off(group.len() / 2);
            self.groups.extend([second, group]);
            return;
        }
        let Some(Part { flight, sending, kept_for }) = group.pop() else { return };
        let middle = sending.entry.records / 2;
        let halves = cut::runs(&sending.entry, vec![0..middle, middle..sending.entry.records]).await;
        let part = |entry| {
            let sending = Sending { entry: Arc::new(entry), is_resend: sending.is_resend };
            vec![Part { flight, sending, kept_for }]
        };
        self.groups.extend(halves.into_iter().rev().map(part));
    }

    /// No part of it will be sent again.
    async fn give_up(&mut self, lane: &Lane, group: Vec<Part>, reason: &'static str, message: &str) {
        // At once: they are kept by one sync.
        let giving_up: Vec<_> =
            group.iter().map(|part| lane.give_up(&part.sending.entry, reason, message)).collect();
        let dones = join_all(giving_up).await;
        for (part, done) in group.iter().zip(dones) {
            let entry = &part.sending.entry;
            lane.sink.skip(entry);
            self.settle(part.flight, entry, &done);
        }
    }

    /// Counts an answer: what it names by number, then what it only counts, in order; the rest was delivered.
    pub(super) async fn taken(&mut self, lane: &Lane, group: Vec<Part>, sent: Sent) {
        let named = named(&sent);
        let (mut unnamed, mut unsupported) = (sent.rejected_unnamed, sent.unsupported);
        for part in group {
            let entry = &part.sending.entry;
            let from = named.partition_point(|(number, _)| *number < entry.first);
            let to = named.partition_point(|(number, _)| *number < entry.first + u64::from(entry.records));
            let mut done = Done::default();
            let mut refused = Vec::new();
            for (number, fate) in &named[from..to] {
                match fate {
                    Fate::Unsupported => done.unsupported += 1,
                    Fate::Rejected(reason) => refused.push(((number - entry.first) as u32, *reason)),
                }
            }
            let mut left = u64::from(entry.records) - (to - from) as u64;
            let counted = take(&mut left, &mut unnamed);
            if counted > 0 {
                *done.rejected.entry("refused".into()).or_default() += counted;
            }
            done.unsupported += take(&mut left, &mut unsupported);
            done.delivered = left;
            for (refused, reason) in cut::refused(entry, refused).await {
                done.add(&lane.give_up(&refused, reason, "").await);
            }
            self.settle(part.flight, entry, &done);
        }
    }

    /// This part of it is done.
    fn settle(&mut self, at: usize, part: &Entry, done: &Done) {
        let Some(slot) = self.flights.get_mut(at) else { return };
        if let Some(flight) = slot {
            flight.done.add(done);
            flight.left = flight.left.saturating_sub(part.records);
        }
        if let Some(Flight { in_flight, done, .. }) = slot.take_if(|flight| flight.left == 0) {
            in_flight.finish(&done);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Rejected(&'static str),
    Unsupported,
}

/// By number, each once.
fn named(sent: &Sent) -> Vec<(u64, Fate)> {
    let rejected = sent.rejected.iter().map(|(number, reason)| (*number, Fate::Rejected(reason)));
    let unsupported = sent.unsupported_named.iter().map(|number| (*number, Fate::Unsupported));
    let mut named: Vec<_> = rejected.chain(unsupported).collect();
    named.sort_by_key(|(number, _)| *number);
    named.dedup_by_key(|(number, _)| *number);
    named
}

/// Moves as much as both have.
fn take(left: &mut u64, from: &mut u64) -> u64 {
    let taken = (*left).min(*from);
    *left -= taken;
    *from -= taken;
    taken
}
