//! OpenTelemetry's own SDKs as senders: what they meant is what stands in the stream.

use super::{installed, sources};
use crate::identity::gateway;
use crate::world::{World, eventually};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

/// Keeps what an OTLP/HTTP sink sends it.
struct Capture {
    address: SocketAddr,
    bodies: Arc<Mutex<Vec<(String, bytes::Bytes)>>>,
    _serving: tokio::task::JoinSet<()>,
}

impl Capture {
    async fn start() -> Capture {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bodies: Arc<Mutex<Vec<(String, bytes::Bytes)>>> = Arc::default();
        let kept = bodies.clone();
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let kept = kept.clone();
                let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let kept = kept.clone();
                    async move {
                        let path = request.uri().path().to_owned();
                        let body = request.into_body().collect().await?.to_bytes();
                        kept.lock().unwrap().push((path, body));
                        let answer =
                            http::Response::builder().header("content-type", "application/x-protobuf");
                        Ok::<_, hyper::Error>(answer.body(Full::<bytes::Bytes>::default()).unwrap())
                    }
                });
                connections.spawn(async move {
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(socket), answer).await;
                });
            }
        });
        Capture { address, bodies, _serving: serving }
    }

    fn spans(&self) -> Vec<(Resource, Span)> {
        let bodies = self.bodies.lock().unwrap();
        let requests = bodies.iter().filter(|(path, _)| path == "/v1/traces");
        let requests = requests.map(|(_, body)| ExportTraceServiceRequest::decode(body.clone()).unwrap());
        let resources = requests.flat_map(|request| request.resource_spans);
        let spans = |of: opentelemetry_proto::tonic::trace::v1::ResourceSpans| {
            let resource = of.resource.unwrap_or_default();
            of.scope_spans.into_iter().flat_map(|scope| scope.spans).map(move |span| (resource.clone(), span))
        };
        resources.flat_map(spans).collect()
    }

    fn metrics(&self) -> Vec<(Resource, Metric)> {
        let bodies = self.bodies.lock().unwrap();
        let requests = bodies.iter().filter(|(path, _)| path == "/v1/metrics");
        let requests = requests.map(|(_, body)| ExportMetricsServiceRequest::decode(body.clone()).unwrap());
        let resources = requests.flat_map(|request| request.resource_metrics);
        let metrics = |of: opentelemetry_proto::tonic::metrics::v1::ResourceMetrics| {
            let resource = of.resource.unwrap_or_default();
            of.scope_metrics
                .into_iter()
                .flat_map(|scope| scope.metrics)
                .map(move |metric| (resource.clone(), metric))
        };
        resources.flat_map(metrics).collect()
    }
}

/// The gateway of the identity tests with all three signals: logs to streams, the others to the capture.
fn configuration(capture: &Capture) -> String {
    let sinks = format!(
        "sinks: {{ streams: {{ type: streams }}, rest: {{ type: otlp, protocol: http, compression: none, endpoint: \"http://{}\" }} }}",
        capture.address
    );
    gateway()
        .replace(
            "sinks: [streams] }]",
            "sinks: [streams] }, { name: rest, plugins: [redact], sinks: [rest] }]",
        )
        .replace("sinks: { streams: { type: streams } }", &sinks)
        .replace("guard: true }", "guard: true, config: { patterns: [email] } }")
}

struct Sender {
    service: &'static str,
    team: &'static str,
    project: String,
    command: Command,
}

fn python(protocol: &str, world: &World) -> Sender {
    let endpoint = if protocol == "grpc" {
        format!("http://{}", world.grpc())
    } else {
        format!("http://{}", world.otlp_http())
    };
    let project = format!("python-{protocol}");
    let mut command = Command::new(installed("TROMMEL_TEST_PYTHON"));
    command.arg(sources().join("clients.py")).args([protocol, &endpoint, "acme-token", &project]);
    Sender { service: "python-client", team: "blue", project, command }
}

fn node(protocol: &str, world: &World) -> Sender {
    let endpoint = if protocol == "grpc" {
        format!("http://{}", world.grpc())
    } else {
        format!("http://{}", world.otlp_http())
    };
    let project = format!("node-{protocol}");
    let mut command = Command::new("node");
    command.env("NODE_PATH", installed("TROMMEL_TEST_NODE"));
    command.arg(sources().join("clients.js")).args([protocol, &endpoint, "acme-token", &project]);
    Sender { service: "node-client", team: "green", project, command }
}

