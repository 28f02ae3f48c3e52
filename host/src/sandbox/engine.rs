//! The engine, and how a component becomes a plugin.

use super::cache::Cache;
use super::clock::Clock;
use super::host::State;
use super::linked::Linked;
use super::plugin::{Plugin, Shared};
use super::pool::Pool;
use super::stores::{PluginStore, Stores};
use super::usage::Usages;
use super::versions;
use super::{Grant, Instance, Module, PluginError, Settings};
use crate::telemetry::Metrics;
use std::borrow::Cow;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Engine, OptLevel};

/// CPython with its standard library is a component of 18 MB.
const MODULE_BYTES_MAX: u64 = 128 << 20;
/// What a guest's own stack may take; the threads that call have 2 MiB.
const STACK_BYTES_MAX: usize = 512 << 10;
/// Of the random numbers that a plugin gets while it works on samples.
const SAMPLE_SEED: u64 = 1;

/// What all plugins share: one engine and its clock, the host's functions, the cache of compiled code.
pub struct Sandbox {
    clock: Arc<Clock>,
    linker: Linker<State>,
    cache: Cache,
    stores: Stores,
    usages: Usages,
    metrics: Metrics,
    bundled: fn(&str) -> Option<&'static [u8]>,
}

impl Sandbox {
    /// `cache_folder` keeps compiled code between starts; it is made with mode 0700. `None` compiles each time.
    pub fn open(cache_folder: Option<PathBuf>, metrics: Metrics) -> Result<Sandbox, PluginError> {
        let start = || {
            let engine = Engine::new(&config())?;
            let mut linker = Linker::new(&engine);
            super::bindings::Plugin::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
            Ok((Clock::start(engine)?, linker))
        };
        let (clock, linker) = start().map_err(|error: wasmtime::Error| {
            PluginError::Load(format!("the sandbox does not start: {error:#}"))
        })?;
        let (cache, stores) = (Cache::open(cache_folder), Stores::in_memory(metrics.clone()));
        let usages = Usages::new(&metrics);
        Ok(Sandbox { clock, linker, cache, stores, usages, metrics, bundled: artifacts::bundled })
    }

    /// Reads what plugins keep with `store` from this folder, and writes it there from now on; it is made with mode
    /// 0700. Without it that lasts as long as the process. Before the first load; reads files.
    pub fn keep_state_in(mut self, folder: PathBuf) -> Sandbox {
        self.stores = Stores::open(folder, self.metrics.clone());
        self
    }

    /// The plugin of these settings, checked and configured once. Reads the file and compiles, which takes up to
    /// seconds: not for an executor's thread. The error is for the operator.
    pub fn load(&self, settings: &Settings) -> Result<Plugin, PluginError> {
        self.load_bytes(settings, &self.component_of(&settings.module)?)
    }

    /// The same with the component at hand; `settings.module` is not read.
    pub fn load_bytes(&self, settings: &Settings, bytes: &[u8]) -> Result<Plugin, PluginError> {
        self.load_with(settings, bytes, self.stores.of(&settings.name))
    }

    /// The same for a version that only shows what it would do: its metrics and its log are those of `NAME@shadow`, what
    /// it reads with `store` is the plugin's. Its effects are for the caller to throw away; `tick` is not called.
    pub fn load_shadow(&self, settings: &Settings, bytes: &[u8]) -> Result<Plugin, PluginError> {
        let shown = Settings { name: format!("{}@shadow", settings.name), ..settings.clone() };
        self.load_with(&shown, bytes, self.stores.of(&settings.name))
    }

    fn load_with(
        &self,
        settings: &Settings,
        bytes: &[u8],
        store: Arc<PluginStore>,
    ) -> Result<Plugin, PluginError> {
        let linked = self.link(bytes)?;
        let unknown = Shared::unknown(settings.clone(), store.clone(), &self.metrics);
        let manifest = Pool::describe(&self.clock, &linked, unknown)?;
        let shared = Shared::check(settings.clone(), manifest, linked.has_timer(), store, &self.metrics)?;
        let usage = self.usages.of(&settings.name);
        Plugin::open(self.clock.clone(), linked, Arc::new(shared), usage, &self.metrics)
    }

