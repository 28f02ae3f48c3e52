//! Servers for tests: one that answers as it is told, and a Bot API that is stricter than people are.

use super::{
    Alerts, ChannelKind, ChannelSettings, Raised, Route, Settings, Severity, What, telegram, webhook,
};
use crate::batch::TenantId;
use crate::net::tls;
use crate::telemetry::{Metrics, Secret};
use ::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub(super) const TOKEN: &str = "123456:AAF-s3cr3t_token";
pub(super) const CHAT: i64 = -100_123;

/// What a server answers.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Text(u16, String),
    /// With the header `retry-after`.
    After(u16, &'static str),
    /// Never.
    Nothing,
}

pub(super) fn failure(code: u16, description: &str) -> Reply {
    Reply::Text(code, json!({ "ok": false, "error_code": code, "description": description }).to_string())
}

async fn respond(reply: Reply) -> Response {
    let status = |code| StatusCode::from_u16(code).unwrap();
    match reply {
        Reply::Text(code, body) => (status(code), body).into_response(),
        Reply::After(code, after) => (status(code), [("retry-after", after)], "").into_response(),
        Reply::Nothing => std::future::pending().await,
    }
}

/// Serves until dropped. The address is `http://127.0.0.1:PORT`.
async fn serve<F>(answer: F) -> (String, JoinSet<()>)
where
    F: Fn(&str, &HeaderMap, &[u8]) -> Reply + Clone + Send + Sync + 'static,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let handler = move |uri: ::http::Uri, headers: HeaderMap, body: bytes::Bytes| {
        let reply = answer(uri.path(), &headers, &body);
        respond(reply)
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _ = axum::serve(listener, axum::Router::new().fallback(handler)).await;
    });
    (address, tasks)
}

/// A call of the Bot API.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: String,
    pub(super) at: Instant,
    pub(super) body: Value,
}

#[derive(Debug)]
pub(super) struct Bot {
    pub(super) chat: i64,
    /// What is in the chat, as people see it.
    pub(super) messages: BTreeMap<i64, String>,
    pub(super) calls: Vec<Call>,
    /// Answers to give instead of the right ones.
    pub(super) script: VecDeque<Reply>,
    /// Calls that were one too many in a minute.
    pub(super) flooded: usize,
}

#[derive(Debug)]
pub(super) struct BotApi {
    pub(super) address: String,
    bot: Arc<Mutex<Bot>>,
    _tasks: JoinSet<()>,
}

impl BotApi {
    pub(super) async fn start() -> BotApi {
        let bot = Bot {
            chat: CHAT,
            messages: BTreeMap::new(),
            calls: Vec::new(),
            script: VecDeque::new(),
            flooded: 0,
        };
        let bot = Arc::new(Mutex::new(bot));
        let shared = bot.clone();
        let (address, tasks) = serve(move |path, _, body| shared.lock().unwrap().answer(path, body)).await;
        BotApi { address, bot, _tasks: tasks }
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&mut Bot) -> T) -> T {
        look(&mut self.bot.lock().unwrap())
    }

    pub(super) fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.look(|bot| bot.script.extend(replies));
    }

    /// The texts of the messages.
    pub(super) fn messages(&self) -> Vec<String> {
        self.look(|bot| bot.messages.values().cloned().collect())
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.look(|bot| bot.calls.clone())
    }

    pub(super) fn channel(&self, per_minute: u32) -> ChannelSettings {
        telegram_at(&self.address, per_minute)
    }
}

pub(super) fn telegram_at(api: &str, per_minute: u32) -> ChannelSettings {
    let settings = telegram::Settings {
        api: api.to_owned(),
        token: Secret::new(TOKEN),
        chat: CHAT.to_string(),
        tls: tls::ClientSettings::default(),
    };
    ChannelSettings { kind: ChannelKind::Telegram(settings), per_minute }
}

