//! Metrics through the whole path into a real Prometheus 3 and a real VictoriaMetrics, read back by their own query
//! interfaces; and beside what Prometheus makes of the same OTLP itself.

use super::servers::{Prometheus, VictoriaMetrics};
use crate::world::{World, attribute, eventually, with_token};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value};
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::*;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use serde_json::Value;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A collector whose metrics go to each of these endpoints, named `m0`, `m1`, …
async fn collector(endpoints: &[String], more: &str) -> World {
    let names: Vec<String> = (0..endpoints.len()).map(|at| format!("m{at}")).collect();
    let sinks: Vec<String> = names
        .iter()
        .zip(endpoints)
        .map(|(name, url)| format!("  {name}: {{ type: remote_write, endpoint: \"{url}\"{more} }}\n"))
        .collect();
    World::start(&format!(
        r#"
receivers: {{ otlp: {{ grpc: {{ listen: 127.0.0.1:0 }} }} }}
console: {{ listen: 127.0.0.1:0 }}
pipelines: [{{ name: metrics, when: {{ signal: metrics }}, plugins: [], sinks: [{}] }}]
sinks:
{}"#,
        names.join(", "),
        sinks.concat()
    ))
    .await
}

/// Sends, and waits until every sink has answered for all of it.
async fn deliver(world: &World, request: ExportMetricsServiceRequest, sinks: usize) {
    let mut client = MetricsServiceClient::connect(format!("http://{}", world.grpc())).await.unwrap();
    let answer = client.export(with_token(request, None)).await.unwrap().into_inner();
    assert_eq!(answer.partial_success, None);
    eventually("all is delivered", || async {
        let text = world.metrics().await;
        let lines = text.lines().filter(|line| line.starts_with("trommel_ledger_in_flight_records{"));
        let counts: Vec<f64> = lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        counts.len() >= sinks && counts.iter().all(|count| *count == 0.0)
    })
    .await;
}

fn now_ms() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

fn ask(url: &str, pairs: &[(&str, &str)]) -> reqwest::RequestBuilder {
    crate::world::client().get(reqwest::Url::parse_with_params(url, pairs).unwrap())
}

async fn json(request: reqwest::RequestBuilder) -> Value {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// Samples (time in ms, value as text) by labels.
type Series = BTreeMap<BTreeMap<String, String>, Vec<(i64, String)>>;

fn labels(value: &Value) -> BTreeMap<String, String> {
    let labels = value.as_object().unwrap().iter();
    labels.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}

/// All that Prometheus has of the last hour.
async fn all_of(prometheus: &Prometheus) -> Series {
    let time = format!("{}", now_ms() / 1000 + 60);
    let query =
        ask(&prometheus.url("/api/v1/query"), &[("query", "{__name__=~\".+\"}[1h]"), ("time", &time)]);
    let answer = json(query).await;
    let results = answer["data"]["result"].as_array().unwrap().iter();
    let samples = |result: &Value| {
        let values = result["values"].as_array().unwrap().iter();
        let sample = |pair: &Value| {
            let time = (pair[0].as_f64().unwrap() * 1000.0).round() as i64;
            (time, pair[1].as_str().unwrap().to_owned())
        };
        values.map(sample).collect()
    };
    results.map(|result| (labels(&result["metric"]), samples(result))).collect()
}

/// All that VictoriaMetrics has.
async fn all_of_victoria(victoria: &VictoriaMetrics) -> Series {
    victoria.flush().await;
    let text =
        ask(&victoria.url("/api/v1/export"), &[("match[]", "{__name__=~\".+\"}")]).send().await.unwrap();
    let text = text.text().await.unwrap();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let times = line["timestamps"].as_array().unwrap().iter().map(|time| time.as_i64().unwrap());
        let values =
            line["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap().to_string());
        (labels(&line["metric"]), times.zip(values).collect())
    };
    text.lines().map(line).collect()
}

async fn instant(prometheus: &Prometheus, query: &str, time_ms: u64) -> Value {
    let time = format!("{}", time_ms as f64 / 1000.0);
    let query = ask(&prometheus.url("/api/v1/query"), &[("query", query), ("time", &time)]);
    json(query).await["data"]["result"].take()
}

fn any(value: any_value::Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.into(), value: Some(value), ..Default::default() }
}

