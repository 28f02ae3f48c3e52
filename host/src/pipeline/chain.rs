//! The plugins of a pipeline, called piece by piece.

use super::left::Left;
use super::record::Taken;
use super::tally::Tally;
use super::versions::Versions;
use crate::batch::{IdentityKeys, Level, Piece, Signal, TenantId, Wanted};
use crate::journal::Reason;
use crate::sandbox::{Module, NotRun, OnFailure, Plugin, Quarantined, Ran, Uncallable};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// What a small piece holds at most.
pub(super) const SMALL_BYTES_MAX: usize = 16 << 10;
/// A chain that takes less for a small piece is quick.
const QUICK: Duration = Duration::from_micros(250);
/// The pace is an average of about so many pieces.
const PACE_PIECES: u64 = 16;

/// A plugin's place in the pipelines: what is there to call, and what holds while nothing is.
#[derive(Clone, Debug)]
pub struct Slot {
    pub name: String,
    pub is_guard: bool,
    pub on_failure: OnFailure,
    /// `None`: it is not loaded.
    pub plugin: Option<Plugin>,
    pub versions: Versions,
}

/// What a chain does to a batch while one of its plugins is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Nothing,
    /// Records of the whole batch are not taken, and may come again.
    Refuse {
        name: String,
    },
    /// They are acknowledged and dropped.
    Drop {
        name: String,
    },
}

/// A plugin that must be called and cannot be now: nothing of the batch goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stopped {
    pub(super) name: String,
    pub(super) why: Uncallable,
    pub(super) after: Duration,
}

/// The places of plugins with a share of CPU time that were given a piece of a batch: they are given the others too.
#[derive(Debug, Default)]
pub(super) struct Begun(Vec<usize>);

impl Begun {
    fn is_by(&self, at: usize) -> bool {
        self.0.contains(&at)
    }

    fn note(&mut self, at: usize, plugin: &Plugin) {
        if plugin.settings().limits.cpu.is_some() && !self.is_by(at) {
            self.0.push(at);
        }
    }
}

/// The plugins of one pipeline, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    slots: Vec<Slot>,
    /// How many of them come before the place where recordings take their copy: all guards. `None`: nothing may be taken.
    tapped_at: Option<usize>,
    /// Nanoseconds that small pieces took of late; 0: not known.
    pace_ns: Arc<AtomicU64>,
    /// What the plugins asked the last piece for, by signal.
    wanted: Arc<[AtomicU16; Signal::ALL.len()]>,
}

impl Chain {
    /// `is_unguarded`: the pipeline says that it may run without guards.
    pub(super) fn new(slots: Vec<Slot>, is_unguarded: bool) -> Chain {
        let last_guard = slots.iter().rposition(|slot| slot.is_guard);
        let tapped_at = last_guard.map(|at| at + 1).or(is_unguarded.then_some(0));
        Chain { slots, tapped_at, pace_ns: Arc::default(), wanted: Arc::default() }
    }

    /// Where recordings take their copy, if they may.
    pub(super) fn tapped_at(&self) -> Option<usize> {
        self.tapped_at
    }

    /// Whether nothing is to be done with records of this signal.
    pub(super) fn is_idle(&self, signal: Signal) -> bool {
        let is_called = |slot: &Slot| match &slot.plugin {
            Some(plugin) => plugin.manifest().signals.contains(&signal),
            None => slot.instead() == OnFailure::Quarantine,
        };
        !self.slots.iter().any(is_called)
    }

    /// Whether a small piece takes so little that the way to another thread and back would cost more. Only of plugins
    /// that we ship: what they did they will do again, while another may choose when to loop.
    pub(super) fn is_quick(&self) -> bool {
        let is_ours = |slot: &Slot| {
            let module = slot.plugin.as_ref().map(|plugin| &plugin.settings().module);
            module.is_none_or(|module| matches!(module, Module::Builtin(_)))
        };
        let pace = self.pace_ns.load(Ordering::Relaxed);
        pace > 0 && Duration::from_nanos(pace) < QUICK && self.slots.iter().all(is_ours)
    }

