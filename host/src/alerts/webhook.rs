//! Incidents as Alertmanager tells them: its webhook payload, version 4.

use crate::net::tls;
use crate::telemetry::Secret;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub struct Settings {
    /// Often holds a secret.
    pub url: Secret,
    pub headers: BTreeMap<String, Secret>,
    pub tls: tls::ClientSettings,
}