    /// The same for samples, apart from whatever runs under this name: what it keeps and counts is its own and gone with
    /// it, and it draws the same random numbers each time. Without a `grant` it has what it asks for.
    pub fn load_apart(&self, settings: &Settings, bytes: &[u8]) -> Result<Plugin, PluginError> {
        let linked = self.link(bytes)?;
        let metrics = Metrics::new();
        let store = Stores::in_memory(metrics.clone()).of(&settings.name);
        let unknown = Shared::unknown(settings.clone(), store.clone(), &metrics);
        let manifest = Pool::describe(&self.clock, &linked, unknown)?;
        let mut settings = settings.clone();
        let asked = || Grant { reads: manifest.reads.clone(), writes: manifest.writes.clone() };
        settings.grant.get_or_insert_with(asked);
        // All of a sample is one tenant's: what configured the instance is not part of its first call.
        settings.instance = Instance::Shared;
        let mut shared = Shared::check(settings, manifest, linked.has_timer(), store, &metrics)?;
        shared.seed = Some(SAMPLE_SEED);
        let usage = Usages::new(&metrics).of(&shared.settings.name);
        Plugin::open(self.clock.clone(), linked, Arc::new(shared), usage, &metrics)
    }

    /// The component that settings name: bundled, or in a file. The error is for the operator.
    pub fn component_of(&self, module: &Module) -> Result<Cow<'static, [u8]>, PluginError> {
        match module {
            Module::Builtin(name) => (self.bundled)(name)
                .map(Cow::Borrowed)
                .ok_or_else(|| load_error(format!("there is no bundled plugin `{name}`"))),
            Module::File(path) => read(path).map(Cow::Owned),
        }
    }

    /// Compiles and links, after a look at what it imports and exports.
    pub(super) fn link(&self, bytes: &[u8]) -> Result<Linked, PluginError> {
        check_kind(bytes)?;
        let component = self.cache.component(self.clock.engine(), bytes);
        let component = component.map_err(|error| load_error(format!("is no valid component: {error:#}")))?;
        let has_timer = versions::check_world(self.clock.engine(), &component).map_err(load_error)?;
        let extended = versions::with_missing(&self.linker, self.clock.engine(), &component, bytes);
        let extended = extended.map_err(load_error)?;
        let pre = extended.as_ref().unwrap_or(&self.linker).instantiate_pre(&component);
        let linked = pre.and_then(|pre| Linked::new(pre, has_timer));
        linked.map_err(|error| load_error(format!("does not fit trommel:plugin@0.1.0: {error:#}")))
    }

    pub(super) fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    pub(super) fn store_of(&self, plugin: &str) -> Arc<PluginStore> {
        self.stores.of(plugin)
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("cache", &self.cache).finish_non_exhaustive()
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // No call waits for another: without it a call costs four times as much.
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES_MAX)
        .cranelift_opt_level(OptLevel::Speed);
    config
}

fn load_error(text: String) -> PluginError {
    PluginError::Load(text)
}

fn read(path: &Path) -> Result<Vec<u8>, PluginError> {
    let fail = |error: std::io::Error| load_error(format!("{}: {error}", path.display()));
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut bytes = Vec::new();
    file.take(MODULE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
    match bytes.len() as u64 > MODULE_BYTES_MAX {
        true => Err(load_error(format!("{}: larger than {MODULE_BYTES_MAX} bytes", path.display()))),
        false => Ok(bytes),
    }
}

/// Tells what a file is that is no component, by its first eight bytes.
fn check_kind(bytes: &[u8]) -> Result<(), PluginError> {
    let text = match bytes.get(..8) {
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => return Ok(()),
        Some([0, b'a', b's', b'm', ..]) => {
            "is a WebAssembly module, not a component: make one of it with `wasm-tools component new`"
        }
        _ if bytes.trim_ascii_start().starts_with(b"(") => {
            "is WebAssembly text: make a component of it with `wasm-tools parse`"
        }
        _ => "is no WebAssembly component",
    };
    Err(load_error(text.into()))
}
