//! A component that does on purpose what a plugin may not, and a few things that it may.
//!
//! The setting `{"mode": "..."}` chooses what a call does. What it asks for stands in [`MANIFEST`], which the tests
//! of the host patch in the finished component, so that one guest serves for all manifests.

mod rights;

wit_bindgen::generate!({ path: "../../../wit/v0.1", world: "plugin" });

use exports::trommel::plugin::lifecycle::{Guest as Lifecycle, Manifest};
use exports::trommel::plugin::processor::Guest as Processor;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};
use trommel::plugin::types::{self, Hits, Level, Places, Signal, TextColumn};
use trommel::plugin::{alerts, batch, host, series, store};

/// `name;reads;writes;needs;`, filled up with `.`: always 320 bytes.
#[used]
static MANIFEST: [u8; 320] = padded(
    "MANIFEST hostile;body name event-name description severity kind status time number trace-id span-id trace-state raw item:* event:* metric:* scope:* resource:*;body name event-name description severity trace-state raw item:* event:* metric:* scope:* resource:* drop route;;",
);

const fn padded(text: &str) -> [u8; 320] {
    let mut all = [b'.'; 320];
    let mut at = 0;
    while at < text.len() {
        all[at] = text.as_bytes()[at];
        at += 1;
    }
    all
}

static SETTINGS: OnceLock<String> = OnceLock::new();
static PATTERNS: AtomicU32 = AtomicU32::new(0);
static CALLS: AtomicU32 = AtomicU32::new(0);
static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

const ALL: Places = Places::all();

/// The text of a setting: `"key": "value"`, without escapes other than `\\` and `\"`.
fn setting(key: &str) -> Option<String> {
    let json = SETTINGS.get()?;
    let after = &json[json.find(&format!("\"{key}\""))? + key.len() + 2..];
    let value = after.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let mut text = String::new();
    let mut chars = value.chars();
    loop {
        match chars.next()? {
            '"' => return Some(text),
            '\\' => text.push(chars.next()?),
            other => text.push(other),
        }
    }
}

fn mode() -> String {
    setting("mode").unwrap_or_default()
}

struct Hostile;

impl Lifecycle for Hostile {
    fn describe() -> Manifest {
        // Read as volatile bytes: the tests patch them.
        let bytes: Vec<u8> = (0..MANIFEST.len()).map(|at| std::hint::black_box(&MANIFEST)[at]).collect();
        let text = String::from_utf8(bytes).unwrap();
        let mut parts = text.trim_start_matches("MANIFEST ").split(';');
        let mut next = || parts.next().unwrap_or_default().to_string();
        let words = |part: String| part.split_whitespace().map(String::from).collect();
        Manifest {
            name: next(),
            version: "0.1.0".into(),
            signals: vec![Signal::Logs, Signal::Traces, Signal::Metrics],
            reads: words(next()),
            writes: words(next()),
            needs: words(next()),
            window_seconds: 0,
        }
    }

    fn configure(json: String) -> Result<(), String> {
        SETTINGS.set(json).map_err(|_| "configured twice")?;
        match mode().as_str() {
            "bad-settings" => return Err("`ratio` is missing".into()),
            "configure-loop" => spin(),
            "configure-trap" => panic!("on purpose"),
            "configure-reads" => {
                batch::severities();
            }
            "explode-pattern" => {
                host::compile(&[r"(?:(?:\w{50}){50}){20}".into()])?;
            }
            "many-patterns" => {
                host::compile(&vec![String::from("a"); 65])?;
            }
            "long-pattern" => {
                host::compile(&["a".repeat(1025)])?;
            }
            "many-sets" => {
                for _ in 0..17 {
                    host::compile(&["a".into()])?;
                }
            }
            "wrong-pattern" => {
                host::compile(&["fine".into(), "(open".into()])?;
            }
            _ => {}
        }
        if let Some(pattern) = setting("pattern") {
            let patterns: Vec<String> = pattern.split('\n').map(String::from).collect();
            PATTERNS.store(host::compile(&patterns)?, Relaxed);
        }
        Ok(())
    }
}

