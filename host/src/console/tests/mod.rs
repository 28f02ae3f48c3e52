//! The console as its clients see it, over a store in a folder of its own.

mod plugins;
mod reading;
mod rights;

use super::*;
use crate::batch::{IdentityKeys, TenantId};
use crate::streams::StoreSettings;
use crate::telemetry::Secret;
use crate::tenants::{Credential, Names, Proof, Rights, Ticket, Who, sign};
use axum::body::to_bytes;
use axum::http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;

const TOKENS_HEADER: &str = "sha256,tenant,projects,speaks_for,rights";
const TICKET_KEY: &str = "the key of the tickets, which is long enough";

/// The tokens of the fixture, by what they may do; the token is the name.
fn credentials() -> Vec<Credential> {
    let acme = |projects| Who::Tenant { tenant: TenantId::new("acme").unwrap(), projects };
    let shop = || Names::Some(vec!["shop".into()]);
    let (send, read, admin) = (
        Rights { send: true, ..Rights::default() },
        Rights { read: true, ..Rights::default() },
        Rights { admin: true, ..Rights::default() },
    );
    let lines = [
        ("acme-reads-all", acme(Names::All), read),
        ("acme-reads-shop", acme(shop()), read),
        ("acme-sends", acme(Names::All), send),
        ("agent-sends", Who::SpeaksFor { tenants: Names::All }, send),
        ("platform-reads", Who::SpeaksFor { tenants: Names::All }, read),
        ("administrator", Who::Nobody, admin),
    ];
    let credential = |(token, who, rights): (&str, Who, Rights)| Credential {
        proof: Proof::Token(Sha256::digest(token.as_bytes()).into()),
        who,
        rights,
    };
    let certificate = Credential { proof: Proof::Certificate([9; 32]), who: Who::Nobody, rights: admin };
    lines.into_iter().map(credential).chain([certificate]).collect()
}

struct World {
    console: Console,
    settings: Settings,
    router: Router,
    stop: CancellationToken,
    not_ready: Arc<std::sync::Mutex<Vec<String>>>,
    tenants: Arc<Tenants>,
    streams: Arc<Streams>,
    folder: tempfile::TempDir,
}

#[derive(Clone, Copy, Default)]
struct Shape {
    is_open: bool,
    is_loopback_admin: bool,
    is_public: bool,
    is_without_key: bool,
    is_without_streams: bool,
}

async fn world(shape: Shape) -> World {
    let metrics = Metrics::new();
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.csv");
    let sha256: String = Sha256::digest("from-a-file").iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(&tokens, format!("{TOKENS_HEADER}\n{sha256},acme,shop,,read\n")).unwrap();
    let settings = crate::tenants::Settings {
        attributes: IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() },
        stamp: true,
        credentials: credentials(),
        token_files: vec![tokens],
        ticket_key: (!shape.is_without_key).then(|| Secret::new(TICKET_KEY)),
        is_open: shape.is_open,
        room_bytes: 1 << 20,
        quotas: crate::tenants::QuotaSettings::default(),
    };
    let tenants = Tenants::open(settings, metrics.clone()).unwrap();
    let streams = streams(&folder, &metrics);
    let not_ready = Arc::new(std::sync::Mutex::new(Vec::new()));
    let stop = CancellationToken::new();
    let console = Console {
        tenants: tenants.clone(),
        streams: (!shape.is_without_streams).then(|| streams.clone()),
        metrics,
        ledger: Arc::new(|| json!([{ "tenant": "acme", "unaccounted": 0 }])),
        plugins: Arc::new(|| json!([{ "name": "redact", "state": "active" }])),
        swap: Arc::new(|PluginWish { name, act }| {
            let end = match act {
                _ if name == "none" => PluginEnd::Unknown,
                _ if name != "redact" => PluginEnd::Refused("loading: it is broken".into()),
                PluginAct::Swap { is_forced: false } => PluginEnd::Done("promoted"),
                PluginAct::Swap { is_forced: true } => PluginEnd::OnTrial,
                PluginAct::End => PluginEnd::Done("ended"),
            };
            Box::pin(async move { PluginAnswer { end, plugin: json!({ "name": name }) } })
        }),
        usage: Arc::new(|| json!([{ "plugin": "redact", "tenants": [] }])),
        alerts: Arc::new(|| json!([{ "tenant": "acme", "title": "it burns" }])),
        letters: None,
        recordings: None,
        not_ready: {
            let list = not_ready.clone();
            Arc::new(move || list.lock().unwrap().clone())
        },
        open_guards: Arc::new(Vec::new),
        stop: stop.clone(),
    };
    let settings = Settings {
        listen: if shape.is_public { "0.0.0.0:4380" } else { "127.0.0.1:4380" }.parse().unwrap(),
        tls: None,
        origins: vec!["https://panel.example".into()],
        is_loopback_admin: shape.is_loopback_admin,
    };
    World {
        router: router(&settings, console.clone()),
        console,
        settings,
        stop,
        not_ready,
        tenants,
        streams,
        folder,
    }
}

/// A request: `GET /path`, headers one per line as `name: value`; the body after an empty line.
fn request(text: &str) -> Request {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines().map(str::trim);
    let (method, uri) = lines.next().unwrap().split_once(' ').unwrap();
    let mut builder = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(uri);
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        builder = builder.header(name, value);
    }
    builder.body(Body::from(body.to_owned())).unwrap()
}

impl World {
    async fn open(&self, text: &str) -> Response {
        self.router.clone().call(request(text)).await.unwrap()
    }

    async fn ask(&self, text: &str) -> (StatusCode, HeaderMap, String) {
        let (head, body) = self.open(text).await.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The status; of a tail the body is not awaited.
    async fn status(&self, token: &str, path: &str) -> u16 {
        let authorization =
            if token.is_empty() { String::new() } else { format!("\nauthorization: Bearer {token}") };
        self.open(&format!("GET {path}\nhost: collector.example{authorization}")).await.status().as_u16()
    }
}

fn ticket(tenant: &str, projects: &[&str], expires: u64) -> String {
    let projects = projects.iter().map(|p| (*p).to_owned()).collect();
    sign(&Secret::new(TICKET_KEY), &Ticket { tenant: tenant.into(), projects, expires })
}

fn in_a_minute() -> u64 {
    access::now_unix() + 60
}

fn streams(folder: &tempfile::TempDir, metrics: &Metrics) -> Arc<Streams> {
    let store = StoreSettings::Embedded { folder: folder.path().join("streams") };
    let settings = crate::streams::Settings { store, retention: Duration::from_secs(7 * 86_400) };
    Streams::open(settings, metrics.clone()).unwrap()
}
