//! The same translation, the plain way: decoded structs, maps of strings, a struct for each series.
//!
//! Written from the specification and from what Prometheus answers, not from the code it is compared with. The bench
//! compiles this file too, as its floor: it knows nothing of the collector.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar as OtlpExemplar, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics,
    SummaryDataPoint, exemplar, metric::Data, number_data_point,
};
use prost::Message;
use std::collections::{BTreeMap, HashMap};

#[derive(Clone, PartialEq, Message)]
pub struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub exemplars: Vec<Exemplar>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Label {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    #[prost(double, tag = "1")]
    pub value: f64,
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    #[prost(double, tag = "2")]
    pub value: f64,
    #[prost(int64, tag = "3")]
    pub timestamp: i64,
}

pub struct Options<'o> {
    pub is_scope_labelled: bool,
    pub promote: &'o [String],
    /// For points that have no time.
    pub committed_ms: i64,
}

/// What is sent, and the numbers (from 0) of points that are not.
#[derive(Debug, Default)]
pub struct Translated {
    pub request: WriteRequest,
    pub unsupported: Vec<u64>,
    pub rejected: Vec<(u64, &'static str)>,
}

type Labels = BTreeMap<String, String>;

struct Table<'o> {
    options: &'o Options<'o>,
    by_labels: HashMap<Vec<(String, String)>, usize>,
    point: u64,
    out: Translated,
}

/// Decodes and translates.
pub fn translate(bytes: &[u8], options: &Options<'_>) -> Translated {
    let request = ExportMetricsServiceRequest::decode(bytes).expect("valid");
    let mut table = Table { options, by_labels: HashMap::new(), point: 0, out: Translated::default() };
    let mut infos = Vec::new();
    for resource in &request.resource_metrics {
        let newest = table.resource(resource);
        infos.extend(newest.and_then(|newest| Some((target_info(resource, options)?, newest))));
    }
    for (labels, time_ms) in infos {
        table.add(labels, time_ms, 1.0);
    }
    for series in &mut table.out.request.timeseries {
        series.samples.reverse();
        series.samples.sort_by_key(|sample| sample.timestamp);
        series.samples.dedup_by_key(|sample| sample.timestamp);
        series.exemplars.sort_by_key(|exemplar| exemplar.timestamp);
    }
    table.out
}

