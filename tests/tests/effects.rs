//! What plugins count, add up and raise over time, from senders to `/metrics`: exact sums, and harm that stays where it
//! is made.

use crate::world::{PATIENCE, World, eventually, logs, sha256};
use std::collections::BTreeMap;

/// The guest that has a timer, with windows of one second.
pub fn ticking() -> Vec<u8> {
    let mut guest = artifacts::guest("hostile-timer").unwrap().to_vec();
    let at = guest.windows(9).position(|window| window == b"MANIFEST ").unwrap();
    let manifest = b"MANIFEST alerts series store;1;";
    guest[at..at + 64].fill(b'.');
    guest[at..at + manifest.len()].copy_from_slice(manifest);
    guest
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("timer.wasm"), ticking()).unwrap();
    folder
}

/// Plugins by name, with what they do with a batch and with windows; all in the pipeline of `acme`, the last alone in
/// that of `globex`.
async fn start(plugins: &[(&str, &str, &str)]) -> World {
    start_with(plugins, "100ms", "").await
}

/// With so much CPU time for each call, and more of a configuration.
async fn start_with(plugins: &[(&str, &str, &str)], time: &str, more: &str) -> World {
    let plugin = |(name, process, tick): &(&str, &str, &str)| {
        format!(
            "  {name}: {{ module: timer.wasm, on_failure: pass, limits: {{ time: {time} }}, grant: {{ reads: [body], writes: [drop] }}, config: {{ process: {process}, tick: {tick} }} }}\n"
        )
    };
    let names: Vec<&str> = plugins.iter().map(|(name, ..)| *name).collect();
    let token = |tenant: &str| {
        let hash = sha256(&format!("{tenant}-token"));
        format!("    - {{ sha256: \"{hash}\", tenant: {tenant}, rights: [send, read] }}\n")
    };
    let yaml = format!(
        "receivers: {{ otlp: {{ grpc: {{ listen: 127.0.0.1:0 }} }} }}\nconsole: {{ listen: 127.0.0.1:0 }}\n\
         sinks: {{ streams: {{ type: streams }} }}\n{more}identity:\n  tokens:\n{}{}plugins:\n{}pipelines:\n  \
         - {{ name: acme, when: {{ tenant: [acme] }}, plugins: [{}], sinks: [streams] }}\n  \
         - {{ name: globex, plugins: [{}], sinks: [streams] }}\n",
        token("acme"),
        token("globex"),
        plugins.iter().map(plugin).collect::<String>(),
        names.join(", "),
        names.last().unwrap(),
    );
    let world = World::start_in(folder(), &yaml).await;
    let answer = world.http.get(world.console("/readyz")).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    world
}

/// Four senders of each tenant at once, each so many requests of two lines with a number each; returns the records.
async fn send_from_many(world: &World, requests: usize) -> usize {
    let send = |tenant: &'static str, sender: usize| async move {
        for at in 0..requests {
            // One last digit, so that the guest has few keys and may count each under its own name.
            let number = ((sender * requests + at) * 10 + 7).to_string();
            let lines = logs(&[("project.id", "shop")], &[&number, "7"]);
            world.send(Some(&format!("{tenant}-token")), lines).await.unwrap();
        }
    };
    let senders = (0..4).flat_map(|sender| [send("acme", sender), send("globex", sender)]);
    futures_util::future::join_all(senders).await;
    8 * requests * 2
}

