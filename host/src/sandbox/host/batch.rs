//! Interface `batch`: each function of the WIT on the call at hand, with its right, its cost and its bound.

use super::super::bindings::trommel::plugin::batch::{
    self as wit, BoolColumn, DoubleColumn, Hits, IntColumn, Packed, TextColumn,
};
use super::super::limits::{HIT_COST, Stop, TEXT_COST};
use super::super::rights::Need;
use super::shapes::{hits, level, places, size_of, size_of_hits, size_of_replacements, size_of_texts};
use super::{State, free, reads, reads_places, too_much, writes, writes_places};
use crate::batch::{self, Call, Signal};
use wasmtime::Result;

/// Texts that `matches` hands over at once.
const MATCHES_BYTES_MAX: u64 = 16 << 20;
/// Masks that one call of `mask-keys` may put in, at most.
const MASKS_BYTES_MAX: usize = 64 << 20;
/// An attribute takes so many bytes at least: tags and lengths of the entry, of its key and of its value.
const VALUE_BYTES_MIN: usize = 6;

impl wit::Host for State {
    fn holds(&mut self) -> Result<wit::Signal> {
        let signal = self.read("holds", free, |call, _| Ok(Some(call.holds())), |_| 1)?;
        Ok(match signal.unwrap_or(Signal::Logs) {
            Signal::Logs => wit::Signal::Logs,
            Signal::Traces => wit::Signal::Traces,
            Signal::Metrics => wit::Signal::Metrics,
        })
    }

    fn tenant(&mut self) -> Result<String> {
        self.read("tenant", free, |call, _| Ok(call.tenant().to_string()), String::len)
    }

    fn project(&mut self) -> Result<String> {
        self.read("project", free, |call, _| Ok(call.project().to_string()), String::len)
    }

    fn rows(&mut self, at: wit::Level) -> Result<u32> {
        self.read("rows", free, |call, _| Ok(call.rows(level(at))), |_| 4)
    }

    fn parents(&mut self, child: wit::Level, parent: wit::Level) -> Result<Vec<u32>> {
        self.read(
            "parents",
            free,
            |call, _| Ok(call.parents(level(child), level(parent))?),
            |values| size_of(values),
        )
    }

    fn severities(&mut self) -> Result<Vec<u8>> {
        self.read(
            "severities",
            reads(Need::Name("severity")),
            |call, _| Ok(call.severities()?),
            |values| size_of(values),
        )
    }

    fn set_severity(&mut self, items: Vec<u32>, to: u8) -> Result<()> {
        let size = size_of(&items);
        self.edit("set-severity", writes(Need::Name("severity")), size, |call| call.set_severity(&items, to))
    }

    fn kinds(&mut self) -> Result<Vec<u8>> {
        self.read("kinds", reads(Need::Name("kind")), |call, _| Ok(call.kinds()?), |values| size_of(values))
    }

    fn statuses(&mut self) -> Result<Vec<u8>> {
        self.read(
            "statuses",
            reads(Need::Name("status")),
            |call, _| Ok(call.statuses()?),
            |values| size_of(values),
        )
    }

    fn times(&mut self) -> Result<Vec<u64>> {
        self.read("times", reads(Need::Name("time")), |call, _| Ok(call.times()?), |values| size_of(values))
    }

    fn end_times(&mut self) -> Result<Vec<u64>> {
        self.read(
            "end-times",
            reads(Need::Name("time")),
            |call, _| Ok(call.end_times()?),
            |values| size_of(values),
        )
    }

    fn numbers(&mut self) -> Result<Vec<f64>> {
        self.read(
            "numbers",
            reads(Need::Name("number")),
            |call, _| Ok(call.numbers()?),
            |values| size_of(values),
        )
    }

    fn counts(&mut self) -> Result<Vec<f64>> {
        self.read(
            "counts",
            reads(Need::Name("number")),
            |call, _| Ok(call.counts()?),
            |values| size_of(values),
        )
    }

