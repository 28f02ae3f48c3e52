//! A request is split by the identity of its resources: one batch per stream. Never waits.

use super::{Caller, Names, Tenants, Who};
use crate::batch::{Batch, Claim, Claimed, ProjectId, Request, Stream, TenantId};
use std::collections::HashMap;

/// What becomes of a request.
#[derive(Debug, Default)]
pub struct Admitted {
    pub parts: Vec<Part>,
    /// What was left out, for the partial success and the ledger; one entry per tenant and reason.
    pub refused: Vec<RefusedPart>,
}

/// One batch, its identity attributes put right.
#[derive(Debug)]
pub struct Part {
    pub batch: Batch,
    /// Records that the sender sent for it (those over `record_max` included, which are no longer in `batch`).
    pub received: u32,
    /// Resources whose identity attributes said something else.
    pub overwritten: u32,
    /// Strings that were mended.
    pub mended: u32,
}

/// A part that stays out, final for the sender.
#[derive(Debug, PartialEq, Eq)]
pub struct RefusedPart {
    /// `TenantId::none()` where nobody knows.
    pub tenant: TenantId,
    pub records: u32,
    /// `no_tenant`, `unknown_tenant`, `identity_conflict`, `project_not_covered`, `too_many_tenants`,
    /// `too_many_projects`, `record_too_large`.
    pub reason: &'static str,
}

/// A resource that has no stream: its tenant as far as it is known, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcast {
    tenant: TenantId,
    reason: &'static str,
}

/// The resources of one stream, in the order of the request.
struct Group {
    stream: Stream,
    resources: Vec<usize>,
    records: u32,
    mended: u32,
}

impl Tenants {
    /// Splits a request by whose its resources are: one part per stream, in the order of their first resources,
    /// identity attributes put right, records above `record_bytes_max` left out.
    pub fn admit(&self, request: Request, caller: &Caller, record_bytes_max: usize) -> Admitted {
        if let Who::Tenant { tenant, .. } = &caller.who {
            // The configuration names it. Other tenants get a label when they are among the busiest.
            self.metrics.tenant_labels.give(tenant.as_str());
        }
        let mut refused = Refused::default();
        let groups = self.groups(&request, caller, &mut refused);
        let part = |group| self.part(&request, group, record_bytes_max, &mut refused);
        let parts = groups.into_iter().map(part).collect();
        Admitted { parts, refused: refused.parts }
    }

    fn groups(&self, request: &Request, caller: &Caller, refused: &mut Refused) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut by_stream: HashMap<Stream, usize> = HashMap::new();
        // Most requests say the same in each resource: what was decided for the last one holds.
        let mut last: Option<(Claim, Result<usize, Outcast>)> = None;
        for (at, resource) in request.resources.iter().enumerate().filter(|(_, r)| r.records > 0) {
            let claim = request.claim(at, &self.keys);
            let place = match last.take() {
                Some((before, place)) if before == claim => place,
                _ => self.stream_of(caller, &claim).map(|stream| {
                    *by_stream.entry(stream).or_insert_with_key(|stream| {
                        groups.push(Group {
                            stream: stream.clone(),
                            resources: Vec::new(),
                            records: 0,
                            mended: 0,
                        });
                        groups.len() - 1
                    })
                }),
            };
            match &place {
                Ok(place) => {
                    let group = &mut groups[*place];
                    group.resources.push(at);
                    group.records += resource.records;
                    group.mended += resource.mended;
                }
                Err(outcast) => refused.add(&outcast.tenant, resource.records, outcast.reason),
            }
            last = Some((claim, place));
        }
        groups
    }

    fn part(&self, request: &Request, group: Group, record_bytes_max: usize, refused: &mut Refused) -> Part {
        let tenant = group.stream.tenant.clone();
        let mut batch = request.batch(group.stream, &group.resources);
        // Before the stamps: an envelope that loses its last record needs none.
        let too_large = batch.reject_larger(record_bytes_max);
        if too_large > 0 {
            refused.add(&tenant, too_large, "record_too_large");
        }
        let stamped = batch.stamp(&self.keys, self.is_stamping);
        self.count(&tenant, stamped.overwritten, group.mended);
        Part { batch, received: group.records, overwritten: stamped.overwritten, mended: group.mended }
    }

    fn count(&self, tenant: &TenantId, overwritten: u32, mended: u32) {
        for (count, family) in
            [(overwritten, &self.metrics.admit_overwritten), (mended, &self.metrics.admit_mended)]
        {
            if count > 0 {
                let labels = vec![("tenant", self.metrics.tenant_labels.of(tenant.as_str()).to_owned())];
                family.get_or_create(&labels).inc_by(count.into());
            }
        }
    }

    /// The stream that a resource belongs to, noted among those seen.
    fn stream_of(&self, caller: &Caller, claim: &Claim) -> Result<Stream, Outcast> {
        let stream = stream_of(&caller.who, claim)?;
        let is_invited = matches!(caller.who, Who::Tenant { .. });
        match self.seen.note(&stream, is_invited) {
            Ok(()) => Ok(stream),
            Err(reason @ "too_many_tenants") => Err(Outcast { tenant: TenantId::none(), reason }),
            Err(reason) => Err(Outcast { tenant: stream.tenant, reason }),
        }
    }
}

