//! The labels of series: sorted, unique, none empty, encoded.
//!
//! Points of a metric mostly have the same keys one after the other. For each set of keys the order of the labels and
//! their names are made once, as a [`Form`]; a point then only has its values put in.
//!
//! Which label wins where several have one name: promoted attributes of the resource, since they say whose it is and no
//! point may say otherwise; then `job` and `instance`; then the scope's; then the point's. Keys of one owner whose names
//! become the same have their values joined with `;` in the order of the keys.

use super::names::label_name;
use super::portion::put_label;
use super::values::{Text, text_of};
use crate::batch::wire::{put_varint, varint_len};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

/// Longer ones are no labels that anybody could query by; a portion stays small.
pub(super) const LABELS_BYTES_MAX: usize = 32 << 10;

/// A key and its value, in the order of the document.
pub(super) type Attribute<'b> = (&'b [u8], Text<'b>);

/// Names of attributes as labels, made once each.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<Box<[u8]>, Option<Box<str>>>,
}

/// Keys that a sender can invent must not take memory for ever.
const NAMES_MAX: usize = 10_000;

impl Names {
    fn of(&mut self, key: &[u8]) -> Option<Box<str>> {
        if let Some(name) = self.known.get(key) {
            return name.clone();
        }
        let name = label_name(&String::from_utf8_lossy(key)).map(String::into_boxed_str);
        if self.known.len() < NAMES_MAX {
            self.known.insert(key.into(), name.clone());
        }
        name
    }
}

/// Labels by name, with those of one owner joined.
pub(super) type Joined = BTreeMap<Box<str>, String>;

