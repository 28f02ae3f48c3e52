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
    /// What was added to series, by key.
    pub series: Vec<(String, Cell)>,
    /// In the order in which they were raised.
    pub alerts: Vec<AlertEffect>,
}

/// Values that were added under one key: their number, sum, extremes and sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub count: u64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
    /// Bucket `i` counts values from `2^(i - 16)` up to `2^(i - 15)`; the first also smaller, the last also larger ones.
    pub buckets: [u64; 32],
}

/// A key of a series in a window that has closed. Times in nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    pub key: String,
    pub start_ns: u64,
    pub end_ns: u64,
    pub cell: Cell,
}

/// What a plugin wants people to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlertEffect {
    Fire(Alert),
    /// By key.
    Resolve(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    pub key: String,
    pub severity: AlertSeverity,
    pub title: String,
    pub text: String,
    /// How many events this firing adds.
    pub count: u32,
    pub labels: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertSeverity {
    Info,
    Warning,
    Critical,
}

impl Default for Cell {
    fn default() -> Cell {
        Cell { count: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY, buckets: [0; 32] }
    }
}

impl Cell {
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.buckets[bucket_of(value)] += 1;
    }

    /// Adds what another cell has counted.
    pub fn merge(&mut self, other: &Cell) {
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.buckets.iter_mut().zip(other.buckets).for_each(|(mine, others)| *mine += others);
    }
}

fn bucket_of(value: f64) -> usize {
    if value < 1.0 / 65536.0 || value.is_nan() {
        return 0;
    }
    // The exponent of a positive normal number is the floor of its logarithm.
    let exponent = (value.to_bits() >> 52) as i64 - 1023;
    (exponent + 16).clamp(0, 31) as usize
}

impl Effects {
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.gauges.is_empty() && self.series.is_empty() && self.alerts.is_empty()
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
        for (key, cell) in later.series {
            match self.series.iter_mut().find(|(known, _)| *known == key) {
                Some((_, known)) => known.merge(&cell),
                None => self.series.push((key, cell)),
            }
        }
        self.alerts.extend(later.alerts);
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
