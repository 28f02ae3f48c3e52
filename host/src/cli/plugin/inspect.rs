//! `trommel plugin inspect`: what a component is and asks for, before anybody trusts it.

use super::named;
use crate::cli::{STOPPED, WRONG, complain, plain, say};
use crate::sandbox::{Inspection, Module, Sandbox};
use crate::telemetry::Metrics;
use serde_json::{Value, json};

pub(super) fn inspect(file: &str, is_json: bool) -> u8 {
    let settings = named(file);
    let inspected = Sandbox::open(None, Metrics::new()).and_then(|sandbox| {
        let bytes = sandbox.component_of(&settings.module)?;
        sandbox.inspect_bytes(&bytes, &settings)
    });
    match inspected {
        Ok(inspection) if is_json => say(&format!("{:#}", as_json(&inspection))),
        Ok(inspection) => say(&plain(&in_words(&inspection, file, &settings.module))),
        Err(error) => {
            complain(format!("{file}: {error}"));
            return WRONG;
        }
    }
    STOPPED
}

fn as_json(inspection: &Inspection) -> Value {
    let Inspection { manifest, .. } = inspection;
    let signals: Vec<&str> = manifest.signals.iter().map(|signal| signal.name()).collect();
    json!({
        "name": manifest.name,
        "version": manifest.version,
        "world": inspection.world,
        "interface": inspection.interface,
        "signals": signals,
        "grant": { "reads": manifest.reads, "writes": manifest.writes },
        "needs": manifest.needs,
        "window_seconds": manifest.window_seconds,
        "imports": inspection.imports,
        "exports": inspection.exports,
        "bytes": inspection.bytes,
        "sha256": inspection.digest,
        "compile_ms": u64::try_from(inspection.compile.as_millis()).unwrap_or(u64::MAX),
        "memory_bytes": inspection.memory,
    })
}

fn in_words(inspection: &Inspection, file: &str, module: &Module) -> String {
    let Inspection { manifest, .. } = inspection;
    let listed = |words: &[String]| if words.is_empty() { "nothing".into() } else { words.join(", ") };
    let signals: Vec<&str> = manifest.signals.iter().map(|signal| signal.name()).collect();
    let windows = match manifest.window_seconds {
        0 => "none".into(),
        seconds => format!("{seconds} s"),
    };
    let below = |names: &[String]| names.join("\n          ");
    let rows = [
        ("name", manifest.name.clone()),
        ("version", manifest.version.clone()),
        ("world", format!("{}, of trommel:plugin@{}", inspection.world, inspection.interface)),
        ("signals", signals.join(", ")),
        ("reads", listed(&manifest.reads)),
        ("writes", listed(&manifest.writes)),
        ("needs", listed(&manifest.needs)),
        ("windows", windows),
        ("imports", below(&inspection.imports)),
        ("exports", below(&inspection.exports)),
        ("size", format!("{} bytes", inspection.bytes)),
        ("digest", format!("sha256:{}", inspection.digest)),
        ("compiles", format!("in {} ms here, without a cache", inspection.compile.as_millis())),
        ("memory", format!("{} KiB to begin with", inspection.memory >> 10)),
    ];
    let rows: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<8}  {value}")).collect();
    let (name, rows) = (&manifest.name, rows.join("\n"));
    let grant = match module {
        Module::Builtin(_) => {
            format!(
                "It comes with the collector, and is granted what it asks for:\n\nplugins:\n  {name:?}: {{ module: {file:?} }}"
            )
        }
        Module::File(_) => format!(
            "To grant what it asks for:\n\nplugins:\n  {name:?}:\n    module: {file:?}\n    grant: {{ reads: {:?}, writes: {:?} }}",
            manifest.reads, manifest.writes,
        ),
    };
    format!("{rows}\n\n{grant}")
}
