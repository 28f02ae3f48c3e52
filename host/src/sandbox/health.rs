//! How the runs of a plugin went of late, and whether the next may begin.
//!
//! A run is one piece given to a plugin, with all calls that looking for the records at fault took. It failed if most
//! of its records did, by an error that costs an instance (a trap, a limit) or in which none could be made; or if its
//! time was over before the records at fault stood alone. One poisonous record among many is no failed run, and
//! neither is a plugin that says no by itself or uses a function wrongly: that is cheap, its instance lives, and the
//! policy meets the records. So who sends a bad record now and then switches off nothing. A `tick` that costs an instance
//! is a failed run too.
//!
//! After a few failed runs in a row the next one waits, for twice as long after each. When too many of the last runs
//! failed, the circuit opens: calls are not started, and after a pause one run is tried. There is one of these for each
//! tenant, so that a tenant's records switch off nobody else's plugin, and one for the whole plugin, for instances that
//! cannot be made.

use super::CircuitSettings;
use crate::telemetry::{Labels, Metrics};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The first wait, and the longest: an instance takes about a millisecond to make, and an operator who mends what it
/// needs should not wait.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Failed runs in a row for a tenant that make nobody wait: a sender tries a bad request a few times.
const TENANT_FREE: u32 = 3;
/// Of the whole plugin: that no instance can be made does not mend itself at once.
const PLUGIN_FREE: u32 = 0;

/// Of one plugin, for one tenant or for all.
#[derive(Debug)]
pub(super) struct Health {
    settings: CircuitSettings,
    free: u32,
    plugin: String,
    /// `None`: of the whole plugin.
    tenant: Option<String>,
    metrics: Metrics,
    /// Nothing is known against it: a run that goes well then costs two loads.
    is_well: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of the last runs, the latest in bit 0: 1 failed.
    recent: u64,
    /// Failed runs since the last that did not.
    in_row: u32,
    /// No run begins before.
    until: Option<Instant>,
    is_open: bool,
    /// One run is on its way to see whether it works again.
    is_tried: bool,
}

/// Why no run may begin now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotNow {
    pub(super) is_open: bool,
    pub(super) after: Duration,
}

/// The right to one run. Dropped without a result it says nothing.
#[derive(Debug)]
pub(super) struct Permit<'h> {
    health: &'h Health,
    is_trial: bool,
}

impl Health {
    pub(super) fn of_tenant(
        settings: CircuitSettings,
        plugin: &str,
        tenant: &str,
        metrics: &Metrics,
    ) -> Health {
        Health::new(settings, TENANT_FREE, plugin, Some(tenant.to_owned()), metrics)
    }

    pub(super) fn of_plugin(settings: CircuitSettings, plugin: &str, metrics: &Metrics) -> Health {
        Health::new(settings, PLUGIN_FREE, plugin, None, metrics)
    }

    fn new(
        settings: CircuitSettings,
        free: u32,
        plugin: &str,
        tenant: Option<String>,
        metrics: &Metrics,
    ) -> Health {
        let metrics = metrics.clone();
        let (is_well, state) = (AtomicBool::new(true), Mutex::default());
        Health { settings, free, plugin: plugin.to_owned(), tenant, metrics, is_well, state }
    }

