//! Open incidents, and those that ended of late, as JSON.

use super::{ChannelRule, ENDED_MAX, ENDED_OF_TENANT_MAX, Ended, How, Incident, Incidents, State};
use crate::alerts::Severity;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::sync::Arc;

/// Incidents in one answer, newest first.
const INCIDENTS_MAX: usize = 500;
/// Texts in one answer; what is over it is left out, and counted.
const BYTES_MAX: usize = 4 << 20;

/// An incident, and what each channel knows of it.
#[derive(Clone, Debug)]
pub(in crate::alerts) struct Kept {
    number: u64,
    state: State,
    bytes: usize,
    channels: Vec<ChannelKept>,
}

#[derive(Clone, Debug)]
struct ChannelKept {
    name: Arc<str>,
    told: &'static str,
    count: u64,
    trouble: Option<&'static str>,
}

impl Kept {
    pub(super) fn of(
        number: u64,
        incident: &Incident,
        ended: Option<Ended>,
        channels: &[ChannelRule],
    ) -> Kept {
        let of_channel = incident.tellings.iter().map(|telling| ChannelKept {
            name: channels[telling.channel].name.clone(),
            told: telling.known(),
            count: telling.known_count(),
            trouble: telling.trouble,
        });
        let state = State { ended: ended.map(|ended| (ended.time_ms, ended.how)), ..incident.state() };
        Kept { number, state, bytes: incident.bytes, channels: of_channel.collect() }
    }

    fn json(&self) -> Value {
        let State { print, severity, content, count, since_ms, last_ms, ended } = &self.state;
        let labels = content.labels.iter().map(|(name, value)| (name.to_string(), json!(**value)));
        let channels = self.channels.iter().map(|channel| {
            json!({
                "channel": *channel.name,
                "told": channel.told,
                "count": channel.count,
                "why_not": channel.trouble,
            })
        });
        json!({
            "tenant": print.tenant(),
            "plugin": *print.plugin,
            "key": *print.key,
            "severity": severity.name(),
            "title": *content.title,
            "text": *content.text,
            "labels": labels.collect::<serde_json::Map<_, _>>(),
            "count": count,
            "since": rfc3339(*since_ms),
            "last": rfc3339(*last_ms),
            "state": match ended {
                None => "open",
                Some((_, How::Resolved)) => "resolved",
                Some((_, How::Expired)) => "expired",
            },
            "ended": ended.map(|(time_ms, _)| rfc3339(time_ms)),
            "channels": channels.collect::<Vec<_>>(),
        })
    }
}

impl Incidents {
    pub(super) fn keep_ended(&mut self, kept: Kept) {
        // One tenant's many must not push out what others want to look up.
        let tenant = &kept.state.print.tenant;
        let own = self.ended.iter().enumerate().filter(|(_, other)| other.state.print.tenant == *tenant);
        let own: Vec<usize> = own.map(|(at, _)| at).collect();
        if own.len() >= ENDED_OF_TENANT_MAX {
            self.ended.remove(own[0]);
        }
        self.ended.push_back(kept);
        if self.ended.len() > ENDED_MAX {
            self.ended.pop_front();
        }
    }

    /// Those to show, newest first, and how many there are beside them. Writing them as JSON needs no lock.
    pub(in crate::alerts) fn kept(&self) -> (Vec<Kept>, usize) {
        let all = self.incidents.len() + self.ended.len();
        let of = |(number, incident): (&u64, &Incident)| {
            Kept::of(*number, incident, incident.ended, &self.rules.channels)
        };
        let mut kept: Vec<Kept> = self.incidents.iter().rev().take(INCIDENTS_MAX).map(of).collect();
        kept.extend(self.ended.iter().cloned());
        kept.sort_by_key(|kept| Reverse((kept.state.ended.is_none(), kept.state.last_ms, kept.number)));
        let mut bytes = 0;
        kept.retain(|kept| {
            bytes += kept.bytes;
            bytes <= BYTES_MAX
        });
        let left_out = all - kept.len();
        (kept, left_out)
    }
}

/// As JSON: `incidents` newest first, the open ones before those that ended, and how many were `left_out`.
pub(in crate::alerts) fn json((kept, left_out): (Vec<Kept>, usize)) -> Value {
    json!({ "incidents": kept.iter().map(Kept::json).collect::<Vec<_>>(), "left_out": left_out })
}

impl Severity {
    pub(in crate::alerts) fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// A time in ms since 1970; beyond what calendars hold it is the last that they do.
pub(in crate::alerts) fn timestamp(time_ms: u64) -> jiff::Timestamp {
    let time_ms = i64::try_from(time_ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(time_ms).unwrap_or(jiff::Timestamp::MAX)
}

pub(in crate::alerts) fn rfc3339(time_ms: u64) -> String {
    timestamp(time_ms).to_string()
}
