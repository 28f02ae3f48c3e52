//! CSV files of tokens: `sha256,tenant,projects,speaks_for,rights`.
//!
//! One line per credential, lists joined with `;`, `*` for all, no quotes. A file with one bad line is not taken at
//! all: half a table would lock out clients that did nothing wrong.

use super::{Credential, Names, Proof, Rights, Who};
use crate::batch::{ProjectId, TenantId};
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

const HEADER: &str = "sha256,tenant,projects,speaks_for,rights";
/// 10,000 tenants with several long lines each; a file larger than this is a mistake.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What tells one version of a file from the next without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: SystemTime,
    bytes: u64,
    /// A file that was put in the place of another.
    inode: u64,
}

impl Stamp {
    /// Changed so lately that a second change may carry the same time.
    pub(super) fn is_young(&self, now: SystemTime) -> bool {
        now.duration_since(self.modified).is_ok_and(|age| age < Duration::from_secs(3))
    }
}

pub(super) fn stamp(path: &Path) -> std::io::Result<Stamp> {
    let metadata = std::fs::metadata(path)?;
    Ok(Stamp { modified: metadata.modified()?, bytes: metadata.len(), inode: metadata.ino() })
}

/// The credentials of a file, and the version they were read from. Errors name the file and the line.
pub(super) fn read(path: &Path) -> Result<(Stamp, Vec<Credential>), String> {
    let said = |error: std::io::Error| format!("{}: {error}", path.display());
    // Before the text: a change in between shows as another stamp at the next look.
    let stamp = stamp(path).map_err(said)?;
    if stamp.bytes > FILE_BYTES_MAX {
        return Err(format!("{}: {} bytes; at most {FILE_BYTES_MAX}", path.display(), stamp.bytes));
    }
    let text = std::fs::read_to_string(path).map_err(said)?;
    match parse(&text) {
        Ok(credentials) => Ok((stamp, credentials)),
        Err((line, error)) => Err(format!("{}:{line}: {error}", path.display())),
    }
}

/// The credentials of a text, or the line (from 1) and what would be right there.
fn parse(text: &str) -> Result<Vec<Credential>, (usize, String)> {
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let header = lines.next().map(|(_, line)| line.trim_start_matches('\u{feff}'));
    if header != Some(HEADER) {
        return Err((1, format!("the first line must be `{HEADER}`")));
    }
    let mut credentials: Vec<Credential> = Vec::new();
    let mut proofs = HashSet::new();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let credential = parse_line(line).map_err(|error| (number, error))?;
        if !proofs.insert(credential.proof.clone()) {
            return Err((number, "this sha256 stands on an earlier line: each stands once".into()));
        }
        credentials.push(credential);
    }
    Ok(credentials)
}

fn parse_line(line: &str) -> Result<Credential, String> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [sha256, tenant, projects, speaks_for, rights] = fields[..] else {
        return Err(format!("{} fields; five are right: {HEADER}", fields.len()));
    };
    if line.contains('"') {
        return Err("fields stand without quotes".into());
    }
    let rights = parse_rights(rights)?;
    Ok(Credential {
        proof: Proof::Token(parse_sha256(sha256)?),
        who: parse_who(tenant, projects, speaks_for, rights)?,
        rights,
    })
}

fn parse_who(tenant: &str, projects: &str, speaks_for: &str, rights: Rights) -> Result<Who, String> {
    match (tenant.is_empty(), speaks_for.is_empty()) {
        (false, false) => Err("tenant and speaks_for: one of them is right, not both".into()),
        (false, true) => {
            if projects.is_empty() {
                return Err("a tenant needs projects: names joined with `;`, or `*` for all".into());
            }
            let name = TenantId::new(tenant).map_err(|error| format!("tenant {tenant:?}: {error}"))?;
            let projects = parse_names("project", projects, |name| ProjectId::new(name).is_ok())?;
            Ok(Who::Tenant { tenant: name, projects })
        }
        (true, _) if !projects.is_empty() => Err("projects stand with a tenant only".into()),
        (true, false) => {
            let tenants = parse_names("tenant", speaks_for, |name| TenantId::new(name).is_ok())?;
            Ok(Who::SpeaksFor { tenants })
        }
        (true, true) if rights.send || rights.read => {
            Err("whose is it? rights `send` and `read` need tenant or speaks_for".into())
        }
        (true, true) => Ok(Who::Nobody),
    }
}

fn parse_names(noun: &str, text: &str, is_name: fn(&str) -> bool) -> Result<Names, String> {
    if text == "*" {
        return Ok(Names::All);
    }
    let names: Vec<String> = text.split(';').map(|name| name.trim().to_owned()).collect();
    match names.iter().find(|name| *name == "*" || !is_name(name)) {
        Some(name) if name == "*" => Err("`*` stands alone: it means all".into()),
        Some(name) => Err(format!(
            "{noun} {name:?}: a name is 1 to 128 bytes of printable text and does not begin with `_`"
        )),
        None => Ok(Names::Some(names)),
    }
}

fn parse_rights(text: &str) -> Result<Rights, String> {
    let mut rights = Rights::default();
    for right in text.split(';').map(str::trim) {
        match right {
            "send" => rights.send = true,
            "read" => rights.read = true,
            "admin" => rights.admin = true,
            "" => return Err("no rights: `send`, `read`, `admin`, joined with `;`".into()),
            other => return Err(format!("right {other:?}: `send`, `read` and `admin` are right")),
        }
    }
    Ok(rights)
}

/// Never shows the text: somebody may have put the token itself there.
fn parse_sha256(text: &str) -> Result<[u8; 32], String> {
    let wrong = || "sha256 must be 64 hexadecimal digits: `printf %s TOKEN | sha256sum`".to_owned();
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).map_err(|_| wrong())?;
    }
    Ok(bytes)
}
