//! Histories of crashes with a conservation oracle: what the journal promises, asserted of any of them.
//!
//! The senders number the parts of their frames. Of an acknowledged frame every part is once in the first sink, which
//! stands for a store that knows ids, and at least once in the second; of any other, all parts or none, and in the
//! store at most once. Ids and times never go back nor repeat, and the ledger is exact. `TROMMEL_TEST_SEEDS` says how many
//! histories, `SEED` which one alone.

use super::durable::{LIMITS, open};
use super::*;
use crate::journal::disk::Faulty;
use crate::journal::keep::Limits;
use std::collections::{BTreeMap, BTreeSet};

const SEEDS: u64 = 2_000;
const TENANTS: [&str; 3] = ["t", "u", "v"];

/// splitmix64
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }
}

/// A part that was sent, by the number in its bytes.
struct Part {
    frame: u64,
    tenant: &'static str,
    records: u32,
    sinks: Vec<SinkId>,
}

/// What a test knows of what it sent, and of what came of it.
#[derive(Default)]
struct Oracle {
    parts: BTreeMap<u64, Part>,
    frames: u64,
    acknowledged: BTreeMap<u64, Committed>,
    /// Numbers below it, and times before, were told to senders of a process that is gone.
    told: (u64, u64),
    /// By the number of its first record: what it is, and when it was committed.
    ids: BTreeMap<u64, (u64, u64)>,
    /// By part and sink.
    arrived: BTreeSet<(u64, SinkId)>,
    /// What a cursor gave out: it may have reached the sink.
    given: BTreeSet<(u64, SinkId)>,
}

impl Oracle {
    fn frame(&mut self, random: &mut Random) -> (u64, Vec<FramePart>) {
        self.frames += 1;
        let parts = (0..1 + random.below(3)).map(|_| {
            let sinks = match random.below(3) {
                0 => vec![FIRST],
                1 => vec![SECOND],
                _ => vec![FIRST, SECOND],
            };
            let number = self.parts.len() as u64;
            let (tenant, records) = (TENANTS[random.below(3) as usize], 1 + random.below(4) as u32);
            let mut part = part(tenant, records, 8 + random.below(900) as usize, &sinks);
            self.parts.insert(number, Part { frame: self.frames, tenant, records, sinks });
            let mut bytes = part.bytes.to_vec();
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            part.bytes = bytes.into();
            part
        });
        let parts = parts.collect();
        (self.frames, parts)
    }

    fn acknowledge(&mut self, frame: u64, committed: Committed) {
        let (number, time_ms) = self.told;
        assert!(
            committed.first >= number && committed.time_ms >= time_ms,
            "{committed:?} of {:?}",
            self.told
        );
        self.acknowledged.insert(frame, committed);
    }

    /// What a cursor gave out: its id is that of nothing else, and it is told from what was never given out before.
    fn give(&mut self, in_flight: &InFlight, sink: SinkId) -> u64 {
        let entry = &in_flight.entry;
        let number = u64::from_le_bytes(entry.bytes[..8].try_into().unwrap());
        let part = &self.parts[&number];
        assert!(part.sinks.contains(&sink) && part.records == entry.records);
        assert!(part.tenant == entry.stream.tenant.as_str());
        assert!(entry.bytes[8..].iter().all(|byte| *byte == b'x'));
        let id = *self.ids.entry(entry.first).or_insert((number, entry.time_ms));
        assert_eq!(id, (number, entry.time_ms), "two parts, or two times, for number {}", entry.first);
        let is_again = !self.given.insert((number, sink));
        assert!(in_flight.is_resend || !is_again, "part {number} comes again and does not say so");
        number
    }

    /// The process ends: what it told anybody stays below what the next will tell.
    fn end_life(&mut self) {
        let ends = self.acknowledged.values().map(|told| (told.first + told.records, told.time_ms));
        let (numbers, times): (Vec<u64>, Vec<u64>) = ends.unzip();
        let last = |of: Vec<u64>| of.into_iter().max().unwrap_or_default();
        self.told = (last(numbers), last(times));
    }

