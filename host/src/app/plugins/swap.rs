//! From one version of a plugin to the next, and back.
//!
//! compile aside → world, imports, rights → golden samples → shadow → canary → promote → watch. Whatever goes wrong, the
//! version before goes on, and the reason is kept and logged. Nothing of it is between a request and its answer: to
//! promote is to give the pipeline other slots.

use super::super::files::Watch;
use super::{
    Candidate, Digest, Entry, Failure, How, Outcome, Plugins, Previous, Stage, Turn, Version, file, golden,
};
use crate::batch::Signal;
use crate::pipeline::{Differences, Pipeline, TrialKind};
use crate::sandbox::Plugin;
use crate::telemetry::Metrics;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often new versions are held against old ones: a plugin that fails always is seen in three calls.
const JUDGE_EVERY: Duration = Duration::from_millis(100);

/// Changes versions, one at a time. Cloning shares it.
#[derive(Clone, Debug)]
pub(in crate::app) struct Swaps {
    plugins: Arc<Plugins>,
    pipeline: Pipeline,
    /// What is compiled aside, one at a time.
    one: Arc<tokio::sync::Mutex<()>>,
}

/// What became of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::app) enum Swapped {
    /// There is no such plugin.
    Unknown,
    /// What the file has is what runs.
    Unchanged,
    Promoted,
    /// It goes on without who asked.
    OnTrial,
    /// The version before goes on.
    Refused(String),
    /// There is nothing to go back to.
    NothingToEnd,
    /// The trial is over, or the version before is back.
    Ended,
}

/// What came of the look at a file.
#[derive(Debug)]
enum Looked {
    Same,
    /// The version on trial.
    OnTrial,
    /// It came to nothing before.
    Known(Failure),
    Refused(Failure),
    Ready {
        version: Version,
        shadow: Option<Plugin>,
    },
}

impl Swaps {
    pub(in crate::app) fn new(plugins: Arc<Plugins>, pipeline: Pipeline) -> Swaps {
        Swaps { plugins, pipeline, one: Arc::default() }
    }

