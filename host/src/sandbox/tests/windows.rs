//! Series, alerts, the store and the timer: `tests/guests/hostile-timer` in each of its modes.

use super::*;
use std::path::Path;

const NOW: u64 = 1_700_000_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn timer_guest() -> &'static [u8] {
    artifacts::guest("hostile-timer").unwrap()
}

/// The guest with another manifest: `needs;window-seconds;`.
fn timer_guest_with(manifest: &str) -> Vec<u8> {
    let mut bytes = timer_guest().to_vec();
    let at = bytes.windows(9).position(|window| window == b"MANIFEST ").unwrap();
    let text = format!("MANIFEST {manifest}");
    bytes[at..at + 64].fill(b'.');
    bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
    bytes
}

fn modes(process: &str, tick: &str) -> Settings {
    let config = format!(r#"{{"process": "{process}", "tick": "{tick}"}}"#);
    Settings { name: format!("{process}/{tick}"), ..settings(&config) }
}

fn loaded(process: &str, tick: &str) -> Plugin {
    sandbox().load_bytes(&modes(process, tick), timer_guest()).unwrap()
}

fn processed(process: &str, records: &[&str]) -> Result<Effects, PluginError> {
    loaded(process, "").process(piece(records), None, NOW).result
}

fn ticked(tick: &str, closed: &[Window]) -> Result<Effects, PluginError> {
    loaded("", tick).tick(&tenant("acme"), NOW, closed)
}

fn window(key: &str, values: &[f64]) -> Window {
    let mut cell = Cell::default();
    values.iter().for_each(|value| cell.add(*value));
    Window { key: key.into(), start_ns: NOW - 10 * SECOND, end_ns: NOW, cell }
}

/// `key: count, sum` of each series.
fn sums(effects: &Effects) -> Vec<String> {
    effects.series.iter().map(|(key, cell)| format!("{key}: {}, {}", cell.count, cell.sum)).collect()
}

/// `key+count` of what fires, `key-` of what is resolved.
fn alerts(effects: &Effects) -> Vec<String> {
    let word = |what: &AlertEffect| match what {
        AlertEffect::Fire(alert) => format!("{}+{}", alert.key, alert.count),
        AlertEffect::Resolve(key) => format!("{key}-"),
    };
    effects.alerts.iter().map(word).collect()
}

fn fault(text: &str) -> Result<Effects, PluginError> {
    Err(PluginError::Fault(text.into()))
}

#[test]
fn values_are_added_up_by_key() {
    let effects = processed("add", &["1", "21", "2", "0.5"]).unwrap();
    assert_eq!(sums(&effects), ["1: 2, 22", "2: 1, 2", "5: 1, 0.5", "all: 4, 24.5"]);
    let all = &effects.series["all"];
    assert_eq!((all.min, all.max), (0.5, 21.0));
    assert_eq!(all.buckets[15..=20], [1, 1, 1, 0, 0, 1]);
}

#[test]
fn values_that_are_no_finite_numbers_are_left_out() {
    assert_eq!(sums(&processed("not-finite", &["a"]).unwrap()), ["all: 1, 2"]);
}

#[test]
fn a_new_series_key_per_record_costs_names_and_no_value() {
    let records: Vec<String> = (0..512).map(|number| number.to_string()).collect();
    let called = loaded("key-per-record", "").process(piece_of("acme", &records), None, NOW);
    let series = called.result.unwrap().series;
    assert_eq!(series.len(), 257);
    assert_eq!(series["_other"].count, 256);

    let series = processed("long-keys", &["a", "b"]).unwrap().series;
    assert!(series.len() == 2 && series.keys().all(|key| key.len() == 256), "{series:?}");
}

#[test]
fn wrong_uses_of_series_and_alerts_fail_the_call_by_name() {
    assert_eq!(processed("bad-lists", &["a"]), fault("series.add-all: 1 keys for 0 values"));
    assert_eq!(processed("fire-no-key", &["a"]), fault("alerts.fire: an alert has a key"));
    assert_eq!(processed("set", &["a"]), fault("store.set: works inside `tick` only"));
    assert_eq!(processed("remove", &["a"]), fault("store.remove: works inside `tick` only"));
}

#[test]
fn a_tick_has_no_batch() {
    for (mode, function) in
        [("read-batch", "rows"), ("drop", "drop"), ("add", "series.add"), ("limit", "limit")]
    {
        assert_eq!(ticked(mode, &[]), fault(&format!("{function}: works inside `process` only")));
    }
    let compile = PluginError::Guest("compile works inside `configure` only".into());
    assert_eq!(ticked("compile", &[]), Err(compile));
}

#[test]
fn what_the_manifest_does_not_need_cannot_be_used() {
    let check = |manifest: &str, process: &str, tick: &str, text: &str| {
        let plugin = sandbox().load_bytes(&modes(process, tick), &timer_guest_with(manifest)).unwrap();
        let result = match tick {
            "" => plugin.process(piece(&["1"]), None, NOW).result,
            _ => plugin.tick(&tenant("acme"), NOW, &[]),
        };
        assert_eq!(result, fault(&format!("{text} is not in `needs` of the manifest")));
    };
    check("series store;10;", "fire", "", "alerts.fire: `alerts`");
    check("series store;10;", "", "resolve", "alerts.resolve: `alerts`");
    check("series alerts;10;", "get", "", "store.get: `store`");
    check("series;10;", "", "forget", "store.remove: `store`");
}

#[test]
fn series_windows_and_a_timer_go_together() {
    let check = |bytes: &[u8], settings: &Settings, text: &str| {
        let refusal = sandbox().load_bytes(settings, bytes).unwrap_err().to_string();
        assert_eq!(refusal, text);
    };
    let timer = |manifest: &str, text: &str| check(&timer_guest_with(manifest), &modes("", ""), text);
    timer("series;0;", "exports `timer`, but its `window-seconds` is 0: it would never be called");
    timer(";0;", "exports `timer`, but its `window-seconds` is 0: it would never be called");
    let no_series = "asks for windows (`window-seconds`), but does not need `series`: none would ever close";
    timer("alerts;10;", no_series);
    timer("series;3601;", "asks for windows of 3601 s; `window-seconds` is 1 to 3600");
    timer("series;4294967295;", "asks for windows of 4294967295 s; `window-seconds` is 1 to 3600");
    let no_timer = "needs `series`, but its `window-seconds` is 0, and it exports no `timer` to look at them";
    check(&guest_with("x;body;drop;series;"), &settings("{}"), no_timer);
    for manifest in ["series;1;", "series;3600;", "series series;60;"] {
        sandbox().load_bytes(&modes("", ""), &timer_guest_with(manifest)).unwrap();
    }
    let alerting = sandbox().load_bytes(&settings("{}"), &guest_with("x;body;drop;alerts store;")).unwrap();
    assert_eq!(alerting.tick(&tenant("acme"), NOW, &[window("a", &[])]), Ok(Effects::default()));
}

#[test]
fn a_call_that_fails_leaves_no_effect_and_its_good_halves_leave_theirs_once() {
    let plugin = loaded("all-then-trap", "");
    let called = plugin.process(piece(&["good", "poison"]), None, NOW);
    assert!(matches!(called.result, Err(PluginError::Trap(_))), "{:?}", called.result);

    let ran = plugin.run(piece(&["good", "poison", "good", "good"]), NOW);
    assert_eq!(ran.failed.iter().map(|failed| failed.records).sum::<u32>(), 1);
    // The first record alone, and the two at the end.
    assert_eq!(sums(&ran.effects), ["all: 2, 2"]);
    assert_eq!(alerts(&ran.effects), ["a+2"]);
    assert_eq!(ran.effects.counts, [("calls".to_string(), 2)]);
}

#[test]
fn one_worker_or_four_have_the_same_sums() {
    let pieces =
        || (0..64).map(|number| (0..10).map(|at| (number * 10 + at).to_string()).collect::<Vec<_>>());
    let sum = |workers: usize| {
        let plugin = loaded("add", "");
        let queue = Mutex::new(pieces().enumerate().collect::<Vec<_>>());
        let done = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some((number, records)) = { queue.lock().unwrap().pop() } {
                        let effects = plugin.process(piece_of("acme", &records), None, NOW).result.unwrap();
                        done.lock().unwrap().insert(number, effects);
                    }
                });
            }
        });
        let mut all = Effects::default();
        done.into_inner().unwrap().into_values().for_each(|effects| all.merge(effects));
        all
    };
    let one = sum(1);
    assert_eq!(one.series["all"].count, 640);
    assert_eq!(one.series["all"].sum, 204_480.0);
    assert_eq!(one, sum(4));
}

