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

#[cfg(test)]
mod tests {
    use super::*;

    /// `$` stands for a good hash.
    fn parsed(lines: &str) -> Result<Vec<Credential>, (usize, String)> {
        parse(&format!("{HEADER}\n{}", lines.replace('$', &"ab".repeat(32))))
    }

    #[test]
    fn every_kind_of_line_is_read() {
        let names = |names: &[&str]| Names::Some(names.iter().map(|n| (*n).to_owned()).collect());
        let acme = TenantId::new("acme").unwrap();
        let (send, read) =
            (Rights { send: true, ..Rights::default() }, Rights { read: true, ..Rights::default() });
        let cases = [
            ("$,acme,*,,send", Who::Tenant { tenant: acme.clone(), projects: Names::All }, send),
            (
                "$, acme , shop; blog ,, send;read",
                Who::Tenant { tenant: acme, projects: names(&["shop", "blog"]) },
                Rights { read: true, ..send },
            ),
            ("$,,,*,send", Who::SpeaksFor { tenants: Names::All }, send),
            ("$,,,acme;globex,read", Who::SpeaksFor { tenants: names(&["acme", "globex"]) }, read),
            ("$,,,,admin", Who::Nobody, Rights { admin: true, ..Rights::default() }),
        ];
        for (line, who, rights) in cases {
            let expected = Credential { proof: Proof::Token([0xab; 32]), who, rights };
            assert_eq!(parsed(&format!("\n{line}\r\n\n")), Ok(vec![expected]), "{line}");
        }
        assert_eq!(parse(HEADER), Ok(vec![]), "an empty table is a table");
        assert_eq!(parse(&format!("\u{feff}{HEADER}\r\n")), Ok(vec![]), "as spreadsheets write it");
    }

    #[test]
    fn a_fault_names_its_line_and_what_would_be_right() {
        let cases = [
            (
                "$,acme,*,,send\n\n$,globex,*,,send",
                4,
                "this sha256 stands on an earlier line: each stands once",
            ),
            ("$,acme,*,send", 2, "4 fields; five are right: sha256,tenant,projects,speaks_for,rights"),
            ("$,acme,a,b,,send", 2, "6 fields; five are right: sha256,tenant,projects,speaks_for,rights"),
            ("$,\"acme\",*,,send", 2, "fields stand without quotes"),
            ("$,acme,*,*,send", 2, "tenant and speaks_for: one of them is right, not both"),
            ("$,acme,,,send", 2, "a tenant needs projects: names joined with `;`, or `*` for all"),
            ("$,,shop,*,send", 2, "projects stand with a tenant only"),
            ("$,,,,send", 2, "whose is it? rights `send` and `read` need tenant or speaks_for"),
            (
                "$,_none,*,,send",
                2,
                "tenant \"_none\": a name is 1 to 128 bytes of printable text and does not begin with `_`",
            ),
            (
                "$,acme,shop;;blog,,send",
                2,
                "project \"\": a name is 1 to 128 bytes of printable text and does not begin with `_`",
            ),
            ("$,acme,shop;*,,send", 2, "`*` stands alone: it means all"),
            (
                "$,,,acme;_x,send",
                2,
                "tenant \"_x\": a name is 1 to 128 bytes of printable text and does not begin with `_`",
            ),
            ("$,acme,*,,", 2, "no rights: `send`, `read`, `admin`, joined with `;`"),
            ("$,acme,*,,send;write", 2, "right \"write\": `send`, `read` and `admin` are right"),
        ];
        for (lines, line, error) in cases {
            assert_eq!(parsed(lines), Err((line, error.to_owned())), "{lines}");
        }
        let header = format!("the first line must be `{HEADER}`");
        assert_eq!(parse(""), Err((1, header.clone())));
        assert_eq!(parse("tenant,sha256"), Err((1, header)));
    }

    #[test]
    fn a_token_in_the_place_of_its_hash_is_not_shown() {
        for text in ["correct-horse-battery", &"g".repeat(64), &"é".repeat(32)] {
            let (line, error) = parsed(&format!("{text},acme,*,,send")).unwrap_err();
            assert_eq!(
                (line, error.as_str()),
                (2, "sha256 must be 64 hexadecimal digits: `printf %s TOKEN | sha256sum`")
            );
        }
    }
}
