//! Lends plugin instances to calls.
//!
//! An instance is lent to one call at a time. It comes back only from a call that returned; after a trap or a stop
//! it is dropped, since a guest stopped halfway may hold anything in its memory. After [`CALLS_MAX`] calls it is
//! dropped as well, which bounds what a leaking guest can keep. With `instance: per_tenant` an instance is lent only
//! to the tenant that it was made for, and the one that was idle longest goes when there are too many.

use super::clock::Clock;
use super::host::{Begin, Phase, State};
use super::limits::Stop;
use super::linked::{Exports, Linked};
use super::logs::printable;
use super::plugin::{Manifest, Shared, wall_clock_ns};
use super::usage::{HeldMemory, PluginUsage};
use super::{Instance, PluginError};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wasmtime::{Store, UpdateDeadline, WasmBacktrace};

/// Calls of one instance.
pub(super) const CALLS_MAX: u32 = 100_000;
/// Instances that wait, over all tenants.
const IDLE_MAX: usize = 64;
/// `configure` may parse a table or compile patterns; it runs once for each instance.
const CONFIGURE_CPU_MIN: Duration = Duration::from_secs(2);
/// Bytes that `describe` and `configure` may hand over in one host call.
const CONFIGURE_OUTPUT_BYTES: usize = 1 << 20;
const GUEST_TEXT_BYTES_MAX: usize = 1024;
const FRAMES_MAX: usize = 12;

pub(super) struct Pool {
    clock: Arc<Clock>,
    linked: Linked,
    shared: Arc<Shared>,
    usage: Arc<PluginUsage>,
    idle: Mutex<VecDeque<Lent>>,
}

/// An instance, out of the pool.
pub(super) struct Lent {
    pub(super) store: Store<State>,
    pub(super) exports: Exports,
    tenant: Option<String>,
    calls: u32,
    memory: HeldMemory,
}

impl Pool {
    pub(super) fn new(
        clock: Arc<Clock>,
        linked: Linked,
        shared: Arc<Shared>,
        usage: Arc<PluginUsage>,
    ) -> Pool {
        Pool { clock, linked, shared, usage, idle: Mutex::default() }
    }

    /// What the component says of itself, from an instance that is thrown away.
    pub(super) fn describe(
        clock: &Arc<Clock>,
        linked: &Linked,
        shared: Arc<Shared>,
    ) -> Result<Manifest, PluginError> {
        let now_ns = wall_clock_ns();
        let nobody = HeldMemory::new(Arc::default());
        let mut lent = Lent::instantiate(clock, linked, shared, (None, nobody), now_ns)?;
        lent.begin_setup(Phase::Describe, now_ns);
        let result = lent.exports.plugin.trommel_plugin_lifecycle().call_describe(&mut lent.store);
        let described = lent.ended(result.map(Ok));
        lent.store.data_mut().end();
        let described =
            described.map_err(|(error, _)| PluginError::Load(format!("`describe` failed: {error}")))?;
        Ok(Manifest::from(described))
    }

    /// An idle instance, else a new one, configured.
    pub(super) fn lend(&self, tenant: &str, now_ns: u64) -> Result<Lent, PluginError> {
        let own = (self.shared.settings.instance == Instance::PerTenant).then_some(tenant);
        let idle = {
            let mut idle = self.idle();
            // The one used last: its memory is warm.
            let at = idle.iter().rposition(|lent| lent.tenant.as_deref() == own);
            at.and_then(|at| idle.remove(at))
        };
        match idle {
            Some(lent) => Ok(lent),
            None => self.configured(own.map(str::to_string), now_ns),
        }
    }

    pub(super) fn give_back(&self, mut lent: Lent) {
        lent.calls += 1;
        lent.memory.grown_to(lent.store.data().memory.bytes());
        if lent.calls >= CALLS_MAX {
            return;
        }
        let mut idle = self.idle();
        idle.push_back(lent);
        let surplus = if idle.len() > IDLE_MAX { idle.pop_front() } else { None };
        drop(idle);
        // Unmapping its memory takes a while: outside the lock.
        drop(surplus);
    }

    fn configured(&self, tenant: Option<String>, now_ns: u64) -> Result<Lent, PluginError> {
        // That of the load is nobody's.
        let owner = tenant.as_deref().filter(|tenant| !tenant.is_empty());
        let owner = owner.map_or_else(|| Arc::clone(&self.usage.shared), |tenant| self.usage.tenant(tenant));
        let memory = HeldMemory::new(owner);
        let shared = Arc::clone(&self.shared);
        let mut lent = Lent::instantiate(&self.clock, &self.linked, shared, (tenant, memory), now_ns)?;
        lent.begin_setup(Phase::Configure, now_ns);
        let config = &self.shared.settings.config;
        let result = lent.exports.plugin.trommel_plugin_lifecycle().call_configure(&mut lent.store, config);
        let configured = lent.ended(result);
        lent.store.data_mut().end();
        configured.map_err(|(error, _)| match error {
            PluginError::Guest(text) => PluginError::Load(format!("its settings are refused: {text}")),
            other => PluginError::Load(format!("`configure` failed: {other}")),
        })?;
        lent.memory.grown_to(lent.store.data().memory.bytes());
        Ok(lent)
    }

