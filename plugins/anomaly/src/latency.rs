//! How long the requests of a service take: median and 95th percentile of a window against those before.
//!
//! A window gives the number of requests in each of 32 buckets, of which each is 1.41 times as long as the one
//! before (see `value`), so what is compared are logarithms. Windows with few spans are put together until there are enough.

use crate::level::Level;
use crate::service::Span;
use crate::settings::Settings;
use crate::watch::{Distance, Watch};
use serde::{Deserialize, Serialize};

/// In the sums of the collector a bucket ends at twice its begin: of a square that is 1.41 times the duration.
/// 32 buckets go from 0.125 ms to 8 s.
const UNIT_MS: f64 = 32.0;
const BUCKETS: usize = 32;
/// Windows that are put together, at most: what is slower to come tells nothing of now.
const POOLED_MAX: u32 = 30;
/// What a quantile strays by the width of the buckets alone; in octaves, as all that follows.
const SPREAD_MIN: f64 = 0.1;
/// How many times the usual spread a quantile must be above the usual.
const UNUSUAL: f64 = 4.0;
/// Of the distance at which an alert opens, what keeps it open.
const KEPT_OPEN: f64 = 0.5;

/// What `process` adds for a request of so many nanoseconds.
pub(crate) fn value(duration_ns: u64) -> f64 {
    (duration_ns as f64 / 1e6 / UNIT_MS).powi(2)
}

/// The number of requests by bucket.
pub(crate) type Buckets = [u64; BUCKETS];

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) watch: Watch,
    /// In octaves of a millisecond.
    median: Level,
    tail: Level,
    /// Buckets of windows that had too few spans, and how many windows.
    pooled: Vec<(u8, u32)>,
    windows: u32,
}

impl Latency {
    pub(crate) fn step(&mut self, settings: &Settings, span: Span, happened: Option<&Buckets>) {
        let has_past = self.median != Level::default() || !self.pooled.is_empty();
        if happened.is_none() && !has_past {
            return;
        }
        if self.watch.pass() {
            (self.median, self.tail) = Default::default();
        }
        self.windows = self.windows.saturating_add(1);
        let mut buckets = happened.copied().unwrap_or_default();
        for (at, count) in &self.pooled {
            buckets[usize::from(*at) % BUCKETS] += u64::from(*count);
        }
        let spans: u64 = buckets.iter().fold(0, |sum, count| sum.saturating_add(*count));
        if spans < settings.min_spans && self.windows < POOLED_MAX {
            let some = (0..).zip(&buckets).filter(|(_, count)| **count > 0);
            self.pooled = some.map(|(at, count)| (at, u32::try_from(*count).unwrap_or(u32::MAX))).collect();
            return;
        }
        self.pooled.clear();
        let windows = std::mem::take(&mut self.windows);
        match spans < settings.min_spans {
            true => self.watch.end(),
            false => self.judge(settings, span, windows, &buckets),
        }
    }

    fn judge(&mut self, settings: &Settings, span: Span, windows: u32, buckets: &Buckets) {
        let (median, tail) = (quantile(buckets, 0.5), quantile(buckets, 0.95));
        let is_judged = self.watch.is_grown(settings) && self.median.is_learned();
        let distance = match is_judged {
            true => distance(settings, &self.median, median).max(distance(settings, &self.tail, tail)),
            false => Distance::Near,
        };
        let usual = (self.median.usual().exp2(), self.tail.usual().exp2());
        self.watch.take(settings, span, windows, distance, usual, (median.exp2(), tail.exp2()));
        if !self.watch.is_open() {
            self.median.learn(median, SPREAD_MIN);
            self.tail.learn(tail, SPREAD_MIN);
        }
    }
}

fn distance(settings: &Settings, level: &Level, now: f64) -> Distance {
    let far = settings.latency_factor.log2().max(UNUSUAL * level.spread(SPREAD_MIN));
    match now - level.usual() {
        above if above >= far => Distance::Far,
        above if above >= far * KEPT_OPEN => Distance::Between,
        _ => Distance::Near,
    }
}

/// The octave of a millisecond below which this share of the requests took; even within a bucket.
fn quantile(buckets: &Buckets, share: f64) -> f64 {
    let all: f64 = buckets.iter().map(|count| *count as f64).sum();
    let mut below = 0.0;
    for (at, count) in buckets.iter().map(|count| *count as f64).enumerate() {
        if count > 0.0 && below + count >= share * all {
            let within = (share * all - below) / count;
            return (at as f64 + within - 16.0) / 2.0 + UNIT_MS.log2();
        }
        below += count;
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(durations_ms: &[f64]) -> Buckets {
        let mut buckets = [0; BUCKETS];
        for ms in durations_ms {
            let at = value((ms * 1e6) as u64).log2().floor() + 16.0;
            buckets[at.clamp(0.0, 31.0) as usize] += 1;
        }
        buckets
    }

    #[test]
    fn a_quantile_is_within_a_bucket_of_what_it_is() {
        for ms in [0.2, 1.0, 17.0, 400.0, 7_000.0] {
            let median = quantile(&of(&[ms; 99]), 0.5).exp2();
            assert!((ms / 1.42..ms * 1.42).contains(&median), "{ms} {median}");
        }
        let mixed: Vec<f64> = (1..=1_000).map(f64::from).collect();
        let (median, tail) = (quantile(&of(&mixed), 0.5).exp2(), quantile(&of(&mixed), 0.95).exp2());
        assert!((450.0..550.0).contains(&median) && (880.0..1_030.0).contains(&tail), "{median} {tail}");
        assert!(quantile(&of(&[0.0, 1e9]), 0.95).is_finite());
    }

    fn opened(windows: impl IntoIterator<Item = Vec<f64>>) -> Option<usize> {
        let settings = Settings { learning_windows: 60, ..Settings::default() };
        let (mut latency, span) = (Latency::default(), Span { start_ns: 0, end_ns: 1 });
        for durations in (0..100).map(|at| vec![90.0 + f64::from(at % 20); 30]) {
            latency.step(&settings, span, Some(&of(&durations)));
            assert!(!latency.watch.is_open());
        }
        windows.into_iter().position(|durations| {
            latency.step(&settings, span, Some(&of(&durations)));
            latency.watch.is_open()
        })
    }

    #[test]
    fn a_step_and_a_ramp_are_told_and_one_slow_request_is_not() {
        assert_eq!(opened(vec![vec![300.0; 30]; 9]), Some(2));
        assert_eq!(opened(vec![vec![300.0; 5]; 30]), Some(11), "few spans, put together");
        let ramp = (0..200).map(|at| vec![100.0 * f64::from(at).mul_add(0.015, 1.0); 30]);
        assert!(opened(ramp).is_some_and(|window| (60..130).contains(&window)));
        let tail = || [vec![100.0; 25], vec![900.0; 5]].concat();
        assert_eq!(opened(vec![tail(); 9]), Some(2), "every sixth is slow");
        let single = || [vec![100.0; 29], vec![8_000.0; 1]].concat();
        assert_eq!(opened(vec![single(); 200]), None);
        assert_eq!(opened(vec![vec![300.0; 30], vec![300.0; 30], vec![100.0; 30]]), None);
        assert_eq!(opened(vec![vec![20.0; 30]; 30]), None, "faster");
        assert_eq!(opened(vec![vec![150.0; 30]; 300]), None, "not twice the usual");
    }
}