impl Table<'_> {
    fn resource(&mut self, resource: &ResourceMetrics) -> Option<i64> {
        let mut newest = None;
        let common = resource_labels(resource, self.options);
        for scope in &resource.scope_metrics {
            let mut common = common.clone();
            if self.options.is_scope_labelled {
                for (name, value) in scope_labels(scope) {
                    common.entry(name).or_insert(value);
                }
            }
            for metric in &scope.metrics {
                newest = newest.max(self.metric(metric, &common));
            }
        }
        newest
    }

    fn metric(&mut self, metric: &Metric, common: &Labels) -> Option<i64> {
        let mut newest = None;
        let skip = |table: &mut Self, points: usize| {
            table.out.unsupported.extend(table.point..table.point + points as u64);
            table.point += points as u64;
        };
        match metric.data.as_ref()? {
            Data::Gauge(gauge) => {
                let name = metric_name(&metric.name, &metric.unit, "gauge");
                for point in &gauge.data_points {
                    newest = newest.max(self.number(&name, point, common, false));
                }
            }
            Data::Sum(sum) if sum.aggregation_temporality == 2 => {
                let kind = if sum.is_monotonic { "counter" } else { "" };
                let name = metric_name(&metric.name, &metric.unit, kind);
                for point in &sum.data_points {
                    newest = newest.max(self.number(&name, point, common, sum.is_monotonic));
                }
            }
            Data::Histogram(histogram) if histogram.aggregation_temporality == 2 => {
                let name = metric_name(&metric.name, &metric.unit, "");
                for point in &histogram.data_points {
                    newest = newest.max(self.histogram(&name, point, common));
                }
            }
            Data::Summary(summary) => {
                let name = metric_name(&metric.name, &metric.unit, "");
                for point in &summary.data_points {
                    newest = newest.max(self.summary(&name, point, common));
                }
            }
            Data::Sum(sum) => skip(self, sum.data_points.len()),
            Data::Histogram(histogram) => skip(self, histogram.data_points.len()),
            Data::ExponentialHistogram(histogram) => skip(self, histogram.data_points.len()),
        }
        newest
    }

    fn time_ms(&self, nanos: u64) -> i64 {
        if nanos == 0 { self.options.committed_ms } else { (nanos / 1_000_000) as i64 }
    }

    fn reject(&mut self, point: u64, why: &'static str) -> Option<i64> {
        self.out.rejected.push((point, why));
        None
    }

    fn number(
        &mut self,
        name: &str,
        point: &NumberDataPoint,
        common: &Labels,
        has_exemplars: bool,
    ) -> Option<i64> {
        self.point += 1;
        let at = self.point - 1;
        if name.is_empty() {
            return self.reject(at, "no_name");
        }
        let is_stale = point.flags & 1 != 0;
        let value = match point.value {
            Some(number_data_point::Value::AsDouble(value)) => value,
            Some(number_data_point::Value::AsInt(value)) => value as f64,
            None if is_stale => 0.0,
            None => return self.reject(at, "no_value"),
        };
        let time_ms = self.time_ms(point.time_unix_nano);
        let labels = self.labels(&point.attributes, common);
        let series = self.add(named(&labels, name, None), time_ms, sent(value, is_stale));
        if has_exemplars {
            for exemplar in &point.exemplars {
                self.add_exemplar(series, exemplar, time_ms);
            }
        }
        Some(time_ms)
    }

    fn histogram(&mut self, name: &str, point: &HistogramDataPoint, common: &Labels) -> Option<i64> {
        self.point += 1;
        if name.is_empty() {
            return self.reject(self.point - 1, "no_name");
        }
        let is_stale = point.flags & 1 != 0;
        let time_ms = self.time_ms(point.time_unix_nano);
        let labels = self.labels(&point.attributes, common);
        if point.sum.is_some() || is_stale {
            let value = sent(point.sum.unwrap_or_default(), is_stale);
            self.add(named(&labels, &format!("{name}_sum"), None), time_ms, value);
        }
        let count = sent(point.count as f64, is_stale);
        self.add(named(&labels, &format!("{name}_count"), None), time_ms, count);
        let bucket = format!("{name}_bucket");
        let mut below = 0u64;
        let mut buckets = Vec::new();
        for (at, bound) in point.explicit_bounds.iter().enumerate() {
            match point.bucket_counts.get(at) {
                Some(count) => below = below.wrapping_add(*count),
                None if is_stale => {}
                None => break,
            }
            let labels = named(&labels, &bucket, Some(("le", bound_text(*bound))));
            buckets.push((*bound, self.add(labels, time_ms, sent(below as f64, is_stale))));
        }
        let last = self.add(named(&labels, &bucket, Some(("le", "+Inf".into()))), time_ms, count);
        for exemplar in &point.exemplars {
            let value = exemplar_value(exemplar).unwrap_or_default();
            let bucket =
                buckets.iter().find(|(bound, _)| value <= *bound).map_or(last, |(_, series)| *series);
            self.add_exemplar(bucket, exemplar, time_ms);
        }
        Some(time_ms)
    }

    fn summary(&mut self, name: &str, point: &SummaryDataPoint, common: &Labels) -> Option<i64> {
        self.point += 1;
        if name.is_empty() {
            return self.reject(self.point - 1, "no_name");
        }
        let is_stale = point.flags & 1 != 0;
        let time_ms = self.time_ms(point.time_unix_nano);
        let labels = self.labels(&point.attributes, common);
        self.add(named(&labels, &format!("{name}_sum"), None), time_ms, sent(point.sum, is_stale));
        let count = sent(point.count as f64, is_stale);
        self.add(named(&labels, &format!("{name}_count"), None), time_ms, count);
        for value in &point.quantile_values {
            let labels = named(&labels, name, Some(("quantile", bound_text(value.quantile))));
            self.add(labels, time_ms, sent(value.value, is_stale));
        }
        Some(time_ms)
    }

    fn labels(&self, attributes: &[KeyValue], common: &Labels) -> Labels {
        let mut labels = joined(attributes.iter().map(|pair| (pair.key.clone(), text(pair.value.as_ref()))));
        labels.retain(|name, _| !self.options.promote.iter().any(|key| label_name(key) == *name));
        labels.extend(common.clone());
        labels
    }

    fn add(&mut self, labels: Labels, timestamp: i64, value: f64) -> usize {
        let labels: Vec<_> = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let series = &mut self.out.request.timeseries;
        let at = *self.by_labels.entry(labels).or_insert_with_key(|labels| {
            let label = |(name, value): &(String, String)| Label { name: name.clone(), value: value.clone() };
            series.push(TimeSeries { labels: labels.iter().map(label).collect(), ..Default::default() });
            series.len() - 1
        });
        self.out.request.timeseries[at].samples.push(Sample { value, timestamp });
        at
    }

    fn add_exemplar(&mut self, series: usize, exemplar: &OtlpExemplar, time_ms: i64) {
        let Some(value) = exemplar_value(exemplar) else { return };
        let mut labels = joined(
            exemplar.filtered_attributes.iter().map(|pair| (pair.key.clone(), text(pair.value.as_ref()))),
        );
        labels.retain(|_, value| !value.is_empty());
        let mut ids = Labels::new();
        for (name, id, length) in [("trace_id", &exemplar.trace_id, 16), ("span_id", &exemplar.span_id, 8)] {
            if id.len() == length && id.iter().any(|byte| *byte != 0) {
                ids.insert(name.into(), id.iter().map(|byte| format!("{byte:02x}")).collect());
            }
        }
        labels.extend(ids.clone());
        let chars: usize =
            labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum();
        let labels = if chars > 128 { ids } else { labels };
        let labels = labels.into_iter().map(|(name, value)| Label { name, value }).collect();
        let timestamp = match exemplar.time_unix_nano {
            0 => time_ms,
            nanos => (nanos / 1_000_000) as i64,
        };
        self.out.request.timeseries[series].exemplars.push(Exemplar { labels, value, timestamp });
    }
}

