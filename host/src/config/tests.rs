//! One file with many faults, and the fault of each rule.

use super::*;
use expect_test::{Expect, expect};

fn check(text: &str, expected: Expect) {
    let shown = match Config::parse(text, Path::new("."), "trommel.yaml") {
        Ok(_) => "valid".to_owned(),
        Err(faults) => faults.to_string(),
    };
    expected.assert_eq(&shown);
}

#[test]
fn the_embedded_defaults_are_valid() {
    check(DEFAULTS, expect!["valid"]);
}
