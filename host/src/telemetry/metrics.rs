//! The metrics of the collector: one field each, with unit and meaning.

use super::{TenantLabels, Told};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Limits whose excess is a failed call, or lines of a log that say so themselves: told elsewhere.
const FAILURES: [&str; 7] = ["time", "memory", "stack", "output", "hostcall", "work", "log"];

/// Label names and values, in the order they are shown.
pub type Labels = Vec<(&'static str, String)>;

/// Counters and gauges of all verbs. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    /// Limits that the log tells of, by plugin.
    limits_told: Arc<Mutex<HashMap<String, Told>>>,
    /// Tenants that are named; the others are one.
    pub tenant_labels: TenantLabels,
    /// Requests by `protocol` (grpc, http), `signal`, `answer` (ok, partial, or the reason of the refusal).
    pub receive_requests: Family<Labels, Counter>,
    /// Uncompressed bytes of requests that were read whole, by `signal`.
    pub receive_bytes: Family<Labels, Counter>,
    /// Connections that are open, by `listener`.
    pub receive_connections: Family<Labels, Gauge>,
    /// Identity attributes that a sender had set otherwise and we overwrote, in resources, by `tenant`.
    pub admit_overwritten: Family<Labels, Counter>,
    /// Strings that were not UTF-8 and were mended, by `tenant`.
    pub admit_mended: Family<Labels, Counter>,
    /// Requests of which a part or all was refused since its tenant is over its quota, by `tenant`, `quota` (bytes,
    /// records, journal).
    pub admit_over_quota: Family<Labels, Counter>,
    /// Room taken now, in bytes.
    pub admit_room_used: Gauge,
    /// Times that the configuration was read again, by `result` (applied, unchanged, refused).
    pub config_reloads: Family<Labels, Counter>,
    /// Calls of plugins, by `plugin`, `result` (ok, error, fault, trap, time, memory, output, work, load).
    pub process_calls: Family<Labels, Counter>,
    /// 1 for a plugin that is loaded, 0 for one of the configuration that is not, by `plugin`.
    pub process_loaded: Family<Labels, Gauge>,
    /// CPU time of plugins in microseconds, by `plugin`.
    pub process_cpu: Family<Labels, Counter>,
    /// Identity attributes that a plugin changed and we restored, in resources, by `plugin`.
    pub process_restored: Family<Labels, Counter>,
    /// Records that `on_failure: pass` let by a plugin, by `plugin`, `reason` (failed, not_loaded,
    /// restarting, circuit_open, over_cpu).
    pub process_passed: Family<Labels, Counter>,
    /// Records that a new version of a plugin was shown in a shadow, by `plugin`, `difference` from what the active one
    /// made of them (same, changed, missing, extra).
    pub process_shadow: Family<Labels, Counter>,
    /// Changes of a plugin's version, by `plugin`, `result` (promoted, refused, rolled_back).
    pub process_swaps: Family<Labels, Counter>,
    /// What plugins wanted beyond a limit and did not get, by `plugin`, `limit`. Calls that were stopped (time, memory, stack,
    /// output, hostcall, work) or not started (cpu); what was left out of a good one (log, alerts, names, series_keys,
    /// values, store, buckets).
    pub process_limit: Family<Labels, Counter>,
    /// Writes of what plugins keep that failed, by `plugin`; the values go on in memory.
    pub process_unkept: Family<Labels, Counter>,
    /// Circuits of plugins that are open now, by `plugin`: one for each tenant.
    pub process_circuits_open: Family<Labels, Gauge>,
    /// How often one opened, by `plugin`.
    pub process_circuits_opened: Family<Labels, Counter>,
    /// What plugins count themselves, by `plugin`, `name`.
    pub process_plugin: Family<Labels, Counter>,
    /// Windows that a plugin did not see, by `plugin`, `reason` (failed, waiting).
    pub process_lost_windows: Family<Labels, Counter>,
    /// What plugins measure themselves: the last value, by `plugin`, `name`.
    pub process_plugin_gauge: Family<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    /// Ranges of bytes of the journal that are damaged, and were skipped.
    pub commit_damaged_ranges: Counter,
    /// Attempts to send, by `sink`, `result` (ok, retry, reject).
    pub deliver_attempts: Family<Labels, Counter>,
    /// 1 while a sink does not take data and one delivery at a time asks whether it does, by `sink`; else 0.
    pub deliver_circuit_open: Family<Labels, Gauge>,
    /// Records that a sink had already when they came again, by `sink`; they count as delivered.
    pub deliver_presumed: Family<Labels, Counter>,
    /// Records of dead letters that had to go, by `reason` (room, age).
    pub deliver_letters_expired: Family<Labels, Counter>,
    /// Refused records that could not be kept as dead letters, by `sink`, `reason` (disk_full, disk_failed, too_large,
    /// late, stopping).
    pub deliver_letters_unkept: Family<Labels, Counter>,
    /// Ranges of bytes of the dead letters' files that are damaged, and were skipped.
    pub deliver_letters_damaged: Counter,
    /// Viewers of tails that are connected.
    pub deliver_viewers: Gauge,
    /// Records that viewers were told of as a gap, by `reason`.
    pub deliver_gap_records: Family<Labels, Counter>,
    /// Incidents that are open.
    pub alerts_open: Gauge,
    /// Firings and resolves that plugins raised, by `tenant`, `plugin`.
    pub alerts_raised: Family<Labels, Counter>,
    /// Alerts that were not kept, by `tenant`, `reason` (incidents, bytes: beyond the bound; text: counted, but its
    /// newer words did not fit).
    pub alerts_dropped: Family<Labels, Counter>,
    /// Incidents that a channel was not told of, by `channel`, `reason` (no_route with channel `_none`, brief,
    /// suppressed, refused, gave_up, stopped).
    pub alerts_untold: Family<Labels, Counter>,
    /// Calls of channels, by `channel`, `result` (ok, retry, limited, refused, parked, moved, gone, markup).
    pub alerts_calls: Family<Labels, Counter>,
    /// Incidents that are due to be told, by `channel`.
    pub alerts_waiting: Family<Labels, Gauge>,
}

