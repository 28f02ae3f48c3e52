//! The people of the story: addresses and card numbers that must be nowhere in the end.

use std::path::Path;
use std::process::Command;

/// The host of every address; nothing else in the story has it in its name.
const HOST: &str = "people.example";

/// The first digits of every card. So many of them stand in no time in nanoseconds and no id among a hundred thousand
/// lines by chance; six do.
const CARD: &str = "4539510000";

/// What would show that somebody's data was kept: an address, or a card as people write it, whole or with its end masked.
pub fn needles() -> [&'static str; 9] {
    [HOST, CARD, "4539 51", "4539-51", "453951*", "453951x", "453951X", "453951#", "453951["]
}

pub fn address(of: &str, number: usize) -> String {
    format!("{of}.{number}@{HOST}")
}

/// A number that every check of a card passes, written as people do: with nothing, spaces or hyphens between.
pub fn card(number: usize) -> String {
    let head = format!("{CARD}{number:05}");
    assert_eq!(head.len(), 15, "{number} is too large for a card");
    let digits = format!("{head}{}", check_digit(&head));
    match number % 3 {
        0 => digits,
        1 => in_fours(&digits, " "),
        _ => in_fours(&digits, "-"),
    }
}

fn in_fours(digits: &str, between: &str) -> String {
    let fours: Vec<&str> = (0..4).map(|at| &digits[at * 4..at * 4 + 4]).collect();
    fours.join(between)
}

/// By Luhn: from the right every second digit counts twice.
fn check_digit(head: &str) -> u32 {
    let weighed = head.bytes().rev().enumerate().map(|(at, digit)| {
        let digit = u32::from(digit - b'0') * if at % 2 == 0 { 2 } else { 1 };
        digit / 10 + digit % 10
    });
    (10 - weighed.sum::<u32>() % 10) % 10
}

/// Fails if the text has anybody's address or card.
pub fn assert_nobody_in(what: &str, text: &str) {
    for needle in needles() {
        if let Some(at) = text.find(needle) {
            let around: String =
                text[..at].chars().rev().take(100).collect::<Vec<_>>().into_iter().rev().collect();
            panic!("{what} has somebody's data: {around}{needle}…");
        }
    }
}

/// The files under the folder that have one of the words, by their bytes, each with what stands around it.
pub fn files_with(folder: &Path, words: &[&str]) -> Vec<String> {
    let mut grep = Command::new("grep");
    grep.args(["--recursive", "--files-with-matches", "--text", "--fixed-strings"]);
    words.iter().for_each(|word| {
        grep.args(["-e", word]);
    });
    let output = grep.arg(folder).env("LC_ALL", "C").output().unwrap();
    // A file may go away while it is read; what cannot be read otherwise would make the search vacuous.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let said: Vec<&str> = said.lines().filter(|line| !line.contains("No such file")).collect();
    assert!(said.is_empty(), "the search in {}: {said:?}", folder.display());
    let files = String::from_utf8_lossy(&output.stdout).into_owned();
    files.lines().map(|file| format!("{file}: {}", around_first(Path::new(file), words))).collect()
}

fn around_first(file: &Path, words: &[&str]) -> String {
    let Ok(bytes) = std::fs::read(file) else { return "gone since".into() };
    let places = words.iter().filter_map(|word| memchr::memmem::find(&bytes, word.as_bytes()));
    let Some(at) = places.min() else { return "changed since".into() };
    let around = &bytes[at.saturating_sub(100)..bytes.len().min(at + 100)];
    around.escape_ascii().to_string()
}

fn is_somebodys(text: &str) -> bool {
    needles().iter().any(|needle| text.contains(needle))
}

#[test]
fn the_cards_of_the_story_are_cards() {
    // Known to be right: 4539 1488 0343 6467.
    assert_eq!(check_digit("453914880343646"), 7);
    assert_eq!(card(0).len(), 16);
    assert_eq!(card(1).split(' ').map(str::len).collect::<Vec<_>>(), [4; 4]);
    for number in 0..3 {
        assert!(is_somebodys(&card(number)), "{}", card(number));
    }
    assert!(is_somebodys("453951******0006") && is_somebodys("4539-51**-****-0006"));
    assert!(!is_somebodys(r#"{"time_ns": 453951, "n": 1453951}"#));
}

#[test]
fn the_search_finds_a_word_among_bytes() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("deep")).unwrap();
    std::fs::write(
        folder.path().join("deep/file"),
        [b"\0\xff\n", address("ada", 1).as_bytes(), b"\0"].concat(),
    )
    .unwrap();
    assert_eq!(files_with(folder.path(), &needles()).len(), 1);
    assert_eq!(files_with(folder.path(), &["globex"]), Vec::<String>::new());
}
