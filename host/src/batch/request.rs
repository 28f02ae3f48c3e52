//! A request that was walked.

use super::identity;
use super::splice::{Edit, splice};
use super::wire::fields;
use super::{Batch, Malformed, Signal, Stream, walk};
use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// An export request whose every byte was checked.
#[derive(Clone, Debug)]
pub struct Request {
    pub signal: Signal,
    /// The whole request; strings that were not UTF-8 are mended with U+FFFD (rare: it costs a copy).
    pub bytes: Bytes,
    /// Its ResourceLogs / ResourceSpans / ResourceMetrics, in order.
    pub resources: Vec<Resource>,
    /// Log records, spans or data points.
    pub records: u64,
    /// Strings that were mended.
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

/// What [`Batch::stamp`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamped {
    /// Resources whose identity attributes said something else, or said it twice: overwritten.
    pub overwritten: u32,
    /// Resources that lacked one: added.
    pub added: u32,
}

impl Request {
    /// Walks the whole request once. `bytes` is an Export*ServiceRequest in protobuf.
    pub fn check(signal: Signal, bytes: Bytes) -> Result<Request, Malformed> {
        let found = walk::walk(signal, &bytes)?;
        if found.bad_texts.is_empty() {
            let walk::Found { resources, records, .. } = found;
            return Ok(Request { signal, bytes, resources, records, mended: 0 });
        }
        Request::mended(signal, bytes, found)
    }

    /// The rare path of [`Request::check`].
    fn mended(signal: Signal, bytes: Bytes, before: walk::Found) -> Result<Request, Malformed> {
        let edits: Vec<Edit> = before
            .bad_texts
            .iter()
            .map(|text| Edit {
                owner: text.start,
                range: text.clone(),
                is_content: true,
                with: String::from_utf8_lossy(&bytes[text.clone()]).into_owned().into(),
            })
            .collect();
        let bytes: Bytes = splice(&bytes, &edits).into();
        let walk::Found { mut resources, records, .. } = walk::walk(signal, &bytes)?;
        let mut bad = before.bad_texts.iter().peekable();
        for (resource, old) in resources.iter_mut().zip(&before.resources) {
            while bad.next_if(|text| text.start < old.range.end).is_some() {
                resource.mended += 1;
            }
        }
        Ok(Request { signal, bytes, resources, records, mended: edits.len() as u64 })
    }

    /// What resource number `at` says of whose it is.
    pub fn claim(&self, at: usize, keys: &IdentityKeys) -> Claim {
        let absent = Claim { tenant: Claimed::Absent, project: Claimed::Absent };
        let Some(range) = self.resources.get(at).map(|resource| resource.range.clone()) else {
            return absent;
        };
        let envelope = fields(&self.bytes, range.start, range.end).next();
        envelope.map_or(absent, |envelope| identity::claim(&self.bytes, &envelope, keys))
    }

    /// The batch of these resources (ascending). Sliced without a copy where they are neighbours, else copied once.
    ///
    /// Unknown fields of the request itself (outside its resources) stay only in a batch of all its resources.
    pub fn batch(&self, stream: Stream, resources: &[usize]) -> Batch {
        let chosen = || resources.iter().filter_map(|&at| self.resources.get(at));
        let records = chosen().map(|resource| resource.records).sum();
        let bytes = if resources.len() == self.resources.len() {
            self.bytes.clone()
        } else {
            self.gather(chosen().map(|resource| resource.range.clone()))
        };
        Batch { signal: self.signal, stream, bytes, records, stamps: Vec::new(), adds: false }
    }

    fn gather(&self, ranges: impl Iterator<Item = Range<usize>> + Clone) -> Bytes {
        let whole =
            ranges.clone().reduce(|all, next| if all.end == next.start { all.start..next.end } else { 0..0 });
        let length: usize = ranges.clone().map(|range| range.len()).sum();
        match whole {
            None => Bytes::new(),
            Some(whole) if whole.len() == length => self.bytes.slice(whole),
            Some(_) => {
                let mut out = BytesMut::with_capacity(length);
                ranges.for_each(|range| out.extend_from_slice(&self.bytes[range]));
                out.freeze()
            }
        }
    }
}
