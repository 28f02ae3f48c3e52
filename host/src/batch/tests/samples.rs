//! Random OTLP requests, and random ways to write one of them.

use crate::batch::Signal;
use crate::batch::walk::schema;
use crate::batch::wire::{Field, LENGTH, fields, put_varint};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
    exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
    summary_data_point::ValueAtQuantile,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status,
    span::{Event, Link},
};
use proptest::prelude::{ProptestConfig, Strategy, any, prop};
use prost::{DecodeError, Message};

/// Failures are shown, not written to files.
pub(super) fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

/// Random decisions, enough for a handful of records.
pub(super) fn dice() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..1500)
}

pub(super) fn signal() -> impl Strategy<Value = Signal> {
    prop::sample::select(Signal::ALL.to_vec())
}

/// Decisions drawn from random bytes; when they are used up, all decisions are the smallest. So a shorter input is a
/// simpler sample, which is what proptest shrinks to.
pub(super) struct Dice<'r>(pub(super) &'r [u8]);

impl Dice<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }
    pub(super) fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }
    pub(super) fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => u64::from(self.byte()),
            1 => u64::from(self.byte()) << 13,
            2 => u64::MAX - u64::from(self.byte()),
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }
    fn double(&mut self) -> f64 {
        f64::from(self.byte()) / 4.0
    }
    fn bytes(&mut self) -> Vec<u8> {
        let length = [0, 8, 16, 3][self.below(4) as usize];
        (0..length).map(|_| self.byte()).collect()
    }
    pub(super) fn text(&mut self) -> String {
        let words = [
            "",
            "a",
            "tenant.id",
            "zwölf Boxkämpfer",
            "jane@example.com",
            "日本語",
            "a longer text of forty bytes or some more",
        ];
        let text = words[self.below(7) as usize].repeat(1 + usize::from(self.below(2)));
        if self.below(40) == 39 { text + &"long ".repeat(60) } else { text }
    }
    fn some<T>(&mut self, one: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(4) > 0).then(|| one(self))
    }
    fn list<T>(&mut self, most: u8, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let length = self.below(most + 1);
        (0..length).map(|_| one(self)).collect()
    }
    fn value(&mut self, depth: u8) -> AnyValue {
        let value = match self.below(if depth < 4 { 9 } else { 6 }) {
            0 => Value::StringValue(self.text()),
            1 => Value::BoolValue(self.below(2) > 0),
            2 => Value::IntValue(self.number() as i64),
            3 => Value::DoubleValue(self.double()),
            4 => Value::BytesValue(self.bytes()),
            5 => return AnyValue { value: None },
            6 => Value::ArrayValue(ArrayValue { values: self.list(3, |dice| dice.value(depth + 1)) }),
            7 => Value::KvlistValue(KeyValueList { values: self.list(3, |dice| dice.attribute(depth + 1)) }),
            _ => Value::StringValueStrindex(self.byte().into()),
        };
        AnyValue { value: Some(value) }
    }
    pub(super) fn attribute(&mut self, depth: u8) -> KeyValue {
        let value = self.some(|dice| dice.value(depth));
        KeyValue { key: self.text(), value, key_strindex: self.below(2).into() }
    }
    fn attributes(&mut self) -> Vec<KeyValue> {
        self.list(3, |dice| dice.attribute(0))
    }
    fn resource(&mut self) -> Option<Resource> {
        self.some(|dice| Resource {
            attributes: dice.attributes(),
            dropped_attributes_count: dice.byte().into(),
            entity_refs: dice.list(1, |dice| EntityRef {
                schema_url: dice.text(),
                r#type: dice.text(),
                id_keys: dice.list(2, Dice::text),
                description_keys: dice.list(2, Dice::text),
            }),
        })
    }
    fn scope(&mut self) -> Option<InstrumentationScope> {
        self.some(|dice| InstrumentationScope {
            name: dice.text(),
            version: dice.text(),
            attributes: dice.attributes(),
            dropped_attributes_count: dice.byte().into(),
        })
    }
    fn log(&mut self) -> LogRecord {
        LogRecord {
            time_unix_nano: self.number(),
            observed_time_unix_nano: self.number(),
            severity_number: self.below(25).into(),
            severity_text: self.text(),
            body: self.some(|dice| dice.value(0)),
            attributes: self.attributes(),
            dropped_attributes_count: self.byte().into(),
            flags: self.byte().into(),
            trace_id: self.bytes(),
            span_id: self.bytes(),
            event_name: self.text(),
        }
    }
    fn span(&mut self) -> Span {
        Span {
            trace_id: self.bytes(),
            span_id: self.bytes(),
            trace_state: self.text(),
            parent_span_id: self.bytes(),
            flags: self.byte().into(),
            name: self.text(),
            kind: self.below(6).into(),
            start_time_unix_nano: self.number(),
            end_time_unix_nano: self.number(),
            attributes: self.attributes(),
            dropped_attributes_count: self.byte().into(),
            events: self.list(2, |dice| Event {
                time_unix_nano: dice.number(),
                name: dice.text(),
                attributes: dice.attributes(),
                dropped_attributes_count: dice.byte().into(),
            }),
            dropped_events_count: self.byte().into(),
            links: self.list(2, |dice| Link {
                trace_id: dice.bytes(),
                span_id: dice.bytes(),
                trace_state: dice.text(),
                attributes: dice.attributes(),
                dropped_attributes_count: dice.byte().into(),
                flags: dice.byte().into(),
            }),
            dropped_links_count: self.byte().into(),
            status: self.some(|dice| Status { message: dice.text(), code: dice.below(3).into() }),
        }
    }
    fn exemplar(&mut self) -> Exemplar {
        Exemplar {
            filtered_attributes: self.attributes(),
            time_unix_nano: self.number(),
            span_id: self.bytes(),
            trace_id: self.bytes(),
            value: self.some(|dice| match dice.below(2) {
                0 => exemplar::Value::AsDouble(dice.double()),
                _ => exemplar::Value::AsInt(dice.number() as i64),
            }),
        }
    }
    fn number_point(&mut self) -> NumberDataPoint {
        NumberDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.number(),
            time_unix_nano: self.number(),
            exemplars: self.list(1, Dice::exemplar),
            flags: self.byte().into(),
            value: self.some(|dice| match dice.below(2) {
                0 => number_data_point::Value::AsDouble(dice.double()),
                _ => number_data_point::Value::AsInt(dice.number() as i64),
            }),
        }
    }
    fn histogram_point(&mut self) -> HistogramDataPoint {
        HistogramDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.number(),
            time_unix_nano: self.number(),
            count: self.number(),
            sum: self.some(Dice::double),
            bucket_counts: self.list(4, Dice::number),
            explicit_bounds: self.list(4, Dice::double),
            exemplars: self.list(1, Dice::exemplar),
            flags: self.byte().into(),
            min: self.some(Dice::double),
            max: self.some(Dice::double),
        }
    }
    fn buckets(&mut self) -> Buckets {
        Buckets { offset: self.number() as i32, bucket_counts: self.list(4, Dice::number) }
    }
    fn exponential_point(&mut self) -> ExponentialHistogramDataPoint {
        ExponentialHistogramDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.number(),
            time_unix_nano: self.number(),
            count: self.number(),
            sum: self.some(Dice::double),
            scale: self.number() as i32,
            zero_count: self.number(),
            positive: self.some(Dice::buckets),
            negative: self.some(Dice::buckets),
            flags: self.byte().into(),
            exemplars: self.list(1, Dice::exemplar),
            min: self.some(Dice::double),
            max: self.some(Dice::double),
            zero_threshold: self.double(),
        }
    }
    fn summary_point(&mut self) -> SummaryDataPoint {
        SummaryDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.number(),
            time_unix_nano: self.number(),
            count: self.number(),
            sum: self.double(),
            quantile_values: self
                .list(2, |dice| ValueAtQuantile { quantile: dice.double(), value: dice.double() }),
            flags: self.byte().into(),
        }
    }
    fn metric(&mut self) -> Metric {
        let aggregation_temporality = self.below(3).into();
        let data = match self.below(6) {
            0 => Some(Data::Gauge(Gauge { data_points: self.list(3, Dice::number_point) })),
            1 => Some(Data::Sum(Sum {
                data_points: self.list(3, Dice::number_point),
                aggregation_temporality,
                is_monotonic: self.below(2) > 0,
            })),
            2 => Some(Data::Histogram(Histogram {
                data_points: self.list(3, Dice::histogram_point),
                aggregation_temporality,
            })),
            3 => Some(Data::ExponentialHistogram(ExponentialHistogram {
                data_points: self.list(3, Dice::exponential_point),
                aggregation_temporality,
            })),
            4 => Some(Data::Summary(Summary { data_points: self.list(3, Dice::summary_point) })),
            _ => None,
        };
        Metric {
            name: self.text(),
            description: self.text(),
            unit: self.text(),
            metadata: self.attributes(),
            data,
        }
    }

    /// A request of this signal as `prost` writes it.
    pub(super) fn request(&mut self, signal: Signal) -> Decoded {
        match signal {
            Signal::Logs => Decoded::Logs(ExportLogsServiceRequest {
                resource_logs: self.list(3, |dice| ResourceLogs {
                    resource: dice.resource(),
                    scope_logs: dice.list(2, |dice| ScopeLogs {
                        scope: dice.scope(),
                        log_records: dice.list(4, Dice::log),
                        schema_url: dice.text(),
                    }),
                    schema_url: dice.text(),
                }),
            }),
            Signal::Traces => Decoded::Traces(ExportTraceServiceRequest {
                resource_spans: self.list(3, |dice| ResourceSpans {
                    resource: dice.resource(),
                    scope_spans: dice.list(2, |dice| ScopeSpans {
                        scope: dice.scope(),
                        spans: dice.list(4, Dice::span),
                        schema_url: dice.text(),
                    }),
                    schema_url: dice.text(),
                }),
            }),
            Signal::Metrics => Decoded::Metrics(ExportMetricsServiceRequest {
                resource_metrics: self.list(3, |dice| ResourceMetrics {
                    resource: dice.resource(),
                    scope_metrics: dice.list(2, |dice| ScopeMetrics {
                        scope: dice.scope(),
                        metrics: dice.list(3, Dice::metric),
                        schema_url: dice.text(),
                    }),
                    schema_url: dice.text(),
                }),
            }),
        }
    }
}

