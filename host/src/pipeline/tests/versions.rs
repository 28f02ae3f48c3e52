//! Two versions of a plugin side by side: what a shadow leaves (nothing), and who has which in a canary.

use super::effects::timed;
use super::plugins::{sandbox, settings, with_severities};
use super::*;
use crate::sandbox::Plugin;

/// `tests/guests/stamper` as this version, which behaves so.
fn stamper(version: &str, behaviour: &str) -> Vec<u8> {
    let mut bytes = artifacts::guest("stamper").unwrap().to_vec();
    let at = bytes.windows(8).position(|window| window == b"FLAVOUR ").unwrap();
    let flavour = format!("FLAVOUR {version};{behaviour};");
    bytes[at..at + 64].fill(b'.');
    bytes[at..at + flavour.len()].copy_from_slice(flavour.as_bytes());
    bytes
}

fn stamping(version: &str, behaviour: &str) -> Plugin {
    let settings = settings("stamper", "stamper", "{}", OnFailure::Drop);
    sandbox().load_bytes(&settings, &stamper(version, behaviour)).unwrap()
}

fn slot(trial: Option<Trial>) -> Slot {
    Slot {
        name: "stamper".into(),
        is_guard: false,
        on_failure: OnFailure::Drop,
        plugin: Some(stamping("1", "stamp")),
        versions: Versions { score: Arc::default(), trial },
    }
}

/// All that requests leave: what the sink gets, what is counted, windows, incidents, the ledger.
async fn left(slot: Slot) -> Vec<String> {
    let timed = timed(&[slot], 2);
    for round in 0..20 {
        for tenant in ["t", "u"] {
            let bodies: Vec<String> = (0..round * 3 + 1).map(|number| format!("{round} {number}")).collect();
            let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
            timed.send(tenant, &bodies).await.unwrap();
        }
    }
    let given = timed.world.cursor(0).try_next(ALL);
    let mut left: Vec<String> =
        given.iter().map(|given| format!("{:?} {:?}", given.entry.stream, given.entry.bytes)).collect();
    timed.pass(1);
    left.extend(["t", "u"].map(|tenant| timed.windows("stamper", tenant).join(", ")));
    left.extend(timed.incidents());
    let is_of_it =
        |line: &&str| line.contains("\"stamper\"") && !line.contains("_shadow_") && !line.contains("_cpu_");
    left.extend(timed.world.metrics.text().lines().filter(is_of_it).map(str::to_owned));
    let ledger = timed.world.table();
    left.extend(["t", "u"].map(|tenant| format!("{:?}", ledger.line(tenant, Signal::Logs))));
    left
}

#[tokio::test]
async fn a_shadow_changes_no_byte_no_count_no_window_and_no_alert() {
    let without = left(slot(None)).await;
    assert!(without.iter().any(|line| line.contains("stamped@0")), "{without:#?}");
    assert!(without.iter().any(|line| line.contains("trommel_process_plugin_total")), "{without:#?}");
    let all: u64 = (0..20).map(|round| 2 * (round * 3 + 1)).sum();
    for (version, behaviour, expected) in [
        ("1", "stamp", Differing { same: all, ..Differing::default() }),
        ("2", "stamp", Differing { changed: all, ..Differing::default() }),
        ("2", "drop", Differing { missing: all, ..Differing::default() }),
        ("2", "trap", Differing { missing: all, ..Differing::default() }),
    ] {
        let settings = settings("stamper", "stamper", "{}", OnFailure::Drop);
        let plugin = sandbox().load_shadow(&settings, &stamper(version, behaviour)).unwrap();
        let differences = Arc::new(Differences::new("stamper", &Metrics::new()));
        let score: Arc<Score> = Arc::default();
        let kind = TrialKind::Shadow(differences.clone());
        let with = left(slot(Some(Trial { plugin, score: score.clone(), kind }))).await;
        assert_eq!(with, without, "{version} {behaviour}");
        let (found, counts) = (differences.read(), score.read());
        assert_eq!(counts.runs, 40);
        if behaviour == "trap" {
            // Its circuit opens: then it is not called, which counts as failed.
            assert!(found.missing > 0 && found == Differing { missing: found.missing, ..expected });
            assert_eq!(counts.failed_runs, 40);
        } else {
            assert_eq!(found, expected, "{version} {behaviour}");
            assert_eq!((counts.records, counts.failed_runs), (all, 0));
        }
    }
}

