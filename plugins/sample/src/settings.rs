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
    /// Of each service that has none of its own; `None`: as many as come.
    pub(crate) limit: Option<Limit>,
    pub(crate) limit_of_service: HashMap<String, Limit>,
}

/// Records of one service that may pass.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    pub(crate) per_second: f64,
    /// At once, after a pause.
    pub(crate) burst: u32,
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
    limit: Option<Limit>,
    #[serde(default)]
    limits: HashMap<String, Limit>,
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
    let Written { ratio, services, keep_severity, no_trace, precision, limit, limits } = written;
    if !(1..=14).contains(&precision) {
        return Err(format!("precision: {precision} is not 1 to 14 digits"));
    }
    if !(1..=25).contains(&keep_severity) {
        return Err(format!("keep_severity: {keep_severity} is not 1 to 24, or 25 for none"));
    }
    let named = limits.iter().map(|(service, limit)| (format!("limits.{service}"), limit));
    for (name, limit) in limit.iter().map(|limit| ("limit".to_owned(), limit)).chain(named) {
        check(&name, *limit)?;
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
        limit,
        limit_of_service: limits,
    })
}

fn check(name: &str, limit: Limit) -> Result<(), String> {
    let Limit { per_second, burst } = limit;
    if !(per_second > 0.0 && per_second <= f64::from(u32::MAX)) {
        return Err(format!("{name}.per_second: {per_second} is not above 0, up to {}", u32::MAX));
    }
    // A bucket that holds less than a second's records would cut what arrives evenly.
    if f64::from(burst) < per_second.max(1.0) {
        return Err(format!("{name}.burst: {burst} is less than per_second ({per_second}), or than 1"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_settings_all_is_kept() {
        let settings = parse("{}").unwrap();
        assert_eq!((settings.threshold, settings.keep_severity, settings.keeps_traceless), (0, 17, false));
        assert!(settings.of_service.is_empty() && settings.limit.is_none());
    }

    #[test]
    fn a_service_has_a_limit_of_its_own() {
        let json = r#"{"limit": {"per_second": 100, "burst": 200}, "limits": {"a": {"per_second": 0.5, "burst": 1}}}"#;
        let settings = parse(json).unwrap();
        assert_eq!(settings.limit, Some(Limit { per_second: 100.0, burst: 200 }));
        assert_eq!(settings.limit_of_service["a"], Limit { per_second: 0.5, burst: 1 });
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
            (r#"{"limit": {"per_second": 0, "burst": 1}}"#, "limit.per_second: 0 is not above 0"),
            (r#"{"limit": {"per_second": 1e300, "burst": 1}}"#, "limit.per_second: 1"),
            (r#"{"limit": {"per_second": 10, "burst": 9}}"#, "limit.burst: 9 is less than per_second (10)"),
            (r#"{"limit": {"per_second": 10}}"#, "missing field `burst`"),
            (r#"{"limits": {"a": {"per_second": 0.1, "burst": 0}}}"#, "limits.a.burst: 0 is less than"),
        ];
        for (json, expected) in cases {
            let message = parse(json).err().unwrap();
            assert!(message.contains(expected), "{json}: {message}");
        }
    }
}
