//! A readable line per record on standard output.
//!
//! For eyes, not for machines: it is decoded as a whole, control characters are escaped so that no record can write
//! to the terminal, and long values are cut.

use super::{Delivery, SendError, Sending, Sent};
use crate::batch::Signal;
use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::{Span, status};
use prost::Message;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use tokio::sync::Semaphore;

const VALUE_CHARS_MAX: usize = 1024;
/// Deeper values show as `…`.
const DEPTH_MAX: u32 = 8;

/// Standard output, written by one at a time.
#[derive(Debug)]
pub struct Stdout {
    turn: Arc<Semaphore>,
}

impl Default for Stdout {
    fn default() -> Stdout {
        Stdout { turn: Arc::new(Semaphore::new(1)) }
    }
}

impl Stdout {
    pub(super) async fn send(&self, delivery: &Delivery) -> Result<Sent, SendError> {
        // A reader that stops blocks one thread, not one more with each attempt: the turn is kept until it is written.
        let turn = self.turn.clone().acquire_owned().await.expect("the semaphore is never closed");
        let delivery = delivery.clone();
        let written = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let mut out = std::io::stdout().lock();
            out.write_all(lines(&delivery).as_bytes())?;
            out.flush()
        });
        let written = written.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let retry = |error: std::io::Error| SendError::Retry { after: None, reason: error.to_string() };
        written.map(|()| Sent::default()).map_err(retry)
    }
}

fn lines(delivery: &Delivery) -> String {
    let mut text = String::new();
    for sending in &delivery.entries {
        match delivery.signal {
            Signal::Logs => logs(&mut text, sending),
            Signal::Traces => spans(&mut text, sending),
            Signal::Metrics => points(&mut text, sending),
        }
    }
    text
}

/// The beginning of each line: when, and whose.
fn begin(text: &mut String, sending: &Sending, nanos: u64) {
    let time = Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or_default();
    let stream = &sending.entry.stream;
    let _ = write!(text, "{time:.3} {}/{} ", stream.tenant, stream.project);
}

fn logs(text: &mut String, sending: &Sending) {
    let request = ExportLogsServiceRequest::decode(sending.entry.bytes.clone()).unwrap_or_default();
    for resource in request.resource_logs {
        let service = service_of(resource.resource.map(|resource| resource.attributes));
        for record in resource.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
            log(text, sending, &service, record);
        }
    }
}

fn log(text: &mut String, sending: &Sending, service: &str, record: LogRecord) {
    let nanos = match record.time_unix_nano {
        0 if record.observed_time_unix_nano > 0 => record.observed_time_unix_nano,
        0 => sending.entry.time_ms.saturating_mul(1_000_000),
        nanos => nanos,
    };
    begin(text, sending, nanos);
    let severity = match record.severity_text.as_str() {
        "" => severity(record.severity_number),
        name => name,
    };
    escape(text, severity);
    text.push_str(service);
    text.push(' ');
    if let Some(body) = record.body {
        value(text, &body, 0, false);
    }
    attributes(text, &record.attributes);
    text.push('\n');
}

/// OpenTelemetry log data model, "Severity Fields".
fn severity(number: i32) -> &'static str {
    match number {
        1..=4 => "TRACE",
        5..=8 => "DEBUG",
        9..=12 => "INFO",
        13..=16 => "WARN",
        17..=20 => "ERROR",
        21..=24 => "FATAL",
        _ => "-",
    }
}

fn spans(text: &mut String, sending: &Sending) {
    let request = ExportTraceServiceRequest::decode(sending.entry.bytes.clone()).unwrap_or_default();
    for resource in request.resource_spans {
        let service = service_of(resource.resource.map(|resource| resource.attributes));
        for record in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            span(text, sending, &service, record);
        }
    }
}

fn span(text: &mut String, sending: &Sending, service: &str, span: Span) {
    begin(text, sending, span.start_time_unix_nano);
    let micros = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano) / 1_000;
    let _ = write!(text, "span {:.3}ms", micros as f64 / 1_000.0);
    text.push_str(service);
    text.push(' ');
    escape(text, &span.name);
    let _ = write!(text, " trace={} span={}", hex(&span.trace_id), hex(&span.span_id));
    if span.status.is_some_and(|status| status.code == status::StatusCode::Error as i32) {
        text.push_str(" error");
    }
    attributes(text, &span.attributes);
    text.push('\n');
}

