//! What the operator writes, checked.

use serde::Deserialize;
use std::collections::HashSet;

/// The host shows a key for ten windows after its last value: silence that lasts longer is not seen.
const SILENCE_WINDOWS_MAX: u32 = 10;
/// A day of windows.
const WINDOWS_MAX: u32 = 8_640;

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
    /// Windows of a service before its new errors are told; until then they are learned. Rare errors of every day show
    /// within the first hour.
    pub(crate) learning_windows: u32,
    /// Windows without a record before silence is told.
    pub(crate) silence_windows: u32,
    /// Windows with records that a service must have had before its silence is news.
    pub(crate) spoken_windows: u32,
    /// Names of services that are not watched.
    pub(crate) ignore: HashSet<String>,
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
            ignore: HashSet::new(),
        }
    }
}

pub(crate) fn parse(json: &str) -> Result<Settings, String> {
    let settings: Settings = serde_json::from_str(json).map_err(|error| error.to_string())?;
    for (name, number) in [("min_errors", settings.min_errors), ("min_records", settings.min_records)] {
        if number == 0 {
            return Err(format!("{name}: 0 is not 1 or more"));
        }
    }
    if !(1.1..=1000.0).contains(&settings.factor) {
        return Err(format!("factor: {} is not from 1.1 to 1000", settings.factor));
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
    Ok(settings)
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
        ];
        for (json, expected) in cases {
            let message = parse(json).err().unwrap();
            assert!(message.contains(expected), "{json}: {message}");
        }
    }
}
