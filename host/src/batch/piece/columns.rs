//! Reading: columns of the items, and attributes. What a signal does not have reads as nothing: zeros, no rows.

use super::super::Signal;
use super::super::wire::varint;
use super::space::{Part, Span};
use super::table::State;
use super::{Call, Fault, Level};
use std::collections::HashMap;

/// Text values of one attribute, equal strings once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextColumn {
    pub rows: Vec<u32>,
    pub index: Vec<u32>,
    pub strings: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntColumn {
    pub rows: Vec<u32>,
    pub values: Vec<i64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct DoubleColumn {
    pub rows: Vec<u32>,
    pub values: Vec<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoolColumn {
    pub rows: Vec<u32>,
    pub values: Vec<bool>,
}

impl Call {
    /// Calls `read` with the fields of each visible item.
    fn each_item<T>(&self, read: impl Fn(&Call, u32, Span) -> T) -> Vec<T> {
        self.items.iter().map(|item| read(self, *item, self.piece.rows.items[*item as usize].content)).collect()
    }

    /// The last field with this number of each item.
    fn last_of(&self, content: Span, number: u32) -> Option<Part> {
        self.piece.space.parts(content).filter(|part| part.number == number).last()
    }

    fn whole_number(&self, part: Option<Part>) -> u64 {
        let Some(part) = part else { return 0 };
        let bytes = self.piece.space.at(part.content);
        match part.wire {
            0 => varint(bytes, 0).map_or(0, |(value, _)| value),
            1 => <[u8; 8]>::try_from(bytes).map_or(0, u64::from_le_bytes),
            5 => <[u8; 4]>::try_from(bytes).map_or(0, |four| u32::from_le_bytes(four).into()),
            _ => 0,
        }
    }

    fn number_column(&self, number: impl Fn(u8) -> Option<u32>) -> Vec<u64> {
        self.each_item(|call, item, content| {
            let number = number(call.piece.kind_of(item as usize));
            call.whole_number(number.and_then(|number| call.last_of(content, number)))
        })
    }

    /// Logs: the severity number. Others: zeros.
    pub fn severities(&mut self) -> Result<Vec<u8>, Fault> {
        let is_logs = self.piece.signal == Signal::Logs;
        Ok(self.each_item(|call, item, content| match call.piece.severities.get(&item) {
            Some(value) => *value,
            None if is_logs => call.whole_number(call.last_of(content, 2)).min(255) as u8,
            None => 0,
        }))
    }

    /// Spans: their kind. Data points: the type of their metric. Logs: zeros.
    pub fn kinds(&mut self) -> Result<Vec<u8>, Fault> {
        Ok(match self.piece.signal {
            Signal::Logs => vec![0; self.items.len()],
            Signal::Traces => self.number_column(|_| Some(6)).into_iter().map(|kind| kind.min(255) as u8).collect(),
            Signal::Metrics => self.items.iter().map(|item| self.piece.kind_of(*item as usize)).collect(),
        })
    }

    /// Spans: their status code. Others: zeros.
    pub fn statuses(&mut self) -> Result<Vec<u8>, Fault> {
        if self.piece.signal != Signal::Traces {
            return Ok(vec![0; self.items.len()]);
        }
        Ok(self.each_item(|call, _, content| {
            let status = call.piece.space.last(content, 15);
            status.map_or(0, |status| call.whole_number(call.last_of(status.content, 3)).min(255) as u8)
        }))
    }

    pub fn times(&mut self) -> Result<Vec<u64>, Fault> {
        let number = match self.piece.signal {
            Signal::Logs => 1,
            Signal::Traces => 7,
            Signal::Metrics => 3,
        };
        Ok(self.number_column(|_| Some(number)))
    }

    pub fn end_times(&mut self) -> Result<Vec<u64>, Fault> {
        let number = match self.piece.signal {
            Signal::Logs => 11,
            Signal::Traces => 8,
            Signal::Metrics => 2,
        };
        Ok(self.number_column(|_| Some(number)))
    }

    /// Data points: their number, or the sum of a histogram or summary. Others: zeros.
    pub fn numbers(&mut self) -> Result<Vec<f64>, Fault> {
        if self.piece.signal != Signal::Metrics {
            return Ok(vec![0.0; self.items.len()]);
        }
        Ok(self.each_item(|call, item, content| match call.piece.kind_of(item as usize) {
            5 | 7 => {
                let value = call.piece.space.parts(content).filter(|part| matches!(part.number, 4 | 6)).last();
                match value {
                    Some(part) if part.number == 6 => call.whole_number(Some(part)).cast_signed() as f64,
                    other => f64::from_bits(call.whole_number(other)),
                }
            }
            _ => f64::from_bits(call.whole_number(call.last_of(content, 5))),
        }))
    }

    /// Data points: the count of a histogram or summary, else 1. Others: zeros.
    pub fn counts(&mut self) -> Result<Vec<f64>, Fault> {
        if self.piece.signal != Signal::Metrics {
            return Ok(vec![0.0; self.items.len()]);
        }
        Ok(self.each_item(|call, item, content| match call.piece.kind_of(item as usize) {
            5 | 7 => 1.0,
            _ => call.whole_number(call.last_of(content, 4)) as f64,
        }))
    }

    /// Data points: 0 none, 1 delta, 2 cumulative; 16 more if monotonic. Others: zeros.
    pub fn temporalities(&mut self) -> Result<Vec<u8>, Fault> {
        if self.piece.signal != Signal::Metrics {
            return Ok(vec![0; self.items.len()]);
        }
        let of_metric = |metric: &super::Row| {
            let data = self.piece.space.last(metric.content, metric.kind.into()).map(|part| part.content);
            let number = |number| data.map_or(0, |data| self.whole_number(self.last_of(data, number)));
            match metric.kind {
                7 => number(2).min(15) as u8 | (u8::from(number(3) != 0) << 4),
                9 | 10 => number(2).min(15) as u8,
                _ => 0,
            }
        };
        let of_metrics: Vec<u8> = self.piece.rows.metrics.iter().map(of_metric).collect();
        Ok(self.items.iter().map(|item| of_metrics[self.piece.rows.items[*item as usize].parent as usize]).collect())
    }

    fn ids(&self, number: Option<u32>, length: usize) -> Vec<u8> {
        let mut ids = vec![0; self.items.len() * length];
        let Some(number) = number else { return ids };
        for (id, item) in ids.chunks_exact_mut(length).zip(&self.items) {
            let content = self.piece.rows.items[*item as usize].content;
            if let Some(part) = self.piece.space.last(content, number) {
                let bytes = self.piece.space.at(part.content);
                if bytes.len() == length {
                    id.copy_from_slice(bytes);
                }
            }
        }
        ids
    }

    /// 16 bytes for each item. Data points: zeros.
    pub fn trace_ids(&mut self) -> Result<Vec<u8>, Fault> {
        Ok(self.ids(self.trace_id_number(), 16))
    }

    fn trace_id_number(&self) -> Option<u32> {
        match self.piece.signal {
            Signal::Logs => Some(9),
            Signal::Traces => Some(1),
            Signal::Metrics => None,
        }
    }

    /// 8 bytes for each item. Data points: zeros.
    pub fn span_ids(&mut self) -> Result<Vec<u8>, Fault> {
        let number = match self.piece.signal {
            Signal::Logs => Some(10),
            Signal::Traces => Some(2),
            Signal::Metrics => None,
        };
        Ok(self.ids(number, 8))
    }

    /// 8 bytes for each span. Others: zeros.
    pub fn parent_span_ids(&mut self) -> Result<Vec<u8>, Fault> {
        let number = (self.piece.signal == Signal::Traces).then_some(4);
        Ok(self.ids(number, 8))
    }

    /// Spans: their trace state. Others: empty texts.
    pub fn trace_states(&mut self) -> Result<Vec<String>, Fault> {
        let is_traces = self.piece.signal == Signal::Traces;
        Ok(self.each_item(|call, item, content| {
            let span = match call.piece.trace_states.get(&item) {
                Some(span) => Some(*span),
                None if is_traces => call.piece.space.last(content, 3).map(|part| part.content),
                None => None,
            };
            span.map_or_else(String::new, |span| call.piece.space.text(span).to_owned())
        }))
    }

    /// The 56 random bits that OpenTelemetry samples by: `rv` of the trace state, else the last 7 bytes of the trace
    /// id, else a hash of the item's bytes. Source: OpenTelemetry specification, "TraceState: probability sampling".
    pub fn randomness(&mut self) -> Result<Vec<u64>, Fault> {
        let is_traces = self.piece.signal == Signal::Traces;
        let id_number = self.trace_id_number();
        Ok(self.each_item(|call, item, content| {
            if is_traces {
                let state = match call.piece.trace_states.get(&item) {
                    Some(span) => Some(*span),
                    None => call.piece.space.last(content, 3).map(|part| part.content),
                };
                if let Some(random) = state.and_then(|span| explicit_randomness(call.piece.space.text(span))) {
                    return random;
                }
            }
            let id = id_number.and_then(|number| call.piece.space.last(content, number));
            let id = id.map(|part| call.piece.space.at(part.content)).filter(|id| id.len() == 16 && id.iter().any(|byte| *byte != 0));
            match id {
                Some(id) => id[9..].iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte)),
                None => hash(call.piece.space.at(content)) >> 8,
            }
        }))
    }

    /// The same from 0 up to 1.
    pub fn trace_fractions(&mut self) -> Result<Vec<f64>, Fault> {
        const BITS_56: f64 = (1u64 << 56) as f64;
        Ok(self.randomness()?.into_iter().map(|bits| bits as f64 / BITS_56).collect())
    }

    /// The attribute keys in use, each once, in the order in which they come.
    pub fn attribute_keys(&mut self, at: Level) -> Result<Vec<String>, Fault> {
        self.see(at);
        let mut seen = std::collections::HashSet::new();
        let mut keys = Vec::new();
        for (_, attribute) in self.attributes(at) {
            let key = self.piece.space.at(attribute.key);
            if seen.insert(key) {
                keys.push(self.piece.space.text(attribute.key).to_owned());
            }
        }
        Ok(keys)
    }

    pub fn attribute_rows(&mut self, at: Level, key: &str) -> Result<Vec<u32>, Fault> {
        Ok(self.values(at, key).into_iter().map(|(row, _)| row).collect())
    }

    pub fn text_attribute(&mut self, at: Level, key: &str) -> Result<TextColumn, Fault> {
        let mut column = TextColumn::default();
        let mut known: HashMap<&[u8], u32> = HashMap::new();
        let values = self.values(at, key);
        for (row, value) in values {
            let Some(part) = self.chosen(value).filter(|part| part.is_message(1)) else { continue };
            let text = self.piece.space.at(part.content);
            let index = *known.entry(text).or_insert_with(|| {
                column.strings.push(self.piece.space.text(part.content).to_owned());
                column.strings.len() as u32 - 1
            });
            column.rows.push(row);
            column.index.push(index);
        }
        Ok(column)
    }

    pub fn int_attribute(&mut self, at: Level, key: &str) -> Result<IntColumn, Fault> {
        let (rows, values) = self.typed(at, key, |call, part| (part.number == 3).then(|| call.whole_number(Some(part)).cast_signed()));
        Ok(IntColumn { rows, values })
    }

    pub fn double_attribute(&mut self, at: Level, key: &str) -> Result<DoubleColumn, Fault> {
        let (rows, values) = self.typed(at, key, |call, part| (part.number == 4).then(|| f64::from_bits(call.whole_number(Some(part)))));
        Ok(DoubleColumn { rows, values })
    }

    pub fn bool_attribute(&mut self, at: Level, key: &str) -> Result<BoolColumn, Fault> {
        let (rows, values) = self.typed(at, key, |call, part| (part.number == 2).then(|| call.whole_number(Some(part)) != 0));
        Ok(BoolColumn { rows, values })
    }

    fn typed<T>(&mut self, at: Level, key: &str, read: impl Fn(&Call, Part) -> Option<T>) -> (Vec<u32>, Vec<T>) {
        let values = self.values(at, key);
        values.into_iter().filter_map(|(row, value)| Some((row, self.chosen(value).and_then(|part| read(self, part))?))).unzip()
    }

    /// The field of an AnyValue that counts: the last.
    fn chosen(&self, value: Option<Span>) -> Option<Part> {
        self.piece.space.parts(value?).filter(|part| (1..=7).contains(&part.number)).last()
    }

    /// The first value under the key in each visible row.
    fn values(&mut self, at: Level, key: &str) -> Vec<(u32, Option<Span>)> {
        self.see(at);
        let mut last = None;
        let with_key = self.attributes(at).filter(|(_, attribute)| self.piece.space.at(attribute.key) == key.as_bytes());
        let first = with_key.filter(|(row, _)| last.replace(*row) != Some(*row));
        first.map(|(row, attribute)| (row, attribute.value)).collect()
    }

    /// Makes the table and the view of a level, for [`Call::attributes`].
    pub(super) fn see(&mut self, at: Level) {
        self.piece.table(at);
        self.view(at);
    }

    /// The attributes of the visible rows, with the numbers of these.
    pub(super) fn attributes(&self, at: Level) -> impl Iterator<Item = (u32, &super::table::Attribute)> {
        let list = self.piece.tables[at as usize].as_ref().map_or(&[][..], |table| &table.list);
        let numbers = self.views[at as usize].as_ref().map_or(&[][..], |view| &view.numbers);
        list.iter().filter(|attribute| attribute.state != State::Removed).filter_map(|attribute| {
            let number = *numbers.get(attribute.row as usize)?;
            (number != u32::MAX).then_some((number, attribute))
        })
    }
}

/// `rv` of the `ot` entry: 14 hexadecimal digits.
fn explicit_randomness(state: &str) -> Option<u64> {
    let ot = state.split(',').find_map(|entry| entry.trim().strip_prefix("ot="))?;
    let rv = ot.split(';').find_map(|member| member.trim().strip_prefix("rv:"))?;
    let is_right = rv.len() == 14 && rv.bytes().all(|digit| digit.is_ascii_hexdigit() && !digit.is_ascii_uppercase());
    is_right.then(|| u64::from_str_radix(rv, 16).ok()).flatten()
}

/// FNV-1a with a final mix: the same for the same bytes, on every machine.
fn hash(bytes: &[u8]) -> u64 {
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let mixed = (sum ^ (sum >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}