impl Processor for Hostile {
    fn process() -> Result<(), String> {
        CALLS.fetch_add(1, Relaxed);
        let patterns = PATTERNS.load(Relaxed);
        match mode().as_str() {
            "loop" => spin(),
            // Loops while a record with a body that holds `text` is there.
            "loop-on" if sees_poison() => spin(),
            "trap" => panic!("on purpose"),
            "trap-on" if sees_poison() => panic!("on purpose"),
            // Wrong first, and then it does not even end.
            "bad-set-then-trap" => {
                batch::search(99, ALL);
                panic!("on purpose");
            }
            "bad-set-then-loop" => {
                batch::search(99, ALL);
                spin();
            }
            "log-flood-then-trap" => {
                (0..1_000).for_each(|_| host::log(host::LogLevel::Info, &"x".repeat(1_000)));
                panic!("on purpose");
            }
            "trap-late" => {
                edit_all();
                panic!("after the edits");
            }
            "error-late" => {
                edit_all();
                return Err("changed its mind\nand\u{1b}[31m shouts".into());
            }
            "balloon" => loop {
                KEPT.lock().unwrap().push(std::hint::black_box(vec![1u8; 1 << 20]));
            },
            // A little more with each call.
            "grow" => KEPT.lock().unwrap().push(std::hint::black_box(vec![1u8; 256 << 10])),
            "deep" => deep(0),
            // Just under the limit, and for ever: `rounds` says how long, else the first body.
            "nearly" => {
                let rounds = setting("rounds").or_else(|| batch::texts(Places::BODY).first().cloned());
                let rounds = rounds.and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
                (0..rounds).for_each(|round: u64| _ = std::hint::black_box(round));
            }
            "search10000" => {
                for _ in 0..10_000 {
                    std::hint::black_box(batch::search(patterns, ALL));
                }
            }
            "texts10000" => {
                for _ in 0..10_000 {
                    std::hint::black_box(batch::packed_texts(ALL));
                }
            }
            "search" => {
                let hits = batch::search(patterns, ALL);
                host::count("hits", hits.texts.len() as u32);
                for text in batch::matches(ALL, &hits) {
                    host::log(host::LogLevel::Info, &text);
                }
            }
            "redact" => {
                let number = batch::search_and_replace(patterns, ALL, &["[redacted]".into()]);
                host::count("redacted", number);
            }
            "forge-identity-set" => {
                let rows: Vec<u32> = (0..batch::rows(Level::Resource)).collect();
                let index = vec![0; rows.len()];
                batch::set_text_attribute(
                    Level::Resource,
                    &setting("key").unwrap_or("tenant.id".into()),
                    &TextColumn { rows, index, strings: vec!["victim".into()] },
                );
            }
            "forge-identity-remove" => batch::remove_attribute(Level::Resource, "tenant.id"),
            "forge-identity-splice" => {
                let raw = batch::raw();
                let own = setting("own").unwrap_or_default();
                let at = (0..raw.len().saturating_sub(own.len()))
                    .find(|at| raw[*at..].starts_with(own.as_bytes()));
                let at = at.ok_or("the own tenant is not in raw")? as u32;
                batch::splice(&[at], &[own.len() as u32], &[b"victim".to_vec()]);
            }
            // Three of each record.
            "multiply" => {
                let raw = batch::raw();
                batch::splice(&[raw.len() as u32], &[0], &[raw.repeat(2)]);
            }
            // Cuts the first letter of more than one byte in two.
            "split-character" => {
                let texts = batch::texts(Places::BODY);
                let wide = texts.iter().enumerate().find_map(|(at, text)| {
                    let letter = text.char_indices().find(|(_, letter)| letter.len_utf8() > 1)?;
                    Some((at as u32, letter.0 as u32))
                });
                let (text, at) = wide.ok_or("every letter has one byte")?;
                let hits =
                    Hits { texts: vec![text], patterns: vec![0], starts: vec![at], ends: vec![at + 1] };
                batch::replace(Places::BODY, &hits, &["x".into()]);
            }
            "overlapping-edits" => {
                let hits =
                    Hits { texts: vec![0, 0], patterns: vec![0, 0], starts: vec![0, 1], ends: vec![2, 3] };
                batch::replace(Places::BODY, &hits, &["x".into()]);
            }
            "overlapping-strings" => overlapping_strings(),
            "long-error" => return Err("x".repeat(100 << 20)),
            "bad-splice" => batch::splice(&[0], &[1], &[vec![0xff]]),
            "output-flood" => {
                let items: Vec<u32> = (0..batch::rows(Level::Item)).collect();
                for at in 0..1000 {
                    batch::set_text_attribute(
                        Level::Item,
                        &format!("flood.{at}"),
                        &TextColumn {
                            index: vec![0; items.len()],
                            rows: items.clone(),
                            strings: vec!["x".repeat(10_000)],
                        },
                    );
                }
            }
            "long-key" => {
                let rows: Vec<u32> = (0..batch::rows(Level::Item)).collect();
                let values = vec![1; rows.len()];
                batch::set_int_attribute(
                    Level::Item,
                    &"k".repeat(500_000),
                    &types::IntColumn { rows, values },
                );
            }
            "replace-bomb" => batch::replace(ALL, &many_hits(1), &["x".repeat(500_000)]),
            "matches-bomb" => {
                batch::matches(ALL, &many_hits(100_000));
            }
            "redact-bomb" => {
                batch::search_and_replace(patterns, ALL, &["x".repeat(500_000)]);
            }
            "mask-bomb" => {
                batch::mask_keys(patterns, ALL, &["x".repeat(500_000)]);
            }
            "hostcall-flood" => host::log(host::LogLevel::Info, &"x".repeat(8 << 20)),
            "log-flood" => {
                for at in 0..2_000 {
                    host::log(host::LogLevel::Info, &format!("line {at} {}", "x".repeat(100)));
                }
            }
            "log-long" => host::log(host::LogLevel::Warn, &format!("a\nb\u{1b}[2J{}", "y".repeat(10_000))),
            "print" => {
                host::print(b"first ");
                host::print(b"line\nsecond");
                host::print(b" line, no end");
            }
            "name-flood" => {
                for at in 0..1000 {
                    host::count(&format!("name{at}"), 1);
                }
            }
            "drop-even-or-trap" if sees_poison() => panic!("on purpose"),
            "drop-even" | "drop-even-or-trap" => {
                let items: Vec<u32> = (0..batch::rows(Level::Item)).step_by(2).collect();
                batch::drop(&items);
                host::count("dropped", items.len() as u32);
                host::gauge("last", items.len() as f64);
            }
            "undeclared-alert" => alerts::resolve("key"),
            "undeclared-series" => series::add("key", 1.0),
            "undeclared-store" => {
                store::get("key");
            }
            "bad-row" => batch::drop(&[batch::rows(Level::Item)]),
            "bad-range" => {
                let hits = Hits { texts: vec![0], patterns: vec![0], starts: vec![0], ends: vec![u32::MAX] };
                batch::replace(ALL, &hits, &["x".into()]);
            }
            "bad-lists" => {
                let hits = Hits { texts: vec![0, 1], patterns: vec![0], starts: vec![], ends: vec![1] };
                batch::replace(ALL, &hits, &["x".into()]);
            }
            "bad-set" => {
                batch::search(99, ALL);
            }
            "late-compile" => {
                host::compile(&["a".into()])?;
            }
            "read-attribute" => {
                batch::text_attribute(Level::Item, &setting("key").unwrap_or_default());
            }
            "write-attribute" => batch::remove_attribute(Level::Item, &setting("key").unwrap_or_default()),
            "read-bodies" => {
                batch::texts(Places::BODY);
            }
            "hash" => {
                let hits = batch::search(patterns, Places::BODY);
                batch::hash(Places::BODY, &hits, &setting("secret").unwrap_or_default());
            }
            "limit" => {
                let passed = host::limit("key", 10, 1.0, 15);
                host::count("passed", passed);
            }
            "limit-flood" => {
                let passed: u32 = (0..1_500).map(|at| host::limit(&format!("key{at}"), 1, 1.0, 1)).sum();
                host::count("passed", passed);
            }
            // Takes lists of texts and of numbers, and hands over both; drops every other record. Every eighth call: they
            // take a build for tests long.
            "lists" => {
                let items: Vec<u32> = (0..batch::rows(Level::Item)).collect();
                let even: Vec<u32> = items.iter().copied().step_by(2).collect();
                batch::drop(&even);
                host::count("calls", 1);
                if !CALLS.load(Relaxed).is_multiple_of(8) {
                    return Ok(());
                }
                let bodies = batch::texts(Places::BODY);
                let values = batch::severities().into_iter().map(i64::from).collect();
                batch::set_int_attribute(
                    Level::Item,
                    "severity",
                    &types::IntColumn { rows: items.clone(), values },
                );
                let index = items.clone();
                batch::set_text_attribute(
                    Level::Item,
                    "copy",
                    &TextColumn { rows: items, index, strings: bodies },
                );
            }
            "clock" => {
                host::count("now", host::now() as u32);
                assert!(host::random() != host::random());
            }
            "everything" => everything()?,
            "call" => {
                let function = setting("function").unwrap_or_default();
                if !rights::call(&function, patterns) {
                    return Err(format!("there is no function {function}"));
                }
            }
            "remember" => host::count("calls", CALLS.load(Relaxed)),
            _ => {}
        }
        Ok(())
    }
}

