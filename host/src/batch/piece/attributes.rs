//! Attributes by their key: typed columns, and edits of whole values.
//!
//! A key may stand twice in one owner. Columns show the first; setting replaces the first and removes the others,
//! removing removes all.

use super::super::splice::{Edit, splice};
use super::edits::{Action, Addition, SlotEdit};
use super::index::attributes_of;
use super::table::Slot;
use super::value::{self, Kind, Scalar, Value};
use super::view::HIDDEN;
use super::{
    BoolColumn, Call, DoubleColumn, Fault, Inner, IntColumn, Level, Places, TextColumn, same_length,
};
use std::collections::HashMap;

impl Call {
    /// The attribute keys in use at this level, in the order of their first use.
    pub fn attribute_keys(&mut self, at: Level) -> Result<Vec<String>, Fault> {
        let table = self.inner.attributes(at);
        let inner = &*self.inner;
        let table = &inner.tables[table];
        let shown = inner.shown_now(at);
        let mut is_seen = vec![false; table.keys.len()];
        let mut keys = Vec::new();
        for slot in table.slots.iter().filter(|slot| slot.is_live() && shown.shows(slot.row)) {
            if !std::mem::replace(&mut is_seen[slot.key as usize], true) {
                keys.push(String::from_utf8_lossy(table.keys.bytes(slot.key, &inner.space)).into_owned());
            }
        }
        Ok(keys)
    }

    /// The rows that have this attribute, whatever its type.
    pub fn attribute_rows(&mut self, at: Level, key: &str) -> Result<Vec<u32>, Fault> {
        let mut rows = Vec::new();
        self.each_first(at, key, |row, _| rows.push(row));
        Ok(rows)
    }

    /// The texts that this attribute has.
    pub fn text_attribute(&mut self, at: Level, key: &str) -> Result<TextColumn, Fault> {
        let mut found = Vec::new();
        self.each_first(at, key, |row, value| found.push((row, value)));
        let space = &self.inner.space;
        let mut column = TextColumn::default();
        let mut numbers: HashMap<&[u8], u32> = HashMap::new();
        let mut last: Option<(&[u8], u32)> = None;
        for (row, value) in found {
            let Scalar::Text(text) = value.scalar(space) else { continue };
            let number = match last {
                Some((same, number)) if same == text => number,
                _ => *numbers.entry(text).or_insert_with(|| {
                    column.strings.push(String::from_utf8_lossy(text).into_owned());
                    column.strings.len() as u32 - 1
                }),
            };
            last = Some((text, number));
            column.rows.push(row);
            column.index.push(number);
        }
        Ok(column)
    }

    /// The integers that this attribute has, and their rows.
    pub fn int_attribute(&mut self, at: Level, key: &str) -> Result<IntColumn, Fault> {
        let of = |scalar: Scalar<'_>| if let Scalar::Int(value) = scalar { Some(value) } else { None };
        let (rows, values) = self.scalars(at, key, of);
        Ok(IntColumn { rows, values })
    }

    pub fn double_attribute(&mut self, at: Level, key: &str) -> Result<DoubleColumn, Fault> {
        let of = |scalar: Scalar<'_>| if let Scalar::Double(value) = scalar { Some(value) } else { None };
        let (rows, values) = self.scalars(at, key, of);
        Ok(DoubleColumn { rows, values })
    }

    pub fn bool_attribute(&mut self, at: Level, key: &str) -> Result<BoolColumn, Fault> {
        let of = |scalar: Scalar<'_>| if let Scalar::Bool(value) = scalar { Some(value) } else { None };
        let (rows, values) = self.scalars(at, key, of);
        Ok(BoolColumn { rows, values })
    }

    /// Adds the attribute to these rows, or replaces its value of any type.
    pub fn set_text_attribute(&mut self, at: Level, key: &str, to: &TextColumn) {
        self.edit("set-text-attribute", |call| {
            same_length("rows", to.rows.len(), "index", to.index.len())?;
            let strings = to.strings.len();
            if let Some(index) = to.index.iter().find(|index| **index as usize >= strings) {
                return Err(Fault(format!("there is no string {index}, `strings` has {strings}")));
            }
            let values: Vec<Value> = to.strings.iter().map(|text| call.edits.keep_text(text)).collect();
            call.set(at, key, &to.rows, |row| values[to.index[row] as usize])
        });
    }

    pub fn set_int_attribute(&mut self, at: Level, key: &str, to: &IntColumn) {
        self.edit("set-int-attribute", |call| {
            let encode = |value: &_| (Kind::Int, value::int(*value));
            call.set_scalars(at, key, &to.rows, &to.values, encode)
        });
    }

