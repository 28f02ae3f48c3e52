//! One data point, read from its bytes.
//!
//! The same buffers serve all points: nothing is allocated once they are large enough.

use super::labels::Attribute;
use super::portion::put_label;
use super::values::{key_and_value, text_of};
use crate::batch::wire::{FIXED64, Field, LENGTH, VARINT, fields_of, fixed64, varint};

pub(super) const GAUGE: u8 = 5;
pub(super) const SUM: u8 = 7;
pub(super) const HISTOGRAM: u8 = 9;
pub(super) const EXPONENTIAL: u8 = 10;
pub(super) const SUMMARY: u8 = 11;

/// Characters of an exemplar's label names and values. Source: OpenMetrics 1.0, "Exemplars".
const EXEMPLAR_CHARS_MAX: usize = 128;

/// A point of any kind; what its kind does not have is empty.
#[derive(Debug, Default)]
pub(super) struct Point<'b> {
    pub(super) attributes: Vec<Attribute<'b>>,
    /// The texts of values that are no texts in the bytes.
    pub(super) made: String,
    /// 0: it does not say.
    pub(super) time_nanos: u64,
    /// Flagged NO_RECORDED_VALUE.
    pub(super) is_stale: bool,
    /// Of a gauge or a sum.
    pub(super) number: Option<f64>,
    pub(super) count: u64,
    pub(super) sum: Option<f64>,
    pub(super) counts: Vec<u64>,
    pub(super) bounds: Vec<f64>,
    /// Quantile and value.
    pub(super) quantiles: Vec<(f64, f64)>,
    pub(super) exemplars: Vec<&'b [u8]>,
}

/// The field numbers that differ between kinds.
struct Numbers {
    attributes: u32,
    flags: u32,
    exemplars: u32,
}

impl<'b> Point<'b> {
    /// Reads a point of this kind; what was read before is gone.
    pub(super) fn read(&mut self, kind: u8, bytes: &'b [u8]) {
        self.clear();
        let numbers = match kind {
            HISTOGRAM => Numbers { attributes: 9, flags: 10, exemplars: 8 },
            SUMMARY => Numbers { attributes: 7, flags: 8, exemplars: u32::MAX },
            _ => Numbers { attributes: 7, flags: 8, exemplars: 5 },
        };
        for field in fields_of(bytes) {
            if field.is_message(numbers.attributes) {
                let (key, value) = key_and_value(field.of(bytes));
                self.attributes.push((key, text_of(value, &mut self.made)));
            } else if field.number == 3 && field.wire == FIXED64 {
                self.time_nanos = fixed64(bytes, &field);
            } else if field.is_message(numbers.exemplars) {
                self.exemplars.push(field.of(bytes));
            } else if field.number == numbers.flags && field.wire == VARINT {
                self.is_stale = varint(bytes, field.content).is_some_and(|(flags, _)| flags & 1 != 0);
            } else {
                self.read_value(kind, bytes, &field);
            }
        }
    }

    fn clear(&mut self) {
        self.attributes.clear();
        self.made.clear();
        self.counts.clear();
        self.bounds.clear();
        self.quantiles.clear();
        self.exemplars.clear();
        (self.time_nanos, self.is_stale, self.number, self.count, self.sum) = (0, false, None, 0, None);
    }

    #[inline]
    fn read_value(&mut self, kind: u8, bytes: &[u8], field: &Field) {
        let double = || f64::from_bits(fixed64(bytes, field));
        match (kind, field.number, field.wire) {
            (GAUGE | SUM, 4, FIXED64) => self.number = Some(double()),
            (GAUGE | SUM, 6, FIXED64) => self.number = Some(fixed64(bytes, field).cast_signed() as f64),
            (HISTOGRAM | SUMMARY, 4, FIXED64) => self.count = fixed64(bytes, field),
            (HISTOGRAM | SUMMARY, 5, FIXED64) => self.sum = Some(double()),
            (HISTOGRAM, 6, LENGTH | FIXED64) => self.counts.extend(words(field.of(bytes))),
            (HISTOGRAM, 7, LENGTH | FIXED64) => {
                self.bounds.extend(words(field.of(bytes)).map(f64::from_bits));
            }
            (SUMMARY, 6, LENGTH) => self.quantiles.push(quantile(field.of(bytes))),
            _ => {}
        }
    }
}

