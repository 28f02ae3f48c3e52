//! A request is split by the identity of its resources: one batch per stream. Never waits.

use super::quota::Asked;
use super::{Caller, Names, OverQuota, Tenants, Who};
use crate::batch::{Batch, Claim, Claimed, ProjectId, Request, Stream, TenantId};
use std::collections::HashMap;
use tokio::time::Instant;

/// What a request is admitted by, beside its credential.
pub struct Terms<'t> {
    /// A larger record is left out.
    pub record_bytes_max: usize,
    /// For the quotas.
    pub now: Instant,
    /// Bytes of the journal that a tenant holds; asked only for tenants with a quota of them.
    pub held_bytes: &'t dyn Fn(&TenantId) -> u64,
}

/// What becomes of a request.
#[derive(Debug, Default)]
pub struct Admitted {
    pub parts: Vec<Part>,
    /// What was left out, for the partial success and the ledger; one entry per tenant and reason.
    pub refused: Vec<RefusedPart>,
    /// Of the tenants that are over their quota, the one that waits least: if nothing else of the request is taken, all of
    /// it may come again then, and one that sends far too much does not hold back the others.
    pub over_quota: Option<OverQuota>,
}

/// One batch, its identity attributes put right.
#[derive(Debug)]
pub struct Part {
    pub batch: Batch,
    /// Records that the sender sent for it (those over `record_max` included, which are no longer in `batch`).
    pub received: u32,
    /// Resources whose identity attributes said something else.
    pub overwritten: u32,
    /// Strings that were mended.
    pub mended: u32,
}

/// A part that stays out; final for the sender, unless the whole request may come again.
#[derive(Debug, PartialEq, Eq)]
pub struct RefusedPart {
    /// `TenantId::none()` where nobody knows.
    pub tenant: TenantId,
    pub records: u32,
    /// `no_tenant`, `unknown_tenant`, `identity_conflict`, `project_not_covered`, `too_many_tenants`,
    /// `too_many_projects`, `record_too_large`, `quota_bytes`, `quota_records`, `quota_journal`.
    pub reason: &'static str,
}

/// A resource that has no stream: its tenant as far as it is known, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcast {
    tenant: TenantId,
    reason: &'static str,
}

/// The resources of one stream, in the order of the request.
struct Group {
    stream: Stream,
    resources: Vec<usize>,
    records: u32,
    mended: u32,
}

impl Tenants {
    /// Splits a request by whose its resources are: one part per stream, in the order of their first resources,
    /// identity attributes put right, records that are too large left out, and all of tenants that are over their quota.
    pub fn admit(&self, request: Request, caller: &Caller, terms: &Terms<'_>) -> Admitted {
        if let Who::Tenant { tenant, .. } = &caller.who {
            // The configuration names it. Other tenants get a label when they are among the busiest.
            self.metrics.tenant_labels.give(tenant.as_str());
        }
        let mut refused = Refused::default();
        let mut groups = self.groups(&request, caller, &mut refused);
        let over_quota = self.charge(&request, &groups, terms);
        groups.retain(|group| {
            let over = over_quota.get(&group.stream.tenant);
            if let Some(over) = over {
                refused.add(&over.tenant, group.records, over.limited.reason());
            }
            over.is_none()
        });
        let part = |group| self.part(&request, group, terms.record_bytes_max, &mut refused);
        let parts = groups.into_iter().map(part).collect();
        let over_quota = over_quota.into_values().min_by_key(|over| over.wait);
        Admitted { parts, refused: refused.parts, over_quota }
    }

    /// Takes what the request asks of each tenant's quota; answers those that are over theirs, of which it takes nothing.
    fn charge(&self, request: &Request, groups: &[Group], terms: &Terms<'_>) -> HashMap<TenantId, OverQuota> {
        if self.quotas.is_without_limits {
            return HashMap::new();
        }
        let mut asked: HashMap<&TenantId, Asked> = HashMap::new();
        for group in groups {
            let sum = asked.entry(&group.stream.tenant).or_default();
            sum.records += u64::from(group.records);
            sum.bytes +=
                group.resources.iter().map(|&at| request.resources[at].range.len() as u64).sum::<u64>();
        }
        let over = asked
            .into_iter()
            .filter_map(|(tenant, asked)| self.quotas.take(tenant, asked, terms.held_bytes, terms.now).err());
        let over: HashMap<_, _> = over.map(|over| (over.tenant.clone(), over)).collect();
        over.values().for_each(|over| self.count_over(over));
        over
    }

