//! OTLP's messages as tables: what each field must look like.
//!
//! Source: opentelemetry-proto 1.10 (`common`, `resource`, `logs`, `trace`, `metrics`, and the three `collector` services).
//! A test compares the tables with `prost` field by field.

use super::super::Signal;
use super::super::wire::{LENGTH, VARINT as VARINT_WIRE};

/// What to do with a field: one of the constants below, or `MESSAGE +` the kind of the message in it.
pub(in super::super) type Op = u8;

/// Not in the table of keys: an unknown field, a wrong wire type, a long key. The slow path looks again.
pub(in super::super) const OTHER: Op = 0;
pub(in super::super) const VARINT: Op = 1;
pub(in super::super) const FIXED64: Op = 2;
pub(in super::super) const FIXED32: Op = 3;
pub(in super::super) const BYTES: Op = 4;
pub(in super::super) const TEXT: Op = 5;
/// Repeated numbers, packed; each may also come unpacked.
pub(in super::super) const FIXED64S: Op = 6;
pub(in super::super) const VARINTS: Op = 7;
/// A field that the slow path has skipped.
pub(in super::super) const DONE: Op = 8;
pub(in super::super) const MESSAGE: Op = 16;

/// A kind of message.
pub(in super::super) type Kind = u8;

const LOGS_REQUEST: Kind = 0;
const TRACES_REQUEST: Kind = 1;
const METRICS_REQUEST: Kind = 2;
pub(in super::super) const KEY_VALUE: Kind = 3;
pub(in super::super) const ANY_VALUE: Kind = 4;
/// ArrayValue and KeyValueList: each a level of nesting.
pub(in super::super) const ARRAY: Kind = 5;
pub(in super::super) const MAP: Kind = 6;
pub(in super::super) const RESOURCE: Kind = 7;
pub(in super::super) const SCOPE: Kind = 8;
/// The envelopes of resources, from here to [`RESOURCE_METRICS`].
pub(in super::super) const RESOURCE_LOGS: Kind = 9;
const RESOURCE_SPANS: Kind = 10;
pub(in super::super) const RESOURCE_METRICS: Kind = 11;
/// The envelopes of scopes, from here to [`SCOPE_METRICS`].
pub(in super::super) const SCOPE_LOGS: Kind = 12;
const SCOPE_SPANS: Kind = 13;
pub(in super::super) const SCOPE_METRICS: Kind = 14;
const ENTITY_REF: Kind = 15;
const EVENT: Kind = 16;
const LINK: Kind = 17;
const STATUS: Kind = 18;
pub(in super::super) const METRIC: Kind = 19;
/// The five kinds of data a metric may hold, from here to [`SUMMARY`].
pub(in super::super) const GAUGE: Kind = 20;
const SUM: Kind = 21;
const HISTOGRAM: Kind = 22;
const EXPONENTIAL: Kind = 23;
pub(in super::super) const SUMMARY: Kind = 24;
const BUCKETS: Kind = 25;
const QUANTILE: Kind = 26;
const EXEMPLAR: Kind = 27;
/// From here on each message is a record.
pub(in super::super) const FIRST_RECORD: Kind = 28;
const LOG_RECORD: Kind = 28;
const SPAN: Kind = 29;
const NUMBER_POINT: Kind = 30;
const HISTOGRAM_POINT: Kind = 31;
const EXPONENTIAL_POINT: Kind = 32;
const SUMMARY_POINT: Kind = 33;
const KINDS: usize = 34;

/// The highest number of a field that OTLP has in these messages.
const NUMBER_MAX: usize = 16;

