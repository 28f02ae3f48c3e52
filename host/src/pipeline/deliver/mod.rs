//! From the journal to a sink: joining, retry, bisection, timeouts, counting.
//!
//! Every record that a cursor gave out ends in the ledger: delivered, rejected, unsupported or expired. What is sent
//! is what is there: nothing waits for more to join it.

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use crate::journal::{Cursor, Done, InFlight, Joining};
use crate::net::backoff::{self, Backoff};
use crate::sinks::{Delivery, SendError, Sending, Sent, Sink};
use crate::telemetry::Metrics;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How one sink is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Records of a delivery, at most; a larger entry goes alone.
    pub records_max: u64,
    /// Bytes of a delivery, at most; a larger entry goes alone.
    pub bytes_max: usize,
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

/// Delivers until `stop` is cancelled, then what is there, for at most `drain_for`; the rest stays in a journal that
/// outlives the process, and expires in one that does not.
///
/// Dropping the future ends it at once; what was in flight goes back to the journal.
pub async fn run(
    name: String,
    sink: Arc<Sink>,
    cursor: Cursor,
    settings: Settings,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let window = settings.window.unwrap_or_else(|| sink.window()).max(1);
    // What is in flight cannot expire: at most half of the share, so that the rest takes what comes.
    let share_bytes = cursor.journal().memory_share_bytes();
    let joining = Joining {
        records_max: settings.records_max,
        bytes_max: settings.bytes_max.min(share_bytes / window / 2),
        is_across_tenants: sink.is_told_per_record(),
    };
    let lane = Lane { name, sink, settings, metrics, is_failing: Arc::default(), losses: Arc::default() };
    let mut deliveries = JoinSet::new();
    // Until we are told to stop; then a deadline, up to which the same goes on.
    let mut drain_until = None;
    loop {
        if drain_until.is_some() && cursor.is_done() {
            return;
        }
        let is_window_open = deliveries.len() < window;
        tokio::select! {
            taken = cursor.next(joining), if is_window_open => {
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
            () = stop.cancelled(), if drain_until.is_none() => {
                drain_until = Some(Instant::now() + settings.drain_for);
            }
            () = until(drain_until) => break,
        }
    }
    // Their entries go back to the journal. There they stay for the next start, or expire with what was never sent.
    deliveries.shutdown().await;
    if cursor.journal().is_durable() {
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

/// What all deliveries of a sink share.
#[derive(Clone)]
struct Lane {
    name: String,
    sink: Arc<Sink>,
    settings: Settings,
    metrics: Metrics,
    /// So that the log tells when trouble begins and ends, and not each attempt.
    is_failing: Arc<AtomicBool>,
    losses: Arc<Mutex<Losses>>,
}

/// Records that were lost and not yet told in the log.
#[derive(Debug, Default)]
struct Losses {
    records: u64,
    told: Option<Instant>,
}

/// The log tells of losses at most so often: a wrong token would fill it otherwise.
const TELL_LOSSES_EVERY: Duration = Duration::from_secs(10);

/// Until all entries are finished. What is refused as a whole is halved until it is refused alone.
async fn deliver(lane: Lane, entries: Vec<InFlight>) {
    let mut groups = vec![entries];
    while let Some(group) = groups.pop() {
        match lane.attempts(group).await {
            Attempted::Finished => {}
            Attempted::Rejected { mut entries, reason } => match entries.len() {
                0 => {}
                1 => lane.reject(entries.remove(0), &reason),
                len => {
                    let second = entries.split_off(len / 2);
                    // The first half is on top, so that the order is kept.
                    groups.extend([second, entries]);
                }
            },
        }
    }
}

enum Attempted {
    Finished,
    Rejected { entries: Vec<InFlight>, reason: String },
}

impl Lane {
    /// Sends until it is delivered, refused for good, or too old.
    async fn attempts(&self, mut entries: Vec<InFlight>) -> Attempted {
        // What is on disk is kept for longer than a sink would be tried.
        let kept_for = entries.iter().filter_map(InFlight::kept_for).max().unwrap_or_default();
        let give_up = Instant::now() + self.settings.retry_for.max(kept_for);
        let mut attempt = 0;
        loop {
            let (after, reason) = match self.attempt(&entries).await {
                Ok(sent) => {
                    self.recovered();
                    if sent.presumed > 0 {
                        let labels = vec![("sink", self.name.clone())];
                        self.metrics.deliver_presumed.get_or_create(&labels).inc_by(sent.presumed);
                    }
                    finish(entries, &sent);
                    return Attempted::Finished;
                }
                Err(SendError::Reject { reason }) => {
                    self.recovered();
                    return Attempted::Rejected { entries, reason };
                }
                Err(SendError::Retry { after, reason }) => (after, reason),
            };
            self.failed(&reason);
            // Part of it may have arrived.
            entries.iter_mut().for_each(|in_flight| in_flight.is_resend = true);
            let pause = self.settings.backoff.pause(attempt, after, backoff::random());
            if Instant::now() + pause >= give_up {
                self.expire(entries);
                return Attempted::Finished;
            }
            sleep(pause).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, entries: &[InFlight]) -> Result<Sent, SendError> {
        let Some(first) = entries.first() else { return Ok(Sent::default()) };
        let sending =
            |in_flight: &InFlight| Sending { entry: in_flight.entry.clone(), is_resend: in_flight.is_resend };
        let delivery =
            Delivery { signal: first.entry.signal, entries: entries.iter().map(sending).collect() };
        let answer = timeout(self.settings.attempt_timeout, self.sink.send(&delivery)).await;
        let answer = answer
            .unwrap_or_else(|_| Err(SendError::Retry { after: None, reason: "no answer in time".into() }));
        let result = match &answer {
            Ok(_) => "ok",
            Err(SendError::Retry { .. }) => "retry",
            Err(SendError::Reject { .. }) => "reject",
        };
        let labels = vec![("sink", self.name.clone()), ("result", result.to_owned())];
        self.metrics.deliver_attempts.get_or_create(&labels).inc();
        answer
    }

    fn reject(&self, in_flight: InFlight, reason: &str) {
        let records = in_flight.entry.records;
        self.tell_lost(records.into(), reason);
        self.sink.skip(&in_flight.entry);
        in_flight.finish(&Done::rejected(records, "refused"));
    }

    fn expire(&self, entries: Vec<InFlight>) {
        let records = entries.iter().map(|in_flight| u64::from(in_flight.entry.records)).sum();
        self.tell_lost(records, "not taken in time");
        for in_flight in entries {
            self.sink.skip(&in_flight.entry);
            let done = Done::expired(in_flight.entry.records, "age");
            in_flight.finish(&done);
        }
    }

    fn tell_lost(&self, records: u64, reason: &str) {
        let mut losses = self.losses.lock().expect("nothing panics while losses are counted");
        losses.records += records;
        let now = Instant::now();
        if losses.told.is_none_or(|told| now - told >= TELL_LOSSES_EVERY) {
            let records = std::mem::take(&mut losses.records);
            losses.told = Some(now);
            tracing::warn!(sink = self.name, records, reason, "records are lost for this sink");
        }
    }

    fn failed(&self, reason: &str) {
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(sink = self.name, reason, "the sink does not take data; trying again");
        }
    }

    fn recovered(&self) {
        if self.is_failing.swap(false, Ordering::Relaxed) {
            tracing::info!(sink = self.name, "the sink takes data again");
        }
    }
}

/// Counts an answer: what it names by number, then what it only counts, in order; the rest was delivered.
fn finish(entries: Vec<InFlight>, sent: &Sent) {
    // By the first number of its entry: the reason, or that the sink has no form for it.
    let mut named: HashMap<u64, Vec<Option<&'static str>>> = HashMap::new();
    let rejected = sent.rejected.iter().map(|(number, reason)| (*number, Some(*reason)));
    for (number, reason) in rejected.chain(sent.unsupported_named.iter().map(|number| (*number, None))) {
        // Entries stand in the order of their numbers.
        let after = entries.partition_point(|in_flight| in_flight.entry.first <= number);
        let entry = after.checked_sub(1).and_then(|at| entries.get(at)).map(|in_flight| &in_flight.entry);
        // A number that is in none of them is not believed.
        if let Some(entry) = entry.filter(|entry| number - entry.first < u64::from(entry.records)) {
            named.entry(entry.first).or_default().push(reason);
        }
    }
    let (mut unnamed, mut unsupported) = (sent.rejected_unnamed, sent.unsupported);
    for in_flight in entries {
        let mut left = u64::from(in_flight.entry.records);
        let mut done = Done::default();
        for reason in named.remove(&in_flight.entry.first).unwrap_or_default() {
            let count = match reason {
                Some(reason) => done.rejected.entry(reason.into()).or_default(),
                None => &mut done.unsupported,
            };
            *count += take(&mut left, &mut 1);
        }
        let refused = take(&mut left, &mut unnamed);
        if refused > 0 {
            *done.rejected.entry("refused".into()).or_default() += refused;
        }
        done.unsupported += take(&mut left, &mut unsupported);
        done.delivered = left;
        in_flight.finish(&done);
    }
}

/// Moves as much as both have.
fn take(left: &mut u64, from: &mut u64) -> u64 {
    let taken = (*left).min(*from);
    *left -= taken;
    *from -= taken;
    taken
}
