//! Which letters there are: their places, and whether they were finished. Twelve bytes each, and nothing of what they
//! say, so that what is in memory is a small part of what is on the disk.

use super::LetterId;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Index {
    segments: BTreeMap<u64, Segment>,
    live: Amount,
}

/// The letters of one segment.
#[derive(Debug, Default)]
struct Segment {
    /// Ascending.
    letters: Vec<Place>,
    live: Amount,
    oldest_ms: u64,
    newest_ms: u64,
}

#[derive(Debug)]
struct Place {
    /// A segment is far smaller than 4 GiB.
    offset: u32,
    records: u32,
    is_finished: bool,
}

/// Letters, and the records in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub letters: u64,
    pub records: u64,
}

impl Amount {
    fn add(&mut self, records: u32) {
        self.letters += 1;
        self.records += u64::from(records);
    }

    fn take(&mut self, of: Amount) {
        self.letters -= of.letters;
        self.records -= of.records;
    }
}

impl Index {
    /// In the order of their places. One that stands where none can stand is left out.
    pub(super) fn add(&mut self, id: LetterId, records: u32, refused_ms: u64) {
        let Ok(offset) = u32::try_from(id.offset) else { return };
        let segment = self.segments.entry(id.segment).or_default();
        if segment.letters.is_empty() {
            segment.oldest_ms = refused_ms;
        }
        segment.oldest_ms = segment.oldest_ms.min(refused_ms);
        segment.newest_ms = segment.newest_ms.max(refused_ms);
        segment.letters.push(Place { offset, records, is_finished: false });
        segment.live.add(records);
        self.live.add(records);
    }

    /// Returns what that was; nothing, if it is not there or was finished before.
    pub(super) fn finish(&mut self, id: LetterId) -> Amount {
        let mut finished = Amount::default();
        let Some(segment) = self.segments.get_mut(&id.segment) else { return finished };
        let Some(place) = segment.find(id).filter(|at| !segment.letters[*at].is_finished) else {
            return finished;
        };
        segment.letters[place].is_finished = true;
        finished.add(segment.letters[place].records);
        segment.live.take(finished);
        self.live.take(finished);
        finished
    }

    pub(super) fn is_live(&self, id: LetterId) -> bool {
        let segment = self.segments.get(&id.segment);
        segment
            .and_then(|segment| segment.find(id).map(|at| &segment.letters[at]))
            .is_some_and(|place| !place.is_finished)
    }

    pub(super) fn live(&self) -> Amount {
        self.live
    }

    /// Behind `after`, up to and with `until`, the oldest first.
    pub(super) fn live_between(
        &self,
        after: Option<LetterId>,
        until: Option<LetterId>,
        count: usize,
    ) -> Vec<LetterId> {
        let from = after.map_or(0, |after| after.segment);
        let all = self.segments.range(from..).flat_map(|(number, segment)| {
            let start = match after.filter(|after| after.segment == *number) {
                Some(after) => {
                    segment.letters.partition_point(|place| u64::from(place.offset) <= after.offset)
                }
                None => 0,
            };
            let live = segment.letters[start..].iter().filter(|place| !place.is_finished);
            live.map(|place| LetterId { segment: *number, offset: place.offset.into() })
        });
        all.take_while(|id| until.is_none_or(|until| *id <= until)).take(count).collect()
    }

    pub(super) fn newest(&self) -> Option<LetterId> {
        self.segments.iter().rev().find_map(|(number, segment)| {
            let place = segment.letters.iter().rev().find(|place| !place.is_finished)?;
            Some(LetterId { segment: *number, offset: place.offset.into() })
        })
    }

    /// Whether anything stands in the files that is not needed, live or not.
    pub(super) fn is_any(&self) -> bool {
        !self.segments.is_empty()
    }

    /// The oldest segment with a letter that was not finished.
    pub(super) fn oldest_needed(&self) -> Option<u64> {
        self.segments.iter().find(|(_, segment)| segment.live.letters > 0).map(|(number, _)| *number)
    }

    /// When the oldest letter of this segment was refused.
    pub(super) fn oldest_ms(&self, segment: u64) -> Option<u64> {
        self.segments.get(&segment).map(|segment| segment.oldest_ms)
    }

    /// The last of the segments, from the oldest on, whose letters were all refused at or before `ms`.
    pub(super) fn last_refused_until(&self, ms: u64) -> Option<u64> {
        let old = self.segments.iter().take_while(|(_, segment)| segment.newest_ms <= ms);
        old.last().map(|(number, _)| *number)
    }

    /// Forgets the segments below this number; returns what of it had not been finished.
    pub(super) fn forget_before(&mut self, segment: u64) -> Amount {
        let rest = self.segments.split_off(&segment);
        let mut lost = Amount::default();
        for (_, gone) in std::mem::replace(&mut self.segments, rest) {
            lost.letters += gone.live.letters;
            lost.records += gone.live.records;
        }
        self.live.take(lost);
        lost
    }
}

impl Segment {
    fn find(&self, id: LetterId) -> Option<usize> {
        let offset = u32::try_from(id.offset).ok()?;
        self.letters.binary_search_by_key(&offset, |place| place.offset).ok()
    }
}
