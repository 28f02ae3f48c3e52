//! The incidents, as a machine without clock or IO: what happened goes in with its time, what is to be told comes out.
//!
//! There is one incident per fingerprint (tenant, plugin, key). Counts are exact: what cannot be kept any more is
//! counted as dropped, never half. A tenant may hold as many incidents and bytes as are still free, so whoever floods
//! leaves room for the others. Nobody is evicted.
//!
//! An incident that fires again within `group_interval` of its end is the same one going on; later it is a new one,
//! with a new message, on every channel that was told of the end.

mod shown;
mod telling;
#[cfg(test)]
mod tests;

pub(super) use shown::{json, rfc3339, timestamp};
pub(super) use telling::{Change, Handle, Next, Outcome, Tell};

use super::content::{Content, cut_key};
use super::{Raised, Severity, What};
use crate::batch::TenantId;
use crate::telemetry::Metrics;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use telling::{Line, Telling};
use tokio::time::Instant;

/// What an incident takes beside its texts: the structs, and its places in the maps.
const INCIDENT_BYTES: usize = 1024;
/// An incident that ended is kept for a channel that does not answer for so long; then it is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3600);
/// Incidents that a tenant may have while others flood.
const FEW: usize = 3;
/// Work under the lock stays short.
const STEPS_MAX: usize = 256;
/// Ended incidents that are shown, and of one tenant.
const ENDED_MAX: usize = 100;
const ENDED_OF_TENANT_MAX: usize = 25;

/// How many incidents are kept. More than these nobody reads; they are a bound on the memory of floods.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) incidents: usize,
    pub(super) tenant_incidents: usize,
    pub(super) bytes: usize,
    pub(super) tenant_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { incidents: 10_000, tenant_incidents: 1_000, bytes: 32 << 20, tenant_bytes: 8 << 20 }
    }
}

/// The settings, with channels by number.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) channels: Vec<ChannelRule>,
    pub(super) routes: Vec<RouteRule>,
    pub(super) group_wait: Duration,
    pub(super) group_interval: Duration,
    pub(super) resolve_after: Duration,
    pub(super) bounds: Bounds,
}

#[derive(Debug)]
pub(super) struct ChannelRule {
    pub(super) name: Arc<str>,
    /// Incidents of one severity and above that may wait for their first message; the others are suppressed here.
    pub(super) waiting_max: usize,
}

#[derive(Debug)]
pub(super) struct RouteRule {
    pub(super) severities: Vec<Severity>,
    pub(super) tenants: Vec<String>,
    pub(super) plugins: Vec<String>,
    pub(super) to: Vec<usize>,
}

/// Whose incident, and which. `tenant` is `None` for our own notices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint {
    pub(super) tenant: Option<TenantId>,
    pub(super) plugin: Box<str>,
    pub(super) key: Box<str>,
}

impl Fingerprint {
    pub(super) fn tenant(&self) -> &str {
        self.tenant.as_ref().map_or("_trommel", TenantId::as_str)
    }
    fn bytes(&self) -> usize {
        self.tenant().len() + self.plugin.len() + self.key.len()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// The plugin said so.
    Resolved,
    /// It was not fired for long.
    Expired,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    at: Instant,
    time_ms: u64,
    how: How,
}

/// What people are told of an incident. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) print: Arc<Fingerprint>,
    pub(super) severity: Severity,
    pub(super) content: Arc<Content>,
    pub(super) count: u64,
    /// The first firing, in ms since 1970.
    pub(super) since_ms: u64,
    /// The last firing.
    pub(super) last_ms: u64,
    /// When and how it ended.
    pub(super) ended: Option<(u64, How)>,
}

#[derive(Debug)]
struct Incident {
    print: Arc<Fingerprint>,
    /// The highest since it opened.
    severity: Severity,
    content: Arc<Content>,
    count: u64,
    since_ms: u64,
    last_ms: u64,
    opened: Instant,
    fired: Instant,
    ended: Option<Ended>,
    /// Goes up with every change.
    revision: u64,
    resolve_after: Duration,
    /// When to look whether it is over.
    check: Instant,
    tellings: Vec<Telling>,
    bytes: usize,
}

