//! Scripts: what was raised, and what channels are told when.

use super::*;
use crate::alerts::budget::Allowance;
use proptest::prelude::*;

const WAIT: Duration = Duration::from_secs(5);
const INTERVAL: Duration = Duration::from_secs(60);

fn rules(channels: &[(&str, usize)], routes: Vec<RouteRule>) -> Rules {
    let channel =
        |(name, waiting_max): &(&str, usize)| ChannelRule { name: (*name).into(), waiting_max: *waiting_max };
    Rules {
        channels: channels.iter().map(channel).collect(),
        routes,
        group_wait: WAIT,
        group_interval: INTERVAL,
        resolve_after: Duration::from_secs(600),
        bounds: Bounds::default(),
    }
}

fn to(channels: &[usize]) -> RouteRule {
    RouteRule { severities: vec![], tenants: vec![], plugins: vec![], to: channels.to_vec() }
}

fn raised(tenant: &str, time_ms: u64, what: What) -> Cut {
    Cut::from(Raised { tenant: TenantId::new(tenant).unwrap(), plugin: "anomaly".into(), time_ms, what })
}

fn fire(key: &str, severity: Severity, count: u32) -> What {
    let (title, text) = (format!("errors in {key}"), "boom".to_owned());
    What::Fire { key: key.into(), severity, title, text, count, labels: vec![("service".into(), key.into())] }
}

/// A machine at a time.
struct Play {
    incidents: Incidents,
    start: Instant,
    now: Instant,
    told: Vec<String>,
    messages: i64,
    outcome: Option<Outcome>,
}

impl Play {
    fn new(rules: Rules) -> Play {
        let (incidents, start) = (Incidents::new(rules, Metrics::new()), Instant::now());
        Play { incidents, start, now: start, told: Vec::new(), messages: 0, outcome: None }
    }

    fn ms(&self) -> u64 {
        1_700_000_000_000 + u64::try_from((self.now - self.start).as_millis()).unwrap()
    }

    fn raise(&mut self, tenant: &str, what: What) {
        let cut = raised(tenant, self.ms(), what);
        self.incidents.raise(cut, self.now);
        self.check();
    }

    fn fire(&mut self, tenant: &str, key: &str) {
        self.raise(tenant, fire(key, Severity::Warning, 1));
    }

    /// Tells what is due on every channel until then.
    fn go_to(&mut self, seconds: f64) {
        let until = self.start + Duration::from_secs_f64(seconds);
        loop {
            while self.incidents.expire(self.now) {}
            let due = (0..self.incidents.lines.len()).filter_map(|channel| self.tell(channel)).min();
            let next = [due, self.incidents.checks.first().map(|(at, _)| *at)];
            match next.into_iter().flatten().min().filter(|at| *at <= until) {
                Some(at) => self.now = at.max(self.now),
                None => break,
            }
        }
        self.now = until;
        self.check();
    }

    fn tell(&mut self, channel: usize) -> Option<Instant> {
        loop {
            match self.incidents.next(channel, self.now, Allowance::Anything, false) {
                Next::Again => {}
                Next::Wait { due, .. } => return due,
                Next::Tell(tell) => {
                    let outcome = self.outcome.clone().unwrap_or_else(|| self.delivered(channel, &tell));
                    let is_retry = matches!(outcome, Outcome::Retry(_));
                    self.incidents.done(channel, &tell, outcome, self.now);
                    if is_retry {
                        return None;
                    }
                }
            }
            self.check();
        }
    }

    fn delivered(&mut self, channel: usize, tell: &Tell) -> Outcome {
        let handle = tell.handle.clone().unwrap_or_else(|| {
            self.messages += 1;
            Handle { chat: "ops".into(), message: self.messages }
        });
        let name = self.incidents.rules.channels[channel].name.clone();
        let word = match tell.change {
            Change::Opened => "opened",
            Change::Grown => "grown",
            Change::Resolved => "resolved",
        };
        let how = if tell.state.ended.is_some_and(|(_, how)| how == How::Expired) { " expired" } else { "" };
        let State { print, count, .. } = &tell.state;
        self.told.push(format!("{name} {word} {} x{count} in message {}{how}", print.key, handle.message));
        Outcome::Told(Some(handle))
    }

    fn told(&mut self) -> String {
        std::mem::take(&mut self.told).join("; ")
    }

