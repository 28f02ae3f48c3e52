//! `limits:` and `circuit:` of a plugin: what it may use, and when it is left alone.

use super::node::Value;
use super::read::{Table, Wrong, count, duration, size, text};
use crate::sandbox::{CircuitSettings, Limits, OWN_CPU};
use std::time::Duration;

const KEYS: [&str; 12] = [
    "time",
    "memory",
    "output",
    "hostcall",
    "work",
    "log",
    "alerts_per_call",
    "alerts_per_second",
    "names",
    "series_keys",
    "store",
    "cpu",
];

/// A request does not wait longer for all of its calls.
const TIME_MAX: Duration = Duration::from_secs(60);
/// What 32 bits can address.
const MEMORY_MAX: usize = 4 << 30;
/// What comes out of a request is charged to the room as it comes in: three times its bytes.
const FACTOR_MAX: usize = 64;
const WORK_MAX: usize = 1 << 16;
const LOG_MAX: usize = 16 << 20;
/// Alerts of a call are in memory until the request is committed.
const CALL_ALERTS_MAX: usize = 1_000;
const SECOND_ALERTS_MAX: usize = 10_000;
/// Each is a line of every scrape.
const NAMES_MAX: usize = 10_000;
const SERIES_KEYS_MAX: usize = 50_000;
/// One file per tenant, written at once.
const STORE_MAX: usize = 256 << 10;
/// The circuit looks at as many calls as a word has bits.
const CALLS_MAX: usize = 64;

/// Of `plugin`, which is a tenant's own or not.
pub(super) fn read(plugin: &Table<'_>, is_own: bool) -> Limits {
    let usual = Limits { cpu: is_own.then_some(OWN_CPU), ..Limits::default() };
    let limits = plugin.table("limits").map_or(usual, |section| read_limits(section, usual));
    Limits { circuit: read_circuit(plugin), ..limits }
}

fn read_limits(section: Table<'_>, usual: Limits) -> Limits {
    let number = |key: &str, usual: u32, most| bounded(&section, key, count, most).unwrap_or(usual);
    let numbers = |key: &str, usual: usize, most| {
        bounded(&section, key, count, most).map_or(usual, |number| number as usize)
    };
    let bytes = |key: &str, usual: usize, most| bounded(&section, key, size, most).unwrap_or(usual);
    let limits = Limits {
        time: section.optional("time", duration).unwrap_or(usual.time),
        memory: bytes("memory", usual.memory, MEMORY_MAX),
        output: number("output", usual.output, FACTOR_MAX),
        hostcall: number("hostcall", usual.hostcall, FACTOR_MAX),
        work: number("work", usual.work, WORK_MAX),
        log: bytes("log", usual.log, LOG_MAX),
        alerts_per_call: numbers("alerts_per_call", usual.alerts_per_call, CALL_ALERTS_MAX),
        alerts_per_second: numbers("alerts_per_second", usual.alerts_per_second, SECOND_ALERTS_MAX),
        names: numbers("names", usual.names, NAMES_MAX),
        series_keys: numbers("series_keys", usual.series_keys, SERIES_KEYS_MAX),
        store: bytes("store", usual.store, STORE_MAX),
        cpu: section.optional("cpu", cpu).unwrap_or(usual.cpu),
        circuit: usual.circuit,
    };
    if limits.time.is_zero() {
        section.fault("time", "would stop every call", "at least 1ms");
    }
    if limits.time > TIME_MAX {
        section.fault("time", "is longer than a request waits", "at most 60s");
    }
    section.finish(&KEYS);
    limits
}

fn read_circuit(plugin: &Table<'_>) -> CircuitSettings {
    let mut circuit = CircuitSettings::default();
    let Some(section) = plugin.table("circuit") else { return circuit };
    circuit.calls = bounded(&section, "calls", count, CALLS_MAX).unwrap_or(circuit.calls);
    let share = section.optional("failures", percent).unwrap_or(50.0) / 100.0;
    // At least one: a circuit that opens at no failure would never be closed.
    circuit.failures = ((f64::from(circuit.calls) * share).ceil() as u32).clamp(1, circuit.calls);
    circuit.pause = section.optional("for", duration).unwrap_or(circuit.pause);
    if circuit.pause.is_zero() {
        section.fault("for", "would leave it closed", "at least 1ms");
    }
    section.finish(&["failures", "calls", "for"]);
    circuit
}

/// A value of which there may be so much, in its own unit.
fn bounded<T: Copy + TryInto<usize>>(
    section: &Table<'_>,
    key: &str,
    read: impl Fn(&Value) -> Result<T, Wrong>,
    most: usize,
) -> Option<T> {
    let value = section.optional(key, read)?;
    if value.try_into().is_ok_and(|value: usize| value <= most) {
        return Some(value);
    }
    section.fault(key, "is more than can be given", format!("at most {most}"));
    None
}

/// `50%`
fn percent(value: &Value) -> Result<f64, Wrong> {
    let wrong = || (format!("{} is no share", value.shown()), "a share of the calls: 50%".to_owned());
    let written = text(value)?;
    let number = written.strip_suffix('%').ok_or_else(wrong)?.trim();
    number.parse().ok().filter(|share| (1.0..=100.0).contains(share)).ok_or_else(wrong)
}

/// `10%` of a core, `1.5 cores`, or `none`: CPU time in a second.
fn cpu(value: &Value) -> Result<Option<Duration>, Wrong> {
    let wrong = || {
        let right = "a share of a core (10%), a number of cores (1.5 cores), or none";
        (format!("{} is no CPU time", value.shown()), right.to_owned())
    };
    let written = text(value)?;
    if written == "none" {
        return Ok(None);
    }
    let cores = match written.strip_suffix('%') {
        Some(number) => number.trim().parse().map(|percent: f64| percent / 100.0),
        None => {
            let number = written.strip_suffix("cores").or(written.strip_suffix("core")).ok_or_else(wrong)?;
            number.trim().parse()
        }
    };
    let cores = cores.ok().filter(|cores| (0.001..=1024.0).contains(cores)).ok_or_else(wrong)?;
    Ok(Some(Duration::from_secs_f64(cores)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Value {
        Value::Text { written: text.into(), filled: text.into(), found: Vec::new() }
    }

    #[test]
    fn a_share_of_the_processor_is_a_part_of_a_core_or_some_cores() {
        for (text, millis) in
            [("10%", 100), ("0.5%", 5), ("250 %", 2500), ("1.5 cores", 1500), ("1core", 1000)]
        {
            assert_eq!(cpu(&written(text)), Ok(Some(Duration::from_millis(millis))), "{text}");
        }
        assert_eq!(cpu(&written("none")), Ok(None));
        for text in ["10", "0%", "-1%", "NaN cores", "inf cores", "a core", "%", "", "9999 cores"] {
            assert!(cpu(&written(text)).is_err(), "{text}");
        }
        assert!(cpu(&Value::Integer(1)).is_err());
    }

    #[test]
    fn a_share_of_calls_is_a_percentage() {
        assert_eq!(percent(&written("50%")), Ok(50.0));
        for text in ["50", "0%", "101%", "x%", ""] {
            assert!(percent(&written(text)).is_err(), "{text}");
        }
    }
}
