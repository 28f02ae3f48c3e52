//! A component with a timer that does on purpose what it may not, and a few things that it may.
//!
//! The settings are two words: what `process` does, and what `tick` does. What it needs stands in [`MANIFEST`], which the
//! tests of the host patch in the finished component, so that one guest serves for all manifests.

wit_bindgen::generate!({ path: "../../../wit/v0.1", world: "ticking-plugin" });

use exports::trommel::plugin::lifecycle::{Guest as Lifecycle, Manifest};
use exports::trommel::plugin::processor::Guest as Processor;
use exports::trommel::plugin::timer::{Guest as Timer, Window};
use std::sync::OnceLock;
use trommel::plugin::alerts::{self, Alert, Severity};
use trommel::plugin::types::{Level, Places, Signal};
use trommel::plugin::{batch, host, series, store};

/// `needs;window-seconds;`, filled up with `.`: always 64 bytes.
#[used]
static MANIFEST: [u8; 64] = padded("MANIFEST alerts series store;10;");

const fn padded(text: &str) -> [u8; 64] {
    let mut all = [b'.'; 64];
    let mut at = 0;
    while at < text.len() {
        all[at] = text.as_bytes()[at];
        at += 1;
    }
    all
}

/// `{"process": "...", "tick": "..."}`, without escapes.
static SETTINGS: OnceLock<String> = OnceLock::new();

fn mode(of: &str) -> &'static str {
    let json = SETTINGS.get().map_or("", String::as_str);
    let value = json.split_once(&format!("\"{of}\":")).map_or("", |(_, rest)| rest);
    value.split('"').nth(1).unwrap_or_default()
}

struct Hostile;

impl Lifecycle for Hostile {
    fn describe() -> Manifest {
        // Read as volatile bytes: the tests patch them.
        let bytes: Vec<u8> = (0..MANIFEST.len()).map(|at| std::hint::black_box(&MANIFEST)[at]).collect();
        let text = String::from_utf8(bytes).unwrap();
        let mut parts = text.trim_start_matches("MANIFEST ").split(';');
        let needs = parts.next().unwrap_or_default().split_whitespace().map(String::from).collect();
        Manifest {
            name: "hostile-timer".into(),
            version: "0.1.0".into(),
            signals: vec![Signal::Logs],
            reads: vec!["body".into()],
            writes: vec!["drop".into()],
            needs,
            window_seconds: parts.next().and_then(|number| number.parse().ok()).unwrap_or(0),
        }
    }

    fn configure(json: String) -> Result<(), String> {
        SETTINGS.set(json).map_err(|_| "configured twice".to_string())
    }
}

fn alert(key: &str, text: String) -> Alert {
    Alert {
        key: key.into(),
        severity: Severity::Warning,
        title: format!("title of {key}"),
        text,
        count: 1,
        labels: vec![("service".into(), "shop".into())],
    }
}

fn add_each(key: impl Fn(&str) -> String) {
    for body in batch::texts(Places::BODY) {
        series::add(&key(&body), 1.0);
    }
}

