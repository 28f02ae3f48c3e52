//! Consistent probability sampling: whether a record stays depends on its trace alone, so that all who sample
//! by the same ratio keep the same traces.

mod decide;
mod settings;
mod threshold;
mod trace_state;

use decide::{Thresholds, Verdict};
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
        let resources = match &by_resource {
            Some(_) => batch::parents(Level::Item, Level::Resource),
            None => Vec::new(),
        };
        let thresholds = match &by_resource {
            Some(of) => Thresholds::ByResource { of, resources: &resources },
            None => Thresholds::Same(self.settings.threshold),
        };
        if thresholds.keep_all() {
            return Ok(());
        }
        match batch::holds() {
            Signal::Logs => self.sample_logs(thresholds),
            Signal::Traces => sample_spans(thresholds),
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

    fn sample_logs(&self, thresholds: Thresholds) {
        let mut rejected = decide::rejected(&batch::randomness(), thresholds);
        if !rejected.is_empty() {
            decide::spare_severe(&mut rejected, &batch::severities(), self.settings.keep_severity);
        }
        if self.settings.keeps_traceless && !rejected.is_empty() {
            decide::spare_traceless(&mut rejected, &batch::trace_ids());
        }
        if !rejected.is_empty() {
            batch::drop(&rejected);
        }
    }
}

fn sample_spans(thresholds: Thresholds) {
    let (mut dropped, mut marked, mut marks) = (Vec::new(), Vec::new(), Vec::new());
    let states = batch::trace_states();
    for (row, (state, randomness)) in (0..).zip(states.iter().zip(batch::randomness())) {
        match decide::span(state, randomness, thresholds.at(row as usize)) {
            Verdict::Drop => dropped.push(row),
            Verdict::Keep => {}
            Verdict::Mark(state) => {
                marked.push(row);
                marks.push(state);
            }
        }
    }
    if !dropped.is_empty() {
        batch::drop(&dropped);
    }
    if !marked.is_empty() {
        batch::set_trace_states(&marked, &marks);
    }
}

export!(Sample);
