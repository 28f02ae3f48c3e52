//! From the bytes of entries to series, without structs in between.
//!
//! A delivery is translated portion by portion, so that what is in memory stays small whatever the labels' size. What
//! has no form here (deltas, exponential histograms) is named with its number; so is what is refused before it is sent.
//! Source: OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility".

use super::Settings;
use super::answer::Refusal;
use super::labels::{Common, Form, Names};
use super::points::{Exemplar, HISTOGRAM, Point, SUMMARY};
use super::portion::{NO_RECORD, Portion, put_label};
use super::shared::{BUCKET, COUNT, Metric, PLAIN, Resource, SUM_OF, common};
use super::values::put_bound;
use crate::batch::{Entry, ItemParts, Items, Signal};
use std::sync::Arc;

/// Samples of a portion, about. Prometheus itself sends 2,000 at once; more save round trips.
const SAMPLES_MAX: usize = 10_000;
/// Bytes of a portion, about: one record may add [`RECORD_BYTES_MAX`]. Prometheus takes bodies of 32 MiB.
const PORTION_BYTES_MAX: usize = 4 << 20;
/// Each series of a histogram repeats the labels: a thousand buckets with labels of 4 KiB.
const RECORD_BYTES_MAX: usize = 4 << 20;

/// "This series ends here." Source: Remote-Write 1.0, "Stale Markers".
pub(super) const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);
/// What any other NaN is sent as: one that looks like a stale marker must not become one.
const NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0001);

/// A delivery's entries, each with whether it was sent before.
pub(super) type Entries = Arc<[(Arc<Entry>, bool)]>;

/// Where the translation of a delivery stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Of the delivery.
    pub(super) entry: usize,
    /// So many records of this entry are done.
    pub(super) records: usize,
}

/// A portion, and what was found on the way.
#[derive(Debug, Default)]
pub(super) struct Translated {
    pub(super) portion: Portion,
    /// Where the next portion begins; `None` after the last one.
    pub(super) next: Option<Place>,
    /// Records that have no form here.
    pub(super) unsupported: Vec<u64>,
    /// Names of their metrics, and why.
    pub(super) unsupported_names: Vec<(String, &'static str)>,
    /// Records that are refused without asking.
    pub(super) rejected: Vec<(u64, Refusal)>,
}

/// Translates entries of metrics from `place` on; each with whether it was sent before. A portion ends where that
/// changes.
pub(super) fn translate(settings: &Settings, entries: &[(Arc<Entry>, bool)], place: Place) -> Translated {
    let mut translation =
        Translation { settings, out: Translated::default(), names: Names::default(), owner: 0 };
    let mut infos = Vec::new();
    let mut at = place;
    while let Some((entry, is_resend)) = entries.get(at.entry) {
        if at.entry > place.entry {
            let (before, was_resend) = &entries[at.entry - 1];
            if was_resend != is_resend {
                break;
            }
            translation.owner += u32::from(before.stream.tenant != entry.stream.tenant);
        }
        if let Some(records) = translation.entry(entry, at.records, &mut infos) {
            at.records = records;
            break;
        }
        at = Place { entry: at.entry + 1, records: 0 };
    }
    for info in infos {
        let labels = translation.out.portion.labels_mut();
        let start = labels.len();
        labels.extend_from_slice(&info.labels);
        translation.out.portion.add(start, info.owner, NO_RECORD, info.time_ms, 1.0);
    }
    translation.out.portion.close();
    translation.out.next = (at.entry < entries.len()).then_some(at);
    translation.out
}

/// A sample of a resource's own series.
struct Info {
    labels: Vec<u8>,
    owner: u32,
    time_ms: i64,
}

struct Translation<'s> {
    settings: &'s Settings,
    out: Translated,
    names: Names,
    /// Whose entry is being read.
    owner: u32,
}

/// What neighbours share, and buffers.
#[derive(Default)]
struct Shared<'b> {
    /// Numbers of the resource, scope and metric that the rest is of.
    numbers: Option<[u32; 3]>,
    resource: Resource,
    common: Common,
    metric: Metric<'b>,
    /// The keys of the last point, and the forms that were made for them.
    keys: Vec<&'b [u8]>,
    form: Option<Form>,
    bound_form: Option<(&'static str, Form)>,
    bounds: Bounds,
}

/// The `le` labels of a histogram, encoded; most points of a metric have the same.
#[derive(Default)]
struct Bounds {
    values: Vec<f64>,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Bounds {
    fn set(&mut self, values: &[f64]) {
        if !self.ends.is_empty() && self.values == values {
            return;
        }
        self.values = values.to_vec();
        self.bytes.clear();
        self.ends.clear();
        let mut text = String::new();
        for value in values.iter().copied().chain([f64::INFINITY]) {
            text.clear();
            put_bound(&mut text, value);
            put_label(&mut self.bytes, b"le", text.as_bytes());
            self.ends.push(self.bytes.len());
        }
    }

    fn label(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[at]]
    }
}

