//! The configuration changes while the collector runs: pipelines and sinks come, go and move, and no connection is dropped.

use crate::durable::BACKEND;
use crate::shutdown::{Process, binary, free_port, is_ready};
use crate::world::{World, client, eventually};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A collector with a file, and one connection to it that is never opened again.
struct Running {
    process: Process,
    folder: tempfile::TempDir,
    console: u16,
    connection: TcpStream,
    ports: String,
}

impl Running {
    /// `rest` is the configuration without its ports.
    async fn start(rest: &str) -> Running {
        let (http, console) = (free_port(), free_port());
        let ports = format!(
            "receivers: {{ otlp: {{ http: {{ listen: 127.0.0.1:{http} }} }} }}\nconsole: {{ listen: 127.0.0.1:{console} }}\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("trommel.yaml");
        std::fs::write(&file, format!("{ports}{rest}")).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(binary());
        command.args(["run", "--config"]).arg(&file).stdout(Stdio::null()).stderr(log);
        let process = Process(command.spawn().unwrap());
        eventually("ready", || is_ready(console)).await;
        let connection = TcpStream::connect(("127.0.0.1", http)).await.unwrap();
        Running { process, folder, console, connection, ports }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("trommel.yaml")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Waits until it was read again with this result.
    async fn reload(&self, rest: &str, result: &str) {
        let before = self.reloads(result).await;
        // Whole at once: the file may be looked at any time.
        let aside = self.folder.path().join("aside.yaml");
        std::fs::write(&aside, format!("{}{rest}", self.ports)).unwrap();
        std::fs::rename(&aside, self.file()).unwrap();
        self.process.signal("HUP");
        eventually(result, || async { self.reloads(result).await > before }).await;
    }

    async fn reloads(&self, result: &str) -> u64 {
        let line = format!("trommel_config_reloads_total{{result=\"{result}\"}} ");
        let text = client().get(format!("http://127.0.0.1:{}/metrics", self.console)).send().await.unwrap();
        let text = text.text().await.unwrap();
        text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
    }

    /// Acknowledged, on the one connection.
    async fn send(&mut self, body: &str) {
        let record = format!(
            r#"{{"resourceLogs":[{{"resource":{{"attributes":[{{"key":"project.id","value":{{"stringValue":"shop"}}}}]}},"scopeLogs":[{{"logRecords":[{{"body":{{"stringValue":"{body}"}}}}]}}]}}]}}"#
        );
        let request = format!(
            "POST /v1/logs HTTP/1.1\r\nhost: collector\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{record}",
            record.len()
        );
        self.connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let mut part = [0; 1024];
            let read = self.connection.read(&mut part).await.unwrap();
            assert!(read > 0, "the connection was closed: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&part[..read]);
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("{}"), "{answer}");
    }

    /// The ledger's table; it adds up.
    fn ledger(&self) -> String {
        let console = format!("http://127.0.0.1:{}", self.console);
        let output = Command::new(binary()).args(["ledger", "--console", &console]).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{printed}");
        assert!(printed.ends_with("unaccounted: 0\n"), "{printed}");
        printed
    }

    async fn end(mut self) {
        self.ledger();
        self.process.terminate();
        assert_eq!(self.process.exit_code().await, Some(0), "{}", self.log());
    }
}

async fn backend() -> (World, String) {
    let port = free_port();
    let world = World::start(&BACKEND.replace("BACKEND", &port.to_string())).await;
    (world, format!("{{ type: otlp, endpoint: \"http://127.0.0.1:{port}\" }}"))
}

/// The lines that are in its history now.
async fn arrived(world: &World) -> Vec<String> {
    let records = world.history(None, "local", "shop").await.unwrap();
    let mut bodies: Vec<String> =
        records.iter().filter_map(|record| Some(record["body"].as_str()?.to_owned())).collect();
    bodies.sort();
    bodies
}

/// One pipeline to these sinks.
fn to(sinks: &[(&str, &str)]) -> String {
    let names: Vec<&str> = sinks.iter().map(|(name, _)| *name).collect();
    let sinks: String = sinks.iter().map(|(name, sink)| format!("  {name}: {sink}\n")).collect();
    format!("pipelines: [{{ name: logs, sinks: [{}] }}]\nsinks:\n{sinks}", names.join(", "))
}

#[tokio::test(flavor = "multi_thread")]
async fn sinks_come_go_and_move_under_load_and_every_line_arrives() {
    let ((first, to_first), (second, to_second)) = (backend().await, backend().await);
    let mut running = Running::start(&to(&[("one", &to_first)])).await;
    let mut sent = Vec::new();
    let steps = [
        to(&[("one", &to_first), ("two", &to_second)]),
        // Their places in the file have no meaning.
        to(&[("two", &to_second), ("more", "{ type: discard }"), ("one", &to_first)]),
        // The same sink, elsewhere.
        to(&[("one", &to_second)]),
        to(&[("one", &to_first)]),
    ];
    for round in 0..5 {
        for (number, step) in steps.iter().enumerate() {
            for line in 0..10 {
                let body = format!("{round} {number} {line:02}");
                running.send(&body).await;
                sent.push(body);
            }
            running.reload(step, "applied").await;
        }
    }
    sent.sort();
    // Who was served before the change may still be sending when another goes on: at least once.
    let at_both = async || {
        let mut all = [arrived(&first).await, arrived(&second).await].concat();
        all.sort();
        all.dedup();
        all
    };
    eventually("every line arrives", async || at_both().await == sent).await;
    let in_first = arrived(&first).await;
    assert!(in_first.len() >= 100 && in_first.len() <= 160, "{}", in_first.len());
    assert!(running.ledger().contains("more"), "{}", running.ledger());
    running.end().await;
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_sink_goes_where_it_moves_and_expires_when_it_is_removed() {
    let (there, to_there) = backend().await;
    let nobody = |port: u16| format!("{{ type: otlp, endpoint: \"http://127.0.0.1:{port}\", timeout: 1s }}");
    let (moves, goes) = (nobody(free_port()), nobody(free_port()));
    let mut running = Running::start(&to(&[("moves", &moves), ("goes", &goes)])).await;
    let sent: Vec<String> = (0..20).map(|line| format!("line {line:02}")).collect();
    for line in &sent {
        running.send(line).await;
    }
    running.reload(&to(&[("moves", &to_there)]), "applied").await;
    eventually("every line arrives", async || arrived(&there).await == sent).await;
    let ledger = running.ledger();
    assert!(ledger.contains("removed 20"), "{ledger}");
    running.end().await;
    there.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_configuration_changes_nothing_and_says_why() {
    let (there, to_there) = backend().await;
    let good = to(&[("one", &to_there)]);
    let mut running = Running::start(&good).await;
    let faulty = [
        (good.replace("sinks: [one]", "sinks: [none]"), "there is no sink `none`"),
        (good.replace("pipelines:", "pipelines"), "trommel.yaml:3:"),
        (good.replace("type: otlp", "type: otpl"), "`otpl`"),
        (format!("{good}plugins: {{ own: {{ module: ./none.wasm, grant: {{}} }} }}\n"), "none.wasm"),
        (format!("{good}journal: {{ max: 128MiB }}\n"), "journal: differs from what runs"),
        (format!("{good}identity: {{ stamp: false }}\n"), "identity: differs from what runs"),
        (
            to(&[("one", "{ type: otlp, endpoint: \"https://127.0.0.1:1\", tls: { ca: none.pem } }")]),
            "none.pem",
        ),
    ];
    for (number, (yaml, why)) in faulty.iter().enumerate() {
        running.reload(yaml, "refused").await;
        let log = running.log();
        assert!(log.contains("is refused: nothing changes") && log.contains(why), "{why}: {log}");
        running.send(&format!("after {number}")).await;
    }
    running.reload(&good, "unchanged").await;
    eventually("every line arrives", async || arrived(&there).await.len() == faulty.len()).await;
    running.end().await;
    there.end().await;
}
