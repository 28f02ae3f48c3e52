//! What becomes of the records of one request, by tenant, until the commit.

use super::Receipt;
use crate::batch::{Signal, TenantId};
use crate::journal::{Ledger, Outcome, Pending, Reason};
use crate::tenants::Admitted;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// In the ledger, under `added`.
pub(super) const REPLAY: &str = "replay";
/// The message of a partial success names so many reasons.
const REASONS_SHOWN_MAX: usize = 10;

#[derive(Debug)]
pub(super) struct Tally {
    tenants: BTreeMap<TenantId, Account>,
    /// Left out for good, by reason, over all tenants.
    refused: BTreeMap<Reason, u64>,
}

#[derive(Debug)]
struct Account {
    pending: Pending,
    outcome: Outcome,
}

impl Tally {
    /// Counts what was admitted as received, and what was not as refused.
    pub(super) fn open(ledger: &Arc<Ledger>, signal: Signal, admitted: &Admitted) -> Tally {
        let mut received: BTreeMap<&TenantId, u64> = BTreeMap::new();
        for part in &admitted.parts {
            *received.entry(&part.batch.stream.tenant).or_default() += u64::from(part.received);
        }
        for part in &admitted.refused {
            // Records that are too large belong to a part, and are among those that it received.
            let records = if part.reason == "record_too_large" { 0 } else { part.records };
            *received.entry(&part.tenant).or_default() += u64::from(records);
        }
        let account = |(tenant, records): (&TenantId, u64)| {
            let pending = ledger.receive(tenant, signal, records);
            (tenant.clone(), Account { pending, outcome: Outcome::default() })
        };
        let mut tally =
            Tally { tenants: received.into_iter().map(account).collect(), refused: BTreeMap::new() };
        for part in &admitted.refused {
            tally.refuse(&part.tenant, part.records.into(), part.reason);
        }
        for part in &admitted.parts {
            if let Some(account) = tally.tenants.get_mut(&part.batch.stream.tenant) {
                account.outcome.acknowledged += u64::from(part.batch.records);
            }
        }
        tally
    }

    /// Of records that come again from the dead letters: added, and nobody is told of them.
    pub(super) fn again(ledger: &Arc<Ledger>, signal: Signal, tenant: &TenantId, records: u32) -> Tally {
        let added = BTreeMap::from([(REPLAY.into(), records.into())]);
        let outcome = Outcome { added, ..Outcome::default() };
        let account = Account { pending: ledger.receive(tenant, signal, 0), outcome };
        Tally { tenants: BTreeMap::from([(tenant.clone(), account)]), refused: BTreeMap::new() }
    }

    /// Leaves out records that were admitted: refused by a plugin.
    ///
    /// Records that an earlier plugin made were never the sender's: what is beyond the acknowledged ones is dropped.
    pub(super) fn take_back(&mut self, tenant: &TenantId, records: u64, reason: impl Into<Reason>) {
        let Some(account) = self.tenants.get_mut(tenant) else { return };
        let reason = reason.into();
        let sent = records.min(account.outcome.acknowledged);
        account.outcome.acknowledged -= sent;
        if records > sent {
            *account.outcome.dropped.entry(reason.clone()).or_default() += records - sent;
        }
        self.refuse(tenant, sent, reason);
    }

    fn refuse(&mut self, tenant: &TenantId, records: u64, reason: impl Into<Reason>) {
        let reason = reason.into();
        if let Some(account) = self.tenants.get_mut(tenant).filter(|_| records > 0) {
            account.pending.refuse(records, reason.clone());
            *self.refused.entry(reason).or_default() += records;
        }
    }

    /// The second line of this tenant.
    pub(super) fn outcome(&mut self, tenant: &TenantId) -> &mut Outcome {
        &mut self.tenants.get_mut(tenant).expect("every part's tenant has an account").outcome
    }

    /// What is still open of all of it is refused.
    pub(super) fn refuse_all(self, reason: &'static str) {
        for mut account in self.tenants.into_values() {
            account.pending.refuse(account.pending.open(), reason);
        }
    }

    /// Whether records are left that the sender is told "yes" for.
    pub(super) fn is_anything_acknowledged(&self) -> bool {
        self.tenants.values().any(|account| account.outcome.acknowledged > 0)
    }

    pub(super) fn receipt(&self) -> Receipt {
        let rejected = self.refused.values().sum();
        let mut message = String::new();
        for (at, (reason, records)) in self.refused.iter().take(REASONS_SHOWN_MAX).enumerate() {
            let between = if at == 0 { "" } else { "; " };
            let _ = write!(message, "{between}{records} records left out: {}", explain(reason));
        }
        Receipt { rejected, message }
    }

    pub(super) fn settled(self) -> Vec<(Pending, Outcome)> {
        self.tenants.into_values().map(|account| (account.pending, account.outcome)).collect()
    }
}

/// A reason as a sentence for the sender's operator.
fn explain(reason: &Reason) -> String {
    let text = match &**reason {
        "no_tenant" => "their resource names no tenant",
        "unknown_tenant" => "this credential does not speak for their tenant",
        "identity_conflict" => "their resource names two tenants or projects, or one that is no text",
        "project_not_covered" => "this credential does not cover their project",
        "too_many_tenants" => "there are too many tenants",
        "too_many_projects" => "their tenant has too many projects",
        "record_too_large" => "larger than a record may be",
        "quota_bytes" => "their tenant sends more bytes than its quota",
        "quota_records" => "their tenant sends more records than its quota",
        "quota_journal" => "their tenant holds its share of the journal",
        other => {
            return match other.split_once(':') {
                Some(("plugin", name)) => format!("plugin `{name}` failed on them"),
                Some(("plugin_not_loaded", name)) => format!("plugin `{name}` is not loaded"),
                Some(("plugin_restarting" | "plugin_circuit_open", name)) => {
                    format!("plugin `{name}` failed too often, and is left alone for a while")
                }
                Some(("plugin_over_cpu", name)) => format!("plugin `{name}` has used up its CPU time"),
                _ => other.to_owned(),
            };
        }
    };
    text.to_owned()
}
