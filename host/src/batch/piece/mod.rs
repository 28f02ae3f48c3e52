//! A piece of a batch at work: what one plugin call reads, and the edits it leaves for the next.
//!
//! A [`Piece`] holds the rows of at most a few hundred records and the overlay of what the chain changed so far.
//! A [`Call`] is one plugin's look at it: it reads the piece as it was when the call began, collects edits, and
//! either [`Call::commit`]s them all or none. Columns are built when they are asked for, and kept for the next call.
//! Row numbers of a call count the visible rows: those not dropped, and in the subset the call was given.
//! Nothing is spliced between two plugins: a changed value lies behind the batch's bytes until the chain ends.

mod attributes;
mod changes;
mod columns;
mod edits;
mod heads;
mod index;
mod key_edits;
mod keys;
mod raw;
mod space;
mod table;
mod texts;
mod value;
mod view;

use super::{Edit, Signal, Stream};
use bytes::Bytes;
use edits::Edits;
use heads::Head;
use index::{Event, TABLES};
use space::Space;
use std::ops::Range;
use std::sync::Arc;
use table::Table;
use texts::TextList;
pub use texts::{Packed, Texts};
use view::{Shown, View};

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

/// Text values of one attribute, equal strings once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextColumn {
    pub rows: Vec<u32>,
    pub index: Vec<u32>,
    pub strings: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntColumn {
    pub rows: Vec<u32>,
    pub values: Vec<i64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct DoubleColumn {
    pub rows: Vec<u32>,
    pub values: Vec<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoolColumn {
    pub rows: Vec<u32>,
    pub values: Vec<bool>,
}

/// At most a few hundred records of one batch, and what the chain changed so far.
pub struct Piece {
    inner: Box<Inner>,
}

/// One plugin's look at a piece.
///
/// A function that reads gives a [`Fault`] back. One that edits notes the first fault, and [`Call::commit`] gives it
/// back; after it the edits of the call are for nothing and no more are collected.
pub struct Call {
    inner: Box<Inner>,
    is_subset: bool,
    edits: Edits,
    fault: Option<Fault>,
    /// [`Call::raw`], once it was asked for.
    raw: Option<Bytes>,
}

/// What a call left.
#[derive(Debug)]
pub struct Committed {
    pub piece: Piece,
    /// Records that the call took away.
    pub dropped: u32,
    /// Records that it added by `splice`.
    pub added: u32,
}

struct Inner {
    signal: Signal,
    stream: Stream,
    space: Space,
    rows: Rows,
    /// Edits of resources that came before the first plugin, in the order of the document.
    stamps: Vec<Edit>,
    /// By item row; empty while none is dropped.
    is_dropped: Vec<bool>,
    dropped: u32,
    /// By item row.
    routes: Option<Vec<Option<Arc<str>>>>,
    is_rewritten: bool,
    /// What the call at hand sees; between calls, all that is left.
    view: View,
    /// Which of the following were found.
    indexed: u16,
    /// The parts of items that were asked for, and those that probably will be.
    wanted: u16,
    expected: u16,
    heads: Vec<Head>,
    events: Vec<Event>,
    tables: [Table; TABLES],
    /// The strings of the tables that the view shows.
    lists: [Option<TextList>; TABLES],
}

/// Parts of records that calls ask for: their fixed fields, bodies, attributes and so on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted(pub u16);

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
    Rewritten(super::Request),
}

impl Piece {
    /// Opens the rows of a batch's bytes. `stamps` are edits of resource attributes that the plugins see: whole
    /// attributes replaced, removed or inserted at the end, or a Resource inserted at the start of its envelope.
    pub(super) fn open(signal: Signal, stream: Stream, bytes: Bytes, rows: Rows, stamps: Vec<Edit>) -> Piece {
        let view = View::of(&rows, |_| true);
        let inner = Inner {
            signal,
            stream,
            space: Space::over(bytes),
            rows,
            stamps,
            is_dropped: Vec::new(),
            dropped: 0,
            routes: None,
            is_rewritten: false,
            view,
            indexed: 0,
            wanted: 0,
            expected: 0,
            heads: Vec::new(),
            events: Vec::new(),
            tables: Default::default(),
            lists: Default::default(),
        };
        Piece { inner: Box::new(inner) }
    }

    pub fn signal(&self) -> Signal {
        self.inner.signal
    }

    pub fn stream(&self) -> &Stream {
        &self.inner.stream
    }

    /// The records that are left.
    pub fn records(&self) -> u32 {
        self.inner.left()
    }

    /// The item rows that are not dropped.
    pub fn left(&self) -> u32 {
        self.inner.left()
    }

    /// The bytes of the records that are left, as they came.
    pub fn item_bytes(&self) -> usize {
        self.inner.item_bytes()
    }

    /// Drops these of the records that are left, as the failure policy of a plugin says.
    pub fn drop_records(&mut self, records: Range<u32>) {
        let left = &self.inner.view.items.rows;
        let end = left.len().min(records.end as usize);
        let rows = left.get(records.start as usize..end).unwrap_or_default().to_vec();
        self.inner.drop_items(&rows);
    }

    /// The item rows it was opened with, dropped or not.
    pub(super) fn items(&self) -> u32 {
        self.inner.rows.items.len() as u32
    }

    /// The item rows it was opened with that are left, in order. `None` once a plugin wrote it anew: then nobody knows
    /// which record became which.
    pub fn survivors(&self) -> Option<&[u32]> {
        (!self.inner.is_rewritten).then_some(&self.inner.view.items.rows)
    }

    /// Whether a plugin used `splice`.
    pub(super) fn is_rewritten(&self) -> bool {
        self.inner.is_rewritten
    }

    pub(super) fn changes(self) -> Changes {
        self.inner.changes()
    }

    /// The piece as a request of its own, with its edits applied.
    pub fn standalone(&self) -> Vec<u8> {
        self.inner.standalone(&self.inner.view)
    }

    /// What of its records was asked for so far.
    pub fn wanted(&self) -> Wanted {
        Wanted(self.inner.wanted)
    }

    /// Says what calls will probably ask for, so that one pass over the records finds it all. It may be wrong.
    pub fn expect(&mut self, wanted: Wanted) {
        self.inner.expected = wanted.0 & index::ITEM_PARTS;
    }

    /// The route of each record that is left; `None` if no record has one.
    pub fn routes(&self) -> Option<Vec<Option<Arc<str>>>> {
        self.inner.routes_left()
    }

    /// With these routes of its records, before anything is dropped of it.
    pub(crate) fn with_routes(mut self, routes: Option<Vec<Option<Arc<str>>>>) -> Piece {
        self.inner.routes = routes;
        self
    }

    /// Begins a call that sees all records that are left, or those of them that `subset` numbers.
    pub fn call(self, subset: Option<Range<u32>>) -> Call {
        let mut inner = self.inner;
        let is_subset = subset.as_ref().is_some_and(|subset| *subset != (0..inner.left()));
        if is_subset {
            inner.look_at(subset);
        }
        Call { inner, is_subset, edits: Edits::default(), fault: None, raw: None }
    }
}

impl Call {
    pub fn holds(&self) -> Signal {
        self.inner.signal
    }

    pub fn stream(&self) -> &Stream {
        &self.inner.stream
    }

    pub fn tenant(&self) -> &str {
        self.inner.stream.tenant.as_str()
    }

    pub fn project(&self) -> &str {
        self.inner.stream.project.as_str()
    }

    /// The bytes of the records that the call sees.
    pub fn bytes(&self) -> usize {
        self.inner.item_bytes()
    }

    /// What the edits collected so far may add to the batch, about; it bounds their memory too.
    pub fn edit_bytes(&self) -> usize {
        self.edits.bytes()
    }

    /// The first fault of an edit.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// Drops these items.
    pub fn drop(&mut self, items: &[u32]) {
        self.edit("drop", |call| {
            let rows = call.inner.rows_behind(Level::Item, items)?;
            call.edits.count(rows.len(), 0);
            call.edits.dropped.extend(rows);
            Ok(())
        });
    }

    /// Gives these items a route; the last call wins.
    pub fn route(&mut self, name: &str, items: &[u32]) {
        self.edit("route", |call| {
            let rows = call.inner.rows_behind(Level::Item, items)?;
            call.edits.count(1, name.len());
            call.edits.count(rows.len(), 0);
            call.edits.routes.push((name.into(), rows));
            Ok(())
        });
    }

    fn edit(&mut self, function: &'static str, work: impl FnOnce(&mut Call) -> Result<(), Fault>) {
        if self.fault.is_some() {
            return;
        }
        if let Err(Fault(text)) = work(self) {
            self.fault = Some(Fault(format!("{function}: {text}")));
        }
    }
}

impl Inner {
    fn left(&self) -> u32 {
        self.rows.items.len() as u32 - self.dropped
    }

    fn item_bytes(&self) -> usize {
        let bytes = |row: &u32| index::content(&self.rows.items[*row as usize]).len() as usize;
        self.view.items.rows.iter().map(bytes).sum()
    }

    fn routes_left(&self) -> Option<Vec<Option<Arc<str>>>> {
        let routes = self.routes.as_ref()?;
        let left = routes.iter().enumerate().filter(|(row, _)| !self.is_dropped.get(*row).unwrap_or(&false));
        Some(left.map(|(_, route)| route.clone()).collect())
    }

    fn look_at_all(&mut self) {
        self.look_at(None);
    }

    /// Shows the records that are left, or those of them that `subset` numbers.
    fn look_at(&mut self, subset: Option<Range<u32>>) {
        let mut number = 0;
        let is_dropped = &self.is_dropped;
        self.view = View::of(&self.rows, |row| {
            if is_dropped.get(row as usize).copied().unwrap_or(false) {
                return false;
            }
            number += 1;
            subset.as_ref().is_none_or(|subset| subset.contains(&(number - 1)))
        });
        self.lists = Default::default();
    }

    /// The rows of a level that the call sees.
    fn shown(&mut self, at: Level) -> &Shown {
        if at == Level::Event {
            return self.events_shown();
        }
        self.shown_now(at)
    }

    /// The same, for events after they were asked for once.
    fn shown_now(&self, at: Level) -> &Shown {
        static NONE: Shown = Shown { rows: Vec::new(), numbers: Vec::new() };
        match at {
            Level::Resource => &self.view.resources,
            Level::Scope => &self.view.scopes,
            Level::Metric => &self.view.metrics,
            Level::Item => &self.view.items,
            Level::Event => self.view.events.as_ref().unwrap_or(&NONE),
        }
    }

    /// The rows behind these numbers.
    fn rows_behind(&mut self, at: Level, numbers: &[u32]) -> Result<Vec<u32>, Fault> {
        let shown = &self.shown(at).rows;
        let row = |number: &u32| {
            shown.get(*number as usize).copied().ok_or_else(|| {
                let (name, rows) = (columns::name(at), shown.len());
                Fault(format!("there is no {name} {number}, the batch has {rows}"))
            })
        };
        numbers.iter().map(row).collect()
    }
}

/// Parallel lists must be equally long.
fn same_length(one: &str, one_len: usize, other: &str, other_len: usize) -> Result<(), Fault> {
    if one_len == other_len {
        return Ok(());
    }
    Err(Fault(format!("`{one}` has {one_len} entries, `{other}` has {other_len}")))
}

/// Counts only: a batch's content has no business in a log.
impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Piece")
            .field("signal", &self.inner.signal)
            .field("records", &self.inner.left())
            .finish()
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("signal", &self.inner.signal)
            .field("edits", &self.edits.bytes())
            .finish()
    }
}
