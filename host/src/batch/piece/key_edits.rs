//! Edits of what stands under a key: an attribute, or an entry of a map inside a value or a body.
//!
//! Inside a value that is edited as a whole nothing more is looked for.

use super::super::wire::fields;
use super::edits::{Action, Edits, EntryEdit, SlotEdit};
use super::index::{BODY, DESCRIPTION, EVENT_NAME, NAME, level_of, tables_of};
use super::space::Space;
use super::value::{Entry, Kind, Scalar, Value, choice, entries, messages};
use super::{Call, Fault, Places};

/// The number of the pattern that matches a key from end to end, the lowest of several.
type Matcher<'m> = dyn FnMut(&str) -> Option<u32> + 'm;

/// What to put there, given the pattern and the text or the encoded value; `None` removes it.
type By<'b> = dyn FnMut(u32, &[u8]) -> Option<String> + 'b;

impl Call {
    /// Removes all values under keys that `matches` knows. Returns how many.
    pub fn remove_keys(&mut self, of: Places, matches: &mut Matcher<'_>) -> u32 {
        self.edit_keys(of, matches, &mut |_, _| None)
    }

    /// Replaces them by `by[p]`, or the last of `by`.
    pub fn mask_keys(&mut self, of: Places, matches: &mut Matcher<'_>, by: &[String]) -> u32 {
        let Some(last) = by.len().checked_sub(1) else {
            self.edit("mask-keys", |_| Err(Fault("`by` is empty".into())));
            return 0;
        };
        self.edit_keys(of, matches, &mut |pattern, _| Some(by[last.min(pattern as usize)].clone()))
    }

    /// Replaces them by what `hash` makes of a string's text, or of the encoded form of any other value.
    pub fn hash_keys(
        &mut self,
        of: Places,
        matches: &mut Matcher<'_>,
        hash: &mut dyn FnMut(&[u8]) -> String,
    ) -> u32 {
        self.edit_keys(of, matches, &mut |_, value| Some(hash(value)))
    }

    fn edit_keys(&mut self, of: Places, matches: &mut Matcher<'_>, by: &mut By<'_>) -> u32 {
        if self.fault.is_some() {
            return 0;
        }
        self.inner.index_places(of);
        let mut edited = 0;
        for table in tables_of(of) {
            edited += match table {
                NAME | EVENT_NAME | DESCRIPTION => 0,
                _ => self.edit_keys_of(table, matches, by),
            };
        }
        edited
    }

    fn edit_keys_of(&mut self, table: usize, matches: &mut Matcher<'_>, by: &mut By<'_>) -> u32 {
        let level = level_of(table, self.inner.signal);
        self.inner.shown(level);
        let inner = &*self.inner;
        let (space, shown) = (&inner.space, inner.shown_now(level));
        let keys = &inner.tables[table].keys;
        let mut matched = |key: &[u8]| matches(&String::from_utf8_lossy(key));
        let of_keys: Vec<Option<u32>> =
            (0..keys.len() as u32).map(|number| matched(keys.bytes(number, space))).collect();
        let mut edited = 0;
        for (number, slot) in inner.tables[table].slots.iter().enumerate() {
            if !slot.is_live() || !shown.shows(slot.row) {
                continue;
            }
            let (table_number, number) = (table as u8, number as u32);
            let pattern = if table == BODY { None } else { of_keys[slot.key as usize] };
            if let Some(pattern) = pattern {
                let action = match by(pattern, plain(slot.value, space)) {
                    None => Action::Remove,
                    Some(text) => Action::Put(self.edits.keep_text(&text)),
                };
                self.edits.count(1, weight(action));
                self.edits.slots.push(SlotEdit { table: table_number, slot: number, action });
                edited += 1;
            } else if matches!(slot.value.kind, Kind::Nest | Kind::Odd) {
                let content = space.of(slot.value.span);
                let edits = &mut self.edits;
                entries(content, 0, content.len(), 0, &mut |key, entry| {
                    let Some(pattern) = matched(key) else { return false };
                    let by = by(pattern, entry_plain(content, &entry));
                    push_entry(edits, table_number, number, entry, by);
                    edited += 1;
                    true
                });
            }
        }
        edited
    }
}

fn weight(action: Action) -> usize {
    match action {
        Action::Put(value) => value.span.len() as usize,
        _ => 0,
    }
}

fn push_entry(edits: &mut Edits, table: u8, slot: u32, entry: Entry, by: Option<String>) {
    edits.count(1, by.as_ref().map_or(0, String::len));
    let by = by.map(|text| edits.keep(text.as_bytes()));
    edits.entries.push(EntryEdit { table, slot, entry, by });
}

/// The text of a string, the encoded form of others.
fn plain(value: Value, space: &Space) -> &[u8] {
    match value.scalar(space) {
        Scalar::Text(text) => text,
        _ => space.of(value.span),
    }
}

fn entry_plain<'c>(content: &'c [u8], entry: &Entry) -> &'c [u8] {
    let Some(value) = messages(content, &entry.field, 2).last() else { return &[] };
    match fields(content, value.content, value.end).filter_map(|field| choice(content, &field)).last() {
        Some(Scalar::Text(text)) => text,
        _ => &content[value.content..value.end],
    }
}
