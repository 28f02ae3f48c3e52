//! Incidents as Alertmanager tells them: its webhook payload, version 4.
//!
//! Each incident is a group of its own with one alert in it. Source: Prometheus Alertmanager, configuration,
//! "webhook_config".

mod payload;
#[cfg(test)]
mod tests;

use super::channel::CallError;
use super::http;
use super::incidents::Tell;
use crate::net::http::Client;
use crate::net::tls;
use crate::telemetry::Secret;
use ::http::HeaderMap;
use reqwest::Url;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Often holds a secret.
    pub url: Secret,
    pub headers: BTreeMap<String, Secret>,
    pub tls: tls::ClientSettings,
}

/// Whom to call.
pub(super) struct Webhook {
    name: String,
    client: Client,
    /// Holds a secret, as the headers do.
    url: Url,
    headers: HeaderMap,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Webhook {
    pub(super) fn open(name: &str, settings: &Settings) -> Result<Webhook, String> {
        let url = http::address("url", settings.url.expose())?;
        let client = http::client(&url, &settings.tls)?;
        Ok(Webhook { name: name.to_owned(), client, url, headers: http::headers(&settings.headers)? })
    }

    pub(super) async fn tell(&mut self, tell: &Tell) -> Result<(), CallError> {
        let body = payload::of(&self.name, &tell.state).to_string().into_bytes();
        let answer = http::post(&self.client, &self.url, self.headers.clone(), body).await;
        let answer = answer.map_err(|reason| CallError::Retry { after: None, word: "retry", reason })?;
        let (status, after) = (answer.status, answer.after);
        let reason = format!("HTTP status {status}");
        match status {
            200..300 => Ok(()),
            429 => Err(CallError::Retry { after, word: "limited", reason }),
            408 | 500.. => Err(CallError::Retry { after, word: "retry", reason }),
            _ => Err(CallError::Refused { reason }),
        }
    }
}
