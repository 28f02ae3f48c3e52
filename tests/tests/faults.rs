//! Plugins that fail: what is put aside and replayed, what they use, and what a commit that is refused leaves.

use crate::full_disk::Disk;
use crate::shutdown::binary;
use crate::world::{World, eventually, logs, resource_logs, sha256};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use serde_json::Value;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use tonic::Code;
use tonic_types::StatusExt;

const LISTEN: &str = "receivers: { otlp: { grpc: { listen: 127.0.0.1:0 } } }
console: { listen: 127.0.0.1:0 }
sinks: { streams: { type: streams } }
";
/// What the hostile guest asks for.
const GRANT: &str = "{ reads: [body, name, event-name, description, severity, kind, status, time, number, trace-id, span-id, trace-state, raw, \
     'item:*', 'event:*', 'metric:*', 'scope:*', 'resource:*'], \
     writes: [body, name, event-name, description, severity, trace-state, raw, \
     'item:*', 'event:*', 'metric:*', 'scope:*', 'resource:*', drop, route] }";

fn folder_with_guests() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hostile.wasm"), artifacts::guest("hostile").unwrap()).unwrap();
    std::fs::write(folder.path().join("ticking.wasm"), crate::effects::ticking()).unwrap();
    folder
}

/// One pipeline with the hostile guest, `more` are further keys of the plugin.
fn hostile(mode: &str, more: &str) -> String {
    format!(
        "{LISTEN}journal: {{ kind: disk, max: 1GiB }}
plugins: {{ own: {{ module: hostile.wasm, grant: {GRANT}, {more} config: {{ mode: {mode} }} }} }}
pipelines: [{{ name: logs, plugins: [own], sinks: [streams] }}]
"
    )
}

