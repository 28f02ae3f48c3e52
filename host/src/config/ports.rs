//! `receivers:` and `console:` where we listen.

use super::read::{Table, address, size, text};
use crate::net::tls::{ClientSettings, ServerSettings};
use crate::{console, receivers};
use std::net::SocketAddr;

pub(super) fn read_receivers(table: Option<Table<'_>>) -> receivers::Settings {
    let mut settings = receivers::Settings::default();
    let Some(table) = table else { return settings };
    if let Some(otlp) = table.table("otlp") {
        settings.grpc = otlp.table("grpc").and_then(read_listen);
        settings.http = otlp.table("http").and_then(read_listen);
        settings.body_bytes_max = otlp.optional("body_max", size).unwrap_or(settings.body_bytes_max);
        if otlp.node("grpc").is_none() && otlp.node("http").is_none() {
            otlp.fault("grpc", "is missing, and so is http", "{ grpc: { listen: 127.0.0.1:4317 } }");
        }
        otlp.finish(&["grpc", "http", "body_max"]);
    }
    table.finish(&["otlp"]);
    settings
}

fn read_listen(table: Table<'_>) -> Option<receivers::ListenSettings> {
    let listen = table.required("listen", "127.0.0.1:4317", address);
    let tls = table.table("tls").and_then(read_server_tls);
    table.finish(&["listen", "tls"]);
    Some(receivers::ListenSettings { listen: listen?, tls })
}

pub(super) fn read_console(table: Option<Table<'_>>) -> Option<console::Settings> {
    let table = table?;
    let listen = table.required("listen", "127.0.0.1:4380", address);
    let tls = table.table("tls").and_then(read_server_tls);
    let origins = table.values("origins", text).unwrap_or_default();
    for origin in &origins {
        let is_origin = ["http://", "https://"]
            .iter()
            .any(|s| origin.strip_prefix(s).is_some_and(|host| !host.is_empty() && !host.contains('/')));
        if !is_origin {
            table.fault(
                "origins",
                format!("`{}` is no origin", origin.escape_debug()),
                "scheme and host: https://panel.example",
            );
        }
    }
    table.finish(&["listen", "tls", "origins"]);
    let listen: SocketAddr = listen?;
    Some(console::Settings { listen, tls, origins, is_loopback_admin: listen.ip().is_loopback() })
}

fn read_server_tls(table: Table<'_>) -> Option<ServerSettings> {
    let folder = &table.reader.folder;
    let cert = table.required("cert", "the path of a certificate chain in PEM", text);
    let key = table.required("key", "the path of the private key in PEM", text);
    let client_ca = table.optional("client_ca", text).map(|path| folder.join(path));
    let settings = Some(())
        .and_then(|()| Some(ServerSettings { cert: folder.join(cert?), key: folder.join(key?), client_ca }));
    table.finish(&["cert", "key", "client_ca"]);
    settings
}

pub(super) fn read_client_tls(table: Table<'_>) -> ClientSettings {
    let path = |key: &str| table.optional(key, text).map(|path| table.reader.folder.join(path));
    let settings = ClientSettings {
        ca: path("ca"),
        cert: path("cert"),
        key: path("key"),
        server_name: table.optional("server_name", text),
    };
    if settings.cert.is_some() != settings.key.is_some() {
        table.fault("cert", "needs `key` beside it, and `key` needs `cert`", "both or neither");
    }
    table.finish(&["ca", "cert", "key", "server_name"]);
    settings
}
