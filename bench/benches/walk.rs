//! What do the checked walk and the splice cost per record, beside prost's decode and encode?

use bench::Shape;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;
use std::hint::black_box;
use trommel::batch::{IdentityKeys, ProjectId, Request, Signal, Stream, TenantId};

fn stream() -> Stream {
    Stream { tenant: TenantId::local(), project: ProjectId::default_project() }
}

fn keys() -> IdentityKeys {
    IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() }
}

fn walk(criterion: &mut Criterion) {
    let shape = Shape { records: 512, resources: 4, has_tenant: false, projects: 0 };
    let bytes = bench::encoded(shape, 1)[0].clone();
    let mut group = criterion.benchmark_group("512 records");
    group.throughput(Throughput::Elements(512));
    group.bench_function("checked walk", |bencher| {
        bencher.iter(|| Request::check(Signal::Logs, black_box(bytes.clone())).expect("valid"));
    });
    group.bench_function("stamp and splice", |bencher| {
        let request = Request::check(Signal::Logs, bytes.clone()).expect("valid");
        let stamped = || {
            let mut batch = request.batch(stream(), &[0, 1, 2, 3]);
            batch.stamp(&keys(), true);
            batch
        };
        bencher.iter_batched(stamped, |batch| batch.written(Vec::new(), &keys()), BatchSize::PerIteration);
    });
    group.bench_function("prost decode and encode", |bencher| {
        bencher.iter(|| {
            ExportLogsServiceRequest::decode(black_box(bytes.clone())).expect("valid").encode_to_vec()
        });
    });
    group.finish();
}

fn streams(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("512 records over streams");
    group.throughput(Throughput::Elements(512));
    for count in [1, 10, 50] {
        let shape = Shape { records: 512, resources: count, has_tenant: false, projects: count };
        let bytes = bench::encoded(shape, 1)[0].clone();
        group.bench_function(format!("{count} streams"), |bencher| {
            bencher.iter(|| {
                let request = Request::check(Signal::Logs, bytes.clone()).expect("valid");
                for resource in 0..request.resources.len() {
                    let project = ProjectId::new(&format!("project-{resource}")).expect("valid");
                    let mut batch = request.batch(Stream { tenant: TenantId::local(), project }, &[resource]);
                    batch.stamp(&keys(), true);
                    black_box(batch.written(Vec::new(), &keys()));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, walk, streams);
criterion_main!(benches);
