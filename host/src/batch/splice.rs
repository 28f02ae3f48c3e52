//! The one splice: edits in, new bytes out, with the lengths of the messages around put right.
//!
//! It knows no schema. An edit either replaces whole fields of one message (possibly none: an insertion, or by
//! nothing: a removal), or the whole content of one length-delimited field. Everything else is copied verbatim,
//! unknown fields included; so is a length that stays the same, even one in more bytes than it needs.
//! Two passes: one finds the messages around the edits and their new lengths, one writes.

use super::wire::{Fields, LENGTH, fields, put_varint, varint, varint_len};
use bytes::Bytes;
use std::cmp::Reverse;
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

/// The order of the document: where messages end at one place, the inner one's edits come first. Insertions at the
/// start of a replaced field stand before it. Edits that are equal in this keep the order in which they were given.
pub(super) fn place(edit: &Edit) -> (usize, Reverse<usize>, usize) {
    (edit.range.start, Reverse(edit.owner), edit.range.end)
}

/// The bytes after these edits, given in any order. They do not overlap, except that an edit inside a removed or
/// replaced field is ignored. Edits that fit no field boundary are a bug of the caller: ignored, never a panic.
pub fn splice(bytes: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut order: Vec<u32> = (0..edits.len() as u32).collect();
    if !edits.is_sorted_by_key(place) {
        order.sort_by_key(|&index| place(&edits[index as usize]));
    }
    let mut plan = Plan {
        bytes,
        edits,
        order: &order,
        next: 0,
        patches: Vec::with_capacity(edits.len() * 2),
        gone_end: 0,
        gone: 0..0,
    };
    let delta = plan.message(0, bytes.len(), 0);
    let patches = plan.patches;
    let mut out = Vec::with_capacity(bytes.len().saturating_add_signed(delta));
    let mut at = 0;
    for patch in patches {
        out.extend_from_slice(&bytes[at..patch.range.start]);
        match patch.with {
            With::Nothing => {}
            With::Length(length) => put_varint(&mut out, length),
            With::Edit(index) => out.extend_from_slice(&edits[index as usize].with),
        }
        at = patch.range.end;
    }
    out.extend_from_slice(&bytes[at..]);
    out
}

/// Messages within messages that an edit can stand in; more than the checked walk lets through.
const DEPTH_MAX: u32 = 256;

/// The first pass.
struct Plan<'a> {
    bytes: &'a [u8],
    edits: &'a [Edit],
    order: &'a [u32],
    /// The next in `order`.
    next: usize,
    /// In the order of the document, without overlap.
    patches: Vec<Patch>,
    /// What the last edit replaced ends here; edits that begin before are ignored.
    gone_end: usize,
    /// Where the contents begin of the messages that went with it; their edits are ignored as well.
    gone: Range<usize>,
}

/// What stands instead of `range`.
struct Patch {
    range: Range<usize>,
    with: With,
}

enum With {
    Nothing,
    /// The new length of a message.
    Length(u64),
    Edit(u32),
}

impl<'a> Plan<'a> {
    /// Plans the edits of the message with this content and of the messages in it. Returns by how much it grows.
    fn message(&mut self, content: usize, end: usize, depth: u32) -> isize {
        let mut grown = 0;
        let mut rest = fields(self.bytes, content, end);
        while let Some(&index) = self.order.get(self.next) {
            let edit = &self.edits[index as usize];
            let is_here = (content..=end).contains(&edit.owner);
            if !is_here && depth > 0 {
                break;
            }
            if !is_here || self.is_gone(edit) {
                self.next += 1;
            } else if edit.owner == content {
                self.next += 1;
                grown += self.own(edit, index, end, &mut rest);
            } else {
                grown += self.inner(edit.owner, &mut rest, depth);
            }
        }
        grown
    }

    fn is_gone(&self, edit: &Edit) -> bool {
        edit.range.start < self.gone_end || self.gone.contains(&edit.owner)
    }

    /// Plans an edit of the message at hand, the next fields of which are `rest`.
    fn own(&mut self, edit: &Edit, index: u32, end: usize, rest: &mut Fields<'a>) -> isize {
        let fits = if edit.is_content {
            edit.range == (edit.owner..end)
        } else {
            reach(rest, edit.range.start) && edit.range.end <= end && reach(rest, edit.range.end)
        };
        if !fits {
            return 0;
        }
        if !edit.range.is_empty() {
            self.gone_end = edit.range.end;
            // A field's own message begins where the field does; a message in it begins later, at its end if empty.
            self.gone = edit.range.start + usize::from(!edit.is_content)..edit.range.end + 1;
        }
        self.patches.push(Patch { range: edit.range.clone(), with: With::Edit(index) });
        edit.with.len() as isize - edit.range.len() as isize
    }

    /// Plans the edits of the field in which the message `owner` stands.
    fn inner(&mut self, owner: usize, rest: &mut Fields<'a>, depth: u32) -> isize {
        let field = loop {
            let mut ahead = *rest;
            match ahead.next() {
                // A message that is empty begins where the field around it ends.
                Some(field) if field.end < owner => *rest = ahead,
                other => break other,
            }
        };
        let Some(field) = field.filter(|field| field.wire == LENGTH && field.content <= owner) else {
            self.next += 1;
            return 0;
        };
        let length_at = varint(self.bytes, field.start).map_or(field.content, |(_, end)| end);
        if depth == DEPTH_MAX {
            self.next += 1;
            return 0;
        }
        let header = self.patches.len();
        self.patches.push(Patch { range: field.content..field.content, with: With::Nothing });
        let grown = self.message(field.content, field.end, depth + 1);
        if self.patches.len() == header + 1 {
            self.patches.pop();
        }
        if grown == 0 {
            return 0;
        }
        let length = (field.end - field.content).saturating_add_signed(grown) as u64;
        self.patches[header] = Patch { range: length_at..field.content, with: With::Length(length) };
        grown + varint_len(length) as isize - (field.content - length_at) as isize
    }
}

/// Steps over fields until one begins at `position`, or the message ends there.
fn reach(rest: &mut Fields<'_>, position: usize) -> bool {
    while rest.at() < position {
        if rest.next().is_none() {
            break;
        }
    }
    rest.at() == position
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::wire::put_field;

    fn edit(owner: usize, range: Range<usize>, with: &'static [u8]) -> Edit {
        Edit { owner, range, is_content: false, with: Bytes::from_static(with) }
    }

    #[test]
    fn insertions_at_the_ends_of_messages_stay_in_them() {
        let mut inner = Vec::new();
        put_field(&mut inner, 1, b"a");
        put_field(&mut inner, 2, b"b");
        let mut bytes = Vec::new();
        put_field(&mut bytes, 1, &inner);
        put_field(&mut bytes, 1, &inner);
        // bytes: 0a 06 (2)0a 01 a 12 01 b (8)0a 06 (10)...
        let edits = [edit(2, 5..8, b"\x1a\x00"), edit(2, 8..8, b"\x22\x00"), edit(10, 16..16, b"\x22\x00")];
        let out = splice(&bytes, &edits);
        assert_eq!(out, b"\x0a\x07\x0a\x01a\x1a\x00\x22\x00\x0a\x08\x0a\x01a\x12\x01b\x22\x00");
    }
}
