//! The host's side of the WIT: what a call may do, charged and checked.
//!
//! Each host function charges the meter, looks into the rights, and acts on the call at hand. A wrong use is noted:
//! the guest goes on with an empty answer, and the call fails at its end with the first note, so that its instance
//! lives on. Only what is over a limit stops the guest on the spot.

mod alerts;
mod batch;
mod common;
mod series;
mod shapes;
mod store;

use super::clock::{Clock, Running};
use super::effects::{LeftOut, Raised};
use super::limits::{CALL_COST, MemoryLimit, Meter, Stop};
use super::logs::{PluginLog, printable};
use super::patterns::PatternSet;
use super::rights::Need;
use super::stores::Values;
use super::{Effects, Shared};
use crate::batch::{Call, Fault, Places, TenantId};
use std::sync::Arc;
use std::time::Duration;

/// What the guest is asked for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Describe,
    Configure,
    Process,
    Tick,
}

/// What a call of the guest is given.
#[derive(Debug)]
pub(super) struct Begin {
    pub(super) phase: Phase,
    /// For `process`.
    pub(super) call: Option<Call>,
    /// For `tick`.
    pub(super) tenant: Option<TenantId>,
    pub(super) cpu_limit: Duration,
    /// Of what it works on: work and edits are bounded by it.
    pub(super) bytes: usize,
    pub(super) now_ns: u64,
}

/// What a call of the guest left.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) call: Option<Call>,
    pub(super) effects: Effects,
    pub(super) left_out: LeftOut,
    /// What the tenant's store holds from now on, if `tick` changed it.
    pub(super) draft: Option<Values>,
}

impl Begin {
    /// For what belongs to no tenant.
    pub(super) fn setup(phase: Phase, cpu_limit: Duration, bytes: usize, now_ns: u64) -> Begin {
        Begin { phase, call: None, tenant: None, cpu_limit, bytes, now_ns }
    }
}

/// What an instance keeps on the host's side, and the call at hand.
#[derive(Debug)]
pub(super) struct State {
    pub(super) shared: Arc<Shared>,
    running: Running,
    pub(super) memory: MemoryLimit,
    pub(super) phase: Phase,
    /// Only while `process` runs.
    pub(super) call: Option<Call>,
    /// Only while `tick` runs.
    tenant: Option<TenantId>,
    pub(super) meter: Meter,
    /// Bytes of the items of the piece.
    piece_bytes: usize,
    /// Edits of this call may have so many bytes.
    pub(super) output_bytes_max: usize,
    /// And one host function may be handed so many.
    pub(super) hostcall_bytes_max: usize,
    pub(super) effects: Effects,
    raised: Raised,
    left_out: LeftOut,
    /// The tenant's store as `tick` wants it; made by the first change.
    draft: Option<Values>,
    /// The first wrong use of this call.
    pub(super) fault: Option<String>,
    /// Why the host stopped this call.
    pub(super) stop: Option<Stop>,
    pub(super) now_ns: u64,
    sets: Vec<Arc<PatternSet>>,
    sets_bytes: usize,
    /// The line that `print` began.
    printed: Vec<u8>,
    random: u64,
}

impl State {
    pub(super) fn new(shared: Arc<Shared>, clock: Arc<Clock>) -> State {
        let memory = MemoryLimit::new(shared.settings.limits.memory);
        let random = shared.seed.unwrap_or_else(seed);
        State {
            shared,
            running: Running::not_yet(clock),
            memory,
            phase: Phase::Describe,
            call: None,
            tenant: None,
            meter: Meter::new(Duration::ZERO, 0, 0, 0),
            piece_bytes: 0,
            output_bytes_max: 0,
            hostcall_bytes_max: 0,
            effects: Effects::default(),
            raised: Raised::default(),
            left_out: LeftOut::default(),
            draft: None,
            fault: None,
            stop: None,
            now_ns: 0,
            sets: Vec::new(),
            sets_bytes: 0,
            printed: Vec::new(),
            random,
        }
    }

