//! The strings of some places as one list, place by place, row by row, and the hits in it.

use super::value;
use super::{Call, Fault, Hits, Level, Places, Single};
use super::space::{Space, Span};
use super::table::State;
use std::sync::Arc;

/// Where a text stands: in an attribute of a level, or in a single of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Leaf {
    /// 0 to 4: attributes of that level; 5 and up: singles.
    pub(super) kind: u8,
    pub(super) index: u32,
}

impl Leaf {
    pub(super) const SINGLES: u8 = 5;
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Text {
    pub(super) leaf: Leaf,
    pub(super) span: Span,
    /// The visible row that it belongs to.
    pub(super) row: u32,
}

/// The strings of some places.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'c> {
    space: &'c Space,
    list: &'c [Text],
}

impl<'c> Texts<'c> {
    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Text number `at`; its UTF-8 was checked when it came.
    pub fn at(&self, at: usize) -> &'c str {
        self.list.get(at).map_or("", |text| self.space.text(text.span))
    }

    /// The same as bytes, without a look at its UTF-8.
    pub fn bytes(&self, at: usize) -> &'c [u8] {
        self.list.get(at).map_or(&[], |text| self.space.at(text.span))
    }
}

/// Many strings in one piece, each followed by a NUL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    pub data: Vec<u8>,
    pub ends: Vec<u32>,
}

const ATTRIBUTES: [(Places, Level); 5] = [
    (Places::ITEM_ATTRIBUTES, Level::Item),
    (Places::EVENT_ATTRIBUTES, Level::Event),
    (Places::METRIC_ATTRIBUTES, Level::Metric),
    (Places::SCOPE_ATTRIBUTES, Level::Scope),
    (Places::RESOURCE_ATTRIBUTES, Level::Resource),
];
const SINGLES: [(Places, Single); 4] = [
    (Places::BODY, Single::Body),
    (Places::NAME, Single::Name),
    (Places::EVENT_NAME, Single::EventName),
    (Places::DESCRIPTION, Single::Description),
];

impl Call {
    /// Every string in these places.
    pub fn texts(&mut self, of: Places) -> Result<Texts<'_>, Fault> {
        self.list_texts(of);
        let list = self.texts.iter().find(|(places, _)| *places == of).map_or(&[][..], |(_, list)| list);
        Ok(Texts { space: &self.piece.space, list })
    }

    pub fn packed_texts(&mut self, of: Places) -> Result<Packed, Fault> {
        let texts = self.texts(of)?;
        let bytes: usize = (0..texts.len()).map(|at| texts.bytes(at).len() + 1).sum();
        let mut packed = Packed { data: Vec::with_capacity(bytes), ends: Vec::with_capacity(texts.len()) };
        for at in 0..texts.len() {
            packed.data.extend_from_slice(texts.bytes(at));
            packed.ends.push(packed.data.len() as u32);
            packed.data.push(0);
        }
        Ok(packed)
    }

    pub fn text_rows(&mut self, of: Places) -> Result<Vec<u32>, Fault> {
        if of.0.count_ones() != 1 {
            return Err(Fault("text-rows: rows of different levels have no common numbers: ask for one place at a time".into()));
        }
        Ok(self.list_texts(of).iter().map(|text| text.row).collect())
    }

    /// The text of each hit.
    pub fn matches(&mut self, of: Places, which: &Hits) -> Result<Vec<String>, Fault> {
        let list = self.list_texts(of);
        let ranges = check_hits("matches", &self.piece.space, &list, which)?;
        Ok(ranges.into_iter().map(|(text, start, end)| self.piece.space.text(list[text].span)[start..end].to_owned()).collect())
    }

    pub(super) fn list_texts(&mut self, of: Places) -> Arc<Vec<Text>> {
        if let Some((_, list)) = self.texts.iter().find(|(places, _)| *places == of) {
            return list.clone();
        }
        let mut list = Vec::with_capacity(self.items.len() * 8);
        for (_, single) in SINGLES.into_iter().filter(|(place, _)| of.has(*place)) {
            self.list_single(single, &mut list);
        }
        for (_, level) in ATTRIBUTES.into_iter().filter(|(place, _)| of.has(*place)) {
            self.list_attributes(level, &mut list);
        }
        let list = Arc::new(list);
        self.texts.push((of, list.clone()));
        list
    }

    fn list_single(&mut self, single: Single, list: &mut Vec<Text>) {
        self.piece.singles(single);
        let level = self.piece.single_level(single as usize);
        self.view(level);
        let numbers = self.views[level as usize].as_ref().map_or(&[][..], |view| &view.numbers);
        let slots = self.piece.singles[single as usize].as_deref().unwrap_or_default();
        for (index, slot) in slots.iter().enumerate() {
            let row = numbers.get(slot.row as usize).copied().unwrap_or(u32::MAX);
            if row == u32::MAX {
                continue;
            }
            let leaf = Leaf { kind: Leaf::SINGLES + single as u8, index: index as u32 };
            match single {
                Single::Body => value::strings(&self.piece.space, slot.value, &mut |span| list.push(Text { leaf, span, row })),
                _ => list.push(Text { leaf, span: slot.value, row }),
            }
        }
    }

    fn list_attributes(&mut self, level: Level, list: &mut Vec<Text>) {
        self.see(level);
        let numbers = self.views[level as usize].as_ref().map_or(&[][..], |view| &view.numbers);
        let attributes = self.piece.tables[level as usize].as_ref().map_or(&[][..], |table| &table.list);
        for (index, attribute) in attributes.iter().enumerate().filter(|(_, attribute)| attribute.state != State::Removed) {
            let row = numbers.get(attribute.row as usize).copied().unwrap_or(u32::MAX);
            let Some(value) = attribute.value.filter(|_| row != u32::MAX) else { continue };
            let leaf = Leaf { kind: level as u8, index: index as u32 };
            value::strings(&self.piece.space, value, &mut |span| list.push(Text { leaf, span, row }));
        }
    }
}

/// Hits as (text, from, to); a fault names what does not exist.
pub(super) fn check_hits(function: &str, space: &Space, list: &[Text], which: &Hits) -> Result<Vec<(usize, usize, usize)>, Fault> {
    let count = which.texts.len();
    if [which.starts.len(), which.ends.len(), which.patterns.len()].iter().any(|length| *length != count) {
        return Err(Fault(format!("{function}: the four lists of the hits have different lengths")));
    }
    let mut ranges = Vec::with_capacity(count);
    for hit in 0..count {
        let (text, start, end) = (which.texts[hit] as usize, which.starts[hit] as usize, which.ends[hit] as usize);
        let Some(found) = list.get(text) else {
            return Err(Fault(format!("{function}: there is no text {text}, the places have {}", list.len())));
        };
        let string = space.text(found.span);
        if start > end || end > string.len() {
            return Err(Fault(format!("{function}: bytes {start}..{end} are not in text {text}, which has {}", string.len())));
        }
        if !string.is_char_boundary(start) || !string.is_char_boundary(end) {
            return Err(Fault(format!("{function}: bytes {start}..{end} of text {text} begin or end inside a character")));
        }
        ranges.push((text, start, end));
    }
    Ok(ranges)
}
