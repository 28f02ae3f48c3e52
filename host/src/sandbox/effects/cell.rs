//! What was added under one key: few numbers, whatever their number.

/// Values that were added under one key: their number, sum, extremes and sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub count: u64,
    /// Infinite if it is beyond the range of its type.
    pub sum: f64,
    /// Infinite while there is no value.
    pub min: f64,
    /// Likewise, negative.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_the_values_from_its_power_of_two_up_to_the_next() {
        for bucket in 0..32_usize {
            let from = 2_f64.powi(bucket as i32 - 16);
            assert_eq!(bucket_of(from), bucket, "{from}");
            assert_eq!(bucket_of(from * 1.5), bucket, "{from}");
            assert_eq!(bucket_of((from * 2.0).next_down()), bucket, "{from}");
            assert_eq!(bucket_of(from.next_down()), bucket.saturating_sub(1), "{from}");
        }
    }

    #[test]
    fn whatever_is_smaller_is_in_the_first_and_whatever_is_larger_in_the_last() {
        let subnormal = f64::from_bits(1);
        let first = [0.0, -0.0, subnormal, -subnormal, f64::MIN_POSITIVE, 1e-5, -1.0, f64::MIN];
        let check = |values: &[f64], bucket| {
            values.iter().for_each(|value| assert_eq!(bucket_of(*value), bucket, "{value}"))
        };
        check(&first, 0);
        check(&[f64::NEG_INFINITY, f64::NAN, -f64::NAN], 0);
        check(&[32_768.0, 65_536.0, 1e300, f64::MAX, f64::INFINITY], 31);
        check(&[1.0, 1.99], 16);
    }

    #[test]
    fn cells_that_are_merged_are_the_cell_of_all_values() {
        let values: Vec<f64> = (-50..50).map(|at| f64::from(at) * 0.75).collect();
        let cell_of = |values: &[f64]| {
            let mut cell = Cell::default();
            values.iter().for_each(|value| cell.add(*value));
            cell
        };
        for cut in [0, 1, 33, 100] {
            let mut merged = cell_of(&values[..cut]);
            merged.merge(&cell_of(&values[cut..]));
            assert_eq!(merged, cell_of(&values), "{cut}");
        }
        let all = cell_of(&values);
        assert_eq!((all.count, all.min, all.max), (100, -37.5, 36.75));
        assert_eq!(all.buckets.iter().sum::<u64>(), 100);
    }
}
