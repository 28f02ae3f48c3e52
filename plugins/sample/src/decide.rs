//! Which rows are dropped, and what is written about those that stay.

use crate::trace_state;
use trommel_sdk::ids;

/// One threshold for each row.
#[derive(Clone, Copy)]
pub(crate) enum Thresholds<'a> {
    Same(u64),
    /// That of row `i` is `of[resources[i]]`.
    ByResource {
        of: &'a [u64],
        resources: &'a [u32],
    },
}

impl Thresholds<'_> {
    /// Whether no row can be below its threshold.
    pub(crate) fn keep_all(&self) -> bool {
        match self {
            Thresholds::Same(threshold) => *threshold == 0,
            Thresholds::ByResource { of, .. } => of.iter().all(|threshold| *threshold == 0),
        }
    }

    pub(crate) fn at(&self, row: usize) -> u64 {
        match self {
            Thresholds::Same(threshold) => *threshold,
            Thresholds::ByResource { of, resources } => of[resources[row] as usize],
        }
    }
}

/// The rows below their threshold.
pub(crate) fn rejected(randomness: &[u64], thresholds: Thresholds) -> Vec<u32> {
    // Apart, so that the loop over most people's rows is one comparison.
    match thresholds {
        Thresholds::Same(threshold) => {
            (0..).zip(randomness).filter(|(_, random)| **random < threshold).map(|(row, _)| row).collect()
        }
        _ => (0..)
            .zip(randomness)
            .filter(|(row, random)| **random < thresholds.at(*row as usize))
            .map(|(row, _)| row)
            .collect(),
    }
}

/// Takes out the rows that are severe enough.
pub(crate) fn spare_severe(rows: &mut Vec<u32>, severities: &[u8], bound: u8) {
    rows.retain(|row| severities[*row as usize] < bound);
}

/// Takes out the rows that belong to no trace.
pub(crate) fn spare_traceless(rows: &mut Vec<u32>, trace_ids: &[u8]) {
    let trace_ids = ids::<16>(trace_ids);
    rows.retain(|row| trace_ids[*row as usize] != [0; 16]);
}

/// What becomes of a span.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Drop,
    /// As it is.
    Keep,
    /// With this trace state.
    Mark(String),
}

/// An equalizing downstream sampler: the higher of the earlier threshold and ours holds, and is written.
pub(crate) fn span(state: &str, randomness: u64, ours: u64) -> Verdict {
    // A span that its own threshold would have rejected was not kept by it: what it says means nothing.
    let earlier = trace_state::threshold(state).filter(|earlier| *earlier <= randomness);
    match earlier {
        _ if randomness < ours => Verdict::Drop,
        // Nothing is decided here, and what was decided before is not ours to judge.
        _ if ours == 0 => Verdict::Keep,
        // An earlier stage was as strict, or stricter: the span carries the right number already.
        Some(earlier) if earlier >= ours => Verdict::Keep,
        _ => trace_state::with_threshold(state, ours).map_or(Verdict::Keep, Verdict::Mark),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threshold;

    const HALF: u64 = threshold::ALL / 2;
    const QUARTER: u64 = HALF / 2 * 3;

    fn mark(state: &str) -> Verdict {
        Verdict::Mark(state.into())
    }

    #[test]
    fn a_span_below_the_threshold_goes() {
        assert_eq!(span("", HALF - 1, HALF), Verdict::Drop);
        assert_eq!(span("", HALF, HALF), mark("ot=th:8"));
        assert_eq!(span("ot=th:4", HALF - 1, HALF), Verdict::Drop);
        assert_eq!(span("", threshold::ALL - 1, threshold::ALL), Verdict::Drop);
    }

    #[test]
    fn the_stricter_threshold_stays() {
        assert_eq!(span("ot=th:c", threshold::ALL - 1, HALF), Verdict::Keep);
        assert_eq!(span("ot=th:8", threshold::ALL - 1, HALF), Verdict::Keep);
        assert_eq!(span("ot=th:4", threshold::ALL - 1, HALF), mark("ot=th:8"));
        assert_eq!(span("v=1,ot=th:0;x:y", QUARTER, QUARTER), mark("ot=th:c;x:y,v=1"));
    }

    #[test]
    fn a_threshold_that_would_have_rejected_the_span_is_replaced() {
        assert_eq!(span("ot=th:c", HALF, HALF), mark("ot=th:8"));
    }

    #[test]
    fn keeping_all_changes_nothing() {
        assert_eq!(span("", 0, 0), Verdict::Keep);
        assert_eq!(span("ot=rv:00000000000000", 0, 0), Verdict::Keep);
        assert_eq!(span("ot=th:8", HALF, 0), Verdict::Keep);
        assert_eq!(span("ot=th:8", 0, 0), Verdict::Keep);
    }

    #[test]
    fn severe_records_and_those_of_no_trace_can_be_spared() {
        let mut rows = rejected(&[0, HALF, 5, HALF - 1], Thresholds::Same(HALF));
        assert_eq!(rows, [0, 2, 3]);
        spare_severe(&mut rows, &[9, 9, 17, 16], 17);
        assert_eq!(rows, [0, 3]);
        let mut trace_ids = [0; 64];
        trace_ids[63] = 1;
        spare_traceless(&mut rows, &trace_ids);
        assert_eq!(rows, [3]);
    }

    #[test]
    fn each_resource_has_its_threshold() {
        let thresholds = Thresholds::ByResource { of: &[0, HALF], resources: &[0, 0, 1, 1] };
        assert_eq!(rejected(&[0, HALF, 0, HALF], thresholds), [2]);
    }
}
