//! What moves: OTLP bytes, the checked walk, columns, edits, ids.
//!
//! Pure: no IO, no async, no clock, no panic on any bytes. Imports no other module of the host.
//! A request is walked once ([`Request::check`]), split into batches of one stream each, cut into
//! [`Piece`]s for the plugins, and written anew by one splice, and only if something changed. `json` is its other form.

mod dropping;
mod entry;
mod identity;
mod ids;
mod items;
pub(crate) mod json;
mod part;
mod piece;
mod request;
mod rows;
mod splice;
#[cfg(test)]
mod tests;
mod tree;
mod walk;
pub mod wire;
mod written;

pub use entry::Entry;
pub use ids::{ProjectId, RecordId, Stream, TenantId};
pub use items::{ItemParts, Items};
pub use part::Batch;
pub use piece::{
    BoolColumn, Call, Committed, DoubleColumn, Fault, Hits, IntColumn, Level, Packed, Piece, Places,
    TextColumn, Texts, Wanted,
};
pub use request::{Claim, Claimed, IdentityKeys, Request, Resource, Stamped};
pub use splice::{Edit, splice};
pub use written::Written;

/// What a request or a batch holds. A batch never mixes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    Logs,
    Traces,
    Metrics,
}

impl Signal {
    pub const ALL: [Signal; 3] = [Signal::Logs, Signal::Traces, Signal::Metrics];

    /// The name used in configuration, metrics and URLs.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Logs => "logs",
            Signal::Traces => "traces",
            Signal::Metrics => "metrics",
        }
    }
}

/// Bytes that are no OTLP request of the signal they were sent as.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed at byte {offset}: expected {expected}")]
pub struct Malformed {
    /// Where in the uncompressed protobuf body.
    pub offset: usize,
    /// What would have been right there.
    pub expected: &'static str,
}
