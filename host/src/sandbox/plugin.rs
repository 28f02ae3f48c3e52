//! A plugin that was loaded: what it may do, and one call of it.

use super::bindings::PluginPre;
use super::bindings::exports::trommel::plugin::lifecycle;
use super::bisect::CALLS_PER_TIMED;
use super::buckets::Buckets;
use super::hashing::HashKey;
use super::host::{Phase, State};
use super::logs::{PluginLog, printable};
use super::mask::Mask;
use super::patterns::{PatternSet, SETS_MAX};
use super::pool::{Lent, Pool};
use super::rights::Words;
use super::{Effects, Module, PluginError, Settings};
use crate::batch::{Call, Piece, Signal};
use crate::telemetry::Metrics;
use prometheus_client::metrics::counter::Counter;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wasmtime::Engine;

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
    calls_ok: Counter,
    cpu_microseconds: Counter,
    /// Runs begun, to choose those that are timed.
    runs: AtomicU32,
}

/// What all instances of a plugin share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) manifest: Manifest,
    pub(super) reads: Words,
    pub(super) writes: Words,
    pub(super) log: PluginLog,
    /// For what the plugin says, and for what is said of it.
    pub(super) mask: Mask,
    pub(super) buckets: Buckets,
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
        engine: Engine,
        pre: PluginPre<State>,
        shared: Arc<Shared>,
        metrics: &Metrics,
    ) -> Result<Plugin, PluginError> {
        let name = shared.settings.name.clone();
        let labels = |result: &str| vec![("plugin", name.clone()), ("result", result.into())];
        let calls_ok = metrics.process_calls.get_or_create(&labels("ok")).clone();
        let cpu_microseconds = metrics.process_cpu.get_or_create(&vec![("plugin", name.clone())]).clone();
        let pool = Pool::new(engine, pre, Arc::clone(&shared));
        let inner = Inner {
            shared,
            pool,
            metrics: metrics.clone(),
            calls_ok,
            cpu_microseconds,
            runs: AtomicU32::new(0),
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

    /// One call with these records of the piece (`None`: all). All or nothing. Takes up to the CPU limit, and as long as
    /// the machine makes it wait: not for an executor's thread.
    pub fn process(&self, piece: Piece, subset: Option<Range<u32>>, now_ns: u64) -> Called {
        self.process_within(piece, subset, now_ns, self.settings().limits.time)
    }

    pub(super) fn process_within(
        &self,
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
        self.count(&called.result);
        called
    }

    fn call(&self, mut lent: Lent, call: Call, bytes: usize, now_ns: u64, cpu_limit: Duration) -> Called {
        lent.store.set_hostcall_fuel(self.settings().limits.output(bytes));
        lent.store.set_epoch_deadline(1);
        lent.store.data_mut().begin(Phase::Process, Some(call), cpu_limit, bytes, now_ns);
        let result = lent.plugin.trommel_plugin_processor().call_process(&mut lent.store);
        let result = lent.ended(result);
        let (call, effects) = lent.store.data_mut().end();
        let call = call.expect("nothing takes the call but the end");
        let called = match &result {
            Ok(()) => match call.commit() {
                Ok(done) => Called { piece: done.piece, result: Ok(effects), dropped: done.dropped },
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

    fn count(&self, result: &Result<Effects, PluginError>) {
        match result {
            Ok(_) => self.inner.calls_ok.inc(),
            Err(error) => {
                let labels = vec![("plugin", self.name().to_string()), ("result", error.name().to_string())];
                self.inner.metrics.process_calls.get_or_create(&labels).inc()
            }
        };
    }

    /// Writes to the plugin's own log, which is bounded by the second.
    pub(super) fn log(&self, line: &str, now_ns: u64) {
        self.inner.shared.log.write(super::logs::LogLevel::Error, line, now_ns);
    }

    pub(super) fn is_next_timed(&self) -> bool {
        self.inner.runs.fetch_add(1, Ordering::Relaxed).is_multiple_of(CALLS_PER_TIMED)
    }

    pub(super) fn count_cpu(&self, used: Duration) {
        self.inner.cpu_microseconds.inc_by(u64::try_from(used.as_micros()).unwrap_or(0));
    }

    #[cfg(test)]
    pub(super) fn idle_instances(&self) -> usize {
        self.inner.pool.idle_number()
    }
}

impl Shared {
    /// For `describe`, before there is a manifest.
    pub(super) fn unknown(settings: Settings) -> Arc<Shared> {
        Arc::new(Shared::new(settings, Manifest::default(), Words::default(), Words::default()))
    }

    /// Checks the manifest against the operator's grant and against what this version can do.
    pub(super) fn check(settings: Settings, manifest: Manifest) -> Result<Arc<Shared>, PluginError> {
        let checked = || {
            let reads = Words::parse(&manifest.reads, false)
                .map_err(|error| format!("`reads` of its manifest: {error}"))?;
            let writes = Words::parse(&manifest.writes, true)
                .map_err(|error| format!("`writes` of its manifest: {error}"))?;
            check_manifest(&manifest)?;
            check_grant(&settings, &manifest, &reads, &writes)?;
            Ok((reads, writes))
        };
        let (reads, writes) = checked().map_err(PluginError::Load)?;
        Ok(Arc::new(Shared::new(settings, manifest, reads, writes)))
    }

    fn new(settings: Settings, manifest: Manifest, reads: Words, writes: Words) -> Shared {
        let keys =
            settings.secrets.iter().map(|(name, secret)| (name.clone(), HashKey::new(secret))).collect();
        let mask = Mask::new(&settings.filled);
        let log = PluginLog::new(&settings.name, mask.clone());
        Shared {
            settings,
            manifest,
            reads,
            writes,
            log,
            mask,
            buckets: Buckets::default(),
            keys,
            sets: Mutex::default(),
        }
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
    if let Some(need) = manifest.needs.first() {
        return Err(match need.as_str() {
            "alerts" | "series" | "store" => format!("needs `{need}`, which comes with a later version"),
            other => format!("needs `{other}`, which this version does not know"),
        });
    }
    match manifest.window_seconds {
        0 => Ok(()),
        _ => Err("asks for windows (`window-seconds`), which come with a later version".into()),
    }
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

fn signal(described: lifecycle::Signal) -> Signal {
    match described {
        lifecycle::Signal::Logs => Signal::Logs,
        lifecycle::Signal::Traces => Signal::Traces,
        lifecycle::Signal::Metrics => Signal::Metrics,
    }
}

/// For the first `configure`; calls are told the time.
fn wall_clock_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0)
}
