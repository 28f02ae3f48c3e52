//! Editing: what a plugin asks for is collected, and checked as far as it can be at once. The first fault counts.

use super::space::Span;
use super::table::State;
use super::texts::{Leaf, check_hits};
use super::value::{self, Entry, Inside};
use super::{BoolColumn, Call, DoubleColumn, Fault, Hits, IntColumn, Level, Places, TextColumn};
use super::super::splice::{Edit, splice};
use super::super::{Request, Signal, wire};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Everything a call asked for.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) fault: Option<Fault>,
    pub(super) bytes: usize,
    pub(super) dropped: BTreeSet<u32>,
    pub(super) routes: BTreeMap<u32, Arc<str>>,
    pub(super) severities: BTreeMap<u32, u8>,
    pub(super) trace_states: BTreeMap<u32, String>,
    /// Whole attributes: another value, or none at all.
    pub(super) whole: HashMap<Leaf, Option<Vec<u8>>>,
    /// Attributes to add, by level, row and key.
    pub(super) added: BTreeMap<(u8, u32, String), Vec<u8>>,
    /// Strings: whole ones, and ranges inside.
    pub(super) strings: HashMap<(Leaf, Span), Pending>,
    /// Entries of maps inside values.
    pub(super) inside: HashMap<Leaf, Inside>,
    pub(super) spliced: Option<Request>,
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) whole: Option<String>,
    pub(super) ranges: Vec<(usize, usize, String)>,
}

/// What each edit costs beside its bytes.
const EDIT_BYTES: usize = 16;

impl Call {
    fn try_edit(&mut self, edit: impl FnOnce(&mut Call) -> Result<(), Fault>) {
        if self.collected.fault.is_none()
            && let Err(fault) = edit(self)
        {
            self.collected.fault = Some(fault);
        }
    }

    fn charge(&mut self, bytes: usize) {
        self.collected.bytes += bytes + EDIT_BYTES;
    }

    /// The piece's items behind the plugin's.
    fn item_rows(&mut self, function: &str, items: &[u32]) -> Result<Vec<u32>, Fault> {
        let bound = self.items.len();
        let find = |item: &u32| {
            let found = self.items.get(*item as usize).copied();
            found.ok_or_else(|| Fault(format!("{function}: there is no item {item}, the batch has {bound}")))
        };
        items.iter().map(find).collect()
    }

    pub fn drop(&mut self, items: &[u32]) {
        self.try_edit(|call| {
            let rows = call.item_rows("drop", items)?;
            call.charge(4 * rows.len());
            call.collected.dropped.extend(rows);
            Ok(())
        });
    }

    pub fn route(&mut self, name: &str, items: &[u32]) {
        self.try_edit(|call| {
            let rows = call.item_rows("route", items)?;
            call.charge(name.len() + 4 * rows.len());
            let name: Arc<str> = name.into();
            call.collected.routes.extend(rows.into_iter().map(|row| (row, name.clone())));
            Ok(())
        });
    }

    /// Logs only.
    pub fn set_severity(&mut self, items: &[u32], to: u8) {
        self.try_edit(|call| {
            if call.piece.signal != Signal::Logs {
                return Err(Fault("set-severity: only log records have a severity".into()));
            }
            if to > 24 {
                return Err(Fault(format!("set-severity: {to} is no severity number, 0 to 24 are")));
            }
            let rows = call.item_rows("set-severity", items)?;
            call.charge(4 * rows.len());
            call.collected.severities.extend(rows.into_iter().map(|row| (row, to)));
            Ok(())
        });
    }

    /// Spans only.
    pub fn set_trace_states(&mut self, items: &[u32], to: &[String]) {
        self.try_edit(|call| {
            if call.piece.signal != Signal::Traces {
                return Err(Fault("set-trace-states: only spans have a trace state".into()));
            }
            same_length("set-trace-states", items.len(), to.len())?;
            let rows = call.item_rows("set-trace-states", items)?;
            for (row, state) in rows.into_iter().zip(to) {
                call.charge(state.len());
                call.collected.trace_states.insert(row, state.clone());
            }
            Ok(())
        });
    }

    /// Replaces each hit of pattern number `p` by `by[p]`, or by the last of `by`.
    pub fn replace(&mut self, of: Places, which: &Hits, by: &[String]) {
        self.try_edit(|call| {
            if by.is_empty() && !which.texts.is_empty() {
                return Err(Fault("replace: `by` is empty".into()));
            }
            call.replace_hits("replace", of, which, |hit, _| by[(which.patterns[hit] as usize).min(by.len() - 1)].clone())
        });
    }

