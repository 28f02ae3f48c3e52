//! What a call must do, said once more on `prost`'s structs, without regard to speed.

use super::super::samples::Decoded;
use crate::batch::{Level, Places};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint, SummaryDataPoint,
    metric::Data,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;

/// A message of the tree.
pub(super) enum Node<'d> {
    Resource(&'d mut Option<Resource>),
    Scope(&'d mut Option<InstrumentationScope>),
    Metric(&'d mut Metric),
    Item(Item<'d>),
}

pub(super) enum Item<'d> {
    Log(&'d mut LogRecord),
    Span(&'d mut Span),
    Number(&'d mut NumberDataPoint),
    Histogram(&'d mut HistogramDataPoint),
    Exponential(&'d mut ExponentialHistogramDataPoint),
    Summary(&'d mut SummaryDataPoint),
}

/// Calls `each` with all messages of the tree: a resource, its scopes with their metrics and items, the next.
pub(super) fn visit(decoded: &mut Decoded, each: &mut dyn FnMut(Node<'_>)) {
    match decoded {
        Decoded::Logs(request) => {
            for resource in &mut request.resource_logs {
                each(Node::Resource(&mut resource.resource));
                for scope in &mut resource.scope_logs {
                    each(Node::Scope(&mut scope.scope));
                    scope.log_records.iter_mut().for_each(|log| each(Node::Item(Item::Log(log))));
                }
            }
        }
        Decoded::Traces(request) => {
            for resource in &mut request.resource_spans {
                each(Node::Resource(&mut resource.resource));
                for scope in &mut resource.scope_spans {
                    each(Node::Scope(&mut scope.scope));
                    scope.spans.iter_mut().for_each(|span| each(Node::Item(Item::Span(span))));
                }
            }
        }
        Decoded::Metrics(request) => {
            for resource in &mut request.resource_metrics {
                each(Node::Resource(&mut resource.resource));
                for scope in &mut resource.scope_metrics {
                    each(Node::Scope(&mut scope.scope));
                    for metric in &mut scope.metrics {
                        each(Node::Metric(metric));
                        points(metric, &mut |item| each(Node::Item(item)));
                    }
                }
            }
        }
    }
}

fn points(metric: &mut Metric, each: &mut dyn FnMut(Item<'_>)) {
    match metric.data.as_mut() {
        Some(Data::Gauge(data)) => data.data_points.iter_mut().for_each(|point| each(Item::Number(point))),
        Some(Data::Sum(data)) => data.data_points.iter_mut().for_each(|point| each(Item::Number(point))),
        Some(Data::Histogram(data)) => {
            data.data_points.iter_mut().for_each(|point| each(Item::Histogram(point)));
        }
        Some(Data::ExponentialHistogram(data)) => {
            data.data_points.iter_mut().for_each(|point| each(Item::Exponential(point)));
        }
        Some(Data::Summary(data)) => data.data_points.iter_mut().for_each(|point| each(Item::Summary(point))),
        None => {}
    }
}

/// Removes the envelopes in which no record stands.
pub(super) fn strip(decoded: &mut Decoded) {
    match decoded {
        Decoded::Logs(request) => request.resource_logs.retain_mut(|resource| {
            resource.scope_logs.retain(|scope| !scope.log_records.is_empty());
            !resource.scope_logs.is_empty()
        }),
        Decoded::Traces(request) => request.resource_spans.retain_mut(|resource| {
            resource.scope_spans.retain(|scope| !scope.spans.is_empty());
            !resource.scope_spans.is_empty()
        }),
        Decoded::Metrics(request) => request.resource_metrics.retain_mut(|resource| {
            resource.scope_metrics.retain_mut(|scope| {
                scope.metrics.retain_mut(|metric| {
                    let mut has_points = false;
                    points(metric, &mut |_| has_points = true);
                    has_points
                });
                !scope.metrics.is_empty()
            });
            !resource.scope_metrics.is_empty()
        }),
    }
}

impl Item<'_> {
    pub(super) fn attributes(&mut self) -> &mut Vec<KeyValue> {
        match self {
            Item::Log(log) => &mut log.attributes,
            Item::Span(span) => &mut span.attributes,
            Item::Number(point) => &mut point.attributes,
            Item::Histogram(point) => &mut point.attributes,
            Item::Exponential(point) => &mut point.attributes,
            Item::Summary(point) => &mut point.attributes,
        }
    }

    fn exemplars(&mut self) -> &mut [Exemplar] {
        match self {
            Item::Number(point) => &mut point.exemplars,
            Item::Histogram(point) => &mut point.exemplars,
            Item::Exponential(point) => &mut point.exemplars,
            _ => &mut [],
        }
    }
}

/// Calls `each` with the attributes of all rows of a level.
pub(super) fn owners(decoded: &mut Decoded, at: Level, each: &mut dyn FnMut(&mut Vec<KeyValue>)) {
    visit(decoded, &mut |node| match (node, at) {
        (Node::Resource(resource), Level::Resource) => {
            let was = resource.is_some();
            let mut inner = resource.take().unwrap_or_default();
            each(&mut inner.attributes);
            *resource = (was || !inner.attributes.is_empty()).then_some(inner);
        }
        (Node::Scope(scope), Level::Scope) => {
            let was = scope.is_some();
            let mut inner = scope.take().unwrap_or_default();
            each(&mut inner.attributes);
            *scope = (was || !inner.attributes.is_empty()).then_some(inner);
        }
        (Node::Metric(metric), Level::Metric) => each(&mut metric.metadata),
        (Node::Item(mut item), Level::Item) => each(item.attributes()),
        (Node::Item(Item::Span(span)), Level::Event) => {
            span.events.iter_mut().for_each(|event| each(&mut event.attributes));
            span.links.iter_mut().for_each(|link| each(&mut link.attributes));
        }
        (Node::Item(mut item), Level::Event) => {
            item.exemplars().iter_mut().for_each(|exemplar| each(&mut exemplar.filtered_attributes));
        }
        _ => {}
    });
}

pub(super) const ATTRIBUTES: [(Places, Level); 5] = [
    (Places::ITEM_ATTRIBUTES, Level::Item),
    (Places::EVENT_ATTRIBUTES, Level::Event),
    (Places::METRIC_ATTRIBUTES, Level::Metric),
    (Places::SCOPE_ATTRIBUTES, Level::Scope),
    (Places::RESOURCE_ATTRIBUTES, Level::Resource),
];

/// Calls `each` with the number of the row and every string in these places, in the order of the WIT.
pub(super) fn texts(decoded: &mut Decoded, of: Places, each: &mut dyn FnMut(u32, &mut String)) {
    let has = |place: Places| of.0 & place.0 != 0;
    if has(Places::BODY) {
        let mut row = 0;
        visit(decoded, &mut |node| {
            if let Node::Item(Item::Log(log)) = node {
                log.body.iter_mut().for_each(|body| strings(body, &mut |text| each(row, text)));
                row += 1;
            }
        });
    }
    let is_metrics = matches!(decoded, Decoded::Metrics(_));
    for place in
        [Places::NAME, Places::EVENT_NAME, Places::DESCRIPTION].into_iter().filter(|place| has(*place))
    {
        let mut row = 0;
        visit(decoded, &mut |node| {
            let mut one = |text: &mut String| {
                if !text.is_empty() {
                    each(row, text);
                }
            };
            match (node, place) {
                (Node::Item(Item::Log(log)), Places::NAME) => one(&mut log.event_name),
                (Node::Item(Item::Span(span)), Places::NAME) => one(&mut span.name),
                (Node::Item(Item::Span(span)), Places::DESCRIPTION) => {
                    span.status.iter_mut().for_each(|status| one(&mut status.message));
                }
                (Node::Metric(metric), Places::NAME) => one(&mut metric.name),
                (Node::Item(Item::Log(record)), Places::DESCRIPTION) => one(&mut record.severity_text),
                (Node::Metric(metric), Places::DESCRIPTION) => one(&mut metric.description),
                (Node::Item(Item::Span(span)), Places::EVENT_NAME) => {
                    for event in &mut span.events {
                        if !event.name.is_empty() {
                            each(row, &mut event.name);
                        }
                        row += 1;
                    }
                    row += span.links.len() as u32;
                    return;
                }
                (Node::Item(_), _) if !is_metrics => {}
                _ => return,
            }
            row += 1;
        });
    }
    for (_, level) in ATTRIBUTES.into_iter().filter(|(place, _)| has(*place)) {
        let mut row = 0;
        owners(decoded, level, &mut |attributes| {
            for value in attributes.iter_mut().filter_map(|attribute| attribute.value.as_mut()) {
                strings(value, &mut |text| each(row, text));
            }
            row += 1;
        });
    }
}

pub(super) fn strings(value: &mut AnyValue, each: &mut dyn FnMut(&mut String)) {
    match &mut value.value {
        Some(Value::StringValue(text)) => each(text),
        Some(Value::ArrayValue(array)) => array.values.iter_mut().for_each(|value| strings(value, each)),
        Some(Value::KvlistValue(map)) => {
            map.values
                .iter_mut()
                .filter_map(|entry| entry.value.as_mut())
                .for_each(|value| strings(value, each));
        }
        _ => {}
    }
}

/// Removes or masks the entries of maps in the value that have this key.
pub(super) fn edit_entries(value: &mut AnyValue, key: &str, by: Option<&str>) -> u32 {
    match &mut value.value {
        Some(Value::ArrayValue(array)) => {
            array.values.iter_mut().map(|value| edit_entries(value, key, by)).sum()
        }
        Some(Value::KvlistValue(map)) => {
            let mut edited = 0;
            map.values.retain_mut(|entry| {
                if entry.key != key {
                    edited += entry.value.as_mut().map_or(0, |value| edit_entries(value, key, by));
                    return true;
                }
                edited += 1;
                entry.value = by.map(text_value);
                by.is_some()
            });
            edited
        }
        _ => 0,
    }
}

pub(super) fn text_value(text: &str) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(text.to_owned())) }
}

/// Drops the items with these numbers, and the envelopes that they leave empty.
pub(super) fn drop_items(decoded: &mut Decoded, dropped: &[u32]) {
    decoded.keep(|item, _| !dropped.contains(&item));
    strip(decoded);
}

/// One line for each record, with all that it stands in.
pub(super) fn lines(decoded: &Decoded) -> Vec<String> {
    let mut decoded = decoded.clone();
    let (mut around, mut lines) = ([const { String::new() }; 3], Vec::new());
    visit(&mut decoded, &mut |node| match node {
        Node::Resource(resource) => around[0] = format!("{resource:?}"),
        Node::Scope(scope) => around[1] = format!("{scope:?}"),
        Node::Metric(metric) => around[2] = format!("{:?} {:?}", metric.name, metric.metadata),
        Node::Item(item) => {
            let item = match item {
                Item::Log(log) => format!("{log:?}"),
                Item::Span(span) => format!("{span:?}"),
                Item::Number(point) => format!("{point:?}"),
                Item::Histogram(point) => format!("{point:?}"),
                Item::Exponential(point) => format!("{point:?}"),
                Item::Summary(point) => format!("{point:?}"),
            };
            lines.push(format!("{around:?} {item}"));
        }
    });
    lines
}
