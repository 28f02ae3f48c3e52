//! What is left of the plugins' work: edits of the batch's bytes, and the piece as a request of its own.

use super::super::splice::{Edit, place, splice};
use super::super::wire::{Field, LENGTH, VARINT, fields, put_field};
use super::edits::{put_key_value, put_number, with_value};
use super::index::{BODY, EVENT, ITEM, METRIC, RESOURCE, SCOPE, TABLES, content, level_of};
use super::table::{CHANGED, NOWHERE, STAMPED, Slot, Table};
use super::value::{Kind, Value};
use super::view::View;
use super::{Changes, Inner, Level, Row};
use bytes::Bytes;

const ATTRIBUTE_TABLES: [usize; 5] = [ITEM, EVENT, METRIC, SCOPE, RESOURCE];

impl Inner {
    pub(super) fn changes(self) -> Changes {
        if self.is_rewritten {
            let bytes: Bytes = self.standalone(&self.view).into();
            let checked = super::super::Request::check(self.signal, bytes.clone());
            let unchecked = |_| super::super::Request {
                signal: self.signal,
                bytes,
                resources: Vec::new(),
                records: u64::from(self.left()),
                mended: 0,
            };
            return Changes::Rewritten(checked.unwrap_or_else(unchecked));
        }
        let edits = self.edits(CHANGED);
        let dropped: Vec<u32> = if self.dropped == 0 {
            Vec::new()
        } else {
            (0..self.rows.items.len() as u32).filter(|row| self.is_dropped(*row)).collect()
        };
        if edits.is_empty() && dropped.is_empty() {
            return Changes::None;
        }
        Changes::Edits { edits, dropped }
    }

    fn is_dropped(&self, item: u32) -> bool {
        self.is_dropped.get(item as usize).copied().unwrap_or(false)
    }

    /// The edits of slots in one of these states, and of the heads; none inside a dropped item.
    fn edits(&self, states: u8) -> Vec<Edit> {
        let mut edits = Vec::new();
        for number in 0..TABLES {
            let table = &self.tables[number];
            let level = level_of(number, self.signal);
            if ATTRIBUTE_TABLES.contains(&number) {
                self.attribute_edits(number, level, states, &mut edits);
            } else {
                for slot in
                    table.slots.iter().filter(|slot| slot.is(states) && !self.is_gone(level, slot.row))
                {
                    edits.extend(self.field_edit(number, slot));
                }
            }
        }
        for (row, head) in self.heads.iter().enumerate() {
            let is_changed = head.is_severity_changed || head.is_trace_state_changed;
            if !is_changed || self.is_dropped(row as u32) {
                continue;
            }
            let item = &self.rows.items[row];
            if head.is_severity_changed {
                let mut with = Vec::new();
                if head.severity != 0 {
                    put_number(&mut with, 2, head.severity.into());
                }
                self.set_field(item, (2, VARINT), with, &mut edits);
            }
            if head.is_trace_state_changed {
                let mut with = Vec::new();
                if head.trace_state.len() != 0 {
                    put_field(&mut with, 3, self.space.of(head.trace_state));
                }
                self.set_field(item, (3, LENGTH), with, &mut edits);
            }
        }
        edits.sort_by_key(place);
        edits
    }

    fn is_gone(&self, level: Level, row: u32) -> bool {
        match level {
            Level::Item => self.is_dropped(row),
            Level::Event => self.events.get(row as usize).is_some_and(|event| self.is_dropped(event.item)),
            _ => false,
        }
    }

    /// Replaces a field that stands at most once in an item; `with` nothing, it goes.
    fn set_field(&self, item: &Row, field: (u32, u8), with: Vec<u8>, edits: &mut Vec<Edit>) {
        let span = content(item);
        let (owner, end) = (span.start as usize, span.end as usize);
        let same =
            || fields(self.space.bytes(), owner, end).filter(move |one| (one.number, one.wire) == field);
        let last = same().last().map_or(end..end, |last| last.start..last.end);
        let others = same().filter(|one| one.start != last.start);
        let removed =
            |one: Field| Edit { owner, range: one.start..one.end, is_content: false, with: Bytes::new() };
        edits.extend(others.map(removed));
        if !(last.is_empty() && with.is_empty()) {
            edits.push(Edit { owner, range: last, is_content: false, with: with.into() });
        }
    }

