//! From a receiver's hands to the journal.

use super::aside;
use super::chain::{Chain, Slot};
use super::effects::Consequences;
use super::record::Taps;
use super::route::Plan;
use super::series::Windowed;
use super::turns::{TooLate, Turn, Turns};
use super::work::{Made, NotCalled, Snapshot, Way, Work};
use super::{Arrangement, Receipt, Refusal, Settings, Submission};
use crate::alerts::Alerts;
use crate::batch::{Batch, Malformed};
use crate::journal::{After, Clock, CommitRefused, DeadLetters, FRAME_BYTES_MAX, Frame, Journal};
use crate::net::backoff;
use crate::sandbox::{Plugin, Usage};
use crate::telemetry::Metrics;
use crate::tenants::{Caller, Tenants, Who};
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// A request up to this size is checked where it came in, a fifth of a millisecond at most; larger ones, and all that
/// plugins work on, leave the executor.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// How long one request works on while others wait.
const SLICE: Duration = Duration::from_millis(2);

/// The way of a batch, assembled. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub(super) shared: Arc<Shared>,
}

/// What a pipeline works with, and shares with others.
#[derive(Clone)]
pub struct Surroundings {
    pub tenants: Arc<Tenants>,
    pub journal: Arc<Journal>,
    /// Where records go that a plugin failed on and is to put aside. `None`: nowhere.
    pub letters: Option<Arc<DeadLetters>>,
    pub alerts: Arc<Alerts>,
    pub clock: Clock,
    pub metrics: Metrics,
}

/// What all requests share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) tenants: Arc<Tenants>,
    pub(super) journal: Arc<Journal>,
    pub(super) letters: Option<Arc<DeadLetters>>,
    pub(super) metrics: Metrics,
    pub(super) clock: ClockCell,
    pub(super) snapshot: ArcSwap<Snapshot>,
    pub(super) turns: Arc<Turns>,
    pub(super) consequences: Consequences,
    pub(super) taps: Taps,
    not_loaded: ArcSwap<Vec<String>>,
    pub(super) is_stopping: AtomicBool,
}

/// A clock that shows nothing of itself.
pub(super) struct ClockCell(Clock);

impl std::fmt::Debug for ClockCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl std::ops::Deref for ClockCell {
    type Target = dyn Fn() -> u64 + Send + Sync;
    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl Pipeline {
    /// An error names what a pipeline refers to and is not there.
    pub fn open(
        settings: Settings,
        arrangement: Arrangement,
        slots: &[Slot],
        around: Surroundings,
    ) -> Result<Pipeline, String> {
        let Surroundings { tenants, journal, letters, alerts, clock, metrics } = around;
        let snapshot = snapshot(Arc::new(arrangement), slots)?;
        let consequences = Consequences::new(alerts, metrics.clone());
        consequences.promote(windows(slots), names(slots));
        let turns = Turns::new(settings.workers);
        show_loaded(&metrics, slots);
        let shared = Shared {
            settings,
            tenants,
            journal,
            letters,
            consequences,
            taps: Taps::default(),
            metrics,
            clock: ClockCell(clock),
            snapshot: ArcSwap::from_pointee(snapshot),
            turns,
            not_loaded: ArcSwap::from_pointee(not_loaded(slots)),
            is_stopping: AtomicBool::new(false),
        };
        Ok(Pipeline { shared: Arc::new(shared) })
    }

    /// From now on requests take these plugins; those on the way keep what they began with.
    pub fn promote(&self, slots: &[Slot]) -> Result<(), String> {
        let arrangement = self.shared.snapshot.load().arrangement.clone();
        self.take(snapshot(arrangement, slots)?, slots);
        Ok(())
    }

    /// As [`Pipeline::promote`], with other pipelines and sinks at the same moment.
    pub fn arrange(&self, arrangement: Arrangement, slots: &[Slot]) -> Result<(), String> {
        self.take(snapshot(Arc::new(arrangement), slots)?, slots);
        Ok(())
    }

    fn take(&self, snapshot: Snapshot, slots: &[Slot]) {
        // First, so that what a new plugin adds has a place.
        self.shared.consequences.promote(windows(slots), names(slots));
        self.shared.snapshot.store(Arc::new(snapshot));
        self.shared.not_loaded.store(Arc::new(not_loaded(slots)));
        show_loaded(&self.shared.metrics, slots);
    }

    /// Plugins of the configuration that are not loaded: not ready while there are any.
    pub fn not_loaded(&self) -> Vec<String> {
        self.shared.not_loaded.load().to_vec()
    }

    /// What the plugins of the pipelines used, those that are called now.
    pub fn usage(&self) -> Vec<Usage> {
        self.loaded().map(|(_, plugin)| plugin.usage()).collect()
    }

    /// Guards of which no instance can be made: their pipelines refuse, as while they are not loaded.
    pub fn unmakeable_guards(&self) -> Vec<String> {
        let guards = self.loaded().filter(|(is_guard, plugin)| *is_guard && plugin.is_unmakeable());
        guards.map(|(_, plugin)| plugin.name().to_owned()).collect()
    }

    /// Guards whose circuit is open for some tenant.
    pub fn open_guards(&self) -> Vec<String> {
        let guards = self.loaded().filter(|(is_guard, plugin)| *is_guard && plugin.open_circuits() > 0);
        guards.map(|(_, plugin)| plugin.name().to_owned()).collect()
    }

    /// Each once, and whether it is a guard.
    fn loaded(&self) -> impl Iterator<Item = (bool, Plugin)> {
        let snapshot = self.shared.snapshot.load_full();
        let slots = snapshot.ways.iter().flat_map(|way| way.chain.slots());
        let loaded =
            slots.filter_map(|slot| Some((slot.name.clone(), (slot.is_guard, slot.plugin.clone()?))));
        loaded.collect::<BTreeMap<_, _>>().into_values()
    }

    /// New requests are refused; those on the way go on.
    pub fn stop(&self) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
    }

