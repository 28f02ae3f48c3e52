//! A trace through the whole path into a real Jaeger v2, found by its id through the query API.

use super::servers::Jaeger;
use crate::world::{World, attribute, eventually, with_token};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, trace_service_client::TraceServiceClient,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use serde_json::Value;

fn trace(id: u8) -> ExportTraceServiceRequest {
    let root = Span {
        trace_id: vec![id; 16],
        span_id: vec![1; 8],
        name: "POST /orders of ada@example.com".into(),
        kind: span::SpanKind::Server as i32,
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_250_000_000,
        attributes: vec![attribute("http.route", "/orders"), attribute("customer", "ada@example.com")],
        status: Some(Status { code: 2, message: "declined".into() }),
        ..Default::default()
    };
    let child = Span {
        trace_id: vec![id; 16],
        span_id: vec![2; 8],
        parent_span_id: vec![1; 8],
        name: "charge".into(),
        kind: span::SpanKind::Client as i32,
        start_time_unix_nano: 1_700_000_000_100_000_000,
        end_time_unix_nano: 1_700_000_000_200_000_000,
        events: vec![span::Event {
            time_unix_nano: 1_700_000_000_150_000_000,
            name: "attempt".into(),
            attributes: vec![attribute("card", "4111 1111 1111 1111"), attribute("number", "2")],
            ..Default::default()
        }],
        links: vec![span::Link {
            trace_id: vec![9; 16],
            span_id: vec![9; 8],
            attributes: vec![attribute("why", "retry")],
            ..Default::default()
        }],
        ..Default::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![attribute("service.name", "orders"), attribute("project.id", "shop")],
                ..Default::default()
            }),
            scope_spans: vec![ScopeSpans { spans: vec![root, child], ..Default::default() }],
            ..Default::default()
        }],
    }
}

fn attributes(of: &Value) -> Vec<(String, String)> {
    let list = of["attributes"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|entry| {
            (
                entry["key"].as_str().unwrap().to_owned(),
                entry["value"]["stringValue"].as_str().unwrap_or_default().to_owned(),
            )
        })
        .collect()
}

async fn check(sink: &str, id: u8, jaeger: &Jaeger) {
    let world = World::start(&format!(
        r#"
receivers: {{ otlp: {{ grpc: {{ listen: 127.0.0.1:0 }} }} }}
console: {{ listen: 127.0.0.1:0 }}
plugins:
  redact: {{ module: "builtin:redact", guard: true, config: {{ patterns: [email, card] }} }}
  enrich: {{ module: "builtin:enrich", config: {{ rules: [{{ set: {{ region: eu-1 }} }}] }} }}
pipelines: [{{ name: traces, when: {{ signal: traces }}, plugins: [redact, enrich], sinks: [jaeger] }}]
sinks: {{ jaeger: {sink} }}
"#
    ))
    .await;
    let mut client = TraceServiceClient::connect(format!("http://{}", world.grpc())).await.unwrap();
    client.export(with_token(trace(id), None)).await.unwrap();
    let hex: String = [id; 16].iter().map(|byte| format!("{byte:02x}")).collect();
    let url = jaeger.query(&format!("/api/v3/traces/{hex}"));
    eventually("the trace is in Jaeger", || async {
        world.http.get(&url).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let answer: Value = world.http.get(&url).send().await.unwrap().json().await.unwrap();
    let whole = answer.to_string();
    assert!(!whole.contains("ada@example.com") && !whole.contains("4111"), "{whole}");

    let resources = answer["result"]["resourceSpans"].as_array().unwrap();
    let spans: Vec<&Value> = resources
        .iter()
        .flat_map(|resource| resource["scopeSpans"].as_array().unwrap())
        .flat_map(|scope| scope["spans"].as_array().unwrap())
        .collect();
    assert_eq!(spans.len(), 2, "{whole}");
    let resource = attributes(&resources[0]["resource"]);
    for expected in
        [("service.name", "orders"), ("tenant.id", "local"), ("project.id", "shop"), ("region", "eu-1")]
    {
        assert!(resource.contains(&(expected.0.into(), expected.1.into())), "{expected:?} in {resource:?}");
    }
    let root = spans
        .iter()
        .find(|span| span["name"].as_str().unwrap().starts_with("POST /orders of "))
        .expect("the root");
    assert!(attributes(root).contains(&("http.route".into(), "/orders".into())));
    assert_eq!(root["status"]["message"], "declined");
    let child = spans.iter().find(|span| span["name"] == "charge").expect("the child");
    assert_eq!(child["events"][0]["name"], "attempt");
    assert!(attributes(&child["events"][0]).contains(&("number".into(), "2".into())));
    assert_eq!(child["links"].as_array().unwrap().len(), 1);
    assert!(attributes(&child["links"][0]).contains(&("why".into(), "retry".into())));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_whole_in_jaeger_over_grpc_and_http_with_each_compression() {
    let jaeger = Jaeger::start().await;
    let mut id = 0x20;
    for compression in ["none", "gzip", "zstd"] {
        for (protocol, port) in [("grpc", jaeger.otlp_grpc), ("http", jaeger.otlp_http)] {
            id += 1;
            check(&format!("{{ type: otlp, protocol: {protocol}, compression: {compression}, endpoint: \"http://127.0.0.1:{port}\" }}"), id, &jaeger).await;
        }
    }
}
