//! The same on a real file system.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

#[test]
fn the_journal_is_written_found_and_read_on_a_real_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/journal");
    let real = Disk::real(&path).unwrap();
    let (mut log, ..) = open(real.clone());
    for number in 1..=20 {
        if log.wants_segment() {
            log.start_segment(&start(number)).unwrap();
            append(&mut log, Kind::Marks, MARKS, 7).unwrap();
        }
        append(&mut log, Kind::Entry, number, number as usize * 37).unwrap();
    }
    log.sync().unwrap();
    assert!(log.free_bytes().unwrap() > 0);
    let all: Vec<u64> = (1..=20).collect();
    assert_eq!(numbers(real.clone()), all);
    log.remove_before(2).unwrap();
    drop(log);
    let (log, opened, replayed) = open(real.clone());
    assert_eq!(opened.skipped, []);
    assert_eq!(replayed[0], MARKS);
    assert_eq!(opened.segments[0].number, 2);
    assert_eq!(log.end(), log.synced_end());
    assert!(all.ends_with(&numbers(real)));
    let found = std::fs::metadata(&path).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o700);
    let segment = std::fs::metadata(path.join(segment_file(2))).unwrap();
    assert_eq!(segment.permissions().mode() & 0o077, 0);
}

#[test]
fn a_second_process_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let real = Disk::real(folder.path()).unwrap();
    let (log, ..) = open(real.clone());
    let refused = Log::open(real.clone(), SETTINGS, |_, _, _| {}).unwrap_err();
    assert!(matches!(refused, OpenError::InUse));
    assert_eq!(refused.to_string(), "another process uses the journal");
    drop(log);
    open(real);
}

#[test]
fn the_reserve_has_its_blocks_and_gives_them_to_a_segment() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { segment_bytes: 1 << 20, reserve_bytes: 1 << 20 };
    let (mut log, _) = Log::open(Disk::real(folder.path()).unwrap(), settings, |_, _, _| {}).unwrap();
    let room = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().blocks() * 512;
    assert!(room("reserve") >= 1 << 20);
    log.use_reserve(&start(1)).unwrap();
    append(&mut log, Kind::Marks, MARKS, 1_000).unwrap();
    log.sync().unwrap();
    assert!(room(&segment_file(1)) >= 1 << 20, "the rest is still there");
    log.start_segment(&start(1)).unwrap();
    assert!(room(&segment_file(1)) < 1 << 20, "and is given back with the next segment");
}

#[test]
fn what_is_no_file_is_foreign() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(segment_file(1))).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.path().join(segment_file(2))).unwrap();
    let pipe = folder.path().join(segment_file(3));
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    let real = Disk::real(folder.path()).unwrap();
    let (mut log, opened, _) = open(real.clone());
    assert!(opened.skipped.iter().all(|skipped| skipped.fault == Fault::Foreign));
    assert_eq!(opened.skipped.len(), 3);
    assert!(opened.segments.is_empty());
    log.start_segment(&start(1)).unwrap();
    append(&mut log, Kind::Entry, 1, 10).unwrap();
    log.sync().unwrap();
    assert_eq!(log.end().unwrap().segment, 4, "their numbers are taken");
    assert_eq!(numbers(real), [1]);
}
