//! A plugin at work on a sample.
//!
//! A request of the sample is "committed" at the newest time that its records bear, so that a recording is played on
//! its own clock; windows close on it, and `tick` is called at the end of each, as a collector does once a second.

use super::{ALERTS_MAX, Alerted, Line, Output, Record, Sample, Whose};
use crate::batch::wire::{fields_of, fixed64};
use crate::batch::{Batch, IdentityKeys, Items, Piece, Request, Signal, json};
use crate::pipeline::{PIECE_BYTES_MAX, PIECE_RECORDS_MAX, Series, Windowed};
use crate::sandbox::{Effects, Failed, Plugin, thread_cpu};
use crate::telemetry::Metrics;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// The time of a sample whose records bear none: 2026-01-01T00:00:00Z.
const START_MS: u64 = 1_767_225_600_000;
/// A larger record is left out before the plugins, unless the configuration says otherwise.
const RECORD_BYTES_MAX: usize = 1 << 20;

impl Sample {
    /// What the plugin makes of it; load it with [`crate::sandbox::Sandbox::load_apart`]. Takes as long as the plugin
    /// does, up to four times its CPU limit for each 512 records: not for an executor's thread.
    pub fn run(&self, plugin: &Plugin, whose: &Whose) -> Output {
        let mut run = Run::begin(plugin, whose);
        self.requests.iter().for_each(|request| run.request(request));
        run.end()
    }
}

pub(super) fn keys() -> IdentityKeys {
    IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() }
}

/// The request as the first plugin sees it, and how many records were too large.
fn stamped(request: &Request, whose: &Whose, keys: &IdentityKeys) -> (Batch, u32) {
    let all: Vec<usize> = (0..request.resources.len()).collect();
    let mut batch = request.batch(whose.0.clone(), &all);
    let too_large = batch.reject_larger(RECORD_BYTES_MAX);
    batch.stamp(keys, true);
    (batch.written(Vec::new(), keys).batch, too_large)
}

struct Run<'p> {
    plugin: &'p Plugin,
    whose: &'p Whose,
    keys: IdentityKeys,
    series: Series,
    window_ms: u64,
    /// The time of the last commit.
    now_ms: Option<u64>,
    output: Output,
    telemetry: Map<String, Value>,
}