/// The fields that OTLP knows.
const KNOWN: [(Kind, &[(usize, Op)]); KINDS] = [
    (LOGS_REQUEST, &[(1, MESSAGE + RESOURCE_LOGS)]),
    (TRACES_REQUEST, &[(1, MESSAGE + RESOURCE_SPANS)]),
    (METRICS_REQUEST, &[(1, MESSAGE + RESOURCE_METRICS)]),
    (KEY_VALUE, &[(1, TEXT), (2, MESSAGE + ANY_VALUE), (3, VARINT)]),
    (
        ANY_VALUE,
        &[
            (1, TEXT),
            (2, VARINT),
            (3, VARINT),
            (4, FIXED64),
            (5, MESSAGE + ARRAY),
            (6, MESSAGE + MAP),
            (7, BYTES),
            (8, VARINT),
        ],
    ),
    (ARRAY, &[(1, MESSAGE + ANY_VALUE)]),
    (MAP, &[(1, MESSAGE + KEY_VALUE)]),
    (RESOURCE, &[(1, MESSAGE + KEY_VALUE), (2, VARINT), (3, MESSAGE + ENTITY_REF)]),
    (ENTITY_REF, &[(1, TEXT), (2, TEXT), (3, TEXT), (4, TEXT)]),
    (SCOPE, &[(1, TEXT), (2, TEXT), (3, MESSAGE + KEY_VALUE), (4, VARINT)]),
    (RESOURCE_LOGS, &[(1, MESSAGE + RESOURCE), (2, MESSAGE + SCOPE_LOGS), (3, TEXT)]),
    (SCOPE_LOGS, &[(1, MESSAGE + SCOPE), (2, MESSAGE + LOG_RECORD), (3, TEXT)]),
    (
        LOG_RECORD,
        &[
            (1, FIXED64),
            (2, VARINT),
            (3, TEXT),
            (5, MESSAGE + ANY_VALUE),
            (6, MESSAGE + KEY_VALUE),
            (7, VARINT),
            (8, FIXED32),
            (9, BYTES),
            (10, BYTES),
            (11, FIXED64),
            (12, TEXT),
        ],
    ),
    (RESOURCE_SPANS, &[(1, MESSAGE + RESOURCE), (2, MESSAGE + SCOPE_SPANS), (3, TEXT)]),
    (SCOPE_SPANS, &[(1, MESSAGE + SCOPE), (2, MESSAGE + SPAN), (3, TEXT)]),
    (
        SPAN,
        &[
            (1, BYTES),
            (2, BYTES),
            (3, TEXT),
            (4, BYTES),
            (5, TEXT),
            (6, VARINT),
            (7, FIXED64),
            (8, FIXED64),
            (9, MESSAGE + KEY_VALUE),
            (10, VARINT),
            (11, MESSAGE + EVENT),
            (12, VARINT),
            (13, MESSAGE + LINK),
            (14, VARINT),
            (15, MESSAGE + STATUS),
            (16, FIXED32),
        ],
    ),
    (EVENT, &[(1, FIXED64), (2, TEXT), (3, MESSAGE + KEY_VALUE), (4, VARINT)]),
    (LINK, &[(1, BYTES), (2, BYTES), (3, TEXT), (4, MESSAGE + KEY_VALUE), (5, VARINT), (6, FIXED32)]),
    (STATUS, &[(2, TEXT), (3, VARINT)]),
    (RESOURCE_METRICS, &[(1, MESSAGE + RESOURCE), (2, MESSAGE + SCOPE_METRICS), (3, TEXT)]),
    (SCOPE_METRICS, &[(1, MESSAGE + SCOPE), (2, MESSAGE + METRIC), (3, TEXT)]),
    (
        METRIC,
        &[
            (1, TEXT),
            (2, TEXT),
            (3, TEXT),
            (5, MESSAGE + GAUGE),
            (7, MESSAGE + SUM),
            (9, MESSAGE + HISTOGRAM),
            (10, MESSAGE + EXPONENTIAL),
            (11, MESSAGE + SUMMARY),
            (12, MESSAGE + KEY_VALUE),
        ],
    ),
    (GAUGE, &[(1, MESSAGE + NUMBER_POINT)]),
    (SUM, &[(1, MESSAGE + NUMBER_POINT), (2, VARINT), (3, VARINT)]),
    (HISTOGRAM, &[(1, MESSAGE + HISTOGRAM_POINT), (2, VARINT)]),
    (EXPONENTIAL, &[(1, MESSAGE + EXPONENTIAL_POINT), (2, VARINT)]),
    (SUMMARY, &[(1, MESSAGE + SUMMARY_POINT)]),
    (
        NUMBER_POINT,
        &[
            (2, FIXED64),
            (3, FIXED64),
            (4, FIXED64),
            (5, MESSAGE + EXEMPLAR),
            (6, FIXED64),
            (7, MESSAGE + KEY_VALUE),
            (8, VARINT),
        ],
    ),
    (
        HISTOGRAM_POINT,
        &[
            (2, FIXED64),
            (3, FIXED64),
            (4, FIXED64),
            (5, FIXED64),
            (6, FIXED64S),
            (7, FIXED64S),
            (8, MESSAGE + EXEMPLAR),
            (9, MESSAGE + KEY_VALUE),
            (10, VARINT),
            (11, FIXED64),
            (12, FIXED64),
        ],
    ),
    (
        EXPONENTIAL_POINT,
        &[
            (1, MESSAGE + KEY_VALUE),
            (2, FIXED64),
            (3, FIXED64),
            (4, FIXED64),
            (5, FIXED64),
            (6, VARINT),
            (7, FIXED64),
            (8, MESSAGE + BUCKETS),
            (9, MESSAGE + BUCKETS),
            (10, VARINT),
            (11, MESSAGE + EXEMPLAR),
            (12, FIXED64),
            (13, FIXED64),
            (14, FIXED64),
        ],
    ),
    (BUCKETS, &[(1, VARINT), (2, VARINTS)]),
    (
        SUMMARY_POINT,
        &[
            (2, FIXED64),
            (3, FIXED64),
            (4, FIXED64),
            (5, FIXED64),
            (6, MESSAGE + QUANTILE),
            (7, MESSAGE + KEY_VALUE),
            (8, VARINT),
        ],
    ),
    (QUANTILE, &[(1, FIXED64), (2, FIXED64)]),
    (EXEMPLAR, &[(2, FIXED64), (3, FIXED64), (4, BYTES), (5, BYTES), (6, FIXED64), (7, MESSAGE + KEY_VALUE)]),
];

