//! The files of the journal on a disk that fails, and on a real one.

mod crash;
mod damage;
mod real;

use super::frame::{HEADER_BYTES, Head, Header, PAYLOAD_BYTES_MAX};
use super::open::{Segment, segment_file};
use super::*;

const SETTINGS: Settings = Settings { segment_bytes: 2_000, reserve_bytes: 1_024 };
const EVERYTHING: Position = Position { segment: u64::MAX, offset: 0 };
const OLDEST: Position = Position { segment: 0, offset: 0 };
/// The number in marks: they are checked as entries are, but have no place in the order.
const MARKS: u64 = 0;

fn start(first: u64) -> Start {
    Start { node: *b"node", created_ms: 1_000, first }
}

/// Its number, then bytes that follow from it; every third has a frame's header in it, which is none.
fn payload(number: u64, bytes: usize) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    let header = Header::of(Kind::Entry, &[]).unwrap().encode(Position { segment: 1, offset: 0 });
    payload.extend((0..bytes).map(|at| match number % 3 {
        0 => header[at % HEADER_BYTES],
        _ => (number as usize * 31 + at * 7) as u8,
    }));
    payload
}

/// The number of a frame that was read, which must be as it was written.
fn number_of(read: &[u8]) -> u64 {
    let number = u64::from_le_bytes(read[..8].try_into().unwrap());
    assert_eq!(read, payload(number, read.len() - 8), "what is read was written");
    number
}

fn append(log: &mut Log, kind: Kind, number: u64, bytes: usize) -> Result<Position, WriteError> {
    let payload = payload(number, bytes);
    let (number, rest) = payload.split_at(8);
    log.append(kind, &[number, rest, &[]])
}

fn disk(faulty: &Faulty) -> Disk {
    Disk::Faulty(faulty.clone())
}

/// The log, what was found, and the numbers of the frames that were replayed.
fn open(disk: Disk) -> (Log, Opened, Vec<u64>) {
    let mut replayed = Vec::new();
    let (log, opened) = Log::open(disk, SETTINGS, |_, _, payload| replayed.push(number_of(payload))).unwrap();
    (log, opened, replayed)
}

/// The numbers of all entries and where they stand, and what was skipped.
fn read(reader: &mut Reader, until: Position) -> (Vec<(Position, u64)>, Vec<Skipped>) {
    let (mut numbers, mut skipped) = (Vec::new(), Vec::new());
    while let Some(read) = reader.next(until).unwrap() {
        match read {
            Read::Frame { at, kind: Kind::Entry, payload } => numbers.push((at, number_of(&payload))),
            Read::Frame { payload, .. } => assert_eq!(number_of(&payload), MARKS),
            Read::Skipped(bytes) => skipped.push(bytes),
        }
        assert!(numbers.len() + skipped.len() < 100_000, "it comes to an end");
    }
    (numbers, skipped)
}

fn numbers(disk: Disk) -> Vec<u64> {
    read(&mut Reader::new(disk, OLDEST), EVERYTHING).0.into_iter().map(|(_, number)| number).collect()
}

/// A log with one segment of two entries.
fn two_entries() -> Faulty {
    let faulty = Faulty::new(1);
    let (mut log, ..) = open(disk(&faulty));
    log.start_segment(&start(1)).unwrap();
    append(&mut log, Kind::Entry, 1, 10).unwrap();
    append(&mut log, Kind::Entry, 2, 700).unwrap();
    log.sync().unwrap();
    faulty
}

#[test]
fn what_was_synced_is_read_again_and_replayed() {
    let faulty = two_entries().crash();
    assert_eq!(numbers(disk(&faulty)), [1, 2]);
    let (log, opened, replayed) = open(disk(&faulty));
    assert_eq!(replayed, [1, 2]);
    assert_eq!(opened.skipped, []);
    let head = Head { number: 1, node: *b"node", created_ms: 1_000, first: 1 };
    assert_eq!(opened.segments, [Segment { number: 1, head: Some(head), bytes: log.end().unwrap().offset }]);
    assert_eq!(log.end(), log.synced_end());
    assert!(!log.wants_segment(), "it goes on where it ended");
}

