//! Incidents: grouping, budgets, channels.
//!
//! What plugins raise becomes one incident per tenant, plugin and key, and each incident one message per channel, which
//! grows and is resolved at the end. Raising never waits; everything kept is bounded.

pub mod telegram;
pub mod webhook;

use crate::batch::TenantId;
use crate::telemetry::Metrics;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Where people are told, of what, and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    pub channels: Vec<(String, ChannelSettings)>,
    /// The first that fits decides; an incident that fits none is counted and told nobody.
    pub routes: Vec<Route>,
    /// From the first firing to the first message, so that what belongs together comes as one.
    pub group_wait: Duration,
    /// Between two updates of one incident.
    pub group_interval: Duration,
    /// An incident that was not fired for so long is resolved.
    pub resolve_after: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            channels: Vec::new(),
            routes: Vec::new(),
            group_wait: Duration::from_secs(5),
            group_interval: Duration::from_secs(60),
            resolve_after: Duration::from_secs(24 * 3600),
        }
    }
}

/// Which incidents go to which channels; all conditions hold, an empty one holds for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    pub severities: Vec<Severity>,
    pub tenants: Vec<String>,
    pub plugins: Vec<String>,
    /// Names of channels.
    pub to: Vec<String>,
}

/// A channel and its budget.
#[derive(Clone, Debug)]
pub struct ChannelSettings {
    pub kind: ChannelKind,
    /// Messages and edits of a minute, at most; what is over it waits, and the newest state is told then.
    pub per_minute: u32,
}

#[derive(Clone, Debug)]
pub enum ChannelKind {
    Telegram(telegram::Settings),
    /// Alertmanager's version 4.
    Webhook(webhook::Settings),
    /// A line in our own log: severity, tenant, plugin, title, count; never the text.
    Log,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

/// What a plugin raised, once it is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    pub tenant: TenantId,
    /// The plugin's name in the configuration.
    pub plugin: String,
    /// Commit time in ms since 1970.
    pub time_ms: u64,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Opens the incident, or adds to it.
    Fire {
        key: String,
        severity: Severity,
        title: String,
        text: String,
        count: u32,
        labels: Vec<(String, String)>,
    },
    Resolve {
        key: String,
    },
}

/// The incidents of all tenants.
#[derive(Debug)]
pub struct Alerts {}

impl Alerts {
    /// Connects to nothing yet. An error says what is wrong with the settings.
    pub fn open(_settings: Settings, _metrics: Metrics) -> Result<Arc<Alerts>, String> {
        Ok(Arc::new(Alerts {}))
    }

    /// Takes a short lock, never waits.
    pub fn raise(&self, _raised: Raised) {}

    /// Tells the channels until `stop`, then what is due for a moment more.
    pub async fn run(self: Arc<Alerts>, stop: CancellationToken) {
        stop.cancelled().await;
    }

    /// Open incidents, and those resolved of late, for `GET /v1/alerts`.
    pub fn shown(&self) -> serde_json::Value {
        serde_json::Value::Array(Vec::new())
    }
}
