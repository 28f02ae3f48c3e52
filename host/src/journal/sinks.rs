//! The sinks that the journal knows, by their numbers in this process.
//!
//! They change while it runs: one more begins at the head, one that is retired gives its share back, and what it had not
//! taken expires. A number belongs to one name as long as the process lives, since requests on their way still hold it.

use super::expire::Terms;
use super::keep::Journal;
use super::ledger::Done;
use super::queue::Queue;
use super::{SINKS_MAX, SinkId, SinkSettings};
use crate::batch::Entry;
use std::sync::Arc;
use tokio::sync::Notify;

/// All of them, at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sinks {
    pub(super) known: Vec<Known>,
    /// What of one sink may be in memory, in bytes.
    pub(super) memory_share_bytes: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) name: String,
    /// In the journal's files.
    pub(super) number: u16,
    /// `None`: it is gone.
    pub(super) terms: Option<Terms>,
    /// Something waits for it.
    pub(super) waiting: Arc<Notify>,
}

/// The journal has known too many names. Those that are gone keep their place, since what they took is in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal has known {SINKS_MAX} sinks, and has no place for the name of another")]
pub struct TooManySinks;

impl Sinks {
    /// At a start: `names` and `numbers` are those of `sinks` first, then of those that are gone.
    pub(super) fn new(
        sinks: &[SinkSettings],
        names: Vec<String>,
        numbers: Vec<u16>,
        bytes_max: usize,
        memory_bytes_max: usize,
    ) -> Sinks {
        let terms = Terms::of(sinks, bytes_max).into_iter().map(Some).chain(std::iter::repeat(None));
        let known = |((name, number), terms)| Known { name, number, terms, waiting: Arc::default() };
        let known = names.into_iter().zip(numbers).zip(terms).map(known).collect();
        Sinks { known, memory_share_bytes: memory_bytes_max / sinks.len().max(1) }
    }

    pub(super) fn get(&self, sink: SinkId) -> Option<&Known> {
        self.known.get(usize::from(sink.0))
    }

    pub(super) fn terms(&self, sink: SinkId) -> Option<&Terms> {
        self.get(sink)?.terms.as_ref()
    }

    /// Those of which nothing expires.
    pub(super) fn essential(&self) -> impl Iterator<Item = (SinkId, &Terms)> {
        let terms = self.known.iter().enumerate().filter_map(|(at, known)| Some((at, known.terms.as_ref()?)));
        terms.filter(|(_, terms)| terms.is_essential).map(|(at, terms)| (SinkId(at as u16), terms))
    }

    pub(super) fn numbers(&self) -> Vec<u16> {
        self.known.iter().map(|known| known.number).collect()
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.known.iter().position(|known| known.name == name)
    }
}

impl Journal {
    /// From now on these are the sinks, beside those that were there before and are not yet retired; their numbers, in this
    /// order. A new one starts at the head.
    pub fn take_on(&self, sinks: &[SinkSettings]) -> Result<Vec<SinkId>, TooManySinks> {
        let mut state = self.state();
        let mut next = Sinks::clone(&self.sinks.load());
        let (mut ids, mut is_new) = (Vec::new(), false);
        for (sink, terms) in sinks.iter().zip(Terms::of(sinks, self.shares.bytes_max)) {
            let at = next.position(&sink.name).unwrap_or(next.known.len());
            if at == next.known.len() {
                let number = next.known.iter().map(|known| known.number).max().map_or(0, |last| last + 1);
                let name = sink.name.clone();
                next.known.push(Known { name, number, terms: None, waiting: Arc::default() });
                is_new = true;
            }
            if next.known[at].terms.is_none() {
                let head = state.next_number;
                state.queues.resize_with(next.known.len(), Queue::default);
                let turn = state.queues[at].turn;
                state.queues[at] = Queue { frontier: head, seen_until: head, turn, ..Queue::default() };
            }
            next.known[at].terms = Some(terms);
            ids.push(SinkId(at as u16));
        }
        if is_new && next.known.len() > SINKS_MAX {
            state.queues.truncate(self.sinks.load().known.len());
            return Err(TooManySinks);
        }
        next.memory_share_bytes = self.shares.memory_bytes_max / sinks.len().max(1);
        self.ledger.name_sinks(next.known.iter().map(|known| known.name.clone()).collect());
        self.sinks.store(Arc::new(next));
        state.changes += 1;
        state.wants_marks |= is_new;
        Ok(ids)
    }

    /// This sink takes nothing more: what it has not taken expires, and so does what still comes for it. Its cursor has
    /// ended before.
    pub fn retire(&self, sink: &str) {
        let mut state = self.state();
        let mut next = Sinks::clone(&self.sinks.load());
        let Some(at) = next.position(sink) else { return };
        next.known[at].terms = None;
        if let Some(queue) = state.queues.get_mut(at) {
            *queue = Queue { turn: queue.turn + 1, ..Queue::default() };
        }
        self.sinks.store(Arc::new(next));
        state.changes += 1;
        let records = self.ledger.expire_in_flight(SinkId(at as u16), "removed");
        if records > 0 {
            tracing::warn!(sink, records, "the sink was removed, and what it had not taken expires");
        }
    }

    /// Of a request that was on its way when the sink was retired.
    pub(super) fn expire_retired(&self, sink: SinkId, entry: &Entry) {
        self.ledger.done(sink, entry, &Done::expired(entry.records, "removed"));
    }
}
