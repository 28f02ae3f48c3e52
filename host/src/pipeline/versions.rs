//! Versions of one plugin: what each did, and two of them side by side while a new one is on trial.
//!
//! What a version did is counted where it is called, so that the new one can be held against the old. In a shadow the
//! new one sees what the old one sees, and nothing of what it does counts; in a canary it has some of the streams, each
//! for itself: a record never meets two versions.

use crate::batch::{Items, Piece, Request, Stream, wire};
use crate::sandbox::{NotRun, Plugin, Ran, Uncallable, thread_cpu};
use crate::telemetry::{Labels, Metrics};
use prometheus_client::metrics::{counter::Counter, family::Family};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How a new version of a plugin comes into use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SwapSettings {
    /// Whether it is tried as soon as the file has it. Else `trommel plugin swap` asks for it. Default: it is.
    pub is_auto: bool,
    /// How long it only shows what it would do. Default zero, none: it costs the plugin's time twice, and golden samples
    /// tell the same before.
    pub shadow: Duration,
    /// Default none: few have so many streams that a part of them tells anything.
    pub canary: Option<CanarySettings>,
    /// How long it is held against the one before it, which is kept as long. Default a minute: a few thousand calls of a
    /// busy stream, and short enough to look on.
    pub watch: Duration,
    pub budget: Budget,
}

/// Streams that have the new version before the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CanarySettings {
    /// Which part of the streams, above 0 and below 1.
    pub share: f64,
    pub lasts: Duration,
}

/// How much worse than the old version the new one may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Calls that fail, as a part of all, more than before. Default 0.01: a plugin that fails at all is broken, and one bad
    /// request in a hundred is not its fault.
    pub failures: f64,
    /// CPU time of a record, in the middle, as a multiple of what it was. Default 2: below it, machines differ as much.
    pub latency: f64,
    /// Records that it drops, as a part of all, more than before. Default 0.25: rules that drop more are written on
    /// purpose, a rule that drops nearly everything is not.
    pub drops: f64,
}

impl Default for SwapSettings {
    fn default() -> SwapSettings {
        SwapSettings {
            is_auto: true,
            shadow: Duration::ZERO,
            canary: None,
            watch: Duration::from_secs(60),
            budget: Budget { failures: 0.01, latency: 2.0, drops: 0.25 },
        }
    }
}

/// The versions of a plugin beside the one that a [`super::Slot`] calls.
#[derive(Clone, Debug, Default)]
pub struct Versions {
    /// Of the one that it calls.
    pub score: Arc<Score>,
    pub trial: Option<Trial>,
}

/// A new version that is not active yet.
#[derive(Clone, Debug)]
pub struct Trial {
    pub plugin: Plugin,
    pub score: Arc<Score>,
    pub kind: TrialKind,
}

#[derive(Clone, Debug)]
pub enum TrialKind {
    /// It sees all, and changes nothing.
    Shadow(Arc<Differences>),
    /// It has so many of ten thousand streams; with another seed others.
    Canary { parts: u32, seed: u64 },
}

/// One run in so many has its CPU time taken: it costs two system calls.
const RUNS_PER_TIMED: u64 = 8;
/// Costs of a record in nanoseconds, two steps for each doubling: up to two seconds.
const COST_STEPS: usize = 64;
/// A version is not judged by fewer failures: any of them may have met a poisonous record.
const FAILURES_MIN: u64 = 3;
/// Nor by the time of fewer timed runs, the first of which make their instances.
const TIMED_MIN: u64 = 32;
/// Nor by what it drops of fewer records.
const RECORDS_MIN: u64 = 1_000;
/// Nor if a record takes so little: a whole piece is done in half a millisecond then.
const COST_NS_MIN: u64 = 1_000;

/// What one version did.
#[derive(Debug)]
pub struct Score {
    runs: AtomicU64,
    failed_runs: AtomicU64,
    records: AtomicU64,
    dropped: AtomicU64,
    costs: [AtomicU64; COST_STEPS],
}

impl Default for Score {
    fn default() -> Score {
        Score {
            runs: AtomicU64::new(0),
            failed_runs: AtomicU64::new(0),
            records: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            costs: [const { AtomicU64::new(0) }; COST_STEPS],
        }
    }
}

/// The numbers of a [`Score`] at one time, or between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Pieces.
    pub runs: u64,
    /// Pieces with records that it failed on.
    pub failed_runs: u64,
    pub records: u64,
    pub dropped: u64,
    costs: [u64; COST_STEPS],
}

