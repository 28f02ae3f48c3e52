//! Plugins inside limits; the only user of wasmtime.
//!
//! [`Sandbox::load`] makes a [`Plugin`] of a component: its imports, manifest, rights and settings are checked before
//! it counts. [`Plugin::run`] gives a piece to it. A call is a transaction, an instance is disposable: what fails
//! leaves nothing behind, and what was stopped halfway is not called again.

mod bindings;
mod bisect;
mod buckets;
mod cache;
mod clock;
mod effects;
mod engine;
mod error;
mod hashing;
mod health;
mod host;
mod inspect;
mod limits;
mod linked;
mod logs;
mod mask;
mod patterns;
mod plugin;
mod pool;
mod refusals;
mod rights;
mod share;
mod stores;
#[cfg(test)]
mod tests;
mod turn;
mod usage;
mod versions;

pub use bisect::{Failed, Quarantined, Ran};
pub use effects::{Alert, AlertEffect, AlertSeverity, Cell, Effects, Window};
pub use engine::Sandbox;
pub use error::PluginError;
pub use inspect::Inspection;
pub use limits::thread_cpu;
pub use patterns::Searcher;
pub use plugin::{Called, Manifest, Plugin};
pub use turn::{NotRun, Uncallable, Usage, UsageOfTenant};

use crate::telemetry::Secret;
use plugin::Shared;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Edits of a call may always have so many bytes: a record of ten bytes may get an attribute.
const OUTPUT_BYTES_MIN: usize = 1 << 20;

/// One plugin of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub name: String,
    pub module: Module,
    /// Its own settings, as JSON text.
    pub config: String,
    /// What `config` was filled in with from the environment and from files: hidden in what the plugin says.
    pub filled: Vec<Secret>,
    /// Secrets that `batch.hash` uses by name; they never enter the plugin.
    pub secrets: BTreeMap<String, Secret>,
    /// Must have run before a record may be stored anywhere.
    pub is_guard: bool,
    pub on_failure: OnFailure,
    /// Only for pipelines of this tenant.
    pub tenant: Option<crate::batch::TenantId>,
    pub instance: Instance,
    pub limits: Limits,
    /// The rights that the operator grants, in the manifest's words; `None`: what the manifest asks (bundled plugins only).
    pub grant: Option<Grant>,
}

impl Settings {
    /// For a component that no configuration names.
    pub fn unnamed(path: &std::path::Path) -> Settings {
        Settings {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            module: Module::File(path.into()),
            config: "{}".into(),
            filled: Vec::new(),
            secrets: BTreeMap::new(),
            is_guard: false,
            on_failure: OnFailure::Pass,
            tenant: None,
            instance: Instance::PerTenant,
            limits: Limits::default(),
            grant: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Module {
    /// `builtin:NAME`
    Builtin(String),
    File(PathBuf),
}

/// What becomes of records that a plugin fails on, alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Left out, final for the sender, told in the partial success.
    Refuse,
    /// Dropped, counted.
    Drop,
    /// They go on unchanged.
    Pass,
    /// They go to the dead letters, as they were before the plugin; dropped where none are kept. Never of a guard.
    Quarantine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instance {
    /// One memory for all tenants: only for plugins that are trusted to keep nothing.
    Shared,
    /// Each tenant has instances of its own.
    PerTenant,
}

/// What one plugin may use: in a call, in an instance, in a second. What goes beyond is counted by limit, in
/// `trommel_process_limit_total`. docs/plugin-authors.md has all of them as a table, with those that have no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// CPU time of a call. Default 100 ms: a piece of 512 records costs a good plugin well under 1 ms, a slow language 50 ms.
    pub time: Duration,
    /// Linear memory of an instance, bytes. Default 64 MiB: CPython fits.
    pub memory: usize,
    /// Bytes of edits of a call, for each byte of the piece, and 1 MiB at least. Default 4: masks are longer than what
    /// they hide, and a record gets a few attributes; the room is charged three times the request.
    pub output: u32,
    /// Bytes that a call may hand to one host function, for each byte of the piece, and 1 MiB at least. Default 4: as
    /// many as edits may have, since edits are what is handed over.
    pub hostcall: u32,
    /// Passes of the host over the piece, for each pattern of the largest set. Default 64: a redaction takes three
    /// (search, the texts of the hits, replace), and a plugin may do so for each kind of place.
    pub work: u32,
    /// Bytes of log in a second, over all instances. Default 64 KiB: a page of lines, and no disk is filled by it in a day.
    pub log: usize,
    /// Keys that one call may fire alerts for. Default 32: a person reads fewer.
    pub alerts_per_call: usize,
    /// Keys that the calls for one tenant may fire alerts for in a second. Default 100: more than people could look at,
    /// and few enough to be grouped and told.
    pub alerts_per_second: usize,
    /// Names that it may count and measure under. Default 256: each is a line of every scrape.
    pub names: usize,
    /// Keys of series of one tenant. Default 1,000: a platform's client has tens of services, and a plugin a few keys
    /// for each.
    pub series_keys: usize,
    /// Bytes of keys and values in the store of one tenant. Default 64 KiB: a baseline per service, and one small write.
    pub store: usize,
    /// CPU time in a second of wall time, of one tenant's calls where instances are per tenant, else of all: 1 s is one
    /// core. Over it calls are not started. Default none: who operates the collector chose the plugin. One that is a
    /// tenant's own has 100 ms unless told otherwise.
    pub cpu: Option<Duration>,
    /// When calls are not started any more since too many failed.
    pub circuit: CircuitSettings,
}

/// When calls for a tenant are not started any more, since too many failed. `health.rs` says which count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitSettings {
    /// So many of the last calls are looked at, at most 64. Default 20: half a second of a busy tenant, and enough to
    /// tell a plugin that is broken from one bad request.
    pub calls: u32,
    /// So many of them failed. Default half.
    pub failures: u32,
    /// After which one call is tried. Default 10 s: at most one such call in so long costs its time limit.
    pub pause: Duration,
}

impl Default for CircuitSettings {
    fn default() -> CircuitSettings {
        CircuitSettings { calls: 20, failures: 10, pause: Duration::from_secs(10) }
    }
}

/// What a tenant's own plugin gets of a core unless told otherwise.
pub const OWN_CPU: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    pub reads: Vec<String>,
    pub writes: Vec<String>,
}

impl Limits {
    /// Bytes of edits of a call on a piece of so many bytes.
    fn output_bytes(&self, piece_bytes: usize) -> usize {
        piece_bytes.saturating_mul(self.output as usize).max(OUTPUT_BYTES_MIN)
    }

    /// Bytes of one host call's arguments in a call on a piece of so many bytes.
    fn hostcall_bytes(&self, piece_bytes: usize) -> usize {
        piece_bytes.saturating_mul(self.hostcall as usize).max(OUTPUT_BYTES_MIN)
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            time: Duration::from_millis(100),
            memory: 64 << 20,
            output: 4,
            hostcall: 4,
            work: 64,
            log: 64 << 10,
            alerts_per_call: 32,
            alerts_per_second: 100,
            names: 256,
            series_keys: 1_000,
            store: 64 << 10,
            cpu: None,
            circuit: CircuitSettings::default(),
        }
    }
}
