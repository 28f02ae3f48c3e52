//! A log record as a document, straight from the committed bytes.
//!
//! | field | what |
//! |---|---|
//! | `_id` | the record's 24-byte id, binary |
//! | `tenant`, `project` | whose it is, in full |
//! | `committed` | when we took it (date, ms); also in `_id` |
//! | `time`, `observed` | dates, ms; absent if 0. `time_ns`, `observed_ns`: the nanoseconds beyond the millisecond |
//! | `severity`, `severity_text`, `event_name` | absent if 0 or empty |
//! | `body` | any value; absent if the record has none |
//! | `attributes`, `resource` | documents, one field per attribute, in their order |
//! | `trace_id`, `span_id` | hexadecimal text |
//! | `flags`, `dropped_attributes`, `resource_dropped_attributes` | absent if 0 |
//! | `scope` | `name`, `version`, `attributes`, `dropped_attributes` |
//! | `resource_schema_url`, `scope_schema_url` | absent if empty |
//! | `otlp` | the record as an ExportLogsServiceRequest, where the fields above cannot hold it exactly |
//!
//! Values: text, bool, int64, double, binary, null, array, document. A name of a field has `．` (U+FF0E) for a dot and
//! begins with `＄` (U+FF04) for a dollar sign: so paths reach it, on every server. What has no exact form is left out
//! above and stands in `otlp`, which readers then go by: names with NUL or one of these two characters, a name twice in
//! one map (the first is shown), `_id` as a name (shown), and fields of OTLP that have no place above. Nothing is decoded on the way: one pass over the record, and what neighbours share is written once and copied.

use super::super::record::{Spans, request_of};
use super::super::wire::{Field, Value, next_field};
use super::bson::{ARRAY, BINARY, BOOL, Bson, DOCUMENT, DOUBLE, INT64, NULL, TEXT};
use crate::batch::{RecordId, Stream};
use std::collections::HashSet;
use std::ops::Range;

/// What stands for a dot in a name.
pub(super) const DOT: &str = "\u{ff0e}";
/// What stands for a dollar sign at the front of a name.
pub(super) const DOLLAR: &str = "\u{ff04}";
/// Names of one map that are compared with each other; more are looked up.
const COMPARED_MAX: usize = 24;
/// An entry's records that names are learned from.
const LEARNED_MAX: u32 = 4;
/// Servers take 100 levels. What we are given has 64 at most.
const LEVELS_MAX: u32 = 90;

const NANOS_OF_MS: u64 = 1_000_000;

/// Writes the documents of one stream after another.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// `tenant` and `project` of the stream.
    whose: Vec<u8>,
    shared: Shared,
    usual: Usual,
    names: Vec<Range<usize>>,
    is_exact: bool,
}

/// Names of a record's attributes, in order, where they stand in the entry and as they are written: most records of an
/// entry have the same, and need no comparison with each other.
#[derive(Debug, Default)]
struct Usual {
    names: Vec<(Range<usize>, Range<usize>)>,
    written: Vec<u8>,
    /// How often this entry's records were learned from: where they differ, learning costs more than it saves.
    learned: u32,
}

/// The fields of resource and scope, kept for the neighbours.
#[derive(Debug, Default)]
struct Shared {
    of: Option<Spans>,
    fields: Vec<u8>,
    is_exact: bool,
}

impl Writer {
    /// The next documents are of this stream's next entry.
    pub(super) fn begin(&mut self, stream: &Stream) {
        let mut whose = Bson(std::mem::take(&mut self.whose));
        whose.0.clear();
        whose.text("tenant", stream.tenant.as_str());
        whose.text("project", stream.project.as_str());
        self.whose = whose.0;
        self.shared.of = None;
        self.usual.names.clear();
        self.usual.learned = 0;
    }

    /// Appends the document of one record of the entry's bytes.
    pub(super) fn write(&mut self, out: &mut Bson, id: &RecordId, bytes: &[u8], spans: &Spans) {
        self.is_exact = true;
        let document = out.open();
        out.binary("_id", &id.0);
        out.0.extend_from_slice(&self.whose);
        out.date("committed", id.time_ms());
        self.record(out, bytes, spans.item.clone());
        self.share(bytes, spans);
        out.0.extend_from_slice(&self.shared.fields);
        if !(self.is_exact && self.shared.is_exact) {
            out.head(BINARY, "otlp");
            let binary = out.open_binary();
            request_of(bytes, spans, &mut out.0);
            out.close_binary(binary);
        }
        out.close(document);
    }

