//! A whole collector in this process, on ports of its own, and what a test asks of it.
//!
//! Whoever builds a `World` ends it with [`World::end`], which stops the collector as SIGTERM does and asserts that
//! the ledger has nothing unaccounted.

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse, logs_service_client::LogsServiceClient,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde_json::Value;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use trommel::app::App;
use trommel::config::Config;

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A collector, and the folder it keeps its data in.
pub struct World {
    pub app: App,
    pub http: reqwest::Client,
    pub folder: tempfile::TempDir,
}

impl World {
    /// Starts a collector with this configuration; use port 0 for its listeners.
    pub async fn start(yaml: &str) -> World {
        let folder = tempfile::tempdir().expect("a temporary folder");
        World::start_in(folder, yaml).await
    }

    /// The same in a folder that has data already.
    pub async fn start_in(folder: tempfile::TempDir, yaml: &str) -> World {
        let config =
            Config::parse(yaml, folder.path(), "test.yaml").unwrap_or_else(|faults| panic!("{faults}"));
        World::start_config(folder, config).await
    }

    /// The same with settings that no file has.
    pub async fn start_config(folder: tempfile::TempDir, mut config: Config) -> World {
        // Compiling takes a second in a build for tests; what one test compiled serves all.
        config.compiled = std::env::temp_dir().join("trommel-tests-compiled");
        let app = App::start(config).await.expect("the collector starts");
        app.settled().await;
        World { app, http: client(), folder }
    }

    pub fn grpc(&self) -> SocketAddr {
        self.app.grpc.expect("the configuration has a gRPC listener")
    }

    pub fn otlp_http(&self) -> SocketAddr {
        self.app.http.expect("the configuration has an HTTP listener")
    }

    pub fn console(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.console.expect("the configuration has a console"))
    }

    /// Sends logs over gRPC.
    pub async fn send(
        &self,
        token: Option<&str>,
        request: ExportLogsServiceRequest,
    ) -> Result<ExportLogsServiceResponse, tonic::Status> {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", self.grpc()))
            .expect("an address")
            .connect()
            .await;
        let mut client =
            LogsServiceClient::new(channel.map_err(|error| tonic::Status::unavailable(error.to_string()))?)
                .max_decoding_message_size(64 << 20)
                .max_encoding_message_size(128 << 20);
        client.export(with_token(request, token)).await.map(tonic::Response::into_inner)
    }

    /// Reads the whole history of a stream.
    pub async fn history(&self, token: Option<&str>, tenant: &str, project: &str) -> Result<Vec<Value>> {
        let url = self.console(&format!("/v1/tenants/{tenant}/projects/{project}/logs"));
        read_history(&self.http, &url, token).await
    }

    /// Waits until the stream has `count` records.
    pub async fn history_of(
        &self,
        token: Option<&str>,
        tenant: &str,
        project: &str,
        count: usize,
    ) -> Vec<Value> {
        let mut found = Vec::new();
        let until = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < until {
            found = self.history(token, tenant, project).await.unwrap_or_default();
            if found.len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(found.len(), count, "records of {tenant}/{project} in its history");
        found
    }

    /// Follows a stream's tail.
    pub async fn tail(&self, token: Option<&str>, tenant: &str, project: &str, after: Option<&str>) -> Tail {
        let url = self.console(&format!("/v1/tenants/{tenant}/projects/{project}/tail"));
        Tail::open(&self.http, &url, token, after).await
    }

    pub async fn metrics(&self) -> String {
        let answer = self.http.get(self.console("/metrics")).send().await.expect("the console answers");
        answer.text().await.expect("text")
    }

    /// The value of a line of `/metrics`; 0 where others of its family stand and this one does not. A family of which
    /// nothing stands may have another name by now: `None`.
    pub async fn metric(&self, line: &str) -> Option<f64> {
        let text = self.metrics().await;
        let found = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
        let family = line.split('{').next().unwrap_or(line);
        let is_of_family = |l: &str| l.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', ' ']));
        found.or_else(|| text.lines().any(is_of_family).then_some(0.0))
    }

    /// Stops the collector as SIGTERM does; the ledger must add up.
    pub async fn end(self) -> tempfile::TempDir {
        let unaccounted = self.app.stop().await;
        assert_eq!(unaccounted, Vec::<String>::new(), "records that the ledger does not account for");
        self.folder
    }
}

/// The events of a tail.
pub struct Tail {
    bytes: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    buffer: String,
}

/// One server-sent event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub kind: String,
    pub id: String,
    pub data: Value,
}