    fn attribute_edits(&self, number: usize, level: Level, states: u8, edits: &mut Vec<Edit>) {
        let table = &self.tables[number];
        for same in table.slots.chunk_by(|one, next| one.row == next.row) {
            let row = same[0].row;
            if !same.iter().any(|slot| slot.is(states)) || self.is_gone(level, row) {
                continue;
            }
            let owner = table.owners[row as usize];
            let start = owner.content.start as usize;
            let field_number = self.attribute_number(number, row);
            let mut added = Vec::new();
            for slot in same.iter().filter(|slot| slot.is(states)) {
                if slot.field != NOWHERE {
                    edits.extend(self.attribute_edit(table, slot, start, field_number));
                } else {
                    self.put_added(table, slot, (field_number, states), &mut added);
                }
            }
            if !added.is_empty() {
                let at = owner.content.end as usize;
                let with = if owner.is_absent { head_message(&added) } else { added };
                edits.push(Edit { owner: start, range: at..at, is_content: false, with: with.into() });
            }
        }
    }

    fn put_added(&self, table: &Table, slot: &Slot, (number, states): (u32, u8), added: &mut Vec<u8>) {
        let key = table.keys.bytes(slot.key, &self.space);
        if slot.is_live() {
            put_key_value(added, number, key, &self.space.content_of(slot.value));
        } else if slot.is(STAMPED) && states & STAMPED == 0 {
            // Instead of what the stamp inserts: with no value it is seen to be wrong, and put right.
            let mut inner = Vec::with_capacity(key.len() + 6);
            put_field(&mut inner, 1, key);
            put_field(added, number, &inner);
        }
    }

    fn attribute_edit(&self, table: &Table, slot: &Slot, owner: usize, number: u32) -> Option<Edit> {
        let bytes = self.space.bytes();
        let field = self.field_at(slot)?;
        let whole = |with: Vec<u8>| Edit {
            owner,
            range: field.start..field.end,
            is_content: false,
            with: with.into(),
        };
        if !slot.is_live() {
            return Some(whole(Vec::new()));
        }
        if slot.is(STAMPED) {
            let key = table.keys.bytes(slot.key, &self.space);
            let mut with = Vec::new();
            put_key_value(&mut with, number, key, &self.space.content_of(slot.value));
            return Some(whole(with));
        }
        let mut values = fields(bytes, field.content, field.end).filter(|part| part.is_message(2));
        match (values.next(), values.next()) {
            (Some(only), None) => Some(self.value_edit(&only, slot.value)),
            _ => Some(whole(with_value(bytes, &field, &self.space.content_of(slot.value)))),
        }
    }

    /// The edit of a body or of a string in a field of its own.
    fn field_edit(&self, number: usize, slot: &Slot) -> Option<Edit> {
        let field = self.field_at(slot)?;
        if number == BODY {
            return Some(self.value_edit(&field, slot.value));
        }
        Some(content_edit(&field, self.space.of(slot.value.span).to_vec()))
    }

    /// Puts a value into the field of an AnyValue; a text for a text changes the string alone.
    fn value_edit(&self, field: &Field, value: Value) -> Edit {
        let bytes = self.space.bytes();
        let before = Value::at(bytes, field.content, field.end, 0);
        if before.kind == Kind::Text && value.kind == Kind::Text {
            let range = before.span.start as usize..before.span.end as usize;
            let with = Bytes::copy_from_slice(self.space.of(value.span));
            return Edit { owner: range.start, range, is_content: true, with };
        }
        content_edit(field, self.space.content_of(value))
    }

    fn field_at(&self, slot: &Slot) -> Option<Field> {
        let bytes = self.space.bytes();
        fields(bytes, slot.field as usize, bytes.len()).next()
    }

    /// The rows that are seen, with all edits, as a request of their own.
    pub(super) fn standalone(&self, view: &View) -> Vec<u8> {
        let (Some(first), Some(last)) = (view.resources.rows.first(), view.resources.rows.last()) else {
            return Vec::new();
        };
        let resources = &self.rows.resources;
        let start = resources[*first as usize].field.0 as usize;
        let end = resources[*last as usize].field.1 as usize;
        let mut edits = self.edits(CHANGED | STAMPED);
        if self.tables[RESOURCE].owners.is_empty() {
            edits.extend(self.stamps.iter().cloned());
        }
        self.hide(view, &mut edits);
        edits.retain(|edit| edit.range.start >= start && edit.range.end <= end);
        for edit in &mut edits {
            edit.owner = edit.owner.saturating_sub(start);
            edit.range = edit.range.start - start..edit.range.end - start;
        }
        splice(&self.space.bytes()[start..end], &edits)
    }

