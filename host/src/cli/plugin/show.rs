//! What a plugin made of a sample, for a terminal.

use crate::app::sample::{Difference, Line, Output, Record, differences};
use crate::sandbox::{AlertEffect, Limits};
use serde_json::Value;
use std::io::IsTerminal;

/// Records that are shown unless all are asked for.
const RECORDS_SHOWN_MAX: usize = 20;
const ALERTS_SHOWN_MAX: usize = 20;
const KEYS_SHOWN_MAX: usize = 20;
/// Of one value.
const VALUE_CHARS_MAX: usize = 160;

/// Colours, if somebody looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(bool);

impl Paint {
    /// Only on a terminal, and not where `NO_COLOR` says no (no-color.org).
    pub(super) fn for_stdout() -> Paint {
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Paint(std::io::stdout().is_terminal() && !is_unwanted)
    }

    pub(super) fn removed(self, text: &str) -> String {
        self.paint(Kind::Removed, text)
    }

    fn paint(self, kind: Kind, text: &str) -> String {
        let code = match kind {
            _ if !self.0 => return text.to_owned(),
            Kind::Plain => return text.to_owned(),
            Kind::Head => "1",
            Kind::Removed => "31",
            Kind::Added => "32",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// A line and what it is.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) text: String,
    kind: Kind,
    paint: Paint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Head,
    Removed,
    Added,
}

impl Shown {
    /// `text` is the same, made harmless.
    pub(super) fn painted(&self, text: String) -> String {
        self.paint.paint(self.kind, &text)
    }
}

struct Page {
    lines: Vec<Shown>,
    paint: Paint,
}

impl Page {
    fn add(&mut self, kind: Kind, text: String) {
        self.lines.push(Shown { text, kind, paint: self.paint });
    }
}

/// What changed, record by record.
pub(super) fn changes(output: &Output, paint: Paint, is_all: bool) -> Vec<Shown> {
    let mut page = Page { lines: Vec::new(), paint };
    let most = if is_all { usize::MAX } else { RECORDS_SHOWN_MAX };
    let changed =
        || output.lines.iter().enumerate().filter(|(_, line)| line.is_changed() || line.route.is_some());
    let mut last = None;
    for (at, line) in changed().take(most) {
        show_line(&mut page, at, line, &mut last);
    }
    let more = changed().count().saturating_sub(most);
    if more > 0 {
        page.add(Kind::Plain, format!("… and {more} more records: --all shows them"));
    }
    page.lines
}

/// Differences of what a record stands in; neighbours share it, and it is shown once.
type Around = Vec<(&'static str, Difference)>;

fn show_line(page: &mut Page, at: usize, line: &Line, last: &mut Option<Around>) {
    let route = line.route.as_ref().map(|route| format!(", route {route}")).unwrap_or_default();
    match (&line.before, &line.after) {
        (Some(before), Some(after)) => {
            let around = around(before, after);
            if !around.is_empty() && last.as_ref() != Some(&around) {
                page.add(Kind::Head, format!("around record {at} and those beside it"));
                around.iter().for_each(|(name, difference)| show_difference(page, name, difference));
            }
            *last = Some(around);
            let own = differences(&before.record, &after.record);
            if !own.is_empty() || !route.is_empty() {
                page.add(Kind::Head, format!("record {at}{route}"));
                own.iter().for_each(|difference| show_difference(page, "", difference));
            }
        }
        (Some(before), None) => {
            page.add(Kind::Head, format!("record {at} is dropped"));
            page.add(Kind::Removed, format!("  - {}", short(&before.record)));
        }
        (None, Some(after)) => {
            page.add(Kind::Head, format!("record {at} is added{route}"));
            page.add(Kind::Added, format!("  + {}", short(&after.record)));
        }
        (None, None) => {}
    }
}

fn around(before: &Record, after: &Record) -> Around {
    let mut all = Around::new();
    let mut add = |name, before: &Value, after: &Value| {
        all.extend(differences(before, after).into_iter().map(|difference| (name, difference)));
    };
    add("", &before.resource, &after.resource);
    add("", &before.scope, &after.scope);
    let nothing = Value::Null;
    let metric = |record: &Record| record.metric.as_deref().unwrap_or(&nothing).clone();
    add("metric.", &metric(before), &metric(after));
    all
}

fn show_difference(page: &mut Page, prefix: &str, difference: &Difference) {
    let Difference { path, expected, found } = difference;
    if let Some(value) = expected {
        page.add(Kind::Removed, format!("  - {prefix}{path}: {}", short(value)));
    }
    if let Some(value) = found {
        page.add(Kind::Added, format!("  + {prefix}{path}: {}", short(value)));
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// How many, what else the plugin did, and what it took against what it may.
pub(super) fn summary(output: &Output, limits: &Limits) -> Vec<Shown> {
    let mut page = Page { lines: Vec::new(), paint: Paint(false) };
    let is_there = |line: &&Line| line.before.is_some() && line.after.is_some();
    let changed = output.lines.iter().filter(is_there).filter(|line| line.is_changed()).count();
    let unchanged = output.lines.iter().filter(is_there).count() - changed;
    page.add(
        Kind::Plain,
        format!(
            "\n{} records in {} pieces: {changed} changed, {} dropped, {} added, {unchanged} unchanged",
            output.records, output.pieces, output.dropped, output.added
        ),
    );
    let mut line = |name: &str, text: String| page.add(Kind::Plain, format!("{name:<8}  {text}"));
    if output.too_large > 0 {
        line("too large", format!("{} records above 1 MiB, which no plugin is given", output.too_large));
    }
    for (name, by) in &output.counts {
        line("count", format!("{name} {by}"));
    }
    for (name, value) in &output.gauges {
        line("gauge", format!("{name} {value}"));
    }
    for (key, cell) in output.series.iter().take(KEYS_SHOWN_MAX) {
        line(
            "series",
            format!("{key}: {} values, sum {}, {} to {}", cell.count, cell.sum, cell.min, cell.max),
        );
    }
    if output.series.len() > KEYS_SHOWN_MAX {
        line("series", format!("… and {} more keys", output.series.len() - KEYS_SHOWN_MAX));
    }
    if output.ticks > 0 {
        line("tick", format!("called {} times", output.ticks));
    }
    for alerted in output.alerts.iter().take(ALERTS_SHOWN_MAX) {
        line("alert", alert_in_words(&alerted.alert));
    }
    if output.alerts.len() > ALERTS_SHOWN_MAX {
        line("alert", format!("… and {} more", output.alerts.len() - ALERTS_SHOWN_MAX));
    }
    for failed in &output.failed {
        line("failed", format!("on {} records: {}", failed.records, failed.error));
    }
    for reason in &output.failed_ticks {
        line("failed", format!("in tick: {reason}"));
    }
    let per_record = output.cpu.div_f64(output.records.max(1) as f64);
    line(
        "time",
        format!(
            "{:.1?} of CPU for the slowest piece, {:?} allowed; {per_record:.1?} a record",
            output.cpu_max, limits.time
        ),
    );
    line("memory", format!("{} KiB, {} KiB allowed", output.memory >> 10, limits.memory >> 10));
    page.lines
}

fn alert_in_words(alert: &AlertEffect) -> String {
    match alert {
        AlertEffect::Resolve(key) => format!("{key} is over"),
        AlertEffect::Fire(alert) => {
            format!(
                "{} ({:?}, {} times): {}: {}",
                alert.key, alert.severity, alert.count, alert.title, alert.text
            )
        }
    }
}
