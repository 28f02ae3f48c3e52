//! What does a tenant notice of another tenant's bad plugin?
//!
//! `load neighbours [--trommel PATH] [--folder FOLDER] [--rounds N] [--only MODE]`. Two tenants send at fixed rates; the bad
//! one has a plugin of its own. The floor is the same traffic with that plugin doing nothing. *At first* begins with
//! the bad one's first request, *afterwards* follows it: by then its circuit is open, if it opens.

use crate::journal::{Bench, CONSOLE, SYSTEM, median, shape};
use crate::process::{Generated, Process, metric, on_core};
use anyhow::{Context, Result, ensure};
use std::process::Stdio;
use std::time::Duration;

const GOOD_TOKEN: &str = "good-bench-token";
const BAD_TOKEN: &str = "bad-bench-token";
const GOOD_RECORDS: usize = 100;
const GOOD_PER_SECOND: u64 = 200;
const BAD_RECORDS: usize = 100;
const BAD_PER_SECOND: u64 = 50;
/// In seconds.
const AT_FIRST: u64 = 2;
const AFTERWARDS: u64 = 10;
/// Of a call.
const LIMIT: Duration = Duration::from_millis(20);

/// What the plugin does, and whether its circuit has to open for it.
const MODES: [(&str, bool); 11] = [
    ("nothing", false),
    ("loop", true),
    ("trap", true),
    ("deep", true),
    ("balloon", true),
    ("search10000", true),
    ("output-flood", true),
    ("hostcall-flood", true),
    ("error-late", false),
    ("log-flood", false),
    ("nearly", false),
];

/// What the good one said, round by round, in ms: p50 and p99 at first, p50 and p99 afterwards.
type Said = [Vec<f64>; 4];

#[allow(clippy::print_stdout, reason = "the figures")]
pub(crate) async fn run(bench: &Bench, only: Option<&str>) -> Result<()> {
    let is_asked =
        |(mode, _): &(&str, bool)| *mode == MODES[0].0 || only.is_none_or(|only| mode.contains(only));
    let modes: Vec<(&str, bool)> = MODES.into_iter().filter(is_asked).collect();
    let mut said = vec![Said::default(); modes.len()];
    let mut openings = vec![0; modes.len()];
    for _ in 0..bench.rounds {
        for (at, (mode, opens)) in modes.iter().enumerate() {
            openings[at] = round(bench, mode, &mut said[at]).await.context(*mode)?;
            ensure!(!opens || openings[at] > 0, "the circuit of `{mode}` did not open");
        }
    }
    println!(
        "\n{GOOD_PER_SECOND} requests of {GOOD_RECORDS} records a second, beside {BAD_PER_SECOND} of {BAD_RECORDS} of a tenant with a bad plugin; a call of it may take {LIMIT:?}\n"
    );
    println!(
        "| the plugin | at first p50 ms | p99 ms | p99 more by ms | afterwards p50 ms | p99 ms | p99 × | circuit openings |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let of = |said: &Said| said.each_ref().map(|rounds| median(rounds.clone()));
    let floor = of(&said[0]);
    for (((mode, _), said), openings) in modes.iter().zip(&said).zip(&openings) {
        let [first_p50, first_p99, after_p50, after_p99] = of(said);
        println!(
            "| {mode} | {first_p50:.2} | {first_p99:.2} | {:.2} | {after_p50:.2} | {after_p99:.2} | {:.2} | {openings} |",
            first_p99 - floor[1],
            after_p99 / floor[3],
        );
    }
    Ok(())
}

/// How often the bad plugin's circuit opened.
async fn round(bench: &Bench, mode: &str, said: &mut Said) -> Result<u64> {
    bench.clear()?;
    std::fs::write(bench.folder.join("bad.wasm"), artifacts::guest("hostile").context("the guest")?)?;
    let collector = bench.collector(&configuration(mode)).await?;
    let _bad = bad(bench)?;
    let at_first = good(bench, AT_FIRST)?;
    let afterwards = good(bench, AFTERWARDS)?;
    let figures = [at_first.p50_ms, at_first.p99_ms, afterwards.p50_ms, afterwards.p99_ms];
    for (rounds, figure) in said.iter_mut().zip(figures) {
        rounds.push(figure);
    }
    let openings = metric(CONSOLE, "trommel_process_circuit_openings_total")?;
    drop(collector);
    Ok(openings)
}

fn good(bench: &Bench, seconds: u64) -> Result<Generated> {
    let flags = ["--token", GOOD_TOKEN, "--per-second", &GOOD_PER_SECOND.to_string()].map(str::to_owned);
    bench.generate(shape(GOOD_RECORDS), GOOD_PER_SECOND * seconds, &flags)
}

/// It sends on whatever it is answered; on its core the good one goes first.
fn bad(bench: &Bench) -> Result<Process> {
    let mut command = on_core(1, "nice");
    command.args(["-n", "19"]).arg(&bench.own);
    command.args(["generate", "--to", &format!("http://{SYSTEM}"), "--token", BAD_TOKEN, "--gives-up"]);
    let requests = BAD_PER_SECOND * (AT_FIRST + AFTERWARDS + 30);
    command.args(["--requests", &requests.to_string(), "--per-second", &BAD_PER_SECOND.to_string()]);
    command.args(["--records", &BAD_RECORDS.to_string(), "--connections", "4", "--in-flight", "64"]);
    Ok(Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
}

/// The hashes are of the tokens above. `rounds` is what takes most of the limit on the machine of the README.
fn configuration(mode: &str) -> String {
    let grant = "{ reads: [body, name, event-name, description, severity, kind, status, time, number, trace-id, span-id, trace-state, raw, \"item:*\", \"event:*\", \"metric:*\", \"scope:*\", \"resource:*\"], writes: [body, name, event-name, description, severity, trace-state, raw, \"item:*\", \"event:*\", \"metric:*\", \"scope:*\", \"resource:*\", drop, route] }";
    format!(
        "identity: {{ tokens: [\n\
         {{ sha256: \"94e1037b9b1faba05b9576a5e81b6d5f4ca7596e161e4d1b42431f21a9b5fb22\", tenant: good, rights: [send] }},\n\
         {{ sha256: \"8178305413967169e8b5e53f29cad3432587b1510663c3c72482d1f86959731e\", tenant: bad, rights: [send] }}] }}\n\
         journal: {{ kind: memory }}\n\
         plugins:\n  redact: {{ module: \"builtin:redact\", guard: false }}\n  \
         bad: {{ module: bad.wasm, tenant: bad, on_failure: refuse, limits: {{ time: {}ms, cpu: {} }}, grant: {grant}, config: {{ mode: {mode}, pattern: \"[a-z]+@[a-z.]+\", rounds: \"40000000\" }} }}\n\
         pipelines:\n  - {{ name: bad, when: {{ tenant: [bad] }}, plugins: [bad], sinks: [out] }}\n  \
         - {{ name: good, plugins: [redact], sinks: [out] }}\n\
         sinks: {{ out: {{ type: discard }} }}\n",
        LIMIT.as_millis(),
        // One that stays below its limit is held by its share; the others are to meet their limit, and their circuit.
        if mode == "nearly" { "10%" } else { "none" },
    )
}
