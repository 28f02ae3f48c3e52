//! A record as JSON for people.
//!
//! Written straight from the decoded record, in a fixed order of keys. Everything that could move a terminal's
//! cursor or reorder a line (C0, DEL, C1, bidirectional controls, line separators) is escaped, not only what JSON
//! asks for. Integers that JavaScript cannot hold exactly are strings, numbers that JSON has no form for as well.

use crate::batch::RecordId;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use std::fmt::Write;

/// The text of an id: 32 characters of base64url.
pub(super) fn id_text(id: &RecordId) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(id.0)
}

/// The id of a text that [`id_text`] made.
pub(super) fn id_of(text: &str) -> Option<RecordId> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    Some(RecordId(bytes.try_into().ok()?))
}

/// The record of a stored request as one line of JSON. A request that cannot be read (it cannot be stored by us)
/// becomes a line that says so.
pub(super) fn render(id: &RecordId, request: &[u8]) -> String {
    let mut json = Object::open(String::with_capacity(request.len() * 2 + 256));
    json.text("id", &id_text(id));
    json.text("committed", &time_text(id.time_ms() * 1_000_000, 3));
    match ExportLogsServiceRequest::decode(request).ok().and_then(single_of) {
        Some((resource, scope, record)) => write_record(&mut json, &resource, &scope, &record),
        None => json.text("unreadable", "the stored bytes are no OTLP log record"),
    }
    json.close()
}

fn single_of(mut request: ExportLogsServiceRequest) -> Option<(ResourceLogs, ScopeLogs, LogRecord)> {
    let mut resource = request.resource_logs.pop()?;
    let mut scope = resource.scope_logs.pop()?;
    let record = scope.log_records.pop()?;
    Some((resource, scope, record))
}

fn write_record(json: &mut Object, resource: &ResourceLogs, scope: &ScopeLogs, record: &LogRecord) {
    if record.time_unix_nano != 0 {
        json.text("time", &time_text(record.time_unix_nano, 9));
    }
    if record.observed_time_unix_nano != 0 {
        json.text("observed", &time_text(record.observed_time_unix_nano, 9));
    }
    let severity = match record.severity_text.as_str() {
        "" => severity_name(record.severity_number),
        text => text,
    };
    json.text_if("severity", severity);
    json.number_if("severity_number", i64::from(record.severity_number));
    json.text_if("event_name", &record.event_name);
    if let Some(body) = &record.body {
        json.key("body");
        write_value(&mut json.out, body);
    }
    json.key("attributes");
    write_map(&mut json.out, &record.attributes);
    json.number_if("dropped_attributes", i64::from(record.dropped_attributes_count));
    json.text_if("trace_id", &hex(&record.trace_id));
    json.text_if("span_id", &hex(&record.span_id));
    json.number_if("flags", i64::from(record.flags));
    let attributes = resource.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
    json.key("resource");
    write_map(&mut json.out, attributes);
    json.text_if("resource_schema_url", &resource.schema_url);
    if let Some(scope) = &scope.scope {
        write_scope(json, scope);
    }
    json.text_if("scope_schema_url", &scope.schema_url);
}

fn write_scope(json: &mut Object, scope: &InstrumentationScope) {
    json.key("scope");
    let mut inner = Object::open(std::mem::take(&mut json.out));
    inner.text_if("name", &scope.name);
    inner.text_if("version", &scope.version);
    if !scope.attributes.is_empty() {
        inner.key("attributes");
        write_map(&mut inner.out, &scope.attributes);
    }
    json.out = inner.close();
}

/// The short name of a severity number. Source: OpenTelemetry log data model, "Displaying Severity".
fn severity_name(number: i32) -> &'static str {
    const NAMES: [&str; 24] = [
        "TRACE", "TRACE2", "TRACE3", "TRACE4", "DEBUG", "DEBUG2", "DEBUG3", "DEBUG4", "INFO", "INFO2",
        "INFO3", "INFO4", "WARN", "WARN2", "WARN3", "WARN4", "ERROR", "ERROR2", "ERROR3", "ERROR4", "FATAL",
        "FATAL2", "FATAL3", "FATAL4",
    ];
    usize::try_from(number - 1).ok().and_then(|at| NAMES.get(at)).copied().unwrap_or("")
}

