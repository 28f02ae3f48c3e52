//! What a sink may leave in the journal, and what happens beyond it.
//!
//! Each sink has a share of the bytes and is charged for what it still has to deliver; beyond its share its own oldest
//! entries expire, which neither the sender nor another sink notices. Entries that are being sent stay, since they may
//! arrive: so a share can be exceeded by those (a few deliveries), and an entry larger than a whole share is kept by a
//! sink that has nothing else. Only what would hold the disk beyond its bound expires on its way as well.
//!
//! Of an essential sink nothing expires: what is beyond its share is refused, and the sender waits.

use super::keep::{Frame, Journal, State};
use super::ledger::Done;
use super::queue::{Queue, charge_of};
use super::{SinkId, SinkSettings};
use crate::batch::Entry;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Longer than any process lives.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// What one sink may leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) share_bytes: usize,
    /// Of its own; else the journal's holds.
    age_max_ms: Option<u64>,
    pub(super) is_essential: bool,
}

impl Terms {
    /// Those of all sinks: who names no share has an equal part of what the others leave.
    pub(super) fn of(sinks: &[SinkSettings], bytes_max: usize) -> Vec<Terms> {
        let named =
            |sink: &SinkSettings| sink.bytes_max.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let taken = sinks.iter().filter_map(named).fold(0usize, usize::saturating_add);
        let unnamed = sinks.iter().filter(|sink| named(sink).is_none()).count().max(1);
        let equal = bytes_max.saturating_sub(taken) / unnamed;
        let of = |sink: &SinkSettings| Terms {
            share_bytes: named(sink).unwrap_or(equal),
            age_max_ms: sink.age_max.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            is_essential: sink.is_essential,
        };
        sinks.iter().map(of).collect()
    }
}

/// What the frames of one round add to essential sinks.
#[derive(Default)]
pub(super) struct Added(BTreeMap<SinkId, usize>);

impl Journal {
    pub(super) fn terms(&self, sink: SinkId) -> Option<Terms> {
        self.sinks.load().terms(sink).copied()
    }

    fn is_essential(&self, sink: SinkId) -> bool {
        self.terms(sink).is_some_and(|terms| terms.is_essential)
    }

    /// Whether essential sinks have room for this frame beside what was added before; then it is added as well.
    pub(super) fn has_room(&self, state: &State, added: &mut Added, frame: &Frame) -> bool {
        let parts = || frame.parts.iter().filter(|part| part.records > 0);
        let with = |sink: SinkId| -> usize {
            let to_it = parts().filter(|part| part.sinks.contains(sink));
            to_it.map(|part| charge_of(part.bytes.len())).fold(0, usize::saturating_add)
        };
        let sinks = self.sinks.load();
        let essential = sinks.essential().map(|(sink, terms)| (sink, with(sink), terms.share_bytes));
        let more: Vec<_> = essential.filter(|(_, bytes, _)| *bytes > 0).collect();
        for (sink, bytes, share_bytes) in &more {
            let held = state.queues.get(usize::from(sink.0)).map_or(0, |queue| queue.charged_bytes);
            let held = held + added.0.get(sink).copied().unwrap_or(0);
            // One that is larger than the whole share is taken by a sink that has nothing else.
            if held > 0 && held.saturating_add(*bytes) > *share_bytes {
                return false;
            }
        }
        more.into_iter().for_each(|(sink, bytes, _)| *added.0.entry(sink).or_default() += bytes);
        true
    }

    /// Whether an essential sink is so far behind that the files it still needs fill the disk's bound.
    pub(super) fn is_held(&self, state: &State) -> bool {
        let Some(on_disk) = &self.on_disk else { return false };
        let sinks = self.sinks.load();
        let queues = sinks.essential().filter_map(|(sink, _)| state.queues.get(usize::from(sink.0)));
        let oldest = queues.filter_map(Queue::oldest_segment).min();
        let last = state.segments.last().map_or(0, |(number, _)| *number);
        // The last one is there in any case.
        oldest
            .is_some_and(|oldest| oldest < last && needed_bytes(&state.segments, oldest) > on_disk.bytes_max)
    }