impl Metrics {
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("trommel");
        Metrics {
            limits_told: Arc::default(),
            tenant_labels: TenantLabels::default(),
            receive_requests: register(
                &mut registry,
                "receive_requests",
                "Requests by protocol, signal and answer",
            ),
            receive_bytes: register(&mut registry, "receive_bytes", "Uncompressed bytes of requests"),
            receive_connections: register(&mut registry, "receive_connections", "Open connections"),
            admit_overwritten: register(
                &mut registry,
                "admit_overwritten_resources",
                "Resources whose identity attributes were overwritten",
            ),
            admit_mended: register(
                &mut registry,
                "admit_mended_strings",
                "Strings that were not UTF-8 and were mended",
            ),
            admit_over_quota: register(
                &mut registry,
                "admit_over_quota_requests",
                "Requests of which a part or all was refused by a quota",
            ),
            admit_room_used: register(&mut registry, "admit_room_used_bytes", "Room taken now"),
            config_reloads: register(
                &mut registry,
                "config_reloads",
                "Times that the configuration was read again while the collector ran, by result",
            ),
            process_calls: register(&mut registry, "process_calls", "Calls of plugins by result"),
            process_loaded: register(&mut registry, "process_loaded", "Whether each plugin is loaded"),
            process_cpu: register(&mut registry, "process_cpu_microseconds", "CPU time of plugins"),
            process_restored: register(
                &mut registry,
                "process_restored_resources",
                "Resources whose identity attributes a plugin had changed",
            ),
            process_passed: register(
                &mut registry,
                "process_passed_records",
                "Records that passed a plugin which failed on them or is not loaded",
            ),
            process_limit: register(
                &mut registry,
                "process_limit",
                "What plugins wanted beyond a limit and did not get, by limit",
            ),
            process_shadow: register(
                &mut registry,
                "process_shadow_records",
                "Records that a new version of a plugin was shown in a shadow, by how its result differed",
            ),
            process_swaps: register(
                &mut registry,
                "process_swaps",
                "Changes of the version of a plugin, by result",
            ),
            process_unkept: register(
                &mut registry,
                "process_unkept_writes",
                "Writes of what plugins keep that failed",
            ),
            process_circuits_open: register(
                &mut registry,
                "process_circuit_open",
                "Circuits of plugins that are open: tenants whose records it is not called for",
            ),
            process_circuits_opened: register(
                &mut registry,
                "process_circuit_openings",
                "How often the circuit of a plugin opened",
            ),
            process_plugin: register(&mut registry, "process_plugin", "What plugins count themselves"),
            process_lost_windows: register(
                &mut registry,
                "process_lost_windows",
                "Windows of series that a plugin did not see",
            ),
            process_plugin_gauge: register(
                &mut registry,
                "process_plugin_gauge",
                "What plugins measure themselves",
            ),
            commit_damaged_ranges: register(
                &mut registry,
                "commit_damaged_ranges",
                "Ranges of bytes of the journal that are damaged, and were skipped",
            ),
            deliver_attempts: register(
                &mut registry,
                "deliver_attempts",
                "Attempts to send, by sink and result",
            ),
            deliver_circuit_open: register(
                &mut registry,
                "deliver_circuit_open",
                "Whether a sink does not take data and one delivery at a time asks whether it does",
            ),
            deliver_presumed: register(
                &mut registry,
                "deliver_presumed_records",
                "Records that a sink had already when they came again",
            ),
            deliver_letters_expired: register(
                &mut registry,
                "deliver_letters_expired_records",
                "Records of dead letters that had to go",
            ),
            deliver_letters_unkept: register(
                &mut registry,
                "deliver_letters_unkept_records",
                "Refused records that could not be kept as dead letters",
            ),
            deliver_letters_damaged: register(
                &mut registry,
                "deliver_letters_damaged_ranges",
                "Ranges of bytes of the dead letters' files that are damaged, and were skipped",
            ),
            deliver_viewers: register(
                &mut registry,
                "deliver_viewers",
                "Viewers of tails that are connected",
            ),
            deliver_gap_records: register(
                &mut registry,
                "deliver_gap_records",
                "Records that viewers were told of as a gap",
            ),
            alerts_open: register(&mut registry, "alerts_open_incidents", "Incidents that are open"),
            alerts_raised: register(&mut registry, "alerts_raised", "Alerts that plugins raised"),
            alerts_dropped: register(&mut registry, "alerts_dropped", "Alerts that were not kept, by reason"),
            alerts_untold: register(
                &mut registry,
                "alerts_untold_incidents",
                "Incidents that a channel was not told of, by reason",
            ),
            alerts_calls: register(&mut registry, "alerts_calls", "Calls of channels by result"),
            alerts_waiting: register(
                &mut registry,
                "alerts_waiting_incidents",
                "Incidents that are due to be told",
            ),
            registry: Arc::new(Mutex::new(registry)),
        }
    }

    /// Adds a collector that writes its own lines at each scrape (the ledger).
    pub fn add_collector(&self, collector: Box<dyn prometheus_client::collector::Collector>) {
        self.registry.lock().expect("no panic while the registry is locked").register_collector(collector);
    }

    /// Counts what a plugin wanted beyond a limit, and tells the log once a minute.
    pub fn count_limit(&self, plugin: &str, limit: &'static str, number: u64) {
        if number == 0 {
            return;
        }
        let labels = vec![("plugin", plugin.to_owned()), ("limit", limit.to_owned())];
        self.process_limit.get_or_create(&labels).inc_by(number);
        if FAILURES.contains(&limit) {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Nobody waits for the log: the lock ends here.
        let due = {
            let mut told = self.limits_told.lock().unwrap_or_else(PoisonError::into_inner);
            if !told.contains_key(plugin) {
                told.insert(plugin.to_owned(), Told::default());
            }
            told[plugin].is_due(limit, now.as_nanos() as u64)
        };
        if let Some(untold) = due {
            tracing::warn!(
                plugin,
                limit,
                untold,
                "a plugin wants more than a limit lets it, and is given no more"
            );
        }
    }

    /// The OpenMetrics text of everything.
    pub fn text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(
            &mut text,
            &self.registry.lock().expect("no panic while the registry is locked"),
        )
        .expect("writing to a String cannot fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

fn register<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: Default + Clone + prometheus_client::registry::Metric,
{
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}
