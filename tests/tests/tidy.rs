//! The house keeps its own rules: who may import whom (the table in ARCHITECTURE.md), absences, lengths.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Module → what it may import.
fn table() -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let section = text.split("## Who may import whom").nth(1).expect("the section stands in ARCHITECTURE.md");
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let rows = section
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        (names(cells[1])[0].clone(), names(cells[3]))
    })
    .collect()
}

/// Every Rust file of the host with its module.
fn sources() -> Vec<(PathBuf, String)> {
    let source = root().join("host/src");
    let mut found = Vec::new();
    let mut folders = vec![source.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let inside = path.strip_prefix(&source).unwrap();
                let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
                found.push((path.clone(), first.trim_end_matches(".rs").to_owned()));
            }
        }
    }
    assert!(found.len() > 30, "the host has more files than {}", found.len());
    found
}

/// The modules that `crate::…` names on a line, in braces too.
fn imported(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    let word =
        |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut modules = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => modules.push(word(rest)),
            Some(list) => {
                // Only the first level of the braces names modules.
                let mut depth = 0;
                let mut name = String::new();
                for letter in list.chars() {
                    match letter {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => modules.push(word(&std::mem::take(&mut name))),
                        _ if depth == 0 => name.push(letter),
                        _ => {}
                    }
                }
                modules.push(word(&name));
            }
        }
    }
    modules.retain(|module| !module.is_empty());
    modules
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let table = table();
    let mut wrong = Vec::new();
    for (path, module) in sources().iter().filter(|(_, module)| module != "lib" && module != "main") {
        let allowed = table
            .get(module)
            .unwrap_or_else(|| panic!("{} belongs to no module of the table", path.display()));
        let text = std::fs::read_to_string(path).unwrap();
        for (number, line) in text.lines().enumerate() {
            for target in imported(line) {
                if target != *module && table.contains_key(&target) && !allowed.contains(&target) {
                    wrong.push(format!("{}:{}: {module} -> {target}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports that ARCHITECTURE.md does not allow:\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_imports_sees_braces_and_paths() {
    assert_eq!(imported("use crate::batch::Signal;"), ["batch"]);
    assert_eq!(imported("use crate::{console, receivers::{self, Settings}};"), ["console", "receivers"]);
    assert_eq!(imported("    let x: crate::net::Y = crate::sinks::open();"), ["net", "sinks"]);
    assert_eq!(imported("// crate::sandbox is not used here"), Vec::<String>::new());
}

#[test]
fn what_must_be_absent_is_absent() {
    let rules: [(&str, &[&str]); 4] =
        [("wasmtime::", &["sandbox"]), ("static mut ", &[]), ("unbounded_channel", &[]), ("todo!(", &[])];
    let mut wrong = Vec::new();
    for (path, module) in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            for (word, owners) in rules {
                if line.contains(word) && !owners.contains(&module.as_str()) {
                    wrong.push(format!("{}:{}: {word}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "found where it must not be:\n{}", wrong.join("\n"));
}

#[test]
fn the_architecture_fits_its_page() {
    let lines = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap().lines().count();
    assert!(lines <= 150, "ARCHITECTURE.md has {lines} lines; 150 is the bound");
}

#[test]
fn every_file_of_the_host_opens_with_what_it_is() {
    for (path, _) in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("//!") || text.starts_with("//"),
            "{} does not say what it is",
            path.display()
        );
    }
}
