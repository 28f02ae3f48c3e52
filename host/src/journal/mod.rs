//! What is kept until every sink is done; the ledger.
//!
//! One frame is one request: all of its entries are kept, or none. Each sink reads with a cursor of its own, so that
//! one that is behind never holds back another.

mod cursor;
mod dead_letters;
mod disk;
mod expire;
mod follow;
mod keep;
mod ledger;
mod marks;
mod metrics;
mod payload;
mod queue;
mod read;
mod sinks;
mod start;
mod write;

#[cfg(test)]
mod tests;

pub use cursor::{Cursor, Gathered, InFlight, Joining};
pub use dead_letters::{
    Amount, DeadLetters, Letter, LetterId, LetterPage, LetterSettings, NotKept, PAGE_MAX, WhichLetters,
    WholeLetter,
};
pub use follow::{Followed, Follower};
pub use keep::{After, Clock, CommitRefused, Committed, Frame, FramePart, Journal, system_clock};
pub use ledger::{Done, Ledger, LedgerTable, Line, LineTable, Outcome, Pending, Reason, SinkTable};

pub use sinks::TooManySinks;

use std::path::PathBuf;
use std::time::Duration;

/// How the journal keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settings {
    /// In memory: what was acknowledged dies with the process. `bytes_max` is shared by the sinks; beyond its share a
    /// sink's own oldest entries expire, counted.
    Memory { bytes_max: usize },
    /// In segment files below `folder`: what was acknowledged outlives the process and the machine's power. Each sink
    /// has a share of `bytes_max` (`None`: 10 GiB or half of what is free at the start, the smaller); what is older
    /// than `age_max` expires as well. Of `memory_bytes_max` each sink has an equal share, and reads the rest
    /// from the disk.
    Disk { folder: PathBuf, bytes_max: Option<u64>, age_max: Duration, memory_bytes_max: usize },
}

impl Settings {
    /// Of all sinks, where it is named.
    pub fn bytes_max(&self) -> Option<u64> {
        match self {
            Settings::Memory { bytes_max } => Some(*bytes_max as u64),
            Settings::Disk { bytes_max, .. } => *bytes_max,
        }
    }
}

/// A sink, and what the journal keeps for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkSettings {
    pub name: String,
    /// Its share in bytes. `None`: an equal part of what those with a share leave.
    pub bytes_max: Option<u64>,
    /// On disk: what it has not taken for so long expires. `None`: as the journal's settings say.
    pub age_max: Option<Duration>,
    /// Nothing of it expires: once its share is full, commits that go to it are refused.
    pub is_essential: bool,
}

impl From<String> for SinkSettings {
    fn from(name: String) -> SinkSettings {
        SinkSettings { name, ..SinkSettings::default() }
    }
}

/// Where the journal cannot be, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CannotOpen(String);

/// The most bytes of a frame.
pub const FRAME_BYTES_MAX: usize = disk::FRAME_BYTES_MAX as usize;

/// The most sinks that a configuration may have: a set of them is one word.
pub const SINKS_MAX: usize = 64;

/// The number of a sink in this process, below [`SINKS_MAX`]: at the start its position in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SinkId(pub u16);

/// Sinks that an entry goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SinkSet(u64);

impl SinkSet {
    pub const NONE: SinkSet = SinkSet(0);

    #[must_use]
    pub fn with(self, sink: SinkId) -> SinkSet {
        SinkSet(self.0 | Self::bit(sink))
    }

    pub fn contains(self, sink: SinkId) -> bool {
        self.0 & Self::bit(sink) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Ascending.
    pub fn iter(self) -> impl Iterator<Item = SinkId> {
        (0..SINKS_MAX as u16).map(SinkId).filter(move |sink| self.contains(*sink))
    }

    fn bit(sink: SinkId) -> u64 {
        1u64.checked_shl(sink.0.into()).unwrap_or(0)
    }
}

impl FromIterator<SinkId> for SinkSet {
    fn from_iter<I: IntoIterator<Item = SinkId>>(sinks: I) -> SinkSet {
        sinks.into_iter().fold(SinkSet::NONE, SinkSet::with)
    }
}