    /// Takes what the files of plugins have when they change, until `stop`.
    /// Once all that the configuration names is loaded: what changed meanwhile is found then.
    pub(in crate::app) async fn follow(self, settled: impl Future<Output = ()>, stop: CancellationToken) {
        if stop.run_until_cancelled(settled).await.is_none() {
            return;
        }
        let mut files = Watch::open(self.files());
        loop {
            let changed = tokio::select! {
                () = stop.cancelled() => return,
                () = self.plugins.renamed.notified() => {
                    files.set(self.files());
                    continue;
                }
                changed = files.changed() => changed,
            };
            for name in self.named_by(&changed) {
                if stop.run_until_cancelled(self.swap(&name, How::File, false)).await.is_none() {
                    return;
                }
            }
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let table = self.plugins.table();
        table.iter().filter_map(|entry| file(&entry.settings)).map(PathBuf::from).collect()
    }

    fn named_by(&self, files: &[PathBuf]) -> Vec<String> {
        let table = self.plugins.table();
        let is_meant = |entry: &&Entry| {
            entry.swap.is_auto
                && file(&entry.settings).is_some_and(|file| files.iter().any(|changed| changed == file))
        };
        table.iter().filter(is_meant).map(|entry| entry.settings.name.clone()).collect()
    }

    /// As [`Swaps::swap`], because somebody asked. `is_forced`: also what was rolled back.
    pub(in crate::app) async fn command(&self, name: &str, is_forced: bool) -> Swapped {
        self.swap(name, How::Command, is_forced).await
    }

    /// Looks at the plugin's module, and brings what it has into use. Returns when that is decided, or a trial goes on.
    /// Cancelled, the version before goes on.
    pub(super) async fn swap(&self, name: &str, how: How, is_forced: bool) -> Swapped {
        let _one = self.one.lock().await;
        loop {
            let Some(entry) = self.plugins.entry(name) else { return Swapped::Unknown };
            let (plugins, looked_at) = (self.plugins.clone(), entry.clone());
            let look = move || plugins.look(&looked_at, how, is_forced);
            let _trying = self.plugins.trying(name);
            let looked = tokio::task::spawn_blocking(look).await.unwrap_or_else(|error| {
                let why = format!("it ended without a result: {error}");
                Looked::Refused(Failure::new(None, Stage::Loading, Outcome::Refused, why))
            });
            let turn = self.plugins.turn().await;
            let Some(now) = self.plugins.entry(name) else { return Swapped::Unknown };
            // What was compiled is for the settings and the version of then.
            if now.settings == entry.settings && active_since(&now) == active_since(&entry) {
                return self.settle(&turn, now, looked);
            }
        }
    }

    fn settle(&self, turn: &Turn<'_>, mut entry: Entry, looked: Looked) -> Swapped {
        let (version, shadow) = match looked {
            Looked::Same => {
                (entry.failure, entry.ended) = (None, None);
                if entry.candidate.take().is_some() {
                    tracing::info!(
                        plugin = entry.settings.name,
                        "the trial is over: the file has the active version again"
                    );
                    self.promote(turn, entry);
                } else {
                    self.plugins.put(entry);
                }
                return Swapped::Unchanged;
            }
            Looked::OnTrial => return Swapped::OnTrial,
            Looked::Known(known) => {
                let (how, stage, why) = (known.outcome.words(), known.stage.name(), &known.why);
                let why = format!("this version {how} ({stage}): {why}");
                entry.failure = Some(known);
                self.plugins.put(entry);
                return Swapped::Refused(why);
            }
            Looked::Refused(failure) => {
                let why = format!("{}: {}", failure.stage.name(), failure.why);
                let is_known = entry
                    .failure
                    .as_ref()
                    .is_some_and(|known| Failure { at: failure.at, ..known.clone() } == failure);
                if !is_known {
                    let (stage, why) = (failure.stage.name(), &failure.why);
                    tracing::error!(
                        plugin = entry.settings.name,
                        stage,
                        digest = failure.digest.map(tracing::field::display),
                        why,
                        "a new version is refused; the one before goes on"
                    );
                    entry.count(&self.plugins.metrics, "refused");
                }
                entry.failure = Some(failure);
                self.plugins.put(entry);
                return Swapped::Refused(why);
            }
            Looked::Ready { version, shadow } => (version, shadow),
        };
        let entry = entry.next(version, shadow, &self.plugins.metrics);
        entry.tell_next(&self.plugins.metrics);
        let is_on_trial = entry.candidate.is_some();
        self.promote(turn, entry);
        if is_on_trial { Swapped::OnTrial } else { Swapped::Promoted }
    }

    /// The trial of a plugin ends, or the version before the active one comes back.
    pub(in crate::app) async fn end(&self, name: &str) -> Swapped {
        let turn = self.plugins.turn().await;
        let Some(mut entry) = self.plugins.entry(name) else { return Swapped::Unknown };
        let why = "somebody asked for it";
        if let Some(candidate) = entry.candidate.take() {
            self.end_trial(&turn, entry, &candidate, Outcome::Ended, why.into());
        } else if let Some(previous) = entry.previous.take() {
            self.go_back(&turn, entry, previous, Outcome::Ended, why.into());
        } else {
            return Swapped::NothingToEnd;
        }
        Swapped::Ended
    }

    /// Holds new versions against old ones, until `stop`.
    pub(in crate::app) async fn judge(self, stop: CancellationToken) {
        let mut ticks = interval(JUDGE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let is_new = |entry: &&Entry| entry.candidate.is_some() || entry.previous.is_some();
            let new: Vec<String> =
                self.plugins.table().iter().filter(is_new).map(|entry| entry.settings.name.clone()).collect();
            for name in new {
                let turn = self.plugins.turn().await;
                if let Some(entry) = self.plugins.entry(&name) {
                    self.judge_one(&turn, entry, Instant::now());
                }
            }
        }
    }

    fn judge_one(&self, turn: &Turn<'_>, mut entry: Entry, now: Instant) {
        let Some(active) = entry.active.clone() else { return };
        let budget = entry.swap.budget;
        if let Some(previous) = entry.previous.take() {
            if let Some(why) = budget.exceeded(&active.score.read(), &previous.did) {
                self.go_back(turn, entry, previous, Outcome::RolledBack, why);
                return;
            }
            if now < previous.until {
                entry.previous = Some(previous);
            } else {
                tracing::info!(
                    plugin = entry.settings.name,
                    digest = %active.digest,
                    "the new version stays: it kept to its budget as long as it was watched"
                );
                self.plugins.put(entry.clone());
            }
        }
        let Some(candidate) = entry.candidate.take() else { return };
        let did = active.score.read().since(&candidate.before);
        if let Some(why) = budget.exceeded(&candidate.score.read(), &did) {
            self.end_trial(turn, entry, &candidate, Outcome::RolledBack, why);
        } else if now.saturating_duration_since(candidate.began) >= entry.lasts(&candidate) {
            self.next_stage(turn, entry, candidate, now);
        }
    }

    fn next_stage(&self, turn: &Turn<'_>, mut entry: Entry, candidate: Candidate, now: Instant) {
        let is_shadow = matches!(candidate.trial, TrialKind::Shadow(_));
        let kind = canary(&entry, &candidate.version.digest).filter(|_| is_shadow);
        entry = match kind {
            None => entry.activated(candidate.version),
            Some(trial) => {
                let before = entry.active.as_ref().map_or(candidate.before, |active| active.score.read());
                let (tried, score) = (candidate.version.plugin.clone(), Arc::default());
                let candidate = Candidate { tried, score, trial, began: now, before, ..candidate };
                Entry { candidate: Some(candidate), ..entry }
            }
        };
        entry.tell_next(&self.plugins.metrics);
        self.promote(turn, entry);
    }

    fn end_trial(
        &self,
        turn: &Turn<'_>,
        mut entry: Entry,
        candidate: &Candidate,
        outcome: Outcome,
        why: String,
    ) {
        let stage = candidate.stage();
        self.note_end(&mut entry, candidate.version.digest, stage, outcome, why);
        self.promote(turn, entry);
    }

    fn go_back(&self, turn: &Turn<'_>, mut entry: Entry, to: Previous, outcome: Outcome, why: String) {
        let left = entry.active.take().map(|version| version.digest);
        // A trial goes on beside the version that is back.
        if let Some(candidate) = &mut entry.candidate {
            candidate.before = to.version.score.read();
        }
        entry.active = Some(Version { since: SystemTime::now(), how: How::Rollback, ..to.version });
        if let Some(left) = left {
            self.note_end(&mut entry, left, Stage::Watching, outcome, why);
        }
        self.promote(turn, entry);
    }

    fn note_end(&self, entry: &mut Entry, digest: Digest, stage: Stage, outcome: Outcome, why: String) {
        let (plugin, stage_name) = (&entry.settings.name, stage.name());
        tracing::warn!(plugin, %digest, stage = stage_name, why, "a new version is rolled back; the one before goes on");
        entry.count(&self.plugins.metrics, "rolled_back");
        entry.failure = Some(Failure::new(Some(digest), stage, outcome, why));
        entry.ended = entry.failure.clone();
    }

    /// Takes the entry into the table, and the table into the pipelines.
    fn promote(&self, _turn: &Turn<'_>, entry: Entry) {
        self.plugins.put(entry);
        if let Err(error) = self.pipeline.promote(&self.plugins.slots()) {
            tracing::error!(error, "the pipelines cannot take the plugin");
        }
    }

    /// What is known of a plugin, as `/v1/plugins` shows it.
    pub(in crate::app) fn shown(&self, name: &str) -> Value {
        self.plugins.entry(name).map(|entry| entry.shown()).unwrap_or_default()
    }
}

impl Plugins {
    /// Reads, compiles and checks what the module is now. Blocks.
    fn look(&self, entry: &Entry, how: How, is_forced: bool) -> Looked {
        let settings = &entry.settings;
        let bytes = match self.sandbox.component_of(&settings.module) {
            Ok(bytes) => bytes,
            Err(error) => {
                return Looked::Refused(Failure::refused(None, Stage::Loading, error.to_string()));
            }
        };
        let digest = Digest::of(&bytes);
        // One that was rolled back to may have the settings of before.
        let is_active = |active: &Version| active.digest == digest && active.plugin.settings() == settings;
        if entry.active.as_ref().is_some_and(is_active) {
            return Looked::Same;
        }
        if entry.candidate.as_ref().is_some_and(|candidate| candidate.version.digest == digest) {
            return Looked::OnTrial;
        }
        let known = entry.failure.iter().chain(&entry.ended).find(|known| known.digest == Some(digest));
        if let Some(known) = known {
            let is_tried_again = match how {
                How::Command => is_forced || known.outcome == Outcome::Refused,
                _ => false,
            };
            if !is_tried_again {
                return Looked::Known(known.clone());
            }
        }
        match self.aside(entry, &bytes, how) {
            Ok((version, _)) if !entry.watches_the_same(&version) => {
                let why = "a guard of other signals than the pipelines were checked for; a restart checks them again";
                Looked::Refused(Failure::refused(Some(digest), Stage::Loading, why))
            }
            Ok((version, shadow)) => Looked::Ready { version, shadow },
            Err(failure) => Looked::Refused(failure),
        }
    }

