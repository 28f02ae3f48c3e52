//! A piece of a batch at work: what one plugin call reads, and the edits it leaves for the next.
//!
//! A [`Piece`] holds the rows of at most a few hundred records and the overlay of what the chain changed so far.
//! A [`Call`] is one plugin's look at it: it reads the piece as it was when the call began, collects edits, and
//! either [`Call::commit`]s them all or none. Columns are built when they are asked for, and kept for the next call.
//! Row numbers of a call count the visible rows: those not dropped, and in the subset the call was given.

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

/// At most a few hundred records of one batch, and what the chain changed so far.
#[derive(Debug)]
pub struct Piece {
    rows: Rows,
}

/// One plugin's look at a piece.
#[derive(Debug)]
pub struct Call {}

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
        edits: Vec<super::Edit>,
        dropped: Vec<u32>,
    },
    /// A plugin used `splice`: the whole piece as a request of its own, walked and in order.
    Rewritten(super::Request),
}

impl Piece {
    /// Opens the rows of a batch's bytes.
    pub(super) fn open(
        signal: super::Signal,
        stream: super::Stream,
        bytes: bytes::Bytes,
        rows: Rows,
        stamps: Vec<super::Edit>,
    ) -> Piece {
        let _ = (signal, stream, bytes, stamps);
        Piece { rows }
    }

    /// The item rows it was opened with, dropped or not.
    pub(super) fn items(&self) -> u32 {
        self.rows.items.len() as u32
    }

    /// The item rows that are not dropped.
    pub(super) fn left(&self) -> u32 {
        self.rows.items.len() as u32
    }

    /// Whether a plugin used `splice`.
    pub(super) fn is_rewritten(&self) -> bool {
        false
    }

    pub(super) fn changes(self) -> Changes {
        Changes::None
    }

    /// The piece as a request of its own, with its edits applied.
    pub fn standalone(&self) -> Vec<u8> {
        Vec::new()
    }

    /// The route of each record that is left; `None` if no record has one.
    pub fn routes(&self) -> Option<Vec<Option<std::sync::Arc<str>>>> {
        None
    }
}