    fn record(&mut self, out: &mut Bson, bytes: &[u8], item: Range<usize>) {
        let record = self.heads(bytes, item);
        time(out, ["time", "time_ns"], record.time);
        if record.severity != 0 {
            out.number("severity", record.severity.into());
        }
        self.text_if(out, "severity_text", bytes, &record.severity_text);
        self.text_if(out, "event_name", bytes, &record.event_name);
        if let Some(body) = record.body {
            let at = out.0.len();
            out.head(NULL, "body");
            out.0[at] = self.value(out, bytes, body, 1);
        }
        out.head(DOCUMENT, "attributes");
        self.attributes(out, bytes, record.attributes);
        if record.dropped != 0 {
            out.number("dropped_attributes", record.dropped.into());
        }
        hex_if(out, "trace_id", &bytes[record.trace_id]);
        hex_if(out, "span_id", &bytes[record.span_id]);
        if record.flags != 0 {
            out.number("flags", record.flags.into());
        }
        time(out, ["observed", "observed_ns"], record.observed);
    }

    /// All but the attributes.
    fn heads(&mut self, bytes: &[u8], mut item: Range<usize>) -> Record {
        let mut record = Record { attributes: item.end..item.end, ..Record::default() };
        let mut seen = 0_u32;
        loop {
            let start = item.start;
            let Some(Field { number, value }) = next_field(bytes, &mut item) else { break };
            match (number, value) {
                (1, Value::Fixed64(time)) => record.time = time,
                (2, Value::Varint(severity)) => record.severity = severity as i32,
                (3, Value::Bytes(text)) => record.severity_text = text,
                (5, Value::Bytes(body)) => record.body = Some(body),
                (6, Value::Bytes(_)) => {
                    record.attributes.start = record.attributes.start.min(start);
                    record.attributes.end = item.start;
                    continue;
                }
                (7, Value::Varint(dropped)) => record.dropped = dropped as u32,
                (8, Value::Fixed32(flags)) => record.flags = flags,
                (9, Value::Bytes(id)) => record.trace_id = id,
                (10, Value::Bytes(id)) => record.span_id = id,
                (11, Value::Fixed64(time)) => record.observed = time,
                (12, Value::Bytes(name)) => record.event_name = name,
                _ => self.is_exact = false,
            }
            let bit = 1 << (number & 15);
            // A field twice means what we do not spell out here.
            self.is_exact &= seen & bit == 0;
            seen |= bit;
        }
        self.is_exact &= item.is_empty();
        record
    }

    /// Makes the fields of resource and scope, unless the last record had the same.
    fn share(&mut self, bytes: &[u8], spans: &Spans) {
        if self.shared.of.as_ref().is_some_and(|of| of.has_same_envelope(spans)) {
            return;
        }
        let record_is_exact = std::mem::replace(&mut self.is_exact, true);
        let mut out = Bson(std::mem::take(&mut self.shared.fields));
        out.0.clear();
        self.resource(&mut out, bytes, spans);
        self.scope(&mut out, bytes, spans);
        self.shared = Shared { of: Some(spans.clone()), fields: out.0, is_exact: self.is_exact };
        self.is_exact = record_is_exact;
    }

    fn resource(&mut self, out: &mut Bson, bytes: &[u8], spans: &Spans) {
        let Named { dropped, .. } = self.named(bytes, spans.resource.clone(), Kind::Resource);
        out.head(DOCUMENT, "resource");
        self.map(out, bytes, spans.resource.clone(), 1, 1);
        if dropped != 0 {
            out.number("resource_dropped_attributes", dropped.into());
        }
        self.text_if(out, "resource_schema_url", bytes, &spans.resource_schema_url);
    }

