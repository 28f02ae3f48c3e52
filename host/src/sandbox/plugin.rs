//! A plugin that was loaded: what it may do, and one call of it.

use super::bindings::exports::trommel::plugin::lifecycle;
use super::bindings::ticking::exports::trommel::plugin::timer;
use super::bisect::before;
use super::buckets::Buckets;
use super::clock::Clock;
use super::effects::{AlertRate, LeftOut, Window};
use super::hashing::HashKey;
use super::host::{Begin, Phase};
use super::limits::thread_cpu;
use super::linked::Linked;
use super::logs::{PluginLog, printable};
use super::mask::Mask;
use super::patterns::{PatternSet, SETS_MAX};
use super::pool::{Lent, Pool};
use super::refusals::Refusals;
use super::rights::Words;
use super::stores::PluginStore;
use super::turn::{Side, Sides};
use super::usage::{PluginUsage, nanoseconds};
use super::{Effects, Module, PluginError, Settings};
use crate::batch::{Call, Piece, Signal, TenantId};
use crate::telemetry::{Metrics, Told};
use prometheus_client::metrics::counter::Counter;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a manifest may need besides `batch` and `host`.
const NEEDS: [&str; 3] = ["alerts", "series", "store"];
/// Windows are for what people should know soon; an hour is long enough to compare.
const WINDOW_SECONDS_MAX: u32 = 3600;
const WINDOW_TOO_LONG: u32 = WINDOW_SECONDS_MAX + 1;

/// What a plugin says of itself; its texts are cut and escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    /// It is called with these only.
    pub signals: Vec<Signal>,
    /// Rights, in the words of the WIT.
    pub reads: Vec<String>,
    pub writes: Vec<String>,
    pub needs: Vec<String>,
    pub window_seconds: u32,
}

/// A checked plugin with instances to call. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Plugin {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    pool: Pool,
    metrics: Metrics,
    sides: Sides,
    usage: Arc<PluginUsage>,
    told: Told,
    calls_ok: Counter,
    cpu_microseconds: Counter,
}

/// What all instances of a plugin share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) manifest: Manifest,
    pub(super) reads: Words,
    pub(super) writes: Words,
    pub(super) log: PluginLog,
    pub(super) refusals: Refusals,
    /// For what the plugin says, and for what is said of it.
    pub(super) mask: Mask,
    pub(super) buckets: Buckets,
    pub(super) store: Arc<PluginStore>,
    /// Where random numbers begin; `None`: somewhere else in each instance.
    pub(super) seed: Option<u64>,
    /// The most linear memory that an instance had after a call, bytes.
    memory_peak: AtomicUsize,
    alert_rate: AlertRate,
    keys: BTreeMap<String, HashKey>,
    /// Pattern sets that an instance compiled: the next one asks for the same.
    sets: Mutex<Vec<(Vec<String>, Arc<PatternSet>)>>,
}

/// What one call left.
#[derive(Debug)]
pub struct Called {
    /// With the edits of the call, or as it was.
    pub piece: Piece,
    pub result: Result<Effects, PluginError>,
    /// Records that the plugin dropped.
    pub dropped: u32,
}

impl Plugin {
    /// Configures the first instance: settings that the plugin refuses show at load.
    pub(super) fn open(
        clock: Arc<Clock>,
        linked: Linked,
        shared: Arc<Shared>,
        usage: Arc<PluginUsage>,
        metrics: &Metrics,
    ) -> Result<Plugin, PluginError> {
        let name = shared.settings.name.clone();
        let labels = |result: &str| vec![("plugin", name.clone()), ("result", result.into())];
        let calls_ok = metrics.process_calls.get_or_create(&labels("ok")).clone();
        let cpu_microseconds = metrics.process_cpu.get_or_create(&vec![("plugin", name.clone())]).clone();
        let pool = Pool::new(clock, linked, Arc::clone(&shared), Arc::clone(&usage));
        let sides = Sides::new(&shared.settings, Arc::clone(&usage), metrics);
        let inner = Inner {
            shared,
            pool,
            metrics: metrics.clone(),
            sides,
            usage,
            told: Told::default(),
            calls_ok,
            cpu_microseconds,
        };
        let plugin = Plugin { inner: Arc::new(inner) };
        let first = plugin.inner.pool.lend("", wall_clock_ns())?;
        plugin.inner.pool.give_back(first);
        Ok(plugin)
    }

