//! Three plugins in one, chosen by `mode` in the settings: what the others in `tests/languages` are measured by.

use serde::Deserialize;
use trommel_sdk::{Level, Manifest, Places, Plugin, Signal, batch, export, host};

#[derive(Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
enum Settings {
    Redact { pattern: String, by: String },
    Sample { keep: f64 },
    Check,
    Spin,
}

struct Example {
    settings: Settings,
    patterns: u32,
}

impl Plugin for Example {
    fn manifest() -> Manifest {
        Manifest::new("example", "0.1.0")
            .signals([Signal::Logs])
            .reads(["body", "severity", "trace-id"])
            .writes(["body", "drop"])
    }

    fn configure(text: &str) -> Result<Example, String> {
        let settings = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let patterns = match &settings {
            Settings::Redact { pattern, .. } => host::compile(std::slice::from_ref(pattern))?,
            _ => 0,
        };
        Ok(Example { settings, patterns })
    }

    fn process(&mut self) -> Result<(), String> {
        match &self.settings {
            // The collector searches: no string moves.
            Settings::Redact { by, .. } => {
                let redacted =
                    batch::search_and_replace(self.patterns, Places::BODY, std::slice::from_ref(by));
                host::count("redacted", redacted);
            }
            // Errors stay, and of the other traces the part `keep`.
            Settings::Sample { keep } => {
                let rows = batch::severities().into_iter().zip(batch::trace_fractions()).zip(0..);
                let goes = |severity: u8, fraction: f64| severity < 17 && fraction < 1.0 - keep;
                let dropped: Vec<u32> = rows
                    .filter_map(|((severity, fraction), row)| goes(severity, fraction).then_some(row))
                    .collect();
                batch::drop(&dropped);
                host::count("sampled-out", dropped.len() as u32);
            }
            // One that fails on some records: the collector finds out which, and lets the others pass.
            Settings::Check => {
                if is_any_marked("UNREADABLE") {
                    return Err("a record is marked as unreadable".into());
                }
                host::count("checked", batch::rows(Level::Item));
            }
            // For the tests of limits: a call that never ends on records that say so.
            Settings::Spin => {
                // Its own work alone: asking the collector again and again would meet another limit.
                if is_any_marked("ENDLESS") {
                    loop {
                        std::hint::spin_loop();
                    }
                }
            }
        }
        Ok(())
    }
}
export!(Example);

fn is_any_marked(mark: &str) -> bool {
    batch::texts(Places::BODY).iter().any(|body| body.contains(mark))
}