    pub fn replace_each(&mut self, of: Places, which: &Hits, by: &[String]) {
        self.try_edit(|call| {
            same_length("replace-each", which.texts.len(), by.len())?;
            call.replace_hits("replace-each", of, which, |hit, _| by[hit].clone())
        });
    }

    /// Replaces each hit by what `hash` makes of its text.
    pub fn hash(&mut self, of: Places, which: &Hits, hash: &mut dyn FnMut(&str) -> String) {
        self.try_edit(|call| call.replace_hits("hash", of, which, |_, text| hash(text)));
    }

    fn replace_hits(&mut self, function: &str, of: Places, which: &Hits, mut by: impl FnMut(usize, &str) -> String) -> Result<(), Fault> {
        let list = self.list_texts(of);
        let ranges = check_hits(function, &self.piece.space, &list, which)?;
        for (hit, (text, start, end)) in ranges.into_iter().enumerate() {
            let found = list[text];
            let with = by(hit, &self.piece.space.text(found.span)[start..end]);
            self.charge(with.len());
            self.collected.strings.entry((found.leaf, found.span)).or_default().ranges.push((start, end, with));
        }
        Ok(())
    }

    pub fn replace_texts(&mut self, of: Places, which: &[u32], by: &[String]) {
        self.try_edit(|call| {
            same_length("replace-texts", which.len(), by.len())?;
            let list = call.list_texts(of);
            for (number, with) in which.iter().zip(by) {
                let Some(found) = list.get(*number as usize) else {
                    return Err(Fault(format!("replace-texts: there is no text {number}, the places have {}", list.len())));
                };
                call.charge(with.len());
                call.collected.strings.entry((found.leaf, found.span)).or_default().whole = Some(with.clone());
            }
            Ok(())
        });
    }

    pub fn remove_keys(&mut self, of: Places, key: &mut dyn FnMut(&str) -> Option<u32>) -> u32 {
        self.edit_keys(of, key, &mut |_, _| None)
    }

    /// `by[p]` for the keys of pattern `p`, or the last of `by`.
    pub fn mask_keys(&mut self, of: Places, key: &mut dyn FnMut(&str) -> Option<u32>, by: &[String]) -> u32 {
        if by.is_empty() {
            self.try_edit(|_| Err(Fault("mask-keys: `by` is empty".into())));
            return 0;
        }
        self.edit_keys(of, key, &mut |pattern, _| Some(by[(pattern as usize).min(by.len() - 1)].clone()))
    }

    /// A string by the hash of its text, any other value by that of its encoded form.
    pub fn hash_keys(&mut self, of: Places, key: &mut dyn FnMut(&str) -> Option<u32>, hash: &mut dyn FnMut(&[u8]) -> String) -> u32 {
        self.edit_keys(of, key, &mut |_, value| Some(hash(value)))
    }

    fn edit_keys(
        &mut self,
        of: Places,
        key: &mut dyn FnMut(&str) -> Option<u32>,
        by: &mut dyn FnMut(u32, &[u8]) -> Option<String>,
    ) -> u32 {
        let mut count = 0;
        for (leaf, own_key, value) in self.keyed_leaves(of) {
            let pattern = own_key.and_then(|own| key(self.piece.space.text(own)));
            if let Some(pattern) = pattern {
                let with = by(pattern, self.plain(value)).map(|with| value::text(&with));
                self.charge(with.as_ref().map_or(0, Vec::len));
                self.collected.whole.insert(leaf, with);
                count += 1;
                continue;
            }
            let Some(value) = value else { continue };
            let mut found: Vec<(u32, Option<Vec<u8>>)> = Vec::new();
            value::entries(&self.piece.space, value, &mut |entry: Entry| {
                let Some(pattern) = key(self.piece.space.text(entry.key)) else { return true };
                found.push((entry.whole.0, by(pattern, self.plain(entry.value)).map(|with| value::text(&with))));
                false
            });
            for (entry, with) in found {
                self.charge(with.as_ref().map_or(0, Vec::len));
                self.collected.inside.entry(leaf).or_default().entries.insert(entry, with);
                count += 1;
            }
        }
        count
    }

    /// The text of a string value, the encoded form of others.
    fn plain(&self, value: Option<Span>) -> &[u8] {
        let Some(value) = value else { return &[] };
        let text = self.piece.space.last(value, 1);
        self.piece.space.at(text.map_or(value, |part| part.content))
    }