fn points(text: &mut String, sending: &Sending) {
    let request = ExportMetricsServiceRequest::decode(sending.entry.bytes.clone()).unwrap_or_default();
    for resource in request.resource_metrics {
        let service = service_of(resource.resource.map(|resource| resource.attributes));
        for metric in resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
            for (nanos, attributes_of, shown) in points_of(&metric) {
                begin(text, sending, nanos);
                text.push_str("point");
                text.push_str(&service);
                text.push(' ');
                escape(text, &metric.name);
                let _ = write!(text, " {shown}");
                escape(text, &metric.unit);
                attributes(text, attributes_of);
                text.push('\n');
            }
        }
    }
}

/// Time, attributes and value of each point.
fn points_of(metric: &Metric) -> Vec<(u64, &[KeyValue], String)> {
    let number = |value: &Option<number_data_point::Value>| match value {
        Some(number_data_point::Value::AsInt(value)) => value.to_string(),
        Some(number_data_point::Value::AsDouble(value)) => value.to_string(),
        None => "-".into(),
    };
    let total = |count: u64, sum: f64| format!("count={count} sum={sum}");
    match &metric.data {
        Some(metric::Data::Gauge(data)) => {
            data.data_points.iter().map(|p| (p.time_unix_nano, &p.attributes[..], number(&p.value))).collect()
        }
        Some(metric::Data::Sum(data)) => {
            data.data_points.iter().map(|p| (p.time_unix_nano, &p.attributes[..], number(&p.value))).collect()
        }
        Some(metric::Data::Histogram(data)) => {
            let shown = data.data_points.iter();
            shown
                .map(|p| (p.time_unix_nano, &p.attributes[..], total(p.count, p.sum.unwrap_or(0.0))))
                .collect()
        }
        Some(metric::Data::ExponentialHistogram(data)) => {
            let shown = data.data_points.iter();
            shown
                .map(|p| (p.time_unix_nano, &p.attributes[..], total(p.count, p.sum.unwrap_or(0.0))))
                .collect()
        }
        Some(metric::Data::Summary(data)) => {
            let shown = data.data_points.iter();
            shown.map(|p| (p.time_unix_nano, &p.attributes[..], total(p.count, p.sum))).collect()
        }
        None => Vec::new(),
    }
}

/// ` [name]` of the service, or nothing.
fn service_of(attributes: Option<Vec<KeyValue>>) -> String {
    let mut text = String::new();
    for KeyValue { key, value: found, .. } in attributes.unwrap_or_default() {
        if let ("service.name", Some(Value::StringValue(name))) = (key.as_str(), found.and_then(|v| v.value))
        {
            text.push_str(" [");
            escape(&mut text, &name);
            text.push(']');
        }
    }
    text
}

fn attributes(text: &mut String, attributes: &[KeyValue]) {
    for attribute in attributes {
        text.push(' ');
        escape(text, &attribute.key);
        text.push('=');
        match &attribute.value {
            Some(found) => value(text, found, 0, true),
            None => text.push('-'),
        }
    }
}

fn value(text: &mut String, shown: &AnyValue, depth: u32, is_quoted: bool) {
    if depth > DEPTH_MAX {
        text.push('…');
        return;
    }
    match &shown.value {
        Some(Value::StringValue(string)) if is_quoted => {
            text.push('"');
            escape(text, string);
            text.push('"');
        }
        Some(Value::StringValue(string)) => escape(text, string),
        Some(Value::BoolValue(value)) => _ = write!(text, "{value}"),
        Some(Value::IntValue(value)) => _ = write!(text, "{value}"),
        Some(Value::DoubleValue(value)) => _ = write!(text, "{value}"),
        Some(Value::BytesValue(bytes)) => _ = write!(text, "({} bytes)", bytes.len()),
        Some(Value::ArrayValue(array)) => {
            text.push('[');
            for (at, item) in array.values.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { ", " });
                value(text, item, depth + 1, true);
            }
            text.push(']');
        }
        Some(Value::KvlistValue(list)) => {
            text.push('{');
            for (at, item) in list.values.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { ", " });
                escape(text, &item.key);
                text.push_str(": ");
                match &item.value {
                    Some(found) => value(text, found, depth + 1, true),
                    None => text.push('-'),
                }
            }
            text.push('}');
        }
        _ => text.push('-'),
    }
}

/// The text without what a terminal would obey, cut.
fn escape(text: &mut String, from: &str) {
    for (at, c) in from.chars().enumerate() {
        if at == VALUE_CHARS_MAX {
            text.push('…');
            return;
        }
        // Beside control characters those that turn the direction of what follows.
        let is_obeyed = c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
        if is_obeyed {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(16).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