    /// After everything was drained.
    fn check(&self, world: &World) {
        self.check_frames();
        self.check_ids();
        self.check_ledger(world);
    }

    fn check_frames(&self) {
        let mut of_frames: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
        for (number, part) in &self.parts {
            let arrived = part.sinks.iter().filter(|sink| self.arrived.contains(&(*number, **sink))).count();
            let of_frame = of_frames.entry(part.frame).or_default();
            *of_frame = (of_frame.0 + arrived, of_frame.1 + part.sinks.len());
        }
        for (frame, (arrived, all)) in of_frames {
            match self.acknowledged.contains_key(&frame) {
                true => assert_eq!(arrived, all, "frame {frame} was acknowledged"),
                false => assert!(arrived == 0 || arrived == all, "frame {frame}: {arrived} of {all}"),
            }
        }
    }

    fn check_ids(&self) {
        let mut parts = BTreeSet::new();
        let mut before = (0, 0);
        for (first, (number, time_ms)) in &self.ids {
            assert!(parts.insert(number), "part {number} stands under two ids: a store would have it twice");
            assert!(*first >= before.0, "the numbers from {first} on are given twice");
            assert!(*time_ms >= before.1, "number {first} has an earlier time than one before it");
            before = (first + u64::from(self.parts[number].records), *time_ms);
        }
        let firsts = self.ids.iter().map(|(first, (number, _))| (self.parts[number].frame, *first));
        let mut of_frames: BTreeMap<u64, u64> = BTreeMap::new();
        firsts.for_each(|(frame, first)| {
            of_frames.entry(frame).and_modify(|least| *least = first.min(*least)).or_insert(first);
        });
        for (frame, committed) in &self.acknowledged {
            assert_eq!(
                of_frames.get(frame),
                Some(&committed.first),
                "frame {frame} has the number it was told"
            );
        }
    }

    /// Every total is that of what is there, whatever the processes before came to tell.
    fn check_ledger(&self, world: &World) {
        let table = world.table();
        for tenant in TENANTS {
            let is_there = |number: &u64| self.ids.values().any(|(part, _)| part == number);
            let there = self.parts.iter().filter(|(number, part)| part.tenant == tenant && is_there(number));
            let there: Vec<&Part> = there.map(|(_, part)| part).collect();
            let records = |parts: &mut dyn Iterator<Item = &&Part>| -> u64 {
                parts.map(|part| u64::from(part.records)).sum()
            };
            let line = table.line(tenant, Signal::Logs);
            let all = records(&mut there.iter());
            assert_eq!((line.acknowledged, line.committed, line.in_process), (all, all, 0), "{tenant}");
            for (sink, name) in [(FIRST, "a"), (SECOND, "b")] {
                let to_it = records(&mut there.iter().filter(|part| part.sinks.contains(&sink)));
                let shown = line.sinks.get(name).cloned().unwrap_or_default();
                let shown = (shown.committed, shown.delivered, shown.in_flight);
                assert_eq!(shown, (to_it, to_it, 0), "{tenant} at {name}");
            }
        }
    }
}

type Answers = tokio::task::JoinSet<(u64, Result<Committed, CommitRefused>)>;

