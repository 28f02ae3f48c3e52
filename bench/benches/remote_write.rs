//! What does a sample cost on its way from OTLP to remote-write, beside prost's decode and the same translation on structs?

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{
    Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use std::hint::black_box;
use std::sync::Arc;
use trommel::batch::{Entry, ProjectId, Signal, Stream, TenantId};
use trommel::sinks::remote_write::{Settings, write_requests};

/// The floor; the sink's own tests compare with it.
#[path = "../../host/src/sinks/remote_write/tests/reference.rs"]
#[expect(unreachable_pub, reason = "the file is shared with the sink's tests")]
mod reference;

const METRICS: usize = 20;
const POINTS: usize = 25;
const BOUNDS: [f64; 15] =
    [0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0];

fn attribute(key: &str, value: String) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(Value::StringValue(value)) }),
        ..Default::default()
    }
}

fn attributes(at: usize) -> Vec<KeyValue> {
    vec![
        attribute("http.request.method", ["GET", "POST", "PUT"][at % 3].into()),
        attribute("http.route", format!("/api/v1/orders/{at}/items")),
        attribute("http.response.status_code", format!("{}", 200 + at % 5)),
        attribute("network.protocol.version", "1.1".into()),
    ]
}

const TIME: u64 = 1_700_000_000_000_000_000;

fn sum() -> Data {
    let point = |at| NumberDataPoint {
        attributes: attributes(at),
        start_time_unix_nano: TIME - 1,
        time_unix_nano: TIME,
        value: Some(number_data_point::Value::AsInt(at as i64)),
        ..Default::default()
    };
    let data_points = (0..POINTS).map(point).collect();
    Data::Sum(Sum { data_points, aggregation_temporality: 2, is_monotonic: true })
}

fn histogram() -> Data {
    let point = |at| HistogramDataPoint {
        attributes: attributes(at),
        start_time_unix_nano: TIME - 1,
        time_unix_nano: TIME,
        count: 16,
        sum: Some(99.5),
        bucket_counts: vec![1; 16],
        explicit_bounds: BOUNDS.into(),
        ..Default::default()
    };
    let data_points = (0..POINTS).map(point).collect();
    Data::Histogram(Histogram { data_points, aggregation_temporality: 2 })
}

fn entry(data: fn() -> Data) -> Arc<Entry> {
    let metric = |at| Metric {
        name: format!("http.server.work.{at}"),
        unit: "ms".into(),
        data: Some(data()),
        ..Default::default()
    };
    let scope_metrics =
        vec![ScopeMetrics { metrics: (0..METRICS).map(metric).collect(), ..Default::default() }];
    let resource = [
        ("service.name", "orders"),
        ("service.namespace", "shop"),
        ("service.instance.id", "627cc493-f310-47de-96bd-71410b7dec09"),
        ("tenant.id", "acme"),
        ("project.id", "web"),
        ("host.name", "node-7"),
    ];
    let attributes = resource.map(|(key, value)| attribute(key, value.into())).into();
    let resource = Some(Resource { attributes, ..Default::default() });
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }],
    };
    Arc::new(Entry {
        stream: Stream { tenant: TenantId::local(), project: ProjectId::default_project() },
        signal: Signal::Metrics,
        first: 1,
        records: (METRICS * POINTS) as u32,
        time_ms: TIME / 1_000_000,
        node: [0; 4],
        bytes: request.encode_to_vec().into(),
    })
}

fn translated(criterion: &mut Criterion) {
    let settings = Settings {
        endpoint: String::new(),
        headers: [].into(),
        tls: Default::default(),
        is_scope_labelled: false,
        promote: vec!["tenant.id".into(), "project.id".into()],
    };
    let options =
        reference::Options { is_scope_labelled: false, promote: &settings.promote, committed_ms: 0 };
    for (name, data) in [("sums", sum as fn() -> Data), ("histograms", histogram)] {
        let entry = entry(data);
        let entries = [entry.clone()];
        let plain = || write_requests(&settings, &entries).remove(0);
        let floor = || reference::translate(&entry.bytes, &options).request.encode_to_vec();
        let expected = reference::translate(&entry.bytes, &options).request;
        let written = reference::WriteRequest::decode(&plain()[..]).expect("a WriteRequest");
        assert!(written == expected, "both write the same");
        let samples = expected.timeseries.len();
        let pack = |bytes: Vec<u8>| snap::raw::Encoder::new().compress_vec(&bytes).expect("small");
        let mut group = criterion.benchmark_group(format!("500 {name}, {samples} samples"));
        group.throughput(Throughput::Elements(samples as u64));
        group.bench_function("from the bytes", |bencher| bencher.iter(|| black_box(plain())));
        group.bench_function("prost and structs", |bencher| bencher.iter(|| black_box(floor())));
        group.bench_function("from the bytes, and snappy", |bencher| {
            bencher.iter(|| black_box(pack(plain())))
        });
        group.bench_function("prost and structs, and snappy", |bencher| {
            bencher.iter(|| black_box(pack(floor())));
        });
        group.finish();
    }
}

criterion_group!(benches, translated);
criterion_main!(benches);
