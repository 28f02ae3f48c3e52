//! Letters over restarts, crashes, damage, full disks and failing ones.

use super::*;
use crate::batch::{ProjectId, TenantId};
use crate::journal::disk::Faulty;
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

const MIB: u64 = 1 << 20;

struct World {
    letters: Arc<DeadLetters>,
    now_ms: Arc<AtomicU64>,
    metrics: Metrics,
}

fn open(disk: &Faulty, bytes_max: u64) -> World {
    open_at(disk, bytes_max, 1_000)
}

fn open_at(disk: &Faulty, bytes_max: u64, now_ms: u64) -> World {
    let now_ms = Arc::new(AtomicU64::new(now_ms));
    let clock: Clock = {
        let now_ms = now_ms.clone();
        Arc::new(move || now_ms.load(Ordering::Relaxed))
    };
    let metrics = Metrics::new();
    let settings =
        LetterSettings { folder: PathBuf::new(), bytes_max, age_max: Duration::from_millis(16_000) };
    let letters = DeadLetters::open_on(Disk::Faulty(disk.clone()), &settings, clock, &metrics).unwrap();
    World { letters, now_ms, metrics }
}

fn entry(tenant: &str, first: u64, records: u32, bytes: usize) -> Entry {
    Entry {
        stream: Stream { tenant: TenantId::new(tenant).unwrap(), project: ProjectId::new("shop").unwrap() },
        signal: Signal::Logs,
        first,
        records,
        time_ms: 900,
        node: [7; 4],
        bytes: vec![b'x'; bytes].into(),
    }
}

impl World {
    async fn keep(&self, tenant: &str, first: u64, bytes: usize) -> Result<LetterId, NotKept> {
        self.letters.keep("backend", &entry(tenant, first, 2, bytes), "refused", "the words").await
    }

    fn all(&self) -> Vec<Letter> {
        let mut which = WhichLetters::default();
        let mut all = Vec::new();
        loop {
            let page = self.letters.page(&which, 7);
            all.extend(page.letters);
            which.after = page.next;
            if which.after.is_none() {
                return all;
            }
        }
    }

    fn firsts(&self) -> Vec<u64> {
        self.all().iter().map(|letter| letter.first).collect()
    }

    fn metric(&self, line: &str) -> Option<String> {
        let text = self.metrics.text();
        text.lines().find_map(|shown| shown.strip_prefix(line)?.strip_prefix(' ').map(str::to_owned))
    }
}

#[tokio::test]
async fn a_letter_is_listed_read_and_finished_over_restarts() {
    let disk = Faulty::new(1);
    let world = open(&disk, MIB);
    let kept = world.keep("acme", 5, 40).await.unwrap();
    world.keep("globex", 9, 0).await.unwrap();
    let crashed = open(&disk.crash(), MIB);
    assert_eq!(crashed.firsts(), [5, 9], "what was kept is safe");
    world.letters.end().await;

    let world = open(&disk, MIB);
    assert_eq!(world.letters.live(), Amount { letters: 2, records: 4 });
    let whole = world.letters.read(kept).unwrap();
    let letter = Letter {
        id: kept,
        sink: "backend".into(),
        stream: entry("acme", 5, 2, 40).stream,
        signal: Signal::Logs,
        first: 5,
        time_ms: 900,
        refused_ms: 1_000,
        records: 2,
        bytes: 40,
        reason: "refused".into(),
    };
    assert_eq!((whole.message.as_str(), whole.content.len()), ("the words", 40));
    assert_eq!((&whole.letter, &world.all()[0]), (&letter, &letter));
    assert_eq!(kept.to_string().parse(), Ok(kept));

    let nowhere = LetterId { segment: 99, offset: 0 };
    let finished = world.letters.finish(vec![kept, kept, nowhere]).await;
    assert_eq!(finished, Ok(Amount { letters: 1, records: 2 }));
    assert_eq!(world.letters.finish(vec![kept]).await, Ok(Amount::default()));
    assert_eq!((world.letters.read(kept), world.firsts()), (None, vec![9]));
    let world = open(&disk.crash(), MIB);
    assert_eq!((world.letters.read(kept), world.firsts()), (None, vec![9]));
}

