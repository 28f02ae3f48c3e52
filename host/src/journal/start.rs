//! What a start makes of the frames that it reads: the newest marks, and on top of them what was committed since.

use super::disk::{Fault, Kind, Opened, Position};
use super::ledger::{Kept, Key};
use super::payload::{AccountMark, Entry, Marks, SinkMark};
use super::queue::{Queue, charge_of};
use std::collections::{BTreeMap, HashMap};

/// Numbers that are left out where something is damaged: what was lost there may have had the next ones, and the id
/// of a record is never given twice.
const LEFT_OUT: u64 = 1 << 24;

/// What the process before left.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) next: u64,
    pub(super) time_ms: u64,
    /// By the numbers that the journal gave to their names.
    pub(super) sinks: BTreeMap<u16, SinkMark>,
    pub(super) accounts: HashMap<Key, Kept>,
    pub(super) node: Option<[u8; 4]>,
    pub(super) is_damaged: bool,
    pub(super) starts: Starts,
    /// Else no marks were left, and the sinks have the numbers that entries name.
    has_marks: bool,
    oldest_segment: Option<u64>,
    replayed: Vec<(Position, Replayed)>,
}

/// A frame, until all heads are known.
#[derive(Debug)]
enum Replayed {
    Entry(Entry),
    Marks(Marks),
}

/// The number of the first record that may be in each segment.
///
/// An entry that has such a number, or a later one, in an earlier segment is void: a sync of that segment had failed,
/// and what was not safe there was written again to the next one, or its sender was refused.
#[derive(Clone, Debug, Default)]
pub(super) struct Starts(pub(super) BTreeMap<u64, u64>);

impl Starts {
    pub(super) fn is_void(&self, segment: u64, first: u64) -> bool {
        self.0.range(segment + 1..).next().is_some_and(|(_, start)| first >= *start)
    }
}

impl Recovered {
    pub(super) fn new() -> Recovered {
        Recovered {
            next: 1,
            time_ms: 0,
            sinks: BTreeMap::new(),
            accounts: HashMap::new(),
            node: None,
            is_damaged: false,
            starts: Starts::default(),
            has_marks: false,
            oldest_segment: None,
            replayed: Vec::new(),
        }
    }

    /// One frame more, in order.
    pub(super) fn replay(&mut self, at: Position, kind: Kind, payload: &[u8]) {
        let replayed = match kind {
            Kind::Head => return,
            Kind::Entry => Entry::decode(payload).map(|(entry, _)| Replayed::Entry(entry)),
            Kind::Marks => Marks::decode(payload).map(Replayed::Marks),
        };
        match replayed {
            Some(replayed) => self.replayed.push((at, replayed)),
            None => self.is_damaged = true,
        }
    }

    fn take_marks(&mut self, marks: Marks) {
        if marks.is_full {
            self.accounts.clear();
        }
        self.has_marks = true;
        self.next = marks.next;
        self.time_ms = self.time_ms.max(marks.time_ms);
        self.sinks = marks.sinks.into_iter().map(|sink| (sink.number, sink)).collect();
        for AccountMark { tenant, signal, kept } in marks.accounts {
            self.accounts.insert((tenant, signal), kept);
        }
    }

    fn take_entry(&mut self, entry: Entry) {
        let records = entry.records();
        // It stands in two segments, and the head between them is damaged.
        if records > 0 && entry.first < self.next {
            return;
        }
        self.next = entry.first + records;
        self.time_ms = self.time_ms.max(entry.time_ms);
        for settled in entry.settled {
            self.accounts.entry((settled.tenant, settled.signal)).or_default().settle(&settled.outcome);
        }
        for part in entry.parts {
            let account = self.accounts.entry((part.stream.tenant, part.signal)).or_default();
            let charge = if part.records > 0 { charge_of(part.bytes as usize) as u64 } else { 0 };
            account.commit(&part.sinks, part.records.into(), charge);
            for sink in part.sinks {
                // The first marks stand before the first entry, so they were damaged: nothing of this was taken, as far as
                // anybody knows.
                if !self.has_marks {
                    let outstanding = SinkMark { number: sink, frontier: entry.first, ..SinkMark::default() };
                    self.sinks.entry(sink).or_insert(outstanding);
                }
                if let Some(sink) = self.sinks.get_mut(&sink) {
                    sink.charged_bytes += charge;
                }
            }
        }
    }

