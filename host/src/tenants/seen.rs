//! Which tenants and projects were seen, bounded: names that a sender can invent must not fill the memory.

use crate::batch::Stream;
use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::RwLock;

/// Tenants that senders who speak for others may bring.
pub(super) const TENANTS_MAX: usize = 10_000;
/// Projects of one tenant.
pub(super) const PROJECTS_MAX: usize = 1_000;

/// Names are kept as keyed 64-bit hashes: ten million names of 128 bytes would be more than the room.
#[derive(Debug, Default)]
pub(super) struct Seen {
    hasher: RandomState,
    projects: RwLock<HashMap<u64, HashSet<u64>>>,
}

impl Seen {
    /// Notes a stream; the reason when it is one too many.
    ///
    /// A tenant with a credential of its own (`is_invited`) is never one too many: senders who speak for others
    /// cannot keep it out by inventing names.
    pub(super) fn note(&self, stream: &Stream, is_invited: bool) -> Result<(), &'static str> {
        let tenant = self.hasher.hash_one(&stream.tenant);
        let project = self.hasher.hash_one(&stream.project);
        let is_known = |projects: &HashMap<u64, HashSet<u64>>| {
            projects.get(&tenant).is_some_and(|projects| projects.contains(&project))
        };
        if is_known(&self.projects.read().expect("nothing panics while the names are locked")) {
            return Ok(());
        }
        let mut tenants = self.projects.write().expect("nothing panics while the names are locked");
        let tenants_count = tenants.len();
        let projects = match tenants.entry(tenant) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if tenants_count >= TENANTS_MAX && !is_invited => {
                return Err("too_many_tenants");
            }
            Entry::Vacant(new) => new.insert(HashSet::new()),
        };
        if projects.len() >= PROJECTS_MAX && !projects.contains(&project) {
            return Err("too_many_projects");
        }
        projects.insert(project);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{ProjectId, TenantId};

    fn stream(tenant: &str, project: &str) -> Stream {
        Stream { tenant: TenantId::new(tenant).unwrap(), project: ProjectId::new(project).unwrap() }
    }

    #[test]
    fn the_tenant_after_the_last_is_refused_and_the_known_ones_are_not() {
        let seen = Seen::default();
        for number in 0..TENANTS_MAX {
            assert_eq!(seen.note(&stream(&format!("t{number}"), "p"), false), Ok(()));
        }
        assert_eq!(seen.note(&stream("one-more", "p"), false), Err("too_many_tenants"));
        assert_eq!(seen.note(&stream("t0", "p"), false), Ok(()));
        assert_eq!(seen.note(&stream("t0", "another"), false), Ok(()));
    }

    #[test]
    fn a_tenant_with_its_own_credential_is_never_kept_out() {
        let seen = Seen::default();
        for number in 0..TENANTS_MAX {
            seen.note(&stream(&format!("t{number}"), "p"), false).unwrap();
        }
        assert_eq!(seen.note(&stream("invited", "p"), true), Ok(()));
    }

    #[test]
    fn the_project_after_the_last_is_refused_for_its_tenant_alone() {
        let seen = Seen::default();
        for number in 0..PROJECTS_MAX {
            assert_eq!(seen.note(&stream("acme", &format!("p{number}")), true), Ok(()));
        }
        assert_eq!(seen.note(&stream("acme", "one-more"), true), Err("too_many_projects"));
        assert_eq!(seen.note(&stream("acme", "p0"), true), Ok(()));
        assert_eq!(seen.note(&stream("globex", "one-more"), true), Ok(()));
    }
}