/// What `prost` reads.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decoded {
    Logs(ExportLogsServiceRequest),
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
}

impl Decoded {
    pub(super) fn decode(signal: Signal, bytes: &[u8]) -> Result<Decoded, DecodeError> {
        Ok(match signal {
            Signal::Logs => Decoded::Logs(Message::decode(bytes)?),
            Signal::Traces => Decoded::Traces(Message::decode(bytes)?),
            Signal::Metrics => Decoded::Metrics(Message::decode(bytes)?),
        })
    }
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Decoded::Logs(request) => request.encode_to_vec(),
            Decoded::Traces(request) => request.encode_to_vec(),
            Decoded::Metrics(request) => request.encode_to_vec(),
        }
    }
    /// The number of resources.
    pub(super) fn resources(&self) -> usize {
        match self {
            Decoded::Logs(request) => request.resource_logs.len(),
            Decoded::Traces(request) => request.resource_spans.len(),
            Decoded::Metrics(request) => request.resource_metrics.len(),
        }
    }
    /// Each resource, whether it came or not.
    pub(super) fn resource(&mut self, at: usize) -> &mut Option<Resource> {
        match self {
            Decoded::Logs(request) => &mut request.resource_logs[at].resource,
            Decoded::Traces(request) => &mut request.resource_spans[at].resource,
            Decoded::Metrics(request) => &mut request.resource_metrics[at].resource,
        }
    }
    /// The number of log records, spans or data points.
    pub(super) fn records(&self) -> usize {
        let mut records = 0;
        self.clone().keep(|_, _| {
            records += 1;
            true
        });
        records
    }

    /// Keeps the records that `keeps` wants, which may also change their attributes; envelopes that lose their last
    /// record go.
    pub(super) fn keep(&mut self, mut keeps: impl FnMut(u32, &mut Vec<KeyValue>) -> bool) {
        let mut at = 0;
        let mut keeps = |attributes: &mut Vec<KeyValue>| {
            at += 1;
            keeps(at - 1, attributes)
        };
        match self {
            Decoded::Logs(request) => prune(&mut request.resource_logs, |resource| {
                prune(&mut resource.scope_logs, |scope| {
                    prune(&mut scope.log_records, |record| single(keeps(&mut record.attributes)))
                })
            }),
            Decoded::Traces(request) => prune(&mut request.resource_spans, |resource| {
                prune(&mut resource.scope_spans, |scope| {
                    prune(&mut scope.spans, |span| single(keeps(&mut span.attributes)))
                })
            }),
            Decoded::Metrics(request) => prune(&mut request.resource_metrics, |resource| {
                prune(&mut resource.scope_metrics, |scope| {
                    prune(&mut scope.metrics, |metric| keep_points(metric, &mut keeps))
                })
            }),
        };
    }

    /// Removes the envelopes that hold no record.
    pub(super) fn leave_out_empty(&mut self) {
        match self {
            Decoded::Logs(request) => request.resource_logs.retain_mut(|resource| {
                resource.scope_logs.retain(|scope| !scope.log_records.is_empty());
                !resource.scope_logs.is_empty()
            }),
            Decoded::Traces(request) => request.resource_spans.retain_mut(|resource| {
                resource.scope_spans.retain(|scope| !scope.spans.is_empty());
                !resource.scope_spans.is_empty()
            }),
            Decoded::Metrics(request) => request.resource_metrics.retain_mut(|resource| {
                resource.scope_metrics.retain_mut(|scope| {
                    scope.metrics.retain_mut(|metric| keep_points(metric, &mut |_| true).0 > 0);
                    !scope.metrics.is_empty()
                });
                !resource.scope_metrics.is_empty()
            }),
        }
    }
}

