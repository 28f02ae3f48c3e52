//! The texts of alerts: figures in `text`, and in `title` no more than which rule found what service.

use crate::errors::Failing;
use crate::keys;
use crate::news::New;
use crate::presence::Presence;
use crate::service::{SIGNALS, Telling};
use crate::watch::Open;
use trommel_sdk::alerts::{Alert, Severity};

/// What is told to the collector.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Raised {
    Fire(Alert),
    Resolve(String),
}

/// The name of each rule, which begins the key of its alerts.
pub(crate) const FAILING: &str = "error-rate";
pub(crate) const NEW: &str = "new-error";
pub(crate) const SILENT: &str = "silence";
pub(crate) const SLOW: &str = "latency";
pub(crate) const METRIC: &str = "metric";

/// The key of what a rule found about a service.
pub(crate) fn key(rule: &str, who: &str) -> String {
    format!("{rule}:{}", who.replacen('|', "/", 1))
}

pub(crate) fn key_of_new(who: &str, new: &New) -> String {
    format!("{}:{:016x}", key(NEW, who), new.signature)
}

/// Of logs, number 0, or spans: each has its own count.
pub(crate) fn key_of_failing(who: &str, signal: usize) -> String {
    let of_spans = if signal == 0 { "" } else { ":spans" };
    key(FAILING, who) + of_spans
}

pub(crate) fn key_of_metric(who: &str, name: &str) -> String {
    format!("{}:{name}", key(METRIC, who))
}

pub(crate) fn failing(who: &str, signal: usize, failing: &Failing) -> Alert {
    let (errors, records) = failing.worst;
    let (many, among, headline) = match signal {
        0 => ("errors", "records were errors", "error rate"),
        _ => ("failed spans", "spans failed", "failed spans"),
    };
    let mut text = format!(
        "{} {many} since {}. In the worst 10 s {} of {} {among} ({}); usual are {}.",
        number(failing.errors),
        time(failing.since_ns),
        number(errors),
        number(records),
        percent(errors as f64 / records.max(1) as f64),
        percent(f64::from(failing.usual)),
    );
    for template in &failing.named {
        text.push_str("\nnew: ");
        text.push_str(template);
    }
    let key = key_of_failing(who, signal);
    alert(FAILING, headline, Severity::Critical, who, key, text, failing.telling.owed)
}

pub(crate) fn new(who: &str, new: &New) -> Alert {
    let (errors, since) = (number(new.errors), time(new.since_ns));
    let text = format!("{}\nnot seen before {since}; {errors} since.", new.template);
    alert(NEW, "new error", Severity::Warning, who, key_of_new(who, new), text, new.telling.owed)
}

/// `presence` as `SIGNALS` numbers it.
pub(crate) fn silent(who: &str, presence: &[Presence; 3], telling: &Telling) -> Alert {
    let silent = SIGNALS.iter().zip(presence).filter(|(_, presence)| presence.is_silent);
    let since = |((_, brings), presence): (&(&str, &str), &Presence)| {
        format!("no {brings} since {}", time(presence.seen_ns))
    };
    let text = silent.map(since).collect::<Vec<_>>().join(", ") + "; before, it spoke all the time.";
    alert(SILENT, "silence", Severity::Warning, who, key(SILENT, who), text, telling.owed)
}

/// What is usual and what is now are medians and 95th percentiles in milliseconds.
pub(crate) fn slow(who: &str, slow: &Open) -> Alert {
    let ((median, tail), (usual_median, usual_tail)) = (slow.latest, slow.usual);
    let text = format!(
        "slower since {}: half of the requests take up to {} (usual are {}), 95 % up to {} (usual are {}).",
        time(slow.since_ns),
        duration(median),
        duration(usual_median),
        duration(tail),
        duration(usual_tail),
    );
    alert(SLOW, "latency", Severity::Warning, who, key(SLOW, who), text, slow.telling.owed)
}

