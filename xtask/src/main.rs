//! `cargo xtask test`: installs what the tests need, then runs them all. `.ci/run` calls it and nothing else.
//! `cargo xtask soak` is the long form of the tests of durability.

mod languages;
mod servers;
mod steps;

use anyhow::{Result, bail};

const USAGE: &str = "usage: cargo xtask test | soak | servers | languages | fuzz [SECONDS] | bench";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["test"] => steps::test(),
        ["soak"] => steps::soak(),
        ["servers"] => servers::install().map(|_| ()),
        ["languages"] => languages::install().map(|installed| {
            installed.iter().for_each(|(name, path)| steps::say(&format!("{name}={}", path.display())));
        }),
        ["fuzz"] => steps::fuzz(steps::FUZZ_SECONDS),
        ["fuzz", seconds] => steps::fuzz(seconds.parse()?),
        ["bench"] => steps::bench(),
        _ => bail!("{USAGE}"),
    }
}
