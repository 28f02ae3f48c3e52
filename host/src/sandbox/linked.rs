//! A component whose imports are linked, with its exports found: what instances are made of.

use super::bindings::{self, PluginIndices, ticking};
use super::host::State;
use wasmtime::Store;
use wasmtime::component::{Component, InstancePre};

#[derive(Clone)]
pub(super) struct Linked {
    pre: InstancePre<State>,
    plugin: PluginIndices,
    /// Only of a component that exports `timer`.
    timer: Option<ticking::TimerIndices>,
}

/// The exports of an instance.
pub(super) struct Exports {
    pub(super) plugin: bindings::Plugin,
    pub(super) timer: Option<ticking::Timer>,
}

impl Linked {
    pub(super) fn new(pre: InstancePre<State>, has_timer: bool) -> wasmtime::Result<Linked> {
        let plugin = PluginIndices::new(&pre)?;
        let timer = has_timer.then(|| ticking::TimerIndices::new(&pre)).transpose()?;
        Ok(Linked { pre, plugin, timer })
    }

    pub(super) fn component(&self) -> &Component {
        self.pre.component()
    }

    pub(super) fn has_timer(&self) -> bool {
        self.timer.is_some()
    }

    /// Runs its start functions.
    pub(super) fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Exports> {
        let instance = self.pre.instantiate(&mut *store)?;
        let plugin = self.plugin.load(&mut *store, &instance)?;
        let timer = self.timer.as_ref().map(|timer| timer.load(&mut *store, &instance)).transpose()?;
        Ok(Exports { plugin, timer })
    }
}
