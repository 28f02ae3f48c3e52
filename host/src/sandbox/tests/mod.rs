//! What a hostile guest gets: `tests/guests/hostile` in each of its modes.

mod calls;
mod faults;
mod identity;
mod load;
mod million;
mod rights;
mod signals;
mod versions;
mod windows;

use super::*;
use crate::batch::{Batch, Piece, ProjectId, Request, Signal, Stream, TenantId};
use crate::telemetry::Metrics;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use std::sync::{Mutex, OnceLock};

/// What the guest's manifest says unless a test patches it.
const READS: &str = "body name event-name description severity kind status time number trace-id span-id trace-state raw \
     item:* event:* metric:* scope:* resource:*";
const WRITES: &str = "body name event-name description severity trace-state raw \
     item:* event:* metric:* scope:* resource:* drop route";

/// One engine for all tests.
fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    // Beside the test binary: compiled once for all tests, and for all runs.
    let folder = std::env::current_exe().unwrap().parent().unwrap().join("compiled-guests");
    SANDBOX.get_or_init(|| Sandbox::open(Some(folder), Metrics::new()).unwrap())
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(String::from).collect()
}

fn settings(config: &str) -> Settings {
    Settings {
        name: "hostile".into(),
        module: Module::File("hostile.wasm".into()),
        config: config.into(),
        filled: Vec::new(),
        secrets: BTreeMap::from([("join".into(), Secret::new("swordfish"))]),
        is_guard: false,
        on_failure: OnFailure::Pass,
        tenant: None,
        instance: Instance::PerTenant,
        limits: Limits::default(),
        grant: Some(Grant { reads: words(READS), writes: words(WRITES) }),
    }
}

fn guest() -> &'static [u8] {
    artifacts::guest("hostile").unwrap()
}

/// The guest with another manifest: `name;reads;writes;needs;`.
fn guest_with(manifest: &str) -> Vec<u8> {
    let mut bytes = guest().to_vec();
    let at = bytes.windows(9).position(|window| window == b"MANIFEST ").unwrap();
    let text = format!("MANIFEST {manifest}");
    bytes[at..at + 320].fill(b'.');
    bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
    bytes
}

/// The hostile guest in a mode.
fn hostile(mode: &str) -> Plugin {
    let sandbox = sandbox();
    sandbox.load_bytes(&settings(&format!(r#"{{"mode": "{mode}"}}"#)), guest()).unwrap()
}

/// A batch of one resource of `acme`'s or another tenant's.
fn batch_of(tenant: &str, signal: Signal, request: Vec<u8>) -> Batch {
    let request = Request::check(signal, request.into()).unwrap();
    let stream = Stream { tenant: TenantId::new(tenant).unwrap(), project: ProjectId::default_project() };
    request.batch(stream, &[0])
}

fn only_piece(batch: &Batch) -> Piece {
    let mut pieces = batch.pieces(1024, 64 << 20);
    assert_eq!(pieces.len(), 1);
    pieces.remove(0)
}

fn text(text: &str) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(text.into())) }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.into(), value: Some(text(value)), ..Default::default() }
}

fn resource(attributes: &[(&str, &str)]) -> Option<Resource> {
    let attributes = attributes.iter().map(|(key, value)| attribute(key, value)).collect();
    Some(Resource { attributes, ..Default::default() })
}

/// Log records with these bodies, in a resource with these attributes.
fn logs(attributes: &[(&str, &str)], bodies: &[String]) -> Vec<u8> {
    let record = |body: &String| LogRecord {
        body: Some(text(body)),
        severity_number: 9,
        attributes: vec![attribute("http.method", "GET")],
        ..Default::default()
    };
    let scope = ScopeLogs { log_records: bodies.iter().map(record).collect(), ..Default::default() };
    let logs = ResourceLogs { resource: resource(attributes), scope_logs: vec![scope], ..Default::default() };
    ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec()
}

/// One piece of log records with these bodies.
fn piece_of(tenant: &str, bodies: &[String]) -> Piece {
    only_piece(&batch_of(tenant, Signal::Logs, logs(&[("service.name", "shop")], bodies)))
}

fn piece(bodies: &[&str]) -> Piece {
    piece_of("acme", &bodies.iter().map(|body| body.to_string()).collect::<Vec<_>>())
}

/// The bodies of the records that are left.
fn bodies(piece: Piece) -> (Piece, Vec<String>) {
    let mut call = piece.call(None);
    let texts = call.texts(crate::batch::Places::BODY).unwrap();
    let bodies = (0..texts.len()).map(|at| texts.at(at).to_owned()).collect();
    (call.abort(), bodies)
}