    pub(super) fn begin(&mut self, begin: Begin) {
        let Begin { phase, call, tenant, cpu_limit, bytes, now_ns } = begin;
        let patterns_max = self.sets.iter().map(|set| set.len()).max().unwrap_or(0);
        let limits = &self.shared.settings.limits;
        self.meter = Meter::new(cpu_limit, limits.work, bytes, patterns_max);
        self.output_bytes_max = limits.output_bytes(bytes);
        self.hostcall_bytes_max = limits.hostcall_bytes(bytes);
        self.piece_bytes = bytes;
        self.phase = phase;
        self.call = call;
        self.tenant = tenant;
        self.now_ns = now_ns;
        self.fault = None;
        self.stop = None;
        self.memory.was_refused = false;
        self.running.begin();
    }

    /// Ends the call for the host: what was printed is written, effects are handed out.
    pub(super) fn end(&mut self) -> Ended {
        self.running.end();
        self.flush_print();
        self.tenant = None;
        self.effects.alerts = std::mem::take(&mut self.raised).into_effects();
        Ended {
            call: self.call.take(),
            effects: std::mem::take(&mut self.effects),
            left_out: std::mem::take(&mut self.left_out),
            draft: self.draft.take(),
        }
    }

    /// Whose the batch or the windows are.
    fn tenant(&self) -> Option<&str> {
        self.call.as_ref().map(Call::tenant).or_else(|| self.tenant.as_ref().map(TenantId::as_str))
    }

    /// Whether a function of an interface besides `batch` and `host` may be used now; the reason is noted.
    fn may_use(&mut self, name: &str, need: &str, phases: &[Phase]) -> bool {
        // The call has failed already: the rest of it is for nothing.
        if self.fault.is_some() {
            return false;
        }
        if !self.shared.manifest.needs.iter().any(|known| known == need) {
            let () = self.note(format!("{name}: `{need}` is not in `needs` of the manifest"));
            return false;
        }
        if !phases.contains(&self.phase) {
            let inside = match phases {
                [Phase::Process] => "`process`",
                [Phase::Tick] => "`tick`",
                _ => "`process` and `tick`",
            };
            let () = self.note(format!("{name}: works inside {inside} only"));
            return false;
        }
        true
    }

    /// A host function that reads. `allow` names the right that is missing; `size` is what it hands over.
    fn read<T: Default>(
        &mut self,
        name: &'static str,
        allow: impl FnOnce(&Shared) -> Result<(), Missing>,
        work: impl FnOnce(&mut Call, &mut Meter) -> Result<T, Failure>,
        size: impl FnOnce(&T) -> usize,
    ) -> wasmtime::Result<T> {
        self.charge(CALL_COST)?;
        // The call has failed already: the rest of it is for nothing.
        if self.fault.is_some() {
            return Ok(T::default());
        }
        if let Err(missing) = allow(&self.shared) {
            return Ok(self.note(format!("{name}: {missing}")));
        }
        let Some(call) = &mut self.call else {
            return Ok(self.note(format!("{name}: works inside `process` only")));
        };
        match work(call, &mut self.meter) {
            Ok(value) => {
                self.charge(size(&value) as u64)?;
                Ok(value)
            }
            Err(Failure::Fault(fault)) => Ok(self.note(format!("{name}: {fault}"))),
            Err(Failure::Stop(stop)) => Err(self.stopped(stop)),
        }
    }

    /// A host function that edits, and is never told at once what was wrong. `size` is what it was handed.
    fn edit(
        &mut self,
        name: &'static str,
        allow: impl FnOnce(&Shared) -> Result<(), Missing>,
        size: usize,
        work: impl FnOnce(&mut Call),
    ) -> wasmtime::Result<()> {
        self.edit_with(name, allow, size, |call, _| {
            work(call);
            Ok(())
        })
    }

