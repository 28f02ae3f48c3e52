//! Requests through real plugins: the guests of the sandbox's tests, and the router.

use super::*;
use crate::sandbox::{self, Instance, Limits, Module, Sandbox};
use std::sync::OnceLock;

/// One engine for all tests.
pub(super) fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    SANDBOX.get_or_init(|| Sandbox::open(None, Metrics::new()).unwrap())
}

pub(super) fn settings(name: &str, module: &str, config: &str, on_failure: OnFailure) -> sandbox::Settings {
    sandbox::Settings {
        name: name.into(),
        module: Module::Builtin(module.into()),
        config: config.into(),
        filled: Vec::new(),
        secrets: BTreeMap::new(),
        is_guard: false,
        on_failure,
        tenant: None,
        instance: Instance::PerTenant,
        limits: Limits::default(),
        // What its manifest asks for.
        grant: None,
    }
}

pub(super) fn slot(name: &str, guest: &str, config: &str, on_failure: OnFailure) -> Slot {
    slot_with(name, guest, config, on_failure, Limits::default())
}

pub(super) fn slot_with(
    name: &str,
    guest: &str,
    config: &str,
    on_failure: OnFailure,
    limits: Limits,
) -> Slot {
    let settings = sandbox::Settings { limits, ..settings(name, guest, config, on_failure) };
    let plugin = sandbox().load_bytes(&settings, artifacts::guest(guest).unwrap()).unwrap();
    Slot {
        name: name.into(),
        is_guard: false,
        on_failure,
        plugin: Some(plugin),
        versions: Default::default(),
    }
}

