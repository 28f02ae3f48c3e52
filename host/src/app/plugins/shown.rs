//! `GET /v1/plugins`: what of each plugin is there, on trial, or came to nothing.

use super::{Entry, Failure, Plugins, Stage, unix_ms};
use crate::pipeline::Score;
use serde_json::{Value, json};

impl Plugins {
    /// For `/v1/plugins`.
    pub(in crate::app) fn shown(&self) -> Value {
        let tried = self.tried().clone();
        let show = |entry: &Entry| {
            let mut shown = entry.shown();
            if entry.candidate.is_none() && tried.as_ref() == Some(&entry.settings.name) {
                shown["candidate"] = json!({ "stage": Stage::Loading.name() });
            }
            shown
        };
        self.table().iter().map(show).collect()
    }
}

impl Entry {
    fn state(&self) -> &'static str {
        match (&self.active, self.is_tried) {
            (Some(_), _) => "loaded",
            (None, true) => "failed",
            (None, false) => "loading",
        }
    }

    pub(super) fn stage(&self) -> Stage {
        match (&self.candidate, &self.previous, &self.active) {
            (Some(candidate), _, _) => candidate.stage(),
            (None, Some(_), _) => Stage::Watching,
            (None, None, Some(_)) => Stage::Active,
            (None, None, None) => Stage::Loading,
        }
    }

    pub(super) fn shown(&self) -> Value {
        let active = self.active.as_ref();
        // Without a version its failure is what is to be known first.
        let error = active.is_none().then(|| self.failure.as_ref().map(|failure| &failure.why)).flatten();
        json!({
            "name": self.settings.name,
            "guard": self.settings.is_guard,
            "state": self.state(),
            "stage": self.stage().name(),
            "version": active.map(|version| &version.plugin.manifest().version),
            "digest": active.map(|version| version.digest.to_string()),
            "since_ms": active.map(|version| unix_ms(version.since)),
            "by": active.map(|version| version.how.name()),
            "error": error,
            "open_circuits": active.map_or(0, |version| version.plugin.open_circuits()),
            "candidate": self.candidate.as_ref().map(|candidate| {
                let differing = candidate.differences().map(|differences| {
                    let found = differences.read();
                    json!({
                        "same": found.same,
                        "changed": found.changed,
                        "missing": found.missing,
                        "extra": found.extra,
                    })
                });
                json!({
                    "version": candidate.version.plugin.manifest().version,
                    "digest": candidate.version.digest.to_string(),
                    "stage": candidate.stage().name(),
                    "since_ms": unix_ms(candidate.version.since),
                    "did": did(&candidate.score),
                    "differences": differing,
                })
            }),
            "previous": self.previous.as_ref().map(|previous| json!({
                "version": previous.version.plugin.manifest().version,
                "digest": previous.version.digest.to_string(),
            })),
            "did": active.map(|version| did(&version.score)),
            "failure": self.failure.as_ref().map(Failure::shown),
        })
    }
}

impl Failure {
    pub(super) fn shown(&self) -> Value {
        json!({
            "digest": self.digest.map(|digest| digest.to_string()),
            "stage": self.stage.name(),
            "outcome": self.outcome.name(),
            "why": self.why,
            "at_ms": unix_ms(self.at),
        })
    }
}

/// What a version did.
fn did(score: &Score) -> Value {
    let counts = score.read();
    json!({
        "calls": counts.runs,
        "failed_calls": counts.failed_runs,
        "records": counts.records,
        "dropped": counts.dropped,
        "record_cpu_ns": counts.cost_ns(),
    })
}
