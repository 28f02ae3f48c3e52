//! Whether a plugin may be called for a tenant now, and what it used for each.
//!
//! A plugin that is not called is there all the same: its failed runs make it wait (`health`), or it used up its CPU
//! time (`share`). What becomes of the records then is the caller's to decide, by the plugin's policy.

use super::bisect::{CALLS_PER_TIMED, Ran};
use super::health::{Health, NotNow};
use super::usage::{PluginUsage, TENANTS_MAX, TenantUsage, nanoseconds};
use super::{Instance, Plugin, PluginError, Settings};
use crate::batch::{Piece, TenantId};
use crate::telemetry::Metrics;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::Instant;

/// Why a plugin that is loaded is not called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncallable {
    /// Its instances trapped again and again, or could not be made: the next one waits.
    Restarting,
    /// Too many of its runs failed.
    CircuitOpen,
    /// It used up its CPU time.
    OverCpu,
}

impl Uncallable {
    /// In the ledger (`plugin_WORD:NAME`) and in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Uncallable::Restarting => "restarting",
            Uncallable::CircuitOpen => "circuit_open",
            Uncallable::OverCpu => "over_cpu",
        }
    }
}

/// A piece that a plugin was not called for.
#[derive(Debug)]
pub struct NotRun {
    pub piece: Piece,
    pub why: Uncallable,
    /// When it may be called again, as far as that is known.
    pub after: Duration,
}

/// What a plugin used, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    pub plugin: String,
    /// Instances of all tenants, and their linear memory in bytes: `per_tenant` each has its own, else these are all.
    pub instance: &'static str,
    pub instances: u64,
    pub memory_bytes: u64,
    /// Of the whole plugin: open while no instance can be made.
    pub circuit: &'static str,
    pub tenants: Vec<UsageOfTenant>,
}

/// For one tenant since the start of the collector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UsageOfTenant {
    pub tenant: String,
    pub calls: u64,
    pub records: u64,
    pub cpu_microseconds: u64,
    /// Calls by the name of the error.
    pub failures: BTreeMap<&'static str, u64>,
    /// Of instances of its own.
    pub instances: u64,
    pub memory_bytes: u64,
    pub memory_peak_bytes: u64,
    /// `closed`, `open`, or `waiting` between restarts.
    pub circuit: &'static str,
    /// It used up its CPU time, and is not called.
    pub over_cpu: bool,
}

/// Of one plugin: all that is known of its runs by tenant. A new version begins with what the old one used, and with
/// closed circuits.
#[derive(Debug)]
pub(super) struct Sides {
    usage: Arc<PluginUsage>,
    sides: RwLock<HashMap<String, Arc<Side>>>,
    /// Of tenants beyond the bound.
    others: Arc<Side>,
    /// For instances that cannot be made.
    pub(super) whole: Health,
    new: NewSide,
}

/// What is known of a plugin's runs for one tenant.
#[derive(Debug)]
pub(super) struct Side {
    usage: Arc<TenantUsage>,
    health: Health,
    /// CPU time in a second, and whose account it is.
    share: Option<(Duration, Arc<TenantUsage>)>,
    /// Runs begun, to choose those that are timed.
    runs: AtomicU32,
}

/// What a new tenant's side is made of.
#[derive(Debug)]
struct NewSide {
    settings: Settings,
    metrics: Metrics,
    /// Where instances are for all tenants, so is the share.
    shared: Option<Arc<TenantUsage>>,
}

impl Sides {
    pub(super) fn new(settings: &Settings, usage: Arc<PluginUsage>, metrics: &Metrics) -> Sides {
        let shared = (settings.instance == Instance::Shared).then(|| Arc::clone(&usage.shared));
        let new = NewSide { settings: settings.clone(), metrics: metrics.clone(), shared };
        let others = Arc::new(new.side(crate::telemetry::OTHERS, usage.tenant(crate::telemetry::OTHERS)));
        let whole = Health::of_plugin(settings.limits.circuit, &settings.name, metrics);
        Sides { usage, sides: RwLock::default(), others, whole, new }
    }

    pub(super) fn of(&self, tenant: &str) -> Arc<Side> {
        if let Some(side) = self.sides.read().unwrap_or_else(PoisonError::into_inner).get(tenant) {
            return Arc::clone(side);
        }
        let mut sides = self.sides.write().unwrap_or_else(PoisonError::into_inner);
        if sides.len() >= TENANTS_MAX && !sides.contains_key(tenant) {
            return Arc::clone(&self.others);
        }
        let side = sides.entry(tenant.to_owned());
        Arc::clone(side.or_insert_with(|| Arc::new(self.new.side(tenant, self.usage.tenant(tenant)))))
    }

