//! The plugins of the configuration: which versions are there, and what is known of those that are not.
//!
//! Whoever changes any of them has the *turn* ([`Plugins::turn`]), from the first look to the promotion: a swap, a rollback
//! and a reload of the configuration never meet. What runs is a table of entries, replaced as a whole; the pipeline is
//! given the slots made of it ([`Plugins::slots`]).

mod golden;
mod reload;
mod shown;
mod swap;
#[cfg(test)]
mod tests;

pub(in crate::app) use swap::{Swapped, Swaps};

use super::faults;
use crate::batch::Signal;
use crate::pipeline::{Counts, Differences, Score, Slot, SwapSettings, Trial, TrialKind, Versions};
use crate::sandbox::{self, Module, Plugin, PluginError, Sandbox};
use crate::telemetry::Metrics;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The plugins of the configuration, loaded or not yet.
#[derive(Debug)]
pub(in crate::app) struct Plugins {
    sandbox: Arc<Sandbox>,
    metrics: Metrics,
    /// In the order of the configuration.
    table: Mutex<Vec<Entry>>,
    turn: tokio::sync::Mutex<()>,
    /// The plugin whose new version is compiled and checked now.
    tried: Mutex<Option<String>>,
    /// Told when the table names other files.
    renamed: Notify,
}

/// Who has it may change plugins.
pub(in crate::app) type Turn<'p> = tokio::sync::MutexGuard<'p, ()>;

struct Trying<'p>(&'p Plugins);

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        *self.0.tried() = None;
    }
}

/// A plugin of the configuration.
#[derive(Clone, Debug)]
struct Entry {
    settings: sandbox::Settings,
    swap: SwapSettings,
    /// Whether it was tried at all.
    is_tried: bool,
    active: Option<Version>,
    candidate: Option<Candidate>,
    previous: Option<Previous>,
    /// Why the last change of its version, or its load, came to nothing.
    failure: Option<Failure>,
    /// The version that was rolled back, or ended by somebody, last: its file may go and come, it is not tried again.
    ended: Option<Failure>,
}

/// A version that is called.
#[derive(Clone, Debug)]
struct Version {
    plugin: Plugin,
    digest: Digest,
    since: SystemTime,
    how: How,
    score: Arc<Score>,
}

/// A version on trial, with the one that is active.
#[derive(Clone, Debug)]
struct Candidate {
    version: Version,
    /// What is called of it: in a shadow an instance of its own, whose counts are no part of the plugin's.
    tried: Plugin,
    /// What it did in this stage.
    score: Arc<Score>,
    trial: TrialKind,
    began: Instant,
    /// What the active one had done when the trial began.
    before: Counts,
}

/// The version before the active one, kept while that is on watch.
#[derive(Clone, Debug)]
struct Previous {
    version: Version,
    until: Instant,
    /// What it did.
    did: Counts,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    /// `None`: there were no bytes.
    digest: Option<Digest>,
    stage: Stage,
    outcome: Outcome,
    why: String,
    at: SystemTime,
}

/// How a version came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It was never called for what counts.
    Refused,
    /// It was worse than its budget.
    RolledBack,
    /// Somebody ended it.
    Ended,
}

/// SHA-256 of a component's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Digest([u8; 32]);

/// How a version became active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Start,
    /// Its file changed.
    File,
    Config,
    Command,
    /// The next one was worse.
    Rollback,
}

/// Where a version is on its way, or where the way ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Loading,
    Golden,
    Shadow,
    Canary,
    Watching,
    Active,
}

impl Plugins {
    pub(in crate::app) fn new(
        sandbox: Arc<Sandbox>,
        metrics: Metrics,
        settings: Vec<sandbox::Settings>,
        swaps: &BTreeMap<String, SwapSettings>,
    ) -> Plugins {
        let table = settings.into_iter().map(|settings| Entry::new(settings, swaps)).collect();
        Plugins {
            sandbox,
            metrics,
            table: Mutex::new(table),
            turn: tokio::sync::Mutex::new(()),
            tried: Mutex::default(),
            renamed: Notify::new(),
        }
    }

