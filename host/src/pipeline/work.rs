//! One request on its way from bytes to a frame: check, admit, process, route.
//!
//! The way is cut into steps (a piece through a chain is one), so that whoever works on it can stop between two of
//! them and let another tenant's go first.

use super::chain::{self, Begun, Chain, Missing, Stopped};
use super::left::Leavings;
use super::record::Taken;
use super::route::Plan;
use super::submit::Shared;
use super::tally::Tally;
use super::{Arrangement, Refusal};
use crate::batch::{Batch, Malformed, Piece, Request, Signal, TenantId, Written};
use crate::journal::{FramePart, Outcome};
use crate::sandbox::Plugin;
use crate::tenants::{Caller, OverQuota, Part, Terms};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A piece: what one plugin call reads. Small enough that a call's limits hold for it, large enough that the call
/// itself costs nothing.
pub const PIECE_RECORDS_MAX: usize = 512;
pub const PIECE_BYTES_MAX: usize = 256 << 10;

/// A pipeline as requests take it.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) name: String,
    pub(super) plan: Plan,
    pub(super) chain: Chain,
}

/// Everything that a configuration decides about the way; a request keeps the one it began with.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) ways: Vec<Way>,
    /// Plugins that look at windows.
    pub(super) ticking: Vec<Plugin>,
    /// What `ways` were made from.
    pub(super) arrangement: Arc<Arrangement>,
}

impl Snapshot {
    /// The first that fits.
    fn way(&self, signal: Signal, tenant: &TenantId) -> Option<usize> {
        self.ways.iter().position(|way| way.plan.fits(signal, tenant))
    }
}

/// A request that was admitted.
#[derive(Debug)]
pub(super) struct Work {
    shared: Arc<Shared>,
    snapshot: Arc<Snapshot>,
    /// So that a small part of it does not keep the whole body in memory.
    body: Bytes,
    waiting: VecDeque<Part>,
    at: Option<InChain>,
    made: Made,
}

/// What the steps made so far.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) tally: Tally,
    pub(super) parts: Vec<FramePart>,
    pub(super) left: Leavings,
    /// The first plugin that had to be called and could not be.
    pub(super) uncallable: Option<NotCalled>,
    /// A tenant whose records were left out by its quota.
    pub(super) over_quota: Option<OverQuota>,
}

/// A plugin that could not be called, and how long it will be so, where that is known.
#[derive(Debug)]
pub(super) struct NotCalled {
    pub(super) name: String,
    pub(super) after: Duration,
}

/// A batch between two pieces.
#[derive(Debug)]
struct InChain {
    way: usize,
    /// The recordings that take it.
    taken: Option<Taken>,
    batch: Batch,
    /// Of its tenant, when it began.
    before: Outcome,
    waiting: VecDeque<Piece>,
    begun_by: Begun,
    done: Vec<Piece>,
}

impl Work {
    /// Checks and admits. Half a millisecond for each megabyte or so.
    pub(super) fn begin(
        shared: &Arc<Shared>,
        signal: Signal,
        body: Bytes,
        caller: &Caller,
    ) -> Result<Work, Malformed> {
        let request = Request::check(signal, body)?;
        let body = request.bytes.clone();
        let terms = Terms {
            record_bytes_max: shared.settings.record_bytes_max,
            now: Instant::now(),
            held_bytes: &|tenant| shared.journal.ledger.held_bytes(tenant),
        };
        let admitted = shared.tenants.admit(request, caller, &terms);
        let tally = Tally::open(&shared.journal.ledger, signal, &admitted);
        let left = Leavings::new(body.len());
        Ok(Work {
            shared: shared.clone(),
            snapshot: shared.snapshot.load_full(),
            body,
            waiting: admitted.parts.into(),
            at: None,
            made: Made { tally, parts: Vec::new(), left, uncallable: None, over_quota: admitted.over_quota },
        })
    }

