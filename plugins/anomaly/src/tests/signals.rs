//! What spans and data points show, and all three signals together.

use super::world::{Chance, SECOND, World};

#[test]
fn spans_that_fail_are_told_unless_logs_tell_it() {
    let mut world = World::new("{}");
    let both = |world: &mut World, errors: u64, failed: u64| {
        world.add("web", 100, errors);
        world.add_spans("web", 200, failed);
    };
    world.calm(30, |world| both(world, 0, 1));
    assert_eq!(world.pass(|world| both(world, 0, 90)), "error-rate:shop/web:spans+90");
    assert_eq!(
        world.text(),
        "failed spans: web of shop\n90 failed spans since 22:18:20 UTC. In the worst 10 s 90 of 200 spans failed (45 %); \
         usual are 0.5 %."
    );
    assert_eq!(
        world.pass(|world| both(world, 50, 80)),
        "error-rate:shop/web+50 error-rate:shop/web:spans+80"
    );
    for _ in 0..6 {
        world.pass(|world| both(world, 0, 0));
    }
    assert_eq!(world.told, "error-rate:shop/web- error-rate:shop/web:spans- ");
    world.calm(20, |world| both(world, 0, 1));
    assert_eq!(world.pass(|world| both(world, 50, 80)), "error-rate:shop/web+50");
    for _ in 0..6 {
        world.pass(|world| both(world, 0, 80));
    }
    // The logs have calmed down, the spans have not.
    assert_eq!(world.pass(|world| both(world, 0, 80)), "error-rate:shop/web:spans+640");
}

#[test]
fn silence_of_several_signals_is_one_alert_that_names_them() {
    let mut world = World::new("{}");
    let db = |world: &mut World| world.add("db", 3, 0);
    world.calm(240, |world| {
        db(world);
        world.add("web", 3, 0);
        world.add_spans("web", 3, 0);
        // Once a minute.
        if world.now_ns / SECOND % 60 < 10 {
            world.add_points("web", 50);
        }
    });
    let told: Vec<String> = (0..20).map(|_| world.pass(db)).filter(|told| !told.is_empty()).collect();
    assert_eq!(told, ["silence:shop/web+1", "silence:shop/web+1"]);
    assert_eq!(world.pass(|world| world.add_spans("web", 1, 0)), "");
    assert_eq!(world.pass(|world| world.add("web", 1, 0)), "");
    assert_eq!(world.pass(|world| world.add_points("web", 1)), "silence:shop/web-");
}

#[test]
fn a_counter_is_told_by_its_rate_whatever_it_has_reached_and_when_it_begins_anew() {
    let mut world = World::new(r#"{"learning_windows": 60, "metrics": [{"name": "jobs/done"}]}"#);
    let mut totals = [0.0, 1e6];
    let mut grown = |world: &mut World, by: f64| {
        totals = if by < 0.0 { [0.0, 0.0] } else { [totals[0] + by, totals[1] + 2.0 * by] };
        world.pass(|world| {
            world.add("web", 9, 0);
            (0..2).for_each(|series| world.add_total("web", "jobs/done", series, totals[series as usize]));
        })
    };
    for _ in 0..100 {
        assert_eq!(grown(&mut world, 100.0), "");
    }
    assert_eq!(grown(&mut world, -1.0), "", "it began anew");
    assert_eq!(grown(&mut world, 100.0), "");
    let told: String = (0..3).map(|_| grown(&mut world, 1_000.0)).collect();
    assert_eq!(told, "metric:shop/web:jobs%2Fdone+3");
    assert_eq!(
        world.text(),
        "metric jobs/done: web of shop\njobs/done is 150 since 22:30:20 UTC; usual are 15.3, give or take 0.420."
    );
    // A setting that is gone takes its alert with it.
    world.settings = crate::settings::parse("{}").unwrap();
    assert_eq!(world.pass(|world| world.add("web", 9, 0)), "metric:shop/web:jobs%2Fdone-");
    assert!(!world.store.keys().any(|key| key.starts_with("series")), "{:?}", world.store.keys());
}

#[test]
fn more_metrics_than_there_is_room_for_are_counted_and_leave_the_others_alone() {
    let mut world = World::new(r#"{"learning_windows": 60, "metrics": [{"name": "q"}, {"name": "r"}]}"#);
    let all = |number: f64| {
        move |world: &mut World| {
            for at in 0..100 {
                world.add(&format!("s{at:03}"), 1, 0);
                world.add_number(&format!("s{at:03}"), "q", number);
                (0..20).for_each(|series| world.add_total(&format!("s{at:03}"), "r", series, 5.0));
            }
        }
    };
    world.calm(100, all(5.0));
    let told: String = (0..4).map(|_| world.pass(all(50.0))).collect();
    assert_eq!(told.matches("metric:").count() % 32, 0, "{told}");
    assert!(told.contains("metric:shop/s000:q+3") && !told.contains("shop/s040"), "{told}");
}

/// The collector keeps the file whole; but what is read must never trap for ever.
#[test]
fn a_store_with_any_byte_changed_is_read_or_forgotten() {
    let mut world = World::new(r#"{"learning_windows": 0, "metrics": [{"name": "q"}, {"name": "r"}]}"#);
    let mut chance = Chance(5);
    let all = |world: &mut World, chance: &mut Chance| {
        for name in ["web", "db"] {
            world.add(name, 50, chance.events(2.0) * 10);
            world.say(name, "no route", 1);
            world.add_spans(name, 9, chance.events(1.0).min(9));
            world.add_points(name, 5);
            world.add_latency(name, &[1; 32]);
            world.add_number(name, "q", chance.next());
            world.add_total(name, "r", 1, world.now_ns as f64 * chance.next());
        }
    };
    for _ in 0..100 {
        world.pass(|world| all(world, &mut chance));
    }
    let (store, now_ns) = (world.store.clone(), world.now_ns);
    for _ in 0..3_000 {
        (world.store, world.now_ns) = (store.clone(), now_ns);
        for value in world.store.values_mut() {
            for _ in 0..3 {
                let at = (chance.next() * value.len() as f64) as usize;
                // The first says how it is written.
                if at > 0 {
                    value[at] = (chance.next() * 256.0) as u8;
                }
            }
        }
        for _ in 0..3 {
            world.pass(|world| all(world, &mut chance));
        }
    }
}