    /// The same with an answer.
    fn edit_with<T: Default>(
        &mut self,
        name: &'static str,
        allow: impl FnOnce(&Shared) -> Result<(), Missing>,
        size: usize,
        work: impl FnOnce(&mut Call, &mut Meter) -> Result<T, Failure>,
    ) -> wasmtime::Result<T> {
        self.charge(size as u64)?;
        let value = self.read(name, allow, work, |_| 0)?;
        self.expect_output(name, 0)?;
        Ok(value)
    }

    fn output_bytes_left(&self) -> Option<usize> {
        self.output_bytes_max.checked_sub(self.call.as_ref().map_or(0, Call::edit_bytes))
    }

    /// Stops the call before edits are made that would take so many more bytes, if that is too much.
    fn expect_output(&mut self, name: &'static str, bytes: usize) -> wasmtime::Result<()> {
        match self.output_bytes_left() {
            Some(left) if bytes <= left => Ok(()),
            _ => Err(self.stopped(too_much(name))),
        }
    }

    fn charge(&mut self, work: u64) -> wasmtime::Result<()> {
        self.meter.charge(work).map_err(|stop| self.stopped(stop))
    }

    /// Notes the reason and gives the error that stops the guest.
    pub(super) fn stopped(&mut self, stop: Stop) -> wasmtime::Error {
        self.stop.get_or_insert_with(|| stop.clone());
        wasmtime::Error::new(stop)
    }

    /// Notes a wrong use; the first counts.
    pub(super) fn note<T: Default>(&mut self, fault: String) -> T {
        let mask = &self.shared.mask;
        self.fault.get_or_insert_with(|| printable(&mask.apply(&fault), 1024));
        T::default()
    }

    fn set(&self, number: u32) -> Result<Arc<PatternSet>, String> {
        let set = self.sets.get(number as usize).cloned();
        set.ok_or_else(|| {
            format!("there is no pattern set {number}; `host.compile` made {}", self.sets.len())
        })
    }

    fn hash_key(&self, secret: &str) -> Result<super::hashing::HashKey, String> {
        self.shared.hash_key(secret)
    }

    fn flush_print(&mut self) {
        if !self.printed.is_empty() {
            let line = std::mem::take(&mut self.printed);
            self.log().write(super::logs::LogLevel::Info, &String::from_utf8_lossy(&line), self.now_ns);
        }
    }

    fn log(&self) -> &PluginLog {
        &self.shared.log
    }
}

fn too_much(name: &'static str) -> Stop {
    Stop::Output(format!("{name}: the edits of the call take more bytes than a piece of this size is worth"))
}

/// Why a host function did nothing.
enum Failure {
    Fault(String),
    Stop(Stop),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure::Fault(fault.0)
    }
}

impl From<String> for Failure {
    fn from(fault: String) -> Failure {
        Failure::Fault(fault)
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Failure {
        Failure::Stop(stop)
    }
}

/// A right that the manifest does not have.
struct Missing {
    word: String,
    list: &'static str,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` is not in `{}` of the manifest", self.word, self.list)
    }
}

fn free(_: &Shared) -> Result<(), Missing> {
    Ok(())
}

fn reads(need: Need<'_>) -> impl FnOnce(&Shared) -> Result<(), Missing> {
    move |shared| shared.reads.check(need).map_err(|word| Missing { word, list: "reads" })
}

fn writes(need: Need<'_>) -> impl FnOnce(&Shared) -> Result<(), Missing> {
    move |shared| shared.writes.check(need).map_err(|word| Missing { word, list: "writes" })
}

fn reads_places(places: Places) -> impl FnOnce(&Shared) -> Result<(), Missing> {
    move |shared| shared.reads.check_places(places).map_err(|word| Missing { word, list: "reads" })
}

fn writes_places(places: Places) -> impl FnOnce(&Shared) -> Result<(), Missing> {
    move |shared| shared.writes.check_places(places).map_err(|word| Missing { word, list: "writes" })
}

/// Different for each instance; not for secrets.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