    pub fn set_double_attribute(&mut self, at: Level, key: &str, to: &DoubleColumn) {
        self.edit("set-double-attribute", |call| {
            let encode = |value: &_| (Kind::Double, value::double(*value));
            call.set_scalars(at, key, &to.rows, &to.values, encode)
        });
    }

    pub fn set_bool_attribute(&mut self, at: Level, key: &str, to: &BoolColumn) {
        self.edit("set-bool-attribute", |call| {
            let encode = |value: &_| (Kind::Bool, value::boolean(*value));
            call.set_scalars(at, key, &to.rows, &to.values, encode)
        });
    }

    /// Copies the value, of any type, to another key of the same row. Rows without it are passed over.
    pub fn copy_attribute(&mut self, at: Level, key: &str, to: &str, rows: &[u32]) {
        self.edit("copy-attribute", |call| {
            let from = call.targets(at, key, rows)?;
            let slots = &call.inner.tables[from.table].slots;
            let copy =
                |(row, slot): (&u32, Option<u32>)| Some((*row, Action::Copy(slots[slot? as usize].value)));
            let copies = rows.iter().zip(from.first).filter_map(copy);
            let (numbers, copies): (Vec<u32>, Vec<Action>) = copies.unzip();
            let onto = call.targets(at, to, &numbers)?;
            call.put(onto, to, |row| copies[row]);
            Ok(())
        });
    }

    /// Replaces the strings that this attribute has, those in arrays and maps too, by what `hash` makes of them.
    pub fn hash_attribute(&mut self, at: Level, key: &str, hash: &mut dyn FnMut(&str) -> String) {
        self.edit("hash-attribute", |call| {
            let table = call.inner.attributes(at);
            for slot in call.inner.slots_with(table, key) {
                let value = call.inner.tables[table].slots[slot as usize].value;
                if let Some(value) = call.hashed(value, hash) {
                    call.edits.slots.push(SlotEdit { table: table as u8, slot, action: Action::Put(value) });
                }
            }
            Ok(())
        });
    }

    /// Removes the attribute from all rows.
    pub fn remove_attribute(&mut self, at: Level, key: &str) {
        self.edit("remove-attribute", |call| {
            let table = call.inner.attributes(at);
            let slots = call.inner.slots_with(table, key);
            call.edits.count(slots.len() + 1, 0);
            let remove = |slot| SlotEdit { table: table as u8, slot, action: Action::Remove };
            call.edits.slots.extend(slots.into_iter().map(remove));
            let number = call.edits.key(key);
            call.edits.additions.retain(|added| (added.table, added.key) != (table as u8, number));
            Ok(())
        });
    }

    /// Removes the attribute from these rows.
    pub fn remove_attribute_from(&mut self, at: Level, key: &str, rows: &[u32]) {
        self.edit("remove-attribute-from", |call| {
            let targets = call.targets(at, key, rows)?;
            call.put(targets, key, |_| Action::Remove);
            Ok(())
        });
    }

    fn set_scalars<T>(
        &mut self,
        at: Level,
        key: &str,
        rows: &[u32],
        values: &[T],
        encoded: impl Fn(&T) -> (Kind, Vec<u8>),
    ) -> Result<(), Fault> {
        same_length("rows", rows.len(), "values", values.len())?;
        let keep = |value: &T| {
            let (kind, bytes) = encoded(value);
            Value { kind, span: self.edits.keep(&bytes) }
        };
        let values: Vec<Value> = values.iter().map(keep).collect();
        self.set(at, key, rows, |row| values[row])
    }

    fn set(
        &mut self,
        at: Level,
        key: &str,
        rows: &[u32],
        value: impl Fn(usize) -> Value,
    ) -> Result<(), Fault> {
        let targets = self.targets(at, key, rows)?;
        self.put(targets, key, |row| Action::Put(value(row)));
        Ok(())
    }

    fn targets(&mut self, at: Level, key: &str, rows: &[u32]) -> Result<Targets, Fault> {
        let rows = self.inner.rows_behind(at, rows)?;
        let table = self.inner.attributes(at);
        Ok(self.inner.find_targets(table, key, rows))
    }

    /// Acts on an attribute of some rows (`action` by place in the list): on the first with its key, and the others go.
    fn put(&mut self, targets: Targets, key: &str, action: impl Fn(usize) -> Action) {
        let key = self.edits.key(key);
        let table = targets.table as u8;
        for (index, (row, slot)) in targets.rows.iter().zip(targets.first).enumerate() {
            let action = action(index);
            let bytes = match action {
                Action::Put(value) | Action::Copy(value) => value.span.len() as usize,
                Action::Remove => 0,
            };
            self.edits.count(1, bytes);
            match slot {
                Some(slot) => self.edits.slots.push(SlotEdit { table, slot, action }),
                None => self.edits.additions.push(Addition { table, row: *row, key, action }),
            }
        }
        self.edits.count(targets.others.len(), 0);
        let remove = |slot| SlotEdit { table, slot, action: Action::Remove };
        self.edits.slots.extend(targets.others.into_iter().map(remove));
    }

