//! What is refused before a plugin counts, and what the refusal says.

use super::*;

/// The error of loading these bytes with these settings.
fn refusal(settings: &Settings, bytes: &[u8]) -> String {
    match sandbox().load_bytes(settings, bytes).unwrap_err() {
        PluginError::Load(text) => text,
        other => other.to_string(),
    }
}

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[test]
fn what_is_no_plugin_is_told_apart() {
    let check = |bytes: &[u8], text: &str| {
        let refusal = refusal(&settings("{}"), bytes);
        assert!(refusal.starts_with(text), "{refusal}");
    };
    check(b"", "is no WebAssembly component");
    check(b"\x7fELF and so on", "is no WebAssembly component");
    check(b"  (component)", "is WebAssembly text: make a component of it");
    check(&component("(module)"), "is a WebAssembly module, not a component: make one of it with");
    check(&guest()[..1000], "is no valid component: ");
    check(&component("(component)"), "does not export trommel:plugin/lifecycle@0.1.0: it is no plugin");
}

#[test]
fn a_foreign_import_is_refused_by_its_name() {
    let check = |import: &str| {
        let component = component(&format!(r#"(component (import "{import}" (instance)))"#));
        let text = format!("asks for [\"{import}\"]; a plugin may import trommel:plugin@0.1 only, no WASI");
        assert_eq!(refusal(&settings("{}"), &component), text);
    };
    check("wasi:cli/environment@0.2.12");
    check("trommel:plugin/files@0.1.0");
    check("other:plugin/batch@0.1.0");
}

#[test]
fn an_export_without_its_functions_does_not_fit() {
    let component = component(
        r#"(component (instance $none)
            (export "trommel:plugin/lifecycle@0.1.0" (instance $none))
            (export "trommel:plugin/processor@0.1.0" (instance $none)))"#,
    );
    let refusal = refusal(&settings("{}"), &component);
    assert!(refusal.starts_with("does not fit trommel:plugin@0.1.0: "), "{refusal}");
}

#[test]
fn a_manifest_that_cannot_be_served_is_refused() {
    let check = |manifest: &str, text: &str| {
        let refusal = refusal(&settings("{}"), &guest_with(manifest));
        assert!(refusal.starts_with(text), "{manifest}: {refusal}");
    };
    check("x;body;drop;alerts files;", "needs `files`, which is none of alerts, series, store");
    check("x;bodies;drop;;", "`reads` of its manifest: `bodies` is no right: use body, name");
    check("x;drop;;;", "`reads` of its manifest: `drop` is no right");
    check("x;;item:;;", "`writes` of its manifest: `item:` is no right");
}

#[test]
fn a_manifest_beyond_the_grant_is_refused_and_the_text_says_what_to_grant() {
    let mut narrow = settings("{}");
    narrow.grant = Some(Grant { reads: words("severity item:http.*"), writes: words("drop") });
    let check = |manifest: &str, text: Option<&str>| {
        let loaded = sandbox().load_bytes(&narrow, &guest_with(manifest));
        let refusal = loaded.err().map(|error| error.to_string());
        assert_eq!(refusal.as_deref(), text, "{manifest}");
    };
    check("x;severity item:http.method;drop;;", None);
    check("x;item:http.*;;;", None);
    check(
        "x;severity item:user.* body;drop route;;",
        Some(
            "asks for more than its `grant`: reads [\"body\", \"item:user.*\"], writes [\"route\"]; all it asks for is \
             grant: { reads: [\"severity\", \"item:user.*\", \"body\"], writes: [\"drop\", \"route\"] }",
        ),
    );
    narrow.grant = None;
    let text = refusal(&narrow, &guest_with("x;body;drop;;"));
    assert_eq!(text, "no `grant`; it asks for grant: { reads: [\"body\"], writes: [\"drop\"] }");
    narrow.grant = Some(Grant { reads: words("bodi"), writes: vec![] });
    assert!(refusal(&narrow, guest()).starts_with("its `grant`: `bodi` is no right"));
}

#[test]
fn a_bundled_plugin_is_granted_what_it_asks_for() {
    let mut bundled = settings("{}");
    bundled.module = Module::Builtin("hostile".into());
    bundled.grant = None;
    let plugin = sandbox().load_bytes(&bundled, guest()).unwrap();
    assert_eq!(plugin.manifest().name, "hostile");
    assert_eq!(plugin.manifest().reads, words(READS));
}

#[test]
fn a_module_that_is_not_there_is_refused() {
    let mut missing = settings("{}");
    missing.module = Module::Builtin("no-such".into());
    let load = |settings: &Settings| sandbox().load(settings).unwrap_err().to_string();
    assert_eq!(load(&missing), "there is no bundled plugin `no-such`");
    missing.module = Module::File("/no/such/file.wasm".into());
    assert_eq!(load(&missing), "/no/such/file.wasm: No such file or directory (os error 2)");
}

#[test]
fn what_configure_says_is_told_to_the_operator() {
    let check = |mode: &str, text: &str| {
        assert_eq!(refusal(&settings(&format!(r#"{{"mode": "{mode}"}}"#)), guest()), text, "{mode}");
    };
    check("bad-settings", "its settings are refused: `ratio` is missing");
    check("configure-loop", "`configure` failed: took longer than 2000 ms of CPU time");
    check("configure-reads", "`configure` failed: severities: works inside `process` only");
    let compiled = "its settings are refused: pattern 0: takes more than 1048576 bytes when compiled";
    check("explode-pattern", compiled);
    check("many-patterns", "its settings are refused: 65 patterns in one set; at most 64");
    check("long-pattern", "its settings are refused: pattern 0: longer than 1024 bytes");
    check("many-sets", "its settings are refused: a plugin may compile 16 sets of patterns");
    check("wrong-pattern", "its settings are refused: pattern 1: unclosed group at byte 0");
}

#[test]
fn a_guest_that_needs_more_memory_than_it_may_have_is_refused() {
    let mut small = settings("{}");
    small.limits.memory = 64 << 10;
    assert_eq!(refusal(&small, guest()), "needs more than 65536 bytes of memory");
}

#[test]
fn a_component_can_be_inspected_without_settings() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.wasm");
    std::fs::write(&file, guest_with("x;body;drop;alerts;")).unwrap();
    let inspection = sandbox().inspect(&file).unwrap();
    let manifest = &inspection.manifest;
    assert_eq!((manifest.name.as_str(), manifest.needs.as_slice()), ("x", ["alerts".to_string()].as_slice()));
    assert_eq!((inspection.world, inspection.interface.as_str()), ("plugin", "0.1.0"));
    assert_eq!(inspection.exports, ["trommel:plugin/lifecycle@0.1.0", "trommel:plugin/processor@0.1.0"]);
    assert!(inspection.imports.contains(&"trommel:plugin/batch@0.1.0".to_owned()), "{inspection:?}");
    assert!(inspection.memory >= 64 << 10 && inspection.bytes > 1_000, "{inspection:?}");
    assert_eq!(inspection.digest.len(), 64);
}

#[test]
fn every_bundled_plugin_loads_by_its_name() {
    for name in artifacts::BUNDLED {
        let mut bundled = settings("{}");
        bundled.name = name.to_string();
        bundled.module = Module::Builtin(name.to_string());
        bundled.grant = None;
        match sandbox().load(&bundled) {
            Ok(plugin) => assert_eq!(plugin.manifest().name, *name),
            // Some have nothing to do without settings.
            Err(error) => {
                assert!(error.to_string().starts_with("its settings are refused: "), "{name}: {error}")
            }
        }
    }
}

#[test]
fn a_start_function_sees_the_time() {
    const NOW: &str = r#"(import "trommel:plugin/host@VERSION" "now" (func $now (result i64)))"#;
    const LOOK: &str =
        r#"(func (export "_initialize") (if (i64.eqz (call $now)) (then unreachable))) (func $work)"#;
    let component = super::versions::plugin_of("0.1.0", NOW, LOOK);
    assert_eq!(sandbox().load_bytes(&settings("{}"), &component).unwrap().manifest().name, "new");
}
