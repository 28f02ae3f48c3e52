//! The texts of alerts: figures in `text`, and in `title` no more than which rule found what service.

use crate::keys;
use crate::service::{Failing, New, Silent};
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

/// The key of what a rule found about a service.
pub(crate) fn key(rule: &str, who: &str) -> String {
    format!("{rule}:{}", who.replacen('|', "/", 1))
}

pub(crate) fn key_of_new(who: &str, new: &New) -> String {
    format!("{}:{:016x}", key(NEW, who), new.signature)
}

pub(crate) fn failing(who: &str, failing: &Failing) -> Alert {
    let (errors, records) = failing.worst;
    let mut text = format!(
        "{} errors since {}. In the worst 10 s {} of {} records were errors ({}); usual are {}.",
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
    alert(FAILING, "error rate", Severity::Critical, who, key(FAILING, who), text, failing.telling.owed)
}

pub(crate) fn new(who: &str, new: &New) -> Alert {
    let (errors, since) = (number(new.errors), time(new.since_ns));
    let text = format!("{}\nnot seen before {since}; {errors} since.", new.template);
    alert(NEW, "new error", Severity::Warning, who, key_of_new(who, new), text, new.telling.owed)
}

pub(crate) fn silent(who: &str, silent: &Silent) -> Alert {
    let text = format!("no log records since {}; before, it spoke all the time.", time(silent.since_ns));
    alert(SILENT, "silence", Severity::Warning, who, key(SILENT, who), text, silent.telling.owed)
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
        assert_eq!(time(1_700_000_000_000_000_000), "22:13:20 UTC");
    }

    #[test]
    fn keys_are_those_of_one_service_of_one_project() {
        let keys: Vec<String> =
            [("a/b", "c"), ("a", "b/c"), ("a|b", "c")].map(|(p, s)| key(SILENT, &keys::who(p, s))).into();
        assert_eq!(keys, ["silence:a%2Fb/c", "silence:a/b%2Fc", "silence:a%7Cb/c"]);
    }
}