    /// From a receiver's hands to the journal. Returns when the sender may be told "yes".
    ///
    /// Cancelled before its entries are with the journal, nothing is committed; afterwards the commit completes.
    pub async fn submit(&self, submission: Submission) -> Result<Receipt, Refusal> {
        let shared = &self.shared;
        if shared.is_stopping.load(Ordering::Relaxed) {
            return Err(Refusal::Stopping { after: shared.come_back() });
        }
        if shared.journal.is_full() {
            return Err(Refusal::DiskFull { after: shared.come_back() });
        }
        if shared.journal.is_waited_for() {
            return Err(Refusal::Behind { after: shared.come_back() });
        }
        let Submission { signal, body, caller, room, deadline } = submission;
        let mut work = if body.len() <= INLINE_BYTES_MAX {
            let mut work = Work::begin(shared, signal, body, &caller)?;
            if work.is_small(INLINE_BYTES_MAX) {
                work.advance(|_| false);
            }
            work
        } else {
            let turn = self.turn(&key_of(&caller), deadline).await?;
            // What one who speaks for many sends goes on in the turns of those whose it is.
            let goes_on = !matches!(caller.who, Who::SpeaksFor { .. });
            let shared = shared.clone();
            let begin = move || Work::begin(&shared, signal, body, &caller);
            self.slice(turn, deadline, goes_on, begin).await??
        };
        work = self.finish(work, deadline).await?;
        let receipt = self.commit(work.made(), deadline).await;
        // Until here the request was charged for; now the journal keeps its own account.
        drop(room);
        receipt
    }

    /// Records that were committed before and put aside, through the plugins of today and to their sinks.
    pub(super) async fn submit_again(&self, batch: Batch, deadline: Instant) -> Result<Receipt, Refusal> {
        if self.shared.is_stopping.load(Ordering::Relaxed) {
            return Err(Refusal::Stopping { after: self.shared.come_back() });
        }
        let work = self.finish(Work::again(&self.shared, batch), deadline).await?;
        self.commit(work.made(), deadline).await
    }

    /// All steps that are left, off the executor.
    async fn finish(&self, mut work: Work, deadline: Instant) -> Result<Work, Refusal> {
        while !work.is_done() {
            let key = work.tenant().map(ToString::to_string).unwrap_or_default();
            let turn = match self.turn(&key, deadline).await {
                Ok(turn) => turn,
                Err(refusal) => {
                    work.refuse_all("busy");
                    return Err(refusal);
                }
            };
            work = self.slice(turn, deadline, true, move || Ok::<_, Malformed>(work)).await??;
        }
        Ok(work)
    }

