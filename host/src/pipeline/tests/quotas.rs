//! Requests of tenants that are over their quota, and the ledger of these.

use super::*;
use crate::tenants::{Quota, QuotaSettings};

/// `t` may send one record a second, two at once; nobody else has a limit.
fn limited() -> World {
    let quota = Quota { records: Some(1), burst: Duration::from_secs(2), ..Quota::default() };
    let quotas =
        QuotaSettings { tenants: [(TenantId::new("t").unwrap(), quota)].into(), ..Default::default() };
    world_of(vec![to("all", &[], vec![sink("a")])], &[], &["a"], (2, system_clock()), quotas)
}

const MANY: &[&str] = &["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];

#[tokio::test]
async fn a_request_that_is_all_over_quota_comes_again_when_it_is_paid_back() {
    tokio::time::pause();
    let world = limited();
    assert_eq!(world.submit("own", request(&[("", MANY)])).await, Ok(Receipt::default()));
    let refused = world.submit("own", request(&[("", &["13", "14"])])).await.unwrap_err();
    let Refusal::OverQuota { tenant, may, after } = &refused else { panic!("{refused:?}") };
    assert_eq!((tenant.as_str(), may.as_str()), ("t", "may send 1 records a second"));
    // Ten are owed, and half as much and a second is drawn from.
    assert!((Duration::from_secs(10)..=Duration::from_secs(17)).contains(after), "{after:?}");
    let line = world.table().line("t", Signal::Logs);
    assert_eq!((line.received, line.refused["quota_records"], line.committed), (14, 2, 12));
    // A part that is nobody's does not make the rest final.
    let mixed = world.submit("agent", request(&[("tenant.id=t", &["13"]), ("", &["14"])])).await;
    assert!(matches!(mixed, Err(Refusal::OverQuota { .. })), "{mixed:?}");
    tokio::time::advance(*after).await;
    assert_eq!(world.submit("own", request(&[("", &["13", "14"])])).await, Ok(Receipt::default()));
    let table = world.table();
    let line = table.line("t", Signal::Logs);
    assert_eq!((line.received, line.refused["quota_records"], line.committed), (17, 3, 14));
    assert_eq!(table.line("_none", Signal::Logs).refused["no_tenant"], 1);
}

#[tokio::test]
async fn in_a_request_of_many_the_part_over_quota_is_left_out() {
    tokio::time::pause();
    let world = limited();
    world.submit("own", request(&[("", MANY)])).await.unwrap();
    let body = request(&[("tenant.id=t", &["over", "over"]), ("tenant.id=u", &["taken"])]);
    let receipt = world.submit("agent", body).await.unwrap();
    assert_eq!(
        (receipt.rejected, receipt.message.as_str()),
        (2, "2 records left out: their tenant sends more records than its quota")
    );
    assert_eq!(world.given(0).last().map(String::as_str), Some("u/default: taken"));
    let line = world.table().line("t", Signal::Logs);
    assert_eq!((line.received, line.refused["quota_records"], line.committed), (14, 2, 12));
    // Nothing of the other part is left when it is too large: then all of it may come again.
    let large = "x".repeat(20_000);
    let body = request(&[("tenant.id=t", &["over"]), ("tenant.id=u", &[&large])]);
    assert!(matches!(world.submit("agent", body).await, Err(Refusal::OverQuota { .. })));
}

#[test]
fn a_time_to_come_back_grows_with_the_wait_and_of_the_journal_it_is_the_usual() {
    let after = |limited, wait_s| {
        let wait = Duration::from_secs(wait_s);
        let over = OverQuota { tenant: TenantId::new("t").unwrap(), limited, limit: 7, wait };
        let come_back = (Duration::from_secs(1), Duration::from_secs(5));
        match Refusal::over_quota(over, come_back) {
            Refusal::OverQuota { after, .. } => after.as_secs_f64(),
            other => panic!("{other:?}"),
        }
    };
    for _ in 0..100 {
        assert!((0.0..=1.0).contains(&after(Limited::Bytes, 0)));
        assert!((60.0..=91.0).contains(&after(Limited::Records, 60)));
        assert!((1.0..=5.0).contains(&after(Limited::Journal, 0)));
    }
    let drawn: Vec<f64> = (0..100).map(|_| after(Limited::Bytes, 60)).collect();
    assert!(drawn.iter().any(|time| *time < 70.0) && drawn.iter().any(|time| *time > 80.0), "{drawn:?}");
}