    /// After the last frame.
    pub(super) fn end(&mut self, opened: &Opened) {
        let heads = || opened.segments.iter().filter_map(|segment| segment.head);
        self.node = heads().next().map(|head| head.node);
        self.starts = Starts(heads().map(|head| (head.number, head.first)).collect());
        self.oldest_segment = opened.segments.first().map(|segment| segment.number);
        for (at, replayed) in std::mem::take(&mut self.replayed) {
            match replayed {
                Replayed::Marks(marks) => self.take_marks(marks),
                Replayed::Entry(entry) if self.starts.is_void(at.segment, entry.first) => {}
                Replayed::Entry(entry) => self.take_entry(entry),
            }
        }
        for head in heads() {
            self.next = self.next.max(head.first);
            self.time_ms = self.time_ms.max(head.created_ms);
        }
        let is_lost = |fault| !matches!(fault, Fault::Foreign | Fault::Empty);
        self.is_damaged |= opened.skipped.iter().any(|skipped| is_lost(skipped.fault));
        if self.is_damaged {
            self.next += LEFT_OUT;
        }
    }

    /// A place before all that this sink still has to take. `None`: it has everything.
    pub(super) fn behind(&self, sink: &SinkMark) -> Option<Position> {
        let lowest = sink.open.iter().copied().min().unwrap_or(sink.frontier).min(sink.frontier);
        if lowest >= self.next {
            return None;
        }
        let begins_before = self.starts.0.iter().rev().find(|(_, start)| **start <= lowest);
        let segment = begins_before.map(|(segment, _)| *segment).or(self.oldest_segment)?;
        Some(Position { segment, offset: 0 })
    }
    /// The names and numbers of the sinks: first these, then those that are gone.
    pub(super) fn names(&mut self, sinks: &[String]) -> (Vec<String>, Vec<u16>) {
        // Numbers are given in the order of the configuration; no better is known.
        for (number, mark) in self.sinks.iter_mut().filter(|_| !self.has_marks) {
            mark.name = sinks.get(usize::from(*number)).cloned().unwrap_or_default();
        }
        let mut free = self.sinks.keys().next_back().map_or(0, |last| last.saturating_add(1));
        let mut numbers = Vec::new();
        for name in sinks {
            let known = self.sinks.values().find(|sink| sink.name == *name);
            numbers.push(known.map_or(free, |sink| sink.number));
            free += u16::from(known.is_none());
        }
        let gone = self.sinks.values().filter(|sink| !sinks.contains(&sink.name));
        let (mut names, gone): (Vec<String>, Vec<_>) = (sinks.to_vec(), gone.collect());
        names.extend(gone.iter().map(|sink| sink.name.clone()));
        numbers.extend(gone.iter().map(|sink| sink.number));
        (names, numbers)
    }

    /// What the sink of this number still has to take. One that is new starts at the head.
    pub(super) fn queue(&self, number: u16) -> Queue {
        let Some(mark) = self.sinks.get(&number) else {
            return Queue { frontier: self.next, seen_until: self.next, ..Queue::default() };
        };
        let behind = self.behind(mark);
        Queue {
            frontier: mark.frontier,
            seen_until: mark.frontier,
            unread: mark.open.iter().copied().collect(),
            charged_bytes: behind.map_or(0, |_| usize::try_from(mark.charged_bytes).unwrap_or(usize::MAX)),
            behind,
            ..Queue::default()
        }
    }
}