    /// The name in the configuration.
    pub fn name(&self) -> &str {
        &self.inner.shared.settings.name
    }

    pub fn manifest(&self) -> &Manifest {
        &self.inner.shared.manifest
    }

    pub fn settings(&self) -> &Settings {
        &self.inner.shared.settings
    }

    /// The most linear memory that an instance of it had after a call, bytes. It never shrinks within an instance.
    pub fn memory_peak(&self) -> usize {
        self.inner.shared.memory_peak()
    }

    /// One call with these records of the piece (`None`: all). All or nothing. Takes up to the CPU limit, and as long as
    /// the machine makes it wait: not for an executor's thread.
    pub fn process(&self, piece: Piece, subset: Option<Range<u32>>, now_ns: u64) -> Called {
        let side = self.side(piece.stream().tenant.as_str());
        self.process_within(&side, piece, subset, now_ns, self.settings().limits.time)
    }

    pub(super) fn process_within(
        &self,
        side: &Side,
        piece: Piece,
        subset: Option<Range<u32>>,
        now_ns: u64,
        cpu_limit: Duration,
    ) -> Called {
        let bytes = piece.item_bytes();
        let call = piece.call(subset);
        let called = match self.inner.pool.lend(call.tenant(), now_ns) {
            Ok(lent) => self.call(lent, call, bytes, now_ns, cpu_limit),
            Err(error) => Called { piece: call.abort(), result: Err(error), dropped: 0 },
        };
        self.count(side, &called.result);
        called
    }

    fn call(&self, mut lent: Lent, call: Call, bytes: usize, now_ns: u64, cpu_limit: Duration) -> Called {
        lent.store.set_hostcall_fuel(self.settings().limits.hostcall_bytes(bytes));
        lent.store.set_epoch_deadline(1);
        let (phase, call) = (Phase::Process, Some(call));
        lent.store.data_mut().begin(Begin { phase, call, tenant: None, cpu_limit, bytes, now_ns });
        let result = lent.exports.plugin.trommel_plugin_processor().call_process(&mut lent.store);
        let result = lent.ended(result);
        let ended = lent.store.data_mut().end();
        let call = ended.call.expect("nothing takes the call but the end");
        let called = match &result {
            Ok(()) => match call.commit() {
                Ok(done) => {
                    let tenant = done.piece.stream().tenant.as_str();
                    let effects = self.within_rates(tenant, ended.effects, ended.left_out, now_ns);
                    Called { piece: done.piece, result: Ok(effects), dropped: done.dropped }
                }
                Err((piece, fault)) => {
                    Called { piece, result: Err(PluginError::Fault(printable(&fault.0, 1024))), dropped: 0 }
                }
            },
            Err((error, _)) => Called { piece: call.abort(), result: Err(error.clone()), dropped: 0 },
        };
        if result.is_ok() || result.is_err_and(|(_, may_live)| may_live) {
            self.inner.pool.give_back(lent);
        }
        called
    }