    /// Tenants whose circuit is open, or that of the whole plugin.
    fn open(&self) -> usize {
        let sides = self.sides.read().unwrap_or_else(PoisonError::into_inner);
        let all = sides.values().chain([&self.others]).map(|side| &side.health).chain([&self.whole]);
        all.filter(|health| health.is_open()).count()
    }
}

impl NewSide {
    fn side(&self, tenant: &str, usage: Arc<TenantUsage>) -> Side {
        let Settings { name, limits, .. } = &self.settings;
        let owner = self.shared.as_ref().unwrap_or(&usage);
        let share = limits.cpu.map(|per_second| (per_second, Arc::clone(owner)));
        let health = Health::of_tenant(limits.circuit, name, tenant, &self.metrics);
        Side { usage, health, share, runs: AtomicU32::new(0) }
    }
}

impl Side {
    pub(super) fn has_share(&self) -> bool {
        self.share.is_some()
    }

    /// One run of each [`CALLS_PER_TIMED`], not always the same: requests that are alike have pieces that are not.
    pub(super) fn is_next_timed(&self) -> bool {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        // The golden ratio's multiples are as evenly spread as any.
        let chosen = (run / CALLS_PER_TIMED).wrapping_mul(0x9e37_79b9) >> 16;
        run % CALLS_PER_TIMED == chosen % CALLS_PER_TIMED
    }

    pub(super) fn count_records(&self, records: u32) {
        self.usage.records.fetch_add(records.into(), Ordering::Relaxed);
    }

    pub(super) fn count_call(&self, error: Option<&PluginError>) {
        self.usage.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(error) = error {
            self.usage.failed(error);
        }
    }

    /// For the circuit. One that goes well says nothing of the records that runs fail on, so it closes none.
    pub(super) fn count_tick(&self, error: Option<&PluginError>) {
        if let Some(error) =
            error.filter(|error| !error.is_survivable() && !matches!(error, PluginError::Load(_)))
        {
            let now = Instant::now();
            if let Ok(permit) = self.health.begin(now) {
                permit.failed(now, &error.to_string());
            }
        }
    }

    pub(super) fn count_cpu(&self, used: Duration) {
        self.usage.cpu_ns.fetch_add(nanoseconds(used), Ordering::Relaxed);
        if let Some((per_second, owner)) = &self.share {
            owner.share.used(used, *per_second, Instant::now());
        }
    }

    fn over_cpu(&self, now: Instant) -> Option<Duration> {
        self.share.as_ref().and_then(|(per_second, owner)| owner.share.not_before(*per_second, now))
    }
}

impl Plugin {
    /// As [`Plugin::run`], if it may be called for this tenant now; how the run went is remembered.
    ///
    /// `is_begun`: of a batch of which it was given pieces before. Then its share of CPU time may be used up: a batch
    /// that takes more than the share would never get through, and what it took is paid back before the next.
    pub fn try_run(&self, piece: Piece, now_ns: u64, is_begun: bool) -> Result<Ran, NotRun> {
        if !self.is_for(&piece) {
            return Ok(Ran::unchanged(piece));
        }
        let side = self.side(piece.stream().tenant.as_str());
        let now = Instant::now();
        let over_cpu = if is_begun { None } else { side.over_cpu(now) };
        let over_cpu = over_cpu.map(|after| (Uncallable::OverCpu, after));
        let may = match over_cpu {
            Some(not_now) => Err(not_now),
            None => self
                .sides()
                .whole
                .begin(now)
                .and_then(|whole| Ok((whole, side.health.begin(now)?)))
                .map_err(reason),
        };
        let (whole, own) = match may {
            Ok(permits) => permits,
            Err((why, after)) => {
                if why == Uncallable::OverCpu {
                    self.refusals().count("cpu", 1);
                }
                return Err(NotRun { piece, why, after });
            }
        };
        let records = piece.records();
        let ran = self.run_for(&side, piece, now_ns);
        let unmade = ran.failed.iter().find(|failed| matches!(failed.error, PluginError::Load(_)));
        match unmade {
            Some(failed) => whole.failed(Instant::now(), &failed.error.to_string()),
            None => whole.well(),
        }
        match why_failed(&ran, records) {
            // It says nothing of this tenant.
            _ if unmade.is_some() => {}
            Some(why) => own.failed(Instant::now(), &why),
            None => own.well(),
        }
        Ok(ran)
    }

