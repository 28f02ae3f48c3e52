//! Every example starts, and does what its README says.

use crate::world::{World, attribute, eventually, logs};
use serde_json::Value;
use std::path::{Path, PathBuf};
use trommel::config::Config;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples")
}

/// The example's configuration with ports of the test's own.
fn with_own_ports(name: &str, replace: &[(&str, &str)]) -> String {
    let mut yaml = std::fs::read_to_string(examples().join(name).join("trommel.yaml")).unwrap();
    for listener in
        ["127.0.0.1:4317 }", "127.0.0.1:4318 }", "127.0.0.1:4380", "127.0.0.1:4327", "127.0.0.1:4390"]
    {
        let own = if listener.ends_with('}') { "127.0.0.1:0 }" } else { "127.0.0.1:0" };
        yaml = yaml.replace(&format!("listen: {listener}"), &format!("listen: {own}"));
    }
    for (from, to) in replace {
        assert!(yaml.contains(from), "{name}: `{from}` is not in the example");
        yaml = yaml.replace(from, to);
    }
    yaml
}

/// A folder with the example's other files.
fn folder_of(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(examples().join(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

#[tokio::test]
async fn every_example_is_valid_and_explained() {
    let mut seen = 0;
    for entry in std::fs::read_dir(examples()).unwrap() {
        let folder = entry.unwrap().path();
        let (config, mut faults) = Config::examine(&folder.join("trommel.yaml"));
        faults.add(trommel::app::faults(&config.expect("a configuration"), &faults).await);
        assert!(faults.is_empty(), "{faults}");
        assert!(folder.join("README.md").exists(), "{} has no README", folder.display());
        seen += 1;
    }
    assert!(seen >= 4, "first-steps, sidecar, gateway, jaeger");
}

#[tokio::test(flavor = "multi_thread")]
async fn first_steps_takes_the_json_of_its_readme() {
    let world = World::start(&with_own_ports("first-steps", &[])).await;
    let readme = std::fs::read_to_string(examples().join("first-steps/README.md")).unwrap();
    let body = readme.split("-d '").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    let url = format!("http://{}/v1/logs", world.otlp_http());
    let answer =
        world.http.post(url).header("content-type", "application/json").body(body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let records = world.history_of(None, "local", "default", 1).await;
    assert!(records[0]["body"].as_str().unwrap().starts_with("receipt sent to "));
    assert!(!records[0].to_string().contains("ada@example.com"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_record_goes_through_a_sidecar_and_a_gateway() {
    let gateway = World::start_in(folder_of("gateway"), &with_own_ports("gateway", &[])).await;
    let endpoint = format!("http://{}", gateway.grpc());
    let sidecar = World::start(&with_own_ports("sidecar", &[("http://127.0.0.1:4317", &endpoint)])).await;
    let mut tail = gateway.tail(Some("acme-token"), "acme", "shop", None).await;
    let mut request = logs(
        &[("service.name", "shop"), ("project.id", "shop"), ("tenant.id", "globex")],
        &["paid by ada@example.com"],
    );
    request.resource_logs[0].scope_logs[0].log_records[0].attributes.push(attribute("order", "7"));
    sidecar.send(None, request).await.unwrap();
    let event = tail.next().await.unwrap();
    assert_eq!(event.kind, "log");
    let record: &Value = &event.data;
    assert!(record["body"].as_str().unwrap().starts_with("paid by "), "{record}");
    assert!(!record.to_string().contains("ada@example.com"), "{record}");
    assert_eq!(record["attributes"]["order"], "7");
    assert_eq!(record["resource"]["tenant.id"], "acme");
    // From the table of the gateway's enrich.
    assert_eq!(record["resource"]["plan"], "gold", "{record}");
    sidecar.end().await;
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jaeger_example_starts_and_waits_for_its_jaeger() {
    let world =
        World::start(&with_own_ports("jaeger", &[("http://127.0.0.1:14317", "http://127.0.0.1:1")])).await;
    eventually("ready", || async {
        world.http.get(world.console("/readyz")).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    world.end().await;
}

#[test]
fn the_agent_of_the_gateway_has_twenty_lines() {
    let agent = std::fs::read_to_string(examples().join("gateway/agent.yaml")).unwrap();
    assert!(agent.lines().count() <= 20, "the README of the gateway calls it short");
}
