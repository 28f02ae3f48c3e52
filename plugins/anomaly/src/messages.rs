//! What the errors of a batch say.

use crate::signature::Signature;
use trommel_sdk::{Level, Packed, Places, TextColumn, batch};

/// Read for all records at once: a call of the host costs as much as a few records.
pub(crate) struct Messages {
    bodies: Packed,
    /// Of each body text, its record; ascending.
    rows: Vec<u32>,
    types: TextColumn,
    /// Instead of bodies, where these are missing.
    messages: TextColumn,
}

impl Messages {
    pub(crate) fn read(errors: impl Iterator<Item = u32>) -> Messages {
        let rows = batch::text_rows(Places::BODY);
        let has_bodies = errors.into_iter().all(|row| rows.binary_search(&row).is_ok());
        Messages {
            bodies: batch::packed_texts(Places::BODY),
            rows,
            types: batch::text_attribute(Level::Item, "exception.type"),
            messages: match has_bodies {
                true => TextColumn::default(),
                false => batch::text_attribute(Level::Item, "exception.message"),
            },
        }
    }

    pub(crate) fn hash(&self, row: u32) -> u64 {
        let (exception, message) = self.said(row);
        Signature::hash_of(exception, message)
    }

    pub(crate) fn signature(&self, row: u32) -> Signature {
        let (exception, message) = self.said(row);
        Signature::of(exception, message)
    }

    fn said(&self, row: u32) -> (&str, &[u8]) {
        let exception = value(&self.types, row).unwrap_or_default();
        let message = self.body(row).or_else(|| value(&self.messages, row).map(str::as_bytes));
        (exception, message.unwrap_or_default())
    }

    /// The first text in the body: all of it, mostly.
    fn body(&self, row: u32) -> Option<&[u8]> {
        let at = self.rows.partition_point(|other| *other < row);
        let is_its = self.rows.get(at).is_some_and(|other| *other == row);
        let end = *self.bodies.ends.get(at).filter(|_| is_its)? as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.bodies.ends[before] as usize + 1);
        self.bodies.data.get(start..end)
    }
}

fn value(column: &TextColumn, row: u32) -> Option<&str> {
    let at = column.rows.binary_search(&row).ok()?;
    Some(&column.strings[column.index[at] as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_its_first_text_or_else_that_of_its_exception() {
        let messages = Messages {
            bodies: Packed { data: b"one 1\0two\0three\0".to_vec(), ends: vec![5, 9, 15] },
            rows: vec![1, 4, 4],
            types: [(4, "E"), (5, "F")].into_iter().collect(),
            messages: [(4, "unused"), (5, "disk 5 full"), (6, "alone")].into_iter().collect(),
        };
        let said: Vec<String> = (0..8).map(|row| messages.signature(row).template).collect();
        assert_eq!(
            said,
            [
                "(no message)",
                "one <n>",
                "(no message)",
                "(no message)",
                "E: two",
                "F: disk <n> full",
                "alone",
                "(no message)"
            ]
        );
    }
}
