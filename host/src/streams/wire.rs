//! Protobuf's wire format, read in place from bytes that were checked when they came in.
//!
//! Knows no schema. On bytes that are no protobuf it stops early and never panics.
//! Source: protobuf.dev, "Encoding".

use std::ops::Range;

/// One field of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) number: u64,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// Where the content of a length-delimited field lies.
    Bytes(Range<usize>),
}

/// Takes the field at the front of `range`. `None` at the end, and where no field stands.
#[inline(always)]
pub(super) fn next_field(bytes: &[u8], range: &mut Range<usize>) -> Option<Field> {
    let tag = varint(bytes, range)?;
    let value = match tag & 7 {
        0 => Value::Varint(varint(bytes, range)?),
        1 => Value::Fixed64(u64::from_le_bytes(fixed(bytes, range)?)),
        5 => Value::Fixed32(u32::from_le_bytes(fixed(bytes, range)?)),
        2 => {
            let length = usize::try_from(varint(bytes, range)?).ok()?;
            Value::Bytes(taken(range, length)?)
        }
        _ => return None,
    };
    Some(Field { number: tag >> 3, value })
}

#[inline(always)]
fn taken(range: &mut Range<usize>, length: usize) -> Option<Range<usize>> {
    let content = range.start..range.start.checked_add(length).filter(|end| *end <= range.end)?;
    range.start = content.end;
    Some(content)
}

fn fixed<const LENGTH: usize>(bytes: &[u8], range: &mut Range<usize>) -> Option<[u8; LENGTH]> {
    bytes.get(taken(range, LENGTH)?)?.try_into().ok()
}

#[inline(always)]
fn varint(bytes: &[u8], range: &mut Range<usize>) -> Option<u64> {
    // Almost all are one byte.
    match bytes.get(range.start) {
        Some(&byte) if byte < 0x80 && range.start < range.end => {
            range.start += 1;
            Some(u64::from(byte))
        }
        _ => long_varint(bytes, range),
    }
}

fn long_varint(bytes: &[u8], range: &mut Range<usize>) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        if range.start >= range.end {
            return None;
        }
        let byte = *bytes.get(range.start)?;
        range.start += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
