//! Independent readers of what the platform's servers keep: PyMongo, PromQL, Jaeger's API.

use super::applications::{Client, Told};
use super::people::assert_nobody_in;
use super::waiting;
use crate::real::servers::{Jaeger, Prometheus, VictoriaMetrics, output_of};
use crate::real::{installed, sources};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// The running number in a line's body, of the client's own lines only.
pub fn number_in(client: &Client, body: &Value) -> Result<usize, String> {
    let text = body.as_str().or_else(|| body["text"].as_str()).unwrap_or_default();
    let rest = text.strip_prefix("line ").and_then(|rest| rest.split_once(' '));
    let (number, rest) = rest.ok_or_else(|| format!("no line of the story: {body}"))?;
    if !rest.starts_with(client.marker) {
        return Err(format!("a line of somebody else in the stream of {}: {body}", client.tenant));
    }
    number.parse().map_err(|_| format!("no number: {body}"))
}

/// Every line once and in order, or what is wrong.
pub fn in_order(client: &Client, bodies: &[Value], lines: usize) -> Result<(), String> {
    for (at, body) in bodies.iter().enumerate() {
        let number = number_in(client, body)?;
        if number != at {
            return Err(format!(
                "line {number} of {} stands at place {at} of {}",
                client.tenant,
                bodies.len()
            ));
        }
    }
    if bodies.len() == lines { Ok(()) } else { Err(format!("{} of {lines} lines", bodies.len())) }
}

/// What PyMongo finds of the client's project.
pub async fn documents(uri: &str, client: &Client) -> Vec<Value> {
    let mut command = Command::new(installed("TROMMEL_TEST_PYTHON"));
    command.arg(sources().join("story/read_mongo.py")).args([uri, "trommel", client.tenant, client.project]);
    let printed = output_of(command, "read_mongo.py", PATIENCE).await;
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// All of the client's lines once, in order, none of anybody else's, and everything else that a document must have.
pub async fn check_documents(uri: &str, client: &Client, told: &Told) {
    let what = format!("the lines of {} in MongoDB", client.tenant);
    let found = waiting(&what, PATIENCE, async || {
        let found = documents(uri, client).await;
        let bodies: Vec<Value> = found.iter().map(|document| document["body"].clone()).collect();
        in_order(client, &bodies, told.lines).map(|()| found)
    })
    .await;
    for (at, document) in found.iter().enumerate() {
        assert_eq!(document["tenant"], client.tenant, "{document}");
        assert_eq!(document["project"], client.project, "{document}");
        assert_eq!(document["attributes"]["number"], at, "{document}");
        assert_eq!(document["severity"], if at % 3 == 2 { 13 } else { 9 }, "{document}");
        assert_eq!(document["trace_id"], told.traces[at / 3].as_str(), "{document}");
        assert_eq!(document["span_id"].as_str().map(str::len), Some(16), "{document}");
        let resource = &document["resource"];
        for (key, value) in [("service.name", client.service), ("tenant.id", client.tenant), ("plan", "gold")]
        {
            assert_eq!(resource[key], value, "{key} in {document}");
        }
    }
    assert_nobody_in(&what, &Value::from(found).to_string());
}

/// Each trace whole in Jaeger: its spans, who calls whom, events, links, and what the platform knows of the client.
pub async fn check_traces(jaeger: &Jaeger, client: &Client, told: &Told) {
    let http = crate::world::client();
    for (number, id) in told.traces.iter().enumerate() {
        let url = jaeger.query(&format!("/api/v3/traces/{id}"));
        let answer = waiting(&format!("trace {id} of {} in Jaeger", client.tenant), PATIENCE, async || {
            let answer = http.get(&url).send().await.map_err(|error| error.to_string())?;
            let answer: Value = answer.json().await.map_err(|error| error.to_string())?;
            if spans_of(&answer).len() == client.spans.len() { Ok(answer) } else { Err(answer.to_string()) }
        })
        .await;
        check_trace(client, number, &answer);
    }
}

fn spans_of(answer: &Value) -> Vec<&Value> {
    let resources = answer["result"]["resourceSpans"].as_array();
    let scopes = resources.into_iter().flatten().filter_map(|resource| resource["scopeSpans"].as_array());
    let spans = scopes.flatten().filter_map(|scope| scope["spans"].as_array()).flatten();
    spans.collect()
}

fn attribute_of<'v>(of: &'v Value, key: &str) -> Option<&'v str> {
    let found = of["attributes"].as_array()?.iter().find(|entry| entry["key"] == key)?;
    found["value"]["stringValue"].as_str()
}

fn check_trace(client: &Client, number: usize, answer: &Value) {
    let whole = answer.to_string();
    assert_nobody_in("Jaeger's answer", &whole);
    let spans = spans_of(answer);
    let named = |name: &str| {
        *spans.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("no span {name} in {whole}"))
    };
    for (name, parent) in client.spans {
        let expected = if parent.is_empty() { &Value::Null } else { &named(parent)["spanId"] };
        let given = &named(name)["parentSpanId"];
        let is_root = parent.is_empty() && given.as_str().unwrap_or_default().is_empty();
        assert!(is_root || given == expected, "the parent of {name} in {whole}");
    }
    for resource in answer["result"]["resourceSpans"].as_array().unwrap() {
        let known = [
            ("service.name", client.service),
            ("tenant.id", client.tenant),
            ("project.id", client.project),
            ("plan", "gold"),
            ("region", client.region),
        ];
        for (key, value) in known {
            assert_eq!(attribute_of(&resource["resource"], key), Some(value), "{key} in {whole}");
        }
    }
    let root = named(client.spans[0].0);
    assert_eq!(attribute_of(root, "marker"), Some(client.marker), "{whole}");
    let links = root["links"].as_array().map_or(0, Vec::len);
    assert_eq!(links, usize::from(number > 0), "the link to the request before in {whole}");
    let events: usize = spans.iter().map(|span| span["events"].as_array().map_or(0, Vec::len)).sum();
    assert_eq!(events, 1, "{whole}");
}

