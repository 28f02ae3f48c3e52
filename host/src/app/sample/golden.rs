//! What must come out of a sample the next time.

use super::Output;
use crate::sandbox::{AlertEffect, AlertSeverity, Cell, Failed, PluginError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Output {
    /// What a golden sample keeps: all that came out, as OTLP/JSON, and beside it what else the plugin did. No times of
    /// this machine, nothing in an order that chance gives.
    pub fn golden(&self) -> Value {
        let mut golden = self.telemetry.as_object().cloned().unwrap_or_default();
        golden.insert("dropped".into(), self.dropped.into());
        golden.insert("added".into(), self.added.into());
        let parts = [
            ("too_large", if self.too_large > 0 { self.too_large.into() } else { Value::Null }),
            ("routes", self.routes()),
            ("counts", self.counts.iter().map(|(name, by)| (name.clone(), Value::from(*by))).collect()),
            ("gauges", self.gauges.iter().map(|(name, value)| (name.clone(), number(*value))).collect()),
            ("series", self.series.iter().map(|(key, cell)| (key.clone(), shown_cell(cell))).collect()),
            ("alerts", self.alerts.iter().map(|alerted| shown_alert(&alerted.alert)).collect()),
            ("failed", self.failed.iter().map(shown_failure).collect()),
            ("failed_ticks", self.failed_ticks.iter().map(reason).collect()),
        ];
        let is_there = |value: &Value| match value {
            Value::Null => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        };
        let parts = parts.into_iter().filter(|(_, value)| is_there(value));
        golden.extend(parts.map(|(name, value)| (name.to_owned(), value)));
        Value::Object(golden)
    }

    /// Route → places among the records that came out.
    fn routes(&self) -> Value {
        let mut routes: BTreeMap<Arc<str>, Vec<usize>> = BTreeMap::new();
        for (at, line) in self.lines.iter().filter(|line| line.after.is_some()).enumerate() {
            if let Some(route) = &line.route {
                routes.entry(route.clone()).or_default().push(at);
            }
        }
        routes.into_iter().map(|(route, places)| (route.to_string(), Value::from(places))).collect()
    }
}

/// JSON has no form for what is not finite.
fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number)
}

fn shown_cell(cell: &Cell) -> Value {
    json!({ "count": cell.count, "sum": number(cell.sum), "min": number(cell.min), "max": number(cell.max) })
}

fn shown_alert(alert: &AlertEffect) -> Value {
    match alert {
        AlertEffect::Resolve(key) => json!({ "resolve": key }),
        AlertEffect::Fire(alert) => json!({
            "fire": alert.key,
            "severity": match alert.severity {
                AlertSeverity::Info => "info",
                AlertSeverity::Warning => "warning",
                AlertSeverity::Critical => "critical",
            },
            "title": alert.title,
            "text": alert.text,
            "count": alert.count,
            "labels": alert.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        }),
    }
}

fn shown_failure(Failed { records, error }: &Failed) -> Value {
    json!({ "records": records, "reason": reason(error) })
}

/// A trap names functions and their numbers, which change with each build.
fn reason(error: &PluginError) -> String {
    match error {
        PluginError::Trap(_) => "trap".to_owned(),
        other => other.to_string(),
    }
}
