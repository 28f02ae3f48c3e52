//! What plugins left, once the request they worked on is committed: counts, series, alerts.

use super::left::Left;
use super::series::{OTHERS, Series, Windowed};
use crate::alerts::{Alerts, Raised, Severity, What};
use crate::sandbox::{AlertEffect, AlertSeverity, Limits};
use crate::telemetry::Metrics;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Where effects go. Applied in commit order, so that one worker and ten leave the same.
#[derive(Debug)]
pub(super) struct Consequences {
    pub(super) series: Series,
    alerts: Arc<Alerts>,
    metrics: Metrics,
    names: Mutex<HashMap<String, Names>>,
}

/// Names that a plugin counted under, over its whole life; what comes later counts as `_other`.
#[derive(Debug)]
struct Names {
    known: HashSet<String>,
    most: usize,
}

impl Default for Names {
    fn default() -> Names {
        Names { known: HashSet::new(), most: Limits::default().names }
    }
}

impl Consequences {
    pub(super) fn new(alerts: Arc<Alerts>, metrics: Metrics) -> Consequences {
        Consequences { series: Series::new(metrics.clone()), alerts, metrics, names: Mutex::default() }
    }

    /// From now on these plugins have windows, and these may count under so many names.
    pub(super) fn promote(
        &self,
        windowed: impl Iterator<Item = Windowed>,
        names: impl Iterator<Item = (String, usize)>,
    ) {
        self.series.promote(windowed);
        let mut known = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        for (plugin, most) in names {
            known.entry(plugin).or_default().most = most;
        }
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
        for (reason, records) in &left.passed {
            self.metrics.process_passed.get_or_create(&labels(reason)).inc_by(*records);
        }
        self.metrics.count_limit(&left.plugin, "alerts", left.refused_alerts);
        if left.forged > 0 {
            let labels = vec![("plugin", left.plugin.clone())];
            self.metrics.process_restored.get_or_create(&labels).inc_by(left.forged.into());
        }
    }

    fn labels(&self, plugin: &str, name: String) -> Vec<(&'static str, String)> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let Names { known, most } = names.entry(plugin.to_owned()).or_default();
        // Under `_other` comes what was beyond the names of one request.
        let name = match name != OTHERS && (known.contains(&name) || known.len() < *most) {
            true => {
                known.insert(name.clone());
                name
            }
            false => {
                self.metrics.count_limit(plugin, "names", 1);
                OTHERS.to_owned()
            }
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
