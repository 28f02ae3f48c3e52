//! What of the ledger outlives the process: the second and the third line.
//!
//! The first line is a process's own. It begins with what was acknowledged before, so that it adds up as well.

use super::{Account, Counts, Key, Ledger, SinkAccount, add, signed};
use crate::journal::SinkId;
use std::collections::BTreeMap;

/// Of one tenant's one signal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::journal) struct Kept {
    pub(in crate::journal) acknowledged: u64,
    pub(in crate::journal) unrouted: u64,
    pub(in crate::journal) committed: u64,
    pub(in crate::journal) added: Counts,
    pub(in crate::journal) filtered: Counts,
    pub(in crate::journal) dropped: Counts,
    /// By the numbers that the journal gave to their names.
    pub(in crate::journal) sinks: BTreeMap<u16, KeptSink>,
}

/// Of one sink. What is missing from `committed` is in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::journal) struct KeptSink {
    pub(in crate::journal) committed: u64,
    pub(in crate::journal) delivered: u64,
    pub(in crate::journal) unsupported: u64,
    pub(in crate::journal) rejected: Counts,
    pub(in crate::journal) expired: Counts,
    /// What is in flight is charged for so many.
    pub(in crate::journal) in_flight_bytes: u64,
}

impl Kept {
    /// As the ledger does when the entry is committed.
    pub(in crate::journal) fn settle(&mut self, outcome: &super::Outcome) {
        self.acknowledged += outcome.acknowledged;
        self.unrouted += outcome.unrouted;
        add(&mut self.added, &outcome.added);
        add(&mut self.filtered, &outcome.filtered);
        add(&mut self.dropped, &outcome.dropped);
    }

    pub(in crate::journal) fn commit(&mut self, sinks: &[u16], records: u64, charge: u64) {
        self.committed += records;
        for sink in sinks {
            let sink = self.sinks.entry(*sink).or_default();
            sink.committed += records;
            sink.in_flight_bytes += charge;
        }
    }
}

impl KeptSink {
    fn is_empty(&self) -> bool {
        *self == KeptSink::default()
    }

    fn in_flight(&self) -> i64 {
        let counted = |counts: &Counts| counts.values().copied().map(signed).sum::<i64>();
        let done = signed(self.delivered) + signed(self.unsupported);
        signed(self.committed) - done - counted(&self.rejected) - counted(&self.expired)
    }
}

impl Ledger {
    /// Takes what a process before left. `numbers` are those of the sinks.
    pub(in crate::journal) fn restore(&self, accounts: impl Iterator<Item = (Key, Kept)>, numbers: &[u16]) {
        let mut state = self.state();
        for (key, kept) in accounts {
            let sink = |number: &u16| kept.sinks.get(number).cloned().unwrap_or_default();
            let account = Account {
                received: kept.acknowledged,
                acknowledged: kept.acknowledged,
                added: kept.added,
                filtered: kept.filtered,
                dropped: kept.dropped,
                unrouted: kept.unrouted,
                committed: kept.committed,
                sinks: numbers.iter().map(sink).map(SinkAccount::from).collect(),
                ..Account::default()
            };
            state.accounts.insert(key, account);
        }
    }

    /// All accounts, or those that changed since the last call.
    pub(in crate::journal) fn kept(&self, is_full: bool, numbers: &[u16]) -> Vec<(Key, Kept)> {
        let mut kept = Vec::new();
        for (key, account) in &mut self.state().accounts {
            if std::mem::take(&mut account.is_changed) || is_full {
                kept.push((key.clone(), account.kept(numbers)));
            }
        }
        kept
    }

    /// What is in flight to this sink, of all tenants, expires; how many records that were.
    pub(in crate::journal) fn expire_in_flight(&self, sink: SinkId, reason: &'static str) -> i64 {
        let mut records = 0;
        for account in self.state().accounts.values_mut() {
            let Some(of) = account.sinks.get_mut(usize::from(sink.0)) else { continue };
            if let Ok(lost @ 1..) = u64::try_from(of.in_flight) {
                records += of.in_flight;
                (of.in_flight, of.in_flight_bytes) = (0, 0);
                *of.expired.entry(reason.into()).or_default() += lost;
                account.is_changed = true;
            }
        }
        records
    }
}

impl Account {
    fn kept(&self, numbers: &[u16]) -> Kept {
        let sinks = numbers.iter().zip(&self.sinks).map(|(number, sink)| (*number, KeptSink::from(sink)));
        Kept {
            acknowledged: self.acknowledged,
            unrouted: self.unrouted,
            committed: self.committed,
            added: self.added.clone(),
            filtered: self.filtered.clone(),
            dropped: self.dropped.clone(),
            sinks: sinks.filter(|(_, sink)| !sink.is_empty()).collect(),
        }
    }
}

impl From<KeptSink> for SinkAccount {
    fn from(kept: KeptSink) -> SinkAccount {
        let in_flight = kept.in_flight();
        let KeptSink { committed, delivered, unsupported, rejected, expired, in_flight_bytes } = kept;
        SinkAccount { committed, delivered, rejected, unsupported, expired, in_flight, in_flight_bytes }
    }
}

impl From<&SinkAccount> for KeptSink {
    fn from(sink: &SinkAccount) -> KeptSink {
        KeptSink {
            committed: sink.committed,
            delivered: sink.delivered,
            unsupported: sink.unsupported,
            rejected: sink.rejected.clone(),
            expired: sink.expired.clone(),
            in_flight_bytes: sink.in_flight_bytes,
        }
    }
}
