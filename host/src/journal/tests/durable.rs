//! The journal on disk: what outlives crashes, full disks and failing ones.

use super::*;
use crate::journal::disk::{self, Disk, Faulty};
use crate::journal::keep::Limits;

/// Small, so that a test passes through many segments.
pub(super) const FILES: disk::Settings = disk::Settings { segment_bytes: 8_000, reserve_bytes: 16_000 };
pub(super) const LIMITS: Limits =
    Limits { bytes_max: 1 << 30, age_max: Duration::from_secs(3600), memory_bytes_max: 1 << 20 };

pub(super) fn open(disk: &Faulty, limits: Limits, sinks: &[&str], now_ms: u64) -> World {
    open_with(disk, FILES, limits, &named(sinks), now_ms)
}

pub(super) fn named(sinks: &[&str]) -> Vec<SinkSettings> {
    sinks.iter().map(|name| SinkSettings::from((*name).to_owned())).collect()
}

pub(super) fn open_with(
    disk: &Faulty,
    files: disk::Settings,
    limits: Limits,
    sinks: &[SinkSettings],
    now_ms: u64,
) -> World {
    let now_ms = Arc::new(AtomicU64::new(now_ms));
    let clock: Clock = {
        let now_ms = now_ms.clone();
        Arc::new(move || now_ms.load(Ordering::Relaxed))
    };
    let metrics = Metrics::new();
    let disk = Disk::Faulty(disk.clone());
    let journal = Journal::open_on(disk, files, limits, sinks, clock, &metrics).unwrap();
    World { journal, now_ms, metrics }
}

/// As the world in memory.
pub(super) fn world(bytes_max: usize, sinks: &[&str]) -> World {
    let limits = Limits { bytes_max: bytes_max as u64, ..LIMITS };
    let disk = Faulty::new(1);
    // As large as a real one: what is expected of it is about the shares.
    let files = disk::Settings::default();
    open_with(&disk, files, limits, &named(sinks), 1_000)
}

impl World {
    /// All that this sink still has to take, taken and finished; the first number of each.
    pub(super) async fn drain(&self, sink: SinkId) -> Vec<u64> {
        self.drain_entries(sink).await.iter().map(|entry| entry.first).collect()
    }

    pub(super) async fn drain_entries(&self, sink: SinkId) -> Vec<Arc<Entry>> {
        let cursor = self.journal.cursor(sink);
        let mut entries = Vec::new();
        while !cursor.is_done() {
            // What is left may be damaged or expire as it is read: then nothing comes.
            let next = tokio::time::timeout(Duration::from_secs(5), cursor.next(ALL));
            for in_flight in next.await.unwrap_or_default() {
                entries.push(in_flight.entry.clone());
                let records = in_flight.entry.records;
                in_flight.finish(&Done::delivered(records));
            }
        }
        entries
    }

    pub(super) fn in_flight(&self, sink: &str) -> i64 {
        let lines = self.table().lines;
        lines.iter().filter_map(|line| line.sinks.get(sink)).map(|sink| sink.in_flight).sum()
    }
}

#[tokio::test]
async fn a_restart_keeps_what_was_not_delivered_in_order_and_sends_nothing_twice() {
    let disk = Faulty::new(1);
    let world = open(&disk, LIMITS, &["a", "b"], 1_000);
    for at in 0..40 {
        world.commit(vec![part("t", 2, 500, &[FIRST, SECOND]), part("u", 1, at, &[SECOND])]).await.unwrap();
    }
    let cursor = world.journal.cursor(FIRST);
    let mut kept = Vec::new();
    for at in 0..30 {
        let taken = cursor.try_next(ONE);
        if at % 3 == 0 {
            kept.extend(taken);
        } else {
            taken.into_iter().for_each(|in_flight| in_flight.finish(&Done::delivered(2)));
        }
    }
    let node = kept[0].entry.node;
    world.journal.end().await;
    assert_eq!(world.commit(vec![part("t", 1, 1, &[FIRST])]).await, Err(CommitRefused::Stopping));

    let world = open(&disk, LIMITS, &["a", "b"], 2_000);
    let line = world.table().line("t", Signal::Logs);
    assert_eq!((line.acknowledged, line.received, line.committed), (80, 80, 80));
    assert_eq!((line.sinks["a"].delivered, line.sinks["a"].in_flight), (40, 40));
    let entries = world.drain_entries(FIRST).await;
    let expected: Vec<u64> = (0..40).filter(|at| at % 3 == 0 || *at >= 30).map(|at| 1 + at * 3).collect();
    assert_eq!(entries.iter().map(|entry| entry.first).collect::<Vec<_>>(), expected);
    assert!(entries.iter().all(|entry| entry.node == node && entry.time_ms == 1_000));
    assert_eq!(world.drain(SECOND).await.len(), 80);
    assert_eq!((world.in_flight("a"), world.in_flight("b")), (0, 0));
    world.journal.upkeep().await;
    world.journal.upkeep().await;
    assert!(disk.used_bytes() < 40_000, "segments that nobody needs are removed: {}", disk.used_bytes());
}

