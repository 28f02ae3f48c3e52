//! A record as a document and back: what people are shown is the same as from the embedded store.

use super::super::json;
use super::super::record::{Walk, request_of, single};
use super::bson::Bson;
use super::document::Writer;
use super::reading;
use crate::batch::{Entry, ProjectId, RecordId, Signal, Stream, TenantId};
use mongodb::bson::{Document, RawDocumentBuf};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::prelude::*;
use prost::Message;

const HASH: [u8; 8] = [7; 8];

fn stream() -> Stream {
    Stream { tenant: TenantId::new("acme").unwrap(), project: ProjectId::new("web").unwrap() }
}

fn entry(bytes: Vec<u8>, records: u32) -> Entry {
    let (stream, signal, node, time_ms) = (stream(), Signal::Logs, [1, 2, 3, 4], 1_763_985_600_123);
    Entry { stream, signal, first: 1, records, time_ms, node, bytes: bytes.into() }
}

/// The documents of an entry, and each record as the embedded store keeps it.
fn documents(entry: &Entry) -> Vec<(RecordId, RawDocumentBuf, Vec<u8>)> {
    let mut writer = Writer::default();
    writer.begin(&entry.stream);
    let mut walk = Walk::of(entry);
    let mut documents = Vec::new();
    while let Some((at, spans)) = walk.next(&entry.bytes) {
        let id = entry.record_id(HASH, at);
        let mut out = Bson::default();
        writer.write(&mut out, &id, &entry.bytes, &spans);
        let mut request = Vec::new();
        request_of(&entry.bytes, &spans, &mut request);
        documents.push((id, RawDocumentBuf::from_bytes(out.0).unwrap(), request));
    }
    documents
}

fn check_same(entry: &Entry) {
    for (id, document, request) in documents(entry) {
        // Whole and valid BSON.
        let parsed: Document = (&*document).try_into().unwrap();
        let again = RawDocumentBuf::try_from(&parsed).unwrap();
        assert_eq!(again.as_bytes().len(), document.as_bytes().len());
        assert_eq!(reading::id_of(&document), Some(id));
        let back = reading::request_of(&document, &stream()).expect("it is of this stream");
        assert_eq!(json::render(&id, &back), json::render(&id, &request), "{parsed:?}");
        for text in ["a", ".", "$", "\u{ff0e}", "\0", "error", "service.name"] {
            assert_eq!(json::holds(&back, text), json::holds(&request, text), "{text:?} in {parsed:?}");
        }
    }
}

fn value(value: Value) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

fn text(text: &str) -> Option<AnyValue> {
    value(Value::StringValue(text.into()))
}

