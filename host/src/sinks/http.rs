//! What sinks that speak HTTP share: where to, with which headers and TLS, and how an answer is read.
//!
//! Nothing here trusts the server: answers are bounded, texts are cut and escaped. A redirect is not followed: it would
//! carry our headers elsewhere.

use crate::net::tls;
use crate::telemetry::Secret;
use ::http::response::Parts;
use ::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use reqwest::{Body, Url};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// An unreachable server is found out before the attempt's own deadline.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
pub(super) const USER_AGENT: &str = concat!("trommel/", env!("CARGO_PKG_VERSION"));
const MESSAGE_CHARS_MAX: usize = 200;

/// A server, as the settings name it.
pub(super) struct Target {
    pub(super) uri: Uri,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// For `https://`.
    pub(super) tls: Option<rustls::ClientConfig>,
}

impl Target {
    pub(super) fn of(
        endpoint: &str,
        headers: &BTreeMap<String, Secret>,
        tls: &tls::ClientSettings,
    ) -> Result<Target, String> {
        if endpoint.contains('@') {
            // Not repeated: it holds a password.
            return Err("endpoint: name and password stand in `headers`, not in the address".into());
        }
        let uri: Uri = endpoint.parse().map_err(|_| bad_endpoint(endpoint))?;
        let is_secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad_endpoint(endpoint)),
        };
        if uri.authority().is_none() {
            return Err(bad_endpoint(endpoint));
        }
        // Only then: reading the system's authorities fails where there are none.
        let tls = is_secure.then(|| tls::client_config(tls.clone())).transpose();
        let tls = tls.map_err(|fault| fault.to_string())?;
        Ok(Target { uri, headers: sensitive(headers)?, tls })
    }

    /// A client for HTTP/1.1 and HTTP/2, and the headers of each request.
    pub(super) fn client(self) -> Result<(Client, HeaderMap), String> {
        let builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tls_backend_preconfigured(self.tls.unwrap_or_else(no_authorities));
        let client = builder.build().map_err(|error| chain(&error))?;
        Ok((Client(client), HeaderMap::from_iter(self.headers)))
    }
}

fn bad_endpoint(endpoint: &str) -> String {
    format!("endpoint: `{endpoint}` is no address like `http://host:4317`")
}

/// Header values are marked sensitive, so that no library shows them.
fn sensitive(headers: &BTreeMap<String, Secret>) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let header = |(name, value): (&String, &Secret)| {
        let parsed =
            name.parse::<HeaderName>().map_err(|_| format!("headers: `{name}` is no header name"))?;
        let mut value = HeaderValue::from_str(value.expose().trim())
            .map_err(|_| format!("headers.{name}: the value has bytes that no header may have"))?;
        value.set_sensitive(true);
        Ok((parsed, value))
    };
    headers.iter().map(header).collect()
}

/// For an endpoint in clear: the library wants a configuration all the same, and this one trusts nobody.
fn no_authorities() -> rustls::ClientConfig {
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

#[derive(Debug)]
pub(super) struct Client(reqwest::Client);

/// No answer came, or not all of a success.
#[derive(Debug)]
pub(super) struct NoAnswer {
    pub(super) reason: String,
    /// There was not even a connection: nothing can have arrived.
    pub(super) is_unsent: bool,
}

impl Client {
    /// The head and body of the answer; of a refusal whose body is longer than `answer_bytes_max` or was lost, the
    /// body is empty.
    pub(super) async fn post(
        &self,
        url: &Url,
        headers: &HeaderMap,
        body: Body,
        answer_bytes_max: usize,
    ) -> Result<(Parts, Bytes), NoAnswer> {
        let request = self.0.post(url.clone()).headers(headers.clone()).body(body);
        let response = request
            .send()
            .await
            .map_err(|error| NoAnswer { is_unsent: error.is_connect(), reason: chain(&error) })?;
        let (head, body) = ::http::Response::from(response).into_parts();
        match Limited::new(body, answer_bytes_max).collect().await {
            Ok(body) => Ok((head, body.to_bytes())),
            // The status was heard; only its explanation was lost.
            Err(_) if !head.status.is_success() => Ok((head, Bytes::new())),
            Err(error) => Err(NoAnswer { reason: chain(error.as_ref()), is_unsent: false }),
        }
    }
}

/// When the server wants to be asked again.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?;
    time_until(text, now)
}

/// Seconds or an HTTP-date (RFC 9110, section 10.2.3).
fn time_until(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// A text from outside: cut, on one line, without control characters.
pub(super) fn shown(text: &str) -> String {
    let chars = text.chars().take(MESSAGE_CHARS_MAX);
    chars.flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    shown(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_come_back_is_seconds_or_a_date() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(time_until(text, now), seconds.map(Duration::from_secs), "{text}");
        };
        check("7", Some(7));
        check(" 120 ", Some(120));
        check("Thu, 01 Jan 2026 00:01:30 GMT", Some(90));
        check("Wed, 31 Dec 2025 00:00:00 GMT", Some(0));
        check("soon", None);
        check("-1", None);
    }

    #[test]
    fn messages_from_outside_are_cut_and_escaped() {
        assert_eq!(shown("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(shown(&"x".repeat(1000)).len(), MESSAGE_CHARS_MAX);
    }
}
