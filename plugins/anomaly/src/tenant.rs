//! All services of a tenant: takes closed windows, says what is to be kept and told.
//!
//! Pure: the same windows and the same store give the same, whoever counted and however often the plugin was
//! thrown away in between.

use crate::keys::{self, Meaning};
use crate::known::Known;
use crate::service::{Happened, Service, Span, Telling};
use crate::settings::Settings;
use crate::signature::Signature;
use crate::tell::{self, Raised};
use std::collections::{BTreeMap, BTreeSet};
use trommel_sdk::Window;

/// Where the services stand in the store.
const SERVICES: &str = "services";
/// Services of one tenant that are watched.
const SERVICES_MAX: usize = 128;
/// All that is kept of a tenant; the collector takes 64 KiB.
const BYTES_MAX: usize = 60 << 10;
/// A service that said nothing for a day is forgotten.
const FORGOTTEN_AFTER_NS: u64 = 24 * 3600 * 1_000_000_000;
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
    services: BTreeMap<&'a str, Happened>,
    /// Some of it has no key of its own: who is missing may have spoken.
    is_incomplete: bool,
}

fn by_span(closed: &[Window]) -> BTreeMap<Span, Everybody<'_>> {
    let mut spans = BTreeMap::<Span, Everybody>::new();
    for window in closed {
        let span = Span { start_ns: window.start, end_ns: window.end };
        let everybody = spans.entry(span).or_default();
        if window.key == OTHERS {
            everybody.is_incomplete |= window.count > 0;
        }
        let Some(meaning) = keys::meaning(&window.key) else { continue };
        // Sums of whole numbers: exact up to 2^53, and a float beyond an integer's range becomes its end.
        let sum = window.sum as u64;
        let (Meaning::Total(who) | Meaning::Errors(who) | Meaning::New { who, .. }) = meaning;
        let happened = everybody.services.entry(who).or_default();
        match meaning {
            Meaning::Total(_) => happened.records = sum,
            Meaning::Errors(_) => happened.errors = sum,
            Meaning::New { signature, template, .. } if sum > 0 => {
                let signature = Signature { hash: signature, template: template.to_owned() };
                happened.unknown.push((signature, sum));
            }
            Meaning::New { .. } => {}
        }
    }
    spans
}

struct Tenant<'g> {
    get: &'g dyn Fn(&str) -> Option<Vec<u8>>,
    /// By `who`.
    services: BTreeMap<String, Service>,
    /// Those that were looked at.
    known: BTreeMap<String, Known>,
    changed: BTreeSet<String>,
    out: Outcome,
}

impl<'g> Tenant<'g> {
    /// What cannot be read is forgotten: a baseline is learned again in minutes.
    fn load(get: &'g dyn Fn(&str) -> Option<Vec<u8>>) -> Tenant<'g> {
        let services =
            get(SERVICES).and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Tenant { get, services, known: BTreeMap::new(), changed: BTreeSet::new(), out: Outcome::default() }
    }

    fn drop_ignored(&mut self, settings: &Settings) {
        let ignored: Vec<String> = settings.ignore.iter().map(|name| keys::escaped(name)).collect();
        self.forget_where(|who, _| ignored.iter().any(|name| keys::service(who) == name));
    }

    fn step(&mut self, settings: &Settings, span: Span, everybody: Everybody) {
        let Everybody { services: mut happened, is_incomplete } = everybody;
        let watched: Vec<String> = self.services.keys().cloned().collect();
        for who in watched {
            match happened.remove(who.as_str()) {
                Some(happened) => self.step_one(settings, span, &who, happened),
                None if is_incomplete => {}
                None => self.step_one(settings, span, &who, Happened::default()),
            }
        }
        for (who, happened) in happened {
            let is_one = happened.records.max(happened.errors) > 0;
            if is_one && self.has_room(span) {
                self.services.insert(who.to_owned(), Service::default());
                self.step_one(settings, span, who, happened);
            } else if is_one {
                self.out.unwatched += 1;
            }
        }
        self.forget_where(|_, service| service.seen_ns.saturating_add(FORGOTTEN_AFTER_NS) < span.end_ns);
    }

    fn step_one(&mut self, settings: &Settings, span: Span, who: &str, mut happened: Happened) {
        happened.records = happened.records.max(happened.errors);
        if !happened.unknown.is_empty() {
            let known = self.known(who);
            // A batch may have been counted before the tick that learned of it, and committed after.
            happened.unknown.retain(|(signature, _)| !known.has(signature.hash));
        }
        let Some(service) = self.services.get_mut(who) else { return };
        let was_unsteady = service.is_unsteady();
        let learned = service.step(settings, span, happened);
        let is_unsteady = service.is_unsteady();
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
        let told = |telling: &Telling| telling.told_ns > 0;
        let failing = service.failing.iter().filter(|failing| told(&failing.telling));
        let silent = service.silent.iter().filter(|silent| told(&silent.telling));
        let news = service.news.iter().filter(|new| told(&new.telling));
        let ended = failing
            .map(|_| tell::key(tell::FAILING, who))
            .chain(silent.map(|_| tell::key(tell::SILENT, who)))
            .chain(news.map(|new| tell::key_of_new(who, new)));
        self.out.raised.extend(ended.map(Raised::Resolve));
        self.known.remove(who);
        self.changed.remove(who);
        if service.known > 0 {
            self.out.kept.push((keys::known(who), None));
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
            known => keys::known(who).len() + 1 + 8 * known as usize,
        };
        services + self.services.iter().map(of_known).sum::<usize>()
    }

    fn encoded(&self) -> Vec<u8> {
        serde_json::to_vec(&self.services).expect("numbers and texts, with texts as keys")
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
                self.out.raised.extend(service.tell(&who, place, now_ns));
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
        self.out.kept.push((SERVICES.to_owned(), (!self.services.is_empty()).then(|| self.encoded())));
        self.out
    }
}
