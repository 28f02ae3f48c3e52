//! The checked walk: wire types, lengths, nesting and UTF-8 of a whole request, once, without allocation per record.
//!
//! It accepts what protobuf's readers accept (`prost` is the reference in the tests), with these exceptions. Values are
//! nested at most [`NESTING_MAX`] deep. A field that OTLP has once comes once, and of a choice one: protobuf lets the last
//! one win, or puts messages together, which no encoder of OTLP makes use of; but a reader that takes the first would see
//! what no plugin redacted. And what costs us more memory than it costs the sender is bounded: resources, strings to mend.
//! A string that is not UTF-8 is no fault: its place is noted, and [`super::Request::check`] mends it.

pub(super) mod schema;

use super::request::Resource;
use super::wire::{fields, varint};
use super::{Malformed, Signal};
use schema::*;
use std::ops::Range;

/// Arrays and maps around a value.
const NESTING_MAX: u32 = 64;
/// Groups within groups (a form of protobuf 2), in fields that OTLP does not know.
const GROUPS_MAX: usize = 64;
/// Each costs 24 bytes, and may be as short as two.
const RESOURCES_MAX: usize = 1 << 20;
/// Each costs some 30 bytes of rows while plugins work: of records of 60 bytes or more the largest body has no more.
const RECORDS_MAX: u64 = 1 << 20;
/// Each costs some 200 bytes until it is mended; eight for each of 8,192 records.
const BAD_TEXTS_MAX: usize = 1 << 16;

/// What the walk found in a request that is well-formed.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) resources: Vec<Resource>,
    pub(super) records: u64,
    /// The contents of the strings that are not UTF-8, ascending.
    pub(super) bad_texts: Vec<Range<usize>>,
}

/// Walks an Export*ServiceRequest.
pub(super) fn walk(signal: Signal, bytes: &[u8]) -> Result<Found, Malformed> {
    if u32::try_from(bytes.len()).is_err() {
        return Err(Malformed { offset: 0, expected: "less than 4 GiB" });
    }
    let mut walk = Walk { found: Found::default(), fault: None };
    match walk.request(schema::request(signal), bytes) {
        Ok(()) => Ok(walk.found),
        Err(Stop) => Err(walk.fault.expect("whoever stops the walk says why")),
    }
}

/// The fault stands in [`Walk::fault`]: a small error keeps the hot path's results in registers.
struct Stop;

struct Walk {
    found: Found,
    fault: Option<Malformed>,
}

impl Walk {
    /// The same loop as [`Walk::message`], with the place of each resource noted.
    fn request(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), Stop> {
        let mut at = 0;
        while at < bytes.len() {
            let (start, before) = (at, self.found.records);
            let (op, content, _) = self.key(kind, bytes, at)?;
            at = self.field(op, bytes, content, 0)?;
            if op >= MESSAGE {
                if self.found.resources.len() == RESOURCES_MAX {
                    return self.stop(start, "at most 1048576 resources");
                }
                let records = (self.found.records - before) as u32;
                self.found.resources.push(Resource { range: start..at, records, mended: 0 });
            }
        }
        Ok(())
    }

    /// Checks the message whose content begins at `start` and ends with `bytes`.
    fn message(&mut self, kind: Kind, bytes: &[u8], start: usize, nesting: u32) -> Result<(), Stop> {
        let ops = &BY_KEY[kind as usize];
        // A bit for each field that came, and for each that came again.
        let (mut seen, mut again) = (0, 0);
        let mut at = start;
        while at < bytes.len() {
            let key = bytes[at];
            let (mut op, mut content, mut bit) = (ops[key as usize], at + 1, 1 << (key >> 3));
            if op == OTHER {
                (op, content, bit) = self.key(kind, bytes, at)?;
            }
            again |= seen & bit;
            seen |= bit;
            at = self.field(op, bytes, content, nesting)?;
        }
        let choices = seen & CHOICE[kind as usize];
        if again & SINGLE[kind as usize] | choices & choices.wrapping_sub(1) != 0 {
            return self.repeated(kind, bytes, start);
        }
        Ok(())
    }

