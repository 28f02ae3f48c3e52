//! Protocol in, protocol out: all three signals, both protocols, through the whole path.

use crate::world::{World, logs, record, text, with_token};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, trace_service_client::TraceServiceClient,
};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tonic::codec::CompressionEncoding::{Gzip, Zstd};

const ALL: &str = r#"
receivers: { otlp: { grpc: { listen: 127.0.0.1:0 }, http: { listen: 127.0.0.1:0 } } }
console: { listen: 127.0.0.1:0 }
plugins: { redact: { module: "builtin:redact", guard: true } }
pipelines:
  - { name: logs, when: { signal: logs }, plugins: [redact], sinks: [streams] }
  - { name: rest, plugins: [redact], sinks: [nowhere] }
sinks: { streams: { type: streams }, nowhere: { type: discard } }
"#;

pub fn spans(count: usize) -> ExportTraceServiceRequest {
    let span = |number: usize| Span {
        trace_id: vec![7; 16],
        span_id: (number as u64 + 1).to_be_bytes().to_vec(),
        name: format!("span {number}"),
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_100_000_000,
        ..Default::default()
    };
    let scope_spans = vec![ScopeSpans { spans: (0..count).map(span).collect(), ..Default::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] }
}

pub fn points(count: usize) -> ExportMetricsServiceRequest {
    let point = |number: usize| NumberDataPoint {
        time_unix_nano: 1_700_000_000_000_000_000 + number as u64,
        value: Some(number_data_point::Value::AsDouble(number as f64)),
        ..Default::default()
    };
    let data = Some(metric::Data::Gauge(Gauge { data_points: (0..count).map(point).collect() }));
    let metrics = vec![Metric { name: "queue.length".into(), data, ..Default::default() }];
    let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { scope_metrics, ..Default::default() }],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_signals_over_grpc_plain_gzip_and_zstd() {
    let world = World::start(ALL).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", world.grpc()))
        .unwrap()
        .connect()
        .await
        .unwrap();
    for compression in [None, Some(Gzip), Some(Zstd)] {
        let mut traces = TraceServiceClient::new(channel.clone());
        let mut metrics = MetricsServiceClient::new(channel.clone());
        if let Some(compression) = compression {
            traces = traces.send_compressed(compression);
            metrics = metrics.send_compressed(compression);
        }
        assert_eq!(
            traces.export(with_token(spans(5), None)).await.unwrap().into_inner().partial_success,
            None
        );
        assert_eq!(
            metrics.export(with_token(points(7), None)).await.unwrap().into_inner().partial_success,
            None
        );
    }
    world.send(None, logs(&[], &["x"])).await.unwrap();
    world.history_of(None, "local", "default", 1).await;
    crate::world::eventually("15 spans and 21 points delivered", || async {
        let metrics = world.metrics().await;
        let delivered = |signal: &str| {
            let is_line = |line: &&str| {
                line.contains("delivered")
                    && line.contains("sink=\"nowhere\"")
                    && line.contains(&format!("signal=\"{signal}\""))
            };
            metrics.lines().find(is_line).and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        };
        delivered("traces") == Some(15.0) && delivered("metrics") == Some(21.0)
    })
    .await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_takes_protobuf_and_json_and_answers_in_kind() {
    let world = World::start(ALL).await;
    let url = format!("http://{}/v1/logs", world.otlp_http());
    let post = |kind: &str, body: Vec<u8>| {
        world.http.post(&url).header("content-type", kind.to_owned()).body(body).send()
    };
    let answer = post("application/x-protobuf", logs(&[], &["proto"]).encode_to_vec()).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()),
        (200, "application/x-protobuf")
    );
    let json = serde_json::to_vec(&logs(&[], &["json"])).unwrap();
    let answer = post("application/json", json).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()),
        (200, "application/json")
    );
    let empty = post("application/x-protobuf", Vec::new()).await.unwrap();
    assert_eq!(empty.status(), 200, "an empty request is a success");
    let records = world.history_of(None, "local", "default", 2).await;
    assert_eq!((&records[0]["body"], &records[1]["body"]), (&"proto".into(), &"json".into()));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_values_are_redacted_too() {
    use opentelemetry_proto::tonic::common::v1::{
        AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value,
    };
    let world = World::start(ALL).await;
    let mut request = logs(&[], &[]);
    let list = AnyValue {
        value: Some(Value::ArrayValue(ArrayValue { values: vec![text("ada@example.com"), text("fine")] })),
    };
    let map = KeyValueList {
        values: vec![KeyValue { key: "inner".into(), value: Some(list), ..Default::default() }],
    };
    let mut nested = record("x");
    nested.body = Some(AnyValue { value: Some(Value::KvlistValue(map)) });
    request.resource_logs[0].scope_logs[0].log_records.push(nested);
    world.send(None, request).await.unwrap();
    let records = world.history_of(None, "local", "default", 1).await;
    assert_eq!(records[0]["body"]["inner"][1], "fine");
    assert!(!records[0].to_string().contains("ada@example.com"), "{}", records[0]);
    world.end().await;
}
