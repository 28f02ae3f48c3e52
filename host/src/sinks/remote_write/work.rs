//! How far a delivery is: what was answered is not sent again, whatever happens to the rest.
//!
//! Remote-write 1.0 refuses a request as a whole, so a refused one is halved until the sample that is wrong stands
//! alone: between tenants first, then between series, then within one. `target_info` is taken apart from the records
//! before that; its refusal is no record's fault.
//!
//! A request whose answer was lost is sent again as it was. Said to be out of order or a duplicate, it is there
//! already; but one wrong sample in it would sound the same, with nothing stored. So single series with several samples
//! are asked for: such a series is taken if it was not stored, and refused if it was. If all of those asked are refused,
//! the whole is presumed stored, after four requests at most instead of two for each series.
//!
//! Pure: knows no network and no clock.

use super::answer::Refusal;
use super::portion::{NO_RECORD, Portion};
use super::translate::{Entries, Place, Translated};
use crate::batch::Entry;
use crate::sinks::{Sending, Sent};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Series that are asked for before a refused resend is presumed stored: the first, the middle and the last.
const WITNESSES: usize = 3;
/// Refused requests of one tenant in a portion, before what is refused is halved no further: one bad series among
/// 10,000 takes 14, and a tenant with nothing but bad ones must not hold up the others for long.
const REFUSALS_MAX: u32 = 1000;

/// The delivery that is on its way.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// With whether each was sent before this work began.
    entries: Entries,
    /// Where the next portion begins.
    place: Option<Place>,
    portion: Arc<Portion>,
    /// What is still to be sent of the portion; the last is next.
    steps: Vec<Step>,
    /// The step on top was sent, and no answer came.
    is_asked: bool,
    /// Refused requests by owner.
    refusals: HashMap<u32, u32>,
    fates: Fates,
}

#[derive(Clone, Debug)]
enum Step {
    Send(Group),
    /// Asks for single series, the last first, whether the whole is there.
    Probe {
        whole: Range<usize>,
        witnesses: Vec<Range<usize>>,
    },
}

/// Samples to be sent at once.
#[derive(Clone, Debug)]
struct Group {
    range: Range<usize>,
    /// They may be there already.
    is_resend: bool,
    /// It is known that not all of them are there, or nothing can tell.
    is_probed: bool,
}

/// What became of records.
#[derive(Debug, Default)]
struct Fates {
    rejected: Vec<(u64, &'static str)>,
    presumed: Vec<u64>,
    unsupported: Vec<u64>,
}

impl Work {
    pub(super) fn of(entries: &[Sending]) -> Work {
        let entries = entries.iter().map(|sending| (sending.entry.clone(), sending.is_resend)).collect();
        Work { entries, place: Some(Place::default()), ..Work::default() }
    }

    /// Whether it is the work of this delivery.
    pub(super) fn is_of(&self, entries: &[Sending]) -> bool {
        let same = |(mine, other): (&(Arc<Entry>, bool), &Sending)| Arc::ptr_eq(&mine.0, &other.entry);
        !self.entries.is_empty()
            && self.entries.len() == entries.len()
            && self.entries.iter().zip(entries).all(same)
    }

    /// What is to be translated next, once [`Work::next`] has nothing; `None` if all is done.
    pub(super) fn untranslated(&self) -> Option<(Entries, Place)> {
        self.place.map(|place| (self.entries.clone(), place))
    }

    /// Takes the portion that begins where [`Work::untranslated`] said.
    pub(super) fn begin(&mut self, translated: Translated) {
        let place = self.place.unwrap_or_default();
        let is_resend = self.entries.get(place.entry).is_some_and(|(_, is_resend)| *is_resend);
        let rejected = translated.rejected.iter().map(|(record, refusal)| (*record, refusal.word()));
        self.fates.rejected.extend(rejected);
        self.fates.unsupported.extend(translated.unsupported);
        let range = 0..translated.portion.samples.len();
        self.portion = Arc::new(translated.portion);
        self.place = translated.next;
        self.refusals.clear();
        self.push(range, is_resend, false);
    }

    /// The samples to be sent next. From now on they may have arrived.
    pub(super) fn next(&mut self) -> Option<(Arc<Portion>, Range<usize>)> {
        if std::mem::take(&mut self.is_asked) {
            self.lost();
        }
        let range = match self.steps.last()? {
            Step::Send(group) => group.range.clone(),
            Step::Probe { whole, witnesses } => witnesses.last().unwrap_or(whole).clone(),
        };
        self.is_asked = true;
        Some((self.portion.clone(), range))
    }

    /// The answer to what was sent last never came.
    fn lost(&mut self) {
        match self.steps.pop() {
            None => {}
            Some(Step::Send(group)) => self.steps.push(Step::Send(Group { is_resend: true, ..group })),
            // This witness may be stored by now, and tells nothing any more.
            Some(Step::Probe { whole, mut witnesses }) => {
                witnesses.pop();
                match witnesses.is_empty() {
                    true => self
                        .halve(Group { range: whole, is_resend: true, is_probed: true }, Refusal::OutOfOrder),
                    false => self.steps.push(Step::Probe { whole, witnesses }),
                }
            }
        }
    }

