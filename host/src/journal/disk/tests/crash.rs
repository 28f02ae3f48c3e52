//! Any order of appends, syncs, new segments, removals, full disks, errors and crashes.
//!
//! What was synced and not removed is read exactly once and in order; only what had to be appended again may stand
//! there more often. What was not synced is there as it was written or not at all.

use super::super::faulty::Faulty;
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
enum Act {
    Append(usize),
    Sync,
    Start,
    UseReserve,
    RestoreReserve,
    /// Up to so many segments before the current one.
    Remove(u64),
    Read,
    /// So much room is left.
    Fill(u64),
    Empty,
    FailSync(u32),
    FailWrite(u32),
    /// The process dies, the disk does not.
    Kill,
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        20 => (0usize..900).prop_map(Act::Append),
        8 => Just(Act::Sync),
        2 => Just(Act::Start),
        1 => Just(Act::UseReserve),
        1 => Just(Act::RestoreReserve),
        2 => (0u64..4).prop_map(Act::Remove),
        3 => Just(Act::Read),
        1 => (0u64..1_500).prop_map(Act::Fill),
        1 => Just(Act::Empty),
        2 => (0u32..4).prop_map(Act::FailSync),
        2 => (0u32..4).prop_map(Act::FailWrite),
        1 => Just(Act::Kill),
        2 => Just(Act::Crash),
    ]
}

/// What is true of a number whose append succeeded at least once.
#[derive(Clone, Debug, Default)]
struct Fate {
    appends: usize,
    /// Where it was appended last.
    segment: u64,
    bytes: usize,
    /// The log said that it is safe.
    is_acknowledged: bool,
    /// It was found by a start, and none of the syncs that make it safe failed.
    is_found: bool,
    /// It was found by a start with a sync that failed: the system may hold what the disk does not, until a crash.
    is_doubtful: bool,
    is_removed: bool,
}

/// A layer above the log as the real one will be: what a failed sync left is appended again, or given up.
struct Writer {
    faulty: Faulty,
    log: Option<Log>,
    reader: Reader,
    next: u64,
    fates: BTreeMap<u64, Fate>,
    unsynced: Vec<u64>,
    /// A write that fails may have written all of it, and a crash can bring that back where nothing stands instead.
    failed: BTreeSet<u64>,
    /// What the reader has to find next.
    unread: BTreeSet<u64>,
}

impl Writer {
    fn new(seed: u64) -> Writer {
        let faulty = Faulty::new(seed);
        let reader = Reader::new(disk(&faulty), OLDEST);
        let mut writer = Writer {
            faulty,
            log: None,
            reader,
            next: 1,
            fates: BTreeMap::new(),
            unsynced: Vec::new(),
            failed: BTreeSet::new(),
            unread: BTreeSet::new(),
        };
        writer.open();
        writer
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Append(bytes) => self.append(bytes),
            Act::Sync => self.sync(),
            Act::Start => self.start(Log::start_segment),
            Act::UseReserve => self.start(Log::use_reserve),
            Act::RestoreReserve => drop(self.log().restore_reserve()),
            Act::Remove(before) => self.remove(before),
            Act::Read => self.read(),
            Act::Fill(room) => self.faulty.set_capacity(self.faulty.used_bytes() + room),
            Act::Empty => self.faulty.set_capacity(u64::MAX),
            Act::FailSync(after) => self.faulty.fail_sync_after(after),
            Act::FailWrite(after) => self.faulty.fail_write_after(after),
            Act::Kill => self.open(),
            Act::Crash => {
                self.faulty = self.faulty.crash();
                self.fates.values_mut().for_each(|fate| fate.is_doubtful = false);
                self.open();
            }
        }
    }

    fn append(&mut self, bytes: usize) {
        if self.log().wants_segment() {
            self.start(Log::start_segment);
        }
        let number = self.next;
        self.next += 1;
        self.append_number(number, bytes);
    }

    fn append_number(&mut self, number: u64, bytes: usize) {
        let Ok(at) = append(self.log(), Kind::Entry, number, bytes) else {
            self.failed.insert(number);
            return;
        };
        let fate = self.fates.entry(number).or_default();
        fate.appends += 1;
        (fate.segment, fate.bytes) = (at.segment, bytes);
        self.unsynced.push(number);
    }

    fn sync(&mut self) {
        for _ in 0..10 {
            let result = self.log().sync();
            let unsynced = std::mem::take(&mut self.unsynced);
            if result.is_ok() {
                for number in unsynced {
                    self.fates.get_mut(&number).unwrap().is_acknowledged = true;
                    self.unread.insert(number);
                }
                return;
            }
            assert!(matches!(result, Err(WriteError::Unsynced(_))));
            self.start(Log::start_segment);
            for number in unsynced {
                self.append_number(number, self.fates[&number].bytes);
            }
        }
    }

    fn start(&mut self, how: fn(&mut Log, &Start) -> Result<(), WriteError>) {
        if self.log().end().is_some() {
            self.sync();
        }
        let first = self.next;
        match how(self.log(), &start(first)) {
            Ok(()) => drop(append(self.log(), Kind::Marks, MARKS, 30)),
            Err(WriteError::Unsynced(error)) => panic!("all was synced: {error}"),
            Err(_) => {}
        }
    }

    fn remove(&mut self, before: u64) {
        let Some(end) = self.log().end() else { return };
        let segment = end.segment.saturating_sub(before);
        let _ = self.log().remove_before(segment);
        for (number, fate) in &mut self.fates {
            if fate.segment < segment {
                fate.is_removed = true;
                self.unread.remove(number);
            }
        }
    }

    /// A process that lives reads what was synced, and no damage.
    fn read(&mut self) {
        let Some(until) = self.log().synced_end() else { return };
        let (found, skipped) = read(&mut self.reader, until);
        assert_eq!(skipped, []);
        let found: Vec<u64> = found.into_iter().map(|(_, number)| number).collect();
        let is_kept = |number: &&u64| !self.fates[*number].is_removed;
        let expected: Vec<u64> = std::mem::take(&mut self.unread).into_iter().collect();
        assert_eq!(found.iter().filter(is_kept).copied().collect::<Vec<_>>(), expected);
    }

    /// Starts again, and looks at everything that is there.
    fn open(&mut self) {
        self.log = None;
        let mut replayed = Vec::new();
        let faulty = self.faulty.clone();
        let failures = faulty.sync_failures();
        let (log, opened) = Log::open(disk(&faulty), SETTINGS, |at, kind, payload| {
            let number = number_of(payload);
            if kind == Kind::Entry {
                replayed.push((at, number));
            }
        })
        .unwrap();
        let (found, _) = read(&mut Reader::new(disk(&faulty), OLDEST), EVERYTHING);
        assert!(found.ends_with(&replayed), "{replayed:?} of {found:?}");
        self.check(&found, faulty.sync_failures() == failures);
        let next = opened.segments.last().map_or(1, |segment| segment.number + 1);
        let from = log.end().unwrap_or(Position { segment: next, offset: 0 });
        self.reader = Reader::new(disk(&faulty), from);
        self.log = Some(log);
        self.unsynced.clear();
        self.unread.clear();
    }

    fn check(&mut self, found: &[(Position, u64)], is_safe: bool) {
        let is_known =
            |(_, number): &&(Position, u64)| self.fates.contains_key(number) || !self.failed.contains(number);
        let found: Vec<(Position, u64)> = found.iter().filter(is_known).copied().collect();
        let found = &found[..];
        let mut times: BTreeMap<u64, usize> = BTreeMap::new();
        for (_, number) in found {
            *times.entry(*number).or_default() += 1;
        }
        for (number, times) in &times {
            let fate = self.fates.get(number).unwrap_or_else(|| panic!("{number} was not appended"));
            let appends = fate.appends + usize::from(self.failed.contains(number));
            assert!(*times <= appends, "{number} stands there {times} times: {fate:?}");
        }
        let must_be =
            self.fates.iter().filter(|(_, fate)| (fate.is_acknowledged || fate.is_found) && !fate.is_removed);
        let missing: Vec<_> = must_be.filter(|(number, _)| !times.contains_key(number)).collect();
        assert!(missing.is_empty(), "lost: {missing:?} of {found:?}");
        let mut last = 0;
        for (at, (_, number)) in found.iter().enumerate() {
            let is_again = found[at + 1..].iter().any(|(_, later)| later == number);
            if self.fates[number].is_acknowledged && !is_again {
                assert!(last < *number, "{number} behind {last} in {found:?}");
                last = *number;
            }
        }
        for (at, number) in found {
            let fate = self.fates.get_mut(number).unwrap();
            fate.segment = at.segment;
            fate.is_doubtful |= !is_safe;
            fate.is_found |= !fate.is_doubtful;
        }
    }
}

