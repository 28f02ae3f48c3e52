//! A piece of a batch at work: what one plugin call reads, and the edits it leaves for the next.
//!
//! A [`Piece`] holds the rows of at most a few hundred records and the overlay of what the chain changed so far.
//! A [`Call`] is one plugin's look at it: it reads the piece as it was when the call began, collects edits, and
//! either [`Call::commit`]s them all or none. Columns are built when they are asked for, and kept for the next call.
//! Row numbers of a call count the visible rows: those not dropped, and in the subset the call was given. Nothing is
//! written between two plugins; [`Piece::changes`] says at the end what is different.

mod call;
mod columns;
mod commit;
mod edit;
mod rows;
mod space;
mod table;
mod texts;
mod value;

pub use call::{Call, Committed};
pub use columns::{BoolColumn, DoubleColumn, IntColumn, TextColumn};
pub use texts::{Packed, Texts};

use super::splice::{Edit, place, splice};
use super::{Batch, Request, Signal, Stream, dropping};
use bytes::Bytes;
use space::{Space, Span};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use table::{Slot, Table};

/// The levels of the tree (WIT `level`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    Resource,
    Scope,
    Metric,
    Item,
    Event,
}

/// Where strings live (WIT `places`): a set of bits, in this order from bit 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Places(pub u16);

impl Places {
    pub const BODY: Places = Places(1);
    pub const NAME: Places = Places(2);
    pub const EVENT_NAME: Places = Places(4);
    pub const DESCRIPTION: Places = Places(8);
    pub const ITEM_ATTRIBUTES: Places = Places(16);
    pub const EVENT_ATTRIBUTES: Places = Places(32);
    pub const METRIC_ATTRIBUTES: Places = Places(64);
    pub const SCOPE_ATTRIBUTES: Places = Places(128);
    pub const RESOURCE_ATTRIBUTES: Places = Places(256);

    pub(super) fn has(self, other: Places) -> bool {
        self.0 & other.0 != 0
    }
}

/// What a plugin did wrong, as text for its author. The call fails, no edit is applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// Matches, as in WIT: parallel lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    pub texts: Vec<u32>,
    pub patterns: Vec<u32>,
    pub starts: Vec<u32>,
    pub ends: Vec<u32>,
}

/// The rows of a piece, in document order; positions are offsets in the batch's bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    pub(super) resources: Vec<Row>,
    pub(super) scopes: Vec<Row>,
    /// Metrics signal only.
    pub(super) metrics: Vec<Row>,
    pub(super) items: Vec<Row>,
}

/// One row: a Resource*, Scope*, Metric entry, or a record (log record, span, data point).
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// The whole field, tag and length included.
    pub(super) field: (u32, u32),
    /// The content of the message.
    pub(super) content: (u32, u32),
    /// Where the content of the message begins that the field stands in: the batch (0), the Resource*, the Scope*;
    /// for a data point the Gauge, Sum, Histogram, … inside the Metric.
    pub(super) owner: u32,
    /// The row of the level above (a data point's is its metric; a metric's its scope). 0 for a resource.
    pub(super) parent: u32,
    /// For a metric: the field number of its data (5 gauge, 7 sum, 9 histogram, 10 exponential histogram, 11 summary).
    pub(super) kind: u8,
}

/// What the chain left in a piece.
#[derive(Debug)]
pub(super) enum Changes {
    None,
    /// Edits of the batch's bytes (sorted, none inside a dropped item), and the item rows that were dropped (sorted).
    Edits {
        edits: Vec<Edit>,
        dropped: Vec<u32>,
    },
    /// A plugin used `splice`: the whole piece as a request of its own, walked and in order.
    Rewritten(Request),
}

/// A single text or value of a row, by place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Single {
    Body,
    Name,
    EventName,
    Description,
}

/// At most a few hundred records of one batch, and what the chain changed so far.
#[derive(Debug)]
pub struct Piece {
    signal: Signal,
    stream: Stream,
    space: Space,
    rows: Rows,
    stamps: Vec<Edit>,
    dropped: Vec<bool>,
    left: u32,
    /// Events and links, or exemplars; built when asked for.
    events: Option<Vec<Row>>,
    tables: [Option<Table>; 5],
    singles: [Option<Vec<Slot>>; 4],
    severities: BTreeMap<u32, u8>,
    trace_states: BTreeMap<u32, Span>,
    routes: Option<Vec<Option<Arc<str>>>>,
    is_rewritten: bool,
}

impl Piece {
    /// `bytes` are the whole batch, `rows` those of this piece. `stamps` are edits that put the identity right: plugins
    /// see them, and who writes the batch writes them.
    pub(super) fn open(signal: Signal, stream: Stream, bytes: Bytes, rows: Rows, stamps: Vec<Edit>) -> Piece {
        let records = rows.items.len();
        Piece {
            signal,
            stream,
            space: Space::new(bytes),
            rows,
            stamps,
            dropped: vec![false; records],
            left: records as u32,
            events: None,
            tables: Default::default(),
            singles: Default::default(),
            severities: BTreeMap::new(),
            trace_states: BTreeMap::new(),
            routes: None,
            is_rewritten: false,
        }
    }