    /// Gives a tenant's closed windows to the plugin, one call at a time: another waits. What the plugin keeps is on disk
    /// when this returns. A plugin without a timer has nothing to say. Takes up to the CPU limit and writes a file: not
    /// for an executor's thread.
    pub fn tick(&self, tenant: &TenantId, now_ns: u64, closed: &[Window]) -> Result<Effects, PluginError> {
        if !self.inner.pool.has_timer() {
            return Ok(Effects::default());
        }
        let _turn = self.inner.shared.store.turn();
        let side = self.side(tenant.as_str());
        let start = thread_cpu();
        let ticked = self.inner.pool.lend(tenant.as_str(), now_ns);
        let ticked = ticked.and_then(|lent| self.call_tick(lent, tenant, now_ns, closed));
        self.count_cpu(&side, thread_cpu().saturating_sub(start));
        self.count(&side, &ticked);
        side.count_tick(ticked.as_ref().err());
        if let Err(error) = &ticked
            && let Some(untold) = self.told().is_due(&format!("{} of windows", error.kind()), now_ns)
        {
            let before = before(untold);
            self.report(&format!("failed on the windows of {tenant}, which are lost: {error}{before}"));
        }
        ticked
    }

    fn call_tick(
        &self,
        mut lent: Lent,
        tenant: &TenantId,
        now_ns: u64,
        closed: &[Window],
    ) -> Result<Effects, PluginError> {
        let limits = self.settings().limits;
        let bytes = closed.iter().map(|window| size_of::<Window>() + window.key.len()).sum();
        lent.store.set_hostcall_fuel(limits.hostcall_bytes(bytes));
        lent.store.set_epoch_deadline(1);
        let whose = Some(tenant.clone());
        let (phase, cpu_limit) = (Phase::Tick, limits.time);
        lent.store.data_mut().begin(Begin { phase, call: None, tenant: whose, cpu_limit, bytes, now_ns });
        let closed: Vec<timer::Window> = closed.iter().map(timer::Window::from).collect();
        let exports = lent.exports.timer.as_ref().expect("the caller looked");
        let result =
            exports.trommel_plugin_timer().call_tick(&mut lent.store, tenant.as_str(), now_ns, &closed);
        let result = lent.ended(result);
        let ended = lent.store.data_mut().end();
        if result.is_ok() || result.as_ref().is_err_and(|(_, may_live)| *may_live) {
            self.inner.pool.give_back(lent);
        }
        result.map_err(|(error, _)| error)?;
        if let Some(draft) = ended.draft {
            self.inner.shared.store.keep(tenant.as_str(), draft);
        }
        Ok(self.within_rates(tenant.as_str(), ended.effects, ended.left_out, now_ns))
    }

    /// What of a good call's effects may count; what may not is counted as refused.
    fn within_rates(&self, tenant: &str, mut effects: Effects, left_out: LeftOut, now_ns: u64) -> Effects {
        let too_many = self.inner.shared.alert_rate.admit(tenant, &mut effects.alerts, now_ns);
        let refusals = &self.inner.shared.refusals;
        refusals.count("alerts", left_out.alerts + too_many);
        refusals.count("values", left_out.values);
        effects
    }

    fn count(&self, side: &Side, result: &Result<Effects, PluginError>) {
        side.count_call(result.as_ref().err());
        match result {
            Ok(_) => self.inner.calls_ok.inc(),
            Err(error) => {
                let labels = vec![("plugin", self.name().to_string()), ("result", error.name().to_string())];
                self.inner.metrics.process_calls.get_or_create(&labels).inc()
            }
        };
    }

    /// Tells the log of a failure that is due there, once a minute for each kind.
    pub(super) fn report(&self, line: &str) {
        self.inner.shared.log.report(line);
    }

    pub(super) fn count_cpu(&self, side: &Side, used: Duration) {
        side.count_cpu(used);
        // What is less than a microsecond is not lost.
        let used = nanoseconds(used);
        let before = self.inner.usage.cpu_ns.fetch_add(used, Ordering::Relaxed);
        self.inner.cpu_microseconds.inc_by(before.wrapping_add(used) / 1_000 - before / 1_000);
    }

    pub(super) fn side(&self, tenant: &str) -> Arc<Side> {
        self.inner.sides.of(tenant)
    }

    pub(super) fn sides(&self) -> &Sides {
        &self.inner.sides
    }

    pub(super) fn told(&self) -> &Told {
        &self.inner.told
    }

