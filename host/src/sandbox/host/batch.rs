//! Interface `batch`: each function of the WIT on the call at hand, with its right, its cost and its bound.

use super::super::bindings::trommel::plugin::batch::{
    self as wit, BoolColumn, DoubleColumn, Hits, IntColumn, Packed, TextColumn,
};
use super::super::limits::{HIT_COST, TEXT_COST};
use super::super::rights::Need;
use super::{Failure, State, free, reads, reads_places, writes, writes_places};
use crate::batch::{self, Call, Level, Places, Signal};
use wasmtime::Result;

/// Bytes that a list of strings takes on its way to the guest.
fn size_of_texts(texts: &Vec<String>) -> usize {
    texts.iter().map(|text| text.len() + TEXT_COST as usize).sum()
}

fn size_of_strings(texts: &[String]) -> usize {
    texts.iter().map(|text| text.len() + TEXT_COST as usize).sum()
}

fn size_of_hits(hits: &Hits) -> usize {
    hits.texts.len() * HIT_COST as usize
}

fn size_of<T>(values: &Vec<T>) -> usize {
    size_of_val(values.as_slice())
}

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
        self.read("parents", free, |call, _| Ok(call.parents(level(child), level(parent))?), size_of)
    }

    fn severities(&mut self) -> Result<Vec<u8>> {
        self.read("severities", reads(Need::Name("severity")), |call, _| Ok(call.severities()?), size_of)
    }

    fn set_severity(&mut self, items: Vec<u32>, to: u8) -> Result<()> {
        let size = size_of(&items);
        self.edit("set-severity", writes(Need::Name("severity")), size, |call, _| {
            done(call.set_severity(&items, to))
        })
    }

    fn kinds(&mut self) -> Result<Vec<u8>> {
        self.read("kinds", reads(Need::Name("kind")), |call, _| Ok(call.kinds()?), size_of)
    }

    fn statuses(&mut self) -> Result<Vec<u8>> {
        self.read("statuses", reads(Need::Name("status")), |call, _| Ok(call.statuses()?), size_of)
    }

    fn times(&mut self) -> Result<Vec<u64>> {
        self.read("times", reads(Need::Name("time")), |call, _| Ok(call.times()?), size_of)
    }

    fn end_times(&mut self) -> Result<Vec<u64>> {
        self.read("end-times", reads(Need::Name("time")), |call, _| Ok(call.end_times()?), size_of)
    }

    fn numbers(&mut self) -> Result<Vec<f64>> {
        self.read("numbers", reads(Need::Name("number")), |call, _| Ok(call.numbers()?), size_of)
    }

    fn counts(&mut self) -> Result<Vec<f64>> {
        self.read("counts", reads(Need::Name("number")), |call, _| Ok(call.counts()?), size_of)
    }

    fn temporalities(&mut self) -> Result<Vec<u8>> {
        self.read("temporalities", reads(Need::Name("kind")), |call, _| Ok(call.temporalities()?), size_of)
    }

    fn trace_ids(&mut self) -> Result<Vec<u8>> {
        self.read("trace-ids", reads(Need::Name("trace-id")), |call, _| Ok(call.trace_ids()?), size_of)
    }

    fn span_ids(&mut self) -> Result<Vec<u8>> {
        self.read("span-ids", reads(Need::Name("span-id")), |call, _| Ok(call.span_ids()?), size_of)
    }

    fn parent_span_ids(&mut self) -> Result<Vec<u8>> {
        self.read(
            "parent-span-ids",
            reads(Need::Name("span-id")),
            |call, _| Ok(call.parent_span_ids()?),
            size_of,
        )
    }

    fn trace_fractions(&mut self) -> Result<Vec<f64>> {
        self.read(
            "trace-fractions",
            reads(Need::Name("trace-id")),
            |call, _| Ok(call.trace_fractions()?),
            size_of,
        )
    }

    fn randomness(&mut self) -> Result<Vec<u64>> {
        self.read("randomness", reads(Need::Name("trace-id")), |call, _| Ok(call.randomness()?), size_of)
    }

    fn trace_states(&mut self) -> Result<Vec<String>> {
        let need = reads(Need::Name("trace-state"));
        self.read("trace-states", need, |call, _| Ok(call.trace_states()?), size_of_texts)
    }

    fn set_trace_states(&mut self, items: Vec<u32>, to: Vec<String>) -> Result<()> {
        let size = size_of(&items) + size_of_strings(&to);
        let need = writes(Need::Name("trace-state"));
        self.edit("set-trace-states", need, size, |call, _| done(call.set_trace_states(&items, &to)))
    }

    fn texts(&mut self, of: wit::Places) -> Result<Vec<String>> {
        let of = places(of);
        let all = |call: &mut Call, _: &mut _| {
            let texts = call.texts(of)?;
            Ok((0..texts.len()).map(|at| texts.at(at).to_owned()).collect())
        };
        self.read("texts", reads_places(of), all, size_of_texts)
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
        self.read("text-rows", reads_places(of), |call, _| Ok(call.text_rows(of)?), size_of)
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
        let size = size_of_hits(&which) + size_of_strings(&by);
        let which = hits(which);
        self.edit("replace", writes_places(of), size, |call, _| done(call.replace(of, &which, &by)))
    }

    fn search_and_replace(&mut self, patterns: u32, of: wit::Places, by: Vec<String>) -> Result<u32> {
        let of = places(of);
        let set = self.set(patterns);
        let size = size_of_strings(&by);
        let allow =
            move |shared: &super::Shared| reads_places(of)(shared).and_then(|()| writes_places(of)(shared));
        self.edit("search-and-replace", allow, size, |call, meter| {
            let found = {
                let texts = call.texts(of)?;
                set?.search_apart((0..texts.len()).map(|at| texts.bytes(at)), meter)?
            };
            if !found.texts.is_empty() {
                meter.charge(found.texts.len() as u64 * HIT_COST)?;
                call.replace(of, &found, &by);
            }
            Ok(found.texts.len() as u32)
        })
    }

    fn matches(&mut self, of: wit::Places, which: Hits) -> Result<Vec<String>> {
        let of = places(of);
        self.charge(size_of_hits(&which) as u64)?;
        let which = hits(which);
        self.read("matches", reads_places(of), |call, _| Ok(call.matches(of, &which)?), size_of_texts)
    }

    fn replace_each(&mut self, of: wit::Places, which: Hits, by: Vec<String>) -> Result<()> {
        let of = places(of);
        let size = size_of_hits(&which) + size_of_strings(&by);
        let which = hits(which);
        self.edit("replace-each", writes_places(of), size, |call, _| done(call.replace_each(of, &which, &by)))
    }

    fn hash(&mut self, of: wit::Places, which: Hits, secret: String) -> Result<()> {
        let of = places(of);
        let size = size_of_hits(&which) * 8;
        let key = self.hash_key(&secret);
        let which = hits(which);
        self.edit("hash", writes_places(of), size, |call, _| {
            let key = key?;
            done(call.hash(of, &which, &mut |text| key.of(text.as_bytes())))
        })
    }

    fn replace_texts(&mut self, of: wit::Places, which: Vec<u32>, by: Vec<String>) -> Result<()> {
        let of = places(of);
        let size = size_of(&which) + size_of_strings(&by);
        self.edit("replace-texts", writes_places(of), size, |call, _| {
            done(call.replace_texts(of, &which, &by))
        })
    }

    fn remove_keys(&mut self, patterns: u32, of: wit::Places) -> Result<u32> {
        let bytes = self.piece_bytes as u64;
        let of = places(of);
        let set = self.set(patterns);
        self.edit("remove-keys", writes_places(of), 0, |call, meter| {
            meter.charge(bytes)?;
            Ok(set?.with_keys(|matches| call.remove_keys(of, matches)))
        })
    }

    fn mask_keys(&mut self, patterns: u32, of: wit::Places, by: Vec<String>) -> Result<u32> {
        let bytes = self.piece_bytes as u64;
        let of = places(of);
        let set = self.set(patterns);
        let size = size_of_strings(&by);
        self.edit("mask-keys", writes_places(of), size, |call, meter| {
            meter.charge(bytes)?;
            Ok(set?.with_keys(|matches| call.mask_keys(of, matches, &by)))
        })
    }

    fn hash_keys(&mut self, patterns: u32, of: wit::Places, secret: String) -> Result<u32> {
        let bytes = self.piece_bytes as u64;
        let of = places(of);
        let set = self.set(patterns);
        let key = self.hash_key(&secret);
        self.edit("hash-keys", writes_places(of), 0, |call, meter| {
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
            size_of_texts,
        )
    }

    fn attribute_rows(&mut self, at: wit::Level, key: String) -> Result<Vec<u32>> {
        let at = level(at);
        let need = reads(Need::Key(at, &key));
        self.read("attribute-rows", need, |call, _| Ok(call.attribute_rows(at, &key)?), size_of)
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
        let size = size_of(&to.rows) * 2 + size_of_strings(&to.strings) + key.len();
        let to = batch::TextColumn { rows: to.rows, index: to.index, strings: to.strings };
        let need = writes(Need::Key(at, &key));
        self.edit("set-text-attribute", need, size, |call, _| done(call.set_text_attribute(at, &key, &to)))
    }

    fn set_int_attribute(&mut self, at: wit::Level, key: String, to: IntColumn) -> Result<()> {
        let at = level(at);
        let size = size_of(&to.rows) + size_of(&to.values) + key.len();
        let need = writes(Need::Key(at, &key));
        self.edit("set-int-attribute", need, size, |call, _| {
            done(call.set_int_attribute(at, &key, &batch::IntColumn { rows: to.rows, values: to.values }))
        })
    }

    fn set_double_attribute(&mut self, at: wit::Level, key: String, to: DoubleColumn) -> Result<()> {
        let at = level(at);
        let size = size_of(&to.rows) + size_of(&to.values) + key.len();
        let need = writes(Need::Key(at, &key));
        self.edit("set-double-attribute", need, size, |call, _| {
            done(call.set_double_attribute(
                at,
                &key,
                &batch::DoubleColumn { rows: to.rows, values: to.values },
            ))
        })
    }

    fn set_bool_attribute(&mut self, at: wit::Level, key: String, to: BoolColumn) -> Result<()> {
        let at = level(at);
        let size = size_of(&to.rows) + size_of(&to.values) + key.len();
        let need = writes(Need::Key(at, &key));
        self.edit("set-bool-attribute", need, size, |call, _| {
            done(call.set_bool_attribute(at, &key, &batch::BoolColumn { rows: to.rows, values: to.values }))
        })
    }

    fn copy_attribute(&mut self, at: wit::Level, key: String, to: String, rows: Vec<u32>) -> Result<()> {
        let at = level(at);
        let size = size_of(&rows) + key.len() + to.len();
        let (from, onto) = (reads(Need::Key(at, &key)), writes(Need::Key(at, &to)));
        let allow = |shared: &super::Shared| from(shared).and_then(|()| onto(shared));
        self.edit("copy-attribute", allow, size, |call, _| done(call.copy_attribute(at, &key, &to, &rows)))
    }

    fn hash_attribute(&mut self, at: wit::Level, key: String, secret: String) -> Result<()> {
        let bytes = self.piece_bytes as u64;
        let at = level(at);
        let hash = self.hash_key(&secret);
        let need = writes(Need::Key(at, &key));
        self.edit("hash-attribute", need, key.len(), |call, meter| {
            let hash = hash?;
            meter.charge(bytes)?;
            done(call.hash_attribute(at, &key, &mut |text| hash.of(text.as_bytes())))
        })
    }

    fn remove_attribute(&mut self, at: wit::Level, key: String) -> Result<()> {
        let at = level(at);
        let need = writes(Need::Key(at, &key));
        self.edit("remove-attribute", need, key.len(), |call, _| done(call.remove_attribute(at, &key)))
    }

    fn remove_attribute_from(&mut self, at: wit::Level, key: String, rows: Vec<u32>) -> Result<()> {
        let at = level(at);
        let size = size_of(&rows) + key.len();
        let need = writes(Need::Key(at, &key));
        self.edit("remove-attribute-from", need, size, |call, _| {
            done(call.remove_attribute_from(at, &key, &rows))
        })
    }

    fn drop(&mut self, items: Vec<u32>) -> Result<()> {
        let size = size_of(&items);
        self.edit("drop", writes(Need::Name("drop")), size, |call, _| done(call.drop(&items)))
    }

    fn route(&mut self, name: String, items: Vec<u32>) -> Result<()> {
        let size = size_of(&items) + name.len();
        self.edit("route", writes(Need::Name("route")), size, |call, _| done(call.route(&name, &items)))
    }

    fn raw(&mut self) -> Result<Vec<u8>> {
        self.read("raw", reads(Need::Name("raw")), |call, _| Ok(call.raw()?.to_vec()), size_of)
    }

    fn splice(&mut self, offsets: Vec<u32>, lengths: Vec<u32>, by: Vec<Vec<u8>>) -> Result<()> {
        let size =
            size_of(&offsets) * 2 + by.iter().map(|piece| piece.len() + TEXT_COST as usize).sum::<usize>();
        self.edit("splice", writes(Need::Name("raw")), size, |call, _| {
            done(call.splice(&offsets, &lengths, &by))
        })
    }
}