#[test]
fn alerts_of_a_call_are_handed_out_in_order_and_a_key_fires_once() {
    let effects = processed("fire-and-resolve", &["a"]).unwrap();
    assert_eq!(alerts(&effects), ["a+2", "b-"]);
    let AlertEffect::Fire(alert) = &effects.alerts[0] else { panic!("{effects:?}") };
    assert_eq!((alert.text.as_str(), alert.title.as_str()), ("two", "title of a"));
    assert_eq!(alert.labels, [("service".to_string(), "shop".to_string())]);
    assert_eq!(alert.severity, AlertSeverity::Warning);
}

#[test]
fn an_alert_with_a_megabyte_of_text_is_cut_where_it_shows() {
    let effects = processed("fire-long", &["a"]).unwrap();
    let AlertEffect::Fire(alert) = &effects.alerts[0] else { panic!("{effects:?}") };
    assert_eq!(alert.text, "x".repeat(16 << 10) + "…");
}

/// The effects of some calls in a sandbox of its own, and its metrics.
fn alone(process: &str, calls: u32) -> (Vec<Effects>, String) {
    let metrics = Metrics::new();
    let own = Sandbox::open(None, metrics.clone()).unwrap();
    let plugin = own.load_bytes(&modes(process, ""), timer_guest()).unwrap();
    let effects = (0..calls).map(|_| plugin.process(piece(&["a"]), None, NOW).result.unwrap()).collect();
    (effects, metrics.text())
}

