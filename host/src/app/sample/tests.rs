//! Plugins at work on samples.

use super::*;
use crate::sandbox::{Sandbox, Settings};
use crate::telemetry::Metrics;
use serde_json::json;
use std::path::{Path, PathBuf};

struct World {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let sandbox = Sandbox::open(None, Metrics::new()).unwrap();
        World { sandbox, folder: tempfile::tempdir().unwrap() }
    }

    fn sample(&self, name: &str, content: impl AsRef<[u8]>) -> Sample {
        let path: PathBuf = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        Sample::read(&path, None).unwrap()
    }

    fn run(&self, component: &[u8], config: &str, sample: &Sample) -> Output {
        let settings = Settings { config: config.into(), ..Settings::unnamed(Path::new("a.wasm")) };
        let plugin = self.sandbox.load_apart(&settings, component).unwrap();
        sample.run(&plugin, &Whose::default())
    }
}

fn guest(name: &str) -> &'static [u8] {
    artifacts::guest(name).unwrap()
}

fn bundled(name: &str) -> &'static [u8] {
    artifacts::bundled(name).unwrap()
}

fn logs(records: &[Value]) -> String {
    json!({ "resourceLogs": [{
        "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": "shop" } }] },
        "scopeLogs": [{ "logRecords": records }],
    }] })
    .to_string()
}

fn body(text: &str) -> Value {
    json!({ "severityNumber": 9, "body": { "stringValue": text } })
}

#[test]
fn a_redaction_shows_record_by_record_and_is_the_same_each_time() {
    let world = World::new();
    let records: Vec<Value> = (0..1_100)
        .map(|at| body(&if at % 100 == 7 { format!("a{at}@example.com") } else { at.to_string() }))
        .collect();
    let sample = world.sample("a.json", logs(&records));
    let output = world.run(bundled("redact"), "{}", &sample);
    assert_eq!((output.records, output.lines.len(), output.pieces), (1_100, 1_100, 3));
    assert_eq!((output.dropped, output.added, output.failed.len()), (0, 0, 0));
    let changed: Vec<usize> = (0..1_100).filter(|at| output.lines[*at].is_changed()).collect();
    assert_eq!(changed, (0..11).map(|at| at * 100 + 7).collect::<Vec<_>>());
    let line = &output.lines[107];
    assert_eq!(line.before.as_ref().unwrap().record, body("a107@example.com"));
    assert!(!line.after.as_ref().unwrap().record.to_string().contains("example.com"));
    assert!(output.memory > 64 << 10 && output.cpu >= output.cpu_max && !output.cpu_max.is_zero());
    let again = world.run(bundled("redact"), "{}", &sample);
    assert_eq!(again.golden(), output.golden());
    assert_eq!(compare(&output.golden(), &again.golden()), None);
}

#[test]
fn the_same_request_in_protobuf_and_in_json_gives_the_same() {
    let world = World::new();
    let text = logs(&[body("to a@example.com"), body("b")]);
    let json = world.sample("a.json", &text);
    let protobuf = world.sample("a.otlp", &json.requests[0].bytes);
    let golden = |sample| world.run(bundled("redact"), "{}", sample).golden();
    assert_eq!(golden(&json), golden(&protobuf));
    // What came out is a sample again, and nothing is left to redact in it.
    let out = world.sample("b.json", golden(&json).to_string());
    let again = world.run(bundled("redact"), "{}", &out);
    assert!(again.lines.iter().all(|line| !line.is_changed()));
}

