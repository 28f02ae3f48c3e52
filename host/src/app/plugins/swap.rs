//! From one version of a plugin to the next, and back.
//!
//! compile aside → world, imports, rights → golden samples → shadow → canary → promote → watch. Whatever goes wrong, the
//! version before goes on, and the reason is kept and logged. Nothing of it is between a request and its answer: to
//! promote is to give the pipeline other slots.

use super::super::files::Watch;
use super::{
    Candidate, Digest, Entry, Failure, How, Outcome, Plugins, Previous, Stage, Turn, Version, file, golden,
};
use crate::pipeline::{Differences, Pipeline, Score, TrialKind};
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
    metrics: Metrics,
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
    /// It came to nothing before, and why.
    Known(String),
    Refused(Failure),
    Ready {
        version: Version,
        shadow: Option<Plugin>,
    },
}

impl Swaps {
    pub(in crate::app) fn new(plugins: Arc<Plugins>, pipeline: Pipeline, metrics: Metrics) -> Swaps {
        Swaps { plugins, pipeline, metrics, one: Arc::default() }
    }

    /// Takes what the files of plugins have when they change, until `stop`.
    pub(in crate::app) async fn follow(self, stop: CancellationToken) {
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
                && entry.is_tried
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
            // What was compiled is for the settings of then.
            if now.settings == entry.settings && digest_of(&now) == digest_of(&entry) {
                return self.settle(&turn, now, looked);
            }
        }
    }

    fn settle(&self, turn: &Turn<'_>, mut entry: Entry, looked: Looked) -> Swapped {
        let (version, shadow) = match looked {
            Looked::Same => {
                entry.failure = None;
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
            Looked::Known(why) => return Swapped::Refused(why),
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
                        why,
                        "a new version is refused; the one before goes on"
                    );
                    self.count(&entry, "refused");
                }
                entry.failure = Some(failure);
                self.plugins.put(entry);
                return Swapped::Refused(why);
            }
            Looked::Ready { version, shadow } => (version, shadow),
        };
        let Some(active) = &entry.active else {
            self.activate(turn, entry, version);
            return Swapped::Promoted;
        };
        let before = active.score.read();
        let trial = match shadow {
            Some(plugin) => {
                let name = &entry.settings.name;
                Some((TrialKind::Shadow(Arc::new(Differences::new(name, &self.metrics))), plugin))
            }
            None => canary(&entry, &version.digest).map(|kind| (kind, version.plugin.clone())),
        };
        let Some((trial, tried)) = trial else {
            self.activate(turn, entry, version);
            return Swapped::Promoted;
        };
        let score = Arc::default();
        entry.candidate = Some(Candidate { version, tried, score, trial, began: Instant::now(), before });
        self.log_stage(&entry);
        self.promote(turn, entry);
        Swapped::OnTrial
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
        let Some(trial) = kind else {
            self.activate(turn, entry, candidate.version);
            return;
        };
        let before = entry.active.as_ref().map(|active| active.score.read()).unwrap_or(candidate.before);
        let tried = candidate.version.plugin.clone();
        let score: Arc<Score> = Arc::default();
        entry.candidate = Some(Candidate { tried, score, trial, began: now, before, ..candidate });
        self.log_stage(&entry);
        self.promote(turn, entry);
    }

    /// From now on requests take this version.
    fn activate(&self, turn: &Turn<'_>, mut entry: Entry, version: Version) {
        let version = Version { since: SystemTime::now(), ..version };
        let replaced = entry.active.take();
        entry.candidate = None;
        entry.failure = None;
        entry.is_tried = true;
        // One that is still watched has proved nothing: the one before it stays the way back.
        let proved = entry.previous.take();
        let watch = entry.swap.watch;
        if !watch.is_zero() {
            let until = Instant::now() + watch;
            let replaced = replaced.map(|version| (version.score.read(), version));
            let proved = proved.map(|previous| (previous.did, previous.version)).or(replaced);
            entry.previous = proved.map(|(did, version)| Previous { version, until, did });
        }
        tracing::info!(
            plugin = entry.settings.name,
            version = version.plugin.manifest().version,
            digest = %version.digest,
            by = version.how.name(),
            "a new version is active"
        );
        entry.active = Some(version);
        self.count(&entry, "promoted");
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
        self.count(entry, "rolled_back");
        entry.failure = Some(Failure::new(Some(digest), stage, outcome, why));
    }

    fn log_stage(&self, entry: &Entry) {
        if let Some(candidate) = &entry.candidate {
            let (plugin, stage) = (&entry.settings.name, candidate.stage().name());
            tracing::info!(plugin, stage, digest = %candidate.version.digest, "a new version is on trial");
        }
    }

    fn count(&self, entry: &Entry, result: &str) {
        let labels = vec![("plugin", entry.settings.name.clone()), ("result", result.to_owned())];
        self.metrics.process_swaps.get_or_create(&labels).inc();
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
        let refuse =
            |digest, stage, why: String| Looked::Refused(Failure::new(digest, stage, Outcome::Refused, why));
        let bytes = match self.sandbox.component_of(&settings.module) {
            Ok(bytes) => bytes,
            Err(error) => return refuse(None, Stage::Loading, error.to_string()),
        };
        let digest = Digest::of(&bytes);
        if entry.active.as_ref().is_some_and(|active| active.digest == digest) {
            return Looked::Same;
        }
        if entry.candidate.as_ref().is_some_and(|candidate| candidate.version.digest == digest) {
            return Looked::OnTrial;
        }
        if let Some(known) = entry.failure.as_ref().filter(|known| known.digest == Some(digest)) {
            let is_tried_again = match how {
                How::Command => is_forced || known.outcome == Outcome::Refused,
                _ => false,
            };
            if !is_tried_again {
                let (how, stage, why) = (known.outcome.words(), known.stage.name(), &known.why);
                return Looked::Known(format!("this version {how} ({stage}): {why}"));
            }
        }
        let version = match self.compiled(settings, &bytes, digest, how) {
            Ok(version) => version,
            Err(error) => return refuse(Some(digest), Stage::Loading, error.to_string()),
        };
        // The configuration was checked for what the guard described.
        if let Some(active) = entry.active.as_ref().filter(|_| settings.is_guard)
            && active.plugin.manifest().signals != version.plugin.manifest().signals
        {
            let why = "a guard of other signals than before: the pipelines were checked for those; a restart checks \
                       them again";
            return refuse(Some(digest), Stage::Loading, why.into());
        }
        if let Err(why) = golden::check(&self.sandbox, settings, &bytes) {
            return refuse(Some(digest), Stage::Golden, why);
        }
        let has_shadow = !entry.swap.shadow.is_zero() && entry.active.is_some();
        let shadow = has_shadow.then(|| self.sandbox.load_shadow(settings, &bytes)).transpose();
        match shadow {
            Ok(shadow) => Looked::Ready { version, shadow },
            Err(error) => refuse(Some(digest), Stage::Shadow, error.to_string()),
        }
    }
}

impl Entry {
    fn lasts(&self, candidate: &Candidate) -> Duration {
        match candidate.trial {
            TrialKind::Shadow(_) => self.swap.shadow,
            TrialKind::Canary { .. } => self.swap.canary.map(|canary| canary.lasts).unwrap_or_default(),
        }
    }
}

fn digest_of(entry: &Entry) -> Option<Digest> {
    entry.active.as_ref().map(|version| version.digest)
}

/// The streams that a canary has, if the plugin's versions have one.
fn canary(entry: &Entry, digest: &Digest) -> Option<TrialKind> {
    let canary = entry.swap.canary?;
    // Other streams with each version, so that not always the same ones are first.
    Some(TrialKind::Canary { parts: (canary.share * 10_000.0).round() as u32, seed: digest.seed() })
}
