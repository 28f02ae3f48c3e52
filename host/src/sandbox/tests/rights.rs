//! Every function of `batch` looks into the rights, and names the one that is missing.

use super::*;

const NOW: u64 = 1_700_000_000_000_000_000;

/// The function, and the words of the manifest that it needs, after `r` (reads) or `w` (writes).
const FUNCTIONS: &[(&str, &str)] = &[
    ("holds", ""),
    ("tenant", ""),
    ("project", ""),
    ("rows", ""),
    ("parents", ""),
    ("severities", "r severity"),
    ("set-severity", "w severity"),
    ("kinds", "r kind"),
    ("statuses", "r status"),
    ("times", "r time"),
    ("end-times", "r time"),
    ("numbers", "r number"),
    ("counts", "r number"),
    ("temporalities", "r kind"),
    ("trace-ids", "r trace-id"),
    ("span-ids", "r span-id"),
    ("parent-span-ids", "r span-id"),
    ("trace-fractions", "r trace-id"),
    ("randomness", "r trace-id"),
    ("trace-states", "r trace-state"),
    ("set-trace-states", "w trace-state"),
    ("texts", "r body"),
    ("packed-texts", "r body"),
    ("text-rows", "r body"),
    ("search", "r body"),
    ("matches", "r body"),
    ("replace", "w body"),
    ("search-and-replace", "r body"),
    ("search-and-replace", "w body"),
    ("replace-each", "w body"),
    ("hash", "w body"),
    ("replace-texts", "w body"),
    ("remove-keys", "w body"),
    ("remove-keys", "w item:*"),
    ("mask-keys", "w body"),
    ("mask-keys", "w item:*"),
    ("hash-keys", "w body"),
    ("hash-keys", "w item:*"),
    ("attribute-keys", "r item:*"),
    ("attribute-rows", "r item:user"),
    ("text-attribute", "r item:user"),
    ("int-attribute", "r item:user"),
    ("double-attribute", "r item:user"),
    ("bool-attribute", "r item:user"),
    ("set-text-attribute", "w item:user"),
    ("set-int-attribute", "w item:user"),
    ("set-double-attribute", "w item:user"),
    ("set-bool-attribute", "w item:user"),
    ("copy-attribute", "r item:user"),
    ("copy-attribute-onto", "w item:user"),
    ("hash-attribute", "w item:user"),
    ("remove-attribute", "w item:user"),
    ("remove-attribute-from", "w item:user"),
    ("drop", "w drop"),
    ("route", "w route"),
    ("raw", "r raw"),
    ("splice", "w raw"),
];

/// What becomes of one call of this function under this manifest; the records are as they were if it failed.
fn call(function: &str, reads: &str, writes: &str) -> Result<(), String> {
    let config = format!(r#"{{"mode": "call", "function": "{function}", "pattern": "[a-z]+"}}"#);
    let guest = guest_with(&format!("x;{reads};{writes};;"));
    let plugin = sandbox().load_bytes(&settings(&config), &guest).unwrap();
    let called = plugin.process(piece(&["secret words"]), None, NOW);
    match called.result {
        Ok(_) => Ok(()),
        Err(PluginError::Fault(text)) => {
            assert_eq!(bodies(called.piece).1, ["secret words"], "{function}");
            Err(text)
        }
        Err(other) => panic!("{function}: {other}"),
    }
}

fn refusal(function: &str, need: &str) -> String {
    let (list, word) = need.split_once(' ').unwrap();
    let list = if list == "r" { "reads" } else { "writes" };
    let function = function.trim_end_matches("-onto");
    format!("{function}: `{word}` is not in `{list}` of the manifest")
}

/// The words of a list without this one; `item:*` becomes less than the attribute `user`.
fn without(words: &str, word: &str) -> String {
    let is_item = word.starts_with("item:");
    let kept = words.split_whitespace().filter(|one| *one != word);
    let kept = kept.map(|one| if is_item && one == "item:*" { "item:http.*" } else { one });
    let kept: Vec<&str> = kept.collect();
    match word {
        "item:*" => format!("{} item:http.*", kept.join(" ")),
        _ => kept.join(" "),
    }
}

#[test]
fn each_function_is_refused_without_its_right_and_by_no_other() {
    for (function, need) in FUNCTIONS.iter().filter(|(_, need)| !need.is_empty()) {
        let word = &need[2..];
        let (reads, writes) = match need.starts_with('r') {
            true => (without(READS, word), WRITES.to_owned()),
            false => (READS.to_owned(), without(WRITES, word)),
        };
        assert_eq!(call(function, &reads, &writes), Err(refusal(function, need)), "{function} {need}");
    }
    for (function, _) in FUNCTIONS {
        let refused = call(function, READS, WRITES).err().unwrap_or_default();
        assert!(!refused.contains("of the manifest"), "{function}: {refused}");
    }
}

#[test]
fn who_may_have_a_few_attributes_gets_at_nothing_else_by_any_function() {
    for (function, need) in FUNCTIONS {
        let called = call(function, "item:http.*", "item:http.*");
        match need.is_empty() {
            true => assert_eq!(called, Ok(()), "{function}"),
            false => {
                let refused = called.unwrap_err();
                assert!(refused.contains("of the manifest"), "{function}: {refused}");
            }
        }
    }
}

/// A function that is added to the WIT stands in the table.
#[test]
fn the_table_has_every_function_of_the_interface() {
    let wit = include_str!("../../../../wit/v0.1/plugin.wit");
    let interface = wit.split("interface batch {").nth(1).unwrap().split("\ninterface ").next().unwrap();
    let functions = interface.lines().filter_map(|line| Some(line.trim().split_once(": func(")?.0));
    let missing: Vec<&str> =
        functions.filter(|name| !FUNCTIONS.iter().any(|(function, _)| function == name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
