//! What is usual for one service: its share of errors, and how much that varies.

use crate::settings::Settings;
use serde::{Deserialize, Serialize};

/// What a window adds is halved after seven minutes of others.
const KEPT: f64 = 1.0 - 1.0 / 60.0;
/// The same for how much the errors vary.
const SPREAD_KEPT: f64 = 1.0 - 1.0 / 30.0;
/// One window beyond all measure does not make everything usual.
const SPREAD_MAX: f64 = 100.0;
/// In natural logarithms: chance alone does so once in 500 million windows, which is 150 years of a service.
const SURPRISE_MIN: f64 = 20.0;

/// Sums that fade, so that older windows weigh less.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Baseline {
    /// Windows with records that it was learned from.
    #[serde(rename = "w")]
    pub(crate) windows: u32,
    #[serde(rename = "e")]
    errors: f32,
    #[serde(rename = "n")]
    records: f32,
    /// How many times more the errors vary than by chance; at least 1.
    #[serde(rename = "v")]
    spread: f32,
}

impl Default for Baseline {
    fn default() -> Baseline {
        Baseline { windows: 0, errors: 0.0, records: 0.0, spread: 1.0 }
    }
}

impl Baseline {
    /// The usual share of errors, from 0 to 1.
    pub(crate) fn share(&self) -> f64 {
        if self.records > 0.0 { f64::from(self.errors / self.records).min(1.0) } else { 0.0 }
    }

    /// Whether a window has far more errors than usual, and more than chance explains.
    pub(crate) fn is_exceeded(&self, errors: u64, records: u64, settings: &Settings) -> bool {
        if self.windows < settings.baseline_windows
            || errors < settings.min_errors
            || records < settings.min_records
        {
            return false;
        }
        let (usual, share) = (self.cautious_share(), share_of(errors, records));
        share >= far_above(usual, settings.factor)
            && surprise(share, usual, records as f64) >= SURPRISE_MIN * f64::from(self.spread)
    }

    /// Whether a window has more errors than usual, however few: it may be the beginning of one that exceeds.
    pub(crate) fn is_raised(&self, errors: u64, records: u64, settings: &Settings) -> bool {
        errors > 0 && share_of(errors, records) > far_above(self.share(), settings.factor)
    }

    pub(crate) fn learn(&mut self, errors: u64, records: u64) {
        if records == 0 {
            return;
        }
        if self.windows > 0 {
            let usual = self.cautious_share();
            let expected = usual * records as f64;
            // Below one expected error, a single one is no sign of spread.
            let by_chance = (expected * (1.0 - usual)).max(1.0);
            let spread = ((errors as f64 - expected).powi(2) / by_chance).min(SPREAD_MAX);
            let kept = f64::from(self.spread) * SPREAD_KEPT + spread * (1.0 - SPREAD_KEPT);
            self.spread = kept.max(1.0) as f32;
        }
        self.windows = self.windows.saturating_add(1);
        self.errors = (f64::from(self.errors) * KEPT + errors as f64) as f32;
        self.records = (f64::from(self.records) * KEPT + records as f64) as f32;
    }

    /// As if there had been one error more: after few records, none seen does not mean that there are none.
    fn cautious_share(&self) -> f64 {
        (f64::from(self.errors) + 1.0) / (f64::from(self.records) + 1.0).max(f64::from(self.errors) + 1.0)
    }
}

fn share_of(errors: u64, records: u64) -> f64 {
    if records == 0 { 0.0 } else { (errors as f64 / records as f64).min(1.0) }
}

/// `factor` times the usual, or half way from it to all where that is less: a share cannot be above 1.
fn far_above(usual: f64, factor: f64) -> f64 {
    (usual * factor).min(f64::midpoint(usual, 1.0))
}

/// How unlikely such a share is, if `usual` is the chance of each record: a bound after Chernoff, as a logarithm.
fn surprise(share: f64, usual: f64, records: f64) -> f64 {
    let part =
        |share: f64, usual: f64| if share > 0.0 { share * (share / usual.max(1e-12)).ln() } else { 0.0 };
    if share <= usual { 0.0 } else { records * (part(share, usual) + part(1.0 - share, 1.0 - usual)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(windows: &[(u64, u64)]) -> Baseline {
        let mut baseline = Baseline::default();
        windows.iter().for_each(|(errors, records)| baseline.learn(*errors, *records));
        baseline
    }

    #[test]
    fn far_above_the_usual_is_exceeded_and_a_little_above_is_not() {
        let settings = Settings::default();
        let check = |usual: (u64, u64), now: (u64, u64), expected: bool| {
            let baseline = learned(&[usual; 20]);
            assert_eq!(baseline.is_exceeded(now.0, now.1, &settings), expected, "{usual:?} {now:?}");
        };
        check((0, 100), (10, 100), true);
        check((0, 100), (9, 100), false);
        check((0, 100), (10, 19), false);
        check((0, 5), (20, 20), true);
        check((2, 100), (5, 100), false);
        check((2, 100), (15, 100), false);
        check((2, 100), (40, 100), true);
        check((20, 1000), (70, 1000), true);
        check((20, 1000), (50, 1000), false);
        // Nothing is three times forty per cent.
        check((40, 100), (60, 100), false);
        check((40, 100), (98, 100), true);
        check((100, 100), (100, 100), false);
        check((0, 100), (u64::MAX, u64::MAX), true);
    }

    #[test]
    fn nothing_is_exceeded_before_enough_windows_were_learned() {
        let settings = Settings::default();
        assert!(!learned(&[(0, 100); 4]).is_exceeded(100, 100, &settings));
        assert!(learned(&[(0, 100); 5]).is_exceeded(100, 100, &settings));
        assert!(!learned(&[(0, 0); 50]).is_exceeded(100, 100, &settings), "silence teaches nothing");
    }

    #[test]
    fn a_service_whose_errors_come_in_bursts_needs_a_larger_one() {
        let settings = Settings::default();
        let even = learned(&[(4, 100); 60]);
        let bursts: Vec<(u64, u64)> =
            (0..60).map(|at| if at % 10 == 5 { (40, 100) } else { (0, 100) }).collect();
        let bursts = learned(&bursts);
        assert!((even.share() - bursts.share()).abs() < 0.02, "{} {}", even.share(), bursts.share());
        assert!(even.is_exceeded(30, 100, &settings));
        assert!(!bursts.is_exceeded(45, 100, &settings));
    }

    #[test]
    fn what_was_usual_fades() {
        let mut baseline = learned(&[(50, 100); 60]);
        (0..600).for_each(|_| baseline.learn(0, 100));
        assert!(baseline.share() < 0.001, "{}", baseline.share());
        assert!(baseline.is_exceeded(30, 100, &Settings::default()));
    }

    #[test]
    fn a_baseline_survives_its_text_and_hostile_numbers() {
        let baseline = learned(&[(u64::MAX, u64::MAX), (u64::MAX, 1), (0, u64::MAX), (1, 3)]);
        let text = serde_json::to_string(&baseline).unwrap();
        assert_eq!(serde_json::from_str::<Baseline>(&text).unwrap(), baseline);
        assert!(baseline.share() <= 1.0);
    }
}
