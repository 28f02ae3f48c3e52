//! What a plugin wanted beyond its limits, counted.

use crate::telemetry::Metrics;

/// Of one plugin. Cloning shares the counts.
#[derive(Clone, Debug)]
pub(super) struct Refusals {
    plugin: String,
    metrics: Metrics,
}

impl Refusals {
    pub(super) fn new(plugin: &str, metrics: Metrics) -> Refusals {
        Refusals { plugin: plugin.to_owned(), metrics }
    }

    /// `limit` is a word of [`Metrics::process_limit`].
    pub(super) fn count(&self, limit: &'static str, number: u64) {
        self.metrics.count_limit(&self.plugin, limit, number);
    }
}
