//! The columns of the fixed fields: severity, kind, times, ids.
//!
//! A column has one entry for each item that the call sees. For a signal that has no such field it is all zeros.

use super::super::Signal;
use super::super::wire::{VARINT, fields, varint};
use super::edits::Setting;
use super::heads::Head;
use super::index::{HEADS, content};
use super::space::Span;
use super::{Call, Fault, Inner, Level, Row, same_length};

/// Random bits of a trace (OpenTelemetry, "TraceState: Probability Sampling": 56).
const RANDOM_BITS: u32 = 56;

impl Call {
    /// The number of rows at a level.
    pub fn rows(&mut self, at: Level) -> u32 {
        self.inner.shown(at).rows.len() as u32
    }

    /// For each row of `child`, the row of `parent` that it belongs to.
    pub fn parents(&mut self, child: Level, parent: Level) -> Result<Vec<u32>, Fault> {
        let is_metrics = self.inner.signal == Signal::Metrics;
        let has_no_metrics = !is_metrics && (child == Level::Metric || parent == Level::Metric);
        if has_no_metrics && child != Level::Event {
            return Err(Fault(format!("{} have no level `metric`", self.inner.signal.name())));
        }
        if depth(child) <= depth(parent) || has_no_metrics {
            return Err(Fault(format!("level `{}` does not stand in level `{}`", name(child), name(parent))));
        }
        self.inner.shown(child);
        let inner = &*self.inner;
        let numbers = &inner.shown_now(parent).numbers;
        let of = |row: u32| numbers.get(inner.ancestor(child, row, parent) as usize).copied().unwrap_or(0);
        Ok(inner.shown_now(child).rows.iter().map(|row| of(*row)).collect())
    }

    /// For each log record its severity number, 1 to 24, or 0.
    pub fn severities(&mut self) -> Result<Vec<u8>, Fault> {
        Ok(self.column(|head| head.severity))
    }

    /// Sets the severity number of these log records; 0 takes it away.
    pub fn set_severity(&mut self, items: &[u32], to: u8) {
        self.edit("set-severity", |call| {
            if call.inner.signal != Signal::Logs {
                return Err(Fault(format!("{} have no severity", call.inner.signal.name())));
            }
            if to > 24 {
                return Err(Fault(format!("there is no severity {to}, they are 1 to 24, or 0 for none")));
            }
            let rows = call.inner.rows_behind(Level::Item, items)?;
            call.edits.count(rows.len(), 2);
            call.edits.severities.extend(rows.into_iter().map(|item| Setting { item, to }));
            Ok(())
        });
    }

    /// For each span its kind; for each data point the field number of its metric's data.
    pub fn kinds(&mut self) -> Result<Vec<u8>, Fault> {
        if self.inner.signal != Signal::Metrics {
            return Ok(self.column(|head| head.kind));
        }
        let inner = &*self.inner;
        Ok(inner.seen_items().map(|item| inner.metric_kind(item)).collect())
    }

    /// For each span its status code.
    pub fn statuses(&mut self) -> Result<Vec<u8>, Fault> {
        Ok(self.column(|head| head.status))
    }

    /// Nanoseconds since 1970; of a span, its start.
    pub fn times(&mut self) -> Result<Vec<u64>, Fault> {
        Ok(self.column(|head| head.time))
    }

    /// Of a span its end, of a log record when it was observed, of a data point the start of its interval.
    pub fn end_times(&mut self) -> Result<Vec<u64>, Fault> {
        Ok(self.column(|head| head.end_time))
    }

    /// The number of each data point, or the sum of a histogram or summary.
    pub fn numbers(&mut self) -> Result<Vec<f64>, Fault> {
        Ok(self.column(|head| head.number))
    }

    /// The count of each histogram or summary; 1 for another data point.
    pub fn counts(&mut self) -> Result<Vec<f64>, Fault> {
        if self.inner.signal == Signal::Metrics {
            return Ok(self.column(|head| head.count));
        }
        Ok(vec![0.0; self.inner.view.items.rows.len()])
    }

