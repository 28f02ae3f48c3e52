//! OTLP/HTTP with protobuf bodies.

use super::body::Chunks;
use super::{ANSWER_BYTES_MAX, CONNECT_TIMEOUT, Compression, Target, USER_AGENT, answer};
use crate::batch::Signal;
use crate::sinks::{SendError, Sent};
use ::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use reqwest::{Body, Url};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Client {
    client: reqwest::Client,
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
        let mut headers = HeaderMap::from_iter(target.headers);
        headers.insert("content-type", HeaderValue::from_static("application/x-protobuf"));
        headers.extend(
            compression.name().map(|name| (::http::header::CONTENT_ENCODING, HeaderValue::from_static(name))),
        );
        let builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            // A redirect is not among the answers that OTLP knows, and would carry our headers elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tls_backend_preconfigured(target.tls.unwrap_or_else(no_authorities));
        Ok(Client {
            client: builder.build().map_err(|error| answer::chain(&error))?,
            urls: [logs?, traces?, metrics?],
            headers,
        })
    }

    pub(super) async fn send(&self, signal: Signal, parts: Vec<Bytes>) -> Result<Sent, SendError> {
        let at = Signal::ALL.iter().position(|other| *other == signal).unwrap_or(0);
        let request = self.client.post(self.urls[at].clone()).headers(self.headers.clone());
        let response = request.body(Body::wrap(Chunks::new(parts))).send().await;
        let response = ::http::Response::from(response.map_err(|error| no_answer(&error))?);
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let is_success = head.status.is_success();
        match body {
            Ok(body) if is_success => Ok(answer::sent(&body.to_bytes())),
            Ok(body) => {
                Err(answer::http_error(head.status, &head.headers, &body.to_bytes(), Timestamp::now()))
            }
            // The status was heard; only its explanation was lost.
            Err(_) if !is_success => {
                Err(answer::http_error(head.status, &head.headers, b"", Timestamp::now()))
            }
            Err(error) => Err(SendError::Retry { after: None, reason: answer::chain(error.as_ref()) }),
        }
    }
}

/// For an endpoint in clear: the library wants a configuration all the same, and this one trusts nobody.
fn no_authorities() -> rustls::ClientConfig {
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

fn no_answer(error: &reqwest::Error) -> SendError {
    SendError::Retry { after: None, reason: answer::chain(error) }
}
