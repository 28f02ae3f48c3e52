//! Every example starts, and does what its README says.

use crate::shutdown::{Process, binary, free_port};
use crate::world::{World, attribute, eventually, logs};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

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

#[test]
fn every_example_is_valid_and_explained() {
    let mut seen = 0;
    for entry in std::fs::read_dir(examples()).unwrap() {
        let folder = entry.unwrap().path();
        let mut check = Command::new(binary());
        check.arg("check").arg(folder.join("trommel.yaml"));
        // What the example of the platform cannot know.
        check.env("TELEGRAM_TOKEN", "123:abc").env("TELEGRAM_CHAT", "-100123");
        let output = check.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{}: {said}", folder.display());
        assert!(folder.join("README.md").exists(), "{} has no README", folder.display());
        seen += 1;
    }
    assert!(seen >= 5, "first-steps, sidecar, gateway, jaeger, platform");
}

#[test]
fn the_platform_says_which_variables_it_lacks() {
    let mut check = Command::new(binary());
    check.arg("check").arg(examples().join("platform/trommel.yaml"));
    let output = check.env_remove("TELEGRAM_TOKEN").env_remove("TELEGRAM_CHAT").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("`TELEGRAM_TOKEN` is not set") && said.contains("2 faults"), "{said}");
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

/// Without any of its servers, as after a power cut: it takes what comes, and says what it lacks.
#[tokio::test(flavor = "multi_thread")]
async fn the_platform_starts_before_its_servers() {
    let folder = folder_of("platform");
    let (http, console) = (free_port(), free_port());
    let mut run = Command::new(binary());
    run.args(["run", "--config"]).arg(folder.path().join("trommel.yaml"));
    run.env("TROMMEL_DATA", folder.path().join("data"))
        .env("TROMMEL_GRPC", format!("127.0.0.1:{}", free_port()))
        .env("TROMMEL_HTTP", format!("127.0.0.1:{http}"))
        .env("TROMMEL_CONSOLE", format!("127.0.0.1:{console}"))
        .env("MONGODB_URI", "mongodb://user:s3cret@127.0.0.1:1/?serverSelectionTimeoutMS=200")
        .env("JAEGER_ENDPOINT", "http://127.0.0.1:1")
        .env("PROMETHEUS_ENDPOINT", "http://127.0.0.1:1/api/v1/write")
        .env("VICTORIAMETRICS_ENDPOINT", "http://127.0.0.1:1/api/v1/write")
        .env("TELEGRAM_API", "http://127.0.0.1:1")
        .env("TELEGRAM_TOKEN", "123:s3cret")
        .env("TELEGRAM_CHAT", "-100123");
    let log = folder.path().join("log");
    run.stdout(std::fs::File::create(&log).unwrap()).stderr(std::fs::File::create(&log).unwrap());
    let mut process = Process(run.spawn().unwrap());
    let readme = std::fs::read_to_string(examples().join("platform/README.md")).unwrap();
    let body = readme.split("-d '").nth(1).unwrap().split('\'').next().unwrap();
    let client = crate::world::client();
    let send = || {
        let request = client.post(format!("http://127.0.0.1:{http}/v1/logs")).bearer_auth("acme-token");
        request.header("content-type", "application/json").body(body.to_owned()).send()
    };
    eventually("the line is taken", || async { send().await.is_ok_and(|answer| answer.status() == 200) })
        .await;
    let ask = |path: &str| {
        let request = client.get(format!("http://127.0.0.1:{console}{path}"));
        async { request.send().await.unwrap() }
    };
    eventually("the store is missed", || async {
        let answer = ask("/readyz").await;
        answer.status() == 503 && answer.text().await.unwrap().contains("streams")
    })
    .await;
    assert_eq!(ask("/healthz").await.status(), 200);
    let alerts: Value = ask("/v1/alerts").await.json().await.unwrap();
    assert_eq!(alerts["incidents"], serde_json::json!([]));
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(!log.contains("s3cret") && !log.contains("ada@example.com"), "{log}");
}

#[test]
fn the_agent_of_the_gateway_has_twenty_lines() {
    let agent = std::fs::read_to_string(examples().join("gateway/agent.yaml")).unwrap();
    assert!(agent.lines().count() <= 20, "the README of the gateway calls it short");
}
