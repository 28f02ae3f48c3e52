//! The one splice: edits in, new bytes out, with the lengths of the messages around put right.
//!
//! It knows no schema. An edit either replaces whole fields of one message (possibly none: an insertion, or by
//! nothing: a removal), or the whole content of one length-delimited field. Everything else is copied verbatim,
//! unknown fields included.

use bytes::Bytes;
use std::ops::Range;

/// One change to protobuf bytes.
///
/// `owner` is where the content of the message begins whose field is changed (0 for the request itself). It
/// decides at positions where two messages meet: an insertion at the end of one is not one at the start of the next.
/// - Whole fields: `range` begins and ends where fields of `owner` do; `with` is zero or more encoded fields.
/// - A content: `owner` is where the content begins, `range` is the whole content, and `is_content` is true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    pub owner: usize,
    pub range: Range<usize>,
    pub is_content: bool,
    pub with: Bytes,
}

/// The bytes after these edits. `edits` are sorted by `(range.start, owner)` and do not overlap; an edit inside
/// a removed field is ignored. Edits that fit no field boundary are a bug of the caller (checked in debug builds;
/// in release they are ignored, never a panic).
pub fn splice(bytes: &[u8], edits: &[Edit]) -> Vec<u8> {
    let _ = (bytes, edits);
    todo!()
}