    fn temporalities(&mut self) -> Result<Vec<u8>> {
        self.read(
            "temporalities",
            reads(Need::Name("kind")),
            |call, _| Ok(call.temporalities()?),
            |values| size_of(values),
        )
    }

    fn trace_ids(&mut self) -> Result<Vec<u8>> {
        self.read(
            "trace-ids",
            reads(Need::Name("trace-id")),
            |call, _| Ok(call.trace_ids()?),
            |values| size_of(values),
        )
    }

    fn span_ids(&mut self) -> Result<Vec<u8>> {
        self.read(
            "span-ids",
            reads(Need::Name("span-id")),
            |call, _| Ok(call.span_ids()?),
            |values| size_of(values),
        )
    }

    fn parent_span_ids(&mut self) -> Result<Vec<u8>> {
        self.read(
            "parent-span-ids",
            reads(Need::Name("span-id")),
            |call, _| Ok(call.parent_span_ids()?),
            |values| size_of(values),
        )
    }

    fn trace_fractions(&mut self) -> Result<Vec<f64>> {
        self.read(
            "trace-fractions",
            reads(Need::Name("trace-id")),
            |call, _| Ok(call.trace_fractions()?),
            |values| size_of(values),
        )
    }

    fn randomness(&mut self) -> Result<Vec<u64>> {
        self.read(
            "randomness",
            reads(Need::Name("trace-id")),
            |call, _| Ok(call.randomness()?),
            |values| size_of(values),
        )
    }

    fn trace_states(&mut self) -> Result<Vec<String>> {
        let need = reads(Need::Name("trace-state"));
        self.read("trace-states", need, |call, _| Ok(call.trace_states()?), |texts| size_of_texts(texts))
    }

    fn set_trace_states(&mut self, items: Vec<u32>, to: Vec<String>) -> Result<()> {
        let size = size_of(&items) + size_of_texts(&to);
        let need = writes(Need::Name("trace-state"));
        self.edit("set-trace-states", need, size, |call| call.set_trace_states(&items, &to))
    }

    fn texts(&mut self, of: wit::Places) -> Result<Vec<String>> {
        let of = places(of);
        let all = |call: &mut Call, _: &mut _| {
            let texts = call.texts(of)?;
            Ok((0..texts.len()).map(|at| texts.at(at).to_owned()).collect())
        };
        self.read("texts", reads_places(of), all, |texts: &Vec<String>| size_of_texts(texts))
    }

    fn packed_texts(&mut self, of: wit::Places) -> Result<Packed> {
        let of = places(of);
        let pack = |call: &mut Call, _: &mut _| Ok(call.packed_texts(of)?);
        let size = |packed: &batch::Packed| packed.data.len() + size_of(&packed.ends);
        let packed = self.read("packed-texts", reads_places(of), pack, size)?;
        Ok(Packed { data: packed.data, ends: packed.ends })
    }

    fn text_rows(&mut self, of: wit::Places) -> Result<Vec<u32>> {
        let of = places(of);
        self.read("text-rows", reads_places(of), |call, _| Ok(call.text_rows(of)?), |values| size_of(values))
    }

    fn search(&mut self, patterns: u32, of: wit::Places) -> Result<Hits> {
        let of = places(of);
        let set = self.set(patterns);
        let find = |call: &mut Call, meter: &mut _| {
            let texts = call.texts(of)?;
            Ok(set?.search((0..texts.len()).map(|at| texts.bytes(at)), meter)?)
        };
        let hits =
            self.read("search", reads_places(of), find, |hits| hits.texts.len() * HIT_COST as usize)?;
        Ok(Hits { texts: hits.texts, patterns: hits.patterns, starts: hits.starts, ends: hits.ends })
    }

    fn replace(&mut self, of: wit::Places, which: Hits, by: Vec<String>) -> Result<()> {
        let of = places(of);
        let size = size_of_hits(&which) + size_of_texts(&by);
        let which = hits(which);
        self.expect_output("replace", size_of_replacements(&which, &by))?;
        self.edit("replace", writes_places(of), size, |call| call.replace(of, &which, &by))
    }