    /// For each data point: 0 none, 1 delta, 2 cumulative; 16 more if monotonic.
    pub fn temporalities(&mut self) -> Result<Vec<u8>, Fault> {
        let inner = &*self.inner;
        let mut of_metrics = vec![None; inner.rows.metrics.len()];
        let mut of = |item: &Row| {
            let metric = of_metrics.get_mut(item.parent as usize);
            metric.map_or(0, |known| *known.get_or_insert_with(|| inner.temporality(item)))
        };
        Ok(inner.seen_items().map(&mut of).collect())
    }

    /// 16 bytes for each item, zeros if it has no id.
    pub fn trace_ids(&mut self) -> Result<Vec<u8>, Fault> {
        Ok(self.ids::<16>(|head| head.trace_id))
    }

    /// 8 bytes for each item, zeros if it has no id.
    pub fn span_ids(&mut self) -> Result<Vec<u8>, Fault> {
        Ok(self.ids::<8>(|head| head.span_id))
    }

    /// 8 bytes for each item, zeros if it has no id.
    pub fn parent_span_ids(&mut self) -> Result<Vec<u8>, Fault> {
        Ok(self.ids::<8>(|head| head.parent_id))
    }

    /// [`Call::randomness`] as a number from 0 up to 1.
    pub fn trace_fractions(&mut self) -> Result<Vec<f64>, Fault> {
        let whole = (1_u64 << RANDOM_BITS) as f64;
        Ok(self.randomness()?.into_iter().map(|random| random as f64 / whole).collect())
    }

    /// 56 bits for each item that depend on its trace alone: from `rv` of the trace state, else the last 7 bytes of
    /// the trace id, else from the bytes of the item as they came.
    pub fn randomness(&mut self) -> Result<Vec<u64>, Fault> {
        self.inner.index_items(HEADS);
        let inner = &*self.inner;
        Ok(inner.view.items.rows.iter().map(|row| inner.random(*row)).collect())
    }

    /// The W3C trace state of each span, or an empty string.
    pub fn trace_states(&mut self) -> Result<Vec<String>, Fault> {
        self.inner.index_items(HEADS);
        let inner = &*self.inner;
        let of = |row: &u32| inner.space.of(inner.heads[*row as usize].trace_state);
        let states = inner.view.items.rows.iter().map(|row| String::from_utf8_lossy(of(row)).into_owned());
        Ok(states.collect())
    }

    /// Sets the trace state of span `items[i]` to `to[i]`; an empty one takes it away.
    pub fn set_trace_states(&mut self, items: &[u32], to: &[String]) {
        self.edit("set-trace-states", |call| {
            if call.inner.signal != Signal::Traces {
                return Err(Fault(format!("{} have no trace state", call.inner.signal.name())));
            }
            same_length("items", items.len(), "to", to.len())?;
            let rows = call.inner.rows_behind(Level::Item, items)?;
            for (item, to) in rows.into_iter().zip(to) {
                call.edits.count(1, to.len());
                let to = call.edits.keep(to.as_bytes());
                call.edits.trace_states.push(Setting { item, to });
            }
            Ok(())
        });
    }

    fn column<T>(&mut self, of: impl Fn(&Head) -> T) -> Vec<T> {
        self.inner.index_items(HEADS);
        let inner = &*self.inner;
        inner.view.items.rows.iter().map(|row| of(&inner.heads[*row as usize])).collect()
    }

    fn ids<const N: usize>(&mut self, of: impl Fn(&Head) -> Span) -> Vec<u8> {
        self.inner.index_items(HEADS);
        let inner = &*self.inner;
        let mut ids = Vec::with_capacity(inner.view.items.rows.len() * N);
        for row in &inner.view.items.rows {
            let id = inner.space.of(of(&inner.heads[*row as usize]));
            ids.extend_from_slice(<&[u8; N]>::try_from(id).unwrap_or(&[0; N]));
        }
        ids
    }
}

