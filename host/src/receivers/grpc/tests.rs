//! OTLP/gRPC on real sockets: tonic's client, and raw frames where tonic would not send them.

use super::super::fixture::*;
use super::super::{REQUEST_BYTES_MIN, Settings};
use super::*;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceRequest};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::logs::v1::ResourceLogs;
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const GRPC: (&str, &str) = ("content-type", "application/grpc");
const TOKEN: (&str, &str) = ("authorization", SENDER);

async fn channel(world: &World) -> Channel {
    Channel::from_shared(format!("http://{}", world.grpc)).unwrap().connect().await.unwrap()
}

fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", MetadataValue::from_static(SENDER));
    request
}

fn logs(count: usize) -> ExportLogsServiceRequest {
    let resource = ResourceLogs { schema_url: "https://schema.example/1".into(), ..Default::default() };
    ExportLogsServiceRequest { resource_logs: vec![resource; count] }
}

#[tokio::test]
async fn all_three_signals_arrive_as_they_were_sent() {
    let world = World::taking().await;
    let channel = channel(&world).await;
    let (traces, metrics) = (ExportTraceServiceRequest::default(), ExportMetricsServiceRequest::default());
    let logs_answer = LogsServiceClient::new(channel.clone()).export(request(logs(3))).await.unwrap();
    assert_eq!(logs_answer.into_inner().partial_success, None);
    TraceServiceClient::new(channel.clone()).export(request(traces)).await.unwrap();
    MetricsServiceClient::new(channel).export(request(metrics)).await.unwrap();
    let handed = world.handed();
    let signals: Vec<Signal> = handed.iter().map(|handed| handed.signal).collect();
    assert_eq!(signals, [Signal::Logs, Signal::Traces, Signal::Metrics]);
    assert_eq!(handed[0].body, logs(3).encode_to_vec());
    assert_eq!(handed[0].room_bytes, REQUEST_BYTES_MIN, "three times its body is less");
    assert_eq!(handed[1].body.len(), 0);
    world.settled().await;
}

#[tokio::test]
async fn gzip_and_zstd_are_unpacked() {
    let world = World::taking().await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut client = LogsServiceClient::new(channel(&world).await).send_compressed(encoding);
        for count in [1, 50_000] {
            client.export(request(logs(count))).await.unwrap();
            assert_eq!(world.handed().pop().unwrap().body, logs(count).encode_to_vec(), "{encoding:?}");
        }
    }
    world.settled().await;
}

#[tokio::test]
async fn a_partial_success_says_how_many_and_why() {
    let receipt = Receipt { rejected: 7, message: "no tenant".into() };
    let world = World::answering(Ok(receipt)).await;
    let answer = LogsServiceClient::new(channel(&world).await).export(request(logs(1))).await.unwrap();
    let partial = ExportLogsPartialSuccess { rejected_log_records: 7, error_message: "no tenant".into() };
    assert_eq!(answer.into_inner().partial_success, Some(partial));
}

#[tokio::test]
async fn without_a_good_credential_the_body_is_not_read() {
    let world = World::taking().await;
    for (token, code) in
        [(None, "16"), (Some("Bearer wrong"), "16"), (Some("sender"), "16"), (Some(READER), "7")]
    {
        let mut connection = Http2::connect(world.grpc).await;
        let headers: Vec<_> =
            [Some(GRPC), token.map(|token| ("authorization", token))].into_iter().flatten().collect();
        // A body that never comes.
        let body = http_body_util::StreamBody::new(futures_util::stream::pending());
        let answer = connection.send(LOGS, &headers, http_body_util::BodyExt::boxed_unsync(body)).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (200, Some(code)), "{token:?}");
        assert_eq!(answer.header("grpc-status-details-bin"), None);
    }
    assert_eq!(world.handed(), []);
}

