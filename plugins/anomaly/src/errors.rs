//! Errors of one signal of a service: log records that are errors, or spans that failed.

use crate::baseline::Baseline;
use crate::service::{Counts, Span, Telling};
use crate::settings::Settings;
use serde::{Deserialize, Serialize};

/// After six hours what goes on is usual: the alert ends, and the service is learned anew.
const OPEN_WINDOWS_MAX: u32 = 2_160;
/// Templates in the text of one alert.
const NAMED_MAX: usize = 3;
/// Raised windows in a row that are judged together: half a minute, in which a service with few records shows what it has. In
/// more, a handful of errors in each would add up to an incident.
const TOGETHER_MAX: usize = 3;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Errors {
    baseline: Baseline,
    /// Errors of the windows just before, while they were raised but not yet too many; and when that began.
    raised: (u64, u64),
    /// Raised windows in a row that alone were not enough; they are learned when it is clear that they are nothing.
    together: Vec<Counts>,
    /// Windows until the next alert.
    cooldown: u32,
    pub(crate) failing: Option<Failing>,
}

/// Far more errors than usual.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failing {
    pub(crate) since_ns: u64,
    calm: u32,
    windows: u32,
    /// Since it began.
    pub(crate) errors: u64,
    /// Errors and records of the worst window.
    pub(crate) worst: (u64, u64),
    /// The usual share.
    pub(crate) usual: f32,
    /// Templates of errors that are new.
    pub(crate) named: Vec<String>,
    pub(crate) telling: Telling,
}

impl Errors {
    /// Takes the next window. `is_told`: people know already that this service fails.
    pub(crate) fn step(&mut self, settings: &Settings, span: Span, counts: Counts, is_told: bool) {
        let Counts { records, errors } = counts;
        let is_raised = self.baseline.is_raised(errors, records, settings);
        let (is_exceeded, nothing) = self.judge(settings, counts, is_raised);
        if let Some(failing) = self.failing.as_mut().filter(|failing| !failing.telling.is_over) {
            failing.add(errors, records);
            failing.calm = if is_exceeded { 0 } else { failing.calm + 1 };
            let lasts_too_long = failing.windows >= OPEN_WINDOWS_MAX;
            if failing.calm >= settings.calm_windows || lasts_too_long {
                failing.telling.is_over = true;
                self.cooldown = settings.cooldown_windows;
            }
            if lasts_too_long {
                self.baseline = Baseline::default();
            }
            return;
        }
        let may_open = self.cooldown == 0 && self.failing.is_none() && !is_told;
        self.cooldown = self.cooldown.saturating_sub(1);
        if is_exceeded && may_open {
            let (before, since_ns) = if self.raised.0 > 0 { self.raised } else { (0, span.start_ns) };
            let mut failing = Failing {
                since_ns,
                calm: 0,
                windows: 0,
                errors: before,
                worst: (0, 0),
                usual: self.baseline.share() as f32,
                named: Vec::new(),
                telling: Telling { owed: before, ..Default::default() },
            };
            failing.add(errors, records);
            self.failing = Some(failing);
            self.raised = (0, 0);
            return;
        }
        // What begins at the end of a window is told whole.
        self.raised = match is_raised {
            true if self.raised.0 > 0 => (self.raised.0.saturating_add(errors), self.raised.1),
            true => (errors, span.start_ns),
            false => (0, 0),
        };
        nothing.iter().for_each(|counts| self.baseline.learn(counts.errors, counts.records));
    }

    /// Whether this window is too much, or those before together with it; and the windows that were nothing.
    fn judge(&mut self, settings: &Settings, counts: Counts, is_raised: bool) -> (bool, Vec<Counts>) {
        self.together.push(counts);
        if !is_raised {
            return (false, std::mem::take(&mut self.together));
        }
        let sum = |of: fn(&Counts) -> u64| self.together.iter().map(of).fold(0, u64::saturating_add);
        let (errors, records) = (sum(|counts| counts.errors), sum(|counts| counts.records));
        let is_exceeded = self.baseline.is_exceeded(counts.errors, counts.records, settings)
            || self.baseline.is_exceeded(errors, records, settings);
        if is_exceeded {
            self.together.clear();
        }
        let is_long = self.together.len() >= TOGETHER_MAX;
        (is_exceeded, if is_long { std::mem::take(&mut self.together) } else { Vec::new() })
    }

    pub(crate) fn open(&mut self) -> Option<&mut Failing> {
        self.failing.as_mut().filter(|failing| !failing.telling.is_over)
    }
}

impl Failing {
    fn add(&mut self, errors: u64, records: u64) {
        self.windows = self.windows.saturating_add(1);
        self.errors = self.errors.saturating_add(errors);
        self.telling.owed = self.telling.owed.saturating_add(errors);
        let (worst_errors, worst_records) = self.worst;
        // Shares, compared without dividing.
        let is_worse =
            u128::from(errors) * u128::from(worst_records) > u128::from(worst_errors) * u128::from(records);
        if is_worse || worst_records == 0 {
            self.worst = (errors, records);
        }
    }

    pub(crate) fn name(&mut self, template: &str) {
        if self.named.len() < NAMED_MAX && !self.named.iter().any(|named| named == template) {
            self.named.push(template.to_owned());
        }
    }
}
