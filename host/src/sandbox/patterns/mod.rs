//! Compiled pattern sets: what `host.compile` makes and `batch.search` looks for.
//!
//! Regular expressions in linear time, each bounded in length, compiled size and cache. A set is immutable and shared
//! by the instances of a plugin; what a search writes to is lent from the set for one host call.

mod plain;
mod screen;

pub use plain::Searcher;

use super::limits::{HIT_COST, Meter, Stop, TEXT_COST};
use crate::batch::Hits;
use regex_automata::meta::{self, Regex};
use regex_automata::{Anchored, Input};
use regex_syntax::hir::{Hir, Look};
use screen::Screen;
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

/// Patterns of one set.
pub(super) const PATTERNS_MAX: usize = 64;
/// Bytes of one pattern.
pub(super) const PATTERN_BYTES_MAX: usize = 1024;
/// Sets of one instance.
pub(super) const SETS_MAX: usize = 16;
/// Memory of all patterns of one instance, compiled.
pub(super) const COMPILED_BYTES_MAX: usize = 10 << 20;
/// Compiled size of one pattern.
const NFA_BYTES_MAX: usize = 1 << 20;
/// What a search may keep of one pattern's automaton; beyond it the automaton is built anew.
const DFA_BYTES_MAX: usize = 512 << 10;
/// Hits of one call: 16 bytes each.
const HITS_MAX: usize = 1 << 20;
/// Texts of a search that are kept as room for the next.
const SCRATCH_BYTES_MAX: usize = 1 << 20;
/// Automata of a set that are kept for the next search; hostile patterns may need far more while they are looked for.
const CACHES_BYTES_MAX: usize = 4 << 20;
const KNOWN_KEYS_MAX: usize = 4096;

/// Patterns, compiled. Number `p` is the `p`-th that was given.
#[derive(Debug)]
pub(super) struct PatternSet {
    patterns: Vec<Pattern>,
    /// Matches a whole text; made when it is first asked for.
    whole: OnceLock<Option<Regex>>,
    idle: Mutex<Vec<Scratch>>,
    /// Memory of the compiled patterns.
    pub(super) bytes: usize,
}

#[derive(Debug)]
struct Pattern {
    hir: Hir,
    regex: Regex,
    screen: Screen,
}

/// What a search writes to.
#[derive(Debug, Default)]
struct Scratch {
    /// The texts one after the other, a NUL byte behind each.
    buffer: Vec<u8>,
    ends: Vec<usize>,
    caches: Vec<Option<meta::Cache>>,
    whole: Option<meta::Cache>,
    /// Keys that were asked for, and the pattern that matched: the same few come with every record.
    known_keys: HashMap<String, Option<u32>>,
    found: Vec<Found>,
}

/// A match; ordered as hits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    text: u32,
    start: u32,
    pattern: u32,
    end: u32,
}

impl PatternSet {
    /// The error is for the author of the plugin: which pattern, and what is wrong with it.
    pub(super) fn compile(patterns: &[String]) -> Result<PatternSet, String> {
        if patterns.len() > PATTERNS_MAX {
            return Err(format!("{} patterns in one set; at most {PATTERNS_MAX}", patterns.len()));
        }
        let mut compiled = Vec::with_capacity(patterns.len());
        let mut bytes = 0;
        for (number, pattern) in patterns.iter().enumerate() {
            let pattern = Pattern::compile(pattern).map_err(|error| format!("pattern {number}: {error}"))?;
            bytes += pattern.regex.memory_usage();
            if bytes > COMPILED_BYTES_MAX {
                return Err(format!(
                    "pattern {number}: the patterns take more than {COMPILED_BYTES_MAX} bytes when compiled"
                ));
            }
            compiled.push(pattern);
        }
        Ok(PatternSet { patterns: compiled, whole: OnceLock::new(), idle: Mutex::default(), bytes })
    }

    pub(super) fn len(&self) -> usize {
        self.patterns.len()
    }

