//! What is sent, and how.

use super::*;
use crate::net::authority::Authority;
use crate::net::tls::{Acceptor, ServerSettings};
use std::io::Read;

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
async fn what_is_discarded_is_counted_as_delivered() {
    let mut world = World::new(&["a"]);
    world.serve(0, sinks::Settings::Discard, Settings::default());
    world.commit("t", Signal::Logs, "x", 5).await;
    assert_eq!(world.settled().await.sinks["a"].delivered, 5);
    assert!(world.metrics.text().contains(r#"trommel_deliver_attempts_total{sink="sink0",result="ok"} 1"#));
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
