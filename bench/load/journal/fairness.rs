//! What a quiet tenant notices of another that sends ten times what it may.

use super::{Bench, CONSOLE, SYSTEM, frame_bytes, median, shape};
use crate::process::{Process, figures, on_core};
use anyhow::{Context, Result, ensure};
use std::process::Stdio;
use std::time::Duration;

const QUIET_TOKEN: &str = "quiet-bench-token";
const FLOOD_TOKEN: &str = "flood-bench-token";
const QUIET_RECORDS: usize = 10;
const QUIET_PER_SECOND: u64 = 100;
const QUIET_REQUESTS: u64 = 2000;
const FLOOD_RECORDS: usize = 512;
/// What every tenant may send, in records a second.
const QUOTA: u64 = 5000;
const FLOOD_TIMES: u64 = 10;
/// Until the flood has used up what it may send at once.
const RISE: Duration = Duration::from_secs(3);

/// What the quiet one said, round by round: acknowledged p50 and p99, seen p50 and p99, in ms.
type Said = [Vec<f64>; 4];

/// A figure is the median of the rounds, a ratio that of the rounds' ratios.
#[allow(clippy::print_stdout, reason = "the figures")]
pub(super) async fn run(bench: &Bench) -> Result<()> {
    let (mut alone, mut beside) = (Said::default(), Said::default());
    for _ in 0..bench.rounds {
        round(bench, false, &mut alone).await?;
        round(bench, true, &mut beside).await?;
    }
    let megabytes =
        (QUOTA * FLOOD_TIMES / FLOOD_RECORDS as u64) as f64 * frame_bytes(shape(FLOOD_RECORDS)) as f64 / 1e6;
    println!(
        "\nfairness: {QUIET_PER_SECOND} requests of {QUIET_RECORDS} records a second beside {FLOOD_TIMES} × {QUOTA} records a second ({megabytes:.0} MB)\n"
    );
    println!("| | acknowledged p50 ms | p99 ms | seen by a viewer p50 ms | p99 ms |\n|---|---|---|---|---|");
    for (name, said) in [("alone", &alone), ("beside the flood", &beside)] {
        let of = said.each_ref().map(|rounds| format!("{:.2}", median(rounds.clone())));
        println!("| {name} | {} |", of.join(" | "));
    }
    let times = std::array::from_fn::<_, 4, _>(|at| {
        let times = beside[at].iter().zip(&alone[at]).map(|(beside, alone)| beside / alone);
        format!("{:.2}", median(times.collect()))
    });
    println!("| × alone | {} |", times.join(" | "));
    Ok(())
}

async fn round(bench: &Bench, is_flooded: bool, said: &mut Said) -> Result<()> {
    bench.clear()?;
    let collector = bench.collector(&configuration()).await?;
    let flood = if is_flooded { Some(flood(bench)?) } else { None };
    tokio::time::sleep(RISE).await;
    let mut quiet = on_core(1, &bench.own);
    quiet.args(["watch", "--to", &format!("http://{SYSTEM}"), "--console", CONSOLE, "--tenant", "quiet"]);
    quiet.args(["--token", QUIET_TOKEN, "--requests", &QUIET_REQUESTS.to_string()]);
    quiet.args(["--per-second", &QUIET_PER_SECOND.to_string(), "--records", &QUIET_RECORDS.to_string()]);
    let [ack_p50, ack_p99, seen_p50, seen_p99, unseen] = figures(&mut quiet).context("the quiet one")?;
    ensure!(unseen == 0.0, "the viewer did not see {unseen} requests");
    if let Some(mut flood) = flood {
        let is_there = flood.0.try_wait()?.is_none();
        ensure!(is_there, "the flood ended before the quiet one did");
    }
    for (rounds, us) in said.iter_mut().zip([ack_p50, ack_p99, seen_p50, seen_p99]) {
        rounds.push(us / 1000.0);
    }
    drop(collector);
    Ok(())
}

/// It sends on whatever it is answered. Its core is that of the quiet one, which goes first there.
fn flood(bench: &Bench) -> Result<Process> {
    let per_second = QUOTA * FLOOD_TIMES / FLOOD_RECORDS as u64;
    let seconds = RISE.as_secs() + QUIET_REQUESTS / QUIET_PER_SECOND + 30;
    let mut command = on_core(1, "nice");
    command.args(["-n", "19"]).arg(&bench.own);
    command.args(["generate", "--to", &format!("http://{SYSTEM}"), "--token", FLOOD_TOKEN, "--gives-up"]);
    command.args([
        "--requests",
        &(per_second * seconds).to_string(),
        "--per-second",
        &per_second.to_string(),
    ]);
    command.args(["--records", &FLOOD_RECORDS.to_string(), "--connections", "16", "--in-flight", "64"]);
    Ok(Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
}

/// The hashes are of the tokens above.
fn configuration() -> String {
    format!(
        "identity: {{ tokens: [\n\
         {{ sha256: \"4e964c0d97ae3cb739461623042c528555af293df99f682337b73a8341b4e175\", tenant: quiet, rights: [send, read] }},\n\
         {{ sha256: \"6ef15ade7676fe9331108bf6097ad0522ceb45ef2c49965dcd3265cff496f990\", tenant: flood, rights: [send] }}] }}\n\
         quotas: {{ default: {{ records: {QUOTA} }} }}\njournal: {{ kind: disk }}\n\
         pipelines: [{{ name: logs, when: {{ signal: logs }}, sinks: [streams] }}]\n\
         sinks: {{ streams: {{ type: streams, store: embedded, retention: 1d }} }}\n"
    )
}
