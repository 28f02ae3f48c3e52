//! `trommel dead-letters`: what sinks refused for good, listed, shown, sent again, dropped.

use super::ask::{Console, answered, table};
use super::{FAILED, STOPPED, WRONG, complain, plain, say};
use clap::{Args, Subcommand};
use reqwest::Url;
use serde_json::{Value, json};

/// A table for people ends here; `--json` has them all.
const ROWS_MAX: usize = 10_000;
const PAGE: &str = "1000";

#[derive(Subcommand)]
pub(super) enum Command {
    /// Prints a line for each, the oldest first: not what they say.
    List {
        #[command(flatten)]
        console: Console,
        #[command(flatten)]
        filter: Filter,
        /// A line of JSON for each.
        #[arg(long)]
        json: bool,
    },
    /// Prints one with its records and the words of the server, as JSON.
    Show {
        #[command(flatten)]
        console: Console,
        /// As `list` prints it.
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Sends them to their sinks again.
    Replay {
        #[command(flatten)]
        console: Console,
        #[command(flatten)]
        chosen: Chosen,
    },
    /// Deletes them.
    Drop {
        #[command(flatten)]
        console: Console,
        #[command(flatten)]
        chosen: Chosen,
    },
}

#[derive(Args)]
pub(super) struct Filter {
    /// Only those of this sink.
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// Only those of this tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
}

#[derive(Args)]
pub(super) struct Chosen {
    /// As `list` prints them.
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with_all = ["all", "sink", "tenant"])]
    ids: Vec<String>,
    /// All that there are now.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
}

/// Ends with 1 if something that was asked for could not be done.
pub(super) fn run(command: &Command) -> u8 {
    let ended = match command {
        Command::List { console, filter, json } => list(console, filter, *json),
        Command::Show { console, id } => show(console, id),
        Command::Replay { console, chosen } => handle(console, chosen, "replay", "sent again"),
        Command::Drop { console, chosen } => handle(console, chosen, "drop", "dropped"),
    };
    ended.unwrap_or_else(|code| code)
}

fn list(console: &Console, filter: &Filter, is_json: bool) -> Result<u8, u8> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = answered(console.get(&path(filter, after.as_deref())))?;
        let letters = page["letters"].as_array().cloned().unwrap_or_default();
        match is_json {
            true => letters.iter().for_each(|letter| say(&plain(&letter.to_string()))),
            false => rows.extend(letters.iter().map(row)),
        }
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() || rows.len() >= ROWS_MAX {
            break;
        }
    }
    if is_json {
        return Ok(STOPPED);
    }
    if rows.is_empty() {
        say("no dead letters");
        return Ok(STOPPED);
    }
    say(&table(&["id", "refused at", "sink", "tenant", "signal", "records", "bytes", "reason"], &rows));
    if after.is_some() {
        say("… and more: --json prints all, --sink and --tenant only some");
    }
    Ok(STOPPED)
}

fn row(letter: &Value) -> Vec<String> {
    let cell = |name: &str| match &letter[name] {
        Value::String(text) => plain(text),
        other => other.to_string(),
    };
    ["id", "refused_at", "sink", "tenant", "signal", "records", "bytes", "reason"].map(cell).to_vec()
}

fn show(console: &Console, id: &str) -> Result<u8, u8> {
    // It becomes a part of a path.
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        complain("the id of a dead letter is two numbers: 3-52");
        return Err(WRONG);
    }
    let letter = answered(console.get(&format!("/v1/dead-letters/{id}")))?;
    say(&plain(&format!("{letter:#}")));
    Ok(STOPPED)
}

/// In pages, until all that were there at the start are done.
fn handle(console: &Console, chosen: &Chosen, verb: &str, done: &str) -> Result<u8, u8> {
    let path = format!("/v1/dead-letters/{verb}");
    let mut sum = Handled::default();
    let bodies: Vec<Value> = match chosen.all {
        true => vec![all(&chosen.filter)],
        false => chosen.ids.chunks(1_000).map(|ids| json!({ "ids": ids })).collect(),
    };
    for mut body in bodies {
        loop {
            let answer = console.post(&path, &body);
            let answer = answered(answer).inspect_err(|_| sum.tell(done))?;
            sum.add(&answer);
            if !answer["after"].is_string() {
                break;
            }
            body["after"] = answer["after"].clone();
            body["until"] = answer["until"].clone();
        }
    }
    sum.tell(done);
    Ok(sum.complain())
}

