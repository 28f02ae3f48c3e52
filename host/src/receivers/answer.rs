//! The one place where receipts and refusals become OTLP answers.
//!
//! Sources: OTLP specification 1.11, "Full Success", "Partial Success", "Failures", "OTLP/gRPC Throttling",
//! "OTLP/HTTP Response"; gRPC over HTTP/2, "Responses"; google.rpc status.proto and error_details.proto.
//!
//! What a sender may send again says so by its status and by a time to come back; all other answers are final.

use super::{Body, respond};
use crate::batch::Signal;
use crate::net::body::Encoding;
use crate::pipeline::{Receipt, Refusal};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Empty, Full};
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use prost::Message;
use std::time::Duration;

/// Why a request gets no receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum No {
    Refused(Refusal),
    /// The body is not what its head says: `at` counts bytes.
    Wrong {
        at: usize,
        text: String,
    },
    /// JSON that is no OTLP: `field` is a path like `resourceLogs[0].scopeLogs`.
    Json {
        field: String,
        text: String,
    },
    /// The deadline passed, or the sender stalled.
    Late {
        after: Duration,
    },
    /// The sender is gone; nobody reads the answer.
    Gone,
    /// gRPC's own rules were broken.
    Protocol {
        text: &'static str,
    },
    /// Not one message.
    Messages,
    Encoding {
        name: String,
    },
    ContentType {
        hint: &'static str,
    },
    Method {
        allowed: &'static str,
    },
    Path {
        hint: &'static str,
    },
    /// A service that the health check does not know.
    Service,
}

/// Codes of gRPC (google.rpc.Code).
pub(super) mod code {
    pub(in crate::receivers) const OK: u32 = 0;
    pub(in crate::receivers) const INVALID_ARGUMENT: u32 = 3;
    pub(in crate::receivers) const DEADLINE_EXCEEDED: u32 = 4;
    pub(in crate::receivers) const NOT_FOUND: u32 = 5;
    pub(in crate::receivers) const PERMISSION_DENIED: u32 = 7;
    pub(in crate::receivers) const RESOURCE_EXHAUSTED: u32 = 8;
    pub(in crate::receivers) const UNIMPLEMENTED: u32 = 12;
    pub(in crate::receivers) const INTERNAL: u32 = 13;
    pub(in crate::receivers) const UNAVAILABLE: u32 = 14;
    pub(in crate::receivers) const UNAUTHENTICATED: u32 = 16;
}

/// A refusal in the words of both protocols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) grpc: u32,
    pub(super) http: StatusCode,
    /// For metrics.
    pub(super) reason: &'static str,
    message: String,
    /// Only of what may be sent again.
    after: Option<Duration>,
    /// Which part of the data is bad, and how.
    violation: Option<(String, String)>,
}

impl No {
    pub(super) fn told(&self) -> Told {
        let (grpc, http, reason) = self.statuses();
        let (message, violation) = match self {
            No::Refused(refusal @ Refusal::Malformed { offset, expected }) => {
                (refusal.to_string(), Some((format!("byte {offset}"), format!("expected {expected}"))))
            }
            No::Refused(refusal) => (refusal.to_string(), None),
            No::Wrong { at, text } => {
                (format!("malformed body at byte {at}: {text}"), Some((format!("byte {at}"), text.clone())))
            }
            No::Json { field, text } => {
                (format!("malformed JSON at {field}: {text}"), Some((field.clone(), text.clone())))
            }
            No::Late { .. } => ("the deadline passed before the request was taken".into(), None),
            No::Gone => ("the connection broke".into(), None),
            No::Protocol { text } => ((*text).into(), None),
            No::Messages => ("expected exactly one message".into(), None),
            No::Encoding { name } => {
                let name: String = name.chars().take(40).collect();
                (
                    format!(
                        "encoding `{}` is not known: expected {}",
                        name.escape_default(),
                        Encoding::ACCEPTED
                    ),
                    None,
                )
            }
            No::ContentType { hint } => (format!("unsupported content type: {hint}"), None),
            No::Method { allowed } => (format!("wrong method: expected {allowed}"), None),
            No::Path { hint } => (format!("nothing is served here: {hint}"), None),
            No::Service => ("no such service".into(), None),
        };
        Told { grpc, http, reason, message, after: self.after(), violation }
    }