impl Score {
    pub fn read(&self) -> Counts {
        let number = |of: &AtomicU64| of.load(Ordering::Relaxed);
        Counts {
            runs: number(&self.runs),
            failed_runs: number(&self.failed_runs),
            records: number(&self.records),
            dropped: number(&self.dropped),
            costs: std::array::from_fn(|step| number(&self.costs[step])),
        }
    }

    /// Runs the plugin if it may be called, and counts. That it may not, since it failed too often, counts as failed; since it
    /// used up its CPU time, not at all.
    pub(super) fn try_run(
        &self,
        plugin: &Plugin,
        piece: Piece,
        now_ns: u64,
        is_begun: bool,
    ) -> Result<Ran, NotRun> {
        if !plugin.manifest().signals.contains(&piece.signal()) {
            return plugin.try_run(piece, now_ns, is_begun);
        }
        let records = u64::from(piece.records());
        let start = self.runs.load(Ordering::Relaxed).is_multiple_of(RUNS_PER_TIMED).then(thread_cpu);
        let ran = plugin.try_run(piece, now_ns, is_begun);
        if ran.as_ref().is_err_and(|not_run| not_run.why == Uncallable::OverCpu) {
            return ran;
        }
        self.runs.fetch_add(1, Ordering::Relaxed);
        let ran = ran.inspect_err(|_| _ = self.failed_runs.fetch_add(1, Ordering::Relaxed))?;
        if let Some(start) = start {
            self.note_cost(thread_cpu().saturating_sub(start), records);
        }
        self.records.fetch_add(records, Ordering::Relaxed);
        self.dropped.fetch_add(ran.filtered.into(), Ordering::Relaxed);
        self.failed_runs.fetch_add(u64::from(!ran.failed.is_empty()), Ordering::Relaxed);
        Ok(ran)
    }

    fn note_cost(&self, took: Duration, records: u64) {
        let each = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) / records.max(1);
        self.costs[step_of(each)].fetch_add(1, Ordering::Relaxed);
    }
}

fn step_of(cost_ns: u64) -> usize {
    let step = (cost_ns.max(1) as f64).log2() * 2.0;
    (step as usize).min(COST_STEPS - 1)
}

impl Counts {
    /// What came after `before`.
    pub fn since(&self, before: &Counts) -> Counts {
        Counts {
            runs: self.runs.saturating_sub(before.runs),
            failed_runs: self.failed_runs.saturating_sub(before.failed_runs),
            records: self.records.saturating_sub(before.records),
            dropped: self.dropped.saturating_sub(before.dropped),
            costs: std::array::from_fn(|step| self.costs[step].saturating_sub(before.costs[step])),
        }
    }

    /// CPU time of a record in nanoseconds, in the middle, to the next step.
    pub fn cost_ns(&self) -> Option<u64> {
        let timed: u64 = self.costs.iter().sum();
        if timed < TIMED_MIN {
            return None;
        }
        let mut sum = 0;
        let middle = self.costs.iter().position(|runs| {
            sum += runs;
            sum * 2 >= timed
        })?;
        Some((middle as f64 / 2.0).exp2() as u64)
    }

    fn failing(&self) -> f64 {
        part(self.failed_runs, self.runs)
    }

    fn dropping(&self) -> f64 {
        part(self.dropped, self.records)
    }
}

fn part(of: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { of as f64 / all as f64 }
}

impl Budget {
    /// Why a version that did `new` is too much worse than one that did `old`; `None`: it is not, as far as is known.
    pub fn exceeded(&self, new: &Counts, old: &Counts) -> Option<String> {
        let percent = |part: f64| format!("{:.1} %", part * 100.0);
        if new.failed_runs >= FAILURES_MIN && new.failing() > old.failing() + self.failures {
            return Some(format!(
                "{} of its calls fail, {} did before; the budget is {} more",
                percent(new.failing()),
                percent(old.failing()),
                percent(self.failures)
            ));
        }
        if new.records >= RECORDS_MIN && new.dropping() > old.dropping() + self.drops {
            return Some(format!(
                "it drops {} of the records, {} were before; the budget is {} more",
                percent(new.dropping()),
                percent(old.dropping()),
                percent(self.drops)
            ));
        }
        let (Some(now), Some(before)) = (new.cost_ns(), old.cost_ns()) else { return None };
        // The costs are known to the next half doubling.
        let is_slow = now > COST_NS_MIN && now as f64 > before.max(1) as f64 * self.latency;
        is_slow.then(|| {
            let times = self.latency;
            format!(
                "a record takes {now} ns of CPU time, {before} ns before; the budget is {times} times that"
            )
        })
    }
}

/// How the new version in a shadow differed, in records.
#[derive(Debug)]
pub struct Differences {
    plugin: String,
    family: Family<Labels, Counter>,
    same: AtomicU64,
    changed: AtomicU64,
    missing: AtomicU64,
    extra: AtomicU64,
}

