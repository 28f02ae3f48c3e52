//! Plugins inside limits; the only user of wasmtime.
//!
//! [`Sandbox::load`] makes a [`Plugin`] of a component: its imports, manifest, rights and settings are checked before
//! it counts. [`Plugin::run`] gives a piece to it. A call is a transaction, an instance is disposable: what fails
//! leaves nothing behind, and what was stopped halfway is not called again.

mod bindings;
mod bisect;
mod buckets;
mod cache;
mod effects;
mod engine;
mod error;
mod hashing;
mod host;
mod limits;
mod linked;
mod logs;
mod mask;
mod patterns;
mod plugin;
mod pool;
mod rights;
mod stores;
#[cfg(test)]
mod tests;
mod versions;

pub use bisect::{Failed, Ran};
pub use effects::{Alert, AlertEffect, AlertSeverity, Cell, Effects, Window};
pub use engine::{Sandbox, SandboxClock};
pub use error::PluginError;
pub use patterns::Searcher;
pub use plugin::{Called, Manifest, Plugin};

use crate::telemetry::Secret;
use plugin::Shared;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Edits of a call may always have so many bytes: a record of ten bytes may get an attribute.
const OUTPUT_BYTES_MIN: usize = 1 << 20;

/// One plugin of the configuration.
#[derive(Clone, Debug)]
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
    fn unnamed(path: &std::path::Path) -> Settings {
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instance {
    /// One memory for all tenants: only for plugins that are trusted to keep nothing.
    Shared,
    /// Each tenant has instances of its own.
    PerTenant,
}

/// Bounds of one call, and of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// CPU time of a call. Default 100 ms: a piece of 512 records costs a good plugin well under 1 ms, a slow language 50 ms.
    pub time: Duration,
    /// Linear memory of an instance, bytes. Default 64 MiB: CPython fits.
    pub memory: usize,
    /// Bytes of edits of a call. Default: 4 × the piece, at least 1 MiB.
    pub output_factor: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    pub reads: Vec<String>,
    pub writes: Vec<String>,
}

impl Limits {
    /// Bytes of edits of a call on a piece of so many bytes, and of one host call's arguments.
    fn output(&self, piece_bytes: usize) -> usize {
        piece_bytes.saturating_mul(self.output_factor as usize).max(OUTPUT_BYTES_MIN)
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { time: Duration::from_millis(100), memory: 64 << 20, output_factor: 4 }
    }
}
