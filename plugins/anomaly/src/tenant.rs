//! All services of a tenant: takes closed windows, says what is to be kept and told.
//!
//! Pure: the same windows and the same store give the same, whoever counted and however often the plugin was
//! thrown away in between.

use crate::keys::{self, Count, Meaning};
use crate::known::{Known, SIGNATURE_BYTES};
use crate::metric::Metric;
use crate::service::{Happened, Service, Span};
use crate::settings::Settings;
use crate::signature::Signature;
use crate::tell::{self, Raised};
use crate::totals::{self, Followed};
use std::collections::{BTreeMap, BTreeSet};
use trommel_sdk::Window;

/// Where the services stand in the store.
const SERVICES: &str = "services";
/// How they are written there; what is written otherwise is not read.
const VERSION: u8 = 2;
/// Services of one tenant that are watched.
const SERVICES_MAX: usize = 128;
/// Configured metrics of one tenant that are watched, each of each service.
const METRICS_MAX: usize = 64;
/// All that is kept of a tenant; the collector takes 64 KiB.
const BYTES_MAX: usize = 60 << 10;
/// A service that said nothing for a day is forgotten.
const FORGOTTEN_AFTER_NS: u64 = 24 * 3600 * 1_000_000_000;
/// The same for a metric, in windows.
const METRIC_MISSING_MAX: u32 = 8_640;
/// The collector takes as many keys of alerts from one call.
const TOLD_MAX: usize = 32;
/// Where the collector counts what had no key of its own.
const OTHERS: &str = "_other";

/// What a tick does.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// Keys and values of the store; `None` removes. What makes room comes first.
    pub(crate) kept: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) raised: Vec<Raised>,
    /// New services for which there was no room.
    pub(crate) unwatched: u32,
    /// New metrics for which there was none.
    pub(crate) unwatched_metrics: u32,
}

/// Takes closed windows, with a store that answers as it did before the tick.
pub(crate) fn tick(
    settings: &Settings,
    now_ns: u64,
    closed: &[Window],
    get: &dyn Fn(&str) -> Option<Vec<u8>>,
) -> Outcome {
    let mut tenant = Tenant::load(get);
    tenant.drop_ignored(settings);
    tenant.drop_metrics(settings);
    for (span, window) in by_span(closed) {
        tenant.step(settings, span, window);
    }
    tenant.make_small();
    tenant.tell(now_ns);
    tenant.finish()
}

/// What happened to all services in one window.
#[derive(Default)]
struct Everybody<'a> {
    services: BTreeMap<&'a str, Gathered<'a>>,
    /// Some of it has no key of its own: who is missing may have spoken.
    is_incomplete: bool,
}

/// What happened to one of them, and what is still to be made of it.
#[derive(Default)]
struct Gathered<'a> {
    happened: Happened,
    /// Of each metric, the sum of its numbers and how many.
    numbers: BTreeMap<&'a str, (f64, u64)>,
    /// Of each metric, its series, their totals and times.
    totals: BTreeMap<&'a str, Vec<(u64, f64, f64)>>,
}

fn by_span(closed: &[Window]) -> BTreeMap<Span, Everybody<'_>> {
    let mut spans = BTreeMap::<Span, Everybody>::new();
    for window in closed {
        let span = Span { start_ns: window.start, end_ns: window.end };
        let everybody = spans.entry(span).or_default();
        if window.key == OTHERS {
            everybody.is_incomplete |= window.count > 0;
        }
        let Some((who, meaning)) = keys::meaning(&window.key) else { continue };
        everybody.services.entry(who).or_default().add(meaning, window);
    }
    spans
}