impl Translation<'_> {
    /// Translates the records of an entry from `from` on. `Some`: the portion is full, and so many are done in all.
    fn entry(&mut self, entry: &Entry, from: usize, infos: &mut Vec<Info>) -> Option<usize> {
        let (mut shared, mut point) = (Shared::default(), Point::default());
        let mut full = None;
        for (at, parts) in Items::over(Signal::Metrics, &entry.bytes).enumerate().skip(from) {
            if self.is_full() {
                full = Some(at);
                break;
            }
            self.share(&mut shared, &parts, infos);
            let record = entry.first + at as u64;
            if let Some(why) = shared.metric.unsupported {
                self.unsupported(record, &mut shared.metric, why);
                continue;
            }
            point.read(parts.kind, parts.item);
            let time_ms = match point.time_nanos {
                // It does not say: when it was committed, which a resend does not change.
                0 => entry.time_ms.cast_signed(),
                nanos => (nanos / 1_000_000).cast_signed(),
            };
            match self.record(record, time_ms, &mut shared, &point) {
                Ok(()) => shared.resource.newest_ms = shared.resource.newest_ms.max(Some(time_ms)),
                Err(refusal) => self.out.rejected.push((record, refusal)),
            }
        }
        infos.extend(self.info(&mut shared.resource));
        full
    }

    fn is_full(&self) -> bool {
        self.out.portion.samples.len() >= SAMPLES_MAX || self.out.portion.bytes() >= PORTION_BYTES_MAX
    }

    fn unsupported(&mut self, record: u64, metric: &mut Metric<'_>, why: &'static str) {
        self.out.unsupported.push(record);
        if !std::mem::replace(&mut metric.is_told, true) {
            self.out.unsupported_names.push((metric.original.to_owned(), why));
        }
    }

    /// Makes anew what these parts do not share with the last ones.
    fn share<'b>(&mut self, shared: &mut Shared<'b>, parts: &ItemParts<'b>, infos: &mut Vec<Info>) {
        let numbers = [parts.resource_number, parts.scope_number, parts.metric_number];
        if shared.numbers == Some(numbers) {
            return;
        }
        let is_new = |at: usize| shared.numbers.is_none_or(|old| old[at] != numbers[at]);
        let [is_new_resource, is_new_scope, _] = [0, 1, 2].map(is_new);
        shared.numbers = Some(numbers);
        if is_new_resource {
            infos.extend(self.info(&mut shared.resource));
            shared.resource = Resource::of(parts.resource, &self.settings.promote, &mut self.names);
        }
        if is_new_resource || (is_new_scope && self.settings.is_scope_labelled) {
            let is_labelled = self.settings.is_scope_labelled;
            shared.common = common(&shared.resource, is_labelled.then_some(parts), &mut self.names);
            (shared.form, shared.bound_form) = (None, None);
        }
        shared.metric = Metric::of(parts);
    }

    /// The sample of a resource that is left behind.
    fn info(&self, resource: &mut Resource) -> Option<Info> {
        let labels = resource.info.take()?;
        Some(Info { labels, owner: self.owner, time_ms: resource.newest_ms? })
    }

    fn record<'b>(
        &mut self,
        record: u64,
        time_ms: i64,
        shared: &mut Shared<'b>,
        point: &Point<'b>,
    ) -> Result<(), Refusal> {
        if shared.metric.labels[PLAIN].is_empty() {
            return Err(Refusal::NoName);
        }
        self.form(shared, point);
        let form = shared.form.as_ref().expect("it was made");
        if !form.fits(&point.attributes, &point.made, &shared.metric.labels[PLAIN]) {
            return Err(Refusal::LabelsTooLong);
        }
        let mut writer = Writer {
            portion: &mut self.out.portion,
            names: &mut self.names,
            owner: self.owner,
            record,
            time_ms,
            form,
            point,
            metric: &shared.metric,
        };
        match shared.metric.kind {
            HISTOGRAM => {
                let (_, form) = shared.bound_form.as_ref().expect("it was made");
                shared.bounds.set(&point.bounds);
                writer.histogram(form, &shared.bounds)
            }
            SUMMARY => {
                let (_, form) = shared.bound_form.as_ref().expect("it was made");
                writer.summary(form)
            }
            _ => writer.number(),
        }
    }

    /// Makes the forms that the point needs, unless its keys are those of the last one.
    fn form<'b>(&mut self, shared: &mut Shared<'b>, point: &Point<'b>) {
        let keys = point.attributes.iter().map(|(key, _)| *key);
        if !shared.keys.iter().copied().eq(keys.clone()) {
            shared.keys = keys.collect();
            (shared.form, shared.bound_form) = (None, None);
        }
        if shared.form.is_none() {
            shared.form = Some(Form::of(&shared.keys, &shared.common, None, &mut self.names));
        }
        let bound = match shared.metric.kind {
            HISTOGRAM => "le",
            SUMMARY => "quantile",
            _ => return,
        };
        if shared.bound_form.as_ref().is_none_or(|(name, _)| *name != bound) {
            let form = Form::of(&shared.keys, &shared.common, Some(bound), &mut self.names);
            shared.bound_form = Some((bound, form));
        }
    }
}