#[test]
fn a_golden_sample_brings_its_own_settings() {
    let world = World::new();
    let folder = world.folder.path().join("stamper.golden");
    for (name, config) in [("bare", None), ("marked", Some(r#"{"mark": "x"}"#))] {
        let sample = folder.join(name);
        std::fs::create_dir_all(&sample).unwrap();
        std::fs::write(sample.join("input.json"), logs(&[body("a")])).unwrap();
        config.into_iter().for_each(|text| std::fs::write(sample.join("config.json"), text).unwrap());
    }
    let settings = Settings::unnamed(Path::new("stamper.wasm"));
    let run = |case: &Case| case.run(&world.sandbox, &settings, guest("stamper"), &Whose::default()).unwrap();
    let stamps = ["0", "0x"].map(|stamp| json!({ "key": "stamp", "value": { "stringValue": stamp } }));
    for (case, stamp) in cases(&folder).unwrap().iter().zip(stamps) {
        let golden = run(case).golden();
        let record = &golden["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
        assert_eq!(record["attributes"], json!([stamp]), "{}", case.name);
    }
}

#[test]
fn dropped_records_are_told_by_their_place() {
    let world = World::new();
    let debug = |text: &str| json!({ "severityNumber": 5, "body": { "stringValue": text } });
    let sample = world.sample("a.json", logs(&[body("a"), debug("b"), body("c"), debug("d")]));
    let output = world.run(guest("first-filter"), "{}", &sample);
    let gone: Vec<bool> = output.lines.iter().map(|line| line.after.is_none()).collect();
    assert_eq!(gone, [false, true, false, true]);
    assert_eq!(output.golden()["dropped"], 2);
    assert_eq!(output.golden()["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap().len(), 2);
    let all_gone = world.run(guest("first-filter"), "{}", &world.sample("b.json", logs(&[debug("a")])));
    assert_eq!(all_gone.golden(), json!({ "dropped": 1, "added": 0 }));
}

#[test]
fn what_a_plugin_counts_closes_on_the_clock_of_the_sample_and_its_alerts_show() {
    let world = World::new();
    let error = |second: u64| {
        json!({ "timeUnixNano": format!("{}", (1_700_000_000 + second) * 1_000_000_000), "severityNumber": 17,
            "body": { "stringValue": "failed" } })
    };
    let lines: Vec<String> = [0, 1, 30]
        .iter()
        .map(|second| logs(&vec![error(*second); if *second == 30 { 1 } else { 8 }]))
        .collect();
    let output = world.run(guest("first-alert"), "{}", &world.sample("a.jsonl", lines.join("\n")));
    let told: Vec<(u64, String)> = output
        .alerts
        .iter()
        .map(|one| (one.at_ms / 1_000 - 1_700_000_000, one.alert.key().to_owned()))
        .collect();
    assert_eq!(told[0].0, 10, "{told:?}");
    let golden = output.golden();
    assert_eq!(golden["alerts"][0]["fire"], told[0].1);
    assert_eq!(golden["alerts"][0]["count"], 16);
    assert!(golden["alerts"][1]["resolve"].is_string(), "{golden:#}");
    assert_eq!(golden["series"]["shop"]["sum"], 17.0, "{golden:#}");
    assert_eq!(golden.get("failed_ticks"), None);
}

#[test]
fn records_without_numbers_are_told_by_their_likeness() {
    let record = |text: &str| {
        let nothing = Arc::new(Value::Null);
        Record { resource: nothing.clone(), scope: nothing, metric: None, record: text.into() }
    };
    let check = |olds: &str, news: &str, shown: &str| {
        let records = |text: &str| text.chars().map(|one| record(&one.to_string())).collect::<Vec<_>>();
        let mut news: Vec<_> = records(news).into_iter().map(|one| (Some(one), None)).collect();
        let lines = run::by_likeness(records(olds), &mut news);
        let text = |record: &Option<Record>| {
            record.as_ref().map_or("-".to_owned(), |record| record.record.as_str().unwrap().to_owned())
        };
        let found: Vec<String> = lines.iter().map(|line| text(&line.before) + &text(&line.after)).collect();
        assert_eq!(found.join(" "), shown, "{olds} {news:?}");
    };
    check("abc", "axc", "aa bx cc");
    check("abc", "ac", "aa b- cc");
    check("ac", "abc", "aa -b cc");
    check("ab", "", "a- b-");
    check("", "ab", "-a -b");
    check("abcd", "bxd", "a- bb c- -x dd");
}

#[test]
fn records_that_a_plugin_fails_on_are_told_and_pass_unchanged() {
    let world = World::new();
    let sample = world.sample("a.json", logs(&[body("1"), body("poison"), body("2")]));
    let output = world.run(guest("hostile"), r#"{"mode": "trap-on", "text": "poison"}"#, &sample);
    assert!(output.lines.iter().all(|line| !line.is_changed()));
    assert_eq!(output.golden()["failed"], json!([{ "records": 1, "reason": "trap" }]));
    // The author is told more than the golden file keeps.
    assert!(output.failed[0].error.to_string().starts_with("trap: "), "{:?}", output.failed);
}

#[test]
fn records_that_a_plugin_adds_are_told() {
    let world = World::new();
    let sample = world.sample("a.json", logs(&[body("1"), body("2")]));
    let output = world.run(guest("hostile"), r#"{"mode": "multiply", "text": "poison"}"#, &sample);
    assert_eq!((output.records, output.dropped, output.added), (2, 0, 4));
    let came_out = output.lines.iter().filter(|line| line.after.is_some()).count();
    let items = &output.golden()["resourceLogs"];
    let items =
        items.as_array().unwrap().iter().map(|of| of["scopeLogs"][0]["logRecords"].as_array().unwrap().len());
    assert_eq!((came_out, items.sum::<usize>()), (6, 6));
}
