//! Damaged bytes: what is not touched is still read, what was never written is not, and everything comes to an end.

use super::super::faulty::Faulty;
use super::super::frame::{Damage, HEADER_BYTES, Header, MAGIC};
use super::super::open::segment_file;
use super::super::scan::{Found, Scan};
use super::*;
use proptest::prelude::*;
use std::io;
use std::ops::Range;

/// Two segments, and the bytes of each entry: segment, range, number.
fn small_log() -> (Faulty, Vec<(u64, Range<u64>, u64)>) {
    let faulty = Faulty::new(1);
    let (mut log, ..) = open(disk(&faulty));
    let mut entries = Vec::new();
    for (segment, sizes) in [(1, [0, 30, 100]), (2, [60, 0, 45])] {
        log.start_segment(&start(entries.len() as u64 + 1)).unwrap();
        append(&mut log, Kind::Marks, MARKS, 12).unwrap();
        for bytes in sizes {
            let number = entries.len() as u64 + 1;
            let at = append(&mut log, Kind::Entry, number, bytes).unwrap();
            entries.push((segment, at.offset..log.end().unwrap().offset, number));
        }
    }
    log.sync().unwrap();
    (faulty, entries)
}

/// Reads, starts, goes on, and reads again: all of `expected` is there each time, and nothing else.
fn check(faulty: &Faulty, expected: &[u64]) {
    assert_eq!(numbers(disk(faulty)), expected);
    let (mut log, _, replayed) = open(disk(faulty));
    let replayed: Vec<u64> = replayed.into_iter().filter(|number| *number != MARKS).collect();
    assert!(expected.ends_with(&replayed), "{replayed:?} of {expected:?}");
    if log.wants_segment() {
        log.start_segment(&start(100)).unwrap();
    }
    append(&mut log, Kind::Entry, 100, 20).unwrap();
    log.sync().unwrap();
    let expected: Vec<u64> = expected.iter().copied().chain([100]).collect();
    assert_eq!(numbers(disk(faulty)), expected);
    drop(log);
    assert!(
        expected.ends_with(&open(disk(faulty)).2.into_iter().filter(|n| *n != MARKS).collect::<Vec<_>>())
    );
}

#[test]
fn a_flipped_bit_costs_the_frame_it_is_in_and_no_other() {
    let (faulty, entries) = small_log();
    for segment in [1, 2] {
        let bytes = faulty.open(&segment_file(segment)).unwrap().bytes();
        for bit in 0..bytes * 8 {
            let faulty = faulty.crash();
            faulty.damage(&segment_file(segment), |bytes| bytes[bit as usize / 8] ^= 1 << (bit % 8));
            let is_hit =
                |(of, range, _): &&(u64, Range<u64>, u64)| *of == segment && range.contains(&(bit / 8));
            let expected: Vec<u64> =
                entries.iter().filter(|one| !is_hit(one)).map(|(.., number)| *number).collect();
            check(&faulty, &expected);
        }
    }
}

#[test]
fn a_cut_costs_what_is_behind_it_in_its_segment() {
    let (faulty, entries) = small_log();
    for segment in [1, 2] {
        let bytes = faulty.open(&segment_file(segment)).unwrap().bytes();
        for cut in 0..bytes {
            let faulty = faulty.crash();
            faulty.damage(&segment_file(segment), |bytes| bytes.truncate(cut as usize));
            let stays = |(of, range, _): &&(u64, Range<u64>, u64)| *of != segment || range.end <= cut;
            let expected: Vec<u64> = entries.iter().filter(stays).map(|(.., number)| *number).collect();
            check(&faulty, &expected);
        }
    }
}

