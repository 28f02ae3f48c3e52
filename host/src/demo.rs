//! Traffic for `run --demo`: a client like any other, over real OTLP/gRPC.
//!
//! Three tenants with two projects each send logs (with e-mail addresses and card numbers among them), traces and
//! metrics, until told to stop. One service fails for a while, again and again, so that there is an incident to see.
//! Names and numbers are made up; the card numbers are the ones that payment providers
//! publish for tests.

use crate::telemetry::Secret;
use futures_util::future::join_all;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, logs_service_client::LogsServiceClient,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, trace_service_client::TraceServiceClient,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status, span, status::StatusCode,
};
use std::net::SocketAddr;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// A tenant of the demonstration.
#[derive(Clone, Copy, Debug)]
pub struct Tenant {
    pub name: &'static str,
    pub projects: [&'static str; 2],
}

pub const TENANTS: [Tenant; 3] = [
    Tenant { name: "acme", projects: ["shop", "billing"] },
    Tenant { name: "globex", projects: ["web", "worker"] },
    Tenant { name: "initech", projects: ["api", "reports"] },
];

/// How often each project sends.
const EVERY: Duration = Duration::from_millis(500);
/// The service that fails: tenant and project.
pub const FAILING: (&str, &str) = ("acme", "billing");
/// It fails once in so many rounds, which are five minutes: whoever looks later sees it too.
const CYCLE_ROUNDS: u64 = 600;
/// And in these of them, after a minute and for half of one: what is usual must be known before something is not.
const FAILING_ROUNDS: std::ops::Range<u64> = 120..180;

/// From the start of the traffic to the first failure.
pub fn fails_after() -> Duration {
    EVERY * FAILING_ROUNDS.start as u32
}

/// How long it fails.
pub fn fails_for() -> Duration {
    EVERY * (FAILING_ROUNDS.end - FAILING_ROUNDS.start) as u32
}

fn is_failing(tenant: &Tenant, project: &str, round: u64) -> bool {
    (tenant.name, project) == FAILING && FAILING_ROUNDS.contains(&(round % CYCLE_ROUNDS))
}

/// Sends until `stop`. `tokens` are those of [`TENANTS`], in order. A collector that is busy is asked again next time.
pub async fn send(to: SocketAddr, tokens: [Secret; 3], stop: CancellationToken) -> anyhow::Result<()> {
    let endpoint = Endpoint::from_shared(format!("http://{to}"))?
        .timeout(Duration::from_secs(5))
        .connect_timeout(Duration::from_secs(5));
    let channel = endpoint.connect_lazy();
    let mut ticks = tokio::time::interval(EVERY);
    for round in 0u64.. {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        // At once: one that waits for its answer holds back no other, and the round is over in time.
        let projects = TENANTS.iter().zip(&tokens).flat_map(|(tenant, token)| {
            tenant.projects.map(|project| send_round(&channel, tenant, project, token, round))
        });
        join_all(projects).await;
    }
    Ok(())
}

async fn send_round(channel: &Channel, tenant: &Tenant, project: &str, token: &Secret, round: u64) {
    if let Err(status) = try_round(channel, tenant, project, token, round).await {
        tracing::warn!(tenant = tenant.name, project, code = ?status.code(), "demonstration traffic was not taken");
    }
}

async fn try_round(
    channel: &Channel,
    tenant: &Tenant,
    project: &str,
    token: &Secret,
    round: u64,
) -> Result<(), tonic::Status> {
    let bearer = format!("Bearer {}", token.expose());
    let with_token = |mut request: tonic::Request<()>| {
        let value = bearer.parse().map_err(|_| tonic::Status::internal("the token is no header value"))?;
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    };
    let seed = round.wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ (tenant.name.len() as u64) << 40
        ^ (project.len() as u64) << 32
        ^ u64::from(project.as_bytes()[0]);
    let trace = Trace::new(seed);
    let is_failing = is_failing(tenant, project, round);
    let resource = resource(tenant, project);
    let logs = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource.clone()),
            scope_logs: vec![ScopeLogs {
                scope: scope(),
                log_records: log_records(round, seed, &trace, is_failing),
                ..Default::default()
            }],
            ..Default::default()
        }],
    };
    LogsServiceClient::with_interceptor(channel.clone(), with_token).export(logs).await?;
    let spans = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans {
                scope: scope(),
                spans: spans(seed, &trace, is_failing),
                ..Default::default()
            }],
            ..Default::default()
        }],
    };
    TraceServiceClient::with_interceptor(channel.clone(), with_token).export(spans).await?;
    let metrics = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![ScopeMetrics {
                scope: scope(),
                metrics: metrics(round, seed),
                ..Default::default()
            }],
            ..Default::default()
        }],
    };
    MetricsServiceClient::with_interceptor(channel.clone(), with_token).export(metrics).await?;
    Ok(())
}

/// The ids of one request through the made-up service.
struct Trace {
    id: Vec<u8>,
    root: Vec<u8>,
    child: Vec<u8>,
}

