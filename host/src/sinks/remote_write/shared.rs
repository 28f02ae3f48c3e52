//! What the points of a resource, scope or metric have in common, made once for all of them.

use super::labels::{Common, Joined, Names, attributes, encoded, joined};
use super::names::{self, label_name, metric_name};
use super::points::{EXPONENTIAL, GAUGE, HISTOGRAM, SUM, SUMMARY};
use super::portion::put_label;
use super::values::Text;
use crate::batch::ItemParts;
use crate::batch::wire::{LENGTH, VARINT, fields_of, varint};

const CUMULATIVE: u64 = 2;
/// These make `job` and `instance`, and do not stand in `target_info`.
const IDENTIFYING: [&str; 3] = ["service.namespace", "service.name", "service.instance.id"];

/// A resource's labels.
#[derive(Debug, Default)]
pub(super) struct Resource {
    /// Promoted attributes, `job`, `instance`.
    labels: Joined,
    reserved: Vec<Box<str>>,
    /// The labels of its `target_info`, encoded. Taken when it was written.
    pub(super) info: Option<Vec<u8>>,
    /// Of the points that were translated.
    pub(super) newest_ms: Option<i64>,
}

impl Resource {
    /// `resource` is the content of the message.
    pub(super) fn of(resource: &[u8], promote: &[String], names: &mut Names) -> Resource {
        let mut made = String::new();
        let all = attributes(resource, 1, &mut made);
        let is_promoted = |key: &[u8]| promote.iter().any(|name| name.as_bytes() == key);
        let promoted: Vec<_> = all.iter().filter(|(key, _)| is_promoted(key)).cloned().collect();
        let mut labels = joined(&promoted, &made, names);
        let value = |name: &str| {
            let found = all.iter().find(|(key, _)| *key == name.as_bytes());
            found.map(|(_, text)| String::from_utf8_lossy(text.of(&made)).into_owned())
        };
        let [namespace, name, instance] = IDENTIFYING.map(value);
        let namespace = namespace.filter(|namespace| !namespace.is_empty());
        let job = name.map(|name| namespace.map(|space| format!("{space}/{name}")).unwrap_or(name));
        let mut identity = Joined::new();
        identity.extend(job.filter(|job| !job.is_empty()).map(|job| ("job".into(), job)));
        identity.extend(instance.filter(|text| !text.is_empty()).map(|text| ("instance".into(), text)));
        let reserved: Vec<Box<str>> =
            promote.iter().filter_map(|key| label_name(key)).map(String::into_boxed_str).collect();

        let is_identifying = |key: &[u8]| IDENTIFYING.iter().any(|name| name.as_bytes() == key);
        let rest: Vec<_> = all.iter().filter(|(key, _)| !is_identifying(key)).cloned().collect();
        let mut info = joined(&rest, &made, names);
        info.retain(|name, _| !reserved.contains(name));
        info.extend(labels.clone());
        info.extend(identity.clone());
        let is_told = !rest.is_empty() && (info.contains_key("job") || info.contains_key("instance"));
        info.insert("__name__".into(), "target_info".into());
        labels.extend(identity);
        Resource { labels, reserved, info: encoded(&info).filter(|_| is_told), newest_ms: None }
    }
}

/// What points of the resource have, and those of this scope if it is to be labelled.
pub(super) fn common(resource: &Resource, scope: Option<&ItemParts<'_>>, names: &mut Names) -> Common {
    let mut labels = resource.labels.clone();
    for (name, value) in scope.map(|parts| scope_labels(parts, names)).unwrap_or_default() {
        labels.entry(name).or_insert(value);
    }
    Common { labels, reserved: resource.reserved.iter().cloned().collect() }
}

