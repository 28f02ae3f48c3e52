//! The journal on disk: what was acknowledged arrives, although the collector is killed, the disk fills, or there is more
//! than it can take.

mod backend;
mod collector;
mod kills;
mod oracle;
mod overload;
mod room;

use crate::shutdown::{Process, binary, free_port, is_ready};
use crate::world::{World, eventually, logs, with_token};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use std::process::{Command, Stdio};

const YAML: &str = r#"
receivers: { otlp: { grpc: { listen: 127.0.0.1:GRPC } } }
console: { listen: 127.0.0.1:CONSOLE }
pipelines: [{ name: logs, when: { signal: logs }, sinks: [backend] }]
sinks: { backend: { type: otlp, endpoint: "http://127.0.0.1:BACKEND" } }
journal: { kind: disk, max: 1GiB, age: 1h }
"#;

/// A collector that stores what others deliver to it.
pub const BACKEND: &str = r#"
receivers: { otlp: { grpc: { listen: 127.0.0.1:BACKEND } } }
console: { listen: 127.0.0.1:0 }
pipelines: [{ name: logs, when: { signal: logs }, sinks: [streams] }]
sinks: { streams: { type: streams } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_arrives_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (grpc, console, backend) = (free_port(), free_port(), free_port());
    let ports = [("GRPC", grpc), ("CONSOLE", console), ("BACKEND", backend)];
    let with_ports = |yaml: &str| {
        ports.iter().fold(yaml.to_owned(), |yaml, (name, port)| yaml.replace(name, &port.to_string()))
    };
    let file = folder.path().join("trommel.yaml");
    std::fs::write(&file, with_ports(YAML)).unwrap();
    let start = || {
        let mut command = Command::new(binary());
        command.args(["run", "--config"]).arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        Process(command.spawn().unwrap())
    };
    let mut expected: Vec<String> = Vec::new();
    // Nobody listens at the backend's port yet. The second time, what the first left is there as well.
    for round in 0..2 {
        let mut process = start();
        eventually("ready", || is_ready(console)).await;
        let mut client = LogsServiceClient::connect(format!("http://127.0.0.1:{grpc}")).await.unwrap();
        for number in 0..50 {
            let line = format!("round {round} line {number}");
            let answer =
                client.export(with_token(logs(&[("project.id", "shop")], &[&line]), None)).await.unwrap();
            assert_eq!(answer.into_inner().partial_success, None);
            expected.push(line);
        }
        process.0.kill().unwrap();
        process.0.wait().unwrap();
    }

    let world = World::start(&with_ports(BACKEND)).await;
    let mut process = start();
    eventually("ready", || is_ready(console)).await;
    let records = world.history_of(None, "local", "shop", expected.len()).await;
    let mut arrived: Vec<&str> = records.iter().map(|record| record["body"].as_str().unwrap()).collect();
    // Deliveries are on their way at once.
    arrived.sort_unstable();
    expected.sort_unstable();
    assert_eq!(arrived, expected);
    let ledger =
        crate::world::client().get(format!("http://127.0.0.1:{console}/metrics")).send().await.unwrap();
    let ledger = ledger.text().await.unwrap();
    let shown = |line: &str| ledger.lines().any(|shown| shown == line);
    assert!(
        shown(
            "trommel_ledger_delivered_records_total{tenant=\"local\",signal=\"logs\",sink=\"backend\"} 100"
        ),
        "{ledger}"
    );
    let unaccounted = ledger.lines().filter(|line| line.starts_with("trommel_ledger_unaccounted_records"));
    assert!(unaccounted.into_iter().all(|line| line.ends_with(" 0")), "{ledger}");
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));
    world.end().await;
}

/// A variable of the environment that asks for more, or less.
fn number_in(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Figures of a run, for who looks at them with `--nocapture`.
#[allow(clippy::print_stderr, reason = "figures of a long run")]
fn say(figures: &str) {
    eprintln!("{figures}");
}
