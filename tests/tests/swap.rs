//! New versions of a plugin while requests come in: by command and by file, good ones and bad ones, and back.
//!
//! The plugin is `tests/guests/stamper`: it writes its version on each record, beside those that are there.

use crate::faults::trommel;
use crate::shutdown::{Process, binary, free_port};
use crate::world::{World, eventually, logs, sha256};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use trommel::app::sample;
use trommel::sandbox::Sandbox;
use trommel::telemetry::Metrics;

const GRANT: &str = "{ reads: ['item:stamp'], writes: ['item:stamp', drop] }";

const LISTEN: &str = "
receivers: { otlp: { grpc: { listen: 127.0.0.1:0 } } }
console: { listen: 127.0.0.1:0 }
sinks: { streams: { type: streams } }
";

/// `TROMMEL_TEST_SWAPS`: swaps by command, and a twentieth of it by each way of file change.
fn swaps() -> usize {
    std::env::var("TROMMEL_TEST_SWAPS").map_or(1_000, |number| number.parse().expect("a number of swaps"))
}

/// The guest as this version, which behaves so.
fn stamper(version: &str, behaviour: &str) -> Vec<u8> {
    let mut bytes = artifacts::guest("stamper").unwrap().to_vec();
    let at = bytes.windows(8).position(|window| window == b"FLAVOUR ").unwrap();
    let flavour = format!("FLAVOUR {version};{behaviour};");
    bytes[at..at + 64].fill(b'.');
    bytes[at..at + flavour.len()].copy_from_slice(flavour.as_bytes());
    bytes
}

fn plugin(name: &str, file: &str, more: &str) -> String {
    format!("{name}: {{ module: ./{file}, on_failure: pass, instance: shared, grant: {GRANT}, {more} }}")
}

/// A collector with one plugin `p` of `p.wasm`, which is version 1; `swap` is its section.
async fn start(swap: &str) -> World {
    start_with(&format!("swap: {{ {swap} }}")).await
}

/// The same with these keys of the plugin.
async fn start_with(more: &str) -> World {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("p.wasm"), stamper("1", "stamp")).unwrap();
    let plugin = plugin("p", "p.wasm", more);
    let yaml = format!(
        "{LISTEN}plugins: {{ {plugin} }}\npipelines: [{{ name: all, when: {{ signal: logs }}, plugins: [p], sinks: [streams] }}]\n"
    );
    World::start_in(folder, &yaml).await
}

/// Puts a file in the place of another at once.
fn put(path: &Path, bytes: &[u8]) {
    let aside = path.with_extension("aside");
    fs::write(&aside, bytes).unwrap();
    fs::rename(&aside, path).unwrap();
}

impl World {
    fn p(&self) -> PathBuf {
        self.folder.path().join("p.wasm")
    }

    async fn plugin(&self, name: &str) -> Value {
        let answer = self.http.get(self.console("/v1/plugins")).send().await.unwrap();
        let all: Value = answer.json().await.unwrap();
        all.as_array().unwrap().iter().find(|plugin| plugin["name"] == name).unwrap().clone()
    }

    /// Status and answer of `POST /v1/plugins/p/swap`.
    async fn swap(&self, is_forced: bool) -> (u16, Value) {
        let url = self.console("/v1/plugins/p/swap");
        let answer = self.http.post(url).json(&json!({ "force": is_forced })).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Waits until `/v1/plugins` says this of `p`; a path below it and its value.
    async fn until(&self, path: &str, value: impl Into<Value>) -> Value {
        let value = value.into();
        let is_so = || async { self.plugin("p").await.pointer(path) == Some(&value) };
        eventually(&format!("{path} {value}"), is_so).await;
        self.plugin("p").await
    }

    async fn send_lines(&self, project: &str, lines: &[String]) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        self.send(None, logs(&[("project.id", project)], &lines)).await.expect("it is taken");
    }