    pub(super) fn refusals(&self) -> &Refusals {
        &self.inner.shared.refusals
    }

    #[cfg(test)]
    pub(super) fn idle_memory_bytes(&self) -> usize {
        self.inner.pool.idle_memory_bytes()
    }

    #[cfg(test)]
    pub(super) fn idle_instances(&self) -> usize {
        self.inner.pool.idle_number()
    }
}

impl Shared {
    /// For `describe`, before there is a manifest.
    pub(super) fn unknown(settings: Settings, store: Arc<PluginStore>, metrics: &Metrics) -> Arc<Shared> {
        let (reads, writes) = (Words::default(), Words::default());
        Arc::new(Shared::new(settings, Manifest::default(), reads, writes, store, metrics))
    }

    /// Checks the manifest against the operator's grant, against what the component exports, and against what this
    /// version can do.
    pub(super) fn check(
        settings: Settings,
        manifest: Manifest,
        has_timer: bool,
        store: Arc<PluginStore>,
        metrics: &Metrics,
    ) -> Result<Shared, PluginError> {
        let checked = || {
            let reads = Words::parse(&manifest.reads, false)
                .map_err(|error| format!("`reads` of its manifest: {error}"))?;
            let writes = Words::parse(&manifest.writes, true)
                .map_err(|error| format!("`writes` of its manifest: {error}"))?;
            check_manifest(&manifest)?;
            check_windows(&manifest, has_timer)?;
            check_grant(&settings, &manifest, &reads, &writes)?;
            Ok((reads, writes))
        };
        let (reads, writes) = checked().map_err(PluginError::Load)?;
        Ok(Shared::new(settings, manifest, reads, writes, store, metrics))
    }

    fn new(
        settings: Settings,
        manifest: Manifest,
        reads: Words,
        writes: Words,
        store: Arc<PluginStore>,
        metrics: &Metrics,
    ) -> Shared {
        let keys =
            settings.secrets.iter().map(|(name, secret)| (name.clone(), HashKey::new(secret))).collect();
        let mask = Mask::new(&settings.filled);
        let refusals = Refusals::new(&settings.name, metrics.clone());
        let log = PluginLog::new(&settings.name, mask.clone(), settings.limits.log, refusals.clone());
        let alert_rate = AlertRate::new(settings.limits.alerts_per_second);
        Shared {
            settings,
            manifest,
            reads,
            writes,
            log,
            refusals,
            mask,
            buckets: Buckets::default(),
            store,
            seed: None,
            memory_peak: AtomicUsize::new(0),
            alert_rate,
            keys,
            sets: Mutex::default(),
        }
    }

