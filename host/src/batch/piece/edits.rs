//! What a call wants changed, and how it is applied: all of it when the call is committed, or nothing.
//!
//! Until then the edits keep their bytes to themselves, so that a call which fails leaves no trace in the piece.
//! Order of precedence: an edit of a whole value beats those inside it, an entry of a map beats those inside the entry,
//! a whole string beats those of its parts; of two equals the last call wins. A part edited twice is a fault.

use super::super::splice::{Edit, splice};
use super::super::wire::{Field, VARINT, fields, put_field, put_varint};
use super::index::{HEADS, TABLES};
use super::space::{Space, Span};
use super::table::{CHANGED, NOWHERE, Slot, Table};
use super::value::{Entry, Kind, Value, messages};
use super::{Call, Committed, Fault, Inner, Piece};
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

/// What an edit weighs beside its text: about what it takes in memory.
const EDIT_COST: usize = 32;

#[derive(Default)]
pub(super) struct Edits {
    /// Spans of edits are places in it.
    pool: Vec<u8>,
    bytes: usize,
    pub(super) parts: Vec<PartEdit>,
    pub(super) strings: Vec<StringEdit>,
    pub(super) entries: Vec<EntryEdit>,
    pub(super) slots: Vec<SlotEdit>,
    pub(super) additions: Vec<Addition>,
    keys: HashMap<Box<str>, u32>,
    key_spans: Vec<Span>,
    pub(super) severities: Vec<Setting<u8>>,
    pub(super) trace_states: Vec<Setting<Span>>,
    pub(super) dropped: Vec<u32>,
    pub(super) routes: Vec<(Arc<str>, Vec<u32>)>,
    pub(super) splices: Vec<Edit>,
}

/// A part of string `text` of a table's list.
pub(super) struct PartEdit {
    pub(super) table: u8,
    pub(super) text: u32,
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) by: Span,
    pub(super) function: &'static str,
}

pub(super) struct StringEdit {
    pub(super) table: u8,
    pub(super) text: u32,
    pub(super) by: Span,
}

/// An entry of a map inside a value. `entry` has places in the content of the value.
pub(super) struct EntryEdit {
    pub(super) table: u8,
    pub(super) slot: u32,
    pub(super) entry: Entry,
    /// The text to put there; `None` removes it.
    pub(super) by: Option<Span>,
}

#[derive(Clone, Copy)]
pub(super) enum Action {
    Remove,
    /// A value in the pool.
    Put(Value),
    /// A value that the piece has.
    Copy(Value),
}

pub(super) struct SlotEdit {
    pub(super) table: u8,
    pub(super) slot: u32,
    pub(super) action: Action,
}

/// An attribute that the row does not have. `key` is a number of [`Edits::key`].
pub(super) struct Addition {
    pub(super) table: u8,
    pub(super) row: u32,
    pub(super) key: u32,
    pub(super) action: Action,
}

pub(super) struct Setting<T> {
    pub(super) item: u32,
    pub(super) to: T,
}

impl Edits {
    /// Accounts for edits that write `bytes` each.
    pub(super) fn count(&mut self, edits: usize, bytes: usize) {
        self.bytes = self.bytes.saturating_add(edits.saturating_mul(EDIT_COST + bytes));
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn keep(&mut self, bytes: &[u8]) -> Span {
        let start = self.pool.len();
        // What does not fit in 4 GiB is refused by its weight long before.
        if u32::try_from(start + bytes.len()).is_err() {
            return Span::default();
        }
        self.pool.extend_from_slice(bytes);
        Span::new(start, self.pool.len())
    }

    pub(super) fn keep_text(&mut self, text: &str) -> Value {
        Value { kind: Kind::Text, span: self.keep(text.as_bytes()) }
    }

    /// The number of a key within this call.
    pub(super) fn key(&mut self, key: &str) -> u32 {
        if let Some(number) = self.keys.get(key) {
            return *number;
        }
        let span = self.keep(key.as_bytes());
        let number = self.key_spans.len() as u32;
        self.key_spans.push(span);
        self.keys.insert(key.into(), number);
        number
    }

    fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether anything but drops, routes and splices is among them.
    pub(super) fn has_column_edits(&self) -> bool {
        !(self.parts.is_empty()
            && self.strings.is_empty()
            && self.entries.is_empty()
            && self.slots.is_empty()
            && self.additions.is_empty()
            && self.severities.is_empty()
            && self.trace_states.is_empty())
    }
}

impl Call {
    /// Applies all edits of the call, or none if one was wrong.
    pub fn commit(mut self) -> Result<Committed, (Piece, Fault)> {
        if let Some(fault) = self.fault.take() {
            return Err((self.abort(), fault));
        }
        if self.edits.is_empty() {
            return Ok(Committed { piece: self.abort(), dropped: 0, added: 0 });
        }
        if let Err(fault) = parts_apart(&mut self.edits.parts) {
            return Err((self.abort(), fault));
        }
        if !self.edits.splices.is_empty() {
            return self.commit_splices();
        }
        let edits = std::mem::take(&mut self.edits);
        let dropped = self.inner.apply(edits);
        Ok(Committed { piece: self.abort(), dropped, added: 0 })
    }

