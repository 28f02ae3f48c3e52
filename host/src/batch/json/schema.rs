//! The messages of OTLP as JSON names them: what the reader looks fields up in.
//!
//! Source: opentelemetry-proto 1.11, the `.proto` files of common, resource, logs, trace and metrics.

/// A message: its fields, by the names of JSON.
#[derive(Debug)]
pub(crate) struct Message {
    pub(super) fields: &'static [Field],
}

#[derive(Debug)]
pub(super) struct Field {
    /// lowerCamelCase: OTLP/JSON knows no other.
    pub(super) name: &'static str,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) is_list: bool,
    /// Member of the message's `oneof`; each message here has at most one.
    pub(super) is_choice: bool,
}

/// What stands in a field, in JSON and in protobuf.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    /// Bytes in hexadecimal digits: trace and span ids.
    Hex,
    Base64,
    Bool,
    Int64,
    Uint64,
    Uint32,
    /// A number, never a name.
    Enum,
    Int32,
    Sint32,
    Fixed32,
    Fixed64,
    Sfixed64,
    Double,
    Message(&'static Message),
}

const fn one(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind, is_list: false, is_choice: false }
}

const fn list(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind, is_list: true, is_choice: false }
}

const fn choice(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind, is_list: false, is_choice: true }
}

use Kind::{
    Base64, Bool, Double, Enum, Fixed32, Fixed64, Hex, Int32, Int64, Sfixed64, Sint32, Text, Uint32, Uint64,
};

/// ExportLogsServiceRequest
pub(crate) static LOGS: Message =
    Message { fields: &[list("resourceLogs", 1, Kind::Message(&RESOURCE_LOGS))] };
/// ExportTraceServiceRequest
pub(crate) static TRACES: Message =
    Message { fields: &[list("resourceSpans", 1, Kind::Message(&RESOURCE_SPANS))] };
/// ExportMetricsServiceRequest
pub(crate) static METRICS: Message =
    Message { fields: &[list("resourceMetrics", 1, Kind::Message(&RESOURCE_METRICS))] };

static RESOURCE_LOGS: Message = Message {
    fields: &[
        one("resource", 1, Kind::Message(&RESOURCE)),
        list("scopeLogs", 2, Kind::Message(&SCOPE_LOGS)),
        one("schemaUrl", 3, Text),
    ],
};
static SCOPE_LOGS: Message = Message {
    fields: &[
        one("scope", 1, Kind::Message(&SCOPE)),
        list("logRecords", 2, Kind::Message(&LOG_RECORD)),
        one("schemaUrl", 3, Text),
    ],
};
static LOG_RECORD: Message = Message {
    fields: &[
        one("timeUnixNano", 1, Fixed64),
        one("observedTimeUnixNano", 11, Fixed64),
        one("severityNumber", 2, Enum),
        one("severityText", 3, Text),
        one("body", 5, Kind::Message(&ANY_VALUE)),
        list("attributes", 6, Kind::Message(&KEY_VALUE)),
        one("droppedAttributesCount", 7, Uint32),
        one("flags", 8, Fixed32),
        one("traceId", 9, Hex),
        one("spanId", 10, Hex),
        one("eventName", 12, Text),
    ],
};

static RESOURCE_SPANS: Message = Message {
    fields: &[
        one("resource", 1, Kind::Message(&RESOURCE)),
        list("scopeSpans", 2, Kind::Message(&SCOPE_SPANS)),
        one("schemaUrl", 3, Text),
    ],
};
static SCOPE_SPANS: Message = Message {
    fields: &[
        one("scope", 1, Kind::Message(&SCOPE)),
        list("spans", 2, Kind::Message(&SPAN)),
        one("schemaUrl", 3, Text),
    ],
};
static SPAN: Message = Message {
    fields: &[
        one("traceId", 1, Hex),
        one("spanId", 2, Hex),
        one("traceState", 3, Text),
        one("parentSpanId", 4, Hex),
        one("flags", 16, Fixed32),
        one("name", 5, Text),
        one("kind", 6, Enum),
        one("startTimeUnixNano", 7, Fixed64),
        one("endTimeUnixNano", 8, Fixed64),
        list("attributes", 9, Kind::Message(&KEY_VALUE)),
        one("droppedAttributesCount", 10, Uint32),
        list("events", 11, Kind::Message(&EVENT)),
        one("droppedEventsCount", 12, Uint32),
        list("links", 13, Kind::Message(&LINK)),
        one("droppedLinksCount", 14, Uint32),
        one("status", 15, Kind::Message(&STATUS)),
    ],
};
static EVENT: Message = Message {
    fields: &[
        one("timeUnixNano", 1, Fixed64),
        one("name", 2, Text),
        list("attributes", 3, Kind::Message(&KEY_VALUE)),
        one("droppedAttributesCount", 4, Uint32),
    ],
};
static LINK: Message = Message {
    fields: &[
        one("traceId", 1, Hex),
        one("spanId", 2, Hex),
        one("traceState", 3, Text),
        list("attributes", 4, Kind::Message(&KEY_VALUE)),
        one("droppedAttributesCount", 5, Uint32),
        one("flags", 6, Fixed32),
    ],
};
static STATUS: Message = Message { fields: &[one("message", 2, Text), one("code", 3, Enum)] };

