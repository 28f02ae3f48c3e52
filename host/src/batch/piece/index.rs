//! Finds what a call asks for, when it asks: one pass over the rows of a level, with only the parts that are wanted.

use super::super::Signal;
use super::super::wire::{Field, Fields, LENGTH, fields};
use super::heads::{Head, Role, count_unless_said, roles_of, status_code};
use super::space::{Space, Span};
use super::table::{Attribute, CHANGED, NOWHERE, Owner, REMOVED, STAMPED, Slot, Table};
use super::view::Shown;
use super::{Inner, Level, Places, Row};

/// Parts that a pass over the items can find.
pub(super) const HEADS: u16 = 1;
pub(super) const ATTRIBUTES: u16 = 2;
pub(super) const BODIES: u16 = 4;
pub(super) const NAMES: u16 = 8;
pub(super) const DESCRIPTIONS: u16 = 16;
pub(super) const EVENTS: u16 = 32;
pub(super) const ITEM_PARTS: u16 = HEADS | ATTRIBUTES | BODIES | NAMES | DESCRIPTIONS | EVENTS;
/// Parts of the other levels.
const EVENT_PARTS: u16 = 64;
const RESOURCES: u16 = 128;
const SCOPES: u16 = 256;
const METRICS: u16 = 512;

/// Numbers of the tables, as the bits of [`Places`].
pub(super) const BODY: usize = 0;
pub(super) const NAME: usize = 1;
pub(super) const EVENT_NAME: usize = 2;
pub(super) const DESCRIPTION: usize = 3;
pub(super) const ITEM: usize = 4;
pub(super) const EVENT: usize = 5;
pub(super) const METRIC: usize = 6;
pub(super) const SCOPE: usize = 7;
pub(super) const RESOURCE: usize = 8;
pub(super) const TABLES: usize = 9;

/// The table with the attributes of a level.
pub(super) fn attributes_of(at: Level) -> usize {
    match at {
        Level::Resource => RESOURCE,
        Level::Scope => SCOPE,
        Level::Metric => METRIC,
        Level::Item => ITEM,
        Level::Event => EVENT,
    }
}

/// The level whose rows a table has.
pub(super) fn level_of(table: usize, signal: Signal) -> Level {
    match table {
        EVENT_NAME | EVENT => Level::Event,
        METRIC => Level::Metric,
        SCOPE => Level::Scope,
        RESOURCE => Level::Resource,
        NAME | DESCRIPTION if signal == Signal::Metrics => Level::Metric,
        _ => Level::Item,
    }
}

/// The numbers of the tables of these places.
pub(super) fn tables_of(of: Places) -> impl Iterator<Item = usize> {
    (0..TABLES).filter(move |table| of.0 & 1 << table != 0)
}

/// A span's event or link, or an exemplar.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) item: u32,
    pub(super) content: Span,
    pub(super) kind: EventKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventKind {
    Event,
    Link,
    Exemplar,
}

impl EventKind {
    fn attributes(self) -> u32 {
        match self {
            EventKind::Event => 3,
            EventKind::Link => 4,
            EventKind::Exemplar => 7,
        }
    }
}

pub(super) fn content(row: &Row) -> Span {
    Span { start: row.content.0, end: row.content.1 }
}

fn fields_of(bytes: &[u8], span: Span) -> Fields<'_> {
    fields(bytes, span.start as usize, span.end as usize)
}

fn present(span: Span) -> Owner {
    Owner { content: span, is_absent: false }
}

impl Inner {
    /// The kind of metric that an item stands in; 0 for logs and spans.
    pub(super) fn metric_kind(&self, item: &Row) -> u8 {
        self.rows.metrics.get(item.parent as usize).map_or(0, |metric| metric.kind)
    }

    /// The field number of the attributes of a row.
    pub(super) fn attribute_number(&self, table: usize, row: u32) -> u32 {
        match table {
            RESOURCE => 1,
            SCOPE => 3,
            METRIC => 12,
            EVENT => self.events.get(row as usize).map_or(3, |event| event.kind.attributes()),
            _ => {
                let kind = self.rows.items.get(row as usize).map_or(0, |item| self.metric_kind(item));
                let roles = roles_of(self.signal, kind);
                roles.iter().position(|role| *role == Role::Attribute).unwrap_or(0) as u32
            }
        }
    }

    /// Finds what stands in these places, where it was not yet found.
    pub(super) fn index_places(&mut self, of: Places) {
        let is_metrics = self.signal == Signal::Metrics;
        let mut items = 0;
        for table in tables_of(of) {
            match table {
                BODY => items |= BODIES,
                NAME if !is_metrics => items |= NAMES,
                DESCRIPTION if !is_metrics => items |= DESCRIPTIONS,
                ITEM => items |= ATTRIBUTES,
                EVENT | EVENT_NAME => self.index_events(),
                SCOPE => self.index_scopes(),
                RESOURCE => self.index_resources(),
                _ => self.index_metrics(),
            }
        }
        self.index_items(items);
    }

