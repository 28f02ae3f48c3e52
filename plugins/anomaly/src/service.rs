//! One service: what is usual, what is wrong with it just now, and what people were told.

use crate::baseline::Baseline;
use crate::settings::Settings;
use crate::signature::Signature;
use crate::tell::{self, Raised};
use serde::{Deserialize, Serialize};

/// After six hours what goes on is usual: the alert ends, and the service is learned anew.
const OPEN_WINDOWS_MAX: u32 = 2_160;
/// New errors of one service that are told at a time.
const NEWS_MAX: usize = 3;
/// Templates in the text of one alert.
const NAMED_MAX: usize = 3;
/// A service that has brought more new errors of late has messages that never repeat: they tell nothing.
const FRESH_MAX: f32 = 32.0;
/// An hour.
const FRESH_KEPT: f32 = 1.0 - 1.0 / 360.0;
/// Ten minutes.
const PRESENCE_KEPT: f32 = 1.0 - 1.0 / 60.0;
/// Of its windows of late, those in which it spoke: for one that pauses often silence is no news.
const PRESENCE_MIN: f32 = 0.95;

/// What happened to a service in one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Happened {
    pub(crate) records: u64,
    pub(crate) errors: u64,
    /// Errors that it is not known by, and how often they came.
    pub(crate) unknown: Vec<(Signature, u64)>,
}

/// What is to be told about an alert. It may take several ticks, since one tick may tell only so much.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Telling {
    /// Events that were not told yet.
    #[serde(rename = "o")]
    pub(crate) owed: u64,
    /// When it was told last; 0: never.
    #[serde(rename = "l")]
    pub(crate) told_ns: u64,
    /// It is to be resolved.
    #[serde(rename = "x")]
    pub(crate) is_over: bool,
    /// And was.
    #[serde(skip)]
    is_told: bool,
}

/// Far more errors than usual.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failing {
    #[serde(rename = "b")]
    pub(crate) since_ns: u64,
    #[serde(rename = "c")]
    calm: u32,
    #[serde(rename = "w")]
    windows: u32,
    /// Since it began.
    #[serde(rename = "e")]
    pub(crate) errors: u64,
    /// Errors and records of the worst window.
    #[serde(rename = "p")]
    pub(crate) worst: (u64, u64),
    /// The usual share.
    #[serde(rename = "u")]
    pub(crate) usual: f32,
    /// Templates of errors that are new.
    #[serde(rename = "n")]
    pub(crate) named: Vec<String>,
    #[serde(rename = "t")]
    pub(crate) telling: Telling,
}