/// The attributes as labels.
pub(super) fn joined(attributes: &[Attribute<'_>], made: &str, names: &mut Names) -> Joined {
    let mut sorted: Vec<&Attribute<'_>> = attributes.iter().collect();
    sorted.sort_by_key(|(key, _)| *key);
    let mut joined = Joined::new();
    for (key, text) in sorted {
        let Some(name) = names.of(key) else { continue };
        let text = String::from_utf8_lossy(text.of(made));
        let value = joined.entry(name).or_default();
        if !value.is_empty() {
            value.push(';');
        }
        value.push_str(&text);
    }
    joined
}

/// What all points of a scope of a resource have.
#[derive(Debug, Default)]
pub(super) struct Common {
    pub(super) labels: Joined,
    /// Names that no point may set, whether they are among the labels or not.
    pub(super) reserved: BTreeSet<Box<str>>,
}

/// Where the value of a label comes from.
#[derive(Clone, Debug)]
enum Slot {
    /// `__name__`.
    Metric,
    /// `le` or `quantile`: whoever writes puts it there.
    Bound,
    /// Whole labels, encoded: a range of the form's bytes.
    Same(Range<usize>),
    /// The label's name field, a range of the form's bytes, and the attribute that has its value.
    Attribute(Range<usize>, usize),
    /// The same for several attributes.
    Several(Range<usize>, Box<[usize]>),
}

/// The order of the labels for points with the same keys.
#[derive(Debug, Default)]
pub(super) struct Form {
    slots: Vec<Slot>,
    bytes: Vec<u8>,
}

impl Form {
    /// `bound` is `le` or `quantile`, for the series that have it.
    pub(super) fn of(keys: &[&[u8]], common: &Common, bound: Option<&str>, names: &mut Names) -> Form {
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|at| keys[*at]);
        let mut own: BTreeMap<Box<str>, Vec<usize>> = BTreeMap::new();
        for at in order {
            if let Some(name) = names.of(keys[at]) {
                own.entry(name).or_default().push(at);
            }
        }
        own.retain(|name, _| !common.labels.contains_key(name) && !common.reserved.contains(name));
        let mut form = Form::default();
        let all: BTreeSet<&str> = own.keys().chain(common.labels.keys()).map(|name| &**name).collect();
        let all: BTreeSet<&str> = all.into_iter().chain(["__name__"]).chain(bound).collect();
        for name in all {
            if name == "__name__" {
                form.slots.push(Slot::Metric);
            } else if Some(name) == bound {
                form.slots.push(Slot::Bound);
            } else if let Some(value) = common.labels.get(name) {
                form.add_same(name, value);
            } else {
                form.add_own(name, &own[name]);
            }
        }
        form
    }

    fn add_same(&mut self, name: &str, value: &str) {
        let start = self.bytes.len();
        if !value.is_empty() {
            put_label(&mut self.bytes, name.as_bytes(), value.as_bytes());
        }
        match self.slots.last_mut() {
            Some(Slot::Same(range)) if range.end == start => range.end = self.bytes.len(),
            _ => self.slots.push(Slot::Same(start..self.bytes.len())),
        }
    }

    fn add_own(&mut self, name: &str, attributes: &[usize]) {
        let start = self.bytes.len();
        self.bytes.push(1 << 3 | 2);
        put_varint(&mut self.bytes, name.len() as u64);
        self.bytes.extend_from_slice(name.as_bytes());
        let field = start..self.bytes.len();
        self.slots.push(match attributes {
            [at] => Slot::Attribute(field, *at),
            several => Slot::Several(field, several.into()),
        });
    }

    /// Whether a series of the metric has labels short enough to send. `metric` is the longest `__name__` label.
    pub(super) fn fits(&self, attributes: &[Attribute<'_>], made: &str, metric: &[u8]) -> bool {
        self.bytes(attributes, made, metric) <= LABELS_BYTES_MAX
    }

    /// The bytes of a series' labels, at most about.
    pub(super) fn bytes(&self, attributes: &[Attribute<'_>], made: &str, metric: &[u8]) -> usize {
        let values: usize = attributes.iter().map(|(_, text)| text.of(made).len()).sum();
        values + self.bytes.len() + metric.len()
    }

    /// Appends the labels of a series. `metric` is a whole label, encoded.
    pub(super) fn write(&self, attributes: &[Attribute<'_>], made: &str, metric: &[u8], out: &mut Vec<u8>) {
        self.write_slots(&self.slots, attributes, made, metric, out);
    }

    /// Appends the labels that sort before the bound, and those that sort after it.
    pub(super) fn write_around(
        &self,
        attributes: &[Attribute<'_>],
        made: &str,
        metric: &[u8],
        before: &mut Vec<u8>,
        after: &mut Vec<u8>,
    ) {
        let bound = self.slots.iter().position(|slot| matches!(slot, Slot::Bound));
        let (first, second) = self.slots.split_at(bound.unwrap_or(self.slots.len()));
        self.write_slots(first, attributes, made, metric, before);
        self.write_slots(second, attributes, made, metric, after);
    }

    #[inline]
    fn write_slots(
        &self,
        slots: &[Slot],
        attributes: &[Attribute<'_>],
        made: &str,
        metric: &[u8],
        out: &mut Vec<u8>,
    ) {
        for slot in slots {
            match slot {
                Slot::Metric => out.extend_from_slice(metric),
                Slot::Bound => {}
                Slot::Same(range) => out.extend_from_slice(&self.bytes[range.clone()]),
                Slot::Attribute(name, at) => {
                    put_value(out, &self.bytes[name.clone()], attributes[*at].1.of(made));
                }
                Slot::Several(name, several) => {
                    let mut value = Vec::new();
                    for at in several {
                        if !value.is_empty() {
                            value.push(b';');
                        }
                        value.extend_from_slice(attributes[*at].1.of(made));
                    }
                    put_value(out, &self.bytes[name.clone()], &value);
                }
            }
        }
    }
}

#[inline]
fn put_value(out: &mut Vec<u8>, name_field: &[u8], value: &[u8]) {
    if value.is_empty() {
        return;
    }
    let value_bytes = 1 + varint_len(value.len() as u64) + value.len();
    out.push(1 << 3 | 2);
    put_varint(out, (name_field.len() + value_bytes) as u64);
    out.extend_from_slice(name_field);
    out.push(2 << 3 | 2);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// The labels of a resource's own series, encoded; `None` if they are too long.
pub(super) fn encoded(labels: &Joined) -> Option<Vec<u8>> {
    let bytes: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    let mut out = Vec::with_capacity(bytes + labels.len() * 8);
    for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
        put_label(&mut out, name.as_bytes(), value.as_bytes());
    }
    (out.len() <= LABELS_BYTES_MAX).then_some(out)
}

/// The attributes of a message: its fields `number`, with the texts of their values. What is no text in the bytes is
/// appended to `made`.
pub(super) fn attributes<'b>(message: &'b [u8], number: u32, made: &mut String) -> Vec<Attribute<'b>> {
    let pairs = crate::batch::wire::fields_of(message).filter(|field| field.is_message(number));
    let pair = |field: crate::batch::wire::Field| {
        let (key, value) = super::values::key_and_value(field.of(message));
        (key, text_of(value, made))
    };
    pairs.map(pair).collect()
}
