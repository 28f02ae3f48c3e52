//! Delivery to servers at the socket, on a paused clock.

use super::fake::{Answer, Fake, Seen};
use super::*;
use crate::batch::{ProjectId, Signal, Stream, TenantId};
use crate::journal::{self, Frame, FramePart, Journal, LineTable, Outcome, SinkId, system_clock};
use crate::net::authority::Authority;
use crate::net::tls::{Acceptor, ClientSettings, ServerSettings};
use crate::sinks;
use crate::sinks::otlp::{self, Compression, Protocol};
use crate::streams::{self, StoreSettings, Streams};
use crate::telemetry::Secret;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use std::collections::BTreeMap;
use std::io::Read;

const LONE: Joining = Joining { records_max: 1, bytes_max: 1, is_across_tenants: false };

struct World {
    journal: Arc<Journal>,
    metrics: Metrics,
    stop: CancellationToken,
    sinks: JoinSet<()>,
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
                age_max: Duration::from_secs(3600),
                memory_bytes_max: 1 << 20,
            },
        )
    }

    fn with(names: &[&str], settings: journal::Settings) -> World {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let metrics = Metrics::new();
        let journal = Journal::open(&settings, &names, system_clock(), &metrics).unwrap();
        World { journal, metrics, stop: CancellationToken::new(), sinks: JoinSet::new() }
    }

    fn serve(&mut self, at: u16, sink: sinks::Settings, settings: Settings) {
        self.serve_open(at, Arc::new(Sink::open("sink", sink, None).unwrap()), settings);
    }

    fn serve_open(&mut self, at: u16, sink: Arc<Sink>, settings: Settings) {
        let cursor = self.journal.cursor(SinkId(at));
        let (metrics, stop) = (self.metrics.clone(), self.stop.clone());
        self.sinks.spawn(run(format!("sink{at}"), sink, cursor, settings, metrics, stop));
    }

    /// One entry; every sink that there is.
    async fn commit(&self, tenant: &str, signal: Signal, bytes: &str, records: u32) {
        let stream = Stream { tenant: TenantId::new(tenant).unwrap(), project: ProjectId::default_project() };
        let pending = self.journal.ledger.receive(&stream.tenant, signal, records.into());
        let outcome = Outcome { acknowledged: records.into(), ..Outcome::default() };
        let sinks = (0..self.sinks.len() as u16).map(SinkId).collect();
        let part = FramePart { stream, signal, bytes: bytes.to_owned().into(), records, sinks };
        self.journal
            .commit(Frame { settled: vec![(pending, outcome)], parts: vec![part], after: None })
            .await
            .unwrap();
    }

    /// The line of tenant `t`'s logs, once nothing is in flight.
    async fn settled(&self) -> LineTable {
        self.wait(|line| line.sinks.values().all(|sink| sink.in_flight == 0)).await
    }

    async fn wait(&self, is_reached: impl Fn(&LineTable) -> bool) -> LineTable {
        let deadline = Instant::now() + Duration::from_secs(3600);
        loop {
            let table = self.journal.ledger.snapshot();
            assert_eq!(table.unaccounted(), []);
            let line = table.line("t", Signal::Logs);
            if is_reached(&line) {
                return line;
            }
            assert!(Instant::now() < deadline, "not reached: {line:?}");
            sleep(Duration::from_millis(1)).await;
        }
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

async fn one_entry(protocol: Protocol, script: Vec<Answer>) -> (LineTable, Vec<Seen>) {
    let fake = Fake::start(script).await;
    let mut world = World::new(&["a"]);
    world.serve(0, otlp(&fake, protocol, Compression::None), Settings::default());
    world.commit("t", Signal::Logs, "abc", 3).await;
    (world.settled().await, fake.seen())
}

#[tokio::test(start_paused = true)]
async fn bytes_arrive_as_they_are_on_the_path_of_their_signal() {
    for (protocol, paths) in [
        (
            Protocol::Grpc,
            [
                "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            ],
        ),
        (Protocol::Http, ["/v1/logs", "/v1/traces", "/v1/metrics"]),
    ] {
        let fake = Fake::start([]).await;
        let mut world = World::new(&["a"]);
        world.serve(0, otlp(&fake, protocol, Compression::None), in_order());
        for signal in [Signal::Traces, Signal::Metrics, Signal::Logs] {
            world.commit("t", signal, signal.name(), 1).await;
        }
        world.wait(|_| fake.seen().len() == 3).await;
        world.settled().await;
        let seen = fake.seen();
        for (signal, path) in Signal::ALL.iter().zip(paths) {
            let request = seen.iter().find(|seen| seen.path == path).unwrap();
            assert_eq!(request.body, signal.name());
            assert_eq!(request.headers["authorization"], "Bearer 1234");
            assert!(request.headers["user-agent"].to_str().unwrap().starts_with("trommel/"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_are_compressed_where_it_is_asked_for() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        for (compression, name) in [(Compression::Gzip, "gzip"), (Compression::Zstd, "zstd")] {
            let fake = Fake::start([]).await;
            let mut world = World::new(&["a"]);
            world.serve(0, otlp(&fake, protocol, compression), Settings::default());
            let text = "a line that repeats, ".repeat(5_000);
            world.commit("t", Signal::Logs, &text, 1).await;
            world.settled().await;
            let seen = &fake.seen()[0];
            let header = if protocol == Protocol::Grpc { "grpc-encoding" } else { "content-encoding" };
            assert_eq!(seen.headers[header], name);
            assert!(seen.is_compressed && seen.body.len() < text.len() / 10);
            let mut plain = String::new();
            match compression {
                Compression::Gzip => flate2::read::GzDecoder::new(&seen.body[..]).read_to_string(&mut plain),
                _ => zstd::Decoder::new(&seen.body[..]).unwrap().read_to_string(&mut plain),
            }
            .unwrap();
            assert!(plain == text);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_when_is_asked_again_then_and_not_before() {
    let script = vec![
        Answer::Grpc { code: 8, details: Some(retry_info(40)) },
        Answer::Grpc { code: 14, details: None },
    ];
    let (line, seen) = one_entry(Protocol::Grpc, script).await;
    assert_eq!(line.sinks["a"].delivered, 3);
    let pauses: Vec<Duration> = seen.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(pauses[0] >= Duration::from_secs(40), "{pauses:?}");
    assert!(pauses[1] < Duration::from_secs(2), "{pauses:?}");

    let unavailable = |header| Answer::Http { status: 503, header, body: Vec::new() };
    let script = vec![unavailable(Some(("retry-after", "50"))), unavailable(None)];
    let (line, seen) = one_entry(Protocol::Http, script).await;
    assert_eq!(line.sinks["a"].delivered, 3);
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(50));
}

#[tokio::test(start_paused = true)]
async fn what_the_specification_calls_final_is_not_sent_again() {
    for code in [2, 3, 5, 6, 7, 8, 9, 12, 13, 16] {
        let (line, seen) = one_entry(Protocol::Grpc, vec![Answer::Grpc { code, details: None }]).await;
        assert_eq!((line.sinks["a"].rejected["refused"], seen.len()), (3, 1), "grpc {code}");
    }
    for status in [400, 401, 404, 413, 500, 302] {
        let answer = Answer::Http { status, header: Some(("location", "/")), body: b"\xff".to_vec() };
        let (line, seen) = one_entry(Protocol::Http, vec![answer]).await;
        assert_eq!((line.sinks["a"].rejected["refused"], seen.len()), (3, 1), "http {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_grpc_is_judged_by_its_status() {
    let answer = |status| vec![Answer::Http { status, header: None, body: b"<html>".to_vec() }];
    let (line, seen) = one_entry(Protocol::Grpc, answer(503)).await;
    assert_eq!((line.sinks["a"].delivered, seen.len()), (3, 2));
    let (line, seen) = one_entry(Protocol::Grpc, answer(403)).await;
    assert_eq!((line.sinks["a"].rejected["refused"], seen.len()), (3, 1));
    // A success without a grpc-status: nobody said that it arrived.
    let (line, seen) = one_entry(Protocol::Grpc, answer(200)).await;
    assert_eq!((line.sinks["a"].delivered, seen.len()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_partial_success_is_counted_and_not_sent_again() {
    // `partial_success { rejected: 2 }`
    let message = vec![0x0a, 2, 0x08, 2];
    let (line, seen) = one_entry(Protocol::Grpc, vec![Answer::GrpcMessage(message.clone())]).await;
    let sink = &line.sinks["a"];
    assert_eq!((sink.delivered, sink.rejected["refused"], seen.len()), (1, 2, 1));
    let answer = Answer::Http { status: 200, header: None, body: message };
    let (line, _) = one_entry(Protocol::Http, vec![answer]).await;
    assert_eq!(line.sinks["a"].rejected["refused"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_asked_again_after_the_timeout() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let (line, seen) = one_entry(protocol, vec![Answer::Silence]).await;
        assert_eq!((line.sinks["a"].delivered, seen.len()), (3, 2), "{protocol:?}");
        let pause = seen[1].at - seen[0].at;
        assert!(pause >= Duration::from_secs(10) && pause < Duration::from_secs(12), "{pause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn records_expire_when_the_server_stays_away() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let fake = Fake::start([]).await;
        let settings = otlp(&fake, protocol, Compression::None);
        // The port is closed from here on.
        drop(fake);
        let mut world = World::new(&["a"]);
        world.serve(0, settings, Settings { retry_for: Duration::from_secs(60), ..Settings::default() });
        let start = Instant::now();
        world.commit("t", Signal::Logs, "abc", 3).await;
        let line = world.settled().await;
        assert_eq!(line.sinks["a"].expired["age"], 3);
        let waited = start.elapsed();
        assert!(waited > Duration::from_secs(20) && waited <= Duration::from_secs(65), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_joined_by_tenant_and_signal() {
    let fake = Fake::start([Answer::Silence]).await;
    let mut world = World::new(&["a"]);
    world.serve(0, grpc(&fake), in_order());
    // The first entry is on the way while the others gather.
    world.commit("t", Signal::Logs, "1", 1).await;
    world.wait(|_| fake.seen().len() == 1).await;
    for (tenant, signal, bytes) in [
        ("t", Signal::Logs, "2"),
        ("u", Signal::Logs, "3"),
        ("t", Signal::Traces, "4"),
        ("t", Signal::Logs, "5"),
        ("u", Signal::Logs, "6"),
    ] {
        world.commit(tenant, signal, bytes, 1).await;
    }
    world.wait(|_| fake.seen().len() == 5).await;
    world.settled().await;
    assert_eq!(bodies(&fake), ["1", "1", "25", "36", "4"]);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_is_bounded_in_records_and_bytes() {
    let fake = Fake::start([Answer::Silence]).await;
    let mut world = World::new(&["a"]);
    let settings = Settings { records_max: 4, bytes_max: 6, ..in_order() };
    world.serve(0, grpc(&fake), settings);
    world.commit("t", Signal::Logs, "first", 1).await;
    world.wait(|_| fake.seen().len() == 1).await;
    for (bytes, records) in [("a", 2), ("b", 2), ("c", 1), ("dddd", 1), ("ee", 1), ("large!!!", 9)] {
        world.commit("t", Signal::Logs, bytes, records).await;
    }
    let line = world.settled().await;
    assert_eq!(line.sinks["a"].delivered, 17);
    assert_eq!(bodies(&fake), ["first", "first", "ab", "cdddd", "ee", "large!!!"]);
}

#[tokio::test(start_paused = true)]
async fn one_entry_that_is_refused_costs_no_other() {
    let fake = Fake::start([
        Answer::Silence,
        Answer::Grpc { code: 14, details: None },
        Answer::RefuseFrom { bytes: 5 },
    ])
    .await;
    let mut world = World::new(&["a"]);
    world.serve(0, grpc(&fake), in_order());
    world.commit("t", Signal::Logs, "0", 1).await;
    world.wait(|_| fake.seen().len() == 1).await;
    for bytes in ["1", "2", "poison", "3", "4", "5", "6"] {
        world.commit("t", Signal::Logs, bytes, 1).await;
    }
    let line = world.settled().await;
    assert_eq!((line.sinks["a"].delivered, line.sinks["a"].rejected["refused"]), (7, 1));
    let arrived: Vec<String> = bodies(&fake).into_iter().skip(2).filter(|body| body.len() < 5).collect();
    assert_eq!(arrived.concat(), "0123456", "in order");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_sink_holds_back_no_other() {
    let hanging = Fake::start(vec![Answer::Silence; 100]).await;
    let well = Fake::start([]).await;
    let mut world = World::new(&["hanging", "well"]);
    world.serve(0, grpc(&hanging), Settings::default());
    world.serve(1, grpc(&well), Settings::default());
    for _ in 0..20 {
        world.commit("t", Signal::Logs, "x", 1).await;
    }
    let start = Instant::now();
    let line = world.wait(|line| line.sinks["well"].delivered == 20).await;
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(line.sinks["hanging"].in_flight, 20);
}

#[tokio::test(start_paused = true)]
async fn a_stop_delivers_what_is_there() {
    let fake = Fake::start([Answer::Silence]).await;
    let mut world = World::new(&["a"]);
    world.serve(0, grpc(&fake), Settings { attempt_timeout: Duration::from_secs(1), ..in_order() });
    for _ in 0..3 {
        world.commit("t", Signal::Logs, "x", 1).await;
    }
    world.stop.cancel();
    world.sinks.join_next().await.unwrap().unwrap();
    assert_eq!(world.settled().await.sinks["a"].delivered, 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_on_disk_is_tried_for_longer_than_a_sink_and_stays_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::start(vec![Answer::Silence; 1_000]).await;
    let mut world = World::on_disk(&["a"], folder.path());
    let short = Settings { retry_for: Duration::from_secs(1), records_max: 1, ..Settings::default() };
    world.serve(0, grpc(&fake), short);
    for _ in 0..5 {
        world.commit("t", Signal::Logs, "x", 1).await;
    }
    sleep(Duration::from_secs(60)).await;
    world.stop.cancel();
    world.sinks.join_next().await.unwrap().unwrap();
    let line = world.wait(|_| true).await;
    assert_eq!((line.sinks["a"].expired.len(), line.sinks["a"].in_flight), (0, 5));
    world.journal.end().await;

    let mut world = World::on_disk(&["a"], folder.path());
    let fake = Fake::start(vec![Answer::RefuseFrom { bytes: usize::MAX }; 10]).await;
    world.serve(0, grpc(&fake), Settings::default());
    assert_eq!(world.settled().await.sinks["a"].delivered, 5);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_at_its_deadline_and_counts_what_is_left() {
    let fake = Fake::start(vec![Answer::Silence; 100]).await;
    let mut world = World::new(&["a"]);
    world.serve(0, grpc(&fake), Settings { records_max: 1, ..Settings::default() });
    for _ in 0..20 {
        world.commit("t", Signal::Logs, "x", 1).await;
    }
    let start = Instant::now();
    world.stop.cancel();
    world.sinks.join_next().await.unwrap().unwrap();
    assert_eq!(start.elapsed().as_secs(), 10);
    let line = world.settled().await;
    assert_eq!((line.sinks["a"].expired["stopped"], line.sinks["a"].in_flight), (20, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_discarded_is_counted_as_delivered() {
    let mut world = World::new(&["a"]);
    world.serve(0, sinks::Settings::Discard, Settings::default());
    world.commit("t", Signal::Logs, "x", 5).await;
    assert_eq!(world.settled().await.sinks["a"].delivered, 5);
    assert!(world.metrics.text().contains(r#"trommel_deliver_attempts_total{sink="sink0",result="ok"} 1"#));
}

/// Orders of failures by seed; a failure names it.
#[tokio::test(start_paused = true)]
async fn whatever_a_server_answers_every_record_is_accounted_for() {
    for seed in 0..30u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |below: u64| {
            // xorshift64
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let script: Vec<Answer> = (0..40)
            .map(|_| match draw(8) {
                0 => Answer::Silence,
                1 => Answer::Grpc { code: 14, details: Some(retry_info(draw(50) as u8)) },
                2 => Answer::Grpc { code: draw(18) as i32, details: None },
                3 => Answer::GrpcMessage(vec![0x0a, 2, 0x08, draw(5) as u8]),
                4 => Answer::Http { status: 500 + draw(5) as u16, header: None, body: Vec::new() },
                _ => Answer::GrpcMessage(Vec::new()),
            })
            .collect();
        let fake = Fake::start(script).await;
        let mut world = World::new(&["a"]);
        let settings = Settings {
            records_max: 1 + draw(20),
            window: Some(1 + draw(4) as usize),
            retry_for: Duration::from_secs(1 + draw(120)),
            ..Settings::default()
        };
        world.serve(0, grpc(&fake), settings);
        for at in 0..60 {
            let tenant = ["t", "u", "v"][draw(3) as usize];
            world.commit(tenant, Signal::ALL[draw(3) as usize], &format!("<{at}>"), 1 + draw(5) as u32).await;
            sleep(Duration::from_millis(draw(1_000))).await;
        }
        if draw(2) == 0 {
            world.stop.cancel();
            world.sinks.join_next().await.unwrap().unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(36_000);
        while !world.journal.cursor(SinkId(0)).is_done() {
            assert!(Instant::now() < deadline, "seed {seed}");
            sleep(Duration::from_secs(1)).await;
        }
        let table = world.journal.ledger.snapshot();
        assert_eq!(table.unaccounted(), [], "seed {seed}");
        let sinks = table.lines.iter().flat_map(|line| line.sinks.values());
        assert!(sinks.clone().all(|sink| sink.in_flight == 0), "seed {seed}");
        assert!(sinks.map(|sink| sink.delivered).sum::<u64>() > 0, "seed {seed}");
        assert_eq!(world.journal.charged_bytes(SinkId(0)), 0, "seed {seed}");
    }
}

#[tokio::test]
async fn a_store_takes_logs_of_many_tenants_at_once_and_has_no_form_for_traces() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(&["streams"]);
    let settings = crate::streams::Settings {
        store: crate::streams::StoreSettings::Embedded { folder: folder.path().join("streams") },
        retention: Duration::from_secs(86_400),
    };
    let streams = crate::streams::Streams::open(settings.clone(), world.metrics.clone()).unwrap();
    let sink = Arc::new(Sink::open("streams", sinks::Settings::Streams(settings), Some(streams)).unwrap());
    // Before anybody delivers, so that they stand together.
    world.sinks.spawn(std::future::pending());
    let body = "\n\u{b}\u{12}\u{9}\u{12}\u{7}*\u{5}\n\u{3}abc";
    for tenant in ["t", "u", "t"] {
        world.commit(tenant, Signal::Logs, body, 1).await;
    }
    world.commit("t", Signal::Traces, "\n\0", 5).await;
    let cursor = world.journal.cursor(SinkId(0));
    let (metrics, stop) = (world.metrics.clone(), world.stop.clone());
    world.sinks.spawn(run("streams".into(), sink, cursor, Settings::default(), metrics, stop));
    assert_eq!(world.settled().await.sinks["streams"].delivered, 2);
    let table = world.journal.ledger.snapshot();
    assert_eq!(table.line("u", Signal::Logs).sinks["streams"].delivered, 1);
    world.wait(|_| world.journal.cursor(SinkId(0)).is_done()).await;
    let table = world.journal.ledger.snapshot();
    assert_eq!(table.line("t", Signal::Traces).sinks["streams"].unsupported, 5);
    let text = world.metrics.text();
    assert!(text.contains(r#"trommel_deliver_attempts_total{sink="streams",result="ok"} 2"#), "{text}");
}

fn over_tls(fake: &Fake, protocol: Protocol, tls: ClientSettings) -> sinks::Settings {
    sinks::Settings::Otlp(otlp::Settings {
        endpoint: format!("https://localhost:{}", fake.address.port()),
        protocol,
        headers: BTreeMap::new(),
        compression: Compression::Gzip,
        tls,
    })
}

#[tokio::test]
async fn a_server_is_spoken_to_over_tls_with_our_own_certificate() {
    let authority = Authority::new();
    authority.sign("server", "localhost");
    authority.sign("us", "sidecar.example");
    let server = ServerSettings { client_ca: Some(authority.path("ca.pem")), ..authority.server("server") };
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let fake = Fake::start_with([], Some(Acceptor::open(server.clone()).unwrap())).await;
        let mut world = World::new(&["a"]);
        world.serve(0, over_tls(&fake, protocol, authority.client_as("us")), Settings::default());
        world.commit("t", Signal::Logs, "abc", 3).await;
        assert_eq!(world.settled().await.sinks["a"].delivered, 3, "{protocol:?}");
        assert_eq!(fake.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_server_that_we_do_not_trust_is_sent_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.sign("server", "localhost");
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let fake = Fake::start_with([], Some(Acceptor::open(authority.server("server")).unwrap())).await;
        let mut world = World::new(&["a"]);
        let backoff = Backoff { first: Duration::from_millis(10), most: Duration::from_millis(20) };
        let settings = Settings { retry_for: Duration::from_millis(100), backoff, ..Settings::default() };
        world.serve(0, over_tls(&fake, protocol, other.client()), settings);
        world.commit("t", Signal::Logs, "abc", 3).await;
        assert_eq!(world.settled().await.sinks["a"].expired["age"], 3, "{protocol:?}");
        assert!(fake.seen().is_empty());
    }
}

/// An answer that names records, over entries of several tenants.
#[tokio::test]
async fn what_an_answer_names_is_counted_for_whose_it_is() {
    let mut world = World::new(&["a"]);
    world.sinks.spawn(std::future::pending());
    world.commit("t", Signal::Logs, "x", 3).await;
    world.commit("u", Signal::Logs, "y", 4).await;
    let joining = Joining { records_max: 100, bytes_max: 100, is_across_tenants: true };
    let entries = world.journal.cursor(SinkId(0)).try_next(joining);
    let rejected = vec![(3, "id_collision"), (4, "id_collision"), (5, "other"), (99, "beyond")];
    let unsupported_named = vec![6, 99];
    finish(entries, &Sent { rejected, unsupported: 1, unsupported_named, ..Sent::default() });
    let table = world.journal.ledger.snapshot();
    assert_eq!(table.unaccounted(), []);
    let of = |tenant| table.line(tenant, Signal::Logs).sinks["a"].clone();
    assert_eq!((of("t").rejected["id_collision"], of("t").unsupported, of("t").delivered), (1, 1, 1));
    let rejected = of("u").rejected;
    assert_eq!((rejected["id_collision"], rejected["other"]), (1, 1));
    assert_eq!((of("u").unsupported, of("u").delivered), (1, 1));
}

#[test]
fn settings_that_cannot_work_are_refused_without_showing_secrets() {
    let settings = |endpoint: &str, header: &str| otlp::Settings {
        endpoint: endpoint.into(),
        protocol: Protocol::Grpc,
        headers: BTreeMap::from([(header.to_owned(), Secret::new("to\nken"))]),
        compression: Compression::None,
        tls: ClientSettings::default(),
    };
    let check = |endpoint: &str, header: &str, expected: &str| {
        for protocol in [Protocol::Grpc, Protocol::Http] {
            let settings = otlp::Settings { protocol, ..settings(endpoint, header) };
            assert!(!format!("{settings:?}").contains("ken"));
            let error = Sink::open("otlp", sinks::Settings::Otlp(settings), None).unwrap_err();
            assert!(error.contains(expected) && !error.contains("ken") && !error.contains("anna"), "{error}");
        }
    };
    check("localhost:4317", "a", "is no address");
    check("ftp://localhost", "a", "is no address");
    check("http://anna:1234@localhost", "a", "stand in `headers`");
    check("no address anna:1234@localhost", "a", "stand in `headers`");
    check("http://localhost:4317", "a", "headers.a: the value has bytes");
    check("http://localhost:4317", "a b", "`a b` is no header name");
}

#[tokio::test]
async fn what_a_store_had_already_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let store = StoreSettings::Embedded { folder: folder.path().to_owned() };
    let settings = streams::Settings { store, retention: Duration::from_secs(86_400) };
    let mut world = World::new(&["a"]);
    let streams = Streams::open(settings.clone(), world.metrics.clone()).unwrap();
    let sink = Arc::new(Sink::open("streams", sinks::Settings::Streams(settings), Some(streams)).unwrap());
    // Entries go to as many sinks as there are tasks.
    world.sinks.spawn(std::future::ready(()));
    world.commit("t", Signal::Logs, "\n\x07\x12\x05\x12\x03b\x01a", 1).await;
    // It was stored, and whoever sent it ended before that was known.
    let taken = world.journal.cursor(SinkId(0)).try_next(LONE);
    let sending = Sending { entry: taken[0].entry.clone(), is_resend: false };
    let sent = sink.send(&Delivery { signal: Signal::Logs, entries: vec![sending] }).await;
    assert_eq!(sent, Ok(Sent::default()));
    drop(taken);
    world.serve_open(0, sink, Settings::default());
    let line = world.settled().await;
    assert_eq!(line.sinks["a"].delivered, 1);
    let presumed = r#"trommel_deliver_presumed_records_total{sink="sink0"} 1"#;
    assert!(world.metrics.text().contains(presumed), "{}", world.metrics.text());
}

/// Points of a gauge, a series each; of ASCII, as these tests' entries are.
fn points(count: u32) -> String {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1::{
        Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data, number_data_point::Value,
    };
    let point = NumberDataPoint { value: Some(Value::AsDouble(0.0)), ..Default::default() };
    let data = Some(Data::Gauge(Gauge { data_points: vec![point; count as usize] }));
    let metrics = vec![Metric { name: "g".into(), data, ..Default::default() }];
    let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..Default::default() }];
    let bytes = prost::Message::encode_to_vec(&ExportMetricsServiceRequest { resource_metrics });
    String::from_utf8(bytes).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_receiver_of_metrics_in_trouble_for_ever_costs_what_it_was_sent_and_no_other_sink() {
    use crate::sinks::remote_write;
    let trouble = |status| Answer::Http { status, header: None, body: b"out of order sample".into() };
    let (broken, well) = (Fake::start(vec![trouble(500); 20]).await, Fake::start([]).await);
    let to = |fake: &Fake| {
        sinks::Settings::RemoteWrite(remote_write::Settings {
            endpoint: format!("http://{}/api/v1/write", fake.address),
            headers: BTreeMap::new(),
            tls: ClientSettings::default(),
            is_scope_labelled: false,
            promote: Vec::new(),
        })
    };
    let mut world = World::new(&["broken", "well"]);
    let short = Settings { retry_for: Duration::from_secs(60), ..Settings::default() };
    world.serve(0, to(&broken), short);
    world.serve(1, to(&well), short);
    let metrics = |world: &World| world.journal.ledger.snapshot().line("t", Signal::Metrics);
    let settled = async |world: &World| {
        while metrics(world).sinks.values().any(|sink| sink.in_flight > 0) {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(world.journal.ledger.snapshot().unaccounted(), []);
        metrics(world).sinks
    };
    world.commit("t", Signal::Metrics, &points(3), 3).await;
    let sinks = settled(&world).await;
    assert_eq!((sinks["broken"].expired["age"], sinks["broken"].delivered), (3, 0));
    assert_eq!(sinks["well"].delivered, 3);
    let attempts = broken.seen().len();
    assert!((3..=20).contains(&attempts), "{attempts} requests, none of them halved");
    assert_eq!(broken.seen()[0].path, "/api/v1/write");

    // It is well again: what comes next arrives.
    for _ in attempts..20 {
        let _ = client_of_fake(&broken).await;
    }
    world.commit("t", Signal::Metrics, &points(2), 2).await;
    let sinks = settled(&world).await;
    assert_eq!((sinks["broken"].delivered, sinks["well"].delivered), (2, 5));
}

/// Takes one answer of the script.
async fn client_of_fake(fake: &Fake) -> std::io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(fake.address).await?;
    socket.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await?;
    socket.read_to_end(&mut Vec::new()).await.map(drop)
}
