//! AnyValue: the strings inside it, at any depth, and the value with some of them replaced.
//!
//! Fields of AnyValue: 1 string, 2 bool, 3 int, 4 double, 5 array (1 values), 6 key-value list (1 entries), 7 bytes.
//! Of a KeyValue: 1 key, 2 value. Nesting is bounded by the checked walk.

use super::super::wire::{LENGTH, put_field, put_varint};
use super::space::{Part, Space, Span};
use std::collections::HashMap;

/// What becomes of the inside of one value.
#[derive(Debug, Default)]
pub(super) struct Inside {
    /// Strings by where they begin.
    pub(super) texts: HashMap<u32, String>,
    /// Entries of maps by where their field begins: removed, or with another value.
    pub(super) entries: HashMap<u32, Option<Vec<u8>>>,
}

/// Calls `found` with every string of the value, in order.
#[inline]
pub(super) fn strings(space: &Space, value: Span, found: &mut impl FnMut(Span)) {
    for part in space.parts(value).filter(|part| part.wire == LENGTH) {
        match part.number {
            1 => found(part.content),
            5 | 6 => nested_strings(space, &part, found),
            _ => {}
        }
    }
}

fn nested_strings(space: &Space, part: &Part, found: &mut dyn FnMut(Span)) {
    for inner in space.parts(part.content).filter(|inner| inner.is_message(1)) {
        let value = if part.number == 5 { Some(inner.content) } else { entry_value(space, inner.content) };
        if let Some(value) = value {
            strings(space, value, &mut |span| found(span));
        }
    }
}

pub(super) fn entry_key(space: &Space, entry: Span) -> Span {
    space.last(entry, 1).map_or((entry.0, entry.0), |part| part.content)
}

pub(super) fn entry_value(space: &Space, entry: Span) -> Option<Span> {
    space.last(entry, 2).map(|part| part.content)
}

/// An entry of a map inside a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) whole: Span,
    pub(super) key: Span,
    pub(super) value: Option<Span>,
}

/// Calls `found` with every entry of a map inside the value, at any depth; inside one for which it answers false it
/// does not look.
pub(super) fn entries(space: &Space, value: Span, found: &mut dyn FnMut(Entry) -> bool) {
    for part in space.parts(value).filter(|part| part.wire == LENGTH) {
        for inner in space.parts(part.content).filter(|inner| matches!(part.number, 5 | 6) && inner.is_message(1)) {
            if part.number == 5 {
                entries(space, inner.content, found);
                continue;
            }
            let value = entry_value(space, inner.content);
            let goes_on = found(Entry { whole: inner.whole, key: entry_key(space, inner.content), value });
            if let Some(value) = value.filter(|_| goes_on) {
                entries(space, value, found);
            }
        }
    }
}

/// The value with its inside changed.
pub(super) fn rebuilt(space: &Space, value: Span, inside: &Inside) -> Vec<u8> {
    let mut out = Vec::with_capacity((value.1 - value.0) as usize + 16);
    for part in space.parts(value) {
        match part.number {
            1 if part.wire == LENGTH => match inside.texts.get(&part.content.0) {
                Some(text) => put_field(&mut out, 1, text.as_bytes()),
                None => out.extend_from_slice(space.at(part.whole)),
            },
            5 | 6 if part.wire == LENGTH => {
                let mut list = Vec::new();
                for inner in space.parts(part.content) {
                    match (inner.is_message(1), part.number) {
                        (true, 5) => put_field(&mut list, 1, &rebuilt(space, inner.content, inside)),
                        (true, _) => rebuild_entry(space, &inner, inside, &mut list),
                        (false, _) => list.extend_from_slice(space.at(inner.whole)),
                    }
                }
                put_field(&mut out, part.number, &list);
            }
            _ => out.extend_from_slice(space.at(part.whole)),
        }
    }
    out
}

fn rebuild_entry(space: &Space, entry: &Part, inside: &Inside, map: &mut Vec<u8>) {
    let mut out = Vec::new();
    match inside.entries.get(&entry.whole.0) {
        Some(None) => return,
        Some(Some(other)) => {
            put_field(&mut out, 1, space.at(entry_key(space, entry.content)));
            put_field(&mut out, 2, other);
        }
        None => {
            for part in space.parts(entry.content) {
                if part.is_message(2) {
                    put_field(&mut out, 2, &rebuilt(space, part.content, inside));
                } else {
                    out.extend_from_slice(space.at(part.whole));
                }
            }
        }
    }
    put_field(map, 1, &out);
}

pub(super) fn text(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 4);
    put_field(&mut out, 1, text.as_bytes());
    out
}

pub(super) fn boolean(value: bool) -> Vec<u8> {
    vec![2 << 3, u8::from(value)]
}

pub(super) fn integer(value: i64) -> Vec<u8> {
    let mut out = vec![3 << 3];
    put_varint(&mut out, value as u64);
    out
}

pub(super) fn double(value: f64) -> Vec<u8> {
    let mut out = vec![4 << 3 | 1];
    out.extend_from_slice(&value.to_le_bytes());
    out
}

/// A KeyValue's content.
pub(super) fn entry(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + value.len() + 8);
    put_field(&mut out, 1, key);
    put_field(&mut out, 2, value);
    out
}
