//! What an OTLP server's answer means. Source: OTLP specification 1.11, "OTLP/gRPC Response", "OTLP/HTTP Response".
//!
//! Nothing here trusts the server: lengths are bounded, texts are cut and escaped, broken details are ignored.

use crate::net::http::{retry_after, shown};
use crate::sinks::{SendError, Sent};
use ::http::{HeaderMap, StatusCode};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jiff::Timestamp;
use prost::Message;
use std::time::Duration;
use tonic::Code;

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// `Export*ServiceResponse`: the same shape for all signals.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RpcStatus {
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
pub(super) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(super) retry_delay: Option<ProtoDuration>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ProtoDuration {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

/// The body of a success. A body that is no such message was a success all the same.
pub(super) fn sent(body: &[u8]) -> Sent {
    let partial = ExportResponse::decode(body).ok().and_then(|answer| answer.partial_success);
    let Some(partial) = partial else { return Sent::default() };
    if partial.rejected > 0 || !partial.error_message.is_empty() {
        let (rejected, message) = (partial.rejected, shown(&partial.error_message));
        tracing::debug!(rejected, message, "partial success");
    }
    Sent { rejected_unnamed: u64::try_from(partial.rejected).unwrap_or(0), ..Sent::default() }
}

/// The outcome of a gRPC call from its headers or trailers; `None` if they hold no `grpc-status`.
pub(super) fn grpc_status(headers: &HeaderMap) -> Option<Result<(), SendError>> {
    let code = Code::from_bytes(headers.get("grpc-status")?.as_bytes());
    if code == Code::Ok {
        return Some(Ok(()));
    }
    let message =
        headers.get("grpc-message").map(|value| percent_decoded(value.as_bytes())).unwrap_or_default();
    let retry_info = headers.get("grpc-status-details-bin").and_then(|value| retry_info_of(value.as_bytes()));
    Some(Err(grpc_error(code, &message, retry_info)))
}

fn grpc_error(code: Code, message: &str, retry_info: Option<Duration>) -> SendError {
    let said = format!("{code:?}: {}", shown(message));
    match code {
        Code::Cancelled | Code::DeadlineExceeded | Code::Aborted | Code::Unavailable | Code::DataLoss => {
            SendError::Retry { after: retry_info, reason: said }
        }
        // What some servers say of a message beyond their limit; the specification has it tried again all the same.
        Code::OutOfRange if retry_info.is_none() => SendError::RetrySmaller { reason: said },
        // Only if the server says that it will recover; else the request is too large for it.
        Code::OutOfRange | Code::ResourceExhausted if retry_info.is_some() => {
            SendError::Retry { after: retry_info, reason: said }
        }
        Code::ResourceExhausted => SendError::Reject { reason: "too_large", message: said },
        Code::Unauthenticated | Code::PermissionDenied => {
            SendError::RejectAny { reason: "unauthorized", message: said }
        }
        Code::Unimplemented | Code::NotFound => SendError::RejectAny { reason: "not_found", message: said },
        _ => SendError::Reject { reason: "refused", message: said },
    }
}

/// An HTTP status without a `grpc-status`: something between us and the server answered.
/// Source: gRPC, "HTTP to gRPC Status Code Mapping".
pub(super) fn grpc_error_of_http(status: StatusCode) -> SendError {
    let said = format!("HTTP status {status} instead of a gRPC answer");
    match status.as_u16() {
        429 | 502 | 503 | 504 => SendError::Retry { after: None, reason: said },
        _ => refusal(status, said),
    }
}

/// The error of an HTTP answer that is no success.
pub(super) fn http_error(status: StatusCode, headers: &HeaderMap, body: &[u8], now: Timestamp) -> SendError {
    let code = status.as_u16();
    let message = RpcStatus::decode(body).map(|status| status.message).unwrap_or_default();
    let said = |message: &str| format!("{code}: {}", shown(message));
    match code {
        429 | 502 | 503 | 504 => {
            SendError::Retry { after: retry_after(headers, now), reason: said(&message) }
        }
        // Many answer with a text, or with JSON.
        _ if message.is_empty() => refusal(status, said(std::str::from_utf8(body).unwrap_or_default())),
        _ => refusal(status, said(&message)),
    }
}

/// Of a status that is final: whether it is about what was sent, or would be the same for anything.
fn refusal(status: StatusCode, message: String) -> SendError {
    match status.as_u16() {
        401 | 403 | 407 => SendError::RejectAny { reason: "unauthorized", message },
        404 | 405 | 410 | 501 => SendError::RejectAny { reason: "not_found", message },
        // Redirects are not followed, and no part of the request would change what the others say.
        ..=399 | 402 | 406 | 411 | 415 | 417 | 421 | 426 | 431 | 505 | 511 => {
            SendError::RejectAny { reason: "refused", message }
        }
        413 => SendError::Reject { reason: "too_large", message },
        _ => SendError::Reject { reason: "refused", message },
    }
}

fn retry_info_of(header: &[u8]) -> Option<Duration> {
    // Senders differ in whether they pad; both are allowed.
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&STANDARD, config).decode(header).ok()?;
    let status = RpcStatus::decode(&bytes[..]).ok()?;
    let info = status.details.iter().find(|detail| detail.type_url == RETRY_INFO)?;
    let delay = RetryInfo::decode(&info.value[..]).ok()?.retry_delay.unwrap_or_default();
    let seconds = Duration::from_secs(u64::try_from(delay.seconds).unwrap_or(0));
    Some(seconds + Duration::from_nanos(u64::try_from(delay.nanos).unwrap_or(0).min(999_999_999)))
}