    pub fn signal(&self) -> Signal {
        self.signal
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Records that are not dropped.
    pub fn records(&self) -> u32 {
        self.left
    }

    /// The bytes of these records as they came: what limits are derived from.
    pub fn item_bytes(&self) -> usize {
        let kept = self.rows.items.iter().zip(&self.dropped).filter(|(_, dropped)| !**dropped);
        kept.map(|(row, _)| (row.field.1 - row.field.0) as usize).sum()
    }

    /// One plugin's look; with `subset` at these visible records alone.
    pub fn call(self, subset: Option<Range<u32>>) -> Call {
        Call::open(self, subset)
    }

    /// Drops these visible records, as the failure policy of a plugin says.
    pub fn drop_records(&mut self, records: Range<u32>) {
        let visible: Vec<usize> = (0..self.dropped.len()).filter(|&item| !self.dropped[item]).collect();
        for &item in visible.iter().take(records.end as usize).skip(records.start as usize) {
            self.dropped[item] = true;
            self.left -= 1;
        }
    }

    /// The item rows it was opened with, dropped or not.
    pub(super) fn items(&self) -> u32 {
        self.rows.items.len() as u32
    }

    /// The item rows that are not dropped.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// Whether a plugin used `splice`.
    pub(super) fn is_rewritten(&self) -> bool {
        self.is_rewritten
    }

    /// The route of each record that is left; `None` if none has one.
    pub fn routes(&self) -> Option<Vec<Option<Arc<str>>>> {
        let routes = self.routes.as_ref()?;
        Some(routes.iter().zip(&self.dropped).filter(|(_, dropped)| !**dropped).map(|(route, _)| route.clone()).collect())
    }

    pub(super) fn changes(self) -> Changes {
        if self.is_rewritten {
            let whole = self.standalone();
            return match Request::check(self.signal, whole.into()) {
                Ok(request) => Changes::Rewritten(request),
                // It was checked when it was spliced, and our own edits keep it whole.
                Err(_) => Changes::None,
            };
        }
        let edits = self.edits();
        let dropped: Vec<u32> = (0..self.items()).filter(|item| self.dropped[*item as usize]).collect();
        if edits.is_empty() && dropped.is_empty() { Changes::None } else { Changes::Edits { edits, dropped } }
    }

    /// The edits of the batch's bytes, in order, none of a dropped item.
    fn edits(&self) -> Vec<Edit> {
        let mut edits = Vec::new();
        for (number, table) in self.tables.iter().enumerate() {
            let Some(table) = table else { continue };
            table.edits(&self.space, |row| self.is_left(number, row), &mut edits);
        }
        for (number, slots) in self.singles.iter().enumerate() {
            let level = self.single_level(number);
            let changed = slots.iter().flatten().filter(|slot| slot.is_changed && self.is_left(level as usize, slot.row));
            edits.extend(changed.map(|slot| slot.edit(&self.space)));
        }
        self.fixed_edits(&mut edits);
        edits.sort_by_key(place);
        edits
    }

    /// Severities and trace states.
    fn fixed_edits(&self, edits: &mut Vec<Edit>) {
        let severity = |value: &u8| vec![2 << 3, *value];
        let severities = self.severities.iter().map(|(item, value)| (*item, 2, severity(value)));
        let state = |span: &Span| {
            let mut field = Vec::new();
            super::wire::put_field(&mut field, 3, self.space.at(*span));
            field
        };
        let states = self.trace_states.iter().map(|(item, span)| (*item, 3, state(span)));
        for (item, number, mut with) in severities.chain(states).filter(|(item, ..)| !self.dropped[*item as usize]) {
            let content = self.rows.items[item as usize].content;
            let owner = content.0 as usize;
            for part in self.space.parts(content).filter(|part| part.number == number) {
                let range = part.whole.0 as usize..part.whole.1 as usize;
                edits.push(Edit { owner, range, is_content: false, with: std::mem::take(&mut with).into() });
            }
            if !with.is_empty() {
                let end = content.1 as usize;
                edits.push(Edit { owner, range: end..end, is_content: false, with: with.into() });
            }
        }
    }

    /// The piece as a request of its own: its records that are left, with the edits of the chain.
    pub fn standalone(&self) -> Vec<u8> {
        self.standalone_of(|item| !self.dropped[item])
    }

    /// The same with the records that `keeps`.
    fn standalone_of(&self, keeps: impl Fn(usize) -> bool) -> Vec<u8> {
        let mut next = 0;
        let (mut edits, _) = dropping::removals(self.signal, &self.space.bytes, |standing| {
            let is_row = self.rows.items.get(next).is_some_and(|row| row.field.0 as usize == standing.item.field.start);
            next += usize::from(is_row);
            !(is_row && keeps(next - 1))
        });
        edits.extend(super::written::merge(vec![self.stamps.clone(), self.edits()]));
        splice(&self.space.bytes, &edits)
    }

    /// A piece of these bytes, which a plugin wrote anew.
    fn reopen(self, request: Request) -> Piece {
        let batch = Batch::over(self.signal, self.stream.clone(), request.bytes.clone());
        let records = batch.records;
        let piece = batch.pieces(usize::MAX, usize::MAX).pop();
        let empty = || Piece::open(self.signal, self.stream.clone(), request.bytes.clone(), Rows::default(), Vec::new());
        let mut piece = piece.unwrap_or_else(empty);
        piece.is_rewritten = true;
        // As many records as before are taken for the same ones.
        piece.routes = self.routes().filter(|routes| routes.len() == records as usize);
        piece
    }
}
