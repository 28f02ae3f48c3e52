//! Any bytes as what stands in the journal's files: nothing panics, everything comes to an end, and what is decoded is
//! encoded as it was.
//!
//! The first byte says what the rest is: an entry, marks, a segment, or the plan of a segment with damage.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "the modules stand here alone, without their callers"
)]

#[path = "../../src/batch/mod.rs"]
mod batch;
#[path = "../../src/journal/disk/frame.rs"]
mod frame;
#[path = "../../src/journal/payload.rs"]
mod payload;
#[path = "../../src/journal/disk/scan.rs"]
mod scan;

use frame::{Damage, HEADER_BYTES, Head, Header, Kind, MAGIC, Position};
use libfuzzer_sys::fuzz_target;
use payload::{Entry, Marks};
use scan::{Found, Scan};
use std::io;
use std::ops::Range;

/// What an account looks like, without the ledger around it.
mod ledger {
    use std::borrow::Cow;
    use std::collections::BTreeMap;

    pub(crate) type Reason = Cow<'static, str>;
    type Counts = BTreeMap<Reason, u64>;

    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Outcome {
        pub(crate) acknowledged: u64,
        pub(crate) added: Counts,
        pub(crate) filtered: Counts,
        pub(crate) dropped: Counts,
        pub(crate) unrouted: u64,
    }

    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Kept {
        pub(crate) acknowledged: u64,
        pub(crate) unrouted: u64,
        pub(crate) committed: u64,
        pub(crate) added: Counts,
        pub(crate) filtered: Counts,
        pub(crate) dropped: Counts,
        pub(crate) sinks: BTreeMap<u16, KeptSink>,
    }

    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub(crate) struct KeptSink {
        pub(crate) committed: u64,
        pub(crate) delivered: u64,
        pub(crate) unsupported: u64,
        pub(crate) rejected: Counts,
        pub(crate) dead_lettered: Counts,
        pub(crate) expired: Counts,
        pub(crate) in_flight_bytes: u64,
    }
}

const SEGMENT: u64 = 7;

fuzz_target!(|data: &[u8]| {
    let [act, bytes @ ..] = data else { return };
    match act % 4 {
        0 => entry(bytes),
        1 => marks(bytes),
        2 => _ = look(bytes),
        _ => planned(bytes),
    }
});

fn entry(bytes: &[u8]) {
    let Some((entry, start)) = Entry::decode(bytes) else { return };
    let mut again = entry.encode();
    let encoded = again.len();
    again.extend(&bytes[start..]);
    assert_eq!(Entry::decode(&again), Some((entry, encoded)));
}

fn marks(bytes: &[u8]) {
    let Some(marks) = Marks::decode(bytes) else { return };
    assert_eq!(Marks::decode(&marks.encode()), Some(marks));
}

/// What is found lies end to end; the ranges of the frames that are intact.
fn look(bytes: &[u8]) -> Vec<Range<u64>> {
    let read = |buffer: &mut [u8], offset: u64| {
        let found = bytes.get(offset as usize..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    };
    let mut scan = Scan::new(read, Position { segment: SEGMENT, offset: 0 }, bytes.len() as u64);
    let (mut at, mut intact, mut payload) = (0, Vec::new(), Vec::new());
    while let Some(found) = scan.next() {
        let range = match found {
            Found::Damage(Damage { range, .. }) => range,
            Found::Frame(frame) => {
                let range = frame.at.offset..frame.end();
                if scan.payload(&frame, &mut payload).is_ok() {
                    match frame.header.kind {
                        Kind::Head => _ = Head::parse(&payload),
                        Kind::Entry => entry(&payload),
                        Kind::Marks => marks(&payload),
                    }
                    intact.push(range.clone());
                }
                range
            }
        };
        assert_eq!(range.start, at);
        assert!(range.end > at && range.end <= bytes.len() as u64);
        at = range.end;
    }
    assert_eq!(at, bytes.len() as u64);
    intact
}

/// Frames: kind, length, payload; then changes: place, place, bits. A frame that no change touches is found.
fn planned(mut plan: &[u8]) {
    let (mut segment, mut frames) = (Vec::new(), Vec::new());
    while let [kind @ 1..=3, length, rest @ ..] = plan {
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        let kind = [Kind::Head, Kind::Entry, Kind::Marks][usize::from(kind - 1)];
        let at = Position { segment: SEGMENT, offset: segment.len() as u64 };
        segment.extend(Header::of(kind, &[payload]).expect("it is small").encode(at));
        segment.extend(payload);
        frames.push(at.offset..segment.len() as u64);
        plan = rest;
    }
    // What a sender put into a payload is searched once its header is damaged.
    let has_magic = |range: &Range<u64>| {
        let payload = &segment[range.start as usize + HEADER_BYTES..range.end as usize];
        payload.windows(MAGIC.len()).any(|bytes| bytes == MAGIC)
    };
    let is_plain = !frames.iter().any(has_magic);
    if segment.is_empty() {
        return;
    }
    let mut changed = Vec::new();
    for change in plan.chunks_exact(3).filter(|change| change[2] != 0) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % segment.len();
        segment[at] ^= change[2];
        changed.push(at as u64);
    }
    let found = look(&segment);
    let is_touched = |range: &Range<u64>| changed.iter().any(|at| range.contains(at));
    let first = changed.iter().min().copied().unwrap_or(u64::MAX);
    for range in frames.iter().filter(|range| !is_touched(range)) {
        assert!(!is_plain && range.start > first || found.contains(range), "{range:?} of {found:?}");
    }
}
