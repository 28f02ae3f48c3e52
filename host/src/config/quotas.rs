//! `quotas:` how much each tenant may send and keep.

use super::identity::TENANT_NAME;
use super::node::Value;
use super::read::{Table, Wrong, count, duration, size, text};
use crate::batch::TenantId;
use crate::tenants::{Quota, QuotaSettings};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is owed is counted exactly up to this; and whoever needs more at once needs another rate.
const BURST_MAX: Duration = Duration::from_secs(86_400);

pub(super) fn read(table: Table<'_>) -> QuotaSettings {
    let usual = Quota::default();
    let default = table.table("default").map_or(usual, |default| read_quota(default, usual));
    let mut tenants = BTreeMap::new();
    if let Some(section) = table.table("tenants") {
        for (name, at, node) in section.all() {
            let quota = read_quota(section.reader.table(&section.path(name), node), default);
            match TenantId::new(name) {
                Ok(tenant) => drop(tenants.insert(tenant, quota)),
                Err(_) => {
                    section.reader.fault(*at, &section.path(name), "is no name of a tenant", TENANT_NAME)
                }
            }
        }
    }
    table.finish(&["default", "tenants"]);
    QuotaSettings { default, tenants }
}

/// What does not stand there is as in `usual`.
fn read_quota(table: Table<'_>, usual: Quota) -> Quota {
    let bytes =
        |value: &Value| limit(value, size, "what may come in a second, with its unit: 10MiB; or none");
    let records = |value: &Value| limit(value, count, "how many may come in a second: 20000; or none");
    let journal = |value: &Value| limit(value, size, "a size with its unit: 1GiB; or none");
    let quota = Quota {
        bytes: table.optional("bytes", bytes).unwrap_or(usual.bytes),
        records: table.optional("records", records).unwrap_or(usual.records),
        burst: table.optional("burst", burst).unwrap_or(usual.burst),
        journal_bytes: table.optional("journal", journal).unwrap_or(usual.journal_bytes),
    };
    table.finish(&["bytes", "records", "burst", "journal"]);
    quota
}

/// `none` lifts the limit that `default` has.
fn limit<T: TryInto<u64>>(
    value: &Value,
    read: impl Fn(&Value) -> Result<T, Wrong>,
    right: &str,
) -> Result<Option<u64>, Wrong> {
    if text(value).is_ok_and(|word| word == "none") {
        return Ok(None);
    }
    let (wrong, _) = match read(value).map(TryInto::try_into) {
        Ok(Ok(limit)) if limit > 0 => return Ok(Some(limit)),
        Ok(_) => (format!("{} lets nothing through", value.shown()), String::new()),
        Err(wrong) => wrong,
    };
    Err((wrong, right.into()))
}

fn burst(value: &Value) -> Result<Duration, Wrong> {
    let right = "how long a sender's backlog may be that comes at once: 10s; a day at most";
    let burst = duration(value).map_err(|(wrong, _)| (wrong, right.to_owned()))?;
    if burst.is_zero() || burst > BURST_MAX {
        let wrong = if burst.is_zero() { "lets nothing through" } else { "is longer than a day" };
        return Err((format!("{} {wrong}", value.shown()), right.into()));
    }
    Ok(burst)
}
