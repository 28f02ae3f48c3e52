//! The faults of a file, all at once, with line, column and what would be right.

use super::*;
use crate::batch::TenantId;
use expect_test::{Expect, expect};

fn check(text: &str, expected: Expect) {
    let shown = match Config::parse(text, Path::new("."), "trommel.yaml") {
        Ok(_) => "valid".to_owned(),
        Err(faults) => faults.to_string(),
    };
    expected.assert_eq(&shown);
}

/// A valid file with one section in another form.
fn with(section: &str) -> String {
    let rest: &[(&str, &str)] = &[
        ("receivers", "receivers: { otlp: { grpc: { listen: 127.0.0.1:4317 } } }"),
        ("pipelines", "pipelines: [{ name: all, sinks: [out] }]"),
        ("sinks", "sinks: { out: { type: discard } }"),
    ];
    let own = section.split(':').next().unwrap();
    let others: Vec<&str> = rest.iter().filter(|(key, _)| *key != own).map(|(_, line)| *line).collect();
    format!("{section}\n{}\n", others.join("\n"))
}

#[test]
fn the_embedded_defaults_are_valid() {
    check(DEFAULTS, expect!["valid"]);
    check(&with("data: here"), expect!["valid"]);
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    check(
        r#"
receivers: { otlp: { grpc: { lisen: 127.0.0.1:4317 }, http: { listen: nowhere } } }
identity: { tokens: [{ sha256: "abc", tenant: _x, rights: [sned] }] }
plugins: { r: { module: "builtin:redcat", on_failure: quarantin } }
pipelines: [{ name: a, plugins: [q], sinks: [b] }]
sinks: { s: { type: kafka } }
journal: { kind: tape }
memory: { room: 512 }
"#,
        expect![[r#"
            trommel.yaml:2:28: receivers.otlp.grpc.listen: is missing; right would be: 127.0.0.1:4317
            trommel.yaml:2:30: receivers.otlp.grpc.lisen: is no key that is known here; right would be: `listen`
            trommel.yaml:2:71: receivers.otlp.http.listen: `nowhere` is no address; right would be: an address with a port: 127.0.0.1:4317
            trommel.yaml:3:32: identity.tokens.sha256: `abc` is no SHA-256; right would be: 64 hexadecimal digits: printf %s TOKEN | sha256sum
            trommel.yaml:3:47: identity.tokens.tenant: `_x` is no name of a tenant; right would be: 1 to 128 bytes of printable text, not beginning with `_`
            trommel.yaml:3:47: identity.tokens.tenant: is missing; right would be: `tenant`, or `speaks_for`, or the right `admin`
            trommel.yaml:3:59: identity.tokens.rights: `sned` is no right; right would be: some of send, read, admin
            trommel.yaml:4:25: plugins.r.module: `redcat` does not come with the collector; right would be: anomaly, enrich, redact, sample
            trommel.yaml:4:55: plugins.r.on_failure: `quarantin` is not known; right would be: refuse, drop, pass or quarantine
            trommel.yaml:5:13: pipelines[0].plugins: there is no plugin `q`; right would be: r
            trommel.yaml:5:13: pipelines[0].sinks: there is no sink `b`; right would be: one that stands under `sinks`
            trommel.yaml:6:21: sinks.s.type: `kafka` is not known; right would be: otlp, remote_write, streams, stdout or discard
            trommel.yaml:7:18: journal.kind: `tape` is not known; right would be: disk or memory
            trommel.yaml:8:17: memory.room: `512` has no unit; right would be: a size with its unit: 64MiB
            14 faults in trommel.yaml"#]],
    );
}

#[test]
fn text_that_is_no_yaml_says_where() {
    check(
        "a: [1\nb: 2\n",
        expect![[r#"
        trommel.yaml:2:2: illegal placement of ':' indicator; right would be: YAML: keys and values with spaces for indentation
        1 fault in trommel.yaml"#]],
    );
    check(
        "a: 1\na: 2\n",
        expect![[r#"
        trommel.yaml:2:1: duplicate mapping key: a; right would be: YAML: keys and values with spaces for indentation
        1 fault in trommel.yaml"#]],
    );
    check(
        "",
        expect![[r#"
        trommel.yaml:1:1: receivers: there is none; right would be: receivers: { otlp: { grpc: { listen: 127.0.0.1:4317 } } }
        trommel.yaml:1:1: pipelines: there is none; right would be: pipelines: [{ name: logs, when: { signal: logs }, sinks: [streams] }]
        2 faults in trommel.yaml"#]],
    );
}

#[test]
fn without_tokens_only_loopback_may_listen() {
    check(
        &with("receivers: { otlp: { grpc: { listen: 0.0.0.0:4317 } } }"),
        expect![[r#"
        trommel.yaml:1:1: identity: has no tokens, and 0.0.0.0:4317 can be reached from other machines; right would be: tokens under `identity`, or a loopback address
        1 fault in trommel.yaml"#]],
    );
}

#[test]
fn two_listeners_need_two_ports() {
    let section =
        "receivers: { otlp: { grpc: { listen: 127.0.0.1:4317 }, http: { listen: 127.0.0.1:4317 } } }";
    check(
        &with(section),
        expect![[r#"
        trommel.yaml:1:12: receivers: two listeners share 127.0.0.1:4317; right would be: a port of its own for each
        1 fault in trommel.yaml"#]],
    );
}

#[test]
fn the_largest_body_must_fit_half_of_the_room() {
    check(
        &with("memory: { room: 128MiB }"),
        expect![[r#"
        trommel.yaml:1:9: memory: half of the room beside the journal is less than 3 × the largest body; right would be: memory.room of at least 512 MiB, or a smaller receivers.otlp.body_max
        1 fault in trommel.yaml"#]],
    );
    check(
        &with("memory: { room: 511MiB }"),
        expect![[r#"
        trommel.yaml:1:9: memory: half of the room beside the journal is less than 3 × the largest body; right would be: memory.room of at least 512 MiB, or a smaller receivers.otlp.body_max
        1 fault in trommel.yaml"#]],
    );
    check(&with("memory: { room: 512MiB }"), expect!["valid"]);
    check(&with("memory: { room: 400MiB }\njournal: { kind: memory, max: 16MiB }"), expect!["valid"]);
}

#[test]
fn the_journals_memory_is_a_part_of_the_room() {
    for (text, requests, journal) in [
        (with("journal: { kind: memory }"), 384, 128),
        (with("memory: { room: 1GiB }\njournal: { kind: memory, max: 100MiB }"), 924, 100),
    ] {
        let config = Config::parse(&text, Path::new("."), "trommel.yaml").unwrap();
        assert_eq!(config.tenants.room_bytes, requests << 20);
        assert_eq!(config.journal, journal::Settings::Memory { bytes_max: journal << 20 });
    }
}

#[test]
fn a_journal_on_disk_has_its_folder_below_the_data() {
    let disk = |text: &str| {
        let text = with(&format!("data: there\njournal: {{ kind: disk{text} }}"));
        let config = Config::parse(&text, Path::new("/here"), "trommel.yaml").unwrap();
        assert_eq!(config.tenants.room_bytes, 384 << 20);
        config.journal
    };
    let expected = |bytes_max, hours: u64| journal::Settings::Disk {
        folder: "/here/there/journal".into(),
        bytes_max,
        age_max: std::time::Duration::from_secs(hours * 3600),
        memory_bytes_max: 128 << 20,
    };
    assert_eq!(disk(""), expected(None, 24));
    let config = Config::parse(&with("data: there"), Path::new("/here"), "trommel.yaml").unwrap();
    assert_eq!(config.journal, expected(None, 24), "it is the default");
    assert_eq!(disk(", max: 20GiB, age: 1h"), expected(Some(20 << 30), 1));
}

#[test]
fn dead_letters_are_kept_beside_a_journal_on_disk() {
    let letters = |text: &str| {
        let text = with(&format!("data: there\n{text}"));
        Config::parse(&text, Path::new("/here"), "trommel.yaml").unwrap().dead_letters
    };
    let expected = |bytes_max: u64, days: u64| journal::LetterSettings {
        folder: "/here/there/dead-letters".into(),
        bytes_max,
        age_max: std::time::Duration::from_secs(days * 86_400),
    };
    assert_eq!(letters("journal: { kind: disk }"), Some(expected(256 << 20, 30)));
    let chosen = "journal: { kind: disk }\ndead_letters: { max: 1MiB, age: 1d }";
    assert_eq!(letters(chosen), Some(expected(1 << 20, 1)));
    for off in ["0", "0B"] {
        assert_eq!(letters(&format!("journal: {{ kind: disk }}\ndead_letters: {{ max: {off} }}")), None);
        assert_eq!(letters(&format!("journal: {{ kind: memory }}\ndead_letters: {{ max: {off} }}")), None);
    }
    assert_eq!(letters("journal: { kind: memory }"), None);
    check(
        &with("journal: { kind: memory }\ndead_letters: { max: 1MiB }"),
        expect![[r#"
        trommel.yaml:2:15: dead_letters: dead letters need a journal on disk; right would be: journal: { kind: disk }, or max: 0
        1 fault in trommel.yaml"#]],
    );
    check(
        &with("journal: { kind: disk }\ndead_letters: { max: 1B, age: 0s, min: 1 }"),
        expect![[r#"
        trommel.yaml:2:22: dead_letters.max: is too small; right would be: 1MiB or more, or 0 for none
        trommel.yaml:2:31: dead_letters.age: is too short; right would be: 1s or more: 30d
        trommel.yaml:2:35: dead_letters.min: is no key that is known here; right would be: `max`
        3 faults in trommel.yaml"#]],
    );
}

#[test]
fn a_guards_failure_lets_nothing_past() {
    let passes = with("plugins: { redact: { module: \"builtin:redact\", on_failure: pass } }");
    check(
        &passes.replace("sinks: [out]", "plugins: [redact], sinks: [out]"),
        expect![[r#"
        trommel.yaml:1:60: plugins.redact.on_failure: would let records past a guard that failed on them; right would be: drop or refuse
        1 fault in trommel.yaml"#]],
    );
}

#[test]
fn what_is_put_aside_has_passed_the_guards() {
    let text = with(
        "plugins: { early: { module: ./own.wasm, grant: {}, on_failure: quarantine }, redact: { module: \"builtin:redact\" } }",
    );
    check(
        &text.replace("sinks: [out]", "plugins: [early, redact], sinks: [out]"),
        expect![[r#"
            trommel.yaml:3:13: pipelines[0].plugins: `early` stands before the guard `redact`, and keeps what it fails on; right would be: behind the guard, or another `on_failure`
            1 fault in trommel.yaml"#]],
    );
    check(&text.replace("sinks: [out]", "plugins: [redact, early], sinks: [out]"), expect!["valid"]);
}

#[test]
fn each_limit_of_a_plugin_may_be_set_and_has_a_bound() {
    let own = |keys: &str| {
        let text = with(&format!("plugins: {{ own: {{ module: ./own.wasm, grant: {{}}, {keys} }} }}"));
        let parsed = Config::parse(&text, Path::new("/etc/trommel"), "trommel.yaml");
        parsed.map(|config| config.plugins[0].limits)
    };
    let usual = own("guard: false").unwrap();
    assert_eq!(usual, crate::sandbox::Limits::default());
    let cpu = |keys: &str| own(keys).unwrap().cpu.map(|cpu| cpu.as_millis());
    assert_eq!(
        (cpu("guard: false"), cpu("tenant: acme"), cpu("tenant: acme, limits: { cpu: none }")),
        (None, Some(100), None)
    );
    assert_eq!(cpu("limits: { cpu: 1.5 cores }"), Some(1500));
    let all = "limits: { time: 1s, memory: 1MiB, output: 5, hostcall: 6, work: 7, log: 8KiB, alerts_per_call: 9, \
               alerts_per_second: 10, names: 11, series_keys: 12, store: 13KiB, cpu: 14% }, \
               circuit: { failures: 30%, calls: 7, for: 1m }";
    let expected = crate::sandbox::Limits {
        time: std::time::Duration::from_secs(1),
        memory: 1 << 20,
        output: 5,
        hostcall: 6,
        work: 7,
        log: 8 << 10,
        alerts_per_call: 9,
        alerts_per_second: 10,
        names: 11,
        series_keys: 12,
        store: 13 << 10,
        cpu: Some(std::time::Duration::from_millis(140)),
        circuit: crate::sandbox::CircuitSettings {
            calls: 7,
            failures: 3,
            pause: std::time::Duration::from_secs(60),
        },
    };
    assert_eq!(own(all).unwrap(), expected);
    for keys in [
        "limits: { time: 0s }",
        "limits: { time: 2m }",
        "limits: { memory: 5GiB }",
        "limits: { output: 65 }",
        "limits: { store: 257KiB }",
        "limits: { names: 0 }",
        "limits: { cpu: 10 }",
        "limits: { stack: 1MiB }",
        "circuit: { calls: 65 }",
        "circuit: { failures: 0% }",
        "circuit: { for: 0s }",
    ] {
        assert!(own(keys).is_err(), "{keys}");
    }
}

#[test]
fn a_tenants_plugin_stands_in_pipelines_of_that_tenant_alone() {
    let plugin = "plugins: { own: { module: ./own.wasm, tenant: acme, grant: { reads: [severity], writes: [drop] } } }";
    let named = with(plugin).replace("sinks: [out]", "plugins: [own], sinks: [out]");
    check(
        &named,
        expect![[r#"
        trommel.yaml:3:13: pipelines[0].plugins: `own` is for tenant `acme` alone; right would be: when: { tenant: [acme] }
        1 fault in trommel.yaml"#]],
    );
    check(&named.replace("name: all,", "name: all, when: { tenant: [acme] },"), expect!["valid"]);
}

#[test]
fn a_plugin_from_a_file_needs_a_grant() {
    check(
        &with("plugins: { own: { module: ./own.wasm } }"),
        expect![[r#"
        trommel.yaml:1:17: plugins.own.grant: is missing; right would be: what this plugin may read and write, in the words of its manifest: { reads: [severity], writes: [drop] }
        1 fault in trommel.yaml"#]],
    );
}

#[test]
fn each_sink_says_how_long_an_attempt_and_all_of_them_may_take() {
    let sinks = "sinks: { out: { type: discard, timeout: 2s, retry_for: 1h }, other: { type: stdout, retry_for: 0s }, \
        third: { type: otlp, endpoint: \"http://127.0.0.1:1\", timeout: 1m }, kept: { type: streams, timeout: 1s } }";
    let config = Config::parse(&with(sinks), Path::new("."), "trommel.yaml").unwrap();
    let served: Vec<(&str, u64, u64)> = config
        .sinks
        .iter()
        .zip(&config.deliver)
        .map(|((name, _), served)| {
            (name.as_str(), served.attempt_timeout.as_secs(), served.retry_for.as_secs())
        })
        .collect();
    assert_eq!(served, [("out", 2, 3600), ("other", 10, 0), ("third", 60, 300), ("kept", 1, 300)]);
    check(
        &with("sinks: { out: { type: discard, timeout: 0s, retry_for: 5 } }"),
        expect![[r#"
        trommel.yaml:1:41: sinks.out.timeout: is no time at all; right would be: how long one attempt may take: 10s
        trommel.yaml:1:56: sinks.out.retry_for: `5` has no unit; right would be: a time with its unit: 250ms, 10s, 5m, 1h, 7d
        2 faults in trommel.yaml"#]],
    );
}

#[test]
fn a_sink_says_how_much_is_sent_at_once_and_how_many_times() {
    let batch = "batch: { records: 100, bytes: 1MiB, delay: 200ms }";
    let sinks = format!(
        "sinks: {{ out: {{ type: otlp, endpoint: \"http://127.0.0.1:1\", concurrency: 16, {batch} }}, \
         kept: {{ type: streams, concurrency: 1, batch: {{ delay: 1m }} }}, usual: {{ type: stdout }} }}"
    );
    let config = Config::parse(&with(&sinks), Path::new("."), "trommel.yaml").unwrap();
    let read: Vec<_> = config
        .deliver
        .iter()
        .map(|served| (served.window, served.records_max, served.bytes_max, served.delay.as_millis()))
        .collect();
    let usual = (8192, 4 << 20);
    assert_eq!(
        read,
        [(Some(16), 100, 1 << 20, 200), (Some(1), usual.0, usual.1, 60_000), (None, usual.0, usual.1, 0)]
    );
    check(
        &with(
            "sinks:
  a: { type: discard, concurrency: 65, batch: { records: 0, bytes: 0B, delay: 61s, size: 1 } }
  b: { type: streams, concurrency: 2 }
  c: { type: stdout, concurrency: 4 }
  d: { type: remote_write, endpoint: \"http://h/w\", concurrency: 4 }
  e: { type: discard, concurrency: 0, batch: 100 }",
        ),
        expect![[r#"
            trommel.yaml:2:36: sinks.a.concurrency: 65 deliveries at one time are more than help any server; right would be: 1 to 64
            trommel.yaml:2:58: sinks.a.batch.records: `0` is no number of 1 or more; right would be: a whole number: 20
            trommel.yaml:2:68: sinks.a.batch.bytes: is no size at all; right would be: how much one delivery may hold: 4MiB
            trommel.yaml:2:79: sinks.a.batch.delay: is longer than a minute; right would be: how long to wait for more: 200ms
            trommel.yaml:2:84: sinks.a.batch.size: is no key that is known here; right would be: one of records, bytes, delay
            trommel.yaml:3:36: sinks.b.concurrency: `streams` keeps the order of what it is given: one delivery is on the way at a time; right would be: nothing: leave it out
            trommel.yaml:4:35: sinks.c.concurrency: `stdout` keeps the order of what it is given: one delivery is on the way at a time; right would be: nothing: leave it out
            trommel.yaml:5:65: sinks.d.concurrency: `remote_write` keeps the order of what it is given: one delivery is on the way at a time; right would be: nothing: leave it out
            trommel.yaml:6:36: sinks.e.concurrency: `0` is no number of 1 or more; right would be: a whole number: 20
            trommel.yaml:6:46: sinks.e.batch: `100` stands here; right would be: a table of keys and values
            trommel.yaml:8:13: pipelines[0].sinks: there is no sink `out`; right would be: a, b, c, d, e
            11 faults in trommel.yaml"#]],
    );
}

#[test]
fn a_remote_write_sink_promotes_identity_unless_told_otherwise() {
    let read = |sink: &str| {
        let text = with(&format!(
            "sinks: {{ out: {{ type: remote_write, endpoint: \"http://127.0.0.1:9090/api/v1/write\" {sink} }} }}"
        ));
        match Config::parse(&text, Path::new("."), "trommel.yaml").unwrap().sinks.remove(0).1 {
            crate::sinks::Settings::RemoteWrite(settings) => (settings.promote, settings.is_scope_labelled),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(read(""), (vec!["tenant.id".into(), "project.id".into()], false));
    let own = "} }\nidentity: { attributes: { tenant: customer } }\nmore: { a: { b: 1";
    let text = with(&format!("sinks: {{ out: {{ type: remote_write, endpoint: \"http://h/w\" {own} }} }}"));
    let text = text.replace("more: { a: { b: 1 } }\n", "");
    let config = Config::parse(&text, Path::new("."), "trommel.yaml").unwrap();
    let crate::sinks::Settings::RemoteWrite(settings) = &config.sinks[0].1 else { panic!("a remote_write") };
    assert_eq!(settings.promote, ["customer", "project.id"]);
    assert_eq!(read(", scope_labels: true, promote: [region]"), (vec!["region".into()], true));
    assert_eq!(read(", promote: []"), (Vec::new(), false));
}

#[test]
fn a_remote_write_sink_needs_the_whole_address() {
    check(
        &with(
            "sinks:
  a: { type: remote_write }
  b: { type: remote_write, endpoint: \"http://127.0.0.1:9090\" }
  c: { type: remote_write, endpoint: \"127.0.0.1:9090/api/v1/write\" }
  d: { type: remote_write, endpoint: \"http://u:s3cret@127.0.0.1:9090/api/v1/write\" }
  e: { type: remote_write, endpoint: \"http://h/w\", promote: [a, \"\", b, a], scope_labels: maybe, scope_label: true }
  out: { type: discard }",
        ),
        expect![[r#"
            trommel.yaml:2:6: sinks.a.endpoint: is missing; right would be: http://127.0.0.1:9090/api/v1/write
            trommel.yaml:3:38: sinks.b.endpoint: `http://127.0.0.1:9090` has no path; right would be: http:// or https:// with host, port and the whole path: http://127.0.0.1:9090/api/v1/write
            trommel.yaml:4:38: sinks.c.endpoint: `127.0.0.1:9090/api/v1/write` is no endpoint; right would be: http:// or https:// with host, port and the whole path: http://127.0.0.1:9090/api/v1/write
            trommel.yaml:5:38: sinks.d.endpoint: holds a name and a password; right would be: `headers: { authorization: … }`, and an address without them
            trommel.yaml:6:61: sinks.e.promote: `a` stands twice; right would be: each key once
            trommel.yaml:6:65: sinks.e.promote: is empty; right would be: the key of a resource attribute
            trommel.yaml:6:90: sinks.e.scope_labels: `maybe` is no switch; right would be: true or false
            trommel.yaml:6:97: sinks.e.scope_label: is no key that is known here; right would be: `scope_labels`
            8 faults in trommel.yaml"#]],
    );
}

#[test]
fn streams_are_embedded_or_on_a_server_of_mongodb() {
    let store = |store: &str| {
        let text = with(&format!("sinks: {{ out: {{ type: streams {store} }} }}"));
        match Config::parse(&text, Path::new("/data"), "trommel.yaml").unwrap().sinks.remove(0).1 {
            crate::sinks::Settings::Streams(settings) => settings.store,
            other => panic!("{other:?}"),
        }
    };
    let embedded = crate::streams::StoreSettings::Embedded { folder: "/data/trommel-data/streams".into() };
    assert_eq!(store(""), embedded);
    assert_eq!(store(", store: embedded"), embedded);
    let mongodb = |uri: &str, database: &str| {
        crate::streams::StoreSettings::Mongodb(crate::streams::mongodb::Settings {
            uri: crate::telemetry::Secret::new(uri),
            database: database.into(),
        })
    };
    assert_eq!(
        store(", store: { mongodb: { uri: \"mongodb://h:1\" } }"),
        mongodb("mongodb://h:1", "trommel")
    );
    let own = ", store: { mongodb: { uri: \"mongodb://u:p@a,b/?tls=true\", database: logs } }";
    assert_eq!(store(own), mongodb("mongodb://u:p@a,b/?tls=true", "logs"));
}

#[test]
fn what_stands_in_place_of_a_mongodb_address_is_not_shown() {
    for uri in [
        "s3cret",
        "mongodb+srv://u:s3cret@h",
        "http://s3cret",
        "mongodb://",
        "mongodb://u:s3cret@",
        "mongodb://u:s3:cret@h",
    ] {
        let text = with(&format!(
            "sinks: {{ out: {{ type: streams, store: {{ mongodb: {{ uri: \"{uri}\" }} }} }} }}"
        ));
        let faults = Config::parse(&text, Path::new("."), "trommel.yaml").unwrap_err().to_string();
        assert!(faults.starts_with("trommel.yaml:1:57: sinks.out.store.mongodb.uri: "), "{uri}: {faults}");
        assert!(faults.ends_with("\n1 fault in trommel.yaml") && !faults.contains("s3"), "{uri}: {faults}");
    }
    let missing = "mongodb://h/?tls=true&tlsCAFile=/none/ca.pem";
    let text = with(&format!(
        "sinks: {{ out: {{ type: streams, store: {{ mongodb: {{ uri: \"{missing}\" }} }} }} }}"
    ));
    check(
        &text,
        expect![[r#"
        trommel.yaml:1:57: sinks.out.store.mongodb.uri: its tlsCAFile cannot be read: entity not found; right would be: mongodb://USER:PASSWORD@HOST:PORT/?OPTIONS
        1 fault in trommel.yaml"#]],
    );
    check(
        &with(
            "sinks: { out: { type: streams, store: { mongodb: { uri: \"mongodb://u:s3cret@h/?s3cret=1\" } } } }",
        ),
        expect![[r#"
            trommel.yaml:1:57: sinks.out.store.mongodb.uri: it is no connection string: mongodb://USER:PASSWORD@HOST:27017/?OPTION=VALUE, in names and passwords %40 for @, %3A for :, %2F for /, %25 for %; right would be: mongodb://USER:PASSWORD@HOST:PORT/?OPTIONS
            1 fault in trommel.yaml"#]],
    );
    check(
        &with(
            "sinks:
  a: { type: streams, store: { mongodb: { database: \"a.b\" }, embedded: {} } }
  b: { type: streams, store: { mongo: { uri: x } } }
  c: { type: streams, store: [embedded] }
  out: { type: discard }",
        ),
        expect![[r#"
            trommel.yaml:2:3: sinks: there are two of type streams; right would be: one: a stream has one store
            trommel.yaml:2:41: sinks.a.store.mongodb.uri: is missing; right would be: mongodb://HOST:PORT, from ${env:MONGODB_URI}
            trommel.yaml:2:53: sinks.a.store.mongodb.database: it is no name of a database: 1 to 63 bytes without space and / \ . " $; right would be: a name: trommel
            trommel.yaml:2:62: sinks.a.store.embedded: is no key that is known here; right would be: one of mongodb
            trommel.yaml:3:30: sinks.b.store: names no store that is known; right would be: embedded, or { mongodb: { uri: "${env:MONGODB_URI}" } }
            trommel.yaml:4:30: sinks.c.store: a list is no store; right would be: embedded, or { mongodb: { uri: "${env:MONGODB_URI}" } }
            6 faults in trommel.yaml"#]],
    );
}

fn alerts(text: &str) -> crate::alerts::Settings {
    Config::parse(&with(text), Path::new("."), "trommel.yaml").unwrap().alerts
}

#[test]
fn alerts_have_channels_routes_and_times() {
    use crate::alerts::{ChannelKind, Route, Severity};
    let none = alerts("data: here");
    assert!(none.channels.is_empty() && none.routes.is_empty());
    let read = alerts(
        "alerts:
  channels:
    ops: { type: telegram, token: \"123:s3cret-token\", chat: -100123, api: \"http://127.0.0.1:9/\", per_minute: 5 }
    hook: { type: webhook, url: \"https://hooks.example/s3cret\", headers: { authorization: \"Bearer s3cret\" } }
    here: { type: log }
  routes:
  - { when: { severity: [critical, warning], tenant: [acme], plugin: [redact] }, to: [ops, hook] }
  - { to: [here] }
  group_wait: 2s
  group_interval: 30s
  resolve_after: 1h
plugins: { redact: { module: \"builtin:redact\" } }",
    );
    let shape = |(name, channel): &(String, crate::alerts::ChannelSettings)| {
        let kind = match &channel.kind {
            ChannelKind::Telegram(telegram) => {
                assert_eq!(telegram.token.expose(), "123:s3cret-token");
                format!("{} {}", telegram.api, telegram.chat)
            }
            ChannelKind::Webhook(webhook) => webhook.headers.keys().cloned().collect(),
            ChannelKind::Log => "log".into(),
        };
        format!("{name} {kind} {}", channel.per_minute)
    };
    let channels: Vec<String> = read.channels.iter().map(shape).collect();
    assert_eq!(channels, ["ops http://127.0.0.1:9 -100123 5", "hook authorization 60", "here log 600"]);
    let first = Route {
        severities: vec![Severity::Critical, Severity::Warning],
        tenants: vec!["acme".into()],
        plugins: vec!["redact".into()],
        to: vec!["ops".into(), "hook".into()],
    };
    assert_eq!(read.routes, [first, Route { to: vec!["here".into()], ..Route::default() }]);
    let times = [read.group_wait, read.group_interval, read.resolve_after].map(|time| time.as_secs());
    assert_eq!(times, [2, 30, 3600]);
    assert!(!format!("{read:?}").contains("s3cret"));
}

#[test]
fn without_routes_every_channel_is_told_of_everything() {
    let read =
        alerts("alerts: { channels: { a: { type: log }, b: { type: telegram, token: x, chat: \"@ops\" } } }");
    assert_eq!(
        read.routes,
        [crate::alerts::Route { to: vec!["a".into(), "b".into()], ..Default::default() }]
    );
    assert_eq!(read.channels[1].1.per_minute, 20, "what Telegram takes for a group");
    assert!(alerts("alerts: { channels: { a: { type: log } }, routes: [] }").routes.is_empty());
}

#[test]
fn everything_that_is_wrong_with_alerts_is_told_at_once_and_no_secret() {
    check(
        &with(
            "alerts:
  channels:
    a: { type: telegram }
    b: { type: telegram, token: \"s3cret/../x\", chat: ops, api: nowhere, per_minute: 0 }
    c: { type: webhook, url: \"s3cret\", tls: { cert: c.pem } }
    d: { type: pager }
    e: { type: log, token: x }
    f: { token: x }
  routes:
  - { when: { severity: [fatal, critical], plugin: [anomyl], tenant: [_x], service: [y] }, to: [z, e, e] }
  - { when: { severity: [] }, to: [] }
  - { }
  group_wait: 5
  group_interval: 0s
  resolve_after: 0s
  grup_wait: 5s",
        ),
        expect![[r#"
            trommel.yaml:3:8: alerts.channels.a.token: is missing; right would be: the bot's token: ${file:telegram.token}
            trommel.yaml:3:8: alerts.channels.a.chat: is missing; right would be: the number of a chat, or the @name of a channel
            trommel.yaml:4:33: alerts.channels.b.token: has a character that no bot's token has; right would be: what BotFather gave: a number, a colon, letters and digits
            trommel.yaml:4:54: alerts.channels.b.chat: `ops` is no chat; right would be: the number of a chat, or the @name of a channel
            trommel.yaml:4:64: alerts.channels.b.api: `nowhere` is no endpoint; right would be: http:// or https:// with host and port
            trommel.yaml:4:85: alerts.channels.b.per_minute: `0` is no number of 1 or more; right would be: a whole number: 20
            trommel.yaml:5:30: alerts.channels.c.url: is no address; right would be: http:// or https:// with host and path: ${env:WEBHOOK_URL}
            trommel.yaml:5:53: alerts.channels.c.tls.cert: needs `key` beside it, and `key` needs `cert`; right would be: both or neither
            trommel.yaml:6:16: alerts.channels.d.type: `pager` is not known; right would be: telegram, webhook or log
            trommel.yaml:7:21: alerts.channels.e.token: is no key that is known here; right would be: one of type, per_minute
            trommel.yaml:8:8: alerts.channels.f.type: is missing; right would be: telegram, webhook or log
            trommel.yaml:10:26: alerts.routes[0].when.severity: there is no `fatal`; right would be: info, warning, critical
            trommel.yaml:10:53: alerts.routes[0].when.plugin: there is no `anomyl`; right would be: one that stands under `plugins`
            trommel.yaml:10:71: alerts.routes[0].when.tenant: `_x` is no name of a tenant; right would be: 1 to 128 bytes of printable text, not beginning with `_`
            trommel.yaml:10:76: alerts.routes[0].when.service: is no key that is known here; right would be: one of severity, tenant, plugin
            trommel.yaml:10:97: alerts.routes[0].to: there is no `z`; right would be: a, b, c, d, e, f
            trommel.yaml:10:103: alerts.routes[0].to: `e` stands twice; right would be: each once
            trommel.yaml:11:25: alerts.routes[1].when.severity: is empty; right would be: some of info, warning, critical
            trommel.yaml:11:35: alerts.routes[1].to: is empty; right would be: some of a, b, c, d, e, f
            trommel.yaml:12:5: alerts.routes[2].to: is missing; right would be: a, b, c, d, e, f
            trommel.yaml:13:15: alerts.group_wait: `5` has no unit; right would be: a time with its unit: 250ms, 10s, 5m, 1h, 7d
            trommel.yaml:14:19: alerts.group_interval: is no time at all; right would be: the time between two updates of an incident: 60s
            trommel.yaml:15:18: alerts.resolve_after: would resolve what was just raised; right would be: a time without a firing: 24h
            trommel.yaml:16:3: alerts.grup_wait: is no key that is known here; right would be: `group_wait`
            24 faults in trommel.yaml"#]],
    );
    check(
        &with("alerts: { routes: [{ to: [ops] }] }"),
        expect![[r#"
        trommel.yaml:1:27: alerts.routes[0].to: there is no `ops`; right would be: one that stands under `alerts.channels`
        1 fault in trommel.yaml"#]],
    );
}

fn warned(text: &str, expected: Expect) {
    let warnings = Config::parse(text, Path::new("."), "trommel.yaml").unwrap().warnings();
    expected.assert_eq(&warnings.to_string());
}

#[test]
fn what_is_likely_not_meant_is_said_and_stops_nothing() {
    let config = |plugins: &str, more: &str| {
        with(&format!(
            "pipelines:
- {{ name: quiet, when: {{ signal: metrics }}, sinks: [out] }}
- {{ name: all, plugins: [{plugins}], sinks: [out] }}
plugins: {{ count: {{ module: \"builtin:anomaly\" }}, cut: {{ module: \"builtin:sample\" }}, enrich: {{ module: \"builtin:enrich\" }} }}
{more}"
        ))
    };
    let told = "alerts: { channels: { ops: { type: log } } }";
    warned(&config("count, enrich, cut", told), expect!["0 warnings in trommel.yaml"]);
    warned(&config("cut, enrich", ""), expect!["0 warnings in trommel.yaml"]);
    warned(
        &config("enrich, cut, count", told),
        expect![[r#"
        trommel.yaml:3:39: pipelines[1].plugins[2]: `count` stands after `cut`: it would count what `cut` left; right would be: `count` before `cut`
        1 warning in trommel.yaml"#]],
    );
    warned(
        &config("cut, count", "alerts: { channels: {} }"),
        expect![[r#"
        trommel.yaml:3:31: pipelines[1].plugins[1]: `count` stands after `cut`: it would count what `cut` left; right would be: `count` before `cut`
        trommel.yaml:3:31: pipelines[1].plugins[1]: nobody is told of what `count` finds: there is no channel; right would be: alerts: { channels: { ops: { type: log } } }
        2 warnings in trommel.yaml"#]],
    );
    warned(DEFAULTS, expect!["0 warnings in trommel.yaml"]);
}

#[test]
fn secrets_are_in_no_fault_and_no_debug() {
    let text = with(
        "sinks: { out: { type: otlp, endpoint: \"http://127.0.0.1:1\", headers: { authorization: \"Bearer s3cret\" } } }",
    );
    let config = Config::parse(&text, Path::new("."), "trommel.yaml").unwrap();
    assert!(!format!("{config:?}").contains("s3cret"));
    let broken = text.replace("authorization:", "\"author ization\":");
    let faults = Config::parse(&broken, Path::new("."), "trommel.yaml").unwrap_err().to_string();
    assert!(!faults.contains("s3cret"), "{faults}");
}

#[test]
fn the_journal_has_a_place_for_sixty_four_sinks() {
    let sinks = |number| {
        let sinks: Vec<String> = (1..number).map(|n| format!("s{n}: {{ type: discard }}")).collect();
        with(&format!("sinks: {{ out: {{ type: discard }}, {} }}", sinks.join(", ")))
    };
    check(&sinks(64), expect!["valid"]);
    check(
        &sinks(65),
        expect![[r#"
        trommel.yaml:1:8: sinks: there are 65; right would be: 64 at most: each needs a place in the journal
        1 fault in trommel.yaml"#]],
    );
}

#[test]
fn a_ticket_key_of_blanks_is_too_short() {
    check(
        &with(&format!("identity: {{ tickets: {{ key: \"{:40}\" }} }}", "x")),
        expect![[r#"
        trommel.yaml:1:29: identity.tickets.key: is shorter than 32 bytes; right would be: 32 random bytes or more
        1 fault in trommel.yaml"#]],
    );
}

#[test]
fn a_reference_that_leads_nowhere_hides_no_other_fault_and_makes_none() {
    check(
        &with(
            "identity: { tickets: { key: \"${file:nowhere}\" }, tokens: [{ sha256: \"${env:TROMMEL_NOT_SET}\", tenant: acme, rights: [raed] }] }",
        ),
        expect![[r#"
            trommel.yaml:1:29: identity.tickets.key: the file ./nowhere cannot be read: No such file or directory (os error 2); right would be: a text file that the collector may read
            trommel.yaml:1:69: identity.tokens[0].sha256: the environment variable `TROMMEL_NOT_SET` is not set; right would be: set TROMMEL_NOT_SET before the start
            trommel.yaml:1:117: identity.tokens.rights: `raed` is no right; right would be: some of send, read, admin
            3 faults in trommel.yaml"#]],
    );
}

#[test]
fn keys_that_come_later_are_told_from_typing_errors() {
    check(
        &with(
            "plugins: { own: { module: ./own.wasm, grant: {}, quarantine: true } }\nunknown_fields: strip\nquota: {}",
        ),
        expect![[r#"
            trommel.yaml:1:50: plugins.own.quarantine: is no key that is known here; right would be: one of module, guard, on_failure, tenant, instance, limits, circuit, grant, secrets, config, swap
            trommel.yaml:2:1: unknown_fields: comes with a later version; right would be: leave it out
            trommel.yaml:3:1: quota: is no key that is known here; right would be: `quotas`
            3 faults in trommel.yaml"#]],
    );
}

#[test]
fn a_sink_may_have_a_share_of_its_own_and_the_shares_fit() {
    let text = with(
        "sinks: { out: { type: discard, essential: true, journal: { max: 1GiB } }, more: { type: stdout, journal: { age: 2h } } }",
    );
    let config = Config::parse(&text, Path::new("."), "trommel.yaml").unwrap();
    let kept =
        |sink: &journal::SinkSettings| (sink.name.clone(), sink.bytes_max, sink.age_max, sink.is_essential);
    let hours = |hours: u64| Some(std::time::Duration::from_secs(hours * 3600));
    assert_eq!(
        config.kept.iter().map(kept).collect::<Vec<_>>(),
        [("out".into(), Some(1 << 30), None, true), ("more".into(), None, hours(2), false)]
    );
    check(
        &format!("{text}journal: {{ max: 1GiB }}"),
        expect![[r#"
            trommel.yaml:4:10: journal: the shares that sinks name under `journal.max` leave nothing for the others; right would be: a sum below 1073741824 bytes, or a larger journal.max
            1 fault in trommel.yaml"#]],
    );
    check(&format!("{text}journal: {{ max: 2GiB }}"), expect!["valid"]);
    check(
        &with(
            "sinks: { out: { type: discard, essential: true, journal: { age: 2h } } }\njournal: { max: 1MiB }",
        ),
        expect![[r#"
            trommel.yaml:1:65: sinks.out.journal.age: does not go with `essential`: nothing of it expires; right would be: one of the two
            trommel.yaml:2:17: journal.max: is too small for files; right would be: 64MiB or more
            2 faults in trommel.yaml"#]],
    );
}

#[test]
fn a_tenants_quota_is_the_usual_one_but_for_what_it_says() {
    let text = with(
        "quotas: { default: { bytes: 10MiB, records: 20000, journal: 1GiB }, tenants: { acme: { bytes: 50MiB, burst: 1m }, 7: { records: none, journal: none } } }",
    );
    let quotas = Config::parse(&text, Path::new("."), "trommel.yaml").unwrap().tenants.quotas;
    let of = |name: &str| quotas.tenants[&TenantId::new(name).unwrap()];
    let usual = tenants::Quota {
        bytes: Some(10 << 20),
        records: Some(20_000),
        burst: Duration::from_secs(10),
        journal_bytes: Some(1 << 30),
    };
    assert_eq!(quotas.default, usual);
    let acme = tenants::Quota { bytes: Some(50 << 20), burst: Duration::from_secs(60), ..usual };
    assert_eq!((of("acme"), quotas.tenants.len()), (acme, 2));
    assert_eq!(of("7"), tenants::Quota { records: None, journal_bytes: None, ..usual });
    let none = Config::parse(&with("data: here"), Path::new("."), "trommel.yaml").unwrap().tenants.quotas;
    assert_eq!((none.default, none.tenants.len()), (tenants::Quota::default(), 0));
    check(&with("quotas: {}"), expect!["valid"]);
}

#[test]
fn a_quota_that_lets_nothing_through_or_has_no_unit_is_refused() {
    check(
        &with(
            "quotas:\n  default: { bytes: 0B, records: 0, burst: 0s, journal: none }\n  tenants:\n    _x: { bytes: 10, record: 5 }\n    acme: { burst: 2d, journal: much, records: 1.5 }\n  tenant: {}",
        ),
        expect![[r#"
            trommel.yaml:2:21: quotas.default.bytes: `0B` lets nothing through; right would be: what may come in a second, with its unit: 10MiB; or none
            trommel.yaml:2:34: quotas.default.records: `0` is no number of 1 or more; right would be: how many may come in a second: 20000; or none
            trommel.yaml:2:44: quotas.default.burst: `0s` lets nothing through; right would be: how long a sender's backlog may be that comes at once: 10s; a day at most
            trommel.yaml:4:5: quotas.tenants._x: is no name of a tenant; right would be: 1 to 128 bytes of printable text, not beginning with `_`
            trommel.yaml:4:18: quotas.tenants._x.bytes: `10` has no unit; right would be: what may come in a second, with its unit: 10MiB; or none
            trommel.yaml:4:22: quotas.tenants._x.record: is no key that is known here; right would be: `records`
            trommel.yaml:5:20: quotas.tenants.acme.burst: `2d` is longer than a day; right would be: how long a sender's backlog may be that comes at once: 10s; a day at most
            trommel.yaml:5:33: quotas.tenants.acme.journal: `much` does not begin with a number; right would be: a size with its unit: 1GiB; or none
            trommel.yaml:5:48: quotas.tenants.acme.records: `1.5` is no number of 1 or more; right would be: how many may come in a second: 20000; or none
            trommel.yaml:6:3: quotas.tenant: is no key that is known here; right would be: `tenants`
            10 faults in trommel.yaml"#]],
    );
}

#[test]
fn how_a_plugins_versions_are_swapped_is_checked() {
    let own = |swap: &str| {
        with(&format!("plugins: {{ own: {{ module: ./own.wasm, grant: {{}}, swap: {{ {swap} }} }} }}"))
    };
    let config = |swap: &str| Config::parse(&own(swap), Path::new("."), "trommel.yaml").unwrap();
    let swap = config("auto: false, shadow: 30s, canary: { share: 12.5%, for: 2m }, watch: 0s, budget: { failures: 0.5%, latency: 1.5x, drops: 100% }").swaps["own"];
    assert!(!swap.is_auto);
    assert_eq!((swap.shadow.as_secs(), swap.watch.as_secs()), (30, 0));
    let canary = swap.canary.unwrap();
    assert_eq!((canary.share, canary.lasts.as_secs()), (0.125, 120));
    assert_eq!((swap.budget.failures, swap.budget.latency, swap.budget.drops), (0.005, 1.5, 1.0));
    assert_eq!(config("").swaps["own"], crate::pipeline::SwapSettings::default());
    check(
        &own(
            "auto: sometimes, shadow: 2d, canary: { share: 100%, for: 0s }, watch: 60, budget: { failures: 1, latency: 0.5x, drops: 101%, speed: 2x }",
        ),
        expect![[r#"
            trommel.yaml:1:64: plugins.own.swap.auto: `sometimes` is no switch; right would be: true or false
            trommel.yaml:1:83: plugins.own.swap.shadow: `2d` is longer than a day; right would be: how long, with its unit: 30s; 0s for none; a day at most
            trommel.yaml:1:104: plugins.own.swap.canary.share: `100%` is no such part; right would be: which part of the streams has it first: 10%; above 0% and below 100%
            trommel.yaml:1:115: plugins.own.swap.canary.for: `0s` shows nothing; right would be: how long: 60s; a day at most
            trommel.yaml:1:128: plugins.own.swap.watch: `60` has no unit; right would be: how long, with its unit: 30s; 0s for none; a day at most
            trommel.yaml:1:152: plugins.own.swap.budget.failures: `1` is no part of all; right would be: a part of all, more than before: 1%; 100% at most, which switches it off
            trommel.yaml:1:164: plugins.own.swap.budget.latency: `0.5x` is no such multiple; right would be: a multiple of what it was: 2x; 1x at least
            trommel.yaml:1:177: plugins.own.swap.budget.drops: `101%` is no part of all; right would be: a part of all, more than before: 1%; 100% at most, which switches it off
            trommel.yaml:1:183: plugins.own.swap.budget.speed: is no key that is known here; right would be: one of failures, latency, drops
            9 faults in trommel.yaml"#]],
    );
    check(
        &own("canary: { share: 1e1% }, watc: 1s"),
        expect![[r#"
            trommel.yaml:1:66: plugins.own.swap.canary.for: is missing; right would be: how long: 60s; a day at most
            trommel.yaml:1:75: plugins.own.swap.canary.share: `1e1%` is no such part; right would be: which part of the streams has it first: 10%; above 0% and below 100%
            trommel.yaml:1:83: plugins.own.swap.watc: is no key that is known here; right would be: `watch`
            3 faults in trommel.yaml"#]],
    );
    check(
        &with("plugins: { redact: { module: \"builtin:redact\", swap: { watch: 1s } } }"),
        expect![[r#"
            trommel.yaml:1:54: plugins.redact.swap: a bundled plugin is the collector's own and changes with it; right would be: leave it out
            1 fault in trommel.yaml"#]],
    );
}
