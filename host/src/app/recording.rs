//! A line of a recording: one OTLP/JSON request, looked at before it is sent again.

use super::sample::{newest_ms, request_in};
use crate::batch::Signal;

/// What a line holds.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    signal: Signal,
    /// Log records, spans or data points.
    pub records: u64,
    /// The newest time that one of them bears, ms since 1970.
    pub newest_ms: Option<u64>,
}

impl Line {
    /// The error is for a person.
    pub fn of(text: &[u8]) -> Result<Line, String> {
        let request = request_in(text)?;
        let newest_ms = newest_ms(request.signal, &request.bytes);
        Ok(Line { signal: request.signal, records: request.records, newest_ms })
    }

    /// Where it is sent to. Source: OTLP specification, "OTLP/HTTP Request".
    pub fn path(&self) -> &'static str {
        match self.signal {
            Signal::Logs => "/v1/logs",
            Signal::Traces => "/v1/traces",
            Signal::Metrics => "/v1/metrics",
        }
    }

    /// The field of a partial success that counts what was not taken of it.
    pub fn rejected_name(&self) -> &'static str {
        match self.signal {
            Signal::Logs => "rejectedLogRecords",
            Signal::Traces => "rejectedSpans",
            Signal::Metrics => "rejectedDataPoints",
        }
    }
}