/// The fields that may come more than once.
const REPEATED: [(Kind, &[usize]); 30] = [
    (LOGS_REQUEST, &[1]),
    (TRACES_REQUEST, &[1]),
    (METRICS_REQUEST, &[1]),
    (ARRAY, &[1]),
    (MAP, &[1]),
    (RESOURCE, &[1, 3]),
    (ENTITY_REF, &[3, 4]),
    (SCOPE, &[3]),
    (RESOURCE_LOGS, &[2]),
    (SCOPE_LOGS, &[2]),
    (LOG_RECORD, &[6]),
    (RESOURCE_SPANS, &[2]),
    (SCOPE_SPANS, &[2]),
    (SPAN, &[9, 11, 13]),
    (EVENT, &[3]),
    (LINK, &[4]),
    (RESOURCE_METRICS, &[2]),
    (SCOPE_METRICS, &[2]),
    (METRIC, &[12]),
    (GAUGE, &[1]),
    (SUM, &[1]),
    (HISTOGRAM, &[1]),
    (EXPONENTIAL, &[1]),
    (SUMMARY, &[1]),
    (BUCKETS, &[2]),
    (EXEMPLAR, &[7]),
    (NUMBER_POINT, &[5, 7]),
    (HISTOGRAM_POINT, &[6, 7, 8, 9]),
    (EXPONENTIAL_POINT, &[1, 11]),
    (SUMMARY_POINT, &[6, 7]),
];

/// Of these fields a message has one (`oneof`).
const CHOICES: [(Kind, &[usize]); 4] = [
    (ANY_VALUE, &[1, 2, 3, 4, 5, 6, 7, 8]),
    (METRIC, &[5, 7, 9, 10, 11]),
    (NUMBER_POINT, &[4, 6]),
    (EXEMPLAR, &[3, 6]),
];

/// By kind: a bit for each field that may come only once.
pub(in super::super) static SINGLE: [u32; KINDS] = single();
/// By kind: a bit for each field of its `oneof`.
pub(in super::super) static CHOICE: [u32; KINDS] = bits(&CHOICES);

