//! Alerts at work, on a paused clock, against servers that misbehave. Next to each of them stands a channel that works,
//! and must not notice.

use super::stub::{
    BotApi, CHAT, Hook, Logs, Reply, Running, TOKEN, eventually, failure, seconds, telegram_at,
};
use super::*;
use serde_json::{Value, json};
use tokio::time::Instant;

const LOG: ChannelSettings = ChannelSettings { kind: ChannelKind::Log, per_minute: 600 };

#[tokio::test(start_paused = true)]
async fn an_incident_is_one_message_edited_in_place_and_resolved() {
    let bot = BotApi::start().await;
    let running = Running::start(vec![("ops", bot.channel(20))]);
    running.fire("shop", "card declined", 3);
    seconds(6).await;
    expect_test::expect![[r#"
        🔴 Critical: errors in shop
        acme · anomaly
        × 3 in 0 s · since 2023-11-14 22:13:20 UTC

        service: shop

        card declined"#]]
    .assert_eq(&bot.messages().join("\n---\n"));
    running.fire("shop", "card declined", 100_000);
    seconds(61).await;
    running.resolve("shop");
    seconds(6).await;
    expect_test::expect![[r#"
        ✅ Resolved: errors in shop
        acme · anomaly
        × 100,003 in 0 s · since 2023-11-14 22:13:20 UTC until 2023-11-14 22:13:20 UTC

        service: shop

        card declined"#]]
    .assert_eq(&bot.messages().join("\n---\n"));
    let methods: Vec<String> = bot.calls().into_iter().map(|call| call.method).collect();
    assert_eq!(methods, ["sendMessage", "editMessageText", "editMessageText"]);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_errors_in_ten_seconds_are_three_calls_with_the_exact_count() {
    let bot = BotApi::start().await;
    let running = Running::start(vec![("ops", bot.channel(20))]);
    for _ in 0..100 {
        (0..1000).for_each(|_| running.fire("shop", "declined", 1));
        sleep_ms(100).await;
    }
    seconds(60).await;
    running.resolve("shop");
    seconds(3600).await;
    assert_eq!(bot.calls().len(), 3);
    assert!(bot.messages()[0].contains("× 100,000 in"), "{:?}", bot.messages());
    assert!(bot.messages()[0].starts_with("✅ Resolved"));
    running.end().await;
}

async fn sleep_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// A bad answer to the first message: how many calls there are after `after_s`, when it is told at last, what is
/// counted.
async fn check(replies: Vec<Reply>, after_s: u64, calls: usize, told_by_s: u64, count: &str) {
    let (bot, hook) = (BotApi::start().await, Hook::start().await);
    let running = Running::start(vec![("ops", bot.channel(20)), ("hook", hook.channel())]);
    bot.script(replies);
    let start = Instant::now();
    running.fire("shop", "declined", 1);
    seconds(5).await;
    sleep_ms(100).await;
    assert_eq!(hook.told(), ["firing errors in shop"], "the other channel does not wait");
    tokio::time::sleep_until(start + Duration::from_secs(after_s)).await;
    assert_eq!(bot.calls().len(), calls);
    running.fire("shop", "declined", 1);
    eventually("it is told", || !bot.messages().is_empty()).await;
    assert!(start.elapsed().as_secs() <= told_by_s, "told after {:?}", start.elapsed());
    assert!(bot.messages()[0].contains("× 2 in"), "in its newest state: {:?}", bot.messages());
    let line = format!("trommel_alerts_calls_total{{channel=\"ops\",{count}");
    assert!(running.counts(&line), "{line} in\n{}", running.metrics.text());
    assert_eq!(bot.messages().len(), 1);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn telegram_is_obeyed_when_it_asks_to_come_later() {
    let asks = json!({
        "ok": false, "error_code": 429, "description": "Too Many Requests: retry after 90",
        "parameters": { "retry_after": 90 },
    });
    check(vec![Reply::Text(429, asks.to_string())], 94, 1, 97, "result=\"limited\"} 1").await;
    check(vec![Reply::After(429, "90")], 94, 1, 97, "result=\"limited\"} 1").await;
}

#[tokio::test(start_paused = true)]
async fn a_chat_that_refuses_is_left_alone_for_long_and_tried_again() {
    for reply in [
        failure(403, "Forbidden: bot was kicked from the supergroup chat"),
        failure(400, "Bad Request: chat not found"),
        failure(401, "Unauthorized"),
        failure(404, "Not Found"),
        Reply::Text(404, "<html>not here</html>".into()),
    ] {
        check(vec![reply], 890, 1, 910, "result=\"parked\"} 1").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_is_tried_again_soon() {
    for reply in [
        Reply::Text(200, "<html>sign in to this network</html>".into()),
        Reply::Text(200, "{}".into()),
        Reply::Text(200, String::new()),
        Reply::Text(502, "Bad Gateway".into()),
        Reply::Text(302, String::new()),
        failure(500, "Internal Server Error"),
        Reply::Text(500, "x".repeat(1 << 20)),
    ] {
        check(vec![reply.clone()], 5, 1, 9, "result=\"retry\"} 1").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_given_ten_seconds() {
    check(vec![Reply::Nothing], 14, 1, 18, "result=\"retry\"} 1").await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_there_is_tried_with_longer_pauses() {
    let hook = Hook::start().await;
    let (logs, _guard) = Logs::capture();
    let channels = vec![("ops", telegram_at("http://127.0.0.1:9", 20)), ("hook", hook.channel())];
    let running = Running::start(channels);
    running.fire("shop", "declined", 1);
    seconds(600).await;
    assert_eq!(hook.told(), ["firing errors in shop"]);
    assert_eq!(logs.count("alerts cannot be told; trying on"), 1, "{}", logs.text());
    let line = |count: usize| {
        running.counts(&format!("trommel_alerts_calls_total{{channel=\"ops\",result=\"retry\"}} {count}"))
    };
    assert!((14..25).any(line), "{}", running.metrics.text());
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn markup_that_is_not_understood_is_sent_as_plain_text() {
    let bot = BotApi::start().await;
    let running = Running::start(vec![("ops", bot.channel(20))]);
    bot.script([failure(
        400,
        "Bad Request: can't parse entities: Unsupported start tag \"x\" at byte offset 7",
    )]);
    running.fire("shop", "a <b> & c", 1);
    seconds(6).await;
    let calls = bot.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!((&calls[0].body["parse_mode"], &calls[1].body["parse_mode"]), (&json!("HTML"), &json!(null)));
    assert!(bot.messages()[0].contains("a <b> & c"));
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_somebody_deleted_is_sent_anew() {
    let bot = BotApi::start().await;
    let running = Running::start(vec![("ops", bot.channel(20))]);
    running.fire("shop", "declined", 1);
    seconds(6).await;
    bot.look(|bot| bot.messages.clear());
    running.fire("shop", "declined", 1);
    seconds(61).await;
    let methods: Vec<String> = bot.calls().into_iter().map(|call| call.method).collect();
    assert_eq!(methods, ["sendMessage", "editMessageText", "sendMessage"]);
    assert!(bot.messages()[0].contains("× 2 in"));
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_says_so_already_is_told() {
    let bot = BotApi::start().await;
    let running = Running::start(vec![("ops", bot.channel(20))]);
    running.fire("shop", "declined", 1);
    seconds(6).await;
    running.fire("shop", "declined", 0);
    seconds(600).await;
    assert_eq!(bot.calls().len(), 2);
    assert!(running.counts(r#"trommel_alerts_calls_total{channel="ops",result="ok"} 2"#));
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_that_became_a_supergroup_is_followed() {
    let bot = BotApi::start().await;
    let running = Running::start(vec![("ops", bot.channel(20))]);
    running.fire("shop", "declined", 1);
    seconds(6).await;
    let moved = json!({
        "ok": false, "error_code": 400, "description": "Bad Request: group chat was upgraded to a supergroup chat",
        "parameters": { "migrate_to_chat_id": -100_999 },
    });
    bot.script([Reply::Text(400, moved.to_string())]);
    // The new chat has a message of the same number, which is somebody else's.
    bot.look(|bot| (bot.chat, bot.messages) = (-100_999, [(1, "hello".to_owned())].into()));
    running.fire("shop", "declined", 1);
    seconds(61).await;
    running.resolve("shop");
    seconds(6).await;
    let messages = bot.messages();
    assert_eq!((messages.len(), &*messages[0]), (2, "hello"));
    assert!(messages[1].starts_with("✅ Resolved"));
    let chats: Vec<Value> = bot.calls().into_iter().map(|call| call.body["chat_id"].clone()).collect();
    assert_eq!(chats, [json!(CHAT), json!(CHAT), json!(-100_999), json!(-100_999)]);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_refused_is_counted_not_repeated_and_harms_no_other() {
    let (bot, (logs, _guard)) = (BotApi::start().await, Logs::capture());
    let running = Running::start(vec![("ops", bot.channel(20))]);
    bot.script([failure(400, "Bad Request: there is something about <s3cr3t> in it")]);
    running.fire("bad", "declined", 1);
    running.fire("good", "declined", 1);
    seconds(3600).await;
    assert_eq!(bot.calls().len(), 2);
    assert!(bot.messages()[0].contains("errors in good"));
    assert!(running.counts(r#"trommel_alerts_untold_incidents_total{channel="ops",reason="refused"} 1"#));
    assert_eq!(logs.count("alerts refused"), 1);
    assert!(!logs.text().contains("s3cr3t"), "descriptions can repeat what tenants wrote");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_megabyte_of_markup_is_one_message_of_the_length_that_telegram_takes() {
    let bot = BotApi::start().await;
    let running = Running::start(vec![("ops", bot.channel(20))]);
    let long = "<script>&amp;</b>🔥".repeat(60_000);
    running.raise(What::Fire {
        key: long.clone(),
        severity: Severity::Warning,
        title: long.clone(),
        text: long.clone(),
        count: 12_345,
        labels: (0..100).map(|number| (format!("{number}{long}"), long.clone())).collect(),
    });
    seconds(6).await;
    assert_eq!(bot.calls().len(), 1, "and it is understood at once");
    let messages = bot.messages();
    let units = messages[0].encode_utf16().count();
    assert!((4000..=4096).contains(&units), "{units}");
    assert!(messages[0].contains("× 12,345 in 0 s") && messages[0].ends_with('…'));
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_keys_never_pass_the_budget_and_ends_are_told_all_the_same() {
    let (bot, (logs, _guard)) = (BotApi::start().await, Logs::capture());
    let running = Running::start(vec![("ops", bot.channel(20))]);
    running.fire("first", "declined", 1);
    seconds(6).await;
    (0..10_000).for_each(|number| running.fire(&format!("key {number}"), "declined", 1));
    seconds(6).await;
    running.resolve("first");
    seconds(6).await;
    assert!(bot.messages()[0].starts_with("✅ Resolved"), "before all that waits");
    seconds(600).await;
    assert_eq!(bot.look(|bot| bot.flooded), 0);
    let messages = bot.messages();
    assert_eq!(messages.iter().filter(|message| message.contains("errors in key")).count(), 50);
    let notice = messages.iter().find(|message| message.contains("alerts suppressed")).expect("a notice");
    // 1,000 are kept of the tenant's, `first` among them; 50 of these are told here.
    assert!(notice.contains("× 9,950 in") && notice.contains("tenant: acme"), "{notice}");
    assert_eq!(logs.count("alerts suppressed: more came than is kept alerts=9001"), 1, "{}", logs.text());
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn at_the_end_what_waits_is_told_and_what_a_dead_channel_was_not_is_counted() {
    let (hook, bot, (logs, _guard)) = (Hook::start().await, BotApi::start().await, Logs::capture());
    bot.script([Reply::Nothing]);
    let mut running = Running::start(vec![("dead", bot.channel(20)), ("hook", hook.channel())]);
    running.fire("shop", "declined", 1);
    seconds(1).await;
    let start = Instant::now();
    running.stop.cancel();
    running.tasks.join_next().await.unwrap().unwrap();
    assert!(start.elapsed() <= Duration::from_millis(2500), "{:?}", start.elapsed());
    assert_eq!(hook.told(), ["firing errors in shop"]);
    assert!(running.counts(r#"trommel_alerts_untold_incidents_total{channel="dead",reason="stopped"} 1"#));
    assert!(running.counts(r#"trommel_alerts_untold_incidents_total{channel="hook",reason="stopped"} 0"#));
    assert_eq!(logs.count("stopped before all was told"), 1);
}

#[tokio::test(start_paused = true)]
async fn secrets_stand_in_no_log_error_debug_or_answer() {
    let (bot, hook, (logs, _guard)) = (BotApi::start().await, Hook::start().await, Logs::capture());
    let nowhere = ("nowhere", telegram_at("http://127.0.0.1:9", 20));
    let running = Running::start(vec![("ops", bot.channel(20)), nowhere, ("hook", hook.channel())]);
    bot.script([
        Reply::Text(200, "no JSON".into()),
        Reply::Nothing,
        failure(401, &format!("Unauthorized: {TOKEN}")),
    ]);
    hook.look(|got| {
        got.script.extend([Reply::Text(500, TOKEN.into()), Reply::Nothing, Reply::Text(400, TOKEN.into())])
    });
    running.fire("shop", "declined", 1);
    seconds(2000).await;
    assert!(bot.calls().len() >= 4);
    let (shown, debug) = (running.alerts.shown().to_string(), format!("{:?}", running.alerts));
    let metrics = running.metrics.text();
    running.end().await;
    let logs = logs.text();
    assert!(logs.contains("alerts cannot be told") && logs.contains("TRACE"), "the log was on: {logs}");
    for (what, text) in [("log", logs), ("shown", shown), ("debug", debug), ("metrics", metrics)] {
        for secret in [TOKEN, "s3cr3t"] {
            assert!(!text.contains(secret), "{secret} in {what}: {text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_channel_says_each_change_and_nothing_that_senders_wrote() {
    let (logs, _guard) = Logs::capture();
    let running = Running::start(vec![("console", LOG)]);
    running.raise(What::Fire {
        key: "k".into(),
        severity: Severity::Warning,
        title: format!("errors\nin \u{1b}[31mshop {}", "x".repeat(500)),
        text: "card 4111".into(),
        count: 2,
        labels: vec![("customer".into(), "ada".into())],
    });
    seconds(6).await;
    running.fire("k", "card 4111", 5);
    seconds(61).await;
    running.resolve("k");
    seconds(6).await;
    running.end().await;
    let text = logs.text();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(" alert ")).collect();
    let cut: String = "x".repeat(120 - "errors.in .[31mshop ".len());
    assert!(lines[0].contains(&format!(r#"title="errors\\nin \\u{{1b}}[31mshop {cut}""#)), "{}", lines[0]);
    for (line, expected) in lines.iter().zip([
        ("WARN", "alert opened", "severity=\"warning\"", "count=2"),
        ("ERROR", "alert grown", "severity=\"critical\"", "count=7"),
        ("INFO", "alert resolved", "severity=\"critical\"", "count=7"),
    ]) {
        for part in [expected.0, expected.1, expected.2, expected.3, "tenant=\"acme\"", "plugin=\"anomaly\""]
        {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
    assert_eq!(lines.len(), 3, "{text}");
    assert!(!text.contains("4111") && !text.contains("ada"));
}

#[test]
fn wrong_settings_are_told_without_what_is_secret() {
    let telegram = |api: &str, token: &str, chat: &str| {
        let (api, token, chat) = (api.into(), crate::telemetry::Secret::new(token), chat.into());
        let tls = Default::default();
        ChannelSettings {
            kind: ChannelKind::Telegram(telegram::Settings { api, token, chat, tls }),
            per_minute: 20,
        }
    };
    let api = "https://api.telegram.org";
    let with = |channel: ChannelSettings| Settings {
        channels: vec![("ops".into(), channel)],
        ..Settings::default()
    };
    let to_nobody = Route { to: vec!["pager".into()], ..Route::default() };
    for (settings, expected) in [
        (
            with(telegram("api.telegram.org", TOKEN, "1")),
            "channel `ops`: api: no address like `https://host/path`",
        ),
        (with(telegram(api, "", "1")), "channel `ops`: token: no token of a bot like `123456:ABC-DEF`"),
        (
            with(telegram(api, "s3cr3t/../x", "1")),
            "channel `ops`: token: no token of a bot like `123456:ABC-DEF`",
        ),
        (with(telegram(api, TOKEN, "ops")), "channel `ops`: chat: `ops` is no number and no `@name`"),
        (with(ChannelSettings { per_minute: 0, ..LOG }), "channel `ops`: per_minute must be 1 or more"),
        (Settings { routes: vec![to_nobody], ..Settings::default() }, "routes: there is no channel `pager`"),
        (
            Settings { channels: vec![("a".into(), LOG), ("a".into(), LOG)], ..Settings::default() },
            "channel `a` stands twice",
        ),
        (
            Settings { resolve_after: Duration::ZERO, ..Settings::default() },
            "resolve_after must be longer than nothing",
        ),
    ] {
        assert_eq!(Alerts::open(settings, Metrics::new()).unwrap_err(), expected);
    }
}

#[test]
fn times_beyond_reason_do_not_overflow() {
    let settings = Settings {
        group_wait: Duration::MAX,
        group_interval: Duration::MAX,
        resolve_after: Duration::MAX,
        channels: vec![("log".into(), ChannelSettings { per_minute: u32::MAX, ..LOG })],
        routes: vec![Route { to: vec!["log".into()], ..Route::default() }],
    };
    let alerts = Alerts::open(settings, Metrics::new()).unwrap();
    for time_ms in [0, u64::MAX] {
        let fire = What::Fire {
            key: "k".into(),
            severity: Severity::Info,
            title: String::new(),
            text: String::new(),
            count: u32::MAX,
            labels: vec![],
        };
        for what in [fire, What::Resolve { key: "k".into() }] {
            alerts.raise(Raised { tenant: TenantId::local(), plugin: "p".into(), time_ms, what });
        }
    }
    assert_eq!(alerts.shown()["incidents"][0]["count"], 2 * u64::from(u32::MAX));
}