    /// Waits until nobody changes plugins. What is compiled in the meantime may take seconds.
    pub(in crate::app) async fn turn(&self) -> Turn<'_> {
        self.turn.lock().await
    }

    fn table(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.table.lock().expect("nothing panics while it is locked")
    }

    fn tried(&self) -> MutexGuard<'_, Option<String>> {
        self.tried.lock().expect("nothing panics while it is locked")
    }

    /// As long as this lives, the plugin is shown as one whose new version is looked at.
    fn trying(&self, name: &str) -> Trying<'_> {
        *self.tried() = Some(name.to_owned());
        Trying(self)
    }

    fn names(&self) -> Vec<String> {
        self.table().iter().map(|entry| entry.settings.name.clone()).collect()
    }

    /// The entry of this name, as it is now.
    fn entry(&self, name: &str) -> Option<Entry> {
        self.table().iter().find(|entry| entry.settings.name == name).cloned()
    }

    /// Puts an entry in the place of the one of its name.
    fn put(&self, entry: Entry) {
        if let Some(known) = self.table().iter_mut().find(|known| known.settings.name == entry.settings.name)
        {
            *known = entry;
        }
    }

    /// What the plugins that are loaded describe, by name.
    pub(in crate::app) fn described(&self) -> BTreeMap<String, Vec<Signal>> {
        described(&self.table())
    }

    /// Loads the guards that must be asked which signals they describe, before anything may be stored.
    pub(in crate::app) async fn load_guards(self: &Arc<Plugins>) {
        let _turn = self.turn().await;
        let is_asked =
            |entry: &&Entry| entry.settings.is_guard && faults::known_signals(&entry.settings).is_none();
        let names: Vec<String> =
            self.table().iter().filter(is_asked).map(|entry| entry.settings.name.clone()).collect();
        for name in names {
            self.load(name).await;
        }
    }

    /// Loads all that was not tried yet, one after the other; `promote` is given the slots after each.
    pub(in crate::app) async fn load_all(self: &Arc<Plugins>, promote: impl Fn(&[Slot])) {
        for name in self.names() {
            let _turn = self.turn().await;
            self.load(name).await;
            promote(&self.slots());
        }
    }

    /// Compiles, or takes what was compiled before. What was tried is not tried again.
    async fn load(self: &Arc<Plugins>, name: String) {
        let Some(entry) = self.entry(&name).filter(|entry| !entry.is_tried) else { return };
        let plugins = self.clone();
        let loading = tokio::task::spawn_blocking(move || plugins.loaded(entry, How::Start));
        match loading.await {
            Ok(entry) => self.put(entry),
            Err(_) => tracing::error!(plugin = name, "loading the plugin panicked"),
        }
    }

    /// The entry with what its module is now, or why it cannot be used. Blocks.
    fn loaded(&self, mut entry: Entry, how: How) -> Entry {
        let settings = &entry.settings;
        entry.is_tried = true;
        match self.version(settings, how) {
            Ok(version) => {
                let shown = &version.plugin.manifest().version;
                tracing::info!(plugin = settings.name, version = shown, digest = %version.digest, "plugin loaded");
                entry.active = Some(version);
                entry.failure = None;
            }
            Err((digest, error)) => {
                tracing::error!(plugin = settings.name, %error, "plugin cannot be loaded");
                entry.failure =
                    Some(Failure::new(digest, Stage::Loading, Outcome::Refused, error.to_string()));
            }
        }
        entry
    }

    /// Loads aside what these settings name. Blocks.
    fn version(
        &self,
        settings: &sandbox::Settings,
        how: How,
    ) -> Result<Version, (Option<Digest>, PluginError)> {
        let bytes = self.sandbox.component_of(&settings.module).map_err(|error| (None, error))?;
        let digest = Digest::of(&bytes);
        self.compiled(settings, &bytes, digest, how).map_err(|error| (Some(digest), error))
    }

    fn compiled(
        &self,
        settings: &sandbox::Settings,
        bytes: &[u8],
        digest: Digest,
        how: How,
    ) -> Result<Version, PluginError> {
        let plugin = self.sandbox.load_bytes(settings, bytes)?;
        Ok(Version { plugin, digest, since: SystemTime::now(), how, score: Arc::default() })
    }

    /// What the pipelines call.
    pub(in crate::app) fn slots(&self) -> Vec<Slot> {
        slots(&self.table())
    }
}

