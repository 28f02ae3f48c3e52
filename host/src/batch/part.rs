//! A batch: the part of a request that belongs to one stream.

use super::items::Items;
use super::piece::{Piece, Row, Rows};
use super::request::{IdentityKeys, Stamped};
use super::splice::{Edit, splice};
use super::tree::{Envelope, Standing, Tree};
use super::{Signal, Stream, dropping, identity};
use bytes::Bytes;

/// A part of a request: one stream, one signal.
///
/// `bytes` is a whole Export*ServiceRequest by itself: a concatenation of Resource* fields.
#[derive(Clone, Debug)]
pub struct Batch {
    pub signal: Signal,
    pub stream: Stream,
    pub bytes: Bytes,
    pub records: u32,
    /// Edits that put the identity attributes right, not yet written.
    pub(super) stamps: Vec<Edit>,
    /// Whether identity attributes are added where there are none.
    pub(super) adds: bool,
}

impl Batch {
    /// A batch of bytes that were checked before, such as those of an entry.
    pub fn over(signal: Signal, stream: Stream, bytes: Bytes) -> Batch {
        let records = Tree::over(signal, &bytes).count() as u32;
        Batch { signal, stream, bytes, records, stamps: Vec::new(), adds: false }
    }

    /// Puts the identity attributes right: each key exactly once per resource with the verified value.
    /// With `add` false, a resource without the key stays without. Collected as edits; see [`Batch::written`].
    pub fn stamp(&mut self, keys: &IdentityKeys, add: bool) -> Stamped {
        self.stamps.clear();
        self.adds = add;
        let mut sum = Stamped::default();
        for envelope in identity::envelopes(&self.bytes) {
            let one = identity::stamp(&self.bytes, &envelope, keys, &self.stream, [add; 2], &mut self.stamps);
            sum.overwritten += one.overwritten;
            sum.added += one.added;
        }
        sum
    }

    /// The records larger than `record_bytes_max` leave the batch (with the envelopes they empty); how many did.
    pub fn reject_larger(&mut self, record_bytes_max: usize) -> u32 {
        let is_larger = |standing: &Standing| {
            let item = &standing.item.field;
            item.end - item.content > record_bytes_max
        };
        if self.bytes.len() <= record_bytes_max {
            return 0;
        }
        let (mut edits, rejected) = dropping::removals(self.signal, &self.bytes, is_larger);
        if rejected > 0 {
            edits.append(&mut self.stamps);
            self.bytes = splice(&self.bytes, &edits).into();
            self.records -= rejected;
        }
        rejected
    }

    /// Cuts the batch into pieces for the plugins: at most `records_max` records and `bytes_max` bytes of records
    /// each; a larger record stands alone. The stamps are seen in the pieces.
    pub fn pieces(&self, records_max: usize, bytes_max: usize) -> Vec<Piece> {
        self.rows(records_max, bytes_max).into_iter().map(|rows| self.piece(rows)).collect()
    }

    /// The rows of each piece.
    pub(super) fn rows(&self, records_max: usize, bytes_max: usize) -> Vec<Rows> {
        let mut pieces = Vec::new();
        let mut cut = Cut::default();
        for standing in Tree::over(self.signal, &self.bytes) {
            let length = standing.item.field.end - standing.item.field.content;
            let records = cut.rows.items.len();
            if records > 0 && (records >= records_max || cut.bytes + length > bytes_max) {
                pieces.push(std::mem::take(&mut cut).rows);
            }
            cut.add(&standing);
            cut.bytes += length;
        }
        if !cut.rows.items.is_empty() {
            pieces.push(cut.rows);
        }
        pieces
    }

    fn piece(&self, rows: Rows) -> Piece {
        let stamps = match (rows.resources.first(), rows.resources.last()) {
            (Some(first), Some(last)) => {
                let from = self.stamps.partition_point(|stamp| stamp.range.start <= first.field.0 as usize);
                let to = self.stamps.partition_point(|stamp| stamp.range.start <= last.field.1 as usize);
                self.stamps[from..to].to_vec()
            }
            _ => Vec::new(),
        };
        Piece::open(self.signal, self.stream.clone(), self.bytes.clone(), rows, stamps)
    }

    /// Splits by a number that `of` gives to each record (its position among all records of the batch, from 0): one
    /// batch per number, each whole with its own envelopes. One number only: no copy. No record: no batch.
    pub fn split(mut self, of: &dyn Fn(u32) -> u32) -> Vec<(u32, Batch)> {
        let numbers: Vec<u32> = (0..self.records).map(of).collect();
        let mut distinct = numbers.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if let [one] = distinct[..] {
            return vec![(one, self)];
        }
        self.settle();
        let part = |number: u32| {
            let other = |standing: &Standing| numbers.get(standing.item.number as usize) != Some(&number);
            let (edits, dropped) = dropping::removals(self.signal, &self.bytes, other);
            let bytes = splice(&self.bytes, &edits).into();
            Batch { bytes, records: self.records - dropped, ..self.clone() }
        };
        distinct.into_iter().map(|number| (number, part(number))).collect()
    }

    /// Writes the stamps.
    fn settle(&mut self) {
        if !self.stamps.is_empty() {
            self.bytes = splice(&self.bytes, &self.stamps).into();
            self.stamps.clear();
        }
    }

    /// The number of the resource of each record, in order.
    pub fn resource_of_records(&self) -> Vec<u32> {
        let mut numbers = Vec::with_capacity(self.records as usize);
        numbers.extend(Tree::over(self.signal, &self.bytes).map(|standing| standing.resource.number));
        numbers
    }

    /// The text values of a resource attribute: one entry per resource, `None` where it is absent or no string.
    pub fn resource_texts(&self, key: &str) -> Vec<Option<String>> {
        identity::envelopes(&self.bytes).map(|envelope| identity::text(&self.bytes, &envelope, key)).collect()
    }

    /// Every record with the bytes of its resource and scope, in order.
    pub fn items(&self) -> Items<'_> {
        Items::over(self.signal, &self.bytes)
    }
}

/// A piece in the making. Its envelopes become rows with their first record.
#[derive(Default)]
struct Cut {
    rows: Rows,
    bytes: usize,
    /// Numbers in the batch of the last resource, scope and metric among the rows.
    last: [Option<u32>; 3],
}

impl Cut {
    fn add(&mut self, standing: &Standing) {
        let Rows { resources, scopes, metrics, items } = &mut self.rows;
        let [resource, scope, metric] = &mut self.last;
        if resource.replace(standing.resource.number) != Some(standing.resource.number) {
            resources.push(row(&standing.resource, 0, 0));
        }
        if scope.replace(standing.scope.number) != Some(standing.scope.number) {
            scopes.push(row(&standing.scope, resources.len() - 1, 0));
        }
        let mut parent = scopes.len() - 1;
        if let Some(envelope) = &standing.metric {
            if metric.replace(envelope.number) != Some(envelope.number) {
                metrics.push(row(envelope, parent, standing.kind));
            }
            parent = metrics.len() - 1;
        }
        items.push(row(&standing.item, parent, 0));
    }
}

fn row(envelope: &Envelope, parent: usize, kind: u8) -> Row {
    let field = &envelope.field;
    Row {
        field: (field.start as u32, field.end as u32),
        content: (field.content as u32, field.end as u32),
        owner: envelope.owner as u32,
        parent: parent as u32,
        kind,
    }
}
