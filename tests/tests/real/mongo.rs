//! Tenant streams in a server that speaks MongoDB's protocol, end to end: what it does to them, and that nobody else
//! notices. The store by itself is tested where it stands; documents are read by PyMongo, which knows nothing of us.

use super::servers::{Entrance, FerretDb, pymongo};
use crate::world::{World, attribute, eventually, logs, text};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use serde_json::Value;

/// Streams in MongoDB, and another destination of the same records.
fn configuration(uri: &str, more: &str) -> String {
    format!(
        r#"
receivers: {{ otlp: {{ grpc: {{ listen: 127.0.0.1:0 }} }} }}
console: {{ listen: 127.0.0.1:0 }}
pipelines: [{{ name: logs, when: {{ signal: logs }}, plugins: [], sinks: [streams, other] }}]
sinks:
  streams: {{ type: streams, store: {{ mongodb: {{ uri: "{uri}" }} }} }}
  other: {{ type: discard }}
{more}
"#
    )
}

async fn send(world: &World, request: ExportLogsServiceRequest) {
    let answer = world.send(None, request).await.unwrap();
    assert!(answer.partial_success.is_none_or(|partial| partial.rejected_log_records == 0));
}

/// Records of a sink in these lines of the ledger.
async fn ledger(world: &World, name: &str, sink: &str) -> f64 {
    let (name, sink) = (format!("trommel_ledger_{name}_records"), format!("sink=\"{sink}\""));
    let text = world.metrics().await;
    let lines = text.lines().filter(|line| line.starts_with(&name) && line.contains(&sink));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

async fn readiness(world: &World) -> (u16, String) {
    let answer = world.http.get(world.console("/readyz")).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn bodies(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["body"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_at_the_start_and_in_the_middle_costs_nobody_a_line() {
    let mut ferret = FerretDb::start(Entrance::Plain).await;
    ferret.server.kill();
    let world = World::start(&configuration(&ferret.uri, "")).await;
    let (status, said) = readiness(&world).await;
    assert_eq!(status, 503, "{said}");
    let mut live = world.tail(None, "local", "shop", None).await;
    send(&world, logs(&[("project.id", "shop")], &["down 1", "down 2"])).await;
    assert_eq!(live.bodies(2).await, ["down 1", "down 2"]);
    eventually("the other destination has them", || async {
        ledger(&world, "delivered", "other").await == 2.0
    })
    .await;
    assert_eq!(ledger(&world, "in_flight", "streams").await, 2.0);

    ferret.server.start().await;
    assert_eq!(bodies(&world.history_of(None, "local", "shop", 2).await), ["down 1", "down 2"]);
    eventually("ready", || async { readiness(&world).await.0 == 200 }).await;

    ferret.server.kill();
    send(&world, logs(&[("project.id", "shop")], &["middle 1", "middle 2"])).await;
    assert_eq!(live.bodies(2).await, ["middle 1", "middle 2"]);
    eventually("the other destination has them", || async {
        ledger(&world, "delivered", "other").await == 4.0
    })
    .await;
    eventually("not ready", || async { readiness(&world).await.0 == 503 }).await;
    ferret.server.start().await;
    let all = ["down 1", "down 2", "middle 1", "middle 2"];
    assert_eq!(bodies(&world.history_of(None, "local", "shop", 4).await), all);
    eventually("delivered", || async { ledger(&world, "delivered", "streams").await == 4.0 }).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_while_the_server_hangs_is_told_of_a_gap_and_goes_on_live() {
    let ferret = FerretDb::start(Entrance::Plain).await;
    let world = World::start(&configuration(&ferret.uri, "")).await;
    send(&world, logs(&[("project.id", "shop")], &["1"])).await;
    let first = world.history_of(None, "local", "shop", 1).await;
    let id = first[0]["id"].as_str().unwrap().to_owned();
    ferret.server.freeze();
    let mut live = world.tail(None, "local", "shop", None).await;
    send(&world, logs(&[("project.id", "shop")], &["2"])).await;
    assert_eq!(live.bodies(1).await, ["2"]);
    let mut joined = world.tail(None, "local", "shop", Some(&id)).await;
    let gap = joined.next().await.unwrap();
    assert_eq!((gap.kind.as_str(), &gap.data["reason"]), ("gap", &"store".into()), "{gap:?}");
    send(&world, logs(&[("project.id", "shop")], &["3"])).await;
    assert_eq!(joined.bodies(1).await, ["3"]);
    eventually("the other destination has all", || async {
        ledger(&world, "delivered", "other").await == 3.0
    })
    .await;
    ferret.server.go_on();
    assert_eq!(bodies(&world.history_of(None, "local", "shop", 3).await), ["1", "2", "3"]);
    // With the position before the gap everything comes, once.
    let mut again = world.tail(None, "local", "shop", Some(&gap.id)).await;
    assert_eq!(again.bodies(2).await, ["2", "3"]);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_where_operators_look_and_nowhere_shown() {
    let ferret = FerretDb::start(Entrance::Scram).await;
    let uri = ferret.uri.replace(":secret@", ":hunter2@");
    let wrong = configuration(&uri, "").replace("{ uri", "{ database: trommel, uri");
    let wrong = wrong.replace("type: streams,", "type: streams, journal: { age: 1s },");
    let world = World::start(&wrong).await;
    send(&world, logs(&[("project.id", "shop")], &["1", "2"])).await;
    eventually("they are too old", || async { ledger(&world, "expired", "streams").await == 2.0 }).await;
    assert_eq!(ledger(&world, "delivered", "other").await, 2.0);
    let (status, said) = readiness(&world).await;
    assert_eq!(status, 503);
    assert!(!said.contains("hunter2") && !world.metrics().await.contains("hunter2"), "{said}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_the_server_refuses_are_counted_and_the_others_stored() {
    let ferret = FerretDb::start(Entrance::Plain).await;
    let more = "memory: { record_max: 20MiB }";
    let world = World::start(&configuration(&ferret.uri, more)).await;
    send(&world, logs(&[("project.id", "shop")], &["1"])).await;
    world.history_of(None, "local", "shop", 1).await;
    let index = "for name in client.trommel.list_collection_names():\n  if name.startswith('logs_'): client.trommel[name].create_index('body', unique=True)";
    pymongo(&ferret.uri, index).await;
    let large = "x".repeat(17 << 20);
    let mut request = logs(&[("project.id", "shop")], &["1", "2", &large, "infinite", "3"]);
    // FerretDB takes no infinite numbers.
    let infinite = AnyValue { value: Some(any_value::Value::DoubleValue(f64::INFINITY)) };
    request.resource_logs[0].scope_logs[0].log_records[3].body = Some(infinite);
    send(&world, request).await;
    assert_eq!(bodies(&world.history_of(None, "local", "shop", 3).await), ["1", "2", "3"]);
    eventually("all are accounted for", || async { ledger(&world, "in_flight", "streams").await == 0.0 })
        .await;
    let metrics = world.metrics().await;
    for reason in ["unique_index", "document_too_large", "document_refused"] {
        let line = metrics.lines().find(|line| {
            line.starts_with("trommel_ledger_rejected_records")
                && line.contains(&format!("reason=\"{reason}\""))
        });
        assert!(line.is_some_and(|line| line.ends_with(" 1")), "{reason}: {line:?}");
    }
    eventually("the other destination has all", || async {
        ledger(&world, "delivered", "other").await == 6.0
    })
    .await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_reader_finds_the_fields_that_are_promised() {
    let ferret = FerretDb::start(Entrance::Tls).await;
    let world = World::start(&configuration(&ferret.uri, "")).await;
    let mut request = logs(&[("project.id", "shop"), ("service.name", "orders")], &["no stock"]);
    let scope = &mut request.resource_logs[0].scope_logs[0];
    let record = &mut scope.log_records[0];
    record.time_unix_nano = 1_763_985_600_123_456_789;
    record.severity_number = 17;
    record.severity_text = "Error".into();
    record.trace_id = vec![0xab; 16];
    record.span_id = vec![0xcd; 8];
    let attempt = Some(AnyValue { value: Some(any_value::Value::IntValue(3)) });
    record.attributes = vec![
        attribute("http.route", "/orders"),
        KeyValue { key: "attempt".into(), value: attempt, ..Default::default() },
    ];
    record.body = Some(text("no stock"));
    send(&world, request).await;
    let shown = world.history_of(None, "local", "shop", 1).await;
    assert_eq!(shown[0]["attributes"]["http.route"], "/orders");
    let lines = r#"
import base64, json
names = [name for name in client.trommel.list_collection_names() if name.startswith('logs_7d_')]
assert len(names) == 1, names
found = list(client.trommel[names[0]].find({'tenant': 'local', 'attributes.http\uff0eroute': '/orders'}))
assert len(found) == 1, found
d = found[0]
d['_id'] = base64.urlsafe_b64encode(d['_id']).decode()
assert d.pop('committed') > d['time']
d['time'] = d['time'].isoformat()
print(json.dumps(d, ensure_ascii=False))
"#;
    let document: Value = serde_json::from_str(&pymongo(&ferret.uri, lines).await).unwrap();
    let expected = serde_json::json!({
        "_id": shown[0]["id"], "tenant": "local", "project": "shop", "time": "2025-11-24T12:00:00.123000",
        "time_ns": 456_789, "severity": 17, "severity_text": "Error", "body": "no stock",
        "attributes": { "http．route": "/orders", "attempt": 3 },
        "trace_id": "ab".repeat(16), "span_id": "cd".repeat(8),
        "resource": { "project．id": "shop", "service．name": "orders", "tenant．id": "local" },
    });
    assert_eq!(document, expected);
    world.end().await;
}
