//! The CPU time that a plugin may use in a second.
//!
//! It goes through a bucket that may owe: a run is begun while there is anything in it, and what it took is paid back
//! before the next begins. So each run may be as long as its own limit lets it be, and the average holds. What is owed
//! outlives a version: who swaps often pays all the same.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What may be used at once, in seconds' worth: a pause is made up for by one second.
const BURST: Duration = Duration::from_secs(1);

/// Each question says how much CPU time a second gives.
#[derive(Debug, Default)]
pub(super) struct CpuShare(Mutex<Level>);

/// In nanoseconds of CPU time; below zero it owes.
#[derive(Debug, Default)]
struct Level {
    left: i128,
    /// `None`: never used, so it is full.
    filled: Option<Instant>,
}

impl CpuShare {
    /// How long it takes until the next run may begin; `None`: it may now.
    pub(super) fn not_before(&self, per_second: Duration, now: Instant) -> Option<Duration> {
        let mut level = self.level();
        level.fill(per_second, now);
        if level.left > 0 {
            return None;
        }
        // At least one nanosecond of CPU time must be there.
        let owed = u64::try_from(1 - level.left).unwrap_or(u64::MAX);
        let per_nanosecond = per_second.as_secs_f64().max(1e-9);
        Some(Duration::from_secs_f64(Duration::from_nanos(owed).as_secs_f64() / per_nanosecond))
    }

    /// A run took so much.
    pub(super) fn used(&self, used: Duration, per_second: Duration, now: Instant) {
        let mut level = self.level();
        level.fill(per_second, now);
        level.left -= used.as_nanos() as i128;
    }

    fn level(&self) -> MutexGuard<'_, Level> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Level {
    fn fill(&mut self, per_second: Duration, now: Instant) {
        let full = worth(per_second, BURST);
        let passed = self.filled.map(|filled| now.saturating_duration_since(filled));
        self.left = passed.map_or(full, |passed| (self.left + worth(per_second, passed)).min(full));
        self.filled = self.filled.max(Some(now));
    }
}

/// CPU time, in nanoseconds, that so long a time gives.
fn worth(per_second: Duration, passed: Duration) -> i128 {
    (passed.as_nanos() as i128).saturating_mul(per_second.as_nanos() as i128) / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn what_a_run_took_too_much_is_paid_back_before_the_next() {
        let share = CpuShare::default();
        let now = Instant::now();
        assert_eq!(share.not_before(ms(100), now), None);
        share.used(ms(60), ms(100), now);
        assert_eq!(share.not_before(ms(100), now), None, "there is something left");
        share.used(ms(400), ms(100), now);
        let after = share.not_before(ms(100), now).unwrap();
        assert!((ms(3_600)..ms(3_601)).contains(&after), "{after:?}");
        assert!(share.not_before(ms(100), now + ms(3_599)).is_some());
        assert_eq!(share.not_before(ms(100), now + after), None);
    }

    #[test]
    fn what_is_owed_stays_when_the_share_becomes_another() {
        let share = CpuShare::default();
        let now = Instant::now();
        share.used(ms(1_100), ms(100), now);
        assert!(share.not_before(ms(100), now).unwrap() > ms(9_999));
        assert!(share.not_before(ms(1_000), now).unwrap() < ms(1_001));
    }

    #[test]
    fn the_average_holds_over_any_time() {
        let share = CpuShare::default();
        let start = Instant::now();
        let (mut now, mut used) = (start, Duration::ZERO);
        while now < start + ms(60_000) {
            if share.not_before(ms(250), now).is_none() {
                share.used(ms(19), ms(250), now);
                used += ms(19);
            }
            now += ms(20);
        }
        let most = ms(250) * 61 + ms(19);
        assert!(used <= most && used >= ms(250) * 60 - ms(19), "{used:?}");
    }

    #[test]
    fn a_long_pause_is_worth_one_second() {
        let share = CpuShare::default();
        let now = Instant::now();
        share.used(ms(100), ms(100), now);
        let later = now + Duration::from_secs(3600);
        share.used(ms(100), ms(100), later);
        assert!(share.not_before(ms(100), later).is_some());
        assert!(share.not_before(ms(100), now).is_some(), "a clock that goes back gives nothing");
    }
}
