//! The values of one place: the attributes of a level, the bodies, or the strings of one field.
//!
//! A slot is a value where it stands now. Plugins change slots; what changed becomes edits of the bytes at the end.

use super::super::wire::{Field, LENGTH, fields};
use super::keys::Keys;
use super::space::{Space, Span};
use super::value::{Kind, Value};

/// [`Slot::field`] of a value that was added.
pub(super) const NOWHERE: u32 = u32::MAX;

/// Taken away.
pub(super) const REMOVED: u8 = 1;
/// By a plugin: taken away, set or added.
pub(super) const CHANGED: u8 = 2;
/// By a stamp, before the first plugin.
pub(super) const STAMPED: u8 = 4;

/// A first row with more attributes than this is no measure for the others.
const LIKELY_MAX: usize = 32;

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// The row of its level that it belongs to.
    pub(super) row: u32,
    /// The number of its key, for attributes.
    pub(super) key: u32,
    /// Where its field begins in the batch's bytes: a KeyValue, a body, a string; or [`NOWHERE`].
    pub(super) field: u32,
    pub(super) value: Value,
    pub(super) state: u8,
}

impl Slot {
    pub(super) fn is(&self, state: u8) -> bool {
        self.state & state != 0
    }
}

/// The message that holds the values of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    /// Its content; if it is absent, the place where it would begin.
    pub(super) content: Span,
    pub(super) is_absent: bool,
}

#[derive(Default)]
pub(super) struct Table {
    /// Sorted by row.
    pub(super) slots: Vec<Slot>,
    /// Row `r` has the slots from `firsts[r]` up to `firsts[r + 1]`. Attributes only.
    pub(super) firsts: Vec<u32>,
    pub(super) owners: Vec<Owner>,
    pub(super) keys: Keys,
}

impl Table {
    /// Begins the next of `rows`. Rows mostly have as many attributes as the first.
    pub(super) fn begin_row(&mut self, owner: Owner, rows: usize) {
        match self.firsts.len() {
            0 => {
                self.firsts.reserve_exact(rows + 1);
                self.owners.reserve_exact(rows);
            }
            1 => self.slots.reserve(self.slots.len().min(LIKELY_MAX) * (rows - 1)),
            _ => {}
        }
        self.firsts.push(self.slots.len() as u32);
        self.owners.push(owner);
    }

    pub(super) fn end_rows(&mut self) {
        self.firsts.push(self.slots.len() as u32);
    }

    pub(super) fn of_row(&self, row: u32) -> std::ops::Range<usize> {
        let first = |row: usize| self.firsts.get(row).map_or(self.slots.len(), |first| *first as usize);
        first(row as usize)..first(row as usize + 1)
    }

    /// Adds the string in `field`.
    pub(super) fn push_text(&mut self, row: u32, field: &Field) {
        if field.wire == LENGTH && field.content < field.end {
            let value = Value { kind: Kind::Text, span: Span::new(field.content, field.end) };
            self.slots.push(Slot { row, key: 0, field: field.start as u32, value, state: 0 });
        }
    }

    /// Adds the AnyValue in `field`.
    pub(super) fn push_value(&mut self, region: &[u8], row: u32, field: &Field) {
        if field.wire == LENGTH {
            let value = Value::at(region, field.content, field.end, 0);
            self.slots.push(Slot { row, key: 0, field: field.start as u32, value, state: 0 });
        }
    }

    /// Adds the attribute whose KeyValue is `field` of `region`; `at` is where the field stands in the batch's bytes.
    #[inline]
    pub(super) fn push_attribute(
        &mut self,
        space: &mut Space,
        attribute: Attribute<'_>,
        row: u32,
        state: u8,
    ) {
        let Attribute { region, add, field, at } = attribute;
        let (key, value) = match usual(region, field.content, field.end, add) {
            Some(usual) => usual,
            None => unusual(space, region, &field, add),
        };
        let first = *self.firsts.last().unwrap_or(&0);
        let before = self.firsts.len().checked_sub(2).map_or(0, |row| self.firsts[row]);
        let likely =
            self.slots.get((before + (self.slots.len() as u32 - first)) as usize).map(|slot| slot.key);
        let span = Span::new(key.0, key.1).shifted(add);
        let key = self.keys.number(span, &region[key.0..key.1], likely, space);
        self.slots.push(Slot { row, key, field: at, value, state });
    }
}

/// Where the key stands in the region, and the value.
type KeyAndValue = ((usize, usize), Value);

/// A KeyValue as almost all are written: a short key, and then a short value.
#[inline]
fn usual(region: &[u8], start: usize, end: usize, add: u32) -> Option<KeyAndValue> {
    const KEY: u8 = 1 << 3 | LENGTH;
    const VALUE: u8 = 2 << 3 | LENGTH;
    let [KEY, key_len @ 0..0x80, rest @ ..] = region.get(start..end)? else { return None };
    let key_len = usize::from(*key_len);
    let [VALUE, value_len @ 0..0x80, value @ ..] = rest.get(key_len..)? else { return None };
    if value.len() != usize::from(*value_len) {
        return None;
    }
    let key = (start + 2, start + 2 + key_len);
    Some((key, Value::at(region, key.1 + 2, end, add)))
}

#[cold]
fn unusual(space: &mut Space, region: &[u8], field: &Field, add: u32) -> KeyAndValue {
    let mut key = (field.content, field.content);
    let mut values = 0;
    let mut value = (0, 0);
    for part in fields(region, field.content, field.end) {
        match (part.number, part.wire) {
            (1, LENGTH) => key = (part.content, part.end),
            (2, LENGTH) => {
                values += 1;
                value = (part.content, part.end);
            }
            _ => {}
        }
    }
    let value = match values {
        0 => Value::EMPTY,
        1 => Value::at(region, value.0, value.1, add),
        _ => joined(space, region, field),
    };
    (key, value)
}

/// A KeyValue on its way into a table.
#[derive(Clone, Copy)]
pub(super) struct Attribute<'r> {
    pub(super) region: &'r [u8],
    /// Where the region begins in the space.
    pub(super) add: u32,
    pub(super) field: Field,
    /// Where the field begins in the batch's bytes, or [`NOWHERE`].
    pub(super) at: u32,
}

/// A value that came in several parts: protobuf's readers put them together, which is to read one after the other.
#[cold]
fn joined(space: &mut Space, region: &[u8], field: &Field) -> Value {
    let parts = fields(region, field.content, field.end).filter(|part| part.is_message(2));
    let all: Vec<u8> = parts.flat_map(|part| region[part.content..part.end].iter().copied()).collect();
    Value { kind: Kind::Odd, span: space.push(&all) }
}
