//! The rows that a call sees, and their numbers.

use super::Rows;

/// [`Shown::numbers`] of a row that is not seen.
pub(super) const HIDDEN: u32 = u32::MAX;

/// The rows of one level.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// The row behind each number.
    pub(super) rows: Vec<u32>,
    /// The number of each row, or [`HIDDEN`].
    pub(super) numbers: Vec<u32>,
}

impl Shown {
    pub(super) fn of(rows: usize, mut is_shown: impl FnMut(u32) -> bool) -> Shown {
        let mut shown = Shown { rows: Vec::with_capacity(rows), numbers: Vec::with_capacity(rows) };
        for row in 0..rows as u32 {
            if is_shown(row) {
                shown.numbers.push(shown.rows.len() as u32);
                shown.rows.push(row);
            } else {
                shown.numbers.push(HIDDEN);
            }
        }
        shown
    }

    fn of_parents(rows: usize, children: &[super::Row], shown: &Shown) -> Shown {
        let mut has_child = vec![false; rows];
        for row in &shown.rows {
            if let Some(has) = has_child.get_mut(children[*row as usize].parent as usize) {
                *has = true;
            }
        }
        Shown::of(rows, |row| has_child[row as usize])
    }

    pub(super) fn shows(&self, row: u32) -> bool {
        self.numbers.get(row as usize).is_some_and(|number| *number != HIDDEN)
    }
}

/// A resource, scope or metric is seen with its first item that is.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) resources: Shown,
    pub(super) scopes: Shown,
    pub(super) metrics: Shown,
    pub(super) items: Shown,
    /// Made when the events are indexed.
    pub(super) events: Option<Shown>,
}

impl View {
    pub(super) fn of(rows: &Rows, is_shown: impl FnMut(u32) -> bool) -> View {
        let items = Shown::of(rows.items.len(), is_shown);
        let metrics = Shown::of_parents(rows.metrics.len(), &rows.items, &items);
        let scopes = if rows.metrics.is_empty() {
            Shown::of_parents(rows.scopes.len(), &rows.items, &items)
        } else {
            Shown::of_parents(rows.scopes.len(), &rows.metrics, &metrics)
        };
        let resources = Shown::of_parents(rows.resources.len(), &rows.scopes, &scopes);
        View { resources, scopes, metrics, items, events: None }
    }
}
