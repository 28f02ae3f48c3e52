//! The envelopes of a batch: each record with the resource, scope and metric that it stands in.
//!
//! Reads checked bytes; steps over the records without a look inside.

use super::Signal;
use super::wire::{Field, Fields, fields};

/// A message in the tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope {
    pub(super) field: Field,
    /// Where the content of the message begins that `field` stands in.
    pub(super) owner: usize,
    /// Its number among its kind in the batch; for a resource, scope or metric.
    pub(super) number: u32,
}

/// A record with what it stands in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) resource: Envelope,
    pub(super) scope: Envelope,
    /// Metrics only.
    pub(super) metric: Option<Envelope>,
    pub(super) item: Envelope,
    /// For a data point, the field of the metric that it stands in (5 gauge, 7 sum, …), and its number.
    pub(super) data: Option<Field>,
    pub(super) kind: u8,
}

/// Iterates the records of checked bytes.
#[derive(Clone, Debug)]
pub(super) struct Tree<'b> {
    bytes: &'b [u8],
    is_metrics: bool,
    /// The messages that are open, the request first.
    open: [Level<'b>; 5],
    depth: usize,
    /// How many resources, scopes, metrics and records were seen.
    seen: [u32; 4],
}

#[derive(Clone, Copy, Debug)]
struct Level<'b> {
    envelope: Envelope,
    fields: Fields<'b>,
}

pub(super) const REQUEST: usize = 0;
const RESOURCE: usize = 1;
pub(super) const SCOPE: usize = 2;
const METRIC: usize = 3;
pub(super) const DATA: usize = 4;

/// Whether `field` of a message of this depth leads to records, or is one.
pub(super) fn leads(depth: usize, field: &Field) -> bool {
    field.wire == super::wire::LENGTH
        && match depth {
            REQUEST | DATA => field.number == 1,
            METRIC => matches!(field.number, 5 | 7 | 9 | 10 | 11),
            _ => field.number == 2,
        }
}

impl<'b> Tree<'b> {
    pub(super) fn over(signal: Signal, bytes: &'b [u8]) -> Tree<'b> {
        let whole = Field { number: 0, wire: 2, start: 0, content: 0, end: bytes.len() };
        let request = Level {
            envelope: Envelope { field: whole, owner: 0, number: 0 },
            fields: fields(bytes, 0, bytes.len()),
        };
        Tree {
            bytes,
            is_metrics: signal == Signal::Metrics,
            open: [request; 5],
            depth: REQUEST,
            seen: [0; 4],
        }
    }

    fn number(&mut self, kind: usize) -> u32 {
        let number = self.seen[kind];
        self.seen[kind] += 1;
        number
    }

    fn standing(&mut self, field: Field) -> Standing {
        let owner = self.open[self.depth].envelope.field.content;
        let item = Envelope { field, owner, number: self.number(3) };
        let data = self.is_metrics.then_some(self.open[DATA].envelope.field);
        Standing {
            resource: self.open[RESOURCE].envelope,
            scope: self.open[SCOPE].envelope,
            metric: self.is_metrics.then_some(self.open[METRIC].envelope),
            item,
            data,
            kind: data.map_or(0, |data| data.number as u8),
        }
    }
}

impl Iterator for Tree<'_> {
    type Item = Standing;

    fn next(&mut self) -> Option<Standing> {
        let items_at = if self.is_metrics { DATA } else { SCOPE };
        loop {
            let Some(field) = self.open[self.depth].fields.next() else {
                if self.depth == REQUEST {
                    return None;
                }
                self.depth -= 1;
                continue;
            };
            if !leads(self.depth, &field) {
                continue;
            }
            if self.depth == items_at {
                return Some(self.standing(field));
            }
            let owner = self.open[self.depth].envelope.field.content;
            let number = if self.depth < METRIC { self.number(self.depth) } else { 0 };
            self.depth += 1;
            self.open[self.depth] = Level {
                envelope: Envelope { field, owner, number },
                fields: fields(self.bytes, field.content, field.end),
            };
        }
    }
}