#[tokio::test]
async fn what_comes_back_after_a_restart_may_have_been_sent_before() {
    let disk = Faulty::new(1);
    let world = open(&disk, LIMITS, &["a"], 1_000);
    world.commit(vec![part("t", 2, 500, &[FIRST])]).await.unwrap();
    let world = open(&disk.crash(), LIMITS, &["a"], 1_000);
    world.commit(vec![part("t", 2, 500, &[FIRST])]).await.unwrap();
    let cursor = world.journal.cursor(FIRST);
    let mut resends = Vec::new();
    while !cursor.is_done() {
        for in_flight in cursor.next(ALL).await {
            resends.push(in_flight.is_resend);
            in_flight.finish(&Done::delivered(2));
        }
    }
    assert_eq!(resends, [true, false]);
}

#[tokio::test]
async fn numbers_and_time_do_not_go_back_with_the_clock() {
    let day = 24 * 3_600_000;
    let limits = Limits { age_max: Duration::from_secs(30 * 24 * 3_600), ..LIMITS };
    let mut disk = Faulty::new(1);
    let mut all: Vec<Committed> = Vec::new();
    // A day ahead, back, two days back, and so on: before a crash, after it, and without any.
    for (at, days) in [10, 11, 10, 8, 9, 12, 11, 1, 2].into_iter().enumerate() {
        disk = disk.crash();
        let world = open(&disk, limits, &["a"], days * day);
        for step in [0, -1, 1, 0] {
            let now_ms = (days * day).saturating_add_signed(step * day.cast_signed());
            world.now_ms.store(now_ms, Ordering::Relaxed);
            let between = world.journal.between_commits(|time_ms| time_ms);
            let committed = world.commit(vec![part("t", 3, 10, &[FIRST])]).await.unwrap();
            if let Some(before) = all.last() {
                assert!(
                    between >= before.time_ms && committed.time_ms >= between,
                    "{before:?} {committed:?}"
                );
                assert!(committed.first >= before.first + before.records, "{before:?} {committed:?}");
            }
            all.push(committed);
        }
        // Marks alone remember it as well.
        if at % 2 == 0 {
            world.journal.end().await;
        }
    }
    let world = open(&disk.crash(), limits, &["a"], day);
    let entries = world.drain_entries(FIRST).await;
    let arrived: Vec<(u64, u64)> = entries.iter().map(|entry| (entry.first, entry.time_ms)).collect();
    let expected: Vec<(u64, u64)> =
        all.iter().map(|committed| (committed.first, committed.time_ms)).collect();
    assert_eq!(arrived, expected);
}