    /// Compiles a component with the entry's settings, and holds it against its golden samples; and once more for its
    /// shadow, if it has one. Blocks.
    pub(super) fn aside(
        &self,
        entry: &Entry,
        bytes: &[u8],
        how: How,
    ) -> Result<(Version, Option<Plugin>), Failure> {
        let (settings, digest) = (&entry.settings, Digest::of(bytes));
        let refused = |stage, why| Failure::refused(Some(digest), stage, why);
        let version = self
            .compiled(settings, bytes, digest, how)
            .map_err(|error| refused(Stage::Loading, error.to_string()))?;
        golden::check(&self.sandbox, settings, bytes).map_err(|why| refused(Stage::Golden, why))?;
        let has_shadow = !entry.swap.shadow.is_zero() && entry.active.is_some();
        let shadow = has_shadow.then(|| self.sandbox.load_shadow(settings, bytes)).transpose();
        let shadow = shadow.map_err(|error| refused(Stage::Shadow, error.to_string()))?;
        Ok((version, shadow))
    }
}

impl Entry {
    /// With this version: on trial beside the active one, or active at once.
    pub(super) fn next(self, version: Version, shadow: Option<Plugin>, metrics: &Metrics) -> Entry {
        let Some(active) = &self.active else { return self.activated(version) };
        let before = active.score.read();
        let trial = match shadow {
            Some(plugin) => {
                let differences = Differences::new(&self.settings.name, metrics);
                Some((TrialKind::Shadow(Arc::new(differences)), plugin))
            }
            None => canary(&self, &version.digest).map(|kind| (kind, version.plugin.clone())),
        };
        let Some((trial, tried)) = trial else { return self.activated(version) };
        let (score, began) = (Arc::default(), Instant::now());
        let candidate = Some(Candidate { version, tried, score, trial, began, before });
        Entry { candidate, is_tried: true, failure: None, ..self }
    }