fn hostile(mode: &str, on_failure: OnFailure) -> Slot {
    slot("hostile", "hostile", &format!(r#"{{"mode": "{mode}", "text": "poison"}}"#), on_failure)
}

#[tokio::test]
async fn a_batch_that_was_begun_is_ended_and_what_it_took_is_paid_back_before_the_next() {
    for on_failure in [OnFailure::Pass, OnFailure::Drop, OnFailure::Refuse] {
        // What it used is kept by its name.
        let name = format!("short-{on_failure:?}");
        let limits = Limits { cpu: Some(Duration::from_nanos(1)), ..Limits::default() };
        let slot = slot_with(&name, "hostile", r#"{"mode": "drop-even"}"#, on_failure, limits);
        let world = world(vec![to("all", &[&name], vec![sink("a")])], std::slice::from_ref(&slot), &["a"]);
        let calls = || slot.plugin.as_ref().unwrap().usage().tenants.iter().map(|of| of.calls).sum::<u64>();
        let bodies = vec!["a line"; 1_200];
        for round in 0..3 {
            let _ = world.submit("own", request(&[("", &bodies)])).await;
            assert_eq!(calls(), 3, "{on_failure:?}: three pieces of the first request, round {round}");
        }
    }
}

#[tokio::test]
async fn a_plugin_changes_what_is_kept_and_its_counts_show_after_the_commit() {
    let settings = settings("redact", "redact", r#"{"patterns": ["email"]}"#, OnFailure::Drop);
    let plugin = Some(sandbox().load(&settings).unwrap());
    let (name, versions) = ("redact".into(), Default::default());
    let slots = [Slot { name, is_guard: true, on_failure: OnFailure::Drop, plugin, versions }];
    let world = world(vec![to("all", &["redact"], vec![sink("a")])], &slots, &["a"]);
    assert!(world.metrics.text().contains(r#"trommel_process_loaded{plugin="redact"} 1"#));
    world.submit("own", request(&[("", &["mail anna@example.com", "nothing"])])).await.unwrap();
    assert_eq!(world.given(0), ["t/default: mail [email] nothing"]);
    let text = world.metrics.text();
    let line = r#"trommel_process_plugin_total{plugin="redact",name="redacted_email"} 1"#;
    assert!(text.contains(line), "{text}");
}

#[tokio::test]
async fn what_a_plugin_drops_is_counted_as_filtered() {
    let slots = [hostile("drop-even", OnFailure::Pass)];
    let world = world(vec![to("all", &["hostile"], vec![sink("a")])], &slots, &["a"]);
    world.submit("own", request(&[("", &["0", "1", "2"])])).await.unwrap();
    assert_eq!(world.given(0), ["t/default: 1"]);
    let line = world.table().line("t", Signal::Logs);
    assert_eq!((line.acknowledged, line.filtered["hostile"], line.committed), (3, 2, 1));
    // All of it gone: acknowledged, and nothing is kept.
    world.submit("own", request(&[("", &["0"])])).await.unwrap();
    assert_eq!(world.table().line("t", Signal::Logs).filtered["hostile"], 3);
}

#[tokio::test]
async fn the_records_a_plugin_fails_on_get_its_policy_and_the_others_pass() {
    for (policy, given, receipt) in [
        (OnFailure::Pass, "t/default: 1 poison 2", Receipt::default()),
        (OnFailure::Drop, "t/default: 1 2", Receipt::default()),
        (OnFailure::Quarantine, "t/default: 1 2", Receipt::default()),
        (
            OnFailure::Refuse,
            "t/default: 1 2",
            Receipt { rejected: 1, message: "1 records left out: plugin `hostile` failed on them".into() },
        ),
    ] {
        let slots = [hostile("trap-on", policy)];
        let world = world(vec![to("all", &["hostile"], vec![sink("a")])], &slots, &["a"]);
        let answer = world.submit("own", request(&[("", &["1", "poison", "2"])])).await;
        assert_eq!(answer, Ok(receipt), "{policy:?}");
        assert_eq!(world.given(0), [given], "{policy:?}");
        let line = world.table().line("t", Signal::Logs);
        let lost = (line.dropped.get("plugin:hostile"), line.refused.get("plugin:hostile"));
        let expected = match policy {
            OnFailure::Pass => (None, None),
            // Nobody keeps dead letters here.
            OnFailure::Drop | OnFailure::Quarantine => (Some(&1), None),
            OnFailure::Refuse => (None, Some(&1)),
        };
        assert_eq!(lost, expected, "{policy:?}");
        let passed = r#"trommel_process_passed_records_total{plugin="hostile",reason="failed"} 1"#;
        assert_eq!(world.metrics.text().contains(passed), policy == OnFailure::Pass, "{policy:?}");
    }
}

#[tokio::test]
async fn records_that_a_plugin_made_are_not_refused_to_the_sender() {
    let make = hostile("multiply", OnFailure::Pass);
    let fail = Slot { name: "fail".into(), ..hostile("trap", OnFailure::Refuse) };
    let world = world(vec![to("all", &["hostile", "fail"], vec![sink("a")])], &[make, fail], &["a"]);
    let receipt = world.submit("own", request(&[("", &["1", "2"])])).await.unwrap();
    let message = "2 records left out: plugin `fail` failed on them";
    assert_eq!((receipt.rejected, receipt.message.as_str()), (2, message));
    assert!(world.given(0).is_empty());
    let line = world.table().line("t", Signal::Logs);
    assert_eq!((line.received, line.acknowledged, line.refused["plugin:fail"]), (2, 0, 2));
    assert_eq!((line.added["hostile"], line.dropped["plugin:fail"], line.committed), (4, 4, 0));
}

#[tokio::test]
async fn a_tenant_whose_plugin_traps_costs_the_other_nothing() {
    let own = PipelineSettings { tenants: vec!["t".into()], ..to("t", &["hostile"], vec![sink("a")]) };
    let slots = [hostile("trap", OnFailure::Refuse)];
    let world = world(vec![own, to("rest", &[], vec![sink("a")])], &slots, &["a"]);
    let body = request(&[("tenant.id=t", &["1", "2"]), ("tenant.id=u", &["3"])]);
    let receipt = world.submit("agent", body).await.unwrap();
    assert_eq!(
        (receipt.rejected, receipt.message.as_str()),
        (2, "2 records left out: plugin `hostile` failed on them")
    );
    assert_eq!(world.given(0), ["u/default: 3"]);
}

#[tokio::test]
async fn a_plugin_cannot_give_records_to_another_tenant() {
    for mode in ["forge-identity-set", "forge-identity-remove"] {
        let slots = [hostile(mode, OnFailure::Pass)];
        let world = world(vec![to("all", &["hostile"], vec![sink("a")])], &slots, &["a"]);
        world.submit("own", request(&[("", &["1"])])).await.unwrap();
        let entry = world.cursor(0).try_next(ALL)[0].entry.clone();
        let kept = ExportLogsServiceRequest::decode(entry.bytes.clone()).unwrap();
        let attributes = &kept.resource_logs[0].resource.as_ref().unwrap().attributes;
        let tenants: Vec<&str> =
            attributes.iter().filter(|a| a.key == "tenant.id").map(|a| text(a.value.as_ref())).collect();
        assert_eq!(tenants, ["t"], "{mode}");
        let restored = r#"trommel_process_restored_resources_total{plugin="hostile"} 1"#;
        assert!(world.metrics.text().contains(restored), "{mode}");
    }
}

/// A record for each, numbered from 1.
pub(super) fn with_severities(severities: &[i32]) -> Vec<u8> {
    let bodies: Vec<String> = (1..=severities.len()).map(|number| number.to_string()).collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    let mut logs = ExportLogsServiceRequest::decode(&request(&[("", &bodies)])[..]).unwrap();
    for (record, severity) in logs.resource_logs[0].scope_logs[0].log_records.iter_mut().zip(severities) {
        record.severity_number = *severity;
    }
    logs.encode_to_vec()
}

#[tokio::test]
async fn records_go_where_their_route_says() {
    let errors = SinkRoute { route: vec!["errors".into()], ..sink("errors") };
    let slots = [slot("router", "router", "{}", OnFailure::Pass)];
    let world = world(vec![to("all", &["router"], vec![sink("all"), errors])], &slots, &["all", "errors"]);
    world.submit("own", with_severities(&[9, 17, 9, 21])).await.unwrap();
    assert_eq!(world.given(0), ["t/default: 1 3", "t/default: 2 4"]);
    assert_eq!(world.given(1), ["t/default: 2 4"]);
}

#[tokio::test]
async fn a_batch_of_many_pieces_keeps_its_order_and_its_count() {
    let slots = [hostile("drop-even", OnFailure::Pass)];
    let world = world(vec![to("all", &["hostile"], vec![sink("a")])], &slots, &["a"]);
    let bodies: Vec<String> = (0..3_000).map(|at| at.to_string()).collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    world.submit("own", request(&[("", &bodies)])).await.unwrap();
    let odd: Vec<&str> = bodies.iter().skip(1).step_by(2).copied().collect();
    assert_eq!(world.given(0), [format!("t/default: {}", odd.join(" "))]);
    assert_eq!(world.table().line("t", Signal::Logs).filtered["hostile"], 1_500);
}

#[tokio::test]
async fn records_that_pass_a_plugin_that_is_not_loaded_are_counted() {
    let slots = [missing("later", false, OnFailure::Pass), hostile("drop-even", OnFailure::Pass)];
    let world = world(vec![to("all", &["later", "hostile"], vec![sink("a")])], &slots, &["a"]);
    for _ in 0..2 {
        world
            .submit("agent", request(&[("tenant.id=t", &["1", "2"]), ("tenant.id=u", &["3"])]))
            .await
            .unwrap();
    }
    let passed = r#"trommel_process_passed_records_total{plugin="later",reason="not_loaded"} 6"#;
    assert!(world.metrics.text().contains(passed), "{}", world.metrics.text());
}

#[test]
fn a_plugin_may_count_under_so_many_names_and_no_more() {
    use crate::pipeline::effects::Consequences;
    use crate::pipeline::left::Left;
    let metrics = Metrics::new();
    let alerts = Alerts::open(alerts::Settings::default(), metrics.clone()).unwrap();
    let shown = Consequences::new(alerts, metrics.clone());
    let tenant = TenantId::new("t").unwrap();
    for at in 0..300 {
        let effects =
            sandbox::Effects { counts: vec![(format!("name{at}"), 2)], ..sandbox::Effects::default() };
        shown.apply(vec![Left { effects, ..Left::of("p", &tenant) }], 0);
    }
    let text = metrics.text();
    assert!(text.contains(r#"trommel_process_limit_total{plugin="p",limit="names"} 44"#), "{text}");
    assert_eq!(text.matches("trommel_process_plugin_total{").count(), 257);
    assert!(text.contains(r#"trommel_process_plugin_total{plugin="p",name="_other"} 88"#));
}