/// Writes the series of one record.
struct Writer<'w, 'b> {
    portion: &'w mut Portion,
    names: &'w mut Names,
    owner: u32,
    record: u64,
    time_ms: i64,
    form: &'w Form,
    point: &'w Point<'b>,
    metric: &'w Metric<'b>,
}

impl Writer<'_, '_> {
    fn number(&mut self) -> Result<(), Refusal> {
        if self.point.number.is_none() && !self.point.is_stale {
            return Err(Refusal::NoValue);
        }
        let series = self.plain(PLAIN, self.point.number.unwrap_or_default());
        if self.metric.is_monotonic {
            for exemplar in &self.point.exemplars {
                if let Some(exemplar) = Exemplar::read(exemplar) {
                    self.exemplar(series, &exemplar);
                }
            }
        }
        Ok(())
    }

    fn histogram(&mut self, form: &Form, bounds: &Bounds) -> Result<(), Refusal> {
        let point = self.point;
        self.check_size(point.bounds.len())?;
        // A point that says "ended" ends all of its series; it need not have the values.
        if point.sum.is_some() || point.is_stale {
            self.plain(SUM_OF, point.sum.unwrap_or_default());
        }
        self.plain(COUNT, point.count as f64);
        let buckets =
            if point.is_stale { point.bounds.len() } else { point.bounds.len().min(point.counts.len()) };
        let (mut before, mut after) = (Vec::new(), Vec::new());
        form.write_around(
            &point.attributes,
            &point.made,
            &self.metric.labels[BUCKET],
            &mut before,
            &mut after,
        );
        let mut series = Vec::with_capacity(buckets + 1);
        let mut sum = 0u64;
        for at in 0..buckets {
            sum = sum.wrapping_add(point.counts.get(at).copied().unwrap_or_default());
            series.push(self.bound(&before, bounds.label(at), &after, sum as f64));
        }
        let last = bounds.label(point.bounds.len());
        series.push(self.bound(&before, last, &after, point.count as f64));
        for exemplar in &point.exemplars {
            let Some(exemplar) = Exemplar::read(exemplar) else { continue };
            let bucket = point.bounds[..buckets].iter().position(|bound| exemplar.value <= *bound);
            self.exemplar(series[bucket.unwrap_or(buckets)], &exemplar);
        }
        Ok(())
    }

    fn summary(&mut self, form: &Form) -> Result<(), Refusal> {
        let point = self.point;
        self.check_size(point.quantiles.len())?;
        self.plain(SUM_OF, point.sum.unwrap_or_default());
        self.plain(COUNT, point.count as f64);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        form.write_around(
            &point.attributes,
            &point.made,
            &self.metric.labels[PLAIN],
            &mut before,
            &mut after,
        );
        let (mut text, mut label) = (String::new(), Vec::new());
        for (quantile, value) in &point.quantiles {
            text.clear();
            label.clear();
            put_bound(&mut text, *quantile);
            put_label(&mut label, b"quantile", text.as_bytes());
            self.bound(&before, &label, &after, *value);
        }
        Ok(())
    }

    fn check_size(&self, bounds: usize) -> Result<(), Refusal> {
        let labels = self.form.bytes(&self.point.attributes, &self.point.made, &self.metric.labels[PLAIN]);
        if (bounds + 3).saturating_mul(labels) > RECORD_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        Ok(())
    }

    /// A series without a bound.
    fn plain(&mut self, metric: usize, value: f64) -> u32 {
        let labels = self.portion.labels_mut();
        let start = labels.len();
        self.form.write(&self.point.attributes, &self.point.made, &self.metric.labels[metric], labels);
        self.add(start, value)
    }

    /// A series with a bound, between the labels that sort before and after it.
    fn bound(&mut self, before: &[u8], bound: &[u8], after: &[u8], value: f64) -> u32 {
        let labels = self.portion.labels_mut();
        let start = labels.len();
        labels.extend_from_slice(before);
        labels.extend_from_slice(bound);
        labels.extend_from_slice(after);
        self.add(start, value)
    }

    fn add(&mut self, labels_start: usize, value: f64) -> u32 {
        let value = match value {
            _ if self.point.is_stale => STALE,
            value if value.is_nan() => NAN,
            value => value,
        };
        self.portion.add(labels_start, self.owner, self.record, self.time_ms, value)
    }

    fn exemplar(&mut self, series: u32, exemplar: &Exemplar<'_>) {
        let time_ms = match exemplar.time_nanos {
            0 => self.time_ms,
            nanos => (nanos / 1_000_000).cast_signed(),
        };
        let names = &mut *self.names;
        self.portion.add_exemplar(series, self.time_ms, time_ms, |out| exemplar.write(names, out));
    }
}