#[tokio::test]
async fn a_sink_that_is_far_behind_reads_from_the_disk_in_order_and_with_bounded_memory() {
    let limits = Limits { memory_bytes_max: 2 * 10_000, ..LIMITS };
    let world = open(&Faulty::new(1), limits, &["far", "well"], 1_000);
    for at in 0..200 {
        let sinks: &[SinkId] = if at % 4 == 0 { &[SECOND] } else { &[FIRST, SECOND] };
        world.commit(vec![part("t", 1, 1_000, sinks)]).await.unwrap();
        assert!(world.journal.with_queue(FIRST, |queue| queue.memory_bytes).unwrap() <= 10_000);
        for in_flight in world.journal.cursor(SECOND).next(ALL).await {
            in_flight.finish(&Done::delivered(1));
        }
    }
    assert_eq!(world.journal.charged_bytes(FIRST), 150 * 1_256);
    let cursor = world.journal.cursor(FIRST);
    let mut firsts = Vec::new();
    while !cursor.is_done() {
        for in_flight in cursor.next(ONE).await {
            assert!(world.journal.with_queue(FIRST, |queue| queue.memory_bytes).unwrap() <= 20_000);
            firsts.push(in_flight.entry.first);
            in_flight.finish(&Done::delivered(1));
        }
    }
    assert_eq!(firsts, (0..200).filter(|at| at % 4 != 0).map(|at| at + 1).collect::<Vec<u64>>());
    assert_eq!(
        (world.in_flight("far"), world.in_flight("well"), world.journal.charged_bytes(FIRST)),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn a_full_disk_refuses_goes_on_delivering_and_recovers() {
    let disk = Faulty::new(1);
    let world = open(&disk, LIMITS, &["a"], 1_000);
    let mut taken = Vec::new();
    for _ in 0..20 {
        taken.push(world.commit(vec![part("t", 1, 1_000, &[FIRST])]).await.unwrap().first);
    }
    disk.set_capacity(disk.used_bytes() + 3_000);
    let mut refused = 0;
    for _ in 0..10 {
        match world.commit(vec![part("t", 1, 1_000, &[FIRST])]).await {
            Ok(committed) => taken.push(committed.first),
            Err(error) => {
                assert_eq!(error, CommitRefused::Full);
                refused += 1;
            }
        }
    }
    assert!(refused >= 7 && world.journal.is_full(), "{refused}");
    world.journal.upkeep().await;
    assert!(world.journal.is_full());
    let line = world.table().line("t", Signal::Logs);
    assert_eq!((line.refused["disk_full"], line.in_process), (refused, 0));
    // What is done is noted in the reserve.
    assert_eq!(world.drain(FIRST).await, taken);
    world.journal.upkeep().await;
    let again = open(&disk.crash(), LIMITS, &["a"], 1_000);
    assert_eq!((again.in_flight("a"), again.drain(FIRST).await), (0, vec![]));
    drop(again);
    disk.set_capacity(u64::MAX);
    world.journal.upkeep().await;
    assert!(!world.journal.is_full());
    let committed = world.commit(vec![part("t", 1, 1_000, &[FIRST])]).await.unwrap();
    assert_eq!(world.drain(FIRST).await, [committed.first]);
}

#[tokio::test]
async fn what_takes_effect_with_a_frame_does_not_where_the_disk_has_no_room() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let disk = Faulty::new(1);
    let world = open(&disk, LIMITS, &["a"], 1_000);
    world.commit(vec![part("t", 1, 1_000, &[FIRST])]).await.unwrap();
    disk.set_capacity(disk.used_bytes() + 3_000);
    let applied = std::sync::Arc::new(AtomicU64::new(0));
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..10 {
        let count = applied.clone();
        let after: crate::journal::After = Box::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let parts = vec![part("t", 1, 1_000, &[FIRST])];
        let frame = crate::journal::Frame { parts, after: Some(after), ..Default::default() };
        match world.journal.commit(frame).await {
            Ok(_) => taken += 1,
            Err(error) => {
                assert_eq!(error, CommitRefused::Full);
                refused += 1;
            }
        }
    }
    assert!(refused >= 7, "{refused}");
    assert_eq!(applied.load(Ordering::Relaxed), taken);
}

#[tokio::test]
async fn a_segment_that_filled_the_disk_is_removed_once_it_was_delivered() {
    let disk = Faulty::new(1);
    let files = disk::Settings { segment_bytes: 1 << 30, ..FILES };
    let world = open_with(&disk, files, LIMITS, &named(&["a"]), 1_000);
    disk.set_capacity(200_000);
    let mut taken = 0;
    // An entry does not fit; marks would, behind it.
    while world.commit(vec![part("t", 1, 5_000, &[FIRST])]).await.is_ok() {
        taken += 1;
    }
    assert!(taken > 30 && world.journal.is_full(), "{taken}");
    assert_eq!(world.drain(FIRST).await.len(), taken);
    for _ in 0..3 {
        world.journal.upkeep().await;
    }
    assert!(!world.journal.is_full(), "{} bytes are used", disk.used_bytes());
    world.commit(vec![part("t", 1, 5_000, &[FIRST])]).await.unwrap();
}

#[tokio::test]
async fn a_failed_sync_loses_nothing_that_was_acknowledged() {
    for failing in 0..6 {
        let disk = Faulty::new(failing.into());
        let world = open(&disk, LIMITS, &["a"], 1_000);
        let mut taken = Vec::new();
        disk.fail_sync_after(failing);
        for _ in 0..10 {
            taken
                .push(world.commit(vec![part("t", 1, 100, &[FIRST])]).await.map(|committed| committed.first));
        }
        assert_eq!(disk.sync_failures(), 1);
        let taken: Vec<u64> = taken.into_iter().filter_map(Result::ok).collect();
        assert!(taken.len() >= 9, "{taken:?}");
        let again = open(&disk.crash(), LIMITS, &["a"], 1_000);
        assert_eq!(again.drain(FIRST).await, taken, "{failing}");
        assert_eq!(again.in_flight("a"), 0);
        assert_eq!(world.drain(FIRST).await, taken, "{failing}");
    }
}

#[tokio::test]
async fn a_new_sink_starts_at_the_head_and_what_a_removed_one_had_not_taken_expires() {
    let disk = Faulty::new(1);
    let world = open(&disk, LIMITS, &["a", "b"], 1_000);
    world.commit(vec![part("t", 5, 100, &[FIRST, SECOND])]).await.unwrap();
    world.journal.end().await;
    let world = open(&disk, LIMITS, &["new", "b"], 1_000);
    let line = world.table().line("t", Signal::Logs);
    assert_eq!((line.sinks["a"].expired["removed"], line.sinks["a"].in_flight), (5, 0));
    let committed = world.commit(vec![part("t", 1, 100, &[FIRST, SECOND])]).await.unwrap();
    assert_eq!(world.drain(FIRST).await, [committed.first]);
    assert_eq!(world.drain(SECOND).await, [1, committed.first]);
    world.journal.end().await;
    // It keeps its number, and what expired does not come again.
    let world = open(&disk, LIMITS, &["b", "new", "a"], 1_000);
    assert!(world.journal.cursor(SinkId(2)).is_done());
    let line = world.table().line("t", Signal::Logs);
    assert_eq!(
        (line.sinks["a"].expired["removed"], line.sinks["b"].delivered, line.sinks["new"].delivered),
        (5, 6, 1)
    );
}

#[tokio::test]
async fn beyond_the_share_the_oldest_expire_in_memory_and_on_the_disk_each_for_its_tenant() {
    let limits = Limits { bytes_max: 2 * 10 * 1_256, memory_bytes_max: 2 * 2_600, ..LIMITS };
    let disk = Faulty::new(1);
    let world = open(&disk, limits, &["stuck", "well"], 1_000);
    for at in 0..30 {
        let tenant = if at % 2 == 0 { "even" } else { "odd" };
        world.commit(vec![part(tenant, 1, 1_000, &[FIRST, SECOND])]).await.unwrap();
        world.drain(SECOND).await;
        world.journal.upkeep().await;
    }
    // What is read was in memory, so let it settle.
    while world.journal.charged_bytes(FIRST) > 10 * 1_256 {
        world.journal.upkeep().await;
        tokio::task::yield_now().await;
    }
    for tenant in ["even", "odd"] {
        let stuck = &world.table().line(tenant, Signal::Logs).sinks["stuck"];
        assert_eq!((stuck.expired["room"], stuck.in_flight), (10, 5), "{tenant}");
    }
    world.journal.end().await;
    let world = open(&disk, limits, &["stuck", "well"], 1_000);
    assert_eq!(world.drain(FIRST).await, (21..=30).collect::<Vec<u64>>());
}

#[tokio::test]
async fn what_is_too_old_expires_whether_it_is_in_memory_or_on_the_disk() {
    let limits = Limits { memory_bytes_max: 3_000, ..LIMITS };
    let world = open(&Faulty::new(1), limits, &["a"], 1_000);
    for _ in 0..10 {
        world.commit(vec![part("t", 1, 1_000, &[FIRST])]).await.unwrap();
    }
    world.now_ms.store(1_000 + 3_600_000, Ordering::Relaxed);
    while !world.journal.cursor(FIRST).is_done() {
        world.journal.upkeep().await;
        tokio::task::yield_now().await;
    }
    let sink = &world.table().line("t", Signal::Logs).sinks["a"];
    assert_eq!((sink.expired["age"], sink.in_flight), (10, 0));
}

#[tokio::test]
async fn what_holds_the_disk_beyond_its_bound_expires_even_on_its_way() {
    let limits = Limits { bytes_max: 40_000, ..LIMITS };
    let disk = Faulty::new(1);
    let world = open(&disk, limits, &["stuck", "well"], 1_000);
    world.commit(vec![part("t", 1, 100, &[FIRST])]).await.unwrap();
    let held = world.journal.cursor(FIRST).try_next(ALL);
    assert_eq!(held.len(), 1);
    for _ in 0..200 {
        world.commit(vec![part("t", 1, 1_000, &[SECOND])]).await.unwrap();
        world.drain(SECOND).await;
        world.journal.upkeep().await;
        assert!(disk.used_bytes() < 100_000, "{}", disk.used_bytes());
    }
    held.into_iter().for_each(|in_flight| in_flight.finish(&Done::delivered(1)));
    let sink = &world.table().line("t", Signal::Logs).sinks["stuck"];
    assert_eq!((sink.expired["room"], sink.delivered, sink.in_flight), (1, 0, 0));
}

#[tokio::test]
async fn what_is_damaged_is_counted_and_the_rest_arrives() {
    let disk = Faulty::new(1);
    let world = open(&disk, LIMITS, &["a"], 1_000);
    let mut taken = Vec::new();
    for _ in 0..30 {
        taken.push(world.commit(vec![part("t", 1, 1_000, &[FIRST])]).await.unwrap().first);
    }
    world.journal.end().await;
    // The first segment has marks of its own; later ones replace them, so only its entries are read.
    disk.damage("journal-00000000000000000001.log", |bytes| bytes[3_000] ^= 1);
    let world = open(&disk, LIMITS, &["a"], 1_000);
    assert_eq!(world.in_flight("a"), 30);
    let arrived = world.drain(FIRST).await;
    assert_eq!(arrived.len(), 29);
    assert!(arrived.iter().all(|first| taken.contains(first)));
    world.journal.upkeep().await;
    let sink = &world.table().line("t", Signal::Logs).sinks["a"];
    assert_eq!((sink.expired["damaged"], sink.delivered, sink.in_flight), (1, 29, 0));
    assert!(world.metrics.text().contains("trommel_commit_damaged_ranges_total 1"));
}

#[tokio::test]
async fn nothing_is_written_while_nothing_changes() {
    let disk = Faulty::new(1);
    let world = open(&disk, LIMITS, &["a", "b"], 1_000);
    world.commit(vec![part("t", 1, 1_000, &[FIRST, SECOND])]).await.unwrap();
    world.drain(FIRST).await;
    let held = world.journal.cursor(SECOND).try_next(ALL);
    world.journal.upkeep().await;
    let before = disk.used_bytes();
    for _ in 0..5 {
        world.journal.upkeep().await;
    }
    assert_eq!((disk.used_bytes(), held.len()), (before, 1));
}

#[tokio::test]
async fn a_sender_who_goes_away_has_committed_all_or_nothing() {
    let world = open(&Faulty::new(1), LIMITS, &["a"], 1_000);
    for _ in 0..50 {
        // It is asked for, and then nobody waits for the answer.
        is_pending(world.commit(vec![part("t", 2, 100, &[FIRST]), part("t", 3, 100, &[FIRST])]));
    }
    let committed = world.commit(vec![part("t", 5, 100, &[FIRST])]).await.unwrap();
    let line = world.table().line("t", Signal::Logs);
    assert_eq!((line.committed, line.committed + line.cancelled), (committed.first + 4, 255));
    assert_eq!(world.drain(FIRST).await.len() as u64, (committed.first - 1) / 5 * 2 + 1);
}
