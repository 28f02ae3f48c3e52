//! A sink that nothing may expire of: the sender waits, and all that was acknowledged arrives.

use crate::durable::BACKEND;
use crate::shutdown::{binary, free_port};
use crate::world::{World, logs};
use std::process::Command;

const YAML: &str = r#"
receivers: { otlp: { grpc: { listen: 127.0.0.1:0 } } }
console: { listen: 127.0.0.1:0 }
pipelines: [{ name: logs, when: { signal: logs }, sinks: [must, may] }]
sinks:
  must: { type: otlp, endpoint: "http://127.0.0.1:BACKEND", essential: true, journal: { max: 1MiB } }
  may: { type: discard }
"#;

/// `trommel ledger` of this collector: its exit code and what it prints.
fn ledger(world: &World) -> (Option<i32>, String) {
    let output = Command::new(binary()).args(["ledger", "--console", &world.console("")]).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sender_waits_for_an_essential_sink_and_nothing_expires() {
    let backend = free_port();
    let world = World::start(&YAML.replace("BACKEND", &backend.to_string())).await;
    let line = |number: usize| format!("{number} {}", "x".repeat(100_000));
    let send = |number: usize| world.send(None, logs(&[("project.id", "shop")], &[&line(number)]));
    let mut taken = 0;
    let refused = loop {
        match send(taken).await {
            Ok(answer) => assert_eq!(answer.partial_success, None),
            Err(status) => break status,
        }
        taken += 1;
        assert!(taken < 100, "the share is a megabyte");
    };
    assert!(taken >= 9, "{taken}");
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    assert!(refused.message().contains("an essential sink is behind"), "{refused}");
    assert!(!refused.details().is_empty(), "it is told when to come back");
    let (code, printed) = ledger(&world);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("1 (sink_behind 1)") && printed.ends_with("unaccounted: 0\n"), "{printed}");

    let there = World::start(&BACKEND.replace("BACKEND", &backend.to_string())).await;
    let records = there.history_of(None, "local", "shop", taken).await;
    let mut arrived: Vec<&str> = records.iter().filter_map(|record| record["body"].as_str()).collect();
    let mut expected: Vec<String> = (0..taken).map(line).collect();
    arrived.sort_unstable();
    expected.sort_unstable();
    assert!(arrived == expected, "{} of {taken} lines", arrived.len());
    crate::world::eventually("there is room again", async || send(taken).await.is_ok()).await;
    world.end().await;
    there.end().await;
}

#[test]
fn the_ledger_of_nobody_is_a_sentence_and_the_code_1() {
    let console = format!("http://127.0.0.1:{}", free_port());
    let output = Command::new(binary()).args(["ledger", "--console", &console]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&console) && said.contains("refused"), "{said}");
}