#[tokio::test]
async fn a_request_that_is_no_grpc_is_told_so_by_http() {
    let world = World::taking().await;
    let answer = post(world.grpc, "/v1/logs", &[("content-type", "application/json"), TOKEN], b"{}").await;
    assert_eq!(answer.status, 415);
    assert!(answer.json()["message"].as_str().unwrap().contains("4318"), "{answer:?}");
    assert_eq!(post(world.grpc, LOGS, &[GRPC, TOKEN], b"").await.status, 505);
}

/// Code, and the type of the detail if there is one.
fn outcome(answer: &Answered) -> (&str, Option<String>) {
    use base64::Engine;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/grpc")), "{answer:?}");
    let detail = answer.header("grpc-status-details-bin").map(|text| {
        let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(text).unwrap();
        let status = super::super::answer::Status::decode(bytes.as_slice()).unwrap();
        assert_eq!(Some(status.code.to_string().as_str()), answer.header("grpc-status"));
        assert!(!status.message.is_empty());
        status.details[0].type_url.rsplit_once('.').unwrap().1.to_owned()
    });
    (answer.header("grpc-status").unwrap(), detail)
}

#[tokio::test]
async fn each_refusal_has_its_status_and_only_what_may_be_sent_again_has_a_time() {
    let after = Duration::from_millis(1500);
    for (refusal, code, detail) in [
        (Refusal::Malformed { offset: 7, expected: "a length".into() }, "3", Some("BadRequest")),
        (Refusal::Unauthenticated, "16", None),
        (Refusal::Forbidden, "7", None),
        (Refusal::TooLarge { limit: 9 }, "8", None),
        (Refusal::Busy { after }, "14", Some("RetryInfo")),
        (Refusal::DiskFull { after }, "14", Some("RetryInfo")),
        (over_quota(after), "8", Some("RetryInfo")),
        (Refusal::Behind { after }, "14", Some("RetryInfo")),
        (Refusal::Plugin { name: "redact".into(), after }, "14", Some("RetryInfo")),
        (Refusal::Stopping { after }, "14", Some("RetryInfo")),
    ] {
        let world = World::answering(Err(refusal.clone())).await;
        let answer = Http2::connect(world.grpc).await.post(LOGS, &[GRPC, TOKEN], framed(0, b"")).await;
        assert_eq!(outcome(&answer), (code, detail.map(str::to_owned)), "{refusal:?}");
        let told: String = refusal.to_string();
        assert_eq!(answer.header("grpc-message"), Some(told.as_str()));
        world.settled().await;
    }
}

#[tokio::test]
async fn a_time_to_come_back_reaches_tonics_client() {
    let world = World::answering(Err(Refusal::Busy { after: Duration::from_millis(1500) })).await;
    let status = LogsServiceClient::new(channel(&world).await).export(request(logs(1))).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let detail = super::super::answer::Status::decode(status.details()).unwrap().details.remove(0);
    // RetryInfo { retry_delay { seconds: 1, nanos: 500_000_000 } }
    assert_eq!(detail.value, [10, 8, 8, 1, 16, 0x80, 0xca, 0xb5, 0xee, 1]);
}