fn pair(key: &str, value: Option<AnyValue>) -> KeyValue {
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

fn request(record: LogRecord) -> ExportLogsServiceRequest {
    let resource = Resource { attributes: vec![pair("service.name", text("shop"))], ..Resource::default() };
    let scope =
        InstrumentationScope { name: "http".into(), version: "2".into(), ..InstrumentationScope::default() };
    let scope_logs = ScopeLogs { scope: Some(scope), log_records: vec![record], ..ScopeLogs::default() };
    let resource_logs = ResourceLogs {
        resource: Some(resource),
        scope_logs: vec![scope_logs],
        schema_url: "https://a/1".into(),
    };
    ExportLogsServiceRequest { resource_logs: vec![resource_logs] }
}

fn document(record: LogRecord) -> Document {
    let entry = entry(request(record).encode_to_vec(), 1);
    check_same(&entry);
    (&*documents(&entry)[0].1).try_into().unwrap()
}

#[test]
fn a_document_has_the_fields_that_are_promised() {
    let list = vec![AnyValue { value: None }, AnyValue { value: Some(Value::BoolValue(true)) }];
    let attributes = vec![
        pair("http.route", text("/orders")),
        pair("$price", value(Value::DoubleValue(0.5))),
        pair("attempt", value(Value::IntValue(3))),
        pair("list", value(Value::ArrayValue(ArrayValue { values: list }))),
        pair("map", value(Value::KvlistValue(KeyValueList { values: vec![pair("a.b", text("c"))] }))),
        pair("bytes", value(Value::BytesValue(vec![0, 255]))),
    ];
    let record = LogRecord {
        time_unix_nano: 1_763_985_600_000_000_001,
        observed_time_unix_nano: 1_763_985_600_500_000_000,
        severity_number: 17,
        severity_text: "Error".into(),
        event_name: "order.failed".into(),
        body: text("no stock"),
        attributes,
        dropped_attributes_count: 1,
        trace_id: vec![0xab; 16],
        span_id: vec![0xcd; 8],
        flags: u32::MAX,
    };
    let shown = document(record).to_string();
    expect_test::expect![[r#"{ "_id": Binary(0x0, BwcHBwcHBwcBmrW8LnsBAgMEAAAAAAAB), "tenant": "acme", "project": "web", "committed": DateTime("2025-11-24 12:00:00.123 +00:00:00"), "time": DateTime("2025-11-24 12:00:00.0 +00:00:00"), "time_ns": 1, "severity": 17, "severity_text": "Error", "event_name": "order.failed", "body": "no stock", "attributes": { "http．route": "/orders", "＄price": 0.5, "attempt": 3, "list": [null, true], "map": { "a．b": "c" }, "bytes": Binary(0x0, AP8=) }, "dropped_attributes": 1, "trace_id": "abababababababababababababababab", "span_id": "cdcdcdcdcdcdcdcd", "flags": 4294967295, "observed": DateTime("2025-11-24 12:00:00.5 +00:00:00"), "resource": { "service．name": "shop" }, "resource_schema_url": "https://a/1", "scope": { "name": "http", "version": "2", "attributes": {} } }"#]].assert_eq(&shown);
}

#[test]
fn what_has_no_exact_form_stands_in_the_document_as_it_came() {
    let named = |names: &[&str]| LogRecord {
        attributes: names.iter().map(|name| pair(name, text("v"))).collect(),
        ..LogRecord::default()
    };
    let many: Vec<String> = (0..60).map(|at| format!("k{}", at % 59)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (names, is_exact) in [
        (&["a", "b", "", "a.b", "$a", "a$", ".", "..", "_ID"][..], true),
        (&many[..59], true),
        (&many[..], false),
        (&["a", "b", "a"], false),
        (&["a\0b"], false),
        (&["a\u{ff0e}b"], false),
        (&["\u{ff04}a"], false),
        (&["a\u{ff04}"], true),
        (&["\u{ff0f}"], true),
        (&["_id"], false),
    ] {
        let document = document(named(names));
        assert_eq!(!document.contains_key("otlp"), is_exact, "{names:?}: {document:?}");
        let attributes = document.get_document("attributes").unwrap();
        assert!(attributes.keys().all(|name| !name.contains(['.', '\0']) && !name.starts_with('$')));
    }
}

#[test]
fn neighbours_with_other_names_become_the_same_documents_as_alone() {
    let of = [
        "a.b $c d",
        "a.b $c d",
        "a.b $c",
        "a.b",
        "",
        "a.b $c d",
        "a.b $c d e",
        "a.b $c d",
        "d $c a.b",
        "a.b $c a.b",
        "a.b $c d d",
        "a.b x d",
        "a.b _id d",
        "a.b $c d",
        "a.b \u{ff0e} d",
        "e",
        "f",
        "g",
        "h",
        "a.b $c d",
    ];
    let record = |names: &str| LogRecord {
        attributes: names.split_whitespace().map(|name| pair(name, text(names))).collect(),
        ..LogRecord::default()
    };
    let together = request(LogRecord::default());
    let mut together = together.resource_logs;
    together[0].scope_logs[0].log_records = of.iter().map(|names| record(names)).collect();
    let together = ExportLogsServiceRequest { resource_logs: together };
    let together = entry(together.encode_to_vec(), of.len() as u32);
    check_same(&together);
    let shown = |document: &RawDocumentBuf| {
        let mut document: Document = (&**document).try_into().unwrap();
        // The id is that of its place.
        document.remove("_id");
        document
    };
    for (names, (_, document, _)) in of.iter().zip(documents(&together)) {
        let alone = entry(request(record(names)).encode_to_vec(), 1);
        assert_eq!(shown(&document), shown(&documents(&alone)[0].1), "{names}");
    }
}

#[test]
fn a_field_that_nobody_knows_survives() {
    let mut record = LogRecord { body: text("a"), ..LogRecord::default() }.encode_to_vec();
    record.extend_from_slice(&[0x92, 0x03, 1, b'x']);
    let scope_logs = [&[0x12, u8::try_from(record.len()).unwrap()][..], &record].concat();
    let resource_logs = [&[0x12, u8::try_from(scope_logs.len()).unwrap()][..], &scope_logs].concat();
    let bytes = [&[0x0a, u8::try_from(resource_logs.len()).unwrap()][..], &resource_logs].concat();
    let entry = entry(bytes.clone(), 1);
    check_same(&entry);
    let (_, document, request) = documents(&entry).remove(0);
    assert_eq!(reading::request_of(&document, &stream()), Some(request));
}

#[test]
fn values_nest_as_deep_as_they_may_come() {
    let mut value = Value::StringValue("end".into());
    for level in 0..63 {
        let inner = AnyValue { value: Some(value) };
        value = match level % 2 {
            0 => Value::KvlistValue(KeyValueList { values: vec![pair("k", Some(inner))] }),
            _ => Value::ArrayValue(ArrayValue { values: vec![inner] }),
        };
    }
    let document =
        document(LogRecord { body: Some(AnyValue { value: Some(value) }), ..LogRecord::default() });
    assert!(!document.contains_key("otlp"));
}

#[test]
fn a_document_is_read_by_its_own_stream_alone_and_whatever_was_changed_in_it() {
    let entry = entry(request(LogRecord::default()).encode_to_vec(), 1);
    let (_, document, _) = documents(&entry).remove(0);
    for (tenant, project) in [("acme", "we"), ("globex", "web")] {
        let other =
            Stream { tenant: TenantId::new(tenant).unwrap(), project: ProjectId::new(project).unwrap() };
        assert_eq!(reading::request_of(&document, &other), None);
    }
    let mut changed: Document = (&*document).try_into().unwrap();
    changed.insert("time", "yesterday");
    changed.insert("time_ns", -5);
    changed.insert("trace_id", "zz");
    changed.insert("resource", 5);
    changed.insert("body", mongodb::bson::Timestamp { time: 1, increment: 2 });
    let changed = RawDocumentBuf::try_from(&changed).unwrap();
    let request = reading::request_of(&changed, &stream()).unwrap();
    assert!(json::render(&RecordId([0; 24]), &request).contains("\"body\":null"));
}

fn values() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        "[a\\.\\$\0\u{ff0e}]{0,3}|error".prop_map(|text| Some(Value::StringValue(text))),
        any::<bool>().prop_map(|is_true| Some(Value::BoolValue(is_true))),
        any::<i64>().prop_map(|number| Some(Value::IntValue(number))),
        any::<f64>().prop_map(|number| Some(Value::DoubleValue(number))),
        prop::collection::vec(any::<u8>(), 0..4).prop_map(|bytes| Some(Value::BytesValue(bytes))),
        any::<i32>().prop_map(|index| Some(Value::StringValueStrindex(index))),
    ];
    let leaf = leaf.prop_map(|value| AnyValue { value });
    leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|values| AnyValue { value: Some(Value::ArrayValue(ArrayValue { values })) }),
            pairs_of(inner)
                .prop_map(|values| AnyValue { value: Some(Value::KvlistValue(KeyValueList { values })) }),
        ]
    })
}

