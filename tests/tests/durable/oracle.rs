//! The conservation oracle: senders as SDKs are, and what must be true of all that they sent.
//!
//! Every attempt to send has a number of its own, which stands in each of its records. What was not answered is sent
//! again as another attempt. In the end every record of an acknowledged attempt is in the store once and at the other
//! sink at least once; of any other attempt, all records or none, in the store at most once.

use crate::durable::backend::Reached;
use crate::world::{read_history, resource_logs, sha256, with_token};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// Whose the records are; a request has some for several of them.
pub const STREAMS: [(&str, &str); 4] =
    [("acme", "shop"), ("acme", "blog"), ("globex", "web"), ("initech", "default")];
/// What makes a request large: these records go to the backend alone, and nobody looks for them.
const BALLAST: (&str, &str) = ("ballast", "default");
/// Columns of a sink in the ledger.
const LOST: [&str; 3] = ["rejected", "dead_lettered", "expired"];
const AGENT: &str = "agent-token";
const ADMIN: &str = "admin-token";

/// A collector with a journal on disk, a store and a backend. `more` are lines of their own.
pub fn yaml(grpc: &str, console: &str, backend: &str, more: &str) -> String {
    let readers: String = ["acme", "globex", "initech"]
        .iter()
        .map(|tenant| {
            let token = sha256(&reader(tenant));
            format!("    - {{ sha256: \"{token}\", tenant: {tenant}, projects: [\"*\"], rights: [read] }}\n")
        })
        .collect();
    let (agent, admin) = (sha256(AGENT), sha256(ADMIN));
    format!(
        r#"
receivers: {{ otlp: {{ grpc: {{ listen: {grpc} }}, body_max: 4MiB }} }}
console: {{ listen: {console} }}
identity:
  tokens:
    - {{ sha256: "{agent}", speaks_for: ["*"], rights: [send] }}
    - {{ sha256: "{admin}", rights: [admin] }}
{readers}pipelines:
  - {{ name: ballast, when: {{ tenant: [ballast] }}, sinks: [backend] }}
  - {{ name: logs, when: {{ signal: logs }}, sinks: [streams, backend] }}
sinks:
  streams: {{ type: streams }}
  backend: {{ type: otlp, protocol: http, compression: none, endpoint: "{backend}" }}
{more}
"#
    )
}

fn reader(tenant: &str) -> String {
    format!("{tenant}-token")
}

/// splitmix64
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }
}

/// What stands in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp {
    attempt: u64,
    record: u32,
    of: u32,
}

impl Stamp {
    pub fn parse(body: &str) -> Option<Stamp> {
        let (attempt, record) = body.strip_prefix("attempt=")?.split_once(" record=")?;
        let (record, of) = record.split_once('/')?;
        Some(Stamp { attempt: attempt.parse().ok()?, record: record.parse().ok()?, of: of.parse().ok()? })
    }

    fn body(self) -> String {
        format!("attempt={} record={}/{}", self.attempt, self.record, self.of)
    }

    /// An attempt goes to one, two or three streams.
    fn stream(self) -> (&'static str, &'static str) {
        let spread = 1 + self.attempt % 3;
        STREAMS[((self.attempt / 3 + u64::from(self.record) % spread) % STREAMS.len() as u64) as usize]
    }
}

/// All attempts, by their numbers.
#[derive(Default)]
pub struct Oracle {
    attempts: Mutex<Vec<Attempt>>,
    /// Goes on with each question and each answer.
    moments: AtomicU64,
    acknowledged: AtomicU64,
}

struct Attempt {
    records: u32,
    has_ballast: bool,
    asked: u64,
    /// Acknowledged.
    answered: Option<u64>,
}

/// A record in the store.
struct Stored {
    stamp: Stamp,
    stream: (&'static str, &'static str),
    node: [u8; 4],
    time_ms: u64,
    number: u64,
}