#[test]
fn what_a_start_found_is_safe_even_if_the_process_before_never_synced_it() {
    let faulty = two_entries();
    let (mut log, ..) = open(disk(&faulty));
    append(&mut log, Kind::Entry, 3, 900).unwrap();
    drop(log);
    assert_eq!(open(disk(&faulty)).2, [1, 2, 3]);
    for _ in 0..20 {
        assert_eq!(numbers(disk(&faulty.crash())), [1, 2, 3]);
    }
}

#[test]
fn a_new_journal_has_no_segment_and_says_so() {
    let (mut log, opened, replayed) = open(disk(&Faulty::new(1)));
    assert!(opened.segments.is_empty() && opened.skipped.is_empty() && replayed.is_empty());
    assert!(log.wants_segment());
    assert!(log.has_reserve());
    assert_eq!(log.end(), None);
    assert!(matches!(append(&mut log, Kind::Entry, 1, 1), Err(WriteError::NoSegment)));
    log.sync().unwrap();
}

#[test]
fn the_reader_goes_as_far_as_it_is_told_and_on_from_there() {
    let faulty = two_entries();
    let (mut log, ..) = open(disk(&faulty));
    let mut reader = Reader::new(disk(&faulty), OLDEST);
    let until = log.end().unwrap();
    append(&mut log, Kind::Entry, 3, 5).unwrap();
    assert_eq!(read(&mut reader, until).0.len(), 2);
    assert_eq!(reader.at(), until);
    assert_eq!(read(&mut reader, until), (vec![], vec![]));
    log.start_segment(&start(4)).unwrap();
    let at = append(&mut log, Kind::Entry, 4, 0).unwrap();
    log.sync().unwrap();
    let (found, skipped) = read(&mut reader, log.synced_end().unwrap());
    assert_eq!((found, skipped), (vec![(until, 3), (at, 4)], vec![]));
    assert_eq!(read(&mut Reader::new(disk(&faulty), at), EVERYTHING).0, [(at, 4)]);
}

#[test]
fn a_segment_that_is_large_enough_wants_the_next() {
    let faulty = two_entries();
    let (mut log, ..) = open(disk(&faulty));
    append(&mut log, Kind::Entry, 3, 1_300).unwrap();
    assert!(log.wants_segment());
    append(&mut log, Kind::Entry, 4, 1).unwrap();
    log.start_segment(&start(5)).unwrap();
    assert!(!log.wants_segment());
    append(&mut log, Kind::Marks, MARKS, 9).unwrap();
    log.sync().unwrap();
    drop(log);
    let (_, opened, replayed) = open(disk(&faulty));
    assert_eq!(replayed, [MARKS], "marks open the last segment, so no other is read");
    assert_eq!(opened.segments.iter().map(|segment| segment.head.unwrap().first).collect::<Vec<_>>(), [1, 5]);
    assert_eq!(numbers(disk(&faulty)), [1, 2, 3, 4]);
}

#[test]
fn a_last_segment_without_marks_is_read_with_the_one_before() {
    let faulty = Faulty::new(1);
    let (mut log, ..) = open(disk(&faulty));
    for number in 1..=3 {
        log.start_segment(&start(number)).unwrap();
        if number < 3 {
            append(&mut log, Kind::Marks, MARKS, 3).unwrap();
            append(&mut log, Kind::Entry, number, 3).unwrap();
        }
    }
    log.sync().unwrap();
    drop(log);
    assert_eq!(open(disk(&faulty.crash())).2, [MARKS, 2]);
}

