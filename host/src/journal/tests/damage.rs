//! A journal whose files were damaged while nobody looked: it starts, and what is not touched arrives.

use super::durable::{LIMITS, named, open_with};
use super::*;
use crate::journal::disk::{self, Disk, Faulty, Kind, Position, Read, Reader};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

/// So small that eight entries lie in two segments.
const FILES: disk::Settings = disk::Settings { segment_bytes: 900, reserve_bytes: 1_024 };

/// An entry and where it stands.
struct Lies {
    first: u64,
    segment: u64,
    bytes: Range<u64>,
}

/// A journal that two sinks read: the first has taken `taken` entries, the second none. How its process ended is for
/// the caller.
struct Small {
    disk: Faulty,
    segments: BTreeSet<u64>,
    entries: Vec<Lies>,
    taken: BTreeSet<u64>,
    next: u64,
}

fn start(disk: &Faulty) -> World {
    open_with(disk, FILES, LIMITS, &named(&["a", "b"]), 1_000)
}

impl Small {
    async fn new(entries: u64, taken: usize, is_ended: bool) -> Small {
        let disk = Faulty::new(1);
        let world = start(&disk);
        let mut next = 1;
        for at in 0..entries {
            let parts = vec![part("t", 2, 10 + at as usize, &[FIRST, SECOND])];
            next = world.commit(parts).await.unwrap().first + 2;
        }
        let cursor = world.journal.cursor(FIRST);
        let mut finished = BTreeSet::new();
        for in_flight in cursor.try_next(ALL).into_iter().take(taken) {
            finished.insert(in_flight.entry.first);
            in_flight.finish(&Done::delivered(2));
        }
        if is_ended {
            world.journal.end().await;
        }
        let disk = disk.crash();
        let (segments, entries) = lying(&disk);
        Small { disk, segments, entries, taken: finished, next }
    }

    fn bytes_of(&self, segment: u64) -> u64 {
        let mut bytes = 0;
        self.disk.damage(&name(segment), |file| bytes = file.len() as u64);
        bytes
    }

    /// Starts with this damage: all that `is_hit` does not name arrives, and all is accounted for.
    async fn check(
        &self,
        segment: u64,
        damage: impl Fn(&mut Vec<u8>),
        is_hit: impl Fn(&Lies) -> bool,
    ) -> World {
        let disk = self.disk.crash();
        disk.damage(&name(segment), damage);
        let world = start(&disk);
        let whole: Vec<u64> =
            self.entries.iter().filter(|entry| !is_hit(entry)).map(|entry| entry.first).collect();
        let first = world.drain(FIRST).await;
        let outstanding = whole.iter().filter(|first| !self.taken.contains(first));
        assert!(outstanding.copied().all(|number| first.contains(&number)), "{whole:?}, but {first:?}");
        assert!(first.iter().all(|number| whole.contains(number)), "{first:?} of {whole:?}");
        assert_eq!(world.drain(SECOND).await, whole);
        world.journal.upkeep().await;
        assert_eq!((world.in_flight("a"), world.in_flight("b")), (0, 0));
        let committed = world.commit(vec![part("t", 1, 10, &[FIRST, SECOND])]).await.unwrap();
        // A cut between two frames of the last segment leaves nothing that could tell of it.
        if told(&world) > 0 {
            assert!(committed.first >= self.next, "{committed:?}, and {} comes next", self.next);
        }
        let disk = disk.crash();
        let again = start(&disk);
        assert_eq!(again.drain(SECOND).await, [committed.first], "and goes on after a crash");
        again.table();
        world
    }
}

fn name(segment: u64) -> String {
    format!("journal-{segment:020}.log")
}