    /// Says which field came again.
    #[cold]
    #[inline(never)]
    fn repeated(&mut self, kind: Kind, bytes: &[u8], start: usize) -> Result<(), Stop> {
        let mut seen = 0;
        for field in fields(bytes, start, bytes.len()).filter(|field| field.number < u32::BITS) {
            let bit = 1 << field.number;
            if seen & bit & SINGLE[kind as usize] != 0 {
                return self.stop(field.start, "this field only once");
            }
            if bit & CHOICE[kind as usize] != 0 && seen & CHOICE[kind as usize] != 0 {
                return self.stop(field.start, "only one of the fields that exclude each other");
            }
            seen |= bit;
        }
        self.stop(start, "no field twice")
    }

    /// Checks a field's value, and returns where it ends.
    #[inline(always)]
    fn field(&mut self, op: Op, bytes: &[u8], at: usize, nesting: u32) -> Result<usize, Stop> {
        match op {
            VARINT => match varint(bytes, at) {
                Some((_, end)) => Ok(end),
                None => self.stop(at, "a varint of at most 64 bits"),
            },
            FIXED64 if bytes.len() - at >= 8 => Ok(at + 8),
            FIXED64 => self.stop(at, "8 bytes"),
            FIXED32 if bytes.len() - at >= 4 => Ok(at + 4),
            FIXED32 => self.stop(at, "4 bytes"),
            DONE => Ok(at),
            _ => {
                let (content, end) = self.length(bytes, at)?;
                match op {
                    TEXT => {
                        if !is_ascii(&bytes[content..end]) && !is_utf8(&bytes[content..end]) {
                            self.mend(content..end)?;
                        }
                    }
                    BYTES => {}
                    FIXED64S if (end - content).is_multiple_of(8) => {}
                    FIXED64S => return self.stop(content, "a packed list of 8 bytes each"),
                    VARINTS => self.varints(&bytes[..end], content)?,
                    _ => self.enter(op - MESSAGE, &bytes[..end], content, nesting)?,
                }
                Ok(end)
            }
        }
    }

    #[inline(always)]
    fn enter(&mut self, kind: Kind, bytes: &[u8], at: usize, mut nesting: u32) -> Result<(), Stop> {
        match kind {
            // Most messages are attributes, and most attributes have the usual form.
            KEY_VALUE if is_usual_attribute(&bytes[at..]) => return Ok(()),
            FIRST_RECORD.. => {
                if self.found.records == RECORDS_MAX {
                    return self.stop(at, "at most 1048576 records");
                }
                self.found.records += 1;
            }
            ARRAY | MAP => {
                nesting += 1;
                if nesting > NESTING_MAX {
                    return self.stop(at, "at most 64 levels of nested values");
                }
            }
            _ => {}
        }
        self.message(kind, bytes, at, nesting)
    }

    /// Reads the length at `at`: where the content begins and ends.
    #[inline(always)]
    fn length(&mut self, bytes: &[u8], at: usize) -> Result<(usize, usize), Stop> {
        let Some((length, content)) = varint(bytes, at) else {
            return self.stop(at, "a length of at most 64 bits");
        };
        if length > (bytes.len() - content) as u64 {
            return self.stop(at, "a length that ends within the message");
        }
        Ok((content, content + length as usize))
    }