#[test]
fn segments_below_a_number_are_removed_but_never_the_current() {
    let faulty = Faulty::new(1);
    let (mut log, ..) = open(disk(&faulty));
    for number in 1..=4 {
        log.start_segment(&start(number)).unwrap();
        append(&mut log, Kind::Entry, number, 100).unwrap();
    }
    log.sync().unwrap();
    let bytes = log.bytes();
    log.remove_before(3).unwrap();
    assert_eq!(numbers(disk(&faulty.crash())), [3, 4]);
    assert_eq!((log.bytes() - 1_024) * 2, bytes - 1_024);
    log.remove_before(u64::MAX).unwrap();
    assert_eq!(numbers(disk(&faulty.crash())), [4]);
    append(&mut log, Kind::Entry, 5, 100).unwrap();
    log.sync().unwrap();
    assert_eq!(numbers(disk(&faulty.crash())), [4, 5]);
}

#[test]
fn missing_segments_are_passed_over() {
    let faulty = Faulty::new(1);
    let (mut log, ..) = open(disk(&faulty));
    for number in 1..=9 {
        log.start_segment(&start(number)).unwrap();
        append(&mut log, Kind::Entry, number, 100).unwrap();
    }
    log.sync().unwrap();
    drop(log);
    for gone in [1, 3, 4, 5, 8] {
        faulty.remove(&segment_file(gone)).unwrap();
    }
    let (log, opened, replayed) = open(disk(&faulty));
    assert_eq!(replayed, [2, 6, 7, 9]);
    assert_eq!(opened.skipped, []);
    assert_eq!(numbers(disk(&faulty)), [2, 6, 7, 9]);
    assert_eq!(log.end().unwrap().segment, 9);
}

#[test]
fn a_reader_survives_the_removal_of_what_it_reads() {
    let faulty = Faulty::new(1);
    let (mut log, ..) = open(disk(&faulty));
    for number in 1..=4 {
        log.start_segment(&start(number)).unwrap();
        append(&mut log, Kind::Entry, number * 2 - 1, 100).unwrap();
        append(&mut log, Kind::Entry, number * 2, 100).unwrap();
    }
    log.sync().unwrap();
    let mut reader = Reader::new(disk(&faulty), OLDEST);
    assert!(matches!(reader.next(EVERYTHING), Ok(Some(Read::Frame { .. }))));
    log.remove_before(4).unwrap();
    let (found, skipped) = read(&mut reader, EVERYTHING);
    assert_eq!(found.into_iter().map(|(_, number)| number).collect::<Vec<_>>(), [2, 7, 8]);
    assert_eq!(skipped, []);
}

#[test]
fn foreign_and_empty_files_are_told_and_do_no_harm() {
    let faulty = two_entries();
    let names = [
        "journal-1.log",
        "journal-00000000000000000007.log.bak",
        "journal-18446744073709551615.log",
        "notes.txt",
    ];
    for name in names {
        faulty.create(name).unwrap().write_at(&[b"something"], 0).unwrap();
    }
    faulty.create(&segment_file(5)).unwrap();
    let (mut log, opened, replayed) = open(disk(&faulty));
    assert_eq!(replayed, [1, 2]);
    let told: Vec<_> = opened.skipped.iter().map(|skipped| (&skipped.file[..], skipped.fault)).collect();
    let foreign = names.map(|name| (name, Fault::Foreign));
    let empty = segment_file(5);
    for one in foreign.into_iter().chain([(&empty[..], Fault::Empty)]) {
        assert!(told.contains(&one), "{one:?} in {told:?}");
    }
    log.start_segment(&start(3)).unwrap();
    assert_eq!(log.end().unwrap().segment, 6, "a number is used once");
    assert_eq!(open(disk(&faulty)).1.skipped.len(), 4, "the empty file is gone");
}

#[test]
fn a_segment_of_a_newer_format_is_refused_in_words_and_nothing_is_touched() {
    let faulty = two_entries();
    faulty.create(&segment_file(2)).unwrap().write_at(&[&newer_header(2)], 0).unwrap();
    faulty.damage(&segment_file(1), |bytes| bytes.truncate(bytes.len() - 1));
    let refused = Log::open(disk(&faulty), SETTINGS, |_, _, _| {}).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "journal-00000000000000000002.log has format 9, and this version reads up to format 1"
    );
    assert_eq!(faulty.open(&segment_file(1)).unwrap().bytes(), 52 + 38 + 728 - 1);
}