    /// A line to each project, again and again, until the candidate is rolled back in this stage and the old version goes on
    /// alone. How many lines each has.
    async fn send_until_given_up(&self, stage: &str, projects: &[String]) -> usize {
        let mut sent = 0;
        while self.plugin("p").await["failure"]["outcome"] != "rolled_back" {
            for project in projects {
                self.send_lines(project, &[format!("{sent}")]).await;
            }
            sent += 1;
            assert!(sent < 500, "it is not given up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let shown = self.plugin("p").await;
        assert_eq!(
            (&shown["version"], &shown["candidate"], &shown["failure"]["stage"]),
            (&json!("1"), &Value::Null, &json!(stage))
        );
        sent
    }

    /// The stamp of each record of a project, by its body.
    async fn stamps(&self, project: &str, count: usize) -> BTreeMap<String, String> {
        let records = self.history_of(None, "local", project, count).await;
        let stamp = |record: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            (text(&record["body"]), text(&record["attributes"]["stamp"]))
        };
        let stamps: BTreeMap<String, String> = records.iter().map(stamp).collect();
        assert_eq!(stamps.len(), count, "each record is there once");
        stamps
    }
}

/// Sends requests of five records to three projects until it is told to stop.
struct Load {
    is_over: Arc<AtomicBool>,
    /// Of each project: how long each answer took.
    senders: tokio::task::JoinSet<(String, Vec<Duration>)>,
    requests: Arc<AtomicUsize>,
}

const RECORDS: usize = 5;

impl Load {
    fn start(world: &Arc<World>, name: &str) -> Load {
        let mut load =
            Load { is_over: Arc::default(), senders: tokio::task::JoinSet::new(), requests: Arc::default() };
        for number in 0..3 {
            let (world, is_over, all) = (world.clone(), load.is_over.clone(), load.requests.clone());
            let project = format!("{name}-{number}");
            load.senders.spawn(async move {
                let mut took = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let line = |number: usize| format!("{} {number}", took.len());
                    let lines: Vec<String> = (0..RECORDS).map(line).collect();
                    let start = Instant::now();
                    world.send_lines(&project, &lines).await;
                    took.push(start.elapsed());
                    all.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                (project, took)
            });
        }
        load
    }

    /// Waits for so many more requests.
    async fn goes_on(&self, requests: usize) {
        let until = self.requests.load(Ordering::Relaxed) + requests;
        eventually("more requests", || async { self.requests.load(Ordering::Relaxed) >= until }).await;
    }