#[tokio::test]
async fn what_breaks_the_rules_of_grpc_is_told_which() {
    let world = World::taking().await;
    let two = [framed(0, &[10, 0]), framed(0, &[10, 0])].concat();
    let cut = gzip(b"some text");
    let cut = framed(1, &cut[..cut.len() - 1]);
    let gzipped = ("grpc-encoding", "gzip");
    for (name, headers, body, code, message) in [
        ("no message", &[][..], vec![], "12", "exactly one message"),
        ("two messages", &[], two, "12", "exactly one message"),
        ("half a prefix", &[], vec![0, 0], "3", "ended after 2 of 5 bytes"),
        ("half a message", &[], framed(0, &[10; 100])[..55].to_vec(), "3", "ended after 50 of 100 bytes"),
        ("an unknown flag", &[], framed(2, b""), "13", "0 or 1"),
        ("compressed without a name", &[], framed(1, &gzip(b"x")), "13", "without grpc-encoding"),
        (
            "compressed as identity",
            &[("grpc-encoding", "identity")],
            framed(1, b""),
            "13",
            "without grpc-encoding",
        ),
        (
            "an unknown encoding",
            &[("grpc-encoding", "snappy")],
            framed(1, b""),
            "12",
            "`snappy` is not known: expected gzip, zstd, identity",
        ),
        ("gzip that is cut", &[gzipped], cut, "3", "no valid gzip"),
        ("gzip that is none", &[gzipped], framed(1, b"plain"), "3", "no valid gzip"),
        ("zstd that is none", &[("grpc-encoding", "zstd")], framed(1, b"plain"), "3", "no valid zstd"),
    ] {
        let headers: Vec<_> = [GRPC, TOKEN].iter().chain(headers).copied().collect();
        let answer = Http2::connect(world.grpc).await.post(LOGS, &headers, body).await;
        assert_eq!(outcome(&answer).0, code, "{name}");
        assert!(answer.header("grpc-message").unwrap().contains(message), "{name}: {answer:?}");
        let accepted = answer.header("grpc-accept-encoding");
        assert_eq!(accepted.is_some(), name == "an unknown encoding", "{name}");
    }
    assert_eq!(world.handed(), []);
    // Not compressed although an encoding is named: the flag counts.
    let answer =
        Http2::connect(world.grpc).await.post(LOGS, &[GRPC, TOKEN, gzipped], framed(0, &[10, 0])).await;
    assert_eq!(outcome(&answer), ("0", None));
    assert_eq!(answer.body, framed(0, b""));
    world.settled().await;
}

#[tokio::test]
async fn paths_methods_and_content_types_are_checked() {
    let world = World::taking().await;
    let mut connection = Http2::connect(world.grpc).await;
    let unknown = connection.post(
        "/opentelemetry.proto.collector.logs.v1.LogsService/Import",
        &[GRPC, TOKEN],
        framed(0, b""),
    );
    assert_eq!(outcome(&unknown.await), ("12", None));
    for content_type in ["application/grpc+proto", "application/grpc"] {
        let answer = connection.post(LOGS, &[("content-type", content_type), TOKEN], framed(0, b"")).await;
        assert_eq!(outcome(&answer), ("0", None), "{content_type}");
    }
    let json =
        connection.post(LOGS, &[("content-type", "application/grpc+json"), TOKEN], framed(0, b"{}")).await;
    assert_eq!(outcome(&json), ("12", None));
    for content_type in ["text/plain", "application/x-protobuf", "application/grpc-web", "application/grpcx"]
    {
        let answer = connection.post(LOGS, &[("content-type", content_type), TOKEN], framed(0, b"")).await;
        assert_eq!(answer.status, 415, "{content_type}");
    }
    assert_eq!(connection.post(LOGS, &[TOKEN], framed(0, b"")).await.status, 415);
}

#[tokio::test]
async fn a_claim_of_a_gigabyte_is_refused_before_it_comes() {
    let world = World::taking().await;
    for claim in [1u32 << 30, u32::MAX, (64 << 20) + 1] {
        let prefix = [&[0][..], &claim.to_be_bytes()].concat();
        let first = futures_util::stream::iter([Ok(http_body::Frame::data(Bytes::from(prefix)))]);
        let body = futures_util::StreamExt::chain(first, futures_util::stream::pending());
        let body = http_body_util::BodyExt::boxed_unsync(http_body_util::StreamBody::new(body));
        let answer = Http2::connect(world.grpc).await.send(LOGS, &[GRPC, TOKEN], body).await;
        assert_eq!(outcome(&answer), ("8", None), "{claim}");
    }
    assert_eq!((world.handed().len(), world.tenants.room().peak_bytes()), (0, REQUEST_BYTES_MIN));
}