    fn is_new(&mut self, part: u16) -> bool {
        let is_new = self.indexed & part == 0;
        self.indexed |= part;
        is_new
    }

    /// One pass over the items for all parts in `want` that were not yet found, and those that are expected to be wanted.
    pub(super) fn index_items(&mut self, want: u16) {
        self.wanted |= want;
        if want & !self.indexed == 0 {
            return;
        }
        let want = (want | self.expected) & !self.indexed;
        self.indexed |= want;
        let bytes = self.space.bytes().clone();
        let is = |part: u16| want & part != 0;
        let mut links = Vec::new();
        let rows = self.rows.items.len();
        if is(HEADS) {
            self.heads.reserve_exact(rows);
        }
        for row in 0..rows as u32 {
            let item = self.rows.items[row as usize];
            let roles = roles_of(self.signal, self.metric_kind(&item));
            let mut head = Head { count: count_unless_said(roles), ..Head::default() };
            if is(ATTRIBUTES) {
                self.tables[ITEM].begin_row(present(content(&item)), rows);
            }
            for field in fields_of(&bytes, content(&item)) {
                let role = roles.get(field.number as usize).copied().unwrap_or(Role::Other);
                match role {
                    Role::Other => {}
                    Role::Attribute if is(ATTRIBUTES) && field.wire == LENGTH => {
                        let at = field.start as u32;
                        let attribute = Attribute { region: &bytes, add: 0, field, at };
                        self.tables[ITEM].push_attribute(&mut self.space, attribute, row, 0);
                    }
                    Role::Body if is(BODIES) => self.tables[BODY].push_value(&bytes, row, &field),
                    Role::Name if is(NAMES) => self.tables[NAME].push_text(row, &field),
                    Role::SeverityText if is(DESCRIPTIONS) => self.tables[DESCRIPTION].push_text(row, &field),
                    Role::Event if is(EVENTS) => self.push_event(row, &field, EventKind::Event),
                    Role::Exemplar if is(EVENTS) => self.push_event(row, &field, EventKind::Exemplar),
                    Role::Link if is(EVENTS) => links.push(field),
                    Role::Status if field.wire == LENGTH => {
                        if is(HEADS) {
                            status_code(&bytes, &field, &mut head);
                        }
                        if is(DESCRIPTIONS) {
                            for message in
                                fields(&bytes, field.content, field.end).filter(|inner| inner.is_message(2))
                            {
                                self.tables[DESCRIPTION].push_text(row, &message);
                            }
                        }
                    }
                    _ if is(HEADS) => head.read(role, &bytes, &field),
                    _ => {}
                }
            }
            for link in links.drain(..) {
                self.push_event(row, &link, EventKind::Link);
            }
            if is(HEADS) {
                self.heads.push(head);
            }
        }
        if is(ATTRIBUTES) {
            self.tables[ITEM].end_rows();
        }
    }

    fn push_event(&mut self, item: u32, field: &Field, kind: EventKind) {
        if field.wire == LENGTH {
            self.events.push(Event { item, content: Span::new(field.content, field.end), kind });
        }
    }

    /// The rows of level `event`, and which of them are seen.
    pub(super) fn events_shown(&mut self) -> &Shown {
        self.index_items(EVENTS);
        let items = &self.view.items;
        let events = &self.events;
        self.view
            .events
            .get_or_insert_with(|| Shown::of(events.len(), |event| items.shows(events[event as usize].item)))
    }

    fn index_events(&mut self) {
        self.index_items(EVENTS);
        if !self.is_new(EVENT_PARTS) {
            return;
        }
        let bytes = self.space.bytes().clone();
        for (row, event) in self.events.iter().enumerate() {
            let row = row as u32;
            self.tables[EVENT].begin_row(present(event.content), self.events.len());
            for field in fields_of(&bytes, event.content) {
                if field.is_message(event.kind.attributes()) {
                    let attribute = Attribute { region: &bytes, add: 0, field, at: field.start as u32 };
                    self.tables[EVENT].push_attribute(&mut self.space, attribute, row, 0);
                } else if field.number == 2 && event.kind == EventKind::Event {
                    self.tables[EVENT_NAME].push_text(row, &field);
                }
            }
        }
        self.tables[EVENT].end_rows();
    }

