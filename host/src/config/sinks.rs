//! `sinks:` where batches end.

use super::node::{Node, Value};
use super::ports::read_client_tls;
use super::read::{Table, Wrong, choice, duration, flag, secret, size, text};
use crate::batch::IdentityKeys;
use crate::journal;
use crate::pipeline::deliver;
use crate::sinks::{Settings, otlp, remote_write};
use crate::streams::{self, mongodb};
use crate::telemetry::Secret;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Keys that every sink has.
const COMMON: [&str; 5] = ["type", "timeout", "retry_for", "essential", "journal"];

/// A sink: what it is, how it is served, and what the journal keeps for it.
pub(super) struct Read {
    pub(super) settings: Settings,
    pub(super) served: deliver::Settings,
    pub(super) kept: journal::SinkSettings,
}

/// `identity` are the attributes that say whose a record is.
pub(super) fn read(table: Table<'_>, data: &Path, identity: &IdentityKeys) -> Vec<Read> {
    let read_one = |(name, _, node): &(String, super::fault::Position, Node)| {
        let sink = table.reader.table(&table.path(name), node);
        let (served, kept) = (read_served(&sink), read_kept(name, &sink));
        Some(Read { settings: read_sink(sink, data, identity)?, served, kept })
    };
    table.all().iter().filter_map(read_one).collect()
}

fn read_kept(name: &str, table: &Table<'_>) -> journal::SinkSettings {
    let mut kept = journal::SinkSettings::from(name.to_owned());
    kept.is_essential = table.optional("essential", flag).unwrap_or(false);
    if let Some(journal) = table.table("journal") {
        kept.bytes_max = journal.optional("max", size).map(|bytes| bytes as u64);
        kept.age_max = journal.optional("age", duration);
        if kept.is_essential && kept.age_max.is_some() {
            journal.fault("age", "does not go with `essential`: nothing of it expires", "one of the two");
        }
        journal.finish(&["max", "age"]);
    }
    kept
}

fn all_keys<'k>(own: &[&'k str]) -> Vec<&'k str> {
    [&COMMON[..], own].concat()
}

fn read_served(table: &Table<'_>) -> deliver::Settings {
    let usual = deliver::Settings::default();
    let attempt_timeout = table.optional("timeout", duration).unwrap_or(usual.attempt_timeout);
    if attempt_timeout.is_zero() {
        table.fault("timeout", "is no time at all", "how long one attempt may take: 10s");
    }
    let retry_for = table.optional("retry_for", duration).unwrap_or(usual.retry_for);
    deliver::Settings { attempt_timeout, retry_for, ..usual }
}

fn read_sink(table: Table<'_>, data: &Path, identity: &IdentityKeys) -> Option<Settings> {
    let right = "otlp, remote_write, streams, stdout or discard";
    let kind = table.required("type", right, text)?;
    match kind.as_str() {
        "otlp" => read_otlp(table).map(Settings::Otlp),
        "remote_write" => Some(Settings::RemoteWrite(read_remote_write(table, identity))),
        "streams" => Some(Settings::Streams(read_streams(table, data))),
        "stdout" => {
            table.finish(&COMMON);
            Some(Settings::Stdout)
        }
        "discard" => {
            table.finish(&COMMON);
            Some(Settings::Discard)
        }
        other => {
            table.fault("type", format!("`{}` is not known", other.escape_debug()), right);
            None
        }
    }
}

fn read_otlp(table: Table<'_>) -> Option<otlp::Settings> {
    const PROTOCOLS: &[(&str, otlp::Protocol)] =
        &[("grpc", otlp::Protocol::Grpc), ("http", otlp::Protocol::Http)];
    const COMPRESSIONS: &[(&str, otlp::Compression)] = &[
        ("none", otlp::Compression::None),
        ("gzip", otlp::Compression::Gzip),
        ("zstd", otlp::Compression::Zstd),
    ];
    let right = "http:// or https:// with host and port";
    let endpoint = table.required("endpoint", "http://127.0.0.1:4317", |value| url(value, right));
    let headers = table.table("headers").map(read_headers).unwrap_or_default();
    let settings = otlp::Settings {
        endpoint: endpoint.unwrap_or_default(),
        protocol: table.optional("protocol", choice(PROTOCOLS)).unwrap_or(otlp::Protocol::Grpc),
        headers,
        compression: table.optional("compression", choice(COMPRESSIONS)).unwrap_or(otlp::Compression::Gzip),
        tls: table.table("tls").map(read_client_tls).unwrap_or_default(),
    };
    table.finish(&all_keys(&["endpoint", "protocol", "headers", "compression", "tls"]));
    Some(settings)
}

/// An address over HTTP.
pub(super) fn url(value: &Value, right: &str) -> Result<String, Wrong> {
    let url = text(value)?;
    if is_url(&url) { Ok(url) } else { Err((format!("{} is no endpoint", value.shown()), right.into())) }
}

pub(super) fn is_url(url: &str) -> bool {
    let Ok(parsed) = url.parse::<http::Uri>() else { return false };
    let has_scheme = matches!(parsed.scheme_str(), Some("http" | "https"));
    has_scheme && parsed.host().is_some_and(|host| !host.is_empty())
}

