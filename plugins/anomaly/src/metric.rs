//! One configured metric of one service: the mean of its numbers in a window against the windows before.

use crate::level::Level;
use crate::service::Span;
use crate::settings::{self, Direction, Settings};
use crate::watch::{Distance, Watch};
use serde::{Deserialize, Serialize};

/// Of the usual, what a number may stray without notice: six times that is an eighth.
const SPREAD_MIN: f64 = 0.02;
/// How many times the usual spread it must be off. What a metric shows often depends on what it showed before, so
/// three in a row are hardly less likely than one: all rests on this.
const UNUSUAL: f64 = 6.0;
const KEPT_OPEN: f64 = 0.5;
/// Windows without a number after which its alert ends: silence has a rule of its own.
const MISSING_MAX: u32 = 30;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Metric {
    pub(crate) watch: Watch,
    level: Level,
    /// Windows since its last number.
    pub(crate) missing: u32,
    /// Of its series that are followed, how many there are in the store, for those who count bytes.
    pub(crate) followed: u32,
}

impl Metric {
    pub(crate) fn step(
        &mut self,
        settings: &Settings,
        of: &settings::Metric,
        span: Span,
        number: Option<f64>,
    ) {
        if self.watch.pass() {
            self.level = Level::default();
        }
        self.missing = self.missing.saturating_add(1);
        let Some(number) = number.filter(|number| number.is_finite()) else {
            if self.missing >= MISSING_MAX {
                self.watch.end();
            }
            return;
        };
        let windows = std::mem::take(&mut self.missing);
        let distance = match self.watch.is_grown(settings) && self.level.is_learned() {
            true => self.distance(of, number),
            false => Distance::Near,
        };
        let usual = (self.level.usual(), self.spread());
        self.watch.take(settings, span, windows, distance, usual, (number, 0.0));
        if !self.watch.is_open() {
            self.level.learn(number, self.floor());
        }
    }

    fn distance(&self, of: &settings::Metric, number: f64) -> Distance {
        let far = (UNUSUAL * self.spread()).max(of.min).max(f64::MIN_POSITIVE);
        let off = number - self.level.usual();
        let off = match of.direction {
            Direction::Above => off,
            Direction::Below => -off,
            Direction::Both => off.abs(),
        };
        match off {
            _ if off >= far => Distance::Far,
            _ if off >= far * KEPT_OPEN => Distance::Between,
            _ => Distance::Near,
        }
    }

    fn spread(&self) -> f64 {
        self.level.spread(self.floor())
    }

    fn floor(&self) -> f64 {
        SPREAD_MIN * self.level.usual().abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(setting: &str, numbers: &[f64]) -> Option<usize> {
        let json = format!(r#"{{"learning_windows": 60, "metrics": [{{"name": "q"{setting}}}]}}"#);
        let settings = settings::parse(&json).unwrap();
        let (mut metric, span) = (Metric::default(), Span { start_ns: 0, end_ns: 1 });
        let mut step = |number: f64| {
            metric.step(&settings, &settings.metrics[0], span, Some(number));
            metric.watch.is_open()
        };
        for at in 0..100 {
            assert!(!step(if at % 2 == 0 { 90.0 } else { 110.0 }));
        }
        numbers.iter().position(|number| step(*number))
    }

    #[test]
    fn a_number_far_from_the_usual_is_told_the_third_time() {
        assert_eq!(opened("", &[200.0; 5]), Some(2));
        assert_eq!(opened("", &[200.0, 200.0, 100.0, 200.0, 200.0]), None);
        assert_eq!(opened("", &[0.0; 5]), Some(2));
        assert_eq!(opened("", &[150.0; 50]), None);
        assert_eq!(opened(r#", "direction": "above""#, &[0.0; 5]), None);
        assert_eq!(opened(r#", "direction": "below""#, &[200.0; 5]), None);
        assert_eq!(opened(r#", "min": 150"#, &[200.0; 5]), None);
        assert_eq!(opened(r#", "min": 150"#, &[300.0; 5]), Some(2));
        assert_eq!(opened("", &[f64::NAN, f64::INFINITY, 100.0]), None);
    }
}
