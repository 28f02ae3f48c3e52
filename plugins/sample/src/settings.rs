//! What the operator writes, checked.

use crate::threshold;
use serde::Deserialize;
use std::collections::HashMap;

pub(crate) struct Settings {
    /// Of the services that have none of their own.
    pub(crate) threshold: u64,
    pub(crate) of_service: HashMap<String, u64>,
    /// Log records at least as severe are kept.
    pub(crate) keep_severity: u8,
    /// Whether log records of no trace are kept, or decided by their bytes.
    pub(crate) keeps_traceless: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default = "everything")]
    ratio: f64,
    #[serde(default)]
    services: HashMap<String, f64>,
    #[serde(default = "error")]
    keep_severity: u8,
    #[serde(default)]
    no_trace: Traceless,
    #[serde(default = "four")]
    precision: u32,
}

#[derive(Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Traceless {
    #[default]
    Sample,
    Keep,
}

fn everything() -> f64 {
    1.0
}

/// The severity number of `ERROR`.
fn error() -> u8 {
    17
}

/// What the specification recommends.
fn four() -> u32 {
    4
}

pub(crate) fn parse(json: &str) -> Result<Settings, String> {
    let written: Written = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let Written { ratio, services, keep_severity, no_trace, precision } = written;
    if !(1..=14).contains(&precision) {
        return Err(format!("precision: {precision} is not 1 to 14 digits"));
    }
    if !(1..=25).contains(&keep_severity) {
        return Err(format!("keep_severity: {keep_severity} is not 1 to 24, or 25 for none"));
    }
    let threshold_of = |name: &str, ratio: f64| match (0.0..=1.0).contains(&ratio) {
        true => Ok(threshold::of_ratio(ratio, precision)),
        false => Err(format!("{name}: {ratio} is not from 0 to 1")),
    };
    let of_service = services
        .into_iter()
        .map(|(service, ratio)| {
            let threshold = threshold_of(&format!("services.{service}"), ratio)?;
            Ok((service, threshold))
        })
        .collect::<Result<_, String>>()?;
    Ok(Settings {
        threshold: threshold_of("ratio", ratio)?,
        of_service,
        keep_severity,
        keeps_traceless: no_trace == Traceless::Keep,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_settings_all_is_kept() {
        let settings = parse("{}").unwrap();
        assert_eq!((settings.threshold, settings.keep_severity, settings.keeps_traceless), (0, 17, false));
        assert!(settings.of_service.is_empty());
    }

    #[test]
    fn a_service_has_a_ratio_of_its_own() {
        let settings =
            parse(r#"{"ratio": 0.5, "services": {"a": 0.25, "b": 0}, "no_trace": "keep"}"#).unwrap();
        assert_eq!(threshold::encode(settings.threshold), "8");
        assert_eq!(threshold::encode(settings.of_service["a"]), "c");
        assert_eq!(settings.of_service["b"], threshold::ALL);
        assert!(settings.keeps_traceless);
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let cases = [
            (r#"{"ratio": 1.5}"#, "ratio: 1.5 is not from 0 to 1"),
            (r#"{"ratio": -0.1}"#, "ratio: -0.1 is not"),
            (r#"{"services": {"a": 2}}"#, "services.a: 2 is not"),
            (r#"{"keep_severity": 0}"#, "keep_severity: 0"),
            (r#"{"keep_severity": 26}"#, "keep_severity: 26"),
            (r#"{"precision": 15}"#, "precision: 15"),
            (r#"{"rate": 1}"#, "unknown field `rate`"),
            (r#"{"no_trace": "drop"}"#, "unknown variant `drop`"),
        ];
        for (json, expected) in cases {
            let message = parse(json).err().unwrap();
            assert!(message.contains(expected), "{json}: {message}");
        }
    }
}