#[tokio::test]
async fn a_place_inside_a_letter_is_no_letter() {
    let disk = Faulty::new(1);
    let world = open(&disk, MIB);
    let kept = world.keep("acme", 1, 500).await.unwrap();
    for offset in 0..600 {
        let id = LetterId { segment: kept.segment, offset };
        assert_eq!(world.letters.read(id).is_some(), id == kept);
    }
    for text in ["", "1", "-", "1-", "-1", "+1-2", "1-2-3", "a-b", "1- 2", "99999999999999999999-1"] {
        assert_eq!(text.parse::<LetterId>(), Err(()), "{text}");
    }
}

#[tokio::test]
async fn pages_go_on_where_the_one_before_ended() {
    let world = open(&Faulty::new(1), MIB);
    for at in 0..30 {
        world.keep(["acme", "globex"][at as usize % 2], at, 10).await.unwrap();
    }
    assert_eq!(world.firsts(), (0..30).collect::<Vec<_>>());
    let which = WhichLetters { tenant: Some("acme".into()), ..WhichLetters::default() };
    let page = world.letters.page(&which, 4);
    assert_eq!(page.letters.iter().map(|letter| letter.first).collect::<Vec<_>>(), [0, 2, 4, 6]);
    let next = WhichLetters { after: page.next, until: world.letters.newest(), ..which.clone() };
    assert_eq!(world.letters.page(&next, 100).letters.len(), 11);
    let other = WhichLetters { sink: Some("other".into()), ..WhichLetters::default() };
    assert_eq!(world.letters.page(&other, 4), LetterPage::default());
    // New letters are not among "all" of before.
    let until = world.letters.newest();
    world.keep("acme", 30, 10).await.unwrap();
    let which = WhichLetters { until, ..WhichLetters::default() };
    assert_eq!(world.letters.page(&which, 100).letters.len(), 30);
}

#[tokio::test]
async fn the_words_of_the_server_are_cut() {
    let world = open(&Faulty::new(1), MIB);
    let id = world.letters.keep("s", &entry("acme", 1, 1, 1), "refused", &"é".repeat(1_000)).await.unwrap();
    assert_eq!(world.letters.read(id).unwrap().message, "é".repeat(512));
}