/// Calls every function, and holds each answer against the shape that the WIT gives for this signal.
fn everything() -> Result<(), String> {
    use trommel::plugin::types::{BoolColumn, DoubleColumn, IntColumn};
    let signal = batch::holds();
    let is = |of: Signal| signal == of;
    let items = batch::rows(Level::Item) as usize;
    let expect = |what: &str, found: usize, expected: usize| match found == expected {
        true => Ok(()),
        false => Err(format!("{what} has {found} entries, not {expected}")),
    };
    assert!(!batch::tenant().is_empty() && !batch::project().is_empty());
    expect("parents", batch::parents(Level::Item, Level::Scope).len(), items)?;
    expect("severities", batch::severities().len(), items)?;
    expect("kinds", batch::kinds().len(), items)?;
    expect("statuses", batch::statuses().len(), items)?;
    expect("times", batch::times().len(), items)?;
    expect("end-times", batch::end_times().len(), items)?;
    expect("numbers", batch::numbers().len(), items)?;
    expect("counts", batch::counts().len(), items)?;
    expect("temporalities", batch::temporalities().len(), items)?;
    expect("trace-ids", batch::trace_ids().len(), items * 16)?;
    expect("span-ids", batch::span_ids().len(), items * 8)?;
    expect("parent-span-ids", batch::parent_span_ids().len(), items * 8)?;
    expect("trace-fractions", batch::trace_fractions().len(), items)?;
    expect("randomness", batch::randomness().len(), items)?;
    expect("trace-states", batch::trace_states().len(), items)?;
    let texts = batch::texts(ALL).len();
    expect("packed-texts", batch::packed_texts(ALL).ends.len(), texts)?;
    for place in [
        Places::BODY,
        Places::NAME,
        Places::DESCRIPTION,
        Places::ITEM_ATTRIBUTES,
        Places::EVENT_NAME,
        Places::EVENT_ATTRIBUTES,
    ] {
        expect("text-rows", batch::text_rows(place).len(), batch::texts(place).len())?;
    }
    let patterns = PATTERNS.load(Relaxed);
    let hits = batch::search(patterns, ALL);
    expect("matches", batch::matches(ALL, &hits).len(), hits.texts.len())?;
    batch::hash(ALL, &hits, "join");
    batch::remove_keys(patterns, ALL);
    for level in [Level::Resource, Level::Scope, Level::Metric, Level::Item, Level::Event] {
        for key in batch::attribute_keys(level) {
            let rows = batch::attribute_rows(level, &key);
            let column = batch::text_attribute(level, &key);
            if rows.is_empty() || column.rows.len() > rows.len() {
                return Err(format!("{key} is in {} rows, as text in {}", rows.len(), column.rows.len()));
            }
            if level == Level::Resource {
                batch::copy_attribute(level, &key, "copy", &rows);
            }
            batch::int_attribute(level, &key);
            batch::double_attribute(level, &key);
            batch::bool_attribute(level, &key);
        }
        let rows: Vec<u32> = (0..batch::rows(level)).collect();
        let number = rows.len();
        batch::set_text_attribute(
            level,
            "text",
            &TextColumn { rows: rows.clone(), index: vec![0; number], strings: vec!["t".into()] },
        );
        batch::set_int_attribute(level, "int", &IntColumn { rows: rows.clone(), values: vec![1; number] });
        batch::set_double_attribute(
            level,
            "double",
            &DoubleColumn { rows: rows.clone(), values: vec![0.5; number] },
        );
        batch::set_bool_attribute(
            level,
            "bool",
            &BoolColumn { rows: rows.clone(), values: vec![true; number] },
        );
        batch::hash_attribute(level, "e", "join");
        batch::remove_attribute(level, "none");
        batch::remove_attribute_from(level, "none", &rows);
    }
    if is(Signal::Logs) {
        batch::set_severity(&[0], 17);
    }
    if is(Signal::Traces) {
        batch::set_trace_states(&[0], &["a=b".into()]);
    }
    batch::route("somewhere", &[0]);
    if batch::raw().is_empty() {
        return Err("raw is empty".into());
    }
    Ok(())
}

