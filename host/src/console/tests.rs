//! The console as its clients see it: who is answered what.

use super::*;
use crate::batch::{Entry, IdentityKeys, ProjectId, Signal, Stream, TenantId};
use crate::streams::{StoreSettings, Write};
use crate::telemetry::Secret;
use crate::tenants::{Credential, Names, Proof, Rights, Ticket, Who, sign};
use axum::body::to_bytes;
use axum::http::{HeaderMap, Method, StatusCode};
use expect_test::expect;
use http_body_util::BodyExt;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
        not_ready: {
            let list = not_ready.clone();
            Arc::new(move || list.lock().unwrap().clone())
        },
        stop: stop.clone(),
    };
    let settings = Settings {
        listen: if shape.is_public { "0.0.0.0:4380" } else { "127.0.0.1:4380" }.parse().unwrap(),
        tls: None,
        origins: vec!["https://panel.example".into()],
        is_loopback_admin: shape.is_loopback_admin,
    };
    World { router: router(&settings, console), stop, not_ready, tenants, streams, folder }
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

#[tokio::test]
async fn every_route_asks_for_its_right() {
    let world = world(Shape::default()).await;
    let tokens = [
        "",
        "wrong",
        "acme-reads-all",
        "acme-reads-shop",
        "acme-sends",
        "agent-sends",
        "platform-reads",
        "administrator",
    ];
    let paths = [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/plugins",
        "/v1/ledger",
        "/v1/streams",
        "/v1/tenants/acme/projects/shop/logs",
        "/v1/tenants/acme/projects/blog/logs",
        "/v1/tenants/globex/projects/shop/logs",
        "/v1/tenants/acme/projects/shop/tail",
        "/v1/tenants/globex/projects/shop/tail",
        "/v1/nothing",
    ];
    let mut matrix = String::new();
    for path in paths {
        matrix += path;
        for token in tokens {
            matrix += &format!(" {}", world.status(token, path).await);
        }
        matrix += "\n";
    }
    expect![[r#"
        / 200 200 200 200 200 200 200 200
        /healthz 200 200 200 200 200 200 200 200
        /readyz 200 200 200 200 200 200 200 200
        /metrics 401 401 403 403 403 403 403 200
        /v1/plugins 401 401 403 403 403 403 403 200
        /v1/ledger 401 401 403 403 403 403 403 200
        /v1/streams 401 401 200 200 403 403 200 403
        /v1/tenants/acme/projects/shop/logs 401 401 200 200 404 404 200 404
        /v1/tenants/acme/projects/blog/logs 401 401 200 404 404 404 200 404
        /v1/tenants/globex/projects/shop/logs 401 401 404 404 404 404 200 404
        /v1/tenants/acme/projects/shop/tail 401 401 200 200 404 404 200 404
        /v1/tenants/globex/projects/shop/tail 401 401 404 404 404 404 200 404
        /v1/nothing 404 404 404 404 404 404 404 404
    "#]]
    .assert_eq(&matrix);
}

#[tokio::test]
async fn not_yours_and_not_there_get_the_same_answer() {
    let world = world(Shape::default()).await;
    let mut answers = Vec::new();
    let long = "x".repeat(129);
    for stream in [
        "globex/projects/shop",
        "nobody/projects/nothing",
        "_none/projects/shop",
        "acme/projects/a%00b",
        "%ff/projects/shop",
        &format!("{long}/projects/shop"),
        "acme/projects/blog",
    ] {
        for end in ["logs", "tail", "logs?limit=none", "tail?from=1", "logs?cursor=bad"] {
            let asked = format!("GET /v1/tenants/{stream}/{end}\nauthorization: Bearer acme-reads-shop");
            let (status, mut headers, body) = world.ask(&asked).await;
            headers.remove("content-length");
            answers.push((status, format!("{headers:?}"), body));
        }
    }
    assert_eq!(answers[0].0, StatusCode::NOT_FOUND);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}

#[tokio::test]
async fn an_answer_without_credentials_says_how_to_send_them() {
    let world = world(Shape::default()).await;
    for head in
        ["", "\nauthorization: Bearer wrong", "\nauthorization: Basic YWNtZQ==", "\nauthorization: Bearer"]
    {
        let (status, headers, body) = world.ask(&format!("GET /v1/streams{head}")).await;
        assert_eq!((status.as_u16(), headers["www-authenticate"].to_str().unwrap()), (401, "Bearer"));
        assert_eq!(
            body,
            r#"{"error":"no valid credential: send `authorization: Bearer TOKEN`, or a ticket as `?ticket=`"}"#
        );
    }
}

#[tokio::test]
async fn a_client_certificate_is_its_credential_unless_a_header_says_otherwise() {
    let world = world(Shape::default()).await;
    let cases = [([9; 32], "", 200), ([8; 32], "", 401), ([9; 32], "\nauthorization: Bearer wrong", 401)];
    for (fingerprint, head, status) in cases {
        let mut asked = request(&format!("GET /metrics{head}"));
        asked.extensions_mut().insert(crate::net::serve::PeerCertificate(fingerprint));
        assert_eq!(world.router.clone().call(asked).await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn a_ticket_stands_in_the_query_and_opens_what_it_names() {
    let world = world(Shape::default()).await;
    let cases = [
        (ticket("acme", &["shop"], in_a_minute()), "/v1/tenants/acme/projects/shop/logs", 200),
        (ticket("acme", &["*"], in_a_minute()), "/v1/tenants/acme/projects/blog/logs", 200),
        (ticket("acme", &["shop"], in_a_minute()), "/v1/streams", 200),
        (ticket("acme", &["shop"], in_a_minute()), "/v1/tenants/acme/projects/blog/logs", 404),
        (ticket("globex", &["shop"], in_a_minute()), "/v1/tenants/acme/projects/shop/tail", 404),
        (ticket("acme", &["shop"], access::now_unix()), "/v1/tenants/acme/projects/shop/tail", 401),
        (ticket("acme", &["shop"], in_a_minute() + 3600), "/v1/tenants/acme/projects/shop/tail", 401),
        ("acme-reads-all".into(), "/v1/tenants/acme/projects/shop/tail", 401),
        (ticket("acme", &["*"], in_a_minute()), "/metrics", 401),
        (ticket("acme", &["*"], in_a_minute()), "/v1/ledger", 401),
    ];
    for (text, path, status) in cases {
        assert_eq!(world.open(&format!("GET {path}?ticket={text}")).await.status(), status, "{path}");
    }
    let good = ticket("acme", &["shop"], in_a_minute());
    let asked = format!("GET /v1/streams?ticket={good}\nauthorization: Bearer wrong");
    assert_eq!(world.open(&asked).await.status(), 401, "a header decides alone");
    assert_eq!(
        world.open("GET /v1/streams?token=acme-reads-all").await.status(),
        401,
        "tokens never stand there"
    );
}

#[tokio::test]
async fn tickets_are_made_for_what_the_credential_may_read() {
    let world = world(Shape::default()).await;
    let cases = [
        ("acme-reads-shop", r#"{"tenant":"acme","projects":["shop"]}"#, 200),
        ("acme-reads-shop", r#"{"tenant":"acme","projects":["shop"],"seconds":3600}"#, 200),
        ("acme-reads-all", r#"{"tenant":"acme","projects":["*"],"seconds":1}"#, 200),
        ("platform-reads", r#"{"tenant":"globex","projects":["*"]}"#, 200),
        ("administrator", r#"{"tenant":"globex","projects":["shop","blog"]}"#, 200),
        ("acme-reads-shop", r#"{"tenant":"acme","projects":["*"]}"#, 404),
        ("acme-reads-shop", r#"{"tenant":"acme","projects":["shop","blog"]}"#, 404),
        ("acme-reads-all", r#"{"tenant":"globex","projects":["shop"]}"#, 404),
        ("acme-reads-all", r#"{"tenant":"globex","projects":["*"]}"#, 404),
        ("acme-sends", r#"{"tenant":"acme","projects":["shop"]}"#, 404),
        ("agent-sends", r#"{"tenant":"acme","projects":["*"]}"#, 404),
        ("wrong", r#"{"tenant":"acme","projects":["shop"]}"#, 401),
        ("acme-reads-all", r#"{"tenant":"acme","projects":["shop"],"seconds":3601}"#, 400),
        ("acme-reads-all", r#"{"tenant":"acme","projects":["shop"],"seconds":0}"#, 400),
        ("acme-reads-all", r#"{"tenant":"acme","projects":[]}"#, 400),
        ("acme-reads-all", r#"{"tenant":"acme","projects":["shop","*"]}"#, 400),
        ("acme-reads-all", r#"{"tenant":"_none","projects":["shop"]}"#, 400),
        ("acme-reads-all", r#"{"tenant":"acme"}"#, 400),
        ("acme-reads-all", r#"{"tenant":"acme","projects":["shop"],"rights":["admin"]}"#, 400),
        ("acme-reads-all", "acme", 400),
        ("acme-reads-all", "", 400),
    ];
    for (token, body, expected) in cases {
        let head = format!("authorization: Bearer {token}\ncontent-type: application/json");
        let (status, _, answer) = world.ask(&format!("POST /v1/tickets\n{head}\n\n{body}")).await;
        assert_eq!(status, expected, "{token} {body}: {answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        if expected == 200 {
            let text = answer["ticket"].as_str().unwrap();
            assert_eq!(world.open(&format!("GET /v1/streams?ticket={text}")).await.status(), 200);
            assert!(answer["expires"].as_u64().unwrap() <= access::now_unix() + 3600);
        } else {
            assert!(answer["error"].is_string(), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_ticket_makes_no_ticket_and_a_form_makes_none() {
    let world = world(Shape::default()).await;
    let body = r#"{"tenant":"acme","projects":["shop"]}"#;
    let good = ticket("acme", &["shop"], in_a_minute());
    let asked = format!("POST /v1/tickets?ticket={good}\ncontent-type: application/json\n\n{body}");
    assert_eq!(world.open(&asked).await.status(), 401);
    let asked =
        format!("POST /v1/tickets\nauthorization: Bearer acme-reads-all\ncontent-type: text/plain\n\n{body}");
    assert_eq!(world.open(&asked).await.status(), 400);
    let large = "x".repeat(BODY_BYTES_MAX + 1);
    let head = "authorization: Bearer acme-reads-all\ncontent-type: application/json";
    assert_eq!(world.open(&format!("POST /v1/tickets\n{head}\n\n{large}")).await.status(), 400);
}

#[tokio::test]
async fn what_is_not_configured_is_named() {
    let world = world(Shape { is_without_key: true, is_without_streams: true, ..Shape::default() }).await;
    let head = "authorization: Bearer acme-reads-all\ncontent-type: application/json";
    let body = r#"{"tenant":"acme","projects":["shop"]}"#;
    let (status, _, answer) = world.ask(&format!("POST /v1/tickets\n{head}\n\n{body}")).await;
    assert_eq!(status, 501);
    assert!(answer.contains("identity.tickets.key"), "{answer}");
    let (status, _, answer) = world.ask(&format!("GET /v1/streams\n{head}")).await;
    assert_eq!(status, 501);
    assert!(answer.contains("a sink of type `streams`"), "{answer}");
}

#[tokio::test]
async fn a_loopback_listener_trusts_who_addresses_it_as_such() {
    let open = world(Shape { is_open: true, is_loopback_admin: true, ..Shape::default() }).await;
    let guarded = world(Shape { is_loopback_admin: true, ..Shape::default() }).await;
    let cases = [
        ("host: 127.0.0.1:4380", true),
        ("host: localhost", true),
        ("host: LOCALHOST:4380", true),
        ("host: [::1]:4380", true),
        ("host: [::1]", true),
        ("host: rebound.example:4380", false),
        ("host: localhost.example", false),
        ("x-nothing: 1", false),
        ("host: 127.0.0.1:4380\nx-forwarded-for: 192.0.2.1", false),
        ("host: 127.0.0.1:4380\nforwarded: for=192.0.2.1", false),
    ];
    for (head, is_trusted) in cases {
        for path in ["/metrics", "/v1/plugins", "/v1/ledger"] {
            let expected = if is_trusted { (200, 200) } else { (403, 401) };
            let asked = format!("GET {path}\n{head}");
            let answers =
                (open.open(&asked).await.status().as_u16(), guarded.open(&asked).await.status().as_u16());
            assert_eq!(answers, expected, "{asked}");
        }
        let expected = if is_trusted { (200, 401) } else { (403, 401) };
        let asked = format!("GET /v1/streams\n{head}");
        let answers =
            (open.open(&asked).await.status().as_u16(), guarded.open(&asked).await.status().as_u16());
        assert_eq!(answers, expected, "{asked}");
    }
    let asked = "GET /metrics\nhost: panel.example\nauthorization: Bearer administrator";
    assert_eq!(guarded.open(asked).await.status(), 200, "a credential is good under every name");
    let http2 = "GET http://localhost:4380/metrics";
    assert_eq!(guarded.open(http2).await.status(), 200, "HTTP/2 has the name in the address");
}

#[tokio::test]
async fn a_listener_that_is_not_on_loopback_always_asks() {
    let world = world(Shape { is_public: true, is_loopback_admin: true, ..Shape::default() }).await;
    for path in ["/metrics", "/v1/plugins", "/v1/ledger"] {
        assert_eq!(world.open(&format!("GET {path}\nhost: localhost")).await.status(), 401);
        assert_eq!(world.status("administrator", path).await, 200);
    }
}

#[tokio::test]
async fn only_pages_of_configured_origins_may_read_streams() {
    let world = world(Shape::default()).await;
    let allowed = |headers: &HeaderMap| {
        headers.get("access-control-allow-origin").map(|origin| origin.to_str().unwrap().to_owned())
    };
    let cases = [
        ("https://panel.example", Some("https://panel.example")),
        ("https://panel.example.evil", None),
        ("http://panel.example", None),
        ("null", None),
    ];
    for (origin, expected) in cases {
        let head = format!("origin: {origin}\nauthorization: Bearer acme-reads-all");
        let (status, headers, _) = world.ask(&format!("GET /v1/streams\n{head}")).await;
        assert_eq!((status.as_u16(), allowed(&headers).as_deref()), (200, expected), "{origin}");
        assert_eq!(headers["vary"], "origin");
        let head = format!("origin: {origin}\naccess-control-request-method: POST");
        let (status, headers, _) = world.ask(&format!("OPTIONS /v1/tickets\n{head}")).await;
        assert_eq!((status.as_u16(), allowed(&headers).as_deref()), (204, expected), "{origin}");
        assert_eq!(headers.contains_key("access-control-allow-headers"), expected.is_some());
    }
    let head = "origin: https://panel.example\nauthorization: Bearer administrator";
    for path in ["/metrics", "/v1/ledger", "/v1/plugins"] {
        let (status, headers, _) = world.ask(&format!("GET {path}\n{head}")).await;
        assert_eq!((status.as_u16(), allowed(&headers)), (200, None), "{path} is for no page");
    }
    let (_, headers, _) = world.ask("GET /v1/streams\norigin: https://panel.example").await;
    assert!(allowed(&headers).is_some(), "the page may read why it was refused");
}

#[tokio::test]
async fn nothing_is_stored_on_the_way() {
    let world = world(Shape::default()).await;
    for path in ["/", "/page.js", "/healthz", "/v1/streams", "/v1/nothing", "/metrics"] {
        let (_, headers, _) = world.ask(&format!("GET {path}")).await;
        assert_eq!(headers["cache-control"], "no-store", "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
    }
}

#[tokio::test]
async fn wrong_methods_and_paths_say_what_is_right() {
    let world = world(Shape::default()).await;
    let (status, headers, body) = world.ask("GET /v1/tickets").await;
    assert_eq!((status.as_u16(), headers["allow"].to_str().unwrap()), (405, "POST"));
    assert_eq!(body, r#"{"error":"another method is right here: POST"}"#);
    let (status, headers, _) = world.ask("DELETE /v1/tenants/acme/projects/shop/logs").await;
    assert_eq!((status.as_u16(), headers["allow"].to_str().unwrap()), (405, "GET"));
    let (status, _, body) = world.ask("GET /v2").await;
    assert!(status == 404 && body.starts_with(r#"{"error":"nothing here"#), "{body}");
}

#[tokio::test]
async fn readiness_lists_what_is_missing() {
    let world = world(Shape::default()).await;
    let (status, _, body) = world.ask("GET /readyz").await;
    assert_eq!((status.as_u16(), body.as_str()), (200, r#"{"not_ready":[],"ready":true}"#));
    world.not_ready.lock().unwrap().push("plugin `redact` is not loaded".into());
    let (status, _, body) = world.ask("GET /readyz").await;
    assert_eq!(status, 503);
    assert_eq!(body, r#"{"not_ready":["plugin `redact` is not loaded"],"ready":false}"#);
    world.not_ready.lock().unwrap().clear();
    world.stop.cancel();
    assert_eq!(world.ask("GET /readyz").await.2, r#"{"not_ready":["stopping"],"ready":false}"#);
    assert_eq!(world.ask("GET /healthz").await.0, 200);
}

#[tokio::test]
async fn metrics_are_openmetrics_and_plugins_and_ledger_are_json() {
    let world = world(Shape { is_loopback_admin: true, ..Shape::default() }).await;
    let (_, headers, text) = world.ask("GET /metrics\nhost: localhost").await;
    assert_eq!(headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.contains("trommel_admit_room_used_bytes 0") && text.ends_with("# EOF\n"), "{text}");
    let (_, _, plugins) = world.ask("GET /v1/plugins\nhost: localhost").await;
    assert_eq!(plugins, r#"[{"name":"redact","state":"active"}]"#);
    let (_, _, ledger) = world.ask("GET /v1/ledger\nhost: localhost").await;
    assert_eq!(ledger, r#"[{"tenant":"acme","unaccounted":0}]"#);
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let world = world(Shape::default()).await;
    for path in ["/", "/page.css", "/page.js"] {
        let (status, _, text) = world.ask(&format!("GET {path}")).await;
        assert_eq!(status, 200);
        assert!(
            !text.contains("http://") && !text.contains("https://") && !text.contains("innerHTML"),
            "{path}"
        );
    }
    let (_, headers, _) = world.ask("GET /").await;
    assert!(headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
}

/// What was logged while the requests were answered.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_token_and_no_ticket_is_in_a_log_line_or_an_answer() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = world(Shape::default()).await;
    // A callsite that another test reached first, in a thread where nobody listens, would stay silent here.
    world.ask("GET /healthz").await;
    tracing::callsite::rebuild_interest_cache();
    let (good, stale) = (ticket("acme", &["shop"], in_a_minute()), ticket("acme", &["shop"], 1));
    let paths = [
        "/v1/streams",
        "/v1/tenants/acme/projects/shop/logs",
        "/v1/tenants/acme/projects/shop/tail",
        "/v1/tenants/globex/projects/shop/logs",
        "/v1/nothing",
        "/metrics",
    ];
    let secrets = [good.as_str(), stale.as_str(), "acme-reads-all", "a-wrong-secret"];
    let mut answers = String::new();
    for path in paths {
        for secret in secrets {
            for asked in [
                format!("GET {path}?ticket={secret}"),
                format!("GET {path}?token={secret}&limit={secret}&from={secret}&cursor={secret}"),
                format!("GET {path}\nauthorization: Bearer {secret}"),
                format!("GET {path}?{secret}\nauthorization: Bearer acme-reads-shop"),
                format!("GET {path}?after={secret}&cursor={secret}\nauthorization: Bearer acme-reads-shop"),
                format!("GET {path}\nauthorization: {secret}"),
                format!("POST {path}?ticket={secret}\ncontent-type: application/json\n\n{secret}"),
            ] {
                let (head, mut body) = world.open(&asked).await.into_parts();
                answers += &format!("{head:?}");
                while let Ok(Some(Ok(frame))) =
                    tokio::time::timeout(Duration::from_millis(5), body.frame()).await
                {
                    answers += &String::from_utf8_lossy(&frame.into_data().unwrap_or_default());
                }
            }
        }
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("console answered"), "the log was heard: {log}");
    for secret in secrets {
        assert!(!log.contains(secret), "in the log: {secret}");
        assert!(!answers.contains(secret), "in an answer: {secret}");
    }
}

fn streams(folder: &tempfile::TempDir, metrics: &Metrics) -> Arc<Streams> {
    let store = StoreSettings::Embedded { folder: folder.path().join("streams") };
    let settings = crate::streams::Settings { store, retention: Duration::from_secs(7 * 86_400) };
    Streams::open(settings, metrics.clone()).unwrap()
}

/// The events of a tail until one is named `last`.
async fn events(body: &mut Body, last: &str) -> String {
    let mut text = String::new();
    while !text.contains(&format!("event: {last}\n")) {
        let frame =
            tokio::time::timeout(Duration::from_secs(60), body.frame()).await.expect("an event in time");
        text += std::str::from_utf8(&frame.expect("more events").unwrap().into_data().unwrap()).unwrap();
    }
    text
}

async fn tail(world: &World, text: &str) -> Body {
    let response = world.open(text).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    response.into_body()
}

#[tokio::test]
async fn a_tail_ends_when_the_process_stops() {
    let world = world(Shape::default()).await;
    let asked = "GET /v1/tenants/acme/projects/shop/tail\nauthorization: Bearer acme-reads-all";
    let mut body = tail(&world, asked).await;
    world.stop.cancel();
    let text = events(&mut body, "end").await;
    assert!(text.starts_with("retry: "), "{text}");
    assert!(text.ends_with("event: end\ndata: {\"reason\":\"stopping\"}\n\n"), "{text}");
    assert!(body.frame().await.is_none(), "nothing comes after the end");
}

#[tokio::test]
async fn a_tail_ends_with_its_credential() {
    let world = world(Shape::default()).await;
    let asked = "GET /v1/tenants/acme/projects/shop/tail\nauthorization: Bearer from-a-file";
    let mut body = tail(&world, asked).await;
    std::fs::write(world.folder.path().join("tokens.csv"), TOKENS_HEADER).unwrap();
    world.tenants.reload_files(SystemTime::now());
    tokio::time::pause();
    let text = events(&mut body, "end").await;
    let end = "event: end\ndata: {\"reason\":\"the credential is no longer valid\"}\n\n";
    assert!(text.ends_with(end), "{text}");
    assert!(body.frame().await.is_none());
    assert_eq!(world.open(asked).await.status(), 401);
}

#[tokio::test]
async fn a_silent_tail_shows_every_quarter_of_a_minute_that_it_lives() {
    let world = world(Shape::default()).await;
    let asked = "GET /v1/tenants/acme/projects/shop/tail\nauthorization: Bearer acme-reads-shop";
    let mut body = tail(&world, asked).await;
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    for round in 1..=4 {
        let text = events(&mut body, "alive").await;
        assert!(text.contains("\nid: ") && text.contains("\ndata: {\"position\":\""), "{text}");
        assert!(start.elapsed() <= Duration::from_secs(16 * round), "{:?}", start.elapsed());
    }
}

/// Commits lines of `acme/shop` as the journal would, stored and shown.
async fn commit(world: &World, first: u64, lines: &[&str]) {
    let log_records = lines.iter().map(|line| LogRecord {
        body: Some(AnyValue { value: Some(any_value::Value::StringValue((*line).to_owned())) }),
        ..LogRecord::default()
    });
    let scope_logs = vec![ScopeLogs { log_records: log_records.collect(), ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    let entry = Arc::new(Entry {
        stream: Stream { tenant: TenantId::new("acme").unwrap(), project: ProjectId::new("shop").unwrap() },
        signal: Signal::Logs,
        first,
        records: u32::try_from(lines.len()).unwrap(),
        time_ms: u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap(),
        node: [1, 2, 3, 4],
        bytes: ExportLogsServiceRequest { resource_logs }.encode_to_vec().into(),
    });
    world.streams.publish(&entry);
    world.streams.write(vec![Write { entry, is_resend: false }]).await.unwrap();
}

fn bodies(lines: impl Iterator<Item = Value>) -> Vec<String> {
    lines.map(|record| record["body"].as_str().unwrap().to_owned()).collect()
}

const LOGS: &str = "/v1/tenants/acme/projects/shop/logs";
const TAIL: &str = "/v1/tenants/acme/projects/shop/tail";
const READER: &str = "authorization: Bearer acme-reads-shop";

#[tokio::test]
async fn the_history_comes_in_pages_that_join() {
    let world = world(Shape::default()).await;
    commit(&world, 0, &["one", "two \u{1b}[31m", "three", "four", "five"]).await;
    let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (status, headers, text) =
            world.ask(&format!("GET {LOGS}?limit=2&cursor={cursor}\n{READER}")).await;
        assert_eq!((status.as_u16(), headers["content-type"].to_str().unwrap()), (200, "application/json"));
        let page: Value = serde_json::from_str(&text).unwrap();
        let records = page["records"].as_array().unwrap().clone();
        assert!(records.len() <= 2 && records.iter().all(|record| record["id"].is_string()), "{page}");
        seen.extend(bodies(records.into_iter()));
        pages += 1;
        match page["next"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["one", "two \u{1b}[31m", "three", "four", "five"]);
    assert!(pages >= 3);
}

#[tokio::test]
async fn lines_go_on_from_the_id_of_the_last() {
    let world = world(Shape::default()).await;
    commit(&world, 0, &["one", "two", "three"]).await;
    let lines = "accept: application/x-ndjson";
    let (_, headers, text) = world.ask(&format!("GET {LOGS}?limit=2\n{READER}\n{lines}")).await;
    assert_eq!(headers["content-type"], "application/x-ndjson");
    assert!(text.ends_with('\n'));
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let id = records[1]["id"].as_str().unwrap().to_owned();
    assert_eq!(bodies(records.into_iter()), ["one", "two"]);
    let (_, _, text) = world.ask(&format!("GET {LOGS}?cursor={id}\n{READER}\n{lines}")).await;
    assert_eq!(bodies(text.lines().map(|line| serde_json::from_str(line).unwrap())), ["three"]);
    let (status, _, text) = world.ask(&format!("GET {LOGS}?from=1&to=2\n{READER}\n{lines}")).await;
    assert_eq!((status.as_u16(), text.as_str()), (200, ""), "before the first record");
    let (_, _, text) = world.ask(&format!("GET {LOGS}?q=thr\n{READER}\n{lines}")).await;
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[tokio::test]
async fn faults_of_a_readers_query_are_answered_with_what_is_right() {
    let world = world(Shape::default()).await;
    let cases = [
        (format!("{LOGS}?limit=0"), "limit must be a number from 1 to 10000"),
        (
            format!("{LOGS}?from=today"),
            "from must be milliseconds since 1970, or a time like 2026-01-31T12:00:00Z",
        ),
        (format!("{LOGS}?since=1"), "unknown parameter: from, to, limit, cursor, q, ticket are right"),
        (format!("{LOGS}?cursor=none"), "bad position: "),
        (format!("{TAIL}?after=none"), "bad position: "),
        (format!("{TAIL}?cursor=none"), "unknown parameter: after, ticket are right"),
    ];
    for (path, expected) in cases {
        let (status, _, text) = world.ask(&format!("GET {path}\n{READER}")).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(status, 400, "{path}");
        assert!(answer["error"].as_str().unwrap().starts_with(expected), "{path}: {answer}");
    }
}

#[tokio::test]
async fn the_list_of_streams_has_what_the_credential_may_read() {
    let world = world(Shape::default()).await;
    commit(&world, 0, &["one"]).await;
    let known = r#"[{"project":"shop","tenant":"acme"}]"#;
    for (token, expected) in
        [("acme-reads-shop", known), ("acme-reads-all", known), ("platform-reads", known)]
    {
        let (_, _, text) = world.ask(&format!("GET /v1/streams\nauthorization: Bearer {token}")).await;
        assert_eq!(text, expected, "{token}");
    }
    for (tenant, projects) in [("globex", "*"), ("acme", "blog")] {
        let text = ticket(tenant, &[projects], in_a_minute());
        assert_eq!(world.ask(&format!("GET /v1/streams?ticket={text}")).await.2, "[]");
    }
}

/// The `data` of the events of this name.
fn data(text: &str, name: &str) -> Vec<Value> {
    let events = text.split("\n\n").filter(|event| event.contains(&format!("event: {name}\n")));
    events.map(|event| serde_json::from_str(event.split_once("data: ").unwrap().1).unwrap()).collect()
}

fn last_id(text: &str) -> String {
    text.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().unwrap().to_owned()
}

/// The events of a tail until its `count`th line.
async fn log_events(body: &mut Body, count: usize) -> String {
    let mut text = String::new();
    while data(&text, "log").len() < count {
        text += &events(body, "log").await;
    }
    text
}

#[tokio::test]
async fn a_viewer_resumes_where_it_was_by_header_or_by_address() {
    let world = world(Shape::default()).await;
    let mut body = tail(&world, &format!("GET {TAIL}\n{READER}")).await;
    commit(&world, 0, &["one", "two\nlines"]).await;
    let text = log_events(&mut body, 2).await;
    assert_eq!(bodies(data(&text, "log").into_iter()), ["one", "two\nlines"]);
    drop(body);
    commit(&world, 2, &["three", "four"]).await;
    let id = last_id(&text);
    let good = ticket("acme", &["shop"], in_a_minute());
    for asked in [
        format!("GET {TAIL}\n{READER}\nlast-event-id: {id}"),
        format!("GET {TAIL}?after={id}\n{READER}"),
        format!("GET {TAIL}?ticket={good}&after={id}"),
        format!("GET {TAIL}?ticket={good}&after=stale\nlast-event-id: {id}"),
    ] {
        let mut body = tail(&world, &asked).await;
        let text = log_events(&mut body, 2).await;
        assert_eq!(bodies(data(&text, "log").into_iter()), ["three", "four"], "{asked}");
    }
}

#[tokio::test]
async fn over_a_connection_a_tail_comes_line_by_line_and_ends_with_the_process() {
    let world = world(Shape::default()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let open = prometheus_client::metrics::gauge::Gauge::default();
    let serving = crate::net::serve::serve(
        listener,
        None,
        crate::net::serve::Limits::default(),
        handler(world.router.clone()),
        world.stop.clone(),
        open,
    );
    let viewing = async {
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let asked = format!("GET {TAIL} HTTP/1.1\r\nhost: {address}\r\n{READER}\r\n\r\n");
        socket.write_all(asked.as_bytes()).await.unwrap();
        let mut text = String::new();
        let mut read = async |until: &str| {
            let mut buffer = [0; 4096];
            while !text.contains(until) {
                let count = socket.read(&mut buffer).await.unwrap();
                assert!(count > 0, "closed before {until}: {text}");
                text += std::str::from_utf8(&buffer[..count]).unwrap();
            }
        };
        read("retry: ").await;
        commit(&world, 0, &["one"]).await;
        read("\"body\":\"one\"").await;
        commit(&world, 1, &["two"]).await;
        read("\"body\":\"two\"").await;
        world.stop.cancel();
        read("event: end\n").await;
    };
    let both = async { tokio::join!(serving, viewing) };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("both end");
}

#[tokio::test]
async fn a_viewer_that_reads_nothing_holds_up_nobody_and_is_told_what_it_missed() {
    let world = world(Shape::default()).await;
    let mut slow = tail(&world, &format!("GET {TAIL}\n{READER}")).await;
    let line = "x".repeat(100_000);
    // More than a ring keeps.
    for number in 0..60 {
        commit(&world, number, &[line.as_str()]).await;
    }
    let mut body = tail(&world, &format!("GET {TAIL}\n{READER}")).await;
    commit(&world, 60, &["the last"]).await;
    assert_eq!(bodies(data(&events(&mut body, "log").await, "log").into_iter()), ["the last"]);
    let text = events(&mut slow, "gap").await;
    let gap = data(&text, "gap").remove(0);
    assert_eq!(gap["reason"], "slow");
    assert!(gap["count"].as_u64().unwrap() > 0 && gap["from"].is_string() && gap["to"].is_string(), "{gap}");
}