fn depth(level: Level) -> u8 {
    match level {
        Level::Resource => 0,
        Level::Scope => 1,
        Level::Metric => 2,
        Level::Item => 3,
        Level::Event => 4,
    }
}

pub(super) fn name(level: Level) -> &'static str {
    match level {
        Level::Resource => "resource",
        Level::Scope => "scope",
        Level::Metric => "metric",
        Level::Item => "item",
        Level::Event => "event",
    }
}

impl Inner {
    fn seen_items(&self) -> impl Iterator<Item = &Row> {
        self.view.items.rows.iter().map(|row| &self.rows.items[*row as usize])
    }

    /// The row of `parent` that row `row` of `child` stands in.
    fn ancestor(&self, child: Level, mut row: u32, parent: Level) -> u32 {
        let mut at = depth(child);
        let parent_of = |rows: &[Row], row: u32| rows.get(row as usize).map_or(0, |row| row.parent);
        while at > depth(parent) {
            (row, at) = match at {
                4 => (self.events.get(row as usize).map_or(0, |event| event.item), 3),
                3 if self.signal == Signal::Metrics => (parent_of(&self.rows.items, row), 2),
                3 => (parent_of(&self.rows.items, row), 1),
                2 => (parent_of(&self.rows.metrics, row), 1),
                _ => (parent_of(&self.rows.scopes, row), 0),
            };
        }
        row
    }

    fn temporality(&self, item: &Row) -> u8 {
        let bytes = self.space.bytes();
        let Some(metric) = self.rows.metrics.get(item.parent as usize) else { return 0 };
        let span = content(metric);
        let (mut temporality, mut is_monotonic) = (0, false);
        for data in fields(bytes, span.start as usize, span.end as usize)
            .filter(|data| data.is_message(u32::from(metric.kind)) && matches!(metric.kind, 7 | 9 | 10))
        {
            for field in fields(bytes, data.content, data.end).filter(|field| field.wire == VARINT) {
                let value = varint(bytes, field.content).map_or(0, |(value, _)| value);
                match field.number {
                    2 => temporality = if value <= 2 { value as u8 } else { 0 },
                    3 => is_monotonic = metric.kind == 7 && value != 0,
                    _ => {}
                }
            }
        }
        temporality + if is_monotonic { 16 } else { 0 }
    }

    fn random(&self, row: u32) -> u64 {
        let head = &self.heads[row as usize];
        let id = self.space.of(head.trace_id);
        stated(self.space.of(head.trace_state)).unwrap_or_else(|| match id {
            [.., a, b, c, d, e, f, g] if id.len() == 16 && id.iter().any(|byte| *byte != 0) => {
                u64::from_be_bytes([0, *a, *b, *c, *d, *e, *f, *g])
            }
            _ => mixed(self.space.of(content(&self.rows.items[row as usize]))) >> (64 - RANDOM_BITS),
        })
    }
}

/// `rv` of the `ot` entry: 14 hexadecimal digits.
fn stated(trace_state: &[u8]) -> Option<u64> {
    if trace_state.is_empty() {
        return None;
    }
    let entries = std::str::from_utf8(trace_state).ok()?.split(',');
    let ours = entries.map(str::trim).find_map(|entry| entry.strip_prefix("ot="))?;
    let digits = ours.split(';').find_map(|part| part.strip_prefix("rv:"))?;
    let is_right = digits.len() == 14 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_right.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// The same number for the same bytes, today and tomorrow, on any machine.
fn mixed(bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut sum = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut eight = [0; 8];
        eight[..chunk.len()].copy_from_slice(chunk);
        sum = (sum ^ u64::from_le_bytes(eight)).wrapping_mul(ODD);
        sum ^= sum >> 32;
    }
    sum.wrapping_mul(ODD)
}