/// How many records there were and how many are left.
type Counts = (u32, u32);

fn single(is_kept: bool) -> Counts {
    (1, u32::from(is_kept))
}

/// Removes the children that had records and lost them all.
fn prune<T>(children: &mut Vec<T>, mut one: impl FnMut(&mut T) -> Counts) -> Counts {
    let mut sum = (0, 0);
    children.retain_mut(|child| {
        let (before, after) = one(child);
        sum = (sum.0 + before, sum.1 + after);
        before == 0 || after > 0
    });
    sum
}

fn keep_points(metric: &mut Metric, keeps: &mut impl FnMut(&mut Vec<KeyValue>) -> bool) -> Counts {
    match &mut metric.data {
        Some(Data::Gauge(data)) => prune(&mut data.data_points, |point| single(keeps(&mut point.attributes))),
        Some(Data::Sum(data)) => prune(&mut data.data_points, |point| single(keeps(&mut point.attributes))),
        Some(Data::Histogram(data)) => {
            prune(&mut data.data_points, |point| single(keeps(&mut point.attributes)))
        }
        Some(Data::ExponentialHistogram(data)) => {
            prune(&mut data.data_points, |point| single(keeps(&mut point.attributes)))
        }
        Some(Data::Summary(data)) => {
            prune(&mut data.data_points, |point| single(keeps(&mut point.attributes)))
        }
        None => (0, 0),
    }
}