    /// Ends the call without any edit.
    pub fn abort(mut self) -> Piece {
        if self.is_subset {
            self.inner.look_at_all();
        }
        Piece { inner: self.inner }
    }
}

/// Sorts the edits of parts; two that overlap are a fault.
fn parts_apart(parts: &mut [PartEdit]) -> Result<(), Fault> {
    parts.sort_by_key(|part| (part.table, part.text, part.start, part.end));
    for pair in parts.windows(2) {
        let [one, next] = pair else { continue };
        let is_same_text = (one.table, one.text) == (next.table, next.text);
        if is_same_text && (next.start < one.end || (next.start, next.end) == (one.start, one.end)) {
            return Err(Fault(format!(
                "{}: bytes {} to {} of a string are edited twice: bytes {} to {} by `{}`",
                next.function, next.start, next.end, one.start, one.end, one.function
            )));
        }
    }
    Ok(())
}

/// An edit inside a value, its bytes in the space.
struct Inside {
    table: u8,
    slot: u32,
    /// The string or the entry's field, in the space.
    at: Span,
    by: Option<Span>,
    /// For an entry of a map.
    entry: Option<Entry>,
}

impl Inner {
    /// Applies checked edits. Returns how many items were dropped.
    fn apply(&mut self, edits: Edits) -> u32 {
        let add = self.space.push(&edits.pool).start;
        let mut touched = [false; TABLES];
        let mut insides = self.new_strings(&edits, add);
        insides.extend(edits.entries.iter().map(|edit| {
            let value = self.tables[edit.table as usize].slots[edit.slot as usize].value;
            let at = Span::new(edit.entry.field.start, edit.entry.field.end).shifted(value.span.start);
            let by = edit.by.map(|by| by.shifted(add));
            Inside { table: edit.table, slot: edit.slot, at, by, entry: Some(edit.entry) }
        }));
        insides.sort_by_key(|inside| (inside.table, inside.slot, inside.at.start, Reverse(inside.at.end)));
        for group in insides.chunk_by(|one, next| (one.table, one.slot) == (next.table, next.slot)) {
            touched[group[0].table as usize] = true;
            self.apply_insides(group);
        }
        for edit in &edits.slots {
            touched[edit.table as usize] = true;
            let slot = &mut self.tables[edit.table as usize].slots[edit.slot as usize];
            match edit.action {
                Action::Remove => slot.remove(),
                action => slot.change(settled(action, add)),
            }
        }
        self.apply_additions(edits.additions, &edits.key_spans, add, &mut touched);
        self.apply_heads(&edits.severities, &edits.trace_states, add);
        for (list, is_touched) in self.lists.iter_mut().zip(touched) {
            if is_touched {
                *list = None;
            }
        }
        for (name, rows) in &edits.routes {
            self.apply_route(name, rows);
        }
        self.drop_items(&edits.dropped)
    }