    /// Why it would not be called for this tenant now.
    pub fn uncallable(&self, tenant: &str) -> Option<Uncallable> {
        let (side, now) = (self.side(tenant), Instant::now());
        let over_cpu = side.over_cpu(now).map(|_| Uncallable::OverCpu);
        let not_now = || self.sides().whole.not_now(now).or_else(|| side.health.not_now(now));
        over_cpu.or_else(|| not_now().map(|not_now| reason(not_now).0))
    }

    /// Whether it may be given windows of this tenant's now. That it may not, since its CPU time is used up, is counted.
    pub fn may_tick(&self, tenant: &TenantId) -> Result<(), Uncallable> {
        let Some(why) = self.uncallable(tenant.as_str()) else { return Ok(()) };
        if why == Uncallable::OverCpu {
            self.refusals().count("cpu", 1);
        }
        Err(why)
    }

    /// Circuits that are open: one for each tenant, and one for all where no instance can be made.
    pub fn open_circuits(&self) -> usize {
        self.sides().open()
    }

    /// Whether no instance can be made for anybody, so that it is as good as not loaded.
    pub fn is_unmakeable(&self) -> bool {
        self.sides().whole.is_open()
    }

    /// What it used, tenants by the CPU time they took, the most first.
    pub fn usage(&self) -> Usage {
        let now = Instant::now();
        let (sides, settings) = (self.sides(), self.settings());
        let circuit = |health: &Health| match health.not_now(now) {
            _ if health.is_open() => "open",
            Some(_) => "waiting",
            None => "closed",
        };
        let show = |(tenant, usage): (String, Arc<TenantUsage>)| {
            let side = sides.sides.read().unwrap_or_else(PoisonError::into_inner).get(&tenant).cloned();
            UsageOfTenant {
                calls: usage.calls.load(Ordering::Relaxed),
                records: usage.records.load(Ordering::Relaxed),
                cpu_microseconds: usage.cpu_ns.load(Ordering::Relaxed) / 1_000,
                failures: usage.failures(),
                instances: usage.instances(),
                memory_bytes: usage.memory(),
                memory_peak_bytes: usage.memory_peak(),
                circuit: side.as_ref().map_or("closed", |side| circuit(&side.health)),
                over_cpu: side.is_some_and(|side| side.over_cpu(now).is_some()),
                tenant,
            }
        };
        let mut tenants: Vec<UsageOfTenant> = sides.usage.tenants().into_iter().map(show).collect();
        // Of a tenant that nothing was done for there is nothing to show.
        tenants.retain(|of| of.calls > 0 || of.instances > 0);
        tenants.sort_by(|a, b| {
            b.cpu_microseconds.cmp(&a.cpu_microseconds).then_with(|| a.tenant.cmp(&b.tenant))
        });
        let (shared, own) = (&sides.usage.shared, &tenants);
        Usage {
            plugin: settings.name.clone(),
            instance: match settings.instance {
                Instance::Shared => "shared",
                Instance::PerTenant => "per_tenant",
            },
            instances: shared.instances() + own.iter().map(|of| of.instances).sum::<u64>(),
            memory_bytes: shared.memory() + own.iter().map(|of| of.memory_bytes).sum::<u64>(),
            circuit: circuit(&sides.whole),
            tenants,
        }
    }
}

fn reason(not_now: NotNow) -> (Uncallable, Duration) {
    let why = if not_now.is_open { Uncallable::CircuitOpen } else { Uncallable::Restarting };
    (why, not_now.after)
}

/// Whether a run says that the plugin does not work: see `health`.
fn why_failed(ran: &Ran, records: u32) -> Option<String> {
    let costs_an_instance = ran.failed.iter().filter(|failed| !failed.error.is_survivable());
    let failed: u32 = costs_an_instance.clone().map(|failed| failed.records).sum();
    if u64::from(failed) * 2 > u64::from(records) {
        return costs_an_instance.map(|failed| failed.error.to_string()).next();
    }
    ran.is_out_of_time.then(|| "its time was over before the records at fault stood alone".to_owned())
}
