//! The store and the tail together: one world, and what each kind of store, and all viewers, are promised.

mod embedded;
mod race;
mod real;
mod store;
mod tail;

use super::*;
use crate::batch::{ProjectId, TenantId};
use bytes::Bytes;
use futures_util::{Stream as Events, StreamExt};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use std::pin::Pin;

const NODE: [u8; 4] = [1, 2, 3, 4];
const NOON: u64 = 1_763_985_600_000;
const DAY: u64 = 86_400_000;
/// A test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn stream(tenant: &str, project: &str) -> Stream {
    Stream { tenant: TenantId::new(tenant).unwrap(), project: ProjectId::new(project).unwrap() }
}

fn acme() -> Stream {
    stream("acme", "web")
}

fn request(lines: &[String]) -> Bytes {
    let log_records = lines
        .iter()
        .map(|line| LogRecord {
            body: Some(AnyValue { value: Some(Value::StringValue(line.clone())) }),
            ..LogRecord::default()
        })
        .collect();
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec().into()
}

/// An entry whose lines are the numbers of its records.
fn entry(stream: &Stream, first: u64, records: u32, time_ms: u64) -> Arc<Entry> {
    entry_of(stream, NODE, first, time_ms, &numbers(first, records))
}

fn entry_of(stream: &Stream, node: [u8; 4], first: u64, time_ms: u64, lines: &[String]) -> Arc<Entry> {
    let records = u32::try_from(lines.len()).unwrap();
    let stream = stream.clone();
    Arc::new(Entry { stream, signal: Signal::Logs, first, records, time_ms, node, bytes: request(lines) })
}

fn numbers(first: u64, records: u32) -> Vec<String> {
    (first..first + u64::from(records)).map(|number| number.to_string()).collect()
}

fn first_send(entry: &Arc<Entry>) -> Vec<Write> {
    vec![Write { entry: entry.clone(), is_resend: false }]
}

fn resend(entry: &Arc<Entry>) -> Vec<Write> {
    vec![Write { entry: entry.clone(), is_resend: true }]
}

/// More than is shown at once; every page of a server without indexes is a scan of all.
const LARGE_RECORDS: u32 = 10_000;

struct World {
    streams: Arc<Streams>,
    folder: tempfile::TempDir,
    tuning: Tuning,
}

impl World {
    fn new() -> World {
        World::tuned(|_| ())
    }

    fn tuned(tune: impl FnOnce(&mut Tuning)) -> World {
        let mut tuning = Tuning::default();
        tune(&mut tuning);
        let folder = tempfile::tempdir().unwrap();
        let streams = open(folder.path(), tuning).unwrap();
        World { streams, folder, tuning }
    }

    async fn restart(&mut self) {
        self.streams.close().await;
        let tuning = self.tuning;
        // The folder is free when the last task that uses it has ended.
        let streams = std::mem::replace(&mut self.streams, World::new().streams);
        drop(streams);
        self.streams = open(self.folder.path(), tuning).unwrap();
    }

    async fn commit(&self, entry: &Arc<Entry>) {
        self.streams.publish(entry);
        self.streams.write(first_send(entry)).await.unwrap();
    }

    async fn history(&self, stream: &Stream, query: History) -> Vec<String> {
        bodies(&self.streams.history(stream, query).await.unwrap().records)
    }

    fn tail(&self, position: Option<&str>) -> Pin<Box<dyn Events<Item = TailEvent> + Send>> {
        Box::pin(self.streams.tail(acme(), position).unwrap())
    }
}

fn open(folder: &std::path::Path, tuning: Tuning) -> Result<Arc<Streams>, String> {
    let store = StoreSettings::Embedded { folder: folder.join("streams") };
    Streams::open_tuned(
        Settings { store, retention: Duration::from_secs(7 * 86_400) },
        tuning,
        Metrics::new(),
    )
}

fn body(json: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    value["body"].as_str().unwrap().to_owned()
}

fn bodies(records: &[String]) -> Vec<String> {
    records.iter().map(|json| body(json)).collect()
}

async fn next(tail: &mut Pin<Box<dyn Events<Item = TailEvent> + Send>>) -> TailEvent {
    tokio::time::timeout(PATIENCE, tail.next()).await.expect("an event in time").expect("the tail goes on")
}

/// The next `count` events, which are lines; with the last position.
async fn lines(
    tail: &mut Pin<Box<dyn Events<Item = TailEvent> + Send>>,
    count: usize,
) -> (Vec<String>, String) {
    let (mut lines, mut last) = (Vec::new(), String::new());
    while lines.len() < count {
        match next(tail).await {
            TailEvent::Log { position, json } => {
                lines.push(body(&json));
                last = position;
            }
            other => panic!("a line was expected after {lines:?}, not {other:?}"),
        }
    }
    (lines, last)
}