    /// An instance has so much memory after a call.
    pub(super) fn note_memory(&self, bytes: usize) {
        if bytes > self.memory_peak.load(Ordering::Relaxed) {
            self.memory_peak.fetch_max(bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn memory_peak(&self) -> usize {
        self.memory_peak.load(Ordering::Relaxed)
    }

    /// The key of a secret that the operator gave.
    pub(super) fn hash_key(&self, secret: &str) -> Result<HashKey, String> {
        let key = self.keys.get(secret).cloned();
        key.ok_or_else(|| {
            format!("the configuration of this plugin has no secret `{}`", printable(secret, 128))
        })
    }

    /// The patterns, compiled by this or by an earlier instance.
    pub(super) fn compiled(&self, patterns: &[String]) -> Result<Arc<PatternSet>, String> {
        let known = || self.sets.lock().expect("no panic while the lock is held");
        if let Some((_, set)) = known().iter().find(|(of, _)| of == patterns) {
            return Ok(Arc::clone(set));
        }
        let set = Arc::new(PatternSet::compile(patterns)?);
        let mut known = known();
        if known.len() < SETS_MAX {
            known.push((patterns.to_vec(), Arc::clone(&set)));
        }
        Ok(set)
    }
}

fn check_manifest(manifest: &Manifest) -> Result<(), String> {
    if manifest.signals.is_empty() {
        return Err("its manifest names no signal, so it would never be called".into());
    }
    match manifest.needs.iter().find(|need| !NEEDS.contains(&need.as_str())) {
        Some(unknown) => Err(format!("needs `{unknown}`, which is none of {}", NEEDS.join(", "))),
        None => Ok(()),
    }
}

/// `series`, windows and a timer go together: each is of no use without the others.
fn check_windows(manifest: &Manifest, has_timer: bool) -> Result<(), String> {
    let (seconds, has_series) = (manifest.window_seconds, manifest.needs.iter().any(|need| need == "series"));
    let text = match (has_series, seconds, has_timer) {
        (false, 0, false) => return Ok(()),
        (true, 1..=WINDOW_SECONDS_MAX, true) => return Ok(()),
        (_, WINDOW_TOO_LONG.., _) => {
            return Err(format!(
                "asks for windows of {seconds} s; `window-seconds` is 1 to {WINDOW_SECONDS_MAX}"
            ));
        }
        (_, 0, true) => "exports `timer`, but its `window-seconds` is 0: it would never be called",
        (true, 0, false) => {
            "needs `series`, but its `window-seconds` is 0, and it exports no `timer` to look at them"
        }
        (_, _, false) => "asks for windows (`window-seconds`), but exports no `timer` to look at them",
        (false, _, true) => {
            "asks for windows (`window-seconds`), but does not need `series`: none would ever close"
        }
    };
    Err(text.into())
}

fn check_grant(
    settings: &Settings,
    manifest: &Manifest,
    reads: &Words,
    writes: &Words,
) -> Result<(), String> {
    let asked = || format!("grant: {{ reads: {:?}, writes: {:?} }}", manifest.reads, manifest.writes);
    let Some(grant) = &settings.grant else {
        return match settings.module {
            Module::Builtin(_) => Ok(()),
            Module::File(_) => Err(format!("no `grant`; it asks for {}", asked())),
        };
    };
    let parse =
        |words, may_edit| Words::parse(words, may_edit).map_err(|error| format!("its `grant`: {error}"));
    let missing_reads = parse(&grant.reads, false)?.missing(reads);
    let missing_writes = parse(&grant.writes, true)?.missing(writes);
    if missing_reads.is_empty() && missing_writes.is_empty() {
        return Ok(());
    }
    Err(format!(
        "asks for more than its `grant`: reads {missing_reads:?}, writes {missing_writes:?}; all it asks for is {}",
        asked()
    ))
}

impl From<lifecycle::Manifest> for Manifest {
    fn from(described: lifecycle::Manifest) -> Manifest {
        let words = |words: Vec<String>| words.iter().take(256).map(|word| printable(word, 256)).collect();
        Manifest {
            name: printable(&described.name, 128),
            version: printable(&described.version, 128),
            signals: described.signals.into_iter().map(signal).collect(),
            reads: words(described.reads),
            writes: words(described.writes),
            needs: words(described.needs),
            window_seconds: described.window_seconds,
        }
    }
}

impl From<&Window> for timer::Window {
    fn from(window: &Window) -> timer::Window {
        let cell = &window.cell;
        // Infinities would spread through the sums of whoever forgets to ask for the count.
        let (min, max) = if cell.count == 0 { (0.0, 0.0) } else { (cell.min, cell.max) };
        timer::Window {
            key: window.key.clone(),
            start: window.start_ns,
            end: window.end_ns,
            count: cell.count,
            sum: cell.sum,
            min,
            max,
            buckets: cell.buckets.to_vec(),
        }
    }
}

fn signal(described: lifecycle::Signal) -> Signal {
    match described {
        lifecycle::Signal::Logs => Signal::Logs,
        lifecycle::Signal::Traces => Signal::Traces,
        lifecycle::Signal::Metrics => Signal::Metrics,
    }
}

/// For the first `configure`; calls are told the time.
pub(super) fn wall_clock_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0)
}
