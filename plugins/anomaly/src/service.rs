//! One service: what is usual, what is wrong with it just now, and what people were told.

use crate::errors::Errors;
use crate::latency::{Buckets, Latency};
use crate::metric::Metric;
use crate::news::News;
use crate::presence::Presence;
use crate::settings::Settings;
use crate::signature::Signature;
use crate::tell::{self, Raised};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What happened to a service in one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Happened {
    pub(crate) logs: Counts,
    pub(crate) spans: Counts,
    pub(crate) points: u64,
    /// How long its requests took.
    pub(crate) latency: Option<Buckets>,
    /// Errors that it is not known by, and how often they came.
    pub(crate) unknown: Vec<(Signature, u64)>,
    /// Of each configured metric, its mean.
    pub(crate) numbers: BTreeMap<String, f64>,
    /// Some of it may have been counted elsewhere: what is missing may have been there.
    pub(crate) is_incomplete: bool,
}

/// Of one signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) records: u64,
    pub(crate) errors: u64,
}

impl Counts {
    /// A window that closed between the two keys has no errors without records.
    pub(crate) fn put_right(&mut self) {
        self.records = self.records.max(self.errors);
    }
}

/// What is to be told about an alert. It may take several ticks, since one tick may tell only so much.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Telling {
    /// Events that were not told yet.
    pub(crate) owed: u64,
    /// When it was told last; 0: never.
    pub(crate) told_ns: u64,
    /// It is to be resolved.
    pub(crate) is_over: bool,
    /// And was.
    #[serde(skip)]
    pub(crate) is_told: bool,
}

/// Something that it used to send does not come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Silent {
    pub(crate) telling: Telling,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Service {
    /// The end of the last window in which it spoke.
    pub(crate) seen_ns: u64,
    age: u32,
    /// By signal, as `SIGNALS` numbers them.
    pub(crate) presence: [Presence; 3],
    pub(crate) silent: Option<Silent>,
    /// Of logs and of spans.
    pub(crate) errors: [Errors; 2],
    pub(crate) news: News,
    /// How many signatures it is known by, for those who count bytes.
    pub(crate) known: u32,
    pub(crate) latency: Latency,
    /// Configured ones, by their names in keys.
    pub(crate) metrics: BTreeMap<String, Metric>,
}

/// Names of signals, and of what they bring.
pub(crate) const SIGNALS: [(&str, &str); 3] =
    [("logs", "log records"), ("traces", "spans"), ("metrics", "data points")];

/// Start and end of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
}

impl Service {
    /// Takes the next window. Returns the signatures that it is known by from now on.
    pub(crate) fn step(
        &mut self,
        settings: &Settings,
        who: &str,
        span: Span,
        happened: Happened,
    ) -> Vec<u64> {
        self.age = self.age.saturating_add(1);
        let spoke =
            [happened.logs.records, happened.spans.records, happened.points].map(|records| records > 0);
        if spoke.contains(&true) {
            self.seen_ns = span.end_ns;
        }
        self.follow_silence(settings, span, spoke, happened.is_incomplete);
        let [logs, spans] = &mut self.errors;
        logs.step(settings, span, happened.logs, false);
        // One incident is one alert; that of logs, since it has the words.
        spans.step(settings, span, happened.spans, logs.failing.is_some());
        self.latency.step(settings, span, happened.latency.as_ref());
        for (name, metric) in &mut self.metrics {
            if let Some(of) = settings.metric(crate::keys::service(who), name) {
                metric.step(settings, of, span, happened.numbers.get(name).copied());
            }
        }
        let is_learned = self.age > settings.learning_windows;
        let failing = logs.open().or(spans.open());
        self.news.step(settings, span, happened.unknown, is_learned, failing)
    }