/// Labels of a series, its name among them.
pub type Series = BTreeMap<String, String>;

/// The newest value of each series of the tenant, by PromQL.
async fn series(url: String, tenant: &str) -> Result<BTreeMap<Series, f64>, String> {
    let query = format!("{{tenant_id=\"{tenant}\"}}");
    // The last two are VictoriaMetrics': else it answers what it knew 30 s ago.
    let parameters = [("query", query.as_str()), ("nocache", "1"), ("latency_offset", "1ms")];
    let url = reqwest::Url::parse_with_params(&url, parameters).unwrap();
    let answer = crate::world::client().get(url).send().await.map_err(|error| error.to_string())?;
    let answer: Value = answer.json().await.map_err(|error| error.to_string())?;
    let found = answer["data"]["result"].as_array().ok_or_else(|| answer.to_string())?;
    let read = |entry: &Value| {
        let labels = serde_json::from_value(entry["metric"].clone()).unwrap();
        (labels, entry["value"][1].as_str().unwrap().parse::<f64>().unwrap())
    };
    Ok(found.iter().map(read).collect())
}

/// Both stores have the same series with the same values, and these are what the application counted.
pub async fn check_metrics(
    prometheus: &Prometheus,
    victoria: &VictoriaMetrics,
    client: &Client,
    told: &Told,
) {
    let what = format!("the metrics of {} in both stores", client.tenant);
    waiting(&what, PATIENCE, async || {
        victoria.flush().await;
        let ours = series(prometheus.url("/api/v1/query"), client.tenant).await?;
        let theirs = series(victoria.url("/api/v1/query"), client.tenant).await?;
        counted(client, told, &ours).map_err(|wrong| format!("Prometheus: {wrong}"))?;
        counted(client, told, &theirs).map_err(|wrong| format!("VictoriaMetrics: {wrong}"))?;
        if ours == theirs {
            Ok(())
        } else {
            Err(format!("Prometheus has\n{ours:?}\nand VictoriaMetrics\n{theirs:?}"))
        }
    })
    .await;
}

/// VictoriaMetrics alone has what the application counted.
pub async fn check_victoria(victoria: &VictoriaMetrics, client: &Client, told: &Told) {
    waiting(&format!("the metrics of {} in VictoriaMetrics", client.tenant), PATIENCE, async || {
        victoria.flush().await;
        counted(client, told, &series(victoria.url("/api/v1/query"), client.tenant).await?)
    })
    .await;
}

/// Counter, buckets, sum and count as the application counted them.
fn counted(client: &Client, told: &Told, found: &BTreeMap<Series, f64>) -> Result<(), String> {
    let of = |name: &str| -> Vec<(&Series, f64)> {
        found
            .iter()
            .filter(|(labels, _)| labels["__name__"] == name)
            .map(|(labels, value)| (labels, *value))
            .collect()
    };
    let is = |what: &str, value: f64, expected: f64| {
        if (value - expected).abs() < 1e-9 {
            Ok(())
        } else {
            Err(format!("{what} is {value}, not {expected}"))
        }
    };
    let sum_of = |name: &str| of(name).iter().map(|(_, value)| value).sum::<f64>();
    for (labels, value) in of(client.counter) {
        is(&format!("{labels:?}"), value, told.counted[&labels["kind"]])?;
        for (label, expected) in [("job", client.service), ("project_id", client.project)] {
            if labels.get(label).map(String::as_str) != Some(expected) {
                return Err(format!("`{label}` of {labels:?} is not {expected}"));
            }
        }
    }
    is("the number of counters", of(client.counter).len() as f64, told.counted.len() as f64)?;
    let buckets = of(&format!("{}_bucket", client.histogram));
    if buckets.len() < 10 {
        return Err(format!("{} buckets", buckets.len()));
    }
    for (labels, value) in buckets {
        let bound: f64 = labels["le"].parse().map_err(|_| format!("{labels:?}"))?;
        let within = told.recorded.iter().filter(|recorded| **recorded <= bound).count();
        is(&format!("the bucket up to {bound}"), value, within as f64)?;
    }
    is("the histogram's count", sum_of(&format!("{}_count", client.histogram)), told.recorded.len() as f64)?;
    is("the histogram's sum", sum_of(&format!("{}_sum", client.histogram)), told.recorded.iter().sum())
}

/// Some of the exemplars in Prometheus point to traces of the application.
pub async fn check_exemplars(prometheus: &Prometheus, client: &Client, told: &Told) {
    let query = format!("{}_bucket", client.histogram);
    let url = prometheus.url("/api/v1/query_exemplars");
    let parameters = [("query", query.as_str()), ("start", "0"), ("end", "4102444800")];
    let url = reqwest::Url::parse_with_params(&url, parameters).unwrap();
    let answer: Value = crate::world::client().get(url).send().await.unwrap().json().await.unwrap();
    let series = answer["data"].as_array().cloned().unwrap_or_default();
    let exemplars = series.iter().filter_map(|of| of["exemplars"].as_array()).flatten();
    let known = exemplars
        .filter(|exemplar| told.traces.iter().any(|trace| exemplar["labels"]["trace_id"] == trace.as_str()));
    assert!(known.count() > 0, "no exemplar of {} points to a trace of it: {answer}", client.tenant);
}
