//! What plugins left, once the request they worked on is committed: counts, series, alerts.

use super::left::Left;
use super::series::{OTHERS, Series};
use crate::alerts::{Alerts, Raised, Severity, What};
use crate::sandbox::{AlertEffect, AlertSeverity};
use crate::telemetry::Metrics;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Names that one plugin may count under, over its whole life; what comes later counts as `_other`.
const NAMES_MAX: usize = 256;

/// Where effects go. Applied in commit order, so that one worker and ten leave the same.
#[derive(Debug)]
pub(super) struct Consequences {
    pub(super) series: Series,
    alerts: Arc<Alerts>,
    metrics: Metrics,
    names: Mutex<HashMap<String, HashSet<String>>>,
}

impl Consequences {
    pub(super) fn new(alerts: Arc<Alerts>, metrics: Metrics) -> Consequences {
        Consequences { series: Series::new(metrics.clone()), alerts, metrics, names: Mutex::default() }
    }

    /// At this commit time. Short, and never waits.
    pub(super) fn apply(&self, left: Vec<Left>, time_ms: u64) {
        for left in left {
            self.count(&left);
            let Left { plugin, tenant, effects, .. } = left;
            for (name, by) in effects.counts {
                let labels = self.labels(&plugin, name);
                self.metrics.process_plugin.get_or_create(&labels).inc_by(by);
            }
            for (name, value) in effects.gauges {
                let labels = self.labels(&plugin, name);
                self.metrics.process_plugin_gauge.get_or_create(&labels).set(value);
            }
            self.series.add(&plugin, &tenant, time_ms, effects.series);
            for effect in effects.alerts {
                let (tenant, plugin, what) = (tenant.clone(), plugin.clone(), what(effect));
                self.alerts.raise(Raised { tenant, plugin, time_ms, what });
            }
        }
    }

    fn count(&self, left: &Left) {
        let labels = |reason: &str| vec![("plugin", left.plugin.clone()), ("reason", reason.to_owned())];
        for (records, reason) in [(left.failed, "failed"), (left.not_loaded, "not_loaded")] {
            if records > 0 {
                self.metrics.process_passed.get_or_create(&labels(reason)).inc_by(records);
            }
        }
        if left.refused_alerts > 0 {
            let labels = vec![("plugin", left.plugin.clone()), ("what", "alerts".to_owned())];
            self.metrics.process_refused.get_or_create(&labels).inc_by(left.refused_alerts);
        }
        if left.forged > 0 {
            let labels = vec![("plugin", left.plugin.clone())];
            self.metrics.process_restored.get_or_create(&labels).inc_by(left.forged.into());
        }
    }

    fn labels(&self, plugin: &str, name: String) -> Vec<(&'static str, String)> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.entry(plugin.to_owned()).or_default();
        let name = match known.contains(&name) || known.len() < NAMES_MAX {
            true => {
                known.insert(name.clone());
                name
            }
            false => OTHERS.to_owned(),
        };
        vec![("plugin", plugin.to_owned()), ("name", name)]
    }
}

fn what(effect: AlertEffect) -> What {
    match effect {
        AlertEffect::Resolve(key) => What::Resolve { key },
        AlertEffect::Fire(alert) => What::Fire {
            key: alert.key,
            severity: match alert.severity {
                AlertSeverity::Info => Severity::Info,
                AlertSeverity::Warning => Severity::Warning,
                AlertSeverity::Critical => Severity::Critical,
            },
            title: alert.title,
            text: alert.text,
            count: alert.count,
            labels: alert.labels,
        },
    }
}
