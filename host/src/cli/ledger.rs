//! `trommel ledger`: where every record went, as three tables.

use super::ask::{Console, answered, table};
use super::{FAILED, STOPPED, say};
use serde_json::Value;

/// Ends with 1 if a line does not add up.
pub(super) fn print(console: &Console, is_json: bool) -> u8 {
    let ledger = match answered(console.get("/v1/ledger")) {
        Ok(ledger) => ledger,
        Err(code) => return code,
    };
    say(&if is_json { ledger.to_string() } else { in_words(&ledger) });
    if unaccounted(&ledger).is_empty() { STOPPED } else { FAILED }
}

fn in_words(ledger: &Value) -> String {
    let lines = lines(ledger);
    let names = |line: &Value| vec![text(&line["tenant"]), text(&line["signal"])];
    let first = lines.iter().map(|line| {
        let columns = ["received", "acknowledged", "refused", "cancelled", "in_process"];
        [names(line), columns.map(|column| counted(&line[column])).to_vec()].concat()
    });
    let second = lines.iter().map(|line| {
        let columns = ["acknowledged", "added", "filtered", "dropped", "unrouted", "committed"];
        [names(line), columns.map(|column| counted(&line[column])).to_vec()].concat()
    });
    let third = lines.iter().flat_map(|line| {
        let sinks = line["sinks"].as_object().into_iter().flatten();
        sinks.map(|(name, sink)| {
            let columns = SINK.map(|column| counted(&sink[column]));
            [names(line), vec![name.clone()], columns.to_vec()].concat()
        })
    });
    let [first, second, third]: [Vec<_>; 3] = [first.collect(), second.collect(), third.collect()];
    let unaccounted = unaccounted(ledger);
    let last = if unaccounted.is_empty() {
        "unaccounted: 0".to_owned()
    } else {
        format!("unaccounted: a bug, please report it\n{}", unaccounted.join("\n"))
    };
    let head = |columns: &[&'static str]| [&["tenant", "signal"], columns].concat();
    format!(
        "received = acknowledged + refused + cancelled + in process\n\n{}\n\n\
         acknowledged + added = filtered + dropped + unrouted + committed\n\n{}\n\n\
         for each sink: committed = what became of it + in flight\n\n{}\n\n{last}",
        table(&head(&["received", "acknowledged", "refused", "cancelled", "in process"]), &first),
        table(&head(&["acknowledged", "added", "filtered", "dropped", "unrouted", "committed"]), &second),
        table(
            &[
                &["tenant", "signal", "sink"],
                &SINK.map(|column| match column {
                    "in_flight" => "in flight",
                    "dead_lettered" => "dead letters",
                    other => other,
                })[..]
            ]
            .concat(),
            &third
        ),
    )
}

const SINK: [&str; 7] =
    ["committed", "delivered", "rejected", "unsupported", "dead_lettered", "expired", "in_flight"];

fn lines(ledger: &Value) -> Vec<Value> {
    ledger["lines"].as_array().cloned().unwrap_or_default()
}

/// What does not add up, a line each.
fn unaccounted(ledger: &Value) -> Vec<String> {
    let lines = ledger["unaccounted"].as_array().into_iter().flatten();
    let in_words = |line: &Value| {
        let [tenant, signal, name] = ["tenant", "signal", "line"].map(|key| text(&line[key]));
        format!("{tenant} {signal}, line {name}: lacks {}", line["lacks"])
    };
    lines.map(in_words).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("?").to_owned()
}

/// A number; of counts by reason their sum, and the reasons behind it.
fn counted(value: &Value) -> String {
    let Some(counts) = value.as_object() else { return value.to_string() };
    let sum: u64 = counts.values().filter_map(Value::as_u64).sum();
    if sum == 0 {
        return "0".into();
    }
    let reasons: Vec<String> = counts.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    format!("{sum} ({})", reasons.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ledger() -> Value {
        json!({
            "lines": [{
                "tenant": "acme", "signal": "logs", "received": 1200, "acknowledged": 1100,
                "refused": { "no_tenant": 60, "disk_full": 40 }, "cancelled": 0, "in_process": 0,
                "added": {}, "filtered": { "sample": 100 }, "dropped": {}, "unrouted": 0, "committed": 1000,
                "sinks": { "streams": {
                    "committed": 1000, "delivered": 990, "rejected": {}, "unsupported": 0,
                    "dead_lettered": {}, "expired": { "age": 10 }, "in_flight": 0,
                } },
            }],
            "unaccounted": [],
        })
    }

    #[test]
    fn the_three_lines_are_three_tables() {
        expect_test::expect![[r#"
            received = acknowledged + refused + cancelled + in process

            tenant  signal  received  acknowledged  refused                           cancelled  in process
            acme    logs        1200          1100  100 (disk_full 40, no_tenant 60)          0           0

            acknowledged + added = filtered + dropped + unrouted + committed

            tenant  signal  acknowledged  added  filtered          dropped  unrouted  committed
            acme    logs            1100      0  100 (sample 100)        0         0       1000

            for each sink: committed = what became of it + in flight

            tenant  signal  sink     committed  delivered  rejected  unsupported  dead letters  expired      in flight
            acme    logs    streams       1000        990         0            0             0  10 (age 10)          0

            unaccounted: 0"#]]
        .assert_eq(&in_words(&ledger()));
    }

    #[test]
    fn what_does_not_add_up_is_said() {
        let mut ledger = ledger();
        ledger["unaccounted"] =
            json!([{ "tenant": "acme", "signal": "logs", "line": "streams", "lacks": 3 }]);
        let said = in_words(&ledger);
        assert!(
            said.ends_with("unaccounted: a bug, please report it\nacme logs, line streams: lacks 3"),
            "{said}"
        );
    }

    #[test]
    fn an_answer_of_another_shape_is_an_empty_table() {
        for odd in [json!(null), json!([]), json!({ "lines": [{ "tenant": 3, "sinks": 4 }] })] {
            in_words(&odd);
        }
    }
}