    pub(super) fn begin(&self, now: Instant) -> Result<Permit<'_>, NotNow> {
        if self.is_well.load(Ordering::Acquire) {
            return Ok(Permit { health: self, is_trial: false });
        }
        let mut state = self.state();
        let is_trial = state.until.is_some();
        if let Some(not_now) = state.not_now(now) {
            return Err(not_now);
        }
        state.is_tried = is_trial;
        Ok(Permit { health: self, is_trial })
    }

    /// Why no run may begin; nothing is changed by the question.
    pub(super) fn not_now(&self, now: Instant) -> Option<NotNow> {
        if self.is_well.load(Ordering::Acquire) { None } else { self.state().not_now(now) }
    }

    pub(super) fn is_open(&self) -> bool {
        !self.is_well.load(Ordering::Acquire) && self.state().is_open
    }

    fn well(&self, is_trial: bool) {
        if self.is_well.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state();
        if state.is_open && !is_trial {
            // It began before the circuit opened.
            return;
        }
        let was_open = std::mem::take(&mut state.is_open);
        state.recent = if was_open { 0 } else { self.pushed(state.recent, false) };
        (state.in_row, state.until, state.is_tried) = (0, None, false);
        self.is_well.store(state.recent == 0, Ordering::Release);
        drop(state);
        if was_open {
            self.gauge(-1);
            let (plugin, tenant) = (&self.plugin, self.tenant.as_deref());
            tracing::info!(plugin, tenant, "the circuit of the plugin closes: it is called again");
        }
    }

    fn failed(&self, is_trial: bool, now: Instant, why: &str) {
        let mut state = self.state();
        if state.is_open && !is_trial {
            return;
        }
        state.recent = self.pushed(state.recent, true);
        state.in_row = state.in_row.saturating_add(1);
        state.is_tried = false;
        let is_opening = !state.is_open && state.recent.count_ones() >= self.settings.failures;
        state.is_open |= is_opening;
        state.until = match state.is_open {
            true => Some(now + self.settings.pause),
            false => state.in_row.checked_sub(self.free + 1).map(|attempt| now + pause(attempt)),
        };
        self.is_well.store(false, Ordering::Release);
        drop(state);
        if is_opening {
            self.gauge(1);
            self.metrics.process_circuits_opened.get_or_create(&self.labels()).inc();
            let (plugin, tenant) = (&self.plugin, self.tenant.as_deref());
            let CircuitSettings { calls, failures, pause } = self.settings;
            tracing::warn!(
                plugin,
                tenant,
                why,
                "the circuit of the plugin opens: {failures} of its last {calls} runs failed; it is tried again in {pause:?}"
            );
        }
    }

    fn pushed(&self, recent: u64, is_failed: bool) -> u64 {
        let mask = u64::MAX >> 64_u32.saturating_sub(self.settings.calls).min(63);
        (recent << 1 | u64::from(is_failed)) & mask
    }

    fn gauge(&self, by: i64) {
        self.metrics.process_circuits_open.get_or_create(&self.labels()).inc_by(by);
    }

    fn labels(&self) -> Labels {
        vec![("plugin", self.plugin.clone())]
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn not_now(&self, now: Instant) -> Option<NotNow> {
        let until = self.until?;
        let after = until.saturating_duration_since(now);
        let is_waiting = self.is_tried || !after.is_zero();
        // Whoever waits for a trial waits as long as a call may take, about.
        let after = after.max(Duration::from_millis(100));
        is_waiting.then_some(NotNow { is_open: self.is_open, after })
    }
}

impl Permit<'_> {
    pub(super) fn well(mut self) {
        self.health.well(std::mem::take(&mut self.is_trial));
    }

    /// `why` is for the log.
    pub(super) fn failed(mut self, now: Instant, why: &str) {
        self.health.failed(std::mem::take(&mut self.is_trial), now, why);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.is_trial {
            self.health.state().is_tried = false;
        }
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        if self.is_open() {
            self.gauge(-1);
        }
    }
}

