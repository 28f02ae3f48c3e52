//! Interface `alerts`: what is raised is fitted and collected; what one call raises too much is counted.

use super::super::bindings::trommel::plugin::alerts as wit;
use super::super::effects::{Alert, AlertEffect, AlertSeverity};
use super::{CALL_COST, Phase, State};

const PHASES: [Phase; 2] = [Phase::Process, Phase::Tick];

impl wit::Host for State {
    fn fire(&mut self, what: wit::Alert) -> wasmtime::Result<()> {
        let labels: usize = what.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.pass(what.title.len() + what.text.len() + labels)?;
        let alert = Alert {
            key: what.key,
            severity: match what.severity {
                wit::Severity::Info => AlertSeverity::Info,
                wit::Severity::Warning => AlertSeverity::Warning,
                wit::Severity::Critical => AlertSeverity::Critical,
            },
            title: what.title,
            text: what.text,
            count: what.count,
            labels: what.labels,
        };
        self.raise("alerts.fire", AlertEffect::Fire(alert))
    }

    fn resolve(&mut self, key: String) -> wasmtime::Result<()> {
        self.raise("alerts.resolve", AlertEffect::Resolve(key))
    }
}

impl State {
    fn raise(&mut self, name: &str, what: AlertEffect) -> wasmtime::Result<()> {
        self.pass(what.key().len())?;
        if !self.may_use(name, "alerts", &PHASES) {
            return Ok(());
        }
        if what.key().is_empty() {
            let () = self.note(format!("{name}: an alert has a key"));
            return Ok(());
        }
        if !self.raised.raise_within_call(
            what,
            &self.shared.mask,
            self.shared.settings.limits.alerts_per_call,
        ) {
            self.left_out.alerts += 1;
        }
        Ok(())
    }

    /// In no budget of work, since a flood of alerts is bounded by their number: the clock stops it.
    fn pass(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.meter.pass(CALL_COST + bytes as u64).map_err(|stop| self.stopped(stop))
    }
}