fn read_remote_write(table: Table<'_>, identity: &IdentityKeys) -> remote_write::Settings {
    const RIGHT: &str =
        "http:// or https:// with host, port and the whole path: http://127.0.0.1:9090/api/v1/write";
    let endpoint = table.required("endpoint", "http://127.0.0.1:9090/api/v1/write", |value| {
        let written = text(value)?;
        if written.contains('@') {
            // It may be a password: not shown.
            let wrong = "holds a name and a password";
            return Err((
                wrong.into(),
                "`headers: { authorization: … }`, and an address without them".into(),
            ));
        }
        let url = url(value, RIGHT)?;
        let parsed: http::Uri = url.parse().map_err(|_| ("is no endpoint".to_owned(), RIGHT.to_owned()))?;
        if parsed.path().trim_matches('/').is_empty() {
            return Err((format!("{} has no path", value.shown()), RIGHT.into()));
        }
        Ok(url)
    });
    let settings = remote_write::Settings {
        endpoint: endpoint.unwrap_or_default(),
        headers: table.table("headers").map(read_headers).unwrap_or_default(),
        tls: table.table("tls").map(read_client_tls).unwrap_or_default(),
        is_scope_labelled: table.optional("scope_labels", flag).unwrap_or(false),
        promote: read_promoted(&table)
            .unwrap_or_else(|| vec![identity.tenant.clone(), identity.project.clone()]),
    };
    table.finish(&all_keys(&["endpoint", "headers", "tls", "scope_labels", "promote"]));
    settings
}

fn read_promoted(table: &Table<'_>) -> Option<Vec<String>> {
    let keys = table.values("promote", |value| {
        let key = text(value)?;
        if key.is_empty() {
            Err(("is empty".into(), "the key of a resource attribute".into()))
        } else {
            Ok(key)
        }
    })?;
    for (number, key) in keys.iter().enumerate() {
        if keys[..number].contains(key) {
            table.fault("promote", format!("`{}` stands twice", key.escape_debug()), "each key once");
        }
    }
    Some(keys)
}

pub(super) fn read_headers(table: Table<'_>) -> BTreeMap<String, Secret> {
    let mut headers = BTreeMap::new();
    for (name, at, _) in table.all() {
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            table.reader.fault(*at, &table.path(name), "is no header name", "letters, digits and hyphens");
            continue;
        }
        let Some(value) = table.optional(name, secret) else { continue };
        if http::HeaderValue::from_str(value.expose()).is_err() {
            table.fault(name, "has a character that a header cannot hold", "printable ASCII on one line");
            continue;
        }
        headers.insert(name.to_ascii_lowercase(), value);
    }
    headers
}

fn read_streams(table: Table<'_>, data: &Path) -> streams::Settings {
    let embedded = || streams::StoreSettings::Embedded { folder: data.join("streams") };
    let mut settings = streams::Settings {
        store: read_store(&table).map_or_else(embedded, streams::StoreSettings::Mongodb),
        retention: Duration::from_secs(7 * 86_400),
    };
    if let Some(retention) = table.optional("retention", duration) {
        if retention < Duration::from_secs(86_400) {
            table.fault("retention", "is shorter than a day", "1d or more: whole days are removed");
        }
        settings.retention = retention;
    }
    table.finish(&all_keys(&["store", "retention"]));
    settings
}

/// The server, where it is not the embedded store.
fn read_store(table: &Table<'_>) -> Option<mongodb::Settings> {
    const RIGHT: &str = "embedded, or { mongodb: { uri: \"${env:MONGODB_URI}\" } }";
    let node = table.node("store")?;
    let store = match &node.value {
        value if text(value).is_ok_and(|word| word == "embedded") => return None,
        Value::Table(_) => table.reader.table(&table.path("store"), node),
        other => {
            table.fault("store", format!("{} is no store", other.shown()), RIGHT);
            return None;
        }
    };
    let Some(server) = store.table("mongodb") else {
        table.fault("store", "names no store that is known", RIGHT);
        return None;
    };
    store.finish(&["mongodb"]);
    let uri = server.required("uri", "mongodb://HOST:PORT, from ${env:MONGODB_URI}", mongodb_uri);
    let database = server.optional("database", database_name).unwrap_or_else(|| "trommel".into());
    server.finish(&["uri", "database"]);
    Some(mongodb::Settings { uri: uri.unwrap_or_else(|| Secret::new("")), database })
}

/// It holds the password: whatever stands there instead may be one, and is not shown.
fn mongodb_uri(value: &Value) -> Result<Secret, Wrong> {
    let uri = secret(value)?;
    match mongodb::check_uri(&uri) {
        Ok(()) => Ok(uri),
        Err(wrong) => Err((wrong, "mongodb://USER:PASSWORD@HOST:PORT/?OPTIONS".into())),
    }
}

fn database_name(value: &Value) -> Result<String, Wrong> {
    let name = text(value)?;
    match mongodb::check_database(&name) {
        Ok(()) => Ok(name),
        Err(wrong) => Err((wrong, "a name: trommel".into())),
    }
}
