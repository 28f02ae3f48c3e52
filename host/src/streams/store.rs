//! Where streams are kept: one arm per kind of store, and what all of them promise.
//!
//! A write that returned is on disk. It is the same write when it is made again: the id of a record decides. Rows of
//! one stream become visible in the order of their numbers. Retention removes whole days, never records.

use super::embedded::Embedded;
use super::mongodb::Mongodb;
use crate::batch::{Entry, RecordId, Stream};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;

/// An entry of logs on its way into the store.
#[derive(Clone, Debug)]
pub struct Write {
    pub entry: Arc<Entry>,
    /// It was sent before: what is already there is success.
    pub is_resend: bool,
}

/// What a write found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Numbers of records whose id is taken by another record; that one stays.
    pub collided: Vec<u64>,
    /// Records that the store will never take, by number, and why. The others are stored.
    pub rejected: Vec<(u64, &'static str)>,
    /// Records of resent entries that were there already.
    pub presumed: u64,
}

/// Why the store did not do it; trying again may help, not before `after`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct StoreError {
    pub reason: String,
    pub after: Option<Duration>,
}

/// The locks of the lanes that a write is made in. The store keeps them until the write has really ended, however
/// long ago its caller stopped waiting.
pub(super) type Held = Vec<OwnedMutexGuard<()>>;

/// A stretch of one stream, by id.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    pub(super) stream: Stream,
    pub(super) hash: [u8; 8],
    /// The first id.
    pub(super) from: RecordId,
    /// Commit time in ms that is not in it any more.
    pub(super) to_ms: u64,
    /// Records and bytes looked at, at most; one record at least.
    pub(super) records_max: usize,
    pub(super) bytes_max: usize,
}

/// What a scan found: requests of one record each, ascending by id.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) records: Vec<(RecordId, Vec<u8>)>,
    /// Where to go on; `None`: the store held no more when it was looked at.
    pub(super) next: Option<RecordId>,
}

pub(super) enum Store {
    Embedded(Embedded),
    Mongodb(Mongodb),
}

impl Store {
    /// Writes entries, ascending by number.
    pub(super) async fn write(&self, writes: Vec<Write>, held: Held) -> Result<Written, StoreError> {
        match self {
            Store::Embedded(embedded) => embedded.write(writes, held).await,
            Store::Mongodb(mongodb) => mongodb.write(writes, held).await,
        }
    }

    pub(super) async fn scan(&self, scan: Scan) -> Result<Found, StoreError> {
        match self {
            Store::Embedded(embedded) => embedded.scan(scan).await,
            Store::Mongodb(mongodb) => mongodb.scan(scan).await,
        }
    }

    pub(super) async fn known(&self) -> Result<BTreeSet<Stream>, StoreError> {
        match self {
            Store::Embedded(embedded) => embedded.known().await,
            Store::Mongodb(mongodb) => mongodb.known().await,
        }
    }

    /// Removes the days whose youngest record is older than `retention_ms` at `now_ms`; MongoDB those of other
    /// retentions by theirs.
    pub(super) async fn retain(&self, now_ms: u64, retention_ms: u64) {
        match self {
            Store::Embedded(embedded) => embedded.retain(now_ms.saturating_sub(retention_ms)).await,
            Store::Mongodb(mongodb) => mongodb.retain(now_ms).await,
        }
    }

    pub(super) fn is_ready(&self) -> Result<(), String> {
        match self {
            Store::Embedded(embedded) => embedded.is_ready(),
            Store::Mongodb(mongodb) => mongodb.is_ready(),
        }
    }

    /// How far in commit time the rows of one node may become visible behind those of another. The embedded store
    /// has one writer. With MongoDB: clocks some seconds apart, and some attempts of a collector that writes late.
    pub(super) fn skew_ms(&self) -> u64 {
        match self {
            Store::Embedded(_) => 0,
            Store::Mongodb(_) => 60_000,
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Store::Embedded(embedded) => embedded.close().await,
            Store::Mongodb(mongodb) => mongodb.close().await,
        }
    }
}