    fn statuses(&self) -> (u32, StatusCode, &'static str) {
        match self {
            No::Refused(refusal) => refusal_statuses(refusal),
            No::Wrong { .. } | No::Json { .. } => {
                (code::INVALID_ARGUMENT, StatusCode::BAD_REQUEST, "malformed")
            }
            // Not 408: OTLP's senders would drop the data.
            No::Late { .. } => (code::DEADLINE_EXCEEDED, StatusCode::SERVICE_UNAVAILABLE, "late"),
            No::Gone => (code::UNAVAILABLE, StatusCode::BAD_REQUEST, "gone"),
            No::Protocol { .. } => (code::INTERNAL, StatusCode::HTTP_VERSION_NOT_SUPPORTED, "unsupported"),
            No::Messages => (code::UNIMPLEMENTED, StatusCode::BAD_REQUEST, "malformed"),
            No::Encoding { .. } => (code::UNIMPLEMENTED, StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported"),
            No::ContentType { .. } => {
                (code::UNIMPLEMENTED, StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported")
            }
            No::Method { .. } => (code::UNIMPLEMENTED, StatusCode::METHOD_NOT_ALLOWED, "unsupported"),
            No::Path { .. } => (code::UNIMPLEMENTED, StatusCode::NOT_FOUND, "unsupported"),
            No::Service => (code::NOT_FOUND, StatusCode::NOT_FOUND, "unsupported"),
        }
    }

    fn after(&self) -> Option<Duration> {
        match self {
            No::Late { after } => Some(*after),
            No::Refused(
                Refusal::Busy { after }
                | Refusal::OverQuota { after, .. }
                | Refusal::DiskFull { after }
                | Refusal::Behind { after }
                | Refusal::Plugin { after, .. }
                | Refusal::Stopping { after },
            ) => Some(*after),
            _ => None,
        }
    }
}

fn refusal_statuses(refusal: &Refusal) -> (u32, StatusCode, &'static str) {
    match refusal {
        Refusal::Malformed { .. } => (code::INVALID_ARGUMENT, StatusCode::BAD_REQUEST, "malformed"),
        Refusal::Unauthenticated => (code::UNAUTHENTICATED, StatusCode::UNAUTHORIZED, "unauthenticated"),
        Refusal::Forbidden => (code::PERMISSION_DENIED, StatusCode::FORBIDDEN, "forbidden"),
        // Without RetryInfo it is final.
        Refusal::TooLarge { .. } => (code::RESOURCE_EXHAUSTED, StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        Refusal::Busy { .. } => (code::UNAVAILABLE, StatusCode::SERVICE_UNAVAILABLE, "busy"),
        // With RetryInfo it may come again.
        Refusal::OverQuota { .. } => (code::RESOURCE_EXHAUSTED, StatusCode::TOO_MANY_REQUESTS, "over_quota"),
        Refusal::DiskFull { .. } => (code::UNAVAILABLE, StatusCode::SERVICE_UNAVAILABLE, "disk_full"),
        Refusal::Behind { .. } => (code::UNAVAILABLE, StatusCode::SERVICE_UNAVAILABLE, "sink_behind"),
        Refusal::Plugin { .. } => (code::UNAVAILABLE, StatusCode::SERVICE_UNAVAILABLE, "plugin"),
        Refusal::Stopping { .. } => (code::UNAVAILABLE, StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    }
}

/// For metrics.
pub(super) fn receipt_name(receipt: &Receipt) -> &'static str {
    if is_full(receipt) { "ok" } else { "partial" }
}

fn is_full(receipt: &Receipt) -> bool {
    receipt.rejected == 0 && receipt.message.is_empty()
}

/// The two forms of an OTLP/HTTP body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Protobuf,
    Json,
}

impl Form {
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Form::Protobuf => "application/x-protobuf",
            Form::Json => "application/json",
        })
    }
}

/// OTLP/gRPC: taken.
pub(super) fn grpc_receipt(receipt: &Receipt) -> Response<Body> {
    grpc_message(&receipt_message(receipt))
}

/// A unary gRPC answer with this message and status OK.
pub(super) fn grpc_message(message: &impl Message) -> Response<Body> {
    let trailers = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from(code::OK))]);
    let body = Full::new(grpc_frame(message)).with_trailers(std::future::ready(Some(Ok(trailers))));
    grpc_response(body.boxed_unsync())
}

/// One length-prefixed message, not compressed.
pub(super) fn grpc_frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("answers are short"));
    message.encode(&mut frame).expect("a BytesMut grows");
    frame.freeze()
}

