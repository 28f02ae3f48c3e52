//! The load: requests of log records as services send them, the same at every run.
//!
//! A record has a body of about 200 bytes and 8 attributes (6 strings, an integer, a double), about 550 bytes in all; an
//! e-mail address stands in 1 % of the bodies and 0.5 % of `user.id`, a card number in 0.3 % of the bodies and 0.1 % of
//! `url.full`; 60 % have a trace id.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

/// What a run sends.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Records of a request.
    pub records: usize,
    /// Resources they are spread over.
    pub resources: usize,
    /// Whether the resources carry the `tenant.id` that the collector would add (`local`).
    pub has_tenant: bool,
    /// Projects they are spread over; 0: no `project.id`.
    pub projects: usize,
}

/// Request number `seed`.
pub fn request(shape: Shape, seed: u64) -> ExportLogsServiceRequest {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let each = shape.records.div_ceil(shape.resources);
    let mut left = shape.records;
    let mut resource_logs = Vec::new();
    for number in 0..shape.resources {
        let here = each.min(left);
        left -= here;
        resource_logs.push(ResourceLogs {
            resource: Some(resource(shape, number)),
            scope_logs: vec![ScopeLogs {
                scope: Some(InstrumentationScope {
                    name: "orders".into(),
                    version: "1.4.2".into(),
                    ..Default::default()
                }),
                log_records: (0..here).map(|_| record(&mut random)).collect(),
                ..Default::default()
            }],
            ..Default::default()
        });
    }
    ExportLogsServiceRequest { resource_logs }
}

/// Encoded requests, each different.
pub fn encoded(shape: Shape, count: usize) -> Vec<bytes::Bytes> {
    (0..count).map(|seed| request(shape, seed as u64).encode_to_vec().into()).collect()
}

fn resource(shape: Shape, number: usize) -> Resource {
    let mut attributes = vec![
        text("service.name", format!("orders-{number}")),
        text("service.namespace", "shop".into()),
        text("service.instance.id", format!("627cc493-f310-47de-96bd-{number:012}")),
        text("host.name", format!("node-{number}.eu-1.internal")),
        text("deployment.environment.name", "production".into()),
        text("k8s.pod.name", format!("orders-7f8d9c-{number}")),
    ];
    if shape.has_tenant {
        attributes.push(text("tenant.id", "local".into()));
        attributes.push(text("project.id", "default".into()));
    } else if shape.projects > 0 {
        attributes.push(text("project.id", format!("project-{}", number % shape.projects)));
    }
    Resource { attributes, ..Default::default() }
}

fn record(random: &mut Random) -> LogRecord {
    let order = random.below(1_000_000);
    let name = ["ada", "grace", "linus", "barbara", "ken"][random.below(5) as usize];
    let mut body = format!(
        "order {order} accepted after {} ms: {} items from warehouse {} for customer {}; payment by provider p{} \
         settled in attempt {}, stock reserved until {:x}",
        random.below(900),
        random.below(20),
        random.below(40),
        random.below(1_000_000),
        random.below(9),
        1 + random.below(3),
        random.next(),
    );
    if random.below(1000) < 10 {
        body.push_str(&format!(" receipt to {name}.{order}@example.com"));
    }
    if random.below(1000) < 3 {
        body.push_str(" card 4111 1111 1111 1111");
    }
    let user = if random.below(1000) < 5 { format!("{name}@example.com") } else { format!("u-{order}") };
    let url = if random.below(1000) < 1 {
        "https://shop.example/pay?card=4111111111111111".to_owned()
    } else {
        format!("https://shop.example/orders/{order}?page=2")
    };
    let has_trace = random.below(10) < 6;
    LogRecord {
        time_unix_nano: 1_700_000_000_000_000_000 + order,
        observed_time_unix_nano: 1_700_000_000_000_000_000 + order,
        severity_number: [9, 9, 9, 13, 17][random.below(5) as usize],
        severity_text: "INFO".into(),
        body: Some(AnyValue { value: Some(Value::StringValue(body)) }),
        attributes: vec![
            text("http.request.method", "POST".into()),
            text("http.route", "/orders/{id}".into()),
            text("url.full", url),
            text("user.id", user),
            text(
                "client.address",
                format!("10.{}.{}.{}", random.below(255), random.below(255), random.below(255)),
            ),
            text(
                "user_agent.original",
                "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0".into(),
            ),
            KeyValue {
                key: "http.response.status_code".into(),
                value: Some(AnyValue { value: Some(Value::IntValue(200)) }),
                ..Default::default()
            },
            KeyValue {
                key: "duration".into(),
                value: Some(AnyValue { value: Some(Value::DoubleValue(0.125)) }),
                ..Default::default()
            },
        ],
        trace_id: if has_trace {
            [random.next().to_be_bytes(), random.next().to_be_bytes()].concat()
        } else {
            Vec::new()
        },
        span_id: if has_trace { random.next().to_be_bytes().to_vec() } else { Vec::new() },
        ..Default::default()
    }
}

fn text(key: &str, value: String) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(Value::StringValue(value)) }),
        ..Default::default()
    }
}

/// A small generator of numbers: the same at every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 33) % bound
    }
}
