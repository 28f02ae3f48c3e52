//! What a call leaves beside its edits: counts and gauges of the plugin.

/// Names that one call may count under.
const NAMES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 128;

/// They take effect when the request that the call belonged to is committed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// Sums by name, in the order of their first use.
    pub counts: Vec<(String, u64)>,
    /// The last value by name.
    pub gauges: Vec<(String, f64)>,
}

impl Effects {
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.gauges.is_empty()
    }

    /// Adds what a later call left.
    pub fn merge(&mut self, later: Effects) {
        for (name, by) in later.counts {
            // Bounded like one call: the names of later calls beyond it are lost, not the earlier ones.
            let _ = self.count(name, by);
        }
        for (name, value) in later.gauges {
            let _ = self.gauge(name, value);
        }
    }

    pub(super) fn count(&mut self, name: String, by: u64) -> Result<(), String> {
        let sum = entry(&mut self.counts, name)?;
        *sum = sum.saturating_add(by);
        Ok(())
    }

    pub(super) fn gauge(&mut self, name: String, value: f64) -> Result<(), String> {
        *entry(&mut self.gauges, name)? = value;
        Ok(())
    }
}

fn entry<T: Default>(values: &mut Vec<(String, T)>, name: String) -> Result<&mut T, String> {
    if let Some(at) = values.iter().position(|(known, _)| *known == name) {
        return Ok(&mut values[at].1);
    }
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(format!("a name has 1 to {NAME_BYTES_MAX} bytes of printable text"));
    }
    if values.len() == NAMES_MAX {
        return Err(format!("a call may use {NAMES_MAX} names"));
    }
    let at = values.len();
    values.push((name, T::default()));
    Ok(&mut values[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_gauges_keep_the_last() {
        let mut effects = Effects::default();
        effects.count("a".into(), 1).unwrap();
        effects.gauge("g".into(), 1.0).unwrap();
        let mut later = Effects::default();
        later.count("a".into(), 2).unwrap();
        later.count("b".into(), 3).unwrap();
        later.gauge("g".into(), 2.0).unwrap();
        effects.merge(later);
        assert_eq!(effects.counts, [("a".into(), 3), ("b".into(), 3)]);
        assert_eq!(effects.gauges, [("g".into(), 2.0)]);
    }

    #[test]
    fn names_are_bounded() {
        let mut effects = Effects::default();
        for name in ["", "a\nb", &"x".repeat(129)] {
            assert!(effects.count(name.into(), 1).is_err(), "{name}");
        }
        for at in 0..64 {
            effects.count(at.to_string(), 1).unwrap();
        }
        assert!(effects.count("64".into(), 1).is_err());
        assert!(effects.count("0".into(), 1).is_ok());
    }
}
