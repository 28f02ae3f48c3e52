//! The steps of `cargo xtask test`, in order, with the minutes each took.

use crate::{languages, servers};
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// For each fuzz target.
pub(crate) const FUZZ_SECONDS: u32 = 40;

/// Progress of the run, for whoever watches it.
#[allow(clippy::print_stderr, reason = "a command line tool that reports its progress")]
pub(crate) fn say(line: &str) {
    eprintln!("xtask: {line}");
}

/// Everything that CI checks. The first step that fails ends the run.
pub(crate) fn test() -> Result<()> {
    let mut clock = Clock::default();
    let mut installed = clock.step("install", servers::install)?;
    installed.extend(clock.step("plugins in other languages", languages::install)?);
    clock.step("fmt", || cargo(&["fmt", "--all", "--check"], &[]))?;
    clock.step("clippy", || {
        cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"], &[])
    })?;
    clock.step("doc", || {
        cargo(
            &["doc", "--workspace", "--no-deps", "--locked", "--document-private-items"],
            &[("RUSTDOCFLAGS", "-D warnings")],
        )
    })?;
    clock.step("build", || cargo(&["build", "--workspace", "--bins", "--tests", "--locked"], &[]))?;
    clock
        .step("cargo test", || cargo(&["test", "--workspace", "--locked", "--", "--skip", "real::"], &[]))?;
    clock.step("plugins and sdk", plugins)?;
    let found: Vec<(&str, String)> =
        installed.iter().map(|(name, path)| (*name, path.display().to_string())).collect();
    let found: Vec<(&str, &str)> = found.iter().map(|(name, path)| (*name, path.as_str())).collect();
    clock.step("streams in MongoDB", || streams_in_mongodb(&found))?;
    clock.step("real servers and SDKs", || {
        cargo(&["test", "--package", "tests", "--locked", "--", "real::", "--test-threads", "2"], &found)
    })?;
    clock.step("fuzz", || fuzz(FUZZ_SECONDS))?;
    clock.report();
    Ok(())
}

/// The suite of the stores against FerretDB, and once more against the server of whoever has one: what FerretDB and
/// mongo-java-server prove nothing about (clustered collections, majority, roles) only a MongoDB does.
fn streams_in_mongodb(found: &[(&str, &str)]) -> Result<()> {
    const SUITE: [&str; 8] =
        ["test", "--package", "trommel", "--lib", "--locked", "--", "real::", "--test-threads=2"];
    cargo(&SUITE, &[found, &[("MONGODB_URI", "")]].concat())?;
    match std::env::var("MONGODB_URI") {
        Ok(uri) if !uri.is_empty() => {
            say("and against the server of MONGODB_URI …");
            cargo(&SUITE, found)
        }
        _ => Ok(()),
    }
}

/// The bundled plugins, the SDK and the tests' guests, checked as programs of the machine they are built on.
fn plugins() -> Result<()> {
    const WORKSPACE: [&str; 5] =
        ["--manifest-path", "plugins/Cargo.toml", "--locked", "--target-dir", "target/native-plugins"];
    cargo(&["fmt", "--manifest-path", "plugins/Cargo.toml", "--all", "--check"], &[])?;
    cargo(
        &[&["clippy", "--workspace", "--all-targets"], &WORKSPACE[..], &["--", "-D", "warnings"]].concat(),
        &[],
    )?;
    cargo(&[&["test", "--workspace"], &WORKSPACE[..], &["--", "--skip", "simulation::"]].concat(), &[])?;
    // It prints precision and recall of each kind of alert.
    let simulation = ["--", "simulation::", "--nocapture"];
    cargo(&[&["test", "--package", "anomaly"], &WORKSPACE[..], &simulation].concat(), &[])
}