/// Doubles, and is drawn from the upper half, so that many do not come back together.
fn pause(attempt: u32) -> Duration {
    let whole = PAUSE_FIRST.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(PAUSE_MAX);
    let random = RandomState::new().hash_one(attempt);
    whole / 2 + (whole / 2).mul_f64((random >> 32) as f64 / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: CircuitSettings =
        CircuitSettings { calls: 6, failures: 3, pause: Duration::from_secs(10) };

    fn health(settings: CircuitSettings) -> (Health, Metrics) {
        let metrics = Metrics::new();
        (Health::of_tenant(settings, "p", "acme", &metrics), metrics)
    }

    fn open(metrics: &Metrics) -> i64 {
        metrics.process_circuits_open.get_or_create(&vec![("plugin", "p".to_owned())]).get()
    }

    /// A run at this time; what kept it from beginning.
    fn run(health: &Health, now: Instant, is_well: bool) -> Option<NotNow> {
        match health.begin(now) {
            Ok(permit) if is_well => permit.well(),
            Ok(permit) => permit.failed(now, "trap"),
            Err(not_now) => return Some(not_now),
        }
        None
    }

    #[test]
    fn the_circuit_opens_at_its_rate_and_one_run_closes_it() {
        let (health, metrics) = health(SETTINGS);
        let now = Instant::now();
        let after = |seconds: u64| now + Duration::from_secs(seconds);
        for is_well in [false, true, true, true, false, true, true, true, false, true, true, false] {
            assert_eq!(run(&health, now, is_well), None, "two of the last six at most");
        }
        assert_eq!(run(&health, now, false), None);
        assert!(health.is_open());
        assert_eq!(open(&metrics), 1);
        let not_now = NotNow { is_open: true, after: Duration::from_secs(10) };
        assert_eq!(run(&health, now, true), Some(not_now));
        // One is tried, and the others wait for it.
        let trial = health.begin(after(10)).unwrap();
        assert!(run(&health, after(10), true).unwrap().is_open);
        trial.failed(after(10), "trap");
        assert!(run(&health, after(19), true).is_some());
        assert_eq!(open(&metrics), 1);
        drop(health.begin(after(20)).unwrap());
        assert_eq!(run(&health, after(20), true), None, "one that said nothing is no trial");
        assert!(!health.is_open());
        assert_eq!(open(&metrics), 0);
        assert_eq!(run(&health, after(20), false), None, "it begins anew");
        assert_eq!(run(&health, after(20), false), None);
        assert!(!health.is_open());
    }

    #[test]
    fn a_run_that_began_before_it_opened_changes_nothing() {
        let (health, _) = health(SETTINGS);
        let now = Instant::now();
        let early = [health.begin(now).unwrap(), health.begin(now).unwrap()];
        (0..3).for_each(|_| assert_eq!(run(&health, now, false), None));
        let [one, two] = early;
        one.well();
        two.failed(now + Duration::from_secs(9), "trap");
        assert!(health.is_open());
        assert_eq!(run(&health, now + Duration::from_secs(10), true), None);
    }

    #[test]
    fn after_a_few_failures_in_a_row_the_next_run_waits_longer_and_longer() {
        let (health, metrics) = health(CircuitSettings { calls: 64, failures: 64, ..SETTINGS });
        let mut now = Instant::now();
        (0..TENANT_FREE).for_each(|_| assert_eq!(run(&health, now, false), None));
        let mut waited = Duration::ZERO;
        for attempt in 0..20 {
            assert_eq!(run(&health, now, false), None);
            assert!(!health.not_now(now).unwrap().is_open);
            let before = now;
            while health.not_now(now).is_some() {
                now += Duration::from_millis(1);
            }
            waited = now - before;
            let whole = PAUSE_FIRST.saturating_mul(1 << attempt).min(PAUSE_MAX);
            assert!(
                (whole / 2..=whole + Duration::from_millis(1)).contains(&waited),
                "{attempt}: {waited:?}"
            );
        }
        assert!(waited >= PAUSE_MAX / 2);
        assert_eq!(run(&health, now, true), None);
        assert_eq!(run(&health, now, false), None);
        assert_eq!(health.not_now(now), None, "it begins anew");
        assert_eq!(open(&metrics), 0);
    }

    #[test]
    fn instances_that_cannot_be_made_are_waited_for_at_once() {
        let metrics = Metrics::new();
        let health = Health::of_plugin(SETTINGS, "p", &metrics);
        let now = Instant::now();
        assert_eq!(run(&health, now, false), None);
        assert!(health.not_now(now).is_some());
        let soon = now + PAUSE_FIRST;
        assert_eq!(run(&health, soon, true), None);
        assert_eq!(health.not_now(soon), None);
    }

    #[test]
    fn a_plugin_that_is_gone_has_no_open_circuit() {
        let (health, metrics) = health(SETTINGS);
        (0..3).for_each(|_| assert_eq!(run(&health, Instant::now(), false), None));
        assert_eq!(open(&metrics), 1);
        drop(health);
        assert_eq!(open(&metrics), 0);
    }
}
