//! How many view, in all and of each tenant: one tenant's viewers never take the places of another's.

use super::StreamsError;
use crate::batch::TenantId;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

/// The places that are taken.
#[derive(Debug, Default)]
pub(super) struct Viewers(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of: HashMap<TenantId, usize>,
}

impl Viewers {
    /// Takes a place, which [`Viewers::leave`] gives back.
    pub(super) fn enter(
        &self,
        tenant: &TenantId,
        max: usize,
        of_tenant_max: usize,
    ) -> Result<(), StreamsError> {
        let mut taken = self.taken();
        if taken.all >= max {
            return Err(StreamsError::TooManyViewers(max));
        }
        let of = taken.of.entry(tenant.clone()).or_default();
        if *of >= of_tenant_max {
            return Err(StreamsError::TooManyViewersOfTenant(of_tenant_max));
        }
        *of += 1;
        taken.all += 1;
        Ok(())
    }

    pub(super) fn leave(&self, tenant: &TenantId) {
        let mut taken = self.taken();
        taken.all -= 1;
        if let Some(of) = taken.of.get_mut(tenant) {
            *of -= 1;
            if *of == 0 {
                taken.of.remove(tenant);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn number(&self) -> usize {
        self.taken().all
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().expect("no panic while viewers are counted")
    }
}
