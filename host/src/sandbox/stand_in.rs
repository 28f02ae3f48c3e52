//! Stands in for the calls of a piece until they land; goes then.
#![allow(unused_variables, dead_code, clippy::all, reason = "it does nothing")]
use crate::batch::{Fault, Hits, Level, Piece, Places, TextColumn};
#[derive(Debug)]
pub struct Call {
    piece: Piece,
}

impl Call {
    pub fn holds(&self) -> crate::batch::Signal {
        unimplemented!()
    }
    pub fn tenant(&self) -> &str {
        unimplemented!()
    }
    pub fn project(&self) -> &str {
        unimplemented!()
    }
    pub fn bytes(&self) -> usize {
        unimplemented!()
    }
    pub fn edit_bytes(&self) -> usize {
        unimplemented!()
    }
    pub fn rows(&mut self, at: Level) -> Result<u32, Fault> {
        unimplemented!()
    }
    pub fn parents(&mut self, c: Level, p: Level) -> Result<Vec<u32>, Fault> {
        unimplemented!()
    }
    pub fn severities(&mut self) -> Result<Vec<u8>, Fault> {
        unimplemented!()
    }
    pub fn set_severity(&mut self, items: &[u32], to: u8) {
        unimplemented!()
    }
    pub fn kinds(&mut self) -> Result<Vec<u8>, Fault> {
        unimplemented!()
    }
    pub fn statuses(&mut self) -> Result<Vec<u8>, Fault> {
        unimplemented!()
    }
    pub fn times(&mut self) -> Result<Vec<u64>, Fault> {
        unimplemented!()
    }
    pub fn end_times(&mut self) -> Result<Vec<u64>, Fault> {
        unimplemented!()
    }
    pub fn numbers(&mut self) -> Result<Vec<f64>, Fault> {
        unimplemented!()
    }
    pub fn counts(&mut self) -> Result<Vec<f64>, Fault> {
        unimplemented!()
    }
    pub fn temporalities(&mut self) -> Result<Vec<u8>, Fault> {
        unimplemented!()
    }
    pub fn trace_ids(&mut self) -> Result<Vec<u8>, Fault> {
        unimplemented!()
    }
    pub fn span_ids(&mut self) -> Result<Vec<u8>, Fault> {
        unimplemented!()
    }
    pub fn parent_span_ids(&mut self) -> Result<Vec<u8>, Fault> {
        unimplemented!()
    }
    pub fn trace_fractions(&mut self) -> Result<Vec<f64>, Fault> {
        unimplemented!()
    }
    pub fn randomness(&mut self) -> Result<Vec<u64>, Fault> {
        unimplemented!()
    }
    pub fn trace_states(&mut self) -> Result<Vec<String>, Fault> {
        unimplemented!()
    }
    pub fn set_trace_states(&mut self, items: &[u32], to: &[String]) {
        unimplemented!()
    }
    pub fn texts(&mut self, of: Places) -> Result<Texts<'_>, Fault> {
        unimplemented!()
    }
    pub fn text_rows(&mut self, of: Places) -> Result<Vec<u32>, Fault> {
        unimplemented!()
    }
    pub fn replace(&mut self, of: Places, which: &Hits, by: &[String]) {
        unimplemented!()
    }
    pub fn matches(&mut self, of: Places, which: &Hits) -> Result<Vec<String>, Fault> {
        unimplemented!()
    }
    pub fn replace_each(&mut self, of: Places, which: &Hits, by: &[String]) {
        unimplemented!()
    }
    pub fn hash(&mut self, of: Places, which: &Hits, hash: &mut dyn FnMut(&str) -> String) {
        unimplemented!()
    }
    pub fn replace_texts(&mut self, of: Places, which: &[u32], by: &[String]) {
        unimplemented!()
    }
    pub fn remove_keys(&mut self, of: Places, m: &mut dyn FnMut(&str) -> Option<u32>) -> Result<u32, Fault> {
        unimplemented!()
    }
    pub fn mask_keys(
        &mut self,
        of: Places,
        m: &mut dyn FnMut(&str) -> Option<u32>,
        by: &[String],
    ) -> Result<u32, Fault> {
        unimplemented!()
    }
    pub fn hash_keys(
        &mut self,
        of: Places,
        m: &mut dyn FnMut(&str) -> Option<u32>,
        hash: &mut dyn FnMut(&str) -> String,
    ) -> Result<u32, Fault> {
        unimplemented!()
    }
    pub fn attribute_keys(&mut self, at: Level) -> Result<Vec<String>, Fault> {
        unimplemented!()
    }
    pub fn attribute_rows(&mut self, at: Level, key: &str) -> Result<Vec<u32>, Fault> {
        unimplemented!()
    }
    pub fn text_attribute(&mut self, at: Level, key: &str) -> Result<TextColumn, Fault> {
        unimplemented!()
    }
    pub fn int_attribute(&mut self, at: Level, key: &str) -> Result<(Vec<u32>, Vec<i64>), Fault> {
        unimplemented!()
    }
    pub fn double_attribute(&mut self, at: Level, key: &str) -> Result<(Vec<u32>, Vec<f64>), Fault> {
        unimplemented!()
    }
    pub fn bool_attribute(&mut self, at: Level, key: &str) -> Result<(Vec<u32>, Vec<bool>), Fault> {
        unimplemented!()
    }
    pub fn set_text_attribute(&mut self, at: Level, key: &str, to: &TextColumn) {
        unimplemented!()
    }
    pub fn set_int_attribute(&mut self, at: Level, key: &str, rows: &[u32], values: &[i64]) {
        unimplemented!()
    }
    pub fn set_double_attribute(&mut self, at: Level, key: &str, rows: &[u32], values: &[f64]) {
        unimplemented!()
    }
    pub fn set_bool_attribute(&mut self, at: Level, key: &str, rows: &[u32], values: &[bool]) {
        unimplemented!()
    }
    pub fn copy_attribute(&mut self, at: Level, key: &str, to: &str, rows: &[u32]) {
        unimplemented!()
    }
    pub fn hash_attribute(&mut self, at: Level, key: &str, hash: &mut dyn FnMut(&str) -> String) {
        unimplemented!()
    }
    pub fn remove_attribute(&mut self, at: Level, key: &str) {
        unimplemented!()
    }
    pub fn remove_attribute_from(&mut self, at: Level, key: &str, rows: &[u32]) {
        unimplemented!()
    }
    pub fn drop(&mut self, items: &[u32]) {
        unimplemented!()
    }
    pub fn route(&mut self, name: &str, items: &[u32]) {
        unimplemented!()
    }
    pub fn raw(&mut self) -> Result<Vec<u8>, Fault> {
        unimplemented!()
    }
    pub fn splice(&mut self, o: &[u32], l: &[u32], by: &[Vec<u8>]) {
        unimplemented!()
    }
    pub fn commit(self) -> Result<Committed, (Piece, Fault)> {
        unimplemented!()
    }
    pub fn abort(self) -> Piece {
        unimplemented!()
    }
}

pub struct Committed {
    pub piece: Piece,
    pub dropped: u32,
}
pub struct Texts<'a> {
    all: &'a [Vec<u8>],
}
impl Texts<'_> {
    pub fn len(&self) -> usize {
        self.all.len()
    }
    pub fn at(&self, i: usize) -> &[u8] {
        &self.all[i]
    }
}

pub(super) trait Stand {
    fn call(self, subset: Option<std::ops::Range<u32>>) -> Call;
    fn signal(&self) -> crate::batch::Signal;
    fn left(&self) -> u32;
}
impl Stand for Piece {
    fn call(self, _: Option<std::ops::Range<u32>>) -> Call {
        Call { piece: self }
    }
    fn signal(&self) -> crate::batch::Signal {
        unimplemented!()
    }
    fn left(&self) -> u32 {
        0
    }
}
