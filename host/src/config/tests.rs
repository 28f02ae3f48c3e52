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
        expect![],
    );
}

#[test]
fn text_that_is_no_yaml_says_where() {
    check("a: [1\nb: 2\n", expect![]);
    check("a: 1\na: 2\n", expect![]);
    check("", expect![]);
}

#[test]
fn without_tokens_only_loopback_may_listen() {
    check(&with("receivers: { otlp: { grpc: { listen: 0.0.0.0:4317 } } }"), expect![]);
}

#[test]
fn two_listeners_need_two_ports() {
    let section = "receivers: { otlp: { grpc: { listen: 127.0.0.1:4317 }, http: { listen: 127.0.0.1:4317 } } }";
    check(&with(section), expect![]);
}

#[test]
fn the_largest_body_must_fit_half_of_the_room() {
    check(&with("memory: { room: 128MiB }"), expect![]);
    check(&with("memory: { room: 384MiB }"), expect!["valid"]);
}

#[test]
fn a_guard_must_stand_in_every_pipeline_or_be_waived() {
    let plugin = "plugins: { redact: { module: \"builtin:redact\" } }";
    check(&with(plugin), expect![]);
    let waived = with(plugin).replace("name: all,", "name: all, unguarded: true,");
    check(&waived, expect!["valid"]);
    let passes = with("plugins: { redact: { module: \"builtin:redact\", on_failure: pass } }");
    check(&passes.replace("sinks: [out]", "plugins: [redact], sinks: [out]"), expect![]);
}

#[test]
fn a_tenants_plugin_stands_in_pipelines_of_that_tenant_alone() {
    let plugin = "plugins: { own: { module: ./own.wasm, tenant: acme, grant: { reads: [severity], writes: [drop] } } }";
    let named = with(plugin).replace("sinks: [out]", "plugins: [own], sinks: [out]");
    check(&named, expect![]);
    check(&named.replace("name: all,", "name: all, when: { tenant: [acme] },"), expect!["valid"]);
}

#[test]
fn a_plugin_from_a_file_needs_a_grant() {
    check(&with("plugins: { own: { module: ./own.wasm } }"), expect![]);
}

#[test]
fn what_comes_later_says_so() {
    check(&with("alerts: { channels: {} }"), expect![]);
    check(&with("sinks: { out: { type: streams, store: { mongodb: { uri: x } } } }"), expect![]);
    check(&with("sinks: { out: { type: remote_write, endpoint: \"http://x\" } }"), expect![]);
}

#[test]
fn secrets_are_in_no_fault_and_no_debug() {
    let text = with("sinks: { out: { type: otlp, endpoint: \"http://127.0.0.1:1\", headers: { authorization: \"Bearer s3cret\" } } }");
    let config = Config::parse(&text, Path::new("."), "trommel.yaml").unwrap();
    assert!(!format!("{config:?}").contains("s3cret"));
    let broken = text.replace("authorization:", "\"author ization\":");
    let faults = Config::parse(&broken, Path::new("."), "trommel.yaml").unwrap_err().to_string();
    assert!(!faults.contains("s3cret"), "{faults}");
}