impl Run<'_> {
    fn begin<'p>(plugin: &'p Plugin, whose: &'p Whose) -> Run<'p> {
        let series = Series::new(Metrics::new());
        let seconds = plugin.manifest().window_seconds;
        let windowed = Windowed {
            plugin: plugin.name().to_owned(),
            window_seconds: seconds,
            keys_max: plugin.settings().limits.series_keys,
        };
        series.promote([windowed].into_iter());
        let (output, telemetry) = (Output::default(), Map::new());
        let window_ms = u64::from(seconds) * 1_000;
        Run { plugin, whose, keys: keys(), series, window_ms, now_ms: None, output, telemetry }
    }

    fn request(&mut self, request: &Request) {
        let (batch, too_large) = stamped(request, self.whose, &self.keys);
        self.output.too_large += u64::from(too_large);
        self.output.records += request.records;
        self.go_on(newest_ms(batch.signal, &batch.bytes));
        let now_ms = self.now_ms.unwrap_or(START_MS);
        let before = records(batch.signal, &batch.bytes).0;

        let mut effects = Effects::default();
        let mut done = Vec::new();
        for piece in batch.pieces(PIECE_RECORDS_MAX, PIECE_BYTES_MAX) {
            let (piece, left) = self.piece(piece, now_ms);
            effects.merge(left);
            done.push(piece);
        }
        let fates: Vec<Fate> = done.iter().map(Fate::of).collect();
        let lengths = batch.pieces(PIECE_RECORDS_MAX, PIECE_BYTES_MAX).iter().map(Piece::records).collect();
        let signal = batch.signal;
        let written = batch.written(done, &self.keys);
        let (after, telemetry) = records(signal, &written.batch.bytes);
        let routes = written.routes.unwrap_or_else(|| vec![None; after.len()]);
        let after = after.into_iter().zip(routes).map(|(record, route)| (Some(record), route)).collect();
        self.pair(before, lengths, after, &fates);
        for (name, list) in telemetry {
            match (self.telemetry.get_mut(&name), list) {
                (Some(Value::Array(known)), Value::Array(more)) => known.extend(more),
                (_, list) => drop(self.telemetry.insert(name, list)),
            }
        }
        self.apply(effects, now_ms);
    }

    fn piece(&mut self, piece: Piece, now_ms: u64) -> (Piece, Effects) {
        let begun = thread_cpu();
        let ran = self.plugin.run(piece, now_ms.saturating_mul(1_000_000));
        self.count_cpu(thread_cpu().saturating_sub(begun));
        self.output.pieces += 1;
        for Failed { records, error } in ran.failed {
            match self.output.failed.last_mut() {
                Some(last) if last.error == error => last.records += records,
                _ => self.output.failed.push(Failed { records, error }),
            }
        }
        (ran.piece, ran.effects)
    }

    fn count_cpu(&mut self, used: Duration) {
        self.output.cpu += used;
        self.output.cpu_max = self.output.cpu_max.max(used);
    }

    /// Which record became which, piece by piece.
    fn pair(
        &mut self,
        before: Vec<Record>,
        lengths: Vec<u32>,
        mut after: Vec<(Option<Record>, Option<Arc<str>>)>,
        fates: &[Fate],
    ) {
        let mut before = before.into_iter();
        let mut at = 0;
        for (length, fate) in lengths.into_iter().zip(fates) {
            let olds: Vec<Record> = before.by_ref().take(length as usize).collect();
            let end = after.len().min(at + fate.left as usize);
            let news = &mut after[at..end];
            at = end;
            let lines = match &fate.survivors {
                Some(survivors) => by_number(olds, survivors, news),
                None => by_likeness(olds, news),
            };
            for line in lines {
                self.output.dropped += u64::from(line.after.is_none());
                self.output.added += u64::from(line.before.is_none());
                self.output.lines.push(line);
            }
        }
    }

    /// To the time of the next commit: what closes before it is shown.
    fn go_on(&mut self, time_ms: Option<u64>) {
        let Some(now_ms) = self.now_ms else {
            self.now_ms = time_ms;
            return;
        };
        let next_ms = time_ms.map_or(now_ms, |time_ms| time_ms.max(now_ms));
        self.show_until(next_ms);
        self.now_ms = Some(next_ms);
    }

    fn show_until(&mut self, next_ms: u64) {
        if self.window_ms == 0 {
            return;
        }
        let mut at_ms = self.now_ms.unwrap_or(START_MS);
        let tenant = self.whose.0.tenant.clone();
        loop {
            at_ms = (at_ms / self.window_ms + 1).saturating_mul(self.window_ms);
            if at_ms > next_ms || !self.series.due(self.plugin.name(), at_ms).contains(&tenant) {
                return;
            }
            let closed = self.series.take(self.plugin.name(), &tenant, at_ms);
            if closed.is_empty() {
                continue;
            }
            let begun = thread_cpu();
            let ticked = self.plugin.tick(&tenant, at_ms.saturating_mul(1_000_000), &closed);
            self.count_cpu(thread_cpu().saturating_sub(begun));
            self.output.ticks += 1;
            match ticked {
                Ok(effects) => self.apply(effects, at_ms),
                Err(error) => self.output.failed_ticks.push(error),
            }
        }
    }

    fn apply(&mut self, effects: Effects, at_ms: u64) {
        let output = &mut self.output;
        for (name, by) in effects.counts {
            *output.counts.entry(name).or_default() += by;
        }
        output.gauges.extend(effects.gauges);
        for (key, cell) in &effects.series {
            output.series.entry(key.clone()).or_default().merge(cell);
        }
        self.series.add(self.plugin.name(), &self.whose.0.tenant, at_ms, effects.series);
        let room = ALERTS_MAX.saturating_sub(output.alerts.len());
        output.alerts.extend(effects.alerts.into_iter().take(room).map(|alert| Alerted { at_ms, alert }));
    }

    /// The window at hand closes; what comes after it is silence, and no part of the sample.
    fn end(mut self) -> Output {
        let end_ms = self.now_ms.unwrap_or(START_MS).saturating_add(self.window_ms);
        self.show_until(end_ms);
        self.output.memory = self.plugin.memory_peak();
        self.output.telemetry = Value::Object(self.telemetry);
        self.output
    }
}

/// What a plugin left of the rows of a piece.
struct Fate {
    left: u32,
    survivors: Option<Vec<u32>>,
}

impl Fate {
    fn of(piece: &Piece) -> Fate {
        Fate { left: piece.records(), survivors: piece.survivors().map(<[u32]>::to_vec) }
    }
}

pub(super) type News<'a> = &'a mut [(Option<Record>, Option<Arc<str>>)];

