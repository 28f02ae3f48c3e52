//! An incident in the Bot API of `telegram-test-api`, a program that we did not write: one message, edited in place,
//! resolved.

use super::installed;
use crate::shutdown::{Process, free_port};
use crate::world::{client, eventually};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trommel::alerts::{
    Alerts, ChannelKind, ChannelSettings, Raised, Route, Settings, Severity, What, telegram,
};
use trommel::batch::TenantId;
use trommel::net::tls;
use trommel::telemetry::{Metrics, Secret};

const TOKEN: &str = "123456:a_token-of-tests";
const CHAT: i64 = -100_123;

async fn start_server() -> (Process, String) {
    let (server, port) = (installed("TROMMEL_TEST_TELEGRAM"), free_port());
    let mut command = Command::new("node");
    command.arg(&server).arg(port.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
    command.current_dir(server.parent().expect("a file lies in a folder"));
    let process = Process(command.spawn().expect("node starts"));
    let address = format!("http://127.0.0.1:{port}");
    eventually("the Bot API answers", || async { history(&address).await.is_some() }).await;
    (process, address)
}

/// What the bot wrote.
async fn history(address: &str) -> Option<Vec<Value>> {
    let asked = client().post(format!("{address}/getUpdatesHistory")).json(&json!({ "token": TOKEN }));
    let answer: Value = asked.send().await.ok()?.json().await.ok()?;
    answer["result"].as_array().cloned()
}

fn settings(api: &str) -> Settings {
    let telegram = telegram::Settings {
        api: api.to_owned(),
        token: Secret::new(TOKEN),
        chat: CHAT.to_string(),
        tls: tls::ClientSettings::default(),
    };
    let ops = ChannelSettings { kind: ChannelKind::Telegram(telegram), per_minute: 20 };
    Settings {
        channels: vec![("ops".into(), ops)],
        routes: vec![Route { to: vec!["ops".into()], ..Route::default() }],
        group_wait: Duration::from_millis(200),
        group_interval: Duration::from_millis(500),
        ..Settings::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_errors_are_one_telegram_message_that_is_edited_and_resolved() {
    let (_process, address) = start_server().await;
    let (metrics, stop, mut tasks) = (Metrics::new(), CancellationToken::new(), JoinSet::new());
    let alerts = Alerts::open(settings(&address), metrics.clone()).unwrap();
    tasks.spawn(alerts.clone().run(stop.clone()));
    let raise = |what| {
        let tenant = TenantId::new("acme").unwrap();
        alerts.raise(Raised { tenant, plugin: "anomaly".into(), time_ms: 1_700_000_000_000, what });
    };
    let fire = |count| What::Fire {
        key: "errors:shop".into(),
        severity: Severity::Critical,
        title: "errors in <shop> & till".into(),
        text: "card declined".into(),
        count,
        labels: vec![("service".into(), "shop".into())],
    };
    let text = |word: &'static str| {
        let address = address.clone();
        move || {
            let address = address.clone();
            async move {
                let history = history(&address).await.unwrap();
                history.len() == 1 && history[0]["message"]["text"].as_str().unwrap().contains(word)
            }
        }
    };
    let begin = Instant::now();
    raise(fire(1));
    eventually("the incident is told", text("× 1 in")).await;
    (0..99_999).for_each(|_| raise(fire(1)));
    eventually("the message grows", text("× 100,000 in")).await;
    raise(What::Resolve { key: "errors:shop".into() });
    eventually("the message is resolved", text("✅ <b>Resolved: errors in &lt;shop&gt; &amp; till</b>"))
        .await;
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let history = history(&address).await.unwrap();
    let message = &history[0]["message"];
    assert_eq!((&message["chat_id"], &message["parse_mode"]), (&json!(CHAT), &json!("HTML")));
    assert!(message["text"].as_str().unwrap().contains("× 100,000 in"), "{message}");
    let calls = metrics.text();
    let calls = calls.lines().find(|line| line.starts_with("trommel_alerts_calls_total"));
    let count = calls.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    // Told, grown, resolved; and between them not more often than the interval allows, on a busy machine too.
    let most = 3 + u64::try_from(begin.elapsed().as_millis()).unwrap() / 500;
    assert!(count.is_some_and(|count| (3..=most).contains(&count)), "{calls:?}, {most} at most");
}
