//! Calls of other people's HTTP servers: one kind of client, one way to read an answer.
//!
//! Nothing here trusts the server: answers are bounded, texts are cut and escaped. A redirect is not followed: it would
//! carry our headers elsewhere. Addresses can hold secrets, so no error shows one. The caller sets the deadline.

use super::tls;
use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use reqwest::{Body, Url};
use std::sync::Arc;
use std::time::Duration;

/// An unreachable server is found out before the call's own deadline.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
pub const USER_AGENT: &str = concat!("trommel/", env!("CARGO_PKG_VERSION"));
const MESSAGE_CHARS_MAX: usize = 200;

/// For HTTP/1.1 and HTTP/2.
#[derive(Debug)]
pub struct Client(reqwest::Client);

/// The head, and the body or why it was lost.
pub type Answer = (Parts, Result<Bytes, String>);

/// An answer whose body comes as it is made.
#[derive(Debug)]
pub struct Streamed {
    pub head: Parts,
    body: Body,
}

/// No answer came.
#[derive(Debug)]
pub struct NoAnswer {
    pub reason: String,
    /// There was not even a connection: nothing can have arrived.
    pub is_unsent: bool,
}

impl Client {
    /// `tls` where the address is secure, as [`tls_of`] says.
    pub fn open(tls: Option<rustls::ClientConfig>) -> Result<Client, String> {
        let builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tls_backend_preconfigured(tls.unwrap_or_else(no_authorities));
        Ok(Client(builder.build().map_err(|error| chain(&error.without_url()))?))
    }

    /// As [`Client::send`].
    pub async fn post(
        &self,
        url: &Url,
        headers: &HeaderMap,
        body: impl Into<Body>,
        answer_bytes_max: usize,
    ) -> Result<Answer, NoAnswer> {
        self.send(Method::POST, url, headers, body, answer_bytes_max).await
    }

    /// The head of the answer, and its body or why that was lost: it broke off, or is longer than `answer_bytes_max`.
    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
        body: impl Into<Body>,
        answer_bytes_max: usize,
    ) -> Result<Answer, NoAnswer> {
        let request = self.0.request(method, url.clone()).headers(headers.clone()).body(body);
        let response = request.send().await.map_err(|error| NoAnswer {
            is_unsent: error.is_connect(),
            reason: chain(&error.without_url()),
        })?;
        let (head, body) = http::Response::from(response).into_parts();
        let body = Limited::new(body, answer_bytes_max).collect().await;
        Ok((head, body.map(|body| body.to_bytes()).map_err(|error| chain(error.as_ref()))))
    }
}

impl Client {
    /// Asks for what has no end that is known: the head of the answer, and its body piece by piece.
    pub async fn stream(&self, url: &Url, headers: &HeaderMap) -> Result<Streamed, NoAnswer> {
        let request = self.0.get(url.clone()).headers(headers.clone());
        let response = request.send().await.map_err(|error| NoAnswer {
            is_unsent: error.is_connect(),
            reason: chain(&error.without_url()),
        })?;
        let (head, body) = http::Response::from(response).into_parts();
        Ok(Streamed { head, body })
    }
}

impl Streamed {
    /// The next piece, or why there is none; `None` at the end. May be cancelled.
    pub async fn next(&mut self) -> Option<Result<Bytes, String>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
                Err(error) => return Some(Err(chain(&error.without_url()))),
            }
        }
    }

    /// All of it, if it is short.
    pub async fn rest(self, bytes_max: usize) -> Result<Bytes, String> {
        let body = Limited::new(self.body, bytes_max).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| chain(error.as_ref()))
    }
}

/// For an address that is secure; only then, since reading the system's authorities fails where there are none.
pub fn tls_of(
    is_secure: bool,
    settings: &tls::ClientSettings,
) -> Result<Option<rustls::ClientConfig>, String> {
    let tls = is_secure.then(|| tls::client_config(settings.clone())).transpose();
    tls.map_err(|fault| fault.to_string())
}

/// Of the settings. Values are marked sensitive, so that no library shows them.
pub fn headers<'h>(pairs: impl Iterator<Item = (&'h str, &'h str)>) -> Result<HeaderMap, String> {
    let header = |(name, value): (&str, &str)| {
        let parsed =
            name.parse::<HeaderName>().map_err(|_| format!("headers: `{name}` is no header name"))?;
        let mut value = HeaderValue::from_str(value.trim())
            .map_err(|_| format!("headers.{name}: the value has bytes that no header may have"))?;
        value.set_sensitive(true);
        Ok((parsed, value))
    };
    pairs.map(header).collect()
}

/// For an address in clear: the library wants a configuration all the same, and this one trusts nobody.
fn no_authorities() -> rustls::ClientConfig {
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

/// When the server wants to be asked again.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
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
pub fn shown(text: &str) -> String {
    let chars = text.chars().take(MESSAGE_CHARS_MAX);
    chars.flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
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