impl Bot {
    fn answer(&mut self, path: &str, body: &[u8]) -> Reply {
        let Some(method) = path.strip_prefix(&format!("/bot{TOKEN}/")) else {
            return failure(404, "Not Found");
        };
        let Ok(body) = serde_json::from_slice::<Value>(body) else {
            return failure(400, "Bad Request: no JSON");
        };
        let now = Instant::now();
        self.calls.push(Call { method: method.to_owned(), at: now, body: body.clone() });
        if let Some(reply) = self.script.pop_front() {
            return reply;
        }
        let minute = self.calls.iter().filter(|call| now - call.at < Duration::from_secs(60));
        if minute.count() > 20 {
            self.flooded += 1;
            return failure(429, "Too Many Requests: retry after 30");
        }
        self.write(method, &body)
            .unwrap_or_else(|description| failure(400, &format!("Bad Request: {description}")))
    }

    fn write(&mut self, method: &str, body: &Value) -> Result<Reply, &'static str> {
        if body["chat_id"] != self.chat {
            return Err("chat not found");
        }
        let text = body["text"].as_str().ok_or("message text is empty")?;
        let shown = match body["parse_mode"].as_str() {
            None => text.to_owned(),
            Some("HTML") => shown(text).map_err(|_| "can't parse entities: something is wrong")?,
            Some(_) => return Err("unsupported parse_mode"),
        };
        if shown.trim().is_empty() {
            return Err("message text is empty");
        }
        if shown.encode_utf16().count() > 4096 {
            return Err("message is too long");
        }
        let message = match method {
            "sendMessage" => self.messages.keys().last().map_or(1, |last| last + 1),
            "editMessageText" => {
                let message = body["message_id"].as_i64().ok_or("message identifier is not specified")?;
                let before = self.messages.get(&message).ok_or("message to edit not found")?;
                if *before == shown {
                    return Err("message is not modified: it is the same");
                }
                message
            }
            _ => return Err("no such method"),
        };
        self.messages.insert(message, shown);
        let result = json!({ "message_id": message, "chat": { "id": self.chat }, "date": 0 });
        Ok(Reply::Text(200, json!({ "ok": true, "result": result }).to_string()))
    }
}

/// What people see of HTML; an error where it is not as it should be, also where Telegram is lenient.
pub(super) fn shown(html: &str) -> Result<String, String> {
    let (mut text, mut open, mut rest) = (String::new(), Vec::new(), html);
    while let Some(at) = rest.find(['<', '>', '&']) {
        text += &rest[..at];
        let end = match &rest[at..=at] {
            "<" => rest[at..].find('>').ok_or("a tag does not end")?,
            "&" => rest[at..].find(';').ok_or("an entity does not end")?,
            _ => return Err("a bare >".into()),
        };
        let inner = &rest[at + 1..at + end];
        match (&rest[at..=at], inner) {
            ("<", "b" | "i" | "code" | "pre") => open.push(inner),
            ("<", _) => {
                let name = inner.strip_prefix('/').ok_or(format!("unsupported start tag {inner}"))?;
                open.pop().filter(|open| *open == name).ok_or(format!("unexpected end tag {name}"))?;
            }
            (_, "amp") => text.push('&'),
            (_, "lt") => text.push('<'),
            (_, "gt") => text.push('>'),
            _ => return Err(format!("unknown entity {inner}")),
        }
        rest = &rest[at + end + 1..];
    }
    if open.is_empty() { Ok(text + rest) } else { Err("a tag stays open".into()) }
}

