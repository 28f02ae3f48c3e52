//! Whether a service still sends one signal: how long its pauses are by habit, and when one is too long for that.
//!
//! Logs come in each window, metrics of most SDKs once a minute, and a service at night when it likes. A pause is
//! told when it is longer than the usual one by far more than pauses vary.

use crate::service::Span;
use crate::settings::Settings;
use serde::{Deserialize, Serialize};

/// Pauses that are remembered; the weight of older ones fades.
const REMEMBERED: f32 = 60.0;
/// How many times the spread of its pauses one must be longer than the usual. If each window holds something by chance,
/// one in 500 million pauses is as long.
const UNUSUAL: f32 = 20.0;
/// One that would have to be silent for ten minutes before it is news speaks too seldom.
const PATIENCE_MAX: u32 = 60;
/// A signal that was gone for a day is forgotten.
const FORGOTTEN_AFTER: u32 = 8_640;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Presence {
    /// Windows in which something came.
    spoken: u32,
    /// The end of the last of them.
    pub(crate) seen_ns: u64,
    /// From one to the next, in windows: the mean, and the mean square of what differs from it.
    gap: f32,
    variance: f32,
    /// Windows without, up to now.
    silent_windows: u32,
    pub(crate) is_silent: bool,
}

impl Presence {
    /// Takes the next window. True if it is silent from now on.
    pub(crate) fn step(&mut self, settings: &Settings, span: Span, spoke: bool) -> bool {
        if spoke {
            // A silence that was told is an incident, no habit.
            if !self.is_silent && self.spoken > 0 {
                self.learn(self.silent_windows + 1);
            }
            self.is_silent = false;
            self.silent_windows = 0;
            self.spoken = self.spoken.saturating_add(1);
            self.seen_ns = span.end_ns;
            return false;
        }
        if self.spoken == 0 {
            return false;
        }
        self.silent_windows = self.silent_windows.saturating_add(1);
        if self.silent_windows >= FORGOTTEN_AFTER {
            *self = Presence::default();
            return false;
        }
        let is_news = !self.is_silent
            && self.spoken >= settings.spoken_windows
            && self.patience(settings).is_some_and(|windows| self.silent_windows == windows);
        self.is_silent |= is_news;
        is_news
    }

    fn learn(&mut self, gap: u32) {
        let (gap, weight) = (gap as f32, 1.0 / (self.spoken as f32).min(REMEMBERED));
        let off = gap - self.gap;
        self.gap += weight * off;
        self.variance += weight * ((1.0 - weight) * off * off - self.variance);
    }

    /// Windows without anything that are news; `None` if so many are that none is.
    fn patience(&self, settings: &Settings) -> Option<u32> {
        // Even if all were alike, one that is left out is no silence.
        let unusual = (2.0 * self.gap + UNUSUAL * self.variance.max(0.0).sqrt()).ceil();
        let windows = if unusual < PATIENCE_MAX as f32 { unusual as u32 } else { PATIENCE_MAX };
        (windows < PATIENCE_MAX).then_some(windows.max(settings.silence_windows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After so many windows, of which `speaks` tells whether something came, how long a silence is told.
    fn patience(windows: u32, speaks: impl Fn(u32) -> bool) -> Option<u32> {
        let (settings, span) = (Settings::default(), Span { start_ns: 0, end_ns: 1 });
        let mut presence = Presence::default();
        for window in 0..windows {
            assert!(!presence.step(&settings, span, speaks(window)), "{window}");
        }
        presence.step(&settings, span, true);
        (1..200).find(|_| presence.step(&settings, span, false))
    }

    #[test]
    fn the_longer_the_usual_pauses_the_longer_is_a_silence() {
        assert_eq!(patience(100, |_| true), Some(6));
        assert_eq!(patience(600, |window| window % 6 == 0), Some(12), "metrics once a minute");
        assert_eq!(patience(600, |window| window % 10 < 8), Some(17), "pauses of two windows");
        assert_eq!(patience(600, |window| window % 40 == 0), None, "too seldom");
        assert_eq!(patience(28, |_| true), None, "seen for too short");
    }
}