/// A list of eight bytes each, packed or a single one.
fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| u64::from_le_bytes(*word))
}

fn quantile(bytes: &[u8]) -> (f64, f64) {
    let mut found = (0.0, 0.0);
    for field in fields_of(bytes).filter(|field| field.wire == FIXED64) {
        match field.number {
            1 => found.0 = f64::from_bits(fixed64(bytes, &field)),
            2 => found.1 = f64::from_bits(fixed64(bytes, &field)),
            _ => {}
        }
    }
    found
}

/// An exemplar, read from its bytes.
#[derive(Debug)]
pub(super) struct Exemplar<'b> {
    /// 0: it does not say.
    pub(super) time_nanos: u64,
    pub(super) value: f64,
    trace_id: &'b [u8],
    span_id: &'b [u8],
    attributes: Vec<Attribute<'b>>,
    made: String,
}

impl<'b> Exemplar<'b> {
    /// `None` for one without a value.
    pub(super) fn read(bytes: &'b [u8]) -> Option<Exemplar<'b>> {
        let mut found = Exemplar {
            time_nanos: 0,
            value: 0.0,
            trace_id: &[],
            span_id: &[],
            attributes: Vec::new(),
            made: String::new(),
        };
        let mut has_value = false;
        for field in fields_of(bytes) {
            match (field.number, field.wire) {
                (2, FIXED64) => found.time_nanos = fixed64(bytes, &field),
                (3, FIXED64) => found.value = f64::from_bits(fixed64(bytes, &field)),
                (6, FIXED64) => found.value = fixed64(bytes, &field).cast_signed() as f64,
                (4, LENGTH) => found.span_id = field.of(bytes),
                (5, LENGTH) => found.trace_id = field.of(bytes),
                (7, LENGTH) => {
                    let (key, value) = key_and_value(field.of(bytes));
                    found.attributes.push((key, text_of(value, &mut found.made)));
                }
                _ => {}
            }
            has_value |= matches!((field.number, field.wire), (3 | 6, FIXED64));
        }
        has_value.then_some(found)
    }

    /// Appends its labels and value. The ids of the trace come first; attributes that would make it longer than
    /// OpenMetrics allows are left out, all of them.
    pub(super) fn write(&self, names: &mut super::labels::Names, out: &mut Vec<u8>) {
        let mut labels = super::labels::joined(&self.attributes, &self.made, names);
        let ids = [("trace_id", self.trace_id, 16), ("span_id", self.span_id, 8)];
        let ids = ids.map(|(name, id, length)| (name, hex(id, length)));
        let ids = || ids.iter().filter(|(_, id)| !id.is_empty());
        let chars = |name: &str, value: &str| name.chars().count() + value.chars().count();
        labels.retain(|name, value| !value.is_empty() && ids().all(|(id_name, _)| *id_name != &**name));
        let all = labels.iter().map(|(name, value)| chars(name, value));
        if all.chain(ids().map(|(name, id)| chars(name, id))).sum::<usize>() > EXEMPLAR_CHARS_MAX {
            labels.clear();
        }
        labels.extend(ids().map(|(name, id)| (Box::from(*name), id.clone())));
        for (name, value) in &labels {
            put_label(out, name.as_bytes(), value.as_bytes());
        }
        out.push(2 << 3 | FIXED64);
        out.extend_from_slice(&self.value.to_bits().to_le_bytes());
    }
}

/// An id in hexadecimal; empty if it is none.
fn hex(id: &[u8], length: usize) -> String {
    if id.len() != length || id.iter().all(|byte| *byte == 0) {
        return String::new();
    }
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
