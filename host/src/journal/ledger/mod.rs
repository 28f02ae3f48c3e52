//! The ledger: every record is somewhere, and each line adds up to zero unaccounted.
//!
//! In records, per tenant and signal:
//!
//! - received = acknowledged + refused(reason) + cancelled + in process; of this process, and with what was
//!   acknowledged before it on both sides
//! - acknowledged + added(plugin) = filtered(plugin) + dropped(reason) + unrouted + committed
//! - per sink: committed to it = delivered + rejected(reason) + unsupported + dead-lettered(reason) + expired(reason)
//!   + in flight
//!
//! Both sides of each line are counted by different hands and never computed from each other: what is lacking shows
//! as unaccounted. All changes of one event are made under one lock, so a reader never sees half of it. A record that
//! goes to two sinks counts once in the second line, and once for each of them in the third.
//!
//! Tenants are bounded by `tenants`, reasons and plugins by the configuration.

mod kept;
mod table;

pub(super) use kept::{Kept, KeptSink};
pub use table::{LedgerTable, Line, LineTable, SinkTable};

use super::queue::{charge, charge_of};
use super::{FramePart, SinkId};
use crate::batch::{Entry, Signal, TenantId};
use crate::telemetry::TenantLabels;
use arc_swap::ArcSwap;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

/// Why, as the value of a label: a fixed word, or one with a plugin's name. Never a text from outside.
pub type Reason = Cow<'static, str>;

/// Counts of records by reason or plugin.
type Counts = BTreeMap<Reason, u64>;
pub(super) type Key = (TenantId, Signal);

/// The account of all records: of this process and, where the journal is on disk, of those before it.
#[derive(Debug)]
pub struct Ledger {
    sinks: ArcSwap<Vec<String>>,
    state: Mutex<State>,
    labels: TenantLabels,
}

#[derive(Debug, Default)]
struct State {
    accounts: HashMap<Key, Account>,
}

/// One tenant's one signal.
#[derive(Clone, Debug, Default)]
struct Account {
    received: u64,
    acknowledged: u64,
    refused: Counts,
    cancelled: u64,
    in_process: i64,
    added: Counts,
    filtered: Counts,
    dropped: Counts,
    unrouted: u64,
    committed: u64,
    sinks: Vec<SinkAccount>,
    /// In the second or the third line, since the last marks.
    is_changed: bool,
}

/// What one sink was given of it.
#[derive(Clone, Debug, Default)]
struct SinkAccount {
    committed: u64,
    delivered: u64,
    rejected: Counts,
    unsupported: u64,
    dead_lettered: Counts,
    expired: Counts,
    in_flight: i64,
    /// What the journal charges for these.
    in_flight_bytes: u64,
}

/// What became of the records of one [`Pending`], after it was acknowledged: the second line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub acknowledged: u64,
    /// By the plugin that made them.
    pub added: BTreeMap<Reason, u64>,
    /// By the plugin that dropped them, as it is made to.
    pub filtered: BTreeMap<Reason, u64>,
    /// By reason: a plugin failed on them, and its policy is to drop.
    pub dropped: BTreeMap<Reason, u64>,
    pub unrouted: u64,
}

/// What became of an entry at one sink. The parts add up to the entry's records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub delivered: u64,
    pub rejected: BTreeMap<Reason, u64>,
    /// The sink has no form for them.
    pub unsupported: u64,
    /// The sink refused them for good, and they are kept as dead letters.
    pub dead_lettered: BTreeMap<Reason, u64>,
    pub expired: BTreeMap<Reason, u64>,
}

impl Done {
    pub fn delivered(records: u32) -> Done {
        Done { delivered: records.into(), ..Done::default() }
    }

    pub fn rejected(records: u32, reason: impl Into<Reason>) -> Done {
        Done { rejected: BTreeMap::from([(reason.into(), records.into())]), ..Done::default() }
    }

    pub fn dead_lettered(records: u32, reason: impl Into<Reason>) -> Done {
        Done { dead_lettered: BTreeMap::from([(reason.into(), records.into())]), ..Done::default() }
    }

    pub fn expired(records: u32, reason: impl Into<Reason>) -> Done {
        Done { expired: BTreeMap::from([(reason.into(), records.into())]), ..Done::default() }
    }

    /// Adds what became of other records of the same entry.
    pub fn add(&mut self, other: &Done) {
        self.delivered += other.delivered;
        self.unsupported += other.unsupported;
        add(&mut self.rejected, &other.rejected);
        add(&mut self.dead_lettered, &other.dead_lettered);
        add(&mut self.expired, &other.expired);
    }
}

impl Ledger {
    /// `sinks` by their numbers. At each scrape the busiest tenants get one of the `labels`.
    pub fn new(sinks: &[String], labels: TenantLabels) -> Arc<Ledger> {
        Arc::new(Ledger { sinks: ArcSwap::from_pointee(sinks.to_vec()), state: Mutex::default(), labels })
    }

    /// Counts records as received and in process. Dropped before it is settled, the rest is counted cancelled.
    pub fn receive(self: &Arc<Ledger>, tenant: &TenantId, signal: Signal, records: u64) -> Pending {
        let key = (tenant.clone(), signal);
        let mut state = self.state();
        let account = state.account(&key);
        account.received += records;
        account.in_process += signed(records);
        drop(state);
        Pending { ledger: self.clone(), key, open: records }
    }

