//! Who may leave how much: shares, essential sinks, what a tenant holds.

use super::durable::{FILES, LIMITS, open, open_with};
use super::*;
use crate::journal::disk::{self, Faulty};
use crate::journal::keep::Limits;
use futures_util::future::join_all;

const CHARGE: usize = 1_000 + 256;

fn essential(name: &str) -> SinkSettings {
    SinkSettings { is_essential: true, ..SinkSettings::from(name.to_owned()) }
}

fn sharing(name: &str, bytes_max: u64) -> SinkSettings {
    SinkSettings { bytes_max: Some(bytes_max), ..SinkSettings::from(name.to_owned()) }
}

fn in_memory(bytes_max: usize, sinks: &[SinkSettings]) -> World {
    let metrics = Metrics::new();
    let clock: Clock = Arc::new(|| 1_000);
    let journal = Journal::open(&Settings::Memory { bytes_max }, sinks, clock, &metrics).unwrap();
    World { journal, now_ms: Arc::default(), metrics }
}

fn on_disk(bytes_max: usize, sinks: &[SinkSettings]) -> World {
    let limits = Limits { bytes_max: bytes_max as u64, ..LIMITS };
    open_with(&Faulty::new(1), disk::Settings::default(), limits, sinks, 1_000)
}

impl World {
    /// What the ledger says that tenants hold is what the sinks are charged for.
    pub(super) fn charges_agree(&self, tenants: &[&str], sinks: &[SinkId]) {
        let held: u64 = tenants.iter().map(|name| self.journal.ledger.held_bytes(&tenant(name))).sum();
        let charged: usize = sinks.iter().map(|sink| self.journal.charged_bytes(*sink)).sum();
        assert_eq!(held, charged as u64);
    }

    async fn deliver_all(&self, sink: SinkId) {
        assert!(!self.drain(sink).await.is_empty());
    }
}

#[tokio::test]
async fn an_essential_sink_makes_the_sender_wait_and_the_other_expires() {
    let sinks = [essential("must"), SinkSettings::from("may".to_owned())];
    for world in [in_memory(2 * 3 * CHARGE, &sinks), on_disk(2 * 3 * CHARGE, &sinks)] {
        let both = || vec![part("t", 1, 1_000, &[FIRST, SECOND])];
        for _ in 0..3 {
            world.commit(both()).await.unwrap();
        }
        assert_eq!(world.commit(both()).await, Err(CommitRefused::Behind));
        // Who does not send to it does not notice.
        for _ in 0..5 {
            world.commit(vec![part("t", 1, 1_000, &[SECOND])]).await.unwrap();
        }
        world.journal.upkeep().await;
        let line = world.table().line("t", Signal::Logs);
        assert_eq!(line.refused["sink_behind"], 1);
        assert_eq!(line.sinks["may"].expired["room"], 5);
        assert!(line.sinks["must"].expired.is_empty());
        world.charges_agree(&["t"], &[FIRST, SECOND]);
        world.deliver_all(FIRST).await;
        world.commit(both()).await.unwrap();
        assert_eq!(world.table().line("t", Signal::Logs).sinks["must"].delivered, 3);
    }
}

#[tokio::test]
async fn an_essential_sink_takes_what_is_larger_than_its_share_if_it_has_nothing_else() {
    let sinks = [essential("must")];
    for world in [in_memory(CHARGE, &sinks), on_disk(CHARGE, &sinks)] {
        world.commit(vec![part("t", 1, 5_000, &[FIRST])]).await.unwrap();
        assert_eq!(world.commit(vec![part("t", 1, 1, &[FIRST])]).await, Err(CommitRefused::Behind));
        world.deliver_all(FIRST).await;
        world.commit(vec![part("t", 1, 1, &[FIRST])]).await.unwrap();
    }
}

#[tokio::test]
async fn frames_that_gather_are_counted_together_against_an_essential_share() {
    let sinks = [essential("must")];
    let world = on_disk(10 * CHARGE, &sinks);
    let commits = (0..40).map(|_| world.commit(vec![part("t", 1, 1_000, &[FIRST])]));
    let taken = join_all(commits).await.iter().filter(|committed| committed.is_ok()).count();
    assert_eq!(taken, 10);
    assert_eq!(world.table().line("t", Signal::Logs).refused["sink_behind"], 30);
}