    /// Beyond the share the oldest entries expire, as long as others are left.
    pub(super) fn make_room(&self, sink: SinkId, queue: &mut Queue) {
        let Some(terms) = self.terms(sink).filter(|terms| !terms.is_essential) else { return };
        while queue.charged_bytes > terms.share_bytes && !queue.is_alone() {
            let Some(oldest) = queue.drop_oldest() else { return };
            self.expire(sink, &oldest, "room");
        }
    }

    /// What is beyond the share, too old, or holds a segment beyond the bound of the disk, as far as it is in memory.
    pub(super) fn expire_due(&self, state: &mut State, sink: SinkId) {
        let Some(on_disk) = self.on_disk.as_ref().filter(|_| !self.is_essential(sink)) else { return };
        let now_ms = state.time_ms.max((self.clock)());
        let age_max_ms = self.age_max_ms(sink).unwrap_or(u64::MAX);
        let State { queues, segments, changes, .. } = state;
        let Some(queue) = queues.get_mut(usize::from(sink.0)) else { return };
        let outstanding = queue.charged_bytes;
        self.make_room(sink, queue);
        let is_old = |time_ms: u64| time_ms.saturating_add(age_max_ms) <= now_ms;
        while queue.waiting.front().is_some_and(|oldest| is_old(oldest.entry.time_ms)) {
            let Some(oldest) = queue.drop_oldest() else { break };
            self.expire(sink, &oldest, "age");
        }
        while let Some(oldest) = queue.oldest_segment() {
            let is_last = segments.last().is_none_or(|(number, _)| oldest >= *number);
            let is_within = needed_bytes(segments, oldest) <= on_disk.bytes_max;
            if is_within || is_last || !self.expire_segment(sink, queue, oldest) {
                break;
            }
        }
        *changes += u64::from(queue.charged_bytes != outstanding);
    }

    /// What of this segment is in memory expires, on its way or not. False if that is nothing.
    fn expire_segment(&self, sink: SinkId, queue: &mut Queue, segment: u64) -> bool {
        let flying = queue.in_flight.values().filter(|flying| flying.at.segment <= segment);
        let flying: Vec<Arc<Entry>> = flying.map(|flying| flying.entry.clone()).collect();
        let mut is_any = !flying.is_empty();
        for entry in flying {
            queue.finish(&entry);
            self.expire(sink, &entry, "room");
        }
        while queue.waiting.front().is_some_and(|oldest| oldest.at.segment <= segment) {
            let Some(oldest) = queue.drop_oldest() else { break };
            self.expire(sink, &oldest, "room");
            is_any = true;
        }
        is_any
    }

    fn expire(&self, sink: SinkId, entry: &Entry, reason: &'static str) {
        self.ledger.done(sink, entry, &Done::expired(entry.records, reason));
    }

    /// On disk: after which time what this sink has not taken expires.
    fn age_max_ms(&self, sink: SinkId) -> Option<u64> {
        let on_disk = self.on_disk.as_ref()?;
        Some(self.terms(sink).and_then(|terms| terms.age_max_ms).unwrap_or(on_disk.age_max_ms))
    }

    /// How long this entry is still kept for this sink, whatever the sink does. `None`: no longer than the process.
    pub(super) fn kept_for(&self, sink: SinkId, entry: &Entry) -> Option<Duration> {
        if self.is_essential(sink) {
            return Some(FOR_EVER);
        }
        let until = entry.time_ms.saturating_add(self.age_max_ms(sink)?);
        Some(Duration::from_millis(until.saturating_sub((self.clock)())))
    }

    /// What this sink still has waiting in memory expires with this reason; how many records that were.
    pub fn expire_rest(&self, sink: SinkId, reason: &'static str) -> u64 {
        let mut state = self.state();
        let Some(queue) = state.queues.get_mut(usize::from(sink.0)) else { return 0 };
        let mut records = 0;
        while let Some(oldest) = queue.drop_oldest() {
            records += u64::from(oldest.records);
            self.expire(sink, &oldest, reason);
        }
        state.changes += 1;
        records
    }
}

/// What the files take from this segment on.
fn needed_bytes(segments: &[(u64, u64)], oldest: u64) -> u64 {
    segments.iter().filter(|(number, _)| *number >= oldest).map(|(_, bytes)| bytes).sum()
}
