//! `identity:` who may send, read and administer.

use super::node::Value;
use super::read::{Table, Wrong, flag, secret, text};
use crate::batch::{IdentityKeys, TenantId};
use crate::telemetry::Secret;
use crate::tenants::{Credential, Names, Proof, Rights, Who};
use std::path::PathBuf;

/// The section as it was read; what follows from the rest of the file is decided in `check`.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) attributes: IdentityKeys,
    pub(super) stamp: bool,
    pub(super) credentials: Vec<Credential>,
    pub(super) token_files: Vec<PathBuf>,
    pub(super) ticket_key: Option<Secret>,
}

impl Default for Identity {
    fn default() -> Identity {
        Identity {
            attributes: keys(),
            stamp: true,
            credentials: Vec::new(),
            token_files: Vec::new(),
            ticket_key: None,
        }
    }
}

/// The attributes that carry identity where the file names none.
pub(super) fn keys() -> IdentityKeys {
    IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() }
}

const KEYS: [&str; 5] = ["attributes", "stamp", "tokens", "tickets", "unknown_tenant"];

pub(super) fn read(table: Table<'_>) -> Identity {
    let mut identity = Identity::default();
    if let Some(attributes) = table.table("attributes") {
        identity.attributes.tenant =
            attributes.optional("tenant", key_name).unwrap_or(identity.attributes.tenant);
        identity.attributes.project =
            attributes.optional("project", key_name).unwrap_or(identity.attributes.project);
        if identity.attributes.tenant == identity.attributes.project {
            attributes.fault("project", "is the key of the tenant as well", "two different attribute keys");
        }
        attributes.finish(&["tenant", "project"]);
    }
    identity.stamp = table.optional("stamp", flag).unwrap_or(true);
    if let Some(word) = table.optional("unknown_tenant", text)
        && word != "reject"
    {
        table.fault("unknown_tenant", format!("`{word}` is not known"), "reject");
    }
    if let Some(tickets) = table.table("tickets") {
        identity.ticket_key =
            tickets.required("key", "a key of 32 bytes or more: ${file:ticket.key}", ticket_key);
        tickets.finish(&["key"]);
    }
    if let Some(node) = table.node("tokens") {
        let path = table.path("tokens");
        for item in table.reader.list(&path, node) {
            read_token(table.reader.table(&path, item), &mut identity);
        }
    }
    table.finish(&KEYS);
    identity
}

fn read_token(table: Table<'_>, identity: &mut Identity) {
    const KEYS: [&str; 7] =
        ["sha256", "certificate_sha256", "tenant", "projects", "speaks_for", "rights", "file"];
    if let Some(file) = table.optional("file", text) {
        identity.token_files.push(table.reader.folder.join(file));
        table.finish(&["file"]);
        return;
    }
    let token = table.optional("sha256", digest).map(Proof::Token);
    let certificate = table.optional("certificate_sha256", digest).map(Proof::Certificate);
    let tenant = table.optional("tenant", tenant_id);
    let projects = table.values("projects", text);
    let speaks_for = table.values("speaks_for", text);
    let rights = table.values("rights", text).unwrap_or_default();
    let rights = rights_of(&table, &rights);
    let who = match (tenant, speaks_for) {
        (Some(tenant), None) => Who::Tenant { tenant, projects: projects.map_or(Names::All, names) },
        (None, Some(others)) => Who::SpeaksFor { tenants: names(others) },
        (None, None) if rights.admin => Who::Nobody,
        (None, None) => {
            return table.fault("tenant", "is missing", "`tenant`, or `speaks_for`, or the right `admin`");
        }
        (Some(_), Some(_)) => return table.fault("speaks_for", "stands beside `tenant`", "one of the two"),
    };
    match (token, certificate) {
        (Some(proof), None) | (None, Some(proof)) => {
            identity.credentials.push(Credential { proof, who, rights })
        }
        (None, None) => table.fault(
            "sha256",
            "is missing or wrong",
            "the SHA-256 of the token in 64 hexadecimal digits, or `certificate_sha256`",
        ),
        (Some(_), Some(_)) => table.fault("certificate_sha256", "stands beside `sha256`", "one of the two"),
    }
    table.finish(&KEYS);
}

fn rights_of(table: &Table<'_>, words: &[String]) -> Rights {
    let mut rights = Rights::default();
    for word in words {
        match word.as_str() {
            "send" => rights.send = true,
            "read" => rights.read = true,
            "admin" => rights.admin = true,
            other => table.fault("rights", format!("`{other}` is no right"), "some of send, read, admin"),
        }
    }
    if words.is_empty() {
        table.fault("rights", "is missing or empty", "some of [send, read, admin]");
    }
    rights
}

fn names(names: Vec<String>) -> Names {
    if names.iter().any(|name| name == "*") { Names::All } else { Names::Some(names) }
}

fn key_name(value: &Value) -> Result<String, Wrong> {
    let key = text(value)?;
    if key.is_empty() || key.len() > 128 {
        Err(("is empty or too long".into(), "an attribute key of 1 to 128 bytes".into()))
    } else {
        Ok(key)
    }
}

/// What would be right as a tenant's name.
pub(super) const TENANT_NAME: &str = "1 to 128 bytes of printable text, not beginning with `_`";

pub(super) fn tenant_id(value: &Value) -> Result<TenantId, Wrong> {
    TenantId::new(&text(value)?)
        .map_err(|_| (format!("{} is no name of a tenant", value.shown()), TENANT_NAME.into()))
}

fn ticket_key(value: &Value) -> Result<Secret, Wrong> {
    let key = secret(value)?;
    if key.expose().trim().len() < 32 {
        Err(("is shorter than 32 bytes".into(), "32 random bytes or more".into()))
    } else {
        Ok(key)
    }
}

fn digest(value: &Value) -> Result<[u8; 32], Wrong> {
    let wrong = || {
        (
            format!("{} is no SHA-256", value.shown()),
            "64 hexadecimal digits: printf %s TOKEN | sha256sum".to_string(),
        )
    };
    let written = text(value)?;
    let mut digest = [0; 32];
    if written.len() != 64 || !written.is_ascii() {
        return Err(wrong());
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&written[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(digest)
}