pub(super) fn grpc_response(body: Body) -> Response<Body> {
    let mut response = respond(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// OTLP/gRPC: not taken. Trailers only.
pub(super) fn grpc_refusal(no: &No) -> Response<Body> {
    let told = no.told();
    let mut response = grpc_response(Empty::new().boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(GRPC_STATUS, HeaderValue::from(told.grpc));
    headers.insert("grpc-message", percent_encoded(&told.message));
    if told.after.is_some() || told.violation.is_some() {
        let details = STANDARD_NO_PAD.encode(told.status_message().encode_to_vec());
        headers.insert("grpc-status-details-bin", HeaderValue::try_from(details).expect("base64 is ASCII"));
    }
    if matches!(no, No::Encoding { .. }) {
        headers.insert("grpc-accept-encoding", HeaderValue::from_static("gzip,zstd,identity"));
    }
    response
}

const GRPC_STATUS: hyper::header::HeaderName = hyper::header::HeaderName::from_static("grpc-status");

/// Source: gRPC over HTTP/2, "Percent-Encoded".
fn percent_encoded(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(encoded).expect("printable ASCII")
}

/// OTLP/HTTP: taken.
pub(super) fn http_receipt(signal: Signal, receipt: &Receipt, form: Form) -> Response<Body> {
    let body = match form {
        Form::Protobuf => receipt_message(receipt).encode_to_vec(),
        Form::Json if is_full(receipt) => b"{}".to_vec(),
        Form::Json => {
            let rejected = match signal {
                Signal::Logs => "rejectedLogRecords",
                Signal::Traces => "rejectedSpans",
                Signal::Metrics => "rejectedDataPoints",
            };
            let partial = serde_json::json!({ rejected: receipt.rejected.to_string(), "errorMessage": receipt.message });
            serde_json::json!({ "partialSuccess": partial }).to_string().into_bytes()
        }
    };
    http_response(StatusCode::OK, form, body)
}

/// OTLP/HTTP: not taken. The body is a google.rpc.Status in the form of the request.
pub(super) fn http_refusal(no: &No, form: Form) -> Response<Body> {
    let told = no.told();
    let body = match form {
        Form::Protobuf => told.status_message().encode_to_vec(),
        Form::Json => told.status_json().to_string().into_bytes(),
    };
    let mut response = http_response(told.http, form, body);
    let headers = response.headers_mut();
    if let Some(after) = told.after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds_up(after)));
    }
    match no {
        No::Refused(Refusal::Unauthenticated) => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        No::Encoding { .. } => {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(Encoding::ACCEPTED));
        }
        No::Method { allowed } => {
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        _ => {}
    }
    response
}

fn http_response(status: StatusCode, form: Form, body: Vec<u8>) -> Response<Body> {
    let mut response = respond(Full::new(Bytes::from(body)).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, form.content_type());
    response
}

/// Rounded up: who comes back earlier is sent away again.
fn seconds_up(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

impl Told {
    fn status_message(&self) -> Status {
        let mut details = Vec::new();
        if let Some(after) = self.after {
            let retry_delay = DurationMessage {
                seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                nanos: i32::try_from(after.subsec_nanos()).expect("less than a second"),
            };
            details.push(any(RETRY_INFO, &RetryInfo { retry_delay: Some(retry_delay) }));
        }
        if let Some((field, description)) = self.violation.clone() {
            details.push(any(
                BAD_REQUEST,
                &BadRequest { field_violations: vec![FieldViolation { field, description }] },
            ));
        }
        let code = i32::try_from(self.grpc).expect("codes are small");
        Status { code, message: self.message.clone(), details }
    }

    fn status_json(&self) -> serde_json::Value {
        let mut details = Vec::new();
        if let Some(after) = self.after {
            let delay = format!("{}.{:09}s", after.as_secs(), after.subsec_nanos());
            details.push(serde_json::json!({ "@type": RETRY_INFO, "retryDelay": delay }));
        }
        if let Some((field, description)) = &self.violation {
            let violation = serde_json::json!({ "field": field, "description": description });
            details.push(serde_json::json!({ "@type": BAD_REQUEST, "fieldViolations": [violation] }));
        }
        serde_json::json!({ "code": self.grpc, "message": self.message, "details": details })
    }
}

fn receipt_message(receipt: &Receipt) -> ExportResponse {
    let partial = PartialSuccess {
        rejected: i64::try_from(receipt.rejected).unwrap_or(i64::MAX),
        error_message: receipt.message.clone(),
    };
    ExportResponse { partial_success: (!is_full(receipt)).then_some(partial) }
}

/// ExportLogsServiceResponse, ExportTraceServiceResponse, ExportMetricsServiceResponse: the same on the wire.
#[derive(Clone, PartialEq, Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

/// google.rpc.Status
#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<DurationMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct DurationMessage {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<FieldViolation>,
}

#[derive(Clone, PartialEq, Message)]
struct FieldViolation {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
}

fn any(type_url: &str, message: &impl Message) -> Any {
    Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
}