    fn scope(&mut self, out: &mut Bson, bytes: &[u8], spans: &Spans) {
        if !spans.scope.is_empty() {
            let Named { name, version, dropped } = self.named(bytes, spans.scope.clone(), Kind::Scope);
            out.head(DOCUMENT, "scope");
            let scope = out.open();
            self.text_if(out, "name", bytes, &name);
            self.text_if(out, "version", bytes, &version);
            out.head(DOCUMENT, "attributes");
            self.map(out, bytes, spans.scope.clone(), 3, 2);
            if dropped != 0 {
                out.number("dropped_attributes", dropped.into());
            }
            out.close(scope);
        }
        self.text_if(out, "scope_schema_url", bytes, &spans.scope_schema_url);
    }

    /// What a resource or a scope has beside its attributes.
    fn named(&mut self, bytes: &[u8], mut message: Range<usize>, kind: Kind) -> Named {
        let mut named = Named::default();
        let mut seen = 0_u32;
        while let Some(Field { number, value }) = next_field(bytes, &mut message) {
            match (kind, number, value) {
                (Kind::Resource, 1, Value::Bytes(_)) | (Kind::Scope, 3, Value::Bytes(_)) => continue,
                (Kind::Resource, 2, Value::Varint(dropped)) | (Kind::Scope, 4, Value::Varint(dropped)) => {
                    named.dropped = dropped as u32;
                }
                (Kind::Scope, 1, Value::Bytes(name)) => named.name = name,
                (Kind::Scope, 2, Value::Bytes(version)) => named.version = version,
                _ => self.is_exact = false,
            }
            let bit = 1 << (number & 15);
            self.is_exact &= seen & bit == 0;
            seen |= bit;
        }
        self.is_exact &= message.is_empty();
        named
    }

    /// A record's attributes, field 6 of `message`, as a document. They are compared with the usual ones as long as they
    /// are the same.
    fn attributes(&mut self, out: &mut Bson, bytes: &[u8], mut message: Range<usize>) {
        let document = out.open();
        let mut same = 0;
        while let Some((name, value, rest)) = self.next_pair(bytes, message.clone(), 6)
            && let Some((_, written)) =
                self.usual.names.get(same).filter(|(known, _)| bytes[known.clone()] == bytes[name])
        {
            let at = out.0.len();
            out.0.push(NULL);
            out.0.extend_from_slice(&self.usual.written[written.clone()]);
            if let Some(value) = value {
                out.0[at] = self.value(out, bytes, value, 2);
            }
            message = rest;
            same += 1;
        }
        if !message.is_empty() {
            self.names.extend(self.usual.names[..same].iter().map(|(name, _)| name.clone()));
            let was_exact = std::mem::replace(&mut self.is_exact, true);
            self.entries(out, bytes, message, 6, 1, 0);
            if self.is_exact {
                self.learn(bytes);
            }
            self.is_exact &= was_exact;
            self.names.clear();
        }
        out.close(document);
    }

    /// The names at hand are the usual ones from now on.
    fn learn(&mut self, bytes: &[u8]) {
        let usual = &mut self.usual;
        if usual.learned == LEARNED_MAX || self.names.len() >= COMPARED_MAX {
            return;
        }
        usual.learned += 1;
        usual.names.clear();
        let mut written = Bson(std::mem::take(&mut usual.written));
        written.0.clear();
        for name in &self.names {
            let start = written.0.len();
            put_name(&mut written, shown_name(&bytes[name.clone()]).unwrap_or_default());
            usual.names.push((name.clone(), start..written.0.len()));
        }
        usual.written = written.0;
    }

    /// The next key-value that is field `number` of a message, and what is behind it.
    #[allow(clippy::type_complexity, reason = "name, value and the rest, for the two loops over them")]
    fn next_pair(
        &mut self,
        bytes: &[u8],
        mut message: Range<usize>,
        number: u64,
    ) -> Option<(Range<usize>, Option<Range<usize>>, Range<usize>)> {
        while let Some(field) = next_field(bytes, &mut message) {
            if let Value::Bytes(pair) = field.value
                && field.number == number
            {
                let (name, value) = self.pair(bytes, pair);
                return Some((name, value, message));
            }
        }
        None
    }