    fn search_and_replace(&mut self, patterns: u32, of: wit::Places, by: Vec<String>) -> Result<u32> {
        let of = places(of);
        let set = self.set(patterns);
        let size = size_of_texts(&by);
        let output_bytes_left = self.output_bytes_left().unwrap_or(0);
        let allow =
            move |shared: &super::Shared| reads_places(of)(shared).and_then(|()| writes_places(of)(shared));
        self.edit_with("search-and-replace", allow, size, |call, meter| {
            let found = {
                let texts = call.texts(of)?;
                set?.search_apart((0..texts.len()).map(|at| texts.bytes(at)), meter)?
            };
            if !found.texts.is_empty() {
                meter.charge(found.texts.len() as u64 * HIT_COST)?;
                if size_of_replacements(&found, &by) > output_bytes_left {
                    return Err(too_much("search-and-replace").into());
                }
                call.replace(of, &found, &by);
            }
            Ok(found.texts.len() as u32)
        })
    }

    fn matches(&mut self, of: wit::Places, which: Hits) -> Result<Vec<String>> {
        let of = places(of);
        self.charge(size_of_hits(&which) as u64)?;
        let which = hits(which);
        let bytes: u64 = which
            .starts
            .iter()
            .zip(&which.ends)
            .map(|(start, end)| u64::from(end.saturating_sub(*start)))
            .sum();
        if bytes > MATCHES_BYTES_MAX {
            let text = format!("matches: the texts take more than {MATCHES_BYTES_MAX} bytes");
            return Err(self.stopped(Stop::Output(text)));
        }
        self.read(
            "matches",
            reads_places(of),
            |call, _| Ok(call.matches(of, &which)?),
            |texts| size_of_texts(texts),
        )
    }

    fn replace_each(&mut self, of: wit::Places, which: Hits, by: Vec<String>) -> Result<()> {
        let of = places(of);
        let size = size_of_hits(&which) + size_of_texts(&by);
        let which = hits(which);
        self.edit("replace-each", writes_places(of), size, |call| call.replace_each(of, &which, &by))
    }

    fn hash(&mut self, of: wit::Places, which: Hits, secret: String) -> Result<()> {
        let of = places(of);
        let size = size_of_hits(&which) * 8;
        let key = self.hash_key(&secret);
        let which = hits(which);
        self.edit_with("hash", writes_places(of), size, |call, _| {
            let key = key?;
            call.hash(of, &which, &mut |text| key.of(text.as_bytes()));
            Ok(())
        })
    }

    fn replace_texts(&mut self, of: wit::Places, which: Vec<u32>, by: Vec<String>) -> Result<()> {
        let of = places(of);
        let size = size_of(&which) + size_of_texts(&by);
        self.edit("replace-texts", writes_places(of), size, |call| call.replace_texts(of, &which, &by))
    }

    fn remove_keys(&mut self, patterns: u32, of: wit::Places) -> Result<u32> {
        let bytes = self.piece_bytes as u64;
        let of = places(of);
        let set = self.set(patterns);
        self.edit_with("remove-keys", writes_places(of), 0, |call, meter| {
            meter.charge(bytes)?;
            Ok(set?.with_keys(|matches| call.remove_keys(of, matches)))
        })
    }

    fn mask_keys(&mut self, patterns: u32, of: wit::Places, by: Vec<String>) -> Result<u32> {
        let bytes = self.piece_bytes as u64;
        let of = places(of);
        let set = self.set(patterns);
        let size = size_of_texts(&by);
        // How many values there will be is not known yet: what a value takes at least tells how many at most.
        let values_max = self.piece_bytes / VALUE_BYTES_MIN + 1024;
        let longest = by.iter().map(String::len).max().unwrap_or(0);
        if longest.saturating_mul(values_max) > MASKS_BYTES_MAX {
            return Err(self.stopped(too_much("mask-keys")));
        }
        self.edit_with("mask-keys", writes_places(of), size, |call, meter| {
            meter.charge(bytes)?;
            Ok(set?.with_keys(|matches| call.mask_keys(of, matches, &by)))
        })
    }

