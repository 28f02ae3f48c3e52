//! From the sender's "yes" to the sink: every record once, in order, and the ledger adds up.

use crate::world::{World, eventually, logs};

pub const LOCAL: &str = r#"
receivers: { otlp: { grpc: { listen: 127.0.0.1:0 }, http: { listen: 127.0.0.1:0 } } }
console: { listen: 127.0.0.1:0 }
plugins: { redact: { module: "builtin:redact", guard: true } }
pipelines:
  - { name: logs, when: { signal: logs }, plugins: [redact], sinks: [streams, nowhere] }
sinks: { streams: { type: streams }, nowhere: { type: discard } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_line_is_redacted_kept_and_seen_live() {
    let world = World::start(LOCAL).await;
    let mut tail = world.tail(None, "local", "shop", None).await;
    world
        .send(None, logs(&[("project.id", "shop")], &["mail ada@example.com", "card 4111 1111 1111 1111 ok"]))
        .await
        .unwrap();
    let live = tail.bodies(2).await;
    assert!(!live[0].contains("ada@example.com") && live[0].starts_with("mail "), "{live:?}");
    assert!(!live[1].contains("4111 1111 1111 1111") && live[1].ends_with(" ok"), "{live:?}");
    let kept: Vec<String> = world
        .history_of(None, "local", "shop", 2)
        .await
        .iter()
        .map(|record| record["body"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kept, live);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_sees_every_line_once_and_in_order_while_many_send() {
    let world = std::sync::Arc::new(World::start(LOCAL).await);
    let mut tail = world.tail(None, "local", "busy", None).await;
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..4 {
        let world = world.clone();
        senders.spawn(async move {
            for round in 0..25 {
                let lines: Vec<String> = (0..10).map(|line| format!("{sender}/{round}/{line}")).collect();
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                world.send(None, logs(&[("project.id", "busy")], &lines)).await.unwrap();
            }
        });
    }
    let seen = tail.bodies(1000).await;
    while let Some(done) = senders.join_next().await {
        done.unwrap();
    }
    for sender in 0..4 {
        let prefix = format!("{sender}/");
        let own: Vec<&String> = seen.iter().filter(|body| body.starts_with(&prefix)).collect();
        let expected: Vec<String> =
            (0..25).flat_map(|round| (0..10).map(move |line| format!("{sender}/{round}/{line}"))).collect();
        assert_eq!(own, expected.iter().collect::<Vec<_>>());
    }
    let history = world.history_of(None, "local", "busy", 1000).await;
    let kept: Vec<&str> = history.iter().map(|record| record["body"].as_str().unwrap()).collect();
    assert_eq!(kept, seen, "history and tail show the same lines in the same order");
    drop(tail);
    std::sync::Arc::into_inner(world).unwrap().end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_who_comes_back_goes_on_where_they_were() {
    let world = World::start(LOCAL).await;
    let mut tail = world.tail(None, "local", "shop", None).await;
    world.send(None, logs(&[("project.id", "shop")], &["one", "two"])).await.unwrap();
    let first = tail.next().await.unwrap();
    assert_eq!(first.data["body"], "one");
    drop(tail);
    world.send(None, logs(&[("project.id", "shop")], &["three"])).await.unwrap();
    let mut again = world.tail(None, "local", "shop", Some(&first.id)).await;
    assert_eq!(again.bodies(2).await, ["two", "three"]);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_pipeline_takes_is_counted_as_unrouted() {
    let world = World::start(&LOCAL.replace("signal: logs", "signal: traces")).await;
    world.send(None, logs(&[], &["nowhere"])).await.unwrap();
    let metrics = world.metrics().await;
    assert!(metrics.lines().any(|line| line.contains("unrouted") && line.ends_with(" 1")), "{metrics}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_cannot_be_reached_holds_back_no_other() {
    let yaml = LOCAL
        .replace("nowhere: { type: discard }", "nowhere: { type: otlp, endpoint: \"http://127.0.0.1:1\" }");
    let world = World::start(&yaml).await;
    for round in 0..20 {
        world.send(None, logs(&[("project.id", "shop")], &[&format!("line {round}")])).await.unwrap();
    }
    world.history_of(None, "local", "shop", 20).await;
    eventually("a failed attempt", || async { world.metrics().await.contains("result=\"retry\"") }).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_survives_a_restart() {
    let world = World::start(LOCAL).await;
    world.send(None, logs(&[("project.id", "shop")], &["before"])).await.unwrap();
    world.history_of(None, "local", "shop", 1).await;
    let folder = world.end().await;
    let world = World::start_in(folder, LOCAL).await;
    world.send(None, logs(&[("project.id", "shop")], &["after"])).await.unwrap();
    let records = world.history_of(None, "local", "shop", 2).await;
    assert_eq!((&records[0]["body"], &records[1]["body"]), (&"before".into(), &"after".into()));
    world.end().await;
}
