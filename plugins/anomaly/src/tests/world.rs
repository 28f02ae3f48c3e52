//! A collector around `tick`: its series, its store, and the alerts that it was told.

use crate::keys::{self, Count};
use crate::latency::Buckets;
use crate::settings::Settings;
use crate::signature::Signature;
use crate::tell::Raised;
use crate::tenant::tick;
use crate::totals::{self, Followed};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use trommel_sdk::Window;

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const START: u64 = 1_700_000_000 * SECOND;

/// A collector: its series, its store, and the alerts that it was told.
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) now_ns: u64,
    pub(crate) store: HashMap<String, Vec<u8>>,
    pub(crate) sums: BTreeMap<String, Window>,
    /// Windows since its last value, by key.
    pub(crate) silent: BTreeMap<String, u32>,
    pub(crate) waiting: Vec<Window>,
    /// Sums of counts by key, of alerts that are open or were.
    pub(crate) counts: BTreeMap<String, u64>,
    /// One word for each firing and resolution of the last tick.
    pub(crate) told: String,
    pub(crate) raised: Vec<Raised>,
}

impl World {
    pub(crate) fn new(settings: &str) -> World {
        World {
            settings: crate::settings::parse(settings).unwrap(),
            now_ns: START,
            store: HashMap::new(),
            sums: BTreeMap::new(),
            silent: BTreeMap::new(),
            waiting: Vec::new(),
            counts: BTreeMap::new(),
            told: String::new(),
            raised: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, service: &str, records: u64, errors: u64) {
        self.add_to(&keys::who("shop", service), records, errors);
    }

    pub(crate) fn add_to(&mut self, who: &str, records: u64, errors: u64) {
        self.count(Count::Records.of(who), records);
        self.count(Count::Errors.of(who), errors);
    }

    pub(crate) fn add_spans(&mut self, service: &str, spans: u64, failed: u64) {
        let who = keys::who("shop", service);
        self.count(Count::Spans.of(&who), spans);
        self.count(Count::Failed.of(&who), failed);
    }

    pub(crate) fn add_points(&mut self, service: &str, points: u64) {
        self.count(Count::Points.of(&keys::who("shop", service)), points);
    }

    /// How long requests took; no sum, as nobody asks for it.
    pub(crate) fn add_latency(&mut self, service: &str, buckets: &Buckets) {
        let cell = self.cell(Count::Latency.of(&keys::who("shop", service)));
        cell.count += buckets.iter().sum::<u64>();
        cell.buckets.iter_mut().zip(buckets).for_each(|(sum, count)| *sum += count);
    }

    pub(crate) fn add_number(&mut self, service: &str, metric: &str, number: f64) {
        self.put(keys::numbers(&keys::who("shop", service), &keys::escaped(metric)), number);
    }

    /// As `process` adds it, if it is chosen.
    pub(crate) fn add_total(&mut self, service: &str, metric: &str, series: u64, total: f64) {
        let (who, metric) = (keys::who("shop", service), keys::escaped(metric));
        let followed = self.store.get(&keys::followed(&who, &metric));
        let followed = followed.map(|bytes| Followed::decode(bytes)).unwrap_or_default();
        if followed.choose(vec![series], self.now_ns as f64 / 1e9).is_empty() {
            return;
        }
        for value in totals::values(total, self.now_ns).unwrap() {
            self.put(keys::totals(&who, &metric, series), value);
        }
    }

    pub(crate) fn count(&mut self, key: String, count: u64) {
        if count > 0 {
            self.put(key, count as f64);
        }
    }

    fn put(&mut self, key: String, value: f64) {
        let cell = self.cell(key);
        (cell.min, cell.max) = match cell.count {
            0 => (value, value),
            _ => (cell.min.min(value), cell.max.max(value)),
        };
        cell.count += 1;
        cell.sum += value;
    }

    fn cell(&mut self, key: String) -> &mut Window {
        self.sums.entry(key).or_insert_with_key(|key| window(key, 0, 0, None))
    }

    /// Errors with this message, as `process` names them.
    pub(crate) fn say(&mut self, service: &str, message: &str, count: u64) {
        let who = keys::who("shop", service);
        let Signature { hash, template } = Signature::of("", message.as_bytes(), "");
        let known = self.store.get(&keys::known(&who)).map(|bytes| crate::known::Known::decode(bytes));
        let known = known.unwrap_or_default();
        if !known.is_unsteady && !known.has(hash) {
            self.count(keys::new(&who, hash, &template), count);
        }
    }

    /// Closes the window, without a tick.
    pub(crate) fn close(&mut self) {
        let end = self.now_ns + 10 * SECOND;
        let mut keys: BTreeSet<String> = self.silent.keys().cloned().collect();
        keys.extend(self.sums.keys().cloned());
        for key in keys {
            let sum = self.sums.remove(&key);
            let silent = if sum.is_some() { 0 } else { self.silent[&key] + 1 };
            if silent > 10 {
                self.silent.remove(&key);
                continue;
            }
            let cell = sum.unwrap_or_else(|| window(&key, 0, 0, None));
            self.waiting.push(Window { start: self.now_ns, end, ..cell });
            self.silent.insert(key, silent);
        }
        self.now_ns = end;
    }

    pub(crate) fn tick(&mut self) {
        self.told.clear();
        let closed = std::mem::take(&mut self.waiting);
        if closed.is_empty() {
            return;
        }
        let outcome = tick(&self.settings, self.now_ns, &closed, &|key| self.store.get(key).cloned());
        for (key, value) in outcome.kept {
            match value {
                Some(value) => self.store.insert(key, value),
                None => self.store.remove(&key),
            };
        }
        let bytes: usize = self.store.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(
            bytes <= 64 << 10 && self.store.len() <= 256,
            "{bytes} bytes under {} keys",
            self.store.len()
        );
        assert!(outcome.raised.len() <= 64);
        for raised in &outcome.raised {
            match raised {
                Raised::Fire(alert) => {
                    *self.counts.entry(alert.key.clone()).or_default() += u64::from(alert.count);
                    let _ = write!(self.told, "{}+{} ", alert.key, alert.count);
                }
                Raised::Resolve(key) => {
                    let _ = write!(self.told, "{key}- ");
                }
            }
        }
        self.raised = outcome.raised;
    }

    /// One window, in which this is added.
    pub(crate) fn pass(&mut self, add: impl FnOnce(&mut World)) -> String {
        add(self);
        self.close();
        self.tick();
        self.told.trim_end().to_owned()
    }

    /// So many windows of the same, in which nothing is told.
    pub(crate) fn calm(&mut self, windows: u32, add: impl Fn(&mut World)) {
        for window in 0..windows {
            let told = self.pass(&add);
            assert_eq!(told, "", "window {window} of {windows}");
        }
    }

    pub(crate) fn text(&self) -> String {
        let fired = self.raised.iter().find_map(|raised| match raised {
            Raised::Fire(alert) => Some(alert),
            Raised::Resolve(_) => None,
        });
        fired.map_or(String::new(), |alert| format!("{}\n{}", alert.title, alert.text))
    }
}

pub(crate) fn window(key: &str, start: u64, end: u64, sum: Option<f64>) -> Window {
    let (count, sum) = (u64::from(sum.is_some()), sum.unwrap_or(0.0));
    Window { key: key.to_owned(), start, end, count, sum, min: sum, max: sum, buckets: vec![0; 32] }
}

/// Numbers that chance gives: the same at every run.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        ((mixed ^ (mixed >> 33)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// After Poisson.
    pub(crate) fn events(&mut self, mean: f64) -> u64 {
        let (limit, mut product, mut events) = ((-mean).exp(), self.next(), 0);
        while product > limit {
            product *= self.next();
            events += 1;
        }
        events
    }
}