    /// Of records that were admitted and committed before, and are to pass the plugins again.
    pub(super) fn again(shared: &Arc<Shared>, batch: Batch) -> Work {
        let tally = Tally::again(&shared.journal.ledger, batch.signal, &batch.stream.tenant, batch.records);
        let left = Leavings::new(batch.bytes.len());
        let (body, received) = (batch.bytes.clone(), batch.records);
        Work {
            shared: shared.clone(),
            snapshot: shared.snapshot.load_full(),
            body,
            waiting: VecDeque::from([Part { batch, received, overwritten: 0, mended: 0 }]),
            at: None,
            made: Made { tally, parts: Vec::new(), left, uncallable: None, over_quota: None },
        }
    }

    /// Whether what is left takes so little that it need not leave the executor: no plugin is to be called for it, or
    /// it is a piece or two for plugins that are known to be quick.
    pub(super) fn is_small(&self, bytes_max: usize) -> bool {
        let is_quick = self.body.len() <= chain::SMALL_BYTES_MAX && self.waiting.len() <= 2;
        let is_light = |part: &Part| {
            let way = self.snapshot.way(part.batch.signal, &part.batch.stream.tenant);
            let chain = way.map(|way| &self.snapshot.ways[way].chain);
            chain.is_none_or(|chain| chain.is_idle(part.batch.signal) || is_quick && chain.is_quick())
        };
        self.body.len() <= bytes_max && self.at.is_none() && self.waiting.iter().all(is_light)
    }

    pub(super) fn is_done(&self) -> bool {
        self.at.is_none() && self.waiting.is_empty()
    }

    /// The tenant whose records are next.
    pub(super) fn tenant(&self) -> Option<&TenantId> {
        let at = self.at.as_ref().map(|at| &at.batch.stream.tenant);
        at.or_else(|| self.waiting.front().map(|part| &part.batch.stream.tenant))
    }

    /// Works until it is done, or `is_enough` says so between two steps; it is told whether the next one is another
    /// tenant's than the first was.
    pub(super) fn advance(&mut self, is_enough: impl Fn(bool) -> bool) {
        let first = self.tenant().cloned();
        while !self.is_done() {
            self.step();
            let is_others = self.tenant() != first.as_ref();
            if is_enough(is_others) {
                return;
            }
        }
    }

    fn step(&mut self) {
        match self.at.take() {
            Some(at) => self.step_in_chain(at),
            None => {
                if let Some(part) = self.waiting.pop_front() {
                    self.choose(part.batch);
                }
            }
        }
    }

    fn choose(&mut self, batch: Batch) {
        let (records, tenant) = (u64::from(batch.records), batch.stream.tenant.clone());
        if records == 0 {
            return;
        }
        self.made.left.begin_batch();
        let Some(way) = self.snapshot.way(batch.signal, &tenant) else {
            self.made.tally.outcome(&tenant).unrouted += records;
            return;
        };
        match self.snapshot.ways[way].chain.missing() {
            Missing::Nothing => {
                self.made.left.keep(self.snapshot.ways[way].chain.pass_by(records, &tenant));
                self.enter(way, batch);
            }
            Missing::Refuse { name } => {
                self.made.tally.take_back(&tenant, records, format!("plugin_not_loaded:{name}"));
                self.made.uncallable.get_or_insert(NotCalled { name, after: Duration::ZERO });
            }
            Missing::Drop { name } => {
                let dropped = &mut self.made.tally.outcome(&tenant).dropped;
                *dropped.entry(format!("plugin_not_loaded:{name}").into()).or_default() += records;
            }
        }
    }

    fn enter(&mut self, way: usize, batch: Batch) {
        let Way { name, chain, .. } = &self.snapshot.ways[way];
        let taken = self.shared.taps.of(name, &batch).filter(|_| chain.tapped_at().is_some());
        let waiting = match chain.is_idle(batch.signal) && taken.is_none() {
            true => VecDeque::new(),
            false => batch.pieces(PIECE_RECORDS_MAX, PIECE_BYTES_MAX).into(),
        };
        let done = Vec::with_capacity(waiting.len());
        let before = self.made.tally.outcome(&batch.stream.tenant).clone();
        let begun_by = Begun::default();
        self.step_in_chain(InChain { way, taken, batch, before, waiting, begun_by, done });
    }

