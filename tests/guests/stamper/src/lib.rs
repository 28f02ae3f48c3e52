//! Writes its version on each record that it sees, beside those that are there. The tests patch [`FLAVOUR`] in the
//! finished component: one guest is all versions, the bad ones too.

use trommel_sdk::alerts::{Alert, Severity};
use trommel_sdk::{Level, Manifest, Plugin, Signal, TextColumn, Window, alerts, batch, export, host, series};

/// `version;behaviour;`, filled up with `.`: always 64 bytes.
#[used]
static FLAVOUR: [u8; 64] = padded("FLAVOUR 0;stamp;");

const fn padded(text: &str) -> [u8; 64] {
    let mut all = [b'.'; 64];
    let mut at = 0;
    while at < text.len() {
        all[at] = text.as_bytes()[at];
        at += 1;
    }
    all
}

struct Stamper {
    /// And the setting `mark`, if there is one.
    version: String,
    behaviour: String,
}

/// Read byte by byte: a constant that the tests patch must not be folded.
fn flavour() -> Stamper {
    let bytes: Vec<u8> = (0..FLAVOUR.len()).map(|at| std::hint::black_box(&FLAVOUR)[at]).collect();
    let text = String::from_utf8(bytes).unwrap_or_default();
    let mut parts = text.trim_start_matches("FLAVOUR ").split(';').map(String::from);
    let mut next = || parts.next().unwrap_or_default();
    Stamper { version: next(), behaviour: next() }
}

impl Plugin for Stamper {
    fn manifest() -> Manifest {
        let Stamper { version, behaviour } = flavour();
        let signals = if behaviour == "traces" { Signal::Traces } else { Signal::Logs };
        Manifest::new("stamper", &version)
            .signals([signals])
            .reads(["item:stamp"])
            .writes(if behaviour == "greedy" { ["item:stamp", "body"] } else { ["item:stamp", "drop"] })
            .needs(["series", "alerts"])
            .window_seconds(1)
    }

    /// `{"mark": "..."}`, without escapes.
    fn configure(settings: &str) -> Result<Stamper, String> {
        let Stamper { version, behaviour } = flavour();
        let mark = settings.split_once("\"mark\"").and_then(|(_, rest)| rest.split('"').nth(1));
        Ok(Stamper { version: version + mark.unwrap_or_default(), behaviour })
    }

    fn process(&mut self) -> Result<(), String> {
        let rows = batch::rows(Level::Item);
        host::count("stamped", rows);
        series::add("stamped", f64::from(rows));
        alerts::fire(&Alert {
            key: "stamped".into(),
            severity: Severity::Info,
            title: "records were stamped".into(),
            text: self.version.clone(),
            count: rows,
            labels: Vec::new(),
        });
        let all: Vec<u32> = (0..rows).collect();
        match self.behaviour.as_str() {
            "trap" => panic!("stamped on"),
            "error" => return Err("no ink".into()),
            "drop" => batch::drop(&all),
            "slow" => spin(rows),
            _ => {}
        }
        let mut stamps = vec![self.version.clone(); all.len()];
        for (row, before) in batch::text_attribute(Level::Item, "stamp").iter() {
            stamps[row as usize] = format!("{before}+{}", self.version);
        }
        let column: TextColumn = all.into_iter().zip(stamps).collect();
        batch::set_text_attribute(Level::Item, "stamp", &column);
        Ok(())
    }

    fn tick(&mut self, _tenant: &str, _now: u64, closed: &[Window]) -> Result<(), String> {
        host::count("ticked", closed.len() as u32);
        Ok(())
    }
}

/// Some hundred microseconds of each record.
fn spin(rows: u32) {
    for turn in 0..u64::from(rows) * 200_000 {
        std::hint::black_box(turn);
    }
}

export!(Stamper, ticking);
