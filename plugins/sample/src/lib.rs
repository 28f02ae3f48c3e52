//! Consistent probability sampling: whether a record stays depends on its trace alone, so that all who sample
//! by the same ratio keep the same traces. Beside it, a limit of records per second for each service.

mod decide;
mod limit;
mod settings;
mod threshold;
mod trace_state;

use decide::{Thresholds, Verdict};
use limit::Limits;
use settings::Settings;
use trommel_sdk::{Level, Manifest, Plugin, Signal, batch, export};

struct Sample {
    settings: Settings,
}

impl Plugin for Sample {
    fn manifest() -> Manifest {
        Manifest::new("sample", env!("CARGO_PKG_VERSION"))
            .signals([Signal::Logs, Signal::Traces])
            .reads(["severity", "trace-id", "trace-state", "resource:service.name"])
            .writes(["drop", "trace-state"])
    }

    fn configure(json: &str) -> Result<Sample, String> {
        Ok(Sample { settings: settings::parse(json)? })
    }

    fn process(&mut self) -> Result<(), String> {
        let by_resource = self.thresholds_by_resource();
        let has_limits = self.settings.limit.is_some() || !self.settings.limit_of_service.is_empty();
        let resources = match by_resource.is_some() || has_limits {
            true => batch::parents(Level::Item, Level::Resource),
            false => Vec::new(),
        };
        let thresholds = match &by_resource {
            Some(of) => Thresholds::ByResource { of, resources: &resources },
            None => Thresholds::Same(self.settings.threshold),
        };
        if thresholds.keep_all() && !has_limits {
            return Ok(());
        }
        let limits = has_limits.then(|| Limits::of_batch(&self.settings, &resources));
        match batch::holds() {
            Signal::Logs => self.sample_logs(thresholds, limits),
            Signal::Traces => sample_spans(thresholds, limits),
            Signal::Metrics => return Err("metrics are not sampled: a part of a sum is another sum".into()),
        }
        Ok(())
    }
}

impl Sample {
    /// `None` if one threshold holds for all.
    fn thresholds_by_resource(&self) -> Option<Vec<u64>> {
        let Settings { threshold, of_service, .. } = &self.settings;
        if of_service.is_empty() {
            return None;
        }
        let mut thresholds = vec![*threshold; batch::rows(Level::Resource) as usize];
        for (resource, service) in batch::text_attribute(Level::Resource, "service.name").iter() {
            if let Some(own) = of_service.get(service) {
                thresholds[resource as usize] = *own;
            }
        }
        Some(thresholds)
    }

    fn sample_logs(&self, thresholds: Thresholds, limits: Option<Limits>) {
        let mut dropped = match thresholds.keep_all() {
            true => Vec::new(),
            false => self.rejected_logs(thresholds),
        };
        if let Some(limits) = limits {
            let severities = batch::severities();
            let cut = |rows, granted| limit::cut_logs(rows, granted, &severities);
            dropped.extend(limits.apply("logs", &dropped, cut).cut);
        }
        if !dropped.is_empty() {
            batch::drop(&dropped);
        }
    }

    fn rejected_logs(&self, thresholds: Thresholds) -> Vec<u32> {
        let mut rejected = decide::rejected(&batch::randomness(), thresholds);
        if !rejected.is_empty() {
            decide::spare_severe(&mut rejected, &batch::severities(), self.settings.keep_severity);
        }
        if self.settings.keeps_traceless && !rejected.is_empty() {
            decide::spare_traceless(&mut rejected, &batch::trace_ids());
        }
        rejected
    }
}

fn sample_spans(thresholds: Thresholds, limits: Option<Limits>) {
    let (mut dropped, mut marks) = (Vec::new(), Vec::new());
    let (states, randomness) = (batch::trace_states(), batch::randomness());
    for (row, (state, randomness)) in (0..).zip(states.iter().zip(&randomness)) {
        match decide::span(state, *randomness, thresholds.at(row as usize)) {
            Verdict::Drop => dropped.push(row),
            Verdict::Keep => {}
            Verdict::Mark(state) => marks.push((row, state)),
        }
    }
    if let Some(limits) = limits {
        let cut = |rows, granted| limit::cut_spans(rows, granted, &randomness);
        let limited = limits.apply("traces", &dropped, cut);
        limit::unmark(&mut marks, &states, &limited.passed);
        dropped.extend(limited.cut);
    }
    if !dropped.is_empty() {
        batch::drop(&dropped);
    }
    if !marks.is_empty() {
        let (marked, marks): (Vec<u32>, Vec<String>) = marks.into_iter().unzip();
        batch::set_trace_states(&marked, &marks);
    }
}

export!(Sample);
