//! What authors and operators have beside the collector: plugin inspect, test and bench; record and replay.

use crate::deliver::LOCAL;
use crate::identity::gateway;
use crate::shutdown::{Process, binary};
use crate::world::{PATIENCE, World, authorized, eventually, logs};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Exit code, standard output, standard error.
fn trommel(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(binary()).args(arguments).current_dir(folder).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.0.path().join(name)).unwrap()).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        trommel(self.0.path(), arguments)
    }

    /// Ends with this code, and prints or complains with these words.
    fn check(&self, arguments: &[&str], code: i32, words: &[&str]) -> String {
        let (ended, printed, said) = self.run(arguments);
        assert_eq!(ended, code, "{arguments:?}:\n{printed}\n{said}");
        let all = printed + &said;
        for word in words {
            assert!(all.contains(word), "{arguments:?}: {word} is missing in:\n{all}");
        }
        all
    }
}

fn sample(bodies: &[&str]) -> ExportLogsServiceRequest {
    logs(&[("service.name", "shop")], bodies)
}

fn otlp_json(bodies: &[&str]) -> String {
    let records: Vec<Value> = bodies
        .iter()
        .map(|body| json!({ "timeUnixNano": "1700000000000000000", "severityNumber": 9, "body": { "stringValue": body } }))
        .collect();
    json!({ "resourceLogs": [{
        "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": "shop" } }] },
        "scopeLogs": [{ "logRecords": records }],
    }] })
    .to_string()
}

#[test]
fn inspect_shows_every_bundled_plugin_and_says_what_is_none() {
    let folder = Folder::new();
    for name in artifacts::BUNDLED {
        let component = artifacts::bundled(name).unwrap();
        folder.put("own.wasm", component);
        let words = [
            &format!("name      {name}\n"),
            "of trommel:plugin@0.1.0\n",
            "imports   trommel:plugin/",
            "\nexports   trommel:plugin/lifecycle@0.1.0\n",
            &format!("\nsize      {} bytes\n", component.len()),
            "\ndigest    sha256:",
            "\ncompiles  in ",
            "\nmemory    ",
            "    grant: { reads: [",
        ];
        folder.check(&["plugin", "inspect", "own.wasm"], 0, &words);
        let builtin = format!("builtin:{name}");
        folder.check(&["plugin", "inspect", &builtin], 0, &[&format!("{{ module: \"{builtin}\" }}")]);
        let (code, printed, _) = folder.run(&["plugin", "inspect", "own.wasm", "--json"]);
        let shown: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!((code, &shown["name"], &shown["bytes"]), (0, &json!(name), &json!(component.len())));
        assert_eq!(shown["sha256"].as_str().unwrap(), digest(component));
        assert!(shown["memory_bytes"].as_u64().unwrap() >= 64 << 10, "{shown}");
        assert_eq!(shown["world"], if *name == "anomaly" { "ticking-plugin" } else { "plugin" });
    }
    folder.put("module.wasm", b"\0asm\x01\0\0\0");
    folder.check(&["plugin", "inspect", "module.wasm"], 2, &["is a WebAssembly module, not a component"]);
    folder.put("garbage.wasm", [7; 100]);
    folder.check(&["plugin", "inspect", "garbage.wasm"], 2, &["is no WebAssembly component"]);
    folder.check(&["plugin", "inspect", "none.wasm"], 2, &["none.wasm: "]);
    folder.check(&["plugin", "inspect", "builtin:none"], 2, &["there is no bundled plugin `none`"]);
}

fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn test_shows_what_changed_and_holds_it_against_what_is_expected() {
    let folder = Folder::new();
    let bodies = ["mail ada@example.com", "nothing", "card 4111 1111 1111 1111 ok"];
    folder.put("sample.json", otlp_json(&bodies));
    folder.put("sample.otlp", sample(&bodies).encode_to_vec());
    for input in ["sample.json", "sample.otlp"] {
        let words = [
            "redact 0.",
            "granted all that it asks for here: reads ",
            "record 0\n  - body.stringValue: \"mail ada@example.com\"\n  + body.stringValue: \"mail [email]\"\n",
            "record 2\n",
            "3 records in 1 pieces: 2 changed, 0 dropped, 0 added, 1 unchanged",
            "\ntime      ",
            " 100ms allowed",
            "\nmemory    ",
            "65536 KiB allowed",
        ];
        let all = folder.check(&["plugin", "test", "builtin:redact", "--input", input], 0, &words);
        assert!(!all.contains("record 1\n") && !all.contains('\u{1b}'), "{all}");
        let test = ["plugin", "test", "builtin:redact", "--input", input, "--expect", "golden.json"];
        folder.check(&[&test[..], &["--update"]].concat(), 0, &["written to golden.json"]);
        folder.check(&test, 0, &["golden.json: as expected"]);
    }
    // The golden file is OTLP/JSON itself.
    let mut golden = folder.json("golden.json");
    let body = &mut golden["resourceLogs"][0]["scopeLogs"][0]["logRecords"][2]["body"]["stringValue"];
    assert_eq!(*body, "card [card] ok");
    *body = "card gone".into();
    folder.put("golden.json", golden.to_string());
    let test = ["plugin", "test", "builtin:redact", "--input", "sample.otlp", "--expect", "golden.json"];
    let difference = "resourceLogs[0].scopeLogs[0].logRecords[2].body.stringValue: expected \"card gone\", found \"card [card] ok\"\n";
    folder.check(&test, 1, &["golden.json: not as expected\n", difference]);
    let other = [&test[..], &["--config", r#"{"patterns":["email"]}"#]].concat();
    folder.check(&other, 1, &["found \"card 4111 1111 1111 1111 ok\""]);
}

#[test]
fn test_of_an_own_filter_shows_what_it_drops_and_reads_settings_from_yaml() {
    let folder = Folder::new();
    folder.put("quiet.wasm", artifacts::guest("first-filter").unwrap());
    let debug = otlp_json(&["a", "b"]).replacen("\"severityNumber\":9", "\"severityNumber\":5", 1);
    folder.put("sample.json", debug);
    let test = ["plugin", "test", "quiet.wasm", "--input", "sample.json"];
    let words = ["record 0 is dropped\n  - {", "0 changed, 1 dropped, 0 added, 1 unchanged"];
    folder.check(&test, 0, &words);
    // Without anything to work on, and with files that are not there.
    folder.check(&["plugin", "test", "quiet.wasm"], 2, &["--input sample.json"]);
    folder.check(&["plugin", "test", "quiet.wasm", "--input", "none.json"], 2, &["none.json: "]);
    folder.check(&["plugin", "test", "none.wasm", "--input", "sample.json"], 2, &["none.wasm: "]);
    folder.check(&[&test[..], &["--expect", "none.json"]].concat(), 2, &["none.json: "]);
    folder.check(&[&test[..], &["--tenant", "_x"]].concat(), 2, &["tenant `_x`: "]);
    folder.put("wrong.yaml", "patterns: [{ name: x, regex: \"(\" }]");
    let wrong = ["plugin", "test", "builtin:redact", "--input", "sample.json", "--config", "wrong.yaml"];
    folder.check(&wrong, 2, &["its settings are refused: "]);
}

#[test]
fn golden_samples_stand_in_a_folder_beside_the_module() {
    let folder = Folder::new();
    folder.put("quiet.wasm", artifacts::guest("first-filter").unwrap());
    folder.put("quiet.golden/one/input.json", otlp_json(&["a"]));
    folder.put("quiet.golden/two/input.otlp", sample(&["b", "c"]).encode_to_vec());
    let test = ["plugin", "test", "quiet.wasm"];
    folder.check(&test, 2, &["one/expected.json: "]);
    folder.check(
        &[&test[..], &["--update"]].concat(),
        0,
        &["2 golden samples", "one: written", "two: written"],
    );
    folder.check(&test, 0, &["one: as expected", "two: as expected"]);
    let mut golden = folder.json("quiet.golden/two/expected.json");
    golden["dropped"] = 7.into();
    folder.put("quiet.golden/two/expected.json", golden.to_string());
    folder.check(&test, 1, &["one: as expected", "two: not as expected\ndropped: expected 7, found 0\n"]);
    let elsewhere = ["plugin", "test", "builtin:redact", "--golden", "quiet.golden"];
    folder.check(&elsewhere, 1, &["one: as expected"]);
}

#[test]
fn a_plugin_that_counts_over_time_shows_its_alerts() {
    let folder = Folder::new();
    folder.put("errors.wasm", artifacts::guest("first-alert").unwrap());
    let errors = otlp_json(&["failed"; 12]).replace("\"severityNumber\":9", "\"severityNumber\":17");
    folder.put("sample.json", errors);
    let words = [
        "series    shop: 1 values, sum 12, 12 to 12\n",
        "tick      called 1 times\n",
        "alert     errors/shop (Warning, 12 times): shop logs errors: 12 errors in 10 s\n",
        "1 pieces: 0 changed",
    ];
    folder.check(&["plugin", "test", "errors.wasm", "--input", "sample.json"], 0, &words);
}

#[test]
fn bench_prints_every_size_and_a_floor() {
    let folder = Folder::new();
    let all = folder.check(
        &["plugin", "bench", "builtin:redact", "--seconds", "0.05"],
        0,
        &["ns/record", "p50 µs", "p99 µs", "floor ns/record", "\nmemory    "],
    );
    let sizes: Vec<&str> = all.lines().filter_map(|line| line.split_whitespace().next()).collect();
    for size in ["1", "8", "64", "512"] {
        assert!(sizes.contains(&size), "{size} is missing in {all}");
    }
    folder.check(&["plugin", "bench", "builtin:redact", "--seconds", "0"], 2, &["--seconds"]);
    folder.put("spans.json", r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"x"}]}]}]}"#);
    folder.put("quiet.wasm", artifacts::guest("first-filter").unwrap());
    let other = ["plugin", "bench", "quiet.wasm", "--input", "spans.json"];
    folder.check(&other, 2, &["it is called with other signals than traces"]);
}

