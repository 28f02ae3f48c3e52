//! What does a record cost on its way into a store, beside the plain driver and the plain database?

use bench::Shape;
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fjall::KeyspaceCreateOptions;
use mongodb::bson::{RawDocumentBuf, doc, serialize_to_raw_document_buf};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
use prost::Message;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use trommel::batch::{Entry, ProjectId, Signal, Stream, TenantId};
use trommel::streams::mongodb::{Settings as Mongodb, put_documents};
use trommel::streams::{Settings, StoreSettings, Streams, Write, stream_hash};
use trommel::telemetry::{Metrics, Secret};

/// The collector's allocator, for both sides.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Records of an entry, and documents of a command.
const RECORDS: usize = 1_000;
/// Entries of a delivery: what `deliver` joins while the one before is on its way.
const ENTRIES: usize = 8;
/// Streams that the entries of a delivery are of, in turn.
const PROJECTS: usize = 4;
/// Deliveries in a row: 300 MB, so that tables are filled, sorted and merged meanwhile.
const BURST: u64 = 50;
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// Entries that no store has yet, of requests that were built before: whoever takes them has no rest in between.
struct Source {
    next: AtomicU64,
    requests: Vec<Bytes>,
}

impl Source {
    fn new() -> Source {
        let shape = Shape { records: RECORDS, resources: 4, has_tenant: true, projects: 0 };
        Source { next: AtomicU64::new(1), requests: bench::encoded(shape, ENTRIES) }
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        let records = (ENTRIES * RECORDS) as u64;
        let first = self.next.fetch_add(records, Ordering::Relaxed);
        (0..).zip(&self.requests).map(|(at, bytes)| entry(first + at * RECORDS as u64, bytes)).collect()
    }

    fn delivery(&self) -> Vec<Write> {
        self.entries().into_iter().map(|entry| Write { entry, is_resend: false }).collect()
    }
}

fn entry(first: u64, bytes: &Bytes) -> Arc<Entry> {
    let project = first as usize / RECORDS % PROJECTS;
    let project = ProjectId::new(&format!("project-{project}")).expect("a name");
    let stream = Stream { tenant: TenantId::local(), project };
    let (signal, records, time_ms, node) = (Signal::Logs, RECORDS as u32, 1_763_985_600_000, [1; 4]);
    Arc::new(Entry { stream, signal, first, records, time_ms, node, bytes: bytes.clone() })
}

fn document(criterion: &mut Criterion) {
    let entry = Source::new().entries().remove(0);
    let mut group = criterion.benchmark_group("a document");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("from the bytes", |bencher| {
        let mut out = Vec::new();
        bencher.iter(|| {
            out.clear();
            put_documents(black_box(&entry), &mut out);
            black_box(out.len())
        });
    });
    group.bench_function("prost decode and serde", |bencher| {
        bencher.iter(|| {
            let request = ExportLogsServiceRequest::decode(black_box(entry.bytes.clone())).expect("valid");
            for resource in &request.resource_logs {
                let shared = serialize_to_raw_document_buf(&resource.resource).expect("a document");
                for record in resource.scope_logs.iter().flat_map(|scope| &scope.log_records) {
                    black_box((shared.clone(), serialize_to_raw_document_buf(record).expect("a document")));
                }
            }
        });
    });
    group.finish();
}

/// Says `ok` to everything that it reads the length of.
async fn serve(listener: TcpListener) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        connections.spawn(answer(socket));
    }
}

async fn answer(mut socket: TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let body = doc! { "ok": 1.0, "n": RECORDS as i32, "ismaster": true, "helloOk": true, "minWireVersion": 0,
    "maxWireVersion": 21, "maxBsonObjectSize": 16 << 20, "maxMessageSizeBytes": 48_000_000,
    "maxWriteBatchSize": 100_000 };
    let body = RawDocumentBuf::try_from(&body).expect("a document").into_bytes();
    let mut unread = vec![0; 1 << 20];
    loop {
        let mut head = [0; 16];
        socket.read_exact(&mut head).await?;
        let mut left = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize - 16;
        while left > 0 {
            let part = left.min(unread.len());
            left -= socket.read(&mut unread[..part]).await?;
        }
        let mut reply = (21 + body.len() as u32).to_le_bytes().to_vec();
        reply.extend_from_slice(&[0; 4]);
        reply.extend_from_slice(&head[4..8]);
        reply.extend_from_slice(&2013_u32.to_le_bytes());
        reply.extend_from_slice(&[0; 5]);
        reply.extend_from_slice(&body);
        socket.write_all(&reply).await?;
    }
}

/// The same documents in the same batches, by the store and by a plain loop of the driver.
fn insert(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = runtime.spawn(serve(listener));
    against(
        criterion,
        &runtime,
        "insert, answered unread",
        &format!("mongodb://{address}/?directConnection=true"),
    );
    server.abort();
    // Printed beside it: a real server, if somebody names one.
    if let Ok(uri) = std::env::var("MONGODB_URI") {
        against(criterion, &runtime, "insert, MONGODB_URI", &uri);
    }
}