/// As a later version would write it.
fn newer_header(segment: u64) -> [u8; HEADER_BYTES] {
    let mut header = Header::of(Kind::Head, &[]).unwrap().encode(Position { segment, offset: 0 });
    header[4] = 9;
    let place = [segment.to_le_bytes(), 0u64.to_le_bytes()].concat();
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&place), &header[..16]);
    header[16..].copy_from_slice(&checksum.to_le_bytes());
    header
}

#[test]
fn a_payload_has_a_bound() {
    let (mut log, ..) = open(disk(&Faulty::new(1)));
    log.start_segment(&start(1)).unwrap();
    let at = log.end();
    let large = vec![0; PAYLOAD_BYTES_MAX as usize];
    assert!(matches!(log.append(Kind::Entry, &[&large, b"x"]), Err(WriteError::TooLarge)));
    assert_eq!(log.end(), at);
    log.append(Kind::Entry, &[&large]).unwrap();
}

#[test]
fn a_full_disk_leaves_the_end_where_it_was_and_goes_on_when_there_is_room() {
    let faulty = two_entries();
    let (mut log, ..) = open(disk(&faulty));
    let end = log.end();
    for room in 0..300 {
        faulty.set_capacity(faulty.used_bytes() + room);
        assert!(matches!(append(&mut log, Kind::Entry, 3, 500), Err(WriteError::Full)));
        assert_eq!(log.end(), end);
    }
    assert!(matches!(log.start_segment(&start(3)), Ok(())), "a head fits");
    faulty.set_capacity(faulty.used_bytes());
    assert!(matches!(log.start_segment(&start(3)), Err(WriteError::Full)));
    assert!(append(&mut log, Kind::Entry, 4, 1).is_err(), "not one byte more");
    faulty.set_capacity(faulty.used_bytes() + 100);
    append(&mut log, Kind::Entry, 5, 20).unwrap();
    log.sync().unwrap();
    assert_eq!(log.free_bytes().unwrap(), 100 - 48);
    assert_eq!(numbers(disk(&faulty.crash())), [1, 2, 5]);
}

#[test]
fn the_reserve_takes_marks_when_the_disk_is_full() {
    let faulty = two_entries();
    let (mut log, ..) = open(disk(&faulty));
    faulty.set_capacity(faulty.used_bytes());
    assert!(matches!(log.start_segment(&start(3)), Err(WriteError::Full)));
    log.use_reserve(&start(3)).unwrap();
    let bytes = log.bytes();
    append(&mut log, Kind::Marks, MARKS, 400).unwrap();
    assert!(matches!(append(&mut log, Kind::Marks, MARKS, 600), Err(WriteError::Full)));
    append(&mut log, Kind::Marks, MARKS, 400).unwrap();
    log.sync().unwrap();
    assert_eq!((bytes, log.has_reserve()), (log.bytes(), false));
    assert!(matches!(log.use_reserve(&start(4)), Err(WriteError::Full)));
    assert!(matches!(log.restore_reserve(), Err(WriteError::Full)));
    let after = faulty.crash();
    assert_eq!(open(disk(&after)).2, [MARKS, MARKS]);
    faulty.set_capacity(u64::MAX);
    log.restore_reserve().unwrap();
    assert!(log.has_reserve());
    append(&mut log, Kind::Entry, 3, 400).unwrap();
    log.sync().unwrap();
    assert_eq!(numbers(disk(&faulty.crash())), [1, 2, 3]);
}

#[test]
fn a_reserve_outlives_a_restart_on_a_full_disk() {
    let faulty = two_entries();
    faulty.set_capacity(faulty.used_bytes());
    let (mut log, ..) = open(disk(&faulty));
    log.use_reserve(&start(3)).unwrap();
}