    /// What must always be so.
    fn check(&self) {
        let machine = &self.incidents;
        let own = || machine.incidents.values().filter(|incident| incident.print.tenant.is_some());
        let sum = |incident: &Incident| INCIDENT_BYTES + incident.print.bytes() + incident.content.bytes();
        assert!(own().all(|incident| incident.bytes == sum(incident)), "each knows what it takes");
        let all = Account { incidents: own().count(), bytes: own().map(sum).sum() };
        assert_eq!(machine.all, all);
        let add = |sum: Account, one: &Account| Account {
            incidents: sum.incidents + one.incidents,
            bytes: sum.bytes + one.bytes,
        };
        assert_eq!(machine.tenants.values().fold(Account::default(), add), all);
        assert_eq!(
            (machine.numbers.len(), machine.checks.len()),
            (machine.incidents.len(), machine.incidents.len())
        );
        let open = machine.incidents.values().filter(|incident| incident.ended.is_none()).count();
        assert_eq!(machine.metrics.alerts_open.get(), open as i64);
        for (channel, line) in machine.lines.iter().enumerate() {
            let tellings = machine.incidents.values().flat_map(|incident| &incident.tellings);
            let placed = tellings.filter(|telling| telling.channel == channel && telling.is_placed()).count();
            assert_eq!(line.len(), placed, "what waits on a channel is what waits in the incidents");
        }
    }
}

/// Runs a script. A line is a time in seconds and `fire KEY COUNT [SEVERITY]`, `resolve KEY`, or `-> ` and what was told
/// since the last such line.
fn check(rules: Rules, script: &str) {
    let mut play = Play::new(rules);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (time, action) = line.split_once(' ').unwrap_or((line, ""));
        play.go_to(time.parse().unwrap());
        let words: Vec<&str> = action.split(' ').collect();
        match words[..] {
            ["fire", key, count] => play.raise("acme", fire(key, Severity::Warning, count.parse().unwrap())),
            ["fire", key, count, "critical"] => {
                play.raise("acme", fire(key, Severity::Critical, count.parse().unwrap()));
            }
            ["resolve", key] => play.raise("acme", What::Resolve { key: key.into() }),
            ["->", ..] => assert_eq!(play.told(), action.trim_start_matches("->").trim(), "at {line}"),
            _ => panic!("no action: {line}"),
        }
    }
}

fn one() -> Rules {
    rules(&[("ops", 100)], vec![to(&[0])])
}

#[test]
fn an_incident_is_one_message_that_grows_and_is_resolved() {
    check(
        one(),
        "0 fire a 3
         1 fire a 4
         4.9 ->
         5 -> ops opened a x7 in message 1
         6 fire a 10
         64.9 ->
         65 -> ops grown a x17 in message 1
         200 ->
         201 fire a 0
         201 -> ops grown a x17 in message 1
         210 fire a 5
         220 resolve a
         224.9 ->
         225 -> ops resolved a x22 in message 1
         2000 ->",
    );
}

#[test]
fn a_hundred_thousand_errors_in_a_minute_are_three_calls() {
    let mut play = Play::new(one());
    for second in 0..60 {
        play.go_to(f64::from(second));
        (0..17).for_each(|_| play.raise("acme", fire("a", Severity::Warning, 100)));
    }
    play.go_to(70.0);
    play.raise("acme", What::Resolve { key: "a".into() });
    play.go_to(600.0);
    assert_eq!(
        play.told(),
        "ops opened a x8500 in message 1; ops grown a x102000 in message 1; ops resolved a x102000 in message 1"
    );
}

#[test]
fn what_is_over_before_its_first_message_is_told_nobody() {
    check(
        one(),
        "0 fire a 1
         4 resolve a
         1000 ->",
    );
}

#[test]
fn a_flap_is_told_once() {
    check(
        one(),
        "0 fire a 1
         5 -> ops opened a x1 in message 1
         10 resolve a
         12 fire a 1
         14 resolve a
         16 fire a 1
         64 ->
         65 -> ops grown a x3 in message 1
         66 resolve a
         71 -> ops resolved a x3 in message 1",
    );
}