    /// Every match of every pattern that is not empty, sorted by text, start and pattern.
    pub(super) fn search<'t>(
        &self,
        texts: impl Iterator<Item = &'t [u8]>,
        meter: &mut Meter,
    ) -> Result<Hits, Stop> {
        self.with_scratch(|scratch| {
            self.find_all(texts, scratch, meter)?;
            Ok(to_hits(&scratch.found))
        })
    }

    /// The same without overlaps: the leftmost wins, then the lower pattern number.
    pub(super) fn search_apart<'t>(
        &self,
        texts: impl Iterator<Item = &'t [u8]>,
        meter: &mut Meter,
    ) -> Result<Hits, Stop> {
        self.with_scratch(|scratch| {
            self.find_all(texts, scratch, meter)?;
            let mut taken = (u32::MAX, 0);
            scratch.found.retain(|found| {
                let is_apart = found.text != taken.0 || found.start >= taken.1;
                if is_apart {
                    taken = (found.text, found.end);
                }
                is_apart
            });
            Ok(to_hits(&scratch.found))
        })
    }

    /// Calls `work` with a function that gives the number of the first pattern that matches a key from end to end.
    pub(super) fn with_keys<T>(&self, work: impl FnOnce(&mut dyn FnMut(&str) -> Option<u32>) -> T) -> T {
        self.with_scratch(|scratch| {
            let Some(whole) = self.whole() else { return work(&mut |_| None) };
            let cache = scratch.whole.get_or_insert_with(|| whole.create_cache());
            let known = &mut scratch.known_keys;
            work(&mut |key| {
                if let Some(number) = known.get(key) {
                    return *number;
                }
                let found = whole.search_with(cache, &Input::new(key).anchored(Anchored::Yes));
                let number = found.map(|found| found.pattern().as_u32());
                if known.len() < KNOWN_KEYS_MAX && key.len() <= 256 {
                    known.insert(key.into(), number);
                }
                number
            })
        })
    }

    fn find_all<'t>(
        &self,
        texts: impl Iterator<Item = &'t [u8]>,
        scratch: &mut Scratch,
        meter: &mut Meter,
    ) -> Result<(), Stop> {
        scratch.gather(texts);
        meter.holds(scratch.buffer.len() as u64);
        let bytes = scratch.buffer.len() as u64 + TEXT_COST * scratch.ends.len() as u64;
        for number in 0..self.patterns.len() {
            meter.charge(bytes)?;
            self.find(number, scratch, meter)?;
        }
        if self.patterns.len() > 1 {
            scratch.found.sort_unstable();
        }
        Ok(())
    }

    /// Screens all texts at once, then searches those that may match.
    fn find(&self, number: usize, scratch: &mut Scratch, meter: &mut Meter) -> Result<(), Stop> {
        let pattern = &self.patterns[number];
        let Scratch { buffer, ends, caches, found, .. } = scratch;
        caches.resize_with(self.patterns.len(), || None);
        let (mut at, mut text) = (0, 0);
        while let Some(candidate) = pattern.screen.find(buffer, at) {
            text += ends[text..].partition_point(|end| *end < candidate);
            let start = if text == 0 { 0 } else { ends[text - 1] + 1 };
            let cache = caches[number].get_or_insert_with(|| pattern.regex.create_cache());
            let mut input = Input::new(&buffer[start..ends[text]]);
            while let Some(next) = pattern.regex.search_with(cache, &input) {
                // A search may have looked at all the rest to find this.
                meter.pass((input.end() - input.start()) as u64)?;
                if !next.is_empty() {
                    meter.charge(HIT_COST)?;
                    if found.len() == HITS_MAX {
                        return Err(Stop::Output(format!("a search has more than {HITS_MAX} hits")));
                    }
                    // A piece is far smaller than 4 GiB.
                    found.push(Found {
                        text: text as u32,
                        start: next.start() as u32,
                        pattern: number as u32,
                        end: next.end() as u32,
                    });
                }
                let onward = next.end() + usize::from(next.is_empty());
                if onward > input.end() {
                    break;
                }
                input.set_start(onward);
            }
            at = ends[text] + 1;
            text += 1;
            if text == ends.len() {
                break;
            }
        }
        Ok(())
    }

    fn whole(&self) -> Option<&Regex> {
        let build = || {
            let whole: Vec<Hir> = self.patterns.iter().map(|pattern| whole_text(&pattern.hir)).collect();
            meta::Builder::new()
                .configure(config().nfa_size_limit(Some(COMPILED_BYTES_MAX)))
                .build_many_from_hir(&whole)
                .ok()
        };
        self.whole.get_or_init(build).as_ref()
    }

    fn with_scratch<T>(&self, work: impl FnOnce(&mut Scratch) -> T) -> T {
        let idle = || self.idle.lock().expect("no panic while the lock is held");
        let mut scratch = idle().pop().unwrap_or_default();
        let result = work(&mut scratch);
        scratch.clear();
        idle().push(scratch);
        result
    }
}

impl Pattern {
    fn compile(pattern: &str) -> Result<Pattern, String> {
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(format!("longer than {PATTERN_BYTES_MAX} bytes"));
        }
        let hir = regex_syntax::ParserBuilder::new()
            .nest_limit(64)
            .build()
            .parse(pattern)
            .map_err(|error| syntax_error(&error))?;
        let built = meta::Builder::new().configure(config()).build_from_hir(&hir);
        let regex = built.map_err(|error| match error.size_limit() {
            Some(_) => format!("takes more than {NFA_BYTES_MAX} bytes when compiled"),
            None => error.to_string(),
        })?;
        Ok(Pattern { screen: Screen::of(&hir), hir, regex })
    }
}