    /// Off the executor: works on what `begin` gives for a while, or to the end if nobody else waits for the turn; not
    /// at all unless it `goes_on`.
    async fn slice<E: Send + 'static>(
        &self,
        turn: Turn,
        deadline: Instant,
        goes_on: bool,
        begin: impl FnOnce() -> Result<Work, E> + Send + 'static,
    ) -> Result<Result<Work, E>, Refusal> {
        let caller = Arc::new(());
        let is_there = Arc::downgrade(&caller);
        let slice = move |turn: &Turn| {
            let start = Instant::now();
            begin().map(|mut work| {
                if !goes_on {
                    return work;
                }
                work.advance(|is_others| {
                    let now = Instant::now();
                    let is_turn_over = (is_others || now - start >= SLICE) && turn.is_wanted();
                    // Or nobody waits for the answer any more.
                    is_turn_over || now >= deadline || is_there.strong_count() == 0
                });
                work
            })
        };
        let done = turn.work(slice).await;
        drop(caller);
        done.map_err(|error| {
            tracing::error!(%error, "work on a request ended without a result");
            Refusal::Busy { after: self.shared.come_back() }
        })
    }

    async fn turn(&self, key: &str, deadline: Instant) -> Result<Turn, Refusal> {
        let busy = || Refusal::Busy { after: self.shared.come_back() };
        if Instant::now() >= deadline {
            return Err(busy());
        }
        self.shared.turns.take(key, deadline).await.map_err(|TooLate| busy())
    }

    /// A disk that hangs holds nobody longer than the deadline: the commit may complete afterwards, and the sender
    /// sends again.
    async fn commit(&self, made: Made, deadline: Instant) -> Result<Receipt, Refusal> {
        let Made { mut tally, parts, left, uncallable, over_quota } = made;
        let mut left = left.into_all();
        if let Some(NotCalled { name, after }) = uncallable.filter(|_| !tally.is_anything_acknowledged()) {
            tally.refuse_all("plugin_not_loaded");
            return Err(Refusal::Plugin { name, after: after.max(self.shared.come_back()) });
        }
        if let Some(over) = over_quota.filter(|_| !tally.is_anything_acknowledged()) {
            return Err(Refusal::over_quota(over, self.shared.settings.come_back));
        }
        let kept = aside::keep(self.shared.letters.as_ref(), &mut left, &mut tally, deadline).await;
        let receipt = tally.receipt();
        let settled = tally.settled();
        if settled.is_empty() {
            // An empty request: a success that leaves nothing.
            return Ok(receipt);
        }
        let shared = self.shared.clone();
        // Counts, windows and alerts change in commit order, whoever worked on the requests.
        let is_nothing = left.is_empty() && kept.is_empty();
        let after = (!is_nothing).then(|| -> After {
            Box::new(move |committed| {
                kept.stay();
                shared.consequences.apply(left, committed.time_ms);
            })
        });
        let committing = self.shared.journal.commit(Frame { settled, parts, after });
        let committed = timeout_at(deadline, committing).await;
        let after = self.shared.come_back();
        match committed {
            Ok(Ok(_)) => Ok(receipt),
            Ok(Err(CommitRefused::Stopping)) => Err(Refusal::Stopping { after }),
            Ok(Err(CommitRefused::Full | CommitRefused::Failed)) => Err(Refusal::DiskFull { after }),
            Ok(Err(CommitRefused::Behind)) => Err(Refusal::Behind { after }),
            Ok(Err(CommitRefused::TooLarge)) => Err(Refusal::TooLarge { limit: FRAME_BYTES_MAX }),
            Err(_) => Err(Refusal::Busy { after }),
        }
    }
}

impl Shared {
    /// Drawn, so that senders do not return together.
    fn come_back(&self) -> Duration {
        let (least, most) = self.settings.come_back;
        backoff::drawn(least, most)
    }
}

/// Whose turn the check of a request is: its tenant is not known before.
fn key_of(caller: &Arc<Caller>) -> String {
    match &caller.who {
        Who::Tenant { tenant, .. } => tenant.to_string(),
        // No tenant's name begins so.
        Who::SpeaksFor { .. } | Who::Nobody => format!("_{:p}", Arc::as_ptr(caller)),
    }
}

fn snapshot(arrangement: Arc<Arrangement>, slots: &[Slot]) -> Result<Snapshot, String> {
    let mut ways = Vec::new();
    for pipeline in &arrangement.pipelines {
        let slot = |name: &String| {
            let slot = slots.iter().find(|slot| slot.name == *name);
            slot.cloned().ok_or_else(|| format!("pipeline `{}`: there is no plugin `{name}`", pipeline.name))
        };
        let slots = pipeline.plugins.iter().map(slot).collect::<Result<_, _>>()?;
        let chain = Chain::new(slots, pipeline.is_unguarded);
        ways.push(Way { name: pipeline.name.clone(), plan: Plan::of(pipeline, &arrangement.sinks)?, chain });
    }
    Ok(Snapshot { ways, ticking: slots.iter().filter_map(ticking).cloned().collect(), arrangement })
}

/// A plugin that looks at windows.
fn ticking(slot: &Slot) -> Option<&Plugin> {
    slot.plugin.as_ref().filter(|plugin| plugin.manifest().window_seconds > 0)
}

fn windows(slots: &[Slot]) -> impl Iterator<Item = Windowed> {
    let windowed = |plugin: &Plugin| Windowed {
        plugin: plugin.name().to_owned(),
        window_seconds: plugin.manifest().window_seconds,
        keys_max: plugin.settings().limits.series_keys,
    };
    slots.iter().filter_map(ticking).map(windowed)
}

/// Names that each plugin may count under.
fn names(slots: &[Slot]) -> impl Iterator<Item = (String, usize)> {
    let loaded = slots.iter().filter_map(|slot| slot.plugin.as_ref());
    loaded.map(|plugin| (plugin.name().to_owned(), plugin.settings().limits.names))
}

fn show_loaded(metrics: &Metrics, slots: &[Slot]) {
    // Those that are gone.
    metrics.process_loaded.clear();
    for slot in slots {
        let labels = vec![("plugin", slot.name.clone())];
        metrics.process_loaded.get_or_create(&labels).set(slot.plugin.is_some().into());
    }
}

fn not_loaded(slots: &[Slot]) -> Vec<String> {
    slots.iter().filter(|slot| slot.plugin.is_none()).map(|slot| slot.name.clone()).collect()
}