#[test]
fn one_that_comes_back_soon_is_the_same_and_later_a_new_one() {
    check(
        one(),
        "0 fire a 1
         10 resolve a
         15 -> ops opened a x1 in message 1; ops resolved a x1 in message 1
         69 fire a 2
         74 ->
         75 -> ops opened a x3 in message 1
         80 resolve a
         85 -> ops resolved a x3 in message 1
         141 fire a 5
         146 -> ops opened a x5 in message 2",
    );
}

#[test]
fn one_that_ends_again_before_its_return_was_told_tells_its_count() {
    check(
        one(),
        "0 fire a 1
         10 resolve a
         20 fire a 1
         25 resolve a
         74 -> ops opened a x1 in message 1; ops resolved a x1 in message 1
         75 -> ops resolved a x2 in message 1",
    );
}

#[test]
fn one_that_is_not_fired_for_long_is_over() {
    check(
        one(),
        "0 fire a 1
         300 fire a 1
         899 -> ops opened a x1 in message 1; ops grown a x2 in message 1
         905 -> ops resolved a x2 in message 1 expired",
    );
}

#[test]
fn a_graver_one_is_told_at_once_and_where_its_route_says() {
    let grave = RouteRule { severities: vec![Severity::Critical], ..to(&[1]) };
    check(
        rules(&[("ops", 100), ("pager", 100)], vec![grave, to(&[0])]),
        "0 fire a 1
         6 fire a 1 critical
         7 fire a 1
         11 -> ops opened a x1 in message 1; pager opened a x2 in message 2; ops grown a x3 in message 1
         12 resolve a
         17 -> ops resolved a x3 in message 1; pager resolved a x3 in message 2",
    );
}

#[test]
fn the_first_route_that_fits_decides() {
    let route = |severity, tenant: &str, plugin: &str, to: usize| RouteRule {
        severities: Vec::from_iter(severity),
        tenants: Some(tenant.to_owned()).filter(|name| !name.is_empty()).into_iter().collect(),
        plugins: Some(plugin.to_owned()).filter(|name| !name.is_empty()).into_iter().collect(),
        to: vec![to],
    };
    let routes = || {
        vec![
            route(None, "globex", "", 0),
            route(Some(Severity::Critical), "", "anomaly", 1),
            route(Some(Severity::Warning), "", "other", 2),
        ]
    };
    for (tenant, severity, expected) in [
        ("globex", Severity::Critical, vec![0]),
        ("acme", Severity::Critical, vec![1]),
        ("acme", Severity::Warning, vec![]),
    ] {
        let play = Play::new(rules(&[("a", 1), ("b", 1), ("c", 1)], routes()));
        let print = raised(tenant, 0, fire("k", severity, 1)).print;
        assert_eq!(play.incidents.route(&print, severity), expected, "{tenant} {severity:?}");
    }
}

