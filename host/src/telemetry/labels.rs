//! Which tenants have a label value of their own: one set for all metrics, so that their sums can be compared.

use std::collections::HashSet;
use std::sync::{Arc, RwLock};

/// More would make a scrape as large as a batch.
const TENANTS_MAX: usize = 200;
/// The value of all others; sums stay exact.
pub const OTHERS: &str = "_other";

/// The values of the label `tenant` that were given away. One that was given stays, or `_other` would run backwards.
/// Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct TenantLabels {
    own: Arc<RwLock<HashSet<String>>>,
}

impl TenantLabels {
    /// Gives a tenant its own value, if there is one left. For tenants that are known to be worth one: names that a
    /// sender can invent must not take them all.
    pub fn give(&self, tenant: &str) {
        if self.has(tenant) {
            return;
        }
        let mut own = self.own.write().expect("nothing panics while the labels are locked");
        if own.len() < TENANTS_MAX {
            own.insert(tenant.to_owned());
        }
    }

    /// Whether a tenant has its own value.
    pub fn has(&self, tenant: &str) -> bool {
        self.own.read().expect("nothing panics while the labels are locked").contains(tenant)
    }

    /// A tenant's value: its own, or that of all others.
    pub fn of<'t>(&self, tenant: &'t str) -> &'t str {
        if self.has(tenant) { tenant } else { OTHERS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_hundred_and_first_tenant_has_the_label_of_the_others() {
        let labels = TenantLabels::default();
        assert_eq!(labels.of("t0"), OTHERS, "nobody gave it one");
        for number in 0..=TENANTS_MAX {
            labels.clone().give(&format!("t{number}"));
        }
        assert_eq!((labels.of("t0"), labels.of("t199"), labels.of("t200")), ("t0", "t199", OTHERS));
    }
}