fn lying(disk: &Faulty) -> (BTreeSet<u64>, Vec<Lies>) {
    let mut reader = Reader::new(Disk::Faulty(disk.clone()), Position::default());
    let (mut segments, mut entries) = (BTreeSet::new(), Vec::new());
    while let Some(read) = reader.next(Position { segment: u64::MAX, offset: 0 }).unwrap() {
        let Read::Frame { at, kind, payload } = read else { panic!("{read:?}") };
        segments.insert(at.segment);
        if kind == Kind::Entry {
            let bytes = at.offset..at.offset + 20 + payload.len() as u64;
            let (entry, _) = payload::Entry::decode(&payload).unwrap();
            entries.push(Lies { first: entry.first, segment: at.segment, bytes });
        }
    }
    (segments, entries)
}

/// Ranges of bytes that were skipped, by the metric.
fn told(world: &World) -> u64 {
    let text = world.metrics.text();
    let line = text.lines().find_map(|line| line.strip_prefix("trommel_commit_damaged_ranges_total "));
    line.unwrap().parse().unwrap()
}

fn expired(world: &World, sink: &str) -> u64 {
    let line = world.table().line("t", Signal::Logs);
    line.sinks[sink].expired.get("damaged").copied().unwrap_or_default()
}

/// The clock stands still unless all wait, so that a wait for what never comes costs no time.
fn block_on(future: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(future);
}

#[test]
fn any_flipped_bit_costs_the_entry_that_it_is_in_and_no_other() {
    block_on(async {
        // Of a journal whose process was killed, one bit of each byte.
        for (is_ended, step) in [(true, 1), (false, 9)] {
            let small = Small::new(8, 2, is_ended).await;
            assert_eq!(small.segments.len(), 2);
            for &segment in &small.segments {
                for bit in (0..small.bytes_of(segment) * 8).step_by(step) {
                    let hits = |entry: &Lies| entry.segment == segment && entry.bytes.contains(&(bit / 8));
                    let world =
                        small.check(segment, |file| file[bit as usize / 8] ^= 1 << (bit % 8), hits).await;
                    let lost: u64 = small.entries.iter().filter(|entry| hits(entry)).map(|_| 2).sum();
                    assert!(told(&world) >= 1, "bit {bit} of {segment} is told");
                    assert!(expired(&world, "b") <= lost, "bit {bit} of {segment}");
                }
            }
        }
    });
}

#[test]
fn any_cut_costs_what_is_behind_it_in_its_segment() {
    block_on(async {
        for is_ended in [true, false] {
            let small = Small::new(8, 2, is_ended).await;
            for &segment in &small.segments {
                for cut in 0..small.bytes_of(segment) {
                    let hits = |entry: &Lies| entry.segment == segment && entry.bytes.end > cut;
                    small.check(segment, |file| file.truncate(cut as usize), hits).await;
                }
            }
        }
    });
}

#[test]
fn a_segment_that_is_gone_costs_what_was_in_it_and_is_counted() {
    block_on(async {
        let small = Small::new(8, 2, true).await;
        let lost = |gone: u64, is_taken: bool| {
            let in_it = small.entries.iter().filter(|entry| entry.segment == gone);
            2 * in_it.filter(|entry| is_taken || !small.taken.contains(&entry.first)).count() as u64
        };
        for &gone in &small.segments {
            let disk = small.disk.crash();
            Disk::Faulty(disk.clone()).remove(&name(gone)).unwrap();
            let world = start(&disk);
            let whole = small.entries.iter().filter(|entry| entry.segment != gone);
            let whole: Vec<u64> = whole.map(|entry| entry.first).collect();
            assert_eq!(world.drain(SECOND).await, whole);
            world.drain(FIRST).await;
            world.journal.upkeep().await;
            assert_eq!((world.in_flight("a"), world.in_flight("b")), (0, 0));
            // With the last segment its marks and what they knew are gone as well.
            if gone != *small.segments.last().unwrap() {
                assert_eq!(
                    (expired(&world, "a"), expired(&world, "b")),
                    (lost(gone, false), lost(gone, true))
                );
            }
        }
    });
}

#[test]
fn a_journal_that_was_killed_before_its_second_marks_loses_no_entry_with_the_first() {
    block_on(async {
        let small = Small::new(3, 0, false).await;
        assert_eq!(small.segments.len(), 1);
        for bit in 0..small.bytes_of(1) * 8 {
            let hits = |entry: &Lies| entry.bytes.contains(&(bit / 8));
            small.check(1, |file| file[bit as usize / 8] ^= 1 << (bit % 8), hits).await;
        }
    });
}

