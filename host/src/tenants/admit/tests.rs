//! Requests from credentials of every standing, as parts and refusals.

use super::*;
use crate::batch::{IdentityKeys, Signal};
use crate::telemetry::Metrics;
use crate::tenants::{Credential, Limited, Proof, Quota, QuotaSettings, Rights, Settings};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use std::sync::Arc;
use std::time::Duration;

const SEND: Rights = Rights { send: true, read: false, admin: false };

fn names(text: &str) -> Names {
    match text {
        "*" => Names::All,
        _ => Names::Some(text.split(';').map(str::to_owned).collect()),
    }
}

/// `acme: a;b` is a tenant with projects, `for acme;globex` speaks for others, `nobody` is an administrator.
fn who(text: &str) -> Who {
    if text == "nobody" {
        return Who::Nobody;
    }
    if let Some(tenants) = text.strip_prefix("for ") {
        return Who::SpeaksFor { tenants: names(tenants) };
    }
    let (tenant, projects) = text.split_once(": ").unwrap();
    Who::Tenant { tenant: TenantId::new(tenant).unwrap(), projects: names(projects) }
}

fn caller(text: &str) -> Caller {
    Caller::of(&Credential { proof: Proof::Token([7; 32]), who: who(text), rights: SEND })
}

/// `-` is absent, `!` a conflict.
fn claimed(text: &str) -> Claimed {
    match text {
        "-" => Claimed::Absent,
        "!" => Claimed::Conflict,
        name => Claimed::One(name.to_owned()),
    }
}

#[test]
fn a_stream_is_what_the_credential_allows_the_data_to_say() {
    let long = "x".repeat(129);
    let cases: &[(&str, &str, &str, &str)] = &[
        // a credential that names a tenant is that tenant, whatever its data says
        ("acme: *", "-", "-", "acme/default"),
        ("acme: *", "globex", "-", "acme/default"),
        ("acme: *", "!", "-", "acme/default"),
        ("acme: *", "_other", "shop", "acme/shop"),
        ("acme: *", "globex", "shop", "acme/shop"),
        ("acme: *", "-", "", "acme/default"),
        ("acme: *", "-", "_other", "acme project_not_covered"),
        ("acme: *", "-", &long, "acme project_not_covered"),
        ("acme: *", "-", "a\u{1}b", "acme project_not_covered"),
        ("acme: *", "-", "!", "acme identity_conflict"),
        // projects: the only one, or those that are covered, else `default`
        ("acme: shop", "-", "-", "acme/shop"),
        ("acme: shop", "-", "", "acme/shop"),
        ("acme: shop", "-", "shop", "acme/shop"),
        ("acme: shop", "-", "blog", "acme project_not_covered"),
        ("acme: shop;blog", "-", "blog", "acme/blog"),
        ("acme: shop;blog", "-", "-", "acme/default"),
        ("acme: shop;blog", "-", "default", "acme project_not_covered"),
        // a credential that speaks for others lets the attributes count
        ("for *", "globex", "shop", "globex/shop"),
        ("for *", "globex", "-", "globex/default"),
        ("for *", "-", "shop", "_none no_tenant"),
        ("for *", "", "shop", "_none no_tenant"),
        ("for *", "!", "shop", "_none identity_conflict"),
        ("for *", "globex", "!", "globex identity_conflict"),
        ("for *", "_other", "-", "_none unknown_tenant"),
        ("for *", &long, "-", "_none unknown_tenant"),
        ("for *", " globex", "-", "_none unknown_tenant"),
        ("for acme;globex", "globex", "-", "globex/default"),
        ("for acme;globex", "initech", "-", "_none unknown_tenant"),
        // nobody's records have no tenant
        ("nobody", "acme", "shop", "_none no_tenant"),
    ];
    for (credential, tenant, project, expected) in cases {
        let claim = Claim { tenant: claimed(tenant), project: claimed(project) };
        let answer = match stream_of(&who(credential), &claim) {
            Ok(stream) => format!("{}/{}", stream.tenant, stream.project),
            Err(outcast) => format!("{} {}", outcast.tenant, outcast.reason),
        };
        assert_eq!(answer, *expected, "{credential} sends tenant {tenant:?} project {project:?}");
    }
}

fn terms(record_bytes_max: usize) -> Terms<'static> {
    Terms { record_bytes_max, now: Instant::now(), held_bytes: &|_| 0 }
}

fn tenants(is_stamping: bool) -> (Arc<Tenants>, Metrics) {
    tenants_with(is_stamping, QuotaSettings::default())
}