impl Incident {
    fn state(&self) -> State {
        State {
            print: self.print.clone(),
            severity: self.severity,
            content: self.content.clone(),
            count: self.count,
            since_ms: self.since_ms,
            last_ms: self.last_ms,
            ended: self.ended.map(|ended| (ended.time_ms, ended.how)),
        }
    }

    fn is_settled(&self) -> bool {
        self.tellings.iter().all(Telling::is_settled)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Account {
    incidents: usize,
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct Incidents {
    rules: Rules,
    /// By number, in the order of their first opening.
    incidents: BTreeMap<u64, Incident>,
    numbers: HashMap<Arc<Fingerprint>, u64>,
    next_number: u64,
    all: Account,
    tenants: HashMap<TenantId, Account>,
    /// When to look at which incident.
    checks: BTreeSet<(Instant, u64)>,
    lines: Vec<Line>,
    ended: VecDeque<shown::Kept>,
    /// Alerts dropped since somebody asked, by reason.
    dropped: Vec<(&'static str, u64)>,
    /// Something became due earlier than before.
    is_stirred: bool,
    /// The newest wall time that we were told.
    last_ms: u64,
    metrics: Metrics,
}

impl Incidents {
    pub(super) fn new(rules: Rules, metrics: Metrics) -> Incidents {
        let lines = rules.channels.iter().map(|channel| Line::new(channel, &metrics)).collect();
        Incidents {
            rules,
            incidents: BTreeMap::new(),
            numbers: HashMap::new(),
            next_number: 0,
            all: Account::default(),
            tenants: HashMap::new(),
            checks: BTreeSet::new(),
            lines,
            ended: VecDeque::new(),
            dropped: Vec::new(),
            is_stirred: false,
            last_ms: 0,
            metrics,
        }
    }

    /// Opens an incident, adds to it, or ends it. `content` was cut before, outside of the lock.
    pub(super) fn raise(&mut self, raised: Cut, now: Instant) {
        let Cut { print, time_ms, what } = raised;
        self.last_ms = self.last_ms.max(time_ms);
        let number = self.numbers.get(&print).copied();
        match (what, number) {
            (CutWhat::Fire(fire), Some(number)) => self.fire_again(number, fire, time_ms, now),
            (CutWhat::Fire(fire), None) => self.open(print, fire, time_ms, now),
            (CutWhat::Resolve, Some(number)) => self.end(number, time_ms, How::Resolved, now),
            // It was never opened, or is long over.
            (CutWhat::Resolve, None) => {}
        }
        self.fire_notices(now);
    }

    fn open(&mut self, print: Fingerprint, fire: Fire, time_ms: u64, now: Instant) {
        let bytes = INCIDENT_BYTES + print.bytes() + fire.content.bytes();
        let channels = self.route(&print, fire.severity);
        if let Err(reason) = self.admit(&print, bytes) {
            return self.drop_alert(&print, reason, &channels);
        }
        if channels.is_empty() {
            self.count_untold("_none", "no_route", 1);
        }
        self.insert(print, fire, time_ms, bytes, &channels, self.rules.resolve_after, now);
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "each is a fact of the new incident, and there are two callers"
    )]
    fn insert(
        &mut self,
        print: Fingerprint,
        fire: Fire,
        time_ms: u64,
        bytes: usize,
        channels: &[usize],
        resolve_after: Duration,
        now: Instant,
    ) {
        let number = self.next_number;
        self.next_number += 1;
        let print = Arc::new(print);
        let incident = Incident {
            print: print.clone(),
            severity: fire.severity,
            content: Arc::new(fire.content),
            count: fire.count,
            since_ms: time_ms,
            last_ms: time_ms,
            opened: now,
            fired: now,
            ended: None,
            revision: 1,
            resolve_after,
            check: now + resolve_after,
            tellings: channels.iter().map(|channel| Telling::new(*channel)).collect(),
            bytes,
        };
        self.checks.insert((incident.check, number));
        self.charge(&print, 1, bytes as isize);
        self.incidents.insert(number, incident);
        self.numbers.insert(print, number);
        self.metrics.alerts_open.inc();
        self.place(number, now);
    }

    fn fire_again(&mut self, number: u64, fire: Fire, time_ms: u64, now: Instant) {
        let incident = self.incident(number);
        let was = incident.severity;
        if let Some(ended) = incident.ended.take() {
            let check = now + incident.resolve_after;
            self.metrics.alerts_open.inc();
            self.check_at(number, check);
            if now.duration_since(ended.at) > self.rules.group_interval {
                self.begin_anew(number, ended, fire.severity, time_ms, now);
            }
        }
        let incident = self.incident(number);
        incident.count = incident.count.saturating_add(fire.count);
        incident.fired = now;
        incident.last_ms = incident.last_ms.max(time_ms);
        incident.severity = incident.severity.max(fire.severity);
        incident.revision += 1;
        let has_risen = incident.severity > was;
        self.replace_content(number, fire.content);
        if has_risen {
            self.add_channels(number);
        }
        self.place(number, now);
    }

    /// It came back long after its end: what it counted is over, and who was told of the end gets a new message.
    fn begin_anew(&mut self, number: u64, ended: Ended, severity: Severity, time_ms: u64, now: Instant) {
        let incident = self.incidents.get_mut(&number).expect("a number stands for an incident");
        let kept = shown::Kept::of(number, incident, Some(ended), &self.rules.channels);
        (incident.severity, incident.count) = (severity, 0);
        (incident.since_ms, incident.last_ms) = (time_ms, time_ms);
        (incident.opened, incident.fired) = (now, now);
        if incident.print.tenant.is_some() {
            incident.tellings.retain(|telling| !telling.is_settled());
        } else {
            incident.tellings.iter_mut().for_each(Telling::begin_anew);
        }
        self.keep_ended(kept);
        self.add_channels(number);
        if self.incidents[&number].tellings.is_empty() {
            self.count_untold("_none", "no_route", 1);
        }
    }

    /// Newer words where they fit; else the older ones stay, and only the count is new.
    fn replace_content(&mut self, number: u64, content: Content) {
        let incident = &self.incidents[&number];
        if *incident.content == content {
            return;
        }
        let print = incident.print.clone();
        let more = content.bytes() as isize - incident.content.bytes() as isize;
        if more > 0 && !self.has_room(&print, 0, more.unsigned_abs()) {
            self.count_dropped(&print, "text");
            return;
        }
        self.charge(&print, 0, more);
        let incident = self.incident(number);
        incident.bytes = incident.bytes.saturating_add_signed(more);
        incident.content = Arc::new(content);
    }

    /// A higher severity may have a route of its own; who was told before is told on.
    fn add_channels(&mut self, number: u64) {
        let incident = &self.incidents[&number];
        if incident.print.tenant.is_none() {
            return;
        }
        let channels = self.route(&incident.print, incident.severity);
        let incident = self.incident(number);
        for channel in channels {
            match incident.tellings.iter_mut().find(|telling| telling.channel == channel) {
                Some(telling) => telling.is_suppressed = false,
                None => incident.tellings.push(Telling::new(channel)),
            }
        }
    }

    fn end(&mut self, number: u64, time_ms: u64, how: How, now: Instant) {
        let incident = self.incident(number);
        if incident.ended.is_some() {
            return;
        }
        incident.ended = Some(Ended { at: now, time_ms: time_ms.max(incident.last_ms), how });
        incident.revision += 1;
        self.metrics.alerts_open.dec();
        self.check_at(number, now + self.rules.group_interval);
        self.place(number, now);
    }

    /// Ends what was not fired for long, forgets what is over. Says whether there is more to do at once.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        for _ in 0..STEPS_MAX {
            match self.checks.first() {
                Some(&(at, number)) if at <= now => self.check(number, now),
                _ => return false,
            }
        }
        true
    }

    fn check(&mut self, number: u64, now: Instant) {
        let incident = &self.incidents[&number];
        let Some(ended) = incident.ended else {
            let quiet_at = incident.fired + incident.resolve_after;
            if quiet_at > now {
                return self.check_at(number, quiet_at);
            }
            let quiet_ms = u64::try_from(now.duration_since(incident.fired).as_millis()).unwrap_or(u64::MAX);
            return self.end(number, incident.last_ms.saturating_add(quiet_ms), How::Expired, now);
        };
        let give_up_at = ended.at + GIVE_UP_AFTER.max(self.rules.group_interval);
        if !incident.is_settled() && now < give_up_at {
            return self.check_at(number, give_up_at);
        }
        self.remove(number);
    }

    /// Over: it moves to those that are only shown.
    fn remove(&mut self, number: u64) {
        let Some(mut incident) = self.incidents.remove(&number) else { return };
        self.checks.remove(&(incident.check, number));
        self.numbers.remove(&incident.print);
        self.charge(&incident.print, -1, -(incident.bytes as isize));
        for telling in &mut incident.tellings {
            let line = &mut self.lines[telling.channel];
            let is_given_up = !telling.is_settled();
            line.take_out(number, incident.print.tenant.as_ref(), telling);
            let reason = match () {
                () if is_given_up => "gave_up",
                () if telling.is_suppressed || telling.was_told() => continue,
                () => "brief",
            };
            telling.trouble = Some(reason);
            let name = self.rules.channels[telling.channel].name.clone();
            self.count_untold(&name, reason, 1);
        }
        let kept = shown::Kept::of(number, &incident, incident.ended, &self.rules.channels);
        self.keep_ended(kept);
    }

    fn check_at(&mut self, number: u64, at: Instant) {
        let was = std::mem::replace(&mut self.incident(number).check, at);
        self.checks.remove(&(was, number));
        self.checks.insert((at, number));
    }

    fn incident(&mut self, number: u64) -> &mut Incident {
        self.incidents.get_mut(&number).expect("a number stands for an incident until it is removed")
    }

    /// The channels of the first route that fits.
    fn route(&self, print: &Fingerprint, severity: Severity) -> Vec<usize> {
        let fits = |list: &[String], name: &str| list.is_empty() || list.iter().any(|one| one == name);
        let route = self.rules.routes.iter().find(|route| {
            (route.severities.is_empty() || route.severities.contains(&severity))
                && fits(&route.tenants, print.tenant())
                && fits(&route.plugins, &print.plugin)
        });
        route.map(|route| route.to.clone()).unwrap_or_default()
    }

    /// Whether one more incident may be kept; the reason if not.
    fn admit(&self, print: &Fingerprint, bytes: usize) -> Result<(), &'static str> {
        if !self.has_room(print, 1, 0) {
            return Err("incidents");
        }
        if self.has_room(print, 1, bytes) { Ok(()) } else { Err("bytes") }
    }

