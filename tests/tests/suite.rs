//! Forty plugins that do what a plugin may not, each of a tenant of its own: every one is answered, named and counted, and
//! beside each a good plugin and another tenant's records go on as if nothing were.

use crate::world::{World, eventually, resource_logs, sha256};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use serde_json::Value;

/// What the hostile guest asks for.
const GRANT: &str = "{ reads: [body, name, event-name, description, severity, kind, status, time, number, trace-id, span-id, trace-state, raw, \
     'item:*', 'event:*', 'metric:*', 'scope:*', 'resource:*'], \
     writes: [body, name, event-name, description, severity, trace-state, raw, \
     'item:*', 'event:*', 'metric:*', 'scope:*', 'resource:*', drop, route] }";
/// And the one with a timer.
const TIMER_GRANT: &str = "{ reads: [body], writes: [drop] }";

/// What becomes of it.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It is not loaded, and `/v1/plugins` says why with these words.
    NotLoaded(&'static str),
    /// Its tenant's records are refused. Its calls are counted under this result and no other, and what it wanted
    /// beyond a limit under this one and no other; `""`: beyond none.
    Refused(&'static str, &'static str),
    /// Its records are taken and its calls are ok; what it wanted beyond a limit is counted under this one.
    Limited(&'static str),
    /// Its records are taken, and its windows are lost: each `tick` is counted under this result, and this limit.
    TickFails(&'static str, &'static str),
    /// Its records are taken, and whose they are is put right.
    Restored,
    /// A call is stopped and counted under this result, which is that of its limit; its records pass with the next
    /// instance, or in halves.
    Recovers(&'static str),
}

use Fate::{Limited, NotLoaded, Recovers, Refused, Restored, TickFails};

/// Name and mode, module, limits, further settings, and what becomes of it.
type Case = (&'static str, &'static str, &'static str, &'static str, Fate);

const CASES: &[Case] = &[
    // What cannot be loaded.
    ("random-bytes", "garbage.wasm", "", "", NotLoaded("is no WebAssembly component")),
    ("core-module", "module.wasm", "", "", NotLoaded("is a WebAssembly module, not a component")),
    ("cut-short", "cut.wasm", "", "", NotLoaded("is no valid component")),
    ("no-exports", "empty.wasm", "", "", NotLoaded("does not export trommel:plugin/lifecycle")),
    ("wasi", "wasi.wasm", "", "", NotLoaded("wasi:cli/environment")),
    ("unknown-import", "unknown.wasm", "", "", NotLoaded("trommel:plugin/files")),
    ("wrong-version", "version.wasm", "", "", NotLoaded("0.2.0")),
    ("two-hundred-megabytes", "huge.wasm", "", "", NotLoaded("larger than 134217728 bytes")),
    ("nothing-there", "missing.wasm", "", "", NotLoaded("missing.wasm")),
    ("bad-settings", "hostile.wasm", "", "", NotLoaded("`ratio` is missing")),
    ("configure-trap", "hostile.wasm", "", "", NotLoaded("`configure` failed: trap")),
    ("configure-loop", "hostile.wasm", "time: 20ms", "", NotLoaded("`configure` failed: took longer")),
    ("configure-reads", "hostile.wasm", "", "", NotLoaded("works inside `process` only")),
    ("explode-pattern", "hostile.wasm", "", "", NotLoaded("bytes when compiled")),
    ("many-patterns", "hostile.wasm", "", "", NotLoaded("65 patterns in one set")),
    // Time, stack, memory.
    ("loop", "hostile.wasm", "time: 20ms", "", Refused("time", "time")),
    ("deep", "hostile.wasm", "", "", Refused("trap", "stack")),
    ("balloon", "hostile.wasm", "memory: 16MiB", "", Refused("memory", "memory")),
    ("grow", "hostile.wasm", "memory: 4MiB", "", Recovers("memory")),
    // Work of the host.
    ("search10000", "hostile.wasm", "", "", Refused("work", "work")),
    ("texts10000", "hostile.wasm", "", "", Refused("work", "work")),
    ("matches-bomb", "hostile.wasm", "", "", Refused("output", "output")),
    ("redact-bomb", "hostile.wasm", "", "", Refused("output", "output")),
    // What it hands over.
    ("output-flood", "hostile.wasm", "", "", Refused("output", "output")),
    ("hostcall-flood", "hostile.wasm", "", "", Refused("output", "hostcall")),
    ("overlapping-strings", "hostile.wasm", "", "", Refused("output", "hostcall")),
    ("long-error", "hostile.wasm", "memory: 256MiB", "", Refused("output", "hostcall")),
    // Of two records at once it is too much.
    ("long-key", "hostile.wasm", "", "", Recovers("output")),
    // Floods that end nothing.
    ("log-flood", "hostile.wasm", "", "", Limited("log")),
    ("name-flood", "hostile.wasm", "", "", Refused("fault", "names")),
    ("series-flood", "hostile-timer.wasm", "", ", process: flood-series", Refused("work", "work")),
    ("alert-flood", "hostile-timer.wasm", "", ", process: fire-10000-keys", Limited("alerts")),
    (
        "alerts-for-ever",
        "hostile-timer.wasm",
        "time: 100ms",
        ", process: fire-for-ever",
        Refused("time", "time"),
    ),
    ("not-finite", "hostile-timer.wasm", "", ", process: not-finite", Limited("values")),
    (
        "series-keys",
        "hostile-timer.wasm",
        "series_keys: 1",
        ", process: key-per-record",
        Limited("series_keys"),
    ),
    ("store-flood", "ticking.wasm", "", ", process: add, tick: fill", Limited("store")),
    ("tick-trap", "ticking.wasm", "", ", process: add, tick: remember-then-trap", TickFails("trap", "")),
    ("tick-loop", "ticking.wasm", "time: 20ms", ", process: add, tick: loop", TickFails("time", "time")),
    ("store-outside-tick", "hostile-timer.wasm", "", ", process: set", Refused("fault", "")),
    // What is wrong.
    ("bad-row", "hostile.wasm", "", "", Refused("fault", "")),
    ("bad-range", "hostile.wasm", "", "", Refused("fault", "")),
    ("bad-lists", "hostile.wasm", "", "", Refused("fault", "")),
    ("split-character", "hostile.wasm", "", "", Refused("fault", "")),
    ("overlapping-edits", "hostile.wasm", "", "", Refused("fault", "")),
    ("bad-splice", "hostile.wasm", "", "", Refused("fault", "")),
    ("bad-set", "hostile.wasm", "", "", Refused("fault", "")),
    ("undeclared-alert", "hostile.wasm", "", "", Refused("fault", "")),
    ("trap", "hostile.wasm", "", "", Refused("trap", "")),
    ("trap-late", "hostile.wasm", "", "", Refused("trap", "")),
    ("error-late", "hostile.wasm", "", "", Refused("error", "")),
    ("reads-beyond", "narrow.wasm", "", ", mode: read-bodies", Refused("fault", "")),
    // Whose it is.
    ("forge-identity-set", "hostile.wasm", "", "", Restored),
    ("forge-identity-remove", "hostile.wasm", "", "", Restored),
    ("forge-identity-splice", "hostile.wasm", "", ", own: t-forge-identity-splice", Restored),
];

/// A component that imports this, and nothing else of it is right.
fn importing(interface: &str) -> Vec<u8> {
    wat::parse_str(format!(r#"(component (import "{interface}" (instance)))"#)).unwrap()
}

/// The hostile guest, which says of itself that it reads severities alone.
fn narrow() -> Vec<u8> {
    let mut bytes = artifacts::guest("hostile").unwrap().to_vec();
    let at = bytes.windows(9).position(|window| window == b"MANIFEST ").unwrap();
    let text = b"MANIFEST narrow;severity;drop;;";
    bytes[at..at + 320].fill(b'.');
    bytes[at..at + text.len()].copy_from_slice(text);
    bytes
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let hostile = artifacts::guest("hostile").unwrap();
    let files: [(&str, Vec<u8>); 12] = [
        ("hostile.wasm", hostile.to_vec()),
        ("hostile-timer.wasm", artifacts::guest("hostile-timer").unwrap().to_vec()),
        ("ticking.wasm", crate::effects::ticking()),
        ("narrow.wasm", narrow()),
        ("garbage.wasm", (0..4096_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()),
        ("module.wasm", wat::parse_str("(module)").unwrap()),
        ("cut.wasm", hostile[..hostile.len() / 2].to_vec()),
        ("empty.wasm", wat::parse_str("(component)").unwrap()),
        ("wasi.wasm", importing("wasi:cli/environment@0.2.12")),
        ("unknown.wasm", importing("trommel:plugin/files@0.1.0")),
        ("version.wasm", importing("trommel:plugin/batch@0.2.0")),
        ("huge.wasm", Vec::new()),
    ];
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    // The head of a component, and a hole.
    let huge = std::fs::File::options().write(true).open(folder.path().join("huge.wasm")).unwrap();
    std::io::Write::write_all(&mut &huge, b"\0asm\x0d\0\x01\0").unwrap();
    huge.set_len(200 << 20).unwrap();
    folder
}

fn configuration() -> String {
    let plugin = |(name, module, limits, config, _): &Case| {
        let grant = match *module {
            "hostile-timer.wasm" | "ticking.wasm" => TIMER_GRANT,
            "narrow.wasm" => "{ reads: [severity], writes: [drop] }",
            _ => GRANT,
        };
        // What a case is not about ends no call of it, however busy the machine is.
        let ample = if limits.contains("time:") { "" } else { ", time: 5s" };
        let limits = format!("limits: {{ {} }}", format!("{limits}{ample}").trim_start_matches(", "));
        let mode = if config.contains("mode:") { String::new() } else { format!("mode: {name}, ") };
        format!(
            "  {name}: {{ module: {module}, tenant: t-{name}, on_failure: refuse, grant: {grant}, {limits}, config: {{ {mode}pattern: '[a-z]{{2}}'{config} }} }}\n"
        )
    };
    let pipeline = |(name, ..): &Case| {
        format!(
            "  - {{ name: {name}, when: {{ tenant: [t-{name}] }}, plugins: [good, {name}], sinks: [streams] }}\n"
        )
    };
    let (plugins, pipelines): (String, String) =
        (CASES.iter().map(plugin).collect(), CASES.iter().map(pipeline).collect());
    with(&plugins, &pipelines)
}

/// A collector with a good plugin for all, and these for some.
fn with(plugins: &str, pipelines: &str) -> String {
    format!(
        "receivers: {{ otlp: {{ grpc: {{ listen: 127.0.0.1:0 }} }} }}
console: {{ listen: 127.0.0.1:0 }}
sinks: {{ streams: {{ type: streams }} }}
identity:
  tokens:
    - {{ sha256: \"{}\", speaks_for: [\"*\"], rights: [send] }}
    - {{ sha256: \"{}\", tenant: other, rights: [read] }}
plugins:
  good: {{ module: \"builtin:redact\" }}
{plugins}pipelines:
{pipelines}  - {{ name: rest, plugins: [good], sinks: [streams] }}
",
        sha256("agent-token"),
        sha256("other-token"),
    )
}

/// The value of a metric of this plugin with this label.
fn counted(metrics: &str, name: &str, plugin: &str, label: &str) -> f64 {
    let start = format!("{name}{{plugin=\"{plugin}\"{label}}} ");
    metrics.lines().filter_map(|line| line.strip_prefix(&start)?.parse::<f64>().ok()).sum()
}

/// The values of the one further label of a metric of this plugin under which anything is counted.
fn labels<'m>(metrics: &'m str, name: &str, plugin: &str, label: &str) -> Vec<&'m str> {
    let start = format!("{name}{{plugin=\"{plugin}\",{label}=\"");
    let of = |line: &'m str| line.strip_prefix(&start)?.split_once("\"} ").filter(|(_, value)| *value != "0");
    metrics.lines().filter_map(|line| Some(of(line)?.0)).collect()
}

/// What its calls came to beside `ok`, and the limits that it met.
fn came_to<'m>(metrics: &'m str, plugin: &str) -> (Vec<&'m str>, Vec<&'m str>) {
    let mut results = labels(metrics, "trommel_process_calls_total", plugin, "result");
    results.retain(|result| *result != "ok");
    (results, labels(metrics, "trommel_process_limit_total", plugin, "limit"))
}

/// A list of this, or of nothing.
fn only(word: &'static str) -> Vec<&'static str> {
    if word.is_empty() { Vec::new() } else { vec![word] }
}

async fn plugins(world: &World) -> Vec<Value> {
    world.http.get(world.console("/v1/plugins")).send().await.unwrap().json().await.unwrap()
}

/// Sends two records of the bad tenant's and one of the other's in one request; the number that was refused.
async fn send(world: &World, name: &str, number: usize) -> i64 {
    let tenant = format!("t-{name}");
    let bad = resource_logs(&[("tenant.id", &tenant)], &["mäil ada@example.com", "zwö 2"]);
    let other = resource_logs(&[("tenant.id", "other")], &[&format!("{number} bob@example.com")]);
    let request = ExportLogsServiceRequest { resource_logs: vec![bad, other] };
    let answer = world.send(Some("agent-token"), request).await.unwrap_or_else(|why| panic!("{name}: {why}"));
    answer.partial_success.map_or(0, |partial| {
        assert!(partial.error_message.contains(name), "{name}: {}", partial.error_message);
        partial.rejected_log_records
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_plugin_does_is_named_and_counted_and_nobody_else_notices() {
    let world = World::start_in(folder(), &configuration()).await;
    eventually("every plugin was tried", || async {
        plugins(&world).await.iter().all(|plugin| plugin["state"] != "loading")
    })
    .await;
    let shown = plugins(&world).await;
    let mut otherwise = Vec::new();
    for (number, (name, _, _, _, fate)) in CASES.iter().enumerate() {
        let plugin = shown.iter().find(|plugin| plugin["name"] == *name).unwrap();
        let is_loaded = !matches!(fate, NotLoaded(_));
        assert_eq!(plugin["state"] == "failed", !is_loaded, "{name}: {plugin}");
        let mut refused = send(&world, name, number).await;
        let metrics = world.metrics().await;
        match fate {
            NotLoaded(why) => {
                assert!(plugin.to_string().contains(why), "{name}: {plugin}");
                assert_eq!(refused, 2, "{name}");
            }
            Refused(result, limit) => {
                let found = came_to(&metrics, name);
                if refused != 2 || found != (only(result), only(limit)) {
                    otherwise.push(format!("{name}: {refused} are refused, {found:?}"));
                }
            }
            Limited(limit) => {
                assert_eq!(refused, 0, "{name}");
                // Of a timer it shows when the window has closed.
                let is_limited =
                    || async { came_to(&world.metrics().await, name) == (Vec::new(), vec![*limit]) };
                eventually(&format!("{name} is limited by {limit}"), is_limited).await;
            }
            TickFails(result, limit) => {
                assert_eq!(refused, 0, "{name}");
                eventually(&format!("the windows of {name} are lost"), || async {
                    let metrics = world.metrics().await;
                    let lost = "trommel_process_lost_windows_total";
                    counted(&metrics, lost, name, ",reason=\"failed\"") > 0.0
                        && came_to(&metrics, name) == (only(result), only(limit))
                })
                .await;
            }
            Restored => {
                assert_eq!(refused, 0, "{name}");
                assert_eq!(
                    counted(&metrics, "trommel_process_restored_resources_total", name, ""),
                    1.0,
                    "{name}"
                );
            }
            Recovers(result) => {
                let label = format!(",result=\"{result}\"");
                let mut stopped = 0.0;
                for again in 1..40 {
                    assert_eq!(refused, 0, "{name}");
                    stopped = counted(&world.metrics().await, "trommel_process_calls_total", name, &label);
                    if stopped > 0.0 {
                        break;
                    }
                    refused = send(&world, name, number * 1_000 + again).await;
                }
                assert!(stopped > 0.0, "{name}");
                assert_eq!(came_to(&world.metrics().await, name), (only(result), only(result)), "{name}");
            }
        }
    }
    assert!(otherwise.is_empty(), "{otherwise:#?}");
    // Every line of the other tenant's, redacted, in order, once.
    let stored = world.history(Some("other-token"), "other", "default").await.unwrap();
    let lines: Vec<&str> = stored.iter().filter_map(|record| record["body"].as_str()).collect();
    assert!(lines.len() >= CASES.len() && lines.iter().all(|line| !line.contains("bob@")), "{lines:?}");
    let firsts: Vec<usize> = lines.iter().filter_map(|line| line.split(' ').next()?.parse().ok()).collect();
    let of_cases: Vec<usize> = firsts.iter().copied().filter(|number| *number < CASES.len()).collect();
    assert_eq!(of_cases, (0..CASES.len()).collect::<Vec<_>>());
    let failed = |line: &&str| {
        line.starts_with("trommel_process_calls_total{plugin=\"good\"") && !line.contains("result=\"ok\"")
    };
    assert_eq!(world.metrics().await.lines().find(failed), None);
    world.end().await;
}

/// What `/v1/plugins/usage` says of the plugin for the tenant.
async fn used(world: &World, plugin: &str, tenant: &str) -> Value {
    let answer = world.http.get(world.console("/v1/plugins/usage")).send().await.unwrap();
    let all: Value = answer.json().await.unwrap();
    let named = |list: &Value, key: &str, name: &str| {
        list.as_array().unwrap().iter().find(|one| one[key] == name).cloned().unwrap_or_default()
    };
    let plugin = named(&all, "plugin", plugin);
    if plugin.is_null() { plugin } else { named(&plugin["tenants"], "tenant", tenant) }
}

/// Most of its limit in each call, and for ever: it does what it may, and is charged for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_just_under_its_limit_goes_on_and_its_time_is_counted() {
    const CALLS: u64 = 200;
    const LIMIT_US: u64 = 20_000;
    // A share that it cannot use up: then the time of each call is taken, and not of every eighth.
    let plugin = format!(
        "  nearly: {{ module: hostile.wasm, tenant: t-nearly, on_failure: refuse, grant: {GRANT}, limits: {{ time: 20ms, cpu: 64 cores }}, config: {{ mode: nearly }} }}\n"
    );
    let pipeline =
        "  - { name: nearly, when: { tenant: [t-nearly] }, plugins: [good, nearly], sinks: [streams] }\n";
    let world = World::start_in(folder(), &with(&plugin, pipeline)).await;
    let microseconds =
        async || used(&world, "nearly", "t-nearly").await["cpu_microseconds"].as_u64().unwrap_or(0);
    // How long a round takes says the machine, and it changes its mind: each call is sized by the one before.
    let (mut rounds, mut sent) = (1_000_000_u64, 0);
    let mut call = async || {
        let before = microseconds().await;
        let bad = resource_logs(&[("tenant.id", "t-nearly")], &[&rounds.to_string()]);
        let other = resource_logs(&[("tenant.id", "other")], &[&format!("{sent} bob@example.com")]);
        let request = ExportLogsServiceRequest { resource_logs: vec![bad, other] };
        let answer = world.send(Some("agent-token"), request).await.unwrap();
        let took = (microseconds().await - before).max(1);
        rounds = (rounds * (LIMIT_US * 13 / 20) / took).clamp(rounds / 2, rounds * 2);
        sent += 1;
        (took, answer.partial_success.map_or(0, |partial| partial.rejected_log_records))
    };
    let mut sized = 0;
    while call().await.0 < LIMIT_US / 2 {
        sized += 1;
        assert!(sized < 100, "its calls do not take half of their limit");
    }
    let before = microseconds().await;
    let mut stopped = 0;
    for _ in 0..CALLS {
        stopped += call().await.1;
    }
    // A thread that other work of the machine holds up in the middle of a call may pay for it.
    assert!(stopped <= 2, "{stopped} calls were stopped");
    let took = microseconds().await - before;
    assert!(took >= CALLS * LIMIT_US / 2, "{CALLS} calls took {took} µs");
    let shown = used(&world, "nearly", "t-nearly").await;
    assert_eq!((&shown["circuit"], &shown["over_cpu"]), (&Value::from("closed"), &Value::from(false)));
    world.history_of(Some("other-token"), "other", "default", sent).await;
    world.end().await;
}

/// It never meets a plugin.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_sixty_megabytes_is_left_out_before_the_plugins() {
    let yaml =
        configuration().replace("127.0.0.1:0 } } }\nconsole", "127.0.0.1:0 }, body_max: 64MiB } }\nconsole");
    let world = World::start_in(folder(), &yaml).await;
    let long = "x".repeat(60 << 20);
    let request = ExportLogsServiceRequest {
        resource_logs: vec![
            resource_logs(&[("tenant.id", "t-trap")], &[&long]),
            resource_logs(&[("tenant.id", "other")], &["fine"]),
        ],
    };
    let answer = world.send(Some("agent-token"), request).await.unwrap();
    let partial = answer.partial_success.unwrap();
    assert_eq!(partial.rejected_log_records, 1, "{}", partial.error_message);
    let metrics = world.metrics().await;
    assert_eq!(came_to(&metrics, "trap"), (Vec::new(), Vec::new()));
    let refused =
        "trommel_ledger_refused_records_total{tenant=\"t-trap\",signal=\"logs\",reason=\"record_too_large\"}";
    assert_eq!(world.metric(refused).await, Some(1.0), "{metrics}");
    world.history_of(Some("other-token"), "other", "default", 1).await;
    world.end().await;
}
