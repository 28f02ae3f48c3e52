//! Services that live for hours in milliseconds: windows in, alerts out.

mod signals;
pub(crate) mod world;

use crate::keys;
use crate::signature::Signature;
use std::collections::{BTreeMap, BTreeSet};
use world::{Chance, SECOND, World, window};

#[test]
fn a_day_of_a_hundred_steady_services_is_no_news() {
    let mut world = World::new("{}");
    let mut chance = Chance(7);
    // From two to 200 records in a window, from none to every third an error; at night a tenth of the load of the day.
    let loads = [2.0, 8.0, 20.0, 60.0, 200.0];
    let shares = [0.0, 0.001, 0.01, 0.05, 0.3];
    let mut told = String::new();
    for window in 0..8_640_u32 {
        let day = 0.55 + 0.45 * (f64::from(window) / 8_640.0 * std::f64::consts::TAU).cos();
        told += &world.pass(|world| {
            for number in 0..100 {
                let records = chance.events(loads[number % 5] * day);
                let errors = chance.events(records as f64 * shares[number / 5 % 5]).min(records);
                if records > 0 {
                    world.add(&format!("service-{number}"), records, errors);
                }
            }
        });
    }
    assert_eq!(told, "");
}

#[test]
fn a_burst_is_one_incident_and_its_count_is_exact() {
    let mut world = World::new("{}");
    world.calm(60, |world| world.add("web", 100, 0));
    // It begins at the end of a window, with fewer errors than are worth an alert.
    assert_eq!(world.pass(|world| world.add("web", 103, 3)), "");
    assert_eq!(world.pass(|world| world.add("web", 70_100, 70_000)), "error-rate:shop/web+70003");
    assert_eq!(
        world.text(),
        "error rate: web of shop\n70,003 errors since 22:23:20 UTC. In the worst 10 s 70,000 of 70,100 records were \
         errors (100 %); usual are none."
    );
    assert_eq!(world.pass(|world| world.add("web", 30_000, 29_990)), "error-rate:shop/web+29990");
    assert_eq!(world.pass(|world| world.add("web", 107, 7)), "error-rate:shop/web+7");
    world.calm(4, |world| world.add("web", 100, 0));
    assert_eq!(world.pass(|world| world.add("web", 100, 0)), "error-rate:shop/web-");
    assert_eq!(world.counts, BTreeMap::from([("error-rate:shop/web".into(), 100_000)]));
    world.calm(100, |world| world.add("web", 100, 0));
}

#[test]
fn an_incident_that_goes_on_counts_every_error_and_teaches_nothing() {
    let mut world = World::new("{}");
    world.calm(30, |world| world.add("web", 100, 1));
    for window in 0..500 {
        let told = world.pass(|world| world.add("web", 100, 60));
        assert_eq!(told, "error-rate:shop/web+60", "window {window}");
    }
    world.pass(|world| world.add("web", 100, 2));
    assert_eq!(world.counts["error-rate:shop/web"], 30_002);
    for _ in 0..5 {
        world.pass(|world| world.add("web", 100, 1));
    }
    assert!(world.told.ends_with("error-rate:shop/web- "), "{}", world.told);
    assert_eq!(world.counts["error-rate:shop/web"], 30_007);
}

