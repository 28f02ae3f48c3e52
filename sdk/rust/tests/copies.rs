//! What this crate carries a copy of is what stands elsewhere in the repository.

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_wit_is_the_one_that_the_collector_speaks() {
    assert!(
        read("wit/plugin.wit") == read("../../wit/v0.1/plugin.wit"),
        "sdk/rust/wit/plugin.wit is outdated: cp wit/v0.1/plugin.wit sdk/rust/wit/"
    );
}

#[test]
fn the_filter_of_the_readme_is_the_one_that_is_built_and_run() {
    let filter = read("../../tests/guests/first-filter/src/lib.rs");
    assert!(read("README.md").contains(&format!("```rust\n{filter}```")));
    let lines = filter.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("use ")).count();
    assert!(lines < 15, "a useful filter has become {lines} lines long");
}

#[test]
fn the_plugin_of_the_authors_guide_is_the_one_that_is_built_and_run() {
    let plugin = read("../../tests/guests/first-alert/src/lib.rs");
    assert!(read("../../docs/plugin-authors.md").contains(&format!("```rust\n{plugin}```")));
}