#[test]
fn ten_thousand_alerts_in_a_call_neither_fail_it_nor_are_they_silent() {
    let (effects, metrics) = alone("fire-10000-keys", 5);
    let numbers: Vec<usize> = effects.iter().map(|effects| effects.alerts.len()).collect();
    assert_eq!(numbers, [32, 32, 32, 32, 32], "the same keys pass again");
    let line = r#"trommel_process_limit_total{plugin="fire-10000-keys/",limit="alerts"} 49840"#;
    assert!(metrics.contains(line), "{metrics}");

    let (effects, metrics) = alone("fire-10000-times", 2);
    assert_eq!(alerts(&effects[1]), ["same+10000"]);
    assert!(!metrics.contains("trommel_process_limit_total{"), "{metrics}");
}

#[test]
fn values_that_were_left_out_are_counted() {
    let (_, metrics) = alone("not-finite", 3);
    let line = r#"trommel_process_limit_total{plugin="not-finite/",limit="values"} 6"#;
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn a_flood_that_does_not_end_is_stopped() {
    assert_eq!(processed("fire-for-ever", &["a"]), Err(PluginError::Time { limit_ms: 100 }));
    assert!(matches!(processed("flood-series", &["a"]), Err(PluginError::Work(_))));
}

#[test]
fn a_tick_is_given_the_windows_as_they_are() {
    let closed = [window("a", &[1.0, 2.5]), window("b", &[])];
    let effects = ticked("report", &closed).unwrap();
    let (start, end) = (NOW - 10 * SECOND, NOW);
    let counts =
        [("tenant acme".into(), 1), (format!("a {start}-{end}"), 2), (format!("b {start}-{end}"), 0)];
    assert_eq!(effects.counts, counts);
    let gauges: Vec<(&str, f64)> =
        effects.gauges.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let of_a = [("a sum", 3.5), ("a min", 1.0), ("a max", 2.5)];
    let of_b = [("b sum", 0.0), ("b min", 0.0), ("b max", 0.0)];
    assert_eq!(gauges, [&[("now", NOW as f64)][..], &of_a, &of_b].concat());
}

#[test]
fn a_tick_that_loops_is_stopped_and_others_go_on() {
    let (looping, good) = (loaded("add", "loop"), loaded("", "report"));
    assert_eq!(looping.tick(&tenant("acme"), NOW, &[]), Err(PluginError::Time { limit_ms: 100 }));
    assert_eq!(looping.tick(&tenant("other"), NOW, &[]), Err(PluginError::Time { limit_ms: 100 }));
    assert!(good.tick(&tenant("acme"), NOW, &[]).is_ok());
    assert!(looping.process(piece(&["1"]), None, NOW).result.is_ok());
}

#[test]
fn ticks_are_counted_with_the_calls() {
    let metrics = Metrics::new();
    let own = Sandbox::open(None, metrics.clone()).unwrap();
    for tick in ["report", "remember-then-error"] {
        let _ = own.load_bytes(&modes("", tick), timer_guest()).unwrap().tick(&tenant("acme"), NOW, &[]);
    }
    let text = metrics.text();
    for (plugin, result) in [("/report", "ok"), ("/remember-then-error", "error")] {
        let line = format!(r#"trommel_process_calls_total{{plugin="{plugin}",result="{result}"}} 1"#);
        assert!(text.contains(&line), "{text}");
    }
}

/// Bytes that `process` sees of what the ticks have kept.
fn remembered(plugin: &Plugin, tenant: &str) -> u64 {
    plugin.process(piece_of(tenant, &["a".into()]), None, NOW).result.unwrap().counts[0].1
}

#[test]
fn each_tenant_has_a_store_and_all_versions_and_instances_see_it() {
    let sandbox = Sandbox::open(None, Metrics::new()).unwrap();
    let named = |tick: &str| Settings { name: "kept".into(), ..modes("get", tick) };
    let load = |tick: &str| sandbox.load_bytes(&named(tick), timer_guest()).unwrap();
    let plugin = load("remember");
    (0..3).for_each(|_| assert_eq!(plugin.tick(&tenant("acme"), NOW, &[]), Ok(Effects::default())));
    plugin.tick(&tenant("other"), NOW, &[]).unwrap();
    assert_eq!(
        [remembered(&plugin, "acme"), remembered(&plugin, "other"), remembered(&plugin, "third")],
        [3, 1, 0]
    );
    assert_eq!(remembered(&load(""), "acme"), 3, "a swapped version");
    load("forget").tick(&tenant("acme"), NOW, &[]).unwrap();
    assert_eq!([remembered(&plugin, "acme"), remembered(&plugin, "other")], [0, 1]);
}

#[test]
fn a_tick_that_fails_keeps_nothing() {
    let sandbox = Sandbox::open(None, Metrics::new()).unwrap();
    let named = |tick: &str| Settings { name: "kept".into(), ..modes("get", tick) };
    let load = |tick: &str| sandbox.load_bytes(&named(tick), timer_guest()).unwrap();
    load("remember").tick(&tenant("acme"), NOW, &[]).unwrap();
    for tick in ["remember-then-trap", "remember-then-error"] {
        let plugin = load(tick);
        assert!(plugin.tick(&tenant("acme"), NOW, &[]).is_err());
        assert!(plugin.tick(&tenant("acme"), NOW, &[]).is_err(), "nor does the next see it");
        assert_eq!(remembered(&plugin, "acme"), 1, "{tick}");
    }
}

#[test]
fn ticks_that_trap_open_the_circuit_of_their_tenant() {
    let circuit = CircuitSettings { calls: 8, failures: 2, pause: Duration::from_secs(3600) };
    let load = |tick: &str| {
        let mut settings = modes("get", tick);
        settings.limits.circuit = circuit;
        sandbox().load_bytes(&settings, timer_guest()).unwrap()
    };
    let plugin = load("remember-then-trap");
    for uncallable in [None, Some(Uncallable::CircuitOpen)] {
        assert!(plugin.tick(&tenant("acme"), NOW, &[]).is_err());
        assert_eq!(plugin.uncallable("acme"), uncallable);
    }
    assert_eq!(plugin.uncallable("other"), None);
    let wrong = load("remember-then-error");
    (0..30).for_each(|_| assert!(wrong.tick(&tenant("acme"), NOW, &[]).is_err()));
    assert_eq!(wrong.uncallable("acme"), None, "its instance lives");
}

#[test]
fn a_full_store_says_so_and_the_tick_goes_on() {
    let metrics = Metrics::new();
    let sandbox = Sandbox::open(None, metrics.clone()).unwrap();
    let plugin = sandbox.load_bytes(&modes("", "fill"), timer_guest()).unwrap();
    let effects = plugin.tick(&tenant("acme"), NOW, &[]).unwrap();
    assert_eq!(effects.counts, [("a plugin keeps 65536 bytes for each tenant".to_string(), 64)]);
    // The one that ended the loop, and one more.
    let line = r#"trommel_process_limit_total{plugin="/fill",limit="store"} 2"#;
    assert!(metrics.text().lines().any(|shown| shown == line), "{}", metrics.text());
}

#[test]
fn ticks_of_one_plugin_take_turns() {
    let plugin = loaded("get", "remember");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..25).for_each(|_| drop(plugin.tick(&tenant("turns"), NOW, &[]).unwrap())));
        }
    });
    assert_eq!(remembered(&plugin, "turns"), 100);
}

