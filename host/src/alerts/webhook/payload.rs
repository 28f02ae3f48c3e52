//! The payload, and labels that Prometheus takes.

use crate::alerts::content::hex;
use crate::alerts::incidents::{Fingerprint, State, rfc3339};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What Alertmanager writes for a time that is not known: Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

pub(super) fn of(receiver: &str, state: &State) -> Value {
    let status = if state.ended.is_some() { "resolved" } else { "firing" };
    let fingerprint = fingerprint(&state.print);
    let labels = labels(state);
    let group: Map<String, Value> =
        GROUP_LABELS.iter().map(|name| ((*name).to_owned(), json!(labels[*name]))).collect();
    let annotations = json!({
        "summary": *state.content.title,
        "description": *state.content.text,
        "count": state.count.to_string(),
    });
    json!({
        "version": "4",
        "groupKey": format!("trommel:{fingerprint}"),
        "truncatedAlerts": 0,
        "status": status,
        "receiver": receiver,
        "groupLabels": group,
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [{
            "status": status,
            "labels": labels,
            "annotations": annotations,
            "startsAt": rfc3339(state.since_ms),
            "endsAt": state.ended.map_or_else(|| NEVER.to_owned(), |(time_ms, _)| rfc3339(time_ms)),
            "generatorURL": "",
            "fingerprint": fingerprint,
        }],
    })
}

const GROUP_LABELS: [&str; 3] = ["alertname", "tenant", "plugin"];

/// Our own labels, and the plugin's. Where a plugin's has the name of one of ours it is `exported_…`, as Prometheus
/// does it; where two are the same after translation the later one has a number.
fn labels(state: &State) -> BTreeMap<String, String> {
    let own = [
        ("alertname", &*state.content.title),
        ("severity", state.severity.name()),
        ("tenant", state.print.tenant()),
        ("plugin", &*state.print.plugin),
    ];
    let mut labels: BTreeMap<String, String> =
        own.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    for (name, value) in &state.content.labels {
        let mut name = label_name(name);
        if own.iter().any(|(taken, _)| *taken == name) {
            name = format!("exported_{name}");
        }
        let numbered = (2..).map(|number| format!("{name}_{number}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|name| !labels.contains_key(name));
        labels.extend(free.map(|name| (name, value.to_string())));
    }
    labels
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`, and not two `_` in front, which Prometheus keeps for itself.
fn label_name(name: &str) -> String {
    let letters = name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' });
    let name: String = letters.collect();
    let trimmed = name.trim_start_matches('_');
    let begins_well = trimmed.starts_with(|letter: char| letter.is_ascii_alphabetic());
    match () {
        () if trimmed.is_empty() => "label".into(),
        () if !begins_well || trimmed.len() < name.len() => format!("_{trimmed}"),
        () => name,
    }
}

/// The same for the same incident, whatever its labels become.
fn fingerprint(print: &Fingerprint) -> String {
    let mut hash = Sha256::new();
    for part in [print.tenant(), &print.plugin, &print.key] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex(&hash.finalize()[..8])
}