fn exemplar_value(exemplar: &OtlpExemplar) -> Option<f64> {
    Some(match exemplar.value.as_ref()? {
        exemplar::Value::AsDouble(value) => *value,
        exemplar::Value::AsInt(value) => *value as f64,
    })
}

fn sent(value: f64, is_stale: bool) -> f64 {
    match value {
        _ if is_stale => f64::from_bits(0x7ff0_0000_0000_0002),
        value if value.is_nan() => f64::from_bits(0x7ff8_0000_0000_0001),
        value => value,
    }
}

fn named(labels: &Labels, name: &str, bound: Option<(&str, String)>) -> Labels {
    let mut labels = labels.clone();
    labels.insert("__name__".into(), name.into());
    labels.extend(bound.map(|(name, value)| (name.to_owned(), value)));
    labels
}

fn bound_text(bound: f64) -> String {
    if bound == f64::INFINITY {
        "+Inf".into()
    } else if bound == f64::NEG_INFINITY {
        "-Inf".into()
    } else {
        bound.to_string()
    }
}

/// Values by label name; the pairs of one name joined in the order of their keys.
fn joined(pairs: impl Iterator<Item = (String, String)>) -> Labels {
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    let mut labels = Labels::new();
    for (key, value) in pairs {
        let name = label_name(&key);
        if name.is_empty() {
            continue;
        }
        let old = labels.remove(&name).unwrap_or_default();
        labels.insert(name, if old.is_empty() { value } else { format!("{old};{value}") });
    }
    labels
}

fn pairs(attributes: &[KeyValue]) -> impl Iterator<Item = (String, String)> + '_ {
    attributes.iter().map(|pair| (pair.key.clone(), text(pair.value.as_ref())))
}