    fn groups(&self, request: &Request, caller: &Caller, refused: &mut Refused) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut by_stream: HashMap<Stream, usize> = HashMap::new();
        // Most requests say the same in each resource: what was decided for the last one holds.
        let mut last: Option<(Claim, Result<usize, Outcast>)> = None;
        for (at, resource) in request.resources.iter().enumerate().filter(|(_, r)| r.records > 0) {
            let claim = request.claim(at, &self.keys);
            let place = match last.take() {
                Some((before, place)) if before == claim => place,
                _ => self.stream_of(caller, &claim).map(|stream| {
                    *by_stream.entry(stream).or_insert_with_key(|stream| {
                        groups.push(Group {
                            stream: stream.clone(),
                            resources: Vec::new(),
                            records: 0,
                            mended: 0,
                        });
                        groups.len() - 1
                    })
                }),
            };
            match &place {
                Ok(place) => {
                    let group = &mut groups[*place];
                    group.resources.push(at);
                    group.records += resource.records;
                    group.mended += resource.mended;
                }
                Err(outcast) => refused.add(&outcast.tenant, resource.records, outcast.reason),
            }
            last = Some((claim, place));
        }
        groups
    }

    fn part(&self, request: &Request, group: Group, record_bytes_max: usize, refused: &mut Refused) -> Part {
        let tenant = group.stream.tenant.clone();
        let mut batch = request.batch(group.stream, &group.resources);
        // Before the stamps: an envelope that loses its last record needs none.
        let too_large = batch.reject_larger(record_bytes_max);
        if too_large > 0 {
            refused.add(&tenant, too_large, "record_too_large");
        }
        let stamped = batch.stamp(&self.keys, self.is_stamping);
        self.count(&tenant, stamped.overwritten, group.mended);
        Part { batch, received: group.records, overwritten: stamped.overwritten, mended: group.mended }
    }

    fn count(&self, tenant: &TenantId, overwritten: u32, mended: u32) {
        for (count, family) in
            [(overwritten, &self.metrics.admit_overwritten), (mended, &self.metrics.admit_mended)]
        {
            if count > 0 {
                let labels = vec![("tenant", self.metrics.tenant_labels.of(tenant.as_str()).to_owned())];
                family.get_or_create(&labels).inc_by(count.into());
            }
        }
    }

    /// The stream that a resource belongs to, noted among those seen.
    fn stream_of(&self, caller: &Caller, claim: &Claim) -> Result<Stream, Outcast> {
        let stream = stream_of(&caller.who, claim)?;
        let is_invited = matches!(caller.who, Who::Tenant { .. });
        match self.seen.note(&stream, is_invited) {
            Ok(()) => Ok(stream),
            Err(reason @ "too_many_tenants") => Err(Outcast { tenant: TenantId::none(), reason }),
            Err(reason) => Err(Outcast { tenant: stream.tenant, reason }),
        }
    }
}

/// What is left out, summed; a request may name thousands of tenants, so the sums are found by a map.
#[derive(Default)]
struct Refused {
    parts: Vec<RefusedPart>,
    places: HashMap<(TenantId, &'static str), usize>,
}

impl Refused {
    fn add(&mut self, tenant: &TenantId, records: u32, reason: &'static str) {
        let place = *self.places.entry((tenant.clone(), reason)).or_insert_with(|| {
            self.parts.push(RefusedPart { tenant: tenant.clone(), records: 0, reason });
            self.parts.len() - 1
        });
        self.parts[place].records += records;
    }
}

/// Whose a resource is that says this, from somebody who is that.
fn stream_of(who: &Who, claim: &Claim) -> Result<Stream, Outcast> {
    let nobodys = |reason| Outcast { tenant: TenantId::none(), reason };
    let (tenant, projects) = match who {
        Who::Tenant { tenant, projects } => (tenant.clone(), projects),
        Who::SpeaksFor { tenants } => match said(&claim.tenant) {
            Ok(None) => return Err(nobodys("no_tenant")),
            Ok(Some(name)) if !tenants.cover(name) => return Err(nobodys("unknown_tenant")),
            Ok(Some(name)) => (TenantId::new(name).map_err(|_| nobodys("unknown_tenant"))?, &Names::All),
            Err(reason) => return Err(nobodys(reason)),
        },
        Who::Nobody => return Err(nobodys("no_tenant")),
    };
    match project_of(projects, &claim.project) {
        Ok(project) => Ok(Stream { tenant, project }),
        Err(reason) => Err(Outcast { tenant, reason }),
    }
}

fn project_of(projects: &Names, claimed: &Claimed) -> Result<ProjectId, &'static str> {
    let not_covered = "project_not_covered";
    match (said(claimed)?, projects) {
        (Some(name), _) if projects.cover(name) => ProjectId::new(name).map_err(|_| not_covered),
        (Some(_), _) => Err(not_covered),
        (None, Names::Some(names)) if names.len() == 1 => ProjectId::new(&names[0]).map_err(|_| not_covered),
        (None, _) => Ok(ProjectId::default_project()),
    }
}

/// What an identity attribute says. An empty text says nothing: an unset variable makes one.
fn said(claimed: &Claimed) -> Result<Option<&str>, &'static str> {
    match claimed {
        Claimed::One(name) if !name.is_empty() => Ok(Some(name)),
        Claimed::One(_) | Claimed::Absent => Ok(None),
        Claimed::Conflict => Err("identity_conflict"),
    }
}

#[cfg(test)]
mod tests;
