//! What becomes of a plugin that fails again and again, and of the records that it fails on.

use super::*;

const NOW: u64 = 1_700_000_000_000_000_000;
const CIRCUIT: CircuitSettings = CircuitSettings { calls: 8, failures: 2, pause: Duration::from_secs(3600) };

fn load(settings: &Settings) -> Plugin {
    sandbox().load_bytes(settings, guest()).unwrap()
}

/// One run for this tenant: how many records it failed on, or why it was not called.
fn run(plugin: &Plugin, tenant: &str, records: &[&str]) -> Result<u32, Uncallable> {
    let records: Vec<String> = records.iter().map(|record| (*record).to_owned()).collect();
    match plugin.try_run(piece_of(tenant, &records), NOW, false) {
        Ok(ran) => Ok(ran.failed_records()),
        Err(not_run) => {
            assert_eq!(bodies(not_run.piece).1, records, "nothing is lost");
            assert!(not_run.after > Duration::ZERO);
            Err(not_run.why)
        }
    }
}

fn with_circuit(mode: &str) -> Settings {
    let mut settings = settings(&format!(r#"{{"mode": "{mode}"}}"#));
    settings.limits.circuit = CIRCUIT;
    settings
}

#[test]
fn a_tenant_whose_records_make_it_trap_switches_it_off_for_itself_alone() {
    let sandbox = Sandbox::open(None, Metrics::new()).unwrap();
    let plugin = sandbox.load_bytes(&with_circuit("trap-on"), guest()).unwrap();
    assert_eq!(run(&plugin, "acme", &["poison"]), Ok(1));
    assert_eq!(run(&plugin, "acme", &["fine", "fine"]), Ok(0));
    assert_eq!(plugin.open_circuits(), 0);
    assert_eq!(run(&plugin, "acme", &["poison", "poison", "fine"]), Ok(2));
    assert_eq!(run(&plugin, "acme", &["fine"]), Err(Uncallable::CircuitOpen));
    assert_eq!(plugin.uncallable("acme"), Some(Uncallable::CircuitOpen));
    assert_eq!(run(&plugin, "globex", &["fine"]), Ok(0));
    assert_eq!((plugin.open_circuits(), plugin.is_unmakeable()), (1, false));
    let usage = plugin.usage();
    let circuits: Vec<_> = usage.tenants.iter().map(|of| (of.tenant.as_str(), of.circuit)).collect();
    assert!(circuits.contains(&("acme", "open")) && circuits.contains(&("globex", "closed")), "{circuits:?}");
    let again = sandbox.load_bytes(&with_circuit("trap-on"), guest()).unwrap();
    assert_eq!(run(&again, "acme", &["fine"]), Ok(0), "a new version begins anew");
}

#[test]
fn one_poisonous_record_among_many_switches_off_nothing() {
    let plugin = load(&with_circuit("trap-on"));
    for _ in 0..30 {
        assert_eq!(run(&plugin, "acme", &["fine", "poison", "fine", "fine"]), Ok(1));
    }
}

#[test]
fn a_plugin_that_says_no_is_asked_again() {
    for mode in ["error-late", "bad-row"] {
        let plugin = load(&with_circuit(mode));
        for _ in 0..30 {
            assert_eq!(run(&plugin, "acme", &["one", "two"]), Ok(2), "{mode}");
        }
    }
}

#[test]
fn one_that_is_stopped_after_a_wrong_use_was_stopped() {
    let metrics = Metrics::new();
    let own = Sandbox::open(None, metrics.clone()).unwrap();
    let plugin = own.load_bytes(&with_circuit("bad-set-then-trap"), guest()).unwrap();
    let error = plugin.process(piece(&["one"]), None, NOW).result.unwrap_err();
    let PluginError::Trap(text) = error else { panic!("{error:?}") };
    assert!(text.starts_with("search: ") && text.contains("; then ") && text.contains(" in "), "{text}");
    for mode in ["bad-set-then-trap", "bad-set-then-loop"] {
        let plugin = own.load_bytes(&with_circuit(mode), guest()).unwrap();
        (0..2).for_each(|_| assert_eq!(run(&plugin, "acme", &["one"]), Ok(1)));
        assert_eq!(run(&plugin, "acme", &["one"]), Err(Uncallable::CircuitOpen), "{mode}");
    }
    assert!(metrics.text().contains(r#"limit="time"} 2"#), "{}", metrics.text());
}

#[test]
fn after_traps_in_a_row_the_next_instance_waits() {
    let mut settings = with_circuit("trap");
    settings.limits.circuit = CircuitSettings { calls: 64, failures: 64, ..CIRCUIT };
    let plugin = load(&settings);
    let ran = (0..100).filter(|_| run(&plugin, "acme", &["one"]).is_ok()).count();
    assert!((4..50).contains(&ran), "{ran} of 100");
    assert!([None, Some(Uncallable::Restarting)].contains(&plugin.uncallable("acme")));
}

#[test]
fn what_a_run_took_beyond_its_share_of_the_processor_is_paid_back_first() {
    let mut settings = settings(r#"{"mode": "loop"}"#);
    settings.limits.cpu = Some(Duration::from_millis(1));
    let plugin = load(&settings);
    assert_eq!(run(&plugin, "acme", &["one"]), Ok(1));
    assert_eq!(run(&plugin, "acme", &["one"]), Err(Uncallable::OverCpu));
    assert_eq!(
        run(&plugin, "globex", &["one"]),
        Ok(1),
        "each tenant has its own instances, and its own share"
    );
    let begun = plugin.try_run(piece(&["one"]), NOW, true).unwrap();
    assert_eq!(begun.failed_records(), 1, "a batch that was begun is ended");
    let is_over = |tenant: &str| plugin.usage().tenants.iter().any(|of| of.tenant == tenant && of.over_cpu);
    assert!(is_over("acme") && is_over("globex"));
    settings.instance = Instance::Shared;
    let shared = load(&settings);
    assert_eq!(run(&shared, "acme", &["one"]), Ok(1));
    assert_eq!(run(&shared, "globex", &["one"]), Err(Uncallable::OverCpu), "one share for all");
}

#[test]
fn what_is_beyond_a_limit_is_counted_by_the_limit() {
    let metrics = Metrics::new();
    let own = Sandbox::open(None, metrics.clone()).unwrap();
    for (mode, limits) in [
        ("loop", &["time"][..]),
        ("balloon", &["memory"]),
        ("deep", &["stack"]),
        ("output-flood", &["output"]),
        ("hostcall-flood", &["hostcall"]),
        ("search10000", &["work"]),
        ("log-flood", &["log"]),
        ("name-flood", &["names"]),
        ("limit-flood", &["buckets"]),
    ] {
        let mut settings = settings(&format!(r#"{{"mode": "{mode}", "pattern": "[a-z]+@[a-z.]+"}}"#));
        settings.name = mode.into();
        settings.limits.memory = 16 << 20;
        // What a mode is not about ends no call of it, however slow the machine is.
        settings.limits.time = Duration::from_millis(if mode == "loop" { 20 } else { 5_000 });
        let plugin = own.load_bytes(&settings, guest()).unwrap();
        let _ = plugin.process(piece(&["one"]), None, NOW);
        let text = metrics.text();
        let is_counted = |limit: &&str| {
            let line = format!(r#"trommel_process_limit_total{{plugin="{mode}",limit="{limit}"}} "#);
            text.lines().any(|shown| shown.starts_with(&line) && !shown.ends_with(" 0"))
        };
        assert!(limits.iter().any(is_counted), "{mode}: {text}");
    }
}

#[test]
fn an_operator_may_give_more_and_less() {
    let sandbox = sandbox();
    let large = "x".repeat(256 << 10);
    for (output, is_ok) in [(4, false), (64, true)] {
        let mut settings = settings(r#"{"mode": "output-flood"}"#);
        settings.limits.output = output;
        let plugin = sandbox.load_bytes(&settings, guest()).unwrap();
        let called = plugin.process(piece(&[&large]), None, NOW);
        assert_eq!(called.result.is_ok(), is_ok, "10 MB for 256 KiB: {:?}", called.result.err());
    }
    let mut wide = settings(r#"{"mode": "hostcall-flood"}"#);
    wide.limits.hostcall = 64;
    let plugin = sandbox.load_bytes(&wide, guest()).unwrap();
    assert!(plugin.process(piece(&[&large]), None, NOW).result.is_ok(), "8 MiB for 256 KiB");
}

/// The bodies of what was put aside.
fn aside(quarantined: &Quarantined) -> Vec<String> {
    let batch = batch_of("acme", Signal::Logs, quarantined.bytes.to_vec());
    assert_eq!(batch.records, quarantined.records);
    bodies(only_piece(&batch)).1
}

fn records(number: usize, poison: &[usize]) -> Vec<String> {
    let record = |at| if poison.contains(&at) { format!("poison {at}") } else { format!("record {at}") };
    (0..number).map(record).collect()
}

#[test]
fn records_at_fault_are_put_aside_and_the_others_go_on() {
    let mut settings = settings(r#"{"mode": "trap-on"}"#);
    settings.on_failure = OnFailure::Quarantine;
    let plugin = load(&settings);
    let ran = plugin.run(piece_of("acme", &records(512, &[3, 4, 300])), NOW);
    let put_aside: Vec<Vec<String>> = ran.quarantined.iter().map(aside).collect();
    assert_eq!(put_aside, [vec!["poison 3", "poison 4"], vec!["poison 300"]]);
    assert!(ran.quarantined[0].error.starts_with("trap: "), "{}", ran.quarantined[0].error);
    assert_eq!(ran.failed_records(), 3);
    let left = bodies(ran.piece).1;
    assert_eq!(left.len(), 509);
    assert!(left.iter().all(|body| body.starts_with("record")));
}

#[test]
fn what_the_plugin_drops_meanwhile_does_not_mix_up_what_is_put_aside() {
    let mut settings = settings(r#"{"mode": "drop-even-or-trap"}"#);
    settings.on_failure = OnFailure::Quarantine;
    let plugin = load(&settings);
    for poison in [&[0][..], &[63], &[5, 40, 41, 62], &[31, 32]] {
        let ran = plugin.run(piece_of("acme", &records(64, poison)), NOW);
        let put_aside: Vec<String> = ran.quarantined.iter().flat_map(aside).collect();
        let expected: Vec<String> = poison.iter().map(|at| format!("poison {at}")).collect();
        assert_eq!(put_aside, expected);
        let left = bodies(ran.piece).1;
        assert!(left.iter().all(|body| body.starts_with("record")), "{left:?}");
        assert_eq!(left.len() + ran.filtered as usize + poison.len(), 64);
    }
}

#[test]
fn a_piece_that_fails_as_a_whole_is_put_aside_as_one() {
    let mut settings = settings(r#"{"mode": "trap"}"#);
    settings.on_failure = OnFailure::Quarantine;
    let plugin = load(&settings);
    let ran = plugin.run(piece_of("acme", &records(20, &[])), NOW);
    assert_eq!(ran.quarantined.iter().map(aside).collect::<Vec<_>>(), [records(20, &[])]);
    assert_eq!(ran.piece.records(), 0);
}

/// One run in eight has its time taken, of each tenant's: whatever the order they come in.
#[test]
fn tenants_that_take_turns_are_each_charged_their_own_time() {
    // What is used is known by the plugin's name: a sandbox of its own.
    let own = Sandbox::open(None, Metrics::new()).unwrap();
    let plugin = own.load_bytes(&settings(r#"{"mode": "drop-even"}"#), guest()).unwrap();
    let tenants = ["acme", "globex", "hooli", "initech"];
    for _ in 0..16 {
        for tenant in tenants {
            plugin.run(piece_of(tenant, &records(100, &[])), NOW);
        }
    }
    for tenant in tenants {
        let usage = plugin.usage();
        let of = usage.tenants.iter().find(|of| of.tenant == tenant).unwrap();
        assert!(of.calls == 16 && of.cpu_microseconds > 0, "{of:?}");
    }
}

#[test]
fn what_a_plugin_uses_is_known_by_tenant() {
    let own = Sandbox::open(None, Metrics::new()).unwrap();
    let plugin = own.load_bytes(&settings(r#"{"mode": "trap-on"}"#), guest()).unwrap();
    for _ in 0..20 {
        plugin.run(piece_of("acme", &records(100, &[])), NOW);
    }
    plugin.run(piece_of("globex", &records(2, &[1])), NOW);
    let usage = plugin.usage();
    let of = |tenant: &str| usage.tenants.iter().find(|of| of.tenant == tenant).unwrap();
    let acme = of("acme");
    assert_eq!((acme.calls, acme.records, acme.instances), (20, 2000, 1));
    assert!(acme.cpu_microseconds > 0 && acme.failures.is_empty());
    assert!(acme.memory_bytes >= 64 << 10 && acme.memory_peak_bytes == acme.memory_bytes, "{acme:?}");
    let globex = of("globex");
    assert_eq!((globex.calls, globex.records), (3, 2));
    assert_eq!(globex.failures, BTreeMap::from([("trap", 2)]));
    let of_tenants = usage.tenants.iter().map(|of| of.memory_bytes).sum::<u64>();
    assert!(usage.memory_bytes > of_tenants, "the instance of the load is nobody's");
    drop(plugin);
    let again = own.load_bytes(&settings(r#"{"mode": "noop"}"#), guest()).unwrap();
    let of_acme = again.usage().tenants.into_iter().find(|of| of.tenant == "acme").unwrap();
    assert_eq!(
        (of_acme.calls, of_acme.instances, of_acme.memory_bytes),
        (20, 0, 0),
        "memory goes with its instances"
    );
}