/// What CI has no time for: the tests of durability with many more kills, crashes and seconds.
pub(crate) fn soak() -> Result<()> {
    let mut clock = Clock::default();
    let journal = |tests: &str, variable: (&str, &str)| {
        cargo(&["test", "--package", "trommel", "--lib", "--locked", "--", tests], &[variable])
    };
    let end_to_end = |tests: &str, variable: (&str, &str)| {
        cargo(&["test", "--package", "tests", "--locked", "--", tests, "--nocapture"], &[variable])
    };
    clock.step("build", || cargo(&["build", "--workspace", "--bins", "--tests", "--locked"], &[]))?;
    clock.step("5,000 histories of crashes of the journal", || {
        journal("journal::tests::crashes", ("TROMMEL_TEST_SEEDS", "5000"))
    })?;
    clock.step("20,000 histories of crashes of its files", || {
        journal("journal::disk::tests::crash", ("PROPTEST_CASES", "20000"))
    })?;
    clock.step("1,000 kills", || end_to_end("durable::kills", ("TROMMEL_TEST_KILLS", "1000")))?;
    clock.step("a minute of overload", || {
        end_to_end("durable::overload", ("TROMMEL_TEST_OVERLOAD_SECONDS", "60"))
    })?;
    clock.step("10,000 swaps of a plugin", || end_to_end("swap::a_", ("TROMMEL_TEST_SWAPS", "10000")))?;
    clock.step("fuzz the journal", || fuzz_target(&fuzzer()?, "journal", 300))?;
    clock.report();
    Ok(())
}

/// Runs each fuzz target for `seconds`.
pub(crate) fn fuzz(seconds: u32) -> Result<()> {
    let fuzzer = fuzzer()?;
    let targets: Vec<String> = std::fs::read_dir("host/fuzz/fuzz_targets")?
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned))
        .collect();
    ensure!(!targets.is_empty(), "host/fuzz/fuzz_targets is empty");
    targets.iter().try_for_each(|target| fuzz_target(&fuzzer, target, seconds))
}

fn fuzzer() -> Result<PathBuf> {
    let installed = servers::install()?;
    let found = installed.into_iter().find(|(name, _)| *name == "TROMMEL_TEST_CARGO_FUZZ");
    Ok(found.expect("the recipe is in the list").1)
}

/// A pinned toolchain runs what else needs a nightly one by the bootstrap variable.
fn fuzz_target(fuzzer: &Path, target: &str, seconds: u32) -> Result<()> {
    // What is found is written into the first folder; the seeds are read only.
    let corpus = format!("host/fuzz/corpus/{target}");
    std::fs::create_dir_all(&corpus)?;
    let status = Command::new(fuzzer)
        .args(["fuzz", "run", "--sanitizer", "none", "--fuzz-dir", "host/fuzz", target, &corpus])
        .args([format!("host/fuzz/seeds/{target}"), "--".into(), format!("-max_total_time={seconds}")])
        .args(["-max_len=4096", "-rss_limit_mb=2048", "-timeout=10"])
        .env("RUSTC_BOOTSTRAP", "1")
        .status()?;
    ensure!(status.success(), "fuzz target {target} ended with {status}");
    Ok(())
}

/// Prints the figures of `bench/README.md`.
pub(crate) fn bench() -> Result<()> {
    cargo(&["bench", "--package", "bench", "--locked"], &[])
}

fn cargo(arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let status = Command::new(program).args(arguments).envs(variables.iter().copied()).status()?;
    ensure!(status.success(), "`cargo {}` ended with {status}", arguments.join(" "));
    Ok(())
}

#[derive(Default)]
struct Clock {
    steps: Vec<(&'static str, u64)>,
}

impl Clock {
    fn step<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        say(&format!("{name} …"));
        let started = SystemTime::now();
        let done = work()?;
        self.steps.push((name, started.elapsed()?.as_secs()));
        Ok(done)
    }

    fn report(&self) {
        for (name, seconds) in &self.steps {
            say(&format!("{:>5.1} min  {name}", *seconds as f64 / 60.0));
        }
        let whole: u64 = self.steps.iter().map(|(_, seconds)| seconds).sum();
        say(&format!("{:>5.1} min  in all", whole as f64 / 60.0));
    }
}