#[tokio::test]
async fn a_shadow_that_gives_other_routes_differs_and_those_of_earlier_plugins_are_no_difference() {
    let load = |name: &str, guest: &str, is_shadow| {
        let (settings, bytes) =
            (settings(name, guest, "{}", OnFailure::Pass), artifacts::guest(guest).unwrap());
        if is_shadow {
            sandbox().load_shadow(&settings, bytes)
        } else {
            sandbox().load_bytes(&settings, bytes)
        }
        .unwrap()
    };
    for (first, active, shadow, changed) in [
        ("noop", "router", "router", 0),
        ("noop", "noop", "router", 2),
        ("noop", "router", "noop", 2),
        ("router", "noop", "noop", 0),
        ("router", "noop", "router", 0),
    ] {
        let differences = Arc::new(Differences::new("second", &Metrics::new()));
        let kind = TrialKind::Shadow(differences.clone());
        let trial = Trial { plugin: load("second", shadow, true), score: Arc::default(), kind };
        let slots =
            [("first", first, None), ("second", active, Some(trial))].map(|(name, guest, trial)| Slot {
                name: name.into(),
                is_guard: false,
                on_failure: OnFailure::Pass,
                plugin: Some(load(name, guest, false)),
                versions: Versions { score: Arc::default(), trial },
            });
        let world = world(vec![to("all", &["first", "second"], vec![sink("a")])], &slots, &["a"]);
        world.submit("own", with_severities(&[9, 17, 9, 21])).await.unwrap();
        let expected = Differing { same: 4 - changed, changed, ..Differing::default() };
        assert_eq!(differences.read(), expected, "{first}, then {active} beside {shadow}");
    }
}

#[tokio::test]
async fn in_a_canary_each_stream_has_one_version_and_every_record_one_stamp() {
    let kind = TrialKind::Canary { parts: 3_000, seed: 7 };
    let trial = Trial { plugin: stamping("2", "stamp"), score: Arc::default(), kind };
    let slot = slot(Some(trial.clone()));
    let active = slot.versions.score.clone();
    let world = world(vec![to("all", &["stamper"], vec![sink("a")])], &[slot], &["a"]);
    for _ in 0..3 {
        let projects: Vec<String> = (0..60).map(|number| format!("project.id=p{number}")).collect();
        let resources: Vec<(&str, &[&str])> =
            projects.iter().map(|project| (project.as_str(), &["a", "b"][..])).collect();
        world.submit("own", request(&resources)).await.unwrap();
    }
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for given in world.cursor(0).try_next(ALL) {
        let entry = &given.entry;
        let request = ExportLogsServiceRequest::decode(entry.bytes.clone()).unwrap();
        let records = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
        for record in records.flat_map(|scope| &scope.log_records) {
            let stamp = record.attributes.iter().find(|attribute| attribute.key == "stamp").unwrap();
            let stamp = text(stamp.value.as_ref()).to_owned();
            versions.entry(entry.stream.project.to_string()).or_default().push(stamp);
        }
    }
    assert_eq!(versions.len(), 60);
    for (project, stamps) in &versions {
        assert_eq!(stamps.len(), 6, "{project}");
        assert!(
            stamps.iter().all(|stamp| *stamp == stamps[0] && ["1", "2"].contains(&stamp.as_str())),
            "{stamps:?}"
        );
    }
    let of_new = versions.values().filter(|stamps| stamps[0] == "2").count();
    assert!((8..30).contains(&of_new), "{of_new} of 60 streams");
    let (new, old) = (trial.score.read(), active.read());
    assert_eq!((new.records, old.records), (of_new as u64 * 6, (60 - of_new as u64) * 6));
}
