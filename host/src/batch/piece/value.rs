//! AnyValue: what kind a value is, the strings and entries in it, and the values we write ourselves.
//!
//! Positions are offsets in a region of the space; `add` is where the region begins.

use super::super::wire::{Field, LENGTH, VARINT, fields, fixed64, put_field, put_varint, varint};
use super::space::{Space, Span};

/// Deeper values are not looked into; the checked walk lets none through.
const DEPTH_MAX: u32 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Empty,
    Text,
    Bool,
    Int,
    Double,
    Bytes,
    /// An array or a map.
    Nest,
    /// Written in an unusual way: several choices, or fields that OTLP does not know. What it holds must be looked for.
    Odd,
}

/// A value at rest. `span` is the string itself for [`Kind::Text`], else the content of the AnyValue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) kind: Kind,
    pub(super) span: Span,
}

/// A value as it reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar<'s> {
    Text(&'s [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
    /// Bytes, arrays, maps, or nothing.
    Other,
}

impl Value {
    pub(super) const EMPTY: Value = Value { kind: Kind::Empty, span: Span { start: 0, end: 0 } };

    /// The value whose content is `region[start..end]`.
    #[inline]
    pub(super) fn at(region: &[u8], start: usize, end: usize, add: u32) -> Value {
        const TEXT: u8 = 1 << 3 | LENGTH;
        // Almost all values are short strings.
        if let Some([TEXT, len @ 0..0x80, text @ ..]) = region.get(start..end)
            && text.len() == usize::from(*len)
        {
            return Value { kind: Kind::Text, span: Span::new(start + 2, end).shifted(add) };
        }
        Value::other(region, start, end, add)
    }

    #[inline(never)]
    fn other(region: &[u8], start: usize, end: usize, add: u32) -> Value {
        let mut choices = fields(region, start, end);
        let whole = Span::new(start, end).shifted(add);
        let Some(first) = choices.next() else { return Value { kind: Kind::Empty, span: whole } };
        let kind = match (first.number, first.wire) {
            _ if first.end != end => Kind::Odd,
            (1, LENGTH) => {
                let span = Span::new(first.content, first.end).shifted(add);
                return Value { kind: Kind::Text, span };
            }
            (2, VARINT) => Kind::Bool,
            (3, VARINT) => Kind::Int,
            (4, 1) => Kind::Double,
            (5 | 6, LENGTH) => Kind::Nest,
            (7, LENGTH) => Kind::Bytes,
            _ => Kind::Odd,
        };
        Value { kind, span: whole }
    }

    /// Of several choices the last counts, as protobuf's readers do it.
    pub(super) fn scalar(self, space: &Space) -> Scalar<'_> {
        let bytes = space.of(self.span);
        match self.kind {
            Kind::Text => Scalar::Text(bytes),
            Kind::Empty | Kind::Bytes | Kind::Nest => Scalar::Other,
            _ => fields(bytes, 0, bytes.len())
                .filter_map(|field| choice(bytes, &field))
                .last()
                .unwrap_or(Scalar::Other),
        }
    }

    /// Calls `each` with every string in the value, in the order of the document.
    pub(super) fn strings(self, space: &Space, each: &mut dyn FnMut(Span)) {
        match self.kind {
            Kind::Text => each(self.span),
            Kind::Nest | Kind::Odd => {
                let region = space.of(self.span);
                strings(region, 0, region.len(), 0, &mut |span| each(span.shifted(self.span.start)));
            }
            _ => {}
        }
    }

    /// Writes the content of the AnyValue.
    pub(super) fn put(self, out: &mut Vec<u8>, space: &Space) {
        let bytes = space.of(self.span);
        match self.kind {
            Kind::Text => put_field(out, 1, bytes),
            _ => out.extend_from_slice(bytes),
        }
    }
}

/// What one field of an AnyValue reads as; `None` if OTLP does not know it.
pub(super) fn choice<'b>(bytes: &'b [u8], field: &Field) -> Option<Scalar<'b>> {
    let content = &bytes[field.content..field.end];
    let number = || varint(bytes, field.content).map_or(0, |(number, _)| number);
    Some(match (field.number, field.wire) {
        (1, LENGTH) => Scalar::Text(content),
        (2, VARINT) => Scalar::Bool(number() != 0),
        (3, VARINT) => Scalar::Int(number().cast_signed()),
        (4, 1) => Scalar::Double(f64::from_bits(fixed64(bytes, field))),
        (5..=7, LENGTH) | (8, VARINT) => Scalar::Other,
        _ => return None,
    })
}

fn strings(region: &[u8], start: usize, end: usize, depth: u32, each: &mut dyn FnMut(Span)) {
    if depth == DEPTH_MAX {
        return;
    }
    for choice in fields(region, start, end).filter(|choice| choice.wire == LENGTH) {
        match choice.number {
            1 => each(Span::new(choice.content, choice.end)),
            5 => {
                for value in messages(region, &choice, 1) {
                    strings(region, value.content, value.end, depth + 1, each);
                }
            }
            6 => {
                for entry in messages(region, &choice, 1) {
                    for value in messages(region, &entry, 2) {
                        strings(region, value.content, value.end, depth + 1, each);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The length-delimited fields `number` of the message in `field`.
pub(super) fn messages<'b>(
    region: &'b [u8],
    field: &Field,
    number: u32,
) -> impl Iterator<Item = Field> + use<'b> {
    fields(region, field.content, field.end).filter(move |inner| inner.is_message(number))
}

/// An entry of a map inside a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The whole KeyValue field.
    pub(super) field: Field,
    /// Where the content of the map begins.
    pub(super) owner: usize,
}

/// Calls `each` with the entries of all maps in the value; where it says `true`, the entry's own value is not looked
/// into.
pub(super) fn entries(
    region: &[u8],
    start: usize,
    end: usize,
    depth: u32,
    each: &mut dyn FnMut(&[u8], Entry) -> bool,
) {
    if depth == DEPTH_MAX {
        return;
    }
    for choice in fields(region, start, end).filter(|choice| choice.wire == LENGTH) {
        match choice.number {
            5 => {
                for value in messages(region, &choice, 1) {
                    entries(region, value.content, value.end, depth + 1, each);
                }
            }
            6 => {
                for field in messages(region, &choice, 1) {
                    let key = messages(region, &field, 1).last();
                    let key = key.map_or(&[][..], |key| &region[key.content..key.end]);
                    if each(key, Entry { field, owner: choice.content }) {
                        continue;
                    }
                    for value in messages(region, &field, 2) {
                        entries(region, value.content, value.end, depth + 1, each);
                    }
                }
            }
            _ => {}
        }
    }
}

/// A number as the content of an AnyValue.
pub(super) fn int(value: i64) -> Vec<u8> {
    let mut out = vec![3 << 3];
    put_varint(&mut out, value.cast_unsigned());
    out
}

pub(super) fn double(value: f64) -> Vec<u8> {
    let mut out = vec![4 << 3 | 1];
    out.extend_from_slice(&value.to_bits().to_le_bytes());
    out
}

pub(super) fn boolean(value: bool) -> Vec<u8> {
    vec![2 << 3, u8::from(value)]
}
