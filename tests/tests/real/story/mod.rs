//! The whole story: two clients' applications, one collector with `examples/platform`, every destination real.
//!
//! What the applications meant is read back by programs that know nothing of the collector: PyMongo, PromQL, Jaeger's
//! API, the history of Telegram's test server, and grep over the bytes on disk.

mod applications;
mod people;
mod platform;
mod recorder;
mod stores;
mod storm;

use crate::real::servers::{Entrance, FerretDb, Jaeger, MongoWire, Server, VictoriaMetrics};
use crate::world::{Tail, read_history};
use applications::{Application, Client, MAILER, SHOP, Told};
use people::assert_nobody_in;
use platform::{BOT, CHAT, Collector, Platform};
use recorder::{Broken, Call};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;
use stores::in_order;
use storm::Usual;

/// Each makes three lines, a trace of three spans, a count and a value.
const REQUESTS: usize = 40;

/// So many windows of 10 s as the baseline of `anomaly` needs, and one that began before.
const BASELINE: Duration = Duration::from_secs(80);

/// Asks until the answer is there; else tells what was waited for, and what was seen last.
async fn waiting<T>(what: &str, within: Duration, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let until = tokio::time::Instant::now() + within;
    loop {
        match ask().await {
            Ok(found) => return found,
            Err(seen) => {
                assert!(
                    tokio::time::Instant::now() < until,
                    "{what}: not within {within:?}. Last seen: {seen}"
                );
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_applications_a_storm_of_errors_and_every_destination() {
    let mut platform = Platform::start().await;
    let usual = Usual::start(&platform.collector).await;
    let began = tokio::time::Instant::now();

    let (shop, mailer) = run_applications(&platform.collector).await;
    for (client, told) in [(&SHOP, &shop), (&MAILER, &mailer)] {
        check_history(&platform.collector, client, told).await;
        stores::check_documents(&platform.ferret.uri, client, told).await;
        stores::check_traces(&platform.jaeger, client, told).await;
        stores::check_metrics(&platform.prometheus, &platform.victoria, client, told).await;
    }
    // Of the two SDKs Python's alone sends exemplars.
    stores::check_exemplars(&platform.prometheus, &SHOP, &shop).await;
    check_that_nobody_reads_anothers(&platform.collector).await;

    tokio::time::sleep_until(began + BASELINE).await;
    let took = storm::rage(&platform.collector).await;
    assert!(took < Duration::from_secs(30), "100,000 errors within seconds: {took:?}");
    check_incident(&platform).await;

    let usual = usual.stop().await;
    check_ledger(&platform.collector, &shop, &mailer, usual).await;
    let code = platform.collector.server.terminate().await;
    assert_eq!(
        code,
        Some(0),
        "the collector on SIGTERM; its log ends with\n{}",
        end_of(&platform.collector.server)
    );
    check_disks(&platform);
}

/// mongo-java-server is of another make than FerretDB: what it keeps must be the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_lines_are_the_same_in_another_database_of_mongodbs_kind() {
    let mongo = MongoWire::start().await;
    let mut collector = Collector::start(&[("MONGODB_URI", mongo.uri.clone())]).await;
    let (shop, mailer) = run_applications(&collector).await;
    for (client, told) in [(&SHOP, &shop), (&MAILER, &mailer)] {
        check_history(&collector, client, told).await;
        stores::check_documents(&mongo.uri, client, told).await;
    }
    assert_eq!(collector.server.terminate().await, Some(0), "on SIGTERM:\n{}", end_of(&collector.server));
}

/// MongoDB is away, Prometheus answers 500 for ever, Telegram is dead: Jaeger and VictoriaMetrics have everything,
/// nothing is unaccounted, and when MongoDB is back it has every line, once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn destinations_that_are_down_harm_no_other() {
    let (jaeger, victoria, mut ferret) =
        tokio::join!(Jaeger::start(), VictoriaMetrics::start(), FerretDb::start(Entrance::Plain));
    let broken = Broken::start().await;
    let mut collector = Collector::start(&[
        ("MONGODB_URI", ferret.uri.clone()),
        ("JAEGER_ENDPOINT", format!("http://127.0.0.1:{}", jaeger.otlp_grpc)),
        ("PROMETHEUS_ENDPOINT", format!("http://{}/api/v1/write", broken.address)),
        ("VICTORIAMETRICS_ENDPOINT", victoria.remote_write()),
    ])
    .await;
    ferret.server.kill();
    let (shop, mailer) = work(&collector).await;
    for (client, told) in [(&SHOP, &shop), (&MAILER, &mailer)] {
        stores::check_traces(&jaeger, client, told).await;
        stores::check_victoria(&victoria, client, told).await;
    }
    let ledger = Ledger::of(&collector).await;
    ledger.assert_accounted();
    for (client, told) in [(&SHOP, &shop), (&MAILER, &mailer)] {
        let of = |signal, sink| [("tenant", client.tenant), ("signal", signal), ("sink", sink)];
        assert_eq!(ledger.value("in_flight", &of("logs", "streams")), told.lines as i64);
        assert_eq!(ledger.value("in_flight", &of("traces", "jaeger")), 0);
        assert!(ledger.value("in_flight", &of("metrics", "prometheus")) > 0);
        assert_eq!(ledger.value("in_flight", &of("metrics", "victoriametrics")), 0);
    }
    ferret.server.start().await;
    for (client, told) in [(&SHOP, &shop), (&MAILER, &mailer)] {
        stores::check_documents(&ferret.uri, client, told).await;
        check_history(&collector, client, told).await;
    }
    Ledger::of(&collector).await.assert_accounted();
    assert!(broken.requests() > 1, "Prometheus was tried again");
    assert_eq!(collector.server.terminate().await, Some(0), "on SIGTERM:\n{}", end_of(&collector.server));
}

/// Both applications at once, each with a viewer that is there from the start; what they counted.
async fn run_applications(collector: &Collector) -> (Told, Told) {
    let tails = (follow(collector, &SHOP).await, follow(collector, &MAILER).await);
    let (shop, mailer) = work(collector).await;
    tokio::join!(check_tail(tails.0, &SHOP, &shop), check_tail(tails.1, &MAILER, &mailer));
    (shop, mailer)
}

/// Both applications serve their requests and send what they have to tell.
async fn work(collector: &Collector) -> (Told, Told) {
    let (shop, mailer) = tokio::join!(Application::shop(collector), Application::mailer(collector));
    tokio::join!(shop.serve(REQUESTS), mailer.serve(REQUESTS));
    let (shop, mailer) = tokio::join!(shop.stop(), mailer.stop());
    for told in [&shop, &mailer] {
        assert_eq!((told.lines, told.traces.len(), told.recorded.len()), (3 * REQUESTS, REQUESTS, REQUESTS));
    }
    (shop, mailer)
}

async fn follow(collector: &Collector, client: &Client) -> Tail {
    let url = collector.stream(client.tenant, client.project, "tail");
    Tail::open(&crate::world::client(), &url, Some(client.token), None).await
}

/// The viewer saw every line once, in order, and nothing else.
async fn check_tail(mut tail: Tail, client: &Client, told: &Told) {
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    let mut bodies = Vec::new();
    while bodies.len() < told.lines {
        let event = tokio::time::timeout_at(until, tail.next()).await;
        let seen = (bodies.len(), told.lines);
        let event = event.unwrap_or_else(|_| panic!("live, {}: {seen:?} lines within 30 s", client.tenant));
        let event =
            event.unwrap_or_else(|| panic!("the tail of {} ended after {seen:?} lines", client.tenant));
        match event.kind.as_str() {
            "log" => bodies.push(event.data["body"].clone()),
            "alive" => {}
            other => panic!("the tail of {} has an event `{other}`: {}", client.tenant, event.data),
        }
        assert_nobody_in("a tail", &event.data.to_string());
    }
    in_order(client, &bodies, told.lines).unwrap_or_else(|wrong| panic!("live: {wrong}"));
}

async fn check_history(collector: &Collector, client: &Client, told: &Told) {
    let http = crate::world::client();
    let url = collector.stream(client.tenant, client.project, "logs");
    let what = format!("the history of {}", client.tenant);
    let records = waiting(&what, Duration::from_secs(30), async || {
        let records = read_history(&http, &url, Some(client.token)).await;
        let records = records.map_err(|error| error.to_string())?;
        let bodies: Vec<Value> = records.iter().map(|record| record["body"].clone()).collect();
        in_order(client, &bodies, told.lines).map(|()| records)
    })
    .await;
    assert_nobody_in(&what, &Value::from(records).to_string());
}

async fn check_that_nobody_reads_anothers(collector: &Collector) {
    let http = crate::world::client();
    for (client, token) in [(&SHOP, MAILER.token), (&MAILER, SHOP.token)] {
        for what in ["logs", "tail"] {
            let url = collector.stream(client.tenant, client.project, what);
            let answer = http.get(url).bearer_auth(token).send().await.unwrap();
            assert_eq!(answer.status(), 404, "{what} of {} for somebody else", client.tenant);
        }
    }
}

/// One message, which grew at most a few times, had the exact count, and says at the end that it is over.
async fn check_incident(platform: &Platform) {
    let calls = waiting("the incident is resolved", Duration::from_secs(180), async || {
        let calls = of_incident(&platform.recorder.calls());
        let last = calls.last().map(|call| call.text().to_lowercase()).unwrap_or_default();
        if last.contains("resolved") { Ok(calls) } else { Err(shown(&platform.recorder.calls())) }
    })
    .await;
    let all = shown(&platform.recorder.calls());
    assert_eq!(platform.recorder.calls().len(), calls.len(), "calls for something else:\n{all}");
    assert!(calls.len() <= 5, "{} calls for one incident:\n{all}", calls.len());
    assert_eq!(calls[0].method, "sendMessage", "{all}");
    assert!(calls[1..].iter().all(|call| call.method == "editMessageText"), "{all}");
    for call in &calls {
        assert_eq!(call.body["chat_id"].as_str().unwrap_or(&call.body["chat_id"].to_string()), CHAT, "{all}");
        assert_eq!(call.body["parse_mode"], "HTML", "{all}");
        assert_nobody_in("a message", call.text());
    }
    let last = calls.last().expect("resolved");
    let count = storm::ERRORS.to_string();
    let digits = last.text().replace([',', '\u{a0}', '\u{202f}', '\''], "");
    let numbers: Vec<&str> = digits.split(|letter: char| !letter.is_ascii_digit()).collect();
    assert!(numbers.contains(&count.as_str()), "the last edit does not say {count}:\n{all}");

    // What the server of Telegram keeps is what a person sees.
    let kept = platform.telegram.history(BOT).await;
    let message = kept.iter().filter(|update| update.to_string().contains(storm::SERVICE));
    assert!(message.count() >= 1, "the message of {} in {kept:?}", storm::SERVICE);
}

/// The calls for the message of the storm: the first that names the service and its errors, and the edits of it.
fn of_incident(calls: &[Call]) -> Vec<Call> {
    let is_first = |call: &&Call| call.method == "sendMessage" && call.text().contains(storm::SERVICE);
    let Some(message) = calls.iter().find(is_first).and_then(Call::message) else { return Vec::new() };
    calls.iter().filter(|call| call.message() == Some(message)).cloned().collect()
}

fn shown(calls: &[Call]) -> String {
    calls.iter().fold(String::new(), |mut all, call| {
        let _ = writeln!(all, "{} {:?}: {}", call.method, call.message(), call.text());
        all
    })
}

/// Every record is where it belongs, none is lost, and nothing is unaccounted, as `/metrics` says.
async fn check_ledger(collector: &Collector, shop: &Told, mailer: &Told, usual: u64) {
    let url = collector.console("/metrics");
    let http = crate::world::client();
    let text = waiting("every sink has taken everything", Duration::from_secs(120), async || {
        let text = http.get(&url).send().await.unwrap().text().await.unwrap();
        let ledger = Ledger::read(&text);
        let waiting: Vec<_> = ledger.lines("in_flight").filter(|(_, records)| *records != 0).collect();
        if waiting.is_empty() { Ok(text) } else { Err(format!("{waiting:?}")) }
    })
    .await;
    let ledger = Ledger::read(&text);
    ledger.assert_accounted();
    let losses = [
        "dropped",
        "unrouted",
        "rejected",
        "dead_lettered",
        "unsupported",
        "expired",
        "cancelled",
        "filtered",
    ];
    for lost in losses {
        let lost: Vec<_> = ledger.lines(lost).filter(|(_, records)| *records != 0).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
    let logs = [shop.lines as i64 + usual as i64 + storm::ERRORS as i64, mailer.lines as i64];
    for (tenant, logs) in [SHOP.tenant, MAILER.tenant].into_iter().zip(logs) {
        for (signal, sinks, records) in [
            ("logs", &["streams"][..], Some(logs)),
            ("traces", &["jaeger"][..], Some(3 * REQUESTS as i64)),
            ("metrics", &["prometheus", "victoriametrics"][..], None),
        ] {
            let of = [("tenant", tenant), ("signal", signal)];
            let acknowledged = ledger.value("acknowledged", &of);
            assert!(acknowledged > 0, "{tenant}, {signal}");
            assert_eq!(acknowledged, records.unwrap_or(acknowledged), "{tenant}, {signal}");
            for line in ["received", "acknowledged"] {
                assert_eq!(ledger.value("unaccounted", &[of[0], of[1], ("line", line)]), 0);
            }
            for sink in sinks {
                let delivered = ledger.value("delivered", &[of[0], of[1], ("sink", sink)]);
                assert_eq!(delivered, acknowledged, "{tenant}, {signal}, {sink}");
                assert_eq!(ledger.value("unaccounted", &[of[0], of[1], ("line", "sink"), ("sink", sink)]), 0);
            }
        }
    }
}

/// The lines of `/metrics` that are the ledger's: name and labels, and the records.
struct Ledger(Vec<(String, BTreeMap<String, String>, i64)>);

impl Ledger {
    async fn of(collector: &Collector) -> Ledger {
        let answer = crate::world::client().get(collector.console("/metrics")).send().await.unwrap();
        Ledger::read(&answer.text().await.unwrap())
    }

    /// What unaccounted lines there are is zero, and there are some for each signal.
    fn assert_accounted(&self) {
        let wrong: Vec<_> = self.lines("unaccounted").filter(|(_, records)| *records != 0).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        for signal in ["logs", "traces", "metrics"] {
            assert!(
                self.lines("unaccounted").any(|(labels, _)| labels["signal"] == signal),
                "none of {signal}"
            );
        }
    }

    fn read(text: &str) -> Ledger {
        let lines = text.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("trommel_ledger_")?.split_once('{')?;
            let (labels, value) = rest.rsplit_once("} ")?;
            let name = name.trim_end_matches("_total").trim_end_matches("_records").to_owned();
            let labels = labels.split("\",").filter_map(|label| label.split_once("=\""));
            let labels = labels.map(|(key, value)| (key.to_owned(), value.trim_end_matches('"').to_owned()));
            Some((name, labels.collect(), value.parse().expect("a whole number of records")))
        });
        Ledger(lines.collect())
    }

    fn lines<'l>(&'l self, name: &'l str) -> impl Iterator<Item = (&'l BTreeMap<String, String>, i64)> {
        let lines = self.0.iter().filter(move |line| line.0 == name);
        lines.map(|(_, labels, records)| (labels, *records))
    }

    /// The one line that has these labels; that there is none fails too.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> i64 {
        let has = |line: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| line.get(*key).map(String::as_str) == Some(value))
        };
        let found: Vec<i64> =
            self.lines(name).filter(|(line, _)| has(line)).map(|(_, records)| records).collect();
        let [records] = found[..] else { panic!("{name} {labels:?} stands {} times", found.len()) };
        records
    }
}

/// Nobody's address, no card and no secret is in any file of any server; and the search would have found it.
fn check_disks(platform: &Platform) {
    for (whose, folder) in platform.folders() {
        let found = people::files_with(folder, &people::needles());
        assert!(found.is_empty(), "{whose} has somebody's data in {found:?}");
        if whose != "the server of Telegram" {
            let found = people::files_with(folder, &[BOT, &BOT[7..]]);
            assert!(found.is_empty(), "{whose} has the bot's token in {found:?}");
        }
    }
    let kept = people::files_with(platform.ferret.server.folder(), &[SHOP.marker, MAILER.marker]);
    assert!(kept.iter().any(|file| file.contains("/data/")), "the lines themselves are in FerretDB's files");
    let log = platform.collector.server.log();
    assert!(log.lines().count() > 5, "the collector's log is empty:\n{log}");
    for content in [SHOP.marker, MAILER.marker, SHOP.token, MAILER.token, ":secret@"] {
        assert!(!log.contains(content), "the collector's log has `{content}`:\n{log}");
    }
}

fn end_of(server: &Server) -> String {
    let log = server.log();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