impl Tail {
    /// Follows the stream at this address of a console.
    pub async fn open(http: &reqwest::Client, url: &str, token: Option<&str>, after: Option<&str>) -> Tail {
        let mut request = authorized(http.get(url), token);
        if let Some(position) = after {
            request = request.header("last-event-id", position);
        }
        let answer = request.send().await.expect("the console answers");
        assert_eq!(answer.status(), 200, "the tail at {url}");
        Tail { bytes: Box::pin(answer.bytes_stream()), buffer: String::new() }
    }

    /// The next event; `None` when the server ended the stream.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.buffer.find("\n\n") {
                let text: String = self.buffer.drain(..end + 2).collect();
                if let Some(event) = parse_event(&text) {
                    return Some(event);
                }
                continue;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.bytes.next())
                .await
                .expect("an event within the test's patience")?;
            self.buffer.push_str(std::str::from_utf8(&chunk.ok()?).expect("UTF-8"));
        }
    }

    /// The bodies of the next `count` log events.
    pub async fn bodies(&mut self, count: usize) -> Vec<String> {
        let mut bodies = Vec::new();
        while bodies.len() < count {
            let event = self.next().await.expect("the tail goes on");
            match event.kind.as_str() {
                "log" => bodies.push(event.data["body"].as_str().unwrap_or_default().to_owned()),
                "alive" => {}
                other => panic!("a tail of lines has an event `{other}`: {}", event.data),
            }
        }
        bodies
    }
}

/// Reads all pages of the history at this address of a console.
pub async fn read_history(http: &reqwest::Client, url: &str, token: Option<&str>) -> Result<Vec<Value>> {
    let first = format!("{url}?limit=10000");
    let mut records = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let page = next.as_ref().map_or(first.clone(), |cursor| format!("{first}&cursor={cursor}"));
        let answer = authorized(http.get(page), token).send().await?;
        ensure!(answer.status() == 200, "history answered {}", answer.status());
        let page: Value = answer.json().await?;
        records.extend(page["records"].as_array().context("records")?.iter().cloned());
        match page["next"].as_str() {
            Some(cursor) if !cursor.is_empty() => next = Some(cursor.to_owned()),
            _ => return Ok(records),
        }
    }
}

fn parse_event(text: &str) -> Option<Event> {
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name).map(|rest| rest.trim_start().to_owned()))
    };
    let data = field("data:")?;
    Some(Event {
        kind: field("event:").unwrap_or_default(),
        id: field("id:").unwrap_or_default(),
        data: serde_json::from_str(&data).unwrap_or(Value::String(data)),
    })
}

/// An HTTP client that trusts nobody in particular; for loopback.
pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().build().expect("a client")
}

pub fn authorized(request: reqwest::RequestBuilder, token: Option<&str>) -> reqwest::RequestBuilder {
    match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    }
}

pub fn with_token<T>(message: T, token: Option<&str>) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a token"));
    }
    request
}

/// Waits until the condition holds.
pub async fn eventually<F, W>(what: &str, condition: W)
where
    W: FnMut() -> F,
    F: Future<Output = bool>,
{
    eventually_within(PATIENCE, what, condition).await;
}

/// The same for what takes its time.
pub async fn eventually_within<F, W>(patience: Duration, what: &str, mut condition: W)
where
    W: FnMut() -> F,
    F: Future<Output = bool>,
{
    let until = tokio::time::Instant::now() + patience;
    while !condition().await {
        assert!(tokio::time::Instant::now() < until, "{what} did not happen within {patience:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn text(value: &str) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(value.into())) }
}

pub fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.into(), value: Some(text(value)), ..Default::default() }
}

pub fn record(body: &str) -> LogRecord {
    LogRecord {
        time_unix_nano: 1_700_000_000_000_000_000,
        severity_number: 9,
        body: Some(text(body)),
        ..Default::default()
    }
}

/// A request of one resource with these attributes and lines.
pub fn logs(attributes: &[(&str, &str)], bodies: &[&str]) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest { resource_logs: vec![resource_logs(attributes, bodies)] }
}

pub fn resource_logs(attributes: &[(&str, &str)], bodies: &[&str]) -> ResourceLogs {
    ResourceLogs {
        resource: Some(Resource {
            attributes: attributes.iter().map(|(key, value)| attribute(key, value)).collect(),
            ..Default::default()
        }),
        scope_logs: vec![ScopeLogs {
            log_records: bodies.iter().map(|body| record(body)).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// SHA-256 of a token, as the configuration wants it.
pub fn sha256(token: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
