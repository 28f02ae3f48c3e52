//! Levels, tables and single texts of a piece: built when they are asked for.
//!
//! Field numbers are those of opentelemetry-proto 1.9, file by file.

use super::super::Signal;
use super::space::Span;
use super::table::{Holder, Slot, Table};
use super::{Level, Piece, Row, Single};

impl Piece {
    pub(super) fn level(&mut self, level: Level) -> &[Row] {
        match level {
            Level::Resource => &self.rows.resources,
            Level::Scope => &self.rows.scopes,
            Level::Metric => &self.rows.metrics,
            Level::Item => &self.rows.items,
            Level::Event => {
                if self.events.is_none() {
                    self.events = Some(self.find_events());
                }
                self.events.as_deref().unwrap_or_default()
            }
        }
    }

    /// A level that was built before.
    pub(super) fn built(&self, level: Level) -> &[Row] {
        match level {
            Level::Resource => &self.rows.resources,
            Level::Scope => &self.rows.scopes,
            Level::Metric => &self.rows.metrics,
            Level::Item => &self.rows.items,
            Level::Event => self.events.as_deref().unwrap_or_default(),
        }
    }

    /// Events, then links, of each span; exemplars of each data point. `kind` is the number of their field.
    fn find_events(&self) -> Vec<Row> {
        let mut found = Vec::new();
        for (item, row) in self.rows.items.iter().enumerate() {
            let numbers: &[u32] = match (self.signal, self.kind_of(item)) {
                (Signal::Traces, _) => &[11, 13],
                (Signal::Metrics, 5 | 7) => &[5],
                (Signal::Metrics, 9) => &[8],
                (Signal::Metrics, 10) => &[11],
                _ => &[],
            };
            for number in numbers {
                let parts = self.space.parts(row.content).filter(|part| part.is_message(*number));
                found.extend(parts.map(|part| Row {
                    field: part.whole,
                    content: part.content,
                    owner: row.content.0,
                    parent: item as u32,
                    kind: *number as u8,
                }));
            }
        }
        found
    }

    /// The kind of a data point's metric, by OTLP's field number; 0 for logs and spans.
    pub(super) fn kind_of(&self, item: usize) -> u8 {
        match self.signal {
            Signal::Metrics => {
                self.rows.items.get(item).and_then(|row| self.rows.metrics.get(row.parent as usize)).map_or(0, |m| m.kind)
            }
            _ => 0,
        }
    }

    pub(super) fn table(&mut self, level: Level) -> &mut Table {
        if self.tables[level as usize].is_none() {
            let holders = self.holders(level);
            let stamps = if level == Level::Resource { std::mem::take(&mut self.stamps) } else { Vec::new() };
            let table = Table::build(&mut self.space, holders, &stamps);
            if level == Level::Resource {
                self.stamps = stamps;
            }
            self.tables[level as usize] = Some(table);
        }
        self.tables[level as usize].as_mut().expect("built above")
    }

    fn holders(&mut self, level: Level) -> Vec<Holder> {
        let rows: Vec<Row> = self.level(level).to_vec();
        let holder = |(number, row): (usize, &Row)| {
            let inner = |number| self.space.last(row.content, number).map(|part| part.content);
            let (content, number) = match level {
                Level::Resource => (inner(1), 1),
                Level::Scope => (inner(1), 3),
                Level::Metric => (Some(row.content), 12),
                Level::Item => (Some(row.content), self.item_attributes(number)),
                Level::Event => (Some(row.content), event_attributes(row.kind)),
            };
            Holder { content, row: row.content, number }
        };
        // A span's links have kind 13, its events 11; exemplars have those of their data points.
        let is_traces = self.signal == Signal::Traces;
        let exemplar = |holder: Holder| if level == Level::Event && !is_traces { Holder { number: 7, ..holder } } else { holder };
        rows.iter().enumerate().map(holder).map(exemplar).collect()
    }

    fn item_attributes(&self, item: usize) -> u32 {
        match (self.signal, self.kind_of(item)) {
            (Signal::Logs, _) => 6,
            (Signal::Traces, _) => 9,
            (Signal::Metrics, 9) => 9,
            (Signal::Metrics, 10) => 1,
            (Signal::Metrics, _) => 7,
        }
    }

    pub(super) fn single_level(&self, number: usize) -> Level {
        match (number, self.signal) {
            (1 | 3, Signal::Metrics) => Level::Metric,
            (2, _) => Level::Event,
            _ => Level::Item,
        }
    }

    pub(super) fn singles(&mut self, which: Single) -> &mut Vec<Slot> {
        let number = which as usize;
        if self.singles[number].is_none() {
            let level = self.single_level(number);
            let rows: Vec<Row> = self.level(level).to_vec();
            let slot = |(row, at): (usize, &Row)| self.find_single(which, at).map(|span| Slot::new(row as u32, span));
            self.singles[number] = Some(rows.iter().enumerate().filter_map(slot).collect());
        }
        self.singles[number].as_mut().expect("built above")
    }

    fn find_single(&self, which: Single, row: &Row) -> Option<Span> {
        let at = |number| self.space.last(row.content, number).map(|part| part.content);
        match (which, self.signal) {
            (Single::Body, Signal::Logs) => at(5),
            (Single::Name, Signal::Logs) => at(12),
            (Single::Name, Signal::Traces) => at(5),
            (Single::Name, Signal::Metrics) => at(1),
            (Single::EventName, Signal::Traces) if row.kind == 11 => at(2),
            (Single::Description, Signal::Traces) => {
                let status = at(15)?;
                self.space.last(status, 2).map(|part| part.content)
            }
            (Single::Description, Signal::Metrics) => at(2),
            _ => None,
        }
    }

    /// The row at a higher level that a row stands in.
    pub(super) fn ancestor(&self, mut level: Level, mut row: u32, parent: Level) -> u32 {
        while level != parent {
            row = self.built(level).get(row as usize).map_or(0, |row| row.parent);
            level = match (level, self.signal) {
                (Level::Event, _) => Level::Item,
                (Level::Item, Signal::Metrics) => Level::Metric,
                (Level::Item, _) | (Level::Metric, _) => Level::Scope,
                (Level::Scope | Level::Resource, _) => Level::Resource,
            };
        }
        row
    }

    /// Whether a row (by number of its level) has a record that is left.
    pub(super) fn is_left(&self, level: usize, row: u32) -> bool {
        match level {
            3 => !self.dropped[row as usize],
            4 => self.built(Level::Event).get(row as usize).is_some_and(|row| !self.dropped[row.parent as usize]),
            // The envelope of a dropped record goes with it; an edit inside is then ignored.
            _ => true,
        }
    }
}

fn event_attributes(kind: u8) -> u32 {
    match kind {
        13 => 4,
        _ => 3,
    }
}