/// The numbers of [`Differences`] at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Differing {
    /// As the active version leaves them.
    pub same: u64,
    pub changed: u64,
    /// That the active version keeps and this one does not.
    pub missing: u64,
    /// The other way round.
    pub extra: u64,
}

impl Differences {
    pub fn new(plugin: &str, metrics: &Metrics) -> Differences {
        Differences {
            plugin: plugin.to_owned(),
            family: metrics.process_shadow.clone(),
            same: AtomicU64::new(0),
            changed: AtomicU64::new(0),
            missing: AtomicU64::new(0),
            extra: AtomicU64::new(0),
        }
    }

    pub fn read(&self) -> Differing {
        let number = |of: &AtomicU64| of.load(Ordering::Relaxed);
        Differing {
            same: number(&self.same),
            changed: number(&self.changed),
            missing: number(&self.missing),
            extra: number(&self.extra),
        }
    }

    fn add(&self, found: Differing) {
        let Differing { same, changed, missing, extra } = found;
        let all = [
            (&self.same, same, "same"),
            (&self.changed, changed, "changed"),
            (&self.missing, missing, "missing"),
            (&self.extra, extra, "extra"),
        ];
        for (sum, records, difference) in all.into_iter().filter(|(_, records, _)| *records > 0) {
            sum.fetch_add(records, Ordering::Relaxed);
            let labels = vec![("plugin", self.plugin.clone()), ("difference", difference.to_owned())];
            self.family.get_or_create(&labels).inc_by(records);
        }
    }
}

/// The version that has a piece, and the one that only looks on.
pub(super) struct Chosen<'v> {
    pub(super) plugin: &'v Plugin,
    pub(super) score: &'v Score,
    shadow: Option<(&'v Trial, &'v Differences)>,
}

impl Versions {
    /// For pieces of this stream: the same for all of a request.
    pub(super) fn choose<'v>(&'v self, active: &'v Plugin, stream: &Stream) -> Chosen<'v> {
        let chosen = Chosen { plugin: active, score: &self.score, shadow: None };
        let Some(trial) = &self.trial else { return chosen };
        match &trial.kind {
            TrialKind::Shadow(differences) => Chosen { shadow: Some((trial, differences)), ..chosen },
            TrialKind::Canary { parts, seed } if part_of(stream, *seed) < *parts => {
                Chosen { plugin: &trial.plugin, score: &trial.score, shadow: None }
            }
            TrialKind::Canary { .. } => chosen,
        }
    }
}

/// Which of ten thousand parts a stream is in.
fn part_of(stream: &Stream, seed: u64) -> u32 {
    let mut hash = DefaultHasher::new();
    (seed, stream.tenant.as_str(), stream.project.as_str()).hash(&mut hash);
    (hash.finish() % 10_000) as u32
}

impl Chosen<'_> {
    /// One run of the version that counts, and one of the shadow if there is one, on a copy: of it only the
    /// differences are left.
    pub(super) fn try_run(&self, piece: Piece, now_ns: u64, is_begun: bool) -> Result<Ran, NotRun> {
        let copy = self.shadow.and_then(|(trial, _)| copy_of(&piece, &trial.plugin));
        let ran = self.score.try_run(self.plugin, piece, now_ns, is_begun)?;
        if let (Some(copy), Some((trial, differences))) = (copy, self.shadow)
            && let Ok(shadow) = trial.score.try_run(&trial.plugin, copy, now_ns, is_begun)
        {
            differences.add(differing(&ran.piece, &shadow.piece));
        }
        Ok(ran)
    }
}

/// A piece of its own with what an earlier plugin left, and the routes that it gave.
fn copy_of(piece: &Piece, plugin: &Plugin) -> Option<Piece> {
    if !plugin.manifest().signals.contains(&piece.signal()) {
        return None;
    }
    let request = Request::check(piece.signal(), piece.standalone().into()).ok()?;
    let all: Vec<usize> = (0..request.resources.len()).collect();
    let batch = request.batch(piece.stream().clone(), &all);
    let mut pieces = batch.pieces(usize::MAX, usize::MAX);
    let copy = pieces.pop().filter(|_| pieces.is_empty())?;
    Some(copy.with_routes(piece.routes()))
}

