//! What the operator writes, checked.

use crate::keys;
use serde::Deserialize;
use std::collections::HashSet;

/// The host shows a key for ten windows after its last value: silence that lasts longer is not seen.
const SILENCE_WINDOWS_MAX: u32 = 10;
/// A day of windows.
const WINDOWS_MAX: u32 = 8_640;
/// Metrics that may be configured: each is one more look at every name of a batch.
const METRICS_MAX: usize = 16;
/// Of the name of a metric or a service.
const NAME_BYTES_MAX: usize = 256;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Errors of a window that may be worth an alert. A handful is no incident, however rare errors are.
    pub(crate) min_errors: u64,
    /// Records of a window that a rate can be told of.
    pub(crate) min_records: u64,
    /// Windows with records before a rate is judged. The first minute: what is unlikely by chance is not told even then.
    pub(crate) baseline_windows: u32,
    /// How many times the usual rate.
    pub(crate) factor: f64,
    /// Windows without what an alert tells before it is resolved: a minute, so that a short pause is no end.
    pub(crate) calm_windows: u32,
    /// Windows after an alert about the error rate before the next one of the same service.
    pub(crate) cooldown_windows: u32,
    /// Windows of a service before its new errors are told, and before its latency and metrics are judged; until then they
    /// are learned. What is rare but of every day shows within the first hour.
    pub(crate) learning_windows: u32,
    /// Windows without a record, span or data point before silence is told; more for a service that pauses by habit.
    pub(crate) silence_windows: u32,
    /// Windows with records that a service must have had before its silence is news.
    pub(crate) spoken_windows: u32,
    /// How many times the usual duration of a request.
    pub(crate) latency_factor: f64,
    /// Spans that a distribution can be told of.
    pub(crate) min_spans: u64,
    /// Metrics that are compared with what is usual.
    pub(crate) metrics: Vec<Metric>,
    /// Names of services that are not watched.
    pub(crate) ignore: HashSet<String>,
}

/// A metric that is watched.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metric {
    pub(crate) name: String,
    /// Of this service alone; else of each that sends it.
    #[serde(default)]
    pub(crate) service: Option<String>,
    #[serde(default)]
    pub(crate) direction: Direction,
    /// A change that is smaller is never told, however steady the metric is.
    #[serde(default)]
    pub(crate) min: f64,
    /// Name and service as keys have them.
    #[serde(skip)]
    pub(crate) in_keys: (String, Option<String>),
}

/// Which way a metric may go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    Above,
    Below,
    #[default]
    Both,
}

impl Settings {
    /// The setting for a metric of a service, both as keys have them; one that names the service comes first.
    pub(crate) fn metric(&self, service: &str, name: &str) -> Option<&Metric> {
        let of_service = |metric: &&Metric| {
            metric.in_keys.0 == name && metric.in_keys.1.as_deref().is_none_or(|only| only == service)
        };
        self.metrics.iter().filter(of_service).max_by_key(|metric| metric.service.is_some())
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            min_errors: 10,
            min_records: 20,
            baseline_windows: 5,
            factor: 3.0,
            calm_windows: 6,
            cooldown_windows: 12,
            learning_windows: 360,
            silence_windows: 6,
            spoken_windows: 30,
            latency_factor: 2.0,
            min_spans: 20,
            metrics: Vec::new(),
            ignore: HashSet::new(),
        }
    }
}

pub(crate) fn parse(json: &str) -> Result<Settings, String> {
    let mut settings: Settings = serde_json::from_str(json).map_err(|error| error.to_string())?;
    for (name, number) in [
        ("min_errors", settings.min_errors),
        ("min_records", settings.min_records),
        ("min_spans", settings.min_spans),
    ] {
        if number == 0 {
            return Err(format!("{name}: 0 is not 1 or more"));
        }
    }
    for (name, factor) in [("factor", settings.factor), ("latency_factor", settings.latency_factor)] {
        if !(1.1..=1000.0).contains(&factor) {
            return Err(format!("{name}: {factor} is not from 1.1 to 1000"));
        }
    }
    let windows = [
        ("baseline_windows", settings.baseline_windows, 1, WINDOWS_MAX),
        ("calm_windows", settings.calm_windows, 1, WINDOWS_MAX),
        ("cooldown_windows", settings.cooldown_windows, 0, WINDOWS_MAX),
        ("learning_windows", settings.learning_windows, 0, WINDOWS_MAX),
        ("silence_windows", settings.silence_windows, 1, SILENCE_WINDOWS_MAX),
        ("spoken_windows", settings.spoken_windows, 1, WINDOWS_MAX),
    ];
    for (name, number, least, most) in windows {
        if !(least..=most).contains(&number) {
            return Err(format!("{name}: {number} is not from {least} to {most} windows of 10 s"));
        }
    }
    check_metrics(&mut settings.metrics)?;
    Ok(settings)
}