    /// Requests take this version; the one before is kept as long as this one is watched.
    fn activated(mut self, version: Version) -> Entry {
        let version = Version { since: SystemTime::now(), ..version };
        let replaced = self.active.take();
        // One that is still watched has proved nothing: the one before it stays the way back.
        let proved = self.previous.take();
        let watch = self.swap.watch;
        if !watch.is_zero() {
            let until = Instant::now() + watch;
            let replaced = replaced.map(|version| (version.score.read(), version));
            let proved = proved.map(|previous| (previous.did, previous.version)).or(replaced);
            self.previous = proved.map(|(did, version)| Previous { version, until, did });
        }
        Entry { active: Some(version), candidate: None, failure: None, ended: None, is_tried: true, ..self }
    }

    /// Whether the pipelines were checked for this one too, if it is a guard: they were for the signals of the one that is
    /// active, and for all while none is.
    pub(super) fn watches_the_same(&self, next: &Version) -> bool {
        let mut signals = next.plugin.manifest().signals.clone();
        let checked =
            self.active.as_ref().map_or(&Signal::ALL[..], |active| &active.plugin.manifest().signals);
        let was_guard = self.active.as_ref().is_none_or(|active| active.plugin.settings().is_guard);
        signals.sort();
        let mut checked = checked.to_vec();
        checked.sort();
        !self.settings.is_guard || was_guard && signals == checked
    }

    /// Logs and counts what [`Entry::next`] came to.
    pub(super) fn tell_next(&self, metrics: &Metrics) {
        let plugin = &self.settings.name;
        if let Some(candidate) = &self.candidate {
            let (stage, digest) = (candidate.stage().name(), &candidate.version.digest);
            tracing::info!(plugin, stage, %digest, "a new version is on trial");
        } else if let Some(active) = &self.active {
            let version = &active.plugin.manifest().version;
            tracing::info!(
                plugin,
                version,
                digest = %active.digest,
                by = active.how.name(),
                "a new version is active"
            );
            self.count(metrics, "promoted");
        }
    }

    fn count(&self, metrics: &Metrics, result: &str) {
        let labels = vec![("plugin", self.settings.name.clone()), ("result", result.to_owned())];
        metrics.process_swaps.get_or_create(&labels).inc();
    }

    fn lasts(&self, candidate: &Candidate) -> Duration {
        match candidate.trial {
            TrialKind::Shadow(_) => self.swap.shadow,
            TrialKind::Canary { .. } => self.swap.canary.map(|canary| canary.lasts).unwrap_or_default(),
        }
    }
}

fn active_since(entry: &Entry) -> Option<(Digest, SystemTime)> {
    entry.active.as_ref().map(|version| (version.digest, version.since))
}

/// The streams that a canary has, if the plugin's versions have one.
fn canary(entry: &Entry, digest: &Digest) -> Option<TrialKind> {
    let canary = entry.swap.canary?;
    // Other streams with each version, so that not always the same ones are first.
    Some(TrialKind::Canary { parts: (canary.share * 10_000.0).round() as u32, seed: digest.seed() })
}