    fn varints(&mut self, bytes: &[u8], mut at: usize) -> Result<(), Stop> {
        while at < bytes.len() {
            match varint(bytes, at) {
                Some((_, end)) => at = end,
                None => return self.stop(at, "a packed list of varints"),
            }
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn mend(&mut self, text: Range<usize>) -> Result<(), Stop> {
        if self.found.bad_texts.len() == BAD_TEXTS_MAX {
            return self.stop(text.start, "at most 65536 strings that are not UTF-8");
        }
        self.found.bad_texts.push(text);
        Ok(())
    }

    /// Reads any key: what to do with its field, where the field's value begins, and its bit if OTLP knows it.
    #[inline(never)]
    fn key(&mut self, kind: Kind, bytes: &[u8], at: usize) -> Result<(Op, usize, u32), Stop> {
        let (number, wire, content) = self.bare_key(bytes, at)?;
        match (look(kind, number, wire), wire) {
            (Err(expected), _) => self.stop(at, expected),
            (Ok(OTHER), 0) => Ok((VARINT, content, 0)),
            (Ok(OTHER), 1) => Ok((FIXED64, content, 0)),
            (Ok(OTHER), 2) => Ok((BYTES, content, 0)),
            (Ok(OTHER), 3) => Ok((DONE, self.group(number, bytes, content)?, 0)),
            (Ok(OTHER), 5) => Ok((FIXED32, content, 0)),
            (Ok(OTHER), _) => self.stop(at, "a field, not the end of a group"),
            (Ok(op), _) => Ok((op, content, 1 << number)),
        }
    }

    /// Number, wire type, and where the value begins.
    fn bare_key(&mut self, bytes: &[u8], at: usize) -> Result<(u64, u8, usize), Stop> {
        let Some((key, content)) = varint(bytes, at) else {
            return self.stop(at, "a field's key");
        };
        let (number, wire) = (key >> 3, (key & 7) as u8);
        if number == 0 || key > u64::from(u32::MAX) {
            return self.stop(at, "a field number from 1 to 536870911");
        }
        if wire > 5 {
            return self.stop(at, "a wire type from 0 to 5");
        }
        Ok((number, wire, content))
    }

    /// Skips the group `number` whose first field begins at `at`.
    fn group(&mut self, number: u64, bytes: &[u8], mut at: usize) -> Result<usize, Stop> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            let (number, wire, content) = self.bare_key(bytes, at)?;
            let op = match wire {
                0 => VARINT,
                1 => FIXED64,
                2 => BYTES,
                3 if open.len() == GROUPS_MAX => return self.stop(at, "at most 64 levels of groups"),
                3 => {
                    open.push(number);
                    DONE
                }
                4 if number != innermost => return self.stop(at, "the end of the group that is open"),
                4 => {
                    open.pop();
                    DONE
                }
                _ => FIXED32,
            };
            at = self.plain(op, bytes, content)?;
        }
        Ok(at)
    }

    /// Like [`Walk::field`], for the fields of a group, which are no messages.
    fn plain(&mut self, op: Op, bytes: &[u8], at: usize) -> Result<usize, Stop> {
        self.field(op, bytes, at, 0)
    }

    #[cold]
    #[inline(never)]
    fn stop<T>(&mut self, offset: usize, expected: &'static str) -> Result<T, Stop> {
        self.fault = Some(Malformed { offset, expected });
        Err(Stop)
    }
}

/// Whether this is a KeyValue with a key, then a text, integer, double or boolean, all ASCII and below 128 bytes.
/// Others may be as right: the loop decides.
#[inline(always)]
fn is_usual_attribute(bytes: &[u8]) -> bool {
    let Some((&[0x0a, key_length @ ..0x80], rest)) = bytes.split_first_chunk() else { return false };
    let Some((key, rest)) = rest.split_at_checked(usize::from(key_length)) else { return false };
    let Some((&[0x12, length @ ..0x80], value)) = rest.split_first_chunk() else { return false };
    let is_usual = match value {
        [0x0a, length @ ..0x80, text @ ..] => text.len() == usize::from(*length) && is_ascii(text),
        [0x18 | 0x10, ..0x80] => true,
        [0x21, double @ ..] => double.len() == 8,
        _ => false,
    };
    is_usual && value.len() == usize::from(length) && is_ascii(key)
}

/// Most strings are ASCII and short: that is seen eight bytes at a time.
#[inline(always)]
fn is_ascii(text: &[u8]) -> bool {
    match text.first_chunk() {
        // The first eight, and from the end the eights that hold the rest.
        Some(first) => {
            let (_, eights) = text.as_rchunks();
            let bits = eights
                .iter()
                .fold(u64::from_ne_bytes(*first), |bits, &eight| bits | u64::from_ne_bytes(eight));
            bits & 0x8080_8080_8080_8080 == 0
        }
        None => text.iter().fold(0, |bits, byte| bits | byte) < 0x80,
    }
}

#[cold]
#[inline(never)]
fn is_utf8(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok()
}