fn against(criterion: &mut Criterion, runtime: &Runtime, name: &str, uri: &str) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements((ENTRIES * RECORDS) as u64));
    group.sample_size(20);
    let (database, source) = ("trommel_bench", Source::new());
    let streams = runtime.block_on(async {
        let store = StoreSettings::Mongodb(Mongodb { uri: Secret::new(uri), database: database.to_owned() });
        Streams::open(Settings { store, retention: WEEK }, Metrics::new()).expect("a store")
    });
    group.bench_function("the store", |bencher| {
        bencher.iter_batched(
            || source.delivery(),
            |writes| {
                let written = runtime.block_on(streams.write(writes)).expect("written");
                assert!(written.collided.is_empty() && written.rejected.is_empty());
            },
            criterion::BatchSize::PerIteration,
        );
    });
    let collection = runtime.block_on(async {
        let client = mongodb::Client::with_uri_str(uri).await.expect("a client");
        client.database(database).collection::<RawDocumentBuf>("plain")
    });
    let concern = mongodb::options::WriteConcern::builder()
        .w(mongodb::options::Acknowledgment::Majority)
        .journal(true)
        .build();
    group.bench_function("the driver's insert_many", |bencher| {
        bencher.iter_batched(
            || source.entries().iter().map(|entry| documents(entry)).collect::<Vec<_>>(),
            |batches| {
                runtime.block_on(async {
                    for documents in &batches {
                        let inserting = collection.insert_many(documents).ordered(false);
                        inserting.write_concern(concern.clone()).await.expect("inserted");
                    }
                });
                batches
            },
            criterion::BatchSize::PerIteration,
        );
    });
    group.finish();
    runtime.block_on(streams.close());
}

fn documents(entry: &Entry) -> Vec<RawDocumentBuf> {
    let mut bytes = Vec::new();
    put_documents(entry, &mut bytes);
    let (mut documents, mut rest) = (Vec::new(), &bytes[..]);
    while let Some(length) = rest.first_chunk() {
        let (document, after) = rest.split_at(u32::from_le_bytes(*length) as usize);
        documents.push(RawDocumentBuf::from_bytes(document.to_vec()).expect("a document"));
        rest = after;
    }
    documents
}

/// The embedded store beside the database it stands on: the same rows in as many commits, synced as well.
fn embedded(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let mut group = criterion.benchmark_group("embedded");
    group.throughput(Throughput::Elements((ENTRIES * RECORDS) as u64));
    group.sample_size(10);
    let source = Source::new();
    let streams = runtime.block_on(async {
        let store = StoreSettings::Embedded { folder: folder.path().join("streams") };
        Streams::open(Settings { store, retention: WEEK }, Metrics::new()).expect("a store")
    });
    group.bench_function("the store", |bencher| {
        bencher.iter_batched(
            || source.delivery(),
            |writes| runtime.block_on(streams.write(writes)).expect("written"),
            criterion::BatchSize::NumIterations(BURST),
        );
    });
    let values: Vec<Vec<Vec<u8>>> = source.entries().iter().map(|entry| values_of(entry)).collect();
    let same = || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(8 << 20)
            .data_block_size_policy(fjall::config::BlockSizePolicy::all(16 << 10))
            .data_block_compression_policy(fjall::config::CompressionPolicy::all(fjall::CompressionType::Lz4))
    };
    let plain = |name: &str| fjall::Database::builder(folder.path().join(name));
    for (name, plain, options) in [
        ("plain fjall, the same tables and worker", plain("same").worker_threads(1), same()),
        ("plain fjall, its own defaults", plain("defaults"), KeyspaceCreateOptions::default()),
    ] {
        let database = plain.open().expect("a database");
        let rows = database.keyspace("rows", || options).expect("a keyspace");
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || source.entries(),
                |entries| {
                    let mut batch = database.batch().durability(Some(fjall::PersistMode::SyncData));
                    for (entry, values) in entries.iter().zip(&values) {
                        let hash = stream_hash(&entry.stream);
                        for (at, value) in (0..).zip(values) {
                            batch.insert(&rows, entry.record_id(hash, at).0, &value[..]);
                        }
                    }
                    batch.commit().expect("committed");
                },
                criterion::BatchSize::NumIterations(BURST),
            );
        });
    }
    group.finish();
}

/// What the embedded store keeps of an entry: the names of the stream, then a request with the one record.
fn values_of(entry: &Entry) -> Vec<Vec<u8>> {
    let request = ExportLogsServiceRequest::decode(entry.bytes.clone()).expect("valid");
    let mut values = Vec::new();
    for resource in request.resource_logs {
        for scope in &resource.scope_logs {
            for record in &scope.log_records {
                let scope = ScopeLogs { log_records: vec![record.clone()], ..scope.clone() };
                let resource = ResourceLogs { scope_logs: vec![scope], ..resource.clone() };
                // Three bytes for the version and two lengths.
                let names = format!("...{}{}", entry.stream.tenant.as_str(), entry.stream.project.as_str());
                let mut value = names.into_bytes();
                let one = ExportLogsServiceRequest { resource_logs: vec![resource] };
                one.encode(&mut value).expect("a buffer that grows");
                values.push(value);
            }
        }
    }
    values
}

criterion_group!(benches, document, insert, embedded);
criterion_main!(benches);
