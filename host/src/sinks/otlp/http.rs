//! OTLP/HTTP with protobuf bodies.

use super::body::Chunks;
use super::{ANSWER_BYTES_MAX, Compression, answer};
use crate::batch::Signal;
use crate::net::http;
use crate::sinks::http::{Target, post};
use crate::sinks::{SendError, Sent};
use ::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use jiff::Timestamp;
use reqwest::{Body, Url};

#[derive(Debug)]
pub(super) struct Client {
    client: http::Client,
    /// By [`Signal::ALL`].
    urls: [Url; 3],
    headers: HeaderMap,
}

impl Client {
    pub(super) fn open(target: Target, compression: Compression) -> Result<Client, String> {
        let base = target.uri.to_string();
        let base = base.trim_end_matches('/');
        let url = |signal: Signal| {
            Url::parse(&format!("{base}/v1/{}", signal.name()))
                .map_err(|error| format!("endpoint: `{base}`: {error}"))
        };
        let [logs, traces, metrics] = Signal::ALL.map(url);
        let (client, mut headers) = target.client()?;
        headers.insert("content-type", HeaderValue::from_static("application/x-protobuf"));
        headers.extend(
            compression.name().map(|name| (::http::header::CONTENT_ENCODING, HeaderValue::from_static(name))),
        );
        Ok(Client { client, urls: [logs?, traces?, metrics?], headers })
    }

    pub(super) async fn send(&self, signal: Signal, parts: Vec<Bytes>) -> Result<Sent, SendError> {
        let at = Signal::ALL.iter().position(|other| *other == signal).unwrap_or(0);
        let body = Body::wrap(Chunks::new(parts));
        let (head, body) = post(&self.client, &self.urls[at], &self.headers, body, ANSWER_BYTES_MAX)
            .await
            .map_err(|lost| SendError::Retry { after: None, reason: lost.reason })?;
        if head.status.is_success() {
            return Ok(answer::sent(&body));
        }
        Err(answer::http_error(head.status, &head.headers, &body, Timestamp::now()))
    }
}