    /// A tenant may hold as much as would stay free, and a quarter is kept for those who have few: however many flood,
    /// the next one is heard.
    fn has_room(&self, print: &Fingerprint, incidents: usize, bytes: usize) -> bool {
        let bounds = &self.rules.bounds;
        let own = print.tenant.as_ref().and_then(|tenant| self.tenants.get(tenant)).copied();
        let own = own.unwrap_or_default();
        let own = Account { incidents: own.incidents + incidents, bytes: own.bytes + bytes };
        let share = if own.incidents <= FEW { 1.0 } else { 0.75 };
        let free = |bound: usize, taken: usize| ((bound as f64 * share) as usize).saturating_sub(taken);
        own.incidents <= bounds.tenant_incidents.min(free(bounds.incidents, self.all.incidents))
            && own.bytes <= bounds.tenant_bytes.min(free(bounds.bytes, self.all.bytes))
    }

    /// Our own notices are beside the account: there is one per channel.
    fn charge(&mut self, print: &Fingerprint, incidents: isize, bytes: isize) {
        let Some(tenant) = &print.tenant else { return };
        let add = |account: &mut Account| {
            account.incidents = account.incidents.saturating_add_signed(incidents);
            account.bytes = account.bytes.saturating_add_signed(bytes);
        };
        add(&mut self.all);
        let own = self.tenants.entry(tenant.clone()).or_default();
        add(own);
        if own.incidents == 0 {
            self.tenants.remove(tenant);
        }
    }

