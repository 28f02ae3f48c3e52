//! Reads a batch record by record, without a copy: for stores and for whoever shows records.

use super::Signal;
use super::tree::{Standing, Tree};
use super::wire::{Field, fields};

/// One record (log record, span or data point) and what it stands in; all are contents, without tag and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemParts<'b> {
    pub resource: &'b [u8],
    pub resource_schema_url: &'b str,
    pub scope: &'b [u8],
    pub scope_schema_url: &'b str,
    /// For a data point, the whole Metric message, all its points included; else empty. Step over its data.
    pub metric: &'b [u8],
    /// For a data point, the Gauge, Sum, Histogram, … it stands in, all points included; else empty.
    pub data: &'b [u8],
    /// For a data point, the field of the metric that `data` is: 5 gauge, 7 sum, 9 histogram, 10 exponential
    /// histogram, 11 summary; else 0.
    pub kind: u8,
    pub item: &'b [u8],
    /// Numbers of its resource, scope and metric in the batch: equal for neighbours that share them, so that a
    /// reader may keep what it made of them.
    pub resource_number: u32,
    pub scope_number: u32,
    pub metric_number: u32,
}

/// Iterates the records of a batch.
#[derive(Clone, Debug)]
pub struct Items<'b> {
    bytes: &'b [u8],
    tree: Tree<'b>,
    resource: Head<'b>,
    scope: Head<'b>,
}

/// What the envelopes around the record say.
#[derive(Clone, Copy, Debug, Default)]
struct Head<'b> {
    number: Option<u32>,
    content: &'b [u8],
    schema_url: &'b str,
}

impl<'b> Items<'b> {
    /// The records of bytes that were checked before, such as those of an entry.
    pub fn over(signal: Signal, bytes: &'b [u8]) -> Items<'b> {
        Items { bytes, tree: Tree::over(signal, bytes), resource: Head::default(), scope: Head::default() }
    }

    fn parts(&self, standing: &Standing) -> ItemParts<'b> {
        let metric = standing.metric;
        ItemParts {
            resource: self.resource.content,
            resource_schema_url: self.resource.schema_url,
            scope: self.scope.content,
            scope_schema_url: self.scope.schema_url,
            metric: metric.map_or(&[], |metric| content(self.bytes, &metric.field)),
            data: standing.data.map_or(&[], |data| content(self.bytes, &data)),
            kind: standing.kind,
            item: content(self.bytes, &standing.item.field),
            resource_number: standing.resource.number,
            scope_number: standing.scope.number,
            metric_number: metric.map_or(0, |metric| metric.number),
        }
    }
}

impl<'b> Iterator for Items<'b> {
    type Item = ItemParts<'b>;

    fn next(&mut self) -> Option<ItemParts<'b>> {
        let standing = self.tree.next()?;
        if self.resource.number != Some(standing.resource.number) {
            self.resource = head(self.bytes, &standing.resource.field, standing.resource.number);
        }
        if self.scope.number != Some(standing.scope.number) {
            self.scope = head(self.bytes, &standing.scope.field, standing.scope.number);
        }
        Some(self.parts(&standing))
    }
}

fn content<'b>(bytes: &'b [u8], field: &Field) -> &'b [u8] {
    &bytes[field.content..field.end]
}

/// Field 1 (Resource or scope) and field 3 (schema URL) of an envelope.
fn head<'b>(bytes: &'b [u8], envelope: &Field, number: u32) -> Head<'b> {
    let mut head = Head { number: Some(number), ..Head::default() };
    for field in fields(bytes, envelope.content, envelope.end) {
        if field.is_message(1) {
            head.content = content(bytes, &field);
        } else if field.is_message(3) {
            head.schema_url = std::str::from_utf8(content(bytes, &field)).unwrap_or("");
        }
    }
    head
}