fn by_number(olds: Vec<Record>, survivors: &[u32], news: News<'_>) -> Vec<Line> {
    let mut left = survivors.iter().zip(news).peekable();
    let line = |(row, old)| {
        let new =
            left.next_if(|(survivor, _)| **survivor as usize == row).map(|(_, new)| std::mem::take(new));
        let (after, route) = new.unwrap_or_default();
        Line { before: Some(old), after, route }
    };
    olds.into_iter().enumerate().map(line).collect()
}

/// Without row numbers: those that are the same are the same, and between two of them each stands for the one at its
/// place, if there are as many.
pub(super) fn by_likeness(olds: Vec<Record>, news: News<'_>) -> Vec<Line> {
    if olds.len() == news.len() {
        let line = |(old, new): (Record, &mut (Option<Record>, _))| {
            let (after, route) = std::mem::take(new);
            Line { before: Some(old), after, route }
        };
        return olds.into_iter().zip(news).map(line).collect();
    }
    let mut lines = Vec::new();
    let mut at = 0;
    for old in olds {
        let same = (at..news.len()).find(|at| news[*at].0.as_ref() == Some(&old));
        let Some(same) = same else {
            lines.push(Line { before: Some(old), after: None, route: None });
            continue;
        };
        lines.extend(news[at..same].iter_mut().map(added));
        let (after, route) = std::mem::take(&mut news[same]);
        lines.push(Line { before: Some(old), after, route });
        at = same + 1;
    }
    lines.extend(news[at..].iter_mut().map(added));
    lines
}

fn added(new: &mut (Option<Record>, Option<Arc<str>>)) -> Line {
    let (after, route) = std::mem::take(new);
    Line { before: None, after, route }
}

/// The newest time that a record bears.
pub(in crate::app) fn newest_ms(signal: Signal, bytes: &[u8]) -> Option<u64> {
    // When it was observed, where nobody knows when it happened.
    let numbers: &[u32] = match signal {
        Signal::Logs => &[1, 11],
        Signal::Traces => &[8],
        Signal::Metrics => &[3],
    };
    let time = |item: &[u8], number: u32| {
        let field = fields_of(item).filter(|field| field.number == number && field.wire == 1).last()?;
        Some(fixed64(item, &field)).filter(|ns| *ns > 0)
    };
    let newest = |item: &[u8]| numbers.iter().find_map(|number| time(item, *number));
    Items::over(signal, bytes).filter_map(|parts| newest(parts.item)).max().map(|ns| ns / 1_000_000)
}

/// Every record of a request in order, and the request as it stands in OTLP/JSON; nothing if it is empty.
fn records(signal: Signal, bytes: &[u8]) -> (Vec<Record>, Map<String, Value>) {
    let request = match json::value_of(json::request_of(signal), bytes) {
        Value::Object(request) => request,
        _ => Map::new(),
    };
    let mut found = Vec::new();
    let (scopes, items) = match signal {
        Signal::Logs => ("scopeLogs", "logRecords"),
        Signal::Traces => ("scopeSpans", "spans"),
        Signal::Metrics => ("scopeMetrics", "metrics"),
    };
    for resource in request.values().flat_map(list) {
        let head = Arc::new(without(resource, scopes));
        for scope in list(&resource[scopes]) {
            let (resource, scope_head) = (head.clone(), Arc::new(without(scope, items)));
            for item in list(&scope[items]) {
                let line = |metric, record| Record {
                    resource: resource.clone(),
                    scope: scope_head.clone(),
                    metric,
                    record,
                };
                match signal {
                    Signal::Metrics => {
                        let (metric, points) = split_metric(item);
                        found.extend(points.iter().map(|point| line(Some(metric.clone()), point.clone())));
                    }
                    Signal::Logs | Signal::Traces => found.push(line(None, item.clone())),
                }
            }
        }
    }
    (found, request)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn without(envelope: &Value, name: &str) -> Value {
    let mut fields = envelope.as_object().cloned().unwrap_or_default();
    fields.remove(name);
    Value::Object(fields)
}

/// A metric without its points, and these.
fn split_metric(metric: &Value) -> (Arc<Value>, Vec<Value>) {
    let mut head = metric.clone();
    let mut points = Vec::new();
    for data in head.as_object_mut().into_iter().flat_map(Map::values_mut) {
        if let Some(Value::Array(taken)) = data.as_object_mut().and_then(|data| data.remove("dataPoints")) {
            points = taken;
        }
    }
    (Arc::new(head), points)
}
