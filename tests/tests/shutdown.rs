//! Stopping as asked: no new requests, what was taken is delivered, exit 0.

use crate::world::{PATIENCE, eventually, eventually_within, logs, with_token};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The `trommel` binary of this tree: `cargo test` alone builds the library only, and an old binary proves nothing.
pub fn binary() -> PathBuf {
    static BUILD: std::sync::Once = std::sync::Once::new();
    BUILD.call_once(|| {
        // The same packages and features as the tests themselves: what is built already stays.
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["build", "--workspace", "--bins", "--tests", "--quiet"])
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().unwrap().success(), "the binary cannot be built");
    });
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.join("trommel")
}

/// A collector as a process of its own; killed when dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    pub fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// The exit code, within the test's patience.
    pub async fn exit_code(&mut self) -> Option<i32> {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(tokio::time::Instant::now() < until, "the process did not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Every plugin is loaded and every store is open.
pub async fn is_ready(console: u16) -> bool {
    let answer = crate::world::client().get(format!("http://127.0.0.1:{console}/readyz")).send().await;
    answer.is_ok_and(|answer| answer.status() == 200)
}

fn configuration(folder: &std::path::Path, grpc: u16, console: u16) -> PathBuf {
    let file = folder.join("trommel.yaml");
    let yaml = crate::deliver::LOCAL
        .replace(
            "grpc: { listen: 127.0.0.1:0 }, http: { listen: 127.0.0.1:0 }",
            &format!("grpc: {{ listen: 127.0.0.1:{grpc} }}"),
        )
        .replace("console: { listen: 127.0.0.1:0 }", &format!("console: {{ listen: 127.0.0.1:{console} }}"));
    std::fs::write(&file, yaml).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_it_delivers_what_it_took_and_exits_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let (grpc, console) = (free_port(), free_port());
    let file = configuration(folder.path(), grpc, console);
    let start = || {
        let mut command = Command::new(binary());
        command.args(["run", "--config"]).arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        Process(command.spawn().unwrap())
    };
    let mut process = start();
    eventually("ready", || is_ready(console)).await;
    let mut client = LogsServiceClient::connect(format!("http://127.0.0.1:{grpc}")).await.unwrap();
    for number in 0..50 {
        client
            .export(with_token(logs(&[("project.id", "shop")], &[&format!("line {number}")]), None))
            .await
            .unwrap();
    }
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));

    let mut process = start();
    eventually("ready", || is_ready(console)).await;
    let url = format!("http://127.0.0.1:{console}/v1/tenants/local/projects/shop/logs?limit=1000");
    let page: serde_json::Value = crate::world::client().get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(page["records"].as_array().unwrap().len(), 50, "every acknowledged line is in the store");
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_ends_with_1_and_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let file = configuration(folder.path(), port, free_port());
    let output = Command::new(binary()).args(["run", "--config"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&port.to_string()), "{said}");
}

#[test]
fn a_wrong_configuration_ends_with_2_and_says_everything_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.yaml");
    std::fs::write(&file, "receivers: { otlp: { grpc: { lisen: 127.0.0.1:4317 } } }\nsinks: { a: { type: kafka } }\njournal: { kind: tape }\n").unwrap();
    for arguments in [vec!["check"], vec!["run", "--config"]] {
        let output = Command::new(binary()).args(&arguments).arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        for word in ["wrong.yaml:1:", "`listen`", "kafka", "tape", "pipelines"] {
            assert!(said.contains(word), "{word} is missing in:\n{said}");
        }
    }
    assert_eq!(Command::new(binary()).arg("rum").output().unwrap().status.code(), Some(2));
}

/// The collector's log, if the test fails.
struct ShownOnFailure(PathBuf);

impl Drop for ShownOnFailure {
    #[allow(clippy::print_stderr, reason = "a failing test shows what the collector said")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(&self.0).unwrap_or_default());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_prints_a_curl_line_that_works_and_shows_an_incident_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = Command::new(binary());
    command.args(["run", "--demo"]).current_dir(folder.path()).stdout(Stdio::piped());
    command.stderr(std::fs::File::create(&log).unwrap());
    let mut process = Process(command.spawn().unwrap());
    let _shown = ShownOnFailure(log.clone());
    let out = BufReader::new(process.0.stdout.take().unwrap());
    let line = tokio::task::spawn_blocking(move || {
        out.lines().map_while(Result::ok).find(|line| line.trim_start().starts_with("curl"))
    })
    .await
    .unwrap()
    .expect("a curl line");
    let words: Vec<&str> = line.split('\'').collect();
    let header = words
        .iter()
        .find(|word| word.starts_with("authorization"))
        .expect("a credential")
        .split_once(": ")
        .unwrap()
        .1
        .to_owned();
    let url =
        line.split_whitespace().find(|word| word.contains("http://")).unwrap().trim_matches('\'').to_owned();
    let history = url.replace("/tail", "/logs");
    let client = crate::world::client();
    eventually("lines of the demonstration", || async {
        let answer = client.get(&history).header("authorization", &header).send().await;
        let Ok(answer) = answer else { return false };
        let Ok(page) = answer.json::<serde_json::Value>().await else { return false };
        page["records"]
            .as_array()
            .is_some_and(|records| records.len() > 3 && !page.to_string().contains("@example.com"))
    })
    .await;
    let alerts = format!("{}/v1/alerts", url.split("/v1/").next().unwrap());
    let incident = |state: &'static str| {
        let request = client.get(&alerts).send();
        async move {
            let shown: serde_json::Value = request.await.ok()?.json().await.ok()?;
            assert!(!shown.to_string().contains("@example.com"), "{shown}");
            let incidents = shown["incidents"].as_array()?;
            let is_it = |incident: &&serde_json::Value| incident["state"] == state;
            incidents.iter().find(is_it).map(|incident| {
                let words = ["tenant", "plugin"].map(|key| incident[key].as_str().unwrap().to_owned());
                (words, incident["title"].as_str().unwrap().to_owned(), incident["count"].as_u64().unwrap())
            })
        }
    };
    // It fails a minute after its start, for half of one.
    eventually_within(Duration::from_secs(100), "an open incident", || async {
        incident("open").await.is_some()
    })
    .await;
    eventually_within(Duration::from_secs(80), "its end", || async { incident("resolved").await.is_some() })
        .await;
    let (whose, title, count) = incident("resolved").await.unwrap();
    assert_eq!(whose, ["acme", "anomaly"]);
    assert!(title.contains("billing") && count > 100, "{title}: {count}");
    let told = |what: &str| {
        let log = std::fs::read_to_string(&log).unwrap();
        assert!(!log.contains("@example.com"), "{log}");
        let is_told = |line: &&str| line.contains(what) && line.contains("acme");
        log.lines().filter(is_told).count()
    };
    eventually("the end is told", || async { told("alert resolved") == 1 }).await;
    assert_eq!(told("alert opened"), 1);
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));
}