/// An error that was not seen before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct New {
    #[serde(rename = "h")]
    pub(crate) signature: u64,
    #[serde(rename = "m")]
    pub(crate) template: String,
    #[serde(rename = "b")]
    pub(crate) since_ns: u64,
    #[serde(rename = "e")]
    pub(crate) errors: u64,
    #[serde(rename = "c")]
    calm: u32,
    /// It waits a window: if the service begins to fail then, it is named there instead.
    #[serde(rename = "w")]
    pub(crate) is_waiting: bool,
    #[serde(rename = "t")]
    pub(crate) telling: Telling,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Silent {
    /// The end of the last window in which it spoke.
    #[serde(rename = "b")]
    pub(crate) since_ns: u64,
    #[serde(rename = "t")]
    pub(crate) telling: Telling,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Service {
    /// The end of the last window in which it spoke.
    #[serde(rename = "t")]
    pub(crate) seen_ns: u64,
    #[serde(rename = "a")]
    age: u32,
    #[serde(rename = "b")]
    baseline: Baseline,
    /// Errors of the windows just before, while they were raised but not yet too many; and when that began.
    #[serde(rename = "p", skip_serializing_if = "is_default")]
    raised: (u64, u64),
    /// Windows until the next alert about its errors.
    #[serde(rename = "c", skip_serializing_if = "is_default")]
    cooldown: u32,
    #[serde(rename = "s")]
    spoken: u32,
    /// Windows without, by share; begins at 0.
    #[serde(rename = "y", skip_serializing_if = "is_default")]
    absence: f32,
    /// Windows without a record, up to now.
    #[serde(rename = "q", skip_serializing_if = "is_default")]
    silent_windows: u32,
    /// New errors of late, fading.
    #[serde(rename = "w", skip_serializing_if = "is_default")]
    fresh: f32,
    /// How many signatures it is known by, for those who count bytes.
    #[serde(rename = "k", skip_serializing_if = "is_default")]
    pub(crate) known: u32,
    #[serde(rename = "f", skip_serializing_if = "Option::is_none")]
    pub(crate) failing: Option<Failing>,
    #[serde(rename = "m", skip_serializing_if = "Option::is_none")]
    pub(crate) silent: Option<Silent>,
    #[serde(rename = "x", skip_serializing_if = "Vec::is_empty")]
    pub(crate) news: Vec<New>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Start and end of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
}

impl Service {
    /// Takes the next window. Returns the signatures that it is known by from now on.
    pub(crate) fn step(&mut self, settings: &Settings, span: Span, happened: Happened) -> Vec<u64> {
        let Happened { records, errors, mut unknown } = happened;
        self.age = self.age.saturating_add(1);
        self.fresh = fade(self.fresh, FRESH_KEPT);
        self.follow_silence(settings, span, records > 0);
        self.follow_errors(settings, span, errors, records);
        // The most frequent ones first: not all of them are told.
        unknown.sort_by(|(a, a_count), (b, b_count)| (b_count, a.hash).cmp(&(a_count, b.hash)));
        self.follow_news(settings, span, unknown)
    }

    /// Whether its messages are not worth looking at.
    pub(crate) fn is_unsteady(&self) -> bool {
        self.fresh > FRESH_MAX
    }

    fn follow_silence(&mut self, settings: &Settings, span: Span, spoke: bool) {
        if spoke {
            if let Some(silent) = &mut self.silent {
                // One that ended before it was told is none.
                silent.telling.is_over = true;
            } else {
                // A silence that was told is an incident, no habit.
                (0..self.silent_windows)
                    .for_each(|_| self.absence = 1.0 - fade(1.0 - self.absence, PRESENCE_KEPT));
            }
            self.silent_windows = 0;
            self.absence = fade(self.absence, PRESENCE_KEPT);
            self.spoken = self.spoken.saturating_add(1);
            self.seen_ns = span.end_ns;
            return;
        }
        self.silent_windows = self.silent_windows.saturating_add(1);
        let is_news = self.silent_windows == settings.silence_windows
            && self.spoken >= settings.spoken_windows
            && 1.0 - self.absence >= PRESENCE_MIN
            && self.silent.is_none();
        if is_news {
            let telling = Telling { owed: 1, ..Default::default() };
            self.silent = Some(Silent { since_ns: self.seen_ns, telling });
        }
    }

    fn follow_errors(&mut self, settings: &Settings, span: Span, errors: u64, records: u64) {
        let is_exceeded = self.baseline.is_exceeded(errors, records, settings);
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
        let may_open = self.cooldown == 0 && self.failing.is_none();
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
        self.raised = match self.baseline.is_raised(errors, records, settings) {
            true if self.raised.0 > 0 => (self.raised.0.saturating_add(errors), self.raised.1),
            true => (errors, span.start_ns),
            false => (0, 0),
        };
        if !is_exceeded {
            self.baseline.learn(errors, records);
        }
    }

    fn follow_news(&mut self, settings: &Settings, span: Span, unknown: Vec<(Signature, u64)>) -> Vec<u64> {
        let mut known = Vec::new();
        let mut failing = self.failing.as_mut().filter(|failing| !failing.telling.is_over);
        for new in self.news.iter_mut().filter(|new| !new.telling.is_over) {
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
            if self.news.iter().any(|new| new.signature == hash) {
                continue;
            }
            self.fresh += 1.0;
            let is_told = match &mut failing {
                Some(failing) => {
                    failing.name(&template);
                    false
                }
                None => {
                    self.age > settings.learning_windows
                        && self.fresh <= FRESH_MAX
                        && self.news.len() < NEWS_MAX
                }
            };
            match is_told {
                true => self.news.push(New::begun(hash, template, span.start_ns, count)),
                false => known.push(hash),
            }
        }
        known
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

    fn name(&mut self, template: &str) {
        if self.named.len() < NAMED_MAX && !self.named.iter().any(|named| named == template) {
            self.named.push(template.to_owned());
        }
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

/// Down to nothing in the end, so that what is kept is short.
fn fade(value: f32, kept: f32) -> f32 {
    if value < 0.001 { 0.0 } else { value * kept }
}

/// Which alert of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Failing,
    Silent,
    /// Of so many.
    New(usize),
}

impl Service {
    /// What there may be to tell.
    pub(crate) fn tellings(&self) -> impl Iterator<Item = (Place, &Telling)> {
        let failing = self.failing.iter().map(|failing| (Place::Failing, &failing.telling));
        let silent = self.silent.iter().map(|silent| (Place::Silent, &silent.telling));
        let news = self.news.iter().enumerate().filter(|(_, new)| !new.is_waiting);
        failing.chain(silent).chain(news.map(|(at, new)| (Place::New(at), &new.telling)))
    }

    /// What is owed, then the end if it is over.
    pub(crate) fn tell(&mut self, who: &str, place: Place, now_ns: u64) -> Vec<Raised> {
        let (alert, telling) = match place {
            Place::Failing => match &mut self.failing {
                Some(failing) => (tell::failing(who, failing), &mut failing.telling),
                None => return Vec::new(),
            },
            Place::Silent => match &mut self.silent {
                Some(silent) => (tell::silent(who, silent), &mut silent.telling),
                None => return Vec::new(),
            },
            Place::New(at) => match self.news.get_mut(at) {
                Some(new) => (tell::new(who, new), &mut new.telling),
                None => return Vec::new(),
            },
        };
        let (key, is_fired, is_over) = (alert.key.clone(), telling.owed > 0, telling.is_over);
        let is_open = telling.told_ns > 0 || is_fired;
        // What is more than fits is told next time.
        telling.owed -= u64::from(alert.count);
        if is_fired {
            telling.told_ns = now_ns.max(1);
        }
        let is_ended = is_over && telling.owed == 0;
        telling.is_told = is_ended;
        let fired = is_fired.then_some(Raised::Fire(alert));
        let ended = (is_ended && is_open).then_some(Raised::Resolve(key));
        fired.into_iter().chain(ended).collect()
    }

    /// What is over and told goes.
    pub(crate) fn drop_told(&mut self) {
        self.failing.take_if(|failing| failing.telling.is_told);
        self.silent.take_if(|silent| silent.telling.is_told);
        self.news.retain(|new| !new.telling.is_told);
    }
}
