//! What becomes of a call, of its piece, and of the instance.

use super::*;

const NOW: u64 = 1_700_000_000_000_000_000;

/// The error of one call in this mode, and whether the instance lives on. Nothing of the call is left in the piece.
fn failure(mode: &str, more: &str) -> (PluginError, bool) {
    failure_on(mode, more, &["one", "two", "three"])
}

fn failure_on(mode: &str, more: &str, records: &[&str]) -> (PluginError, bool) {
    failure_within(&settings(&format!(r#"{{"mode": "{mode}"{more}}}"#)), records)
}

fn failure_within(settings: &Settings, records: &[&str]) -> (PluginError, bool) {
    let sandbox = sandbox();
    let plugin = sandbox.load_bytes(settings, guest()).unwrap();
    // The instance of the load belongs to no tenant.
    let idle = plugin.idle_instances();
    let called = plugin.process(piece(records), None, NOW);
    assert_eq!(called.dropped, 0);
    let (piece, left) = bodies(called.piece);
    assert_eq!(left, records, "a call that failed leaves the piece as it was");
    let error = called.result.unwrap_err();
    let may_live = plugin.idle_instances() > idle;
    assert_good_call_follows(&plugin, piece);
    (error, may_live)
}

/// Whatever happened, the next call finds an instance that works: the mode is the same, so it fails the same way,
/// and not because of what the call before left behind.
fn assert_good_call_follows(plugin: &Plugin, piece: Piece) {
    let again = plugin.process(piece, None, NOW).result.unwrap_err();
    assert!(!again.to_string().contains("cannot enter component instance"), "{again}");
}

fn ok(mode: &str, more: &str, records: &[&str]) -> (Effects, u32, Vec<String>) {
    let config = format!(r#"{{"mode": "{mode}"{more}}}"#);
    let plugin = sandbox().load_bytes(&settings(&config), guest()).unwrap();
    let called = plugin.process(piece(records), None, NOW);
    let (_, left) = bodies(called.piece);
    (called.result.unwrap(), called.dropped, left)
}

fn counts(effects: &Effects) -> Vec<(&str, u64)> {
    effects.counts.iter().map(|(name, number)| (name.as_str(), *number)).collect()
}

const EMAIL: &str = r#", "pattern": "[a-z]+@[a-z.]+""#;

#[test]
fn a_call_that_is_stopped_retires_its_instance() {
    let check = |mode: &str, more: &str, error: PluginError| {
        assert_eq!(failure(mode, more), (error, false), "{mode}");
    };
    check("loop", "", PluginError::Time { limit_ms: 100 });
    // To fill the usual 64 MiB takes a slow machine longer than the usual time.
    let mut small = settings(r#"{"mode": "balloon"}"#);
    small.limits.memory = 16 << 20;
    assert_eq!(failure_within(&small, &["one"]), (PluginError::Memory { limit: 16 << 20 }, false));
    check(
        "hostcall-flood",
        "",
        PluginError::Output("handed more than 1048576 bytes to one host function".into()),
    );
    let worth = "the edits of the call take more bytes than a piece of this size is worth";
    for (mode, function) in [
        ("output-flood", "set-text-attribute"),
        ("long-key", "set-int-attribute"),
        ("replace-bomb", "replace"),
        ("redact-bomb", "search-and-replace"),
        ("mask-bomb", "mask-keys"),
    ] {
        check(mode, r#", "pattern": "[a-z]""#, PluginError::Output(format!("{function}: {worth}")));
    }
    let texts = "matches: the texts take more than 16777216 bytes";
    check("matches-bomb", "", PluginError::Output(texts.into()));
}

#[test]
fn a_trap_says_what_happened_and_where() {
    for (mode, text) in [
        ("trap", "wasm trap: wasm `unreachable` instruction executed in "),
        ("trap-late", "wasm trap: wasm `unreachable` instruction executed in "),
        ("deep", "wasm trap: call stack exhausted in hostile::deep < hostile::deep < "),
    ] {
        let (error, may_live) = failure(mode, "");
        let PluginError::Trap(trap) = &error else { panic!("{mode}: {error}") };
        // What is between is the compiler's to decide.
        let is_whole = mode == "deep" || trap.contains("trommel:plugin/processor@0.1.0#process");
        assert!(trap.starts_with(text) && is_whole, "{mode}: {error}");
        assert!(!may_live);
    }
}

#[test]
fn work_of_the_host_is_bounded() {
    for mode in ["search10000", "texts10000"] {
        let (error, may_live) = failure(mode, EMAIL);
        assert!(matches!(error, PluginError::Work(_) | PluginError::Time { .. }), "{mode}: {error}");
        assert!(!may_live);
    }
}

#[test]
fn a_wrong_use_fails_the_call_and_the_instance_lives() {
    let check = |mode: &str, text: &str| {
        assert_eq!(failure(mode, EMAIL), (PluginError::Fault(text.into()), true), "{mode}");
    };
    let later = "is not in `needs` of the manifest";
    check("undeclared-alert", &format!("alerts.resolve: `alerts` {later}"));
    check("undeclared-series", &format!("series.add: `series` {later}"));
    check("undeclared-store", &format!("store.get: `store` {later}"));
    check("bad-set", "search: there is no pattern set 99; `host.compile` made 1");
    check("name-flood", "count: a call may use 64 names");
}

#[test]
fn an_edit_that_is_wrong_fails_the_call_and_the_text_names_it() {
    let check = |mode: &str, part: &str| {
        let (error, may_live) = failure(mode, "");
        assert!(matches!(&error, PluginError::Fault(text) if text.contains(part)), "{mode}: {error}");
        assert!(may_live);
    };
    check("bad-row", "drop");
    check("bad-range", "replace");
    check("bad-lists", "replace");
    check("bad-splice", "splice");
}

#[test]
fn an_error_of_the_guest_is_cut_escaped_and_survivable() {
    let text = "changed its mind\\nand\\u{1b}[31m shouts";
    assert_eq!(failure("error-late", ""), (PluginError::Guest(text.into()), true));
    assert_eq!(
        failure("late-compile", ""),
        (PluginError::Guest("compile works inside `configure` only".into()), true)
    );
}

#[test]
fn edits_and_effects_of_a_good_call_stand() {
    let (effects, dropped, left) = ok("drop-even", "", &["a", "b", "c", "d", "e"]);
    assert_eq!(counts(&effects), [("dropped", 3)]);
    assert_eq!(effects.gauges, [("last".to_string(), 3.0)]);
    assert_eq!((dropped, left), (3, vec!["b".to_string(), "d".to_string()]));

    let (effects, dropped, left) = ok("redact", EMAIL, &["mail jane@example.com or bob@b.de", "none", "x@y"]);
    assert_eq!(counts(&effects), [("redacted", 3)]);
    assert_eq!(
        (dropped, left.as_slice()),
        (0, ["mail [redacted] or [redacted]", "none", "[redacted]"].map(String::from).as_slice())
    );

    let (effects, ..) = ok("search", EMAIL, &["mail jane@example.com or bob@b.de", "none", "x@y"]);
    assert_eq!(counts(&effects), [("hits", 3)]);
}

#[test]
fn logging_never_fails_a_call() {
    for mode in ["log-flood", "log-long", "print"] {
        assert!(ok(mode, "", &["a"]).0.is_empty(), "{mode}");
    }
}

#[test]
fn the_clock_is_the_callers() {
    assert_eq!(counts(&ok("clock", "", &["a"]).0), [("now", u64::from(NOW as u32))]);
}

#[test]
fn rights_hold_for_each_host_call() {
    let check = |manifest: &str, mode: &str, key: &str, fault: Option<&str>| {
        let config = format!(r#"{{"mode": "{mode}", "key": "{key}"}}"#);
        let plugin = sandbox().load_bytes(&settings(&config), &guest_with(manifest)).unwrap();
        let called = plugin.process(piece(&["a"]), None, NOW);
        let fault = fault.map(|text| PluginError::Fault(text.into()));
        assert_eq!(called.result.err(), fault, "{manifest} {mode} {key}");
    };
    check("x;item:http.*;;;", "read-attribute", "http.method", None);
    check(
        "x;item:http.*;;;",
        "read-attribute",
        "user",
        Some("text-attribute: `item:user` is not in `reads` of the manifest"),
    );
    check(
        "x;item:*;;;",
        "write-attribute",
        "user",
        Some("remove-attribute: `item:user` is not in `writes` of the manifest"),
    );
    check("x;;item:user;;", "write-attribute", "user", None);
    check("x;name;;;", "read-bodies", "", Some("texts: `body` is not in `reads` of the manifest"));
    check("x;body;;;", "bad-row", "", Some("drop: `drop` is not in `writes` of the manifest"));
    check(
        "x;body;drop;;",
        "forge-identity-remove",
        "",
        Some("remove-attribute: `resource:tenant.id` is not in `writes` of the manifest"),
    );
    check("x;;body;;", "redact", "", Some("search-and-replace: `body` is not in `reads` of the manifest"));
}

#[test]
fn a_secret_is_used_by_its_name_only() {
    let (_, _, left) =
        ok("hash", r#", "pattern": "[a-z]+@[a-z.]+", "secret": "join""#, &["a@b", "to a@b", "c@d"]);
    let hash = left[0].clone();
    assert!(hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
    assert_eq!(left[1], format!("to {hash}"));
    assert_ne!(left[2], hash);
    let (error, _) = failure_on("hash", r#", "pattern": "@", "secret": "other""#, &["a@b"]);
    assert_eq!(
        error,
        PluginError::Fault("hash: the configuration of this plugin has no secret `other`".into())
    );
}

#[test]
fn limit_is_one_bucket_for_all_instances_and_one_for_each_tenant() {
    let plugin = hostile("limit");
    let passed = |tenant: &str, now| {
        counts(&plugin.process(piece_of(tenant, &["a".into()]), None, now).result.unwrap())[0].1
    };
    assert_eq!([passed("acme", NOW), passed("acme", NOW), passed("acme", NOW)], [10, 5, 0]);
    assert_eq!(passed("other", NOW), 10);
    assert_eq!(passed("acme", NOW + 3_000_000_000), 3);
}

#[test]
fn limit_of_more_keys_than_there_is_room_for_lets_nothing_pass_and_harms_no_other_tenant() {
    let plugin = hostile("limit-flood");
    let passed = |tenant: &str| {
        counts(&plugin.process(piece_of(tenant, &["a".into()]), None, NOW).result.unwrap())[0].1
    };
    assert_eq!([passed("acme"), passed("acme"), passed("other")], [1_000, 0, 1_000]);
}

#[test]
fn tenants_never_share_an_instance_unless_the_operator_says_so() {
    let calls = |instance, tenants: &[&str]| {
        let mut settings = settings(r#"{"mode": "remember"}"#);
        settings.instance = instance;
        let plugin = sandbox().load_bytes(&settings, guest()).unwrap();
        let call = |tenant: &&str| {
            counts(&plugin.process(piece_of(tenant, &["a".into()]), None, NOW).result.unwrap())[0].1
        };
        tenants.iter().map(call).collect::<Vec<_>>()
    };
    assert_eq!(calls(Instance::PerTenant, &["a", "a", "b", "a", "b"]), [1, 2, 1, 3, 2]);
    assert_eq!(calls(Instance::Shared, &["a", "a", "b", "a", "b"]), [1, 2, 3, 4, 5]);
}

#[test]
fn calls_at_the_same_time_have_instances_of_their_own() {
    let config = r#"{"mode": "redact", "pattern": "[a-z]+@[a-z.]+"}"#;
    let mut settings = settings(config);
    settings.instance = Instance::Shared;
    let plugin = sandbox().load_bytes(&settings, guest()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let plugin = &plugin;
            scope.spawn(move || {
                for call in 0..50 {
                    let body = format!("{thread} {call} a@b.c");
                    let called = plugin.process(piece(&[&body]), None, NOW);
                    called.result.unwrap();
                    assert_eq!(bodies(called.piece).1, [format!("{thread} {call} [redacted]")]);
                }
            });
        }
    });
    assert!((1..=4).contains(&plugin.idle_instances()));
}

#[test]
fn idle_instances_are_bounded() {
    let plugin = hostile("noop");
    for tenant in 0..80 {
        plugin.process(piece_of(&format!("tenant{tenant}"), &["a".into()]), None, NOW).result.unwrap();
    }
    assert_eq!(plugin.idle_instances(), 64);
}

#[test]
fn calls_are_counted_by_what_became_of_them() {
    let metrics = Metrics::new();
    let own = Sandbox::open(None, metrics.clone()).unwrap();
    for mode in ["noop", "trap", "bad-row", "error-late"] {
        let plugin = own.load_bytes(&settings(&format!(r#"{{"mode": "{mode}"}}"#)), guest()).unwrap();
        let _ = plugin.process(piece(&["a"]), None, NOW);
    }
    let text = metrics.text();
    for result in ["ok", "trap", "fault", "error"] {
        let line = format!(r#"trommel_process_calls_total{{plugin="hostile",result="{result}"}} 1"#);
        assert!(text.contains(&line), "{result}: {text}");
    }
}

/// 512 records, of which those numbers are poisonous.
fn poisoned(at: &[usize]) -> Vec<String> {
    (0..512)
        .map(|number| if at.contains(&number) { "poison".into() } else { format!("record {number}") })
        .collect()
}

fn run(mode: &str, on_failure: OnFailure, records: &[String]) -> (Ran, Vec<String>) {
    let sandbox = sandbox();
    let mut settings = settings(&format!(r#"{{"mode": "{mode}"}}"#));
    settings.on_failure = on_failure;
    let plugin = sandbox.load_bytes(&settings, guest()).unwrap();
    let mut ran = plugin.run(piece_of("acme", records), NOW);
    let (piece, left) = bodies(ran.piece);
    ran.piece = piece;
    (ran, left)
}

#[test]
fn one_poisonous_record_is_found_among_512() {
    for poison in [0, 1, 255, 256, 300, 511] {
        for (policy, kept) in [(OnFailure::Pass, 512), (OnFailure::Drop, 511), (OnFailure::Refuse, 511)] {
            let (ran, left) = run("trap-on", policy, &poisoned(&[poison]));
            assert_eq!(left.len(), kept, "{poison} {policy:?}");
            assert_eq!(left.contains(&"poison".to_string()), policy == OnFailure::Pass);
            assert_eq!(ran.failed.iter().map(|failed| failed.records).collect::<Vec<_>>(), [1]);
            assert!(matches!(ran.failed[0].error, PluginError::Trap(_)));
            assert_eq!(ran.filtered, 0);
        }
    }
}

#[test]
fn several_poisonous_records_are_found_and_the_others_pass() {
    let (ran, left) = run("trap-on", OnFailure::Drop, &poisoned(&[3, 4, 100, 511]));
    assert_eq!(left.len(), 508);
    assert!(!left.contains(&"poison".to_string()));
    assert_eq!(ran.failed.iter().map(|failed| failed.records).sum::<u32>(), 4);
}

#[test]
fn a_record_that_loops_is_found_within_four_times_the_limit() {
    let before = super::limits::thread_cpu();
    let (ran, left) = run("loop-on", OnFailure::Drop, &poisoned(&[300]));
    let used = super::limits::thread_cpu() - before;
    assert!(used < Duration::from_millis(700), "{used:?}");
    assert_eq!(left.len(), 511);
    assert_eq!(ran.failed.iter().map(|failed| failed.records).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_plugin_that_always_loops_costs_a_bounded_time() {
    let before = super::limits::thread_cpu();
    let (ran, left) = run("loop", OnFailure::Drop, &poisoned(&[]));
    let used = super::limits::thread_cpu() - before;
    assert!(used < Duration::from_millis(700), "{used:?}");
    assert!(left.is_empty());
    assert_eq!(ran.failed.iter().map(|failed| failed.records).sum::<u32>(), 512);
}

#[test]
fn a_plugin_that_always_fails_leaves_every_record_to_the_policy() {
    for (policy, kept) in [(OnFailure::Pass, 512), (OnFailure::Refuse, 0)] {
        let (ran, left) = run("error-late", policy, &poisoned(&[]));
        assert_eq!(left.len(), kept);
        assert_eq!(ran.failed.len(), 1, "neighbours with the same reason are one entry");
        assert_eq!(ran.failed[0].records, 512);
        assert!(ran.effects.is_empty());
    }
}

#[test]
fn what_the_plugin_drops_in_one_half_moves_no_record_of_the_other() {
    let (ran, left) = run("drop-even", OnFailure::Drop, &poisoned(&[]));
    assert_eq!((ran.filtered, left.len()), (256, 256));
    assert!(ran.failed.is_empty());
}

#[test]
fn a_signal_that_the_plugin_does_not_name_is_left_alone() {
    let plugin = hostile("trap");
    assert_eq!(plugin.manifest().signals, Signal::ALL);
}