fn described(table: &[Entry]) -> BTreeMap<String, Vec<Signal>> {
    let described = |entry: &Entry| {
        let signals = entry.active.as_ref()?.plugin.manifest().signals.clone();
        Some((entry.settings.name.clone(), signals))
    };
    table.iter().filter_map(described).collect()
}

fn slots(table: &[Entry]) -> Vec<Slot> {
    let slot = |entry: &Entry| Slot {
        name: entry.settings.name.clone(),
        is_guard: entry.settings.is_guard,
        on_failure: entry.settings.on_failure,
        plugin: entry.active.as_ref().map(|version| version.plugin.clone()),
        versions: Versions {
            score: entry.active.as_ref().map(|version| version.score.clone()).unwrap_or_default(),
            trial: entry.candidate.as_ref().map(Candidate::trial),
        },
    };
    table.iter().map(slot).collect()
}

impl Entry {
    fn new(settings: sandbox::Settings, swaps: &BTreeMap<String, SwapSettings>) -> Entry {
        let swap = swaps.get(&settings.name).copied().unwrap_or_default();
        Entry {
            settings,
            swap,
            is_tried: false,
            active: None,
            candidate: None,
            previous: None,
            failure: None,
            ended: None,
        }
    }
}

impl Candidate {
    fn trial(&self) -> Trial {
        Trial { plugin: self.tried.clone(), score: self.score.clone(), kind: self.trial.clone() }
    }

    fn stage(&self) -> Stage {
        match self.trial {
            TrialKind::Shadow(_) => Stage::Shadow,
            TrialKind::Canary { .. } => Stage::Canary,
        }
    }

    fn differences(&self) -> Option<&Differences> {
        match &self.trial {
            TrialKind::Shadow(differences) => Some(differences),
            TrialKind::Canary { .. } => None,
        }
    }
}

impl Failure {
    fn new(digest: Option<Digest>, stage: Stage, outcome: Outcome, why: impl Into<String>) -> Failure {
        Failure { digest, stage, outcome, why: why.into(), at: SystemTime::now() }
    }

    fn refused(digest: Option<Digest>, stage: Stage, why: impl Into<String>) -> Failure {
        Failure::new(digest, stage, Outcome::Refused, why)
    }
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Outcome::Refused => "refused",
            Outcome::RolledBack => "rolled_back",
            Outcome::Ended => "ended",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Outcome::Refused => "was refused",
            Outcome::RolledBack => "was rolled back",
            Outcome::Ended => "was ended",
        }
    }
}

impl Digest {
    fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// Eight bytes of it, as good as a random number.
    fn seed(&self) -> u64 {
        self.0.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl How {
    fn name(self) -> &'static str {
        match self {
            How::Start => "start",
            How::File => "file",
            How::Config => "config",
            How::Command => "command",
            How::Rollback => "rollback",
        }
    }
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Loading => "loading",
            Stage::Golden => "golden",
            Stage::Shadow => "shadow",
            Stage::Canary => "canary",
            Stage::Watching => "watching",
            Stage::Active => "active",
        }
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The file of a plugin that has one.
fn file(settings: &sandbox::Settings) -> Option<&std::path::Path> {
    match &settings.module {
        Module::File(path) => Some(path),
        Module::Builtin(_) => None,
    }
}
