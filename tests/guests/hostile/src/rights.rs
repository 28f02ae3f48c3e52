//! One call of each function of `batch`, for the tests of rights: on bodies, or on the attribute `user` of items.

use super::trommel::plugin::batch;
use super::trommel::plugin::types::{BoolColumn, DoubleColumn, Hits, IntColumn, Level, Places, TextColumn};

const BODY: Places = Places::BODY;
const ITEM: Level = Level::Item;
const KEY: &str = "user";

fn hit() -> Hits {
    Hits { texts: vec![0], patterns: vec![0], starts: vec![0], ends: vec![1] }
}

/// `function` as the WIT spells it; `false` if there is none of that name.
pub fn call(function: &str, patterns: u32) -> bool {
    let (row, by) = ([0], ["x".to_string()]);
    match function {
        "holds" => drop(batch::holds()),
        "tenant" => drop(batch::tenant()),
        "project" => drop(batch::project()),
        "rows" => drop(batch::rows(ITEM)),
        "parents" => drop(batch::parents(ITEM, Level::Resource)),
        "severities" => drop(batch::severities()),
        "set-severity" => batch::set_severity(&row, 9),
        "kinds" => drop(batch::kinds()),
        "statuses" => drop(batch::statuses()),
        "times" => drop(batch::times()),
        "end-times" => drop(batch::end_times()),
        "numbers" => drop(batch::numbers()),
        "counts" => drop(batch::counts()),
        "temporalities" => drop(batch::temporalities()),
        "trace-ids" => drop(batch::trace_ids()),
        "span-ids" => drop(batch::span_ids()),
        "parent-span-ids" => drop(batch::parent_span_ids()),
        "trace-fractions" => drop(batch::trace_fractions()),
        "randomness" => drop(batch::randomness()),
        "trace-states" => drop(batch::trace_states()),
        "set-trace-states" => batch::set_trace_states(&row, &by),
        "texts" => drop(batch::texts(BODY)),
        "packed-texts" => drop(batch::packed_texts(BODY)),
        "text-rows" => drop(batch::text_rows(BODY)),
        "search" => drop(batch::search(patterns, BODY)),
        "replace" => batch::replace(BODY, &hit(), &by),
        "search-and-replace" => drop(batch::search_and_replace(patterns, BODY, &by)),
        "matches" => drop(batch::matches(BODY, &hit())),
        "replace-each" => batch::replace_each(BODY, &hit(), &by),
        "hash" => batch::hash(BODY, &hit(), "join"),
        "replace-texts" => batch::replace_texts(BODY, &row, &by),
        "remove-keys" => drop(batch::remove_keys(patterns, BODY | Places::ITEM_ATTRIBUTES)),
        "mask-keys" => drop(batch::mask_keys(patterns, BODY | Places::ITEM_ATTRIBUTES, &by)),
        "hash-keys" => drop(batch::hash_keys(patterns, BODY | Places::ITEM_ATTRIBUTES, "join")),
        "attribute-keys" => drop(batch::attribute_keys(ITEM)),
        "attribute-rows" => drop(batch::attribute_rows(ITEM, KEY)),
        "text-attribute" => drop(batch::text_attribute(ITEM, KEY)),
        "int-attribute" => drop(batch::int_attribute(ITEM, KEY)),
        "double-attribute" => drop(batch::double_attribute(ITEM, KEY)),
        "bool-attribute" => drop(batch::bool_attribute(ITEM, KEY)),
        "set-text-attribute" => {
            let to = TextColumn { rows: row.to_vec(), index: vec![0], strings: by.to_vec() };
            batch::set_text_attribute(ITEM, KEY, &to)
        }
        "set-int-attribute" => {
            batch::set_int_attribute(ITEM, KEY, &IntColumn { rows: row.to_vec(), values: vec![1] })
        }
        "set-double-attribute" => {
            batch::set_double_attribute(ITEM, KEY, &DoubleColumn { rows: row.to_vec(), values: vec![1.0] })
        }
        "set-bool-attribute" => {
            batch::set_bool_attribute(ITEM, KEY, &BoolColumn { rows: row.to_vec(), values: vec![true] })
        }
        // What it may read onto what it may not write, and the other way round.
        "copy-attribute" => batch::copy_attribute(ITEM, KEY, "http.copy", &row),
        "copy-attribute-onto" => batch::copy_attribute(ITEM, "http.method", KEY, &row),
        "hash-attribute" => batch::hash_attribute(ITEM, KEY, "join"),
        "remove-attribute" => batch::remove_attribute(ITEM, KEY),
        "remove-attribute-from" => batch::remove_attribute_from(ITEM, KEY, &row),
        "drop" => batch::drop(&row),
        "route" => batch::route("slow", &row),
        "raw" => drop(batch::raw()),
        "splice" => batch::splice(&[0], &[0], &[Vec::new()]),
        _ => return false,
    }
    true
}
