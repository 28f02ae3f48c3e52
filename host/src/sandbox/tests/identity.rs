//! What a plugin writes about whose a batch is changes nothing.

use super::*;
use crate::batch::IdentityKeys;

/// The resource attributes after a run of this mode over a batch of `acme` that says so, and how many resources had
/// to be put right.
fn after(mode: &str, more: &str) -> (Vec<(String, String)>, u32) {
    let keys = IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() };
    let config = format!(r#"{{"mode": "{mode}"{more}}}"#);
    let plugin = sandbox().load_bytes(&settings(&config), guest()).unwrap();
    let mut batch = batch_of("acme", Signal::Logs, logs(&[("tenant.id", "acme-corporation")], &["a".into()]));
    batch.stamp(&keys, true);
    let ran = plugin.run(only_piece(&batch), 0);
    assert_eq!(ran.failed, []);
    let written = batch.written(vec![ran.piece], &keys);
    assert_eq!(written.batch.stream.tenant.as_str(), "acme");
    let request = ExportLogsServiceRequest::decode(written.batch.bytes).unwrap();
    let resource = request.resource_logs[0].resource.clone().unwrap();
    let value = |value: Option<AnyValue>| match value.unwrap().value {
        Some(any_value::Value::StringValue(text)) => text,
        other => format!("{other:?}"),
    };
    let mut attributes: Vec<_> =
        resource.attributes.into_iter().map(|attribute| (attribute.key, value(attribute.value))).collect();
    attributes.sort();
    (attributes, written.restored)
}

#[test]
fn the_identity_stands_exactly_once_whatever_a_plugin_did() {
    let right = [("project.id", "default"), ("tenant.id", "acme")];
    let right: Vec<_> = right.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    for (mode, more, restored) in [
        ("noop", "", 0),
        ("forge-identity-set", "", 1),
        ("forge-identity-set", r#", "key": "project.id""#, 1),
        ("forge-identity-remove", "", 1),
        ("forge-identity-splice", r#", "own": "acme""#, 1),
    ] {
        assert_eq!(after(mode, more), (right.clone(), restored), "{mode}{more}");
    }
}
