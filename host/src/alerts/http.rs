//! Calls of other people's servers: JSON in, a bounded answer out.
//!
//! Addresses and headers hold secrets, so no error names them; texts of servers can repeat what we sent them, so no
//! error has these either.

use crate::net::http::{self, Client};
use crate::net::tls;
use crate::telemetry::Secret;
use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use jiff::Timestamp;
use reqwest::Url;
use std::collections::BTreeMap;
use std::time::Duration;

/// Answers that we read are some hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// No server is obeyed longer.
const AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// What a server answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The header `retry-after`.
    pub(super) after: Option<Duration>,
    pub(super) body: Bytes,
}

/// An address that is shown to nobody. An error names the setting.
pub(super) fn address(setting: &str, text: &str) -> Result<Url, String> {
    let wrong = || format!("{setting}: no address like `https://host/path`");
    let url = Url::parse(text.trim()).map_err(|_| wrong())?;
    let is_http = matches!(url.scheme(), "http" | "https") && url.has_host();
    if is_http { Ok(url) } else { Err(wrong()) }
}

/// A client for an address.
pub(super) fn client(url: &Url, tls: &tls::ClientSettings) -> Result<Client, String> {
    Client::open(http::tls_of(url.scheme() == "https", tls)?)
}

/// The headers of the settings.
pub(super) fn headers(headers: &BTreeMap<String, Secret>) -> Result<HeaderMap, String> {
    http::headers(headers.iter().map(|(name, value)| (name.as_str(), value.expose())))
}

/// Posts JSON. Cancelled, or without an answer, it may have arrived.
pub(super) async fn post(
    client: &Client,
    url: &Url,
    mut headers: HeaderMap,
    body: Vec<u8>,
) -> Result<Answer, String> {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let answer = client.post(url, &headers, body, ANSWER_BYTES_MAX).await;
    let (head, body) = answer.map_err(|lost| lost.reason)?;
    let after = http::retry_after(&head.headers, Timestamp::now()).map(bounded);
    // The status was heard; a body that broke off or is too long explains nothing.
    Ok(Answer { status: head.status.as_u16(), after, body: body.unwrap_or_default() })
}

/// At most a day: a number that a server made up must not silence a channel for years.
pub(super) fn bounded(after: Duration) -> Duration {
    after.min(AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_obeyed_for_a_day_at_most() {
        for (asked, obeyed) in [(7, 7), (86_400, 86_400), (99_999_999_999, 86_400)] {
            assert_eq!(bounded(Duration::from_secs(asked)), Duration::from_secs(obeyed));
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
