//! A request that was walked, and the batches it is split into.

use super::{Malformed, ProjectId, Signal, Stream, TenantId};
use bytes::Bytes;
use std::ops::Range;

/// An export request whose every byte was checked.
#[derive(Clone, Debug)]
pub struct Request {
    pub signal: Signal,
    /// The whole request; not UTF-8 strings are already mended with U+FFFD (rare: it costs a copy).
    pub bytes: Bytes,
    /// Its ResourceLogs / ResourceSpans / ResourceMetrics, in order.
    pub resources: Vec<Resource>,
    /// Log records, spans or data points.
    pub records: u64,
    /// Whether fields that OTLP does not know are cut on the way (`unknown_fields: strip`): not yet, they survive.
    pub mended: u64,
}

/// One Resource* entry of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The whole field, tag included.
    pub range: Range<usize>,
    pub records: u32,
    /// Strings in it that were mended.
    pub mended: u32,
}

/// The attribute keys that carry identity (`tenant.id`, `project.id` unless configured).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityKeys {
    pub tenant: String,
    pub project: String,
}

/// What a resource says of whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub tenant: Claimed,
    pub project: Claimed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    Absent,
    One(String),
    /// The key stands twice with different values, or is no string.
    Conflict,
}

impl Request {
    /// Walks the whole request once. `bytes` is an Export*ServiceRequest in protobuf.
    pub fn check(signal: Signal, bytes: Bytes) -> Result<Request, Malformed> {
        let _ = (signal, bytes);
        todo!()
    }

    /// What resource number `at` says of whose it is.
    pub fn claim(&self, at: usize, keys: &IdentityKeys) -> Claim {
        let _ = (at, keys);
        todo!()
    }

    /// The batch of these resources (ascending). Sliced without a copy where they are neighbours, else copied once.
    pub fn batch(&self, stream: Stream, resources: &[usize]) -> Batch {
        let _ = (stream, resources);
        todo!()
    }
}

/// A part of a request: one stream, one signal.
///
/// `bytes` is a whole Export*ServiceRequest by itself: a concatenation of Resource* fields.
#[derive(Clone, Debug)]
pub struct Batch {
    pub signal: Signal,
    pub stream: Stream,
    pub bytes: Bytes,
    pub records: u32,
    /// Identity attributes that stand in the resources after [`Batch::stamp`], not yet written.
    pub(super) stamps: Vec<super::Edit>,
}

/// What [`Batch::stamp`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamped {
    /// Resources whose identity attributes said something else, or said it twice: overwritten.
    pub overwritten: u32,
    /// Resources that had none: added.
    pub added: u32,
}

impl Batch {
    /// Puts the identity attributes right: each key exactly once per resource with the verified value.
    /// With `add` false, a resource without the key stays without. Collected as edits; see [`Batch::written`].
    pub fn stamp(&mut self, keys: &IdentityKeys, add: bool) -> Stamped {
        let _ = (keys, add);
        todo!()
    }

    /// The records larger than `record_bytes_max` leave the batch (with the envelopes they empty); how many did.
    pub fn reject_larger(&mut self, record_bytes_max: usize) -> u32 {
        let _ = record_bytes_max;
        todo!()
    }

    /// Cuts the batch into pieces for the plugins: at most `records_max` records and `bytes_max` bytes of records
    /// each; a larger record stands alone. The stamps are seen in the pieces.
    pub fn pieces(&self, records_max: usize, bytes_max: usize) -> Vec<super::Piece> {
        let _ = (records_max, bytes_max);
        todo!()
    }

    /// The batch after the chain: one splice of the stamps and of what the plugins changed in the pieces (all pieces
    /// of this batch, in order). Records dropped in the pieces are gone, with the envelopes they emptied. Without any
    /// change the same bytes are handed back. Identity attributes are put right a second time: returns how many
    /// resources a plugin had changed them in.
    pub fn written(self, pieces: Vec<super::Piece>, keys: &IdentityKeys) -> (Batch, u32) {
        let _ = (pieces, keys);
        todo!()
    }

    /// Splits by a number that `of` gives to each record (its resource and its position among all records of the
    /// batch, from 0): one batch per number, each whole with its own envelopes. One number only: no copy.
    pub fn split(self, of: &dyn Fn(u32) -> u32) -> Vec<(u32, Batch)> {
        let _ = of;
        todo!()
    }

    /// The number of the resource of each record, in order.
    pub fn resource_of_records(&self) -> Vec<u32> {
        todo!()
    }

    /// The text values of a resource attribute: one entry per resource, `None` where it is absent or no string.
    pub fn resource_texts(&self, key: &str) -> Vec<Option<String>> {
        let _ = key;
        todo!()
    }

    /// Every record with the bytes of its resource and scope, in order.
    pub fn items(&self) -> Items<'_> {
        todo!()
    }
}

/// Iterates the records of a batch.
#[derive(Debug)]
pub struct Items<'b> {
    pub(super) batch: &'b Batch,
}

/// One record (log record, span or data point) and what it stands in; all are contents, without tag and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemParts<'b> {
    pub resource: &'b [u8],
    pub resource_schema_url: &'b str,
    pub scope: &'b [u8],
    pub scope_schema_url: &'b str,
    /// For a data point, the whole Metric message without its points and the data's field number; else empty.
    pub metric: &'b [u8],
    pub item: &'b [u8],
}

impl<'b> Iterator for Items<'b> {
    type Item = ItemParts<'b>;
    fn next(&mut self) -> Option<ItemParts<'b>> {
        let _ = self.batch;
        todo!()
    }
}

#[allow(dead_code, reason = "skeleton")]
fn skeleton(_: TenantId, _: ProjectId) {}
