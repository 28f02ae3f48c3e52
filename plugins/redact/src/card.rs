//! Payment cards in a piece of text that looks like digits.
//!
//! The search finds regions: at least 13 digits with at most one space or hyphen between two. A region may
//! hold a card beside a time or an order number, so the decision is made on its groups of digits, by the
//! issuer's first digits, the length and the check digit.

use std::ops::Range;

/// A region; with the digits before a decimal point, if any, so that a long fraction is not taken for a card.
pub(crate) const REGION: &str = r"(?-u:\b)(?:[0-9]+\.)?[0-9](?:[ -]?[0-9]){12,}(?-u:\b)";

const DIGITS_MIN: usize = 13;
const DIGITS_MAX: usize = 19;

/// The cards in a region, in order, apart from each other.
pub(crate) fn cards(region: &str) -> Vec<Range<usize>> {
    let bytes = region.as_bytes();
    let groups = groups(bytes);
    let mut found = Vec::new();
    let mut first = 0;
    while first < groups.len() {
        match card_from(bytes, &groups[first..]) {
            Some(count) => {
                found.push(groups[first].start..groups[first + count - 1].end);
                first += count;
            }
            None => first += 1,
        }
    }
    found
}

/// Runs of digits; what stands before a decimal point, and what follows it, is left out.
fn groups(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let end = start + length;
        let is_number = bytes.get(end) == Some(&b'.') || (start > 0 && bytes[start - 1] == b'.');
        if length > 0 && !is_number {
            groups.push(start..end);
        }
        start = end + 1;
    }
    groups
}

/// How many of the first groups are a card together: the most that are.
fn card_from(bytes: &[u8], groups: &[Range<usize>]) -> Option<usize> {
    let mut digits = Vec::with_capacity(DIGITS_MAX);
    let mut card = None;
    for (count, group) in (1..).zip(groups) {
        // Two groups that are far apart had a number with a point between them.
        if count > 1 && group.start != groups[count - 2].end + 1 {
            break;
        }
        digits.extend(bytes[group.clone()].iter().map(|byte| byte - b'0'));
        if digits.len() > DIGITS_MAX {
            break;
        }
        if digits.len() >= DIGITS_MIN && is_issued(&digits) && passes_luhn(&digits) {
            card = Some(count);
        }
    }
    card
}

/// Whether an issuer gives out numbers that begin and are as long like this.
/// Source: ISO/IEC 7812 ranges of the large networks.
fn is_issued(digits: &[u8]) -> bool {
    let head = digits[..4].iter().fold(0, |number, digit| number * 10 + u32::from(*digit));
    match digits.len() {
        13 => head / 1000 == 4,
        14 => matches!(head / 10, 300..=305 | 309) || matches!(head / 100, 36 | 38 | 39),
        15 => matches!(head / 100, 34 | 37) || matches!(head, 1800 | 2131),
        16 => {
            head / 1000 == 4
                || matches!(head / 100, 50..=69 | 35)
                || matches!(head / 10, 300..=305 | 309)
                || matches!(head / 100, 36 | 38 | 39 | 81)
                || (2200..=2720).contains(&head)
        }
        // Maestro, UnionPay, and long Visa numbers.
        _ => matches!(head / 100, 40..=49 | 50 | 56..=69 | 81),
    }
}

/// The check digit. Source: ISO/IEC 7812-1, annex B.
pub(crate) fn passes_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit) if digit < 5 => digit * 2,
            (_, digit) => digit * 2 - 9,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(region: &str, expected: &[&str]) {
        let found: Vec<&str> = cards(region).into_iter().map(|range| &region[range]).collect();
        assert_eq!(found, expected, "in {region:?}");
    }

    #[test]
    fn cards_of_every_length_are_found() {
        check("4222222222222", &["4222222222222"]);
        check("30569309025904", &["30569309025904"]);
        check("378282246310005", &["378282246310005"]);
        check("4111111111111111", &["4111111111111111"]);
        check("5555555555554444", &["5555555555554444"]);
        check("2223003122003222", &["2223003122003222"]);
        check("6304000000000000000", &["6304000000000000000"]);
    }

    #[test]
    fn groups_belong_together() {
        check("4111 1111 1111 1111", &["4111 1111 1111 1111"]);
        check("3782-822463-10005", &["3782-822463-10005"]);
    }

    #[test]
    fn a_wrong_check_digit_is_no_card() {
        check("4111111111111112", &[]);
        check("1234567890123456", &[]);
    }

    #[test]
    fn numbers_beside_a_card_do_not_hide_it() {
        check("4111 1111 1111 1111 12", &["4111 1111 1111 1111"]);
        check("1732441200 4111111111111111", &["4111111111111111"]);
        check("4111111111111111 5555555555554444", &["4111111111111111", "5555555555554444"]);
    }

    #[test]
    fn a_long_fraction_is_no_card() {
        check("0.4111111111111111", &[]);
        check("0.5 4111111111111111", &["4111111111111111"]);
    }

    #[test]
    fn times_and_ids_are_no_cards() {
        check("1732441200000000000", &[]);
        check("2024-11-24 123456789", &[]);
        check("0000000000000000", &[]);
    }

    /// Every number has exactly one check digit: of ten numbers that differ in the last digit, one passes.
    #[test]
    fn one_check_digit_of_ten_passes() {
        let mut seed = 1u64;
        for _ in 0..1000 {
            let mut digits: Vec<u8> = (0..16)
                .map(|_| {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (seed >> 33) as u8 % 10
                })
                .collect();
            let passing = (0..10).filter(|last| {
                digits[15] = *last;
                passes_luhn(&digits)
            });
            assert_eq!(passing.count(), 1);
        }
    }
}