fn point(attributes: Vec<KeyValue>, time_ms: u64, value: f64) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        time_unix_nano: time_ms * 1_000_000,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..Default::default()
    }
}

fn metric(name: &str, unit: &str, data: metric::Data) -> Metric {
    Metric { name: name.into(), unit: unit.into(), data: Some(data), ..Default::default() }
}

fn gauge(data_points: Vec<NumberDataPoint>) -> metric::Data {
    metric::Data::Gauge(Gauge { data_points })
}

fn sum(data_points: Vec<NumberDataPoint>, is_monotonic: bool) -> metric::Data {
    metric::Data::Sum(Sum { data_points, is_monotonic, aggregation_temporality: 2 })
}

fn request(resource: Vec<KeyValue>, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
    let resource = Some(Resource { attributes: resource, ..Default::default() });
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }],
    }
}

/// As the collector stamps it, so that both ways begin with the same.
fn resource(more: &[(&str, &str)]) -> Vec<KeyValue> {
    let identity = [("tenant.id", "local"), ("project.id", "shop")];
    identity.iter().chain(more).map(|(key, value)| attribute(key, value)).collect()
}

fn series(count: usize, time_ms: u64) -> Metric {
    let points =
        (0..count).map(|at| point(vec![attribute("series", &at.to_string())], time_ms, at as f64)).collect();
    metric("many", "", gauge(points))
}

