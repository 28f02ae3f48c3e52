//! What the errors of a batch say: log records that are errors, or the exceptions among the events of spans.

use crate::frame;
use crate::signature::Signature;
use trommel_sdk::{Level, Packed, Places, TextColumn, batch};

/// Read for all rows at once: a call of the host costs as much as a few records.
#[derive(Default)]
pub(crate) struct Messages {
    /// Log records only.
    bodies: Packed,
    /// Of each body text, its record; ascending.
    rows: Vec<u32>,
    types: TextColumn,
    /// Instead of bodies, where these are missing.
    messages: TextColumn,
    stacks: TextColumn,
}

impl Messages {
    /// Of these log records.
    pub(crate) fn of_records(errors: &[u32]) -> Messages {
        let rows = batch::text_rows(Places::BODY);
        let has_bodies = errors.iter().all(|row| rows.binary_search(row).is_ok());
        let bodies = batch::packed_texts(Places::BODY);
        Messages { bodies, rows, ..Messages::exceptions(Level::Item, errors, !has_bodies) }
    }

    /// Of these events.
    pub(crate) fn of_events(events: &[u32]) -> Messages {
        Messages::exceptions(Level::Event, events, true)
    }

    fn exceptions(at: Level, rows: &[u32], has_messages: bool) -> Messages {
        let read = |key: &str, is_needed: bool| match is_needed {
            true => batch::text_attribute(at, key),
            false => TextColumn::default(),
        };
        let types = read("exception.type", true);
        // Stacks are long: they are read only where there are any to expect.
        let has_types = rows.iter().any(|row| value(&types, *row).is_some());
        let messages = read("exception.message", has_messages);
        Messages { types, messages, stacks: read("exception.stacktrace", has_types), ..Messages::default() }
    }

    pub(crate) fn hash(&self, row: u32) -> u64 {
        let (exception, message, frame) = self.said(row);
        Signature::hash_of(exception, message, &frame)
    }

    pub(crate) fn signature(&self, row: u32) -> Signature {
        let (exception, message, frame) = self.said(row);
        Signature::of(exception, message, &frame)
    }

    fn said(&self, row: u32) -> (&str, &[u8], String) {
        let exception = value(&self.types, row).unwrap_or_default();
        let message = self.body(row).or_else(|| value(&self.messages, row).map(str::as_bytes));
        let frame = value(&self.stacks, row).map(frame::top).unwrap_or_default();
        (exception, message.unwrap_or_default(), frame)
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
            stacks: [(4, "E\n  at shop.Order.pay(Order.java:7)")].into_iter().collect(),
        };
        let said: Vec<String> = (0..8).map(|row| messages.signature(row).template).collect();
        assert_eq!(
            said,
            [
                "(no message)",
                "one <n>",
                "(no message)",
                "(no message)",
                "E: two at shop.Order.pay",
                "F: disk <n> full",
                "alone",
                "(no message)"
            ]
        );
    }
}