fn check_metrics(metrics: &mut [Metric]) -> Result<(), String> {
    if metrics.len() > METRICS_MAX {
        return Err(format!("metrics: {} are more than {METRICS_MAX}", metrics.len()));
    }
    for at in 0..metrics.len() {
        let Metric { name, service, min, .. } = &metrics[at];
        let lengths = [name.len(), service.as_ref().map_or(1, String::len)];
        if lengths.iter().any(|length| !(1..=NAME_BYTES_MAX).contains(length)) {
            return Err(format!("metrics[{at}]: a name is not from 1 to {NAME_BYTES_MAX} bytes long"));
        }
        if !min.is_finite() || *min < 0.0 {
            return Err(format!("metrics[{at}].min: {min} is not 0 or more"));
        }
        if metrics[..at].iter().any(|other| (&other.name, &other.service) == (name, service)) {
            return Err(format!("metrics[{at}]: the same name and service stand there twice"));
        }
        metrics[at].in_keys = (keys::escaped(name), service.as_deref().map(keys::escaped));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_settings_all_have_their_defaults() {
        let settings = parse("{}").unwrap();
        assert_eq!((settings.min_errors, settings.baseline_windows, settings.factor), (10, 5, 3.0));
        assert!(settings.ignore.is_empty());
    }

    #[test]
    fn what_is_written_holds() {
        let settings = parse(r#"{"min_errors": 5, "factor": 2, "ignore": ["probe"]}"#).unwrap();
        assert_eq!((settings.min_errors, settings.min_records, settings.factor), (5, 20, 2.0));
        assert!(settings.ignore.contains("probe"));
    }

    #[test]
    fn a_metric_of_one_service_goes_before_that_of_all() {
        let json = r#"{"metrics": [{"name": "q", "min": 1}, {"name": "q", "service": "a/b", "direction": "above"},
            {"name": "r", "service": "web"}]}"#;
        let settings = parse(json).unwrap();
        let of = |service: &str, name: &str| settings.metric(service, name).map(|metric| metric.direction);
        assert_eq!(of("web", "q"), Some(Direction::Both));
        assert_eq!(of("a%2Fb", "q"), Some(Direction::Above));
        assert_eq!((of("web", "r"), of("db", "r")), (Some(Direction::Both), None));
    }

    #[test]
    fn more_metrics_than_are_watched_are_refused() {
        let metrics: Vec<String> = (0..17).map(|at| format!(r#"{{"name": "m{at}"}}"#)).collect();
        let message = parse(&format!(r#"{{"metrics": [{}]}}"#, metrics.join(","))).err().unwrap();
        assert_eq!(message, "metrics: 17 are more than 16");
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let cases = [
            (r#"{"min_errors": 0}"#, "min_errors: 0 is not 1 or more"),
            (r#"{"min_records": -1}"#, "-1"),
            (r#"{"factor": 1}"#, "factor: 1 is not from 1.1 to 1000"),
            (r#"{"factor": "3"}"#, "invalid type"),
            (r#"{"silence_windows": 11}"#, "silence_windows: 11 is not from 1 to 10 windows of 10 s"),
            (r#"{"calm_windows": 0}"#, "calm_windows: 0 is not"),
            (r#"{"baseline_windows": 8641}"#, "baseline_windows: 8641 is not"),
            (r#"{"window": 10}"#, "unknown field `window`"),
            (r#"{"latency_factor": 1}"#, "latency_factor: 1 is not from 1.1 to 1000"),
            (r#"{"min_spans": 0}"#, "min_spans: 0 is not 1 or more"),
            (r#"{"metrics": [{}]}"#, "missing field `name`"),
            (r#"{"metrics": [{"name": ""}]}"#, "metrics[0]: a name is not from 1 to 256 bytes long"),
            (r#"{"metrics": [{"name": "a", "min": -1}]}"#, "metrics[0].min: -1 is not 0 or more"),
            (r#"{"metrics": [{"name": "a", "direction": "up"}]}"#, "unknown variant `up`"),
            (r#"{"metrics": [{"name": "a"}, {"name": "a"}]}"#, "metrics[1]: the same name"),
        ];
        for (json, expected) in cases {
            let message = parse(json).err().unwrap();
            assert!(message.contains(expected), "{json}: {message}");
        }
    }
}
