//! What is wrong gets an answer that says so, and the next good request is served.

use crate::deliver::LOCAL;
use crate::shutdown::{Process, binary, free_port, is_ready};
use crate::world::{World, eventually, logs, record, text};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, logs_service_client::LogsServiceClient,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value};
use prost::Message;
use std::collections::HashSet;
use std::process::{Command, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

/// The next good request is served, whatever came before.
async fn serves(world: &World) {
    let answer = world.send(None, logs(&[("project.id", "good")], &["still here"])).await.unwrap();
    assert_eq!(answer.partial_success, None);
}

async fn post(world: &World, kind: &str, body: Vec<u8>) -> (u16, String) {
    let url = format!("http://{}/v1/logs", world.otlp_http());
    let answer =
        world.http.post(url).header("content-type", kind.to_owned()).body(body).send().await.unwrap();
    (answer.status().as_u16(), String::from_utf8_lossy(&answer.bytes().await.unwrap()).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_content_type_and_a_wrong_path_say_what_is_right() {
    let world = World::start(LOCAL).await;
    let (status, body) = post(&world, "text/plain", b"hello".to_vec()).await;
    assert_eq!(status, 415);
    assert!(body.contains("application/x-protobuf") && body.contains("application/json"), "{body}");
    let answer =
        world.http.post(format!("http://{}/v1/log", world.otlp_http())).body("").send().await.unwrap();
    assert_eq!(answer.status(), 404);
    let answer = world.http.get(format!("http://{}/v1/logs", world.otlp_http())).send().await.unwrap();
    assert_eq!(answer.status(), 405);
    serves(&world).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_cut_at_any_length_is_refused_with_the_offset_or_is_whole() {
    let world = World::start(LOCAL).await;
    let whole = logs(&[("service.name", "shop"), ("project.id", "cut")], &["one", "two"]).encode_to_vec();
    let mut taken = 0;
    for length in 0..whole.len() {
        let cut = whole[..length].to_vec();
        let is_valid = ExportLogsServiceRequest::decode(cut.as_slice()).is_ok();
        let (status, body) = post(&world, "application/x-protobuf", cut).await;
        assert_eq!(status == 200, is_valid, "{length} of {} bytes: {status} {body}", whole.len());
        if !is_valid {
            assert_eq!(status, 400);
            assert!(body.contains("byte") && body.contains("expected"), "{body}");
        } else {
            taken += 1;
        }
    }
    assert!(taken >= 1, "the empty request is valid");
    serves(&world).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_with_wrong_types_says_where() {
    let world = World::start(LOCAL).await;
    for (body, place) in [
        (r#"{"resourceLogs": 7}"#, "resourceLogs"),
        (
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityNumber":"INFO"}]}]}]}"#,
            "severityNumber",
        ),
        (r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"traceId":"xyz"}]}]}]}"#, "traceId"),
        (r#"{"resourceLogs":["#, ""),
        ("", ""),
    ] {
        let (status, answer) = post(&world, "application/json", body.into()).await;
        assert_eq!(status, 400, "{body}: {answer}");
        assert!(answer.contains(place), "{body}: {answer}");
    }
    serves(&world).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_claimed_in_a_length_prefix_costs_nothing() {
    let world = World::start(LOCAL).await;
    // An HTTP/1.1 body that claims a gigabyte and sends ten bytes.
    let mut socket = tokio::net::TcpStream::connect(world.otlp_http()).await.unwrap();
    let head = "POST /v1/logs HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 1073741824\r\n\r\n0123456789";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 64];
    let read = tokio::time::timeout(crate::world::PATIENCE, socket.read(&mut answer)).await.unwrap().unwrap();
    assert!(
        String::from_utf8_lossy(&answer[..read]).starts_with("HTTP/1.1 413"),
        "{}",
        String::from_utf8_lossy(&answer[..read])
    );
    // A field inside that claims more than there is.
    let (status, body) =
        post(&world, "application/x-protobuf", vec![0x0a, 0x80, 0x80, 0x80, 0x80, 0x04]).await;
    assert_eq!(status, 400, "{body}");
    serves(&world).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_wide_and_huge_records_are_taken_or_told() {
    // 100,000 attributes are more than a record may hold unless it is told so; and a build for tests is slow.
    let yaml = LOCAL.replace("guard: true }", "guard: true, limits: { time: 5s } }")
        + "memory: { record_max: 4MiB }\n";
    let world = World::start(&yaml).await;
    let send = |request: ExportLogsServiceRequest| world.send(None, request);

    let wide = KeyValue { key: "key".into(), value: Some(text("v")), ..Default::default() };
    let mut many = logs(&[("project.id", "wide")], &["wide"]);
    many.resource_logs[0].scope_logs[0].log_records[0].attributes =
        (0..100_000).map(|number| KeyValue { key: format!("k{number}"), ..wide.clone() }).collect();
    assert_eq!(send(many).await.unwrap().partial_success, None);
    assert_eq!(
        world.history_of(None, "local", "wide", 1).await[0]["attributes"].as_object().unwrap().len(),
        100_000
    );

    let nested = |levels: usize| {
        let list = |inner| AnyValue { value: Some(Value::ArrayValue(ArrayValue { values: vec![inner] })) };
        let mut request = logs(&[("project.id", "deep")], &["deep"]);
        request.resource_logs[0].scope_logs[0].log_records[0].body =
            Some((0..levels).fold(text("x"), |inner, _| list(inner)));
        request
    };
    assert_eq!(send(nested(64)).await.unwrap().partial_success, None);
    let shown = world.history_of(None, "local", "deep", 1).await[0]["body"].to_string();
    assert_eq!(shown, format!("{}\"x\"{}", "[".repeat(64), "]".repeat(64)));
    let refused = send(nested(70)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("64"), "{}", refused.message());

    let mut huge = logs(&[("project.id", "huge")], &["small"]);
    huge.resource_logs[0].scope_logs[0].log_records.push(record(&"x".repeat(60 << 20)));
    let partial = send(huge).await.unwrap().partial_success.expect("one record is too large");
    assert_eq!(partial.rejected_log_records, 1);
    assert!(partial.error_message.contains("record"), "{}", partial.error_message);
    assert_eq!(world.history_of(None, "local", "huge", 1).await[0]["body"], "small");
    serves(&world).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_hundred_thousand_minimal_records_each_have_an_id_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = trommel::config::Config::parse(LOCAL, folder.path(), "test.yaml").unwrap();
    // A build for tests on a busy machine takes about a minute: the sender waits, and the collector lets it.
    let long = std::time::Duration::from_secs(180);
    config.receivers.request_deadline_max = long;
    config.deliver.iter_mut().for_each(|delivery| delivery.attempt_timeout = long);
    let world = World::start_config(folder, config).await;
    let mut request = logs(&[("project.id", "many")], &[]);
    request.resource_logs[0].scope_logs[0].log_records = vec![Default::default(); 700_000];
    let mut client = LogsServiceClient::connect(format!("http://{}", world.grpc())).await.unwrap();
    let mut request = crate::world::with_token(request, None);
    request.set_timeout(std::time::Duration::from_secs(170));
    assert_eq!(client.export(request).await.unwrap().into_inner().partial_success, None);
    crate::world::eventually_within(long, "all are in the stream", || async {
        world.metrics().await.lines().any(|line| {
            line.contains("delivered") && line.contains("sink=\"streams\"") && line.ends_with(" 700000")
        })
    })
    .await;
    let records = world.history_of(None, "local", "many", 700_000).await;
    let ids: HashSet<&str> = records.iter().map(|record| record["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 700_000);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_is_not_utf8_is_mended_and_counted() {
    let world = World::start(LOCAL).await;
    let mut bytes = logs(&[("project.id", "mended")], &["caf? au lait"]).encode_to_vec();
    let at = bytes.windows(4).position(|window| window == b"caf?").unwrap() + 3;
    bytes[at] = 0xe9;
    let (status, _) = post(&world, "application/x-protobuf", bytes).await;
    assert_eq!(status, 200);
    assert_eq!(world.history_of(None, "local", "mended", 1).await[0]["body"], "caf\u{fffd} au lait");
    assert_eq!(world.metric("trommel_admit_mended_strings_total{tenant=\"local\"}").await, Some(1.0));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_any_length_are_shown_as_they_came() {
    let world = World::start(LOCAL).await;
    let mut request = logs(&[("project.id", "ids")], &["none", "short", "whole"]);
    let sent = &mut request.resource_logs[0].scope_logs[0].log_records;
    (sent[1].trace_id, sent[2].trace_id) = (vec![1, 2], (0..16).collect());
    assert_eq!(world.send(None, request).await.unwrap().partial_success, None);
    let records = world.history_of(None, "local", "ids", 3).await;
    let ids: Vec<_> =
        records.iter().map(|record| record.get("trace_id").and_then(|id| id.as_str())).collect();
    assert_eq!(ids, [None, Some("0102"), Some("000102030405060708090a0b0c0d0e0f")]);
    world.end().await;
}

/// Resident memory at most so far, in MiB.
fn peak_mib(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_of_10_mb_that_unpacks_to_10_gb_costs_at_most_the_limit() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let (http, console) = (free_port(), free_port());
    let yaml = LOCAL
        .replace(
            "grpc: { listen: 127.0.0.1:0 }, http: { listen: 127.0.0.1:0 }",
            &format!("http: {{ listen: 127.0.0.1:{http} }}"),
        )
        .replace("console: { listen: 127.0.0.1:0 }", &format!("console: {{ listen: 127.0.0.1:{console} }}"));
    let file = folder.path().join("trommel.yaml");
    std::fs::write(&file, yaml).unwrap();
    let mut command = Command::new(binary());
    command.args(["run", "--config"]).arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Process(command.spawn().unwrap());
    eventually("ready", || is_ready(console)).await;

    // A hundred members of 100 MiB of zeros each.
    let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    for _ in 0..100 {
        member.write_all(&[0; 1 << 20]).unwrap();
    }
    let bomb = member.finish().unwrap().repeat(100);
    assert!((9 << 20..11 << 20).contains(&bomb.len()), "{} bytes", bomb.len());
    let before = peak_mib(&process);
    let client = crate::world::client();
    let post = |body: Vec<u8>| {
        client
            .post(format!("http://127.0.0.1:{http}/v1/logs"))
            .header("content-type", "application/x-protobuf")
            .body(body)
    };
    let answer = post(bomb).header("content-encoding", "gzip").send().await.unwrap();
    assert_eq!(answer.status(), 413);
    // The limit of 64 MiB in pieces, what came over the wire, and the buffers that this outgrew: 95 MiB were seen.
    let cost = peak_mib(&process) - before;
    assert!(cost <= 64 + 3 * 16, "the bomb cost {cost} MiB");
    assert_eq!(post(logs(&[], &["still here"]).encode_to_vec()).send().await.unwrap().status(), 200);
}
