//! A part of a delivery as series: what is translated at once, sent in one request if it can be, and cut where it
//! must be.
//!
//! Samples stand ordered by series and time, so that any run of them is a valid request: bisection halves a range.
//! Of two samples of a series at the same time the one that came later counts. Series that say something about the
//! resource (`target_info`) come last and belong to no record.
//! Source: Prometheus Remote-Write 1.0, "Protocol".

use crate::batch::wire::{put_varint, varint_len};
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;
use std::ops::Range;

/// In [`Sample::record`]: of no record.
pub(super) const NO_RECORD: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) series: u32,
    pub(super) time_ms: i64,
    pub(super) value: f64,
    /// The number of the record it is of.
    pub(super) record: u64,
}

#[derive(Clone, Debug)]
struct Series {
    /// In `labels`.
    labels: Range<usize>,
    /// Whose it is: numbers of [`Portion::add`], for telling tenants apart.
    owner: u32,
}

#[derive(Clone, Debug)]
struct Exemplar {
    series: u32,
    /// Of the sample it came with: it goes where that goes.
    sample_ms: i64,
    time_ms: i64,
    /// In `exemplar_bytes`.
    content: Range<usize>,
}

#[derive(Debug, Default)]
pub(super) struct Portion {
    /// The `labels` fields of all series, encoded.
    labels: Vec<u8>,
    series: Vec<Series>,
    by_labels: HashTable<u32>,
    hasher: DefaultHashBuilder,
    pub(super) samples: Vec<Sample>,
    exemplars: Vec<Exemplar>,
    exemplar_bytes: Vec<u8>,
    /// Samples before this one are of records; set by [`Portion::close`].
    pub(super) records_end: usize,
}

