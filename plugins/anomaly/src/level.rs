//! What is usual for a number that differs from window to window: its level, and how far it strays from that.
//!
//! What strays further than three times the usual distance teaches little, so that neither an outlier nor what
//! is about to become an incident soon looks usual; a change that lasts is learned in the end.

use serde::{Deserialize, Serialize};

/// Half an hour of windows: a level may follow the day, but not a ramp of minutes.
const LEVEL_SAMPLES: f32 = 180.0;
/// Four hours.
const SPREAD_SAMPLES: f32 = 1_440.0;
/// Samples before anything is an outlier.
const LEARNED_MIN: u32 = 30;
/// In usual distances.
const OUTLIER: f64 = 3.0;
const OUTLIER_WEIGHT: f32 = 1.0 / 8.0;
/// Of a normal distribution: how much larger the standard deviation is than the mean distance.
const DEVIATION_OF_DISTANCE: f64 = 1.2533;
/// Numbers beyond are cut: their differences still are numbers.
const NUMBER_MAX: f64 = 1e30;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Level {
    samples: u32,
    mean: f32,
    distance: f32,
}

impl Level {
    pub(crate) fn usual(&self) -> f64 {
        f64::from(self.mean)
    }

    pub(crate) fn is_learned(&self) -> bool {
        self.samples >= LEARNED_MIN
    }

    /// How far it usually strays, at least `floor`: the standard deviation, if it were a normal distribution.
    pub(crate) fn spread(&self, floor: f64) -> f64 {
        (f64::from(self.distance) * DEVIATION_OF_DISTANCE).max(floor)
    }

    /// `floor` as in `spread`.
    pub(crate) fn learn(&mut self, value: f64, floor: f64) {
        let value = value.clamp(-NUMBER_MAX, NUMBER_MAX);
        self.samples = self.samples.saturating_add(1);
        if self.samples == 1 {
            self.mean = value as f32;
            return;
        }
        let off = value - self.usual();
        let is_outlier = self.samples > LEARNED_MIN && off.abs() > OUTLIER * self.spread(floor);
        let weight = if is_outlier { OUTLIER_WEIGHT } else { 1.0 };
        let seen = self.samples as f32;
        self.mean += (off * f64::from(weight / seen.min(LEVEL_SAMPLES))) as f32;
        self.distance += weight / (seen - 1.0).min(SPREAD_SAMPLES) * (off.abs() as f32 - self.distance);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(values: impl IntoIterator<Item = f64>) -> Level {
        let mut level = Level::default();
        values.into_iter().for_each(|value| level.learn(value, 0.01));
        level
    }

    #[test]
    fn a_level_is_the_mean_and_its_spread_how_far_values_stray() {
        let level = learned((0..600).map(|at| if at % 2 == 0 { 9.0 } else { 11.0 }));
        assert!((level.usual() - 10.0).abs() < 0.1, "{level:?}");
        assert!((1.1..1.4).contains(&level.spread(0.01)), "{level:?}");
        assert_eq!(learned([5.0; 100]).spread(0.5), 0.5);
        assert!(!learned([5.0; 29]).is_learned() && learned([5.0; 30]).is_learned());
    }

    #[test]
    fn what_is_about_to_go_wrong_is_learned_slowly_and_what_lasts_in_the_end() {
        let usual = (0..600).map(|at| if at % 2 == 0 { 9.0 } else { 11.0 });
        let ramp = (0..180).map(|at| 10.0 + f64::from(at) / 6.0);
        let level = learned(usual.clone().chain(ramp.clone()));
        assert!(level.usual() < 18.0 && level.spread(0.01) < 3.0, "{level:?}");
        let level = learned(usual.chain(ramp).chain([40.0; 3_000]));
        assert!(level.usual() > 35.0, "{level:?}");
    }

    #[test]
    fn hostile_numbers_leave_numbers() {
        let level =
            learned([f64::MAX, -f64::MAX, 0.0, f64::MIN_POSITIVE, 1e300].into_iter().cycle().take(500));
        assert!(level.usual().is_finite() && level.spread(0.0).is_finite(), "{level:?}");
    }
}