    fn drop_alert(&mut self, print: &Fingerprint, reason: &'static str, channels: &[usize]) {
        self.count_dropped(print, reason);
        match self.dropped.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, alerts)) => *alerts += 1,
            None => self.dropped.push((reason, 1)),
        }
        for channel in channels {
            self.lines[*channel].note_suppressed(print.tenant.as_ref());
        }
    }

    /// What was suppressed becomes an incident of our own on the channel that it was kept from.
    fn fire_notices(&mut self, now: Instant) {
        let time_ms = self.last_ms;
        for channel in 0..self.lines.len() {
            let Some((count, tenant)) = self.lines[channel].take_suppressed() else { continue };
            let name = self.rules.channels[channel].name.clone();
            let print = Fingerprint {
                tenant: None,
                plugin: "alerts".into(),
                key: format!("suppressed {name}").into(),
            };
            let labels = tenant.map(|tenant| ("tenant".to_owned(), tenant.as_str().to_owned()));
            let text = "More came than is kept, or than this channel may be told. The figures stand in the metrics \
                        trommel_alerts_dropped_total and trommel_alerts_untold_incidents_total, what is kept in /v1/alerts.";
            let content = Content::new("alerts suppressed".into(), text.into(), labels.into_iter().collect());
            let fire = Fire { severity: Severity::Warning, content, count };
            match self.numbers.get(&print).copied() {
                Some(number) => self.fire_again(number, fire, time_ms, now),
                None => {
                    let quiet = telling::notice_resolve_after(self.rules.group_interval);
                    self.insert(print, fire, time_ms, 0, &[channel], quiet, now);
                }
            }
        }
    }

    /// Alerts that were dropped since the last call, by reason.
    pub(super) fn take_dropped(&mut self) -> Vec<(&'static str, u64)> {
        std::mem::take(&mut self.dropped)
    }

    /// Whether something became due earlier than it was before the last call.
    pub(super) fn take_stirred(&mut self) -> bool {
        std::mem::take(&mut self.is_stirred)
    }

    fn count_dropped(&self, print: &Fingerprint, reason: &'static str) {
        let tenant = self.metrics.tenant_labels.of(print.tenant()).to_owned();
        let labels = vec![("tenant", tenant), ("reason", reason.to_owned())];
        self.metrics.alerts_dropped.get_or_create(&labels).inc();
    }

    fn count_untold(&self, channel: &str, reason: &'static str, incidents: u64) {
        let labels = vec![("channel", channel.to_owned()), ("reason", reason.to_owned())];
        self.metrics.alerts_untold.get_or_create(&labels).inc_by(incidents);
    }
}

/// What was raised, within its bounds.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) print: Fingerprint,
    time_ms: u64,
    what: CutWhat,
}

#[derive(Debug)]
enum CutWhat {
    Fire(Fire),
    Resolve,
}

#[derive(Debug)]
struct Fire {
    severity: Severity,
    content: Content,
    count: u64,
}

impl From<Raised> for Cut {
    fn from(raised: Raised) -> Cut {
        let (key, what) = match raised.what {
            What::Fire { key, severity, title, text, count, labels } => (
                key,
                CutWhat::Fire(Fire {
                    severity,
                    content: Content::new(title, text, labels),
                    count: count.into(),
                }),
            ),
            What::Resolve { key } => (key, CutWhat::Resolve),
        };
        let print = Fingerprint {
            tenant: Some(raised.tenant),
            plugin: raised.plugin.into_boxed_str(),
            key: cut_key(key),
        };
        Cut { print, time_ms: raised.time_ms, what }
    }
}