/// Editors note their own faults, for `commit`.
fn done((): ()) -> std::result::Result<(), Failure> {
    Ok(())
}

fn level(at: wit::Level) -> Level {
    match at {
        wit::Level::Resource => Level::Resource,
        wit::Level::Scope => Level::Scope,
        wit::Level::Metric => Level::Metric,
        wit::Level::Item => Level::Item,
        wit::Level::Event => Level::Event,
    }
}

fn places(of: wit::Places) -> Places {
    const BITS: [(wit::Places, Places); 9] = [
        (wit::Places::BODY, Places::BODY),
        (wit::Places::NAME, Places::NAME),
        (wit::Places::EVENT_NAME, Places::EVENT_NAME),
        (wit::Places::DESCRIPTION, Places::DESCRIPTION),
        (wit::Places::ITEM_ATTRIBUTES, Places::ITEM_ATTRIBUTES),
        (wit::Places::EVENT_ATTRIBUTES, Places::EVENT_ATTRIBUTES),
        (wit::Places::METRIC_ATTRIBUTES, Places::METRIC_ATTRIBUTES),
        (wit::Places::SCOPE_ATTRIBUTES, Places::SCOPE_ATTRIBUTES),
        (wit::Places::RESOURCE_ATTRIBUTES, Places::RESOURCE_ATTRIBUTES),
    ];
    let set = BITS.iter().filter(|(bit, _)| of.contains(*bit));
    Places(set.fold(0, |bits, (_, place)| bits | place.0))
}

fn hits(which: Hits) -> batch::Hits {
    batch::Hits { texts: which.texts, patterns: which.patterns, starts: which.starts, ends: which.ends }
}