impl Trace {
    fn new(seed: u64) -> Trace {
        let word =
            |salt: u64| (seed ^ salt).wrapping_mul(0xD6E8_FEB8_6659_FD93).rotate_left(23).to_be_bytes();
        Trace { id: [word(1), word(2)].concat(), root: word(3).to_vec(), child: word(4).to_vec() }
    }
}

fn log_records(round: u64, seed: u64, trace: &Trace, is_failing: bool) -> Vec<LogRecord> {
    const NAMES: [&str; 4] = ["ada", "grace", "linus", "barbara"];
    let name = NAMES[(seed >> 7) as usize % NAMES.len()];
    let millis = 3 + (seed >> 11) % 240;
    let mut lines = vec![(9, "INFO", format!("order {round} accepted in {millis} ms"))];
    if round.is_multiple_of(3) {
        lines.push((9, "INFO", format!("receipt sent to {name}@example.com")));
    }
    if round.is_multiple_of(5) {
        lines.push((13, "WARN", "payment with card 4111 1111 1111 1111 took two attempts".to_owned()));
    }
    if round.is_multiple_of(17) {
        lines.push((17, "ERROR", format!("connection to the warehouse timed out after {millis} ms")));
    }
    if is_failing {
        let line = format!("charging {name}@example.com failed: the provider answered 503 after {millis} ms");
        lines.extend(std::iter::repeat_n((17, "ERROR", line), 3));
    }
    let record = |(severity_number, severity, body): (i32, &str, String)| LogRecord {
        time_unix_nano: now_ns(),
        observed_time_unix_nano: now_ns(),
        severity_number,
        severity_text: severity.into(),
        body: Some(text(body)),
        attributes: vec![
            attribute("http.request.method", text("POST")),
            attribute("http.route", text("/orders")),
            attribute("order.number", AnyValue { value: Some(any_value::Value::IntValue(round as i64)) }),
            attribute("user.id", text(format!("{name}@example.com"))),
        ],
        trace_id: trace.id.clone(),
        span_id: trace.child.clone(),
        ..Default::default()
    };
    lines.into_iter().map(record).collect()
}

fn spans(seed: u64, trace: &Trace, is_failing: bool) -> Vec<Span> {
    let took_ns = (3 + (seed >> 11) % 240) * 1_000_000;
    let end = now_ns();
    let root = Span {
        trace_id: trace.id.clone(),
        span_id: trace.root.clone(),
        name: "POST /orders".into(),
        kind: span::SpanKind::Server as i32,
        start_time_unix_nano: end - took_ns,
        end_time_unix_nano: end,
        attributes: vec![
            attribute("http.request.method", text("POST")),
            attribute("url.path", text("/orders")),
        ],
        status: is_failing.then(|| Status { code: StatusCode::Error as i32, ..Default::default() }),
        ..Default::default()
    };
    let child = Span {
        trace_id: trace.id.clone(),
        span_id: trace.child.clone(),
        parent_span_id: trace.root.clone(),
        name: "INSERT orders".into(),
        kind: span::SpanKind::Client as i32,
        start_time_unix_nano: end - took_ns / 2,
        end_time_unix_nano: end - took_ns / 8,
        attributes: vec![attribute("db.system.name", text("postgresql"))],
        events: vec![span::Event {
            time_unix_nano: end - took_ns / 4,
            name: "rows locked".into(),
            attributes: vec![attribute("customer.email", text("ada@example.com"))],
            ..Default::default()
        }],
        ..Default::default()
    };
    vec![root, child]
}

fn metrics(round: u64, seed: u64) -> Vec<Metric> {
    let point = |value| NumberDataPoint {
        time_unix_nano: now_ns(),
        start_time_unix_nano: 1,
        attributes: vec![attribute("http.route", text("/orders"))],
        value: Some(value),
        ..Default::default()
    };
    vec![
        Metric {
            name: "orders.accepted".into(),
            unit: "{order}".into(),
            data: Some(metric::Data::Sum(Sum {
                data_points: vec![point(number_data_point::Value::AsInt(round as i64 + 1))],
                aggregation_temporality: AggregationTemporality::Cumulative as i32,
                is_monotonic: true,
            })),
            ..Default::default()
        },
        Metric {
            name: "queue.length".into(),
            unit: "{order}".into(),
            data: Some(metric::Data::Gauge(Gauge {
                data_points: vec![point(number_data_point::Value::AsDouble((seed % 100) as f64))],
            })),
            ..Default::default()
        },
    ]
}

fn resource(tenant: &Tenant, project: &str) -> Resource {
    let attributes = vec![
        attribute("service.name", text(format!("{}-{project}", tenant.name))),
        attribute("service.namespace", text(tenant.name)),
        attribute("project.id", text(project)),
        attribute("deployment.environment.name", text("demo")),
    ];
    Resource { attributes, ..Default::default() }
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "trommel-demo".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..Default::default()
    })
}

fn text(value: impl Into<String>) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(value.into())) }
}

fn attribute(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.into(), value: Some(value), ..Default::default() }
}

fn now_ns() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}
