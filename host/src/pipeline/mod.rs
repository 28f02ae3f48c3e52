//! admit, process, route, commit, deliver.
//!
//! [`Pipeline::submit`] is the way of a request up to the journal; [`deliver::run`] is the way from there to a sink.
//! One request is one frame: all of its batches that are taken are committed together, or none.

mod aside;
mod chain;
pub mod deliver;
mod effects;
mod left;
pub mod letters;
mod record;
mod route;
mod series;
mod submit;
mod tally;
#[cfg(test)]
mod tests;
mod ticks;
mod turns;
mod versions;
mod work;

pub use chain::Slot;
pub use record::{RecordError, Recorded, Recording, Recordings, Which};
pub use series::{Series, Windowed};
pub use submit::{Pipeline, Surroundings};
pub use versions::{
    Budget, CanarySettings, Counts, Differences, Differing, Score, SwapSettings, Trial, TrialKind, Versions,
};
pub use work::{PIECE_BYTES_MAX, PIECE_RECORDS_MAX};

use crate::batch::{IdentityKeys, Signal, TenantId};
use crate::journal::SinkId;
use crate::net::backoff;
use crate::tenants::{Caller, Limited, OverQuota, Taken};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::thread::available_parallelism;
use std::time::Duration;

/// What requests go through.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The attributes that say whose a resource is, as in the settings of `tenants`.
    pub identity: IdentityKeys,
    /// How many work at one time on requests that leave the executor.
    pub workers: usize,
    /// A larger record is left out before the plugins: they work on pieces far smaller.
    pub record_bytes_max: usize,
    /// The least and the most that a sender is told to wait; each is told a time drawn from between.
    pub come_back: (Duration, Duration),
}

impl Settings {
    /// The defaults of all but what has none.
    pub fn new(identity: IdentityKeys) -> Settings {
        let come_back = (Duration::from_secs(1), Duration::from_secs(5));
        let workers = available_parallelism().map_or(2, usize::from);
        Settings { identity, workers, record_bytes_max: 1 << 20, come_back }
    }
}

/// The pipelines, and the sinks that they may name. They change while the collector runs, as the plugins do.
#[derive(Clone, Debug, Default)]
pub struct Arrangement {
    /// The first that fits takes the batch; none: it is counted as unrouted.
    pub pipelines: Vec<PipelineSettings>,
    /// As the journal knows them.
    pub sinks: BTreeMap<String, SinkId>,
}

impl Arrangement {
    /// At a start: `sinks` in the order in which the journal was given them.
    pub fn of(pipelines: Vec<PipelineSettings>, sinks: &[String]) -> Arrangement {
        let sinks = sinks.iter().enumerate().map(|(at, name)| (name.clone(), SinkId(at as u16)));
        Arrangement { pipelines, sinks: sinks.collect() }
    }
}

/// Batches of these tenants and this signal, through these plugins, to these sinks.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// All that it holds is of tenants that have taken what they may. `may` says that of one of them.
    #[error("over quota: tenant `{tenant}` {may}: come back in {after:?}")]
    OverQuota { tenant: TenantId, may: String, after: Duration },
    /// The journal has no place for it, or its disk fails.
    #[error("the disk is full: come back in {after:?}")]
    DiskFull { after: Duration },
    /// A sink that nothing may expire of is behind.
    #[error("an essential sink is behind: come back in {after:?}")]
    Behind { after: Duration },
    /// A plugin that cannot be called.
    #[error("plugin `{name}` cannot be called: come back in {after:?}")]
    Plugin { name: String, after: Duration },
    #[error("stopping: come back in {after:?}")]
    Stopping { after: Duration },
}

impl Refusal {
    /// The refusal of a tenant that is over its quota; `come_back` as in the settings.
    ///
    /// It may come again when it has paid back what it owes, and a little later, longer after a longer wait: many of its
    /// senders wait for the same moment. Of the journal nobody knows when.
    pub fn over_quota(over: OverQuota, come_back: (Duration, Duration)) -> Refusal {
        let OverQuota { tenant, limited, limit, wait } = over;
        let (least, most) = come_back;
        let (may, after) = match limited {
            Limited::Bytes => (format!("may send {limit} bytes a second"), None),
            Limited::Records => (format!("may send {limit} records a second"), None),
            Limited::Journal => (
                format!("may hold {limit} bytes of the journal until its sinks take them"),
                Some(backoff::drawn(least, most)),
            ),
        };
        let after = after.unwrap_or_else(|| wait + backoff::drawn(Duration::ZERO, least + wait / 2));
        Refusal::OverQuota { tenant, may, after }
    }
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
