//! Every function of the WIT on every signal: the shapes that the manual promises.

use super::*;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "lib".into(),
        attributes: vec![attribute("s", "v")],
        ..Default::default()
    })
}

fn traces() -> Vec<u8> {
    let event =
        span::Event { name: "retry".into(), attributes: vec![attribute("e", "a@b.c")], ..Default::default() };
    let link = span::Link { attributes: vec![attribute("l", "v")], ..Default::default() };
    let one = Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: "GET /a@b.c".into(),
        trace_state: "x=y".into(),
        attributes: vec![attribute("http.route", "/items")],
        events: vec![event],
        links: vec![link],
        status: Some(Status { message: "no".into(), code: 2 }),
        ..Default::default()
    };
    let scope = ScopeSpans { scope: scope(), spans: vec![one.clone(), one], ..Default::default() };
    let spans =
        ResourceSpans { resource: resource(&[("r", "v")]), scope_spans: vec![scope], ..Default::default() };
    ExportTraceServiceRequest { resource_spans: vec![spans] }.encode_to_vec()
}

fn metrics() -> Vec<u8> {
    let exemplar = Exemplar { filtered_attributes: vec![attribute("x", "a@b.c")], ..Default::default() };
    let point = NumberDataPoint {
        attributes: vec![attribute("p", "v")],
        exemplars: vec![exemplar],
        value: Some(number_data_point::Value::AsDouble(1.5)),
        ..Default::default()
    };
    let metric = Metric {
        name: "requests".into(),
        description: "mail a@b.c".into(),
        metadata: vec![attribute("m", "v")],
        data: Some(metric::Data::Gauge(Gauge { data_points: vec![point.clone(), point] })),
        ..Default::default()
    };
    let scope = ScopeMetrics { scope: scope(), metrics: vec![metric], ..Default::default() };
    let metrics = ResourceMetrics {
        resource: resource(&[("r", "v")]),
        scope_metrics: vec![scope],
        ..Default::default()
    };
    ExportMetricsServiceRequest { resource_metrics: vec![metrics] }.encode_to_vec()
}

#[test]
fn every_function_works_on_every_signal() {
    let config = r#"{"mode": "everything", "pattern": "[a-z]+@[a-z.]+"}"#;
    let plugin = sandbox().load_bytes(&settings(config), guest()).unwrap();
    let logs = logs(&[("r", "v")], &["mail a@b.c".into(), "none".into()]);
    for (signal, request) in [(Signal::Logs, logs), (Signal::Traces, traces()), (Signal::Metrics, metrics())]
    {
        let batch = batch_of("acme", signal, request);
        let called = plugin.process(only_piece(&batch), None, 0);
        assert_eq!(called.result, Ok(Effects::default()), "{signal:?}");
        // The edits make a request that can be read again, and say what was asked.
        let keys = crate::batch::IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() };
        let written = batch.written(vec![called.piece], &keys);
        let routes = written.routes.unwrap();
        assert_eq!(routes[0].as_deref(), Some("somewhere"));
        let request = Request::check(signal, written.batch.bytes).unwrap();
        let bytes = String::from_utf8_lossy(&request.bytes).into_owned();
        assert!(!bytes.contains("a@b.c"), "{signal:?}");
        assert!(bytes.contains("copy"), "{signal:?}");
    }
}
