//! What the checked walk accepts, `prost` accepts, and the other way round; and both count the same.

use super::samples::{Decoded, Dice, cases, dice, rewritten, signal};
use crate::batch::{Malformed, Request, Signal};
use bytes::Bytes;
use proptest::prelude::*;

/// Compares the walk with `prost` on any bytes.
pub(super) fn compare(signal: Signal, bytes: &[u8]) {
    let checked = Request::check(signal, Bytes::copy_from_slice(bytes));
    let reference = Decoded::decode(signal, bytes);
    match checked {
        Ok(request) => {
            if reference.is_ok() {
                assert_eq!(request.mended, 0, "prost reads these strings as they are\n{bytes:?}");
            }
            let reference = Decoded::decode(signal, &request.bytes);
            if reference.as_ref().is_err_and(|error| error.to_string().contains("recursion limit")) {
                return;
            }
            let reference =
                reference.unwrap_or_else(|error| panic!("prost refuses what we accept: {error}\n{bytes:?}"));
            assert_eq!(request.resources.len(), reference.resources());
            assert_eq!(request.records, reference.records() as u64);
            let counts = request.resources.iter().map(|resource| u64::from(resource.records));
            assert_eq!(counts.sum::<u64>(), request.records);
        }
        Err(Malformed { expected, .. })
            if expected.contains("levels of")
                || expected.contains("only one")
                || expected.contains("only once") => {}
        Err(malformed) => {
            assert!(reference.is_err(), "we refuse ({malformed}) what prost accepts\n{bytes:?}");
            assert!(malformed.offset <= bytes.len());
        }
    }
}

proptest! {
    #![proptest_config(cases(1024))]

    #[test]
    fn a_request_counts_as_many_resources_and_records_as_prost_reads(signal in signal(), dice in dice()) {
        let reference = Dice(&dice).request(signal);
        let bytes = Bytes::from(reference.encode());
        let request = Request::check(signal, bytes.clone()).unwrap();
        prop_assert_eq!(request.records, reference.records() as u64);
        prop_assert_eq!(request.resources.len(), reference.resources());
        prop_assert_eq!(request.bytes.as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn a_request_written_in_an_unusual_way_reads_the_same(signal in signal(), dice in dice()) {
        let mut dice = Dice(&dice);
        let reference = dice.request(signal);
        let bytes = rewritten(signal, &reference.encode(), &mut dice);
        prop_assert_eq!(&Decoded::decode(signal, &bytes).unwrap(), &reference);
        compare(signal, &bytes);
        let request = Request::check(signal, bytes.into()).unwrap();
        prop_assert_eq!(&Decoded::decode(signal, &request.bytes).unwrap(), &reference);
    }

    #[test]
    fn a_damaged_request_is_refused_if_prost_refuses_it(
        signal in signal(),
        dice in dice(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        is_unusual: bool,
    ) {
        let mut dice = Dice(&dice);
        let mut bytes = dice.request(signal).encode();
        if is_unusual {
            bytes = rewritten(signal, &bytes, &mut dice);
        }
        if !bytes.is_empty() {
            for (at, flip) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
            }
        }
        compare(signal, &bytes);
    }

    #[test]
    fn random_bytes_are_refused_if_prost_refuses_them(signal in signal(), bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        compare(signal, &bytes);
    }
}

#[test]
fn a_request_that_ends_early_is_refused_as_prost_does() {
    let entropy: Vec<u8> = (0..900_u32).map(|at| (at * at * 31 + at * 7 + 3) as u8).collect();
    for signal in Signal::ALL {
        let mut dice = Dice(&entropy);
        let plain = dice.request(signal).encode();
        assert!(plain.len() > 300, "a sample worth cutting: {}", plain.len());
        for bytes in [rewritten(signal, &plain, &mut dice), plain] {
            for length in 0..=bytes.len() {
                compare(signal, &bytes[..length]);
            }
        }
    }
}
