//! The keyed hash behind `batch.hash`: equal texts stay equal, and without the secret nobody can try texts.

use crate::telemetry::Secret;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Keyed with one secret of a plugin.
#[derive(Clone)]
pub(super) struct HashKey {
    mac: Hmac<Sha256>,
}

impl HashKey {
    pub(super) fn new(secret: &Secret) -> HashKey {
        HashKey {
            mac: Hmac::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes keys of any length"),
        }
    }

    /// 32 hexadecimal digits: the first half of HMAC-SHA-256.
    pub(super) fn of(&self, text: &[u8]) -> String {
        let mut mac = self.mac.clone();
        mac.update(text);
        let digest = mac.finalize().into_bytes();
        digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey")
    }
}
