//! Components that were built against another version of the WIT than ours.

use super::*;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A plugin for logs in the version `VERSION` that knows nothing but this text puts into it.
const PLUGIN: &str = r#"(module
    ;; IMPORTS
    (memory (export "memory") 1)
    (data (i32.const 16) "\60\00\00\00\03\00\00\00\64\00\00\00\01\00\00\00\68\00\00\00\01\00\00\00")
    (data (i32.const 96) "new\001\00\00\00\00")
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
    (func (export "trommel:plugin/lifecycle@VERSION#describe") (result i32) i32.const 16)
    (func (export "trommel:plugin/lifecycle@VERSION#configure") (param i32 i32) (result i32) i32.const 128)
    (func (export "trommel:plugin/processor@VERSION#process") (result i32) (call $work) i32.const 128)
    ;; REST
)"#;

/// The plugin of a world in which `batch` can also `weigh`, and there is an interface `scales` that can, too. What it
/// does in `process` is the function `$work` of `rest`.
pub(super) fn plugin_of(version: &str, imports: &str, rest: &str) -> Vec<u8> {
    const WEIGH: &str = "weigh: func(row: u32) -> u32;";
    let wit = include_str!("../../../../wit/v0.1/plugin.wit")
        .replace("@0.1.0;", &format!("@{version};"))
        .replace("interface batch {", &format!("interface scales {{ {WEIGH} }}\ninterface batch {{ {WEIGH}"))
        .replace("world plugin {", "world plugin { import scales;");
    let mut resolve = Resolve::default();
    let package = resolve.push_str("plugin.wit", &wit).unwrap();
    let world = resolve.select_world(&[package], Some("plugin")).unwrap();
    let text = PLUGIN.replace(";; IMPORTS", imports).replace(";; REST", rest).replace("VERSION", version);
    let mut module = wat::parse_str(text).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

const ROWS: &str = r#"(import "trommel:plugin/batch@VERSION" "rows" (func $rows (param i32) (result i32)))"#;
const WEIGH: &str =
    r#"(import "trommel:plugin/batch@VERSION" "weigh" (func $weigh (param i32) (result i32)))"#;
const SCALES: &str =
    r#"(import "trommel:plugin/scales@VERSION" "weigh" (func $weigh (param i32) (result i32)))"#;
const OLD_WORK: &str = "(func $work (drop (call $rows (i32.const 3))))";
const NEW_WORK: &str = "(func $work (drop (call $rows (i32.const 3))) (call $inner)) (func $inner (drop (call $weigh (i32.const 0))))";
/// As an interpreter: what is called stands in a table.
const TABLE_WORK: &str = r#"(table 1 funcref) (elem (i32.const 0) $inner) (type $job (func))
    (func $work (call_indirect (type $job) (i32.const 0))) (func $inner (drop (call $weigh (i32.const 0))))"#;

fn load(component: &[u8]) -> Result<Plugin, String> {
    sandbox().load_bytes(&settings("{}"), component).map_err(|error| error.to_string())
}

fn run(plugin: &Plugin) -> Result<(), PluginError> {
    let called = plugin.process(piece(&["one"]), None, 0);
    called.result.map(|_| ())
}

fn uses(interface: &str, version: &str) -> String {
    format!(
        "uses `{interface}.weigh` of trommel:plugin@{version}; this collector has trommel:plugin@0.1.0: it takes a newer \
         collector, or a plugin that does without"
    )
}

#[test]
fn one_of_a_later_version_that_uses_nothing_new_runs() {
    let plugin = load(&plugin_of("0.1.3", ROWS, OLD_WORK)).unwrap();
    assert_eq!(run(&plugin), Ok(()));
}

#[test]
fn an_import_that_no_code_reaches_is_not_used() {
    for new in [WEIGH, SCALES] {
        let imports = format!("{ROWS}{new}");
        assert_eq!(run(&load(&plugin_of("0.1.3", &imports, OLD_WORK)).unwrap()), Ok(()));
        let beside = format!("{OLD_WORK} (func $never (drop (call $weigh (i32.const 0))))");
        assert_eq!(run(&load(&plugin_of("0.1.3", &imports, &beside)).unwrap()), Ok(()));
    }
}

#[test]
fn one_that_uses_what_is_new_is_refused_with_both_versions() {
    let imports = |new: &str| format!("{ROWS}{new}");
    let refusal = |new: &str| load(&plugin_of("0.1.3", &imports(new), NEW_WORK)).unwrap_err();
    assert_eq!(refusal(WEIGH), uses("batch", "0.1.3"));
    assert_eq!(refusal(SCALES), uses("scales", "0.1.3"));
}

#[test]
fn what_only_a_table_leads_to_fails_the_call_that_uses_it() {
    for (new, interface) in [(WEIGH, "batch"), (SCALES, "scales")] {
        let plugin = load(&plugin_of("0.1.4", &format!("{ROWS}{new}"), TABLE_WORK)).unwrap();
        for _ in 0..2 {
            let error = run(&plugin).unwrap_err();
            let says_so = error.to_string().contains(&uses(interface, "0.1.4"));
            assert!(matches!(error, PluginError::Trap(_)) && says_so, "{error}");
            assert_eq!(plugin.idle_instances(), 1, "the one of the load; the other was stopped halfway");
        }
    }
}

#[test]
fn what_our_own_version_does_not_have_was_built_against_another_wit() {
    let imports = format!("{ROWS}{WEIGH}");
    assert_eq!(
        load(&plugin_of("0.1.0", &imports, OLD_WORK)).unwrap_err(),
        "imports `batch.weigh` of trommel:plugin@0.1.0, which has no such function: build it against the collector's own \
         wit/v0.1"
    );
}

#[test]
fn another_folder_of_the_wit_is_refused_with_both_versions() {
    for (version, folder) in [("0.2.0", "0.2"), ("1.0.7", "1.0"), ("0.0.9", "0.0")] {
        let text = format!(
            "was built against trommel:plugin@{version}; this collector has trommel:plugin@0.1.0: build it against \
             wit/v0.1, or use a collector that has {folder}"
        );
        assert_eq!(load(&plugin_of(version, ROWS, OLD_WORK)).unwrap_err(), text);
        let imports_nothing = plugin_of(version, "", "(func $work)");
        assert_eq!(load(&imports_nothing).unwrap_err(), text);
    }
}

#[test]
fn the_version_that_errors_name_is_that_of_the_wit() {
    let wit = include_str!("../../../../wit/v0.1/plugin.wit");
    assert!(wit.contains("\npackage trommel:plugin@0.1.0;\n"), "versions.rs names 0.1.0");
}
