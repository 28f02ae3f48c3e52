//! A document back as the request of one record that it was made of.
//!
//! Lenient: somebody with a mongo shell may have changed it. What is missing is empty, what has another type is left
//! out.

use super::document::{DOLLAR, DOT};
use crate::batch::{RecordId, Stream};
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{RawArray, RawBsonRef, RawDocument};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

/// The id of a document that is one of ours.
pub(super) fn id_of(document: &RawDocument) -> Option<RecordId> {
    match document.get("_id").ok()?? {
        RawBsonRef::Binary(binary) if binary.subtype == BinarySubtype::Generic => {
            Some(RecordId(binary.bytes.try_into().ok()?))
        }
        _ => None,
    }
}

/// The record as a request of its own, if the document is of this stream.
pub(super) fn request_of(document: &RawDocument, stream: &Stream) -> Option<Vec<u8>> {
    let is_named = |field, name| document.get_str(field).is_ok_and(|text| text == name);
    if !is_named("tenant", stream.tenant.as_str()) || !is_named("project", stream.project.as_str()) {
        return None;
    }
    match document.get("otlp") {
        Ok(Some(RawBsonRef::Binary(binary))) => Some(binary.bytes.to_vec()),
        _ => Some(read(document).encode_to_vec()),
    }
}

fn read(document: &RawDocument) -> ExportLogsServiceRequest {
    let mut record = LogRecord::default();
    let (mut resource, mut scope_logs) = (Resource::default(), ScopeLogs::default());
    let mut resource_schema_url = String::new();
    let (mut time, mut observed) = (0_u64, 0_u64);
    for (name, value) in document.iter().map_while(Result::ok) {
        match name.as_str() {
            "time" => time = nanos(value),
            "time_ns" => record.time_unix_nano = rest(value),
            "observed" => observed = nanos(value),
            "observed_ns" => record.observed_time_unix_nano = rest(value),
            "severity" => record.severity_number = number(value) as i32,
            "severity_text" => record.severity_text = text(value),
            "event_name" => record.event_name = text(value),
            "body" => record.body = Some(any(value)),
            "attributes" => record.attributes = map(value),
            "dropped_attributes" => record.dropped_attributes_count = number(value) as u32,
            "trace_id" => record.trace_id = unhex(&text(value)),
            "span_id" => record.span_id = unhex(&text(value)),
            "flags" => record.flags = number(value) as u32,
            "resource" => resource.attributes = map(value),
            "resource_dropped_attributes" => resource.dropped_attributes_count = number(value) as u32,
            "resource_schema_url" => resource_schema_url = text(value),
            "scope" => scope_logs.scope = value.as_document().map(scope),
            "scope_schema_url" => scope_logs.schema_url = text(value),
            _ => {}
        }
    }
    record.time_unix_nano = time.saturating_add(record.time_unix_nano);
    record.observed_time_unix_nano = observed.saturating_add(record.observed_time_unix_nano);
    scope_logs.log_records = vec![record];
    let resource = Some(resource);
    let resource_logs =
        ResourceLogs { resource, scope_logs: vec![scope_logs], schema_url: resource_schema_url };
    ExportLogsServiceRequest { resource_logs: vec![resource_logs] }
}

fn scope(document: &RawDocument) -> InstrumentationScope {
    let mut scope = InstrumentationScope::default();
    for (name, value) in document.iter().map_while(Result::ok) {
        match name.as_str() {
            "name" => scope.name = text(value),
            "version" => scope.version = text(value),
            "attributes" => scope.attributes = map(value),
            "dropped_attributes" => scope.dropped_attributes_count = number(value) as u32,
            _ => {}
        }
    }
    scope
}

fn nanos(value: RawBsonRef<'_>) -> u64 {
    let ms = value.as_datetime().map_or(0, |time| time.timestamp_millis());
    u64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000)
}

/// The nanoseconds beyond the millisecond.
fn rest(value: RawBsonRef<'_>) -> u64 {
    u64::try_from(number(value)).map_or(0, |nanos| nanos.min(999_999))
}

fn number(value: RawBsonRef<'_>) -> i64 {
    match value {
        RawBsonRef::Int32(number) => number.into(),
        RawBsonRef::Int64(number) => number,
        RawBsonRef::Double(number) => number as i64,
        _ => 0,
    }
}

fn text(value: RawBsonRef<'_>) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn map(value: RawBsonRef<'_>) -> Vec<KeyValue> {
    let pairs = value.as_document().into_iter().flat_map(|document| document.iter().map_while(Result::ok));
    pairs
        .map(|(name, value)| KeyValue {
            key: key(name.as_str()),
            value: Some(any(value)),
            ..KeyValue::default()
        })
        .collect()
}

/// The name of an attribute, of that of a field.
fn key(name: &str) -> String {
    match name.strip_prefix(DOLLAR) {
        Some(rest) => format!("${}", rest.replace(DOT, ".")),
        None => name.replace(DOT, "."),
    }
}

// Nesting is bounded: servers take 100 levels.
fn any(value: RawBsonRef<'_>) -> AnyValue {
    let value = match value {
        RawBsonRef::String(text) => Some(Value::StringValue(text.to_owned())),
        RawBsonRef::Boolean(is_true) => Some(Value::BoolValue(is_true)),
        RawBsonRef::Int32(number) => Some(Value::IntValue(number.into())),
        RawBsonRef::Int64(number) => Some(Value::IntValue(number)),
        RawBsonRef::Double(number) => Some(Value::DoubleValue(number)),
        RawBsonRef::Binary(binary) => Some(Value::BytesValue(binary.bytes.to_vec())),
        RawBsonRef::Document(_) => Some(Value::KvlistValue(KeyValueList { values: map(value) })),
        RawBsonRef::Array(array) => Some(Value::ArrayValue(ArrayValue { values: list(array) })),
        _ => None,
    };
    AnyValue { value }
}

fn list(array: &RawArray) -> Vec<AnyValue> {
    array.into_iter().map_while(Result::ok).map(any).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.as_bytes().chunks(2).map_while(digits).collect()
}
