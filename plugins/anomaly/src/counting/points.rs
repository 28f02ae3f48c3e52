//! Of data points: how many there are, and the numbers of the metrics that the settings name.

use super::{Services, Sums, spread};
use crate::keys::{self, Count};
use crate::settings::Settings;
use crate::signature::hash;
use crate::totals::{self, Followed};
use std::collections::BTreeMap;
use trommel_sdk::{Level, Places, batch, store};

/// Types of metric: histograms and summaries are not watched.
const GAUGE: u8 = 5;
const SUM: u8 = 7;
/// Temporality of sums.
const DELTA: u8 = 1;
const CUMULATIVE_MONOTONIC: u8 = 2 + 16;
/// Numbers of one metric of one service that one batch adds.
const NUMBERS_MAX: usize = 64;
/// Keys of attributes that tell series apart.
const KEYS_MAX: usize = 32;

/// What a batch has of one metric of one service.
#[derive(Default)]
struct Metric {
    numbers: Vec<f64>,
    /// Row, total and time.
    totals: Vec<(usize, f64, u64)>,
}

pub(super) fn sums(settings: &Settings) -> Sums {
    let mut sums = Sums::default();
    let items = batch::rows(Level::Item) as usize;
    if items == 0 {
        return sums;
    }
    let services = Services::read();
    let mut of_item = vec![0; items];
    let mut points = vec![0; services.names.len()];
    for (service, rows) in services.runs(items) {
        points[service] += rows.len();
        of_item[rows].fill(service);
    }
    let project = batch::project();
    let whose: Vec<String> = services.names.iter().map(|name| keys::who(&project, name)).collect();
    let is_ignored: Vec<bool> = services.names.iter().map(|name| settings.ignore.contains(name)).collect();
    for (service, number) in points.into_iter().enumerate().filter(|(service, _)| !is_ignored[*service]) {
        sums.count(Count::Points, &whose[service], number);
    }
    if settings.metrics.is_empty() {
        return sums;
    }
    let mut metrics = watched(settings, &whose, &of_item);
    metrics.retain(|(service, _), _| !is_ignored[*service]);
    let has_totals = metrics.values().any(|metric| !metric.totals.is_empty());
    let ids = if has_totals { ids(items) } else { Vec::new() };
    for ((service, name), metric) in metrics {
        let who = &whose[service];
        for number in spread(&metric.numbers, NUMBERS_MAX) {
            sums.add(keys::numbers(who, &name), number);
        }
        if !metric.totals.is_empty() {
            add_totals(&mut sums, who, &name, &metric.totals, &ids);
        }
    }
    sums
}

/// Of each service and metric that the settings name, what this batch has.
fn watched(settings: &Settings, whose: &[String], of_item: &[usize]) -> BTreeMap<(usize, String), Metric> {
    let mut metrics = BTreeMap::<(usize, String), Metric>::new();
    let names = batch::packed_texts(Places::NAME);
    let rows = batch::text_rows(Places::NAME);
    let mut named: Vec<Option<&str>> = vec![None; batch::rows(Level::Metric) as usize];
    for (row, name) in rows.iter().zip(names.iter()) {
        let setting = settings.metrics.iter().find(|metric| metric.name.as_bytes() == name);
        named[*row as usize] = setting.map(|setting| setting.in_keys.0.as_str());
    }
    if named.iter().all(Option::is_none) {
        return metrics;
    }
    let parents = batch::parents(Level::Item, Level::Metric);
    let (kinds, temporalities, numbers) = (batch::kinds(), batch::temporalities(), batch::numbers());
    let (times, starts) = (batch::times(), batch::end_times());
    for (item, metric) in parents.iter().enumerate() {
        let Some(name) = named[*metric as usize] else { continue };
        let service = of_item[item];
        if settings.metric(keys::service(&whose[service]), name).is_none() {
            continue;
        }
        let seen = metrics.entry((service, name.to_owned())).or_default();
        match (kinds[item], temporalities[item]) {
            (SUM, CUMULATIVE_MONOTONIC) => seen.totals.push((item, numbers[item], times[item])),
            (SUM, temporality) if temporality & 15 == DELTA => {
                let seconds = times[item].saturating_sub(starts[item]) as f64 / 1e9;
                // One that does not say since when is taken as it is.
                let is_known = starts[item] > 0 && seconds > 0.0;
                seen.numbers.push(if is_known { numbers[item] / seconds } else { numbers[item] });
            }
            (GAUGE | SUM, _) => seen.numbers.push(numbers[item]),
            _ => {}
        }
    }
    metrics
}

fn add_totals(sums: &mut Sums, who: &str, name: &str, totals: &[(usize, f64, u64)], ids: &[u64]) {
    let followed = store::get(&keys::followed(who, name));
    let followed = followed.map(|bytes| Followed::decode(&bytes)).unwrap_or_default();
    let latest_ns = totals.iter().map(|(_, _, time_ns)| *time_ns).max().unwrap_or_default();
    let series = totals.iter().map(|(item, ..)| ids[*item]).collect();
    let chosen = followed.choose(series, latest_ns as f64 / 1e9);
    for (item, total, time_ns) in totals {
        let id = ids[*item];
        if let Some(values) = totals::values(*total, *time_ns).filter(|_| chosen.contains(&id)) {
            values.into_iter().for_each(|value| sums.add(keys::totals(who, name, id), value));
        }
    }
}

/// The id of the series of each item: what stands in its attributes, and which instance of the service sent it.
fn ids(items: usize) -> Vec<u64> {
    let mut parts: Vec<Vec<u64>> = vec![Vec::new(); items];
    let mut add = |row: u32, key: &str, value: &[u8]| {
        let part = hash(key.as_bytes()).rotate_left(1) ^ hash(value);
        parts[row as usize].push(part);
    };
    let mut keys = batch::attribute_keys(Level::Item);
    keys.sort_unstable();
    for key in keys.iter().take(KEYS_MAX) {
        batch::text_attribute(Level::Item, key)
            .iter()
            .for_each(|(row, value)| add(row, key, value.as_bytes()));
        batch::int_attribute(Level::Item, key)
            .iter()
            .for_each(|(row, value)| add(row, key, &value.to_le_bytes()));
        batch::bool_attribute(Level::Item, key)
            .iter()
            .for_each(|(row, value)| add(row, key, &[u8::from(value)]));
    }
    let instances = batch::text_attribute(Level::Resource, "service.instance.id");
    let resources = batch::parents(Level::Item, Level::Resource);
    for (row, resource) in (0..).zip(&resources) {
        if let Ok(at) = instances.rows.binary_search(resource) {
            add(row, "", instances.strings[instances.index[at] as usize].as_bytes());
        }
    }
    parts.iter_mut().map(|parts| totals::id(parts)).collect()
}
