//! Delivery to servers at the socket, on a paused clock.

mod answers;
mod circuit;
mod joining;
mod refused;
mod sending;
mod stopping;
mod stores;

use super::fake::{Answer, Fake, Seen};
use super::*;
use crate::batch::{ProjectId, Signal, Stream, TenantId};
use crate::journal::{self, Frame, FramePart, Journal, LineTable, Outcome, SinkId, system_clock};
use crate::net::tls::ClientSettings;
use crate::sinks;
use crate::sinks::otlp::{self, Compression, Protocol};
use crate::sinks::remote_write;
use crate::telemetry::Secret;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use std::collections::BTreeMap;

struct World {
    journal: Arc<Journal>,
    metrics: Metrics,
    stop: CancellationToken,
    hand_over: CancellationToken,
    sinks: JoinSet<()>,
    /// How far the clock goes between two looks.
    step: Duration,
}

const STEP: Duration = Duration::from_millis(1);
/// For tests that take hours. Attempts then have a [`long`] time: a paused clock may otherwise be over it before the
/// kernel hands on what was sent.
const LONG_STEP: Duration = Duration::from_millis(600);

fn long() -> Settings {
    Settings { attempt_timeout: Duration::from_secs(60), ..Settings::default() }
}

impl World {
    fn new(names: &[&str]) -> World {
        World::with(names, journal::Settings::Memory { bytes_max: 1 << 20 })
    }

    fn on_disk(names: &[&str], folder: &std::path::Path) -> World {
        World::with(
            names,
            journal::Settings::Disk {
                folder: folder.to_owned(),
                bytes_max: Some(1 << 30),
                age_max: Duration::from_secs(7200),
                memory_bytes_max: 1 << 20,
            },
        )
    }

    fn with(names: &[&str], settings: journal::Settings) -> World {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let metrics = Metrics::new();
        let journal = Journal::open(&settings, &names, system_clock(), &metrics).unwrap();
        World {
            journal,
            metrics,
            stop: CancellationToken::new(),
            hand_over: CancellationToken::new(),
            sinks: JoinSet::new(),
            step: STEP,
        }
    }

    fn serve(&mut self, at: u16, sink: sinks::Settings, settings: Settings) {
        self.serve_open(at, Arc::new(Sink::open("sink", sink, None).unwrap()), settings);
    }

    fn serve_open(&mut self, at: u16, sink: Arc<Sink>, settings: Settings) {
        let cursor = self.journal.cursor(SinkId(at));
        let ends = Ends { drain: self.stop.clone(), hand_over: self.hand_over.clone() };
        self.sinks.spawn(run(format!("sink{at}"), sink, cursor, settings, None, self.metrics.clone(), ends));
    }

    /// One entry; every sink that there is.
    async fn commit(&self, tenant: &str, signal: Signal, bytes: impl AsRef<[u8]>, records: u32) {
        let stream = Stream { tenant: TenantId::new(tenant).unwrap(), project: ProjectId::default_project() };
        let pending = self.journal.ledger.receive(&stream.tenant, signal, records.into());
        let outcome = Outcome { acknowledged: records.into(), ..Outcome::default() };
        let sinks = (0..self.sinks.len() as u16).map(SinkId).collect();
        let part =
            FramePart { stream, signal, bytes: Bytes::copy_from_slice(bytes.as_ref()), records, sinks };
        self.journal
            .commit(Frame { settled: vec![(pending, outcome)], parts: vec![part], after: None })
            .await
            .unwrap();
    }

    /// The line of tenant `t`'s logs, once nothing is in flight.
    async fn settled(&self) -> LineTable {
        self.settled_of(Signal::Logs).await
    }

    async fn settled_of(&self, signal: Signal) -> LineTable {
        self.wait_of(signal, |line| line.sinks.values().all(|sink| sink.in_flight == 0)).await
    }

    async fn wait(&self, is_reached: impl Fn(&LineTable) -> bool) -> LineTable {
        self.wait_of(Signal::Logs, is_reached).await
    }

    async fn wait_of(&self, signal: Signal, is_reached: impl Fn(&LineTable) -> bool) -> LineTable {
        let deadline = Instant::now() + Duration::from_secs(3 * 3600);
        loop {
            let table = self.journal.ledger.snapshot();
            assert_eq!(table.unaccounted(), []);
            let line = table.line("t", signal);
            if is_reached(&line) {
                return line;
            }
            assert!(Instant::now() < deadline, "not reached: {line:?}");
            self.step().await;
        }
    }

