//! Calls of other people's servers: JSON in, a bounded answer out.
//!
//! Addresses and headers hold secrets, so no error names them; texts of servers can repeat what we sent them, so no
//! error has these either.

use crate::net::tls;
use crate::telemetry::Secret;
use ::http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use reqwest::Url;
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

/// A call that takes longer will not be answered.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// An unreachable server is found out before the call's own deadline.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers that we read are some hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// No server is obeyed longer.
const AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
const USER_AGENT: &str = concat!("trommel/", env!("CARGO_PKG_VERSION"));

/// What a server answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The header `retry-after`.
    pub(super) after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

/// An address that is shown to nobody. An error names the setting.
pub(super) fn address(setting: &str, text: &str) -> Result<Url, String> {
    let wrong = || format!("{setting}: no address like `https://host/path`");
    let url = Url::parse(text.trim()).map_err(|_| wrong())?;
    let is_http = matches!(url.scheme(), "http" | "https") && url.has_host();
    if is_http { Ok(url) } else { Err(wrong()) }
}

/// A client for an address. Redirects are not followed: they would carry our secrets elsewhere.
pub(super) fn client(url: &Url, tls: &tls::ClientSettings) -> Result<reqwest::Client, String> {
    let tls = match url.scheme() {
        // Only then: reading the system's authorities fails where there are none.
        "https" => tls::client_config(tls.clone()).map_err(|fault| fault.to_string())?,
        _ => no_authorities(),
    };
    let builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(CALL_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .tls_backend_preconfigured(tls);
    builder.build().map_err(reason)
}

/// Values are marked sensitive, so that no library shows them.
pub(super) fn headers(headers: &BTreeMap<String, Secret>) -> Result<HeaderMap, String> {
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

/// Posts JSON. Cancelled, or without an answer, it may have arrived.
pub(super) async fn post(
    client: &reqwest::Client,
    url: Url,
    headers: HeaderMap,
    body: Vec<u8>,
) -> Result<Answer, String> {
    let request = client.post(url).headers(headers).header("content-type", "application/json").body(body);
    let response = ::http::Response::from(request.send().await.map_err(reason)?);
    let (head, body) = response.into_parts();
    let after = head.headers.get("retry-after").and_then(|value| value.to_str().ok());
    let after = after.and_then(|text| retry_after(text, Timestamp::now()));
    // The status was heard; a body that broke off or is too long explains nothing.
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
    Ok(Answer { status: head.status.as_u16(), after, body })
}

/// At most a day: a number that a server made up must not silence a channel for years.
pub(super) fn bounded(after: Duration) -> Duration {
    after.min(AFTER_MAX)
}

/// Seconds or an HTTP-date (RFC 9110, section 10.2.3).
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(bounded(Duration::from_secs(seconds)));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(bounded(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)))
}

/// What a library says of a failure, without the address.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// For an address in clear: the library wants a configuration all the same, and this one trusts nobody.
fn no_authorities() -> rustls::ClientConfig {
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_obeyed_in_seconds_and_dates_for_a_day_at_most() {
        let now: Timestamp = "2026-11-24T15:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("99999999999999999", Some(86_400)),
            ("Tue, 24 Nov 2026 15:00:30 GMT", Some(30)),
            ("Tue, 24 Nov 2026 14:00:00 GMT", Some(0)),
            ("Tue, 24 Nov 2099 14:00:00 GMT", Some(86_400)),
            ("-1", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(text, now), expected.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn a_wrong_address_is_told_without_it() {
        for text in ["", "hooks.example/secret", "ftp://hooks.example/secret", "https://", "data:secret"] {
            let error = address("url", text).unwrap_err();
            assert!(error.starts_with("url: ") && !error.contains("secret"), "{text}: {error}");
        }
        assert!(address("url", "https://hooks.example/secret\n").is_ok(), "files end with a line feed");
    }
}
