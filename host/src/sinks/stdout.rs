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
    if let Some(body) = record.body {
        text.push(' ');
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
                if !metric.unit.is_empty() {
                    text.push_str(" unit=");
                    escape(text, &metric.unit);
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Entry, ProjectId, Stream, TenantId};
    use expect_test::{Expect, expect};
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};
    use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::metrics::v1::{
        Histogram, HistogramDataPoint, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    };
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Status};

    const NANOS: u64 = 1_700_000_000_123_456_789;

    fn check(signal: Signal, message: &impl Message, expected: &Expect) {
        let entry = Entry {
            stream: Stream { tenant: TenantId::new("t").unwrap(), project: ProjectId::new("p").unwrap() },
            signal,
            first: 1,
            records: 1,
            time_ms: 1_700_000_001_000,
            node: [0; 4],
            bytes: message.encode_to_vec().into(),
        };
        let entries = vec![Sending { entry: Arc::new(entry), is_resend: false }];
        expected.assert_eq(&lines(&Delivery { signal, entries }));
    }

    fn any(value: Value) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn string(text: &str) -> AnyValue {
        any(Value::StringValue(text.into()))
    }

    fn attribute(key: &str, value: AnyValue) -> KeyValue {
        KeyValue { key: key.into(), value: Some(value), ..KeyValue::default() }
    }

    fn resource() -> Option<Resource> {
        let attributes = vec![attribute("service.name", string("shop"))];
        Some(Resource { attributes, ..Resource::default() })
    }

    fn check_log(record: LogRecord, expected: &Expect) {
        let scope_logs = vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }];
        let resource_logs =
            vec![ResourceLogs { resource: resource(), scope_logs, ..ResourceLogs::default() }];
        check(Signal::Logs, &ExportLogsServiceRequest { resource_logs }, expected);
    }

    #[test]
    fn a_log_record_is_one_line() {
        let record = LogRecord {
            time_unix_nano: NANOS,
            severity_number: 17,
            body: Some(string("payment failed")),
            attributes: vec![attribute("user", string("anna")), attribute("tries", any(Value::IntValue(3)))],
            ..LogRecord::default()
        };
        check_log(
            record,
            &expect![[r#"
            2023-11-14T22:13:20.123Z t/p ERROR [shop] payment failed user="anna" tries=3
        "#]],
        );
    }

    #[test]
    fn a_record_without_a_time_has_the_time_of_its_commit() {
        check_log(
            LogRecord::default(),
            &expect![[r#"
            2023-11-14T22:13:21.000Z t/p - [shop]
        "#]],
        );
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let record = LogRecord {
            time_unix_nano: NANOS,
            severity_text: "IN\u{1b}[2JFO".into(),
            body: Some(string("one\ntwo\r\u{9b}31m\u{202e}three")),
            attributes: vec![attribute("a\tb", string("\u{7}"))],
            ..LogRecord::default()
        };
        check_log(
            record,
            &expect![[r#"
            2023-11-14T22:13:20.123Z t/p IN\u{1b}[2JFO [shop] one\ntwo\r\u{9b}31m\u{202e}three a\tb="\u{7}"
        "#]],
        );
    }

    #[test]
    fn nested_values_show_their_shape_and_long_ones_are_cut() {
        let list = KeyValueList { values: vec![attribute("k", any(Value::BoolValue(true)))] };
        let array = ArrayValue { values: vec![string("x"), any(Value::KvlistValue(list))] };
        let record = LogRecord {
            time_unix_nano: NANOS,
            body: Some(any(Value::ArrayValue(array))),
            attributes: vec![attribute("raw", any(Value::BytesValue(vec![0; 9])))],
            ..LogRecord::default()
        };
        check_log(
            record,
            &expect![[r#"
            2023-11-14T22:13:20.123Z t/p - [shop] ["x", {k: true}] raw=(9 bytes)
        "#]],
        );
        let mut text = String::new();
        escape(&mut text, &"é".repeat(5_000));
        assert_eq!(text.chars().count(), VALUE_CHARS_MAX + 1);
    }

    #[test]
    fn a_span_is_one_line() {
        let span = Span {
            trace_id: vec![0xab; 16],
            span_id: vec![1; 8],
            name: "GET /".into(),
            start_time_unix_nano: NANOS,
            end_time_unix_nano: NANOS + 1_500_000,
            status: Some(Status { code: 2, ..Status::default() }),
            ..Span::default()
        };
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        let resource_spans =
            vec![ResourceSpans { resource: resource(), scope_spans, ..ResourceSpans::default() }];
        check(
            Signal::Traces,
            &ExportTraceServiceRequest { resource_spans },
            &expect![[r#"
            2023-11-14T22:13:20.123Z t/p span 1.500ms [shop] GET / trace=abababababababababababababababab span=0101010101010101 error
        "#]],
        );
    }

    #[test]
    fn a_point_is_one_line() {
        let point = NumberDataPoint {
            time_unix_nano: NANOS,
            attributes: vec![attribute("code", any(Value::IntValue(200)))],
            value: Some(number_data_point::Value::AsInt(7)),
            ..NumberDataPoint::default()
        };
        let histogram = HistogramDataPoint {
            time_unix_nano: NANOS,
            count: 2,
            sum: Some(0.5),
            ..HistogramDataPoint::default()
        };
        let metric = |name: &str, unit: &str, data| Metric {
            name: name.into(),
            unit: unit.into(),
            data: Some(data),
            ..Metric::default()
        };
        let metrics = vec![
            metric("requests", "1", metric::Data::Sum(Sum { data_points: vec![point], ..Sum::default() })),
            metric(
                "latency",
                "s",
                metric::Data::Histogram(Histogram { data_points: vec![histogram], ..Histogram::default() }),
            ),
        ];
        let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
        let resource_metrics = vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }];
        check(
            Signal::Metrics,
            &ExportMetricsServiceRequest { resource_metrics },
            &expect![[r#"
            2023-11-14T22:13:20.123Z t/p point requests 7 unit=1 code=200
            2023-11-14T22:13:20.123Z t/p point latency count=2 sum=0.5 unit=s
        "#]],
        );
    }
}
