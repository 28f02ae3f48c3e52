//! `trommel plugin test`: what a plugin makes of a sample, shown as a difference, and held against what was right before.

use super::show::{self, Paint};
use super::{Chosen, Loaded};
use crate::app::sample::{self, Case, Output, Sample};
use crate::cli::{FAILED, STOPPED, WRONG, complain, plain, say};
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(in crate::cli) struct Test {
    #[command(flatten)]
    chosen: Chosen,
    /// Telemetry: one OTLP/JSON request (.json), one a line (.jsonl), or one Export*ServiceRequest in protobuf.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Ends with 1 if what comes out is not what stands in this file.
    #[arg(long, value_name = "FILE", requires = "input")]
    expect: Option<PathBuf>,
    /// A folder of golden samples; without --input the one beside FILE: quiet.golden beside quiet.wasm.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["input", "expect"])]
    golden: Option<PathBuf>,
    /// Writes what comes out to where it is expected.
    #[arg(long)]
    update: bool,
    /// Shows every record that changed, not the first few.
    #[arg(long)]
    all: bool,
}

/// An error is for a person; the command ends with 2.
pub(super) fn test(test: &Test) -> u8 {
    let ended = match (&test.input, golden_folder(test)) {
        (Some(input), _) => one(test, input),
        (None, Some(folder)) => folder_of(test, &folder),
        (None, None) => {
            Err("give it something to work on: --input sample.json, or a folder of golden samples".into())
        }
    };
    ended.unwrap_or_else(|error| {
        complain(plain(&error));
        WRONG
    })
}

fn golden_folder(test: &Test) -> Option<PathBuf> {
    let beside = || Some(sample::beside(Path::new(&test.chosen.file))).filter(|folder| folder.is_dir());
    test.golden.clone().or_else(beside)
}

fn one(test: &Test, input: &Path) -> Result<u8, String> {
    if test.update && test.expect.is_none() {
        return Err("--update needs --expect: the file to write".into());
    }
    let sample = Sample::read(input, test.chosen.signal.as_deref())?;
    let loaded = Loaded::new(&test.chosen)?;
    let plugin = loaded.plugin()?;
    let output = sample.run(&plugin, &loaded.whose);
    let paint = Paint::for_stdout();
    say(&loaded.head(&plugin));
    say(&plain_lines(&show::changes(&output, paint, test.all)));
    say(&plain_lines(&show::summary(&output, &loaded.settings.limits)));
    let Some(expected) = &test.expect else {
        let is_well = output.failed.is_empty() && output.failed_ticks.is_empty();
        return Ok(if is_well { STOPPED } else { FAILED });
    };
    if test.update {
        write(expected, &output)?;
        say(&format!("\nwritten to {}", expected.display()));
        return Ok(STOPPED);
    }
    let difference = sample::compare(&sample::expected_in(expected)?, &output.golden());
    Ok(told(&expected.display().to_string(), difference, paint))
}

fn folder_of(test: &Test, folder: &Path) -> Result<u8, String> {
    let cases = sample::cases(folder)?;
    let loaded = Loaded::new(&test.chosen)?;
    let paint = Paint::for_stdout();
    let mut code = STOPPED;
    for (at, case) in cases.iter().enumerate() {
        let output = case.run(&loaded.sandbox, &loaded.settings, &loaded.component, &loaded.whose)?;
        if at == 0 {
            say(&format!("{}: {} golden samples in {}\n", test.chosen.file, cases.len(), folder.display()));
        }
        if test.update {
            write(&case.expected, &output)?;
            say(&format!("{}: written", case.name));
            continue;
        }
        code = code.max(golden(case, &output, paint)?);
    }
    Ok(code)
}

fn golden(case: &Case, output: &Output, paint: Paint) -> Result<u8, String> {
    Ok(told(&case.name, case.difference(output)?, paint))
}

fn told(name: &str, difference: Option<String>, paint: Paint) -> u8 {
    match difference {
        None => {
            say(&format!("{}: as expected", plain(name)));
            STOPPED
        }
        Some(difference) => {
            say(&paint.removed(&format!("{}: not as expected", plain(name))));
            say(&plain(&difference));
            FAILED
        }
    }
}

fn write(path: &Path, output: &Output) -> Result<(), String> {
    let text = format!("{:#}\n", output.golden());
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Colours are ours and stay; what the records say moves no cursor.
fn plain_lines(lines: &[show::Shown]) -> String {
    lines.iter().map(|line| line.painted(plain(&line.text))).collect::<Vec<_>>().join("\n")
}