impl Oracle {
    /// So many attempts were answered with yes.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    pub fn attempts(&self) -> usize {
        self.attempts.lock().unwrap().len()
    }

    fn moment(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::SeqCst)
    }

    fn ask(&self, records: u32, has_ballast: bool) -> u64 {
        let mut attempts = self.attempts.lock().unwrap();
        attempts.push(Attempt { records, has_ballast, asked: self.moment(), answered: None });
        attempts.len() as u64 - 1
    }

    fn note_yes(&self, attempt: u64) {
        self.attempts.lock().unwrap()[attempt as usize].answered = Some(self.moment());
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
    }

    /// One attempt. An error may mean anything: only a yes is a promise.
    pub async fn attempt(
        &self,
        client: &mut LogsServiceClient<Channel>,
        records: u32,
        ballast: &str,
    ) -> Result<(), tonic::Status> {
        let attempt = self.ask(records, !ballast.is_empty());
        let mut bodies: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
        for record in 0..records {
            let stamp = Stamp { attempt, record, of: records };
            bodies.entry(stamp.stream()).or_default().push(stamp.body());
        }
        if !ballast.is_empty() {
            bodies.entry(BALLAST).or_default().push(ballast.to_owned());
        }
        let resources = bodies.iter().map(|((tenant, project), bodies)| {
            let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
            resource_logs(&[("tenant.id", *tenant), ("project.id", *project)], &bodies)
        });
        let request = ExportLogsServiceRequest { resource_logs: resources.collect() };
        let answer = client.export(with_token(request, Some(AGENT))).await?;
        assert_eq!(answer.into_inner().partial_success, None, "attempt {attempt}");
        self.note_yes(attempt);
        Ok(())
    }

    /// Reads the store through this console, and compares it and the backend with what was sent.
    pub async fn check(&self, console: &str, reached: &Reached) {
        let http = crate::world::client();
        let mut stored = Vec::new();
        for stream in STREAMS {
            let url = format!("{console}/v1/tenants/{}/projects/{}/logs", stream.0, stream.1);
            let records = read_history(&http, &url, Some(&reader(stream.0))).await.unwrap();
            stored.extend(records.iter().map(|record| Stored::read(record, stream)));
        }
        let mut faults = Vec::new();
        self.check_conservation(&stored, reached, &mut faults);
        self.check_ids(&stored, &mut faults);
        let count = faults.len();
        assert!(faults.is_empty(), "{count} faults, of which: {:#?}", &faults[..count.min(20)]);
        let ledger = ledger(console).await;
        ledger.check(stored.len() as u64);
    }

    fn check_conservation(&self, stored: &[Stored], reached: &Reached, faults: &mut Vec<String>) {
        let mut in_store: HashMap<Stamp, u32> = HashMap::new();
        for record in stored {
            if record.stream != record.stamp.stream() {
                faults.push(format!("{:?} is in the store as {:?}", record.stamp, record.stream));
            }
            *in_store.entry(record.stamp).or_default() += 1;
        }
        for (stamp, of) in reached {
            if of.streams.iter().any(|(tenant, project)| (&**tenant, &**project) != stamp.stream()) {
                faults.push(format!("{stamp:?} reached the backend as {:?}", of.streams));
            }
        }
        let attempts = self.attempts.lock().unwrap();
        for (number, attempt) in attempts.iter().enumerate() {
            let stamps = (0..attempt.records).map(|record| Stamp {
                attempt: number as u64,
                record,
                of: attempt.records,
            });
            let here = stamps.clone().filter(|stamp| in_store.contains_key(stamp)).count();
            let there = stamps.clone().filter(|stamp| reached.contains_key(stamp)).count();
            let all = attempt.records as usize;
            let is_right = here == there && (here == all || here == 0 && attempt.answered.is_none());
            if !is_right {
                let answered = attempt.answered;
                faults.push(format!("attempt {number}, answered {answered:?}: of {all} records {here} are in the store, {there} at the backend"));
            }
            let times = stamps.filter_map(|stamp| in_store.get(&stamp)).max();
            if times.is_some_and(|times| *times > 1) {
                faults.push(format!("attempt {number} is in the store {times:?} times"));
            }
        }
        let is_unknown = |stamp: &&Stamp| {
            attempts
                .get(stamp.attempt as usize)
                .is_none_or(|attempt| attempt.records != stamp.of || stamp.record >= stamp.of)
        };
        let unknown = in_store.keys().chain(reached.keys()).filter(is_unknown);
        faults.extend(unknown.map(|stamp| format!("{stamp:?} was never sent")));
    }

    /// One node, each number once, the records of an attempt in a row; and what was asked after a yes has later numbers
    /// and no earlier time.
    fn check_ids(&self, stored: &[Stored], faults: &mut Vec<String>) {
        let nodes: HashSet<[u8; 4]> = stored.iter().map(|record| record.node).collect();
        let mut numbers: Vec<(u64, u64)> =
            stored.iter().map(|record| (record.number, record.time_ms)).collect();
        numbers.sort_unstable();
        let is_twice = |two: &[(u64, u64)]| two[0].0 == two[1].0 || two[0].1 > two[1].1;
        faults.extend(numbers.windows(2).filter(|two| is_twice(two)).map(|two| format!("ids {two:?}")));
        if nodes.len() > 1 {
            faults.push(format!("the nodes {nodes:?}"));
        }
        // Least and last number, and time.
        let mut of_attempts: HashMap<u64, (u64, u64, u64)> = HashMap::new();
        for record in stored {
            let of = of_attempts.entry(record.stamp.attempt).or_insert((u64::MAX, 0, record.time_ms));
            *of = (of.0.min(record.number), of.1.max(record.number), record.time_ms);
        }
        let attempts = self.attempts.lock().unwrap();
        // What had been told by each moment.
        let mut told: Vec<(u64, u64, u64)> = of_attempts
            .iter()
            .filter_map(|(number, of)| Some((attempts[*number as usize].answered?, of.1, of.2)))
            .collect();
        told.sort_unstable();
        let mut most = (0, 0);
        for (_, number, time_ms) in &mut told {
            most = (most.0.max(*number), most.1.max(*time_ms));
            (*number, *time_ms) = most;
        }
        for (number, (least, last, time_ms)) in of_attempts {
            let attempt = &attempts[number as usize];
            let before = told.partition_point(|(answered, ..)| *answered < attempt.asked);
            let told = before.checked_sub(1).map_or((0, 0), |at| (told[at].1, told[at].2));
            // The ballast is one record, and has a number among the others, or beside them.
            if last - least + 1 > u64::from(attempt.records) + u64::from(attempt.has_ballast) {
                faults.push(format!("attempt {number} has the numbers {least} to {last}"));
            }
            if told.0 >= least || told.1 > time_ms {
                faults.push(format!("attempt {number} has number {least} of {time_ms}, behind {told:?}"));
            }
        }
    }
}