    /// What [`Work::next`] gave cannot have arrived.
    pub(super) fn unsent(&mut self) {
        self.is_asked = false;
    }

    /// What [`Work::next`] gave was taken.
    pub(super) fn taken(&mut self) {
        self.is_asked = false;
        if let Some(Step::Probe { whole, witnesses }) = self.steps.pop() {
            // It was not there; so the rest is not there either.
            let stored = witnesses.last().cloned().unwrap_or(whole.end..whole.end);
            self.push(stored.end..whole.end, false, true);
            self.push(whole.start..stored.start, false, true);
        }
    }

    /// What [`Work::next`] gave was refused.
    pub(super) fn refused(&mut self, refusal: Refusal) {
        self.is_asked = false;
        match self.steps.pop() {
            None => {}
            Some(Step::Send(group)) => self.refused_group(group, refusal),
            Some(Step::Probe { whole, mut witnesses }) => {
                witnesses.pop();
                if !refusal.is_there_already() {
                    self.halve(Group { range: whole, is_resend: true, is_probed: true }, refusal);
                } else if witnesses.is_empty() {
                    self.settle(whole, true, refusal);
                } else {
                    self.steps.push(Step::Probe { whole, witnesses });
                }
            }
        }
    }

    /// Nothing of the portion will be taken.
    pub(super) fn refused_any(&mut self, refusal: Refusal) {
        self.is_asked = false;
        for step in std::mem::take(&mut self.steps) {
            match step {
                Step::Send(group) => self.settle(group.range, false, refusal),
                Step::Probe { whole, .. } => self.settle(whole, false, refusal),
            }
        }
    }

    fn refused_group(&mut self, group: Group, refusal: Refusal) {
        let Group { range, is_resend, is_probed } = group.clone();
        let records_end = self.portion.records_end;
        if is_resend && !is_probed && refusal.is_there_already() {
            let witnesses = self.witnesses(range.start..range.end.min(records_end));
            if !witnesses.is_empty() {
                return self.steps.push(Step::Probe { whole: range, witnesses });
            }
        }
        if range.start < records_end && records_end < range.end {
            self.push(records_end..range.end, is_resend, true);
            self.push(range.start..records_end, is_resend, true);
            return;
        }
        self.halve(group, refusal);
    }

    fn halve(&mut self, group: Group, refusal: Refusal) {
        let Group { range, is_resend, .. } = group;
        let is_spent = self.portion.has_one_owner(&range) && {
            let spent = self.refusals.entry(self.portion.owner(range.start)).or_default();
            *spent += 1;
            *spent > REFUSALS_MAX
        };
        match self.portion.middle(&range).filter(|_| !is_spent) {
            None => self.settle(range, is_resend, refusal),
            Some(middle) => {
                self.push(middle..range.end, is_resend, true);
                self.push(range.start..middle, is_resend, true);
            }
        }
    }

    fn push(&mut self, range: Range<usize>, is_resend: bool, is_probed: bool) {
        if !range.is_empty() {
            self.steps.push(Step::Send(Group { range, is_resend, is_probed }));
        }
    }

    /// The last word on these samples.
    fn settle(&mut self, range: Range<usize>, is_resend: bool, refusal: Refusal) {
        let records = self.portion.samples[range].iter().map(|sample| sample.record);
        let records = records.filter(|record| *record != NO_RECORD);
        if is_resend && refusal.is_there_already() {
            self.fates.presumed.extend(records);
        } else {
            self.fates.rejected.extend(records.map(|record| (record, refusal.word())));
        }
    }

    /// Series that would be taken if they were not there: those with several samples. Of one with a single sample a
    /// receiver says "taken" in both cases.
    fn witnesses(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let several: Vec<_> = self.portion.runs(range).filter(|run| run.len() > 1).collect();
        let Some(last) = several.len().checked_sub(1) else { return Vec::new() };
        let mut at: Vec<usize> = (0..WITNESSES).map(|number| last * number / (WITNESSES - 1)).collect();
        at.dedup();
        at.into_iter().map(|at| several[at].clone()).collect()
    }

    /// The answer for the whole delivery.
    pub(super) fn sent(self) -> Sent {
        let Fates { mut rejected, mut presumed, unsupported } = self.fates;
        // A record has many series; it is rejected once, for what was found first.
        rejected.sort_by_key(|(record, _)| *record);
        rejected.dedup_by_key(|(record, _)| *record);
        presumed.sort_unstable();
        presumed.dedup();
        presumed.retain(|record| rejected.binary_search_by_key(record, |(record, _)| *record).is_err());
        Sent { rejected, presumed: presumed.len() as u64, unsupported_named: unsupported, ..Sent::default() }
    }
}
