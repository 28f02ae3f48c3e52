//! Strings wherever they live, and edits inside them.
//!
//! The strings of a call are numbered place by place in the order of [`Places`]; within a place row by row, within a
//! row in the order of the document. Keys of maps are no texts.

use super::edits::{PartEdit, StringEdit};
use super::index::{TABLES, level_of, tables_of};
use super::space::{Space, Span};
use super::value::Kind;
use super::{Call, Fault, Hits, Inner, Level, Places, same_length};

/// The strings of one place, of the rows that are seen.
#[derive(Default)]
pub(super) struct TextList {
    pub(super) spans: Vec<Span>,
    /// The slot that each stands in.
    pub(super) slots: Vec<u32>,
}

/// The strings of some places, by number.
pub struct Texts<'c> {
    space: &'c Space,
    lists: [Option<&'c TextList>; TABLES],
    len: usize,
}

impl<'c> Texts<'c> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// String number `at`. Past the end it is empty.
    pub fn at(&self, at: usize) -> &'c str {
        std::str::from_utf8(self.bytes(at)).unwrap_or_default()
    }

    /// The same as bytes, without a look at its UTF-8, which was checked when it came.
    pub fn bytes(&self, at: usize) -> &'c [u8] {
        self.find(at).map_or(&[], |(_, list, at)| self.space.of(list.spans[at]))
    }

    /// All of them, in order, as bytes.
    pub fn iter(&self) -> impl Iterator<Item = &'c [u8]> + use<'c> {
        let space = self.space;
        self.lists
            .into_iter()
            .flatten()
            .flat_map(move |list| list.spans.iter().map(move |span| space.of(*span)))
    }

    /// The table, its list, and the number in the list.
    fn find(&self, mut at: usize) -> Option<(usize, &'c TextList, usize)> {
        for (table, list) in self.lists.iter().enumerate() {
            let Some(list) = list else { continue };
            if at < list.spans.len() {
                return Some((table, list, at));
            }
            at -= list.spans.len();
        }
        None
    }

    fn some(&self, at: u32) -> Result<(usize, u32, &'c [u8]), Fault> {
        match self.find(at as usize) {
            Some((table, list, number)) => Ok((table, number as u32, self.space.of(list.spans[number]))),
            None => Err(Fault(format!("there is no text {at}, these places have {}", self.len))),
        }
    }
}

/// Many strings in one piece, each followed by a NUL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    pub data: Vec<u8>,
    pub ends: Vec<u32>,
}

/// Makes what a hit is replaced by: number of the hit, the hit, its text.
type Replacement<'r> = &'r mut dyn FnMut(&mut super::edits::Edits, usize, &Hit, &[u8]) -> Span;

impl Call {
    /// Every string in these places.
    pub fn texts(&mut self, of: Places) -> Result<Texts<'_>, Fault> {
        self.inner.gather(of);
        Ok(self.inner.texts(of))
    }

    /// The same in one piece.
    pub fn packed_texts(&mut self, of: Places) -> Result<Packed, Fault> {
        let texts = self.texts(of)?;
        let bytes = texts.iter().map(|text| text.len() + 1).sum();
        let mut packed = Packed { data: Vec::with_capacity(bytes), ends: Vec::with_capacity(texts.len()) };
        for text in texts.iter() {
            packed.data.extend_from_slice(text);
            packed.ends.push(packed.data.len() as u32);
            packed.data.push(0);
        }
        Ok(packed)
    }

    /// For each string the row that it belongs to, at the level of its place.
    pub fn text_rows(&mut self, of: Places) -> Result<Vec<u32>, Fault> {
        if of.0.count_ones() > 1 {
            return Err(Fault(
                "rows of several places have no common numbers: ask for one place at a time".into(),
            ));
        }
        self.inner.gather(of);
        let inner = &*self.inner;
        let mut rows = Vec::new();
        for table in tables_of(of) {
            let Some(list) = &inner.lists[table] else { continue };
            let numbers = &inner.shown_now(level_of(table, inner.signal)).numbers;
            let slots = &inner.tables[table].slots;
            rows.extend(list.slots.iter().map(|slot| numbers[slots[*slot as usize].row as usize]));
        }
        Ok(rows)
    }

    /// The text of each hit.
    pub fn matches(&mut self, of: Places, which: &Hits) -> Result<Vec<String>, Fault> {
        self.inner.gather(of);
        let texts = self.inner.texts(of);
        let mut matches = Vec::with_capacity(which.texts.len());
        for hit in hits(which)? {
            let (_, _, text) = texts.some(hit.text)?;
            matches.push(String::from_utf8_lossy(part(text, &hit)?).into_owned());
        }
        Ok(matches)
    }

    /// Replaces each hit of pattern `p` by `by[p]`, or by the last of `by` if there are fewer.
    pub fn replace(&mut self, of: Places, which: &Hits, by: &[String]) {
        self.edit("replace", |call| {
            let Some(last) = by.len().checked_sub(1) else {
                return if which.texts.is_empty() { Ok(()) } else { Err(Fault("`by` is empty".into())) };
            };
            let spans: Vec<Span> = by.iter().map(|text| call.edits.keep(text.as_bytes())).collect();
            call.replace_parts("replace", of, which, &mut |_, _, hit, _| {
                spans[last.min(hit.pattern as usize)]
            })
        });
    }

    /// Replaces hit `i` by `by[i]`.
    pub fn replace_each(&mut self, of: Places, which: &Hits, by: &[String]) {
        self.edit("replace-each", |call| {
            same_length("texts", which.texts.len(), "by", by.len())?;
            call.replace_parts("replace-each", of, which, &mut |edits, index, _, _| {
                edits.keep(by[index].as_bytes())
            })
        });
    }

    /// Replaces each hit by what `hash` makes of its text.
    pub fn hash(&mut self, of: Places, which: &Hits, hash: &mut dyn FnMut(&str) -> String) {
        self.edit("hash", |call| {
            call.replace_parts("hash", of, which, &mut |edits, _, _, text| {
                edits.keep(hash(&String::from_utf8_lossy(text)).as_bytes())
            })
        });
    }

    /// Replaces string `which[i]` by `by[i]`, as a whole.
    pub fn replace_texts(&mut self, of: Places, which: &[u32], by: &[String]) {
        self.edit("replace-texts", |call| {
            same_length("which", which.len(), "by", by.len())?;
            call.inner.gather(of);
            let texts = call.inner.texts(of);
            for (text, by) in which.iter().zip(by) {
                let (table, text, _) = texts.some(*text)?;
                call.edits.count(1, by.len());
                let by = call.edits.keep(by.as_bytes());
                call.edits.strings.push(StringEdit { table: table as u8, text, by });
            }
            Ok(())
        });
    }

    fn replace_parts(
        &mut self,
        function: &'static str,
        of: Places,
        which: &Hits,
        by: Replacement<'_>,
    ) -> Result<(), Fault> {
        self.inner.gather(of);
        let texts = self.inner.texts(of);
        for (index, hit) in hits(which)?.enumerate() {
            let (table, text, content) = texts.some(hit.text)?;
            let content = part(content, &hit)?;
            let by = by(&mut self.edits, index, &hit, content);
            self.edits.count(1, by.len() as usize);
            let (start, end) = (hit.start, hit.end);
            self.edits.parts.push(PartEdit { table: table as u8, text, start, end, by, function });
        }
        Ok(())
    }
}