/// Names with every unit, as every kind; keys and values of many kinds; histograms; summaries.
fn everything(time_ms: u64) -> Vec<ExportMetricsServiceRequest> {
    let names = [
        "http.server.duration",
        "plain",
        "a--b..c__d",
        "_a_",
        "5xx",
        "größe",
        "ns:metric",
        "requests.total",
        "total.bytes",
        "cpu.ratio.used",
        "speed.meters",
        "x.seconds",
        "bytes",
    ];
    let units = [
        "",
        "1",
        "s",
        "ms",
        "us",
        "ns",
        "min",
        "h",
        "d",
        "By",
        "KiBy",
        "MiBy",
        "GiBy",
        "TiBy",
        "KBy",
        "MBy",
        "GBy",
        "TBy",
        "m",
        "V",
        "A",
        "J",
        "W",
        "g",
        "Cel",
        "Hz",
        "%",
        "{request}",
        "{request}/s",
        "By/s",
        "m/s",
        "m/min",
        "1/s",
        "/s",
        "m/",
        "m/{turn}",
        "foo.bar",
        "foo/bar.baz",
        " s ",
        "°",
        "m/°",
        "By/d",
        "W/mo",
        "m/s/h",
    ];
    let mut metrics = Vec::new();
    for name in names {
        for unit in units {
            let kinds = [gauge as fn(_) -> _, |points| sum(points, true), |points| sum(points, false)];
            for (kind, data) in kinds.into_iter().enumerate() {
                // A series of its own, also where two names become one.
                let own = vec![attribute("was", &format!("{name} {unit} {kind}"))];
                metrics.push(metric(name, unit, data(vec![point(own, time_ms, kind as f64 + 0.5)])));
            }
        }
    }
    let list = ArrayValue {
        values: vec![
            any(any_value::Value::IntValue(7)),
            any(any_value::Value::StringValue("a\"\\<&>\n\u{1}\u{2028}é".into())),
            any(any_value::Value::DoubleValue(1e-9)),
            any(any_value::Value::BytesValue(vec![0, 255])),
        ],
    };
    let map = KeyValueList {
        values: vec![
            pair("z", any(any_value::Value::BoolValue(true))),
            pair("a", any(any_value::Value::IntValue(1))),
        ],
    };
    let odd: Vec<(&str, any_value::Value)> = vec![
        ("a.b", any_value::Value::StringValue("1".into())),
        ("a-b", any_value::Value::StringValue("2".into())),
        ("a_b", any_value::Value::StringValue("3".into())),
        ("Größe", any_value::Value::StringValue("grüße".into())),
        ("5", any_value::Value::IntValue(i64::MIN)),
        ("_hidden", any_value::Value::BoolValue(false)),
        (".hidden", any_value::Value::DoubleValue(0.1)),
        ("a..b", any_value::Value::DoubleValue(1e21)),
        ("small", any_value::Value::DoubleValue(1.5e-7)),
        ("inf", any_value::Value::DoubleValue(f64::NEG_INFINITY)),
        ("bytes", any_value::Value::BytesValue(vec![0, 255, 1])),
        ("list", any_value::Value::ArrayValue(list)),
        ("map", any_value::Value::KvlistValue(map)),
        ("empty", any_value::Value::StringValue(String::new())),
        ("__reserved", any_value::Value::StringValue("r".into())),
        ("__name__", any_value::Value::StringValue("n".into())),
        ("Z", any_value::Value::StringValue("upper".into())),
        ("le", any_value::Value::StringValue("mine".into())),
        ("job", any_value::Value::StringValue("mine".into())),
    ];
    let odd: Vec<KeyValue> = odd.into_iter().map(|(key, value)| pair(key, any(value))).collect();
    let buckets = |bounds: Vec<f64>, sum: Option<f64>| HistogramDataPoint {
        attributes: odd.clone(),
        time_unix_nano: time_ms * 1_000_000,
        count: 10,
        sum,
        bucket_counts: vec![1; bounds.len() + 1],
        explicit_bounds: bounds,
        ..Default::default()
    };
    let histogram =
        |point| metric::Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality: 2 });
    let quantile = |quantile| ValueAtQuantile { quantile, value: quantile * 10.0 };
    let summary = SummaryDataPoint {
        attributes: odd.clone(),
        time_unix_nano: time_ms * 1_000_000,
        count: 3,
        sum: 12.5,
        quantile_values: [0.0, 0.5, 0.999, 1.0].map(quantile).into(),
        ..Default::default()
    };
    metrics.extend([
        metric("odd", "", gauge(vec![point(odd.clone(), time_ms, 1.0)])),
        metric("latency", "s", histogram(buckets(vec![0.005, 0.01, 1.0, 2.5, 1e7, 1e22], Some(2.5)))),
        metric("no.sum", "", histogram(buckets(vec![-1.0, 0.0], None))),
        metric("no.buckets", "", histogram(buckets(vec![], Some(1.0)))),
        metric("gc", "ms", metric::Data::Summary(Summary { data_points: vec![summary] })),
    ]);
    let value = || vec![metric("alone", "", gauge(vec![point(vec![], time_ms, 3.0)]))];
    vec![
        request(
            resource(&[
                ("service.name", "shop"),
                ("service.namespace", "eu"),
                ("service.instance.id", "i"),
                ("host.name", "h"),
                ("host-name", "g"),
            ]),
            metrics,
        ),
        request(resource(&[("service.name", "lone")]), value()),
        request(resource(&[("service.instance.id", "only")]), value()),
        request(resource(&[("host.name", "nobody")]), value()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_is_what_prometheus_makes_of_the_same_otlp_and_what_victoria_metrics_has() {
    const OTLP: &str = "otlp: { promote_resource_attributes: [tenant.id, project.id] }";
    let (prometheus, victoria) = (Prometheus::start().await, VictoriaMetrics::start().await);
    let own = Prometheus::start_with(OTLP).await;
    let world = collector(&[prometheus.remote_write(), victoria.remote_write()], "").await;
    for request in everything(now_ms() - 60_000) {
        let client = crate::world::client();
        let sent = client.post(own.url("/api/v1/otlp/v1/metrics"));
        let sent = sent.header("content-type", "application/x-protobuf").body(request.encode_to_vec());
        let answer = sent.send().await.unwrap();
        assert!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await.unwrap());
        deliver(&world, request, 2).await;
    }
    let (ours, theirs) = (all_of(&prometheus).await, all_of(&own).await);
    assert!(theirs.len() > 1700, "{}", theirs.len());
    let only = |some: &Series, other: &Series| -> Vec<String> {
        let of_other = |labels| other.get(labels);
        let differs = some.iter().filter(|(labels, samples)| of_other(labels) != Some(samples));
        differs.map(|(labels, samples)| format!("{labels:?} {samples:?}")).take(10).collect()
    };
    assert_eq!(only(&ours, &theirs), Vec::<String>::new(), "only ours; theirs: {:#?}", only(&theirs, &ours));
    assert_eq!(only(&theirs, &ours), Vec::<String>::new(), "only theirs");

    let kept = all_of_victoria(&victoria).await;
    assert_eq!(only(&ours, &kept), Vec::<String>::new(), "not in VictoriaMetrics: {:#?}", only(&kept, &ours));
    assert_eq!(ours.len(), kept.len());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_and_quantiles_are_equal_by_promql_on_both() {
    let (prometheus, victoria) = (Prometheus::start().await, VictoriaMetrics::start().await);
    let world = collector(&[prometheus.remote_write(), victoria.remote_write()], "").await;
    let end = now_ms() - 120_000;
    for step in 0..5u64 {
        let time = end - (4 - step) * 15_000;
        let buckets = HistogramDataPoint {
            time_unix_nano: time * 1_000_000,
            count: 10 * step,
            sum: Some(5.0 * step as f64),
            bucket_counts: vec![2 * step, 6 * step, 2 * step],
            explicit_bounds: vec![0.1, 1.0],
            ..Default::default()
        };
        let histogram = Histogram { data_points: vec![buckets], aggregation_temporality: 2 };
        let metrics = vec![
            metric("requests", "{r}", sum(vec![point(vec![], time, 100.0 * step as f64)], true)),
            metric("latency", "s", metric::Data::Histogram(histogram)),
        ];
        deliver(&world, request(resource(&[("service.name", "shop")]), metrics), 2).await;
    }
    victoria.flush().await;
    for (query, expected) in [
        ("requests_total{job=\"shop\",tenant_id=\"local\"}", 400.0),
        ("increase(requests_total[30s])", 200.0),
        ("latency_seconds_count", 40.0),
        ("latency_seconds_sum / latency_seconds_count", 0.5),
        ("latency_seconds_bucket{le=\"1\"}", 32.0),
        ("histogram_quantile(0.5, latency_seconds_bucket)", 0.55),
        ("count(target_info{project_id=\"shop\"})", 1.0),
    ] {
        for url in [prometheus.url("/api/v1/query"), victoria.url("/api/v1/query")] {
            let time = format!("{}", end as f64 / 1000.0);
            let answer = json(ask(&url, &[("query", query), ("time", &time)])).await;
            let value = answer["data"]["result"][0]["value"][1].as_str();
            let value: f64 = value.unwrap_or_else(|| panic!("{query} at {url}: {answer}")).parse().unwrap();
            // `increase` extrapolates in one of them and not in the other.
            let slack = if query.starts_with("increase") { 0.51 } else { 1e-9 };
            assert!((value - expected).abs() <= slack * expected, "{query} at {url}: {value}");
        }
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exemplars_lead_to_their_traces() {
    let prometheus = Prometheus::start().await;
    let world = collector(&[prometheus.remote_write()], "").await;
    let time = now_ms() - 30_000;
    let exemplar = |id: u8, value: f64| Exemplar {
        trace_id: vec![id; 16],
        span_id: vec![id; 8],
        time_unix_nano: (time - u64::from(id)) * 1_000_000,
        value: Some(exemplar::Value::AsDouble(value)),
        filtered_attributes: vec![attribute("user.id", "7")],
    };
    let buckets = HistogramDataPoint {
        time_unix_nano: time * 1_000_000,
        count: 3,
        bucket_counts: vec![1, 1, 1],
        explicit_bounds: vec![0.1, 1.0],
        exemplars: vec![exemplar(0x11, 0.5), exemplar(0x22, 9.0)],
        ..Default::default()
    };
    let histogram = Histogram { data_points: vec![buckets], aggregation_temporality: 2 };
    let counted = NumberDataPoint { exemplars: vec![exemplar(0x33, 1.0)], ..point(vec![], time, 5.0) };
    let metrics = vec![
        metric("latency", "s", metric::Data::Histogram(histogram)),
        metric("hits", "", sum(vec![counted], true)),
    ];
    deliver(&world, request(resource(&[]), metrics), 1).await;
    let (start, end) = (format!("{}", time / 1000 - 60), format!("{}", time / 1000 + 60));
    let pairs = [("query", "{__name__=~\".+\"}"), ("start", &start), ("end", &end)];
    let query = ask(&prometheus.url("/api/v1/query_exemplars"), &pairs);
    let answer = json(query).await;
    let mut found: Vec<String> = answer["data"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|series| {
            let name = series["seriesLabels"]["__name__"].as_str().unwrap();
            let bound = series["seriesLabels"]["le"].as_str().unwrap_or("-");
            let exemplars = series["exemplars"].as_array().unwrap().iter();
            exemplars.map(move |exemplar| {
                let labels = labels(&exemplar["labels"]);
                format!("{name} {bound} {} {} {}", labels["trace_id"], labels["user_id"], exemplar["value"])
            })
        })
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "hits_total - 33333333333333333333333333333333 7 \"1\"",
            "latency_seconds_bucket +Inf 22222222222222222222222222222222 7 \"9\"",
            "latency_seconds_bucket 1 11111111111111111111111111111111 7 \"0.5\"",
        ]
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_marker_ends_its_series_at_once_and_no_other() {
    let prometheus = Prometheus::start().await;
    let world = collector(&[prometheus.remote_write()], "").await;
    let time = now_ms() - 60_000;
    let own = |name: &str| vec![attribute("series", name)];
    let metrics =
        vec![metric("g", "", gauge(vec![point(own("ended"), time, 1.0), point(own("alive"), time, 2.0)]))];
    deliver(&world, request(resource(&[]), metrics), 1).await;
    assert_eq!(instant(&prometheus, "g", time + 20_000).await.as_array().unwrap().len(), 2);
    let ended = NumberDataPoint { flags: 1, value: None, ..point(own("ended"), time + 10_000, 0.0) };
    let nan = point(own("nan"), time + 10_000, f64::from_bits(0x7ff0_0000_0000_0002));
    deliver(&world, request(resource(&[]), vec![metric("g", "", gauge(vec![ended, nan]))]), 1).await;
    let left = instant(&prometheus, "g", time + 20_000).await;
    let mut left: Vec<&str> =
        left.as_array().unwrap().iter().map(|series| series["metric"]["series"].as_str().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["alive", "nan"]);
    world.end().await;
}

/// The counts of a sink in `/metrics` by result, of those that are not zero.
async fn counts(world: &World) -> Vec<String> {
    let text = world.metrics().await;
    let is_of_sink = |line: &&str| {
        line.starts_with("trommel_ledger_") && line.contains("sink=\"m0\"") && !line.ends_with(" 0")
    };
    let mut lines: Vec<String> = text.lines().filter(is_of_sink).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn one_series_out_of_order_among_500_costs_itself_alone() {
    let prometheus = Prometheus::start().await;
    let world = collector(&[prometheus.remote_write()], "").await;
    let time = now_ms() - 60_000;
    let newer = metric("many", "", gauge(vec![point(vec![attribute("series", "137")], time + 9000, -1.0)]));
    let shop = || resource(&[("service.name", "shop")]);
    deliver(&world, request(shop(), vec![newer]), 1).await;
    deliver(&world, request(shop(), vec![series(500, time)]), 1).await;
    let counted = instant(&prometheus, "count(many)", time + 1000).await;
    assert_eq!(counted[0]["value"][1], "499");
    deliver(&world, request(shop(), vec![series(500, time + 20_000)]), 1).await;
    let counted = instant(&prometheus, "count(many)", time + 21_000).await;
    assert_eq!(counted[0]["value"][1], "500", "the next good ones");
    let counts = counts(&world).await;
    let delivered = counts.iter().any(|line| line.contains("delivered") && line.ends_with(" 1000"));
    let rejected = counts.iter().any(|line| line.contains("out_of_order") && line.ends_with(" 1"));
    assert!(delivered && rejected, "{counts:#?}");
    world.end().await;
}

/// Between the collector and Prometheus: passes requests on, and keeps the first answer for itself.
async fn losing_the_first_answer(target: String) -> (String, Arc<AtomicU32>, tokio::task::JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/api/v1/write", listener.local_addr().unwrap());
    let seen = Arc::new(AtomicU32::new(0));
    let (count, client) = (seen.clone(), crate::world::client());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (count, client, target) = (count.clone(), client.clone(), target.clone());
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let (count, client, target) = (count.clone(), client.clone(), target.clone());
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let sent = client.post(target).headers(head.headers).body(body).send().await.unwrap();
                    let (status, text) = (sent.status(), sent.bytes().await.unwrap());
                    if count.fetch_add(1, Ordering::Relaxed) == 0 {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, Infallible>(
                        http::Response::builder()
                            .status(status)
                            .body(Full::<bytes::Bytes>::from(text))
                            .unwrap(),
                    )
                }
            });
            connections.spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    (address, seen, tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_when_the_answer_was_lost_is_presumed_and_there_once() {
    let prometheus = Prometheus::start().await;
    let (address, seen, _tasks) = losing_the_first_answer(prometheus.remote_write()).await;
    let world = collector(&[address], ", timeout: 1s").await;
    let time = now_ms() - 60_000;
    // Several samples for each series: sent again, Prometheus calls them out of order.
    let metrics = (0..3).map(|at| series(200, time + at * 1000)).collect();
    deliver(&world, request(resource(&[("service.name", "shop")]), metrics), 1).await;
    let presumed = world.metric("trommel_deliver_presumed_records_total{sink=\"m0\"}").await;
    assert_eq!(presumed, Some(600.0));
    assert_eq!(seen.load(Ordering::Relaxed), 5, "the lost one, the same again, three series");
    let all = all_of(&prometheus).await;
    let many = all.iter().filter(|(labels, _)| labels["__name__"] == "many");
    assert!(many.clone().count() == 200 && many.clone().all(|(_, samples)| samples.len() == 3));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_that_are_empty_or_twice_or_no_utf_8_do_not_cost_their_point() {
    let (prometheus, victoria) = (Prometheus::start().await, VictoriaMetrics::start().await);
    let world = collector(&[prometheus.remote_write(), victoria.remote_write()], "").await;
    let time = now_ms() - 60_000;
    let own = vec![
        attribute("", "empty"),
        attribute("...", "dots"),
        attribute("a.b", "1"),
        attribute("a_b", "2"),
        attribute("a_b", "3"),
        attribute("kkkk", "vvvv"),
    ];
    let request = request(resource(&[]), vec![metric("g", "", gauge(vec![point(own, time, 1.0)]))]);
    let mut bytes = request.encode_to_vec();
    for at in 0..bytes.len() - 3 {
        if matches!(&bytes[at..at + 4], b"kkkk" | b"vvvv") {
            bytes[at + 1] = 0xff;
        }
    }
    // A generated client would not send it.
    let answer = raw_export(&world, bytes).await;
    assert_eq!(answer, 0, "grpc-status");
    let expected = Series::from([(
        [
            ("__name__", "g"),
            ("a_b", "1;2;3"),
            ("k_kk", "v\u{fffd}vv"),
            ("project_id", "shop"),
            ("tenant_id", "local"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        vec![(time as i64, "1".to_owned())],
    )]);
    eventually("it is in Prometheus", || async { !all_of(&prometheus).await.is_empty() }).await;
    assert_eq!(all_of(&prometheus).await, expected);
    eventually("it is in VictoriaMetrics", || async { !all_of_victoria(&victoria).await.is_empty() }).await;
    assert_eq!(all_of_victoria(&victoria).await, expected);
    world.end().await;
}

/// Sends these bytes as an export of metrics; the answer's `grpc-status`.
async fn raw_export(world: &World, message: Vec<u8>) -> u32 {
    let socket = tokio::net::TcpStream::connect(world.grpc()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let _ = connection.await;
    });
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend_from_slice(&message);
    let path = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    let request = http::Request::post(format!("http://{}{path}", world.grpc()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::<bytes::Bytes>::from(body))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = |headers: &http::HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse().ok();
    if let Some(status) = status(answer.headers()) {
        return status;
    }
    let collected = answer.into_body().collect().await.unwrap();
    collected.trailers().and_then(status).expect("a grpc-status")
}