#[tokio::test]
async fn requests_of_a_few_bytes_do_not_wait_in_any_number() {
    let holding = |submission: Submission| async move {
        std::future::pending::<()>().await;
        drop(submission);
        Ok(Receipt::default())
    };
    // One sender may hold what three requests cost at least.
    let world = World::start(small(), 6 * REQUEST_BYTES_MIN, holding).await;
    let mut connections = Vec::new();
    for _ in 0..3 {
        connections.push(Http2::connect(world.grpc).await);
    }
    let mut last = Http2::connect(world.grpc).await;
    let waiting = connections.iter_mut().map(|one| one.post(LOGS, &[GRPC, TOKEN], framed(0, b"")));
    let refused = async {
        until("three wait", || world.handed().len() == 3).await;
        last.post(LOGS, &[GRPC, TOKEN], framed(0, b"")).await
    };
    tokio::select! {
        answers = futures_util::future::join_all(waiting) => panic!("answered: {answers:?}"),
        refused = refused => assert_eq!(outcome(&refused), ("14", Some("RetryInfo".into()))),
    }
    drop(connections);
    world.settled().await;
}

#[tokio::test]
async fn too_large_and_no_room_are_different_answers() {
    let small_bodies = Settings { body_bytes_max: 100_000, ..small() };
    // One sender may hold half a megabyte: three times 150,000 fit, 200,000 never.
    let taking = |_| async { Ok(Receipt::default()) };
    let (limited, crowded) =
        (World::start(small_bodies, 10 << 20, taking).await, World::start(small(), 1_000_000, taking).await);
    let zeros = gzip(&vec![0; 20 << 20]);
    for (world, encoding, body, code, detail) in [
        (&limited, "identity", framed(0, &[0; 100_000]), "0", None),
        (&limited, "identity", framed(0, &[0; 100_001]), "8", None),
        (&limited, "gzip", framed(1, &gzip(&[0; 100_000])), "0", None),
        (&limited, "gzip", framed(1, &gzip(&[0; 100_001])), "8", None),
        (&limited, "zstd", framed(1, &zstd(&[0; 100_001])), "8", None),
        (&limited, "gzip", framed(1, &zeros), "8", None),
        (&crowded, "identity", framed(0, &[0; 150_000]), "0", None),
        (&crowded, "identity", framed(0, &[0; 200_000]), "8", None),
        (&crowded, "gzip", framed(1, &zeros), "8", None),
    ] {
        let headers = [GRPC, TOKEN, ("grpc-encoding", encoding)];
        let answer = Http2::connect(world.grpc).await.post(LOGS, &headers, body).await;
        assert_eq!(outcome(&answer), (code, detail), "{encoding}");
        world.settled().await;
    }
    assert!(limited.tenants.room().peak_bytes() <= 300_000);
}

#[tokio::test]
async fn tonics_client_reads_a_refusal_that_comes_before_its_body_is_sent() {
    let settings = Settings { body_bytes_max: 100_000, ..small() };
    let world = World::start(settings, 10 << 20, |_| async { Ok(Receipt::default()) }).await;
    let mut client = LogsServiceClient::new(channel(&world).await);
    // Ten megabytes: more than all windows together.
    let large = logs(400_000);
    for _ in 0..5 {
        let status = client.export(request(large.clone())).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
        let status = client.export(tonic::Request::new(large.clone())).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");
        // The connection is as good as before.
        client.export(request(logs(1))).await.unwrap();
    }
    world.settled().await;
}

#[tokio::test]
async fn who_finds_the_room_taken_may_come_back() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let holding = move |submission: Submission| {
        let mut gate = gate.clone();
        async move {
            gate.wait_for(|is_open| *is_open).await.unwrap();
            drop(submission);
            Ok(Receipt::default())
        }
    };
    let world = World::start(small(), 1_000_000, holding).await;
    let mut first = Http2::connect(world.grpc).await;
    let mut second = Http2::connect(world.grpc).await;
    let held = first.post(LOGS, &[GRPC, TOKEN], framed(0, &[0; 150_000]));
    let refused = async {
        until("the first is handed on", || world.handed().len() == 1).await;
        let answer = second.post(LOGS, &[GRPC, TOKEN], framed(0, &[0; 50_000])).await;
        go.send(true).unwrap();
        answer
    };
    let (held, refused) = tokio::join!(held, refused);
    assert_eq!(outcome(&held), ("0", None));
    assert_eq!(outcome(&refused), ("14", Some("RetryInfo".into())));
    world.settled().await;
}