#[test]
fn what_lasts_for_hours_is_usual_in_the_end() {
    let mut world = World::new(r#"{"cooldown_windows": 0}"#);
    world.calm(30, |world| world.add("web", 100, 0));
    let mut resolved = 0;
    for _ in 0..5_000 {
        resolved += u32::from(world.pass(|world| world.add("web", 100, 60)).contains("web-"));
    }
    assert_eq!(resolved, 1);
    world.calm(10, |world| world.add("web", 100, 60));
}

#[test]
fn between_two_incidents_there_is_a_pause_and_no_error_is_left_out() {
    let mut world = World::new(r#"{"calm_windows": 1, "cooldown_windows": 5}"#);
    world.calm(30, |world| world.add("web", 100, 0));
    assert_eq!(world.pass(|world| world.add("web", 100, 50)), "error-rate:shop/web+50");
    assert_eq!(world.pass(|world| world.add("web", 100, 0)), "error-rate:shop/web-");
    world.calm(5, |world| world.add("web", 100, 50));
    assert_eq!(world.pass(|world| world.add("web", 100, 50)), "error-rate:shop/web+300");
}

#[test]
fn a_slow_start_and_a_slow_change_are_no_incidents() {
    let mut world = World::new("{}");
    for window in 0..200 {
        assert_eq!(world.pass(|world| world.add("web", window, window / 50)), "");
    }
    for window in 0..2_000 {
        assert_eq!(world.pass(|world| world.add("web", 1_000, 10 + window / 10)), "", "{window}");
    }
}

#[test]
fn few_errors_and_few_records_are_no_incident() {
    let mut world = World::new("{}");
    world.calm(30, |world| world.add("web", 100, 0));
    world.calm(1, |world| world.add("web", 100, 9));
    world.calm(1, |world| world.add("web", 100, 0));
    world.calm(1, |world| world.add("web", 19, 19));
    world.calm(10, |world| {
        world.add("web", 100, 0);
        world.add("new", 50, 50);
    });
}

#[test]
fn few_records_that_go_on_failing_are_told_together_until_they_stop() {
    let mut world = World::new("{}");
    world.calm(30, |world| world.add("web", 12, 0));
    world.calm(1, |world| world.add("web", 12, 6));
    assert_eq!(world.pass(|world| world.add("web", 12, 6)), "error-rate:shop/web+12");
    for _ in 0..50 {
        assert_eq!(world.pass(|world| world.add("web", 12, 6)), "error-rate:shop/web+6");
    }
    world.calm(5, |world| world.add("web", 12, 0));
    assert_eq!(world.pass(|world| world.add("web", 12, 0)), "error-rate:shop/web-");
}

#[test]
fn silence_is_told_once_and_ends_with_the_first_record() {
    let mut world = World::new("{}");
    world.calm(30, |world| {
        world.add("web", 3, 0);
        world.add("db", 3, 0);
    });
    let others = |world: &mut World| world.add("db", 3, 0);
    world.calm(5, others);
    assert_eq!(world.pass(others), "silence:shop/web+1");
    assert_eq!(
        world.text(),
        "silence: web of shop\nno log records since 22:18:20 UTC; before, it spoke all the time."
    );
    world.calm(100, others);
    let both = |world: &mut World| {
        world.add("web", 3, 0);
        world.add("db", 3, 0);
    };
    assert_eq!(world.pass(both), "silence:shop/web-");
    // The silence was an incident, no habit: the next one is told too.
    world.calm(2, both);
    world.calm(5, |_| ());
    assert_eq!(world.pass(|_| ()), "silence:shop/db+1 silence:shop/web+1");
}

#[test]
fn silence_of_one_that_spoke_seldom_or_too_short_is_no_news() {
    let mut world = World::new("{}");
    for window in 0..1_000 {
        let told = world.pass(|world| {
            world.add("db", 1, 0);
            // Pauses of four windows, and later of ten.
            if window % 12 < 8 && (window < 300 || window % 24 < 14) {
                world.add("pausing", 1, 0);
            }
        });
        assert_eq!(told, "");
    }
    let mut world = World::new("{}");
    world.calm(29, |world| {
        world.add("db", 1, 0);
        world.add("young", 1, 0);
    });
    world.calm(50, |world| world.add("db", 1, 0));
}

#[test]
fn a_new_error_is_told_a_window_later_and_ends_when_it_is_gone() {
    let mut world = World::new("{}");
    let usual = |world: &mut World| {
        world.add("web", 100, 1);
        world.say("web", "timeout after 30 ms", 1);
    };
    world.calm(361, usual);
    let message = "disk 'sda' is full";
    let new = |world: &mut World| {
        usual(world);
        world.say("web", message, 2);
    };
    assert_eq!(world.pass(new), "");
    let key = format!("new-error:shop/web:{:016x}", Signature::of("", message.as_bytes(), "").hash);
    assert_eq!(world.pass(new), format!("{key}+4"));
    assert_eq!(
        world.text(),
        "new error: web of shop\ndisk <text> is full\nnot seen before 23:13:30 UTC; 4 since."
    );
    assert_eq!(world.pass(new), format!("{key}+2"));
    world.calm(5, usual);
    assert_eq!(world.pass(usual), format!("{key}-"));
    world.calm(50, new);
}

#[test]
fn a_new_error_of_a_service_that_fails_is_named_there() {
    for before in [0, 1] {
        let mut world = World::new(r#"{"learning_windows": 0}"#);
        world.calm(30, |world| world.add("web", 100, 0));
        if before == 1 {
            world.calm(1, |world| {
                world.add("web", 100, 1);
                world.say("web", "no route to 10.0.0.1", 1);
            });
        }
        let told = world.pass(|world| {
            world.add("web", 100, 80);
            world.say("web", "no route to 10.0.0.7", 80);
        });
        assert_eq!(told, format!("error-rate:shop/web+{}", 80 + before));
        assert!(world.text().ends_with("\nnew: no route to <n>"), "{}", world.text());
        world.calm(1, |world| world.add("web", 100, 0));
        let told = world.pass(|world| {
            world.add("web", 100, 1);
            world.say("web", "still broken", 1);
        });
        assert_eq!(told, "error-rate:shop/web+1");
        assert!(world.text().ends_with("\nnew: no route to <n>\nnew: still broken"), "{}", world.text());
    }
}

#[test]
fn messages_that_never_repeat_are_not_told_for_ever() {
    let mut world = World::new(r#"{"learning_windows": 0}"#);
    let mut chance = Chance(1);
    let mut told = BTreeSet::new();
    for _ in 0..1_000 {
        world.pass(|world| {
            world.add("web", 10, 8);
            for _ in 0..8 {
                let word: String = (0..12).map(|_| (b'g' + (chance.next() * 20.0) as u8) as char).collect();
                world.say("web", &word, 1);
            }
        });
        told.extend(world.told.split('+').filter(|word| word.starts_with("new-error")).map(str::to_owned));
    }
    assert!(told.len() <= 40, "{}", told.len());
}

/// Any two windows in one tick, a store that forgets nothing, and an instance for each tick.
#[test]
fn ticks_that_come_late_say_the_same() {
    let mut chance = Chance(3);
    let plan: Vec<(u64, u64)> = (0..300)
        .map(|window| match window {
            100..=104 => (100, 70 + chance.events(5.0)),
            150..=170 => (0, 0),
            _ => (100, chance.events(1.0)),
        })
        .collect();
    let totals = |windows_of_tick: usize| {
        let mut world = World::new("{}");
        let mut resolved = Vec::new();
        for (at, (records, errors)) in plan.iter().enumerate() {
            world.add("db", 1, 0);
            if *records > 0 {
                world.add("web", *records, *errors);
            }
            world.close();
            if at % windows_of_tick == 0 {
                world.tick();
                resolved.extend(world.told.split(' ').filter(|word| word.ends_with('-')).map(str::to_owned));
            }
        }
        (world.counts, resolved)
    };
    let expected = totals(1);
    assert_eq!(expected.0.keys().collect::<Vec<_>>(), ["error-rate:shop/web", "silence:shop/web"]);
    assert_eq!(expected.1, ["error-rate:shop/web-", "silence:shop/web-"]);
    assert_eq!(totals(2), expected);
    assert_eq!(totals(4), expected);
}

#[test]
fn a_restart_in_between_changes_nothing() {
    let mut world = World::new("{}");
    world.calm(40, |world| {
        world.add("web", 100, 0);
        world.add("db", 5, 0);
    });
    assert_eq!(world.pass(|world| world.add("web", 100, 80)), "error-rate:shop/web+80");
    // The collector forgets what its series had, and an hour passes.
    world.silent.clear();
    world.now_ns += 3_600 * SECOND;
    assert_eq!(world.pass(|world| world.add("web", 100, 90)), "error-rate:shop/web+90");
    for _ in 0..3 {
        assert!(!world.pass(|world| world.add("web", 100, 0)).contains("silence"));
    }
    assert_eq!(
        world.pass(|world| world.add("web", 100, 0)),
        "silence:shop/db+1",
        "five more windows, not an hour"
    );
    world.pass(|world| world.add("web", 100, 0));
    assert_eq!(world.pass(|world| world.add("web", 100, 0)), "error-rate:shop/web-");
}

#[test]
fn a_store_that_was_damaged_is_learned_again() {
    let mut world = World::new("{}");
    world.store.insert("services".into(), b"\xff{".to_vec());
    world.store.insert(keys::known("shop|web"), b"\x00\x01".to_vec());
    world.calm(30, |world| {
        world.add("web", 100, 1);
        world.say("web", "x", 1);
    });
    assert_eq!(world.pass(|world| world.add("web", 100, 80)), "error-rate:shop/web+80");
}

#[test]
fn many_services_push_out_those_that_are_silent_and_none_that_speak() {
    let mut world = World::new("{}");
    world.calm(40, |world| world.add("web", 100, 0));
    for round in 0..50 {
        world.pass(|world| {
            world.add("web", 100, 0);
            (0..300).for_each(|number| world.add(&format!("round {round} number {number}"), 1, 0));
        });
    }
    assert_eq!(world.pass(|world| world.add("web", 100, 80)), "error-rate:shop/web+80");
}

#[test]
fn hostile_names_and_windows_are_kept_within_bounds() {
    let mut world = World::new(r#"{"learning_windows": 0, "baseline_windows": 1}"#);
    let names: Vec<String> = (0..200).map(|at| format!("{at}|/%~\"\\\u{202e}\n").repeat(40)).collect();
    for round in 0..40 {
        world.pass(|world| {
            for (at, name) in names.iter().enumerate() {
                world.add_to(&keys::who(name, name), 1_000, if round % 7 == 6 { 900 } else { 0 });
                let who = keys::who(name, name);
                for message in 0..8 {
                    let text = format!("\"\\{}", "z".repeat(at)) + &"y\u{1}".repeat(message * round);
                    let Signature { hash, template } = Signature::of(&text, text.as_bytes(), "");
                    world.count(keys::new(&who, hash, &template), 1);
                }
            }
        });
    }
    for sum in [f64::NAN, f64::INFINITY, -1.0, f64::MAX, 0.5] {
        for key in
            ["total|a|b", "errors|a|b", "errors|c|d", "new|a|b|0000000000000001|t", "new|a|b", "", "total||"]
        {
            world.waiting.push(window(key, u64::MAX, 0, Some(sum)));
            world.waiting.push(window(key, 0, u64::MAX, Some(sum)));
        }
    }
    world.tick();
}

#[test]
fn who_may_have_spoken_under_another_key_is_not_called_silent() {
    let mut world = World::new("{}");
    world.calm(40, |world| {
        world.add("web", 3, 0);
        world.add("db", 3, 0);
    });
    for _ in 0..20 {
        let end = world.now_ns + 10 * SECOND;
        world.waiting = vec![
            window("total|shop|db", world.now_ns, end, Some(3.0)),
            window("_other", world.now_ns, end, Some(3.0)),
        ];
        world.now_ns = end;
        world.tick();
        assert_eq!(world.told, "");
    }
}

#[test]
fn more_incidents_than_one_call_may_tell_are_told_by_the_next() {
    let mut world = World::new("{}");
    let all = |world: &mut World, errors: u64| {
        (0..100).for_each(|number| world.add(&format!("s{number}"), 100, errors));
    };
    world.calm(30, |world| all(world, 0));
    for _ in 0..8 {
        world.pass(|world| all(world, 50));
    }
    for _ in 0..30 {
        world.pass(|world| all(world, 0));
    }
    assert_eq!(world.counts.len(), 100);
    assert!(world.counts.values().all(|count| *count == 400), "{:?}", world.counts);
}

#[test]
fn a_service_that_is_ignored_has_no_past() {
    let mut world = World::new("{}");
    world.calm(30, |world| world.add("a/b", 100, 0));
    world.pass(|world| world.add("a/b", 100, 90));
    world.settings = crate::settings::parse(r#"{"ignore": ["a/b"]}"#).unwrap();
    assert_eq!(world.pass(|_| ()), "error-rate:shop/a%2Fb-");
    assert!(world.store.is_empty());
}

#[test]
fn a_service_that_is_gone_for_a_day_is_forgotten_and_its_alerts_end() {
    let mut world = World::new("{}");
    world.calm(30, |world| {
        world.add("web", 100, 0);
        world.add("db", 1, 0);
    });
    let mut told = Vec::new();
    for _ in 0..8_700 {
        told.push(world.pass(|world| world.add("db", 1, 0)));
    }
    told.retain(|word| !word.is_empty());
    assert_eq!(told, ["silence:shop/web+1", "silence:shop/web-"]);
}
