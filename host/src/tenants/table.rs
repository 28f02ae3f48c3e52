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