fn time_text(nanos: u64, digits: usize) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(nanos)) {
        Ok(time) => format!("{time:.digits$}"),
        Err(_) => nanos.to_string(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

struct Object {
    out: String,
    is_empty: bool,
}

impl Object {
    fn open(mut out: String) -> Object {
        out.push('{');
        Object { out, is_empty: true }
    }
    fn key(&mut self, key: &str) {
        if !self.is_empty {
            self.out.push(',');
        }
        self.is_empty = false;
        write_text(&mut self.out, key);
        self.out.push(':');
    }
    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        write_text(&mut self.out, text);
    }
    fn text_if(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.text(key, text);
        }
    }
    fn number_if(&mut self, key: &str, number: i64) {
        if number != 0 {
            self.key(key);
            let _ = write!(self.out, "{number}");
        }
    }
    fn close(mut self) -> String {
        self.out.push('}');
        self.out
    }
}

fn write_map(out: &mut String, pairs: &[KeyValue]) {
    let mut object = Object::open(std::mem::take(out));
    for pair in pairs {
        object.key(&pair.key);
        match &pair.value {
            Some(value) => write_value(&mut object.out, value),
            None => object.out.push_str("null"),
        }
    }
    *out = object.close();
}

// Nesting is bounded: the walk took at most 64 levels of values.
fn write_value(out: &mut String, value: &AnyValue) {
    match &value.value {
        None => out.push_str("null"),
        Some(Value::StringValue(text)) => write_text(out, text),
        Some(Value::BoolValue(is_true)) => out.push_str(if *is_true { "true" } else { "false" }),
        Some(Value::IntValue(number)) => write_integer(out, *number),
        Some(Value::DoubleValue(number)) => write_double(out, *number),
        Some(Value::BytesValue(bytes)) => write_text(out, &BASE64_STANDARD.encode(bytes)),
        Some(Value::KvlistValue(list)) => write_map(out, &list.values),
        Some(Value::ArrayValue(list)) => {
            out.push('[');
            for (at, value) in list.values.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_value(out, value);
            }
            out.push(']');
        }
        // An index into a table that only profiles have.
        Some(_) => out.push_str("null"),
    }
}

fn write_integer(out: &mut String, number: i64) {
    const EXACT: u64 = (1 << 53) - 1;
    let _ = match number.unsigned_abs() <= EXACT {
        true => write!(out, "{number}"),
        false => write!(out, "\"{number}\""),
    };
}

fn write_double(out: &mut String, number: f64) {
    let _ = if number.is_nan() {
        write!(out, "\"NaN\"")
    } else if number.is_infinite() {
        write!(out, "\"{}Infinity\"", if number < 0.0 { "-" } else { "" })
    } else {
        // `{:?}` is the shortest text that reads back as the same number, and valid JSON for every finite one.
        write!(out, "{number:?}")
    };
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            char if is_moving(char) => {
                let _ = write!(out, "\\u{:04x}", u32::from(char));
            }
            char => out.push(char),
        }
    }
    out.push('"');
}

