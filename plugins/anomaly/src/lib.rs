//! Tells of services that fail more than usual or are slower, of errors that were not seen before, of silence, and of
//! metrics that are not as they used to be.
//!
//! `process` counts, by service; the collector adds up over all instances; `tick` compares a window with those before.

mod baseline;
mod counting;
mod errors;
mod frame;
mod keys;
mod known;
mod latency;
mod level;
mod messages;
mod metric;
mod news;
mod presence;
mod service;
mod settings;
mod signature;
#[cfg(test)]
mod simulation;
mod tell;
mod tenant;
#[cfg(test)]
mod tests;
mod totals;
mod watch;

use settings::Settings;
use tell::Raised;
use trommel_sdk::{Manifest, Plugin, Signal, Window, alerts, export, host, store};

struct Anomaly {
    settings: Settings,
}

impl Plugin for Anomaly {
    fn manifest() -> Manifest {
        Manifest::new("anomaly", env!("CARGO_PKG_VERSION"))
            .signals([Signal::Logs, Signal::Traces, Signal::Metrics])
            .reads([
                "severity",
                "body",
                "resource:service.name",
                "item:exception.type",
                "item:exception.message",
                "item:exception.stacktrace",
            ])
            // Spans: how long they took, whether they failed, and the exceptions among their events.
            .reads([
                "kind",
                "status",
                "time",
                "event-name",
                "event:exception.type",
                "event:exception.message",
                "event:exception.stacktrace",
            ])
            // Metrics that the settings name: the series of a sum are told apart by all attributes of its data points.
            .reads(["name", "number", "item:*", "resource:service.instance.id"])
            .needs(["alerts", "series", "store"])
            .window_seconds(10)
    }

    fn configure(json: &str) -> Result<Anomaly, String> {
        Ok(Anomaly { settings: settings::parse(json)? })
    }

    fn process(&mut self) -> Result<(), String> {
        counting::count(&self.settings);
        Ok(())
    }

    fn tick(&mut self, _tenant: &str, now: u64, closed: &[Window]) -> Result<(), String> {
        let outcome = tenant::tick(&self.settings, now, closed, &store::get);
        for (key, value) in outcome.kept {
            let Some(value) = value else {
                store::remove(&key);
                continue;
            };
            // Alerts matter more than what is remembered of them.
            if let Err(why) = store::set(&key, &value) {
                host::log(host::LogLevel::Warn, &format!("what is usual is not kept: {why}"));
            }
        }
        for raised in outcome.raised {
            match raised {
                Raised::Fire(alert) => alerts::fire(&alert),
                Raised::Resolve(key) => alerts::resolve(&key),
            }
        }
        if outcome.unwatched > 0 {
            host::count("services without room", outcome.unwatched);
        }
        if outcome.unwatched_metrics > 0 {
            host::count("metrics without room", outcome.unwatched_metrics);
        }
        Ok(())
    }
}

export!(Anomaly, ticking);