impl Scratch {
    fn gather<'t>(&mut self, texts: impl Iterator<Item = &'t [u8]>) {
        for text in texts {
            self.buffer.extend_from_slice(text);
            self.ends.push(self.buffer.len());
            self.buffer.push(0);
        }
    }

    fn clear(&mut self) {
        self.buffer.clear();
        self.ends.clear();
        self.found.clear();
        self.buffer.shrink_to(SCRATCH_BYTES_MAX);
        self.ends.shrink_to(SCRATCH_BYTES_MAX / 8);
        self.found.shrink_to(SCRATCH_BYTES_MAX / 16);
        let caches = self.caches.iter().chain([&self.whole]).flatten();
        if caches.map(meta::Cache::memory_usage).sum::<usize>() > CACHES_BYTES_MAX {
            self.caches.clear();
            self.whole = None;
        }
    }
}

fn config() -> meta::Config {
    meta::Config::new()
        .nfa_size_limit(Some(NFA_BYTES_MAX))
        .hybrid_cache_capacity(DFA_BYTES_MAX)
        .which_captures(regex_automata::nfa::thompson::WhichCaptures::Implicit)
}

fn whole_text(pattern: &Hir) -> Hir {
    Hir::concat(vec![Hir::look(Look::Start), pattern.clone(), Hir::look(Look::End)])
}

/// One line instead of a drawing.
fn syntax_error(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(error) => {
            format!("{} at byte {}", error.kind(), error.span().start.offset)
        }
        regex_syntax::Error::Translate(error) => {
            format!("{} at byte {}", error.kind(), error.span().start.offset)
        }
        other => other.to_string(),
    }
}