    fn hash_keys(&mut self, patterns: u32, of: wit::Places, secret: String) -> Result<u32> {
        let bytes = self.piece_bytes as u64;
        let of = places(of);
        let set = self.set(patterns);
        let key = self.hash_key(&secret);
        self.edit_with("hash-keys", writes_places(of), 0, |call, meter| {
            let key = key?;
            meter.charge(bytes)?;
            Ok(set?.with_keys(|matches| call.hash_keys(of, matches, &mut |value| key.of(value))))
        })
    }

    fn attribute_keys(&mut self, at: wit::Level) -> Result<Vec<String>> {
        let at = level(at);
        self.read(
            "attribute-keys",
            reads(Need::All(at)),
            |call, _| Ok(call.attribute_keys(at)?),
            |texts| size_of_texts(texts),
        )
    }

    fn attribute_rows(&mut self, at: wit::Level, key: String) -> Result<Vec<u32>> {
        let at = level(at);
        let need = reads(Need::Key(at, &key));
        self.read(
            "attribute-rows",
            need,
            |call, _| Ok(call.attribute_rows(at, &key)?),
            |values| size_of(values),
        )
    }

    fn text_attribute(&mut self, at: wit::Level, key: String) -> Result<TextColumn> {
        let at = level(at);
        let size = |column: &batch::TextColumn| size_of(&column.rows) * 2 + size_of_texts(&column.strings);
        let need = reads(Need::Key(at, &key));
        let column = self.read("text-attribute", need, |call, _| Ok(call.text_attribute(at, &key)?), size)?;
        Ok(TextColumn { rows: column.rows, index: column.index, strings: column.strings })
    }

    fn int_attribute(&mut self, at: wit::Level, key: String) -> Result<IntColumn> {
        let at = level(at);
        let need = reads(Need::Key(at, &key));
        let column = self.read(
            "int-attribute",
            need,
            |call, _| Ok(call.int_attribute(at, &key)?),
            |column| size_of(&column.rows) * 3,
        )?;
        Ok(IntColumn { rows: column.rows, values: column.values })
    }

    fn double_attribute(&mut self, at: wit::Level, key: String) -> Result<DoubleColumn> {
        let at = level(at);
        let need = reads(Need::Key(at, &key));
        let read = |call: &mut Call, _: &mut _| Ok(call.double_attribute(at, &key)?);
        let column = self.read("double-attribute", need, read, |column| size_of(&column.rows) * 3)?;
        Ok(DoubleColumn { rows: column.rows, values: column.values })
    }

    fn bool_attribute(&mut self, at: wit::Level, key: String) -> Result<BoolColumn> {
        let at = level(at);
        let need = reads(Need::Key(at, &key));
        let column = self.read(
            "bool-attribute",
            need,
            |call, _| Ok(call.bool_attribute(at, &key)?),
            |column| size_of(&column.rows) * 2,
        )?;
        Ok(BoolColumn { rows: column.rows, values: column.values })
    }

    fn set_text_attribute(&mut self, at: wit::Level, key: String, to: TextColumn) -> Result<()> {
        let at = level(at);
        let size = size_of(&to.rows) * 2 + size_of_texts(&to.strings) + key.len();
        let to = batch::TextColumn { rows: to.rows, index: to.index, strings: to.strings };
        let need = writes(Need::Key(at, &key));
        let texts = to.index.iter().filter_map(|at| to.strings.get(*at as usize)).map(String::len);
        self.expect_output("set-text-attribute", texts.sum::<usize>() + key.len() * to.rows.len())?;
        self.edit("set-text-attribute", need, size, |call| call.set_text_attribute(at, &key, &to))
    }

    fn set_int_attribute(&mut self, at: wit::Level, key: String, to: IntColumn) -> Result<()> {
        let at = level(at);
        let size = size_of(&to.rows) + size_of(&to.values) + key.len();
        let need = writes(Need::Key(at, &key));
        self.expect_output("set-int-attribute", size + key.len() * to.rows.len())?;
        self.edit("set-int-attribute", need, size, |call| {
            call.set_int_attribute(at, &key, &batch::IntColumn { rows: to.rows, values: to.values })
        })
    }