    /// The key-values that are field `number` of a message, as a document.
    fn map(&mut self, out: &mut Bson, bytes: &[u8], message: Range<usize>, number: u64, level: u32) {
        let document = out.open();
        let base = self.names.len();
        self.entries(out, bytes, message, number, level, base);
        self.names.truncate(base);
        out.close(document);
    }

    /// The fields of a document; the names that it has already stand from `base` on.
    fn entries(
        &mut self,
        out: &mut Bson,
        bytes: &[u8],
        mut message: Range<usize>,
        number: u64,
        level: u32,
        base: usize,
    ) {
        let mut known: Option<HashSet<&[u8]>> = None;
        while let Some((name, value, rest)) = self.next_pair(bytes, message, number) {
            message = rest;
            let text = &bytes[name.clone()];
            let Some(shown) = shown_name(text) else {
                self.is_exact = false;
                continue;
            };
            // Servers may move a field of this name to the front.
            self.is_exact &= text != b"_id";
            let names = &self.names[base..];
            let is_new = match &mut known {
                Some(known) => known.insert(text),
                None if names.len() < COMPARED_MAX => names.iter().all(|other| &bytes[other.clone()] != text),
                None => {
                    let mut all: HashSet<&[u8]> = names.iter().map(|other| &bytes[other.clone()]).collect();
                    let is_new = all.insert(text);
                    known = Some(all);
                    is_new
                }
            };
            if !is_new {
                self.is_exact = false;
                continue;
            }
            if known.is_none() {
                self.names.push(name.clone());
            }
            let at = out.0.len();
            out.0.push(NULL);
            put_name(out, shown);
            if let Some(value) = value {
                out.0[at] = self.value(out, bytes, value, level + 1);
            }
        }
    }

    /// The two sides of a KeyValue.
    fn pair(&mut self, bytes: &[u8], mut pair: Range<usize>) -> (Range<usize>, Option<Range<usize>>) {
        if let Some((name_end, value)) = usual_pair(&bytes[pair.clone()]) {
            return (pair.start + 2..pair.start + name_end, Some(pair.start + value..pair.end));
        }
        let (mut name, mut value) = (None, None);
        while let Some(field) = next_field(bytes, &mut pair) {
            match field {
                Field { number: 1, value: Value::Bytes(text) } if name.is_none() => name = Some(text),
                Field { number: 2, value: Value::Bytes(any) } if value.is_none() => value = Some(any),
                _ => self.is_exact = false,
            }
        }
        self.is_exact &= pair.is_empty();
        (name.unwrap_or(pair.end..pair.end), value)
    }

    /// Appends a value and returns its type.
    fn value(&mut self, out: &mut Bson, bytes: &[u8], mut any: Range<usize>, level: u32) -> u8 {
        let Some(mut field) = next_field(bytes, &mut any) else { return NULL };
        while !any.is_empty() {
            // One of the fields counts, the last.
            self.is_exact = false;
            let Some(next) = next_field(bytes, &mut any) else { break };
            field = next;
        }
        match (field.number, field.value) {
            (1, Value::Bytes(text)) => {
                self.text_value(out, &bytes[text]);
                TEXT
            }
            (2, Value::Varint(is_true)) => {
                out.0.push(u8::from(is_true != 0));
                BOOL
            }
            (3, Value::Varint(number)) => {
                out.0.extend_from_slice(&number.to_le_bytes());
                INT64
            }
            (4, Value::Fixed64(bits)) => {
                out.0.extend_from_slice(&bits.to_le_bytes());
                DOUBLE
            }
            (5, Value::Bytes(list)) if level < LEVELS_MAX => {
                self.array(out, bytes, list, level);
                ARRAY
            }
            (6, Value::Bytes(list)) if level < LEVELS_MAX => {
                self.is_exact &= holds_only(bytes, list.clone(), 1);
                self.map(out, bytes, list, 1, level);
                DOCUMENT
            }
            (7, Value::Bytes(binary)) => {
                out.binary_value(&bytes[binary]);
                BINARY
            }
            _ => {
                self.is_exact = false;
                NULL
            }
        }
    }

