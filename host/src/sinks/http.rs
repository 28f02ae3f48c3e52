//! What sinks that speak HTTP share: where to, with which headers and TLS.

use crate::net::http::{self, Client, NoAnswer};
use crate::net::tls;
use crate::telemetry::Secret;
use ::http::response::Parts;
use ::http::{HeaderMap, Uri};
use bytes::Bytes;
use reqwest::{Body, Url};
use std::collections::BTreeMap;

/// A server, as the settings name it.
pub(super) struct Target {
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
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
        let tls = http::tls_of(is_secure, tls)?;
        let headers = http::headers(headers.iter().map(|(name, value)| (name.as_str(), value.expose())))?;
        Ok(Target { uri, headers, tls })
    }

    /// A client, and the headers of each request.
    pub(super) fn client(self) -> Result<(Client, HeaderMap), String> {
        Ok((Client::open(self.tls)?, self.headers))
    }
}

fn bad_endpoint(endpoint: &str) -> String {
    format!("endpoint: `{endpoint}` is no address like `http://host:4317`")
}

/// The head and body of the answer. Of a refusal whose body was lost, that is empty: the status was heard.
pub(super) async fn post(
    client: &Client,
    url: &Url,
    headers: &HeaderMap,
    body: Body,
    answer_bytes_max: usize,
) -> Result<(Parts, Bytes), NoAnswer> {
    match client.post(url, headers, body, answer_bytes_max).await? {
        (head, Ok(body)) => Ok((head, body)),
        (head, Err(_)) if !head.status.is_success() => Ok((head, Bytes::new())),
        (_, Err(reason)) => Err(NoAnswer { reason, is_unsent: false }),
    }
}
