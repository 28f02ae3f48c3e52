//! The fixed fields of an item, and which field of which record is what to us.
//!
//! Field numbers are those of opentelemetry-proto 1.10 (`logs`, `trace`, `metrics`).

use super::super::Signal;
use super::super::wire::{Field, LENGTH, VARINT, fields, fixed64, varint};
use super::space::Span;

/// The fixed fields of an item. Zeros stand for what is absent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head {
    pub(super) time: u64,
    pub(super) end_time: u64,
    pub(super) number: f64,
    pub(super) count: f64,
    pub(super) trace_id: Span,
    pub(super) span_id: Span,
    pub(super) parent_id: Span,
    pub(super) trace_state: Span,
    pub(super) severity: u8,
    pub(super) kind: u8,
    pub(super) status: u8,
    /// Which of the two that can be set were set.
    pub(super) is_severity_changed: bool,
    pub(super) is_trace_state_changed: bool,
}

/// What a field of an item is to us.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Other,
    Attribute,
    Body,
    Name,
    Status,
    Severity,
    SeverityText,
    Time,
    EndTime,
    TraceId,
    SpanId,
    ParentId,
    TraceState,
    Kind,
    Event,
    Link,
    Exemplar,
    Int,
    Double,
    Count,
}

/// By field number.
pub(super) type Roles = [Role; 17];

const fn roles(known: &[(usize, Role)]) -> Roles {
    let mut roles = [Role::Other; 17];
    let mut index = 0;
    while index < known.len() {
        roles[known[index].0] = known[index].1;
        index += 1;
    }
    roles
}

static LOG: Roles = roles(&[
    (1, Role::Time),
    (2, Role::Severity),
    (3, Role::SeverityText),
    (5, Role::Body),
    (6, Role::Attribute),
    (9, Role::TraceId),
    (10, Role::SpanId),
    (11, Role::EndTime),
    (12, Role::Name),
]);
static SPAN: Roles = roles(&[
    (1, Role::TraceId),
    (2, Role::SpanId),
    (3, Role::TraceState),
    (4, Role::ParentId),
    (5, Role::Name),
    (6, Role::Kind),
    (7, Role::Time),
    (8, Role::EndTime),
    (9, Role::Attribute),
    (11, Role::Event),
    (13, Role::Link),
    (15, Role::Status),
]);
static NUMBER_POINT: Roles = roles(&[
    (2, Role::EndTime),
    (3, Role::Time),
    (4, Role::Double),
    (5, Role::Exemplar),
    (6, Role::Int),
    (7, Role::Attribute),
]);
static HISTOGRAM_POINT: Roles = roles(&[
    (2, Role::EndTime),
    (3, Role::Time),
    (4, Role::Count),
    (5, Role::Double),
    (8, Role::Exemplar),
    (9, Role::Attribute),
]);
static EXPONENTIAL_POINT: Roles = roles(&[
    (1, Role::Attribute),
    (2, Role::EndTime),
    (3, Role::Time),
    (4, Role::Count),
    (5, Role::Double),
    (11, Role::Exemplar),
]);
static SUMMARY_POINT: Roles =
    roles(&[(2, Role::EndTime), (3, Role::Time), (4, Role::Count), (5, Role::Double), (7, Role::Attribute)]);

pub(super) fn roles_of(signal: Signal, kind: u8) -> &'static Roles {
    match (signal, kind) {
        (Signal::Logs, _) => &LOG,
        (Signal::Traces, _) => &SPAN,
        (Signal::Metrics, 9) => &HISTOGRAM_POINT,
        (Signal::Metrics, 10) => &EXPONENTIAL_POINT,
        (Signal::Metrics, 11) => &SUMMARY_POINT,
        (Signal::Metrics, _) => &NUMBER_POINT,
    }
}

/// A number counts as one; a histogram that says nothing has counted nothing.
pub(super) fn count_unless_said(roles: &Roles) -> f64 {
    if roles.contains(&Role::Count) { 0.0 } else { 1.0 }
}

/// The code of the Status in `field`.
pub(super) fn status_code(bytes: &[u8], field: &Field, head: &mut Head) {
    for code in fields(bytes, field.content, field.end) {
        if (code.number, code.wire) == (3, VARINT) {
            head.status = small(bytes, &code, 2);
        }
    }
}

/// An enum's value; what OTLP does not know counts as none.
fn small(bytes: &[u8], field: &Field, most: u8) -> u8 {
    let value = varint(bytes, field.content).map_or(0, |(value, _)| value);
    u8::try_from(value).ok().filter(|value| *value <= most).unwrap_or(0)
}

impl Head {
    /// Of a field that comes twice the last counts.
    pub(super) fn read(&mut self, role: Role, bytes: &[u8], field: &Field) {
        let content = Span::new(field.content, field.end);
        match (role, field.wire) {
            (Role::Time, 1) => self.time = fixed64(bytes, field),
            (Role::EndTime, 1) => self.end_time = fixed64(bytes, field),
            (Role::Double, 1) => self.number = f64::from_bits(fixed64(bytes, field)),
            (Role::Int, 1) => self.number = fixed64(bytes, field).cast_signed() as f64,
            (Role::Count, 1) => self.count = fixed64(bytes, field) as f64,
            (Role::Severity, VARINT) => self.severity = small(bytes, field, 24),
            (Role::Kind, VARINT) => self.kind = small(bytes, field, 5),
            (Role::TraceId, LENGTH) => self.trace_id = content,
            (Role::SpanId, LENGTH) => self.span_id = content,
            (Role::ParentId, LENGTH) => self.parent_id = content,
            (Role::TraceState, LENGTH) => self.trace_state = content,
            _ => {}
        }
    }
}
