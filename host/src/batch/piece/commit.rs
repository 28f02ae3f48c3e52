//! The end of a call: what was collected becomes the piece's overlay, or nothing does.

use super::call::Committed;
use super::edit::{Collected, Pending};
use super::space::{Space, Span};
use super::table::State;
use super::texts::Leaf;
use super::value::{self, Inside};
use super::{Call, Fault, Level, Piece};
use std::collections::HashMap;

/// What becomes of one leaf.
type Leaves = HashMap<Leaf, Inside>;

impl Call {
    /// Applies every edit, or none and says which was wrong.
    pub fn commit(mut self) -> Result<Committed, (Piece, Fault)> {
        let mut collected = std::mem::take(&mut self.collected);
        if let Some(fault) = collected.fault.take() {
            return Err((self.piece, fault));
        }
        let leaves = match rebuilt_strings(&self.piece.space, &mut collected) {
            Ok(leaves) => leaves,
            Err(fault) => return Err((self.piece, fault)),
        };
        let mut piece = self.piece;
        if let Some(request) = collected.spliced.take() {
            // The whole was written anew; what else the call asked for is in other words about other rows.
            let before = piece.records();
            let seen = self.items.len() as u32;
            if seen != before {
                let fault = Fault("splice: not while a part of the batch is tried alone".into());
                return Err((piece, fault));
            }
            let piece = piece.reopen(request);
            let dropped = before.saturating_sub(piece.records());
            return Ok(Committed { piece, dropped });
        }
        piece.apply_leaves(&collected, leaves);
        piece.add(collected.added.into_iter().map(|((level, row, key), value)| (level, row, key, value)).collect());
        piece.severities.extend(collected.severities);
        for (item, state) in collected.trace_states {
            let span = piece.space.keep(state.as_bytes());
            piece.trace_states.insert(item, span);
        }
        let dropped = collected.dropped.len() as u32;
        for (item, name) in collected.routes {
            let none = || vec![None; piece.dropped.len()];
            piece.routes.get_or_insert_with(none)[item as usize] = Some(name);
        }
        for item in collected.dropped {
            piece.dropped[item as usize] = true;
            piece.left -= 1;
        }
        Ok(Committed { piece, dropped })
    }
}

/// The new text of every string that changes, by leaf, with the entries of maps that do.
fn rebuilt_strings(space: &Space, collected: &mut Collected) -> Result<Leaves, Fault> {
    let mut leaves: Leaves = std::mem::take(&mut collected.inside);
    for ((leaf, span), pending) in collected.strings.drain() {
        let text = rebuilt_text(space, span, pending)?;
        leaves.entry(leaf).or_default().texts.insert(span.0, text);
    }
    Ok(leaves)
}

fn rebuilt_text(space: &Space, span: Span, mut pending: Pending) -> Result<String, Fault> {
    if let Some(whole) = pending.whole {
        return Ok(whole);
    }
    pending.ranges.sort_by_key(|(start, end, _)| (*start, *end));
    let came = space.text(span);
    let mut out = String::with_capacity(came.len());
    let mut at = 0;
    for (start, end, with) in pending.ranges {
        if start < at {
            return Err(Fault(format!("replace: bytes {start}..{end} of a text are edited twice")));
        }
        out.push_str(&came[at..start]);
        out.push_str(&with);
        at = end;
    }
    out.push_str(&came[at..]);
    Ok(out)
}

impl Piece {
    fn apply_leaves(&mut self, collected: &Collected, leaves: Leaves) {
        for (leaf, inside) in leaves {
            // A whole value beats edits inside it.
            if !collected.whole.contains_key(&leaf) {
                self.change_inside(leaf, &inside);
            }
        }
        for (leaf, value) in &collected.whole {
            let kept = value.as_ref().map(|value| self.space.keep(value));
            if leaf.kind < Leaf::SINGLES {
                let Some(table) = &mut self.tables[leaf.kind as usize] else { continue };
                let attribute = &mut table.list[leaf.index as usize];
                attribute.state = if kept.is_some() { State::Changed } else { State::Removed };
                attribute.value = kept;
            }
        }
    }

    fn change_inside(&mut self, leaf: Leaf, inside: &Inside) {
        if leaf.kind < Leaf::SINGLES {
            let value = self.tables[leaf.kind as usize].as_ref().and_then(|table| table.list[leaf.index as usize].value);
            let Some(value) = value else { return };
            let kept = self.rebuild(value, inside);
            if let Some(table) = &mut self.tables[leaf.kind as usize] {
                let attribute = &mut table.list[leaf.index as usize];
                attribute.value = Some(kept);
                attribute.state = State::Changed;
            }
            return;
        }
        let single = (leaf.kind - Leaf::SINGLES) as usize;
        let Some(slot) = self.singles[single].as_ref().map(|slots| slots[leaf.index as usize].clone()) else { return };
        let kept = match single {
            0 => self.rebuild(slot.value, inside),
            _ => match inside.texts.get(&slot.value.0) {
                Some(text) => self.space.keep(text.as_bytes()),
                None => return,
            },
        };
        if let Some(slots) = &mut self.singles[single] {
            let slot = &mut slots[leaf.index as usize];
            slot.value = kept;
            slot.is_changed = true;
        }
    }

    fn rebuild(&mut self, value: Span, inside: &Inside) -> Span {
        let made = value::rebuilt(&self.space, value, inside);
        self.space.keep(&made)
    }

    /// Adds attributes, sorted by level and row.
    fn add(&mut self, added: Vec<(u8, u32, String, Vec<u8>)>) {
        let mut by_level: [Vec<(u32, Span, Span)>; 5] = Default::default();
        for (level, row, key, value) in added {
            let key = self.space.keep(key.as_bytes());
            let value = self.space.keep(&value);
            by_level[level as usize].push((row, key, value));
        }
        let levels = [Level::Resource, Level::Scope, Level::Metric, Level::Item, Level::Event];
        for (level, made) in levels.into_iter().zip(by_level).filter(|(_, made)| !made.is_empty()) {
            self.table(level).add(made);
        }
    }
}