#[test]
fn zeros_and_stale_frames_behind_the_end_are_cut() {
    let (faulty, entries) = small_log();
    let all: Vec<u64> = entries.iter().map(|(.., number)| *number).collect();
    let first = {
        let file = faulty.open(&segment_file(1)).unwrap();
        let mut bytes = vec![0; file.bytes() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        bytes
    };
    for tail in [vec![0; 5_000], first, MAGIC.repeat(100)] {
        let faulty = faulty.crash();
        let end = faulty.open(&segment_file(2)).unwrap().bytes();
        faulty.damage(&segment_file(2), |bytes| bytes.extend(&tail));
        let opened = open(disk(&faulty)).1;
        let [skipped] = &opened.skipped[..] else { panic!("{:?}", opened.skipped) };
        assert_eq!((skipped.range.clone(), skipped.is_cut), (end..end + tail.len() as u64, true));
        assert_eq!(open(disk(&faulty)).1.skipped, []);
        check(&faulty, &all);
    }
}

#[test]
fn damage_in_the_middle_is_told_with_its_range_and_stays_in_the_file() {
    let (faulty, entries) = small_log();
    let (_, range, number) = entries[4].clone();
    faulty.damage(&segment_file(2), |bytes| bytes[range.start as usize] ^= 1);
    let skipped = Skipped { file: segment_file(2), range, fault: Fault::NoFrame, is_cut: false };
    assert_eq!(open(disk(&faulty)).1.skipped, std::slice::from_ref(&skipped));
    let (found, told) = read(&mut Reader::new(disk(&faulty), OLDEST), EVERYTHING);
    assert_eq!(told, [skipped]);
    assert!(found.iter().all(|(_, found)| *found != number));
}

#[test]
fn a_segment_under_another_number_is_damage() {
    let (faulty, _) = small_log();
    faulty.rename(&segment_file(1), &segment_file(7)).unwrap();
    assert_eq!(numbers(disk(&faulty)), [4, 5, 6]);
    let (log, opened, _) = open(disk(&faulty));
    assert!(log.wants_segment(), "nothing is appended to a file that is not understood");
    assert!(opened.skipped.iter().all(|skipped| skipped.fault == Fault::HeaderChecksum && !skipped.is_cut));
}

#[test]
fn a_frame_that_was_moved_is_no_frame() {
    let bytes = frames(&[50, 60]);
    let moved = [&bytes[..], &bytes[..]].concat();
    let found: Vec<Found> = scan_bytes(&moved).collect();
    assert!(matches!(found[..], [Found::Frame(_), Found::Frame(_), Found::Damage(_)]), "{found:?}");
}

fn scan_bytes(bytes: &[u8]) -> Scan<impl FnMut(&mut [u8], u64) -> io::Result<()>> {
    let read = |buffer: &mut [u8], offset: u64| {
        let found = bytes.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    };
    Scan::new(read, Position { segment: 1, offset: 0 }, bytes.len() as u64)
}

/// What is found lies end to end from the start to the end.
fn assert_tiles(bytes: &[u8]) {
    let mut at = 0;
    let mut payload = Vec::new();
    let mut scan = scan_bytes(bytes);
    while let Some(found) = scan.next() {
        let range = match found {
            Found::Frame(frame) => {
                let _ = scan.payload(&frame, &mut payload);
                frame.at.offset..frame.end()
            }
            Found::Damage(Damage { range, .. }) => range,
        };
        assert_eq!(range.start, at);
        assert!(range.end > at && range.end <= bytes.len() as u64);
        at = range.end;
    }
    assert_eq!(at, bytes.len() as u64);
}

fn frames(sizes: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, size) in sizes.iter().enumerate() {
        let payload = payload(number as u64, *size);
        let at = Position { segment: 1, offset: bytes.len() as u64 };
        bytes.extend(Header::of(Kind::Entry, &[&payload]).unwrap().encode(at));
        bytes.extend(payload);
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_come_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        assert_tiles(&bytes);
    }

    #[test]
    fn any_change_of_frames_comes_to_an_end(
        sizes in proptest::collection::vec(0usize..300, 0..12),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        moves in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..3),
    ) {
        let mut bytes = frames(&sizes);
        for (from, to) in moves.iter().filter(|_| !sizes.is_empty()) {
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            let some = bytes[from..].to_vec();
            bytes.splice(to..to, some);
        }
        for (at, value) in changes.iter().filter(|_| !sizes.is_empty()) {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        assert_tiles(&bytes);
    }
}

#[test]
fn a_search_reaches_over_any_length_of_damage() {
    for gap in [1, 4_095, 4_096, 65_530, 65_532, 65_533, 65_535, 65_536, 65_537, 200_000] {
        let mut bytes = MAGIC.repeat(gap / 4 + 1)[..gap].to_vec();
        let payload = payload(1, 5);
        let at = Position { segment: 1, offset: gap as u64 };
        bytes.extend(Header::of(Kind::Entry, &[&payload]).unwrap().encode(at));
        bytes.extend(payload);
        let found: Vec<Found> = scan_bytes(&bytes).collect();
        assert!(
            matches!(found[..], [Found::Damage(_), Found::Frame(frame)] if frame.at == at),
            "{gap}: {found:?}"
        );
    }
}

#[test]
fn what_the_disk_cannot_read_costs_the_frames_on_those_pages() {
    let bytes = frames(&[100; 400]);
    let frame_bytes = HEADER_BYTES as u64 + 108;
    for bad in [0..4_096, 4_096..8_192, 8_192..20_480, 40_960..45_056] {
        let read = |buffer: &mut [u8], offset: u64| {
            let end = offset + buffer.len() as u64;
            if offset < bad.end && end > bad.start {
                return Err(io::Error::other("input/output error"));
            }
            buffer.copy_from_slice(&bytes[offset as usize..end as usize]);
            Ok(())
        };
        let mut scan = Scan::new(read, Position { segment: 1, offset: 0 }, bytes.len() as u64);
        let mut intact = Vec::new();
        let mut payload = Vec::new();
        while let Some(found) = scan.next() {
            if let Found::Frame(frame) = found
                && scan.payload(&frame, &mut payload).is_ok()
            {
                intact.push(frame.at.offset / frame_bytes);
            }
        }
        let is_hit = |number: &u64| number * frame_bytes < bad.end && (number + 1) * frame_bytes > bad.start;
        let expected: Vec<u64> = (0..400).filter(|number| !is_hit(number)).collect();
        assert_eq!(intact, expected, "{bad:?}");
    }
}
