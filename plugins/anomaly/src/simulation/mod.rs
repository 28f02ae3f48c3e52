//! How well are faults told, and how often is nothing called a fault?
//!
//! **What is simulated.** Twelve services for three hours, window by window, as `tick` is given them. Their load is
//! steady, follows the day, has bursts or slow ramps, or comes seldom. Seven of them have one fault each, one of each kind: it
//! is injected, so what is wrong where and when is known. Faults are as large as the settings call worth an alert, and
//! more. The rest of what happens is noise, of one of two families (`load::Family`).
//!
//! **Seeds.** What was tuned was tuned with family A, seeds 1 to 50 (`tuning`, ignored). Seeds 51 to 150 of both families are
//! only for the test. Family B was never used for tuning.
//!
//! **What counts.** An alert is opened by the first firing of its key. It tells a fault if it is of the fault's kind and
//! service, and was opened from the fault's begin to `LATE_MAX` windows after it had its whole height, or after its end if
//! that came first. A fault is told by one alert; each other alert is a false one, a second one for the same fault too.
//! Precision is the share of alerts that tell a fault, recall the share of faults that are told.

mod chance;
mod faults;
mod load;

use crate::tests::world::{Chance, World};
use faults::{Fault, Kind};
use load::{Family, Service, Shape};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Windows after a fault has its whole height, or its end, in which it may still be told: five minutes.
const LATE_MAX: u32 = 30;
const SERVICES: usize = 12;
const WINDOWS: u32 = 1_080;
const TEST_SEEDS: RangeInclusive<u64> = 51..=150;
const TUNE_SEEDS: RangeInclusive<u64> = 1..=50;

#[derive(Clone, Copy, Debug, Default)]
struct Score {
    faults: u32,
    told: u32,
    falsely: u32,
}

impl Score {
    fn precision(self) -> f64 {
        f64::from(self.told) / f64::from((self.told + self.falsely).max(1))
    }

    fn recall(self) -> f64 {
        f64::from(self.told) / f64::from(self.faults.max(1))
    }
}

/// The windows in which alerts were opened, by key.
struct Opened {
    open: BTreeSet<String>,
    when: Vec<(u32, String)>,
}

impl Opened {
    fn look(&mut self, window: u32, world: &World) {
        for word in world.told.split_whitespace() {
            if let Some(key) = word.strip_suffix('-') {
                self.open.remove(key);
            } else if let Some((key, _)) = word.rsplit_once('+')
                && self.open.insert(key.to_owned())
            {
                self.when.push((window, key.to_owned()));
            }
        }
    }
}

fn run(
    family: Family,
    windows: u32,
    mut services: Vec<Service>,
    faults: &[Fault],
    chance: &mut Chance,
) -> Vec<(u32, String)> {
    let mut world = World::new(load::SETTINGS);
    let mut opened = Opened { open: BTreeSet::new(), when: Vec::new() };
    for window in 0..windows {
        world.pass(|world| {
            for service in &mut services {
                let fault = faults.iter().find(|fault| fault.service == service.name);
                service.speak(window, family, fault, chance, world);
            }
        });
        opened.look(window, &world);
    }
    opened.when
}

/// By kind, and what went wrong in words.
fn scored(family: Family, seed: u64) -> (BTreeMap<Kind, Score>, Vec<String>) {
    let mut chance = Chance::seeded(seed);
    let mut services = Vec::new();
    let mut faults = Vec::new();
    for number in 0..SERVICES {
        let kind = Kind::ALL.get(number).copied();
        let shape = faults::shape_for(kind, &mut chance);
        let mut service = Service::new(number, shape, family, &mut chance);
        faults.extend(kind.map(|kind| Fault::new(kind, &mut service, &mut chance)));
        services.push(service);
    }
    let mut scores = BTreeMap::<Kind, Score>::new();
    let mut wrong = Vec::new();
    let mut untold: Vec<&Fault> = faults.iter().collect();
    for fault in &faults {
        scores.entry(fault.kind).or_default().faults += 1;
    }
    for (window, key) in run(family, WINDOWS, services, &faults, &mut chance) {
        let (kind, service) = Kind::of_key(&key);
        let tells = |fault: &&Fault| {
            let latest = fault.full.min(fault.end) + LATE_MAX;
            fault.kind == kind && fault.service == service && (fault.begin..=latest).contains(&window)
        };
        let score = scores.entry(kind).or_default();
        match untold.iter().position(tells) {
            Some(at) => {
                untold.swap_remove(at);
                score.told += 1;
            }
            None => {
                score.falsely += 1;
                wrong.push(format!("seed {seed}: {key} in window {window} is false"));
            }
        }
    }
    wrong.extend(untold.iter().map(|fault| format!("seed {seed}: not told: {fault:?}")));
    (scores, wrong)
}

