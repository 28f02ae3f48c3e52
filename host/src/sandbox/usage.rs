//! What each plugin used for each tenant since the collector started.
//!
//! It is counted by plugin name, over all versions of a plugin. A run costs a few additions and no lock that anybody
//! waits for. Tenants are bounded; those beyond are one.

use super::PluginError;
use super::share::CpuShare;
use crate::telemetry::{Metrics, OTHERS, TenantLabels};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// Tenants that one plugin's account names, as many as the collector has.
pub(super) const TENANTS_MAX: usize = 10_000;

/// Of all plugins. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Usages {
    plugins: Arc<Mutex<BTreeMap<String, Arc<PluginUsage>>>>,
    labels: TenantLabels,
}

/// Of one plugin.
#[derive(Debug)]
pub(super) struct PluginUsage {
    tenants: RwLock<HashMap<String, Arc<TenantUsage>>>,
    /// Of tenants beyond the bound.
    others: Arc<TenantUsage>,
    /// Memory and CPU share of instances that belong to no tenant.
    pub(super) shared: Arc<TenantUsage>,
    /// CPU time of all, in nanoseconds.
    pub(super) cpu_ns: AtomicU64,
}

/// Of one plugin and tenant.
#[derive(Debug, Default)]
pub(super) struct TenantUsage {
    pub(super) calls: AtomicU64,
    pub(super) records: AtomicU64,
    /// In nanoseconds; of every eighth run taken, and counted for eight.
    pub(super) cpu_ns: AtomicU64,
    failures: [AtomicU64; PluginError::NAMES.len()],
    /// Linear memory of instances, idle and lent.
    memory: AtomicU64,
    memory_peak: AtomicU64,
    instances: AtomicU64,
    pub(super) share: CpuShare,
}

impl Usages {
    pub(super) fn new(metrics: &Metrics) -> Usages {
        let usages = Usages { plugins: Arc::default(), labels: metrics.tenant_labels.clone() };
        metrics.add_collector(Box::new(usages.clone()));
        usages
    }

    /// The same for all versions of a plugin.
    pub(super) fn of(&self, plugin: &str) -> Arc<PluginUsage> {
        let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Arc::new(PluginUsage {
                tenants: RwLock::default(),
                others: Arc::default(),
                shared: Arc::default(),
                cpu_ns: AtomicU64::new(0),
            })
        };
        Arc::clone(plugins.entry(plugin.to_owned()).or_insert_with(new))
    }

    fn all(&self) -> Vec<(String, Arc<PluginUsage>)> {
        let plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        plugins.iter().map(|(name, usage)| (name.clone(), Arc::clone(usage))).collect()
    }
}

impl PluginUsage {
    pub(super) fn tenant(&self, tenant: &str) -> Arc<TenantUsage> {
        if let Some(usage) = self.tenants.read().unwrap_or_else(PoisonError::into_inner).get(tenant) {
            return Arc::clone(usage);
        }
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        if tenants.len() >= TENANTS_MAX && !tenants.contains_key(tenant) {
            return Arc::clone(&self.others);
        }
        Arc::clone(tenants.entry(tenant.to_owned()).or_default())
    }

    /// By name, those beyond the bound as `_other`.
    pub(super) fn tenants(&self) -> Vec<(String, Arc<TenantUsage>)> {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        let named = tenants.iter().map(|(name, usage)| (name.clone(), Arc::clone(usage)));
        let others = (self.others.calls.load(Ordering::Relaxed) > 0)
            .then(|| (OTHERS.to_owned(), Arc::clone(&self.others)));
        named.chain(others).collect()
    }
}

impl TenantUsage {
    pub(super) fn failed(&self, error: &PluginError) {
        self.failures[error.number()].fetch_add(1, Ordering::Relaxed);
    }

    /// By the names of the errors; those that never came are left out.
    pub(super) fn failures(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.failures.iter().map(|count| count.load(Ordering::Relaxed));
        PluginError::NAMES.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect()
    }

    pub(super) fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    pub(super) fn memory_peak(&self) -> u64 {
        self.memory_peak.load(Ordering::Relaxed)
    }

    pub(super) fn instances(&self) -> u64 {
        self.instances.load(Ordering::Relaxed)
    }
}

/// The memory of one instance, in its owner's account as long as it is there.
#[derive(Debug)]
pub(super) struct HeldMemory {
    owner: Arc<TenantUsage>,
    bytes: u64,
}

impl HeldMemory {
    pub(super) fn new(owner: Arc<TenantUsage>) -> HeldMemory {
        owner.instances.fetch_add(1, Ordering::Relaxed);
        HeldMemory { owner, bytes: 0 }
    }

    /// The instance has so much now: it never gets less.
    pub(super) fn grown_to(&mut self, bytes: usize) {
        let more = (bytes as u64).saturating_sub(self.bytes);
        if more > 0 {
            self.bytes += more;
            let all = self.owner.memory.fetch_add(more, Ordering::Relaxed) + more;
            self.owner.memory_peak.fetch_max(all, Ordering::Relaxed);
        }
    }
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        self.owner.memory.fetch_sub(self.bytes, Ordering::Relaxed);
        self.owner.instances.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts of one plugin by the label of the tenant.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    calls: u64,
    records: u64,
    cpu_ns: u64,
    memory: u64,
}

