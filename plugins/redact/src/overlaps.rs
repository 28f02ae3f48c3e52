//! From everything that was found to ranges that do not overlap.

use trommel_sdk::Hit;

/// Sorts hits and cuts from each what an earlier one covers.
///
/// The leftmost wins, then the lower pattern number. What stands out beyond the winner is still covered by
/// the other pattern: a phone number that swallows the first digits of a card must not save the rest of it.
pub(crate) fn apart(mut hits: Vec<Hit>) -> Vec<Hit> {
    hits.sort_unstable_by_key(|hit| (hit.text, hit.start, hit.pattern));
    let (mut text, mut covered) = (u32::MAX, 0);
    hits.retain_mut(|hit| {
        if hit.text != text {
            (text, covered) = (hit.text, 0);
        }
        hit.start = hit.start.max(covered);
        let is_left = hit.start < hit.end;
        if is_left {
            covered = hit.end;
        }
        is_left
    });
    hits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hits as `text:start-end/pattern`.
    fn check(input: &str, expected: &str) {
        let number = |text: &str| text.parse::<u32>().unwrap();
        let parse = |hit: &str| {
            let (text, rest) = hit.split_once(':').unwrap();
            let (range, pattern) = rest.split_once('/').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            Hit { text: number(text), start: number(start), end: number(end), pattern: number(pattern) }
        };
        let result: Vec<String> = apart(input.split_whitespace().map(parse).collect())
            .iter()
            .map(|hit| format!("{}:{}-{}/{}", hit.text, hit.start, hit.end, hit.pattern))
            .collect();
        assert_eq!(result.join(" "), expected);
    }

    #[test]
    fn hits_that_are_apart_stay() {
        check("0:0-3/0 0:3-5/1 1:0-3/0", "0:0-3/0 0:3-5/1 1:0-3/0");
    }

    #[test]
    fn of_two_at_one_place_the_lower_pattern_wins() {
        check("0:2-9/1 0:2-9/0", "0:2-9/0");
        check("0:2-5/0 0:2-9/1", "0:2-5/0 0:5-9/1");
    }

    #[test]
    fn what_stands_out_is_covered_too() {
        check("0:0-6/1 0:4-9/0", "0:0-6/1 0:6-9/0");
        check("0:0-9/1 0:4-6/0 0:8-12/2", "0:0-9/1 0:9-12/2");
    }

    #[test]
    fn an_empty_hit_is_no_hit() {
        check("0:4-4/0 0:4-6/1", "0:4-6/1");
    }
}