    /// The strings that have new content, each once.
    fn new_strings(&mut self, edits: &Edits, add: u32) -> Vec<Inside> {
        let mut wholes: Vec<&StringEdit> = edits.strings.iter().collect();
        wholes.sort_by_key(|edit| (edit.table, edit.text));
        let mut insides = Vec::new();
        for same in wholes.chunk_by(|one, next| (one.table, one.text) == (next.table, next.text)) {
            let last = same[same.len() - 1];
            insides.extend(self.inside(last.table, last.text, last.by.shifted(add)));
        }
        let mut content = Vec::new();
        for same in edits.parts.chunk_by(|one, next| (one.table, one.text) == (next.table, next.text)) {
            let (table, text) = (same[0].table, same[0].text);
            if wholes.binary_search_by_key(&(table, text), |edit| (edit.table, edit.text)).is_ok() {
                continue;
            }
            let Some(before) = self.text(table, text) else { continue };
            content.clear();
            let old = self.space.of(before);
            let mut at = 0;
            for part in same {
                content.extend_from_slice(old.get(at..part.start as usize).unwrap_or_default());
                content.extend_from_slice(&edits.pool[part.by.start as usize..part.by.end as usize]);
                at = part.end as usize;
            }
            content.extend_from_slice(old.get(at..).unwrap_or_default());
            let by = self.space.push(&content);
            insides.extend(self.inside(table, text, by));
        }
        insides
    }

    fn text(&self, table: u8, text: u32) -> Option<Span> {
        self.lists[table as usize].as_ref().and_then(|list| list.spans.get(text as usize).copied())
    }

    fn inside(&self, table: u8, text: u32, by: Span) -> Option<Inside> {
        let at = self.text(table, text)?;
        let slot = *self.lists[table as usize].as_ref()?.slots.get(text as usize)?;
        Some(Inside { table, slot, at, by: Some(by), entry: None })
    }

    /// Applies all edits inside one value, sorted so that an entry of a map stands before what it contains.
    fn apply_insides(&mut self, group: &[Inside]) {
        let slot = &mut self.tables[group[0].table as usize].slots[group[0].slot as usize];
        if slot.value.kind == Kind::Text {
            let span = group[group.len() - 1].by.unwrap_or_default();
            slot.change(Value { kind: Kind::Text, span });
            return;
        }
        let value = slot.value.span;
        let content = self.space.of(value);
        let mut edits = Vec::with_capacity(group.len());
        let mut gone = 0;
        for same in group.chunk_by(|one, next| one.at == next.at) {
            let last = &same[same.len() - 1];
            if last.at.start < gone {
                continue;
            }
            let by = last.by.map(|by| self.space.of(by));
            match (last.entry, by) {
                (Some(entry), by) => {
                    gone = last.at.end;
                    edits.push(entry_edit(content, entry, by));
                }
                (None, by) => {
                    let start = (last.at.start - value.start) as usize;
                    edits.push(content_edit(start, start + last.at.len() as usize, by.unwrap_or_default()));
                }
            }
        }
        let content = splice(content, &edits);
        let span = self.space.push(&content);
        let slot = &mut self.tables[group[0].table as usize].slots[group[0].slot as usize];
        slot.change(Value::at(&content, 0, content.len(), span.start));
    }

    fn apply_additions(
        &mut self,
        mut additions: Vec<Addition>,
        keys: &[Span],
        add: u32,
        touched: &mut [bool; TABLES],
    ) {
        additions.sort_by_key(|addition| (addition.table, addition.row, addition.key));
        let last_of_each = additions
            .chunk_by(|one, next| (one.table, one.row, one.key) == (next.table, next.row, next.key))
            .map(|same| &same[same.len() - 1])
            .filter(|last| !matches!(last.action, Action::Remove));
        let mut slots: Vec<(u8, Slot)> = Vec::new();
        for addition in last_of_each {
            touched[addition.table as usize] = true;
            let key = keys[addition.key as usize].shifted(add);
            let table = &mut self.tables[addition.table as usize];
            let key = table.keys.number(key, self.space.of(key), None, &self.space);
            let value = settled(addition.action, add);
            let slot = Slot { row: addition.row, key, field: NOWHERE, value, state: CHANGED };
            slots.push((addition.table, slot));
        }
        for of_table in slots.chunk_by(|one, next| one.0 == next.0) {
            insert(&mut self.tables[of_table[0].0 as usize], of_table);
        }
    }

    fn apply_heads(&mut self, severities: &[Setting<u8>], trace_states: &[Setting<Span>], add: u32) {
        if severities.is_empty() && trace_states.is_empty() {
            return;
        }
        self.index_items(HEADS);
        for set in severities {
            let head = &mut self.heads[set.item as usize];
            (head.severity, head.is_severity_changed) = (set.to, true);
        }
        for set in trace_states {
            let head = &mut self.heads[set.item as usize];
            (head.trace_state, head.is_trace_state_changed) = (set.to.shifted(add), true);
        }
    }

