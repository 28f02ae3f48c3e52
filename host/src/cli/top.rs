//! `trommel top`: what the plugins of a running collector use, by plugin and tenant.
//!
//! Two looks a second apart make one table: what is counted is shown by the second. On a terminal the table is drawn
//! anew each second on a screen of its own, until Ctrl-C.

use super::ask::{Console, answered, table};
use super::{FAILED, STOPPED, complain, say};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

const EVERY: Duration = Duration::from_secs(1);
/// Lines of a terminal whose size nobody knows.
const ROWS: usize = 24;
const HEAD: [&str; 9] =
    ["plugin", "tenant", "calls/s", "records/s", "cpu %", "us/record", "failures/s", "memory", "circuit"];

/// The other screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the first line; what is behind a line, and below the last, is cleared.
const HOME: &str = "\x1b[H";
const END_OF_LINE: &str = "\x1b[K\r\n";
const BELOW: &str = "\x1b[J";

/// Until it is interrupted, or with `is_once` until the first table. Ends with 1 if the first look fails.
pub(super) fn run(console: &Console, is_once: bool) -> u8 {
    let Some(runtime) = super::runtime() else { return FAILED };
    let code = runtime.block_on(watch(console, is_once));
    // A console that does not answer holds nobody up.
    runtime.shutdown_background();
    code
}

async fn watch(console: &Console, is_once: bool) -> u8 {
    let Ok(mut interrupt) = signal(SignalKind::interrupt()) else {
        complain("this process cannot be told of Ctrl-C");
        return FAILED;
    };
    let mut before = match look(console, &mut interrupt).await.map(answered) {
        None => return STOPPED,
        Some(Ok(before)) => before,
        Some(Err(code)) => return code,
    };
    let is_live = !is_once && std::io::stdout().is_terminal();
    let _screen = is_live.then(Screen::enter);
    loop {
        tokio::select! {
            _ = interrupt.recv() => return STOPPED,
            () = sleep(EVERY) => {}
        }
        let Some(answer) = look(console, &mut interrupt).await else { return STOPPED };
        match answer {
            Ok(now) if is_live => {
                draw(&shown(&before, &now, height().saturating_sub(1)));
                before = now;
            }
            // It may come back: the collector is started anew.
            Err(error) if is_live => draw(&error),
            other => match answered(other) {
                Ok(now) => {
                    say(&shown(&before, &now, usize::MAX));
                    before = now;
                }
                Err(code) => return code,
            },
        }
        if is_once {
            return STOPPED;
        }
    }
}

/// What the console said, and when.
struct Look {
    at: Instant,
    usage: Value,
}

/// `None`: interrupted.
async fn look(console: &Console, interrupt: &mut Signal) -> Option<Result<Look, String>> {
    let console = console.clone();
    let asking = tokio::task::spawn_blocking(move || console.get("/v1/plugins/usage"));
    let usage = tokio::select! {
        _ = interrupt.recv() => return None,
        usage = asking => usage.unwrap_or_else(|error| Err(error.to_string())),
    };
    Some(usage.map(|usage| Look { at: Instant::now(), usage }))
}

/// The screen of a program of its own; left when this is dropped.
struct Screen;

impl Screen {
    fn enter() -> Screen {
        write(ENTER);
        Screen
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        write(LEAVE);
    }
}

fn draw(text: &str) {
    let lines: Vec<String> = text.lines().map(|line| format!("{line}{END_OF_LINE}")).collect();
    write(&format!("{HOME}{}{BELOW}", lines.concat()));
}

fn write(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn height() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    size.map_or(ROWS, |size| usize::from(size.ws_row).max(2))
}

/// One row, and what it is sorted by.
struct Row {
    cpu: f64,
    cells: Vec<String>,
}

/// A table of at most so many lines, those that take the most CPU time first.
fn shown(before: &Look, now: &Look, lines_max: usize) -> String {
    let seconds = (now.at - before.at).as_secs_f64().max(0.001);
    let earlier = tenants(&before.usage);
    let mut rows: Vec<Row> = tenants(&now.usage)
        .into_iter()
        .map(|(names, of)| row(names, of, earlier.get(&names).copied(), seconds))
        .collect();
    rows.sort_by(|a, b| b.cpu.total_cmp(&a.cpu).then_with(|| a.cells.cmp(&b.cells)));
    let (all, most) = (rows.len(), lines_max.saturating_sub(2));
    let mut cells: Vec<Vec<String>> = rows.into_iter().map(|row| row.cells).collect();
    if all <= most.saturating_add(1) {
        return table(&HEAD, &cells);
    }
    cells.truncate(most);
    format!("{}\nand {} more", table(&HEAD, &cells), all - most)
}

/// Of one plugin for one tenant, and of the plugin.
#[derive(Clone, Copy)]
struct Of<'v> {
    plugin: &'v Value,
    tenant: &'v Value,
}

