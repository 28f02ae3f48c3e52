//! OTLP/HTTP: protobuf and JSON on one port, told apart by the content type.
//!
//! Source: OTLP specification, "OTLP/HTTP".

use super::answer::{Form, No, grpc_refusal, http_receipt, http_refusal, receipt_name};
use super::{Body, Receiver, body_answer, deadline, take_room};
use crate::batch::{Signal, json};
use crate::net::body::{Encoding, Fault, Reader};
use crate::pipeline::{Receipt, Refusal, Submission};
use crate::tenants::Taken;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use hyper::{Method, Request, Response};

/// What is transcoded without leaving the executor: a fraction of a millisecond.
const JSON_INLINE_BYTES: usize = 32 << 10;
const PATH_HINT: &str = "expected /v1/logs, /v1/traces or /v1/metrics";
const TYPE_HINT: &str = "expected application/x-protobuf or application/json";
const GRPC_HINT: &str =
    "this port speaks OTLP/HTTP; send OTLP/gRPC to the port of the grpc receiver, 4317 by default";

pub(super) async fn answer<S, F>(receiver: &Receiver<S>, request: Request<Incoming>) -> Response<Body>
where
    S: Fn(Submission) -> F,
    F: Future<Output = Result<Receipt, Refusal>>,
{
    let form = form_of_answer(request.headers());
    if content_type(request.headers()).starts_with("application/grpc") {
        // A gRPC client shows its user this text, but not that of an HTTP status.
        return grpc_refusal(&No::Path { hint: GRPC_HINT });
    }
    let Some(signal) = signal(request.uri().path()) else {
        return http_refusal(&No::Path { hint: PATH_HINT }, form);
    };
    match export(receiver, signal, request).await {
        Ok(receipt) => {
            receiver.count("http", signal, receipt_name(&receipt));
            http_receipt(signal, &receipt, form)
        }
        Err(no) => {
            receiver.count("http", signal, no.told().reason);
            http_refusal(&no, form)
        }
    }
}

fn signal(path: &str) -> Option<Signal> {
    match path {
        "/v1/logs" => Some(Signal::Logs),
        "/v1/traces" => Some(Signal::Traces),
        "/v1/metrics" => Some(Signal::Metrics),
        _ => None,
    }
}

async fn export<S, F>(
    receiver: &Receiver<S>,
    signal: Signal,
    request: Request<Incoming>,
) -> Result<Receipt, No>
where
    S: Fn(Submission) -> F,
    F: Future<Output = Result<Receipt, Refusal>>,
{
    if request.method() != Method::POST {
        return Err(No::Method { allowed: "POST" });
    }
    let deadline = deadline(&receiver.settings, None);
    let caller = receiver.authorize(&request)?;
    let form = form(request.headers()).ok_or(No::ContentType { hint: TYPE_HINT })?;
    let encoding = encoding(request.headers())?;
    let mut room = receiver.open_room(&caller)?;
    let limits = receiver.body_limits();
    let mut reader = Reader::new(request.into_body(), limits, deadline, |bytes| take_room(&mut room, bytes));
    let body = reader.rest(None, encoding).await.map_err(|fault| body_answer(fault, limits.bytes_max))?;
    drop(reader);
    let (body, room) = match form {
        Form::Protobuf => (body, room),
        Form::Json => transcoded(signal, body, limits.bytes_max, room).await?,
    };
    receiver.submit(Submission { signal, body, caller, room, deadline }).await
}

/// The JSON as protobuf.
async fn transcoded(
    signal: Signal,
    text: Bytes,
    bytes_max: usize,
    mut room: Taken,
) -> Result<(Bytes, Taken), No> {
    let charged = text.len();
    let message = json::request_of(signal);
    let made = if charged <= JSON_INLINE_BYTES {
        json::to_protobuf(message, &text, bytes_max)
    } else {
        // The room goes along: the bytes are held until the work ends, also when the sender has gone meanwhile.
        let work = tokio::task::spawn_blocking(move || (json::to_protobuf(message, &text, bytes_max), room));
        // Cancelled only when the runtime shuts down.
        let (made, same) = work.await.map_err(|_| No::Gone)?;
        room = same;
        made
    };
    match made {
        Ok(body) => {
            // Rare: a list of short numbers grows.
            let more = body.len().saturating_sub(charged);
            take_room(&mut room, more).map_err(|full| body_answer(Fault::Room(full), bytes_max))?;
            Ok((body.into(), room))
        }
        Err(json::Fault::TooLarge) => Err(No::Refused(Refusal::TooLarge { limit: bytes_max })),
        Err(json::Fault::Malformed { field, problem }) => Err(No::Json { field, text: problem }),
    }
}

