//! `swap:` of a plugin: how a new version of it comes into use.

use super::node::Value;
use super::read::{Table, Wrong, duration, flag, text};
use crate::pipeline::{Budget, CanarySettings, SwapSettings};
use std::time::Duration;

/// A trial that nobody sees the end of is none.
const STAGE_MAX: Duration = Duration::from_secs(86_400);

pub(super) fn read(table: Table<'_>) -> SwapSettings {
    let usual = SwapSettings::default();
    let swap = SwapSettings {
        is_auto: table.optional("auto", flag).unwrap_or(usual.is_auto),
        shadow: table.optional("shadow", stage).unwrap_or(usual.shadow),
        canary: table.table("canary").and_then(read_canary),
        watch: table.optional("watch", stage).unwrap_or(usual.watch),
        budget: table.table("budget").map_or(usual.budget, |budget| read_budget(budget, usual.budget)),
    };
    table.finish(&["auto", "shadow", "canary", "watch", "budget"]);
    swap
}

fn read_canary(table: Table<'_>) -> Option<CanarySettings> {
    let right = "which part of the streams has it first: 10%; above 0% and below 100%";
    let share = table.required("share", right, |value| {
        percent(value)
            .ok()
            .filter(|share| *share > 0.0 && *share < 1.0)
            .ok_or_else(|| no(value, "is no such part", right))
    });
    let right = "how long: 60s; a day at most";
    let lasts = table.required("for", right, |value| match stage(value) {
        Ok(lasts) if lasts.is_zero() => Err(no(value, "shows nothing", right)),
        other => other,
    });
    table.finish(&["share", "for"]);
    Some(CanarySettings { share: share?, lasts: lasts? })
}

fn read_budget(table: Table<'_>, usual: Budget) -> Budget {
    let budget = Budget {
        failures: table.optional("failures", percent).unwrap_or(usual.failures),
        latency: table.optional("latency", times).unwrap_or(usual.latency),
        drops: table.optional("drops", percent).unwrap_or(usual.drops),
    };
    table.finish(&["failures", "latency", "drops"]);
    budget
}

fn stage(value: &Value) -> Result<Duration, Wrong> {
    let right = "how long, with its unit: 30s; 0s for none; a day at most";
    let stage = duration(value).map_err(|(wrong, _)| (wrong, right.to_owned()))?;
    if stage > STAGE_MAX { Err(no(value, "is longer than a day", right)) } else { Ok(stage) }
}

/// `1%`, `0.5%`: a part, as a number up to 1.
fn percent(value: &Value) -> Result<f64, Wrong> {
    let right = "a part of all, more than before: 1%; 100% at most, which switches it off";
    let part = number(value, '%').filter(|percent| *percent <= 100.0);
    part.map(|percent| percent / 100.0).ok_or_else(|| no(value, "is no part of all", right))
}

/// `2x`, `1.5x`.
fn times(value: &Value) -> Result<f64, Wrong> {
    let right = "a multiple of what it was: 2x; 1x at least";
    number(value, 'x').filter(|times| *times >= 1.0).ok_or_else(|| no(value, "is no such multiple", right))
}

fn number(value: &Value, unit: char) -> Option<f64> {
    let digits = text(value).ok()?;
    let digits = digits.strip_suffix(unit)?.trim_end();
    // As people write them: neither `1e3` nor `inf`.
    let is_plain = digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    digits.parse().ok().filter(|number: &f64| is_plain && number.is_finite())
}

fn no(value: &Value, wrong: &str, right: &str) -> Wrong {
    (format!("{} {wrong}", value.shown()), right.to_owned())
}