    fn array(&mut self, out: &mut Bson, bytes: &[u8], mut list: Range<usize>, level: u32) {
        let array = out.open();
        let mut index = 0;
        while let Some(field) = next_field(bytes, &mut list) {
            let Field { number: 1, value: Value::Bytes(any) } = field else {
                self.is_exact = false;
                continue;
            };
            let at = out.0.len();
            out.index_head(NULL, index);
            out.0[at] = self.value(out, bytes, any, level + 1);
            index += 1;
        }
        self.is_exact &= list.is_empty();
        out.close(array);
    }

    fn text_if(&mut self, out: &mut Bson, name: &str, bytes: &[u8], text: &Range<usize>) {
        if !text.is_empty() {
            out.head(TEXT, name);
            self.text_value(out, &bytes[text.clone()]);
        }
    }

    fn text_value(&mut self, out: &mut Bson, text: &[u8]) {
        match std::str::from_utf8(text) {
            Ok(text) => out.text_value(text),
            Err(_) => {
                self.is_exact = false;
                out.text_value(&String::from_utf8_lossy(text));
            }
        }
    }
}

/// As almost all are written: a short name, then a short value, which is the rest. Where the name ends and the value
/// begins.
fn usual_pair(pair: &[u8]) -> Option<(usize, usize)> {
    const NAME: u8 = 1 << 3 | 2;
    const VALUE: u8 = 2 << 3 | 2;
    let [NAME, name_len @ 0..0x80, rest @ ..] = pair else { return None };
    let [VALUE, value_len @ 0..0x80, value @ ..] = rest.get(usize::from(*name_len)..)? else { return None };
    let name_end = 2 + usize::from(*name_len);
    (value.len() == usize::from(*value_len)).then_some((name_end, name_end + 2))
}

/// A name that fields can have once dots and dollar signs are replaced, each another one.
fn shown_name(name: &[u8]) -> Option<&str> {
    let is_plain = !name.contains(&0) && !name.starts_with(DOLLAR.as_bytes());
    let text = std::str::from_utf8(name).ok().filter(|_| is_plain)?;
    // Its first byte is rare.
    (!name.contains(&0xef) || !text.contains(DOT)).then_some(text)
}

/// Such that a path reaches it and every server takes it.
fn put_name(out: &mut Bson, mut name: &str) {
    if let Some(rest) = name.strip_prefix('$') {
        out.0.extend_from_slice(DOLLAR.as_bytes());
        name = rest;
    }
    for (at, part) in name.split('.').enumerate() {
        if at > 0 {
            out.0.extend_from_slice(DOT.as_bytes());
        }
        out.0.extend_from_slice(part.as_bytes());
    }
    out.0.push(0);
}

#[derive(Clone, Copy)]
enum Kind {
    Resource,
    Scope,
}

#[derive(Default)]
struct Named {
    name: Range<usize>,
    version: Range<usize>,
    dropped: u32,
}

#[derive(Default)]
struct Record {
    time: u64,
    observed: u64,
    severity: i32,
    severity_text: Range<usize>,
    event_name: Range<usize>,
    body: Option<Range<usize>>,
    /// From the first to the last.
    attributes: Range<usize>,
    dropped: u32,
    flags: u32,
    trace_id: Range<usize>,
    span_id: Range<usize>,
}

/// Whether a message has nothing but messages in field `number`.
fn holds_only(bytes: &[u8], mut message: Range<usize>, number: u64) -> bool {
    while let Some(field) = next_field(bytes, &mut message) {
        if field.number != number || !matches!(field.value, Value::Bytes(_)) {
            return false;
        }
    }
    message.is_empty()
}

fn time(out: &mut Bson, [name, name_ns]: [&str; 2], nanos: u64) {
    if nanos == 0 {
        return;
    }
    out.date(name, nanos / NANOS_OF_MS);
    let rest = nanos % NANOS_OF_MS;
    if rest != 0 {
        out.number(name_ns, rest as i64);
    }
}

fn hex_if(out: &mut Bson, name: &str, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    if bytes.is_empty() {
        return;
    }
    out.head(TEXT, name);
    let length = i32::try_from(bytes.len() * 2 + 1).unwrap_or(i32::MAX);
    out.0.extend_from_slice(&length.to_le_bytes());
    for byte in bytes {
        out.0.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    out.0.push(0);
}
