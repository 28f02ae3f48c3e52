//! What a receiver's answer means, and the words for refusals.
//!
//! Of the answer's text only its kind is used: it may hold labels, which are tenants' content.
//! Source: Prometheus Remote-Write 1.0, "Retries & Backoff"; the texts are those of Prometheus, Mimir and Thanos.

use crate::net::http::retry_after;
use ::http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use std::time::Duration;

/// Why records are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nothing of the metric's name is usable.
    NoName,
    /// The point has no value.
    NoValue,
    LabelsTooLong,
    /// The series of one record are more than a request should have, or the receiver says so of one sample.
    TooLarge,
    OutOfOrder,
    Duplicate,
    TooOld,
    OutOfBounds,
    Unauthorized,
    NotFound,
    /// For a reason that we do not know.
    Refused,
}

impl Refusal {
    /// In the ledger and the log.
    pub(super) fn word(self) -> &'static str {
        match self {
            Refusal::NoName => "no_name",
            Refusal::NoValue => "no_value",
            Refusal::LabelsTooLong => "labels_too_long",
            Refusal::TooLarge => "too_large",
            Refusal::OutOfOrder => "out_of_order",
            Refusal::Duplicate => "duplicate",
            Refusal::TooOld => "too_old",
            Refusal::OutOfBounds => "out_of_bounds",
            Refusal::Unauthorized => "unauthorized",
            Refusal::NotFound => "not_found",
            Refusal::Refused => "refused",
        }
    }

    /// Whether it is what a receiver says of a sample that it has.
    pub(super) fn is_there_already(self) -> bool {
        matches!(self, Refusal::OutOfOrder | Refusal::Duplicate | Refusal::TooOld)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Taken,
    /// Something in the request is wrong; a part of it may be taken.
    Refused(Refusal),
    /// Any request would be refused.
    RefusedAny(Refusal),
    /// `is_unsent`: it cannot have arrived.
    Retry {
        after: Option<Duration>,
        reason: String,
        is_unsent: bool,
    },
}

pub(super) fn heard(status: StatusCode, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Heard {
    match status.as_u16() {
        200..=299 => Heard::Taken,
        code @ (429 | 500..) => {
            let after = retry_after(headers, now);
            Heard::Retry { after, reason: format!("status {code}"), is_unsent: code == 429 }
        }
        401 | 403 | 407 => Heard::RefusedAny(Refusal::Unauthorized),
        404 | 405 | 410 => Heard::RefusedAny(Refusal::NotFound),
        // Redirects are not followed, and no part of the request would change what they say.
        ..=399 | 406 | 411 | 415 | 417 => Heard::RefusedAny(Refusal::Refused),
        413 => Heard::Refused(Refusal::TooLarge),
        _ => Heard::Refused(refusal_of(body)),
    }
}

fn refusal_of(body: &[u8]) -> Refusal {
    let text = String::from_utf8_lossy(body).to_lowercase().replace('-', " ");
    let has = |words: &str| text.contains(words);
    if has("out of order") {
        Refusal::OutOfOrder
    } else if has("duplicate sample") || has("duplicate timestamp") {
        Refusal::Duplicate
    } else if has("too old") {
        Refusal::TooOld
    } else if has("out of bounds") {
        Refusal::OutOfBounds
    } else {
        Refusal::Refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &str) -> Heard {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let headers = HeaderMap::from_iter([(::http::header::RETRY_AFTER, "7".parse().unwrap())]);
        heard(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes(), now)
    }

    #[test]
    fn a_success_a_retry_and_a_refusal_are_told_apart_by_the_status() {
        for status in 200..300 {
            assert_eq!(of(status, "out of order sample"), Heard::Taken, "{status}");
        }
        for status in 500..600 {
            let after = Some(Duration::from_secs(7));
            let reason = format!("status {status}");
            assert_eq!(of(status, "secret"), Heard::Retry { after, reason, is_unsent: false });
        }
        assert!(matches!(of(429, ""), Heard::Retry { after: Some(_), is_unsent: true, .. }));
        for status in [401, 403, 404, 405, 407, 415, 301, 308] {
            assert!(matches!(of(status, "out of order sample"), Heard::RefusedAny(_)), "{status}");
        }
        for status in [400, 402, 408, 409, 412, 413, 414, 418, 422, 451] {
            assert!(matches!(of(status, ""), Heard::Refused(_)), "{status}");
        }
    }

    #[test]
    fn the_reason_is_read_from_the_text() {
        let check = |body: &str, expected| assert_eq!(of(400, body), Heard::Refused(expected), "{body}");
        check("out of order sample\n", Refusal::OutOfOrder);
        check("duplicate sample for timestamp", Refusal::Duplicate);
        check("too old sample", Refusal::TooOld);
        check("out of bounds", Refusal::OutOfBounds);
        check("out of bounds: timestamp is too far in the future", Refusal::OutOfBounds);
        check("the sample has been rejected (err-mimir-sample-out-of-order)", Refusal::OutOfOrder);
        check("(err-mimir-sample-duplicate-timestamp)", Refusal::Duplicate);
        check("(err-mimir-sample-timestamp-too-old)", Refusal::TooOld);
        check("snappy: corrupt input", Refusal::Refused);
        check("\u{fffd}", Refusal::Refused);
        check("", Refusal::Refused);
        assert_eq!(of(413, "out of order"), Heard::Refused(Refusal::TooLarge));
    }

    #[test]
    fn only_what_a_receiver_says_of_samples_it_has_means_there_already() {
        let there: Vec<_> = [
            Refusal::OutOfOrder,
            Refusal::Duplicate,
            Refusal::TooOld,
            Refusal::OutOfBounds,
            Refusal::Refused,
            Refusal::TooLarge,
        ]
        .into_iter()
        .filter(|refusal| refusal.is_there_already())
        .map(Refusal::word)
        .collect();
        assert_eq!(there, ["out_of_order", "duplicate", "too_old"]);
    }
}