    /// Attributes and bodies of these places: where, under which key, with what value.
    fn keyed_leaves(&mut self, of: Places) -> Vec<(Leaf, Option<Span>, Option<Span>)> {
        let mut leaves = Vec::new();
        let levels = [
            (Places::ITEM_ATTRIBUTES, Level::Item),
            (Places::EVENT_ATTRIBUTES, Level::Event),
            (Places::METRIC_ATTRIBUTES, Level::Metric),
            (Places::SCOPE_ATTRIBUTES, Level::Scope),
            (Places::RESOURCE_ATTRIBUTES, Level::Resource),
        ];
        if of.has(Places::BODY) {
            let view = self.view(Level::Item).numbers.clone();
            for (index, slot) in self.piece.singles(super::Single::Body).iter().enumerate() {
                if view[slot.row as usize] != u32::MAX {
                    leaves.push((Leaf { kind: Leaf::SINGLES, index: index as u32 }, None, Some(slot.value)));
                }
            }
        }
        for (_, level) in levels.into_iter().filter(|(place, _)| of.has(*place)) {
            let numbers = self.view(level).numbers.clone();
            for (index, attribute) in self.piece.table(level).list.iter().enumerate() {
                if attribute.state != State::Removed && numbers[attribute.row as usize] != u32::MAX {
                    leaves.push((Leaf { kind: level as u8, index: index as u32 }, Some(attribute.key), attribute.value));
                }
            }
        }
        leaves
    }

    pub fn set_text_attribute(&mut self, at: Level, key: &str, to: &TextColumn) {
        self.try_edit(|call| {
            same_length("set-text-attribute", to.rows.len(), to.index.len())?;
            let values: Vec<Vec<u8>> = to.strings.iter().map(|text| value::text(text)).collect();
            let bound = values.len();
            let pick = |(row, index): (&u32, &u32)| {
                let value = values.get(*index as usize).cloned();
                let value = value.ok_or_else(|| Fault(format!("set-text-attribute: there is no string {index}, the column has {bound}")))?;
                Ok((*row, value))
            };
            let values = to.rows.iter().zip(&to.index).map(pick).collect::<Result<Vec<_>, Fault>>()?;
            call.set_values("set-text-attribute", at, key, values)
        });
    }

    pub fn set_int_attribute(&mut self, at: Level, key: &str, to: &IntColumn) {
        self.set_column("set-int-attribute", at, key, &to.rows, &to.values, |value| value::integer(*value));
    }

    pub fn set_double_attribute(&mut self, at: Level, key: &str, to: &DoubleColumn) {
        self.set_column("set-double-attribute", at, key, &to.rows, &to.values, |value| value::double(*value));
    }

    pub fn set_bool_attribute(&mut self, at: Level, key: &str, to: &BoolColumn) {
        self.set_column("set-bool-attribute", at, key, &to.rows, &to.values, |value| value::boolean(*value));
    }

    fn set_column<T>(&mut self, function: &str, at: Level, key: &str, rows: &[u32], values: &[T], encode: impl Fn(&T) -> Vec<u8>) {
        self.try_edit(|call| {
            same_length(function, rows.len(), values.len())?;
            call.set_values(function, at, key, rows.iter().copied().zip(values.iter().map(encode)).collect())
        });
    }

    /// The first attribute with the key gets the value, others go; where there is none it is added.
    fn set_values(&mut self, function: &str, at: Level, key: &str, values: Vec<(u32, Vec<u8>)>) -> Result<(), Fault> {
        self.see(at);
        for (number, value) in values {
            let row = self.row(function, at, number)?;
            self.charge(key.len() + value.len());
            let mut value = Some(value);
            for leaf in self.with_key(at, row, key) {
                self.collected.whole.insert(leaf, value.take());
            }
            if let Some(value) = value {
                self.collected.added.insert((at as u8, row, key.to_owned()), value);
            }
        }
        Ok(())
    }

    /// The attributes of a row (of the piece) with this key.
    fn with_key(&self, at: Level, row: u32, key: &str) -> Vec<Leaf> {
        let Some(table) = &self.piece.tables[at as usize] else { return Vec::new() };
        let is_it = |index: &usize| {
            let attribute = &table.list[*index];
            attribute.state != State::Removed && self.piece.space.at(attribute.key) == key.as_bytes()
        };
        table.of_row(row).filter(is_it).map(|index| Leaf { kind: at as u8, index: index as u32 }).collect()
    }

    pub fn copy_attribute(&mut self, at: Level, key: &str, to: &str, rows: &[u32]) {
        self.try_edit(|call| {
            call.see(at);
            let mut values = Vec::new();
            for number in rows {
                let row = call.row("copy-attribute", at, *number)?;
                let Some(leaf) = call.with_key(at, row, key).first().copied() else { continue };
                let value = call.piece.tables[at as usize].as_ref().and_then(|table| table.list[leaf.index as usize].value);
                values.push((*number, value.map_or_else(Vec::new, |span| call.piece.space.at(span).to_vec())));
            }
            call.set_values("copy-attribute", at, to, values)
        });
    }