/// Whether a character moves, hides or reorders what stands around it. All of them fit four hexadecimal digits.
fn is_moving(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Whether a stored request holds the text in a string of the record: body, names, attributes' keys and values.
pub(super) fn holds(request: &[u8], text: &str) -> bool {
    // Strings stand verbatim in protobuf: what is not in the bytes is in no string, and most records end here.
    if memchr::memmem::find(request, text.as_bytes()).is_none() {
        return false;
    }
    let Some((resource, scope, record)) = ExportLogsServiceRequest::decode(request).ok().and_then(single_of)
    else {
        return false;
    };
    let resource = resource.resource.unwrap_or_default();
    let scope = scope.scope.unwrap_or_default();
    [&record.severity_text, &record.event_name, &scope.name, &scope.version]
        .iter()
        .any(|name| name.contains(text))
        || record.body.as_ref().is_some_and(|body| value_holds(body, text))
        || [&record.attributes, &resource.attributes, &scope.attributes]
            .iter()
            .any(|map| map_holds(map, text))
}

fn map_holds(pairs: &[KeyValue], text: &str) -> bool {
    pairs.iter().any(|pair| {
        pair.key.contains(text) || pair.value.as_ref().is_some_and(|value| value_holds(value, text))
    })
}

fn value_holds(value: &AnyValue, text: &str) -> bool {
    match &value.value {
        Some(Value::StringValue(string)) => string.contains(text),
        Some(Value::ArrayValue(list)) => list.values.iter().any(|value| value_holds(value, text)),
        Some(Value::KvlistValue(list)) => map_holds(&list.values, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};
    use opentelemetry_proto::tonic::resource::v1::Resource;

    fn value(value: Value) -> Option<AnyValue> {
        Some(AnyValue { value: Some(value) })
    }

    fn text(text: &str) -> Option<AnyValue> {
        value(Value::StringValue(text.into()))
    }

    fn pair(key: &str, value: Option<AnyValue>) -> KeyValue {
        KeyValue { key: key.into(), value, ..KeyValue::default() }
    }

    fn request(record: LogRecord) -> Vec<u8> {
        let attributes = vec![pair("service.name", text("shop"))];
        let resource = Some(Resource { attributes, ..Resource::default() });
        let scope = InstrumentationScope {
            name: "http".into(),
            version: "2".into(),
            ..InstrumentationScope::default()
        };
        let scope_logs =
            vec![ScopeLogs { scope: Some(scope), log_records: vec![record], ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { resource, scope_logs, schema_url: "https://a/1".into() }];
        ExportLogsServiceRequest { resource_logs }.encode_to_vec()
    }

    fn check(record: LogRecord, expected: Expect) {
        let id = RecordId::new([1; 8], 1_763_985_600_123, [2; 4], 3);
        let json = render(&id, &request(record));
        serde_json::from_str::<serde_json::Value>(&json).expect("it is JSON");
        expected.assert_eq(&json);
    }

    #[test]
    fn a_record_is_shown_with_all_it_has() {
        let record = LogRecord {
            time_unix_nano: 1_763_985_600_000_000_001,
            observed_time_unix_nano: 1_763_985_600_500_000_000,
            severity_number: 17,
            event_name: "order.failed".into(),
            body: text("no stock"),
            attributes: vec![pair("attempt", value(Value::IntValue(3)))],
            dropped_attributes_count: 1,
            trace_id: vec![0xab; 16],
            span_id: vec![0xcd; 8],
            flags: 1,
            ..LogRecord::default()
        };
        check(
            record,
            expect![[
                r#"{"id":"AQEBAQEBAQEBmrW8LnsCAgICAAAAAAAD","committed":"2025-11-24T12:00:00.123Z","time":"2025-11-24T12:00:00.000000001Z","observed":"2025-11-24T12:00:00.500000000Z","severity":"ERROR","severity_number":17,"event_name":"order.failed","body":"no stock","attributes":{"attempt":3},"dropped_attributes":1,"trace_id":"abababababababababababababababab","span_id":"cdcdcdcdcdcdcdcd","flags":1,"resource":{"service.name":"shop"},"resource_schema_url":"https://a/1","scope":{"name":"http","version":"2"}}"#
            ]],
        );
        check(
            LogRecord::default(),
            expect![[
                r#"{"id":"AQEBAQEBAQEBmrW8LnsCAgICAAAAAAAD","committed":"2025-11-24T12:00:00.123Z","attributes":{},"resource":{"service.name":"shop"},"resource_schema_url":"https://a/1","scope":{"name":"http","version":"2"}}"#
            ]],
        );
    }

    #[test]
    fn every_kind_of_value_is_valid_json() {
        let list = vec![AnyValue { value: None }, AnyValue { value: Some(Value::BoolValue(true)) }];
        let attributes = vec![
            pair("none", None),
            pair("double", value(Value::DoubleValue(0.5))),
            pair("whole", value(Value::DoubleValue(2.0))),
            pair("small", value(Value::DoubleValue(-1e-300))),
            pair("nan", value(Value::DoubleValue(f64::NAN))),
            pair("infinite", value(Value::DoubleValue(f64::NEG_INFINITY))),
            pair("exact", value(Value::IntValue((1 << 53) - 1))),
            pair("inexact", value(Value::IntValue(i64::MIN))),
            pair("bytes", value(Value::BytesValue(vec![0, 255]))),
            pair("list", value(Value::ArrayValue(ArrayValue { values: list }))),
            pair("map", value(Value::KvlistValue(KeyValueList { values: vec![pair("a", text("b"))] }))),
        ];
        check(
            LogRecord { attributes, ..LogRecord::default() },
            expect![[
                r#"{"id":"AQEBAQEBAQEBmrW8LnsCAgICAAAAAAAD","committed":"2025-11-24T12:00:00.123Z","attributes":{"none":null,"double":0.5,"whole":2.0,"small":-1e-300,"nan":"NaN","infinite":"-Infinity","exact":9007199254740991,"inexact":"-9223372036854775808","bytes":"AP8=","list":[null,true],"map":{"a":"b"}},"resource":{"service.name":"shop"},"resource_schema_url":"https://a/1","scope":{"name":"http","version":"2"}}"#
            ]],
        );
    }

    #[test]
    fn what_could_move_a_cursor_is_escaped() {
        let body = text("a\u{1b}[2J\u{9b}2J\u{7f}\u{202e}\u{2028}\n\t\"\\ \u{0} grüße 日本");
        check(
            LogRecord { body, ..LogRecord::default() },
            expect![[
                r#"{"id":"AQEBAQEBAQEBmrW8LnsCAgICAAAAAAAD","committed":"2025-11-24T12:00:00.123Z","body":"a\u001b[2J\u009b2J\u007f\u202e\u2028\n\t\"\\ \u0000 grüße 日本","attributes":{},"resource":{"service.name":"shop"},"resource_schema_url":"https://a/1","scope":{"name":"http","version":"2"}}"#
            ]],
        );
    }

    #[test]
    fn bytes_that_are_no_record_become_a_line_that_says_so() {
        let id = RecordId::new([1; 8], 0, [2; 4], 3);
        for bytes in [&b""[..], b"\xff\xff"] {
            let json = render(&id, bytes);
            assert!(json.ends_with("\"unreadable\":\"the stored bytes are no OTLP log record\"}"), "{json}");
        }
    }

    #[test]
    fn a_search_looks_into_strings_alone() {
        let nested = value(Value::KvlistValue(KeyValueList { values: vec![pair("deep", text("found it"))] }));
        let record = LogRecord { body: nested, severity_text: "Warn".into(), ..LogRecord::default() };
        let request = request(record);
        for (text, is_held) in [
            ("found", true),
            ("deep", true),
            ("shop", true),
            ("http", true),
            ("Warn", true),
            ("warn", false),
            ("\n", false),
        ] {
            assert_eq!(holds(&request, text), is_held, "{text:?}");
        }
    }

    #[test]
    fn an_id_reads_back_from_its_text() {
        let id = RecordId::new([0xff; 8], 1, [2; 4], 3);
        assert_eq!(id_of(&id_text(&id)), Some(id));
        for text in ["", "AAAA", "a b", &format!("{}A", id_text(&id))] {
            assert_eq!(id_of(text), None, "{text}");
        }
    }
}