    pub(super) fn apply_route(&mut self, name: &Arc<str>, rows: &[u32]) {
        let items = self.rows.items.len();
        let all = self.routes.get_or_insert_with(|| vec![None; items]);
        for row in rows {
            all[*row as usize] = Some(name.clone());
        }
    }

    pub(super) fn drop_items(&mut self, rows: &[u32]) -> u32 {
        if rows.is_empty() {
            return 0;
        }
        if self.is_dropped.is_empty() {
            self.is_dropped = vec![false; self.rows.items.len()];
        }
        let before = self.dropped;
        for row in rows {
            let is_dropped = &mut self.is_dropped[*row as usize];
            self.dropped += u32::from(!*is_dropped);
            *is_dropped = true;
        }
        self.look_at_all();
        self.dropped - before
    }
}

fn settled(action: Action, add: u32) -> Value {
    match action {
        Action::Put(value) => Value { kind: value.kind, span: value.span.shifted(add) },
        Action::Copy(value) => value,
        Action::Remove => Value::EMPTY,
    }
}

/// Inserts slots, sorted by row, each behind the others of its row.
fn insert(table: &mut Table, added: &[(u8, Slot)]) {
    let mut slots = Vec::with_capacity(table.slots.len() + added.len());
    let mut added = added.iter().map(|(_, slot)| *slot).peekable();
    let mut firsts = Vec::with_capacity(table.firsts.len());
    for row in 0..table.owners.len() as u32 {
        firsts.push(slots.len() as u32);
        slots.extend_from_slice(&table.slots[table.of_row(row)]);
        while let Some(slot) = added.next_if(|slot| slot.row == row) {
            slots.push(slot);
        }
    }
    firsts.push(slots.len() as u32);
    (table.slots, table.firsts) = (slots, firsts);
}

fn content_edit(start: usize, end: usize, with: &[u8]) -> Edit {
    Edit { owner: start, range: start..end, is_content: true, with: Bytes::copy_from_slice(with) }
}

/// The edit of a value's content that removes an entry of a map in it, or puts a text there.
fn entry_edit(content: &[u8], entry: Entry, by: Option<&[u8]>) -> Edit {
    let range = entry.field.start..entry.field.end;
    let whole = |with| Edit { owner: entry.owner, range, is_content: false, with };
    let Some(text) = by else { return whole(Bytes::new()) };
    let mut value = Vec::with_capacity(text.len() + 6);
    put_field(&mut value, 1, text);
    let mut values = messages(content, &entry.field, 2);
    match (values.next(), values.next()) {
        (Some(only), None) => content_edit(only.content, only.end, &value),
        _ => whole(with_value(content, &entry.field, &value).into()),
    }
}

/// The KeyValue in `field`, with this value instead of those it has, and all its other fields.
pub(super) fn with_value(region: &[u8], field: &Field, value: &[u8]) -> Vec<u8> {
    let mut inner = Vec::with_capacity(field.end - field.content + value.len() + 6);
    for part in fields(region, field.content, field.end).filter(|part| !part.is_message(2)) {
        inner.extend_from_slice(&region[part.start..part.end]);
    }
    put_field(&mut inner, 2, value);
    let mut out = Vec::with_capacity(inner.len() + 6);
    put_field(&mut out, field.number, &inner);
    out
}

/// Writes a KeyValue as field `number`; `value` is the content of the AnyValue.
pub(super) fn put_key_value(out: &mut Vec<u8>, number: u32, key: &[u8], value: &[u8]) {
    let mut inner = Vec::with_capacity(key.len() + value.len() + 12);
    put_field(&mut inner, 1, key);
    put_field(&mut inner, 2, value);
    put_field(out, number, &inner);
}

/// Writes a number as field `number`.
pub(super) fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number << 3 | u32::from(VARINT)));
    put_varint(out, value);
}

impl Space {
    /// The content of the AnyValue that a value is.
    pub(super) fn content_of(&self, value: Value) -> Vec<u8> {
        let mut out = Vec::with_capacity(value.span.len() as usize + 6);
        value.put(&mut out, self);
        out
    }
}
