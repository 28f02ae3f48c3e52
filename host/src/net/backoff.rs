//! How long to wait before the next attempt.

use std::time::Duration;

/// Doubling pauses with jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Before the first retry.
    pub first: Duration,
    /// Never longer, unless the server asked for it.
    pub most: Duration,
}

impl Backoff {
    /// Time to wait before attempt `attempt` (0 = the first retry).
    ///
    /// Doubles from `first` up to `most`, then is drawn evenly from the upper half, so that many collectors do not
    /// return together. At least `asked`, if the server asked for a time. `random` is any evenly drawn number.
    /// Source: OTLP specification, "OTLP/gRPC Throttling".
    pub fn pause(&self, attempt: u32, asked: Option<Duration>, random: u64) -> Duration {
        let whole = self.first.saturating_mul(1u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(self.most);
        let half = whole / 2;
        let share = (random >> 32) as f64 / f64::from(u32::MAX);
        let drawn = half + half.mul_f64(share);
        drawn.max(asked.unwrap_or_default())
    }
}

/// A time between `least` and `most`, drawn evenly, so that those who are sent away do not return together.
pub fn drawn(least: Duration, most: Duration) -> Duration {
    let share = (random() >> 32) as f64 / f64::from(u32::MAX);
    least + most.saturating_sub(least).mul_f64(share)
}

/// A number drawn evenly; good for spreading in time, not for secrets.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // Keys are random per thread and differ from call to call.
    RandomState::new().hash_one(0u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_most_and_stay_in_the_upper_half() {
        let backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(30) };
        for (attempt, whole) in [(0, 1), (1, 2), (4, 16), (5, 30), (31, 30), (u32::MAX, 30)] {
            let whole = Duration::from_secs(whole);
            assert_eq!(backoff.pause(attempt, None, 0), whole / 2, "attempt {attempt}");
            assert_eq!(backoff.pause(attempt, None, u64::MAX), whole, "attempt {attempt}");
        }
        let asked = Some(Duration::from_secs(60));
        assert_eq!(backoff.pause(0, asked, 0), Duration::from_secs(60));
    }

    #[test]
    fn a_drawn_time_stays_in_its_range_and_differs() {
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(5));
        let drawn: Vec<Duration> = (0..100).map(|_| drawn(least, most)).collect();
        assert!(drawn.iter().all(|time| (least..=most).contains(time)), "{drawn:?}");
        assert!(drawn.iter().min() < drawn.iter().max());
        assert!(drawn.iter().any(|time| *time < least * 3) && drawn.iter().any(|time| *time > least * 3));
    }
}