    fn note_pace(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX / PACE_PIECES).max(1);
        let before = self.pace_ns.load(Ordering::Relaxed);
        // Two that note at once lose one of the notes, which is no matter.
        let pace = if before == 0 { took } else { before - before / PACE_PIECES + took / PACE_PIECES };
        self.pace_ns.store(pace.max(1), Ordering::Relaxed);
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.slots.iter().map(|slot| slot.name.as_str()).collect()
    }

    /// Decided before the first call: the first plugin that is not there and may not be passed by.
    pub(super) fn missing(&self) -> Missing {
        for slot in self.slots.iter().filter(|slot| slot.plugin.is_none()) {
            let name = slot.name.clone();
            match slot.instead() {
                OnFailure::Refuse => return Missing::Refuse { name },
                OnFailure::Drop => return Missing::Drop { name },
                // In its turn: what comes before the guards is not kept.
                OnFailure::Pass | OnFailure::Quarantine => {}
            }
        }
        Missing::Nothing
    }

    /// What the plugins that are not there let by, once [`Chain::missing`] found nothing in the way.
    pub(super) fn pass_by(&self, records: u64, tenant: &TenantId) -> Vec<Left> {
        let is_absent = |slot: &&Slot| slot.plugin.is_none() && slot.instead() == OnFailure::Pass;
        let absent = self.slots.iter().filter(is_absent);
        absent.map(|slot| Left::of(&slot.name, tenant).passed("not_loaded", records)).collect()
    }

    /// One piece through all plugins, at this time. Takes as long as they do: not for an executor's thread, unless the
    /// piece is small and the chain [`Chain::is_quick`].
    pub(super) fn run(
        &self,
        mut piece: Piece,
        (now_ns, begun_by): (u64, &mut Begun),
        tenant: &TenantId,
        keys: &IdentityKeys,
        tally: &mut Tally,
        taken: Option<&Taken>,
    ) -> Result<(Piece, Vec<Left>), Stopped> {
        let begun = (piece.item_bytes() <= SMALL_BYTES_MAX).then(Instant::now);
        // What they ask for differs little from piece to piece.
        let kept = &self.wanted[piece.signal() as usize];
        let expected = Wanted(kept.load(Ordering::Relaxed));
        piece.expect(expected);
        let ran = self.call_all(piece, (now_ns, begun_by), tenant, keys, tally, taken)?;
        if ran.0.wanted() != expected {
            kept.store(ran.0.wanted().0, Ordering::Relaxed);
        }
        if let Some(begun) = begun {
            self.note_pace(begun.elapsed());
        }
        Ok(ran)
    }

    fn call_all(
        &self,
        mut piece: Piece,
        (now_ns, begun_by): (u64, &mut Begun),
        tenant: &TenantId,
        keys: &IdentityKeys,
        tally: &mut Tally,
        taken: Option<&Taken>,
    ) -> Result<(Piece, Vec<Left>), Stopped> {
        let mut left: Vec<Left> = Vec::new();
        let mut wrong = None;
        let tap = |at: usize, piece: &Piece| {
            if let Some(taken) = taken.filter(|_| self.tapped_at == Some(at)) {
                taken.offer(piece);
            }
        };
        for (at, slot) in self.slots.iter().enumerate() {
            tap(at, &piece);
            let before = piece.records();
            if before == 0 {
                break;
            }
            let Some(plugin) = &slot.plugin else {
                if slot.instead() == OnFailure::Quarantine {
                    left.push(slot.put_aside(&mut piece, tenant, "the plugin is not loaded"));
                }
                continue;
            };
            let chosen = slot.versions.choose(plugin, piece.stream());
            let may_forge = writes_identity(chosen.plugin, keys);
            if may_forge && wrong.is_none() {
                let (looked_at, before) = wrong_identities(piece, keys);
                (piece, wrong) = (looked_at, Some(before));
            }
            let policy = chosen.plugin.settings().on_failure;
            let ran = match chosen.try_run(piece, now_ns, begun_by.is_by(at)) {
                Ok(ran) => ran,
                Err(not_run) => {
                    piece = slot.go_without(not_run, slot.instead_of(policy), tenant, tally, &mut left)?;
                    continue;
                }
            };
            begun_by.note(at, chosen.plugin);
            let failed = ran.failed_records();
            let Ran { piece: after, effects, filtered, quarantined, .. } = ran;
            piece = after;
            let mut forged = 0;
            if may_forge {
                let (looked_at, after) = wrong_identities(piece, keys);
                piece = looked_at;
                forged = after.saturating_sub(wrong.replace(after).unwrap_or_default());
            }
            slot.count(Counted { before, after: piece.records(), filtered, failed, policy }, tenant, tally);
            let mut of_plugin = Left { effects, forged, ..Left::of(&slot.name, tenant) };
            match policy {
                OnFailure::Pass => of_plugin = of_plugin.passed("failed", failed.into()),
                OnFailure::Quarantine => of_plugin.put_aside(&piece, quarantined, failed),
                OnFailure::Drop | OnFailure::Refuse => {}
            }
            if !of_plugin.is_empty() {
                left.push(of_plugin);
            }
        }
        tap(self.slots.len(), &piece);
        Ok((piece, left))
    }
}

/// Whether a plugin has the right to write where identity stands.
fn writes_identity(plugin: &Plugin, keys: &IdentityKeys) -> bool {
    let covers = |word: &str| {
        let Some(key) = word.strip_prefix("resource:") else { return word == "raw" };
        match key.strip_suffix('*') {
            Some(start) => keys.tenant.starts_with(start) || keys.project.starts_with(start),
            None => key == keys.tenant || key == keys.project,
        }
    };
    plugin.manifest().writes.iter().any(|word| covers(word))
}

