//! Starts the real servers, each with a folder and ports of its own on loopback.
//!
//! Whoever holds a server's struct has the server: dropping it kills the process and removes the folder. A server that
//! does not come up fails the test with what was waited for and the end of its log.

#![allow(dead_code, reason = "a test takes of a server what it needs")]

use super::installed;
use crate::shutdown::{Process, free_port};
use std::ffi::OsStr;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A JVM beside other tests on two cores takes seconds; a server that needs longer than this will not come.
const START: Duration = Duration::from_secs(60);

/// A server's process, its folder, and how to start it again.
pub struct Server {
    name: &'static str,
    process: Option<Process>,
    pub command: Command,
    folder: tempfile::TempDir,
    readiness: Readiness,
}

/// What its makers document as the sign that it serves.
pub enum Readiness {
    Answers(String),
    Prints(&'static str),
}

impl Server {
    /// Not started yet; `command` takes its arguments.
    pub fn new(name: &'static str, program: impl AsRef<OsStr>, readiness: Readiness) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        command.current_dir(folder.path());
        Server { name, process: None, command, folder, readiness }
    }

    /// A file in the server's folder, where its relative paths begin.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Everything that the server keeps: its data, its log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("server.log")).unwrap_or_default()).into_owned()
    }

    /// Starts it, or starts it again on the same ports with the same data; back when it is ready.
    pub async fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("server.log")).unwrap();
        // What it printed in an earlier life is no sign of readiness.
        let printed = log.metadata().unwrap().len() as usize;
        self.command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = self.command.spawn();
        let child = child.unwrap_or_else(|error| panic!("{} cannot be started: {error}", self.name));
        self.process = Some(Process(child));
        let client = crate::world::client();
        let until = tokio::time::Instant::now() + START;
        while !self.is_ready(&client, printed).await {
            let exit = self.process.as_mut().and_then(|process| process.0.try_wait().unwrap());
            let late = tokio::time::Instant::now() >= until;
            assert!(exit.is_none() && !late, "{}", self.missing(exit));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn is_ready(&self, client: &reqwest::Client, printed: usize) -> bool {
        match &self.readiness {
            Readiness::Prints(word) => self.log().get(printed..).is_some_and(|new| new.contains(word)),
            Readiness::Answers(url) => {
                let answer = client.get(url).timeout(Duration::from_secs(5)).send().await;
                answer.is_ok_and(|answer| answer.status() == 200)
            }
        }
    }

    fn missing(&self, exit: Option<std::process::ExitStatus>) -> String {
        let sign = match &self.readiness {
            Readiness::Prints(word) => format!("did not print `{word}`"),
            Readiness::Answers(url) => format!("did not answer 200 at {url}"),
        };
        let end = exit.map_or(format!("within {START:?}"), |status| format!("and ended with {status}"));
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n");
        format!("{} {sign} {end}. The end of its log:\n{tail}", self.name)
    }

    /// Kills it; `start` brings it back with what it had on disk.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks it to stop, as a service manager does; the exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        let mut process = self.process.take().expect("the server runs");
        process.terminate();
        process.exit_code().await
    }

    /// The exit code of one that ends by itself.
    pub async fn ended(&mut self) -> Option<i32> {
        self.process.take().expect("the server runs").exit_code().await
    }

    /// Its connections stay open and nothing is answered, until `go_on`.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("the server runs");
        let pid = process.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

/// Jaeger v2, all in one, traces in memory.
pub struct Jaeger {
    pub server: Server,
    pub otlp_grpc: u16,
    pub otlp_http: u16,
    query: u16,
}