    /// Moves records from in process to where they went, and counts what the journal took, all at one moment.
    pub(super) fn settle(&self, settled: Vec<(Pending, Outcome)>, parts: &[FramePart]) {
        let sinks = self.sinks.load().len();
        let mut state = self.state();
        for (pending, outcome) in &settled {
            state.account(&pending.key).settle(outcome);
        }
        for part in parts {
            let account = state.account(&(part.stream.tenant.clone(), part.signal));
            account.commit(part, sinks);
        }
        drop(state);
        for (mut pending, outcome) in settled {
            // What is still open was neither refused nor acknowledged: its `Drop` counts it cancelled.
            pending.open = pending.open.saturating_sub(outcome.acknowledged);
        }
    }

    /// Moves an entry's records from in flight to where they went.
    pub(super) fn done(&self, sink: SinkId, entry: &Entry, done: &Done) {
        let key = (entry.stream.tenant.clone(), entry.signal);
        let mut state = self.state();
        let account = state.account(&key);
        account.is_changed = true;
        let account = account.sink(sink, self.sinks.load().len());
        account.in_flight -= i64::from(entry.records);
        account.in_flight_bytes = account.in_flight_bytes.saturating_sub(charge(entry) as u64);
        account.delivered += done.delivered;
        account.unsupported += done.unsupported;
        add(&mut account.rejected, &done.rejected);
        add(&mut account.dead_lettered, &done.dead_lettered);
        add(&mut account.expired, &done.expired);
    }

    /// What the journal is charged for this tenant's records that sinks still have to take, in bytes; once for each
    /// sink.
    pub fn held_bytes(&self, tenant: &TenantId) -> u64 {
        let state = self.state();
        let accounts = Signal::ALL.map(|signal| state.accounts.get(&(tenant.clone(), signal)));
        let sinks = accounts.iter().flatten().flat_map(|account| &account.sinks);
        sinks.map(|sink| sink.in_flight_bytes).sum()
    }

    /// All lines as they are now, largest tenants first.
    pub fn snapshot(&self) -> LedgerTable {
        table::snapshot(&self.state(), &self.sinks.load())
    }

    /// The names of the sinks, by their numbers: those that were there, and new ones behind them.
    pub(super) fn name_sinks(&self, names: Vec<String>) {
        self.sinks.store(Arc::new(names));
    }

    fn refuse(&self, key: &Key, records: u64, reason: Reason) {
        let mut state = self.state();
        let account = state.account(key);
        account.in_process -= signed(records);
        *account.refused.entry(reason).or_default() += records;
    }

    fn cancel(&self, key: &Key, records: u64) {
        let mut state = self.state();
        let account = state.account(key);
        account.in_process -= signed(records);
        account.cancelled += records;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while the ledger is locked")
    }
}

impl State {
    fn account(&mut self, key: &Key) -> &mut Account {
        // Not `entry`: the name would be cloned each time.
        if !self.accounts.contains_key(key) {
            self.accounts.insert(key.clone(), Account::default());
        }
        self.accounts.get_mut(key).expect("inserted above")
    }
}

impl Account {
    fn settle(&mut self, outcome: &Outcome) {
        self.is_changed = true;
        self.in_process -= signed(outcome.acknowledged);
        self.acknowledged += outcome.acknowledged;
        add(&mut self.added, &outcome.added);
        add(&mut self.filtered, &outcome.filtered);
        add(&mut self.dropped, &outcome.dropped);
        self.unrouted += outcome.unrouted;
    }

    fn commit(&mut self, part: &FramePart, sinks: usize) {
        let records = u64::from(part.records);
        // What has no records is not kept.
        let charge = if records > 0 { charge_of(part.bytes.len()) as u64 } else { 0 };
        self.is_changed = true;
        self.committed += records;
        for sink in part.sinks.iter() {
            let account = self.sink(sink, sinks);
            account.committed += records;
            account.in_flight += signed(records);
            account.in_flight_bytes += charge;
        }
    }

    fn sink(&mut self, sink: SinkId, sinks: usize) -> &mut SinkAccount {
        let at = usize::from(sink.0);
        if self.sinks.len() <= at {
            self.sinks.resize(sinks.max(at + 1), SinkAccount::default());
        }
        &mut self.sinks[at]
    }
}

/// Records in process. What is neither refused nor settled when it is dropped was cancelled by its sender.
#[derive(Debug)]
#[must_use = "dropping it counts its records as cancelled"]
pub struct Pending {
    ledger: Arc<Ledger>,
    key: Key,
    open: u64,
}

impl Pending {
    pub fn tenant(&self) -> &TenantId {
        &self.key.0
    }

    pub fn signal(&self) -> Signal {
        self.key.1
    }

    /// Records that are still in process.
    pub fn open(&self) -> u64 {
        self.open
    }

    /// Leaves these records out, final for the sender. More than are open cannot be.
    pub fn refuse(&mut self, records: u64, reason: impl Into<Reason>) {
        let records = records.min(self.open);
        if records > 0 {
            self.open -= records;
            self.ledger.refuse(&self.key, records, reason.into());
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.open > 0 {
            self.ledger.cancel(&self.key, self.open);
        }
    }
}

fn add(to: &mut Counts, counts: &Counts) {
    for (reason, &records) in counts {
        if records > 0 {
            *to.entry(reason.clone()).or_default() += records;
        }
    }
}

fn signed(records: u64) -> i64 {
    i64::try_from(records).unwrap_or(i64::MAX)
}