#[tokio::test]
async fn nobody_waits_longer_than_the_sender_does() {
    let world = World::start(small(), 64 << 20, |_| std::future::pending()).await;
    let headers = [GRPC, TOKEN, ("grpc-timeout", "50m")];
    let answer = Http2::connect(world.grpc).await.post(LOGS, &headers, framed(0, b"")).await;
    assert_eq!(outcome(&answer), ("4", Some("RetryInfo".into())));
    world.settled().await;
}

#[test]
fn timeouts_are_read_as_grpc_writes_them() {
    for (text, expected) in [
        ("1H", Some(Duration::from_secs(3600))),
        ("2M", Some(Duration::from_secs(120))),
        ("99999999S", Some(Duration::from_secs(99_999_999))),
        ("100m", Some(Duration::from_millis(100))),
        ("7u", Some(Duration::from_micros(7))),
        ("7n", Some(Duration::from_nanos(7))),
        ("0S", Some(Duration::ZERO)),
        ("100000000S", None),
        ("", None),
        ("S", None),
        ("1", None),
        ("-1S", None),
        ("1.5S", None),
        ("1s", None),
    ] {
        let headers = HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]);
        assert_eq!(timeout(&headers), expected, "{text}");
    }
    assert_eq!(timeout(&HeaderMap::new()), None);
}

#[tokio::test]
async fn a_sender_that_goes_away_takes_its_request_with_it() {
    let (dropped, is_dropped) = tokio::sync::watch::channel(());
    let dropped = std::sync::Arc::new(dropped);
    let waiting = move |submission: Submission| {
        let dropped = dropped.clone();
        async move {
            let _held = submission;
            // Alive until this future is dropped.
            let _alive = dropped.subscribe();
            std::future::pending().await
        }
    };
    let world = World::start(small(), 64 << 20, waiting).await;
    let mut connection = Http2::connect(world.grpc).await;
    let asking = connection.post(LOGS, &[GRPC, TOKEN], framed(0, &[0; 1000]));
    tokio::select! {
        _ = asking => panic!("nobody answers"),
        () = until("it is handed on", || world.handed().len() == 1) => {}
    }
    drop(connection);
    world.settled().await;
    drop(is_dropped);
}

#[tokio::test]
async fn a_stop_answers_the_request_in_flight() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let holding = move |_| {
        let mut gate = gate.clone();
        async move {
            gate.wait_for(|is_open| *is_open).await.unwrap();
            Ok(Receipt::default())
        }
    };
    let mut world = World::start(small(), 64 << 20, holding).await;
    let mut connection = Http2::connect(world.grpc).await;
    let asking = connection.post(LOGS, &[GRPC, TOKEN], framed(0, b""));
    let stopping = async {
        until("it is handed on", || world.handed().len() == 1).await;
        world.stop.cancel();
        until("the port is closed", || std::net::TcpStream::connect(world.grpc).is_err()).await;
        go.send(true).unwrap();
    };
    let (answer, ()) = tokio::join!(asking, stopping);
    assert_eq!(outcome(&answer), ("0", None));
    world.tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn requests_are_counted_by_answer() {
    let world = World::taking().await;
    let mut connection = Http2::connect(world.grpc).await;
    connection.post(LOGS, &[GRPC, TOKEN], framed(0, &[10, 0])).await;
    connection.post(LOGS, &[GRPC], framed(0, b"")).await;
    let text = world.metrics.text();
    for line in [
        r#"receive_requests_total{protocol="grpc",signal="logs",answer="ok"} 1"#,
        r#"receive_requests_total{protocol="grpc",signal="logs",answer="unauthenticated"} 1"#,
        r#"receive_bytes_total{signal="logs"} 2"#,
        r#"receive_connections{listener="grpc"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