fn pairs_of(value: impl Strategy<Value = AnyValue>) -> impl Strategy<Value = Vec<KeyValue>> {
    let pair = ("[ab\\.\\$]{0,2}|_id|service.name|a\0|\u{ff0e}|\u{ff04}", prop::option::of(value));
    let pair = pair.prop_map(|(key, value)| KeyValue { key, value, ..KeyValue::default() });
    prop::collection::vec(pair, 0..5)
}

fn records() -> impl Strategy<Value = LogRecord> {
    let times = prop_oneof![Just(0), any::<u64>(), 1_700_000_000_000_000_000..1_800_000_000_000_000_000_u64];
    let head = (times.clone(), times, any::<i32>(), "[a-z]{0,3}", "[a-z\\.]{0,4}");
    let rest = (
        prop::option::of(values()),
        pairs_of(values()),
        prop_oneof![Just(0), any::<u32>()],
        prop_oneof![Just(0), any::<u32>()],
        prop::collection::vec(any::<u8>(), 0..17),
        prop::collection::vec(any::<u8>(), 0..9),
    );
    (head, rest).prop_map(|(head, rest)| {
        let (time_unix_nano, observed_time_unix_nano, severity_number, severity_text, event_name) = head;
        let (body, attributes, dropped_attributes_count, flags, trace_id, span_id) = rest;
        LogRecord {
            time_unix_nano,
            observed_time_unix_nano,
            severity_number,
            severity_text,
            body,
            attributes,
            dropped_attributes_count,
            flags,
            trace_id,
            span_id,
            event_name,
        }
    })
}