fn to_hits(found: &[Found]) -> Hits {
    Hits {
        texts: found.iter().map(|found| found.text).collect(),
        patterns: found.iter().map(|found| found.pattern).collect(),
        starts: found.iter().map(|found| found.start).collect(),
        ends: found.iter().map(|found| found.end).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn meter(bytes: usize) -> Meter {
        Meter::new(Duration::from_secs(60), 64, bytes, 64)
    }

    fn compile(patterns: &[&str]) -> Result<PatternSet, String> {
        PatternSet::compile(&patterns.iter().map(|pattern| pattern.to_string()).collect::<Vec<_>>())
    }

    /// Hits as `text:start-end=pattern`.
    fn shown(hits: &Hits) -> String {
        let one = |at: usize| {
            format!("{}:{}-{}={}", hits.texts[at], hits.starts[at], hits.ends[at], hits.patterns[at])
        };
        (0..hits.texts.len()).map(one).collect::<Vec<_>>().join(" ")
    }

    fn search(patterns: &[&str], texts: &[&str]) -> (String, String) {
        let set = compile(patterns).unwrap();
        let texts = || texts.iter().map(|text| text.as_bytes());
        let all = shown(&set.search(texts(), &mut meter(1 << 20)).unwrap());
        (all, shown(&set.search_apart(texts(), &mut meter(1 << 20)).unwrap()))
    }

    #[test]
    fn hits_are_sorted_and_only_those_of_different_patterns_overlap() {
        let check = |patterns: &[&str], texts: &[&str], all: &str, apart: &str| {
            assert_eq!(search(patterns, texts), (all.into(), apart.into()), "{patterns:?} {texts:?}");
        };
        check(
            &["b", "a"],
            &["ab", "", "ba"],
            "0:0-1=1 0:1-2=0 2:0-1=0 2:1-2=1",
            "0:0-1=1 0:1-2=0 2:0-1=0 2:1-2=1",
        );
        check(&["bcd", "abc", "abcd"], &["abcd"], "0:0-3=1 0:0-4=2 0:1-4=0", "0:0-3=1");
        check(&["aa"], &["aaaaa"], "0:0-2=0 0:2-4=0", "0:0-2=0 0:2-4=0");
        check(&["x*"], &["axxb", "", "x"], "0:1-3=0 2:0-1=0", "0:1-3=0 2:0-1=0");
        check(&["^a", "a$"], &["aa", "a"], "0:0-1=0 0:1-2=1 1:0-1=0 1:0-1=1", "0:0-1=0 0:1-2=1 1:0-1=0");
        check(&["[^b]+"], &["aba", "ü"], "0:0-1=0 0:2-3=0 1:0-2=0", "0:0-1=0 0:2-3=0 1:0-2=0");
        check(&["ü.", "(?i)STRASSE"], &["ßüß", "strasse"], "0:2-6=0 1:0-7=1", "0:2-6=0 1:0-7=1");
        check(&["a\0b", "\0"], &["a\0b", "a", "b", "\0"], "0:0-3=0 0:1-2=1 3:0-1=1", "0:0-3=0 3:0-1=1");
        check(&[], &["a"], "", "");
        check(&["a"], &[], "", "");
    }

    #[test]
    fn the_screen_never_hides_a_match() {
        let patterns = [
            r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
            r"\b[0-9](?:[ -]?[0-9]){12,18}\b",
            r"(?i:bearer)\s+[a-z0-9]{4,}|sk_(?:live|test)_[a-z0-9]{4,}",
            r"\d{3}",
            r"[ab]{8,}c?",
            r"(?:foo|bar|baz)+x",
            r"(?:x?)(?:y|zz)(?:q|)",
            r"\d{8}-[a-f]{8}",
            r".",
            r"[^a]{9}",
        ];
        // Texts out of the patterns' own pieces, joined by a small generator.
        let pieces = [
            "a@b.c",
            "4111 1111 1111 1111",
            "411111111111",
            "Bearer abcd",
            "sk_live_abcd",
            "12345678-abcdefab",
            "abababab",
            "foobarx",
            "zz",
            "y",
            "\0",
            "ü",
            " ",
            "-",
            "",
        ];
        let mut state = 1u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % below
        };
        let texts: Vec<String> =
            (0..400).map(|_| (0..next(5)).map(|_| pieces[next(pieces.len())]).collect()).collect();
        let set = compile(&patterns).unwrap();
        let found = set.search(texts.iter().map(|text| text.as_bytes()), &mut meter(1 << 20)).unwrap();
        let mut expected = Vec::new();
        for (pattern, regex) in patterns.iter().map(|pattern| Regex::new(pattern).unwrap()).enumerate() {
            let matches = |text: &str| regex.find_iter(text).collect::<Vec<_>>();
            for (text, found) in (0..)
                .zip(&texts)
                .flat_map(|(at, text)| matches(text).into_iter().map(move |found| (at, found)))
            {
                if !found.is_empty() {
                    let (start, end) = (found.start() as u32, found.end() as u32);
                    expected.push(Found { text, start, pattern: pattern as u32, end });
                }
            }
        }
        expected.sort();
        assert!(expected.len() > 1000, "the texts hold matches");
        assert_eq!(shown(&found), shown(&to_hits(&expected)));
    }

    #[test]
    fn keys_match_from_end_to_end() {
        let set = compile(&["(?i)password", "auth.*", "(?x) a b # note"]).unwrap();
        let check = |key: &str, number| assert_eq!(set.with_keys(|find| find(key)), number, "{key}");
        for _ in 0..2 {
            check("PassWord", Some(0));
            check("password2", None);
            check("authorization", Some(1));
            check("auth", Some(1));
            check("ab", Some(2));
            check("", None);
        }
    }

    #[test]
    fn what_cannot_be_compiled_is_told_by_number() {
        let check =
            |patterns: &[&str], error: &str| assert_eq!(compile(patterns).map(|_| ()).unwrap_err(), error);
        check(&["a", "(b"], "pattern 1: unclosed group at byte 0");
        check(&[r"\p{Nonsense}"], "pattern 0: Unicode property not found at byte 0");
        check(&[r"(?:(?:\w{50}){50}){20}"], "pattern 0: takes more than 1048576 bytes when compiled");
        check(&[&"a".repeat(1025)], "pattern 0: longer than 1024 bytes");
        check(&["a"; 65], "65 patterns in one set; at most 64");
        let deep = format!("{}{}", "(".repeat(200), ")".repeat(200));
        check(
            &[&deep],
            "pattern 0: exceed the maximum number of nested parentheses/brackets (64) at byte 64",
        );
    }

    #[test]
    fn a_search_that_looks_at_everything_for_each_hit_is_stopped_by_time() {
        let set = compile(&["x[^y]*y|x"]).unwrap();
        let text = "x".repeat(256 << 10);
        let mut meter = Meter::new(Duration::from_millis(20), 64, text.len(), 1);
        assert_eq!(set.search([text.as_bytes()].into_iter(), &mut meter), Err(Stop::Time));
    }

    #[test]
    fn a_search_with_too_many_hits_is_stopped() {
        let set = compile(&["x"; 9]).unwrap();
        let text = "x".repeat(256 << 10);
        let stopped = set.search([text.as_bytes()].into_iter(), &mut meter(text.len())).unwrap_err();
        assert_eq!(stopped, Stop::Output("a search has more than 1048576 hits".into()));
    }

    #[test]
    fn one_search_takes_a_small_share_of_the_budget() {
        let set = compile(&["@", r"\d{13}", "Bearer"]).unwrap();
        let texts = vec!["a line of text that holds nothing"; 4000];
        let mut meter = Meter::new(Duration::from_secs(1), 64, 33 * 4000, set.len());
        set.search(texts.iter().map(|text| text.as_bytes()), &mut meter).unwrap();
        assert!(meter.used() < 0.05, "{}", meter.used());
    }
}