impl Jaeger {
    pub async fn start() -> Jaeger {
        let [otlp_grpc, otlp_http, query, query_grpc, health]: [u16; 5] =
            std::array::from_fn(|_| free_port());
        let configuration = format!(
            r#"
service:
  extensions: [jaeger_storage, jaeger_query, healthcheckv2]
  pipelines: {{ traces: {{ receivers: [otlp], exporters: [jaeger_storage_exporter] }} }}
  telemetry: {{ metrics: {{ level: none }}, logs: {{ level: warn }} }}
extensions:
  healthcheckv2: {{ use_v2: true, http: {{ endpoint: "127.0.0.1:{health}" }} }}
  jaeger_storage: {{ backends: {{ mem: {{ memory: {{ max_traces: 1000 }} }} }} }}
  jaeger_query:
    storage: {{ traces: mem }}
    grpc: {{ endpoint: "127.0.0.1:{query_grpc}" }}
    http: {{ endpoint: "127.0.0.1:{query}" }}
receivers:
  otlp: {{ protocols: {{ grpc: {{ endpoint: "127.0.0.1:{otlp_grpc}" }}, http: {{ endpoint: "127.0.0.1:{otlp_http}" }} }} }}
exporters: {{ jaeger_storage_exporter: {{ trace_storage: mem }} }}
"#
        );
        let ready = Readiness::Answers(format!("http://127.0.0.1:{health}/status"));
        let mut server = Server::new("Jaeger", installed("TROMMEL_TEST_JAEGER"), ready);
        std::fs::write(server.path("jaeger.yaml"), configuration).unwrap();
        server.command.args(["--config", "jaeger.yaml"]);
        server.start().await;
        Jaeger { server, otlp_grpc, otlp_http, query }
    }

    /// A path of the query API.
    pub fn query(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.query)
    }
}

/// Prometheus 3 that takes remote write and OTLP, and keeps exemplars.
pub struct Prometheus {
    pub server: Server,
    pub port: u16,
}

impl Prometheus {
    pub async fn start() -> Prometheus {
        Prometheus::start_with("{}").await
    }

    /// With a configuration file of this text, such as `storage: { tsdb: { out_of_order_time_window: 30m } }`.
    pub async fn start_with(configuration: &str) -> Prometheus {
        let port = free_port();
        let ready = Readiness::Answers(format!("http://127.0.0.1:{port}/-/ready"));
        let mut server = Server::new("Prometheus", installed("TROMMEL_TEST_PROMETHEUS"), ready);
        std::fs::write(server.path("prometheus.yml"), configuration).unwrap();
        server.command.args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
        server.command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        server.command.args(["--web.enable-remote-write-receiver", "--web.enable-otlp-receiver"]);
        server.command.arg("--enable-feature=exemplar-storage");
        server.start().await;
        Prometheus { server, port }
    }

    /// A path of its HTTP API, such as `/api/v1/query`.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn remote_write(&self) -> String {
        self.url("/api/v1/write")
    }
}

/// VictoriaMetrics, a single node.
pub struct VictoriaMetrics {
    pub server: Server,
    pub port: u16,
}

impl VictoriaMetrics {
    pub async fn start() -> VictoriaMetrics {
        let port = free_port();
        let ready = Readiness::Answers(format!("http://127.0.0.1:{port}/health"));
        let mut server = Server::new("VictoriaMetrics", installed("TROMMEL_TEST_VICTORIA_METRICS"), ready);
        server.command.args(["-storageDataPath=data", "-retentionPeriod=12"]);
        server.command.arg(format!("-httpListenAddr=127.0.0.1:{port}"));
        server.start().await;
        VictoriaMetrics { server, port }
    }

    /// A path of its HTTP API, such as `/api/v1/export`.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn remote_write(&self) -> String {
        self.url("/api/v1/write")
    }

    /// What was taken becomes visible to queries at once.
    pub async fn flush(&self) {
        let answer = crate::world::client().get(self.url("/internal/force_flush")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "VictoriaMetrics flushes");
    }
}

/// FerretDB 1 on SQLite, patched so that the Rust driver can log in (xtask's recipe). Keep its collections small:
/// each range read is a scan. It proves nothing of `clusteredIndex`, roles and write concern.
pub struct FerretDb {
    pub server: Server,
    pub port: u16,
    /// Where a driver connects, with name and password if it has any.
    pub uri: String,
}