fn percent_decoded(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};

    fn details(seconds: i64, nanos: i32) -> Vec<u8> {
        let value = RetryInfo { retry_delay: Some(ProtoDuration { seconds, nanos }) }.encode_to_vec();
        let other = Any { type_url: "type.googleapis.com/google.rpc.DebugInfo".into(), value: vec![255] };
        let details = vec![other, Any { type_url: RETRY_INFO.into(), value }];
        RpcStatus { code: 8, message: String::new(), details }.encode_to_vec()
    }

    fn of(code: i32, details: Option<&str>) -> Result<(), SendError> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", code.to_string().parse().unwrap());
        if let Some(details) = details {
            headers.insert("grpc-status-details-bin", details.parse().unwrap());
        }
        grpc_status(&headers).unwrap()
    }

    #[test]
    fn the_retryable_grpc_codes_are_those_of_the_specification() {
        let is_retried = |code: &i32| {
            matches!(of(*code, None), Err(SendError::Retry { .. } | SendError::RetrySmaller { .. }))
        };
        let retryable: Vec<i32> = (1..=17).filter(is_retried).collect();
        // Cancelled, deadline exceeded, aborted, out of range, unavailable, data loss.
        assert_eq!(retryable, [1, 4, 10, 11, 14, 15]);
        assert_eq!(of(0, None), Ok(()));
    }

    #[test]
    fn an_answer_about_what_was_sent_and_one_about_the_sender_are_told_apart() {
        for (code, word, is_any) in [
            (2, "refused", false),
            (3, "refused", false),
            (5, "not_found", true),
            (6, "refused", false),
            (7, "unauthorized", true),
            (8, "too_large", false),
            (9, "refused", false),
            (12, "not_found", true),
            (13, "refused", false),
            (16, "unauthorized", true),
            (17, "refused", false),
        ] {
            let told = match of(code, None) {
                Err(SendError::Reject { reason, .. }) => (reason, false),
                Err(SendError::RejectAny { reason, .. }) => (reason, true),
                other => panic!("{code}: {other:?}"),
            };
            assert_eq!(told, (word, is_any), "{code}");
        }
        for (status, word, is_any) in [
            (302, "refused", true),
            (400, "refused", false),
            (401, "unauthorized", true),
            (403, "unauthorized", true),
            (404, "not_found", true),
            (405, "not_found", true),
            (409, "refused", false),
            (413, "too_large", false),
            (415, "refused", true),
            (422, "refused", false),
            (500, "refused", false),
            (501, "not_found", true),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let now = "2026-01-01T00:00:00Z".parse().unwrap();
            for error in [http_error(status, &HeaderMap::new(), b"", now), grpc_error_of_http(status)] {
                let told = match error {
                    SendError::Reject { reason, .. } => (reason, false),
                    SendError::RejectAny { reason, .. } => (reason, true),
                    other => panic!("{status}: {other:?}"),
                };
                assert_eq!(told, (word, is_any), "{status}");
            }
        }
    }

    #[test]
    fn resource_exhausted_is_retryable_only_with_a_time() {
        assert!(matches!(of(8, None), Err(SendError::Reject { .. })));
        for text in [BASE64_STANDARD.encode(details(3, 5)), BASE64_STANDARD_NO_PAD.encode(details(3, 5))] {
            for code in [8, 11] {
                let Err(SendError::Retry { after, .. }) = of(code, Some(&text)) else { panic!("{text}") };
                assert_eq!(after, Some(Duration::new(3, 5)));
            }
        }
    }

    #[test]
    fn broken_details_are_ignored() {
        for text in ["%%%", "AAAA", "CgA=", ""] {
            assert!(matches!(of(8, Some(text)), Err(SendError::Reject { .. })), "{text}");
            assert!(matches!(of(14, Some(text)), Err(SendError::Retry { after: None, .. })), "{text}");
        }
        let negative = BASE64_STANDARD.encode(details(-3, -5));
        assert!(matches!(of(14, Some(&negative)), Err(SendError::Retry { after: Some(Duration::ZERO), .. })));
    }

    #[test]
    fn the_retryable_http_statuses_are_those_of_the_specification() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let retryable: Vec<u16> = (300..600)
            .filter(|code| {
                let status = StatusCode::from_u16(*code).unwrap();
                matches!(http_error(status, &HeaderMap::new(), b"", now), SendError::Retry { .. })
            })
            .collect();
        assert_eq!(retryable, [429, 502, 503, 504]);
    }

    #[test]
    fn a_refusal_has_the_words_of_the_server_in_whatever_form_they_come() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let said = |body: &[u8]| match http_error(StatusCode::BAD_REQUEST, &HeaderMap::new(), body, now) {
            SendError::Reject { message, .. } => message,
            other => panic!("{other:?}"),
        };
        let status = RpcStatus { code: 3, message: "no such index".into(), details: Vec::new() };
        assert_eq!(said(&status.encode_to_vec()), "400: no such index");
        assert_eq!(said(b"no such\nindex"), "400: no such\\nindex");
        assert_eq!(said(br#"{"message":"no"}"#), r#"400: {"message":"no"}"#);
        assert_eq!((said(b""), said(b"\xff\xff")), ("400: ".into(), "400: ".into()));
    }

    #[test]
    fn messages_are_percent_decoded() {
        assert_eq!(percent_decoded(b"a%20b%zz%e2%82%ac%"), "a b%zz€%");
    }

    #[test]
    fn a_partial_success_counts_what_was_rejected() {
        let partial = |rejected| {
            let partial_success = Some(PartialSuccess { rejected, error_message: "no".into() });
            sent(&ExportResponse { partial_success }.encode_to_vec()).rejected_unnamed
        };
        assert_eq!((partial(3), partial(0), partial(-1)), (3, 0, 0));
        assert_eq!(sent(b""), Sent::default());
        assert_eq!(sent(b"\xff\xff"), Sent::default());
    }
}
