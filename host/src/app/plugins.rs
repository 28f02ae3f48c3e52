//! The plugins of the configuration: which are loaded, and what is known of the others.

use super::faults;
use crate::batch::Signal;
use crate::pipeline::Slot;
use crate::sandbox::{self, Plugin, Sandbox};
use std::sync::{Arc, Mutex, MutexGuard};

/// The plugins of the configuration, loaded or not yet.
#[derive(Debug)]
pub(super) struct Plugins {
    pub(super) settings: Vec<sandbox::Settings>,
    states: Mutex<Vec<State>>,
}

#[derive(Clone, Debug)]
pub(super) enum State {
    Loading,
    Loaded(Plugin),
    Failed(String),
}

impl State {
    /// What the plugin of this name describes, if this is it and it is loaded.
    pub(super) fn signals(&self, name: &str) -> Option<&[Signal]> {
        match self {
            State::Loaded(plugin) if plugin.name() == name => Some(&plugin.manifest().signals),
            _ => None,
        }
    }
}

impl Plugins {
    pub(super) fn new(settings: Vec<sandbox::Settings>) -> Plugins {
        let states = Mutex::new(vec![State::Loading; settings.len()]);
        Plugins { settings, states }
    }

    pub(super) fn states(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().expect("nothing panics while it is locked")
    }

    /// Loads the guards that must be asked which signals they describe, before anything may be stored.
    pub(super) async fn load_guards(self: &Arc<Plugins>, sandbox: &Arc<Sandbox>) {
        for (number, settings) in self.settings.iter().enumerate() {
            if settings.is_guard && faults::known_signals(settings).is_none() {
                let (plugins, sandbox) = (self.clone(), sandbox.clone());
                let _ = tokio::task::spawn_blocking(move || plugins.load(number, &sandbox)).await;
            }
        }
    }

    /// Compiles, or takes what was compiled before: blocks. What was tried is not tried again.
    pub(super) fn load(&self, number: usize, sandbox: &Sandbox) {
        if !matches!(self.states()[number], State::Loading) {
            return;
        }
        let settings = &self.settings[number];
        let state = match sandbox.load(settings) {
            Ok(plugin) => {
                tracing::info!(plugin = settings.name, version = plugin.manifest().version, "plugin loaded");
                State::Loaded(plugin)
            }
            Err(error) => {
                tracing::error!(plugin = settings.name, %error, "plugin cannot be loaded");
                State::Failed(error.to_string())
            }
        };
        self.states()[number] = state;
    }

    pub(super) fn slots(&self) -> Vec<Slot> {
        let slot = |(settings, state): (&sandbox::Settings, &State)| Slot {
            name: settings.name.clone(),
            is_guard: settings.is_guard,
            on_failure: settings.on_failure,
            plugin: match state {
                State::Loaded(plugin) => Some(plugin.clone()),
                State::Loading | State::Failed(_) => None,
            },
        };
        self.settings.iter().zip(self.states().iter()).map(slot).collect()
    }

    /// For `/v1/plugins`.
    pub(super) fn shown(&self) -> serde_json::Value {
        let show = |(settings, state): (&sandbox::Settings, &State)| {
            let open_circuits = match state {
                State::Loaded(plugin) => plugin.open_circuits(),
                State::Loading | State::Failed(_) => 0,
            };
            let (state, version, error) = match state {
                State::Loading => ("loading", None, None),
                State::Loaded(plugin) => ("loaded", Some(plugin.manifest().version.clone()), None),
                State::Failed(error) => ("failed", None, Some(error.clone())),
            };
            serde_json::json!({
                "name": settings.name,
                "guard": settings.is_guard,
                "state": state,
                "version": version,
                "error": error,
                "open_circuits": open_circuits,
            })
        };
        self.settings.iter().zip(self.states().iter()).map(show).collect()
    }
}
