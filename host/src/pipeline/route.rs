//! Which pipeline takes a batch, and which sinks its records go to.

use super::{PipelineSettings, SinkRoute};
use crate::batch::{Batch, Signal, TenantId, Written};
use crate::journal::{SinkId, SinkSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A pipeline, with the names of its sinks made numbers.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    signal: Option<Signal>,
    tenants: Vec<String>,
    destinations: Vec<Destination>,
}

#[derive(Clone, Debug)]
struct Destination {
    sink: SinkId,
    resource: BTreeMap<String, Vec<String>>,
    route: Vec<String>,
}

impl Plan {
    /// An error names the sink that is not there.
    pub(super) fn of(settings: &PipelineSettings, sinks: &BTreeMap<String, SinkId>) -> Result<Plan, String> {
        let destination = |route: &SinkRoute| {
            let sink = sinks.get(&route.sink).copied();
            let sink = sink
                .ok_or_else(|| format!("pipeline `{}`: there is no sink `{}`", settings.name, route.sink))?;
            Ok::<_, String>(Destination {
                sink,
                resource: route.resource.clone(),
                route: route.route.clone(),
            })
        };
        Ok(Plan {
            signal: settings.signal,
            tenants: settings.tenants.clone(),
            destinations: settings.sinks.iter().map(destination).collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn fits(&self, signal: Signal, tenant: &TenantId) -> bool {
        self.signal.is_none_or(|own| own == signal)
            && (self.tenants.is_empty() || self.tenants.iter().any(|own| own == tenant.as_str()))
    }

    /// The batch by the sets of sinks that its records go to; the empty set is unrouted.
    pub(super) fn partition(&self, written: Written) -> Vec<(SinkSet, Batch)> {
        let Written { batch, routes, .. } = written;
        if batch.records == 0 {
            return Vec::new();
        }
        let is_conditional = |to: &Destination| !to.resource.is_empty() || !to.route.is_empty();
        if !self.destinations.iter().any(is_conditional) {
            return vec![(self.destinations.iter().map(|to| to.sink).collect(), batch)];
        }
        let of_record = self.sets_of_records(&batch, routes.as_deref());
        let sets: Vec<SinkSet> = of_record.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let number = |record: u32| {
            let set = of_record.get(record as usize).copied().unwrap_or_default();
            sets.binary_search(&set).unwrap_or_default() as u32
        };
        batch.split(&number).into_iter().map(|(number, batch)| (sets[number as usize], batch)).collect()
    }

    fn sets_of_records(&self, batch: &Batch, routes: Option<&[Option<Arc<str>>]>) -> Vec<SinkSet> {
        let of_resource = self.destinations_of_resources(batch);
        let set = |(record, resource): (usize, u32)| {
            let route = routes.and_then(|routes| routes.get(record)).and_then(Option::as_deref);
            let open = of_resource.get(resource as usize).map_or(&[][..], |open| open);
            let takes = |to: &&&Destination| {
                to.route.is_empty() || route.is_some_and(|route| to.route.iter().any(|name| name == route))
            };
            open.iter().filter(takes).map(|to| to.sink).collect()
        };
        batch.resource_of_records().into_iter().enumerate().map(set).collect()
    }

    /// For each resource the destinations whose conditions on resources hold.
    fn destinations_of_resources(&self, batch: &Batch) -> Vec<Vec<&Destination>> {
        let keys: BTreeSet<&String> = self.destinations.iter().flat_map(|to| to.resource.keys()).collect();
        let texts: BTreeMap<&String, Vec<Option<String>>> =
            keys.into_iter().map(|key| (key, batch.resource_texts(key))).collect();
        let resources = batch.resource_of_records().last().map_or(0, |last| *last as usize + 1);
        let holds = |to: &&Destination, resource: usize| {
            to.resource.iter().all(|(key, values)| {
                let text = texts.get(key).and_then(|texts| texts.get(resource)).and_then(Option::as_ref);
                text.is_some_and(|text| values.contains(text))
            })
        };
        (0..resources).map(|at| self.destinations.iter().filter(|to| holds(to, at)).collect()).collect()
    }
}
