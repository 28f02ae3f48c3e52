//! Metrics for tests.

use crate::batch::{Entry, ProjectId, Request, Signal, Stream, TenantId};
use crate::sinks::remote_write::Settings;
use crate::sinks::{Delivery, Sending};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use std::sync::Arc;

pub(super) const SECOND: u64 = 1_700_000_000;

pub(super) fn settings(endpoint: String) -> Settings {
    Settings {
        endpoint,
        headers: [].into(),
        tls: Default::default(),
        is_scope_labelled: false,
        promote: vec!["tenant.id".into(), "project.id".into()],
    }
}

pub(super) fn text(text: &str) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(text.into())) }
}

pub(super) fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.into(), value: Some(text(value)), ..Default::default() }
}

pub(super) fn attributes(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
    pairs.iter().map(|(key, value)| attribute(key, value)).collect()
}

/// A point at so many seconds after [`SECOND`].
pub(super) fn point(pairs: &[(&str, &str)], second: u64, value: f64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(pairs),
        time_unix_nano: (SECOND + second) * 1_000_000_000,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..Default::default()
    }
}

pub(super) fn gauge(name: &str, points: Vec<NumberDataPoint>) -> Metric {
    metric(name, "", Data::Gauge(Gauge { data_points: points }))
}

pub(super) fn metric(name: &str, unit: &str, data: Data) -> Metric {
    Metric { name: name.into(), unit: unit.into(), data: Some(data), ..Default::default() }
}

/// A request of one resource.
pub(super) fn request(resource: &[(&str, &str)], metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
    let resource = Some(Resource { attributes: attributes(resource), ..Default::default() });
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }],
    }
}

/// An entry of the tenant `acme` whose first record has this number.
pub(super) fn entry(first: u64, request: &ExportMetricsServiceRequest) -> Arc<Entry> {
    entry_of("acme", first, request.encode_to_vec())
}

pub(super) fn entry_of(tenant: &str, first: u64, bytes: Vec<u8>) -> Arc<Entry> {
    let stream = Stream { tenant: TenantId::new(tenant).unwrap(), project: ProjectId::default_project() };
    let checked = Request::check(Signal::Metrics, bytes.into()).expect("OTLP");
    Arc::new(Entry {
        stream,
        signal: Signal::Metrics,
        first,
        records: checked.resources.iter().map(|resource| resource.records).sum(),
        time_ms: SECOND * 1000 + 123,
        node: [1; 4],
        bytes: checked.bytes,
    })
}

/// `count` series named by their number, a sample each.
pub(super) fn series(first: u64, count: usize, second: u64) -> Arc<Entry> {
    let points = (0..count).map(|at| point(&[("series", &at.to_string())], second, at as f64)).collect();
    entry(first, &request(&[], vec![gauge("g", points)]))
}

pub(super) fn delivery(entries: &[Arc<Entry>], is_resend: bool) -> Delivery {
    let entries = entries.iter().map(|entry| Sending { entry: entry.clone(), is_resend }).collect();
    Delivery { signal: Signal::Metrics, entries }
}
