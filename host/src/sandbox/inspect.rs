//! What a component is, for a person who has no settings for it yet.

use super::plugin::Shared;
use super::pool::Pool;
use super::{Manifest, PluginError, Sandbox, Settings};
use crate::telemetry::Metrics;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;
use wasmtime::component::Component;

/// What [`Sandbox::inspect`] found.
#[derive(Clone, Debug)]
pub struct Inspection {
    pub manifest: Manifest,
    /// The world that it fits: `plugin`, or `ticking-plugin` if it looks at windows.
    pub world: &'static str,
    /// Interfaces with their versions, as the component names them, sorted.
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    /// The version of `trommel:plugin` that it was built against.
    pub interface: String,
    /// Of the component.
    pub bytes: usize,
    /// SHA-256 of the component, in hexadecimal digits.
    pub digest: String,
    /// What compiling took on this machine; no cache was asked.
    pub compile: Duration,
    /// Linear memory of an instance that was asked what it is, bytes.
    pub memory: usize,
}

impl Sandbox {
    /// What the component in a file says of itself, and what it costs to have it. Compiles: not for an executor's thread.
    /// The error is for a person.
    pub fn inspect(&self, path: &Path) -> Result<Inspection, PluginError> {
        let module = super::Module::File(path.into());
        self.inspect_bytes(&self.component_of(&module)?, &Settings::unnamed(path))
    }

    /// The same with the component at hand; of the settings, name and limits are read.
    pub fn inspect_bytes(&self, bytes: &[u8], settings: &Settings) -> Result<Inspection, PluginError> {
        let begun = Instant::now();
        let linked = self.link(bytes)?;
        let compile = begun.elapsed();
        let unknown = Shared::unknown(settings.clone(), self.store_of(&settings.name), &Metrics::new());
        let manifest = Pool::describe(self.clock(), &linked, unknown.clone())?;
        let (imports, exports) = self.interfaces(linked.component());
        let version = |name: &String| name.split_once('@').map(|(_, version)| version.to_owned());
        Ok(Inspection {
            manifest,
            world: if linked.has_timer() { "ticking-plugin" } else { "plugin" },
            interface: exports.iter().find_map(version).unwrap_or_default(),
            imports,
            exports,
            bytes: bytes.len(),
            digest: Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
            compile,
            memory: unknown.memory_peak(),
        })
    }

    fn interfaces(&self, component: &Component) -> (Vec<String>, Vec<String>) {
        let world = component.component_type();
        let sorted = |names: &mut dyn Iterator<Item = &str>| {
            let mut names: Vec<String> = names.map(str::to_owned).collect();
            names.sort();
            names
        };
        let engine = self.clock().engine();
        (
            sorted(&mut world.imports(engine).map(|(name, _)| name)),
            sorted(&mut world.exports(engine).map(|(name, _)| name)),
        )
    }
}
