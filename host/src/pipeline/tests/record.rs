//! Recordings: what is in them, and above all what is not.

use super::plugins::slot;
use super::*;
use crate::pipeline::{RecordError, Recording, Recordings, Which};

fn guard(name: &str, mode: &str, on_failure: OnFailure) -> Slot {
    let config = format!(r#"{{"mode": "{mode}", "text": "poison"}}"#);
    Slot { is_guard: true, ..slot(name, "hostile", &config, on_failure) }
}

fn plain(name: &str, mode: &str) -> Slot {
    Slot { is_guard: false, ..guard(name, mode, OnFailure::Drop) }
}

/// The bodies of each line that was recorded so far.
async fn lines(recording: &mut Recording) -> Vec<String> {
    let mut lines = Vec::new();
    while let Ok(Some(recorded)) = tokio::time::timeout(Duration::from_millis(50), recording.next()).await {
        let line: serde_json::Value = serde_json::from_str(&recorded.line(&keys())).unwrap();
        let resource = &line["resourceLogs"][0];
        let attributes = resource["resource"]["attributes"].as_array().unwrap();
        let tenants: Vec<&str> = attributes
            .iter()
            .filter(|attribute| attribute["key"] == "tenant.id")
            .filter_map(|attribute| attribute["value"]["stringValue"].as_str())
            .collect();
        let bodies = resource["scopeLogs"][0]["logRecords"].as_array().unwrap();
        let bodies: Vec<&str> =
            bodies.iter().filter_map(|record| record["body"]["stringValue"].as_str()).collect();
        lines.push(format!("{}: {}", tenants.join(","), bodies.join(" ")));
    }
    lines
}

async fn recorded(slots: &[Slot], which: Which, bodies: &[&str]) -> Vec<String> {
    let names: Vec<&str> = slots.iter().map(|slot| slot.name.as_str()).collect();
    let world = world(vec![to("all", &names, vec![sink("a")])], slots, &["a"]);
    let mut recording = Recordings::new(world.pipeline.clone()).begin(which, in_a_minute()).unwrap();
    let _ = world.submit("own", request(&[("tenant.id=forged", bodies)])).await;
    let lines = lines(&mut recording).await;
    assert_eq!(recording.lost(), (0, 0));
    lines
}

fn in_a_minute() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[tokio::test]
async fn what_passes_after_its_time_is_not_copied_for_a_recording() {
    let slots = [guard("guard", "noop", OnFailure::Drop)];
    let world = world(vec![to("all", &["guard"], vec![sink("a")])], &slots, &["a"]);
    let recordings = Recordings::new(world.pipeline.clone());
    let mut recording = recordings.begin(Which::default(), Instant::now()).unwrap();
    world.submit("own", request(&[("", &["late"])])).await.unwrap();
    assert!(lines(&mut recording).await.is_empty());
}

#[tokio::test]
async fn a_recording_begins_after_the_last_guard_and_before_the_others() {
    let all = Which::default;
    // What the plugin behind the guards drops is in it.
    let slots = [guard("first", "trap-on", OnFailure::Drop), plain("other", "drop-even")];
    assert_eq!(recorded(&slots, all(), &["0", "1", "poison"]).await, ["t: 0 1"]);
    let slots = [plain("other", "drop-even"), guard("last", "trap-on", OnFailure::Drop)];
    assert_eq!(recorded(&slots, all(), &["0", "1", "poison"]).await, ["t: 1"]);
    // What a guard refuses is not, nor what one drops.
    let slots = [guard("first", "trap-on", OnFailure::Refuse), guard("last", "drop-even", OnFailure::Drop)];
    assert_eq!(recorded(&slots, all(), &["0", "1", "poison"]).await, ["t: 1"]);
    // All of it gone: no line.
    assert_eq!(recorded(&slots, all(), &["0", "poison"]).await, [""; 0]);
    // A guard that writes identity does not decide whose a record is.
    let slots = [guard("forges", "forge-identity-set", OnFailure::Drop)];
    assert_eq!(recorded(&slots, all(), &["1"]).await, ["t: 1"]);
    let other = Which { tenant: Some("forged".into()), ..all() };
    assert_eq!(recorded(&slots, other, &["1"]).await, [""; 0]);
}

#[tokio::test]
async fn without_a_guard_nothing_is_recorded_unless_the_pipeline_says_so() {
    let slots = [plain("other", "drop-even")];
    assert_eq!(recorded(&slots, Which::default(), &["0", "1"]).await, [""; 0]);
    let open = PipelineSettings { is_unguarded: true, ..to("open", &["other"], vec![sink("a")]) };
    let bare = PipelineSettings { is_unguarded: true, ..to("bare", &[], vec![sink("a")]) };
    for (pipeline, name) in [(open, "open"), (bare, "bare")] {
        let world = world(vec![pipeline, to("closed", &["other"], vec![sink("a")])], &slots, &["a"]);
        let recordings = Recordings::new(world.pipeline.clone());
        let named = |name: &str| Which { pipeline: Some(name.into()), ..Which::default() };
        assert_eq!(recordings.begin(named("none"), in_a_minute()).unwrap_err(), RecordError::NoPipeline);
        assert_eq!(recordings.begin(named("closed"), in_a_minute()).unwrap_err(), RecordError::Unguarded);
        let mut recording = recordings.begin(named(name), in_a_minute()).unwrap();
        world.submit("own", request(&[("", &["0", "1"])])).await.unwrap();
        assert_eq!(lines(&mut recording).await, ["t: 0 1"], "{name}");
    }
}

#[tokio::test]
async fn nothing_of_a_pipeline_whose_guard_is_not_loaded_is_recorded() {
    let missing = Slot { plugin: None, ..guard("missing", "trap-on", OnFailure::Drop) };
    assert_eq!(recorded(&[missing], Which::default(), &["0", "1"]).await, [""; 0]);
}

#[tokio::test]
async fn a_recording_that_is_over_is_not_fed() {
    let slots = [guard("first", "trap-on", OnFailure::Drop)];
    let world = world(vec![to("all", &["first"], vec![sink("a")])], &slots, &["a"]);
    let recordings = Recordings::new(world.pipeline.clone());
    for _ in 0..20 {
        // Its place is free again.
        let mut recording = recordings.begin(Which::default(), in_a_minute()).unwrap();
        world.submit("own", request(&[("", &["1"])])).await.unwrap();
        assert_eq!(lines(&mut recording).await, ["t: 1"]);
    }
}
