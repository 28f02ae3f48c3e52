//! What can be edited: the attributes of a level, and single texts such as bodies and names.
//!
//! A table is built when it is first asked for, in document order. An entry keeps where it came from, so that what
//! changed becomes edits of the original bytes, and where its value stands now.

use super::super::splice::Edit;
use super::super::wire::{LENGTH, put_field};
use super::space::{Space, Span};
use super::value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Kept,
    Changed,
    Removed,
}

#[derive(Clone, Debug)]
pub(super) struct Attribute {
    pub(super) row: u32,
    pub(super) key: Span,
    /// The AnyValue's content now.
    pub(super) value: Option<Span>,
    /// The whole field in the batch's bytes; `None` if it was added.
    pub(super) field: Option<Span>,
    /// The AnyValue's content in the batch's bytes, where it may be replaced alone.
    came: Option<Span>,
    pub(super) state: State,
}

/// The attributes of all rows of a level, those of one row together.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) list: Vec<Attribute>,
    /// Row `r` has `list[starts[r] .. starts[r + 1]]`.
    pub(super) starts: Vec<u32>,
    holders: Vec<Holder>,
}

/// The message that holds the attributes of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    /// Its content; `None` if there is no such message.
    pub(super) content: Option<Span>,
    /// The row itself: what the message would be put into, as field 1.
    pub(super) row: Span,
    /// The field number of an attribute.
    pub(super) number: u32,
}

impl Table {
    pub(super) fn build(space: &mut Space, holders: Vec<Holder>, stamps: &[Edit]) -> Table {
        let mut table = Table { starts: vec![0], ..Table::default() };
        table.list.reserve(holders.len() * 8);
        for (row, mut holder) in holders.into_iter().enumerate() {
            let row = row as u32;
            if let Some(content) = holder.content {
                table.list.extend(
                    space
                        .parts(content)
                        .filter(|part| part.is_message(holder.number))
                        .map(|part| attribute(space, row, part.content, Some(part.whole))),
                );
            }
            if !stamps.is_empty() {
                table.stamp(space, row, &mut holder, stamps);
            }
            table.starts.push(table.list.len() as u32);
            table.holders.push(holder);
        }
        table
    }

    /// Shows the edits that put the identity right. Who writes the batch knows them already: they are no changes.
    fn stamp(&mut self, space: &mut Space, row: u32, holder: &mut Holder, stamps: &[Edit]) {
        let first = self.starts[row as usize] as usize;
        let inside = |edit: &&Edit| edit.range.start >= holder.row.0 as usize && edit.range.end <= holder.row.1 as usize;
        let own: Vec<&Edit> = stamps.iter().filter(inside).collect();
        for edit in own {
            let mut with = space.keep(&edit.with);
            if holder.content.is_none() {
                // A whole Resource message.
                let Some(message) = space.last(with, 1) else { continue };
                with = message.content;
                holder.content = Some(with);
            }
            let made: Vec<Attribute> = space
                .parts(with)
                .filter(|part| part.is_message(holder.number))
                .map(|part| attribute(space, row, part.content, None))
                .collect();
            if edit.range.is_empty() {
                self.list.extend(made);
                continue;
            }
            let at = self.list[first..].iter().position(|a| a.field.is_some_and(|field| field.0 as usize == edit.range.start));
            if let Some(at) = at.map(|at| first + at) {
                match made.into_iter().next() {
                    Some(made) => self.list[at] = Attribute { field: self.list[at].field, ..made },
                    None => drop(self.list.remove(at)),
                }
            }
        }
    }

    pub(super) fn of_row(&self, row: u32) -> std::ops::Range<usize> {
        let (from, to) = (self.starts[row as usize], self.starts[row as usize + 1]);
        from as usize..to as usize
    }

    /// Adds attributes to rows; `made` is sorted by row.
    pub(super) fn add(&mut self, made: Vec<(u32, Span, Span)>) {
        if made.is_empty() {
            return;
        }
        let mut list = Vec::with_capacity(self.list.len() + made.len());
        let mut starts = Vec::with_capacity(self.starts.len());
        let mut made = made.into_iter().peekable();
        for row in 0..self.holders.len() as u32 {
            starts.push(list.len() as u32);
            list.extend(self.list[self.of_row(row)].iter().cloned());
            while let Some((_, key, value)) = made.next_if(|(at, _, _)| *at == row) {
                list.push(Attribute { row, key, value: Some(value), field: None, came: None, state: State::Changed });
            }
        }
        starts.push(list.len() as u32);
        self.list = list;
        self.starts = starts;
    }

