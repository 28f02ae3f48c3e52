//! One plugin's look at a piece: which rows it sees, and what it has asked for so far.

use super::edit::Collected;
use super::texts::Text;
use super::{Fault, Level, Piece, Places};
use super::super::{Signal, Stream};
use std::ops::Range;
use std::sync::Arc;


/// A plugin's call. It owns its piece until [`Call::commit`] or [`Call::abort`].
#[derive(Debug)]
pub struct Call {
    pub(super) piece: Piece,
    /// The item rows that it sees, ascending.
    pub(super) items: Vec<u32>,
    /// Whether these are all rows that the piece was opened with.
    pub(super) sees_all: bool,
    /// Of each level: the rows that it sees, and of each row its number among these.
    pub(super) views: [Option<View>; 5],
    pub(super) texts: Vec<(Places, Arc<Vec<Text>>)>,
    pub(super) collected: Collected,
}

#[derive(Debug)]
pub(super) struct View {
    pub(super) rows: Vec<u32>,
    /// `u32::MAX` where the row is not seen.
    pub(super) numbers: Vec<u32>,
}

/// What a call left.
#[derive(Debug)]
pub struct Committed {
    pub piece: Piece,
    /// Records that the plugin dropped.
    pub dropped: u32,
}

impl Call {
    pub(super) fn open(piece: Piece, subset: Option<Range<u32>>) -> Call {
        let mut items: Vec<u32> = (0..piece.items()).filter(|item| !piece.dropped[*item as usize]).collect();
        if let Some(subset) = subset {
            items.truncate(subset.end as usize);
            items.drain(..(subset.start as usize).min(items.len()));
        }
        let sees_all = items.len() == piece.dropped.len();
        Call { piece, items, sees_all, views: Default::default(), texts: Vec::new(), collected: Collected::default() }
    }

    /// The piece as it was before the call.
    pub fn abort(self) -> Piece {
        self.piece
    }

    pub fn holds(&self) -> Signal {
        self.piece.signal
    }

    pub fn stream(&self) -> &Stream {
        &self.piece.stream
    }

    pub fn tenant(&self) -> &str {
        self.piece.stream.tenant.as_str()
    }

    pub fn project(&self) -> &str {
        self.piece.stream.project.as_str()
    }

    /// What an edit got wrong; the first counts.
    pub fn fault(&self) -> Option<&Fault> {
        self.collected.fault.as_ref()
    }

    /// Bytes of the records that it sees.
    pub fn bytes(&self) -> usize {
        let rows = self.items.iter().map(|item| self.piece.rows.items[*item as usize].field);
        rows.map(|field| (field.1 - field.0) as usize).sum()
    }

    /// Bytes of the edits that were collected.
    pub fn edit_bytes(&self) -> usize {
        self.collected.bytes
    }

    pub fn rows(&mut self, at: Level) -> u32 {
        self.view(at).rows.len() as u32
    }

    pub fn parents(&mut self, child: Level, parent: Level) -> Result<Vec<u32>, Fault> {
        let order = |level: Level| match level {
            Level::Resource => 0,
            Level::Scope => 1,
            Level::Metric => 2,
            Level::Item => 3,
            Level::Event => 4,
        };
        let has_metrics = self.piece.signal == Signal::Metrics;
        if order(parent) > order(child) || (!has_metrics && [child, parent].contains(&Level::Metric)) {
            return Err(Fault(format!("parents: no {parent:?} stands above a {child:?} here").to_lowercase()));
        }
        self.view(child);
        self.view(parent);
        let (Some(from), Some(to)) = (&self.views[child as usize], &self.views[parent as usize]) else { return Ok(Vec::new()) };
        Ok(from.rows.iter().map(|row| to.numbers[self.piece.ancestor(child, *row, parent) as usize]).collect())
    }

    pub(super) fn view(&mut self, level: Level) -> &View {
        if self.views[level as usize].is_none() {
            let view = self.make_view(level);
            self.views[level as usize] = Some(view);
        }
        self.views[level as usize].as_ref().expect("made above")
    }

    fn make_view(&mut self, level: Level) -> View {
        let rows = self.piece.level(level).len() as u32;
        if self.sees_all {
            return View { rows: (0..rows).collect(), numbers: (0..rows).collect() };
        }
        let mut is_seen = vec![false; rows as usize];
        match level {
            Level::Item => self.items.iter().for_each(|item| is_seen[*item as usize] = true),
            Level::Event => {
                let mut items = vec![false; self.piece.dropped.len()];
                self.items.iter().for_each(|item| items[*item as usize] = true);
                for (seen, row) in is_seen.iter_mut().zip(self.piece.built(Level::Event)) {
                    *seen = items[row.parent as usize];
                }
            }
            _ => {
                for item in &self.items {
                    is_seen[self.piece.ancestor(Level::Item, *item, level) as usize] = true;
                }
            }
        }
        let rows: Vec<u32> = (0..rows).filter(|row| is_seen[*row as usize]).collect();
        let mut numbers = vec![u32::MAX; is_seen.len()];
        rows.iter().enumerate().for_each(|(number, row)| numbers[*row as usize] = number as u32);
        View { rows, numbers }
    }

    /// The row of the piece behind a row that the plugin names.
    pub(super) fn row(&mut self, function: &str, level: Level, number: u32) -> Result<u32, Fault> {
        let view = self.view(level);
        let bound = view.rows.len();
        view.rows.get(number as usize).copied().ok_or_else(|| {
            let name = format!("{level:?}").to_lowercase();
            Fault(format!("{function}: there is no {name} {number}, the batch has {bound}"))
        })
    }
}