    fn index_metrics(&mut self) {
        if !self.is_new(METRICS) {
            return;
        }
        let bytes = self.space.bytes().clone();
        for (row, metric) in self.rows.metrics.iter().enumerate() {
            let row = row as u32;
            self.tables[METRIC].begin_row(present(content(metric)), self.rows.metrics.len());
            for field in fields_of(&bytes, content(metric)) {
                match field.number {
                    1 => self.tables[NAME].push_text(row, &field),
                    2 => self.tables[DESCRIPTION].push_text(row, &field),
                    12 if field.wire == LENGTH => {
                        let attribute = Attribute { region: &bytes, add: 0, field, at: field.start as u32 };
                        self.tables[METRIC].push_attribute(&mut self.space, attribute, row, 0);
                    }
                    _ => {}
                }
            }
        }
        self.tables[METRIC].end_rows();
    }

    fn index_scopes(&mut self) {
        if self.is_new(SCOPES) {
            index_heads(&mut self.tables[SCOPE], &mut self.space, &self.rows.scopes, 3);
        }
    }

    fn index_resources(&mut self) {
        if !self.is_new(RESOURCES) {
            return;
        }
        let Inner { tables, space, rows, stamps, .. } = self;
        let bytes = space.bytes().clone();
        let table = &mut tables[RESOURCE];
        for (row, envelope) in rows.resources.iter().enumerate() {
            let row = row as u32;
            let owner = head_owner(&bytes, envelope);
            let first = stamps.partition_point(|stamp| stamp.range.start <= envelope.field.0 as usize);
            let end = stamps.partition_point(|stamp| stamp.range.start <= envelope.field.1 as usize);
            let stamps = &stamps[first..end];
            let mut rest = stamps.iter().filter(|stamp| !stamp.range.is_empty()).peekable();
            table.begin_row(owner, rows.resources.len());
            for field in fields_of(&bytes, owner.content).filter(|field| field.is_message(1)) {
                while rest.next_if(|stamp| stamp.range.start < field.start).is_some() {}
                let state = match rest.next_if(|stamp| stamp.range == (field.start..field.end)) {
                    None => 0,
                    Some(stamp) if stamp.with.is_empty() => STAMPED | REMOVED,
                    Some(stamp) => {
                        stamped(table, space, &stamp.with, row, field.start as u32);
                        continue;
                    }
                };
                let attribute = Attribute { region: &bytes, add: 0, field, at: field.start as u32 };
                table.push_attribute(space, attribute, row, state);
            }
            for stamp in stamps.iter().filter(|stamp| stamp.range.is_empty()) {
                if owner.is_absent {
                    for resource in messages_of(&stamp.with) {
                        stamped(
                            table,
                            space,
                            &stamp.with.slice(resource.content..resource.end),
                            row,
                            NOWHERE,
                        );
                    }
                } else {
                    stamped(table, space, &stamp.with, row, NOWHERE);
                }
            }
        }
        table.end_rows();
    }
}

/// The fields 1 of a message.
fn messages_of(bytes: &[u8]) -> impl Iterator<Item = Field> {
    fields(bytes, 0, bytes.len()).filter(|field| field.is_message(1))
}

/// Adds the attributes that a stamp wrote; the first stands at `at`.
fn stamped(table: &mut Table, space: &mut Space, with: &bytes::Bytes, row: u32, at: u32) {
    let add = space.push(with).start;
    for (index, field) in messages_of(with).enumerate() {
        let at = if index == 0 { at } else { NOWHERE };
        table.push_attribute(space, Attribute { region: with, add, field, at }, row, STAMPED);
    }
}

/// Attributes in the message that is field 1 of each envelope.
fn index_heads(table: &mut Table, space: &mut Space, envelopes: &[Row], number: u32) {
    let bytes = space.bytes().clone();
    for (row, envelope) in envelopes.iter().enumerate() {
        let owner = head_owner(&bytes, envelope);
        table.begin_row(owner, envelopes.len());
        for field in fields_of(&bytes, owner.content).filter(|field| field.is_message(number)) {
            let attribute = Attribute { region: &bytes, add: 0, field, at: field.start as u32 };
            table.push_attribute(space, attribute, row as u32, 0);
        }
    }
    table.end_rows();
}

/// The Resource of a Resource*, the scope of a Scope*: there is at most one, the checked walk sees to that.
fn head_owner(bytes: &[u8], envelope: &Row) -> Owner {
    let envelope = content(envelope);
    match fields_of(bytes, envelope).find(|field| field.is_message(1)) {
        Some(head) => present(Span::new(head.content, head.end)),
        None => Owner { content: Span { start: envelope.start, end: envelope.start }, is_absent: true },
    }
}

impl Slot {
    /// Whether the value is there for a plugin to see.
    pub(super) fn is_live(&self) -> bool {
        !self.is(REMOVED)
    }
    pub(super) fn change(&mut self, value: super::value::Value) {
        self.value = value;
        self.state = self.state & !REMOVED | CHANGED;
    }
    pub(super) fn remove(&mut self) {
        self.state |= REMOVED | CHANGED;
    }
}