fn tenants(usage: &Value) -> BTreeMap<(&str, &str), Of<'_>> {
    let mut of_names = BTreeMap::new();
    for plugin in usage.as_array().into_iter().flatten() {
        for tenant in plugin["tenants"].as_array().into_iter().flatten() {
            let names = (text(&plugin["plugin"]), text(&tenant["tenant"]));
            of_names.insert(names, Of { plugin, tenant });
        }
    }
    of_names
}

fn row((plugin, name): (&str, &str), of: Of<'_>, before: Option<Of<'_>>, seconds: f64) -> Row {
    // One that is new was nothing before; a collector that was started anew begins at nothing.
    let more = |count: fn(&Value) -> f64| {
        (count(of.tenant) - before.map_or(0.0, |before| count(before.tenant))).max(0.0)
    };
    let calls = more(|of| number(&of["calls"]));
    let records = more(|of| number(&of["records"]));
    let cpu = more(|of| number(&of["cpu_microseconds"]));
    let failures = more(|of| of["failures"].as_object().into_iter().flatten().map(|(_, n)| number(n)).sum());
    let per_record = if records > 0.0 { format!("{:.3}", cpu / records) } else { "-".to_owned() };
    let memory = match text(&of.plugin["instance"]) {
        // All tenants' together.
        "shared" => format!("({})", mebibytes(number(&of.plugin["memory_bytes"]))),
        _ => mebibytes(number(&of.tenant["memory_bytes"])),
    };
    let circuit = match (text(&of.plugin["circuit"]), text(&of.tenant["circuit"])) {
        ("closed", _) if of.tenant["over_cpu"] == true => "over cpu",
        ("closed", own) => own,
        (whole, _) => whole,
    };
    let per_second = |count: f64| format!("{:.0}", count / seconds);
    let cells = vec![
        plugin.to_owned(),
        name.to_owned(),
        per_second(calls),
        per_second(records),
        format!("{:.1}", cpu / 1e4 / seconds),
        per_record,
        per_second(failures),
        memory,
        circuit.to_owned(),
    ];
    Row { cpu, cells }
}

fn mebibytes(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tenant(name: &str, times: u64, circuit: &str) -> Value {
        json!({
            "tenant": name, "calls": 10 * times, "records": 5000 * times, "cpu_microseconds": 20_000 * times,
            "failures": { "trap": 2 * times, "time": times }, "memory_bytes": 3 << 20, "circuit": circuit,
            "over_cpu": name == "greedy",
        })
    }

    fn look(at: Instant, times: u64) -> Look {
        let usage = json!([
            {
                "plugin": "redact", "instance": "shared", "memory_bytes": 12 << 20, "circuit": "closed",
                "tenants": [tenant("acme", times * 3, "closed"), tenant("idle", 5, "closed")],
            },
            {
                "plugin": "own", "instance": "per_tenant", "memory_bytes": 6 << 20, "circuit": "closed",
                "tenants": [tenant("acme", times, "open"), tenant("greedy", times * 2, "closed")],
            },
        ]);
        Look { at, usage }
    }

    #[test]
    fn what_was_counted_between_two_looks_is_shown_by_the_second() {
        let at = Instant::now();
        let (before, now) = (look(at, 4), look(at + Duration::from_secs(2), 24));
        expect_test::expect![[r#"
            plugin  tenant  calls/s  records/s  cpu %  us/record  failures/s  memory      circuit
            redact  acme        300     150000  60.0   4.000              90  (12.0 MiB)  closed
            own     greedy      200     100000  40.0   4.000              60  3.0 MiB     over cpu
            own     acme        100      50000  20.0   4.000              30  3.0 MiB     open
            redact  idle          0          0  0.0    -                   0  (12.0 MiB)  closed"#]]
        .assert_eq(&shown(&before, &now, usize::MAX));
    }

    #[test]
    fn a_table_that_is_higher_than_the_terminal_is_cut_and_says_so() {
        let at = Instant::now();
        let (before, now) = (look(at, 1), look(at + EVERY, 2));
        let cut = shown(&before, &now, 4);
        let ends: Vec<&str> = cut.lines().map(|line| line.split("  ").next().unwrap()).collect();
        assert_eq!(ends, ["plugin", "redact", "own", "and 2 more"]);
        assert_eq!(shown(&before, &now, 5).lines().count(), 5);
    }

    #[test]
    fn a_collector_that_was_started_anew_and_an_odd_answer_are_no_trouble() {
        let at = Instant::now();
        let (before, now) = (look(at, 9), look(at + EVERY, 1));
        assert!(shown(&before, &now, usize::MAX).contains("redact  acme          0"));
        for odd in [json!(null), json!([7]), json!([{ "plugin": 3, "tenants": [{ "tenant": [] }] }])] {
            shown(&Look { at, usage: odd.clone() }, &Look { at, usage: odd }, usize::MAX);
        }
    }
}
