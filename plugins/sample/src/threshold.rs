//! The rejection threshold: what is below it is dropped.
//!
//! Source: OpenTelemetry specification, "TraceState: Probability Sampling".

/// Thresholds and randomness have 56 bits; this threshold rejects all.
pub(crate) const ALL: u64 = 1 << 56;

const DIGITS: u32 = 14;

/// The threshold of a ratio from 0 to 1, rounded to `precision` hexadecimal digits beyond the leading `f`s.
pub(crate) fn of_ratio(ratio: f64, precision: u32) -> u64 {
    if ratio <= 0.0 {
        return ALL;
    }
    // A multiplication by a power of two is exact, so only the last bit of 56 is rounded here.
    let exact = ALL - (ratio * ALL as f64).round().min(ALL as f64) as u64;
    let digits = (precision + leading_fs(ratio)).clamp(1, DIGITS);
    let unit = 1u64 << (4 * (DIGITS - digits));
    let rounded = (exact + unit / 2) / unit * unit;
    // No ratio above 0 may round to nothing.
    rounded.min(ALL - unit)
}

/// How many digits of the threshold are `f` because the ratio is that small.
fn leading_fs(ratio: f64) -> u32 {
    let exponent = ((ratio.to_bits() >> 52) & 0x7ff) as i32 - 1022;
    (exponent.min(0).unsigned_abs()) / 4
}

/// As the `th` of a trace state: without trailing zeros.
pub(crate) fn encode(threshold: u64) -> String {
    let digits = format!("{threshold:014x}");
    match digits.trim_end_matches('0') {
        "" => "0".into(),
        digits => digits.into(),
    }
}

/// 1 to 14 hexadecimal digits, filled up with zeros on the right.
pub(crate) fn decode(th: &str) -> Option<u64> {
    let is_valid =
        (1..=DIGITS as usize).contains(&th.len()) && th.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = is_valid.then(|| u64::from_str_radix(th, 16).ok())??;
    Some(number << (4 * (DIGITS as usize - th.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the specification.
    #[test]
    fn ratios_become_the_thresholds_of_the_specification() {
        let cases = [
            (1.0, ["0", "0", "0"]),
            (0.5, ["8", "8", "8"]),
            (1.0 / 3.0, ["aab", "aaab", "aaaab"]),
            (0.25, ["c", "c", "c"]),
            (0.2, ["ccd", "cccd", "ccccd"]),
            (0.125, ["e", "e", "e"]),
            (0.1, ["e66", "e666", "e6666"]),
            (0.0625, ["f", "f", "f"]),
            (0.01, ["fd71", "fd70a", "fd70a4"]),
            (0.001, ["ffbe7", "ffbe77", "ffbe76d"]),
            (0.0001, ["fff972", "fff9724", "fff97247"]),
            (0.00001, ["ffff584", "ffff583a", "ffff583a5"]),
            (0.000001, ["ffffef4", "ffffef39", "ffffef391"]),
        ];
        for (ratio, expected) in cases {
            for (precision, expected) in (3..).zip(expected) {
                assert_eq!(encode(of_ratio(ratio, precision)), expected, "{ratio} with {precision} digits");
            }
        }
    }

    #[test]
    fn nothing_and_nearly_nothing_are_different() {
        assert_eq!(of_ratio(0.0, 4), ALL);
        assert_eq!(encode(of_ratio(f64::from_bits(1), 4)), "ffffffffffffff");
        assert_eq!(encode(of_ratio(1e-17, 14)), "ffffffffffffff");
        assert_eq!(of_ratio(1.0 - f64::EPSILON, 1), 0);
    }

    #[test]
    fn a_threshold_survives_its_text() {
        let mut seed = 1u64;
        for _ in 0..10_000 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // Of every length: some of the digits on the right are zeros.
            let threshold = (seed >> 8) >> (4 * (seed % 14)) << (4 * (seed % 14));
            assert_eq!(decode(&encode(threshold)), Some(threshold));
        }
    }

    #[test]
    fn only_one_to_fourteen_digits_are_a_threshold() {
        assert_eq!(decode("8"), Some(ALL / 2));
        assert_eq!(decode("C"), Some(ALL / 4 * 3));
        assert_eq!(decode("00000000000001"), Some(1));
        for wrong in ["", "g", "+8", "0x8", "8 ", "000000000000001"] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
    }
}