impl Stored {
    fn read(record: &serde_json::Value, stream: (&'static str, &'static str)) -> Stored {
        let body = record["body"].as_str().unwrap_or_default();
        let id = URL_SAFE_NO_PAD.decode(record["id"].as_str().unwrap()).unwrap();
        let number = |of: &[u8]| of.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        Stored {
            stamp: Stamp::parse(body).unwrap_or_else(|| panic!("nobody sent {body:?}")),
            stream,
            time_ms: number(&id[8..14]),
            node: id[14..18].try_into().unwrap(),
            number: number(&id[18..24]),
        }
    }
}

/// A client that connects again by itself.
pub fn client(to: impl std::fmt::Display) -> LogsServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{to}")).unwrap();
    let endpoint = endpoint.connect_timeout(Duration::from_secs(2)).timeout(Duration::from_secs(20));
    LogsServiceClient::new(endpoint.connect_lazy())
}

/// Sends small requests until it is told to stop, one at a time; what was not answered with yes again.
pub async fn send(oracle: Arc<Oracle>, to: String, mut random: Random, stop: CancellationToken) {
    let mut client = client(to);
    while !stop.is_cancelled() {
        let records = if random.below(8) == 0 { 1 + random.below(20) } else { 1 + random.below(4) } as u32;
        while oracle.attempt(&mut client, records, "").await.is_err() && !stop.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(10 + random.below(20))).await;
        }
        tokio::time::sleep(Duration::from_millis(random.below(5))).await;
    }
}

