//! A part of an entry is the same request with fewer records.

use super::edits::{sample, stream};
use super::samples::{Decoded, Dice, cases, dice, signal};
use crate::batch::{Entry, Request, Signal};
use proptest::prelude::*;

fn entry(request: &Request, signal: Signal, records: u32) -> Entry {
    let bytes = request.bytes.clone();
    Entry { stream: stream(), signal, first: 100, records, time_ms: 7, node: [1; 4], bytes }
}

fn read(entry: &Entry) -> Decoded {
    Request::check(entry.signal, entry.bytes.clone()).expect("what we write is well-formed");
    Decoded::decode(entry.signal, &entry.bytes).unwrap()
}

/// What `prost` leaves if it does the same.
fn reference(whole: &Decoded, rows: std::ops::Range<u32>) -> Decoded {
    let mut left = whole.clone();
    left.keep(|at, _| rows.contains(&at));
    left.leave_out_empty();
    left
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn the_halves_hold_what_the_whole_held_in_its_order(signal in signal(), dice in dice(), cut in 0u32..40) {
        let (whole, request) = sample(signal, &mut Dice(&dice));
        let records = whole.records() as u32;
        let cut = cut.min(records);
        let entry = entry(&request, signal, records);
        let halves = [entry.rows(0..cut), entry.rows(cut..u32::MAX)];
        prop_assert_eq!(halves.each_ref().map(|half| half.records), [cut, records - cut]);
        prop_assert_eq!(halves.each_ref().map(|half| half.first), [100, 100 + u64::from(cut)]);
        for (half, rows) in halves.iter().zip([0..cut, cut..records]) {
            let expected = if rows == (0..records) { whole.clone() } else { reference(&whole, rows) };
            prop_assert_eq!(read(half), expected);
        }
        let joined = [&halves[0].bytes[..], &halves[1].bytes].concat();
        prop_assert_eq!(Decoded::decode(signal, &joined).unwrap().records() as u32, records);
    }

    #[test]
    fn a_part_of_a_part_is_a_part_of_the_whole(signal in signal(), dice in dice(), cuts in [0u32..30, 0..30, 0..30]) {
        let (whole, request) = sample(signal, &mut Dice(&dice));
        let mut cuts = cuts;
        cuts.sort_unstable();
        let entry = entry(&request, signal, whole.records() as u32);
        let [from, to, end] = cuts;
        let (once, twice) = (entry.rows(from..to), entry.rows(from..end).rows(0..to - from));
        prop_assert_eq!((once.first, once.records), (twice.first, twice.records));
        prop_assert_eq!(read(&once), read(&twice));
    }
}