    pub(super) fn has_timer(&self) -> bool {
        self.linked.has_timer()
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, VecDeque<Lent>> {
        self.idle.lock().expect("no panic while the lock is held")
    }

    /// Linear memory of the instances that wait.
    #[cfg(test)]
    pub(super) fn idle_memory_bytes(&self) -> usize {
        self.idle().iter().map(|lent| lent.store.data().memory.bytes).sum()
    }

    #[cfg(test)]
    pub(super) fn idle_number(&self) -> usize {
        self.idle().len()
    }
}

impl Lent {
    fn instantiate(
        clock: &Arc<Clock>,
        linked: &Linked,
        shared: Arc<Shared>,
        (tenant, memory): (Option<String>, HeldMemory),
        now_ns: u64,
    ) -> Result<Lent, PluginError> {
        let mut store = Store::new(clock.engine(), State::new(shared, clock.clone()));
        store.limiter(|state| &mut state.memory);
        store.epoch_deadline_callback(|mut context| {
            let state = context.data_mut();
            state.meter.check_clock().map_err(|stop| state.stopped(stop))?;
            Ok(UpdateDeadline::Continue(1))
        });
        // A start function runs now; that of a language's runtime may look at the clock, and Go's stops at zero.
        store.set_epoch_deadline(1);
        store.data_mut().begin(Begin::setup(Phase::Describe, CONFIGURE_CPU_MIN, 0, now_ns));
        let exports = linked.instantiate(&mut store).map_err(|error| {
            let limit = store.data().memory.bytes_max;
            match store.data().memory.was_refused {
                true => {
                    store.data().shared.refusals.count("memory", 1);
                    PluginError::Memory { limit }
                }
                false => PluginError::Load(format!("does not start: {:#}", error)),
            }
        })?;
        Ok(Lent { store, exports, tenant, calls: 0, memory })
    }

    fn begin_setup(&mut self, phase: Phase, now_ns: u64) {
        let state = self.store.data_mut();
        let shared = Arc::clone(&state.shared);
        let cpu_limit = CONFIGURE_CPU_MIN.max(shared.settings.limits.time);
        let bytes = shared.settings.config.len().max(CONFIGURE_OUTPUT_BYTES);
        state.begin(Begin::setup(phase, cpu_limit, bytes, now_ns));
        self.store.set_hostcall_fuel(CONFIGURE_OUTPUT_BYTES);
        self.store.set_epoch_deadline(1);
    }

    /// What became of a call, and whether the instance may live. What the host noted explains more than what the guest
    /// made of it.
    pub(super) fn ended<T>(
        &mut self,
        result: wasmtime::Result<Result<T, String>>,
    ) -> Result<T, (PluginError, bool)> {
        let state = self.store.data_mut();
        state.shared.note_memory(state.memory.bytes());
        if state.memory.was_refused {
            state.shared.refusals.count("memory", 1);
        }
        let fault = state.fault.take();
        match result {
            Ok(Ok(value)) => fault.map_or(Ok(value), |fault| Err((PluginError::Fault(fault), true))),
            Ok(Err(text)) => {
                // Before it is cut: half a secret tells enough.
                let text = state.shared.mask.apply(&text);
                let guest = PluginError::Guest(printable(&text, GUEST_TEXT_BYTES_MAX));
                Err((fault.map_or(guest, PluginError::Fault), true))
            }
            Err(error) => {
                // Whatever it did wrong before: it was stopped, and the instance is lost.
                let stopped = match (state.stopped_by(&error), fault) {
                    (PluginError::Trap(text), Some(fault)) => {
                        PluginError::Trap(format!("{fault}; then {text}"))
                    }
                    (stopped, _) => stopped,
                };
                Err((stopped, false))
            }
        }
    }
}

impl State {
    fn stopped_by(&mut self, error: &wasmtime::Error) -> PluginError {
        let limit_ms = u64::try_from(self.meter.cpu_limit().as_millis()).unwrap_or(u64::MAX);
        let (limit, stopped) = match self.stop.take() {
            Some(Stop::Time) => ("time", PluginError::Time { limit_ms }),
            Some(Stop::Work(text)) => ("work", PluginError::Work(text)),
            Some(Stop::Output(text)) => ("output", PluginError::Output(text)),
            None => return self.trapped(error),
        };
        self.shared.refusals.count(limit, 1);
        stopped
    }

    fn trapped(&self, error: &wasmtime::Error) -> PluginError {
        let cause = error.root_cause().to_string();
        // wasmtime's error for this has no public type.
        if cause.contains("fuel allocated for hostcalls") {
            self.shared.refusals.count("hostcall", 1);
            let bytes = self.hostcall_bytes_max;
            return PluginError::Output(format!("handed more than {bytes} bytes to one host function"));
        }
        if error.downcast_ref::<wasmtime::Trap>() == Some(&wasmtime::Trap::StackOverflow) {
            self.shared.refusals.count("stack", 1);
        }
        if self.memory.was_refused {
            return PluginError::Memory { limit: self.memory.bytes_max };
        }
        PluginError::Trap(printable(&format!("{cause}{}", backtrace(error)), GUEST_TEXT_BYTES_MAX))
    }
}

/// ` in inner < outer`: where the guest was, in its own names, without the machinery of a panic.
fn backtrace(error: &wasmtime::Error) -> String {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let name = |frame: &wasmtime::FrameInfo| match frame.func_name() {
        Some(name) => format!("{:#}", rustc_demangle::demangle(name)),
        None => format!("function {}", frame.func_index()),
    };
    let is_panic =
        |name: &String| ["__rustc", "std::", "core::panicking"].iter().any(|of| name.starts_with(of));
    let names: Vec<String> = trace.frames().iter().map(name).skip_while(is_panic).take(FRAMES_MAX).collect();
    format!(" in {}", names.join(" < "))
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("plugin", &self.shared.settings.name).finish_non_exhaustive()
    }
}