/// The media type without its parameters, in small letters.
fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let media = value.split(|byte| *byte == b';').next().unwrap_or_default();
    String::from_utf8_lossy(media).trim().to_ascii_lowercase()
}

fn form(headers: &HeaderMap) -> Option<Form> {
    match content_type(headers).as_str() {
        "application/x-protobuf" => Some(Form::Protobuf),
        "application/json" => Some(Form::Json),
        _ => None,
    }
}

/// The request's own form; JSON for those who sent neither, since a person reads it.
pub(super) fn form_of_answer(headers: &HeaderMap) -> Form {
    form(headers).unwrap_or(Form::Json)
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, No> {
    let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(Encoding::Identity) };
    let name = String::from_utf8_lossy(value.as_bytes());
    Encoding::named(&name).ok_or_else(|| No::Encoding { name: name.into_owned() })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::super::{REQUEST_BYTES_MIN, Settings};
    use super::*;
    use std::time::Duration;

    const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
    const TOKEN: (&str, &str) = ("authorization", SENDER);

    const JSON: (&str, &str) = ("content-type", "application/json");

    #[tokio::test]
    async fn protobuf_and_json_arrive_as_protobuf() {
        let world = World::taking().await;
        for (path, signal, name) in [
            ("/v1/logs", Signal::Logs, "resourceLogs"),
            ("/v1/traces", Signal::Traces, "resourceSpans"),
            ("/v1/metrics", Signal::Metrics, "resourceMetrics"),
        ] {
            let answer = post(world.http, path, &[PROTOBUF, TOKEN], &[10, 0]).await;
            assert_eq!((answer.status, answer.body.len()), (200, 0), "{path}");
            assert_eq!(answer.header("content-type"), Some("application/x-protobuf"));
            let json = format!(r#"{{"{name}":[{{}}]}}"#);
            let headers = [("content-type", "Application/JSON; charset=utf-8"), TOKEN];
            let answer = post(world.http, path, &headers, json.as_bytes()).await;
            assert_eq!((answer.status, answer.body.as_slice()), (200, &b"{}"[..]), "{path}");
            assert_eq!(answer.header("content-type"), Some("application/json"));
            let bodies: Vec<_> =
                world.handed().into_iter().filter(|handed| handed.signal == signal).collect();
            assert_eq!((bodies[0].body.as_ref(), bodies[1].body.as_ref()), (&[10, 0][..], &[10, 0][..]));
        }
        // An empty request is a success in both forms.
        for (form, body) in [(PROTOBUF, &b""[..]), (JSON, b"{}")] {
            assert_eq!(post(world.http, "/v1/logs", &[form, TOKEN], body).await.status, 200);
        }
        world.settled().await;
    }

    #[tokio::test]
    async fn gzip_and_zstd_are_unpacked() {
        let world = World::taking().await;
        let body = [10, 0].repeat(100_000);
        for (name, bytes) in [("gzip", gzip(&body)), ("zstd", zstd(&body)), ("identity", body.clone())] {
            let headers = [PROTOBUF, TOKEN, ("content-encoding", name)];
            assert_eq!(post(world.http, "/v1/logs", &headers, &bytes).await.status, 200, "{name}");
            assert!(world.handed().pop().unwrap().body == body, "{name}");
        }
        let json = format!(r#"{{"resourceLogs":[{}]}}"#, ["{}"; 20_000].join(","));
        let headers = [JSON, TOKEN, ("content-encoding", "gzip")];
        assert_eq!(post(world.http, "/v1/logs", &headers, &gzip(json.as_bytes())).await.status, 200);
        assert_eq!(world.handed().pop().unwrap().body, [10, 0].repeat(20_000));
        world.settled().await;
    }

    #[tokio::test]
    async fn a_partial_success_says_how_many_and_why() {
        let world = World::answering(Ok(Receipt { rejected: 7, message: "no tenant".into() })).await;
        for (path, name, json) in [
            ("/v1/logs", "rejectedLogRecords", r#"{"resourceLogs":[]}"#),
            ("/v1/traces", "rejectedSpans", r#"{}"#),
            ("/v1/metrics", "rejectedDataPoints", r#"{}"#),
        ] {
            let answer = post(world.http, path, &[JSON, TOKEN], json.as_bytes()).await;
            let expected = serde_json::json!({"partialSuccess": {name: "7", "errorMessage": "no tenant"}});
            assert_eq!((answer.status, answer.json()), (200, expected));
            let answer = post(world.http, path, &[PROTOBUF, TOKEN], b"").await;
            assert_eq!(answer.body, [&[10, 13, 8, 7, 18, 9][..], b"no tenant"].concat());
        }
        let warning = World::answering(Ok(Receipt { rejected: 0, message: "soon gone".into() })).await;
        let answer = post(warning.http, "/v1/logs", &[PROTOBUF, TOKEN], b"").await;
        assert_eq!(answer.body, [&[10, 11, 18, 9][..], b"soon gone"].concat());
    }

    #[tokio::test]
    async fn each_refusal_has_its_status_and_only_what_may_be_sent_again_has_a_time() {
        let after = Duration::from_millis(1001);
        for (refusal, status, code, retry) in [
            (Refusal::Malformed { offset: 7, expected: "a length".into() }, 400, 3, None),
            (Refusal::Unauthenticated, 401, 16, None),
            (Refusal::Forbidden, 403, 7, None),
            (Refusal::TooLarge { limit: 9 }, 413, 8, None),
            (Refusal::Busy { after }, 503, 14, Some("2")),
            (Refusal::DiskFull { after }, 503, 14, Some("2")),
            (Refusal::Behind { after }, 503, 14, Some("2")),
            (over_quota(after), 429, 8, Some("2")),
            (Refusal::Plugin { name: "redact".into(), after }, 503, 14, Some("2")),
            (Refusal::Stopping { after: Duration::from_secs(3) }, 503, 14, Some("3")),
        ] {
            let world = World::answering(Err(refusal.clone())).await;
            let answer = post(world.http, "/v1/logs", &[JSON, TOKEN], b"{}").await;
            assert_eq!((answer.status, answer.header("retry-after")), (status, retry), "{refusal:?}");
            assert_eq!(answer.json()["code"], code, "{refusal:?}");
            assert_eq!(answer.json()["message"], refusal.to_string());
            let answer = post(world.http, "/v1/logs", &[PROTOBUF, TOKEN], b"").await;
            let told =
                <super::super::answer::Status as prost::Message>::decode(answer.body.as_slice()).unwrap();
            assert_eq!((answer.status, told.code, told.message), (status, code, refusal.to_string()));
            assert_eq!(answer.header("content-type"), Some("application/x-protobuf"));
        }
    }

    #[tokio::test]
    async fn details_say_what_is_bad_and_when_to_come_back() {
        let world = World::answering(Err(Refusal::Busy { after: Duration::from_millis(1500) })).await;
        let busy = post(world.http, "/v1/logs", &[JSON, TOKEN], b"{}").await.json();
        let retry = serde_json::json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.500000000s"});
        assert_eq!(busy["details"], serde_json::json!([retry]));
        let wrong = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityNumber":"INFO"}]}]}]}"#;
        let answer = post(world.http, "/v1/logs", &[JSON, TOKEN], wrong).await;
        assert_eq!(answer.status, 400);
        let violation = &answer.json()["details"][0]["fieldViolations"][0];
        assert_eq!(violation["field"], "resourceLogs[0].scopeLogs[0].logRecords[0].severityNumber");
        let description = violation["description"].as_str().unwrap();
        assert!(description.contains("string \"INFO\", expected the number of an enum"), "{description}");
        assert!(description.contains("line 1 column 70"), "{description}");
    }

    #[tokio::test]
    async fn paths_methods_types_and_encodings_are_checked() {
        let world = World::taking().await;
        for (path, headers, status, message) in [
            ("/v1/log", &[JSON, TOKEN][..], 404, "/v1/logs, /v1/traces or /v1/metrics"),
            ("/", &[JSON, TOKEN], 404, "/v1/logs"),
            (
                "/v1/logs",
                &[("content-type", "text/plain"), TOKEN],
                415,
                "application/x-protobuf or application/json",
            ),
            ("/v1/logs", &[TOKEN], 415, "application/x-protobuf or application/json"),
            (
                "/v1/logs",
                &[JSON, TOKEN, ("content-encoding", "br")],
                415,
                "`br` is not known: expected gzip, zstd, identity",
            ),
            ("/v1/logs", &[JSON, TOKEN, ("content-encoding", "gzip")], 400, "no valid gzip"),
            ("/v1/logs", &[JSON], 401, "no valid credential"),
            ("/v1/logs", &[JSON, ("authorization", "Bearer wrong")], 401, "no valid credential"),
            ("/v1/logs", &[JSON, ("authorization", READER)], 403, "may not send"),
            ("/v1/logs", &[JSON, TOKEN], 400, "expected ident at line 1"),
        ] {
            let answer = post(world.http, path, headers, b"no json").await;
            assert_eq!(answer.status, status, "{path} {headers:?}");
            assert!(
                answer.json()["message"].as_str().unwrap().contains(message),
                "{path} {headers:?}: {answer:?}"
            );
            assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
            assert_eq!(answer.header("accept-encoding").is_some(), message.contains("br"));
        }
        let answer = raw(world.http, b"GET /v1/logs HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
        assert_eq!(world.handed(), []);
    }

    #[tokio::test]
    async fn grpc_on_this_port_is_told_the_other() {
        let world = World::taking().await;
        let path = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
        let headers = [("content-type", "application/grpc"), TOKEN];
        let answer = Http2::connect(world.http).await.post(path, &headers, framed(0, b"")).await;
        assert_eq!(answer.header("grpc-status"), Some("12"));
        assert!(answer.header("grpc-message").unwrap().contains("4317"));
    }

    #[tokio::test]
    async fn without_a_good_credential_the_body_is_not_read() {
        let world = World::taking().await;
        for (token, status) in [("Bearer wrong", 401), (READER, 403)] {
            let head = format!(
                "POST /v1/logs HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nauthorization: {token}\r\ncontent-length: 1000\r\n\r\n"
            );
            // Nothing follows.
            assert_eq!(raw(world.http, head.as_bytes()).await.status, status);
        }
        assert_eq!(world.tenants.room().peak_bytes(), 0);
    }

    #[tokio::test]
    async fn too_large_is_refused_by_what_is_announced_sent_and_unpacked() {
        let settings = Settings { body_bytes_max: 100_000, ..small() };
        let world = World::start(settings, 10 << 20, |_| async { Ok(Receipt::default()) }).await;
        let head = "POST /v1/logs HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\nauthorization: Bearer sender\r\n";
        let announced = raw(world.http, format!("{head}content-length: 1000000000\r\n\r\n").as_bytes()).await;
        assert_eq!((announced.status, world.tenants.room().peak_bytes()), (413, REQUEST_BYTES_MIN));
        let chunk = format!("{:x}\r\n{}\r\n", 60_000, "x".repeat(60_000));
        let chunked =
            format!("{head}connection: close\r\ntransfer-encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n");
        assert_eq!(raw(world.http, chunked.as_bytes()).await.status, 413);
        for (name, bytes) in [("gzip", gzip(&vec![0; 20 << 20])), ("zstd", zstd(&vec![0; 20 << 20]))] {
            let headers = [PROTOBUF, TOKEN, ("content-encoding", name)];
            let answer = post(world.http, "/v1/logs", &headers, &bytes).await;
            assert_eq!((answer.status, answer.header("retry-after")), (413, None), "{name}");
        }
        // JSON that grows on its way to protobuf.
        let zeros = ["0"; 20_000].join(",");
        let json = format!(
            r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"histogram":{{"dataPoints":[{{"explicitBounds":[{zeros}]}}]}}}}]}}]}}]}}"#
        );
        assert_eq!(post(world.http, "/v1/metrics", &[JSON, TOKEN], json.as_bytes()).await.status, 413);
        assert!(world.tenants.room().peak_bytes() <= 300_000, "{}", world.tenants.room().peak_bytes());
        assert_eq!(post(world.http, "/v1/logs", &[JSON, TOKEN], b"{}").await.status, 200);
        world.settled().await;
    }

    #[tokio::test]
    async fn who_stalls_costs_what_was_sent_and_is_answered_at_the_deadline() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let settings = Settings { body_idle_deadline: Duration::from_secs(4), ..small() };
        let world = World::start(settings, 512 << 20, |_| async { Ok(Receipt::default()) }).await;
        let request = [
            b"POST /v1/logs HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\nauthorization: Bearer sender\r\ncontent-length: 67108864\r\n\r\n",
            &[0; 10_000][..],
        ]
        .concat();
        let mut sockets = Vec::new();
        for _ in 0..256 {
            let mut socket = tokio::net::TcpStream::connect(world.http).await.unwrap();
            socket.write_all(&request).await.unwrap();
            sockets.push(socket);
        }
        let sent = 256 * 10_000 * 3;
        until("all have come", || world.tenants.room().used_bytes() == sent).await;
        // Others are served meanwhile.
        assert_eq!(post(world.http, "/v1/logs", &[JSON, TOKEN], b"{}").await.status, 200);
        for mut socket in sockets {
            let mut answer = vec![0; 12];
            socket.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, b"HTTP/1.1 503");
        }
        assert!(world.tenants.room().peak_bytes() <= sent + REQUEST_BYTES_MIN);
        world.settled().await;
    }

    #[tokio::test]
    async fn a_body_that_is_cut_is_not_handed_on() {
        let world = World::taking().await;
        let head = "POST /v1/logs HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\nauthorization: Bearer sender\r\ncontent-length: 10000\r\n\r\n";
        let mut socket = tokio::net::TcpStream::connect(world.http).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut socket, &[head.as_bytes(), &[0; 6000]].concat())
            .await
            .unwrap();
        until("it has come", || world.tenants.room().used_bytes() == 18_000).await;
        drop(socket);
        world.settled().await;
        assert_eq!(world.handed(), []);
    }
}
