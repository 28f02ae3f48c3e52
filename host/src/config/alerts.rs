//! `alerts:` who is told of incidents, and where.

use super::check::one_of;
use super::fault::Position;
use super::identity::tenant_id;
use super::node::Node;
use super::ports::read_client_tls;
use super::read::{Table, Wrong, count, duration, secret, text};
use super::sinks::{read_headers, url};
use crate::alerts::{ChannelKind, ChannelSettings, Route, Settings, Severity, telegram, webhook};
use crate::telemetry::Secret;
use std::collections::BTreeSet;

const TELEGRAM_API: &str = "https://api.telegram.org";

/// `plugins` are the names that stand in the configuration.
pub(super) fn read(table: Table<'_>, plugins: &[&str]) -> Settings {
    let usual = Settings::default();
    // Of a channel that cannot be read the name is known all the same: routes to it are not at fault.
    let mut names = Vec::new();
    let mut channels = Vec::new();
    if let Some(section) = table.table("channels") {
        for (name, _, node) in section.all() {
            names.push(name.as_str());
            let channel = read_channel(section.reader.table(&section.path(name), node));
            channels.extend(channel.map(|channel| (name.clone(), channel)));
        }
    }
    let routes = match table.node("routes") {
        Some(node) => read_routes(&table, node, &names, plugins),
        None if names.is_empty() => Vec::new(),
        None => vec![Route { to: names.iter().map(|name| (*name).to_owned()).collect(), ..Route::default() }],
    };
    let settings = Settings {
        channels,
        routes,
        group_wait: table.optional("group_wait", duration).unwrap_or(usual.group_wait),
        group_interval: table.optional("group_interval", duration).unwrap_or(usual.group_interval),
        resolve_after: table.optional("resolve_after", duration).unwrap_or(usual.resolve_after),
    };
    if settings.group_interval.is_zero() {
        table.fault(
            "group_interval",
            "is no time at all",
            "the time between two updates of an incident: 60s",
        );
    }
    if settings.resolve_after.is_zero() {
        table.fault("resolve_after", "would resolve what was just raised", "a time without a firing: 24h");
    }
    table.finish(&["channels", "routes", "group_wait", "group_interval", "resolve_after"]);
    settings
}

fn read_channel(table: Table<'_>) -> Option<ChannelSettings> {
    let right = "telegram, webhook or log";
    let kind = table.required("type", right, text)?;
    let per_minute = table.optional("per_minute", count);
    let kind = match kind.as_str() {
        "telegram" => read_telegram(table).map(ChannelKind::Telegram)?,
        "webhook" => read_webhook(table).map(ChannelKind::Webhook)?,
        "log" => {
            table.finish(&["type", "per_minute"]);
            ChannelKind::Log
        }
        other => {
            table.fault("type", format!("`{}` is not known", other.escape_debug()), right);
            return None;
        }
    };
    let per_minute = per_minute.unwrap_or_else(|| kind.per_minute_default());
    Some(ChannelSettings { kind, per_minute })
}

fn read_telegram(table: Table<'_>) -> Option<telegram::Settings> {
    let token = table.required("token", "the bot's token: ${file:telegram.token}", bot_token);
    let chat = table.required("chat", "the number of a chat, or the @name of a channel", chat);
    let api = table.optional("api", |value| url(value, "http:// or https:// with host and port"));
    let tls = table.table("tls").map(read_client_tls).unwrap_or_default();
    table.finish(&["type", "token", "chat", "api", "tls", "per_minute"]);
    let api = api.unwrap_or_else(|| TELEGRAM_API.into());
    Some(telegram::Settings { api: api.trim_end_matches('/').into(), token: token?, chat: chat?, tls })
}

/// It stands in the path of each request.
fn bot_token(value: &super::node::Value) -> Result<Secret, Wrong> {
    let token = secret(value)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-');
    if token.expose().chars().all(is_plain) {
        Ok(token)
    } else {
        Err((
            "has a character that no bot's token has".into(),
            "what BotFather gave: a number, a colon, letters and digits".into(),
        ))
    }
}