impl<'a> Gathered<'a> {
    fn add(&mut self, meaning: Meaning<'a>, window: &Window) {
        // Sums of whole numbers: exact up to 2^53, and a float beyond an integer's range becomes its end.
        let sum = window.sum as u64;
        let Happened { logs, spans, points, latency, unknown, .. } = &mut self.happened;
        match meaning {
            Meaning::Count(Count::Records) => logs.records = sum,
            Meaning::Count(Count::Errors) => logs.errors = sum,
            Meaning::Count(Count::Spans) => spans.records = sum,
            Meaning::Count(Count::Failed) => spans.errors = sum,
            Meaning::Count(Count::Points) => *points = sum,
            Meaning::Count(Count::Latency) => {
                *latency = window.buckets.first_chunk().filter(|_| window.count > 0).copied();
            }
            Meaning::New { signature, template } if sum > 0 => {
                let signature = Signature { hash: signature, template: template.to_owned() };
                unknown.push((signature, sum));
            }
            Meaning::Numbers { metric } if window.count > 0 => {
                self.numbers.insert(metric, (window.sum, window.count));
            }
            Meaning::Totals { metric, series } => {
                if let Some((total, at)) = totals::of_window(window) {
                    self.totals.entry(metric).or_default().push((series, total, at));
                }
            }
            Meaning::New { .. } | Meaning::Numbers { .. } => {}
        }
    }
}

struct Tenant<'g> {
    get: &'g dyn Fn(&str) -> Option<Vec<u8>>,
    /// By `who`.
    services: BTreeMap<String, Service>,
    /// Those that were looked at.
    known: BTreeMap<String, Known>,
    changed: BTreeSet<String>,
    /// Series of metrics that have changed, by their key in the store.
    followed: BTreeMap<String, Followed>,
    out: Outcome,
}