fn requests() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let scope = ("[a-z]{0,2}", "[a-z]{0,2}", pairs_of(values()), prop_oneof![Just(0), any::<u32>()]);
    let scope = scope.prop_map(|(name, version, attributes, dropped_attributes_count)| {
        InstrumentationScope { name, version, attributes, dropped_attributes_count }
    });
    let scope_logs = (prop::option::of(scope), "[a-z]{0,2}", prop::collection::vec(records(), 0..3));
    let scope_logs =
        scope_logs.prop_map(|(scope, schema_url, log_records)| ScopeLogs { scope, schema_url, log_records });
    let resource = (pairs_of(values()), prop_oneof![Just(0), any::<u32>()]);
    let resource = resource.prop_map(|(attributes, dropped_attributes_count)| Resource {
        attributes,
        dropped_attributes_count,
        ..Resource::default()
    });
    let resource_logs = (prop::option::of(resource), "[a-z]{0,2}", prop::collection::vec(scope_logs, 0..3));
    let resource_logs = resource_logs.prop_map(|(resource, schema_url, scope_logs)| ResourceLogs {
        resource,
        schema_url,
        scope_logs,
    });
    prop::collection::vec(resource_logs, 0..3)
        .prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

proptest! {
    #[test]
    fn what_is_read_back_is_shown_the_same_as_from_the_embedded_store(request in requests()) {
        let records: usize = request.resource_logs.iter().flat_map(|r| &r.scope_logs).map(|s| s.log_records.len()).sum();
        check_same(&entry(request.encode_to_vec(), u32::try_from(records).unwrap()));
    }

    #[test]
    fn no_bytes_panic_and_every_document_is_valid(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let entry = entry(bytes, 3);
        for (_, document, _) in documents(&entry) {
            prop_assert!(Document::try_from(&*document).is_ok());
        }
        let _ = single(&entry, &Default::default());
    }

    #[test]
    fn bytes_that_are_nearly_a_request_panic_nowhere(request in requests(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = request.encode_to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for (id, document, _) in documents(&entry(bytes, 50)) {
            prop_assert!(Document::try_from(&*document).is_ok());
            let request = reading::request_of(&document, &stream()).unwrap();
            json::render(&id, &request);
        }
    }
}
