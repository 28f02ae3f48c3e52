//! The promises to viewers, whatever comes first.

use super::*;
use std::sync::atomic::Ordering;

/// Seeds of the races: `SEED=…` runs one, `SEEDS=…` that many.
fn seeds() -> std::ops::Range<u64> {
    let given = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match given("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..given("SEEDS").unwrap_or(10),
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
    async fn dawdle(&mut self) {
        for _ in 0..self.below(8) {
            tokio::task::yield_now().await;
        }
    }
}

/// Publishes, writes and joins at once: whoever views from a position gets every line from there on once and in
/// order, whatever came first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_who_join_at_any_moment_get_each_line_once_and_in_order() {
    for seed in seeds() {
        race(seed).await;
    }
}

async fn race(seed: u64) {
    let mut random = Random(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let world = Arc::new(World::tuned(|tuning| (tuning.page_records, tuning.store_patience) = (7, PATIENCE)));
    let other = stream("globex", "web");
    let (mut entries, mut number) = (Vec::new(), 1);
    for step in 0..60 {
        let records = 1 + random.below(5) as u32;
        let owner = if random.below(3) == 0 { &other } else { &acme() };
        entries.push(entry(owner, number, records, NOON + step / 3));
        number += u64::from(records);
    }
    let expected: Vec<String> = entries
        .iter()
        .filter(|entry| entry.stream == acme())
        .flat_map(|entry| numbers(entry.first, entry.records))
        .collect();
    let mut tasks = tokio::task::JoinSet::new();
    let (publisher, list, mut dice) = (world.clone(), entries.clone(), Random(seed * 7 + 1));
    tasks.spawn(async move {
        for entry in &list {
            dice.dawdle().await;
            publisher.streams.publish(entry);
        }
    });
    let (writer, list, mut dice) = (world.clone(), entries, Random(seed * 11 + 1));
    tasks.spawn(async move {
        let mut list = &list[..];
        while !list.is_empty() {
            let (now, later) = list.split_at(1 + (dice.below(6) as usize).min(list.len() - 1));
            list = later;
            dice.dawdle().await;
            writer.streams.write(now.iter().flat_map(first_send).collect()).await.unwrap();
        }
    });
    for viewer in 0..6 {
        let (world, expected, mut dice) = (world.clone(), expected.clone(), Random(seed * 13 + viewer + 1));
        tasks.spawn(async move { view(&world, &expected, &mut dice, seed).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// Views all lines, over several connections.
async fn view(world: &World, expected: &[String], dice: &mut Random, seed: u64) {
    let mut position = Position::at(0).text();
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        dice.dawdle().await;
        let mut tail = world.tail(Some(&position));
        let part = (1 + dice.below(40) as usize).min(expected.len() - seen.len());
        let (lines, last) = lines(&mut tail, part).await;
        seen.extend(lines);
        position = last;
        assert_eq!(seen, expected[..seen.len()], "seed {seed}");
    }
}

/// A store that hangs, entries that it never gets, rings that are too small: every line is shown once and in order,
/// or counted in a gap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_shown_is_counted_in_a_gap() {
    for seed in seeds() {
        let mut dice = Random(seed * 17 + 1);
        let world = Arc::new(World::tuned(|tuning| {
            tuning.ring_bytes = RingBytes { one: 600 + dice.below(2000) as usize, all: 1 << 20 };
            tuning.page_records = 1 + dice.below(9) as usize;
            tuning.store_patience = Duration::from_millis(5 + dice.below(20));
        }));
        let entries: Vec<_> = (0..60).map(|at| entry(&acme(), 1 + at * 3, 3, NOON + at / 4)).collect();
        world.streams.publish(&entries[0]);
        // They join before anything is given up: who joins later is not told of what the store lacks.
        let mut tails: Vec<_> = (0..4).map(|_| world.tail(Some(&Position::at(0).text()))).collect();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(publish_all(world.clone(), entries[1..].to_vec(), Random(seed * 7 + 1)));
        tasks.spawn(store_most(world.clone(), entries, Random(seed * 11 + 1)));
        for viewer in 0..4 {
            let (tail, mut dice) = (tails.pop().unwrap(), Random(seed * 13 + viewer + 1));
            tasks.spawn(async move { account(tail, &mut dice, seed).await });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }
}

async fn publish_all(world: Arc<World>, entries: Vec<Arc<Entry>>, mut dice: Random) {
    for entry in &entries {
        dice.dawdle().await;
        world.streams.publish(entry);
        if dice.below(20) == 0 {
            tokio::time::sleep(Duration::from_millis(dice.below(5))).await;
        }
    }
}

async fn store_most(world: Arc<World>, entries: Vec<Arc<Entry>>, mut dice: Random) {
    for entry in &entries {
        match dice.below(6) {
            0 => world.streams.skip(&acme(), entry.first + 3),
            1 => {
                let held = world.streams.hold().await;
                tokio::time::sleep(Duration::from_millis(dice.below(20))).await;
                drop(held);
                world.streams.write(first_send(entry)).await.unwrap();
            }
            _ => drop(world.streams.write(first_send(entry)).await.unwrap()),
        }
    }
}

/// Views until the last line, and counts.
async fn account(mut tail: Pin<Box<dyn Events<Item = TailEvent> + Send>>, dice: &mut Random, seed: u64) {
    let (mut last, mut told) = (0, 0);
    while told < 180 {
        match next(&mut tail).await {
            TailEvent::Log { json, .. } => {
                let number: u64 = body(&json).parse().unwrap();
                assert!(number > last, "seed {seed}: {number} after {last}");
                told += 1;
                assert!(told <= number, "seed {seed}: {told} told up to {number}");
                last = number;
            }
            TailEvent::Gap { from, to, count, .. } => {
                let (from, to) = (json::id_of(&from).unwrap().number(), json::id_of(&to).unwrap().number());
                assert!(from < to && from >= last, "seed {seed}: {from} to {to} after {last}");
                // 0: nobody knows how many, all up to `to` at most.
                told = if count > 0 { told + count } else { to };
                assert!(told <= to, "seed {seed}: {told} told up to {to}");
                last = to;
            }
            other => panic!("seed {seed}: {told} told up to {last}: {other:?}"),
        }
        dice.dawdle().await;
    }
    assert_eq!(told, 180, "seed {seed}");
}

/// Who views from now on misses nothing that is published after it joined.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_who_starts_now_gets_all_that_is_published_afterwards() {
    for seed in seeds() {
        let world = Arc::new(World::new());
        let publisher = world.clone();
        let mut tasks = tokio::task::JoinSet::new();
        let published = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let seen = published.clone();
        tasks.spawn(async move {
            let mut dice = Random(seed + 1);
            for number in 1..=200 {
                publisher.streams.publish(&entry(&acme(), number, 1, NOON + number / 9));
                seen.store(number, Ordering::SeqCst);
                dice.dawdle().await;
            }
        });
        let before = published.load(Ordering::SeqCst);
        let mut tail = world.tail(None);
        tasks.join_next().await.unwrap().unwrap();
        let mut last = None;
        world.streams.end_tails();
        while let TailEvent::Log { json, .. } = next(&mut tail).await {
            let number: u64 = body(&json).parse().unwrap();
            let wanted = last.map_or(number, |last: u64| last + 1);
            assert_eq!(number, wanted, "seed {seed}");
            assert!(last.is_some() || number >= before, "seed {seed}");
            last = Some(number);
        }
        assert!(last.is_none_or(|last| last == 200), "seed {seed}");
    }
}