/// One entry of [`Hits`].
struct Hit {
    text: u32,
    pattern: u32,
    start: u32,
    end: u32,
}

fn hits(which: &Hits) -> Result<impl Iterator<Item = Hit>, Fault> {
    let Hits { texts, patterns, starts, ends } = which;
    same_length("texts", texts.len(), "patterns", patterns.len())?;
    same_length("texts", texts.len(), "starts", starts.len())?;
    same_length("texts", texts.len(), "ends", ends.len())?;
    Ok((0..texts.len()).map(|at| Hit {
        text: texts[at],
        pattern: patterns[at],
        start: starts[at],
        end: ends[at],
    }))
}

fn part<'t>(text: &'t [u8], hit: &Hit) -> Result<&'t [u8], Fault> {
    let Hit { text: number, start, end, .. } = *hit;
    let (from, to) = (start as usize, end as usize);
    if from > to || to > text.len() {
        let len = text.len();
        return Err(Fault(format!("text {number} has no bytes {start} to {end}, it has {len}")));
    }
    let is_inside = |at: &usize| text.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    if let Some(at) = [from, to].into_iter().find(is_inside) {
        return Err(Fault(format!("byte {at} of text {number} is inside a character")));
    }
    Ok(&text[from..to])
}

impl Inner {
    /// Lists the strings of these places, where they are not yet listed.
    fn gather(&mut self, of: Places) {
        self.index_places(of);
        for table in tables_of(of) {
            if self.lists[table].is_none() {
                let level = level_of(table, self.signal);
                self.shown(level);
                self.lists[table] = Some(self.list(table, level));
            }
        }
    }

    fn list(&self, table: usize, level: Level) -> TextList {
        let slots = &self.tables[table].slots;
        let shown = self.shown_now(level);
        let mut list =
            TextList { spans: Vec::with_capacity(slots.len()), slots: Vec::with_capacity(slots.len()) };
        for (number, slot) in slots.iter().enumerate() {
            if !slot.is_live() || !shown.shows(slot.row) {
                continue;
            }
            match slot.value.kind {
                Kind::Text => {
                    list.spans.push(slot.value.span);
                    list.slots.push(number as u32);
                }
                Kind::Nest | Kind::Odd => slot.value.strings(&self.space, &mut |span| {
                    list.spans.push(span);
                    list.slots.push(number as u32);
                }),
                _ => {}
            }
        }
        list
    }

    fn texts(&self, of: Places) -> Texts<'_> {
        let mut texts = Texts { space: &self.space, lists: [None; TABLES], len: 0 };
        for table in tables_of(of) {
            let list = self.lists[table].as_ref();
            texts.lists[table] = list;
            texts.len += list.map_or(0, |list| list.spans.len());
        }
        texts
    }
}