#[tokio::test]
async fn nothing_of_an_essential_sink_grows_too_old_and_it_outlives_restarts() {
    let disk = Faulty::new(1);
    let limits = Limits { age_max: Duration::from_secs(60), ..LIMITS };
    let sinks = [essential("must"), SinkSettings::from("may".to_owned())];
    let world = open_with(&disk, FILES, limits, &sinks, 1_000);
    for _ in 0..5 {
        world.commit(vec![part("t", 1, 1_000, &[FIRST, SECOND])]).await.unwrap();
    }
    world.journal.end().await;
    let world = open_with(&disk, FILES, limits, &sinks, 10_000_000);
    world.charges_agree(&["t"], &[FIRST, SECOND]);
    // Reading on is a task of its own: what is too old is found once it is in memory.
    while world.journal.charged_bytes(SECOND) > 0 {
        world.journal.upkeep().await;
    }
    let line = world.table().line("t", Signal::Logs);
    assert_eq!((line.sinks["may"].expired["age"], line.sinks["must"].in_flight), (5, 5));
    assert!(world.journal.cursor(FIRST).next(ONE).await[0].kept_for() > Some(Duration::from_secs(1 << 30)));
    assert_eq!(world.drain(FIRST).await.len(), 5);
    world.charges_agree(&["t"], &[FIRST, SECOND]);
}

#[tokio::test]
async fn an_essential_sink_whose_files_fill_the_bound_makes_all_wait_until_it_goes_on() {
    let limits = Limits { bytes_max: 40_000, ..LIMITS };
    let world =
        open_with(&Faulty::new(1), FILES, limits, &[essential("must"), sharing("may", 30_000)], 1_000);
    world.commit(vec![part("t", 1, 1_000, &[FIRST])]).await.unwrap();
    let mut committed = 0;
    while world.commit(vec![part("t", 1, 1_000, &[SECOND])]).await.is_ok() {
        committed += 1;
        world.deliver_all(SECOND).await;
        assert!(committed < 100, "the files grow without a bound");
    }
    assert!(committed > 20);
    assert!(world.journal.is_waited_for());
    world.deliver_all(FIRST).await;
    world.journal.upkeep().await;
    assert!(!world.journal.is_waited_for());
    world.commit(vec![part("t", 1, 1_000, &[SECOND])]).await.unwrap();
    world.table();
}

#[tokio::test]
async fn a_sink_has_the_share_and_the_age_that_it_names() {
    let mut brief = sharing("brief", 2 * CHARGE as u64);
    brief.age_max = Some(Duration::from_secs(10));
    let world = on_disk(8 * CHARGE, &[brief, SinkSettings::from("usual".to_owned())]);
    assert_eq!(
        (world.journal.share_bytes(FIRST), world.journal.share_bytes(SECOND)),
        (2 * CHARGE, 6 * CHARGE)
    );
    for _ in 0..3 {
        world.commit(vec![part("t", 1, 1_000, &[FIRST, SECOND])]).await.unwrap();
    }
    world.now_ms.store(12_000, Ordering::Relaxed);
    world.journal.upkeep().await;
    let line = world.table().line("t", Signal::Logs);
    let expired = |sink: &str, reason: &str| line.sinks[sink].expired.get(reason).copied();
    assert_eq!((expired("brief", "room"), expired("brief", "age")), (Some(1), Some(2)));
    assert_eq!((expired("usual", "room"), expired("usual", "age")), (None, None));
}

#[tokio::test]
async fn what_a_tenant_holds_is_counted_once_for_each_sink_and_outlives_a_crash() {
    let disk = Faulty::new(1);
    let world = open(&disk, LIMITS, &["a", "b"], 1_000);
    world.commit(vec![part("t", 1, 1_000, &[FIRST, SECOND]), part("u", 2, 500, &[FIRST])]).await.unwrap();
    world.commit(vec![part("t", 1, 1_000, &[SECOND])]).await.unwrap();
    let held = |world: &World| ["t", "u", "v"].map(|name| world.journal.ledger.held_bytes(&tenant(name)));
    assert_eq!(held(&world), [3 * CHARGE as u64, 756, 0]);
    world.journal.upkeep().await;
    world.commit(vec![part("v", 1, 1_000, &[FIRST])]).await.unwrap();
    let world = open(&disk.crash(), LIMITS, &["a"], 1_000);
    // `b` was removed: it gives its share back.
    assert_eq!(held(&world), [CHARGE as u64, 756, CHARGE as u64]);
    world.deliver_all(FIRST).await;
    assert_eq!(held(&world), [0, 0, 0]);
}

#[tokio::test]
async fn a_frame_that_is_too_large_is_refused_for_good_and_holds_back_no_other() {
    let world = on_disk(1 << 30, &[SinkSettings::from("a".to_owned())]);
    let commit = |bytes: usize| world.commit(vec![part("t", 1, bytes, &[FIRST])]);
    let commits = [commit(10), commit(FRAME_BYTES_MAX), commit(10)];
    let answers: Vec<_> = join_all(commits).await.into_iter().map(|answer| answer.map(|_| ())).collect();
    assert_eq!(answers, [Ok(()), Err(CommitRefused::TooLarge), Ok(())]);
    assert_eq!(world.table().line("t", Signal::Logs).refused["too_large"], 1);
}