    /// The edits that write what changed in the rows that `is_left`.
    pub(super) fn edits(&self, space: &Space, is_left: impl Fn(u32) -> bool, edits: &mut Vec<Edit>) {
        if self.list.iter().all(|attribute| attribute.state == State::Kept) {
            return;
        }
        for row in (0..self.holders.len() as u32).filter(|row| is_left(*row)) {
            let all = &self.list[self.of_row(row)];
            if all.iter().any(|attribute| attribute.state != State::Kept) {
                self.row_edits(space, &self.holders[row as usize], all, edits);
            }
        }
    }

    fn row_edits(&self, space: &Space, holder: &Holder, all: &[Attribute], edits: &mut Vec<Edit>) {
        let base = space.bytes.len() as u32;
        let mut added = Vec::new();
        let is_new = holder.content.is_none_or(|content| content.0 >= base);
        for attribute in all {
            let is_kept = attribute.state == State::Kept;
            match (attribute.field, attribute.came) {
                _ if is_kept && !(is_new && attribute.field.is_none()) => {}
                (Some(field), came) => edits.push(replaced(space, holder, attribute, field, came)),
                (None, _) if is_new && attribute.state == State::Removed => {}
                // One that identity added and a plugin removed is written without a value: so that it is seen to be
                // missing, and put right.
                (None, _) => put_field(&mut added, holder.number, &encoded(space, attribute)),
            }
        }
        if added.is_empty() {
            return;
        }
        let (owner, at, with) = match holder.content.filter(|_| !is_new) {
            Some(content) => (content.0, content.1, added),
            None => {
                let mut message = Vec::with_capacity(added.len() + 6);
                put_field(&mut message, 1, &added);
                (holder.row.0, holder.row.0, message)
            }
        };
        edits.push(Edit { owner: owner as usize, range: at as usize..at as usize, is_content: false, with: with.into() });
    }
}

fn replaced(space: &Space, holder: &Holder, attribute: &Attribute, field: Span, came: Option<Span>) -> Edit {
    let owner = holder.content.map_or(holder.row.0, |content| content.0) as usize;
    match (attribute.state, came, attribute.value) {
        (State::Removed, _, _) => {
            Edit { owner, range: field.0 as usize..field.1 as usize, is_content: false, with: Default::default() }
        }
        (_, Some(came), Some(value)) => Edit {
            owner: came.0 as usize,
            range: came.0 as usize..came.1 as usize,
            is_content: true,
            with: space.at(value).to_vec().into(),
        },
        _ => {
            let mut with = Vec::new();
            put_field(&mut with, holder.number, &encoded(space, attribute));
            Edit { owner, range: field.0 as usize..field.1 as usize, is_content: false, with: with.into() }
        }
    }
}

fn encoded(space: &Space, attribute: &Attribute) -> Vec<u8> {
    let is_gone = attribute.state == State::Removed;
    match attribute.value.filter(|_| !is_gone) {
        Some(value) => value::entry(space.at(attribute.key), space.at(value)),
        None => {
            let mut out = Vec::new();
            put_field(&mut out, 1, space.at(attribute.key));
            out
        }
    }
}

#[inline]
fn attribute(space: &Space, row: u32, content: Span, field: Option<Span>) -> Attribute {
    let mut key = (content.0, content.0);
    let mut value = None;
    for part in space.parts(content).filter(|part| part.wire == LENGTH) {
        match part.number {
            1 => key = part.content,
            2 => value = Some(part.content),
            _ => {}
        }
    }
    Attribute { row, key, value, field, came: value.filter(|_| field.is_some()), state: State::Kept }
}

/// A text or a value that stands at most once in its row.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) row: u32,
    /// Its content now.
    pub(super) value: Span,
    /// Its content in the batch's bytes.
    pub(super) came: Span,
    pub(super) is_changed: bool,
}

impl Slot {
    pub(super) fn new(row: u32, came: Span) -> Slot {
        Slot { row, value: came, came, is_changed: false }
    }

    pub(super) fn edit(&self, space: &Space) -> Edit {
        let range = self.came.0 as usize..self.came.1 as usize;
        Edit { owner: range.start, range, is_content: true, with: space.at(self.value).to_vec().into() }
    }
}