#[tokio::test]
async fn beyond_the_bound_the_oldest_go_and_are_counted() {
    let disk = Faulty::new(1);
    let world = open(&disk, MIB);
    for at in 0..200 {
        world.keep("acme", at, 10_000).await.unwrap();
        assert!(disk.used_bytes() <= MIB, "{} at {at}", disk.used_bytes());
    }
    let firsts = world.firsts();
    let oldest = firsts[0];
    assert_eq!(firsts, (oldest..200).collect::<Vec<_>>());
    // All but a segment or two, and the reserve, are full.
    assert!((95..115).contains(&oldest), "{oldest}");
    let lost = world.metric(r#"trommel_deliver_letters_expired_records_total{reason="room"}"#);
    assert_eq!(lost, Some((2 * oldest).to_string()));
    // One that is larger than many segments goes alone, and one that is larger than all is none.
    world.keep("acme", 200, 800_000).await.unwrap();
    assert!(disk.used_bytes() <= MIB);
    assert_eq!(world.firsts().last(), Some(&200));
    world.keep("acme", 201, 10_000).await.unwrap();
    assert_eq!(world.letters.page(&WhichLetters::default(), 1_000).letters.last().unwrap().first, 201);
    assert_eq!(world.keep("acme", 202, MIB as usize).await, Err(NotKept::TooLarge));
    let unkept =
        world.metric(r#"trommel_deliver_letters_unkept_records_total{sink="backend",reason="too_large"}"#);
    assert_eq!(unkept.as_deref(), Some("2"));
    assert_eq!(open(&disk.crash(), MIB).firsts(), world.firsts());
}

#[tokio::test]
async fn letters_that_are_too_old_go() {
    let disk = Faulty::new(1);
    let world = open(&disk, MIB);
    for at in 0..10 {
        world.now_ms.store(1_000 + at * 1_000, Ordering::Relaxed);
        world.keep("acme", at, 100).await.unwrap();
    }
    // Each but the first stands in a segment of its own: a sixteenth of the age had passed.
    world.now_ms.store(1_000 + 16_000 + 4_000, Ordering::Relaxed);
    world.letters.upkeep().await;
    assert_eq!(world.firsts(), [5, 6, 7, 8, 9]);
    let lost = world.metric(r#"trommel_deliver_letters_expired_records_total{reason="age"}"#);
    assert_eq!(lost.as_deref(), Some("10"));
    world.now_ms.store(100_000, Ordering::Relaxed);
    world.letters.upkeep().await;
    assert_eq!(world.firsts(), Vec::<u64>::new());
    assert_eq!(open(&disk.crash(), MIB).firsts(), Vec::<u64>::new());
}

#[tokio::test]
async fn what_was_dropped_is_off_the_disk() {
    let disk = Faulty::new(1);
    let world = open(&disk, MIB);
    for at in 0..40 {
        world.keep("acme", at, 10_000).await.unwrap();
    }
    let ids: Vec<LetterId> = world.all().iter().map(|letter| letter.id).collect();
    let used = disk.used_bytes();
    world.letters.finish(ids[..20].to_vec()).await.unwrap();
    assert!(disk.used_bytes() < used - 100_000, "{used} {}", disk.used_bytes());
    assert_eq!(open(&disk.crash(), MIB).firsts(), (20..40).collect::<Vec<_>>());
    world.letters.finish(ids).await.unwrap();
    assert!(disk.used_bytes() < RESERVE_BYTES + 500, "{}", disk.used_bytes());
    assert_eq!(world.letters.live(), Amount::default());
    let world = open(&disk.crash(), MIB);
    assert_eq!(world.firsts(), Vec::<u64>::new());
    world.keep("acme", 50, 1).await.unwrap();
    assert_eq!(world.firsts(), [50]);
}

#[tokio::test]
async fn on_a_full_disk_letters_are_not_kept_and_can_be_dropped_all_the_same() {
    let disk = Faulty::new(1);
    let world = open(&disk, 4 * MIB);
    for at in 0..10 {
        world.keep("acme", at, 10_000).await.unwrap();
    }
    disk.set_capacity(disk.used_bytes());
    assert_eq!(world.keep("acme", 10, 10_000).await, Err(NotKept::Full));
    let unkept =
        world.metric(r#"trommel_deliver_letters_unkept_records_total{sink="backend",reason="disk_full"}"#);
    assert_eq!(unkept.as_deref(), Some("2"));
    assert_eq!(world.firsts(), (0..10).collect::<Vec<_>>());
    let ids: Vec<LetterId> = world.all().iter().map(|letter| letter.id).collect();
    assert_eq!(world.letters.finish(ids[..9].to_vec()).await, Ok(Amount { letters: 9, records: 18 }));
    assert_eq!(open(&disk.crash(), 4 * MIB).firsts(), [9]);
    disk.set_capacity(u64::MAX);
    world.letters.upkeep().await;
    world.keep("acme", 11, 10_000).await.unwrap();
    assert_eq!(open(&disk.crash(), 4 * MIB).firsts(), [9, 11]);
}

#[tokio::test]
async fn damage_costs_the_letters_it_hits_and_no_start() {
    let disk = Faulty::new(1);
    let world = open(&disk, MIB);
    for at in 0..10 {
        world.keep("acme", at, 1_000).await.unwrap();
    }
    let ids: Vec<LetterId> = world.all().iter().map(|letter| letter.id).collect();
    world.letters.end().await;
    let name = format!("journal-{:020}.log", ids[3].segment);
    disk.damage(&name, |bytes| bytes[ids[3].offset as usize + 200] ^= 1);
    disk.damage(&name, |bytes| bytes[ids[6].offset as usize + 9] ^= 1);
    disk.damage(&name, |bytes| bytes.truncate(bytes.len() - 10));
    let world = open(&disk, MIB);
    assert_eq!(world.firsts(), [0, 1, 2, 4, 5, 7, 8]);
    assert_eq!(world.metric("trommel_deliver_letters_damaged_ranges_total").as_deref(), Some("3"));
    world.keep("acme", 10, 1_000).await.unwrap();
    assert_eq!(open(&disk.crash(), MIB).firsts(), [0, 1, 2, 4, 5, 7, 8, 10]);
}

#[tokio::test]
async fn a_letter_whose_keeper_has_gone_is_finished() {
    let disk = Faulty::new(1);
    let world = open(&disk, MIB);
    let entry = entry("acme", 1, 2, 10);
    for polls in 0..20 {
        let keeping = world.letters.keep("backend", &entry, "refused", "");
        let mut keeping = std::pin::pin!(keeping);
        for _ in 0..polls {
            if futures_util::poll!(keeping.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    // What is asked later is done later; those that were told are there, and no others.
    world.letters.upkeep().await;
    world.letters.upkeep().await;
    for letter in world.all() {
        world.letters.finish(vec![letter.id]).await.unwrap();
    }
    assert_eq!(world.letters.live(), Amount::default());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever fails on the way, what was told to be kept is there after a crash, and what was told to be finished
    /// is not.
    #[test]
    fn what_was_told_holds_after_a_crash(
        seed in any::<u64>(),
        steps in proptest::collection::vec((0u8..10, 0usize..14_000, 0u32..6), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut disk = Faulty::new(seed);
        let mut world = open(&disk, MIB);
        let (mut kept, mut finished): (Vec<LetterId>, Vec<u64>) = (Vec::new(), Vec::new());
        let mut firsts: std::collections::BTreeMap<u64, LetterId> = std::collections::BTreeMap::new();
        for (at, (step, bytes, fault)) in steps.into_iter().enumerate() {
            let first = at as u64;
            match step {
                0 => disk.fail_sync_after(fault),
                1 => disk.fail_write_after(fault),
                2 => {
                    disk = disk.crash();
                    world = open(&disk, MIB);
                }
                3 | 4 if !kept.is_empty() => {
                    let id = kept.swap_remove(bytes % kept.len());
                    let told = runtime.block_on(world.letters.finish(vec![id]));
                    let first = *firsts.iter().find(|(_, kept)| **kept == id).unwrap().0;
                    firsts.remove(&first);
                    // Not told: it may be either.
                    if told.is_ok() {
                        finished.push(first);
                    }
                }
                _ => {
                    if let Ok(id) = runtime.block_on(world.keep("acme", first, bytes)) {
                        kept.push(id);
                        firsts.insert(first, id);
                    }
                }
            }
            let there: Vec<u64> = world.firsts();
            prop_assert!(firsts.keys().all(|first| there.contains(first)), "kept {:?}, there {:?}", firsts, there);
            prop_assert!(finished.iter().all(|first| !there.contains(first)), "{:?} {:?}", finished, there);
        }
        let world = open(&disk.crash(), MIB);
        let there = world.firsts();
        prop_assert!(firsts.keys().all(|first| there.contains(first)), "kept {:?}, there {:?}", firsts, there);
        prop_assert!(finished.iter().all(|first| !there.contains(first)), "{:?} {:?}", finished, there);
    }
}

#[test]
fn a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let settings = LetterSettings {
        folder: folder.path().join("dead-letters"),
        bytes_max: MIB,
        age_max: Duration::from_secs(60),
    };
    let open = || DeadLetters::open(&settings, crate::journal::system_clock(), &Metrics::new());
    let first = open().unwrap();
    assert!(open().unwrap_err().to_string().contains("another process"));
    drop(first);
}
