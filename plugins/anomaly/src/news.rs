//! Errors of a service that were not seen before.

use crate::errors::Failing;
use crate::service::{Span, Telling, fade};
use crate::settings::Settings;
use crate::signature::Signature;
use serde::{Deserialize, Serialize};

/// New errors of one service that are told at a time.
const TOLD_MAX: usize = 3;
/// A service that has brought more new errors of late has messages that never repeat: they tell nothing.
const FRESH_MAX: f32 = 32.0;
/// An hour.
const FRESH_KEPT: f32 = 1.0 - 1.0 / 360.0;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct News {
    /// New errors of late, fading.
    fresh: f32,
    pub(crate) told: Vec<New>,
}

/// An error that was not seen before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct New {
    pub(crate) signature: u64,
    pub(crate) template: String,
    pub(crate) since_ns: u64,
    pub(crate) errors: u64,
    calm: u32,
    /// It waits a window: if the service begins to fail then, it is named there instead.
    pub(crate) is_waiting: bool,
    pub(crate) telling: Telling,
}

impl News {
    /// Whether the messages of the service are not worth looking at.
    pub(crate) fn is_unsteady(&self) -> bool {
        self.fresh > FRESH_MAX
    }

    /// Takes the errors of a window that the service is not known by. Returns the signatures that it is known by from now
    /// on. `is_learned`: new ones are told.
    pub(crate) fn step(
        &mut self,
        settings: &Settings,
        span: Span,
        mut unknown: Vec<(Signature, u64)>,
        is_learned: bool,
        mut failing: Option<&mut Failing>,
    ) -> Vec<u64> {
        self.fresh = fade(self.fresh, FRESH_KEPT);
        // The most frequent ones first: not all of them are told.
        unknown.sort_by(|(a, a_count), (b, b_count)| (b_count, a.hash).cmp(&(a_count, b.hash)));
        let mut known = Vec::new();
        for new in self.told.iter_mut().filter(|new| !new.telling.is_over) {
            let count =
                unknown.iter().find(|(one, _)| one.hash == new.signature).map_or(0, |(_, count)| *count);
            new.add(count);
            if new.is_waiting
                && let Some(failing) = &mut failing
            {
                failing.name(&new.template);
                new.telling = Telling { is_over: true, ..Default::default() };
            } else if new.calm >= settings.calm_windows {
                new.telling.is_over = true;
            }
            new.is_waiting = false;
            if new.telling.is_over {
                known.push(new.signature);
            }
        }
        for (Signature { hash, template }, count) in unknown {
            if self.told.iter().any(|new| new.signature == hash) {
                continue;
            }
            self.fresh += 1.0;
            let is_told = match &mut failing {
                Some(failing) => {
                    failing.name(&template);
                    false
                }
                None => is_learned && self.fresh <= FRESH_MAX && self.told.len() < TOLD_MAX,
            };
            match is_told {
                true => self.told.push(New::begun(hash, template, span.start_ns, count)),
                false => known.push(hash),
            }
        }
        known
    }
}

impl New {
    fn begun(signature: u64, template: String, since_ns: u64, errors: u64) -> New {
        let telling = Telling { owed: errors, ..Default::default() };
        New { signature, template, since_ns, errors, calm: 0, is_waiting: true, telling }
    }

    fn add(&mut self, errors: u64) {
        self.calm = if errors > 0 { 0 } else { self.calm.saturating_add(1) };
        self.errors = self.errors.saturating_add(errors);
        self.telling.owed = self.telling.owed.saturating_add(errors);
    }
}
