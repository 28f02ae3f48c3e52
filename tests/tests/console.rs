//! What people see: health, metrics, history in lines, tickets.

use crate::identity::gateway;
use crate::world::{World, logs};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_answer() {
    let world = World::start(crate::deliver::LOCAL).await;
    for path in ["/healthz", "/readyz", "/metrics", "/v1/plugins", "/v1/ledger", "/v1/alerts", "/"] {
        let answer = world.http.get(world.console(path)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    world.send(None, logs(&[], &["one", "two"])).await.unwrap();
    world.history_of(None, "local", "default", 2).await;
    let metrics = world.metrics().await;
    assert!(metrics.ends_with("# EOF\n"), "OpenMetrics ends with its mark");
    assert!(metrics.contains("trommel_receive_requests_total{"), "{metrics}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_comes_as_lines_too() {
    let world = World::start(crate::deliver::LOCAL).await;
    world.send(None, logs(&[], &["one", "two\nlines"])).await.unwrap();
    world.history_of(None, "local", "default", 2).await;
    let page = |query: &str| {
        let url = world.console(&format!("/v1/tenants/local/projects/default/logs?{query}"));
        world.http.get(url).header("accept", "application/x-ndjson").send()
    };
    let bodies = |text: String| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["body"].clone()).collect()
    };
    let first = page("limit=1").await.unwrap();
    let next = first.headers()["trommel-next"].to_str().unwrap().to_owned();
    assert_eq!(bodies(first.text().await.unwrap()), ["one"]);
    let second = page(&format!("cursor={next}")).await.unwrap();
    assert_eq!(second.headers().get("trommel-next"), None, "the end is reached");
    assert_eq!(bodies(second.text().await.unwrap()), ["two\nlines"]);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_lets_a_browser_follow_its_own_project_and_nothing_else() {
    let yaml = gateway()
        .replace("identity:\n", "identity:\n  tickets: { key: \"0123456789abcdef0123456789abcdef\" }\n");
    let world = World::start(&yaml).await;
    let asked = json!({"tenant": "acme", "projects": ["shop"], "seconds": 60});
    let answer = world
        .http
        .post(world.console("/v1/tickets"))
        .bearer_auth("acme-token")
        .json(&asked)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let ticket = answer.json::<Value>().await.unwrap()["ticket"].as_str().unwrap().to_owned();
    world.send(Some("acme-token"), logs(&[("project.id", "shop")], &["x"])).await.unwrap();
    let get = |path: String| world.http.get(world.console(&path)).send();
    assert_eq!(
        get(format!("/v1/tenants/acme/projects/shop/logs?ticket={ticket}")).await.unwrap().status(),
        200
    );
    assert_eq!(
        get(format!("/v1/tenants/acme/projects/other/logs?ticket={ticket}")).await.unwrap().status(),
        404
    );
    assert_eq!(
        get(format!("/v1/tenants/acme/projects/shop/logs?ticket={}x", ticket)).await.unwrap().status(),
        401
    );
    // A token is no ticket: it may not stand in a URL.
    assert_eq!(
        get("/v1/tenants/acme/projects/shop/logs?ticket=acme-token".into()).await.unwrap().status(),
        401
    );
    let foreign = json!({"tenant": "globex", "projects": ["web"], "seconds": 60});
    let answer = world
        .http
        .post(world.console("/v1/tickets"))
        .bearer_auth("acme-token")
        .json(&foreign)
        .send()
        .await
        .unwrap();
    assert!([403, 404].contains(&answer.status().as_u16()), "{}", answer.status());
    world.end().await;
}