/// Name, help, and what is counted.
type Count = (&'static str, &'static str, fn(&Sum) -> u64);

impl Collector for Usages {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let (mut sums, mut failures) = (BTreeMap::<_, Sum>::new(), BTreeMap::<_, u64>::new());
        let mut memory = Vec::new();
        for (plugin, usage) in self.all() {
            let tenants = usage.tenants();
            let of_tenants = tenants.iter().map(|(_, of)| of.memory()).sum::<u64>();
            memory.push((plugin.clone(), usage.shared.memory() + of_tenants));
            for (tenant, of) in tenants {
                let tenant = self.labels.of(&tenant).to_owned();
                for (result, count) in of.failures() {
                    *failures.entry((plugin.clone(), tenant.clone(), result)).or_default() += count;
                }
                let sum = sums.entry((plugin.clone(), tenant)).or_default();
                sum.calls += of.calls.load(Ordering::Relaxed);
                sum.records += of.records.load(Ordering::Relaxed);
                sum.cpu_ns += of.cpu_ns.load(Ordering::Relaxed);
                sum.memory += of.memory();
            }
        }
        let counts: [Count; 3] = [
            ("process_tenant_calls", "Calls of plugins by tenant", |sum| sum.calls),
            ("process_tenant_records", "Records given to plugins by tenant", |sum| sum.records),
            ("process_tenant_cpu_microseconds", "CPU time of plugins by tenant", |sum| sum.cpu_ns / 1_000),
        ];
        for (name, help, of) in counts {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for ((plugin, tenant), sum) in &sums {
                let labels = [("plugin", plugin.as_str()), ("tenant", tenant.as_str())];
                ConstCounter::new(of(sum)).encode(family.encode_family(&labels)?)?;
            }
        }
        let (name, help) = ("process_tenant_failures", "Calls of plugins that failed, by tenant and result");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for ((plugin, tenant, result), count) in &failures {
            let labels = [("plugin", plugin.as_str()), ("tenant", tenant.as_str()), ("result", *result)];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
        let (name, help) = ("process_memory_bytes", "Linear memory of the instances of plugins");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (plugin, bytes) in &memory {
            let bytes = i64::try_from(*bytes).unwrap_or(i64::MAX);
            ConstGauge::new(bytes).encode(family.encode_family(&[("plugin", plugin.as_str())])?)?;
        }
        Ok(())
    }
}

/// Nanoseconds, as they are counted.
pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_beyond_the_bound_are_one_and_nothing_is_lost() {
        let usages = Usages::new(&Metrics::new());
        let plugin = usages.of("p");
        for number in 0..TENANTS_MAX + 5 {
            plugin.tenant(&number.to_string()).calls.fetch_add(1, Ordering::Relaxed);
        }
        plugin.tenant("0").calls.fetch_add(1, Ordering::Relaxed);
        let tenants = usages.of("p").tenants();
        let calls = |name: &str| {
            tenants.iter().find(|(of, _)| of == name).map(|(_, usage)| usage.calls.load(Ordering::Relaxed))
        };
        assert_eq!((tenants.len(), calls("0"), calls("_other")), (TENANTS_MAX + 1, Some(2), Some(5)));
    }

    #[test]
    fn memory_is_there_as_long_as_its_instance() {
        let owner = Arc::new(TenantUsage::default());
        let mut one = HeldMemory::new(Arc::clone(&owner));
        let mut two = HeldMemory::new(Arc::clone(&owner));
        one.grown_to(100);
        two.grown_to(50);
        one.grown_to(120);
        one.grown_to(110);
        assert_eq!((owner.memory(), owner.instances()), (170, 2));
        drop(one);
        assert_eq!((owner.memory(), owner.memory_peak(), owner.instances()), (50, 170, 1));
    }

    #[test]
    fn metrics_name_the_tenants_that_have_a_label_and_add_up_the_others() {
        let metrics = Metrics::new();
        let usages = Usages::new(&metrics);
        metrics.tenant_labels.give("acme");
        let plugin = usages.of("p");
        for (tenant, calls) in [("acme", 3), ("b", 4), ("c", 5)] {
            plugin.tenant(tenant).calls.fetch_add(calls, Ordering::Relaxed);
        }
        plugin.tenant("b").failed(&PluginError::Trap(String::new()));
        let text = metrics.text();
        for line in [
            r#"trommel_process_tenant_calls_total{plugin="p",tenant="acme"} 3"#,
            r#"trommel_process_tenant_calls_total{plugin="p",tenant="_other"} 9"#,
            r#"trommel_process_tenant_failures_total{plugin="p",tenant="_other",result="trap"} 1"#,
            r#"trommel_process_memory_bytes{plugin="p"} 0"#,
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
