//! The table of credentials: looked up at every request, exchanged whole when a token file changed.

use super::token_file::{self, Stamp};
use super::{Caller, Credential, Proof, Unauthenticated};
use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use subtle::ConstantTimeEq;

/// Everybody we know.
#[derive(Debug)]
pub(super) struct Table {
    known: ArcSwap<Known>,
    /// From the configuration; they stay while files come and go.
    fixed: Vec<Credential>,
    files: Mutex<Vec<File>>,
}

/// One immutable state of the table, by the head of the proof.
///
/// Finding the bucket takes a time that depends on eight bytes of a hash, which tell nothing of the token; the whole
/// hash is compared in constant time.
#[derive(Debug, Default)]
struct Known {
    buckets: HashMap<u64, Vec<(Proof, Arc<Caller>)>>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    /// What was looked at last, good or broken, so that a broken file is reported once.
    seen: Option<Stamp>,
    credentials: Vec<Credential>,
}

impl Table {
    /// Reads every file; a broken one is an error here, where nobody is served yet.
    pub(super) fn open(fixed: Vec<Credential>, paths: Vec<PathBuf>) -> Result<Table, String> {
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            let (seen, credentials) = token_file::read(&path)?;
            files.push(File { path, seen: Some(seen), credentials });
        }
        let known = Known::of(&fixed, &files)?;
        Ok(Table { known: ArcSwap::from_pointee(known), fixed, files: Mutex::new(files) })
    }

    pub(super) fn token(&self, token: &str) -> Result<Arc<Caller>, Unauthenticated> {
        self.known.load().find(&Proof::Token(Sha256::digest(token.as_bytes()).into()))
    }

    pub(super) fn certificate(&self, fingerprint: [u8; 32]) -> Result<Arc<Caller>, Unauthenticated> {
        self.known.load().find(&Proof::Certificate(fingerprint))
    }

    /// Reads the files that changed. While one of them is broken, the table of before stays, whole.
    pub(super) fn reload(&self, now: SystemTime) {
        let mut files = self.files.lock().expect("nothing panics while the files are locked");
        let mut is_changed = false;
        for file in files.iter_mut() {
            let stamp = token_file::stamp(&file.path).ok();
            if stamp.is_some() && stamp == file.seen && !stamp.is_some_and(|s| s.is_young(now)) {
                continue;
            }
            let was_seen = std::mem::replace(&mut file.seen, stamp);
            match token_file::read(&file.path) {
                Ok((_, credentials)) if credentials == file.credentials => {}
                Ok((_, credentials)) => {
                    file.credentials = credentials;
                    is_changed = true;
                }
                Err(error) if was_seen != stamp => {
                    tracing::warn!(error, "token file not taken: the credentials of before stay");
                }
                Err(_) => {}
            }
        }
        if is_changed {
            match Known::of(&self.fixed, &files) {
                Ok(known) => self.known.store(Arc::new(known)),
                Err(error) => tracing::warn!(error, "token files not taken: the credentials of before stay"),
            }
        }
    }
}

impl Known {
    fn of(fixed: &[Credential], files: &[File]) -> Result<Known, String> {
        let mut known = Known::default();
        let all = fixed.iter().chain(files.iter().flat_map(|f| &f.credentials));
        for credential in all {
            let bucket = known.buckets.entry(credential.proof.head()).or_default();
            if bucket.iter().any(|(proof, _)| *proof == credential.proof) {
                return Err(format!(
                    "one credential stands twice: sha256 beginning {:08x}; each stands once, in one place",
                    credential.proof.head() >> 32
                ));
            }
            bucket.push((credential.proof.clone(), Arc::new(Caller::of(credential))));
        }
        Ok(known)
    }

    fn find(&self, shown: &Proof) -> Result<Arc<Caller>, Unauthenticated> {
        let bucket = self.buckets.get(&shown.head()).ok_or(Unauthenticated)?;
        let mut found = None;
        for (proof, caller) in bucket {
            let is_same_kind = std::mem::discriminant(proof) == std::mem::discriminant(shown);
            if is_same_kind & bool::from(proof.sha256().ct_eq(shown.sha256())) {
                found = Some(caller);
            }
        }
        found.cloned().ok_or(Unauthenticated)
    }
}