impl Portion {
    /// The bytes that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.labels.len() + self.exemplar_bytes.len() + self.samples.len() * size_of::<Sample>()
    }

    /// Where the labels of the next series are written: what stands there is of no series before [`Portion::add`].
    pub(super) fn labels_mut(&mut self) -> &mut Vec<u8> {
        &mut self.labels
    }

    /// Adds a sample to the series whose labels were written last, from `labels_start` on. Returns its series.
    pub(super) fn add(
        &mut self,
        labels_start: usize,
        owner: u32,
        record: u64,
        time_ms: i64,
        value: f64,
    ) -> u32 {
        let series = self.series_of(labels_start, owner);
        self.samples.push(Sample { series, time_ms, value, record });
        series
    }

    fn series_of(&mut self, labels_start: usize, owner: u32) -> u32 {
        let (series, labels, hasher) = (&self.series, &self.labels, &self.hasher);
        let new = &labels[labels_start..];
        let hash = hasher.hash_one(new);
        let is_same = |at: &u32| labels[series[*at as usize].labels.clone()] == *new;
        if let Some(&at) = self.by_labels.find(hash, is_same) {
            self.labels.truncate(labels_start);
            return at;
        }
        let at = u32::try_from(self.series.len()).expect("a portion has few series");
        self.by_labels
            .insert_unique(hash, at, |at| hasher.hash_one(&labels[series[*at as usize].labels.clone()]));
        self.series.push(Series { labels: labels_start..self.labels.len(), owner });
        at
    }

    /// Adds an exemplar to the sample of `series` at `sample_ms`. `write` appends its labels and value, encoded.
    pub(super) fn add_exemplar(
        &mut self,
        series: u32,
        sample_ms: i64,
        time_ms: i64,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = self.exemplar_bytes.len();
        write(&mut self.exemplar_bytes);
        self.exemplar_bytes.push(3 << 3);
        put_varint(&mut self.exemplar_bytes, time_ms.cast_unsigned());
        let content = start..self.exemplar_bytes.len();
        self.exemplars.push(Exemplar { series, sample_ms, time_ms, content });
    }

    /// Puts all in order; nothing is added afterwards. Samples of no record were added last.
    pub(super) fn close(&mut self) {
        let place = |sample: &Sample| (sample.series, sample.time_ms);
        if !self.samples.is_sorted_by_key(place) {
            // Stable: of two at one time the later one stays the later one.
            self.samples.sort_by_key(place);
        }
        let (mut kept, samples) = (0, &mut self.samples);
        for at in 0..samples.len() {
            if kept > 0 && place(&samples[kept - 1]) == place(&samples[at]) {
                kept -= 1;
            }
            samples[kept] = samples[at];
            kept += 1;
        }
        samples.truncate(kept);
        self.exemplars.sort_by_key(|exemplar| (exemplar.series, exemplar.sample_ms, exemplar.time_ms));
        // A series of a record that has the labels of a `target_info` is sent with the records.
        let is_of_record = |sample: &Sample| sample.record != NO_RECORD;
        self.records_end = self.samples.iter().rposition(is_of_record).map_or(0, |last| last + 1);
        self.by_labels.clear();
    }

    /// Where to cut a range that was refused; `None` if it is a single sample. Between owners first, then between
    /// series, then within one.
    pub(super) fn middle(&self, range: &Range<usize>) -> Option<usize> {
        let middle = range.start + range.len() / 2;
        let owner = |at: usize| self.owner(at);
        let series = |at: usize| self.samples[at].series;
        self.nearest_border(range, middle, |at| owner(at - 1) != owner(at))
            .or_else(|| self.nearest_border(range, middle, |at| series(at - 1) != series(at)))
            .or((range.len() > 1).then_some(middle))
    }

    fn nearest_border(
        &self,
        range: &Range<usize>,
        middle: usize,
        is_border: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let before = (range.start + 1..=middle).rev().find(|at| is_border(*at));
        let after = (middle + 1..range.end).find(|at| is_border(*at));
        match (before, after) {
            (Some(before), Some(after)) if middle - before > after - middle => Some(after),
            (before, after) => before.or(after),
        }
    }

    /// Whose series sample `at` is of.
    pub(super) fn owner(&self, at: usize) -> u32 {
        self.series[self.samples[at].series as usize].owner
    }

    /// Whether all samples of the range are of one owner.
    pub(super) fn has_one_owner(&self, range: &Range<usize>) -> bool {
        range.is_empty() || self.owner(range.start) == self.owner(range.end - 1)
    }

    /// The samples of each series of the range.
    pub(super) fn runs(&self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut start = range.start;
        std::iter::from_fn(move || {
            let series = self.samples.get(start).filter(|_| start < range.end)?.series;
            let rest = &self.samples[start..range.end];
            let end = start + rest.iter().take_while(|sample| sample.series == series).count();
            Some(std::mem::replace(&mut start, end)..end)
        })
    }

    /// Appends the samples of the range as a `WriteRequest`.
    pub(super) fn write(&self, range: Range<usize>, out: &mut Vec<u8>) {
        for run in self.runs(range) {
            self.write_series(&self.samples[run], out);
        }
    }

    fn write_series(&self, samples: &[Sample], out: &mut Vec<u8>) {
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return };
        let labels = &self.labels[self.series[first.series as usize].labels.clone()];
        let exemplars = self.exemplars_of(first.series, first.time_ms, last.time_ms);
        let samples_bytes: usize = samples.iter().map(|sample| 2 + sample_bytes(sample)).sum();
        let exemplars_bytes: usize =
            exemplars.iter().map(|exemplar| message_bytes(exemplar.content.len())).sum();
        out.push(1 << 3 | 2);
        put_varint(out, (labels.len() + samples_bytes + exemplars_bytes) as u64);
        out.extend_from_slice(labels);
        for sample in samples {
            // A sample takes less than 128 bytes.
            out.extend_from_slice(&[2 << 3 | 2, sample_bytes(sample) as u8, 1 << 3 | 1]);
            out.extend_from_slice(&sample.value.to_bits().to_le_bytes());
            out.push(2 << 3);
            put_varint(out, sample.time_ms.cast_unsigned());
        }
        for exemplar in exemplars {
            let content = &self.exemplar_bytes[exemplar.content.clone()];
            out.push(3 << 3 | 2);
            put_varint(out, content.len() as u64);
            out.extend_from_slice(content);
        }
    }

    fn exemplars_of(&self, series: u32, from_ms: i64, to_ms: i64) -> &[Exemplar] {
        if self.exemplars.is_empty() {
            return &[];
        }
        let place = |exemplar: &Exemplar| (exemplar.series, exemplar.sample_ms);
        let start = self.exemplars.partition_point(|exemplar| place(exemplar) < (series, from_ms));
        let end = self.exemplars.partition_point(|exemplar| place(exemplar) <= (series, to_ms));
        &self.exemplars[start..end]
    }
}

fn sample_bytes(sample: &Sample) -> usize {
    9 + 1 + varint_len(sample.time_ms.cast_unsigned())
}

fn message_bytes(content: usize) -> usize {
    1 + varint_len(content as u64) + content
}

/// Writes one `Label`: the field of a series or an exemplar.
pub(super) fn put_label(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(1 << 3 | 2);
    put_varint(out, (message_bytes(name.len()) + message_bytes(value.len())) as u64);
    out.push(1 << 3 | 2);
    put_varint(out, name.len() as u64);
    out.extend_from_slice(name);
    out.push(2 << 3 | 2);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}