/// One process's life: senders at once, deliveries, faults, a clock that steps; it ends in the middle of it.
async fn live(disk: &Faulty, oracle: &mut Oracle, random: &mut Random) -> Faulty {
    let limits = Limits { memory_bytes_max: 4_000 + random.below(20_000) as usize, ..LIMITS };
    let world = open(disk, limits, &["a", "b"], 1_000 + random.below(1_000));
    world.table();
    let mut commits = Answers::new();
    for _ in 0..random.below(60) {
        match random.below(14) {
            0..=5 => {
                let (frame, parts) = oracle.frame(random);
                let (journal, now_ms) = (world.journal.clone(), world.now_ms.clone());
                commits.spawn(async move {
                    let world = World { journal, now_ms, metrics: Metrics::new() };
                    (frame, world.commit(parts).await)
                });
            }
            6..=8 => deliver(&world, oracle, random).await,
            9 => world.journal.upkeep().await,
            10 => match random.below(4) {
                0 => disk.fail_sync_after(random.below(3) as u32),
                1 => disk.fail_write_after(random.below(5) as u32),
                _ => {}
            },
            11 => world.now_ms.store(1_000 + random.below(1_000), Ordering::Relaxed),
            // Marks are due after a second.
            12 => tokio::time::advance(Duration::from_millis(random.below(1_500))).await,
            _ => {
                if let Some(Ok((frame, Ok(committed)))) = commits.join_next().await {
                    oracle.acknowledge(frame, committed);
                }
            }
        }
        world.table();
    }
    // Those that were answered before the crash.
    while let Some(Ok((frame, answer))) = commits.try_join_next() {
        if let Ok(committed) = answer {
            oracle.acknowledge(frame, committed);
        }
    }
    oracle.end_life();
    disk.crash()
}

async fn deliver(world: &World, oracle: &mut Oracle, random: &mut Random) {
    let sink = SinkId(random.below(2) as u16);
    let cursor = world.journal.cursor(sink);
    let next = cursor.next(Joining { records_max: 6, ..ALL });
    let taken = tokio::time::timeout(Duration::from_millis(2), next).await.unwrap_or_default();
    assert!(taken.windows(2).all(|two| two[0].entry.first < two[1].entry.first));
    for in_flight in taken {
        let number = oracle.give(&in_flight, sink);
        // Else its answer is lost.
        if random.below(4) > 0 {
            oracle.arrived.insert((number, sink));
            let records = in_flight.entry.records;
            in_flight.finish(&Done::delivered(records));
        }
    }
}

/// All that is outstanding.
async fn drain(world: &World, oracle: &mut Oracle, sink: SinkId) {
    let cursor = world.journal.cursor(sink);
    while !cursor.is_done() {
        let next = tokio::time::timeout(Duration::from_secs(5), cursor.next(ALL));
        for in_flight in next.await.unwrap_or_default() {
            let number = oracle.give(&in_flight, sink);
            oracle.arrived.insert((number, sink));
            let records = in_flight.entry.records;
            in_flight.finish(&Done::delivered(records));
        }
    }
}

/// Says which history it was, if it fails.
struct Seed(u64);

impl Drop for Seed {
    #[allow(clippy::print_stderr, reason = "a failing test says how to see it again")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again with SEED={}", self.0);
        }
    }
}

fn number_in(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn whatever_was_acknowledged_arrives_after_any_crashes() {
    let seeds = number_in("TROMMEL_TEST_SEEDS").unwrap_or(SEEDS);
    for seed in number_in("SEED").map_or(0..seeds, |seed| seed..seed + 1) {
        let _told = Seed(seed);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
            let (mut random, mut oracle) = (Random(seed), Oracle::default());
            let mut disk = Faulty::new(seed);
            for _ in 0..1 + random.below(5) {
                disk = live(&disk, &mut oracle, &mut random).await;
            }
            let world = open(&disk, LIMITS, &["a", "b"], 1_000);
            for sink in [FIRST, SECOND] {
                drain(&world, &mut oracle, sink).await;
            }
            oracle.check(&world);
            // The last of it is remembered.
            world.journal.end().await;
            let world = open(&disk.crash(), LIMITS, &["a", "b"], 1_000);
            for sink in [FIRST, SECOND] {
                assert!(world.drain(sink).await.is_empty(), "all of it was taken");
            }
            oracle.check_ledger(&world);
        });
    }
}
