//! The W3C trace state of a span: the member `ot` in it, and `th` in that.
//!
//! Sources: W3C Trace Context, section "tracestate header"; OpenTelemetry specification, "TraceState Handling".

use crate::threshold;

/// A list has at most so many members; a new one pushes out the last.
const MEMBERS_MAX: usize = 32;
/// The value of one member.
const VALUE_BYTES_MAX: usize = 256;

/// The threshold that an earlier stage wrote; `None` if there is none that can be read.
pub(crate) fn threshold(state: &str) -> Option<u64> {
    let ours = members(state).find_map(ours)?;
    let th = sub_keys(ours).find_map(|sub_key| sub_key.strip_prefix("th:"))?;
    threshold::decode(th)
}

/// The trace state with this threshold. The other members and sub-keys stay as they are, and `ot` comes first,
/// as the member that was changed last.
///
/// `None` if `ot` would become longer than it may be.
pub(crate) fn with_threshold(state: &str, threshold: u64) -> Option<String> {
    let mut value = format!("th:{}", threshold::encode(threshold));
    for sub_key in members(state).find_map(ours).into_iter().flat_map(sub_keys) {
        if !is_threshold(sub_key) {
            value.push(';');
            value.push_str(sub_key);
        }
    }
    if value.len() > VALUE_BYTES_MAX {
        return None;
    }
    let mut written = format!("ot={value}");
    for member in members(state).filter(|member| ours(member).is_none()).take(MEMBERS_MAX - 1) {
        written.push(',');
        written.push_str(member);
    }
    Some(written)
}

/// The trace state without a threshold: how many spans this one stands for is not known. `rv` and all else stay.
///
/// `None` if there is no threshold.
pub(crate) fn without_threshold(state: &str) -> Option<String> {
    let value = members(state).find_map(ours)?;
    if !sub_keys(value).any(is_threshold) {
        return None;
    }
    let rest: Vec<&str> = sub_keys(value).filter(|sub_key| !is_threshold(sub_key)).collect();
    let rest = Some(format!("ot={}", rest.join(";"))).filter(|member| member != "ot=");
    let others = members(state).filter(|member| ours(member).is_none()).map(str::to_owned);
    Some(rest.into_iter().chain(others).collect::<Vec<_>>().join(","))
}

fn is_threshold(sub_key: &str) -> bool {
    sub_key.starts_with("th:")
}

fn members(state: &str) -> impl Iterator<Item = &str> {
    state.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty())
}

/// The value of the member, if it is OpenTelemetry's.
fn ours(member: &str) -> Option<&str> {
    member.strip_prefix("ot=")
}

fn sub_keys(value: &str) -> impl Iterator<Item = &str> {
    value.split(';').filter(|sub_key| !sub_key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: u64 = threshold::ALL / 2;

    #[test]
    fn the_threshold_is_found_among_others() {
        let cases = [
            ("", None),
            ("ot=th:8", Some(HALF)),
            ("ot=rv:0123456789abcd;th:c", Some(HALF / 2 * 3)),
            ("vendor=x, ot=th:0 ,other=y", Some(0)),
            ("ot=rv:0123456789abcd", None),
            ("ot=th:", None),
            ("ot=th:xyz", None),
            ("rot=th:8", None),
            ("vendor=ot=th:8", None),
        ];
        for (state, expected) in cases {
            assert_eq!(threshold(state), expected, "{state:?}");
        }
    }

    #[test]
    fn others_keep_what_they_wrote() {
        let cases = [
            ("", "ot=th:8"),
            ("ot=th:4", "ot=th:8"),
            ("ot=rv:0123456789abcd;th:4;x:1", "ot=th:8;rv:0123456789abcd;x:1"),
            ("vendor=x,other=y", "ot=th:8,vendor=x,other=y"),
            ("vendor=x;th:1 , ot=p:8,\tt@v=y", "ot=th:8;p:8,vendor=x;th:1,t@v=y"),
            ("a=1,,b=2,", "ot=th:8,a=1,b=2"),
            ("ot=x:1,a=1,ot=x:2", "ot=th:8;x:1,a=1"),
        ];
        for (state, expected) in cases {
            let written = with_threshold(state, HALF).unwrap();
            assert_eq!(written, expected, "{state:?}");
            assert_eq!(threshold(&written), Some(HALF));
        }
    }

    #[test]
    fn without_a_threshold_all_else_stays() {
        let cases = [
            ("", None),
            ("ot=rv:0123456789abcd", None),
            ("vendor=th:8", None),
            ("ot=th:8", Some("")),
            ("ot=th:8;rv:0123456789abcd", Some("ot=rv:0123456789abcd")),
            ("a=1, ot=x:1;th:8;th:4 ,b=2", Some("ot=x:1,a=1,b=2")),
            ("a=1,ot=th:8", Some("a=1")),
        ];
        for (state, expected) in cases {
            assert_eq!(without_threshold(state).as_deref(), expected, "{state:?}");
        }
    }

    #[test]
    fn a_full_list_loses_its_last_member() {
        let full: Vec<String> = (0..32).map(|number| format!("k{number}=v")).collect();
        let written = with_threshold(&full.join(","), HALF).unwrap();
        assert_eq!(written.split(',').count(), 32);
        assert!(written.starts_with("ot=th:8,k0=v,") && written.ends_with(",k30=v"));
    }

    #[test]
    fn a_member_that_would_be_too_long_is_not_written() {
        assert_eq!(with_threshold(&format!("ot=x:{}", "y".repeat(250)), HALF), None);
    }
}
