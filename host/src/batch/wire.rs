//! Protobuf's wire format: reads the fields of checked bytes, writes the few fields we make ourselves.
//!
//! Knows no schema. Reading trusts what the checked walk accepted; on anything else it stops early and never panics.
//! Sinks that write another form straight from an entry's bytes read with this, so that there is one decoder.
//! Source: protobuf.dev, "Encoding".

pub const VARINT: u8 = 0;
pub const LENGTH: u8 = 2;
pub const FIXED64: u8 = 1;

/// One field of a message; all numbers are offsets in the bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    pub number: u32,
    pub wire: u8,
    /// Where its key begins.
    pub start: usize,
    /// Where its value begins: after the key, and after the length if it has one.
    pub content: usize,
    pub end: usize,
}

impl Field {
    /// Whether it is a length-delimited field with this number.
    pub fn is_message(&self, number: u32) -> bool {
        self.number == number && self.wire == LENGTH
    }

    /// What it holds, of the bytes that were read.
    pub fn of<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        bytes.get(self.content..self.end).unwrap_or_default()
    }
}

/// The fields of a whole message.
pub fn fields_of(message: &[u8]) -> Fields<'_> {
    fields(message, 0, message.len())
}

/// Iterates the fields of one message.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'b> {
    bytes: &'b [u8],
    at: usize,
}

/// The fields of the message whose content is `bytes[start..end]`.
pub fn fields(bytes: &[u8], start: usize, end: usize) -> Fields<'_> {
    Fields { bytes: &bytes[..end.min(bytes.len())], at: start }
}

impl<'b> Fields<'b> {
    /// Where the next field begins, or the message ends.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    #[inline(always)]
    fn read(&self) -> Option<Field> {
        let start = self.at;
        let first = *self.bytes.get(start)?;
        // Almost all keys are one byte.
        let (number, wire, at) = if first < 0x80 {
            (u32::from(first) >> 3, first & 7, start + 1)
        } else {
            let (key, at) = varint(self.bytes, start)?;
            (u32::try_from(key).ok()? >> 3, (key & 7) as u8, at)
        };
        let (content, end) = match wire {
            LENGTH => {
                let (length, content) = varint(self.bytes, at)?;
                (content, content.checked_add(usize::try_from(length).ok()?)?)
            }
            VARINT => (at, varint(self.bytes, at)?.1),
            1 => (at, at.checked_add(8)?),
            5 => (at, at.checked_add(4)?),
            3 => (at, group_end(self.bytes, at)?),
            _ => return None,
        };
        (end <= self.bytes.len()).then_some(Field { number, wire, start, content, end })
    }
}

impl Iterator for Fields<'_> {
    type Item = Field;

    #[inline(always)]
    fn next(&mut self) -> Option<Field> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let field = self.read();
        self.at = field.map_or(self.bytes.len(), |field| field.end);
        field
    }
}

/// Where the group ends whose first field begins at `at`, its end key included.
#[cold]
fn group_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut open = 1;
    while open > 0 {
        let (key, after) = varint(bytes, at)?;
        at = match key & 7 {
            0 => varint(bytes, after)?.1,
            1 => after.checked_add(8)?,
            2 => {
                let (length, content) = varint(bytes, after)?;
                content.checked_add(usize::try_from(length).ok()?)?
            }
            3 => {
                open += 1;
                after
            }
            4 => {
                open -= 1;
                after
            }
            5 => after.checked_add(4)?,
            _ => return None,
        };
    }
    Some(at)
}

/// The varint at `at`, and where it ends.
#[inline(always)]
pub fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let first = *bytes.get(at)?;
    if first < 0x80 {
        return Some((u64::from(first), at + 1));
    }
    let second = *bytes.get(at + 1)?;
    if second < 0x80 {
        return Some((u64::from(first & 0x7f) | u64::from(second) << 7, at + 2));
    }
    long_varint(bytes, at)
}

/// Varints of any length. More than 64 bits are refused, as protobuf's own readers do.
#[inline(never)]
fn long_varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0;
    for (index, &byte) in bytes.get(at..)?.iter().take(10).enumerate() {
        if index == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some((value, at + index + 1));
        }
    }
    None
}

/// The eight bytes of a field with wire type 1, as a number.
#[inline]
pub fn fixed64(bytes: &[u8], field: &Field) -> u64 {
    let content = bytes.get(field.content..field.content + 8);
    content.and_then(|content| content.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// How many bytes [`put_varint`] writes.
pub fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a length-delimited field.
pub fn put_field(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    put_varint(out, u64::from(number << 3 | u32::from(LENGTH)));
    put_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// A KeyValue with a text, as field `number` of the message that holds the attributes.
pub(super) fn text_attribute(number: u32, key: &str, text: &str) -> Vec<u8> {
    let mut value = Vec::with_capacity(text.len() + 4);
    put_field(&mut value, 1, text.as_bytes());
    let mut attribute = Vec::with_capacity(key.len() + value.len() + 8);
    put_field(&mut attribute, 1, key.as_bytes());
    put_field(&mut attribute, 2, &value);
    let mut out = Vec::with_capacity(attribute.len() + 4);
    put_field(&mut out, number, &attribute);
    out
}