/// A recording that runs.
fn recording(folder: &Path, world: &World, arguments: &[&str]) -> Process {
    let console = world.console("");
    let mut command = Command::new(binary());
    command.args(["record", "--out", "passed.jsonl", "--console", &console]).args(arguments);
    Process(command.current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_recorded_after_the_guards_is_replayed_into_another_collector() {
    let folder = Folder::new();
    let world = World::start(LOCAL).await;
    let mut process =
        recording(folder.0.path(), &world, &["--for", "3s", "--tenant", "local", "--signal", "logs"]);
    eventually("the file is there", || {
        let is_there = folder.0.path().join("passed.jsonl").exists();
        async move { is_there }
    })
    .await;
    world.send(None, logs(&[("project.id", "shop")], &["mail ada@example.com", "plain"])).await.unwrap();
    world.send(None, logs(&[("project.id", "web")], &["third"])).await.unwrap();
    assert_eq!(process.exit_code().await, Some(0));
    let text = std::fs::read_to_string(folder.0.path().join("passed.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(!lines.concat().contains("ada@example.com") && lines[0].contains("mail [email]"), "{lines:?}");
    let attributes = r#"{"key":"tenant.id","value":{"stringValue":"local"}}"#;
    assert!(lines.iter().all(|line| line.contains(attributes)), "{lines:?}");
    let mode = std::fs::metadata(folder.0.path().join("passed.jsonl")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let second = World::start(LOCAL).await;
    let endpoint = format!("http://{}", second.otlp_http());
    let replayed = folder.run(&["replay", "passed.jsonl", "--endpoint", &endpoint]);
    assert_eq!(replayed.0, 0, "{replayed:?}");
    assert!(replayed.1.contains("3 records in 2 requests sent: 3 accepted, 0 rejected"), "{replayed:?}");
    for (project, count) in [("shop", 2), ("web", 1)] {
        let shown = |records: Vec<Value>| -> Vec<Value> {
            let without_place = |mut record: Value| {
                let fields = record.as_object_mut().unwrap();
                fields.remove("id");
                fields.remove("committed");
                record
            };
            records.into_iter().map(without_place).collect()
        };
        let first = shown(world.history_of(None, "local", project, count).await);
        let again = shown(second.history_of(None, "local", project, count).await);
        assert_eq!(first, again);
    }
    world.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_never_larger_than_it_may_be() {
    let folder = Folder::new();
    let world = World::start(LOCAL).await;
    let mut process = recording(folder.0.path(), &world, &["--max", "2KiB", "--for", "60s"]);
    let until = tokio::time::Instant::now() + PATIENCE;
    while process.0.try_wait().unwrap().is_none() {
        assert!(tokio::time::Instant::now() < until, "the recording goes on");
        world.send(None, logs(&[], &["a line of some length, again and again"; 3])).await.unwrap();
    }
    assert_eq!(process.exit_code().await, Some(0));
    let recorded = std::fs::read_to_string(folder.0.path().join("passed.jsonl")).unwrap();
    assert!((500..=2048).contains(&recorded.len()), "{}", recorded.len());
    assert!(
        recorded.ends_with('\n') && recorded.lines().all(|line| serde_json::from_str::<Value>(line).is_ok())
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_guard_is_recorded_only_if_its_pipeline_says_so() {
    let folder = Folder::new();
    let yaml = r#"
receivers: { otlp: { grpc: { listen: 127.0.0.1:0 }, http: { listen: 127.0.0.1:0 } } }
console: { listen: 127.0.0.1:0 }
plugins: { redact: { module: "builtin:redact" } }
pipelines:
  - { name: open, when: { tenant: [open] }, unguarded: true, sinks: [out] }
  - { name: all, plugins: [redact], sinks: [out] }
sinks: { out: { type: discard } }
"#;
    let world = World::start(yaml).await;
    let ask = async |query: &str| {
        let answer = world.http.get(world.console(&format!("/v1/record?{query}"))).send().await.unwrap();
        answer.status().as_u16()
    };
    assert_eq!(ask("pipeline=open&for=1").await, 200);
    assert_eq!(ask("pipeline=all&for=1").await, 200);
    assert_eq!(ask("pipeline=none").await, 404);
    assert_eq!(ask("signal=log").await, 400);
    assert_eq!(ask("for=0").await, 400);
    assert_eq!(ask("max=1e9").await, 400);
    assert_eq!(ask("tenat=a").await, 400);
    drop(folder);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_needs_the_right_admin() {
    let folder = Folder::new();
    let yaml = gateway().replace(
        "  tokens:\n",
        &format!(
            "  tokens:\n    - {{ sha256: \"{}\", rights: [admin] }}\n",
            crate::world::sha256("admin-token")
        ),
    );
    let world = World::start(&yaml).await;
    for (token, status) in [(None, 401), (Some("acme-token"), 403), (Some("admin-token"), 200)] {
        // Through a proxy nobody is on this machine.
        let asked = world.http.get(world.console("/v1/record?for=1")).header("x-forwarded-for", "192.0.2.1");
        let answer = authorized(asked, token).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{token:?}");
    }
    drop(folder);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_tells_what_was_not_taken() {
    let folder = Folder::new();
    let world = World::start(&gateway()).await;
    let endpoint = format!("http://{}", world.otlp_http());
    folder.put("token", "acme-token\n");
    folder.put("passed.jsonl", format!("{}\n\n{}\n", otlp_json(&["a", "b"]), otlp_json(&["c"])));
    let replay = ["replay", "passed.jsonl", "--endpoint", &endpoint];
    folder.check(&replay, 1, &["3 records in 2 requests sent: 0 accepted, 3 rejected", "rejected: 401"]);
    let with_token = [&replay[..], &["--token-file", "token"]].concat();
    folder.check(&with_token, 0, &["3 accepted, 0 rejected"]);
    world.history_of(Some("acme-token"), "acme", "default", 3).await;
    // A project that the credential does not have: partial success.
    folder.put("token", "globex-token");
    let foreign = otlp_json(&["a"]).replace("service.name", "project.id");
    folder.put("passed.jsonl", format!("{foreign}\n"));
    folder.check(&with_token, 1, &["0 accepted, 1 rejected", "\nrejected: "]);
    folder.put("passed.jsonl", "{}\n");
    folder.check(&with_token, 2, &["passed.jsonl:1: no OTLP/JSON request"]);
    world.end().await;
}