    async fn step(&self) {
        sleep(self.step).await;
        if self.step > STEP {
            // While this runs the clock stands still, and sockets do not.
            let pause = || std::thread::sleep(Duration::from_micros(300));
            tokio::task::spawn_blocking(pause).await.unwrap();
        }
    }

    async fn pass(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.step().await;
        }
    }

    /// The value of a metric of the first sink.
    fn metric(&self, name: &str) -> Option<String> {
        let start = format!("trommel_{name}{{sink=\"sink0\"}} ");
        let text = self.metrics.text();
        text.lines().find_map(|line| line.strip_prefix(&start).map(str::to_owned))
    }
}

fn otlp(fake: &Fake, protocol: Protocol, compression: Compression) -> sinks::Settings {
    sinks::Settings::Otlp(otlp::Settings {
        endpoint: format!("http://{}", fake.address),
        protocol,
        headers: BTreeMap::from([("authorization".into(), Secret::new("Bearer 1234"))]),
        compression,
        tls: ClientSettings::default(),
    })
}

fn grpc(fake: &Fake) -> sinks::Settings {
    otlp(fake, Protocol::Grpc, Compression::None)
}

/// One delivery at a time, so that the order of what a fake saw is the order of the entries.
fn in_order() -> Settings {
    Settings { window: Some(1), ..Settings::default() }
}

fn bodies(fake: &Fake) -> Vec<String> {
    fake.seen().iter().map(|seen| String::from_utf8(seen.body.to_vec()).unwrap()).collect()
}

/// `google.rpc.Status` with a RetryInfo of this many seconds.
fn retry_info(seconds: u8) -> String {
    let delay = [0x0a, 2, 0x08, seconds];
    let url = b"type.googleapis.com/google.rpc.RetryInfo";
    let mut any = vec![0x0a, url.len() as u8];
    any.extend(url);
    any.extend([0x12, delay.len() as u8]);
    any.extend(delay);
    let mut status = vec![0x08, 8, 0x1a, any.len() as u8];
    status.extend(any);
    BASE64_STANDARD.encode(status)
}

/// Log records with these bodies.
fn logs<B: AsRef<str>>(bodies: &[B]) -> Vec<u8> {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    let record = |body: &B| {
        let value = Some(Value::StringValue(body.as_ref().to_owned()));
        LogRecord { body: Some(AnyValue { value }), ..LogRecord::default() }
    };
    let scope_logs =
        vec![ScopeLogs { log_records: bodies.iter().map(record).collect(), ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    prost::Message::encode_to_vec(&ExportLogsServiceRequest { resource_logs })
}

/// The bodies of log records that a server took, in the order in which it took them.
fn taken(fake: &Fake) -> Vec<String> {
    let seen: Vec<Seen> = fake.seen().into_iter().filter(|seen| seen.is_taken).collect();
    seen.iter().flat_map(|seen| bodies_of(&seen.body)).collect()
}

fn bodies_of(request: &[u8]) -> Vec<String> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::logs::v1::LogRecord;
    crate::batch::Items::over(Signal::Logs, request)
        .map(|parts| match <LogRecord as prost::Message>::decode(parts.item).unwrap().body.unwrap().value {
            Some(Value::StringValue(body)) => body,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// One entry of three records.
async fn one_entry(protocol: Protocol, script: Vec<Answer>) -> (LineTable, Vec<Seen>) {
    let fake = Fake::start(script).await;
    let mut world = World::new(&["a"]);
    world.serve(0, otlp(&fake, protocol, Compression::None), Settings::default());
    world.commit("t", Signal::Logs, logs(&["a", "b", "c"]), 3).await;
    (world.settled().await, fake.seen())
}

fn remote(fake: &Fake) -> sinks::Settings {
    sinks::Settings::RemoteWrite(remote_write::Settings {
        endpoint: format!("http://{}/api/v1/write", fake.address),
        headers: BTreeMap::new(),
        tls: ClientSettings::default(),
        is_scope_labelled: false,
        promote: Vec::new(),
    })
}

/// Points of a gauge, a series each.
fn points(count: u32) -> Vec<u8> {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1::{
        Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data, number_data_point::Value,
    };
    let point = NumberDataPoint { value: Some(Value::AsDouble(0.0)), ..Default::default() };
    let data = Some(Data::Gauge(Gauge { data_points: vec![point; count as usize] }));
    let metrics = vec![Metric { name: "g".into(), data, ..Default::default() }];
    let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..Default::default() }];
    prost::Message::encode_to_vec(&ExportMetricsServiceRequest { resource_metrics })
}