/// A sandbox that keeps what plugins keep in this folder, and the plugin that counts its ticks.
fn keeping(folder: &Path, metrics: &Metrics) -> Plugin {
    let sandbox = Sandbox::open(None, metrics.clone()).unwrap().keep_state_in(folder.into());
    let settings = Settings { name: "kept".into(), ..modes("get", "remember") };
    sandbox.load_bytes(&settings, timer_guest()).unwrap()
}

#[test]
fn what_a_plugin_keeps_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("plugin-state");
    let plugin = keeping(&state, &Metrics::new());
    (0..2).for_each(|_| drop(plugin.tick(&tenant("acme"), NOW, &[]).unwrap()));
    plugin.tick(&tenant("other"), NOW, &[]).unwrap();
    drop(plugin);
    let plugin = keeping(&state, &Metrics::new());
    assert_eq!([remembered(&plugin, "acme"), remembered(&plugin, "other")], [2, 1]);
    plugin.tick(&tenant("acme"), NOW, &[]).unwrap();
    assert_eq!(remembered(&keeping(&state, &Metrics::new()), "acme"), 3);
}

#[test]
fn a_disk_that_does_not_take_it_is_counted_and_the_values_go_on_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (state, metrics) = (folder.path().join("plugin-state"), Metrics::new());
    let plugin = keeping(&state, &metrics);
    std::fs::remove_dir(&state).unwrap();
    (0..2).for_each(|_| drop(plugin.tick(&tenant("acme"), NOW, &[]).unwrap()));
    assert_eq!(remembered(&plugin, "acme"), 2);
    let line = r#"trommel_process_unkept_writes_total{plugin="kept"} 2"#;
    assert!(metrics.text().contains(line), "{}", metrics.text());
    std::fs::create_dir(&state).unwrap();
    plugin.tick(&tenant("acme"), NOW, &[]).unwrap();
    assert_eq!(std::fs::read_dir(&state).unwrap().count(), 1);
}