/// The same request written another way: unknown fields at all levels, keys and lengths in more bytes than they
/// need, packed numbers unpacked.
pub(super) fn rewritten(signal: Signal, bytes: &[u8], dice: &mut Dice<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    rewrite(schema::request(signal), bytes, dice, &mut out);
    out
}

fn rewrite(kind: schema::Kind, bytes: &[u8], dice: &mut Dice<'_>, out: &mut Vec<u8>) {
    for field in fields(bytes, 0, bytes.len()) {
        if dice.below(6) == 5 {
            unknown(dice, out, 0);
        }
        let content = &bytes[field.content..field.end];
        match schema::look(kind, field.number.into(), field.wire) {
            Ok(op) if op >= schema::MESSAGE => {
                let mut inner = Vec::new();
                rewrite(op - schema::MESSAGE, content, dice, &mut inner);
                put(&field, &inner, dice, out);
            }
            Ok(schema::FIXED64S) if dice.below(2) == 1 => {
                for number in content.chunks(8) {
                    long_varint(u64::from(field.number << 3 | 1), dice, out);
                    out.extend_from_slice(number);
                }
            }
            _ => put(&field, content, dice, out),
        }
    }
    if dice.below(6) == 5 {
        unknown(dice, out, 0);
    }
}

fn put(field: &Field, content: &[u8], dice: &mut Dice<'_>, out: &mut Vec<u8>) {
    long_varint(u64::from(field.number << 3 | u32::from(field.wire)), dice, out);
    if field.wire == LENGTH {
        long_varint(content.len() as u64, dice, out);
    }
    out.extend_from_slice(content);
}