impl<'g> Tenant<'g> {
    /// What cannot be read is forgotten: a baseline is learned again in minutes.
    fn load(get: &'g dyn Fn(&str) -> Option<Vec<u8>>) -> Tenant<'g> {
        let bytes = get(SERVICES).filter(|bytes| bytes.first() == Some(&VERSION));
        let services = bytes.and_then(|bytes| postcard::from_bytes(&bytes[1..]).ok()).unwrap_or_default();
        Tenant {
            get,
            services,
            known: BTreeMap::new(),
            changed: BTreeSet::new(),
            followed: BTreeMap::new(),
            out: Outcome::default(),
        }
    }

    fn drop_ignored(&mut self, settings: &Settings) {
        let ignored: Vec<String> = settings.ignore.iter().map(|name| keys::escaped(name)).collect();
        self.forget_where(|who, _| ignored.iter().any(|name| keys::service(who) == name));
    }

    /// Metrics that the settings do not name any more, or that did not come for a day.
    fn drop_metrics(&mut self, settings: &Settings) {
        for (who, service) in &mut self.services {
            service.metrics.retain(|name, metric| {
                let is_watched = settings.metric(keys::service(who), name).is_some();
                let is_kept = is_watched && metric.missing < METRIC_MISSING_MAX;
                if !is_kept {
                    let told = metric.watch.open.iter().filter(|open| open.telling.told_ns > 0);
                    let ended = told.map(|_| Raised::Resolve(tell::key_of_metric(who, name)));
                    self.out.raised.extend(ended);
                    if metric.followed > 0 {
                        self.out.kept.push((keys::followed(who, name), None));
                    }
                }
                is_kept
            });
        }
    }

    fn step(&mut self, settings: &Settings, span: Span, everybody: Everybody) {
        let Everybody { services: mut gathered, is_incomplete } = everybody;
        let watched: Vec<String> = self.services.keys().cloned().collect();
        for who in watched {
            match gathered.remove(who.as_str()) {
                Some(mut gathered) => {
                    gathered.happened.is_incomplete = is_incomplete;
                    self.step_one(settings, span, &who, gathered);
                }
                None if is_incomplete => {}
                None => self.step_one(settings, span, &who, Gathered::default()),
            }
        }
        for (who, gathered) in gathered {
            let Happened { logs, spans, points, .. } = &gathered.happened;
            let is_one = [logs.records, logs.errors, spans.records, spans.errors, *points] != [0; 5];
            if is_one && self.has_room(span) {
                self.services.insert(who.to_owned(), Service::default());
                self.step_one(settings, span, who, gathered);
            } else if is_one {
                self.out.unwatched += 1;
            }
        }
        self.forget_where(|_, service| service.seen_ns.saturating_add(FORGOTTEN_AFTER_NS) < span.end_ns);
    }

    fn step_one(&mut self, settings: &Settings, span: Span, who: &str, gathered: Gathered) {
        let mut happened = self.with_numbers(settings, who, gathered);
        happened.logs.put_right();
        happened.spans.put_right();
        if !happened.unknown.is_empty() {
            let known = self.known(who);
            // A batch may have been counted before the tick that learned of it, and committed after.
            happened.unknown.retain(|(signature, _)| !known.has(signature.hash));
        }
        let Some(service) = self.services.get_mut(who) else { return };
        let was_unsteady = service.news.is_unsteady();
        let learned = service.step(settings, who, span, happened);
        let is_unsteady = service.news.is_unsteady();
        if learned.is_empty() && is_unsteady == was_unsteady {
            return;
        }
        let services = self.services.len();
        let known = self.known(who);
        known.is_unsteady = is_unsteady;
        known.add(learned, services);
        let number = known.len() as u32;
        if let Some(service) = self.services.get_mut(who) {
            service.known = number;
        }
        self.changed.insert(who.to_owned());
    }

    /// Of each metric of a service that is watched, the mean of its numbers and rates.
    fn with_numbers(&mut self, settings: &Settings, who: &str, gathered: Gathered) -> Happened {
        let Gathered { mut happened, mut numbers, totals } = gathered;
        let names: BTreeSet<&str> = numbers.keys().chain(totals.keys()).copied().collect();
        for name in names {
            if settings.metric(keys::service(who), name).is_none() || !self.has_metric(who, name) {
                continue;
            }
            let (mut sum, mut count) = numbers.remove(name).unwrap_or_default();
            for rate in totals.get(name).map(|totals| self.rates(who, name, totals)).unwrap_or_default() {
                (sum, count) = (sum + rate, count + 1);
            }
            if count > 0 {
                happened.numbers.insert(name.to_owned(), sum / count as f64);
            }
        }
        happened
    }

    /// Watches it from now on, if there is room.
    fn has_metric(&mut self, who: &str, name: &str) -> bool {
        let watched: usize = self.services.values().map(|service| service.metrics.len()).sum();
        let Some(service) = self.services.get_mut(who) else { return false };
        if service.metrics.contains_key(name) {
            return true;
        }
        if watched >= METRICS_MAX {
            self.out.unwatched_metrics += 1;
            return false;
        }
        service.metrics.insert(name.to_owned(), Metric::default());
        true
    }

    fn rates(&mut self, who: &str, name: &str, totals: &[(u64, f64, f64)]) -> Vec<f64> {
        let get = self.get;
        let key = keys::followed(who, name);
        let load = || get(&key).map(|bytes| Followed::decode(&bytes)).unwrap_or_default();
        let followed = self.followed.entry(key.clone()).or_insert_with(load);
        let rates = followed.take(totals);
        let number = followed.len() as u32;
        let metric = self.services.get_mut(who).and_then(|service| service.metrics.get_mut(name));
        if let Some(metric) = metric {
            metric.followed = number;
        }
        rates
    }

    fn known(&mut self, who: &str) -> &mut Known {
        let get = self.get;
        let load = || get(&keys::known(who)).map(|bytes| Known::decode(&bytes)).unwrap_or_default();
        self.known.entry(who.to_owned()).or_insert_with(load)
    }

    /// Makes room for one more, unless all others spoke in this window.
    fn has_room(&mut self, span: Span) -> bool {
        if self.services.len() < SERVICES_MAX {
            return true;
        }
        match self.least_recent() {
            Some((seen_ns, who)) if seen_ns <= span.start_ns => {
                self.forget(&who);
                true
            }
            _ => false,
        }
    }

    fn least_recent(&self) -> Option<(u64, String)> {
        self.services.iter().map(|(who, service)| (service.seen_ns, who.clone())).min()
    }

    fn forget_where(&mut self, is_gone: impl Fn(&str, &Service) -> bool) {
        let gone = self.services.iter().filter(|(who, service)| is_gone(who, service));
        for who in gone.map(|(who, _)| who.clone()).collect::<Vec<_>>() {
            self.forget(&who);
        }
    }

    /// Its alerts end with it.
    fn forget(&mut self, who: &str) {
        let Some(service) = self.services.remove(who) else { return };
        self.out.raised.extend(service.told(who).into_iter().map(Raised::Resolve));
        self.known.remove(who);
        self.changed.remove(who);
        if service.known > 0 {
            self.out.kept.push((keys::known(who), None));
        }
        for name in service.metrics.iter().filter(|(_, metric)| metric.followed > 0).map(|(name, _)| name) {
            let key = keys::followed(who, name);
            self.followed.remove(&key);
            self.out.kept.push((key, None));
        }
    }

    /// The least recently seen services go until the rest fits.
    fn make_small(&mut self) {
        while self.bytes() > BYTES_MAX && !self.services.is_empty() {
            for _ in 0..self.services.len().div_ceil(8) {
                if let Some((_, who)) = self.least_recent() {
                    self.forget(&who);
                }
            }
        }
    }

    fn bytes(&self) -> usize {
        let services = SERVICES.len() + self.encoded().len();
        let of_known = |(who, service): (&String, &Service)| match service.known {
            0 => 0,
            known => keys::known(who).len() + 1 + SIGNATURE_BYTES * known as usize,
        };
        let of_metrics = |(who, service): (&String, &Service)| -> usize {
            let followed = service.metrics.iter().filter(|(_, metric)| metric.followed > 0);
            let of_one = |(name, metric): (&String, &Metric)| {
                keys::followed(who, name).len() + totals::SERIES_BYTES * metric.followed as usize
            };
            followed.map(of_one).sum()
        };
        services
            + self.services.iter().map(of_known).sum::<usize>()
            + self.services.iter().map(of_metrics).sum::<usize>()
    }

    fn encoded(&self) -> Vec<u8> {
        let text = postcard::to_allocvec(&self.services).expect("numbers, texts and lists of them");
        [&[VERSION], &text[..]].concat()
    }

    /// Those told longest ago first, as many as one call may tell.
    fn tell(&mut self, now_ns: u64) {
        let mut due = Vec::new();
        for (who, service) in &self.services {
            for (place, telling) in service.tellings() {
                if telling.owed > 0 || telling.is_over {
                    due.push((telling.told_ns, who.clone(), place));
                }
            }
        }
        due.sort();
        let room = TOLD_MAX.saturating_sub(self.out.raised.len());
        for (_, who, place) in due.into_iter().take(room) {
            if let Some(service) = self.services.get_mut(&who) {
                self.out.raised.extend(service.tell(&who, &place, now_ns));
            }
        }
        self.services.values_mut().for_each(Service::drop_told);
        self.out.raised.truncate(TOLD_MAX);
    }

    fn finish(mut self) -> Outcome {
        for who in std::mem::take(&mut self.changed) {
            let bytes = self.known(&who).encode();
            self.out.kept.push((keys::known(&who), Some(bytes)));
        }
        let followed = std::mem::take(&mut self.followed).into_iter();
        self.out.kept.extend(followed.map(|(key, followed)| (key, Some(followed.encode()))));
        self.out.kept.push((SERVICES.to_owned(), (!self.services.is_empty()).then(|| self.encoded())));
        self.out
    }
}