#[test]
fn the_guest_of_the_sdk_counts_and_ticks() {
    let plugin = sandbox().load_bytes(&settings("{}"), artifacts::guest("ticking").unwrap()).unwrap();
    assert_eq!(
        (plugin.manifest().window_seconds, &plugin.manifest().needs),
        (10, &vec!["series".to_string()])
    );
    let effects = plugin.process(piece(&["a", "b", "c"]), None, NOW).result.unwrap();
    assert_eq!(sums(&effects), ["records: 1, 3"]);
    assert_eq!(plugin.tick(&tenant("acme"), NOW, &[window("records", &[3.0])]), Ok(Effects::default()));
}

#[test]
fn the_plugin_of_the_authors_guide_fires_and_resolves() {
    let plugin = sandbox().load_bytes(&settings("{}"), artifacts::guest("first-alert").unwrap()).unwrap();
    // Of severity 9.
    assert_eq!(plugin.process(piece(&["a"]), None, NOW).result, Ok(Effects::default()));
    let errors = |service: &str, number: f64| window(service, &[number]);
    let closed = [errors("cart", 10.0), errors("shop", 4.0), errors("web", 11.0), window("idle", &[])];
    let effects = plugin.tick(&tenant("acme"), NOW, &closed).unwrap();
    assert_eq!(alerts(&effects), ["errors/cart-", "errors/idle-", "errors/shop-", "errors/web+11"]);
}

#[test]
fn the_plugin_of_the_authors_guide_counts_errors_by_service() {
    let plugin = sandbox().load_bytes(&settings("{}"), artifacts::guest("first-alert").unwrap()).unwrap();
    let mut request = ExportLogsServiceRequest::default();
    for (service, severities) in [("shop", [17, 9, 21]), ("cart", [1, 2, 16]), ("shop", [18, 0, 0])] {
        let record = |severity: &i32| LogRecord { severity_number: *severity, ..Default::default() };
        let scope = ScopeLogs { log_records: severities.iter().map(record).collect(), ..Default::default() };
        let resource = resource(&[("service.name", service)]);
        request.resource_logs.push(ResourceLogs { resource, scope_logs: vec![scope], ..Default::default() });
    }
    let request = Request::check(Signal::Logs, request.encode_to_vec().into()).unwrap();
    let stream = Stream { tenant: tenant("acme"), project: ProjectId::default_project() };
    let piece = only_piece(&request.batch(stream, &[0, 1, 2]));
    assert_eq!(sums(&plugin.process(piece, None, NOW).result.unwrap()), ["shop: 2, 3"]);
}