const fn bits(lists: &[(Kind, &[usize])]) -> [u32; KINDS] {
    let mut bits = [0; KINDS];
    let mut list = 0;
    while list < lists.len() {
        let (kind, numbers) = lists[list];
        let mut index = 0;
        while index < numbers.len() {
            bits[kind as usize] |= 1 << numbers[index];
            index += 1;
        }
        list += 1;
    }
    bits
}

const fn single() -> [u32; KINDS] {
    let (known, repeated) = (by_number(), bits(&REPEATED));
    let mut single = [0; KINDS];
    let mut kind = 0;
    while kind < KINDS {
        let mut number = 0;
        while number <= NUMBER_MAX {
            if known[kind][number] != OTHER {
                single[kind] |= 1 << number;
            }
            number += 1;
        }
        single[kind] &= !repeated[kind];
        kind += 1;
    }
    single
}

/// The message that an export request of this signal is.
pub(in super::super) fn request(signal: Signal) -> Kind {
    match signal {
        Signal::Logs => LOGS_REQUEST,
        Signal::Traces => TRACES_REQUEST,
        Signal::Metrics => METRICS_REQUEST,
    }
}

/// By kind and number: the field's op, [`OTHER`] if OTLP does not know it.
static BY_NUMBER: [[Op; NUMBER_MAX + 1]; KINDS] = by_number();
/// By kind and first byte of the key: the same, if number and wire type stand in that byte and are right.
pub(in super::super) static BY_KEY: [[Op; 256]; KINDS] = by_key();

const fn by_number() -> [[Op; NUMBER_MAX + 1]; KINDS] {
    let mut table = [[OTHER; NUMBER_MAX + 1]; KINDS];
    let mut kind = 0;
    while kind < KINDS {
        let (kind_at, fields) = KNOWN[kind];
        let mut index = 0;
        while index < fields.len() {
            table[kind_at as usize][fields[index].0] = fields[index].1;
            index += 1;
        }
        kind += 1;
    }
    table
}

const fn by_key() -> [[Op; 256]; KINDS] {
    let mut table = [[OTHER; 256]; KINDS];
    let numbers = by_number();
    let mut kind = 0;
    while kind < KINDS {
        // A key of more than 7 bits has its high bit set in the first byte.
        let mut key = 8;
        while key < 128 {
            table[kind][key] = match on_wire(numbers[kind][key >> 3], (key & 7) as u8) {
                Some(op) => op,
                None => OTHER,
            };
            key += 1;
        }
        kind += 1;
    }
    table
}

/// The op of a field that OTLP knows, as it stands on the wire; `None` if the wire type is wrong.
const fn on_wire(op: Op, wire: u8) -> Option<Op> {
    match (op, wire) {
        (FIXED64S, 1) => Some(FIXED64),
        (VARINTS, VARINT_WIRE) => Some(VARINT),
        (VARINT, VARINT_WIRE) | (FIXED64, 1) | (FIXED32, 5) => Some(op),
        (BYTES | TEXT | FIXED64S | VARINTS | MESSAGE.., LENGTH) => Some(op),
        _ => None,
    }
}

/// The op of field `number`: `Ok(OTHER)` if OTLP does not know it, `Err` (what was expected) if the wire type is wrong.
pub(in super::super) fn look(kind: Kind, number: u64, wire: u8) -> Result<Op, &'static str> {
    let op = usize::try_from(number).ok().and_then(|number| BY_NUMBER[kind as usize].get(number));
    let Some(&op) = op.filter(|op| **op != OTHER) else { return Ok(OTHER) };
    on_wire(op, wire).ok_or(match op {
        VARINT => "wire type 0 (varint) for this field",
        FIXED64 => "wire type 1 (64 bits) for this field",
        FIXED32 => "wire type 5 (32 bits) for this field",
        FIXED64S => "wire type 2 (packed) or 1 (64 bits) for this field",
        VARINTS => "wire type 2 (packed) or 0 (varint) for this field",
        _ => "wire type 2 (length-delimited) for this field",
    })
}
