//! Where a batch ends; one file per destination.
//!
//! A sink only sends and classifies; queue, joining, retry, timeout and counting are `pipeline::deliver`'s.

pub mod streams;

use crate::batch::{Entry, Signal};
use std::sync::Arc;
use std::time::Duration;

/// What is sent at once: entries of one signal, and of one tenant unless the sink is told per record.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub signal: Signal,
    pub entries: Vec<Sending>,
}

#[derive(Clone, Debug)]
pub struct Sending {
    pub entry: Arc<Entry>,
    /// It was sent before, and the answer was lost or "try again".
    pub is_resend: bool,
}

/// The sink's answer. What it does not name was delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Records refused for good, by number.
    pub rejected: Vec<(u64, &'static str)>,
    /// Records refused for good that the answer counts but does not name (OTLP partial success).
    pub rejected_unnamed: u64,
    /// Records that this sink has no form for (metrics to a log store).
    pub unsupported: u64,
    /// Of the delivered: "already there", taken as success on a resend.
    pub presumed: u64,
}

/// Why a delivery did not succeed, as the decision of the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Try again, not before `after`.
    #[error("{reason}")]
    Retry { after: Option<Duration>, reason: String },
    /// All of it refused for good; `deliver` bisects.
    #[error("{reason}")]
    Reject { reason: String },
}