proptest! {
    // PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(2_000)))]

    #[test]
    fn what_was_synced_survives_everything(
        seed in any::<u64>(),
        acts in proptest::collection::vec(act(), 0..120),
    ) {
        let mut writer = Writer::new(seed);
        acts.iter().for_each(|one| writer.act(one));
        writer.act(&Act::Crash);
        writer.act(&Act::Append(100));
        writer.act(&Act::Sync);
        writer.act(&Act::Read);
        writer.act(&Act::Crash);
    }
}

/// Appends of all sizes, a sync every third.
fn script() -> Vec<Act> {
    let acts = (0..30usize).flat_map(|turn| {
        let sync = (turn % 3 == 2).then_some([Act::Sync, Act::Read]);
        [Act::Append(turn * 137 % 800)].into_iter().chain(sync.into_iter().flatten())
    });
    acts.chain([Act::Sync]).collect()
}

#[test]
fn an_error_at_any_sync_loses_nothing_that_was_acknowledged() {
    for after in 0..40 {
        for seed in 0..20 {
            let mut writer = Writer::new(seed);
            writer.act(&Act::FailSync(after));
            script().iter().for_each(|one| writer.act(one));
            assert!(writer.unsynced.is_empty());
            assert!(writer.fates.values().all(|fate| fate.is_acknowledged));
            writer.act(&Act::Crash);
        }
    }
}

#[test]
fn a_disk_that_is_full_at_any_moment_loses_nothing_and_goes_on_when_there_is_room() {
    for room in (0..16_000).step_by(23) {
        let mut writer = Writer::new(room);
        writer.act(&Act::Fill(room));
        script().iter().for_each(|one| writer.act(one));
        let refused = writer.next as usize - 1 - writer.fates.len();
        assert!(refused > 0 || room > 12_000, "all of it fits into {room} bytes");
        assert!(refused == 0 || room < 14_500, "{refused} do not fit into {room} bytes");
        writer.act(&Act::UseReserve);
        writer.act(&Act::Empty);
        script().iter().for_each(|one| writer.act(one));
        assert_eq!(writer.fates.len() + refused, 60);
        writer.act(&Act::RestoreReserve);
        assert!(writer.log().has_reserve());
        writer.act(&Act::Crash);
    }
}

#[test]
fn a_failed_write_is_never_read() {
    for after in 0..45 {
        for seed in 0..10 {
            let mut writer = Writer::new(seed);
            writer.act(&Act::FailWrite(after));
            script().iter().for_each(|one| writer.act(one));
            writer.act(&Act::Read);
            writer.act(&Act::Crash);
        }
    }
}