/// The lines of the ledger without those of the ballast, as sums over all tenants.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    acknowledged: u64,
    committed: u64,
    in_process: i64,
    refused: BTreeMap<String, u64>,
    sinks: BTreeMap<String, OfSink>,
    /// Of all sinks and tenants, the ballast's as well.
    pub in_flight: i64,
    /// By reason, of all.
    pub lost: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default)]
struct OfSink {
    committed: u64,
    delivered: u64,
    in_flight: i64,
}

impl Sums {
    pub fn refused(&self, reason: &str) -> u64 {
        self.refused.get(reason).copied().unwrap_or_default()
    }

    pub fn in_flight(&self, sink: &str) -> i64 {
        self.sinks.get(sink).map_or(0, |sink| sink.in_flight)
    }

    /// After everything was delivered: what is in the store, and nothing else, was acknowledged and went to both sinks.
    fn check(&self, stored: u64) {
        let Sums { acknowledged, committed, in_process, sinks, in_flight, lost, .. } = self;
        assert_eq!((*acknowledged, *committed, *in_process, *in_flight), (stored, stored, 0, 0), "{self:?}");
        assert!(lost.is_empty(), "{lost:?}");
        for sink in ["streams", "backend"] {
            let OfSink { committed, delivered, .. } = sinks[sink];
            assert_eq!((committed, delivered), (stored, stored), "{sink}: {self:?}");
        }
    }
}

/// The ledger at this console; nothing of it may be unaccounted.
pub async fn ledger(console: &str) -> Sums {
    let answer = crate::world::client().get(format!("{console}/v1/ledger")).bearer_auth(ADMIN).send().await;
    let table: serde_json::Value = answer.unwrap().json().await.unwrap();
    let number = |value: &serde_json::Value| value.as_i64().unwrap();
    let counts = |value: &serde_json::Value| -> i64 { value.as_object().unwrap().values().map(number).sum() };
    let mut sums = Sums::default();
    for line in table["lines"].as_array().unwrap() {
        let of = |name: &str| number(&line[name]);
        let received = of("acknowledged") + counts(&line["refused"]) + of("cancelled") + of("in_process");
        assert_eq!(of("received"), received, "{line}");
        let kept = counts(&line["filtered"]) + counts(&line["dropped"]) + of("unrouted") + of("committed");
        assert_eq!(of("acknowledged") + counts(&line["added"]), kept, "{line}");
        let is_ballast = line["tenant"] == BALLAST.0;
        for (name, sink) in line["sinks"].as_object().unwrap() {
            let of = |name: &str| number(&sink[name]);
            let [rejected, dead, expired] = LOST.map(|name| counts(&sink[name]));
            let all = of("delivered") + rejected + of("unsupported") + dead + expired + of("in_flight");
            assert_eq!(of("committed"), all, "{name} of {line}");
            assert!(of("in_flight") >= 0, "{name} of {line}");
            sums.in_flight += of("in_flight");
            for lost in LOST.map(|name| &sink[name]) {
                for (reason, records) in lost.as_object().unwrap().iter().filter(|(_, n)| number(n) > 0) {
                    *sums.lost.entry(reason.clone()).or_default() += number(records) as u64;
                }
            }
            if !is_ballast {
                let sums = sums.sinks.entry(name.clone()).or_default();
                sums.committed += of("committed") as u64;
                sums.delivered += of("delivered") as u64;
                sums.in_flight += of("in_flight");
            }
        }
        for (reason, records) in line["refused"].as_object().unwrap() {
            *sums.refused.entry(reason.clone()).or_default() += number(records) as u64;
        }
        sums.in_process += of("in_process");
        if !is_ballast {
            sums.acknowledged += of("acknowledged") as u64;
            sums.committed += of("committed") as u64;
        }
    }
    sums
}

/// Waits until every sink has everything.
pub async fn drained(console: &str, patience: Duration) {
    crate::world::eventually_within(patience, "every sink has everything", || async {
        let sums = ledger(console).await;
        sums.in_flight == 0 && sums.in_process == 0
    })
    .await;
}
