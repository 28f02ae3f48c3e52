//! A request with only some of its records.
//!
//! Fields that lead to no record are copied as they are, unknown ones included; so whatever stands around a record
//! stands around it in the copy.

use super::Signal;
use super::tree::{DATA, REQUEST, SCOPE, leads};
use super::wire::{Field, LENGTH, fields, put_varint};
use std::ops::Range;

/// Checked bytes without the records outside of `rows`, and without the resources, scopes and metrics that then hold
/// none. No rows: no bytes.
pub(super) fn only(signal: Signal, bytes: &[u8], rows: Range<u32>) -> Vec<u8> {
    if rows.is_empty() {
        return Vec::new();
    }
    let items_at = if signal == Signal::Metrics { DATA } else { SCOPE };
    let mut copy = Copy { bytes, items_at, rows, at: 0, out: Vec::new() };
    copy.message(0..bytes.len(), REQUEST);
    copy.out
}

struct Copy<'b> {
    bytes: &'b [u8],
    /// How deep the messages stand whose fields are the records.
    items_at: usize,
    rows: Range<u32>,
    /// The number of the next record.
    at: u32,
    out: Vec<u8>,
}

impl Copy<'_> {
    /// Copies the content of a message. Whether it holds one of the rows.
    fn message(&mut self, content: Range<usize>, depth: usize) -> bool {
        let mut holds = false;
        for field in fields(self.bytes, content.start, content.end) {
            if !leads(depth, &field) {
                self.verbatim(&field);
            } else if depth < self.items_at {
                holds |= self.envelope(&field, depth + 1);
            } else {
                if self.rows.contains(&self.at) {
                    self.verbatim(&field);
                    holds = true;
                }
                self.at += 1;
            }
        }
        holds
    }

    fn envelope(&mut self, field: &Field, depth: usize) -> bool {
        if self.at >= self.rows.end {
            return false;
        }
        let start = self.out.len();
        let holds = self.message(field.content..field.end, depth);
        if !holds {
            self.out.truncate(start);
            return false;
        }
        let mut header = Vec::with_capacity(8);
        put_varint(&mut header, u64::from(field.number << 3 | u32::from(LENGTH)));
        put_varint(&mut header, (self.out.len() - start) as u64);
        self.out.splice(start..start, header);
        true
    }

    fn verbatim(&mut self, field: &Field) {
        self.out.extend_from_slice(&self.bytes[field.start..field.end]);
    }
}