/// The token of an `authorization` header.
pub(super) fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim_ascii().split_once(' ')?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::TenantId;
    use crate::tenants::{Names, Rights, Who};
    use std::path::Path;
    use std::time::Duration;

    const HEADER: &str = "sha256,tenant,projects,speaks_for,rights";

    fn sha256(text: &str) -> [u8; 32] {
        Sha256::digest(text.as_bytes()).into()
    }

    fn line(token: &str, tenant: &str) -> String {
        let hex: String = sha256(token).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{hex},{tenant},*,,send\n")
    }

    fn write(path: &Path, lines: &[String]) {
        std::fs::write(path, format!("{HEADER}\n{}", lines.concat())).unwrap();
    }

    fn tenant(table: &Table, token: &str) -> Option<String> {
        match &table.token(token).ok()?.who {
            Who::Tenant { tenant, .. } => Some(tenant.to_string()),
            _ => None,
        }
    }

    fn fixed(proof: Proof, name: &str) -> Credential {
        let who = Who::Tenant { tenant: TenantId::new(name).unwrap(), projects: Names::All };
        Credential { proof, who, rights: Rights { send: true, ..Rights::default() } }
    }

    /// A time at which no file is young.
    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(60)
    }

    #[test]
    fn a_token_is_no_certificate_and_the_reverse() {
        let (token, certificate) = (Proof::Token(sha256("one")), Proof::Certificate(sha256("two")));
        let table = Table::open(vec![fixed(token, "acme"), fixed(certificate, "globex")], vec![]).unwrap();
        assert_eq!(tenant(&table, "one").as_deref(), Some("acme"));
        assert_eq!(tenant(&table, "two"), None);
        assert!(table.certificate(sha256("two")).is_ok());
        assert_eq!(table.certificate(sha256("one")), Err(Unauthenticated));
        let mut near = sha256("two");
        near[31] ^= 1;
        assert_eq!(table.certificate(near), Err(Unauthenticated), "the head alone is not enough");
    }

    #[test]
    fn a_bearer_header_is_read_with_any_case_of_the_scheme() {
        let cases = [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("BEARER   abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer", None),
            ("Bearer ", None),
            ("Bearerabc", None),
            ("abc", None),
            ("", None),
        ];
        for (header, token) in cases {
            assert_eq!(bearer(header), token, "{header:?}");
        }
    }

    #[test]
    fn clients_come_and_go_with_the_file_and_those_of_the_configuration_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.csv");
        write(&path, &[line("one", "acme")]);
        let table =
            Table::open(vec![fixed(Proof::Token(sha256("fixed")), "home")], vec![path.clone()]).unwrap();
        assert_eq!(tenant(&table, "one").as_deref(), Some("acme"));
        write(&path, &[line("two", "globex")]);
        table.reload(later());
        assert_eq!((tenant(&table, "one"), tenant(&table, "two").as_deref()), (None, Some("globex")));
        assert_eq!(tenant(&table, "fixed").as_deref(), Some("home"));
    }

    #[test]
    fn a_second_change_within_the_same_moment_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.csv");
        write(&path, &[line("one", "acme")]);
        let table = Table::open(vec![], vec![path.clone()]).unwrap();
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        write(&path, &[line("two", "acme")]);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        table.reload(modified + Duration::from_secs(1));
        assert_eq!(tenant(&table, "two").as_deref(), Some("acme"));
    }

    #[test]
    fn a_broken_or_missing_file_keeps_the_table_of_before_until_it_is_mended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.csv");
        write(&path, &[line("one", "acme")]);
        let table = Table::open(vec![], vec![path.clone()]).unwrap();
        for text in ["", "sha256,tenant\n", &format!("{HEADER}\nabc,acme,*,,send\n")] {
            std::fs::write(&path, text).unwrap();
            table.reload(later());
            assert_eq!(tenant(&table, "one").as_deref(), Some("acme"), "{text:?}");
        }
        std::fs::remove_file(&path).unwrap();
        table.reload(later());
        assert_eq!(tenant(&table, "one").as_deref(), Some("acme"));
        write(&path, &[line("two", "globex")]);
        table.reload(later());
        assert_eq!((tenant(&table, "one"), tenant(&table, "two").as_deref()), (None, Some("globex")));
    }

    #[test]
    fn a_file_that_repeats_a_credential_of_the_configuration_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.csv");
        write(&path, &[]);
        let table =
            Table::open(vec![fixed(Proof::Token(sha256("one")), "acme")], vec![path.clone()]).unwrap();
        write(&path, &[line("one", "globex"), line("two", "globex")]);
        table.reload(later());
        assert_eq!((tenant(&table, "one").as_deref(), tenant(&table, "two")), (Some("acme"), None));
        let error = Table::open(vec![fixed(Proof::Token(sha256("one")), "acme")], vec![path]).unwrap_err();
        assert!(error.starts_with("one credential stands twice: sha256 beginning "), "{error}");
    }

    #[test]
    fn a_broken_file_at_the_start_is_an_error_that_names_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.csv");
        std::fs::write(&path, format!("{HEADER}\n\nabc\n")).unwrap();
        let error = Table::open(vec![], vec![path.clone()]).unwrap_err();
        assert_eq!(error, format!("{}:3: 1 fields; five are right: {HEADER}", path.display()));
    }

    #[test]
    fn nothing_shown_or_stored_is_in_the_debug_text() {
        let table = Table::open(vec![fixed(Proof::Token([0xab; 32]), "acme")], vec![]).unwrap();
        let text = format!("{table:?}");
        assert!(text.contains("Token(…)") && !text.contains("171, 171"), "{text}");
    }
}