#[test]
fn one_without_a_route_is_counted_shown_and_told_nobody() {
    let mut play = Play::new(rules(&[("ops", 1)], vec![]));
    play.fire("acme", "a");
    play.go_to(100.0);
    assert_eq!(play.told(), "");
    assert!(
        play.incidents
            .metrics
            .text()
            .contains(r#"trommel_alerts_untold_incidents_total{channel="_none",reason="no_route"} 1"#)
    );
    assert_eq!(json(play.incidents.kept())["incidents"][0]["channels"], serde_json::json!([]));
}

#[test]
fn tenants_and_plugins_with_the_same_key_are_different_incidents() {
    let mut play = Play::new(one());
    play.fire("acme", "a");
    play.fire("globex", "a");
    let other = Raised {
        tenant: TenantId::new("acme").unwrap(),
        plugin: "other".into(),
        time_ms: 0,
        what: fire("a", Severity::Info, 1),
    };
    play.incidents.raise(other.into(), play.now);
    assert_eq!(play.incidents.incidents.len(), 3);
    play.raise("globex", What::Resolve { key: "a".into() });
    play.raise("nobody", What::Resolve { key: "a".into() });
    let open = play.incidents.incidents.values().filter(|incident| incident.ended.is_none());
    assert!(open.count() == 2);
}

#[test]
fn ends_come_first_then_new_ones_by_severity_then_growth() {
    let mut play = Play::new(one());
    play.fire("acme", "ends");
    play.fire("acme", "grows");
    play.go_to(6.0);
    play.told();
    play.now = play.start + Duration::from_secs(50);
    play.fire("acme", "grows");
    play.fire("acme", "new");
    play.raise("acme", fire("grave", Severity::Critical, 1));
    play.raise("acme", What::Resolve { key: "ends".into() });
    // The task was away for a while.
    play.now = play.start + Duration::from_secs(100);
    play.tell(0);
    let told = play.told();
    let order: Vec<&str> = told.split("; ").map(|one| one.split(' ').nth(2).unwrap()).collect();
    assert_eq!(order, ["ends", "grave", "new", "grows"], "{told}");
}

#[test]
fn only_an_end_passes_when_one_call_is_left() {
    let mut play = Play::new(one());
    play.fire("acme", "a");
    play.go_to(5.0);
    play.fire("acme", "b");
    play.now += WAIT;
    let next = play.incidents.next(0, play.now, Allowance::Resolved, false);
    assert!(matches!(next, Next::Wait { is_held: true, .. }), "{next:?}");
    play.raise("acme", What::Resolve { key: "a".into() });
    play.now += WAIT;
    let next = play.incidents.next(0, play.now, Allowance::Resolved, false);
    assert!(matches!(&next, Next::Tell(tell) if tell.change == Change::Resolved), "{next:?}");
}

#[test]
fn what_does_not_succeed_is_told_in_its_newest_state() {
    let mut play = Play::new(one());
    play.fire("acme", "a");
    play.outcome = Some(Outcome::Retry("failing"));
    play.go_to(5.0);
    play.fire("acme", "a");
    play.go_to(100.0);
    assert_eq!(json(play.incidents.kept())["incidents"][0]["channels"][0]["why_not"], "failing");
    play.outcome = None;
    play.go_to(101.0);
    assert_eq!(play.told(), "ops opened a x2 in message 1");
}

#[test]
fn what_ended_while_a_channel_was_dead_is_told_it_once_or_given_up() {
    for (back_after, expected) in [(1000.0, "ops resolved a x1 in message 1"), (3700.0, "")] {
        let mut play = Play::new(one());
        play.fire("acme", "a");
        play.outcome = Some(Outcome::Retry("failing"));
        play.go_to(50.0);
        play.raise("acme", What::Resolve { key: "a".into() });
        play.go_to(back_after);
        play.outcome = None;
        play.go_to(back_after + 10.0);
        assert_eq!(play.told(), expected);
        assert!(play.incidents.incidents.is_empty(), "nothing is kept of what is over");
        let given_up = play.incidents.metrics.text().contains(r#"reason="gave_up"} 1"#);
        assert_eq!(given_up, expected.is_empty());
    }
}

#[test]
fn a_dead_channel_does_not_make_a_new_incident_an_old_one_elsewhere() {
    let mut play = Play::new(rules(&[("dead", 100), ("ops", 100)], vec![to(&[0, 1])]));
    let alive = |play: &mut Play, until: u64| {
        play.now = play.start + Duration::from_secs(until);
        while play.incidents.expire(play.now) {}
        if let Next::Tell(tell) = play.incidents.next(0, play.now, Allowance::Anything, false) {
            play.incidents.done(0, &tell, Outcome::Retry("failing"), play.now);
        }
        play.tell(1);
        play.check();
    };
    play.fire("acme", "a");
    alive(&mut play, 5);
    play.raise("acme", What::Resolve { key: "a".into() });
    alive(&mut play, 20);
    play.told();
    alive(&mut play, 300);
    play.fire("acme", "a");
    alive(&mut play, 306);
    assert_eq!(play.told(), "ops opened a x1 in message 2");
    assert_eq!(play.incidents.ended.len(), 1, "the first one is shown as ended");
}

#[test]
fn a_message_that_is_gone_is_told_as_a_new_one_and_bad_markup_as_plain_text() {
    let mut play = Play::new(one());
    play.fire("acme", "a");
    play.go_to(5.0);
    play.fire("acme", "a");
    play.now += INTERVAL;
    let mut next = || match play.incidents.next(0, play.now, Allowance::Anything, false) {
        Next::Tell(tell) => tell,
        other => panic!("{other:?}"),
    };
    let tell = next();
    assert!(tell.handle.is_some() && !tell.is_plain);
    play.incidents.done(0, &tell, Outcome::Anew, play.now);
    let mut next = || match play.incidents.next(0, play.now, Allowance::Anything, false) {
        Next::Tell(tell) => tell,
        other => panic!("{other:?}"),
    };
    let tell = next();
    assert!(tell.handle.is_none() && !tell.is_plain);
    play.incidents.done(0, &tell, Outcome::Plain, play.now);
    let tell = match play.incidents.next(0, play.now, Allowance::Anything, false) {
        Next::Tell(tell) => tell,
        other => panic!("{other:?}"),
    };
    assert!(tell.is_plain);
    // A server that complains of markup in plain text is not asked for ever.
    play.incidents.done(0, &tell, Outcome::Plain, play.now);
    let next = play.incidents.next(0, play.now, Allowance::Anything, false);
    assert!(matches!(next, Next::Wait { due: None, is_held: false }), "{next:?}");
    play.check();
}

#[test]
fn one_that_fails_again_and_again_lets_others_go_first() {
    let mut play = Play::new(one());
    play.raise("acme", fire("poison", Severity::Critical, 1));
    play.fire("globex", "good");
    play.now += WAIT;
    let mut calls = Vec::new();
    for _ in 0..6 {
        let Next::Tell(tell) = play.incidents.next(0, play.now, Allowance::Anything, false) else { panic!() };
        calls.push(tell.state.print.key.to_string());
        play.incidents.done(0, &tell, Outcome::Retry("failing"), play.now);
        play.check();
    }
    assert_eq!(calls, ["poison", "poison", "poison", "poison", "poison", "good"]);
    play.tell(0);
    assert_eq!(play.told(), "ops opened good x1 in message 1; ops opened poison x1 in message 2");
}

#[test]
fn a_refused_state_is_not_told_again_and_the_next_one_is() {
    let mut play = Play::new(one());
    play.fire("acme", "a");
    play.outcome = Some(Outcome::Refused("refused"));
    play.go_to(300.0);
    assert_eq!(json(play.incidents.kept())["incidents"][0]["channels"][0]["why_not"], "refused");
    play.outcome = None;
    play.go_to(400.0);
    assert_eq!(play.told(), "");
    play.fire("acme", "a");
    play.go_to(401.0);
    assert_eq!(play.told(), "ops grown a x2 in message 1");
}

#[test]
fn at_the_end_what_waits_is_told_at_once_and_the_rest_is_counted() {
    let mut play = Play::new(one());
    play.fire("acme", "a");
    play.fire("acme", "b");
    assert!(matches!(play.incidents.next(0, play.now, Allowance::Anything, false), Next::Wait { .. }));
    let next = play.incidents.next(0, play.now, Allowance::Anything, true);
    assert!(matches!(&next, Next::Tell(tell) if &*tell.state.print.key == "a"), "{next:?}");
    assert_eq!(play.incidents.count_left(0), 2, "the one under way has not arrived");
}

#[test]
fn ten_thousand_keys_keep_a_thousand_and_one_message_says_how_many_were_suppressed() {
    let mut play = Play::new(one());
    for number in 0..10_000 {
        play.incidents
            .raise(raised("acme", 0, fire(&format!("key {number}"), Severity::Warning, 1)), play.now);
    }
    play.check();
    assert_eq!(play.incidents.all.incidents, 1_000);
    assert!(play.incidents.all.bytes <= 8 << 20);
    assert_eq!(play.incidents.take_dropped(), [("incidents", 9_000)]);
    play.fire("globex", "others are heard");
    play.go_to(10.0);
    let told = play.told();
    // 100 messages are five minutes' worth, half of them for one tenant; 950 of what is kept was held back here.
    assert_eq!(told.matches("opened key").count(), 50);
    assert!(told.contains("opened suppressed ops x9950 "), "{told}");
    let others = told.find("opened others are heard").expect("a flood does not silence others");
    assert!(told[..others].matches("opened key").count() <= 1, "and they need not wait for it: {told}");
    play.go_to(300.0);
    assert!(play.told().contains("resolved suppressed ops x9950 "));
    let text = play.incidents.metrics.text();
    for line in [
        r#"trommel_alerts_dropped_total{tenant="_other",reason="incidents"} 9000"#,
        r#"trommel_alerts_untold_incidents_total{channel="ops",reason="suppressed"} 950"#,
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn grave_ones_are_not_suppressed_for_others() {
    let mut play = Play::new(rules(&[("ops", 10)], vec![to(&[0])]));
    (0..100).for_each(|number| play.fire("acme", &format!("key {number}")));
    play.raise("acme", fire("grave", Severity::Critical, 1));
    play.raise("acme", fire("key 99", Severity::Critical, 1));
    play.now += WAIT;
    play.tell(0);
    let told = play.told();
    assert!(told.contains("opened grave") && told.contains("opened key 99"), "{told}");
    assert_eq!(told.matches("opened key").count(), 6);
}

#[test]
fn one_that_was_suppressed_is_told_when_it_becomes_graver() {
    let mut play = Play::new(rules(&[("ops", 1)], vec![to(&[0])]));
    play.fire("acme", "a");
    play.fire("acme", "b");
    play.now += WAIT;
    play.tell(0);
    assert!(!play.told().contains(" b "));
    play.raise("acme", fire("b", Severity::Critical, 1));
    play.tell(0);
    assert_eq!(play.told(), "ops opened b x2 in message 2");
}

#[test]
fn a_key_that_is_raised_ten_thousand_times_is_one_incident_with_the_exact_count() {
    let mut play = Play::new(one());
    play.fire("acme", "a");
    let bytes = play.incidents.all.bytes;
    for _ in 0..9_999 {
        play.incidents.raise(raised("acme", 0, fire("a", Severity::Warning, u32::MAX)), play.now);
    }
    play.check();
    assert_eq!((play.incidents.all.incidents, play.incidents.all.bytes), (1, bytes));
    assert_eq!(play.incidents.lines[0].len(), 1, "what waits is a state, not a queue");
    let count = play.incidents.incidents.values().next().unwrap().count;
    assert_eq!(count, 1 + 9_999 * u64::from(u32::MAX));
}

#[test]
fn however_many_tenants_flood_the_next_one_is_heard_and_nobody_is_evicted() {
    let mut play = Play::new(one());
    for tenant in 0..40 {
        for number in 0..1_500 {
            let what = fire(&format!("key {number}"), Severity::Info, 1);
            play.incidents.raise(raised(&format!("flood-{tenant}"), 0, what), play.now);
        }
        let own = play.incidents.tenants[&TenantId::new(&format!("flood-{tenant}")).unwrap()];
        assert!(own.incidents >= FEW, "{tenant}: {own:?}");
    }
    play.check();
    assert!(play.incidents.all.incidents <= 10_000 && play.incidents.all.bytes <= 32 << 20);
    let first = play.incidents.tenants[&TenantId::new("flood-0").unwrap()];
    assert_eq!(first.incidents, 1_000, "who came first keeps what it has");
    play.fire("acme", "a");
    assert_eq!(play.incidents.tenants[&TenantId::new("acme").unwrap()].incidents, 1);
}

#[test]
fn a_megabyte_of_text_in_each_alert_stays_within_the_bytes_of_a_tenant() {
    let mut play = Play::new(one());
    let (megabyte, long) = ("<b>&".repeat(250_000), "<b>&".repeat(2_000));
    for number in 0..400 {
        let what = What::Fire {
            key: format!("{number}{long}"),
            severity: Severity::Info,
            title: long.clone(),
            text: megabyte.clone(),
            count: 1,
            labels: vec![(long.clone(), long.clone()); 40],
        };
        play.incidents.raise(raised("acme", 0, what), play.now);
    }
    play.check();
    assert!(play.incidents.all.bytes <= 8 << 20, "{}", play.incidents.all.bytes);
    assert!(play.incidents.take_dropped().iter().any(|(reason, _)| *reason == "bytes"));
    play.fire("globex", "a");
    assert_eq!(play.incidents.tenants.len(), 2);
}

#[test]
fn newer_words_that_do_not_fit_are_left_out_and_the_count_is_exact() {
    let mut rules = one();
    rules.bounds.tenant_bytes = 1_300;
    let mut play = Play::new(rules);
    play.fire("acme", "a");
    let longer = What::Fire {
        key: "a".into(),
        severity: Severity::Warning,
        title: "longer".into(),
        text: "x".repeat(8_000),
        count: 5,
        labels: vec![],
    };
    play.raise("acme", longer);
    play.go_to(5.0);
    assert_eq!(play.told(), "ops opened a x6 in message 1");
    assert_eq!(json(play.incidents.kept())["incidents"][0]["text"], "boom");
}

#[test]
fn what_ended_is_shown_after_what_is_open_and_bounded_per_tenant() {
    let mut play = Play::new(one());
    play.fire("globex", "old");
    play.raise("globex", What::Resolve { key: "old".into() });
    play.go_to(100.0);
    for number in 0..200 {
        play.fire("acme", &format!("{number}"));
        play.raise("acme", What::Resolve { key: format!("{number}") });
    }
    play.go_to(200.0);
    play.fire("acme", "open");
    let shown = json(play.incidents.kept());
    let incidents = shown["incidents"].as_array().unwrap();
    assert_eq!(incidents.len(), 1 + 1 + ENDED_OF_TENANT_MAX);
    assert_eq!((&incidents[0]["key"], &incidents[0]["state"]), (&"open".into(), &"open".into()));
    assert_eq!(incidents[1]["key"], "199");
    assert_eq!(incidents.last().unwrap()["key"], "old");
    assert_eq!(incidents.last().unwrap()["channels"][0]["why_not"], "brief");
    assert_eq!(shown["left_out"], 0);
}

#[test]
fn an_incident_as_it_is_shown() {
    let mut play = Play::new(one());
    play.fire("acme", "a");
    play.go_to(5.0);
    play.fire("acme", "a");
    play.go_to(7.0);
    play.raise("acme", What::Resolve { key: "a".into() });
    expect_test::expect![[r#"
        {
          "incidents": [
            {
              "channels": [
                {
                  "channel": "ops",
                  "count": 1,
                  "told": "open",
                  "why_not": null
                }
              ],
              "count": 2,
              "ended": "2023-11-14T22:13:27Z",
              "key": "a",
              "labels": {
                "service": "a"
              },
              "last": "2023-11-14T22:13:25Z",
              "plugin": "anomaly",
              "severity": "warning",
              "since": "2023-11-14T22:13:20Z",
              "state": "resolved",
              "tenant": "acme",
              "text": "boom",
              "title": "errors in a"
            }
          ],
          "left_out": 0
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&json(play.incidents.kept())).unwrap());
}

#[derive(Clone, Debug)]
enum Step {
    Fire(u8, u32, bool),
    Resolve(u8),
    Go(u16),
    Answer(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4u8, 0..100u32, any::<bool>()).prop_map(|(key, count, grave)| Step::Fire(key, count, grave)),
        (0..4u8).prop_map(Step::Resolve),
        (1..2000u16).prop_map(Step::Go),
        (0..5u8).prop_map(Step::Answer),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, the accounts agree, and once it is quiet and the channel works every incident ends as it is.
    #[test]
    fn whatever_happens_the_last_state_is_told(steps in prop::collection::vec(step(), 1..60)) {
        let mut play = Play::new(rules(&[("ops", 3)], vec![to(&[0])]));
        let mut ds = 0u32;
        for step in steps {
            match step {
                Step::Fire(key, count, is_grave) => {
                    let severity = if is_grave { Severity::Critical } else { Severity::Info };
                    play.raise("acme", fire(&key.to_string(), severity, count));
                }
                Step::Resolve(key) => play.raise("acme", What::Resolve { key: key.to_string() }),
                Step::Go(tenths) => {
                    ds += u32::from(tenths);
                    play.go_to(f64::from(ds) / 10.0);
                }
                Step::Answer(kind) => {
                    play.outcome = match kind {
                        0 => Some(Outcome::Retry("failing")),
                        1 => Some(Outcome::Refused("refused")),
                        2 => Some(Outcome::Anew),
                        3 => Some(Outcome::Plain),
                        _ => None,
                    };
                }
            }
        }
        play.outcome = None;
        let end = f64::from(ds) / 10.0;
        play.go_to(end + 130.0);
        for incident in play.incidents.incidents.values() {
            if incident.ended.is_none() && !incident.tellings[0].is_suppressed {
                prop_assert!(incident.is_settled());
                prop_assert_eq!(incident.tellings[0].known_count(), incident.count);
            }
        }
        // Later all is over: incidents are not fired, and what was kept for channels is given up.
        play.go_to(end + 8_000.0);
        prop_assert!(play.incidents.incidents.is_empty());
        prop_assert_eq!(play.incidents.all, Account::default());
    }
}
