//! When a sink may be asked: what all of its deliveries know of its state.
//!
//! After a few failures in a row the circuit opens: one delivery at a time asks the sink, after a pause that grows, and
//! the others wait for what it hears. The first answer closes it, a refusal too: somebody is there. A time that the
//! server asked for holds for every delivery, whoever heard it.

use crate::net::backoff::{self, Backoff};
use crate::telemetry::Metrics;
use prometheus_client::metrics::gauge::Gauge;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

/// Failures in a row, of all deliveries together, until it opens: more than the deliveries that are usually on the way
/// when a connection ends.
const FAILURES_MAX: u32 = 5;

/// Longer than this no server is left alone, whatever it asked for: it may have been a mistake.
const ASKED_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct Circuit {
    sink: String,
    backoff: Backoff,
    gauge: Gauge,
    state: watch::Sender<State>,
    /// Held by the one who asks while it is open.
    probe: Semaphore,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    is_open: bool,
    /// Of the next pause while it is open.
    attempt: u32,
    /// While it is open.
    probe_at: Option<Instant>,
    /// The server wants to be left alone until then.
    asked_until: Option<Instant>,
}

/// The right to one attempt. Dropped without a result, another may have it.
#[derive(Debug)]
pub(super) struct Turn<'c> {
    probe: Option<SemaphorePermit<'c>>,
}

impl Circuit {
    pub(super) fn new(sink: &str, backoff: Backoff, metrics: &Metrics) -> Circuit {
        let labels = vec![("sink", sink.to_owned())];
        let gauge = metrics.deliver_circuit_open.get_or_create(&labels).clone();
        gauge.set(0);
        let (state, _) = watch::channel(State::default());
        Circuit { sink: sink.to_owned(), backoff, gauge, state, probe: Semaphore::new(1) }
    }

    /// Waits until the sink may be asked; in order while the circuit is open.
    pub(super) async fn turn(&self) -> Turn<'_> {
        let mut changes = self.state.subscribe();
        let mut probe = None;
        loop {
            let state = *changes.borrow_and_update();
            if !state.is_open {
                probe = None;
            } else if probe.is_none() {
                // The place in the line is kept while probes fail.
                tokio::select! {
                    biased;
                    permit = self.probe.acquire() => probe = permit.ok(),
                    _ = changes.wait_for(|state| !state.is_open) => {}
                }
                continue;
            }
            let probe_at = state.probe_at.filter(|_| state.is_open);
            match state.asked_until.max(probe_at).filter(|at| *at > Instant::now()) {
                None => return Turn { probe },
                Some(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    _ = changes.changed() => {}
                },
            }
        }
    }

    /// The sink answered, whatever it said of what it was sent.
    pub(super) fn answered(&self, turn: Turn<'_>) {
        let mut closed = false;
        self.state.send_if_modified(|state| {
            closed = state.is_open;
            let is_changed = closed || state.failures > 0;
            *state = State { asked_until: state.asked_until, ..State::default() };
            is_changed
        });
        drop(turn);
        if closed {
            self.gauge.set(0);
            tracing::info!(sink = self.sink, "the sink takes data again");
        }
    }

    /// The attempt failed, the delivery's own number `attempt` (from 0), and the next may not be before `after`.
    pub(super) fn failed(&self, turn: Turn<'_>, attempt: u32, after: Option<Duration>, reason: &str) {
        let after = after.map(|after| after.min(ASKED_MAX));
        let mut opened = false;
        self.state.send_modify(|state| {
            let now = Instant::now();
            state.asked_until = state.asked_until.max(after.map(|after| now + after));
            // Of those that were on the way when it opened, none makes the pause longer.
            if !state.is_open || turn.probe.is_some() {
                state.failures += 1;
                opened = !state.is_open && state.failures >= FAILURES_MAX;
                state.is_open |= opened;
                // It begins where the delivery's pauses are: many that fail at once are no long outage.
                state.attempt =
                    if state.is_open && !opened { state.attempt.saturating_add(1) } else { attempt };
                let pause = self.backoff.pause(state.attempt, None, backoff::random());
                state.probe_at = Some(now + pause);
            }
        });
        drop(turn);
        if opened {
            self.gauge.set(1);
            let pauses = "one delivery at a time asks whether it does";
            tracing::warn!(sink = self.sink, reason, "the sink does not take data; {pauses}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use tokio::time::advance;

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(30) };

    fn circuit() -> (Circuit, Metrics) {
        let metrics = Metrics::new();
        (Circuit::new("a", BACKOFF, &metrics), metrics)
    }

    async fn opened() -> (Circuit, Metrics) {
        let (circuit, metrics) = circuit();
        for attempt in 0..FAILURES_MAX {
            circuit.failed(circuit.turn().await, attempt, None, "away");
        }
        (circuit, metrics)
    }

    /// Whether it has the turn already.
    async fn has_turn(turn: &mut (impl Future + Unpin)) -> bool {
        tokio::time::timeout(Duration::ZERO, turn).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn failures_with_a_success_between_do_not_open_it() {
        let (circuit, metrics) = circuit();
        for _ in 0..FAILURES_MAX * 2 {
            circuit.failed(circuit.turn().await, 0, None, "away");
            circuit.answered(circuit.turn().await);
        }
        assert!(metrics.text().contains("trommel_deliver_circuit_open{sink=\"a\"} 0"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_dropped_leaves_its_turn_to_the_next() {
        let (circuit, metrics) = opened().await;
        assert!(metrics.text().contains("trommel_deliver_circuit_open{sink=\"a\"} 1"));
        let probe = circuit.turn().await;
        let mut next = pin!(circuit.turn());
        advance(Duration::from_secs(60)).await;
        assert!(!has_turn(&mut next).await, "one at a time");
        drop(probe);
        assert!(has_turn(&mut next).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_lets_all_go_on() {
        let (circuit, _metrics) = opened().await;
        let probe = circuit.turn().await;
        let (mut second, mut third) = (pin!(circuit.turn()), pin!(circuit.turn()));
        assert!(!has_turn(&mut second).await && !has_turn(&mut third).await);
        circuit.answered(probe);
        assert!(has_turn(&mut second).await && has_turn(&mut third).await);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_those_on_the_way_when_it_opens_make_no_pause_longer() {
        let (circuit, _metrics) = circuit();
        let mut turns = Vec::new();
        for _ in 0..FAILURES_MAX + 20 {
            turns.push(circuit.turn().await);
        }
        let start = Instant::now();
        turns.into_iter().for_each(|turn| circuit.failed(turn, 4, None, "away"));
        drop(circuit.turn().await);
        // Of the fifth failure: 16 seconds, or the upper half of that.
        let pause = start.elapsed();
        assert!(pause >= Duration::from_secs(8) && pause <= Duration::from_secs(17), "{pause:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_server_is_left_alone_for_ever() {
        let (circuit, _metrics) = circuit();
        let start = Instant::now();
        circuit.failed(circuit.turn().await, 0, Some(Duration::from_secs(u64::MAX)), "busy");
        drop(circuit.turn().await);
        assert!(start.elapsed() >= ASKED_MAX && start.elapsed() < ASKED_MAX * 2);
    }
}