fn scope_labels(parts: &ItemParts<'_>, names: &mut Names) -> Joined {
    let text = |number: u32| {
        let field = fields_of(parts.scope).filter(|field| field.is_message(number)).last();
        field.map_or(String::new(), |field| String::from_utf8_lossy(field.of(parts.scope)).into_owned())
    };
    let (name, version) = (text(1), text(2));
    if name.is_empty() {
        return Joined::new();
    }
    let mut made = String::new();
    let own = attributes(parts.scope, 3, &mut made);
    let keys: Vec<Vec<u8>> = own.iter().map(|(key, _)| [b"otel_scope_", *key].concat()).collect();
    let prefixed: Vec<(&[u8], Text<'_>)> =
        keys.iter().zip(&own).map(|(key, (_, text))| (&key[..], text.clone())).collect();
    let mut labels = joined(&prefixed, &made, names);
    labels.insert("otel_scope_name".into(), name);
    labels.insert("otel_scope_version".into(), version);
    labels.insert("otel_scope_schema_url".into(), parts.scope_schema_url.into());
    labels
}

/// In [`Metric::labels`].
pub(super) const PLAIN: usize = 0;
pub(super) const SUM_OF: usize = 1;
pub(super) const COUNT: usize = 2;
pub(super) const BUCKET: usize = 3;

/// A metric, as far as its points need to know.
#[derive(Debug, Default)]
pub(super) struct Metric<'b> {
    /// As the sender calls it.
    pub(super) original: &'b str,
    pub(super) kind: u8,
    pub(super) is_monotonic: bool,
    /// Why it has no form here.
    pub(super) unsupported: Option<&'static str>,
    /// Its name was noted as one that has no form here.
    pub(super) is_told: bool,
    /// `__name__` labels, encoded: plain, `_sum`, `_count`, `_bucket`. Empty if it has no usable name.
    pub(super) labels: [Vec<u8>; 4],
}

impl<'b> Metric<'b> {
    pub(super) fn of(parts: &ItemParts<'b>) -> Metric<'b> {
        let (mut original, mut unit) = ("", "");
        for field in fields_of(parts.metric).filter(|field| field.wire == LENGTH) {
            let text = || std::str::from_utf8(field.of(parts.metric)).unwrap_or_default();
            match field.number {
                1 => original = text(),
                3 => unit = text(),
                _ => {}
            }
        }
        let (temporality, is_monotonic) = kind_of(parts);
        let unsupported = match parts.kind {
            EXPONENTIAL => Some("exponential histogram"),
            SUM | HISTOGRAM if temporality != CUMULATIVE => Some("not cumulative"),
            GAUGE | SUM | HISTOGRAM | SUMMARY => None,
            _ => Some("unknown kind"),
        };
        let mut metric =
            Metric { original, kind: parts.kind, is_monotonic, unsupported, ..Metric::default() };
        if unsupported.is_none() {
            let form = match parts.kind {
                GAUGE => names::Form::Gauge,
                SUM if is_monotonic => names::Form::Counter,
                _ => names::Form::Other,
            };
            metric.set_name(metric_name(original, unit, form));
        }
        metric
    }

    fn set_name(&mut self, name: Option<String>) {
        let Some(mut name) = name else { return };
        let length = name.len();
        for (label, suffix) in self.labels.iter_mut().zip(["", "_sum", "_count", "_bucket"]) {
            name.truncate(length);
            name.push_str(suffix);
            put_label(label, b"__name__", name.as_bytes());
            if matches!(self.kind, GAUGE | SUM) {
                break;
            }
        }
    }
}

/// Temporality, and whether it is monotonic, of a sum or a histogram. They stand among the points.
fn kind_of(parts: &ItemParts<'_>) -> (u64, bool) {
    let (mut temporality, mut is_monotonic) = (0, false);
    if !matches!(parts.kind, SUM | HISTOGRAM) {
        return (temporality, is_monotonic);
    }
    for field in fields_of(parts.data).filter(|field| field.wire == VARINT) {
        let number = varint(parts.data, field.content).map_or(0, |(number, _)| number);
        match field.number {
            2 => temporality = number,
            3 => is_monotonic = parts.kind == SUM && number != 0,
            _ => {}
        }
    }
    (temporality, is_monotonic)
}
