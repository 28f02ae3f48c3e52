//! What each channel was told of each incident, and what it is to be told next, when.
//!
//! What waits is the newest state, not a queue of messages. First the ends of incidents that are shown as open, then
//! new incidents by severity, then what grew, last what ended before anybody could be told; among equals tenants take
//! turns.

use super::{ChannelRule, Ended, Incident, Incidents, Severity, State};
use crate::alerts::budget::Allowance;
use crate::batch::TenantId;
use crate::telemetry::Metrics;
use prometheus_client::metrics::gauge::Gauge;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// After so many failures of one message in a row others go first.
const FAILURES_MAX: u32 = 5;

/// In the order in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// The end of one that is shown as open.
    Resolved,
    /// Nobody was told of it yet.
    First,
    Update,
    /// It is over before anybody was told, or failed often.
    Late,
}

/// A place in the order. `turn`: what its tenant had before it, so that tenants take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    class: Class,
    severity: Reverse<Severity>,
    turn: usize,
    due: Instant,
    number: u64,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Waiting(Instant),
    Ready(Rank),
}

/// What is to be told, and when.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    class: Class,
    due: Instant,
}

impl Place {
    /// When, and as what if it is due.
    fn of(self) -> (Instant, Option<(Class, Severity)>) {
        match self {
            Place::Waiting(due) => (due, None),
            Place::Ready(rank) => (rank.due, Some((rank.class, rank.severity.0))),
        }
    }
}

impl Wanted {
    fn of(self, severity: Severity, now: Instant) -> (Instant, Option<(Class, Severity)>) {
        (self.due, (self.due <= now).then_some((self.class, severity)))
    }
}

/// Where a channel put the message, so that it can be edited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::alerts) struct Handle {
    pub(in crate::alerts) chat: Arc<str>,
    pub(in crate::alerts) message: i64,
}

/// The state that a channel has.
#[derive(Clone, Copy, Debug)]
struct Told {
    revision: u64,
    severity: Severity,
    count: u64,
    is_ended: bool,
    at: Instant,
}

/// One channel's knowledge of one incident.
#[derive(Debug)]
pub(super) struct Telling {
    pub(super) channel: usize,
    /// There were too many new ones; it is not told here unless it becomes graver.
    pub(super) is_suppressed: bool,
    /// Why it was not told, or not the last time.
    pub(super) trouble: Option<&'static str>,
    place: Option<Place>,
    is_under_way: bool,
    told: Option<Told>,
    handle: Option<Handle>,
    is_plain: bool,
    /// Calls for it that failed since one succeeded.
    failures: u32,
}

impl Telling {
    pub(super) fn new(channel: usize) -> Telling {
        Telling {
            channel,
            is_suppressed: false,
            trouble: None,
            place: None,
            is_under_way: false,
            told: None,
            handle: None,
            is_plain: false,
            failures: 0,
        }
    }

    /// Nothing is to be told.
    pub(super) fn is_settled(&self) -> bool {
        self.place.is_none() && !self.is_under_way
    }

    #[cfg(test)]
    pub(super) fn is_placed(&self) -> bool {
        self.place.is_some()
    }

    pub(super) fn was_told(&self) -> bool {
        self.told.is_some()
    }

    /// For an incident of our own that came back.
    pub(super) fn begin_anew(&mut self) {
        if self.is_settled() {
            *self = Telling::new(self.channel);
        }
    }

    /// One word for what the channel knows.
    pub(super) fn known(&self) -> &'static str {
        match self.told {
            None => "nothing",
            Some(told) if told.is_ended => "resolved",
            Some(_) => "open",
        }
    }
    pub(super) fn known_count(&self) -> u64 {
        self.told.map_or(0, |told| told.count)
    }
}

/// A channel's order of what it tells.
#[derive(Debug)]
pub(super) struct Line {
    waiting: BTreeSet<(Instant, u64)>,
    ready: BTreeSet<Rank>,
    /// Of `ready`: new ones, by severity.
    first: [usize; 3],
    /// Of `ready`, by tenant.
    shares: HashMap<Option<TenantId>, Share>,
    suppressed: u64,
    suppressed_of: Option<TenantId>,
    waiting_gauge: Gauge,
}

