//! Telling: each channel by its own task, so that a dead one delays no other.

use super::Alerts;
use super::channel::{CallError, Channel, Pace};
use super::incidents::{Handle, Next, Outcome, Tell};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// A call that takes longer will not be answered.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// At the end what is due is tried for so long, then left.
const LAST_MOMENT: Duration = Duration::from_secs(2);
/// How often it is looked for incidents that are over.
const TICK: Duration = Duration::from_secs(1);
/// Dropped alerts are said once in so long.
const SAID_INTERVAL: Duration = Duration::from_secs(60);

/// A channel, and what its task needs.
#[derive(Debug)]
pub(super) struct Seat {
    name: String,
    per_minute: u32,
    pub(super) wake: Notify,
    /// Only its task takes it.
    channel: Mutex<Channel>,
}

impl Seat {
    pub(super) fn new(name: &str, per_minute: u32, channel: Channel) -> Seat {
        Seat { name: name.to_owned(), per_minute, wake: Notify::new(), channel: Mutex::new(channel) }
    }
}

impl Alerts {
    /// Tells the channels until `stop`, then what is due for a moment more. What is left then is counted.
    ///
    /// Cancelled, it leaves at once what it was telling.
    pub async fn run(self: Arc<Alerts>, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for channel in 0..self.channels.len() {
            tasks.spawn(self.clone().serve_until_left(channel, stop.clone()));
        }
        tasks.spawn(self.clone().tick_until(stop));
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a channel's task failed");
            }
        }
        for (channel, seat) in self.channels.iter().enumerate() {
            let incidents = self.lock().count_left(channel);
            if incidents > 0 {
                tracing::warn!(channel = seat.name, incidents, "stopped before all was told");
            }
        }
    }

    async fn tick_until(self: Arc<Alerts>, stop: CancellationToken) {
        let mut said = None;
        while stop.run_until_cancelled(sleep(TICK)).await.is_some() {
            while self.expire() {
                tokio::task::yield_now().await;
            }
            if said.is_none_or(|said: Instant| said.elapsed() >= SAID_INTERVAL) && self.say_dropped() {
                said = Some(Instant::now());
            }
        }
    }

    fn expire(&self) -> bool {
        let mut incidents = self.lock();
        let is_more = incidents.expire(Instant::now());
        self.wake(incidents.take_stirred());
        is_more
    }

    fn say_dropped(&self) -> bool {
        let dropped = self.lock().take_dropped();
        for (reason, alerts) in &dropped {
            tracing::warn!(alerts, reason, "alerts suppressed: more came than is kept");
        }
        !dropped.is_empty()
    }

    async fn serve_until_left(self: Arc<Alerts>, channel: usize, stop: CancellationToken) {
        let moment = async {
            stop.cancelled().await;
            sleep(LAST_MOMENT).await;
        };
        tokio::select! {
            () = self.serve(channel, &stop) => {}
            () = moment => {}
        }
    }

    async fn serve(&self, number: usize, stop: &CancellationToken) {
        let seat = &self.channels[number];
        let mut channel = seat.channel.lock().await;
        let mut pace = Pace::new(seat.per_minute);
        loop {
            let (now, is_last) = (Instant::now(), stop.is_cancelled());
            let allowance = pace.allowance(now);
            let next = {
                let mut incidents = self.lock();
                let next = incidents.next(number, now, allowance, is_last);
                self.wake(incidents.take_stirred());
                next
            };
            match next {
                Next::Again => tokio::task::yield_now().await,
                Next::Tell(tell) => {
                    pace.spend(now);
                    let answer = call(&mut channel, &seat.name, &tell).await;
                    self.settle(number, &mut pace, &tell, answer);
                }
                Next::Wait { is_held: false, .. } if is_last => return,
                Next::Wait { due, is_held } => {
                    let more_at = pace.more_at(now).filter(|_| is_held);
                    let until = due.into_iter().chain(more_at).min();
                    tokio::select! {
                        () = stop.cancelled(), if !is_last => {}
                        () = seat.wake.notified() => {}
                        () = sleep_until(until.unwrap_or(now)), if until.is_some() => {}
                    }
                }
            }
        }
    }

    /// What an answer means for the channel and for the incident.
    fn settle(&self, number: usize, pace: &mut Pace, tell: &Tell, answer: Result<Option<Handle>, CallError>) {
        let name = &self.channels[number].name;
        let now = Instant::now();
        let (result, outcome) = match answer {
            Ok(handle) => ("ok", Outcome::Told(handle)),
            Err(CallError::Moved) => ("moved", Outcome::Retry("moved")),
            Err(CallError::Gone) => ("gone", Outcome::Anew),
            Err(CallError::Markup) => ("markup", Outcome::Plain),
            Err(CallError::Refused { reason }) => {
                if pace.refuse(now) {
                    tracing::warn!(channel = name, reason, "alerts refused; see trommel_alerts_calls_total");
                }
                ("refused", Outcome::Refused("refused"))
            }
            Err(CallError::Retry { after, word, reason }) => {
                if pace.pause(now, after, false) {
                    tracing::warn!(channel = name, reason, "alerts cannot be told; trying on");
                }
                (word, Outcome::Retry("failing"))
            }
            Err(CallError::Parked { reason }) => {
                if pace.pause(now, None, true) {
                    tracing::error!(
                        channel = name,
                        reason,
                        "alerts cannot be told until somebody puts it right"
                    );
                }
                ("parked", Outcome::Retry("parked"))
            }
        };
        let is_answered = !matches!(outcome, Outcome::Retry("failing" | "parked"));
        if is_answered && pace.succeed() {
            tracing::info!(channel = name, "alerts are told again");
        }
        let labels = vec![("channel", name.clone()), ("result", result.to_owned())];
        self.metrics.alerts_calls.get_or_create(&labels).inc();
        self.lock().done(number, tell, outcome, now);
    }
}

async fn call(channel: &mut Channel, name: &str, tell: &Tell) -> Result<Option<Handle>, CallError> {
    timeout(CALL_TIMEOUT, channel.tell(name, tell)).await.unwrap_or_else(|_| {
        Err(CallError::Retry { after: None, word: "retry", reason: "no answer in time".into() })
    })
}
