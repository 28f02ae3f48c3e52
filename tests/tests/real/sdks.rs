//! OpenTelemetry's own SDKs as senders: what they meant is what stands in the stream.

use super::{installed, sources};
use crate::identity::gateway;
use crate::world::{World, eventually};
use serde_json::{Value, json};
use std::process::Command;

/// The gateway of the identity tests with all three signals.
fn configuration() -> String {
    gateway()
        .replace(
            "sinks: [streams] }]",
            "sinks: [streams] }, { name: rest, plugins: [redact], sinks: [nowhere] }]",
        )
        .replace(
            "sinks: { streams: { type: streams } }",
            "sinks: { streams: { type: streams }, nowhere: { type: discard } }",
        )
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

/// Of every client one span, and a counter and a histogram of one point each.
async fn spans_and_points_arrived(world: &World, clients: u32) {
    eventually("spans and points of every client", || async {
        let metrics = world.metrics().await;
        let delivered = |signal: &str| {
            let is_line = |line: &&str| {
                line.contains("delivered")
                    && line.contains("sink=\"nowhere\"")
                    && line.contains(&format!("signal=\"{signal}\""))
            };
            metrics.lines().find(is_line).and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        };
        delivered("traces") == Some(f64::from(clients))
            && delivered("metrics") == Some(f64::from(2 * clients))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_python_sdk_sends_arrives_field_by_field() {
    let world = World::start(&configuration()).await;
    for protocol in ["grpc", "http"] {
        check(&world, python(protocol, &world)).await;
    }
    spans_and_points_arrived(&world, 2).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_node_sdk_sends_arrives_field_by_field() {
    let world = World::start(&configuration()).await;
    for protocol in ["grpc", "json", "proto"] {
        check(&world, node(protocol, &world)).await;
    }
    spans_and_points_arrived(&world, 3).await;
    world.end().await;
}