    fn set_double_attribute(&mut self, at: wit::Level, key: String, to: DoubleColumn) -> Result<()> {
        let at = level(at);
        let size = size_of(&to.rows) + size_of(&to.values) + key.len();
        let need = writes(Need::Key(at, &key));
        self.expect_output("set-double-attribute", size + key.len() * to.rows.len())?;
        self.edit("set-double-attribute", need, size, |call| {
            call.set_double_attribute(at, &key, &batch::DoubleColumn { rows: to.rows, values: to.values })
        })
    }

    fn set_bool_attribute(&mut self, at: wit::Level, key: String, to: BoolColumn) -> Result<()> {
        let at = level(at);
        let size = size_of(&to.rows) + size_of(&to.values) + key.len();
        let need = writes(Need::Key(at, &key));
        self.expect_output("set-bool-attribute", size + key.len() * to.rows.len())?;
        self.edit("set-bool-attribute", need, size, |call| {
            call.set_bool_attribute(at, &key, &batch::BoolColumn { rows: to.rows, values: to.values })
        })
    }

    fn copy_attribute(&mut self, at: wit::Level, key: String, to: String, rows: Vec<u32>) -> Result<()> {
        let at = level(at);
        let size = size_of(&rows) + key.len() + to.len();
        let (from, onto) = (reads(Need::Key(at, &key)), writes(Need::Key(at, &to)));
        let allow = |shared: &super::Shared| from(shared).and_then(|()| onto(shared));
        self.expect_output("copy-attribute", size + to.len() * rows.len())?;
        self.edit("copy-attribute", allow, size, |call| call.copy_attribute(at, &key, &to, &rows))
    }

    fn hash_attribute(&mut self, at: wit::Level, key: String, secret: String) -> Result<()> {
        let bytes = self.piece_bytes as u64;
        let at = level(at);
        let hash = self.hash_key(&secret);
        let need = writes(Need::Key(at, &key));
        self.edit_with("hash-attribute", need, key.len(), |call, meter| {
            let hash = hash?;
            meter.charge(bytes)?;
            call.hash_attribute(at, &key, &mut |text| hash.of(text.as_bytes()));
            Ok(())
        })
    }

    fn remove_attribute(&mut self, at: wit::Level, key: String) -> Result<()> {
        let at = level(at);
        let need = writes(Need::Key(at, &key));
        self.edit("remove-attribute", need, key.len(), |call| call.remove_attribute(at, &key))
    }

    fn remove_attribute_from(&mut self, at: wit::Level, key: String, rows: Vec<u32>) -> Result<()> {
        let at = level(at);
        let size = size_of(&rows) + key.len();
        let need = writes(Need::Key(at, &key));
        self.edit("remove-attribute-from", need, size, |call| call.remove_attribute_from(at, &key, &rows))
    }

    fn drop(&mut self, items: Vec<u32>) -> Result<()> {
        let size = size_of(&items);
        self.edit("drop", writes(Need::Name("drop")), size, |call| call.drop(&items))
    }

    fn route(&mut self, name: String, items: Vec<u32>) -> Result<()> {
        let size = size_of(&items) + name.len();
        self.edit("route", writes(Need::Name("route")), size, |call| call.route(&name, &items))
    }

    fn raw(&mut self) -> Result<Vec<u8>> {
        self.read(
            "raw",
            reads(Need::Name("raw")),
            |call, _| Ok(call.raw()?.to_vec()),
            |values| size_of(values),
        )
    }

    fn splice(&mut self, offsets: Vec<u32>, lengths: Vec<u32>, by: Vec<Vec<u8>>) -> Result<()> {
        let size =
            size_of(&offsets) * 2 + by.iter().map(|piece| piece.len() + TEXT_COST as usize).sum::<usize>();
        self.edit("splice", writes(Need::Name("raw")), size, |call| call.splice(&offsets, &lengths, &by))
    }
}