/// How clients of a FerretDB come in.
#[derive(Clone, Copy, PartialEq)]
pub enum Entrance {
    Plain,
    /// User `writer` with password `secret` of database `trommel`.
    Scram,
    /// The same over TLS, for `localhost`; the authority is `ca.pem` in the server's folder.
    Tls,
}

impl FerretDb {
    pub async fn start(entrance: Entrance) -> FerretDb {
        let [port, debug]: [u16; 2] = std::array::from_fn(|_| free_port());
        let ready = Readiness::Answers(format!("http://127.0.0.1:{debug}/debug/readyz"));
        let mut server = Server::new("FerretDB", installed("TROMMEL_TEST_FERRETDB"), ready);
        for folder in ["data", "state"] {
            std::fs::create_dir(server.path(folder)).unwrap();
        }
        server.command.args(["--handler=sqlite", "--sqlite-url=file:data/", "--state-dir=state"]);
        server.command.args([&format!("--debug-addr=127.0.0.1:{debug}"), "--telemetry=disable"]);
        if entrance != Entrance::Plain {
            server.command.args(["--test-enable-new-auth", "--setup-database=trommel"]);
            server.command.args(["--setup-username=writer", "--setup-password=secret"]);
        }
        let uri = match entrance {
            Entrance::Plain => format!("mongodb://127.0.0.1:{port}/trommel"),
            Entrance::Scram => format!("mongodb://writer:secret@127.0.0.1:{port}/trommel"),
            Entrance::Tls => {
                let authority = crate::tls::Authority::new("ours");
                authority.write(&server.path("ca.pem"));
                authority.sign(server.folder(), "server", "localhost");
                server
                    .command
                    .args(["--listen-tls-cert-file=server.pem", "--listen-tls-key-file=server.key"]);
                let file = server.path("ca.pem").display().to_string();
                format!("mongodb://writer:secret@localhost:{port}/trommel?tls=true&tlsCAFile={file}")
            }
        };
        let listener = if entrance == Entrance::Tls { "tls" } else { "addr" };
        server.command.arg(format!("--listen-{listener}=127.0.0.1:{port}"));
        if entrance == Entrance::Tls {
            // Else it takes plain connections at its usual port too.
            server.command.arg("--listen-addr=");
        }
        server.start().await;
        FerretDb { server, port, uri }
    }
}

/// mongo-java-server: everything in memory, with change streams. It accepts TTL and time series and ignores them.
pub struct MongoWire {
    pub server: Server,
    pub port: u16,
    pub uri: String,
}

impl MongoWire {
    pub async fn start() -> MongoWire {
        let source = installed("TROMMEL_TEST_MONGO_WIRE");
        let library = source.parent().expect("it stands in a folder").join("lib/*");
        let port = free_port();
        let mut server = Server::new("mongo-java-server", "java", Readiness::Prints("ready"));
        server.command.args(["-Xmx256m", "-cp"]).arg(library).arg(source).arg(port.to_string());
        server.start().await;
        MongoWire { server, port, uri: format!("mongodb://127.0.0.1:{port}/trommel?directConnection=true") }
    }
}

/// telegram-test-api: the Bot API as others understood it. Lenient: it takes what the real one refuses.
pub struct Telegram {
    pub server: Server,
    pub port: u16,
}

impl Telegram {
    pub async fn start() -> Telegram {
        let port = free_port();
        let mut server = Server::new("telegram-test-api", "node", Readiness::Prints("ready"));
        server.command.arg(installed("TROMMEL_TEST_TELEGRAM")).arg(port.to_string());
        server.start().await;
        Telegram { server, port }
    }