#[test]
fn a_failed_sync_seals_the_segment_and_asks_for_all_of_it_again() {
    let faulty = two_entries();
    let (mut log, ..) = open(disk(&faulty));
    let synced = log.synced_end().unwrap();
    append(&mut log, Kind::Entry, 3, 900).unwrap();
    faulty.fail_sync_after(0);
    assert!(matches!(log.sync(), Err(WriteError::Unsynced(_))));
    assert!(log.wants_segment());
    assert_eq!(log.end(), None);
    assert_eq!(faulty.open(&segment_file(1)).unwrap().bytes(), synced.offset);
    log.start_segment(&start(3)).unwrap();
    append(&mut log, Kind::Entry, 3, 900).unwrap();
    log.sync().unwrap();
    assert_eq!(numbers(disk(&faulty)), [1, 2, 3]);
}

#[test]
fn a_new_segment_makes_the_one_before_safe_or_says_that_it_could_not() {
    let faulty = two_entries();
    let (mut log, ..) = open(disk(&faulty));
    append(&mut log, Kind::Entry, 3, 900).unwrap();
    log.start_segment(&start(4)).unwrap();
    for _ in 0..20 {
        assert_eq!(numbers(disk(&faulty.crash())), [1, 2, 3]);
    }
    append(&mut log, Kind::Entry, 4, 900).unwrap();
    faulty.fail_sync_after(0);
    assert!(matches!(log.start_segment(&start(5)), Err(WriteError::Unsynced(_))));
    assert_eq!(log.end(), None);
    log.start_segment(&start(4)).unwrap();
    assert_eq!(log.end().unwrap().segment, 3);
}

#[test]
fn what_a_failed_write_left_does_not_show_behind_a_shorter_frame() {
    for seed in 0..50 {
        let faulty = Faulty::new(seed);
        let (mut log, ..) = open(disk(&faulty));
        log.start_segment(&start(1)).unwrap();
        faulty.fail_write_after(0);
        assert!(matches!(append(&mut log, Kind::Entry, 1, 900), Err(WriteError::Failed(_))));
        append(&mut log, Kind::Entry, 2, 10).unwrap();
        log.sync().unwrap();
        assert_eq!(log.end().unwrap().offset, faulty.open(&segment_file(1)).unwrap().bytes());
        log.start_segment(&start(3)).unwrap();
        assert_eq!(read(&mut Reader::new(disk(&faulty), OLDEST), EVERYTHING).1, []);
    }
}

#[test]
fn a_segment_that_cannot_be_begun_leaves_the_one_before_in_use_unless_its_head_may_come_back() {
    // The write of the head, the sync of the file, the sync of the folder.
    type Fail = fn(&Faulty);
    let failures: [(Fail, bool); 3] = [
        (|disk| disk.fail_write_after(0), false),
        (|disk| disk.fail_sync_after(0), true),
        (|disk| disk.fail_sync_after(1), true),
    ];
    for (fail, has_head) in failures {
        let faulty = two_entries();
        let (mut log, ..) = open(disk(&faulty));
        fail(&faulty);
        assert!(matches!(log.start_segment(&start(3)), Err(WriteError::Failed(_))));
        assert_eq!(log.wants_segment(), has_head);
        if has_head {
            // It would be void by the head that a crash may leave.
            assert!(matches!(append(&mut log, Kind::Entry, 3, 10), Err(WriteError::NoSegment)));
            log.start_segment(&start(3)).unwrap();
        }
        append(&mut log, Kind::Entry, 3, 10).unwrap();
        log.start_segment(&start(4)).unwrap();
        append(&mut log, Kind::Entry, 4, 10).unwrap();
        log.sync().unwrap();
        for _ in 0..20 {
            assert_eq!(numbers(disk(&faulty.crash())), [1, 2, 3, 4]);
        }
    }
}
