//! What plugins count, once the request they counted for is committed.

use super::chain::Left;
use crate::telemetry::Metrics;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

/// Names that one plugin may count under, over its whole life; what comes later counts as `_other`.
const NAMES_MAX: usize = 256;
const OTHERS: &str = "_other";

#[derive(Debug)]
pub(super) struct PluginMetrics {
    metrics: Metrics,
    names: Mutex<HashMap<String, HashSet<String>>>,
}

impl PluginMetrics {
    pub(super) fn new(metrics: Metrics) -> PluginMetrics {
        PluginMetrics { metrics, names: Mutex::default() }
    }

    pub(super) fn apply(&self, left: Vec<Left>) {
        for Left { plugin, effects, forged, failed, not_loaded } in left {
            for (records, reason) in [(failed, "failed"), (not_loaded, "not_loaded")] {
                if records > 0 {
                    let labels = vec![("plugin", plugin.clone()), ("reason", reason.to_owned())];
                    self.metrics.process_passed.get_or_create(&labels).inc_by(records);
                }
            }
            if forged > 0 {
                let labels = vec![("plugin", plugin.clone())];
                self.metrics.process_restored.get_or_create(&labels).inc_by(forged.into());
            }
            for (name, by) in effects.counts {
                let labels = self.labels(&plugin, name);
                self.metrics.process_plugin.get_or_create(&labels).inc_by(by);
            }
            for (name, value) in effects.gauges {
                let labels = self.labels(&plugin, name);
                self.metrics.process_plugin_gauge.get_or_create(&labels).set(value);
            }
        }
    }

    fn labels(&self, plugin: &str, name: String) -> Vec<(&'static str, String)> {
        let mut names = self.names.lock().expect("nothing panics while the names are locked");
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