/// A varint, now and then in more bytes than it needs.
fn long_varint(value: u64, dice: &mut Dice<'_>, out: &mut Vec<u8>) {
    put_varint(out, value);
    if value < 1 << 20 && dice.below(12) == 11 {
        let last = out.len() - 1;
        out[last] |= 0x80;
        out.extend_from_slice(&[0x80, 0x80, 0x00][usize::from(dice.below(3))..]);
    }
}

/// A field that OTLP does not know.
fn unknown(dice: &mut Dice<'_>, out: &mut Vec<u8>, depth: u8) {
    let number = 1000 + u64::from(dice.below(3));
    match dice.below(if depth < 3 { 5 } else { 4 }) {
        0 => {
            long_varint(number << 3, dice, out);
            put_varint(out, dice.number());
        }
        1 => {
            long_varint(number << 3 | 1, dice, out);
            out.extend_from_slice(&[7; 8]);
        }
        2 => {
            long_varint(number << 3 | 5, dice, out);
            out.extend_from_slice(&[9; 4]);
        }
        3 => {
            long_varint(number << 3 | 2, dice, out);
            let content = dice.bytes();
            put_varint(out, content.len() as u64);
            out.extend_from_slice(&content);
        }
        _ => {
            long_varint(number << 3 | 3, dice, out);
            for _ in 0..dice.below(3) {
                unknown(dice, out, depth + 1);
            }
            long_varint(number << 3 | 4, dice, out);
        }
    }
}

/// A KeyValue with a text, in wire form.
pub(super) fn kv(key: &str, text: &str) -> Vec<u8> {
    let value = Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) });
    KeyValue { key: key.to_owned(), value, key_strindex: 0 }.encode_to_vec()
}

/// The text attributes of each resource of a logs request, one line each; `-` where there is no Resource.
pub(super) fn resource_attributes(bytes: &[u8]) -> Vec<String> {
    let request = ExportLogsServiceRequest::decode(bytes).unwrap();
    let text = |attribute: &KeyValue| match &attribute.value {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => format!("{}={text}", attribute.key),
        other => format!("{}: {other:?}", attribute.key),
    };
    let line = |resource: &Resource| resource.attributes.iter().map(text).collect::<Vec<_>>().join(" ");
    let resources = request.resource_logs.iter();
    resources.map(|one| one.resource.as_ref().map_or_else(|| "-".to_owned(), line)).collect()
}