fn resource_labels(resource: &ResourceMetrics, options: &Options<'_>) -> Labels {
    let Some(resource) = &resource.resource else { return Labels::new() };
    let mut labels = joined(pairs(&resource.attributes).filter(|(key, _)| options.promote.contains(key)));
    let value = |key: &str| {
        let found = resource.attributes.iter().find(|pair| pair.key == key)?;
        Some(text(found.value.as_ref()))
    };
    if let Some(name) = value("service.name") {
        let job = match value("service.namespace").filter(|space| !space.is_empty()) {
            Some(space) => format!("{space}/{name}"),
            None => name,
        };
        if !job.is_empty() {
            labels.insert("job".into(), job);
        }
    }
    if let Some(instance) = value("service.instance.id").filter(|instance| !instance.is_empty()) {
        labels.insert("instance".into(), instance);
    }
    labels
}

fn target_info(resource: &ResourceMetrics, options: &Options<'_>) -> Option<Labels> {
    let identifying = ["service.namespace", "service.name", "service.instance.id"];
    let attributes = &resource.resource.as_ref()?.attributes;
    let rest: Vec<_> = pairs(attributes).filter(|(key, _)| !identifying.contains(&&**key)).collect();
    if rest.is_empty() {
        return None;
    }
    let mut labels = joined(rest.into_iter());
    labels.retain(|name, _| !options.promote.iter().any(|key| label_name(key) == *name));
    labels.extend(resource_labels(resource, options));
    labels.insert("__name__".into(), "target_info".into());
    (labels.contains_key("job") || labels.contains_key("instance")).then_some(labels)
}

fn scope_labels(scope: &ScopeMetrics) -> Labels {
    let Some(inner) = scope.scope.as_ref().filter(|inner| !inner.name.is_empty()) else {
        return Labels::new();
    };
    let own = pairs(&inner.attributes).map(|(key, value)| (format!("otel_scope_{key}"), value));
    let mut labels = joined(own);
    labels.insert("otel_scope_name".into(), inner.name.clone());
    labels.insert("otel_scope_version".into(), inner.version.clone());
    labels.insert("otel_scope_schema_url".into(), scope.schema_url.clone());
    labels
}

/// Empty: there is none.
pub fn label_name(key: &str) -> String {
    let mut name: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert_str(0, "key_");
    } else if name.starts_with('_') && !name.starts_with("__") {
        name.insert_str(0, "key");
    }
    if name.trim_matches('_').is_empty() || name == "__name__" { String::new() } else { name }
}

/// Empty: there is none.
pub fn metric_name(name: &str, unit: &str, kind: &str) -> String {
    let is_good = |c: char| c.is_ascii_alphanumeric() || c == ':';
    let tidy = |text: &str| {
        let words: Vec<&str> = text.split(|c| !is_good(c)).filter(|word| !word.is_empty()).collect();
        words.join("_")
    };
    let mut words: Vec<String> =
        tidy(name).split('_').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let plain = |unit: &str| if unit.contains(['{', '}']) { String::new() } else { unit.trim().to_owned() };
    let main = match &*plain(main) {
        "s" => "seconds".into(),
        "ms" => "milliseconds".into(),
        "By" => "bytes".into(),
        "%" => "percent".into(),
        "m" => "meters".into(),
        "1" => String::new(),
        other => tidy(other),
    };
    let per = match &*plain(per) {
        "s" => "second".into(),
        "m" => "minute".into(),
        other => tidy(other),
    };
    if !main.is_empty() && !words.contains(&main) {
        words.push(main);
    }
    if !per.is_empty() {
        words.push(format!("per_{per}"));
    }
    let suffix = match kind {
        "counter" => "total",
        "gauge" if unit == "1" => "ratio",
        _ => "",
    };
    if !suffix.is_empty() {
        words.retain(|word| word != suffix);
        words.push(suffix.into());
    }
    let name = words.join("_");
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        None => String::new(),
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        Some(other) => json(&AnyValue { value: Some(other.clone()) }),
    }
}

/// Of the few values that the tests make.
fn json(value: &AnyValue) -> String {
    match &value.value {
        Some(Value::ArrayValue(list)) => {
            let items: Vec<String> = list.values.iter().map(json).collect();
            format!("[{}]", items.join(","))
        }
        Some(Value::StringValue(text)) => format!("\"{text}\""),
        Some(_) => text(Some(value)),
        None => "null".into(),
    }
}