/// What is left out, summed; a request may name thousands of tenants, so the sums are found by a map.
#[derive(Default)]
struct Refused {
    parts: Vec<RefusedPart>,
    places: HashMap<(TenantId, &'static str), usize>,
}

impl Refused {
    fn add(&mut self, tenant: &TenantId, records: u32, reason: &'static str) {
        let place = *self.places.entry((tenant.clone(), reason)).or_insert_with(|| {
            self.parts.push(RefusedPart { tenant: tenant.clone(), records: 0, reason });
            self.parts.len() - 1
        });
        self.parts[place].records += records;
    }
}

/// Whose a resource is that says this, from somebody who is that.
fn stream_of(who: &Who, claim: &Claim) -> Result<Stream, Outcast> {
    let nobodys = |reason| Outcast { tenant: TenantId::none(), reason };
    let (tenant, projects) = match who {
        Who::Tenant { tenant, projects } => (tenant.clone(), projects),
        Who::SpeaksFor { tenants } => match said(&claim.tenant) {
            Ok(None) => return Err(nobodys("no_tenant")),
            Ok(Some(name)) if !tenants.cover(name) => return Err(nobodys("unknown_tenant")),
            Ok(Some(name)) => (TenantId::new(name).map_err(|_| nobodys("unknown_tenant"))?, &Names::All),
            Err(reason) => return Err(nobodys(reason)),
        },
        Who::Nobody => return Err(nobodys("no_tenant")),
    };
    match project_of(projects, &claim.project) {
        Ok(project) => Ok(Stream { tenant, project }),
        Err(reason) => Err(Outcast { tenant, reason }),
    }
}

fn project_of(projects: &Names, claimed: &Claimed) -> Result<ProjectId, &'static str> {
    let not_covered = "project_not_covered";
    match (said(claimed)?, projects) {
        (Some(name), _) if projects.cover(name) => ProjectId::new(name).map_err(|_| not_covered),
        (Some(_), _) => Err(not_covered),
        (None, Names::Some(names)) if names.len() == 1 => ProjectId::new(&names[0]).map_err(|_| not_covered),
        (None, _) => Ok(ProjectId::default_project()),
    }
}

/// What an identity attribute says. An empty text says nothing: an unset variable makes one.
fn said(claimed: &Claimed) -> Result<Option<&str>, &'static str> {
    match claimed {
        Claimed::One(name) if !name.is_empty() => Ok(Some(name)),
        Claimed::One(_) | Claimed::Absent => Ok(None),
        Claimed::Conflict => Err("identity_conflict"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{IdentityKeys, Signal};
    use crate::telemetry::Metrics;
    use crate::tenants::{Credential, Proof, Rights, Settings};
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use prost::Message;
    use std::sync::Arc;

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

    fn tenants(is_stamping: bool) -> (Arc<Tenants>, Metrics) {
        let metrics = Metrics::new();
        let settings = Settings {
            attributes: IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() },
            stamp: is_stamping,
            credentials: Vec::new(),
            token_files: Vec::new(),
            ticket_key: None,
            is_open: false,
            room_bytes: 1 << 20,
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
                let attributes = attributes
                    .split_whitespace()
                    .map(|a| a.split_once('=').unwrap())
                    .map(|(k, v)| text(k, v));
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
        let admitted = tenants.admit(sent, &caller("acme: shop"), 1 << 20);
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
            tenants.admit(request(&[&line]), &speaker, 1 << 20);
        }
        tenants.admit(request(&["tenant.id=globex | one"]), &caller("acme: *"), 1 << 20);
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
        let admitted = tenants.admit(sent, &caller("acme: *"), 1 << 20);
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
            shown(tenants.admit(sent, &caller("for *"), 1 << 20)),
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
            shown(tenants.admit(sent, &caller("acme: shop"), 1 << 20)),
            ["acme/shop received 2 overwritten 1", "  a=b | one", "  tenant.id=acme | two"]
        );
    }

    #[test]
    fn a_record_that_is_too_large_is_refused_and_its_neighbours_are_not() {
        let (tenants, _) = tenants(true);
        let large = "x".repeat(200);
        let lines = [format!("project.id=a | one {large} two"), format!("project.id=b | {large}")];
        let sent = request(&[&lines[0], &lines[1]]);
        let mut admitted = tenants.admit(sent, &caller("acme: *"), 100);
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
        let admitted = tenants.admit(request(&["tenant.id=acme |", " |"]), &caller("for *"), 1 << 20);
        assert_eq!(shown(admitted), Vec::<String>::new());
    }

    #[test]
    fn more_tenants_than_fit_are_refused_and_those_with_a_credential_are_not() {
        let (tenants, _) = tenants(true);
        let lines: Vec<String> = (0..10_001).map(|number| format!("tenant.id=t{number} | one")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let admitted = tenants.admit(request(&lines), &caller("for *"), 1 << 20);
        assert_eq!(admitted.parts.len(), 10_000);
        let refused = RefusedPart { tenant: TenantId::none(), records: 1, reason: "too_many_tenants" };
        assert_eq!(admitted.refused, [refused]);
        let own = tenants.admit(request(&[" | one"]), &caller("acme: *"), 1 << 20);
        assert_eq!((own.parts.len(), own.refused.len()), (1, 0));
    }

    #[test]
    fn more_projects_than_fit_are_refused_for_their_tenant() {
        let (tenants, _) = tenants(true);
        let lines: Vec<String> = (0..1_002).map(|number| format!("project.id=p{number} | one")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let admitted = tenants.admit(request(&lines), &caller("acme: *"), 1 << 20);
        assert_eq!(admitted.parts.len(), 1_000);
        let refused =
            RefusedPart { tenant: TenantId::new("acme").unwrap(), records: 2, reason: "too_many_projects" };
        assert_eq!(admitted.refused, [refused]);
    }
}