/// What is usual stands beside how far it strays.
pub(crate) fn metric(who: &str, name: &str, open: &Open) -> Alert {
    let (shown, (usual, spread)) = (keys::name_shown(name), open.usual);
    let text = format!(
        "{shown} is {} since {}; usual are {}, give or take {}.",
        figure(open.latest.0),
        time(open.since_ns),
        figure(usual),
        figure(spread),
    );
    let headline = format!("metric {shown}");
    let key = key_of_metric(who, name);
    let mut alert = alert(METRIC, &headline, Severity::Warning, who, key, text, open.telling.owed);
    alert.labels.push(("metric".to_owned(), shown));
    alert
}

fn alert(
    rule: &str,
    headline: &str,
    severity: Severity,
    who: &str,
    key: String,
    text: String,
    count: u64,
) -> Alert {
    let (project, service) = keys::shown(who);
    let title = format!("{headline}: {service} of {project}");
    let labels = [("project", project), ("service", service), ("rule", rule.to_owned())];
    Alert {
        key,
        severity,
        title,
        text,
        count: u32::try_from(count).unwrap_or(u32::MAX),
        labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    }
}

/// Of milliseconds.
fn duration(ms: f32) -> String {
    match ms {
        _ if ms >= 9_950.0 => format!("{:.0} s", ms / 1e3),
        _ if ms >= 995.0 => format!("{:.1} s", ms / 1e3),
        _ if ms >= 9.95 => format!("{ms:.0} ms"),
        _ => format!("{ms:.1} ms"),
    }
}

/// Three digits that count.
fn figure(value: f32) -> String {
    let size = value.abs();
    match size {
        _ if size >= 1e7 || (size > 0.0 && size < 1e-3) => format!("{value:.2e}"),
        _ if size >= 100.0 => {
            let sign = if value < 0.0 { "-" } else { "" };
            format!("{sign}{}", number(size.round() as u64))
        }
        _ if size >= 10.0 => format!("{value:.1}"),
        _ if size >= 1.0 => format!("{value:.2}"),
        _ if size > 0.0 => format!("{value:.3}"),
        _ => "0".into(),
    }
}

/// With a comma between thousands.
fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        _ if percent >= 9.95 => format!("{percent:.0} %"),
        _ if percent >= 0.095 => format!("{percent:.1} %"),
        _ if percent >= 0.005 => format!("{percent:.2} %"),
        _ => "none".into(),
    }
}

/// Hours, minutes and seconds; the day is that of the message.
fn time(ns: u64) -> String {
    let seconds = ns / 1_000_000_000 % 86_400;
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (100_000, "100,000"), (1_234_567, "1,234,567")];
        cases.iter().for_each(|(value, text)| assert_eq!(number(*value), *text));
        let cases = [(1.0, "100 %"), (0.0996, "10 %"), (0.0123, "1.2 %"), (0.0004, "0.04 %"), (0.0, "none")];
        cases.iter().for_each(|(share, text)| assert_eq!(percent(*share), *text));
        let cases = [(0.31, "0.3 ms"), (42.4, "42 ms"), (1_234.0, "1.2 s"), (12_345.0, "12 s")];
        cases.iter().for_each(|(ms, text)| assert_eq!(duration(*ms), *text));
        let cases = [(0.0, "0"), (0.0123, "0.012"), (7.0, "7.00"), (-42.42, "-42.4"), (-1_234.0, "-1,234")];
        cases.iter().for_each(|(value, text)| assert_eq!(figure(*value), *text));
        assert_eq!((figure(1e9).as_str(), figure(1e-5).as_str()), ("1.00e9", "1.00e-5"));
        assert_eq!(time(1_700_000_000_000_000_000), "22:13:20 UTC");
    }

    #[test]
    fn keys_are_those_of_one_service_of_one_project() {
        let keys: Vec<String> =
            [("a/b", "c"), ("a", "b/c"), ("a|b", "c")].map(|(p, s)| key(SILENT, &keys::who(p, s))).into();
        assert_eq!(keys, ["silence:a%2Fb/c", "silence:a/b%2Fc", "silence:a%7Cb/c"]);
    }
}
