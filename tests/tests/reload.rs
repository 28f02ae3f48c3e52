//! The configuration changes while the collector runs: pipelines and sinks come, go and move, and no connection is dropped.

use crate::durable::BACKEND;
use crate::shutdown::{Process, binary, free_port, is_ready};
use crate::world::{Tail, World, client, eventually, logs, read_history};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

/// A collector as a process with its file and its log, and one connection to it that is never opened again.
pub struct Running {
    process: Process,
    folder: tempfile::TempDir,
    console: u16,
    grpc: u16,
    http: u16,
    connection: Connection,
    ports: String,
}

/// To the receiver of OTLP over HTTP. Closed by the other side it fails.
pub struct Connection(TcpStream);

impl Connection {
    async fn open(port: u16) -> Connection {
        Connection(TcpStream::connect(("127.0.0.1", port)).await.unwrap())
    }

    /// One request with these lines; it is acknowledged.
    pub async fn send(&mut self, lines: &[&str]) {
        let records: Vec<String> =
            lines.iter().map(|line| format!(r#"{{"body":{{"stringValue":"{line}"}}}}"#)).collect();
        let records = records.join(",");
        let body = format!(
            r#"{{"resourceLogs":[{{"resource":{{"attributes":[{{"key":"project.id","value":{{"stringValue":"shop"}}}}]}},"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}"#
        );
        let request = format!(
            "POST /v1/logs HTTP/1.1\r\nhost: collector\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let mut part = [0; 1024];
            let read = self.0.read(&mut part).await.unwrap();
            assert!(read > 0, "the connection was closed: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&part[..read]);
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("{}"), "{answer}");
    }
}

impl Running {
    /// `rest` is the configuration without its ports.
    async fn start(rest: &str) -> Running {
        Running::start_beside(&[], rest).await
    }

    /// With these files beside the configuration.
    pub async fn start_beside(files: &[(&str, &[u8])], rest: &str) -> Running {
        let [grpc, http, console] = [free_port(), free_port(), free_port()];
        let ports = format!(
            "receivers: {{ otlp: {{ grpc: {{ listen: 127.0.0.1:{grpc} }}, http: {{ listen: 127.0.0.1:{http} }} }} }}\nconsole: {{ listen: 127.0.0.1:{console} }}\n"
        );
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let file = folder.path().join("trommel.yaml");
        std::fs::write(&file, format!("{ports}{rest}")).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(binary());
        command.args(["run", "--config"]).arg(&file).stdout(Stdio::null()).stderr(log);
        let process = Process(command.spawn().unwrap());
        eventually("ready", || is_ready(console)).await;
        let connection = Connection::open(http).await;
        Running { process, folder, console, grpc, http, connection, ports }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("trommel.yaml")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Another configuration, whole at once: the file may be looked at any time.
    fn write(&self, rest: &str) {
        let aside = self.folder.path().join("aside.yaml");
        std::fs::write(&aside, format!("{}{rest}", self.ports)).unwrap();
        std::fs::rename(&aside, self.file()).unwrap();
    }

    /// Waits until it was read again with this result.
    async fn reload(&self, rest: &str, result: &str) {
        let before = self.reloads(result).await;
        self.write(rest);
        self.process.signal("HUP");
        eventually(result, || async { self.reloads(result).await > before }).await;
    }

    async fn reloads(&self, result: &str) -> u64 {
        self.metric(&format!("trommel_config_reloads_total{{result=\"{result}\"}}")).await
    }

    /// The value of a line of `/metrics`; 0 where it does not stand.
    pub async fn metric(&self, line: &str) -> u64 {
        let text = client().get(self.url("/metrics")).send().await.unwrap().text().await.unwrap();
        text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0)
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.console)
    }

    /// What `/v1/plugins` says of this one.
    pub async fn plugin(&self, name: &str) -> Value {
        let all: Value = client().get(self.url("/v1/plugins")).send().await.unwrap().json().await.unwrap();
        all.as_array().unwrap().iter().find(|plugin| plugin["name"] == name).unwrap().clone()
    }

    /// Acknowledged, on the one connection.
    pub async fn send(&mut self, line: &str) {
        self.connection.send(&[line]).await;
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

    pub async fn end(mut self) {
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

#[tokio::test(flavor = "multi_thread")]
async fn the_file_alone_is_enough_and_so_is_the_signal() {
    let (there, to_there) = backend().await;
    let with = |sinks: &[(&str, &str)]| {
        format!(
            "{}plugins: {{ redact: {{ module: \"builtin:redact\", secrets: {{ join: \"${{file:join.key}}\" }} }} }}\n",
            to(sinks).replace("sinks: [", "plugins: [redact], sinks: [")
        )
    };
    let mut running = Running::start_beside(&[("join.key", b"one")], &with(&[("one", &to_there)])).await;
    // The file changes, and nobody says so.
    running.write(&with(&[("one", &to_there), ("two", "{ type: discard }")]));
    eventually("the file is read", async || running.reloads("applied").await == 1).await;
    running.send("first").await;
    assert!(running.ledger().contains("two"), "{}", running.ledger());
    // What the file names changes, which nobody looks at, and then the signal comes.
    std::fs::write(running.folder.path().join("join.key"), "two").unwrap();
    running.process.signal("HUP");
    eventually("the signal is heard", async || running.reloads("applied").await == 2).await;
    running.process.signal("HUP");
    eventually("the signal is heard again", async || running.reloads("unchanged").await == 1).await;
    assert_eq!(running.plugin("redact").await["by"], "config");
    running.send("second").await;
    eventually("the lines arrive", async || arrived(&there).await == ["first", "second"]).await;
    running.end().await;
    there.end().await;
}

/// Requests of a few records, one after the other over one connection, until it is told to stop.
struct Load {
    is_over: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    sender: tokio::task::JoinSet<()>,
}

const RECORDS: usize = 5;

impl Load {
    async fn start(running: &Running) -> Load {
        let (is_over, sent): (Arc<AtomicBool>, Arc<AtomicUsize>) = Default::default();
        let mut connection = Connection::open(running.http).await;
        let (stop, all) = (is_over.clone(), sent.clone());
        let mut sender = tokio::task::JoinSet::new();
        sender.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let request = all.load(Ordering::Relaxed);
                let lines: Vec<String> = (0..RECORDS).map(|line| format!("{request} {line}")).collect();
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                connection.send(&lines).await;
                all.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        });
        Load { is_over, sent, sender }
    }

    /// Waits for so many more requests.
    async fn goes_on(&self, requests: usize) {
        let until = self.sent.load(Ordering::Relaxed) + requests;
        eventually("more requests", async || self.sent.load(Ordering::Relaxed) >= until).await;
    }

    /// Ends it. The stamp of each request: all of its records must have the same.
    async fn end(self, running: &Running) -> Vec<String> {
        self.is_over.store(true, Ordering::Relaxed);
        self.sender.join_all().await;
        let sent = self.sent.load(Ordering::Relaxed);
        let url = running.url("/v1/tenants/local/projects/shop/logs");
        let http = client();
        let kept = async || read_history(&http, &url, None).await.unwrap_or_default();
        eventually("every record is kept", async || kept().await.len() >= sent * RECORDS).await;
        let records = kept().await;
        assert_eq!(records.len(), sent * RECORDS);
        let mut stamps = vec![Vec::new(); sent];
        for record in &records {
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            let request: usize = text(&record["body"]).split(' ').next().unwrap().parse().unwrap();
            stamps[request].push(text(&record["attributes"]["stamp"]));
        }
        for (request, stamps) in stamps.iter().enumerate() {
            let is_same = stamps.len() == RECORDS && stamps.iter().all(|stamp| *stamp == stamps[0]);
            assert!(is_same, "request {request}: {stamps:?}");
        }
        stamps.into_iter().map(|mut of| of.remove(0)).collect()
    }
}

/// The stamper with this setting, and this section `swap`.
fn stamping(mark: &str, swap: &str) -> String {
    format!(
        "sinks: {{ streams: {{ type: streams }} }}
plugins:
  p: {{ module: ./p.wasm, on_failure: pass, instance: shared, grant: {{ reads: ['item:stamp'], writes: ['item:stamp', drop] }}, swap: {{ {swap} }}, config: {{ mark: {mark} }} }}
pipelines: [{{ name: logs, plugins: [p], sinks: [streams] }}]
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn other_settings_of_a_plugin_come_into_use_under_load_and_each_request_has_one_of_them() {
    let guest = artifacts::guest("stamper").unwrap();
    let running = Running::start_beside(&[("p.wasm", guest)], &stamping("a", "watch: 0s")).await;
    let load = Load::start(&running).await;
    load.goes_on(3).await;
    let mut marks = vec!["0a".to_owned()];
    for round in 0..10 {
        let mark = ["b", "a"][round % 2];
        running.reload(&stamping(mark, "watch: 0s"), "applied").await;
        let shown = running.plugin("p").await;
        assert_eq!(
            (&shown["by"], &shown["stage"], &shown["failure"]),
            (&json!("config"), &json!("active"), &Value::Null)
        );
        // The one on its way may have begun before.
        load.goes_on(2).await;
        marks.push(format!("0{mark}"));
    }
    let mut stamps = load.end(&running).await;
    stamps.dedup();
    assert_eq!(stamps, marks);
    running.end().await;
}

/// To the receiver of OTLP over gRPC, on a connection that is never opened again.
async fn channel(port: u16) -> LogsServiceClient<Channel> {
    let mut stream = Some(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = stream.take().ok_or_else(|| std::io::Error::other("the connection was closed"));
        async move { stream.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://collector").connect_with_connector(connector).await;
    LogsServiceClient::new(channel.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_and_a_tail_stay_while_a_plugin_comes_and_goes() {
    let with = stamping("a", "watch: 0s");
    let of_the_plugin = |line: &&str| line.starts_with("plugins:") || line.starts_with("  p:");
    let without: Vec<&str> = with.lines().filter(|line| !of_the_plugin(line)).collect();
    let without = without.join("\n").replace("plugins: [p]", "plugins: []") + "\n";
    let guest = artifacts::guest("stamper").unwrap();
    let running = Running::start_beside(&[("p.wasm", guest)], &without).await;
    let mut channel = channel(running.grpc).await;
    let tail = running.url("/v1/tenants/local/projects/shop/tail");
    let mut tail = Tail::open(&client(), &tail, None, None).await;
    for round in 0..6 {
        let (yaml, stamp) = [(&with, json!("0a")), (&without, Value::Null)][round % 2].clone();
        running.reload(yaml, "applied").await;
        let line = format!("line {round}");
        channel.export(logs(&[("project.id", "shop")], &[&line])).await.unwrap();
        let event = loop {
            let event = tail.next().await.expect("the tail goes on");
            if event.kind == "log" {
                break event;
            }
        };
        assert_eq!((&event.data["body"], &event.data["attributes"]["stamp"]), (&json!(line), &stamp));
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_settings_of_a_plugin_go_on_trial_first_where_that_is_wanted() {
    let guest = artifacts::guest("stamper").unwrap();
    let running = Running::start_beside(&[("p.wasm", guest)], &stamping("a", "watch: 0s")).await;
    let load = Load::start(&running).await;
    load.goes_on(3).await;
    let stage = async || running.plugin("p").await["candidate"]["stage"].clone();
    // Nothing of it shows.
    running.reload(&stamping("b", "shadow: 1h, watch: 0s"), "applied").await;
    assert_eq!(stage().await, "shadow");
    eventually("the difference is seen", async || {
        running.plugin("p").await["candidate"]["differences"]["changed"].as_u64() > Some(0)
    })
    .await;
    // Back to what runs: the trial is over.
    running.reload(&stamping("a", "shadow: 1h, watch: 0s"), "applied").await;
    assert_eq!(running.plugin("p").await["candidate"], Value::Null);
    load.goes_on(2).await;
    let stamps = load.end(&running).await;
    assert!(stamps.iter().all(|stamp| stamp == "0a"), "{stamps:?}");
    // A canary has some of the streams, a shadow becomes active when its time is over.
    running.reload(&stamping("c", "canary: { share: 50%, for: 1h }, watch: 0s"), "applied").await;
    assert_eq!(stage().await, "canary");
    running.reload(&stamping("a", "watch: 0s"), "applied").await;
    running.reload(&stamping("d", "shadow: 1s, watch: 1h"), "applied").await;
    eventually("it is active", async || running.plugin("p").await["stage"] == "watching").await;
    let shown = running.plugin("p").await;
    assert_eq!((&shown["by"], &shown["candidate"]), (&json!("config"), &Value::Null));
    running.end().await;
}