/// A receiver of webhooks.
#[derive(Debug)]
pub(super) struct Hook {
    pub(super) url: String,
    got: Arc<Mutex<HookGot>>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
pub(super) struct HookGot {
    pub(super) bodies: Vec<(Instant, Value)>,
    pub(super) headers: Vec<HeaderMap>,
    pub(super) script: VecDeque<Reply>,
}

impl Hook {
    pub(super) async fn start() -> Hook {
        let got = Arc::new(Mutex::new(HookGot::default()));
        let shared = got.clone();
        let answer = move |_: &str, headers: &HeaderMap, body: &[u8]| {
            let mut got = shared.lock().unwrap();
            got.bodies.push((Instant::now(), serde_json::from_slice(body).unwrap()));
            got.headers.push(headers.clone());
            got.script.pop_front().unwrap_or(Reply::Text(200, String::new()))
        };
        let (address, tasks) = serve(answer).await;
        Hook { url: format!("{address}/hooks/s3cr3t_path"), got, _tasks: tasks }
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&mut HookGot) -> T) -> T {
        look(&mut self.got.lock().unwrap())
    }

    pub(super) fn channel(&self) -> ChannelSettings {
        let headers = BTreeMap::from([("authorization".to_owned(), Secret::new("Bearer s3cr3t_header"))]);
        let settings = webhook::Settings {
            url: Secret::new(self.url.clone()),
            headers,
            tls: tls::ClientSettings::default(),
        };
        ChannelSettings { kind: ChannelKind::Webhook(settings), per_minute: 60 }
    }

    /// `status summary` of each call.
    pub(super) fn told(&self) -> Vec<String> {
        let told = |(_, body): &(Instant, Value)| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            format!("{} {}", text(&body["status"]), text(&body["alerts"][0]["annotations"]["summary"]))
        };
        self.look(|got| got.bodies.iter().map(told).collect())
    }
}

/// Alerts that run, all incidents going to all channels.
pub(super) struct Running {
    pub(super) alerts: Arc<Alerts>,
    pub(super) metrics: Metrics,
    pub(super) stop: CancellationToken,
    pub(super) tasks: JoinSet<()>,
}

impl Running {
    pub(super) fn start(channels: Vec<(&str, ChannelSettings)>) -> Running {
        let to = channels.iter().map(|(name, _)| (*name).to_owned()).collect();
        let channels = channels.into_iter().map(|(name, settings)| (name.to_owned(), settings)).collect();
        let routes = vec![Route { to, ..Route::default() }];
        let metrics = Metrics::new();
        let alerts = Alerts::open(Settings { channels, routes, ..Settings::default() }, metrics.clone());
        let (alerts, stop, mut tasks) = (alerts.unwrap(), CancellationToken::new(), JoinSet::new());
        tasks.spawn(alerts.clone().run(stop.clone()));
        Running { alerts, metrics, stop, tasks }
    }

    pub(super) fn fire(&self, key: &str, text: &str, count: u32) {
        self.raise(What::Fire {
            key: key.into(),
            severity: Severity::Critical,
            title: format!("errors in {key}"),
            text: text.into(),
            count,
            labels: vec![("service".into(), key.into())],
        });
    }

    pub(super) fn resolve(&self, key: &str) {
        self.raise(What::Resolve { key: key.into() });
    }

    pub(super) fn raise(&self, what: What) {
        let tenant = TenantId::new("acme").unwrap();
        let time_ms = 1_700_000_000_000;
        self.alerts.raise(Raised { tenant, plugin: "anomaly".into(), time_ms, what });
    }

    /// Whether `/metrics` has the line.
    pub(super) fn counts(&self, line: &str) -> bool {
        self.metrics.text().lines().any(|other| other == line)
    }

    pub(super) async fn end(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

/// Waits in the test's own time.
pub(super) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(7200);
    while !condition() {
        assert!(Instant::now() < until, "{what} did not happen");
        sleep(Duration::from_millis(100)).await;
    }
}

pub(super) async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

/// Every log line of this thread, at every level.
#[derive(Clone, Debug, Default)]
pub(super) struct Logs(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Logs {
    pub(super) fn capture() -> (Logs, tracing::subscriber::DefaultGuard) {
        let logs = Logs::default();
        let writer = logs.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (logs, tracing::subscriber::set_default(subscriber))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Lines with this in them.
    pub(super) fn count(&self, part: &str) -> usize {
        self.text().lines().filter(|line| line.contains(part)).count()
    }
}