    /// The next piece, or the end of the chain after the last.
    fn step_in_chain(&mut self, mut at: InChain) {
        if let Some(piece) = at.waiting.pop_front() {
            let now_ns = (self.shared.clock)().saturating_mul(1_000_000);
            let chain = &self.snapshot.ways[at.way].chain;
            let tenant = &at.batch.stream.tenant;
            let keys = &self.shared.settings.identity;
            let when = (now_ns, &mut at.begun_by);
            let taken = at.taken.as_ref();
            match chain.run(piece, when, tenant, keys, &mut self.made.tally, taken) {
                Ok((piece, left)) => {
                    at.done.push(piece);
                    self.made.left.keep(left);
                }
                Err(stopped) => return self.turn_back(at, stopped),
            }
        }
        if !at.waiting.is_empty() {
            self.at = Some(at);
            return;
        }
        let written = at.batch.written(at.done, &self.shared.settings.identity);
        self.count_restored(written.restored, at.way);
        self.route(at.way, written);
    }

    /// A plugin that must be called cannot be any more: nothing of the batch is left, and its records may come again. Those
    /// that were refused meanwhile are refused for good.
    fn turn_back(&mut self, at: InChain, stopped: Stopped) {
        let Stopped { name, why, after } = stopped;
        let (tenant, records) = (&at.batch.stream.tenant, u64::from(at.batch.records));
        let outcome = self.made.tally.outcome(tenant);
        let acknowledged = outcome.acknowledged;
        let refused = at.before.acknowledged.saturating_sub(acknowledged);
        *outcome = Outcome { acknowledged, ..at.before };
        self.made.left.forget_batch();
        let reason = format!("plugin_{}:{name}", why.word());
        self.made.tally.take_back(tenant, records.saturating_sub(refused), reason);
        self.made.uncallable.get_or_insert(NotCalled { name, after });
    }

    /// Each plugin's part is counted with its effects. One that only doubled an attribute is not seen to be wrong in its
    /// turn: then all of the chain are named.
    fn count_restored(&self, restored: u32, way: usize) {
        if restored > 0 && !self.made.left.is_any_forged() {
            let plugin = self.snapshot.ways[way].chain.names().join(",");
            let family = &self.shared.metrics.process_restored;
            family.get_or_create(&vec![("plugin", plugin)]).inc_by(restored.into());
        }
    }

    fn route(&mut self, way: usize, written: Written) {
        for (sinks, batch) in self.snapshot.ways[way].plan.partition(written) {
            if sinks.is_empty() {
                let outcome = self.made.tally.outcome(&batch.stream.tenant);
                outcome.unrouted += u64::from(batch.records);
                continue;
            }
            let bytes = self.own(batch.bytes);
            let Batch { stream, signal, records, .. } = batch;
            self.made.parts.push(FramePart { stream, signal, bytes, records, sinks });
        }
    }

    /// The bytes to keep: a copy where they are a small slice of the request, which they would keep alive whole.
    fn own(&self, bytes: Bytes) -> Bytes {
        let is_slice = self.body.as_ptr_range().contains(&bytes.as_ptr());
        if is_slice && bytes.len() < self.body.len() / 2 { Bytes::copy_from_slice(&bytes) } else { bytes }
    }

    /// What all steps made.
    pub(super) fn made(self) -> Made {
        self.made
    }

    /// Refused as a whole: what is open of it is counted so.
    pub(super) fn refuse_all(self, reason: &'static str) {
        self.made.tally.refuse_all(reason);
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Refusal {
        Refusal::Malformed { offset: malformed.offset, expected: malformed.expected.to_owned() }
    }
}
