//! What all deliveries of a sink share: attempts, pauses, and what becomes of what is not taken.

use super::Settings;
use super::circuit::Circuit;
use super::work::Part;
use crate::batch::Entry;
use crate::journal::{DeadLetters, Done};
use crate::net::backoff;
use crate::sinks::{Delivery, SendError, Sent, Sink};
use crate::telemetry::Metrics;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout, timeout_at};

#[derive(Clone)]
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) sink: Arc<Sink>,
    pub(super) settings: Settings,
    /// `None`: what is refused for good is gone.
    letters: Option<Arc<DeadLetters>>,
    metrics: Metrics,
    circuit: Arc<Circuit>,
    losses: Arc<Mutex<Losses>>,
    kept: Arc<Mutex<Losses>>,
}

/// Records that were lost, or kept as dead letters, and not yet told in the log.
#[derive(Debug, Default)]
struct Losses {
    records: u64,
    told: Option<Instant>,
}

/// The log tells of losses at most so often: a wrong token would fill it otherwise.
const TELL_LOSSES_EVERY: Duration = Duration::from_secs(10);

/// What became of a group of parts.
pub(super) enum Attempted {
    Taken(Sent),
    /// They were not taken in time.
    Expired,
    /// Less at once may be taken.
    Smaller,
    /// As [`SendError::Reject`].
    Rejected {
        reason: &'static str,
        message: String,
    },
    /// As [`SendError::RejectAny`].
    RejectedAny {
        reason: &'static str,
        message: String,
    },
}

impl Lane {
    pub(super) fn new(
        name: String,
        sink: Arc<Sink>,
        settings: Settings,
        letters: Option<Arc<DeadLetters>>,
        metrics: Metrics,
    ) -> Lane {
        let circuit = Arc::new(Circuit::new(&name, settings.backoff, &metrics));
        Lane { name, sink, settings, letters, metrics, circuit, losses: Arc::default(), kept: Arc::default() }
    }

    /// Sends until it is taken, refused for good, or too old; with `can_be_halved`, also until less is to be sent.
    pub(super) async fn attempts(&self, group: &mut [Part], can_be_halved: bool) -> Attempted {
        // What is on disk is tried for as long as it is kept.
        let kept_for = group.iter().filter_map(|part| part.kept_for).max();
        let until = Instant::now() + kept_for.unwrap_or(self.settings.retry_for);
        let mut attempt = 0;
        loop {
            let Ok(turn) = timeout_at(until, self.circuit.turn()).await else { return Attempted::Expired };
            let (after, reason) = match self.attempt(group).await {
                Ok(sent) => {
                    self.circuit.answered(turn);
                    if sent.presumed > 0 {
                        let labels = vec![("sink", self.name.clone())];
                        self.metrics.deliver_presumed.get_or_create(&labels).inc_by(sent.presumed);
                    }
                    return Attempted::Taken(sent);
                }
                Err(SendError::Reject { reason, message }) => {
                    self.circuit.answered(turn);
                    return Attempted::Rejected { reason, message };
                }
                Err(SendError::RejectAny { reason, message }) => {
                    self.circuit.answered(turn);
                    return Attempted::RejectedAny { reason, message };
                }
                Err(SendError::RetrySmaller { .. }) if can_be_halved => {
                    self.circuit.answered(turn);
                    return Attempted::Smaller;
                }
                Err(SendError::RetrySmaller { reason }) => (None, reason),
                Err(SendError::Retry { after, reason }) => (after, reason),
            };
            self.circuit.failed(turn, attempt, after, &reason);
            // Part of it may have arrived.
            group.iter_mut().for_each(|part| part.sending.is_resend = true);
            let pause = self.settings.backoff.pause(attempt, after, backoff::random());
            if Instant::now() + pause >= until {
                return Attempted::Expired;
            }
            sleep(pause).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, group: &[Part]) -> Result<Sent, SendError> {
        let Some(first) = group.first() else { return Ok(Sent::default()) };
        let signal = first.sending.entry.signal;
        let delivery = Delivery { signal, entries: group.iter().map(|part| part.sending.clone()).collect() };
        let answer = timeout(self.settings.attempt_timeout, self.sink.send(&delivery)).await;
        let answer = answer
            .unwrap_or_else(|_| Err(SendError::Retry { after: None, reason: "no answer in time".into() }));
        let result = match &answer {
            Ok(_) => "ok",
            Err(SendError::Retry { .. } | SendError::RetrySmaller { .. }) => "retry",
            Err(SendError::Reject { .. } | SendError::RejectAny { .. }) => "reject",
        };
        let labels = vec![("sink", self.name.clone()), ("result", result.to_owned())];
        self.metrics.deliver_attempts.get_or_create(&labels).inc();
        answer
    }

    /// All records of `entry` were refused for good. What to count for them.
    ///
    /// The one place where refused records end, but for those that an answer only counts. `reason` is a fixed word,
    /// `message` what the server says, or empty.
    ///
    /// A dead letter is safe before they are finished in the journal: they may be kept twice, and never not at all.
    pub(super) async fn give_up(&self, entry: &Entry, reason: &'static str, message: &str) -> Done {
        if let Some(letters) = &self.letters
            && letters.keep(&self.name, entry, reason, message).await.is_ok()
        {
            // The letter has the words of the server.
            if let Some(records) = told(&self.kept, entry.records.into()) {
                tracing::warn!(sink = self.name, records, reason, "the sink refuses records: dead letters");
            }
            return Done::dead_lettered(entry.records, reason);
        }
        // Not the words of the server: they may quote what a tenant sent.
        self.tell_lost(entry.records.into(), reason);
        Done::rejected(entry.records, reason)
    }

    /// What to count for each.
    pub(super) fn expire(&self, group: &[Part]) -> Vec<Done> {
        let records = group.iter().map(|part| u64::from(part.sending.entry.records)).sum();
        self.tell_lost(records, "not taken in time");
        let expire = |part: &Part| {
            let entry = &part.sending.entry;
            self.sink.skip(entry);
            Done::expired(entry.records, "age")
        };
        group.iter().map(expire).collect()
    }

    fn tell_lost(&self, records: u64, reason: &str) {
        if let Some(records) = told(&self.losses, records) {
            tracing::warn!(sink = self.name, records, reason, "records are lost for this sink");
        }
    }
}

/// How many records the log is to be told of now, with those that it was not told of before.
fn told(losses: &Mutex<Losses>, records: u64) -> Option<u64> {
    let mut losses = losses.lock().expect("nothing panics while losses are counted");
    losses.records += records;
    let now = Instant::now();
    let is_due = losses.told.is_none_or(|told| now - told >= TELL_LOSSES_EVERY);
    is_due.then(|| {
        losses.told = Some(now);
        std::mem::take(&mut losses.records)
    })
}