fn chat(value: &super::node::Value) -> Result<String, Wrong> {
    let chat = text(value)?;
    let digits = chat.strip_prefix('-').unwrap_or(&chat);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_name = chat.strip_prefix('@').is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    if is_number || is_name {
        Ok(chat)
    } else {
        Err((
            format!("{} is no chat", value.shown()),
            "the number of a chat, or the @name of a channel".into(),
        ))
    }
}

fn read_webhook(table: Table<'_>) -> Option<webhook::Settings> {
    const RIGHT: &str = "http:// or https:// with host and path: ${env:WEBHOOK_URL}";
    // The address is often the secret: it is not shown.
    let url = table.required("url", RIGHT, |value| {
        let url = secret(value)?;
        match super::sinks::is_url(url.expose()) {
            true => Ok(url),
            false => Err(("is no address".into(), RIGHT.into())),
        }
    });
    let headers = table.table("headers").map(read_headers).unwrap_or_default();
    let tls = table.table("tls").map(read_client_tls).unwrap_or_default();
    table.finish(&["type", "url", "headers", "tls", "per_minute"]);
    Some(webhook::Settings { url: url?, headers, tls })
}

fn read_routes(table: &Table<'_>, node: &Node, channels: &[&str], plugins: &[&str]) -> Vec<Route> {
    let items = table.reader.list(&table.path("routes"), node);
    let read_one = |(number, item): (usize, &Node)| {
        let key = table.path(&format!("routes[{number}]"));
        read_route(table.reader.table(&key, item), channels, plugins)
    };
    items.iter().enumerate().map(read_one).collect()
}

fn read_route(table: Table<'_>, channels: &[&str], plugins: &[&str]) -> Route {
    let mut route = Route::default();
    if let Some(when) = table.table("when") {
        let severities = read_names(&when, "severity", &SEVERITIES.map(|(word, _)| word), "");
        let means =
            |word: &String| SEVERITIES.iter().find(|(known, _)| known == word).map(|(_, means)| *means);
        route.severities = severities.iter().filter_map(means).collect();
        let tenants = when.values("tenant", tenant_id).unwrap_or_default();
        route.tenants = tenants.iter().map(|tenant| tenant.as_str().to_owned()).collect();
        route.plugins = read_names(&when, "plugin", plugins, "plugins");
        when.finish(&["severity", "tenant", "plugin"]);
    }
    if table.node("to").is_none() {
        table.fault("to", "is missing", one_of(channels, "alerts.channels"));
    }
    route.to = read_names(&table, "to", channels, "alerts.channels");
    table.finish(&["when", "to"]);
    route
}

const SEVERITIES: [(&str, Severity); 3] =
    [("info", Severity::Info), ("warning", Severity::Warning), ("critical", Severity::Critical)];

/// A list of names that are known, each once.
fn read_names(table: &Table<'_>, key: &str, known: &[&str], section: &str) -> Vec<String> {
    let Some(node) = table.node(key) else { return Vec::new() };
    let path = table.path(key);
    let right = one_of(known, section);
    let items = table.reader.list(&path, node);
    if let (super::node::Value::List(_), []) = (&node.value, items) {
        table.fault(key, "is empty", format!("some of {right}"));
    }
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut read_one = |item: &Node| {
        let fault = |at: Position, wrong: String, right: &str| table.reader.fault(at, &path, wrong, right);
        let name = text(&item.value).map_err(|(wrong, right)| fault(item.at, wrong, &right)).ok()?;
        if !known.contains(&name.as_str()) {
            fault(item.at, format!("there is no `{}`", name.escape_debug()), &right);
            return None;
        }
        if !seen.insert(name.clone()) {
            fault(item.at, format!("`{name}` stands twice"), "each once");
            return None;
        }
        Some(name)
    };
    items.iter().filter_map(&mut read_one).collect()
}
