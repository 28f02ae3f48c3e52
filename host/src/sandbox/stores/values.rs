//! The values of one tenant and plugin, within their share.

use std::collections::BTreeMap;

const KEYS_MAX: usize = 256;
const KEY_BYTES_MAX: usize = 256;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::sandbox) struct Values {
    of_keys: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

impl Values {
    pub(in crate::sandbox) fn value(&self, key: &str) -> Option<&[u8]> {
        self.of_keys.get(key).map(Vec::as_slice)
    }

    /// Keys and values together may take so many bytes, which are the plugin's `share` or less. The error is for the
    /// plugin.
    pub(in crate::sandbox) fn set(
        &mut self,
        key: String,
        value: Vec<u8>,
        bytes_max: usize,
        share: usize,
    ) -> Result<(), String> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(format!("a key has 1 to {KEY_BYTES_MAX} bytes"));
        }
        let known = self.of_keys.get(&key);
        if known.is_none() && self.of_keys.len() >= KEYS_MAX {
            return Err(format!("a plugin keeps {KEYS_MAX} keys for each tenant"));
        }
        let before = known.map_or(0, |value| key.len() + value.len());
        let (after, bytes_max) = (self.bytes - before + key.len() + value.len(), bytes_max.min(share));
        // What makes it smaller is always right.
        if after > bytes_max && after > self.bytes {
            return Err(match bytes_max < share {
                false => format!("a plugin keeps {share} bytes for each tenant"),
                true => "the plugins together keep as many bytes as there is room for".into(),
            });
        }
        self.bytes = after;
        self.of_keys.insert(key, value);
        Ok(())
    }

    pub(in crate::sandbox) fn remove(&mut self, key: &str) {
        if let Some(value) = self.of_keys.remove(key) {
            self.bytes -= key.len() + value.len();
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.of_keys.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.of_keys.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: &mut Values, key: &str, bytes: usize) -> Result<(), String> {
        values.set(key.into(), vec![0; bytes], usize::MAX, 64 << 10)
    }

    #[test]
    fn the_share_is_bounded_in_bytes_and_keys_and_the_text_says_which() {
        let mut values = Values::default();
        let bytes = Err("a plugin keeps 65536 bytes for each tenant".to_string());
        assert_eq!(set(&mut values, "a", 65_535), Ok(()));
        assert_eq!(set(&mut values, "b", 0), bytes);
        assert_eq!(set(&mut values, "a", 65_536), bytes);
        assert_eq!(set(&mut values, "a", 100), Ok(()));
        assert_eq!(set(&mut values, "b", 0), Ok(()));
        assert_eq!(values.bytes(), 102);
        for key in ["", &"k".repeat(257)] {
            assert_eq!(set(&mut values, key, 1), Err("a key has 1 to 256 bytes".into()));
        }
        let keys = (0..300).filter(|key| set(&mut values, &format!("key{key}"), 1).is_ok()).count();
        assert_eq!(keys, 254);
        assert_eq!(set(&mut values, "late", 1), Err("a plugin keeps 256 keys for each tenant".into()));
        assert_eq!(set(&mut values, "key0", 2), Ok(()));
    }

    #[test]
    fn what_is_removed_makes_room() {
        let mut values = Values::default();
        set(&mut values, "a", 65_535).unwrap();
        values.remove("a");
        values.remove("a");
        assert_eq!((values.bytes(), values.is_empty(), values.value("a")), (0, true, None));
        set(&mut values, "b", 65_535).unwrap();
    }

    #[test]
    fn where_all_room_is_taken_values_may_shrink() {
        let mut values = Values::default();
        set(&mut values, "a", 1000).unwrap();
        let full = "the plugins together keep as many bytes as there is room for";
        assert_eq!(values.set("a".into(), vec![0; 1001], 500, 64 << 10), Err(full.into()));
        assert_eq!(values.set("a".into(), vec![0; 999], 500, 64 << 10), Ok(()));
    }
}