/// How the records of `other` differ from those of `one`. A record is the same with the same metric, scope, resource and
/// route.
fn differing(one: &Piece, other: &Piece) -> Differing {
    if one.standalone() == other.standalone() && one.routes() == other.routes() {
        return Differing { same: u64::from(one.records()), ..Differing::default() };
    }
    let mut found: HashMap<u64, (u64, u64)> = HashMap::new();
    each_hashed(one, |hash| found.entry(hash).or_default().0 += 1);
    each_hashed(other, |hash| found.entry(hash).or_default().1 += 1);
    let (mut same, mut only_one, mut only_other) = (0, 0, 0);
    for (of_one, of_other) in found.into_values() {
        same += of_one.min(of_other);
        only_one += of_one.saturating_sub(of_other);
        only_other += of_other.saturating_sub(of_one);
    }
    let changed = only_one.min(only_other);
    Differing { same, changed, missing: only_one - changed, extra: only_other - changed }
}

fn each_hashed(piece: &Piece, mut each: impl FnMut(u64)) {
    let (bytes, routes) = (piece.standalone(), piece.routes().unwrap_or_default());
    for (row, parts) in Items::over(piece.signal(), &bytes).enumerate() {
        let mut hash = DefaultHasher::new();
        (parts.resource, parts.resource_schema_url, parts.scope, parts.scope_schema_url).hash(&mut hash);
        for field in wire::fields(parts.metric, 0, parts.metric.len()) {
            if field.number != u32::from(parts.kind) {
                parts.metric[field.start..field.end].hash(&mut hash);
            }
        }
        (parts.kind, parts.item, routes.get(row).cloned().flatten()).hash(&mut hash);
        each(hash.finish());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{ProjectId, TenantId};

    fn counts(runs: u64, failed_runs: u64, records: u64, dropped: u64, cost_ns: u64) -> Counts {
        let mut costs = [0; COST_STEPS];
        costs[step_of(cost_ns)] = 100;
        Counts { runs, failed_runs, records, dropped, costs }
    }

    fn check(new: Counts, old: Counts, expected: &str) {
        let budget = SwapSettings::default().budget;
        assert_eq!(budget.exceeded(&new, &old).unwrap_or_default(), expected);
    }

    #[test]
    fn a_version_is_within_its_budget_until_it_is_clearly_worse() {
        let old = counts(1_000, 0, 500_000, 0, 4_000);
        check(old, old, "");
        check(counts(100, 2, 50_000, 0, 4_000), old, "");
        check(
            counts(100, 3, 50_000, 0, 4_000),
            old,
            "3.0 % of its calls fail, 0.0 % did before; the budget is 1.0 % more",
        );
        check(counts(1_000, 10, 50_000, 0, 4_000), old, "");
        check(counts(1_000, 19, 50_000, 0, 4_000), counts(1_000, 10, 1, 0, 4_000), "");
        check(counts(10, 0, 999, 999, 4_000), old, "");
        check(
            counts(10, 0, 1_000, 300, 4_000),
            old,
            "it drops 30.0 % of the records, 0.0 % were before; the budget is 25.0 % more",
        );
        check(counts(10, 0, 1_000, 900, 4_000), counts(10, 0, 1_000, 700, 4_000), "");
        check(counts(1_000, 0, 1, 0, 8_000), old, "");
        check(
            counts(1_000, 0, 1, 0, 16_000),
            old,
            "a record takes 11585 ns of CPU time, 2896 ns before; the budget is 2 times that",
        );
        check(counts(1_000, 0, 1, 0, 900), counts(1_000, 0, 1, 0, 40), "");
        check(counts(0, 0, 0, 0, 1), counts(0, 0, 0, 0, 1), "");
    }

    #[test]
    fn a_few_slow_runs_are_not_the_middle() {
        let score = Score::default();
        (0..TIMED_MIN - 1).for_each(|_| score.note_cost(Duration::from_micros(512), 512));
        assert_eq!(score.read().cost_ns(), None);
        (0..10).for_each(|_| score.note_cost(Duration::from_secs(100), 1));
        let cost = score.read().cost_ns().unwrap();
        assert!((700..=1_000).contains(&cost), "{cost}");
        assert_eq!(score.read().since(&score.read()).cost_ns(), None);
    }

    #[test]
    fn a_share_of_the_streams_is_in_a_canary_each_whole_and_others_with_another_seed() {
        let stream = |number: u32| Stream {
            tenant: TenantId::new(&format!("tenant-{}", number % 500)).unwrap(),
            project: ProjectId::new(&format!("p{}", number / 500)).unwrap(),
        };
        let within =
            |seed| (0..10_000).filter(move |number| part_of(&stream(*number), seed) < 1_000).collect();
        let (one, other): (Vec<u32>, Vec<u32>) = (within(1), within(2));
        assert!((850..1_150).contains(&one.len()), "{}", one.len());
        assert_eq!(one, within(1));
        let both = one.iter().filter(|number| other.contains(number)).count();
        assert!(both < 200, "{both}");
    }
}