/// What a plugin counted, by name.
pub async fn counted(world: &World, plugin: &str) -> BTreeMap<String, u64> {
    let text = world.metrics().await;
    let start = format!(r#"trommel_process_plugin_total{{plugin="{plugin}",name=""#);
    let line = |line: &str| {
        let (name, value) = line.strip_prefix(&start)?.split_once("\"} ")?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Values that `tick` of this plugin was shown under `key`, over all windows and tenants.
pub async fn shown(world: &World, plugin: &str, key: &str) -> u64 {
    let of_key = format!("{key} ");
    counted(world, plugin).await.iter().filter(|(name, _)| name.starts_with(&of_key)).map(|(_, by)| by).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_show_every_record_of_every_tenant_once() {
    let world = start(&[("windows", "add", "report")]).await;
    let records = send_from_many(&world, 50).await;
    let seen = &world;
    eventually("every record is in a window", || async move {
        shown(seen, "windows", "all").await >= records as u64
    })
    .await;
    // Silence comes after the last window, and shows nothing twice.
    let acme = counted(seen, "windows").await["tenant acme"];
    eventually(
        "silence is shown",
        || async move { counted(seen, "windows").await["tenant acme"] >= acme + 2 },
    )
    .await;
    assert_eq!(shown(seen, "windows", "all").await, records as u64);
    assert!(counted(seen, "windows").await["tenant globex"] > 0);
    for tenant in ["acme", "globex"] {
        let token = format!("{tenant}-token");
        world.history_of(Some(&token), tenant, "shop", records / 2).await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_that_flood_alerts_and_keys_or_loop_in_their_tick_harm_nobody_else() {
    let bad = [("alerts", "fire-10000-keys", "nothing"), ("keys", "key-per-record", "nothing")];
    let world = start(&[bad[0], bad[1], ("slow", "add", "loop"), ("good", "add", "report")]).await;
    let records = send_from_many(&world, 5).await;
    // More keys than there may be.
    let lines: Vec<String> = (0..3_000).map(|at| (at * 10 + 7).to_string()).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    world.send(Some("acme-token"), logs(&[("project.id", "shop")], &lines)).await.unwrap();
    let seen = &world;
    eventually("the good one sees all of it", || async move {
        shown(seen, "good", "all").await == (records + 3_000) as u64
    })
    .await;
    eventually("the slow one loses its windows", || async move {
        let lost = r#"trommel_process_lost_windows_total{plugin="slow",reason="failed"}"#;
        seen.metric(lost).await.unwrap_or_default() > 0.0
    })
    .await;
    let others = world.metric(r#"trommel_process_limit_total{plugin="keys",limit="series_keys"}"#).await;
    assert!(others.unwrap() >= 2_000.0, "{others:?}");
    let refused = world.metric(r#"trommel_process_limit_total{plugin="alerts",limit="alerts"}"#).await;
    assert!(refused.unwrap() > 100_000.0, "{refused:?}");
    let of_globex = r#"trommel_alerts_raised_total{tenant="globex",plugin="alerts"}"#;
    assert_eq!(world.metric(of_globex).await, Some(0.0), "it is not in that pipeline");
    world.history_of(Some("acme-token"), "acme", "shop", records / 2 + 3_000).await;
    world.history_of(Some("globex-token"), "globex", "shop", records / 2).await;
    world.end().await;
}

/// A channel whose port is closed, one that takes the call and never answers, and one that is well.
#[tokio::test(flavor = "multi_thread")]
async fn channels_that_are_down_while_alerts_fire_hold_up_no_record_and_no_other_channel() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let telegram = |address: std::net::SocketAddr| {
        format!(r#"{{ type: telegram, token: "123:secret-token", chat: "-1", api: "http://{address}" }}"#)
    };
    let alerts = format!(
        "alerts: {{ channels: {{ gone: {}, silent: {}, here: {{ type: log }} }}, routes: [{{ to: [gone, silent, here] }}] }}\n",
        telegram(closed),
        telegram(silent.local_addr().unwrap()),
    );
    let world =
        start_with(&[("alerts", "fire", "nothing"), ("good", "add", "report")], "100ms", &alerts).await;
    let records = send_from_many(&world, 20).await;
    for tenant in ["acme", "globex"] {
        let token = format!("{tenant}-token");
        world.history_of(Some(&token), tenant, "shop", records / 2).await;
    }
    let (seen, called) = (&world, |channel: &str, result: &str| {
        format!(r#"trommel_alerts_calls_total{{channel="{channel}",result="{result}"}}"#)
    });
    for (channel, result) in [("here", "ok"), ("gone", "retry"), ("silent", "retry")] {
        eventually(channel, || async {
            seen.metric(&called(channel, result)).await.unwrap_or_default() > 0.0
        })
        .await;
    }
    let raised = world.metric(r#"trommel_alerts_raised_total{tenant="acme",plugin="alerts"}"#).await;
    assert_eq!(raised, Some((records / 4) as f64), "one for each request");
    world.end().await;
}

/// The runtime ends only after the last call of a plugin, so the clock that stops it must go on until then.
#[test]
fn a_plugin_that_loops_while_the_collector_stops_does_not_hold_it_up() {
    let (send, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let world = start_with(&[("slow", "add", "loop")], "2s", "").await;
            send_from_many(&world, 1).await;
            let seen = &world;
            eventually("the windows of one tenant are lost", || async move {
                let lost = r#"trommel_process_lost_windows_total{plugin="slow",reason="failed"}"#;
                seen.metric(lost).await.unwrap_or_default() > 0.0
            })
            .await;
            // Now it loops over those of the other.
            world.end().await;
        });
        drop(runtime);
        send.send(()).unwrap();
    });
    ended.recv_timeout(PATIENCE * 3).expect("the collector and its runtime end");
}
