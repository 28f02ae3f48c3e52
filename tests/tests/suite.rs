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
    /// Its tenant's records are refused, and its calls are counted under one of these results.
    Refused(&'static [&'static str]),
    /// Its records are taken; what it wanted beyond a limit is counted under this one.
    Limited(&'static str),
    /// Its records are taken, and whose they are is put right.
    Restored,
    /// A call is stopped and counted under this result; its records pass with the next instance.
    Recovers(&'static str),
    /// It stays within its limits.
    Within,
}

use Fate::{Limited, NotLoaded, Recovers, Refused, Restored, Within};

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
    ("loop", "hostile.wasm", "time: 20ms", "", Refused(&["time"])),
    ("deep", "hostile.wasm", "", "", Refused(&["trap", "stack"])),
    ("balloon", "hostile.wasm", "memory: 16MiB", "", Refused(&["memory"])),
    ("grow", "hostile.wasm", "memory: 4MiB", "", Recovers("memory")),
    ("nearly", "hostile.wasm", "cpu: none", ", rounds: '200000'", Within),
    // Work of the host.
    ("search10000", "hostile.wasm", "", "", Refused(&["work", "time"])),
    ("texts10000", "hostile.wasm", "", "", Refused(&["work", "time"])),
    ("matches-bomb", "hostile.wasm", "", "", Refused(&["work", "output", "fault", "time"])),
    ("redact-bomb", "hostile.wasm", "", "", Refused(&["output"])),
    // What it hands over.
    ("output-flood", "hostile.wasm", "", "", Refused(&["output"])),
    ("hostcall-flood", "hostile.wasm", "", "", Refused(&["output", "hostcall"])),
    ("overlapping-strings", "hostile.wasm", "", "", Refused(&["output", "hostcall", "time"])),
    ("long-error", "hostile.wasm", "memory: 256MiB", "", Refused(&["output", "hostcall", "error"])),
    ("long-key", "hostile.wasm", "", "", Refused(&["fault", "output"])),
    // Floods that end nothing.
    ("log-flood", "hostile.wasm", "", "", Limited("log")),
    ("name-flood", "hostile.wasm", "", "", Refused(&["fault"])),
    ("series-flood", "hostile-timer.wasm", "", ", process: flood-series", Refused(&["work", "time"])),
    ("alert-flood", "hostile-timer.wasm", "", ", process: fire-10000-keys", Limited("alerts")),
    ("alerts-for-ever", "hostile-timer.wasm", "", ", process: fire-for-ever", Refused(&["work", "time"])),
    ("not-finite", "hostile-timer.wasm", "", ", process: not-finite", Limited("values")),
    ("store-outside-tick", "hostile-timer.wasm", "", ", process: set", Refused(&["error", "fault"])),
    // What is wrong.
    ("bad-row", "hostile.wasm", "", "", Refused(&["fault"])),
    ("bad-range", "hostile.wasm", "", "", Refused(&["fault"])),
    ("bad-lists", "hostile.wasm", "", "", Refused(&["fault"])),
    ("split-character", "hostile.wasm", "", "", Refused(&["fault", "error"])),
    ("overlapping-edits", "hostile.wasm", "", "", Refused(&["fault"])),
    ("bad-splice", "hostile.wasm", "", "", Refused(&["fault"])),
    ("bad-set", "hostile.wasm", "", "", Refused(&["fault"])),
    ("undeclared-alert", "hostile.wasm", "", "", Refused(&["fault"])),
    ("trap", "hostile.wasm", "", "", Refused(&["trap"])),
    ("trap-late", "hostile.wasm", "", "", Refused(&["trap"])),
    ("error-late", "hostile.wasm", "", "", Refused(&["error"])),
    ("reads-beyond", "narrow.wasm", "", ", mode: read-bodies", Refused(&["fault"])),
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
    let files: [(&str, Vec<u8>); 11] = [
        ("hostile.wasm", hostile.to_vec()),
        ("hostile-timer.wasm", artifacts::guest("hostile-timer").unwrap().to_vec()),
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
            "hostile-timer.wasm" => TIMER_GRANT,
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
{}pipelines:
{}  - {{ name: rest, plugins: [good], sinks: [streams] }}
",
        sha256("agent-token"),
        sha256("other-token"),
        CASES.iter().map(plugin).collect::<String>(),
        CASES.iter().map(pipeline).collect::<String>(),
    )
}

/// The value of a metric of this plugin with this label.
fn counted(metrics: &str, name: &str, plugin: &str, label: &str) -> f64 {
    let start = format!("{name}{{plugin=\"{plugin}\"{label}}} ");
    metrics.lines().filter_map(|line| line.strip_prefix(&start)?.parse::<f64>().ok()).sum()
}

async fn plugins(world: &World) -> Vec<Value> {
    world.http.get(world.console("/v1/plugins")).send().await.unwrap().json().await.unwrap()
}

/// Sends two records of the bad tenant's and one of the other's in one request; the number that was refused.
async fn send(world: &World, name: &str, number: usize) -> i64 {
    let tenant = format!("t-{name}");
    let bad = resource_logs(&[("tenant.id", &tenant)], &["mäil ada@example.com", "two"]);
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
            Refused(results) => {
                // Some need more than one call.
                let mut again = number * 1_000;
                while refused == 0 && again < number * 1_000 + 40 {
                    again += 1;
                    refused = send(&world, name, again).await;
                }
                assert_eq!(refused, 2, "{name}");
                let metrics = world.metrics().await;
                let calls = |result: &&str| {
                    counted(&metrics, "trommel_process_calls_total", name, &format!(",result=\"{result}\""))
                };
                let found: Vec<&str> =
                    metrics.lines().filter(|line| line.contains(&format!("plugin=\"{name}\""))).collect();
                assert!(results.iter().any(|result| calls(result) > 0.0), "{name}: {found:?}");
            }
            Limited(limit) => {
                assert_eq!(refused, 0, "{name}");
                let label = format!(",limit=\"{limit}\"");
                let found: Vec<&str> =
                    metrics.lines().filter(|line| line.contains(&format!("plugin=\"{name}\""))).collect();
                assert!(
                    counted(&metrics, "trommel_process_limit_total", name, &label) > 0.0,
                    "{name}: {found:?}"
                );
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
            }
            Within => {
                assert_eq!(refused, 0, "{name}");
                assert!(
                    counted(&metrics, "trommel_process_calls_total", name, ",result=\"ok\"") > 0.0,
                    "{name}"
                );
            }
        }
    }
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
    assert_eq!(counted(&metrics, "trommel_process_calls_total", "trap", ",result=\"trap\""), 0.0);
    world.history_of(Some("other-token"), "other", "default", 1).await;
    world.end().await;
}
