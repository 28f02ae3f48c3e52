//! OTLP/gRPC: three unary methods and five bytes of frame each way, on hyper.
//!
//! Not tonic's server, which buffers and inflates a message before any code of ours runs.
//! Source: gRPC over HTTP/2 (PROTOCOL-HTTP2.md), compression.md; OTLP specification, "OTLP/gRPC".

use super::answer::{No, grpc_receipt, grpc_refusal, http_refusal, receipt_name};
use super::{Body, Receiver, body_answer, deadline, health, http, take_room};
use crate::batch::Signal;
use crate::net::body::{Encoding, Fault, Reader};
use crate::pipeline::{Receipt, Refusal, Submission};
use crate::tenants::Full;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Method, Request, Response, Version};
use std::time::Duration;

const HTTP_HINT: &str = "this port speaks OTLP/gRPC (application/grpc); send OTLP/HTTP to the port of the http receiver, 4318 by default";
const PATH_HINT: &str = "expected the Export method of the LogsService, TraceService or MetricsService of OTLP v1, or grpc.health.v1.Health";

pub(super) async fn answer<S, F>(receiver: &Receiver<S>, request: Request<Incoming>) -> Response<Body>
where
    S: Fn(Submission) -> F,
    F: Future<Output = Result<Receipt, Refusal>>,
{
    if let Err(no) = check_head(&request) {
        // Not a gRPC client: it reads HTTP's status.
        return http_refusal(&no, http::form_of_answer(request.headers()));
    }
    if !is_protobuf(request.headers()) {
        return grpc_refusal(&No::ContentType {
            hint: "expected application/grpc or application/grpc+proto",
        });
    }
    if let Some(method) = health::method(request.uri().path()) {
        return health::answer(receiver, method, request).await;
    }
    let Some(signal) = signal(request.uri().path()) else {
        return grpc_refusal(&No::Path { hint: PATH_HINT });
    };
    match export(receiver, signal, request).await {
        Ok(receipt) => {
            receiver.count("grpc", signal, receipt_name(&receipt));
            grpc_receipt(&receipt)
        }
        Err(no) => {
            receiver.count("grpc", signal, no.told().reason);
            grpc_refusal(&no)
        }
    }
}

fn signal(path: &str) -> Option<Signal> {
    match path {
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Some(Signal::Logs),
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Some(Signal::Traces),
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Some(Signal::Metrics),
        _ => None,
    }
}

/// What is answered with HTTP's own statuses.
fn check_head(request: &Request<Incoming>) -> Result<(), No> {
    let content_type = request.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let is_grpc = content_type
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')));
    if !is_grpc {
        return Err(No::ContentType { hint: HTTP_HINT });
    }
    if request.method() != Method::POST {
        return Err(No::Method { allowed: "POST" });
    }
    if request.version() < Version::HTTP_2 {
        return Err(No::Protocol { text: "gRPC needs HTTP/2" });
    }
    Ok(())
}

/// gRPC can carry other encodings of messages; we take one.
fn is_protobuf(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    matches!(value.split(';').next().map(str::trim), Some("application/grpc" | "application/grpc+proto"))
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
    let deadline = deadline(&receiver.settings, timeout(request.headers()));
    let caller = receiver.authorize(&request)?;
    let encoding = encoding(request.headers())?;
    let mut room = receiver.open_room(&caller)?;
    let limits = receiver.body_limits();
    let mut reader = Reader::new(request.into_body(), limits, deadline, |bytes| take_room(&mut room, bytes));
    let message = read_message(&mut reader, encoding).await;
    let body = message.map_err(|fault| fault.no(limits.bytes_max))?;
    drop(reader);
    receiver.submit(Submission { signal, body, caller, room, deadline }).await
}

/// Exactly one message; `encoding` holds where its flag says that it is compressed.
pub(super) async fn read_message<B, R, E>(
    reader: &mut Reader<B, R>,
    encoding: Option<Encoding>,
) -> Result<Bytes, MessageFault<E>>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    R: FnMut(usize) -> Result<(), E>,
{
    let head = reader.head::<5>().await.map_err(MessageFault::Body)?;
    let [flag, length @ ..] = head.ok_or(MessageFault::No(No::Messages))?;
    let encoding = match (flag, encoding) {
        (0, _) => Encoding::Identity,
        (1, Some(encoding)) if encoding != Encoding::Identity => encoding,
        (1, _) => {
            return Err(MessageFault::No(No::Protocol {
                text: "a compressed message without grpc-encoding",
            }));
        }
        _ => return Err(MessageFault::No(No::Protocol { text: "the flag of a message is 0 or 1" })),
    };
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    match reader.rest(Some(length), encoding).await {
        Err(Fault::Long { .. }) => Err(MessageFault::No(No::Messages)),
        body => body.map_err(MessageFault::Body),
    }
}

/// Why there is no message.
pub(super) enum MessageFault<E> {
    Body(Fault<E>),
    No(No),
}

impl MessageFault<Full> {
    pub(super) fn no(self, bytes_max: usize) -> No {
        match self {
            MessageFault::Body(fault) => body_answer(fault, bytes_max),
            MessageFault::No(no) => no,
        }
    }
}

/// `None` where the header is absent.
pub(super) fn encoding(headers: &HeaderMap) -> Result<Option<Encoding>, No> {
    let Some(value) = headers.get("grpc-encoding") else { return Ok(None) };
    let name = String::from_utf8_lossy(value.as_bytes());
    match Encoding::named(&name) {
        Some(encoding) => Ok(Some(encoding)),
        None => Err(No::Encoding { name: name.into_owned() }),
    }
}

/// `grpc-timeout`: at most eight digits and a unit. What cannot be read counts as absent.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
