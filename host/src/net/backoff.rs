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
