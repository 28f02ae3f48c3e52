//! One number under watch: from "far from the usual, three times in a row" to "calm again". Latency and metrics differ in
//! what is far; when an alert opens, how it lasts and when it ends is the same for both, and stands here.

use crate::service::{Span, Telling};
use crate::settings::Settings;
use serde::{Deserialize, Serialize};

/// Samples in a row that are far off: one slow request, one odd window, is no incident.
const RAISED_MIN: u32 = 3;
/// After six hours what goes on is usual: the alert ends, and all is learned anew.
const OPEN_WINDOWS_MAX: u32 = 2_160;

/// How far a sample is from the usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Distance {
    Near,
    /// Half way: it opens nothing, but what is open stays open, so that it does not open and close by turns.
    Between,
    Far,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Watch {
    /// Windows since the first sample.
    age: u32,
    raised: u32,
    raised_since_ns: u64,
    cooldown: u32,
    pub(crate) open: Option<Open>,
}

/// It is far off, and people are told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Open {
    pub(crate) since_ns: u64,
    calm: u32,
    windows: u32,
    /// What was usual when it began, and the latest; each rule has its own two numbers.
    pub(crate) usual: (f32, f32),
    pub(crate) latest: (f32, f32),
    pub(crate) telling: Telling,
}

impl Watch {
    pub(crate) fn is_open(&self) -> bool {
        self.open.as_ref().is_some_and(|open| !open.telling.is_over)
    }

    /// Whether it was learned for long enough to be judged.
    pub(crate) fn is_grown(&self, settings: &Settings) -> bool {
        self.age > settings.learning_windows
    }

    /// A window has passed, with or without a sample; from the first one on. True if what is usual is to be learned anew.
    pub(crate) fn pass(&mut self) -> bool {
        self.age = self.age.saturating_add(1);
        self.cooldown = self.cooldown.saturating_sub(1);
        let Some(open) = self.open.as_mut().filter(|open| !open.telling.is_over) else { return false };
        open.windows = open.windows.saturating_add(1);
        open.telling.is_over = open.windows >= OPEN_WINDOWS_MAX;
        if open.telling.is_over {
            self.age = 0;
        }
        open.telling.is_over
    }

    /// A sample that took so many windows.
    pub(crate) fn take(
        &mut self,
        settings: &Settings,
        span: Span,
        windows: u32,
        distance: Distance,
        usual: (f64, f64),
        latest: (f64, f64),
    ) {
        let single = |(one, other): (f64, f64)| (one as f32, other as f32);
        if let Some(open) = self.open.as_mut().filter(|open| !open.telling.is_over) {
            open.calm = if distance == Distance::Near { open.calm.saturating_add(windows) } else { 0 };
            if distance == Distance::Far {
                open.telling.owed += 1;
                open.latest = single(latest);
            }
            if open.calm >= settings.calm_windows {
                open.telling.is_over = true;
                self.cooldown = settings.cooldown_windows;
            }
            return;
        }
        if distance != Distance::Far {
            self.raised = 0;
            return;
        }
        if self.raised == 0 {
            self.raised_since_ns = span.start_ns;
        }
        self.raised = self.raised.saturating_add(1);
        if self.raised >= RAISED_MIN && self.cooldown == 0 && self.open.is_none() {
            let telling = Telling { owed: u64::from(self.raised), ..Default::default() };
            let (usual, latest) = (single(usual), single(latest));
            let since_ns = self.raised_since_ns;
            self.open = Some(Open { since_ns, calm: 0, windows: 0, usual, latest, telling });
            self.raised = 0;
        }
    }

    /// Nothing came for so long that nothing is far off.
    pub(crate) fn end(&mut self) {
        self.raised = 0;
        if let Some(open) = &mut self.open {
            open.telling.is_over = true;
        }
    }
}
