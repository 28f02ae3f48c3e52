//! The edits that drop records, and with the last record of a metric, scope or resource its empty envelope.
//!
//! An envelope that came without records stays, unless what it stands in goes.

use super::splice::Edit;
use super::tree::{Envelope, Standing, Tree};
use super::{Signal, identity};

/// Removes the records that `is_dropped` names; how many these are. Neighbours leave in one edit.
pub(super) fn removals(
    signal: Signal,
    bytes: &[u8],
    mut is_dropped: impl FnMut(&Standing) -> bool,
) -> (Vec<Edit>, u32) {
    let mut drops = Drops { edits: Vec::new(), open: [None; 3] };
    let mut dropped = 0;
    for standing in Tree::over(signal, bytes) {
        drops.enter(&standing);
        let drop = is_dropped(&standing);
        dropped += u32::from(drop);
        drops.count(u32::from(drop));
        if drop {
            drops.remove(&standing.item);
        }
    }
    (0..3).rev().for_each(|level| drops.close(level));
    (drops.edits, dropped)
}

struct Drops {
    edits: Vec<Edit>,
    /// The resource, scope and metric at hand.
    open: [Option<Open>; 3],
}

#[derive(Clone, Copy)]
struct Open {
    envelope: Envelope,
    records: u32,
    dropped: u32,
    /// The edits from here on stand in it.
    first_edit: usize,
}

impl Drops {
    fn enter(&mut self, standing: &Standing) {
        let levels = [Some(standing.resource), Some(standing.scope), standing.metric];
        for level in (0..3).rev() {
            let open = self.open[level].map(|open| open.envelope.number);
            if open != levels[level].map(|envelope| envelope.number) {
                self.close(level);
            }
        }
        for (open, now) in self.open.iter_mut().zip(levels) {
            if open.is_none() {
                let first_edit = self.edits.len();
                *open = now.map(|envelope| Open { envelope, records: 0, dropped: 0, first_edit });
            }
        }
    }

    fn count(&mut self, dropped: u32) {
        for open in self.open.iter_mut().flatten() {
            open.records += 1;
            open.dropped += dropped;
        }
    }

    fn close(&mut self, level: usize) {
        let Some(open) = self.open[level].take() else { return };
        if open.records == open.dropped {
            self.edits.truncate(open.first_edit);
            self.remove(&open.envelope);
        }
    }

    fn remove(&mut self, envelope: &Envelope) {
        match self.edits.last_mut() {
            Some(last) if last.owner == envelope.owner && last.range.end == envelope.field.start => {
                last.range.end = envelope.field.end;
            }
            _ => self.edits.push(identity::removal(envelope.owner, &envelope.field)),
        }
    }
}