async fn check(world: &World, mut sender: Sender) {
    let output = tokio::task::spawn_blocking(move || {
        (sender.command.output().unwrap(), sender.project, sender.service, sender.team)
    });
    let (output, project, service, team) = output.await.unwrap();
    assert!(output.status.success(), "{project}: {}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let (trace_id, span_id) =
        printed.trim().split_once(' ').expect("the client prints its trace and span id");

    let records = world.history_of(Some("acme-token"), "acme", &project, 21).await;
    for (number, record) in records[..20].iter().enumerate() {
        let body = record["body"].as_str().unwrap();
        assert!(
            body.starts_with(&format!("line {number} of ")) && !body.contains("ada@example.com"),
            "{record}"
        );
        assert_eq!(record["attributes"]["number"], json!(number), "{record}");
        assert_eq!(record["attributes"]["ratio"].as_f64(), Some(number as f64 / 4.0), "{record}");
        assert_eq!(record["attributes"]["even"], json!(number % 2 == 0), "{record}");
        assert_eq!(record["severity_number"], 13, "{record}");
        assert_eq!(record["trace_id"], trace_id, "{record}");
        assert_eq!(record["span_id"], span_id, "{record}");
        assert_eq!(record["resource"]["service.name"], service, "{record}");
        assert_eq!(record["resource"]["team"], team, "{record}");
        assert_eq!(record["resource"]["tenant.id"], "acme", "{record}");
    }
    let last = &records[20];
    assert_eq!(last["severity_number"], 17, "{last}");
    assert!(last.to_string().contains("naïve ünïcode ✓"), "{last}");
    let parts: &Value = if team == "blue" { &last["attributes"]["parts"] } else { &last["body"]["parts"] };
    assert_eq!(parts, &json!(["a", "b"]), "{last}");
}

fn text_of(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes
        .iter()
        .find(|attribute| attribute.key == key)
        .and_then(|attribute| attribute.value.clone());
    match found {
        Some(AnyValue { value: Some(any_value::Value::StringValue(text)) }) => text,
        Some(AnyValue { value: Some(any_value::Value::IntValue(number)) }) => number.to_string(),
        Some(AnyValue { value: Some(any_value::Value::DoubleValue(number)) }) => number.to_string(),
        other => panic!("{key} is {other:?}"),
    }
}

/// Of the client one span with an event, a counter and a histogram of one point each, field by field.
async fn check_spans_and_points(capture: &Capture, project: &str, service: &str) {
    let own = |resource: &Resource| text_of(&resource.attributes, "project.id") == project;
    eventually("the span and both metrics", || async {
        capture.spans().iter().any(|(resource, _)| own(resource))
            && capture.metrics().iter().filter(|(resource, _)| own(resource)).count() == 2
    })
    .await;
    let spans: Vec<_> = capture.spans().into_iter().filter(|(resource, _)| own(resource)).collect();
    assert_eq!(spans.len(), 1);
    let (resource, span) = &spans[0];
    assert_eq!(text_of(&resource.attributes, "service.name"), service);
    assert_eq!(text_of(&resource.attributes, "tenant.id"), "acme");
    assert_eq!((span.name.as_str(), span.trace_id.len(), span.span_id.len()), ("place order", 16, 8));
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano && span.start_time_unix_nano > 0);
    assert_eq!(text_of(&span.attributes, "order.number"), "7");
    assert_eq!(text_of(&span.attributes, "customer"), "[email]");
    assert_eq!((span.events.len(), span.events[0].name.as_str()), (1, "paid"));
    assert_eq!(text_of(&span.events[0].attributes, "amount"), "12.5");

    let metrics: Vec<Metric> = capture
        .metrics()
        .into_iter()
        .filter(|(resource, _)| own(resource))
        .map(|(_, metric)| metric)
        .collect();
    let named = |name: &str| {
        metrics.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("{name} is missing"))
    };
    let counter = named("orders.accepted");
    assert_eq!(counter.unit, "{order}");
    let Some(metric::Data::Sum(sum)) = &counter.data else { panic!("a sum") };
    assert!(sum.is_monotonic);
    assert_eq!(text_of(&sum.data_points[0].attributes, "route"), "/orders");
    let value = match sum.data_points[0].value {
        Some(number_data_point::Value::AsInt(number)) => number as f64,
        Some(number_data_point::Value::AsDouble(number)) => number,
        None => f64::NAN,
    };
    assert_eq!(value, 5.0);
    let histogram = named("order.duration");
    let Some(metric::Data::Histogram(data)) = &histogram.data else { panic!("a histogram") };
    assert_eq!((data.data_points[0].count, data.data_points[0].sum), (1, Some(0.25)));
    assert_eq!(data.data_points[0].bucket_counts.iter().sum::<u64>(), 1);
}

async fn check_client(sender: fn(&str, &World) -> Sender, protocols: &[&str]) {
    let capture = Capture::start().await;
    let world = World::start(&configuration(&capture)).await;
    for protocol in protocols {
        let sender = sender(protocol, &world);
        let (project, service) = (sender.project.clone(), sender.service);
        check(&world, sender).await;
        check_spans_and_points(&capture, &project, service).await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_python_sdk_sends_arrives_field_by_field() {
    check_client(python, &["grpc", "http"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_node_sdk_sends_arrives_field_by_field() {
    check_client(node, &["grpc", "json", "proto"]).await;
}
