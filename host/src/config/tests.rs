//! The faults of a file, all at once, with line, column and what would be right.

use super::*;
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
plugins: { r: { module: "builtin:redcat", on_failure: quarantine } }
pipelines: [{ name: a, plugins: [q], sinks: [b] }]
sinks: { s: { type: kafka } }
journal: { kind: disk }
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
            trommel.yaml:4:25: plugins.r.module: `redcat` does not come with the collector; right would be: enrich, redact, sample
            trommel.yaml:4:55: plugins.r.on_failure: `quarantine` comes with dead letters; right would be: refuse, drop or pass
            trommel.yaml:5:13: pipelines[0].plugins: there is no plugin `q`; right would be: r
            trommel.yaml:5:13: pipelines[0].sinks: there is no sink `b`; right would be: one that stands under `sinks`
            trommel.yaml:6:21: sinks.s.type: `kafka` is not known; right would be: otlp, streams, stdout or discard
            trommel.yaml:7:18: journal.kind: `disk` comes with the journal; right would be: memory: what was acknowledged dies with the process
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
    check(&with("memory: { room: 400MiB }\njournal: { max: 16MiB }"), expect!["valid"]);
}

#[test]
fn the_journals_memory_is_a_part_of_the_room() {
    for (text, requests, journal) in [
        (String::from(DEFAULTS), 384, 128),
        (with("memory: { room: 1GiB }\njournal: { max: 100MiB }"), 924, 100),
    ] {
        let config = Config::parse(&text, Path::new("."), "trommel.yaml").unwrap();
        assert_eq!(config.tenants.room_bytes, requests << 20);
        assert_eq!(config.journal, journal::Settings::Memory { bytes_max: journal << 20 });
    }
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
fn what_comes_later_says_so() {
    check(
        &with("alerts: { channels: {} }"),
        expect![[r#"
        trommel.yaml:1:9: alerts: alerts come with a later version; right would be: leave the section out
        1 fault in trommel.yaml"#]],
    );
    check(
        &with("sinks: { out: { type: streams, store: { mongodb: { uri: x } } } }"),
        expect![[r#"
        trommel.yaml:1:39: sinks.out.store: `mongodb` comes with a later version; right would be: embedded
        1 fault in trommel.yaml"#]],
    );
    check(
        &with("sinks: { out: { type: remote_write, endpoint: \"http://x\" } }"),
        expect![[r#"
        trommel.yaml:1:23: sinks.out.type: `remote_write` comes with a later version; right would be: otlp, streams, stdout or discard
        trommel.yaml:3:13: pipelines[0].sinks: there is no sink `out`; right would be: one that stands under `sinks`
        2 faults in trommel.yaml"#]],
    );
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
            "plugins: { own: { module: ./own.wasm, grant: {}, limits: { output: 8 }, shadow: true } }\nunknown_fields: strip\nquota: {}",
        ),
        expect![[r#"
            trommel.yaml:1:60: plugins.own.limits.output: comes with a later version; right would be: leave it out
            trommel.yaml:1:73: plugins.own.shadow: comes with a later version; right would be: leave it out
            trommel.yaml:2:1: unknown_fields: comes with a later version; right would be: leave it out
            trommel.yaml:3:1: quota: comes with a later version; right would be: leave it out
            4 faults in trommel.yaml"#]],
    );
    check(
        &with("sinks: { out: { type: discard, essential: true } }"),
        expect![[r#"
        trommel.yaml:1:32: sinks.out.essential: comes with a later version; right would be: leave it out
        1 fault in trommel.yaml"#]],
    );
}