fn all(filter: &Filter) -> Value {
    let mut body = json!({ "all": true });
    for (name, value) in [("sink", &filter.sink), ("tenant", &filter.tenant)] {
        if let Some(value) = value {
            body[name] = json!(value);
        }
    }
    body
}

#[derive(Default)]
struct Handled {
    letters: u64,
    records: u64,
    not_there: u64,
    without_sink: std::collections::BTreeMap<String, u64>,
}

impl Handled {
    fn add(&mut self, answer: &Value) {
        let number = |name: &str| answer[name].as_u64().unwrap_or(0);
        self.letters += number("letters");
        self.records += number("records");
        self.not_there += number("not_there");
        for (sink, letters) in answer["without_sink"].as_object().into_iter().flatten() {
            *self.without_sink.entry(sink.clone()).or_default() += letters.as_u64().unwrap_or(0);
        }
    }

    fn tell(&self, done: &str) {
        say(&format!("{} letters with {} records {done}", self.letters, self.records));
    }

    fn complain(&self) -> u8 {
        if self.not_there > 0 {
            complain(format!(
                "{} were not there: sent again or dropped before, expired, or never written",
                self.not_there
            ));
        }
        for (sink, letters) in &self.without_sink {
            complain(format!(
                "{letters} are for the sink `{}`, which is not in the configuration: add it again, or drop them",
                plain(sink)
            ));
        }
        if self.not_there > 0 || !self.without_sink.is_empty() { FAILED } else { STOPPED }
    }
}

fn path(filter: &Filter, after: Option<&str>) -> String {
    let mut url = Url::parse("http://console/v1/dead-letters").expect("an address");
    let pairs = [("sink", filter.sink.as_deref()), ("tenant", filter.tenant.as_deref()), ("after", after)];
    for (name, value) in pairs.into_iter().chain([("limit", Some(PAGE))]) {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    format!("{}?{}", url.path(), url.query().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parts_of_a_query() {
        let filter = Filter { sink: Some("a&b=c".into()), tenant: Some("ä/?#".into()) };
        assert_eq!(
            path(&filter, Some("3-52")),
            "/v1/dead-letters?sink=a%26b%3Dc&tenant=%C3%A4%2F%3F%23&after=3-52&limit=1000"
        );
    }

    #[test]
    fn what_is_shown_moves_no_cursor_and_stays_json() {
        let letter = json!({ "message": "a\u{1b}[2J\u{7f}\u{9b}b\u{202e}c\nd", "ä": "😀" });
        let shown = plain(&format!("{letter:#}"));
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        assert!(shown.contains("\\u202ec\\nd") && shown.contains('😀'), "{shown}");
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), letter);
    }

    #[test]
    fn a_letter_is_a_row() {
        let letter = json!({
            "id": "3-52", "sink": "backend", "tenant": "acme", "project": "shop", "signal": "logs", "records": 2,
            "bytes": 400, "time": "2026-01-31T12:00:00.000Z", "refused_at": "2026-01-31T12:00:01.000Z",
            "reason": "refused",
        });
        let head = ["id", "refused at", "sink", "tenant", "signal", "records", "bytes", "reason"];
        expect_test::expect![[r#"
              id  refused at                sink     tenant  signal  records  bytes  reason
            3-52  2026-01-31T12:00:01.000Z  backend  acme    logs          2    400  refused"#]]
        .assert_eq(&table(&head, &[row(&letter)]));
    }

    #[test]
    fn what_could_not_be_done_is_a_failure() {
        let mut sum = Handled::default();
        sum.add(&json!({ "letters": 2, "records": 9, "not_there": 0, "without_sink": {} }));
        assert_eq!((sum.letters, sum.records, sum.complain()), (2, 9, STOPPED));
        sum.add(&json!({ "letters": 1, "records": 1, "not_there": 0, "without_sink": { "gone": 3 } }));
        assert_eq!((sum.letters, sum.complain()), (3, FAILED));
        let mut sum = Handled::default();
        sum.add(&json!({ "not_there": 1 }));
        assert_eq!(sum.complain(), FAILED);
    }
}