/// Exit code, standard output, standard error of `trommel …`, which asks the console of this collector.
pub async fn trommel(world: &World, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    command.args(arguments).args(["--console", &world.console("")]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn bodies(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["body"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_a_plugin_fails_on_wait_for_its_next_version() {
    let world = World::start_in(folder_with_guests(), &hostile("trap-on", "on_failure: quarantine,")).await;
    let lines: Vec<String> =
        (0..40).map(|at| if at % 16 == 7 { format!("poison {at}") } else { format!("line {at}") }).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let answer = world.send(None, logs(&[("project.id", "shop")], &lines)).await.unwrap();
    assert_eq!(answer.partial_success, None);
    let (good, bad): (Vec<&str>, Vec<&str>) =
        lines.iter().copied().partition(|line: &&str| line.starts_with("line"));
    assert_eq!(bodies(&world.history_of(None, "local", "shop", good.len()).await), good);
    let dropped =
        r#"trommel_ledger_dropped_records_total{tenant="local",signal="logs",reason="quarantined:own"}"#;
    assert_eq!(world.metric(dropped).await, Some(bad.len() as f64));
    let (code, listed, said) = trommel(&world, &["dead-letters", "list", "--sink", "plugin:own"]).await;
    assert_eq!((code, said.as_str(), listed.lines().count()), (Some(0), "", 1 + bad.len()), "{listed}");
    assert!(!listed.contains("poison"), "{listed}");

    let folder = world.end().await;
    let world = World::start_in(folder, &hostile("noop", "on_failure: quarantine,")).await;
    let (code, _, said) = trommel(&world, &["dead-letters", "replay", "--all"]).await;
    assert_eq!(code, Some(0), "{said}");
    let records = world.history_of(None, "local", "shop", lines.len()).await;
    let mut replayed = bodies(&records)[good.len()..].to_vec();
    replayed.sort_unstable();
    let mut expected = bad.clone();
    expected.sort_unstable();
    assert_eq!(replayed, expected);
    assert_eq!(trommel(&world, &["dead-letters", "list"]).await.1, "no dead letters\n");
    let (code, table, said) = trommel(&world, &["ledger"]).await;
    assert_eq!((code, said.as_str()), (Some(0), ""), "{table}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_own_plugin_has_its_share_of_the_processor_and_the_others_do_not_notice() {
    let yaml = format!(
        "{LISTEN}identity:
  tokens:
    - {{ sha256: \"{}\", tenant: acme, projects: [\"*\"], rights: [send, read] }}
    - {{ sha256: \"{}\", tenant: globex, projects: [\"*\"], rights: [send, read] }}
plugins: {{ own: {{ module: hostile.wasm, tenant: acme, on_failure: refuse, limits: {{ cpu: 1% }}, grant: {GRANT}, config: {{ mode: loop }} }} }}
pipelines:
  - {{ name: acme, when: {{ tenant: [acme] }}, plugins: [own], sinks: [streams] }}
  - {{ name: rest, sinks: [streams] }}
",
        sha256("acme-token"),
        sha256("globex-token"),
    );
    let world = World::start_in(folder_with_guests(), &yaml).await;
    eventually("the plugin is loaded", || async {
        world.http.get(world.console("/readyz")).send().await.unwrap().status().as_u16() == 200
    })
    .await;
    let answer = world.send(Some("acme-token"), logs(&[], &["one"])).await.unwrap();
    assert_eq!(answer.partial_success.unwrap_or_default().rejected_log_records, 1, "it was stopped");
    // It took ten seconds' worth.
    let refused = world.send(Some("acme-token"), logs(&[], &["two"])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(refused.message().contains("own"), "{}", refused.message());
    assert!(refused.get_details_retry_info().unwrap().retry_delay.is_some());
    world.send(Some("globex-token"), logs(&[("project.id", "web")], &["g"])).await.unwrap();
    assert_eq!(bodies(&world.history_of(Some("globex-token"), "globex", "web", 1).await), ["g"]);
    let counted = r#"trommel_process_limit_total{plugin="own",limit="cpu"}"#;
    assert_eq!(world.metric(counted).await, Some(1.0));
    let reason =
        r#"trommel_ledger_refused_records_total{tenant="acme",signal="logs",reason="plugin_over_cpu:own"}"#;
    assert_eq!(world.metric(reason).await, Some(1.0));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_what_plugins_use_by_tenant() {
    let world = World::start_in(folder_with_guests(), &hostile("trap-on", "circuit: { calls: 1 },")).await;
    let answer = world.send(None, logs(&[], &["one", "two"])).await.unwrap();
    assert_eq!(answer.partial_success, None);
    let (code, table, said) = trommel(&world, &["top", "--once"]).await;
    assert_eq!((code, said.as_str()), (Some(0), ""), "{table}");
    let row: Vec<&str> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!((row[0], row[1], row.last()), ("own", "local", Some(&"closed")), "{table}");
    world.send(None, logs(&[], &["poison"])).await.unwrap();
    let (_, table, _) = trommel(&world, &["top", "--once"]).await;
    assert!(table.lines().nth(1).is_some_and(|row| row.ends_with("open")), "{table}");
    let usage = world.http.get(world.console("/v1/plugins/usage")).send().await.unwrap();
    let usage: Value = usage.json().await.unwrap();
    let of = &usage[0]["tenants"][0];
    assert_eq!(
        (&of["tenant"], &of["records"], &of["failures"]["trap"]),
        (&"local".into(), &3.into(), &1.into())
    );
    assert!(of["memory_bytes"].as_u64().is_some(), "{usage}");
    assert_eq!(world.metric(r#"trommel_process_circuit_open{plugin="own"}"#).await, Some(1.0));
    let shown = world.http.get(world.console("/v1/plugins")).send().await.unwrap();
    assert_eq!(shown.json::<Value>().await.unwrap()[0]["open_circuits"], 1);
    // The plugin is passed by, as its policy says.
    world.send(None, logs(&[("project.id", "shop")], &["three"])).await.unwrap();
    world.history_of(None, "local", "shop", 1).await;
    world.end().await;
}

/// A terminal of its own: where a program writes, and what it wrote so far.
fn terminal(rows: u16) -> (std::fs::File, Arc<Mutex<String>>) {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&ours).unwrap();
    rustix::pty::unlockpt(&ours).unwrap();
    let path = rustix::pty::ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let no_controlling = OpenptFlags::NOCTTY.bits().cast_signed();
    let theirs =
        std::fs::File::options().read(true).write(true).custom_flags(no_controlling).open(path).unwrap();
    let size = Winsize { ws_row: rows, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&theirs, size).unwrap();
    let written = Arc::new(Mutex::new(String::new()));
    let (mut ours, shown) = (std::fs::File::from(ours), written.clone());
    std::thread::spawn(move || {
        let mut some = [0; 4096];
        while let Ok(count @ 1..) = ours.read(&mut some) {
            shown.lock().unwrap().push_str(&String::from_utf8_lossy(&some[..count]));
        }
    });
    (theirs, written)
}

#[tokio::test(flavor = "multi_thread")]
async fn top_draws_its_table_anew_on_a_terminal_until_it_is_interrupted() {
    let world = World::start_in(folder_with_guests(), &hostile("noop", "")).await;
    world.send(None, logs(&[], &["one"])).await.unwrap();
    let (terminal, written) = terminal(10);
    let mut command = Command::new(binary());
    command.args(["top", "--console", &world.console("")]).stdin(Stdio::null()).stdout(terminal);
    let mut top = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    // What stands on the screen: from the last time that it is drawn whole.
    let drawn = || {
        let written = written.lock().unwrap();
        let whole = written.rsplit_once("\x1b[J").map_or("", |(whole, _)| whole);
        // The terminal makes two of one `\r`.
        whole
            .rsplit_once("\x1b[H")
            .map_or(String::new(), |(_, table)| table.replace("\x1b[K", "").replace('\r', ""))
    };
    let records_per_second = || {
        let table = drawn();
        let row: Vec<&str> = table.lines().nth(1)?.split_whitespace().collect();
        assert_eq!((row[0], row[1], row.last()), ("own", "local", Some(&"closed")), "{table}");
        Some(row[3].parse::<u64>().unwrap())
    };
    eventually("records are shown as they come", async || {
        world.send(None, logs(&[], &["two", "three"])).await.unwrap();
        records_per_second().is_some_and(|records| records > 0)
    })
    .await;
    eventually("nothing comes, which is shown too", async || records_per_second() == Some(0)).await;
    let of_top = Pid::from_raw(top.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(of_top, Signal::INT).unwrap();
    assert_eq!(top.wait().await.unwrap().code(), Some(0));
    // On a screen of its own, which it leaves as it was.
    eventually("the terminal is given back", async || written.lock().unwrap().ends_with("\x1b[?1049l")).await;
    assert!(written.lock().unwrap().starts_with("\x1b[?1049h"));
    world.end().await;
}

/// Each request has one poisonous record among 512: what is refused leaves nothing of the others either.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_the_disk_has_no_room_for_leaves_no_count_no_window_and_no_alert() {
    let folder = folder_with_guests();
    let disk = Disk::mount(&folder.path().join("trommel-data/journal"), 40);
    let yaml = format!(
        "{LISTEN}journal: {{ kind: disk, max: 1GiB }}
plugins: {{ all: {{ module: ticking.wasm, limits: {{ time: 5s }}, grant: {{ reads: [body], writes: [drop] }}, config: {{ process: records-then-trap, tick: report }} }} }}
pipelines: [{{ name: logs, plugins: [all], sinks: [streams] }}]
alerts: {{ channels: {{ here: {{ type: log }} }} }}
"
    );
    let world = World::start_in(folder, &yaml).await;
    let mut lines = ["1"; 512];
    lines[200] = "poison";
    let send = async || world.send(None, logs(&[("project.id", "shop")], &lines)).await;
    let ready = async || world.http.get(world.console("/readyz")).send().await.unwrap().status() == 200;
    eventually("the plugin is loaded", ready).await;
    let records = r#"trommel_process_plugin_total{plugin="all",name="records"}"#;
    let raised = r#"trommel_alerts_raised_total{tenant="local",plugin="all"}"#;
    let counts = async || {
        let counted = async |line| world.metric(line).await.unwrap_or_default();
        (counted(records).await, counted(raised).await, incident(&world).await)
    };
    // Each half of the one that fails raises its own.
    send().await.unwrap();
    let (mut taken, mut refused) = (1, 0);
    let (_, raises, _) = counts().await;
    disk.fill();
    for _ in 0..500 {
        if refused == 5 {
            break;
        }
        let before = counts().await;
        match send().await {
            Ok(_) => taken += 1,
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                assert_eq!(counts().await, before, "what is refused counts nothing");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 5, "the disk was not full");
    disk.free();
    eventually("there is room again", async || send().await.is_ok()).await;
    taken += 1;
    let left = taken * 511;
    assert_eq!(counts().await, (left as f64, taken as f64 * raises, left), "{}", world.metrics().await);
    let in_windows = async || crate::effects::shown(&world, "all", "1").await;
    eventually("the windows close", async || in_windows().await >= left).await;
    // Silence comes after the last of them, and nothing more.
    let ticks = async || crate::effects::counted(&world, "all").await["tenant local"];
    let before = ticks().await;
    eventually("silence is shown", async || ticks().await > before).await;
    assert_eq!(in_windows().await, left);
    world.end().await;
}

/// How often the only incident was raised, records and all; 0: there is none.
async fn incident(world: &World) -> u64 {
    let shown: Value =
        world.http.get(world.console("/v1/alerts")).send().await.unwrap().json().await.unwrap();
    let incidents = shown["incidents"].as_array().unwrap();
    assert!(incidents.len() <= 1, "{shown}");
    incidents.first().map_or(0, |incident| incident["count"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tenants_with_one_bad_record_each_switch_off_nothing() {
    let yaml = format!(
        "{LISTEN}identity:
  tokens: [{{ sha256: \"{}\", speaks_for: [\"*\"], rights: [send] }}]
plugins: {{ own: {{ module: hostile.wasm, on_failure: drop, grant: {GRANT}, config: {{ mode: trap-on }} }} }}
pipelines: [{{ name: logs, plugins: [own], sinks: [streams] }}]
",
        sha256("agent-token"),
    );
    let world = World::start_in(folder_with_guests(), &yaml).await;
    for round in 0..25 {
        let of = |tenant: &str| resource_logs(&[("tenant.id", tenant)], &["fine", "poison", "fine"]);
        let request = ExportLogsServiceRequest { resource_logs: vec![of("acme"), of("globex")] };
        let answer = world.send(Some("agent-token"), request).await.unwrap();
        assert_eq!(answer.partial_success, None, "{round}");
    }
    let dropped: Vec<String> = world
        .metrics()
        .await
        .lines()
        .filter(|line| line.contains("ledger_dropped"))
        .map(String::from)
        .collect();
    let counted = dropped.iter().filter(|line| line.contains("plugin:own") && line.ends_with(" 25")).count();
    assert_eq!(counted, 2, "{dropped:?}");
    world.end().await;
}