    pub fn hash_attribute(&mut self, at: Level, key: &str, hash: &mut dyn FnMut(&str) -> String) {
        self.try_edit(|call| {
            call.see(at);
            let rows = call.view(at).rows.clone();
            for row in rows {
                for leaf in call.with_key(at, row, key) {
                    let value = call.piece.tables[at as usize].as_ref().and_then(|table| table.list[leaf.index as usize].value);
                    let mut found = Vec::new();
                    if let Some(value) = value {
                        value::strings(&call.piece.space, value, &mut |span| found.push(span));
                    }
                    for span in found {
                        let with = hash(call.piece.space.text(span));
                        call.charge(with.len());
                        call.collected.strings.entry((leaf, span)).or_default().whole = Some(with);
                    }
                }
            }
            Ok(())
        });
    }

    pub fn remove_attribute(&mut self, at: Level, key: &str) {
        let rows: Vec<u32> = (0..self.view(at).rows.len() as u32).collect();
        self.remove_attribute_from(at, key, &rows);
    }

    pub fn remove_attribute_from(&mut self, at: Level, key: &str, rows: &[u32]) {
        self.try_edit(|call| {
            call.see(at);
            for number in rows {
                let row = call.row("remove-attribute-from", at, *number)?;
                call.collected.added.remove(&(at as u8, row, key.to_owned()));
                for leaf in call.with_key(at, row, key) {
                    call.charge(0);
                    call.collected.whole.insert(leaf, None);
                }
            }
            Ok(())
        });
    }

    /// The visible records as a request of their own, with the edits of earlier plugins.
    pub fn raw(&mut self) -> Result<Vec<u8>, Fault> {
        let mut is_seen = vec![false; self.piece.dropped.len()];
        self.items.iter().for_each(|item| is_seen[*item as usize] = true);
        Ok(self.piece.standalone_of(|item| is_seen[item]))
    }

    /// Replaces parts of [`Call::raw`]. Each must begin and end where a field, or the content of a string, bytes or
    /// message field, begins and ends; the result is walked before it counts.
    pub fn splice(&mut self, offsets: &[u32], lengths: &[u32], by: &[Vec<u8>]) {
        self.try_edit(|call| {
            same_length("splice", offsets.len(), lengths.len())?;
            same_length("splice", offsets.len(), by.len())?;
            let raw = call.raw()?;
            let parts = offsets.iter().zip(lengths).zip(by);
            let edits = parts.map(|((offset, length), with)| placed(&raw, *offset as usize, *length as usize, with)).collect::<Result<Vec<_>, _>>()?;
            let mut places: Vec<(usize, usize)> = edits.iter().map(|edit| (edit.range.start, edit.range.end)).collect();
            places.sort_unstable();
            if places.windows(2).any(|pair| pair[1].0 < pair[0].1) {
                return Err(Fault("splice: a part is replaced twice".into()));
            }
            call.charge(by.iter().map(Vec::len).sum());
            let whole: Bytes = splice(&raw, &edits).into();
            let checked = Request::check(call.piece.signal, whole);
            call.collected.spliced = Some(checked.map_err(|malformed| Fault(format!("splice: the result is {malformed}")))?);
            Ok(())
        });
    }
}

fn same_length(function: &str, one: usize, other: usize) -> Result<(), Fault> {
    if one == other { Ok(()) } else { Err(Fault(format!("{function}: the lists have different lengths, {one} and {other}"))) }
}

/// The edit of `length` bytes at `offset`: found by going down from the whole message.
fn placed(raw: &[u8], offset: usize, length: usize, with: &[u8]) -> Result<Edit, Fault> {
    let end = offset + length;
    let wrong = || Fault(format!("splice: {length} bytes at {offset} do not begin and end where a field or its content does"));
    if end > raw.len() {
        return Err(Fault(format!("splice: {length} bytes at {offset} reach beyond the {} of raw", raw.len())));
    }
    let (mut owner, mut until) = (0, raw.len());
    loop {
        let mut inner = None;
        let mut begins = offset == until;
        let mut ends = end == owner;
        for field in wire::fields(raw, owner, until) {
            begins |= field.start == offset;
            ends |= field.start == end || field.end == end;
            let holds = field.wire == wire::LENGTH && field.content <= offset && end <= field.end;
            if holds && !(field.start == offset) {
                inner = Some(field);
            }
        }
        if begins && ends {
            return Ok(Edit { owner, range: offset..end, is_content: false, with: with.to_vec().into() });
        }
        let Some(field) = inner else { return Err(wrong()) };
        if (field.content, field.end) == (offset, end) {
            return Ok(Edit { owner: offset, range: offset..end, is_content: true, with: with.to_vec().into() });
        }
        (owner, until) = (field.content, field.end);
    }
}