/// What a tenant has of what is ready.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    all: usize,
    first: [usize; 3],
}

impl Line {
    pub(super) fn new(rule: &ChannelRule, metrics: &Metrics) -> Line {
        let labels = vec![("channel", rule.name.to_string())];
        Line {
            waiting: BTreeSet::new(),
            ready: BTreeSet::new(),
            first: [0; 3],
            shares: HashMap::new(),
            suppressed: 0,
            suppressed_of: None,
            waiting_gauge: metrics.alerts_waiting.get_or_create(&labels).clone(),
        }
    }

    pub(super) fn note_suppressed(&mut self, tenant: Option<&TenantId>) {
        self.suppressed += 1;
        self.suppressed_of = tenant.cloned();
    }

    pub(super) fn take_suppressed(&mut self) -> Option<(u64, Option<TenantId>)> {
        let count = std::mem::take(&mut self.suppressed);
        (count > 0).then(|| (count, self.suppressed_of.take()))
    }

    pub(super) fn take_out(&mut self, number: u64, tenant: Option<&TenantId>, telling: &mut Telling) {
        match telling.place.take() {
            None => {}
            Some(Place::Waiting(due)) => {
                self.waiting.remove(&(due, number));
            }
            Some(Place::Ready(rank)) => {
                self.ready.remove(&rank);
                self.count_ready(rank, tenant, -1);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.ready.len()
    }

    fn put(&mut self, number: u64, tenant: Option<&TenantId>, place: Place) {
        match place {
            Place::Waiting(due) => {
                self.waiting.insert((due, number));
            }
            Place::Ready(rank) => {
                self.ready.insert(rank);
                self.count_ready(rank, tenant, 1);
            }
        }
    }

    fn count_ready(&mut self, rank: Rank, tenant: Option<&TenantId>, more: isize) {
        let share = self.shares.entry(tenant.cloned()).or_default();
        let add = |count: &mut usize| *count = count.saturating_add_signed(more);
        add(&mut share.all);
        if rank.class == Class::First {
            let severity = rank.severity.0 as usize;
            add(&mut share.first[severity]);
            add(&mut self.first[severity]);
        }
        if share.all == 0 {
            self.shares.remove(&tenant.cloned());
        }
        self.waiting_gauge.set(i64::try_from(self.ready.len()).unwrap_or(i64::MAX));
    }

    fn share(&self, tenant: Option<&TenantId>) -> Share {
        self.shares.get(&tenant.cloned()).copied().unwrap_or_default()
    }

    /// Whether one more new incident may wait here. Only those at least as grave count, and a tenant may have as many
    /// as would stay free.
    fn has_room(&self, tenant: Option<&TenantId>, severity: Severity, waiting_max: usize) -> bool {
        let from = |counts: [usize; 3]| counts[severity as usize..].iter().sum::<usize>();
        from(self.share(tenant).first) < waiting_max.saturating_sub(from(self.first))
    }
}

/// What a change is to those who were told before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::alerts) enum Change {
    Opened,
    Grown,
    Resolved,
}

/// A state that a channel is to tell.
#[derive(Clone, Debug)]
pub(in crate::alerts) struct Tell {
    pub(in crate::alerts) number: u64,
    pub(in crate::alerts) change: Change,
    pub(in crate::alerts) state: State,
    /// The message to edit.
    pub(in crate::alerts) handle: Option<Handle>,
    /// Without markup: the server did not take it.
    pub(in crate::alerts) is_plain: bool,
    revision: u64,
}

/// What there is to do for a channel.
#[derive(Debug)]
pub(in crate::alerts) enum Next {
    Tell(Box<Tell>),
    /// Ask again at once; the lock was held long enough.
    Again,
    /// Nothing before `due`. `is_held`: something is due that the allowance held back.
    Wait {
        due: Option<Instant>,
        is_held: bool,
    },
}

/// How telling went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::alerts) enum Outcome {
    Told(Option<Handle>),
    /// The same again, later.
    Retry(&'static str),
    /// The message is not there any more: tell it as a new one.
    Anew,
    /// The markup was not understood: tell it without.
    Plain,
    /// Not this state; the next change is tried again.
    Refused(&'static str),
}

impl Incidents {
    /// Puts an incident where it belongs in each channel's order.
    pub(super) fn place(&mut self, number: u64, now: Instant) {
        let incident = self.incident(number);
        let mut tellings = std::mem::take(&mut incident.tellings);
        for telling in &mut tellings {
            self.place_one(number, telling, now);
        }
        self.incident(number).tellings = tellings;
    }

    fn place_one(&mut self, number: u64, telling: &mut Telling, now: Instant) {
        let incident = &self.incidents[&number];
        let wanted = self.wanted(incident, telling);
        if telling.place.map(|place| place.of()) == wanted.map(|wanted| wanted.of(incident.severity, now)) {
            return;
        }
        let was_first = matches!(telling.place, Some(Place::Ready(Rank { class: Class::First, .. })));
        let tenant = incident.print.tenant.as_ref();
        let line = &mut self.lines[telling.channel];
        line.take_out(number, tenant, telling);
        let Some(Wanted { class, due }) = wanted else { return };
        let rule = &self.rules.channels[telling.channel];
        let is_new = class == Class::First && due <= now && !was_first && tenant.is_some();
        if is_new && !line.has_room(tenant, incident.severity, rule.waiting_max) {
            telling.is_suppressed = true;
            telling.trouble = Some("suppressed");
            line.note_suppressed(tenant);
            return self.count_untold_on(telling.channel, "suppressed");
        }
        let place = if due > now {
            Place::Waiting(due)
        } else {
            let turn = line.share(tenant).all;
            Place::Ready(Rank { class, severity: Reverse(incident.severity), turn, due, number })
        };
        self.is_stirred |= match place {
            Place::Ready(rank) => line.ready.first().is_none_or(|first| rank < *first),
            Place::Waiting(due) => line.waiting.first().is_none_or(|(first, _)| due < *first),
        };
        line.put(number, tenant, place);
        telling.place = Some(place);
    }

    /// What a channel is to be told of an incident, and when.
    fn wanted(&self, incident: &Incident, telling: &Telling) -> Option<Wanted> {
        let is_known = telling.told.is_some_and(|told| told.revision == incident.revision);
        if telling.is_under_way || telling.is_suppressed || is_known {
            return None;
        }
        // So short that one which flaps is told once.
        let settling = self.rules.group_wait.min(self.rules.group_interval);
        let interval = self.rules.group_interval;
        let first_due = incident.opened + self.rules.group_wait;
        let (class, due) = match (telling.told, incident.ended) {
            (None, None) => (Class::First, first_due),
            // It was over before it was worth a message.
            (None, Some(ended)) if ended.at < first_due => return None,
            (None, Some(_)) => (Class::Late, first_due),
            (Some(told), None) if incident.severity > told.severity => (Class::Update, told.at + settling),
            (Some(told), None) => (Class::Update, told.at + interval),
            (Some(told), Some(ended)) if !told.is_ended => {
                (Class::Resolved, told.at.max(ended.at + settling))
            }
            // It came back and ended again before anybody was told.
            (Some(told), Some(ended)) if told.count != incident.count => {
                (Class::Update, (told.at + interval).max(ended.at + settling))
            }
            (Some(_), Some(_)) => return None,
        };
        // It may be this one message that the server chokes on: then it must not stand before the others for ever.
        let class = if telling.failures >= FAILURES_MAX { Class::Late } else { class };
        Some(Wanted { class, due })
    }

    /// The next for a channel. `is_last`: what is not due yet is told as well, since there will be no later.
    pub(in crate::alerts) fn next(
        &mut self,
        channel: usize,
        now: Instant,
        allowance: Allowance,
        is_last: bool,
    ) -> Next {
        for step in 0.. {
            let first = self.lines[channel].waiting.first().copied();
            let Some((due, number)) = first.filter(|(due, _)| is_last || *due <= now) else { break };
            if step == super::STEPS_MAX {
                self.fire_notices(now);
                return Next::Again;
            }
            self.promote(channel, number, due.max(now));
        }
        self.fire_notices(now);
        let line = &mut self.lines[channel];
        let rank = line.ready.first().copied();
        let is_allowed = |class| match allowance {
            Allowance::Anything => true,
            Allowance::Resolved => class == Class::Resolved,
            Allowance::Nothing => false,
        };
        match rank {
            Some(rank) if is_allowed(rank.class) => Next::Tell(self.take(channel, rank.number)),
            _ => Next::Wait { due: line.waiting.first().map(|(due, _)| *due), is_held: rank.is_some() },
        }
    }

    /// It is due.
    fn promote(&mut self, channel: usize, number: u64, due: Instant) {
        let incident = self.incident(number);
        let mut tellings = std::mem::take(&mut incident.tellings);
        if let Some(telling) = tellings.iter_mut().find(|telling| telling.channel == channel) {
            self.place_one(number, telling, due);
        }
        self.incident(number).tellings = tellings;
    }

    fn take(&mut self, channel: usize, number: u64) -> Box<Tell> {
        let line = &mut self.lines[channel];
        let incident = self.incidents.get_mut(&number).expect("a number stands for an incident");
        let state = incident.state();
        let revision = incident.revision;
        let telling = incident.tellings.iter_mut().find(|telling| telling.channel == channel);
        let telling = telling.expect("what is ready on a channel has a telling for it");
        line.take_out(number, incident.print.tenant.as_ref(), telling);
        telling.is_under_way = true;
        let change = match (&state.ended, telling.told) {
            (Some(_), _) => Change::Resolved,
            (None, None) => Change::Opened,
            // It came back.
            (None, Some(told)) if told.is_ended => Change::Opened,
            (None, Some(_)) => Change::Grown,
        };
        let (handle, is_plain) = (telling.handle.clone(), telling.is_plain);
        Box::new(Tell { number, change, state, handle, is_plain, revision })
    }

    /// How it went.
    pub(in crate::alerts) fn done(&mut self, channel: usize, tell: &Tell, outcome: Outcome, now: Instant) {
        let Some(incident) = self.incidents.get_mut(&tell.number) else { return };
        let telling = incident.tellings.iter_mut().find(|telling| telling.channel == channel);
        let Some(telling) = telling else { return };
        telling.is_under_way = false;
        let told = Told {
            revision: tell.revision,
            severity: tell.state.severity,
            count: tell.state.count,
            is_ended: tell.state.ended.is_some(),
            at: now,
        };
        telling.trouble = None;
        telling.failures = if matches!(outcome, Outcome::Retry(_)) { telling.failures + 1 } else { 0 };
        match outcome {
            Outcome::Told(handle) => {
                telling.told = Some(told);
                telling.handle = handle;
            }
            Outcome::Retry(reason) => telling.trouble = Some(reason),
            Outcome::Anew if telling.handle.is_some() => telling.handle = None,
            Outcome::Plain if !telling.is_plain => telling.is_plain = true,
            Outcome::Anew | Outcome::Plain => {
                telling.told = Some(told);
                telling.trouble = Some("refused");
            }
            Outcome::Refused(reason) => {
                telling.told = Some(told);
                telling.trouble = Some(reason);
            }
        }
        if telling.trouble == Some("refused") {
            self.count_untold_on(channel, "refused");
        }
        self.place(tell.number, now);
        self.settle(tell.number, now);
    }

    /// What ended long ago and is told everywhere is over.
    fn settle(&mut self, number: u64, now: Instant) {
        let incident = &self.incidents[&number];
        let is_over = |ended: Ended| now.duration_since(ended.at) >= self.rules.group_interval;
        if incident.ended.is_some_and(is_over) && incident.is_settled() {
            self.remove(number);
        }
    }

    fn count_untold_on(&self, channel: usize, reason: &'static str) {
        self.count_untold(&self.rules.channels[channel].name, reason, 1);
    }

    /// What a channel was not told when it ends.
    pub(in crate::alerts) fn left(&self, channel: usize) -> usize {
        let of_channel = self.incidents.values().flat_map(|incident| &incident.tellings);
        of_channel.filter(|telling| telling.channel == channel && !telling.is_settled()).count()
    }

    /// Counts what a channel was not told, since the process stops.
    pub(in crate::alerts) fn count_left(&self, channel: usize) -> usize {
        let left = self.left(channel);
        self.count_untold(&self.rules.channels[channel].name, "stopped", left as u64);
        left
    }
}

/// A notice that nothing was added to for so long is over.
pub(super) fn notice_resolve_after(group_interval: Duration) -> Duration {
    group_interval * 2
}