fn tenants_with(is_stamping: bool, quotas: QuotaSettings) -> (Arc<Tenants>, Metrics) {
    let metrics = Metrics::new();
    let settings = Settings {
        attributes: IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() },
        stamp: is_stamping,
        credentials: Vec::new(),
        token_files: Vec::new(),
        ticket_key: None,
        is_open: false,
        room_bytes: 1 << 20,
        quotas,
    };
    (Tenants::open(settings, metrics.clone()).unwrap(), metrics)
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..Default::default() }
}

/// Resources as `key=value key=value | bodies`, one per line; bodies are words.
fn request(lines: &[&str]) -> Request {
    let resource_logs = lines
        .iter()
        .map(|line| {
            let (attributes, bodies) = line.split_once('|').unwrap();
            let attributes =
                attributes.split_whitespace().map(|a| a.split_once('=').unwrap()).map(|(k, v)| text(k, v));
            let log_records = bodies
                .split_whitespace()
                .map(|body| LogRecord { body: text("", body).value, ..Default::default() })
                .collect();
            ResourceLogs {
                resource: Some(Resource { attributes: attributes.collect(), ..Default::default() }),
                scope_logs: vec![ScopeLogs { log_records, ..Default::default() }],
                ..Default::default()
            }
        })
        .collect();
    let bytes = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
    Request::check(Signal::Logs, bytes.into()).unwrap()
}

/// The parts as `tenant/project received overwritten: attributes | bodies`, as they are written.
fn shown(admitted: Admitted) -> Vec<String> {
    let keys = IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() };
    let mut lines = Vec::new();
    for part in admitted.parts {
        let head = format!(
            "{}/{} received {} overwritten {}",
            part.batch.stream.tenant, part.batch.stream.project, part.received, part.overwritten
        );
        let pieces = part.batch.pieces(512, 1 << 18);
        let written = part.batch.written(pieces, &keys);
        assert_eq!(written.restored, 0);
        lines.push(head);
        for resource in ExportLogsServiceRequest::decode(written.batch.bytes).unwrap().resource_logs {
            let value = |value: &Option<AnyValue>| match value.as_ref().and_then(|v| v.value.clone()) {
                Some(any_value::Value::StringValue(text)) => text,
                other => format!("{other:?}"),
            };
            let mut attributes: Vec<String> = resource
                .resource
                .unwrap_or_default()
                .attributes
                .iter()
                .map(|a| format!("{}={}", a.key, value(&a.value)))
                .collect();
            attributes.sort();
            let bodies: Vec<String> =
                resource.scope_logs.iter().flat_map(|s| &s.log_records).map(|r| value(&r.body)).collect();
            lines.push(format!("  {} | {}", attributes.join(" "), bodies.join(" ")));
        }
    }
    for part in admitted.refused {
        lines.push(format!("refused {} {} {}", part.tenant, part.records, part.reason));
    }
    lines
}

#[test]
fn a_plain_token_that_sends_anothers_tenant_id_arrives_under_its_own() {
    let (tenants, metrics) = tenants(true);
    let sent = request(&["tenant.id=globex service.name=cart | one two", "service.name=cart | three"]);
    let admitted = tenants.admit(sent, &caller("acme: shop"), &terms(1 << 20));
    assert_eq!(
        shown(admitted),
        [
            "acme/shop received 3 overwritten 1",
            "  project.id=shop service.name=cart tenant.id=acme | one two",
            "  project.id=shop service.name=cart tenant.id=acme | three",
        ]
    );
    let labels = vec![("tenant", "acme".to_owned())];
    assert_eq!(metrics.admit_overwritten.get_or_create(&labels).get(), 1);
}