fn sees_poison() -> bool {
    let poison = setting("text").unwrap_or("poison".into());
    batch::texts(Places::BODY).iter().any(|text| text.contains(&poison))
}

fn many_hits(end: u32) -> Hits {
    Hits {
        texts: vec![0; 10_000],
        patterns: vec![0; 10_000],
        starts: vec![0; 10_000],
        ends: vec![end; 10_000],
    }
}

/// A list of a hundred thousand texts that all lie at the same place of the memory: a terabyte for who copies them.
fn overlapping_strings() {
    #[link(wasm_import_module = "trommel:plugin/batch@0.1.0")]
    unsafe extern "C" {
        #[link_name = "replace"]
        fn replace(
            places: i32,
            texts: *const u32,
            texts_len: usize,
            patterns: *const u32,
            patterns_len: usize,
            starts: *const u32,
            starts_len: usize,
            ends: *const u32,
            ends_len: usize,
            with: *const u8,
            with_len: usize,
        );
    }
    let text = "x".repeat(10 << 20);
    let list: Vec<[usize; 2]> = vec![[text.as_ptr() as usize, text.len()]; 100_000];
    let none: [u32; 0] = [];
    let (none, places) = (none.as_ptr(), Places::BODY.bits());
    // SAFETY: the types of the canonical ABI: flags, four lists of numbers, a list of texts. The texts are there.
    unsafe {
        replace(places as i32, none, 0, none, 0, none, 0, none, 0, list.as_ptr().cast(), list.len());
    }
}

fn edit_all() {
    let items: Vec<u32> = (0..batch::rows(Level::Item)).collect();
    batch::drop(&items);
    host::count("edits", 1);
}

fn spin() -> ! {
    loop {
        std::hint::black_box(0);
    }
}

#[allow(unconditional_recursion, reason = "it is the fault that is tried")]
fn deep(n: u64) {
    deep(std::hint::black_box(n + 1));
    std::hint::black_box(n);
}

export!(Hostile);