fn open_real(folder: &Path) -> Result<World, CannotOpen> {
    let settings = Settings::Disk {
        folder: folder.to_owned(),
        bytes_max: Some(1 << 30),
        age_max: Duration::from_secs(3_600),
        memory_bytes_max: 1 << 20,
    };
    let metrics = Metrics::new();
    let now_ms = Arc::new(AtomicU64::new(1_000));
    let journal = Journal::open(&settings, &["a".to_owned()], Arc::new(|| 1_000), &metrics)?;
    Ok(World { journal, now_ms, metrics })
}

/// With one entry.
async fn ended_real(folder: &Path) -> u64 {
    let world = open_real(folder).unwrap();
    let committed = world.commit(vec![part("t", 2, 100, &[FIRST])]).await.unwrap();
    world.journal.end().await;
    committed.first
}

#[tokio::test]
async fn empty_and_foreign_files_are_told_and_survived() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let first = ended_real(folder.path()).await;
    std::fs::write(at(&name(50)), "").unwrap();
    std::fs::create_dir(at(&name(60))).unwrap();
    std::os::unix::fs::symlink("/dev/zero", at(&name(70))).unwrap();
    std::fs::write(at(&name(80)), "nothing of ours".repeat(100)).unwrap();
    std::fs::write(at("notes.txt"), "nothing of ours").unwrap();
    std::fs::write(at("journal-1.log"), "nothing of ours").unwrap();

    let world = open_real(folder.path()).unwrap();
    assert_eq!(world.drain(FIRST).await, [first]);
    let committed = world.commit(vec![part("t", 1, 100, &[FIRST])]).await.unwrap();
    assert!(committed.first > first + 1 && at(&name(81)).is_file(), "no number is used twice");
    assert!(told(&world) >= 6, "{}", told(&world));
    assert!(!at(&name(50)).exists());
    for kept in [&name(60), &name(70), "notes.txt", "journal-1.log"] {
        assert!(at(kept).symlink_metadata().is_ok(), "{kept} is not ours to remove");
    }
    assert_eq!(world.drain(FIRST).await, [committed.first]);
    world.journal.end().await;
}

#[tokio::test]
async fn a_newer_format_and_a_second_user_are_refused_in_words_and_nothing_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let first = ended_real(folder.path()).await;
    let files = || {
        let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = names.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
        files.sort();
        files
    };
    // A head of the next format, as `docs/journal-format.md` says that it will begin.
    let mut newer = vec![0xF5, b'T', b'r', b'J', 2, 1, 0, 0, 7, 0, 0, 0, 1, 2, 3, 4];
    let place = [9u64.to_le_bytes(), 0u64.to_le_bytes()].concat();
    newer.extend(crc32c::crc32c(&[&place[..], &newer].concat()).to_le_bytes());
    newer.extend([0; 100]);
    std::fs::write(folder.path().join(name(9)), newer).unwrap();
    let before = files();
    let refused = open_real(folder.path()).err().unwrap().to_string();
    assert!(refused.contains(&name(9)) && refused.contains("has format 2"), "{refused}");
    assert!(refused.contains("reads up to format 1"), "{refused}");
    assert_eq!(files(), before);

    std::fs::remove_file(folder.path().join(name(9))).unwrap();
    let world = open_real(folder.path()).unwrap();
    let refused = open_real(folder.path()).err().unwrap().to_string();
    assert!(refused.ends_with("another process uses the journal"), "{refused}");
    assert_eq!(world.drain(FIRST).await, [first]);
}

#[tokio::test]
async fn a_folder_that_is_none_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("journal");
    std::fs::write(&file, "no folder").unwrap();
    let refused = open_real(&file).err().unwrap().to_string();
    assert!(refused.contains("journal: ") && refused.to_lowercase().contains("not a directory"), "{refused}");
}