#[test]
fn names_that_a_sender_brings_take_no_label_from_others() {
    let (tenants, metrics) = tenants(true);
    let speaker = caller("for *");
    for number in 0..300 {
        let line = format!("tenant.id=t{number} tenant.id=t{number} | one");
        tenants.admit(request(&[&line]), &speaker, &terms(1 << 20));
    }
    tenants.admit(request(&["tenant.id=globex | one"]), &caller("acme: *"), &terms(1 << 20));
    let shown: Vec<String> = metrics.text().lines().map(str::to_owned).collect();
    let of = |tenant: &str| {
        let start = format!(r#"trommel_admit_overwritten_resources_total{{tenant="{tenant}"}} "#);
        shown.iter().find_map(|line| line.strip_prefix(&start)).map(|count| count.parse::<u64>().unwrap())
    };
    assert_eq!((of("acme"), of("t0"), of("_other")), (Some(1), None, Some(300)), "{shown:?}");
}

#[test]
fn an_identity_key_that_stands_twice_is_written_once() {
    let (tenants, _) = tenants(true);
    let sent = request(&["tenant.id=globex tenant.id=initech project.id=shop | one"]);
    let admitted = tenants.admit(sent, &caller("acme: *"), &terms(1 << 20));
    assert_eq!(
        shown(admitted),
        ["acme/shop received 1 overwritten 1", "  project.id=shop tenant.id=acme | one"]
    );
}

#[test]
fn a_mixed_request_is_split_by_stream_in_order_of_first_appearance() {
    let (tenants, _) = tenants(true);
    let sent = request(&[
        "tenant.id=globex project.id=b | one",
        "tenant.id=acme project.id=a | two",
        "tenant.id=globex project.id=b | three",
        "project.id=a | lost",
        "tenant.id=acme tenant.id=globex | torn apart",
        "tenant.id=globex project.id=c | four",
        "project.id=z | lost too",
    ]);
    assert_eq!(
        shown(tenants.admit(sent, &caller("for *"), &terms(1 << 20))),
        [
            "globex/b received 2 overwritten 0",
            "  project.id=b tenant.id=globex | one",
            "  project.id=b tenant.id=globex | three",
            "acme/a received 1 overwritten 0",
            "  project.id=a tenant.id=acme | two",
            "globex/c received 1 overwritten 0",
            "  project.id=c tenant.id=globex | four",
            "refused _none 3 no_tenant",
            "refused _none 2 identity_conflict",
        ]
    );
}

#[test]
fn without_stamp_nothing_is_added_and_a_lie_is_still_overwritten() {
    let (tenants, _) = tenants(false);
    let sent = request(&["a=b | one", "tenant.id=globex | two"]);
    assert_eq!(
        shown(tenants.admit(sent, &caller("acme: shop"), &terms(1 << 20))),
        ["acme/shop received 2 overwritten 1", "  a=b | one", "  tenant.id=acme | two"]
    );
}

#[test]
fn a_record_that_is_too_large_is_refused_and_its_neighbours_are_not() {
    let (tenants, _) = tenants(true);
    let large = "x".repeat(200);
    let lines = [format!("project.id=a | one {large} two"), format!("project.id=b | {large}")];
    let sent = request(&[&lines[0], &lines[1]]);
    let mut admitted = tenants.admit(sent, &caller("acme: *"), &terms(100));
    assert_eq!(
        admitted.parts.iter().map(|p| (p.received, p.batch.records)).collect::<Vec<_>>(),
        [(3, 2), (1, 0)]
    );
    admitted.parts.truncate(1);
    assert_eq!(
        shown(admitted),
        [
            "acme/a received 3 overwritten 0",
            "  project.id=a tenant.id=acme | one two",
            "refused acme 2 record_too_large",
        ]
    );
}

#[test]
fn resources_without_records_make_no_batch() {
    let (tenants, _) = tenants(true);
    let admitted = tenants.admit(request(&["tenant.id=acme |", " |"]), &caller("for *"), &terms(1 << 20));
    assert_eq!(shown(admitted), Vec::<String>::new());
}

#[test]
fn more_tenants_than_fit_are_refused_and_those_with_a_credential_are_not() {
    let (tenants, _) = tenants(true);
    let lines: Vec<String> = (0..10_001).map(|number| format!("tenant.id=t{number} | one")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let admitted = tenants.admit(request(&lines), &caller("for *"), &terms(1 << 20));
    assert_eq!(admitted.parts.len(), 10_000);
    let refused = RefusedPart { tenant: TenantId::none(), records: 1, reason: "too_many_tenants" };
    assert_eq!(admitted.refused, [refused]);
    let own = tenants.admit(request(&[" | one"]), &caller("acme: *"), &terms(1 << 20));
    assert_eq!((own.parts.len(), own.refused.len()), (1, 0));
}

#[test]
fn more_projects_than_fit_are_refused_for_their_tenant() {
    let (tenants, _) = tenants(true);
    let lines: Vec<String> = (0..1_002).map(|number| format!("project.id=p{number} | one")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let admitted = tenants.admit(request(&lines), &caller("acme: *"), &terms(1 << 20));
    assert_eq!(admitted.parts.len(), 1_000);
    let refused =
        RefusedPart { tenant: TenantId::new("acme").unwrap(), records: 2, reason: "too_many_projects" };
    assert_eq!(admitted.refused, [refused]);
}

fn quota(records: u64, burst_ms: u64) -> Quota {
    Quota { records: Some(records), burst: Duration::from_millis(burst_ms), ..Quota::default() }
}

#[test]
fn what_a_tenant_sends_over_its_quota_is_left_out_and_the_others_are_taken() {
    let quotas = QuotaSettings { default: quota(1, 2_000), ..QuotaSettings::default() };
    let (tenants, metrics) = tenants_with(false, quotas);
    let terms = terms(1 << 20);
    let lines = [
        "tenant.id=acme project.id=a | one two",
        "tenant.id=globex | three",
        "tenant.id=acme project.id=b | four",
        " | five",
    ];
    let first = tenants.admit(request(&lines), &caller("for *"), &terms);
    assert_eq!((first.parts.len(), &first.over_quota), (3, &None));
    // Of both its streams; `globex` has taken one of two.
    let second = tenants.admit(request(&lines), &caller("for *"), &terms);
    let over = second.over_quota.clone().unwrap();
    assert_eq!((over.tenant.as_str(), over.limited, over.limit), ("acme", Limited::Records, 1));
    assert_eq!(over.wait, Duration::from_nanos(1_000_000_001), "three of two are taken");
    assert_eq!(
        shown(second),
        [
            "globex/default received 1 overwritten 0",
            "  tenant.id=globex | three",
            "refused _none 1 no_tenant",
            "refused acme 3 quota_records",
        ]
    );
    let labels = vec![("tenant", "_other".to_owned()), ("quota", "records".to_owned())];
    assert_eq!(metrics.admit_over_quota.get_or_create(&labels).get(), 1);
    // Both are over theirs: whoever waits less says when.
    let third = tenants.admit(request(&lines[1..3]), &caller("for *"), &terms);
    assert_eq!((third.parts.len(), third.refused.len()), (0, 2));
    assert_eq!(third.over_quota.map(|over| over.tenant.to_string()).as_deref(), Some("globex"));
    let later = Terms { now: terms.now + over.wait, ..terms };
    assert_eq!(tenants.admit(request(&lines[..3]), &caller("for *"), &later).parts.len(), 3);
}

#[test]
fn bytes_are_those_of_the_tenants_resources_as_they_came() {
    let sent = request(&["tenant.id=acme | one", "tenant.id=globex | two", "tenant.id=acme | three"]);
    let bytes = |at: usize| sent.resources[at].range.len() as u64;
    let second = Duration::from_secs(1);
    for (rate, is_over) in [(bytes(0) + bytes(2), true), (bytes(0) + bytes(2) + 1, false)] {
        let acme = Quota { bytes: Some(rate), burst: second, ..Quota::default() };
        let quotas =
            QuotaSettings { tenants: [(TenantId::new("acme").unwrap(), acme)].into(), ..Default::default() };
        let (tenants, _) = tenants_with(true, quotas);
        let (terms, agent) = (terms(1 << 20), caller("for *"));
        tenants.admit(sent.clone(), &agent, &terms);
        let again = tenants.admit(sent.clone(), &agent, &terms);
        assert_eq!(again.over_quota.is_some(), is_over, "{rate} bytes a second");
        let left_out =
            RefusedPart { tenant: TenantId::new("acme").unwrap(), records: 2, reason: "quota_bytes" };
        assert_eq!(again.refused, if is_over { vec![left_out] } else { vec![] });
    }
}

#[test]
fn a_tenant_that_holds_its_share_of_the_journal_is_left_out() {
    let default = Quota { journal_bytes: Some(100), ..Quota::default() };
    let (tenants, _) = tenants_with(true, QuotaSettings { default, ..QuotaSettings::default() });
    let held = |tenant: &TenantId| if tenant.as_str() == "acme" { 100 } else { 99 };
    let terms = Terms { held_bytes: &held, ..terms(1 << 20) };
    let sent = request(&["tenant.id=acme | one", "tenant.id=globex | two"]);
    let admitted = tenants.admit(sent, &caller("for *"), &terms);
    let acme = TenantId::new("acme").unwrap();
    assert_eq!(admitted.refused, [RefusedPart { tenant: acme, records: 1, reason: "quota_journal" }]);
    assert_eq!(admitted.over_quota.map(|over| over.limited), Some(Limited::Journal));
    assert_eq!(admitted.parts.len(), 1);
}
