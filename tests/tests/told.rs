//! What the log of a collector says of a plugin that fails: why, in its author's words, and not again and again.

use crate::reload::Running;
use serde_json::Value;

/// What the hostile guest asks for.
const GRANT: &str = "{ reads: [body, name, event-name, description, severity, kind, status, time, number, trace-id, span-id, trace-state, raw, \
     'item:*', 'event:*', 'metric:*', 'scope:*', 'resource:*'], \
     writes: [body, name, event-name, description, severity, trace-state, raw, \
     'item:*', 'event:*', 'metric:*', 'scope:*', 'resource:*', drop, route] }";

/// One plugin for each mode of the hostile guest, all in one pipeline; what they fail on passes.
async fn start(modes: &[&str]) -> Running {
    let plugin = |mode: &&str| {
        format!(
            "  {mode}: {{ module: hostile.wasm, on_failure: pass, limits: {{ time: 5s }}, grant: {GRANT}, config: {{ mode: {mode}, pattern: '[a-z]{{2}}' }} }}\n"
        )
    };
    let yaml = format!(
        "sinks: {{ streams: {{ type: streams }} }}\nplugins:\n{}pipelines: [{{ name: logs, plugins: [{}], sinks: [streams] }}]\n",
        modes.iter().map(plugin).collect::<String>(),
        modes.join(", "),
    );
    Running::start_beside(&[("hostile.wasm", artifacts::guest("hostile").unwrap())], &yaml).await
}

/// The lines of the log, each a text in JSON, that say that this plugin failed.
fn told(log: &str, plugin: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let is_failure = |line: &Value| line["message"].as_str().unwrap().starts_with("failed on ");
    lines.filter(|line| line["plugin"] == plugin && is_failure(line)).collect()
}

fn calls(plugin: &str, result: &str) -> String {
    format!("trommel_process_calls_total{{plugin=\"{plugin}\",result=\"{result}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_is_told_with_the_authors_functions_and_a_limit_with_its_words_once() {
    let mut running = start(&["trap", "output-flood", "search10000"]).await;
    running.send("one").await;
    for (plugin, words) in [
        ("trap", "failed on 1 records, which are passed on unchanged: trap: "),
        ("output-flood", "edits"),
        ("search10000", "more work than a piece of this size is worth"),
    ] {
        let lines = told(&running.log(), plugin);
        assert_eq!(lines.len(), 1, "{plugin}: {}", running.log());
        assert_eq!(lines[0]["level"], "ERROR");
        assert!(lines[0]["message"].as_str().unwrap().contains(words), "{lines:?}");
    }
    let trap = &told(&running.log(), "trap")[0];
    assert!(trap.to_string().contains(" in <hostile::Hostile as "), "{trap}");
    // The same again: it is counted, and not told within the minute.
    running.send("two").await;
    for (plugin, result, limit) in
        [("trap", "trap", ""), ("output-flood", "output", "output"), ("search10000", "work", "work")]
    {
        assert_eq!(running.metric(&calls(plugin, result)).await, 2, "{plugin}");
        if !limit.is_empty() {
            let limit = format!("trommel_process_limit_total{{plugin=\"{plugin}\",limit=\"{limit}\"}}");
            assert_eq!(running.metric(&limit).await, 2, "{plugin}");
        }
        assert_eq!(told(&running.log(), plugin).len(), 1, "{plugin}: {}", running.log());
    }
    running.end().await;
}

/// What is left out of a call that goes well, and a call that is not made.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_fails_no_call_is_told_once_and_counted() {
    let yaml = format!(
        "sinks: {{ streams: {{ type: streams }} }}\nplugins:\n  buckets: {{ module: hostile.wasm, on_failure: pass, grant: {GRANT}, config: {{ mode: limit-flood }} }}\n  cpu: {{ module: hostile.wasm, on_failure: pass, limits: {{ time: 50ms, cpu: 1% }}, grant: {GRANT}, config: {{ mode: loop }} }}\npipelines: [{{ name: logs, plugins: [buckets, cpu], sinks: [streams] }}]\n"
    );
    let mut running =
        Running::start_beside(&[("hostile.wasm", artifacts::guest("hostile").unwrap())], &yaml).await;
    running.send("one").await;
    running.send("two").await;
    for plugin in ["buckets", "cpu"] {
        let limit = format!("trommel_process_limit_total{{plugin=\"{plugin}\",limit=\"{plugin}\"}}");
        assert!(running.metric(&limit).await > 0, "{plugin}");
        let log = running.log();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lines: Vec<Value> =
            lines.filter(|line| line["plugin"] == plugin && line["limit"] == plugin).collect();
        assert!(lines.len() == 1 && lines[0]["level"] == "WARN", "{plugin}: {log}");
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circuit_that_opens_says_so_and_why() {
    let mut running = start(&["trap"]).await;
    for line in 0.. {
        running.send(&line.to_string()).await;
        if running.metric("trommel_process_circuit_open{plugin=\"trap\"}").await == 1 {
            break;
        }
        assert!(line < 500, "it does not open");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let log = running.log();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let says =
        |line: &Value| line["message"].as_str().unwrap().starts_with("the circuit of the plugin opens: ");
    let lines: Vec<Value> = lines.filter(|line| line["plugin"] == "trap" && says(line)).collect();
    assert!(lines.len() == 1 && lines[0]["why"].as_str().unwrap().contains("trap: "), "{log}");
    assert_eq!(lines[0]["tenant"], "local");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_uses_up_its_log_cannot_hide_that_it_failed() {
    let mut running = start(&["log-flood-then-trap"]).await;
    running.send("one").await;
    let limit = "trommel_process_limit_total{plugin=\"log-flood-then-trap\",limit=\"log\"}";
    assert!(running.metric(limit).await > 0);
    let lines = told(&running.log(), "log-flood-then-trap");
    assert!(lines.len() == 1 && lines[0].to_string().contains("trap: "), "{lines:?}");
    running.end().await;
}
