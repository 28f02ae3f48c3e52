//! Samples: what a plugin makes of telemetry in a file, in the real sandbox, without a collector around it.
//!
//! [`Sample::read`] takes a file of OTLP, in JSON or protobuf; [`Sample::run`] gives it to a plugin in pieces as the
//! pipeline does, and shows closed windows to `tick`; an [`Output`] says what came out, record by record, and
//! [`Output::golden`] what must come out the next time. Nothing here reads a clock that is not the sample's own, so
//! that the same plugin makes the same of the same sample, if it keeps to what the sandbox gives it.

mod bench;
mod compare;
mod folder;
mod golden;
mod read;
mod run;
#[cfg(test)]
mod tests;

pub use bench::Measured;
pub use compare::{Difference, compare, differences};
pub use folder::{Case, beside, cases, config_in, config_of, expected_in};
pub use read::Sample;
pub(super) use read::request_in;
pub(super) use run::newest_ms;

use crate::batch::{ProjectId, Stream, TenantId};
use crate::sandbox::{AlertEffect, Cell, Failed, PluginError};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Whose a sample is: what the plugin is told, and what the identity attributes say.
#[derive(Clone, Debug)]
pub struct Whose(Stream);

impl Whose {
    pub fn new(tenant: &str, project: &str) -> Result<Whose, String> {
        let tenant = TenantId::new(tenant).map_err(|error| format!("tenant `{tenant}`: {error}"))?;
        let project = ProjectId::new(project).map_err(|error| format!("project `{project}`: {error}"))?;
        Ok(Whose(Stream { tenant, project }))
    }
}

/// Tenant `local`, project `default`: as without a configuration.
impl Default for Whose {
    fn default() -> Whose {
        Whose(Stream { tenant: TenantId::local(), project: ProjectId::default_project() })
    }
}

/// What a plugin made of a sample.
#[derive(Debug, Default)]
pub struct Output {
    /// Every record of the sample, and those that the plugin added, in order.
    pub lines: Vec<Line>,
    /// What came out, as one OTLP/JSON object: `resourceLogs`, `resourceSpans`, `resourceMetrics`; those that are
    /// empty are not there.
    pub telemetry: Value,
    /// Records of the sample.
    pub records: u64,
    /// Records that the plugin took away.
    pub dropped: u64,
    pub added: u64,
    /// Records that are larger than a collector takes; the plugin was not given them.
    pub too_large: u64,
    /// Sums, by name.
    pub counts: BTreeMap<String, u64>,
    /// The last values, by name.
    pub gauges: BTreeMap<String, f64>,
    /// What was added to series over all windows, by key.
    pub series: BTreeMap<String, Cell>,
    /// In the order in which they came; at most [`ALERTS_MAX`].
    pub alerts: Vec<Alerted>,
    /// Records that the plugin failed on, and why. What became of them says its `on_failure`.
    pub failed: Vec<Failed>,
    /// Why calls of `tick` failed.
    pub failed_ticks: Vec<PluginError>,
    /// Times that `tick` was called.
    pub ticks: u64,
    /// CPU time of all calls, and of the slowest piece.
    pub cpu: Duration,
    pub cpu_max: Duration,
    /// Pieces that the plugin was given.
    pub pieces: u64,
    /// The most linear memory of an instance, bytes.
    pub memory: usize,
}

/// Alerts of one run that are kept; more are a flood, and are not looked at.
pub const ALERTS_MAX: usize = 10_000;

/// An alert, or its end, on the clock of the sample (ms since 1970).
#[derive(Debug)]
pub struct Alerted {
    pub at_ms: u64,
    pub alert: AlertEffect,
}

/// One record before and after.
#[derive(Debug)]
pub struct Line {
    /// `None`: the plugin added it.
    pub before: Option<Record>,
    /// `None`: it is gone.
    pub after: Option<Record>,
    /// The name that the plugin gave with `batch.route`.
    pub route: Option<Arc<str>>,
}

/// A log record, span or data point with what it stands in, each in OTLP/JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// With its schema URL, if it has one.
    pub resource: Arc<Value>,
    pub scope: Arc<Value>,
    /// Of a data point: the metric without its points.
    pub metric: Option<Arc<Value>>,
    pub record: Value,
}

impl Line {
    pub fn is_changed(&self) -> bool {
        self.before != self.after
    }
}
