//! `sinks:` where batches end.

use super::node::Node;
use super::ports::read_client_tls;
use super::read::{Table, choice, duration, secret, text};
use crate::pipeline::deliver;
use crate::sinks::{Settings, otlp};
use crate::streams;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Each with its name, and how it is served.
pub(super) fn read(table: Table<'_>, data: &Path) -> Vec<((String, Settings), deliver::Settings)> {
    let read_one = |(name, _, node): &(String, super::fault::Position, Node)| {
        let sink = table.reader.table(&table.path(name), node);
        let served = read_served(&sink);
        Some(((name.clone(), read_sink(sink, data)?), served))
    };
    table.all().iter().filter_map(read_one).collect()
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

fn read_sink(table: Table<'_>, data: &Path) -> Option<Settings> {
    let right = "otlp, streams, stdout or discard";
    let kind = table.required("type", right, text)?;
    match kind.as_str() {
        "otlp" => read_otlp(table).map(Settings::Otlp),
        "streams" => Some(Settings::Streams(read_streams(table, data))),
        "stdout" => {
            table.finish(&["type", "timeout", "retry_for"]);
            Some(Settings::Stdout)
        }
        "discard" => {
            table.finish(&["type", "timeout", "retry_for"]);
            Some(Settings::Discard)
        }
        "remote_write" => {
            table.fault("type", "`remote_write` comes with a later version", right);
            None
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
    let endpoint = table.required("endpoint", "http://127.0.0.1:4317", |value| {
        let url = text(value)?;
        let wrong = || {
            (
                format!("{} is no endpoint", value.shown()),
                "http:// or https:// with host and port".to_string(),
            )
        };
        let parsed: http::Uri = url.parse().map_err(|_| wrong())?;
        let has_scheme = matches!(parsed.scheme_str(), Some("http" | "https"));
        if has_scheme && parsed.host().is_some_and(|host| !host.is_empty()) { Ok(url) } else { Err(wrong()) }
    });
    let headers = table.table("headers").map(read_headers).unwrap_or_default();
    let settings = otlp::Settings {
        endpoint: endpoint.unwrap_or_default(),
        protocol: table.optional("protocol", choice(PROTOCOLS)).unwrap_or(otlp::Protocol::Grpc),
        headers,
        compression: table.optional("compression", choice(COMPRESSIONS)).unwrap_or(otlp::Compression::Gzip),
        tls: table.table("tls").map(read_client_tls).unwrap_or_default(),
    };
    table.finish(&["type", "endpoint", "protocol", "headers", "compression", "tls", "timeout", "retry_for"]);
    Some(settings)
}

fn read_headers(table: Table<'_>) -> BTreeMap<String, crate::telemetry::Secret> {
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
    let mut settings = streams::Settings {
        store: streams::StoreSettings::Embedded { folder: data.join("streams") },
        retention: Duration::from_secs(7 * 86_400),
    };
    match table.node("store").map(|node| &node.value) {
        None => {}
        Some(value) if text(value).is_ok_and(|word| word == "embedded") => {}
        Some(super::node::Value::Table(entries)) if entries.iter().any(|(key, _, _)| key == "mongodb") => {
            table.fault("store", "`mongodb` comes with a later version", "embedded");
        }
        Some(other) => table.fault("store", format!("{} is no store", other.shown()), "embedded"),
    }
    if let Some(retention) = table.optional("retention", duration) {
        if retention < Duration::from_secs(86_400) {
            table.fault("retention", "is shorter than a day", "1d or more: whole days are removed");
        }
        settings.retention = retention;
    }
    table.finish(&["type", "store", "retention", "timeout", "retry_for"]);
    settings
}
