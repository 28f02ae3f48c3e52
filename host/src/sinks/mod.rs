//! Where a batch ends; one file per destination.
//!
//! A sink only sends and classifies; queue, joining, retry, timeout and counting are `pipeline::deliver`'s.

mod discard;
mod http;
pub mod otlp;
pub mod remote_write;
mod stdout;
pub mod streams;

use crate::batch::{Entry, Signal};
use crate::streams::Streams;
use std::sync::Arc;
use std::time::Duration;

/// What a sink is. A closed set: the compiler names each place that a new one needs.
#[derive(Clone, Debug, PartialEq)]
pub enum Settings {
    Otlp(otlp::Settings),
    RemoteWrite(remote_write::Settings),
    /// Tenant streams; there is one such sink at most.
    Streams(crate::streams::Settings),
    /// A readable line per record on standard output.
    Stdout,
    /// Counted as delivered, and gone.
    Discard,
}

/// A destination.
#[derive(Debug)]
pub enum Sink {
    Otlp(Box<otlp::Otlp>),
    RemoteWrite(Box<remote_write::RemoteWrite>),
    Streams(Arc<Streams>),
    Stdout(stdout::Stdout),
    Discard,
}

impl Sink {
    /// Connects to nothing yet. An error says what is wrong with the settings. `streams` are those that the console
    /// reads, opened from the same settings.
    pub fn open(name: &str, settings: Settings, streams: Option<Arc<Streams>>) -> Result<Sink, String> {
        Ok(match settings {
            Settings::Otlp(settings) => Sink::Otlp(Box::new(otlp::Otlp::open(settings)?)),
            Settings::RemoteWrite(settings) => {
                Sink::RemoteWrite(Box::new(remote_write::RemoteWrite::open(name, settings)?))
            }
            Settings::Streams(_) => Sink::Streams(streams.ok_or("the streams are not open")?),
            Settings::Stdout => Sink::Stdout(stdout::Stdout::default()),
            Settings::Discard => Sink::Discard,
        })
    }

    /// Sends all of it at once. The caller sets the deadline; cancelled, it may have arrived or not.
    pub async fn send(&self, delivery: &Delivery) -> Result<Sent, SendError> {
        match self {
            Sink::Otlp(sink) => sink.send(delivery).await,
            Sink::RemoteWrite(sink) => sink.send(delivery).await,
            Sink::Streams(streams) => streams::send(streams, delivery).await,
            Sink::Stdout(sink) => sink.send(delivery).await,
            Sink::Discard => discard::send(delivery),
        }
    }

    /// This entry will not be sent again. A store of streams then waits for it no longer.
    pub fn skip(&self, entry: &Entry) {
        if let Sink::Streams(streams) = self {
            streams.skip(&entry.stream, entry.first + u64::from(entry.records));
        }
    }

    /// Whether it tells the fate of each record, so that entries of several tenants may stand in one delivery and
    /// none suffers for another.
    pub fn is_told_per_record(&self) -> bool {
        match self {
            Sink::Otlp(_) => false,
            Sink::RemoteWrite(_) | Sink::Streams(_) | Sink::Stdout(_) | Sink::Discard => true,
        }
    }

    /// Deliveries on the way at one time. More than one give up the order between them.
    pub fn window(&self) -> usize {
        match self {
            // The round trip of one is hidden behind the sending of others.
            Sink::Otlp(_) => 4,
            // A stream's lines, and a series' samples, are stored in their order.
            Sink::RemoteWrite(_) | Sink::Streams(_) | Sink::Stdout(_) | Sink::Discard => 1,
        }
    }
}

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
    /// Records refused for good that the answer counts but does not name (OTLP partial success). Which these are nobody
    /// can know: the others were taken, so nothing of it may be sent again.
    pub rejected_unnamed: u64,
    /// Records that this sink has no form for (metrics to a log store).
    pub unsupported: u64,
    /// The same by number, where only some have no form: entries of other tenants may stand beside them.
    pub unsupported_named: Vec<u64>,
    /// Of the delivered: "already there", taken as success on a resend.
    pub presumed: u64,
}

/// Why a delivery did not succeed, as the decision of the caller.
///
/// `reason` of what is final is a fixed word, for the ledger and its metrics; `message` is what the server says, cut and
/// escaped, for people alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Try again, not before `after`.
    #[error("{reason}")]
    Retry { after: Option<Duration>, reason: String },
    /// Try again; the answer is likely about how much it was at once, so with less if that can be.
    #[error("{reason}")]
    RetrySmaller { reason: String },
    /// Refused for good, for something in it: a part of it may be taken.
    #[error("{reason}: {message}")]
    Reject { reason: &'static str, message: String },
    /// Refused for good, for who sends it or where to: no part of it would be taken.
    #[error("{reason}: {message}")]
    RejectAny { reason: &'static str, message: String },
}