/// How many resources of a piece do not say what was verified.
fn wrong_identities(piece: Piece, keys: &IdentityKeys) -> (Piece, u32) {
    let stream = piece.stream().clone();
    let mut call = piece.call(None);
    let mut is_wrong = vec![false; call.rows(Level::Resource) as usize];
    for (key, verified) in [(&keys.tenant, stream.tenant.as_str()), (&keys.project, stream.project.as_str())]
    {
        let column = call.text_attribute(Level::Resource, key).unwrap_or_default();
        let mut is_right = vec![false; is_wrong.len()];
        for (row, index) in column.rows.iter().zip(&column.index) {
            is_right[*row as usize] = column.strings[*index as usize] == verified;
        }
        is_wrong.iter_mut().zip(is_right).for_each(|(wrong, right)| *wrong |= !right);
    }
    let wrong = is_wrong.into_iter().filter(|wrong| *wrong).count();
    (call.abort(), wrong as u32)
}

/// Records of a piece around one run.
#[derive(Clone, Copy, Debug)]
struct Counted {
    before: u32,
    after: u32,
    filtered: u32,
    failed: u32,
    /// Of the version that ran.
    policy: OnFailure,
}

impl Slot {
    /// What holds for all records while nothing is there to be called.
    fn instead(&self) -> OnFailure {
        self.instead_of(self.on_failure)
    }

    /// And while a version with this policy cannot be called.
    fn instead_of(&self, policy: OnFailure) -> OnFailure {
        if self.is_guard { OnFailure::Refuse } else { policy }
    }

    /// The piece without the plugin, which cannot be called now.
    fn go_without(
        &self,
        not_run: NotRun,
        instead: OnFailure,
        tenant: &TenantId,
        tally: &mut Tally,
        left: &mut Vec<Left>,
    ) -> Result<Piece, Stopped> {
        let NotRun { mut piece, why, after } = not_run;
        let records = u64::from(piece.records());
        match instead {
            OnFailure::Refuse => return Err(Stopped { name: self.name.clone(), why, after }),
            OnFailure::Drop => {
                piece.drop_records(0..piece.records());
                let reason = format!("plugin_{}:{}", why.word(), self.name);
                *tally.outcome(tenant).dropped.entry(reason.into()).or_default() += records;
            }
            OnFailure::Pass => left.push(Left::of(&self.name, tenant).passed(why.word(), records)),
            OnFailure::Quarantine => left.push(self.put_aside(&mut piece, tenant, why.word())),
        }
        Ok(piece)
    }

    /// All records of a piece, which is empty then.
    fn put_aside(&self, piece: &mut Piece, tenant: &TenantId, error: &str) -> Left {
        let records = piece.records();
        let quarantined = Quarantined { records, bytes: piece.standalone().into(), error: error.to_owned() };
        piece.drop_records(0..records);
        let mut left = Left::of(&self.name, tenant);
        left.put_aside(piece, vec![quarantined], records);
        left
    }

    fn count(&self, counted: Counted, tenant: &TenantId, tally: &mut Tally) {
        let Counted { before, after, mut filtered, failed, policy } = counted;
        let reason = || Reason::from(format!("plugin:{}", self.name));
        let removed = match policy {
            OnFailure::Pass => 0,
            // Those that are put aside are counted when it is known whether they are kept.
            OnFailure::Refuse | OnFailure::Drop | OnFailure::Quarantine => failed,
        };
        // A plugin that writes a piece anew may leave more records in it, or fewer than it said it dropped.
        let expected = before.saturating_sub(filtered + removed);
        let added = after.saturating_sub(expected);
        filtered += expected.saturating_sub(after);
        if removed > 0 && policy == OnFailure::Refuse {
            tally.take_back(tenant, removed.into(), reason());
        }
        let outcome = tally.outcome(tenant);
        if removed > 0 && policy == OnFailure::Drop {
            *outcome.dropped.entry(reason()).or_default() += u64::from(removed);
        }
        if filtered > 0 {
            *outcome.filtered.entry(self.name.clone().into()).or_default() += u64::from(filtered);
        }
        if added > 0 {
            *outcome.added.entry(self.name.clone().into()).or_default() += u64::from(added);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_quick_as_long_as_small_pieces_were() {
        let chain = Chain::default();
        assert!(!chain.is_quick(), "nothing is known of it");
        chain.note_pace(QUICK / 4);
        assert!(chain.is_quick());
        chain.note_pace(QUICK * 4);
        assert!(chain.is_quick(), "one slow piece is no pace");
        for _ in 0..PACE_PIECES {
            chain.note_pace(QUICK * 4);
        }
        assert!(!chain.is_quick());
        for _ in 0..PACE_PIECES * 4 {
            chain.note_pace(QUICK / 4);
        }
        assert!(chain.is_quick(), "it may become quick again");
    }
}