static RESOURCE_METRICS: Message = Message {
    fields: &[
        one("resource", 1, Kind::Message(&RESOURCE)),
        list("scopeMetrics", 2, Kind::Message(&SCOPE_METRICS)),
        one("schemaUrl", 3, Text),
    ],
};
static SCOPE_METRICS: Message = Message {
    fields: &[
        one("scope", 1, Kind::Message(&SCOPE)),
        list("metrics", 2, Kind::Message(&METRIC)),
        one("schemaUrl", 3, Text),
    ],
};
static METRIC: Message = Message {
    fields: &[
        one("name", 1, Text),
        one("description", 2, Text),
        one("unit", 3, Text),
        list("metadata", 12, Kind::Message(&KEY_VALUE)),
        choice("gauge", 5, Kind::Message(&GAUGE)),
        choice("sum", 7, Kind::Message(&SUM)),
        choice("histogram", 9, Kind::Message(&HISTOGRAM)),
        choice("exponentialHistogram", 10, Kind::Message(&EXPONENTIAL_HISTOGRAM)),
        choice("summary", 11, Kind::Message(&SUMMARY)),
    ],
};
static GAUGE: Message = Message { fields: &[list("dataPoints", 1, Kind::Message(&NUMBER_POINT))] };
static SUM: Message = Message {
    fields: &[
        list("dataPoints", 1, Kind::Message(&NUMBER_POINT)),
        one("aggregationTemporality", 2, Enum),
        one("isMonotonic", 3, Bool),
    ],
};
static HISTOGRAM: Message = Message {
    fields: &[list("dataPoints", 1, Kind::Message(&HISTOGRAM_POINT)), one("aggregationTemporality", 2, Enum)],
};
static EXPONENTIAL_HISTOGRAM: Message = Message {
    fields: &[
        list("dataPoints", 1, Kind::Message(&EXPONENTIAL_HISTOGRAM_POINT)),
        one("aggregationTemporality", 2, Enum),
    ],
};
static SUMMARY: Message = Message { fields: &[list("dataPoints", 1, Kind::Message(&SUMMARY_POINT))] };
static NUMBER_POINT: Message = Message {
    fields: &[
        list("attributes", 7, Kind::Message(&KEY_VALUE)),
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        choice("asDouble", 4, Double),
        choice("asInt", 6, Sfixed64),
        list("exemplars", 5, Kind::Message(&EXEMPLAR)),
        one("flags", 8, Uint32),
    ],
};
static HISTOGRAM_POINT: Message = Message {
    fields: &[
        list("attributes", 9, Kind::Message(&KEY_VALUE)),
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        one("sum", 5, Double),
        list("bucketCounts", 6, Fixed64),
        list("explicitBounds", 7, Double),
        list("exemplars", 8, Kind::Message(&EXEMPLAR)),
        one("flags", 10, Uint32),
        one("min", 11, Double),
        one("max", 12, Double),
    ],
};
static EXPONENTIAL_HISTOGRAM_POINT: Message = Message {
    fields: &[
        list("attributes", 1, Kind::Message(&KEY_VALUE)),
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        one("sum", 5, Double),
        one("scale", 6, Sint32),
        one("zeroCount", 7, Fixed64),
        one("positive", 8, Kind::Message(&BUCKETS)),
        one("negative", 9, Kind::Message(&BUCKETS)),
        one("flags", 10, Uint32),
        list("exemplars", 11, Kind::Message(&EXEMPLAR)),
        one("min", 12, Double),
        one("max", 13, Double),
        one("zeroThreshold", 14, Double),
    ],
};
static BUCKETS: Message = Message { fields: &[one("offset", 1, Sint32), list("bucketCounts", 2, Uint64)] };
static SUMMARY_POINT: Message = Message {
    fields: &[
        list("attributes", 7, Kind::Message(&KEY_VALUE)),
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        one("sum", 5, Double),
        list("quantileValues", 6, Kind::Message(&QUANTILE)),
        one("flags", 8, Uint32),
    ],
};
static QUANTILE: Message = Message { fields: &[one("quantile", 1, Double), one("value", 2, Double)] };
static EXEMPLAR: Message = Message {
    fields: &[
        list("filteredAttributes", 7, Kind::Message(&KEY_VALUE)),
        one("timeUnixNano", 2, Fixed64),
        choice("asDouble", 3, Double),
        choice("asInt", 6, Sfixed64),
        one("spanId", 4, Hex),
        one("traceId", 5, Hex),
    ],
};

static RESOURCE: Message = Message {
    fields: &[
        list("attributes", 1, Kind::Message(&KEY_VALUE)),
        one("droppedAttributesCount", 2, Uint32),
        list("entityRefs", 3, Kind::Message(&ENTITY_REF)),
    ],
};
static ENTITY_REF: Message = Message {
    fields: &[
        one("schemaUrl", 1, Text),
        one("type", 2, Text),
        list("idKeys", 3, Text),
        list("descriptionKeys", 4, Text),
    ],
};
static SCOPE: Message = Message {
    fields: &[
        one("name", 1, Text),
        one("version", 2, Text),
        list("attributes", 3, Kind::Message(&KEY_VALUE)),
        one("droppedAttributesCount", 4, Uint32),
    ],
};
static KEY_VALUE: Message = Message {
    fields: &[one("key", 1, Text), one("value", 2, Kind::Message(&ANY_VALUE)), one("keyStrindex", 3, Int32)],
};
static ANY_VALUE: Message = Message {
    fields: &[
        choice("stringValue", 1, Text),
        choice("boolValue", 2, Bool),
        choice("intValue", 3, Int64),
        choice("doubleValue", 4, Double),
        choice("arrayValue", 5, Kind::Message(&ARRAY_VALUE)),
        choice("kvlistValue", 6, Kind::Message(&KEY_VALUE_LIST)),
        choice("bytesValue", 7, Base64),
        choice("stringValueStrindex", 8, Int32),
    ],
};
pub(super) static ARRAY_VALUE: Message = Message { fields: &[list("values", 1, Kind::Message(&ANY_VALUE))] };
pub(super) static KEY_VALUE_LIST: Message =
    Message { fields: &[list("values", 1, Kind::Message(&KEY_VALUE))] };