    fn follow_silence(&mut self, settings: &Settings, span: Span, spoke: [bool; 3], is_incomplete: bool) {
        let mut is_news = false;
        for (presence, spoke) in self.presence.iter_mut().zip(spoke) {
            if spoke || !is_incomplete {
                is_news |= presence.step(settings, span, spoke);
            }
        }
        let is_silent = self.presence.iter().any(|presence| presence.is_silent);
        match &mut self.silent {
            Some(silent) => {
                silent.telling.owed += u64::from(is_news);
                silent.telling.is_over = !is_silent;
            }
            None if is_news => {
                self.silent = Some(Silent { telling: Telling { owed: 1, ..Default::default() } });
            }
            None => {}
        }
    }
}

/// Down to nothing in the end.
pub(crate) fn fade(value: f32, kept: f32) -> f32 {
    if value < 0.001 { 0.0 } else { value * kept }
}

/// Which alert of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// Of logs or of spans.
    Failing(usize),
    Silent,
    Slow,
    /// Of so many.
    New(usize),
    /// By its name.
    Metric(String),
}

impl Service {
    /// What there may be to tell.
    pub(crate) fn tellings(&self) -> impl Iterator<Item = (Place, &Telling)> {
        let failing = self.errors.iter().enumerate().filter_map(|(at, errors)| {
            errors.failing.as_ref().map(|failing| (Place::Failing(at), &failing.telling))
        });
        let silent = self.silent.iter().map(|silent| (Place::Silent, &silent.telling));
        let slow = self.latency.watch.open.iter().map(|slow| (Place::Slow, &slow.telling));
        let news = self.news.told.iter().enumerate().filter(|(_, new)| !new.is_waiting);
        let news = news.map(|(at, new)| (Place::New(at), &new.telling));
        let metrics = self.metrics.iter().filter_map(|(name, metric)| {
            metric.watch.open.as_ref().map(|open| (Place::Metric(name.clone()), &open.telling))
        });
        failing.chain(silent).chain(slow).chain(news).chain(metrics)
    }

    /// What is owed, then the end if it is over.
    pub(crate) fn tell(&mut self, who: &str, place: &Place, now_ns: u64) -> Vec<Raised> {
        let presence = &self.presence;
        let told = match place {
            Place::Failing(at) => self.errors.get_mut(*at).and_then(|errors| {
                let failing = errors.failing.as_mut()?;
                Some((tell::failing(who, *at, failing), &mut failing.telling))
            }),
            Place::Silent => self
                .silent
                .as_mut()
                .map(|silent| (tell::silent(who, presence, &silent.telling), &mut silent.telling)),
            Place::Slow => {
                self.latency.watch.open.as_mut().map(|slow| (tell::slow(who, slow), &mut slow.telling))
            }
            Place::New(at) => self.news.told.get_mut(*at).map(|new| (tell::new(who, new), &mut new.telling)),
            Place::Metric(name) => self.metrics.get_mut(name).and_then(|metric| {
                let open = metric.watch.open.as_mut()?;
                Some((tell::metric(who, name, open), &mut open.telling))
            }),
        };
        let Some((alert, telling)) = told else { return Vec::new() };
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
        for errors in &mut self.errors {
            errors.failing.take_if(|failing| failing.telling.is_told);
        }
        self.silent.take_if(|silent| silent.telling.is_told);
        self.news.told.retain(|new| !new.telling.is_told);
        let metrics = self.metrics.values_mut().map(|metric| &mut metric.watch);
        for watch in metrics.chain([&mut self.latency.watch]) {
            watch.open.take_if(|open| open.telling.is_told);
        }
    }

    /// The keys of its alerts that are open.
    pub(crate) fn told(&self, who: &str) -> Vec<String> {
        let told = self.tellings().filter(|(_, telling)| telling.told_ns > 0);
        told.map(|(place, _)| match place {
            Place::Failing(at) => tell::key_of_failing(who, at),
            Place::Silent => tell::key(tell::SILENT, who),
            Place::Slow => tell::key(tell::SLOW, who),
            Place::New(at) => tell::key_of_new(who, &self.news.told[at]),
            Place::Metric(name) => tell::key_of_metric(who, &name),
        })
        .collect()
    }
}