    /// The value with all its strings hashed; `None` if it has none.
    fn hashed(&mut self, value: Value, hash: &mut dyn FnMut(&str) -> String) -> Option<Value> {
        let space = &self.inner.space;
        let mut of = |span| hash(&String::from_utf8_lossy(space.of(span)));
        if value.kind == Kind::Text {
            let text = of(value.span);
            self.edits.count(1, text.len());
            return Some(self.edits.keep_text(&text));
        }
        let mut edits = Vec::new();
        value.strings(space, &mut |span| {
            let start = (span.start - value.span.start) as usize;
            let range = start..start + span.len() as usize;
            edits.push(Edit { owner: start, range, is_content: true, with: of(span).into() });
        });
        if edits.is_empty() {
            return None;
        }
        let content = splice(space.of(value.span), &edits);
        self.edits.count(edits.len(), content.len() / edits.len());
        let span = self.edits.keep(&content);
        Some(Value::at(&content, 0, content.len(), span.start))
    }

    fn scalars<T>(
        &mut self,
        at: Level,
        key: &str,
        of: impl Fn(Scalar<'_>) -> Option<T>,
    ) -> (Vec<u32>, Vec<T>) {
        let mut found = Vec::new();
        self.each_first(at, key, |row, value| found.push((row, value)));
        let space = &self.inner.space;
        let value = |(row, value): (u32, Value)| of(value.scalar(space)).map(|value| (row, value));
        found.into_iter().filter_map(value).unzip()
    }

    /// Calls `each` with every row that is seen and has the key, and the first value there.
    fn each_first(&mut self, at: Level, key: &str, mut each: impl FnMut(u32, Value)) {
        let table = self.inner.attributes(at);
        let inner = &*self.inner;
        let table = &inner.tables[table];
        let Some(key) = table.keys.find(key.as_bytes(), &inner.space) else { return };
        let numbers = &inner.shown_now(at).numbers;
        let mut last = HIDDEN;
        for slot in table.slots.iter().filter(|slot| slot.key == key && slot.is_live()) {
            let number = numbers.get(slot.row as usize).copied().unwrap_or(HIDDEN);
            if number != HIDDEN && slot.row != last {
                last = slot.row;
                each(number, slot.value);
            }
        }
    }
}

/// The slots with one key in some rows.
struct Targets {
    table: usize,
    rows: Vec<u32>,
    /// For each of the rows, the first slot.
    first: Vec<Option<u32>>,
    /// All others in these rows.
    others: Vec<u32>,
}

impl Inner {
    /// Indexes the attributes of a level, and its rows. Returns the number of their table.
    fn attributes(&mut self, at: Level) -> usize {
        let table = attributes_of(at);
        self.index_places(Places(1 << table));
        self.shown(at);
        table
    }

    /// The slots of rows that are seen, with this key.
    fn slots_with(&self, table: usize, key: &str) -> Vec<u32> {
        let shown = self.shown_now(super::index::level_of(table, self.signal));
        let table = &self.tables[table];
        let Some(key) = table.keys.find(key.as_bytes(), &self.space) else { return Vec::new() };
        let is_meant = |slot: &Slot| slot.key == key && slot.is_live() && shown.shows(slot.row);
        (0..table.slots.len() as u32).filter(|slot| is_meant(&table.slots[*slot as usize])).collect()
    }

    fn find_targets(&self, table: usize, key: &str, rows: Vec<u32>) -> Targets {
        let mut targets = Targets { table, rows, first: Vec::new(), others: Vec::new() };
        let Targets { rows, first, others, .. } = &mut targets;
        let table = &self.tables[table];
        let Some(key) = table.keys.find(key.as_bytes(), &self.space) else {
            *first = vec![None; rows.len()];
            return targets;
        };
        let mut find = |row: u32| {
            let is_meant = |slot: &usize| table.slots[*slot].key == key && table.slots[*slot].is_live();
            let mut slots = table.of_row(row).filter(is_meant).map(|slot| slot as u32);
            let first = slots.next();
            others.extend(slots);
            first
        };
        if let [row] = rows[..] {
            first.push(find(row));
            return targets;
        }
        // One pass over the level, however often the list names a row.
        let mut of_rows = vec![None; table.owners.len()];
        let mut is_named = vec![false; table.owners.len()];
        rows.iter().for_each(|row| is_named[*row as usize] = true);
        for row in 0..table.owners.len() {
            if is_named[row] {
                of_rows[row] = find(row as u32);
            }
        }
        first.extend(rows.iter().map(|row| of_rows[*row as usize]));
        targets
    }
}