impl Processor for Hostile {
    fn process() -> Result<(), String> {
        match mode("process") {
            // The number in each body, under one key and under its last digit.
            "add" => {
                let bodies = batch::texts(Places::BODY);
                let values: Vec<f64> = bodies.iter().map(|body| body.parse().unwrap_or(0.0)).collect();
                let digits: Vec<String> = bodies.iter().map(|body| body[body.len() - 1..].into()).collect();
                series::add_all(&digits, &values);
                values.iter().for_each(|value| series::add("all", *value));
            }
            "key-per-record" => add_each(|body| format!("key of {body}")),
            "long-keys" => add_each(|body| format!("{}{body}", "k".repeat(300))),
            "not-finite" => {
                series::add("all", f64::NAN);
                series::add_all(&["all".into(), "all".into()], &[f64::INFINITY, 2.0]);
            }
            "bad-lists" => series::add_all(&["a".into()], &[]),
            "flood-series" => loop {
                series::add_all(&vec!["key".into(); 1000], &vec![1.0; 1000]);
            },
            // Everything there is, then a trap where the test wants one.
            "all-then-trap" => {
                series::add("all", 1.0);
                alerts::fire(&alert("a", String::new()));
                host::count("calls", 1);
                if batch::texts(Places::BODY).iter().any(|body| body == "poison") {
                    panic!("on purpose");
                }
            }
            // What each record is worth, however many calls it takes.
            "records-then-trap" => {
                let bodies = batch::texts(Places::BODY);
                for body in &bodies {
                    series::add(&body[body.len() - 1..], body.len() as f64);
                }
                host::count("records", bodies.len() as u32);
                host::gauge("seen", 7.0);
                alerts::fire(&Alert { count: bodies.len() as u32, ..alert("a", String::new()) });
                if bodies.iter().any(|body| body == "poison") {
                    panic!("on purpose");
                }
            }
            "fire" => add_alerts(1, 10),
            "fire-10000-keys" => add_alerts(10_000, 10),
            "fire-10000-times" => (0..10_000).for_each(|_| alerts::fire(&alert("same", String::new()))),
            "fire-long" => add_alerts(1, 1_000_000),
            "fire-for-ever" => loop {
                alerts::fire(&alert("same", "x".repeat(100_000)));
            },
            "fire-no-key" => alerts::fire(&alert("", String::new())),
            "fire-and-resolve" => {
                alerts::fire(&alert("a", "one".into()));
                alerts::resolve("a");
                alerts::fire(&alert("a", "two".into()));
                alerts::resolve("b");
            }
            "set" => store::set("key", b"value")?,
            "remove" => store::remove("key"),
            "get" => host::count("bytes", store::get("ticks").map_or(0, |value| value.len() as u32)),
            _ => {}
        }
        Ok(())
    }
}

/// Under keys of their own.
fn add_alerts(number: usize, text_bytes: usize) {
    for at in 0..number {
        alerts::fire(&alert(&format!("key{at}"), "x".repeat(text_bytes)));
    }
}

impl Timer for Hostile {
    fn tick(tenant: String, now: u64, closed: Vec<Window>) -> Result<(), String> {
        match mode("tick") {
            "loop" => loop {
                std::hint::black_box(0);
            },
            // What it was given, as counts and gauges.
            "report" => {
                host::count(&format!("tenant {tenant}"), 1);
                host::gauge("now", now as f64);
                for window in closed {
                    let (key, count) = (&window.key, window.count as u32);
                    host::count(&format!("{key} {}-{}", window.start, window.end), count);
                    host::gauge(&format!("{key} sum"), window.sum);
                    host::gauge(&format!("{key} min"), window.min);
                    host::gauge(&format!("{key} max"), window.max);
                    assert_eq!(window.buckets.len(), 32);
                    assert_eq!(window.buckets.iter().sum::<u64>(), window.count);
                }
            }
            // One byte more for each.
            "remember" => remember()?,
            "remember-then-trap" => {
                remember()?;
                alerts::fire(&alert("a", String::new()));
                panic!("on purpose");
            }
            "remember-then-error" => {
                remember()?;
                alerts::fire(&alert("a", String::new()));
                return Err("changed its mind".into());
            }
            "forget" => store::remove("ticks"),
            "fill" => {
                let mut number = 0;
                while store::set(&format!("key{number:04}"), &[0; 1016]).is_ok() {
                    number += 1;
                }
                let refusal = store::set("one more", &[0; 1024]).unwrap_err();
                host::count(&refusal, number);
            }
            "fire" => add_alerts(3, 10),
            "resolve" => alerts::resolve("key0"),
            "read-batch" => host::count("rows", batch::rows(Level::Item)),
            "drop" => batch::drop(&[0]),
            "add" => series::add("key", 1.0),
            "limit" => host::count("passed", host::limit("key", 1, 1.0, 1)),
            "compile" => {
                host::compile(&["a".into()])?;
            }
            _ => {}
        }
        Ok(())
    }
}

fn remember() -> Result<(), String> {
    let mut ticks = store::get("ticks").unwrap_or_default();
    ticks.push(b'x');
    store::set("ticks", &ticks)?;
    // What this tick has set, it sees.
    assert_eq!(store::get("ticks"), Some(ticks));
    Ok(())
}

export!(Hostile);
