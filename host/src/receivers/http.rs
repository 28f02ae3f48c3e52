//! OTLP/HTTP: protobuf and JSON on one port, told apart by the content type.
//!
//! Source: OTLP specification, "OTLP/HTTP".

use super::answer::{Form, No, grpc_refusal, http_receipt, http_refusal, receipt_name};
use super::{Body, Receiver, body_answer, deadline, json, take_room};
use crate::batch::Signal;
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
    let mut room = receiver.tenants.open_room(&caller);
    let limits = receiver.body_limits();
    let mut reader = Reader::new(request.into_body(), limits, deadline, |bytes| take_room(&mut room, bytes));
    let body = reader.rest(None, encoding).await.map_err(|fault| body_answer(fault, limits.bytes_max))?;
    drop(reader);
    let body = match form {
        Form::Protobuf => body,
        Form::Json => transcoded(signal, body, limits.bytes_max, &mut room).await?,
    };
    receiver.submit(Submission { signal, body, caller, room, deadline }).await
}

/// The JSON as protobuf.
async fn transcoded(signal: Signal, text: Bytes, bytes_max: usize, room: &mut Taken) -> Result<Bytes, No> {
    let charged = text.len();
    let message = match signal {
        Signal::Logs => &json::schema::LOGS,
        Signal::Traces => &json::schema::TRACES,
        Signal::Metrics => &json::schema::METRICS,
    };
    let transcode = move || json::to_protobuf(message, &text, bytes_max);
    let made = if charged <= JSON_INLINE_BYTES {
        transcode()
    } else {
        // Cancelled only when the runtime shuts down.
        tokio::task::spawn_blocking(transcode).await.map_err(|_| No::Gone)?
    };
    match made {
        // Rare: a list of short numbers grows.
        Ok(body) if body.len() > charged => {
            let more = body.len() - charged;
            take_room(room, more).map_err(|full| body_answer(Fault::Room(full), bytes_max))?;
            Ok(body.into())
        }
        Ok(body) => Ok(body.into()),
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
    use super::*;

    const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
    const TOKEN: (&str, &str) = ("authorization", SENDER);

    #[tokio::test]
    async fn protobuf_arrives_as_it_was_sent() {
        let world = World::taking().await;
        for (path, signal) in
            [("/v1/logs", Signal::Logs), ("/v1/traces", Signal::Traces), ("/v1/metrics", Signal::Metrics)]
        {
            let answer = post(world.http, path, &[PROTOBUF, TOKEN], &[10, 0]).await;
            assert_eq!((answer.status, answer.body.len()), (200, 0), "{path}");
            assert_eq!(answer.header("content-type"), Some("application/x-protobuf"));
            assert_eq!(world.handed().pop().unwrap().signal, signal);
        }
        world.settled().await;
    }
}