    /// Ends it. Every record must have one stamp that `is_right`, and all of a request the same. How long answers took:
    /// the middle, and 99 of 100.
    async fn end(mut self, world: &World, is_right: impl Fn(&str) -> bool) -> [Duration; 2] {
        self.is_over.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        while let Some(sent) = self.senders.join_next().await {
            let (project, took) = sent.unwrap();
            let stamps = world.stamps(&project, took.len() * RECORDS).await;
            for request in 0..took.len() {
                let of: Vec<&String> =
                    (0..RECORDS).map(|number| &stamps[&format!("{request} {number}")]).collect();
                assert!(is_right(of[0]), "request {request} of {project}: {of:?}");
                assert!(of.iter().all(|stamp| *stamp == of[0]), "request {request} of {project}: {of:?}");
            }
            all.extend(took);
        }
        all.sort();
        [all[all.len() / 2], all[all.len() * 99 / 100]]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_swaps_by_command_lose_no_record_and_give_none_to_two_versions() {
    let world = Arc::new(start("auto: false, watch: 0s").await);
    let load = Load::start(&world, "quiet");
    load.goes_on(300).await;
    let quiet = load.end(&world, |stamp| stamp == "1").await;
    let load = Load::start(&world, "swapped");
    let versions = [stamper("1", "stamp"), stamper("2", "stamp")];
    for number in 1..=swaps() {
        put(&world.p(), &versions[number % 2]);
        let (code, said, why) = trommel(&world, &["plugin", "swap", "p"]).await;
        let version = if number % 2 == 0 { "1" } else { "2" };
        let digest = sha256_of(&versions[number % 2]);
        assert_eq!((code, why.as_str()), (Some(0), ""), "swap {number}");
        assert!(
            said.starts_with(&format!("`p` is {version} (sha256:{digest}) now")),
            "swap {number}: {said}"
        );
    }
    load.goes_on(3).await;
    let swapped = load.end(&world, |stamp| ["1", "2"].contains(&stamp)).await;
    eprintln!("answers took (median, p99) {quiet:?}, and with swaps one after the other {swapped:?}");
    let line = "trommel_process_swaps_total{plugin=\"p\",result=\"promoted\"}";
    assert_eq!(world.metric(line).await, Some(swaps() as f64));
    Arc::into_inner(world).expect("nobody else has it").end().await;
}

/// As kubelet does: a folder for each version, and the link `..data`, which is swapped by a rename.
fn put_in_map(folder: &Path, number: usize, bytes: &[u8]) {
    let of_version = format!("..2026_{number}");
    fs::create_dir_all(folder.join(&of_version)).unwrap();
    fs::write(folder.join(&of_version).join("map.wasm"), bytes).unwrap();
    symlink(&of_version, folder.join("..data_tmp")).unwrap();
    let before = fs::read_link(folder.join("..data"));
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    if let Ok(before) = before {
        fs::remove_dir_all(folder.join(before)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_by_rename_in_place_or_by_a_link_is_swapped_in_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let (over, in_place, map) =
        (folder.path().join("over.wasm"), folder.path().join("in-place.wasm"), folder.path().join("map"));
    fs::write(&over, stamper("o0", "stamp")).unwrap();
    fs::write(&in_place, stamper("i0", "stamp")).unwrap();
    fs::create_dir(&map).unwrap();
    put_in_map(&map, 0, &stamper("m0", "stamp"));
    symlink("..data/map.wasm", map.join("map.wasm")).unwrap();
    let swap = "swap: { watch: 0s }";
    let plugins = [
        plugin("over", "over.wasm", swap),
        plugin("in-place", "in-place.wasm", swap),
        plugin("map", "map/map.wasm", swap),
    ];
    let yaml = format!(
        "{LISTEN}plugins: {{ {} }}\npipelines: [{{ name: all, when: {{ signal: logs }}, plugins: [over, in-place, map], sinks: [streams] }}]\n",
        plugins.join(", ")
    );
    let world = Arc::new(World::start_in(folder, &yaml).await);
    let load = Load::start(&world, "shop");
    let mut took = BTreeMap::<&str, Vec<Duration>>::new();
    for number in 1..=swaps().div_ceil(20) {
        for (name, of) in [("over", "o"), ("in-place", "i"), ("map", "m")] {
            // Two versions of each, whose compiled code is known after the first round.
            let version = format!("{of}{}", number % 2);
            let bytes = stamper(&version, "stamp");
            let start = Instant::now();
            match name {
                "over" => put(&over, &bytes),
                "in-place" => fs::write(&in_place, bytes).unwrap(),
                _ => put_in_map(&map, number, &bytes),
            }
            eventually(&format!("{name} {version}"), || async {
                world.plugin(name).await["version"] == *version
            })
            .await;
            took.entry(name).or_default().push(start.elapsed());
            assert_eq!(world.plugin(name).await["by"], "file");
        }
    }
    for (name, took) in &mut took {
        took.sort();
        let (middle, most) = (took[took.len() / 2], took[took.len() - 1]);
        eprintln!(
            "{name}: from written to active {middle:?} in the middle of {}, {most:?} at most",
            took.len()
        );
    }
    let is_right = |stamp: &str| {
        let parts: Vec<&str> = stamp.split('+').collect();
        parts.len() == 3
            && parts
                .iter()
                .zip(["o", "i", "m"])
                .all(|(part, of)| part.strip_prefix(of).is_some_and(|n| ["0", "1"].contains(&n)))
    };
    load.end(&world, is_right).await;
    Arc::into_inner(world).expect("nobody else has it").end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_used_leaves_the_old_version_running_and_says_why() {
    let world = start("watch: 0s").await;
    let first = world.plugin("p").await;
    assert_eq!(
        (&first["stage"], &first["by"], &first["failure"]),
        (&json!("active"), &json!("start"), &Value::Null)
    );
    let good = stamper("2", "stamp");
    let check = async |bytes: &[u8], why: &str| {
        put(&world.p(), bytes);
        eventually(why, || async {
            world.plugin("p").await["failure"]["why"].as_str().unwrap_or_default().contains(why)
        })
        .await;
        let shown = world.plugin("p").await;
        assert_eq!((&shown["version"], &shown["digest"]), (&first["version"], &first["digest"]));
        assert_eq!(
            (&shown["state"], &shown["failure"]["stage"]),
            (&json!("loaded"), &json!("loading")),
            "{shown}"
        );
        let digest = format!("sha256:{}", sha256_of(bytes));
        assert_eq!(shown["failure"]["digest"], digest);
        let (status, answer) = world.swap(false).await;
        assert_eq!(status, 409, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(why), "{answer}");
    };
    check(&[0x5a; 4096][..], "is no WebAssembly component").await;
    check(&good[..good.len() / 2], "is no valid component").await;
    check(&stamper("2", "greedy")[..], "asks for more than its `grant`").await;
    fs::remove_file(world.p()).unwrap();
    world.until("/failure/digest", Value::Null).await;
    put(&world.p(), &good);
    let shown = world.until("/version", "2").await;
    assert_eq!((&shown["by"], &shown["failure"]), (&json!("file"), &Value::Null));
    world.send_lines("shop", &["a".into()]).await;
    assert_eq!(world.stamps("shop", 1).await["a"], "2");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_makes_something_else_of_a_golden_sample_is_refused() {
    // Its author's samples say nothing of the operator's settings.
    let world = start_with("swap: { watch: 0s }, config: { mark: x }").await;
    let folder = world.folder.path().join("p.golden");
    fs::create_dir_all(folder.join("first")).unwrap();
    let input = r#"{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "a"}}]}]}]}"#;
    fs::write(folder.join("first/input.json"), input).unwrap();
    let expect = |version: &str| {
        let case = sample::cases(&folder).unwrap().remove(0);
        let sandbox = Sandbox::open(None, Metrics::new()).unwrap();
        let settings = crate::plugins::settings("p", json!({}));
        let output = case.run(&sandbox, &settings, &stamper(version, "stamp"), &sample::Whose::default());
        fs::write(&case.expected, output.unwrap().golden().to_string()).unwrap();
    };
    expect("1");
    put(&world.p(), &stamper("2", "stamp"));
    let shown = world.until("/failure/stage", "golden").await;
    let why = shown["failure"]["why"].as_str().unwrap();
    assert!(why.starts_with("sample `first`: ") && why.contains("stamp"), "{why}");
    assert_eq!((&shown["version"], &shown["failure"]["outcome"]), (&json!("1"), &json!("refused")));
    // Other bytes that make the same of it are taken.
    put(&world.p(), &stamper("1", "as before"));
    let digest = format!("sha256:{}", sha256_of(&stamper("1", "as before")));
    world.until("/digest", digest).await;
    // And when the sample was wrong and is mended, whoever asks gets the version.
    put(&world.p(), &stamper("2", "stamp"));
    world.until("/failure/stage", "golden").await;
    expect("2");
    let (status, answer) = world.swap(false).await;
    assert_eq!((status, &answer["plugin"]["version"]), (200, &json!("2")), "{answer}");
    world.send_lines("shop", &["a".into()]).await;
    assert_eq!(world.stamps("shop", 1).await["a"], "2x");
    world.end().await;
}

fn sha256_of(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_or_drops_all_is_rolled_back_and_not_tried_again_unless_forced() {
    for (behaviour, why) in
        [("trap", "of its calls fail"), ("error", "of its calls fail"), ("drop", "of the records")]
    {
        let world = start("watch: 1h").await;
        let lines: Vec<String> = (0..400).map(|number| format!("before {number}")).collect();
        world.send_lines("shop", &lines).await;
        put(&world.p(), &stamper("2", behaviour));
        world.until("/stage", "watching").await;
        for sent in 0.. {
            let lines: Vec<String> = (0..400).map(|number| format!("{sent} {number}")).collect();
            world.send_lines("bad", &lines).await;
            if world.plugin("p").await["failure"]["outcome"] == "rolled_back" {
                break;
            }
            assert!(sent < 200, "{behaviour}: it is not rolled back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let shown = world.plugin("p").await;
        assert_eq!(
            (&shown["version"], &shown["by"], &shown["stage"]),
            (&json!("1"), &json!("rollback"), &json!("active"))
        );
        assert!(shown["failure"]["why"].as_str().unwrap().contains(why), "{shown}");
        assert_eq!(shown["failure"]["digest"], format!("sha256:{}", sha256_of(&stamper("2", behaviour))));

        // The same content again is not tried by itself, nor by command.
        put(&world.p(), &stamper("2", behaviour));
        let (status, answer) = world.swap(false).await;
        assert_eq!(status, 409, "{answer}");
        assert!(
            answer["error"].as_str().unwrap().starts_with("this version was rolled back (watching)"),
            "{answer}"
        );
        world.send_lines("shop", &["after".into()]).await;
        assert_eq!(world.stamps("shop", 401).await["after"], "1");
        assert_eq!(world.plugin("p").await["version"], "1");
        let (status, _) = world.swap(true).await;
        assert_eq!((status, &world.plugin("p").await["version"]), (200, &json!("2")));
        put(&world.p(), &stamper("3", "stamp"));
        world.until("/version", "3").await;
        world.end().await;
    }
}

/// A hundredfold of what a record cost: its calls are well, and within their time.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_takes_far_more_time_is_rolled_back() {
    let world = start("watch: 1h").await;
    let lines: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    // One call in eight has its time taken, and 32 of them are enough to know it.
    for _ in 0..32 * 8 {
        world.send_lines("shop", &lines).await;
    }
    assert!(world.plugin("p").await["did"]["record_cpu_ns"].as_u64().is_some());
    put(&world.p(), &stamper("2", "slow"));
    world.until("/stage", "watching").await;
    let mut sent = 0;
    while world.plugin("p").await["failure"]["outcome"] != "rolled_back" {
        world.send_lines("slow", &lines).await;
        sent += 1;
        assert!(sent < 2_000, "it is not rolled back: {}", world.plugin("p").await);
    }
    let shown = world.plugin("p").await;
    assert_eq!((&shown["version"], &shown["by"]), (&json!("1"), &json!("rollback")));
    let failure = &shown["failure"];
    assert_eq!(failure["digest"], format!("sha256:{}", sha256_of(&stamper("2", "slow"))));
    let why = failure["why"].as_str().unwrap();
    assert!(why.starts_with("a record takes ") && why.contains("the budget is 2 times that"), "{why}");
    let failed = world.metrics().await;
    let failed = failed.lines().find(|line| {
        line.starts_with("trommel_process_calls_total{plugin=\"p\"")
            && !line.contains("\"ok\"")
            && !line.ends_with(" 0")
    });
    assert_eq!(failed, None, "no call of it failed");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_shadow_would_have_done_otherwise_is_counted_and_shown() {
    let world = start("shadow: 1h").await;
    put(&world.p(), &stamper("2", "stamp"));
    world.until("/candidate/stage", "shadow").await;
    for round in 0..4 {
        let lines: Vec<String> = (0..5).map(|number| format!("{round} {number}")).collect();
        world.send_lines("shop", &lines).await;
    }
    let expected = json!({ "same": 0, "changed": 20, "missing": 0, "extra": 0 });
    assert_eq!(world.plugin("p").await["candidate"]["differences"], expected);
    let counted = async |difference: &str| {
        let line = "trommel_process_shadow_records_total{plugin=\"p\",difference=";
        world.metric(&format!("{line}\"{difference}\"}}")).await
    };
    assert_eq!(counted("changed").await, Some(20.0));
    for other in ["same", "missing", "extra"] {
        assert_eq!(counted(other).await, Some(0.0), "{other}");
    }
    assert!(world.stamps("shop", 20).await.values().all(|stamp| stamp == "1"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_goes_through_shadow_canary_and_watch_and_back_as_long_as_it_is_kept() {
    let world = start("shadow: 1s, canary: { share: 50%, for: 1s }, watch: 1h").await;
    put(&world.p(), &stamper("2", "stamp"));
    let shown = world.until("/candidate/stage", "shadow").await;
    assert_eq!((&shown["version"], &shown["candidate"]["version"]), (&json!("1"), &json!("2")));
    let (status, answer) = world.swap(false).await;
    assert_eq!((status, &answer["result"]), (202, &json!("on_trial")), "{answer}");
    world.send_lines("shop", &["shadow".into()]).await;
    assert_eq!(world.stamps("shop", 1).await["shadow"], "1");
    let shown = world.until("/candidate/stage", "canary").await;
    assert_eq!(shown["version"], "1");
    let shown = world.until("/stage", "watching").await;
    assert_eq!(
        (&shown["version"], &shown["candidate"], &shown["previous"]["version"]),
        (&json!("2"), &Value::Null, &json!("1"))
    );
    world.send_lines("shop", &["now".into()]).await;
    assert_eq!(world.stamps("shop", 2).await["now"], "2");

    let answer = world.http.delete(world.console("/v1/plugins/p/swap")).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    assert_eq!((&answer["result"], &answer["plugin"]["version"]), (&json!("ended"), &json!("1")));
    assert_eq!(answer["plugin"]["failure"]["outcome"], "ended");
    world.send_lines("shop", &["back".into()]).await;
    assert_eq!(world.stamps("shop", 3).await["back"], "1");
    let again = world.http.delete(world.console("/v1/plugins/p/swap")).send().await.unwrap();
    assert_eq!(again.status(), 409);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_version_in_a_shadow_harms_no_record_and_is_never_active() {
    let world = start("shadow: 1h").await;
    put(&world.p(), &stamper("2", "trap"));
    world.until("/candidate/stage", "shadow").await;
    let sent = world.send_until_given_up("shadow", &["shop".into()]).await;
    assert!(world.stamps("shop", sent).await.values().all(|stamp| stamp == "1"));
    let trapped = "trommel_process_calls_total{plugin=\"p@shadow\",result=\"trap\"}";
    assert!(world.metric(trapped).await > Some(0.0));
    assert_eq!(world.metric("trommel_process_calls_total{plugin=\"p\",result=\"trap\"}").await, Some(0.0));
    world.end().await;
}

/// Half of the streams have it, and no others.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_version_in_a_canary_harms_its_streams_alone_and_is_rolled_back() {
    let world = start("canary: { share: 50%, for: 1h }").await;
    put(&world.p(), &stamper("2", "trap"));
    world.until("/candidate/stage", "canary").await;
    let projects: Vec<String> = (0..8).map(|number| format!("shop-{number}")).collect();
    let sent = world.send_until_given_up("canary", &projects).await;
    let mut hit = 0;
    for project in &projects {
        world.send_lines(project, &["after".into()]).await;
        let stamps = world.stamps(project, sent + 1).await;
        assert_eq!(stamps["after"], "1");
        // What it traps on passes without a stamp.
        hit += usize::from(stamps.values().any(|stamp| stamp == "-"));
        assert!(stamps["0"] == "-" || stamps.values().all(|stamp| stamp == "1"), "{project}: {stamps:?}");
    }
    assert!((1..projects.len()).contains(&hit), "{hit} streams had it");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_prints_what_happened_and_ends_with_1_if_the_old_version_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (file, module, console) =
        (folder.path().join("trommel.yaml"), folder.path().join("p.wasm"), free_port());
    fs::write(&module, stamper("1", "stamp")).unwrap();
    let listen = LISTEN.replacen(
        "console: { listen: 127.0.0.1:0 }",
        &format!("console: {{ listen: 127.0.0.1:{console} }}"),
        1,
    );
    let plugin = plugin("p", "p.wasm", "swap: { auto: false }");
    let token = sha256("admin-token");
    let yaml = format!(
        "{listen}identity: {{ tokens: [{{ sha256: \"{token}\", rights: [admin] }}] }}\nplugins: {{ {plugin} }}\npipelines: [{{ name: all, when: {{ signal: logs }}, plugins: [p], sinks: [streams] }}]\n"
    );
    fs::write(&file, yaml).unwrap();
    let mut command = Command::new(binary());
    command.args(["run", "--config"]).arg(&file).current_dir(folder.path());
    let log = folder.path().join("log");
    command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
    let mut process = Process(command.spawn().unwrap());
    eventually("ready", || crate::shutdown::is_ready(console)).await;
    // The only line of the log that says this of the plugin, and what must stand in it.
    let logged = |said: &str, fields: &[(&str, &str)]| {
        let log = fs::read_to_string(&log).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lines: Vec<Value> = lines
            .filter(|line| line["message"].as_str().is_some_and(|text| text.starts_with(said)))
            .collect();
        assert_eq!(lines.len(), 1, "{said}: {log}");
        assert_eq!(lines[0]["plugin"], "p");
        for (field, words) in fields {
            assert!(
                lines[0][field].as_str().is_some_and(|text| text.contains(words)),
                "{field}: {}",
                lines[0]
            );
        }
    };
    let digest = |bytes: &[u8]| format!("sha256:{}", sha256_of(bytes));
    let url = format!("http://127.0.0.1:{console}");
    let swap = |arguments: &[&str]| {
        let output = Command::new(binary())
            .args(["plugin", "swap", "--console", &url])
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let said = |version: &str| format!("`p` is {version} (sha256:{})", sha256_of(&stamper(version, "stamp")));
    assert_eq!(swap(&["p"]), (Some(0), format!("{} already", said("1")), String::new()));
    put(&module, &stamper("2", "stamp"));
    assert_eq!(
        swap(&["p"]),
        (Some(0), format!("{} now, and is watched: `--back` goes back", said("2")), String::new())
    );
    let second = digest(&stamper("2", "stamp"));
    logged("a new version is active", &[("digest", &second), ("version", "2"), ("by", "command")]);
    assert_eq!(swap(&["--back", "p"]), (Some(0), format!("{} again", said("1")), String::new()));
    let ended = [("digest", &*second), ("stage", "watching"), ("why", "somebody asked for it")];
    logged("a new version is rolled back", &ended);
    let (code, _, why) = swap(&["p"]);
    assert_eq!(code, Some(1));
    assert!(why.contains("409") && why.contains("this version was ended (watching)"), "{why}");
    assert_eq!(swap(&["--force", "p"]).0, Some(0));
    put(&module, b"nothing");
    let (code, said, why) = swap(&["p"]);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(why.contains("loading: is no WebAssembly component"), "{why}");
    let third = digest(b"nothing");
    let refused = [("digest", &*third), ("stage", "loading"), ("why", "is no WebAssembly component")];
    logged("a new version is refused", &refused);
    assert_eq!(swap(&["none"]).0, Some(1));
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));
}
