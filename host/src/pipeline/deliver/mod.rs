//! From the journal to a sink: joining, retry, bisection, timeouts, counting.
//!
//! Every record that a cursor gave out ends in the ledger: delivered, rejected, unsupported, dead-lettered or expired. This file takes
//! from the journal (`gathering`: when) and keeps the window; `work` is one delivery, `lane` the attempts of all of
//! them, `circuit` when the sink may be asked.

mod circuit;
mod cut;
#[cfg(test)]
mod fake;
mod gathering;
mod lane;
#[cfg(test)]
mod tests;
mod work;

use crate::journal::{Cursor, DeadLetters, Joining};
use crate::net::backoff::Backoff;
use crate::sinks::Sink;
use crate::telemetry::Metrics;
use gathering::Gathering;
use lane::Lane;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use work::deliver;

/// How one sink is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Records of a delivery, at most; a larger entry goes alone.
    pub records_max: u64,
    /// Bytes of a delivery, at most; a larger entry goes alone.
    pub bytes_max: usize,
    /// How long what is there waits for more to join it. Zero: what is sent is what is there. More is seldom gained by
    /// waiting: while the window is full, what comes gathers by itself.
    pub delay: Duration,
    /// Deliveries on the way at one time; `None`: what suits the sink.
    pub window: Option<usize>,
    /// Of one attempt.
    pub attempt_timeout: Duration,
    pub backoff: Backoff,
    /// From the first attempt to the last; afterwards its records expire. On disk not before they are too old for the
    /// journal.
    pub retry_for: Duration,
    /// When the collector stops, what is there may still be delivered for so long.
    pub drain_for: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            // What backends take in one request without complaint; larger ones gain nothing (system calls are the bill).
            records_max: 8192,
            bytes_max: 4 << 20,
            delay: Duration::ZERO,
            window: None,
            // What OTLP's exporters wait for.
            attempt_timeout: Duration::from_secs(10),
            backoff: Backoff { first: Duration::from_millis(500), most: Duration::from_secs(30) },
            // As the OpenTelemetry Collector: longer than a restart of the destination.
            retry_for: Duration::from_secs(300),
            drain_for: Duration::from_secs(10),
        }
    }
}

/// When the service of a sink ends.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// What is there is delivered, for at most `drain_for`; the rest stays in a journal that outlives the process, and
    /// expires in one that does not.
    pub drain: CancellationToken,
    /// Another goes on from here: nothing more is taken, and what is on its way may arrive, for one attempt.
    pub hand_over: CancellationToken,
}

/// Delivers until it is told how to end.
///
/// Dropping the future ends it at once; what was in flight goes back to the journal.
///
/// What the sink refuses for good is kept in `letters`, if there are any.
pub async fn run(
    name: String,
    sink: Arc<Sink>,
    cursor: Cursor,
    settings: Settings,
    letters: Option<Arc<DeadLetters>>,
    metrics: Metrics,
    ends: Ends,
) {
    let window = settings.window.unwrap_or_else(|| sink.window()).max(1);
    // What is in flight cannot expire: at most half of the share, so that the rest takes what comes.
    let share_bytes = cursor.journal().memory_share_bytes();
    let joining = Joining {
        records_max: settings.records_max,
        bytes_max: settings.bytes_max.min(share_bytes / window / 2),
        is_across_tenants: sink.is_told_per_record(),
    };
    let lane = Lane::new(name, sink, settings, letters, metrics);
    let mut gathering = Gathering::new(settings.delay);
    let mut deliveries = JoinSet::new();
    // Until we are told to stop; then a deadline, up to which the same goes on.
    let mut drain_until = None;
    let mut is_ready = false;
    let mut is_handed_over = false;
    loop {
        let is_over = if is_handed_over { deliveries.is_empty() } else { cursor.is_done() };
        if drain_until.is_some() && is_over {
            return;
        }
        let is_window_open = deliveries.len() < window && !is_handed_over;
        tokio::select! {
            () = gathering.ready(&cursor, joining), if !is_ready => is_ready = true,
            taken = cursor.next(joining), if is_ready && is_window_open => {
                is_ready = false;
                if !taken.is_empty() {
                    deliveries.spawn(deliver(lane.clone(), taken));
                }
            }
            Some(ended) = deliveries.join_next(), if !deliveries.is_empty() => {
                if let Err(error) = ended {
                    // Its entries went back and come again: not at once, or the same bug would spin.
                    tracing::error!(sink = lane.name, %error, "a delivery ended without a result");
                    sleep(settings.backoff.first).await;
                }
            }
            () = ends.hand_over.cancelled(), if !is_handed_over => {
                is_handed_over = true;
                drain_until = Some(Instant::now() + settings.attempt_timeout);
                // It does not wait for more.
                gathering.end();
            }
            () = ends.drain.cancelled(), if drain_until.is_none() => {
                drain_until = Some(Instant::now() + settings.drain_for);
                gathering.end();
            }
            () = until(drain_until) => break,
        }
    }
    // Their entries go back to the journal. There they stay for the next start, or expire with what was never sent.
    deliveries.shutdown().await;
    if is_handed_over || cursor.journal().is_durable() {
        return;
    }
    let records = cursor.journal().expire_rest(cursor.sink(), "stopped");
    if records > 0 {
        tracing::warn!(sink = lane.name, records, "stopped before all was delivered");
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