/// Prints what was found, and gives it.
fn score(family: Family, seeds: RangeInclusive<u64>) -> BTreeMap<Kind, Score> {
    let next = AtomicU64::new(*seeds.start());
    let all = Mutex::new((BTreeMap::<Kind, Score>::new(), Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return;
            }
            let (scores, wrong) = scored(family, seed);
            let mut all = all.lock().unwrap();
            for (kind, score) in scores {
                let sum = all.0.entry(kind).or_default();
                sum.faults += score.faults;
                sum.told += score.told;
                sum.falsely += score.falsely;
            }
            all.1.extend(wrong);
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(4);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let (scores, mut wrong) = all.into_inner().unwrap();
    println!("family {family:?}, seeds {} to {}", seeds.start(), seeds.end());
    println!("{:20} {:>6} {:>6} {:>6} {:>10} {:>7}", "", "faults", "told", "false", "precision", "recall");
    for (kind, score) in &scores {
        let Score { faults, told, falsely } = *score;
        let (precision, recall) = (score.precision(), score.recall());
        println!("{:20} {faults:6} {told:6} {falsely:6} {precision:10.3} {recall:7.3}", kind.name());
    }
    wrong.sort();
    wrong.iter().for_each(|wrong| println!("  {wrong}"));
    scores
}

fn assert_good(scores: &BTreeMap<Kind, Score>) {
    assert_eq!(scores.len(), Kind::ALL.len());
    for (kind, score) in scores {
        assert!(score.faults >= 50, "{kind:?}: {score:?}");
        assert!(score.precision() >= 0.95 && score.recall() >= 0.95, "{kind:?}: {score:?}");
    }
}

/// What the rules were tuned with: `cargo test -p anomaly tuning -- --ignored --nocapture`.
#[test]
#[ignore = "for those who change a rule; the test seeds are run below"]
fn tuning() {
    assert_good(&score(Family::A, TUNE_SEEDS));
    assert_steady(Family::A, 1);
}

#[test]
fn faults_in_independent_noise_are_told_and_nothing_else() {
    assert_good(&score(Family::A, TEST_SEEDS));
}

#[test]
fn faults_in_noise_that_no_rule_was_tuned_with_are_told_and_nothing_else() {
    assert_good(&score(Family::B, TEST_SEEDS));
}

/// A hundred services for a day, half of them with more load at noon than at night.
fn steady(family: Family, seed: u64) -> Vec<(u32, String)> {
    let mut chance = Chance::seeded(seed);
    let shape = |number: usize| if number.is_multiple_of(2) { Shape::Steady } else { Shape::Daily };
    let services: Vec<Service> =
        (0..100).map(|number| Service::new(number, shape(number), family, &mut chance)).collect();
    let opened = run(family, 8_640, services, &[], &mut chance);
    println!("family {family:?}, seed {seed}: {} alerts in a day of 100 services {opened:?}", opened.len());
    opened
}

fn assert_steady(family: Family, seed: u64) {
    let opened = steady(family, seed);
    assert!(opened.len() <= 1, "{opened:?}");
}

#[test]
fn a_day_of_steady_noise_is_at_most_one_alert() {
    assert_steady(Family::A, 51);
}

/// More days than a test has time for: alerts by day, mean over all.
#[test]
#[ignore = "takes minutes; prints, asserts nothing"]
fn days() {
    for family in [Family::A, Family::B] {
        let told: usize = (51..=56).map(|seed| steady(family, seed).len()).sum();
        println!("family {family:?}: {told} alerts in six days of 100 services");
    }
}

#[test]
fn a_day_of_steady_noise_that_no_rule_was_tuned_with_is_at_most_one_alert() {
    assert_steady(Family::B, 51);
}
