//! Who is answered what.

use super::*;
use expect_test::expect;
use http_body_util::BodyExt;
use serde_json::Value;

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
        "/v1/plugins/usage",
        "/v1/ledger",
        "/v1/alerts",
        "/v1/dead-letters",
        "/v1/dead-letters/1-52",
        "/v1/record",
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
        /v1/plugins/usage 401 401 403 403 403 403 403 200
        /v1/ledger 401 401 403 403 403 403 403 200
        /v1/alerts 401 401 403 403 403 403 403 200
        /v1/dead-letters 401 401 403 403 403 403 403 501
        /v1/dead-letters/1-52 401 401 403 403 403 403 403 501
        /v1/record 401 401 403 403 403 403 403 501
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
async fn dead_letters_are_sent_again_and_dropped_by_administrators_alone() {
    let world = world(Shape { is_loopback_admin: true, ..Shape::default() }).await;
    let json = "\ncontent-type: application/json\n\n";
    let cases = [
        ("\nhost: collector.example", "{\"all\":true}", 401),
        ("\nhost: collector.example\nauthorization: Bearer acme-reads-all", "{\"all\":true}", 403),
        ("\nhost: collector.example\nauthorization: Bearer acme-sends", "{\"ids\":[\"1-52\"]}", 403),
        ("\nhost: collector.example\nauthorization: Bearer administrator", "{\"ids\":[\"1-52\"]}", 501),
        ("\nhost: localhost", "{\"all\":true,\"sink\":\"a\",\"tenant\":\"b\"}", 501),
        ("\nhost: localhost", "{\"all\":true,\"after\":\"1-52\",\"until\":\"1-99\"}", 501),
        ("\nhost: localhost", "{}", 400),
        ("\nhost: localhost", "{\"all\":false}", 400),
        ("\nhost: localhost", "{\"all\":true,\"ids\":[\"1-52\"]}", 400),
        ("\nhost: localhost", "{\"ids\":[\"1-52\"],\"sink\":\"a\"}", 400),
        ("\nhost: localhost", "{\"ids\":[\"1\"]}", 400),
        ("\nhost: localhost", "{\"ids\":[],\"sinks\":\"a\"}", 400),
        ("\nhost: localhost", "{\"all\":true,\"sinks\":\"a\"}", 400),
    ];
    for path in ["/v1/dead-letters/replay", "/v1/dead-letters/drop"] {
        for (head, body, status) in cases {
            let (found, _, answer) = world.ask(&format!("POST {path}{head}{json}{body}")).await;
            assert_eq!(found, status, "{path} {head} {body}: {answer}");
        }
        let many = format!("{{\"ids\":[{}]}}", vec!["\"1-52\""; 1_001].join(","));
        assert_eq!(world.ask(&format!("POST {path}\nhost: localhost{json}{many}")).await.0, 400);
        // A form on another page can send this, and nobody would be asked.
        let form = format!("POST {path}\nhost: localhost\ncontent-type: text/plain\n\n{{\"all\":true}}");
        assert_eq!(world.ask(&form).await.0, 400);
        assert_eq!(world.ask(&format!("GET {path}\nhost: localhost")).await.0, 405);
    }
    for (query, status) in [
        ("limit=1001", 400),
        ("limit=0", 400),
        ("after=x", 400),
        ("sinks=a", 400),
        ("sink=a&tenant=b&after=1-2", 501),
    ] {
        assert_eq!(
            world.ask(&format!("GET /v1/dead-letters?{query}\nhost: localhost")).await.0,
            status,
            "{query}"
        );
    }
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
        for path in ["/metrics", "/v1/plugins", "/v1/ledger", "/v1/alerts"] {
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
    for path in ["/metrics", "/v1/plugins", "/v1/ledger", "/v1/alerts"] {
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
    for path in ["/metrics", "/v1/ledger", "/v1/plugins", "/v1/alerts"] {
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
    assert_eq!((status.as_u16(), body.as_str()), (200, r#"{"not_ready":[],"open_guards":[],"ready":true}"#));
    world.not_ready.lock().unwrap().push("plugin `redact` is not loaded".into());
    let (status, _, body) = world.ask("GET /readyz").await;
    assert_eq!(status, 503);
    assert_eq!(body, r#"{"not_ready":["plugin `redact` is not loaded"],"open_guards":[],"ready":false}"#);
    world.not_ready.lock().unwrap().clear();
    world.stop.cancel();
    assert_eq!(
        world.ask("GET /readyz").await.2,
        r#"{"not_ready":["stopping"],"open_guards":[],"ready":false}"#
    );
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
