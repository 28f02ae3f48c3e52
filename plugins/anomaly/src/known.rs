//! The errors that a service is known by, as `process` reads them from the store: what is in here is not news.

/// One for all services of a tenant: 12 KiB of its share of the store.
const SIGNATURES_MAX: usize = 3_072;
/// Of one service, if there are few, and if there are many.
const OF_SERVICE_MAX: usize = 128;
const OF_SERVICE_MIN: usize = 16;
/// What each takes in the store.
pub(crate) const SIGNATURE_BYTES: usize = size_of::<u32>();

/// In the order in which they came; the oldest make room. Half of a hash is kept: of 128 that a service is known by, one
/// looks like a new one once in 30 million.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The messages of the service never repeat: they are not looked at.
    pub(crate) is_unsteady: bool,
    signatures: Vec<u32>,
}

impl Known {
    pub(crate) fn decode(bytes: &[u8]) -> Known {
        let Some((flag, signatures)) = bytes.split_first() else { return Known::default() };
        let signatures = signatures.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        Known { is_unsteady: *flag != 0, signatures }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let signatures = self.signatures.iter().flat_map(|signature| signature.to_le_bytes());
        std::iter::once(u8::from(self.is_unsteady)).chain(signatures).collect()
    }

    pub(crate) fn has(&self, signature: u64) -> bool {
        self.signatures.contains(&half(signature))
    }

    pub(crate) fn len(&self) -> usize {
        self.signatures.len()
    }

    /// Adds them; `services` share the room.
    pub(crate) fn add(&mut self, signatures: Vec<u64>, services: usize) {
        self.signatures.extend(signatures.into_iter().map(half));
        let most = (SIGNATURES_MAX / services.max(1)).clamp(OF_SERVICE_MIN, OF_SERVICE_MAX);
        self.signatures.drain(..self.signatures.len().saturating_sub(most));
    }
}

/// The lower half.
fn half(signature: u64) -> u32 {
    signature as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_survives_the_store() {
        for known in [
            Known::default(),
            Known { is_unsteady: true, signatures: vec![] },
            Known { is_unsteady: false, signatures: vec![1, u32::MAX, 0] },
        ] {
            assert_eq!(Known::decode(&known.encode()), known);
        }
        assert_eq!(Known::decode(&[]), Known::default());
        assert_eq!(Known::decode(&[0, 1, 2]), Known::default(), "half a signature is none");
    }

    #[test]
    fn the_oldest_make_room() {
        let mut known = Known::default();
        (0..200).for_each(|signature| known.add(vec![signature], 1));
        assert_eq!((known.len(), known.has(71), known.has(72), known.has(199)), (128, false, true, true));
        known.add(vec![200], 4_096);
        assert_eq!((known.len(), known.has(184), known.has(185)), (16, false, true));
    }
}
