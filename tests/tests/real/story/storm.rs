//! A service of a client that works for a while as always, and then fails a hundred thousand times within seconds.

use super::people;
use super::platform::Collector;
use crate::world::{attribute, text, with_token};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, logs_service_client::LogsServiceClient,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tonic::Code;
use tonic::transport::Channel;

/// The service is the tenant acme's, in the project billing.
pub const SERVICE: &str = "payments";

pub const ERRORS: usize = 100_000;
const ERRORS_OF_A_REQUEST: usize = 1_000;
const SENDERS: usize = 4;

/// What is usual: so many good lines, so often.
const LINES: usize = 25;
const PAUSE: Duration = Duration::from_millis(500);

/// The service while nothing is wrong.
pub struct Usual {
    sent: Arc<AtomicU64>,
    working: tokio::task::JoinSet<()>,
}

impl Usual {
    pub async fn start(collector: &Collector) -> Usual {
        let mut client = connect(collector).await;
        let sent: Arc<AtomicU64> = Arc::default();
        let counting = sent.clone();
        let mut working = tokio::task::JoinSet::new();
        working.spawn(async move {
            let mut beat = tokio::time::interval(PAUSE);
            for number in 0.. {
                beat.tick().await;
                let lines =
                    (0..LINES).map(|at| line(9, "INFO", format!("payment {} done", number * LINES + at)));
                send(&mut client, lines.collect()).await;
                counting.fetch_add(LINES as u64, Ordering::SeqCst);
            }
        });
        Usual { sent, working }
    }

    /// Lines that were acknowledged; none comes after it.
    pub async fn stop(mut self) -> u64 {
        // A request on the way would be counted by one side alone.
        let before = self.sent.load(Ordering::SeqCst);
        super::waiting("a beat of the usual", Duration::from_secs(20), async || {
            let now = self.sent.load(Ordering::SeqCst);
            if now > before { Ok(()) } else { Err(format!("{now} lines")) }
        })
        .await;
        self.working.abort_all();
        while self.working.join_next().await.is_some() {}
        self.sent.load(Ordering::SeqCst)
    }
}

/// The failures; how long they took to be acknowledged.
pub async fn rage(collector: &Collector) -> Duration {
    let started = tokio::time::Instant::now();
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let mut client = connect(collector).await;
        senders.spawn(async move {
            for request in (sender..ERRORS / ERRORS_OF_A_REQUEST).step_by(SENDERS) {
                let first = request * ERRORS_OF_A_REQUEST;
                send(&mut client, (first..first + ERRORS_OF_A_REQUEST).map(failure).collect()).await;
            }
        });
    }
    while let Some(sender) = senders.join_next().await {
        sender.unwrap();
    }
    started.elapsed()
}

fn failure(number: usize) -> LogRecord {
    let customer = people::address("payer", number);
    let card = people::card(number);
    line(17, "ERROR", format!("payment {number} of {customer} with {card} failed: connection refused"))
}

fn line(severity_number: i32, severity: &str, body: String) -> LogRecord {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    LogRecord {
        time_unix_nano: now.as_nanos() as u64,
        severity_number,
        severity_text: severity.into(),
        body: Some(text(&body)),
        ..Default::default()
    }
}

async fn connect(collector: &Collector) -> LogsServiceClient<Channel> {
    LogsServiceClient::connect(format!("http://127.0.0.1:{}", collector.grpc)).await.unwrap()
}

/// Sends until it is acknowledged, as an SDK does.
async fn send(client: &mut LogsServiceClient<Channel>, log_records: Vec<LogRecord>) {
    let scope = ScopeLogs { log_records, ..Default::default() };
    let attributes = vec![attribute("service.name", SERVICE), attribute("project.id", "billing")];
    let resource = Some(Resource { attributes, ..Default::default() });
    let of = ResourceLogs { resource, scope_logs: vec![scope], ..Default::default() };
    let request = ExportLogsServiceRequest { resource_logs: vec![of] };
    for _ in 0..20 {
        match client.export(with_token(request.clone(), Some("acme-token"))).await {
            Ok(answer) => {
                assert_eq!(answer.into_inner().partial_success, None);
                return;
            }
            Err(status) if status.code() == Code::Unavailable => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(status) => panic!("the collector refused what the service sent: {status}"),
        }
    }
    panic!("the collector was busy 20 times in a row");
}
