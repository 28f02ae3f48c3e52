//! admit, process, route, commit, deliver.

use crate::batch::Signal;
use crate::tenants::{Caller, Taken};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// The first pipeline that fits takes the batch.
#[derive(Clone, Debug)]
pub struct PipelineSettings {
    pub name: String,
    /// `None`: every signal.
    pub signal: Option<Signal>,
    /// Empty: every tenant.
    pub tenants: Vec<String>,
    /// Names of plugins, in order.
    pub plugins: Vec<String>,
    pub sinks: Vec<SinkRoute>,
    /// It may run without the guards.
    pub is_unguarded: bool,
}

/// A sink, and which part of the batch goes there; all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkRoute {
    pub sink: String,
    /// Resource attribute → values, one of which it must have.
    pub resource: BTreeMap<String, Vec<String>>,
    /// Names that a plugin gave with `batch.route`; empty: any or none.
    pub route: Vec<String>,
}

/// Why a whole request is not taken. A variant is what the receiver answers; statuses are made from it in one place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("malformed at byte {offset}: expected {expected}")]
    Malformed { offset: usize, expected: String },
    #[error("no valid credential: send `authorization: Bearer TOKEN`")]
    Unauthenticated,
    #[error("this credential may not send")]
    Forbidden,
    /// Larger than `limit` bytes, before or after decompression. Never retried.
    #[error("larger than {limit} bytes")]
    TooLarge { limit: usize },
    /// No room, or no time before the deadline.
    #[error("busy: come back in {after:?}")]
    Busy { after: Duration },
    /// A plugin that cannot be called.
    #[error("plugin `{name}` cannot be called: come back in {after:?}")]
    Plugin { name: String, after: Duration },
    #[error("stopping: come back in {after:?}")]
    Stopping { after: Duration },
}

/// What the sender is told: accepted, and what was left out for good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Records left out, final.
    pub rejected: u64,
    /// Why, for a person; empty when nothing was.
    pub message: String,
}

/// A request as the receiver hands it over: the body is whole, decompressed, and has its room.
#[derive(Debug)]
pub struct Submission {
    pub signal: Signal,
    /// An Export*ServiceRequest in protobuf.
    pub body: Bytes,
    pub caller: std::sync::Arc<Caller>,
    pub room: Taken,
    /// When the sender stops waiting (`grpc-timeout`, else 10 s from the start).
    pub deadline: tokio::time::Instant,
}

/// The way of a batch, assembled.
#[derive(Debug)]
pub struct Pipeline {}

impl Pipeline {
    /// From a receiver's hands to the journal. Returns when the sender may be told "yes".
    ///
    /// Cancelled before its entries are with the journal, nothing is committed; afterwards the commit completes.
    pub async fn submit(&self, submission: Submission) -> Result<Receipt, Refusal> {
        let _ = submission;
        Err(Refusal::Stopping { after: Duration::from_secs(1) })
    }
}
