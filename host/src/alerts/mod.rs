//! Incidents: grouping, budgets, channels.
//!
//! What plugins raise becomes one incident per tenant, plugin and key, and each incident one message per channel, which
//! grows and is resolved at the end. Raising never waits; everything kept is bounded. Incidents live in memory: a
//! restart forgets them.

mod budget;
mod channel;
mod content;
mod http;
mod incidents;
mod log;
mod serve;
#[cfg(test)]
mod stub;
pub mod telegram;
#[cfg(test)]
mod tests;
pub mod webhook;

use crate::batch::TenantId;
use crate::telemetry::Metrics;
use channel::Channel;
use incidents::{Bounds, ChannelRule, Cut, Incidents, RouteRule, Rules};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// New incidents wait for their first message for as many minutes at most; those beyond are suppressed on the channel.
const WAITING_MINUTES_MAX: usize = 5;

/// Where people are told, of what, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub channels: Vec<(String, ChannelSettings)>,
    /// The first that fits decides; an incident that fits none is counted and told nobody.
    pub routes: Vec<Route>,
    /// From the first firing to the first message, so that what belongs together comes as one. An incident that is over
    /// before is told nobody. The end waits as long, so that one which flaps is told once.
    pub group_wait: Duration,
    /// Between two updates of one incident. One that fires again within it after its end is the same incident.
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
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelSettings {
    pub kind: ChannelKind,
    /// Messages and edits of a minute, at most; what is over it waits, and the newest state is told then. The last of
    /// them is kept for the ends of incidents.
    pub per_minute: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ChannelKind {
    Telegram(telegram::Settings),
    /// Alertmanager's version 4.
    Webhook(webhook::Settings),
    /// A line in our own log: severity, tenant, plugin, title, count; never the text.
    Log,
}

impl ChannelKind {
    /// `per_minute` where nothing else is said.
    pub fn per_minute_default(&self) -> u32 {
        match self {
            // Telegram lets a bot write so often to a group.
            ChannelKind::Telegram(_) => 20,
            ChannelKind::Webhook(_) => 60,
            // What a log bears, and a reader does not miss.
            ChannelKind::Log => 600,
        }
    }
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
pub struct Alerts {
    incidents: Mutex<Incidents>,
    channels: Vec<serve::Seat>,
    metrics: Metrics,
}

impl Alerts {
    /// Connects to nothing yet. An error says what is wrong with the settings, without what is secret in them.
    pub fn open(settings: Settings, metrics: Metrics) -> Result<Arc<Alerts>, String> {
        Alerts::open_within(settings, metrics, Bounds::default())
    }

    fn open_within(settings: Settings, metrics: Metrics, bounds: Bounds) -> Result<Arc<Alerts>, String> {
        let rules = rules(&settings, bounds)?;
        let seat = |(name, settings): &(String, ChannelSettings)| {
            let channel = Channel::open(name, settings)?;
            Ok(serve::Seat::new(name, settings.per_minute, channel))
        };
        let channels = settings.channels.iter().map(seat).collect::<Result<Vec<_>, String>>()?;
        let incidents = Mutex::new(Incidents::new(rules, metrics.clone()));
        Ok(Arc::new(Alerts { incidents, channels, metrics }))
    }

    /// Takes a short lock, never waits.
    pub fn raise(&self, raised: Raised) {
        let tenant = self.metrics.tenant_labels.of(raised.tenant.as_str()).to_owned();
        let labels = vec![("tenant", tenant), ("plugin", raised.plugin.clone())];
        self.metrics.alerts_raised.get_or_create(&labels).inc();
        // Copies what it keeps, so not under the lock.
        let cut = Cut::from(raised);
        let mut incidents = self.lock();
        incidents.raise(cut, Instant::now());
        self.wake(incidents.take_stirred());
    }

    /// Open incidents, and those that ended of late, for `GET /v1/alerts`: an object with `incidents`, newest first,
    /// and how many were `left_out`.
    pub fn shown(&self) -> serde_json::Value {
        let kept = self.lock().kept();
        incidents::json(kept)
    }

    fn wake(&self, is_stirred: bool) {
        if is_stirred {
            self.channels.iter().for_each(|seat| seat.wake.notify_one());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Incidents> {
        self.incidents.lock().expect("nothing panics while the incidents are locked")
    }
}

/// The settings with channels by number; what is wrong with them otherwise.
fn rules(settings: &Settings, bounds: Bounds) -> Result<Rules, String> {
    let mut names = HashSet::new();
    for (name, channel) in &settings.channels {
        if !names.insert(name) {
            return Err(format!("channel `{name}` stands twice"));
        }
        if channel.per_minute == 0 {
            return Err(format!("channel `{name}`: per_minute must be 1 or more"));
        }
    }
    if settings.resolve_after.is_zero() {
        return Err("resolve_after must be longer than nothing".into());
    }
    let number = |name: &String| {
        let at = settings.channels.iter().position(|(other, _)| other == name);
        at.ok_or_else(|| format!("routes: there is no channel `{name}`"))
    };
    let route = |route: &Route| {
        let mut to = route.to.iter().map(number).collect::<Result<Vec<_>, String>>()?;
        to.sort_unstable();
        to.dedup();
        let Route { severities, tenants, plugins, .. } = route.clone();
        Ok(RouteRule { severities, tenants, plugins, to })
    };
    let channel = |(name, settings): &(String, ChannelSettings)| ChannelRule {
        name: name.as_str().into(),
        waiting_max: (settings.per_minute as usize).saturating_mul(WAITING_MINUTES_MAX),
    };
    Ok(Rules {
        channels: settings.channels.iter().map(channel).collect(),
        routes: settings.routes.iter().map(route).collect::<Result<Vec<_>, String>>()?,
        // Times are added to times: beyond a century nothing is waited for.
        group_wait: settings.group_wait.min(CENTURY),
        group_interval: settings.group_interval.min(CENTURY),
        resolve_after: settings.resolve_after.min(CENTURY),
        bounds,
    })
}

const CENTURY: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