    /// What stands in place of `https://api.telegram.org`.
    pub fn api(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All that bots and users wrote in the chats of this bot, oldest first.
    pub async fn history(&self, token: &str) -> Vec<serde_json::Value> {
        let request = crate::world::client().post(format!("{}/getUpdatesHistory", self.api()));
        let answer = request.json(&serde_json::json!({ "token": token })).send().await.unwrap();
        let mut body: serde_json::Value = answer.json().await.unwrap();
        match body["result"].take() {
            serde_json::Value::Array(updates) => updates,
            other => panic!("the history of a bot is {other}"),
        }
    }
}

/// Gives a program that reads or sends a while to end; what it printed.
pub async fn output_of(mut command: Command, what: &str, within: Duration) -> String {
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let output = tokio::time::timeout(within, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{what} did not end within {within:?}")).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what} ended with {}:\n{said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// What these lines of Python print; they find PyMongo's client of this address as `client`.
pub async fn pymongo(uri: &str, lines: &str) -> String {
    let program = format!(
        "import sys, pymongo\nclient = pymongo.MongoClient(sys.argv[1], serverSelectionTimeoutMS=5000)\n{lines}"
    );
    let mut command = Command::new(installed("TROMMEL_TEST_PYTHON"));
    command.args(["-c", &program, uri]);
    output_of(command, "PyMongo", Duration::from_secs(30)).await
}

async fn status_of<F: Future<Output = reqwest::Result<reqwest::Response>>>(request: F) -> u16 {
    request.await.map_or(0, |answer| answer.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn ferretdb_keeps_its_data_over_a_restart_and_asks_who_comes() {
    const WRITE: &str = "client.get_default_database().lines.insert_one({'_id': 1})";
    const READ: &str = "print(client.get_default_database().lines.count_documents({}))";
    for entrance in [Entrance::Plain, Entrance::Scram, Entrance::Tls] {
        let mut ferret = FerretDb::start(entrance).await;
        pymongo(&ferret.uri, WRITE).await;
        ferret.server.kill();
        ferret.server.start().await;
        assert_eq!(pymongo(&ferret.uri, READ).await.trim(), "1");
        if entrance != Entrance::Plain {
            let stranger = ferret.uri.replace(":secret@", ":wrong@");
            let refused = format!("try: {READ}\nexcept pymongo.errors.OperationFailure: print('refused')");
            assert_eq!(pymongo(&stranger, &refused).await.trim(), "refused");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mongo_java_server_takes_a_document() {
    let mongo = MongoWire::start().await;
    let lines = "c = client.get_default_database().lines\nc.insert_one({'_id': 1})\nprint(c.count_documents({}), client.server_info()['version'])";
    assert_eq!(pymongo(&mongo.uri, lines).await.trim(), "1 7.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metric_stores_answer_queries_and_the_test_of_telegram_keeps_messages() {
    let (prometheus, victoria) = (Prometheus::start().await, VictoriaMetrics::start().await);
    let client = crate::world::client();
    for url in [prometheus.url("/api/v1/query?query=1"), victoria.url("/api/v1/query?query=1")] {
        assert_eq!(status_of(client.get(url).send()).await, 200);
    }
    victoria.flush().await;
    let telegram = Telegram::start().await;
    let send = client.post(format!("{}/bot1:token/sendMessage", telegram.api()));
    let message = serde_json::json!({ "chat_id": "-1", "text": "hello" });
    assert_eq!(status_of(send.json(&message).send()).await, 200);
    let history = telegram.history("1:token").await;
    assert_eq!(history.len(), 1, "{history:?}");
    assert_eq!(history[0]["message"]["text"], "hello", "{history:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "Jaeger did not answer 200 at")]
async fn a_server_that_ends_at_once_says_what_is_missing() {
    let ready = Readiness::Answers(format!("http://127.0.0.1:{}/", free_port()));
    let mut server = Server::new("Jaeger", "false", ready);
    server.start().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_answers_when_it_goes_on() {
    let victoria = VictoriaMetrics::start().await;
    let client = crate::world::client();
    victoria.server.freeze();
    let ask = || client.get(victoria.url("/health")).timeout(Duration::from_millis(300)).send();
    assert_eq!(status_of(ask()).await, 0);
    victoria.server.go_on();
    crate::world::eventually("an answer after the pause", || async { status_of(ask()).await == 200 }).await;
}