    /// The edits that take away what is not seen: rows, and what belongs to other pieces.
    fn hide(&self, view: &View, edits: &mut Vec<Edit>) {
        let rows = &self.rows;
        let mut hidden = Vec::new();
        let mut hide = |rows: &[Row], is_hidden: &dyn Fn(u32, &Row) -> bool| {
            let of_rows = rows.iter().enumerate().filter(|(at, row)| is_hidden(*at as u32, row));
            hidden.extend(
                of_rows
                    .map(|(_, row)| removal(row.owner as usize, row.field.0 as usize..row.field.1 as usize)),
            );
        };
        hide(&rows.resources, &|at, _| !view.resources.shows(at));
        hide(&rows.scopes, &|at, row| !view.scopes.shows(at) && view.resources.shows(row.parent));
        hide(&rows.metrics, &|at, row| !view.metrics.shows(at) && view.scopes.shows(row.parent));
        let parents = if rows.metrics.is_empty() { &view.scopes } else { &view.metrics };
        hide(&rows.items, &|at, row| !view.items.shows(at) && parents.shows(row.parent));
        self.hide_others(&mut hidden);
        hidden.sort_by_key(place);
        edits.extend(joined(hidden));
    }

    /// What stands before the first item of this piece in the envelopes around it, and after the last.
    fn hide_others(&self, hidden: &mut Vec<Edit>) {
        let bytes = self.space.bytes();
        let rows = &self.rows;
        let (Some(first), Some(last)) = (rows.items.first(), rows.items.last()) else { return };
        let (start, end) = (first.field.0 as usize, last.field.1 as usize);
        let mut hide = |owner: usize, owner_end: usize, leads: &dyn Fn(u32) -> bool| {
            for field in fields(bytes, owner, owner_end) {
                let is_other = field.end <= start || field.start >= end;
                if is_other && field.wire == LENGTH && leads(field.number) {
                    hidden.push(removal(owner, field.start..field.end));
                }
            }
        };
        for row in [first, last] {
            let mut around: Vec<&Row> = Vec::new();
            let mut scope = row.parent;
            if let Some(metric) = rows.metrics.get(row.parent as usize) {
                scope = metric.parent;
                // Its data may come in several parts, of which each says something of all points.
                let span = content(metric);
                let is_data = |part: &Field| part.is_message(metric.kind.into());
                for data in fields(bytes, span.start as usize, span.end as usize).filter(is_data) {
                    hide(data.content, data.end, &|number| number == 1);
                }
            }
            around.extend(rows.scopes.get(scope as usize));
            around.extend(around.first().and_then(|scope| rows.resources.get(scope.parent as usize)));
            for envelope in around {
                let span = content(envelope);
                hide(span.start as usize, span.end as usize, &|number| number == 2);
            }
        }
    }
}

/// A Resource or a scope, as the field of its envelope.
fn head_message(attributes: &[u8]) -> Vec<u8> {
    let mut with = Vec::with_capacity(attributes.len() + 6);
    put_field(&mut with, 1, attributes);
    with
}

fn content_edit(field: &Field, with: Vec<u8>) -> Edit {
    Edit { owner: field.content, range: field.content..field.end, is_content: true, with: with.into() }
}

fn removal(owner: usize, range: std::ops::Range<usize>) -> Edit {
    Edit { owner, range, is_content: false, with: Bytes::new() }
}

/// Neighbours leave in one edit; what is named twice leaves once.
fn joined(removals: Vec<Edit>) -> Vec<Edit> {
    let mut joined: Vec<Edit> = Vec::with_capacity(removals.len());
    for removal in removals {
        match joined.last_mut() {
            Some(last) if last.owner == removal.owner && last.range.end >= removal.range.start => {
                last.range.end = last.range.end.max(removal.range.end);
            }
            _ => joined.push(removal),
        }
    }
    joined
}
