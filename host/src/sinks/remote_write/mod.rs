//! Metrics to Prometheus and what speaks as it, by remote-write 1.0.

use super::{Delivery, SendError, Sent};
use crate::net::tls;
use crate::telemetry::{Metrics, Secret};
use std::collections::BTreeMap;

/// Where to, and how OTLP's names become Prometheus's.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `http://` or `https://`, with the whole path: `http://127.0.0.1:9090/api/v1/write`.
    pub endpoint: String,
    pub headers: BTreeMap<String, Secret>,
    /// For `https://`.
    pub tls: tls::ClientSettings,
    /// `otel_scope_name` and its like on each series.
    pub is_scope_labelled: bool,
    /// Resource attributes that become labels of each series; the others stand in `target_info`. By default those that say
    /// whose it is, or series of two tenants would be one.
    pub promote: Vec<String>,
}

#[derive(Debug)]
pub struct RemoteWrite {}

impl RemoteWrite {
    /// `name` is that of the sink in the configuration.
    pub fn open(_name: &str, _settings: Settings, _metrics: &Metrics) -> Result<RemoteWrite, String> {
        Ok(RemoteWrite {})
    }

    pub async fn send(&self, _delivery: &Delivery) -> Result<Sent, SendError> {
        Err(SendError::Reject { reason: "not built yet".into() })
    }
}
