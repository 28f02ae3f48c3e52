//! What is kept until every sink is done; the ledger.

mod ledger;
mod memory;

pub use ledger::{Ledger, Outcome, Pending};

/// How the journal keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settings {
    /// In memory: what was acknowledged dies with the process. `bytes_max` is shared equally by the sinks; beyond its
    /// share a sink's own oldest entries expire, counted.
    Memory { bytes_max: usize },
}

/// The number of a sink: its position in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SinkId(pub u16);
