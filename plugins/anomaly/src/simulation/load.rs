//! Services as they are: what they send in a window, in one of two families of noise.

use crate::latency::{self, Buckets};
use crate::simulation::faults::{Fault, Kind};
use crate::tests::world::{Chance, World};
use std::f64::consts::TAU;

/// The two metrics of each service: a gauge, and a counter in two series.
pub(super) const GAUGE: &str = "queue.depth";
pub(super) const COUNTER: &str = "jobs.done";
pub(super) const SETTINGS: &str = r#"{"metrics": [{"name": "queue.depth"}, {"name": "jobs.done"}]}"#;
/// Kinds of errors that are usual. Each service says each of them in its first hour. One that came for the first time later
/// would be a new error indeed.
const USUAL_ERRORS: usize = 3;
/// Windows of a day.
const DAY: f64 = 8_640.0;
/// Durations of a window, as many as `process` would add.
const DURATIONS_MAX: u64 = 64;
const WINDOW_SECONDS: f64 = 10.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Independent events: Poisson, lognormal, normal.
    A,
    /// Numbers vary more than by chance (negative binomial), the error share too, durations have heavy tails (Pareto), metrics
    /// remember (AR(1)), and now and then all of it comes in a burst.
    B,
}

/// How the load of a service goes, without anything wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shape {
    Steady,
    /// From 10 to 100 % and back in a day.
    Daily,
    /// Three to six times the load for some windows, about once in an hour.
    Bursts,
    /// Threefold within an hour, for good.
    Ramp,
    /// It speaks in one window of five.
    Seldom,
}

pub(super) struct Service {
    pub(super) name: String,
    pub(super) shape: Shape,
    /// Means of a window.
    pub(super) logs: f64,
    pub(super) spans: f64,
    share: f64,
    failing: f64,
    median_ms: f64,
    /// Sigma of a lognormal, or shape of a Pareto.
    tail: f64,
    /// The gauge: its usual value, and the standard deviation of its noise.
    depth: f64,
    pub(super) depth_noise: f64,
    /// What its noise remembers from one window to the next, and has.
    memory: f64,
    remembered: f64,
    /// Of the counter, per second.
    jobs: f64,
    totals: [f64; 2],
    /// Where the day, the burst, the ramp begins.
    phase: f64,
    burst: (f64, u32),
    /// How much more counts vary in family B.
    dispersion: f64,
}

/// The window, and what the load is in it.
#[derive(Clone, Copy)]
struct Now {
    window: u32,
    family: Family,
    load: f64,
}

impl Service {
    pub(super) fn new(number: usize, shape: Shape, family: Family, chance: &mut Chance) -> Service {
        let shares = [0.0, 0.001, 0.01, 0.03];
        let depth = chance.between(20.0, 1_000.0);
        let tail = match family {
            Family::A => chance.between(0.3, 0.8),
            Family::B => chance.between(1.5, 2.5),
        };
        Service {
            name: format!("service-{number}"),
            shape,
            logs: chance.between(15.0, 200.0),
            spans: chance.between(15.0, 200.0),
            share: shares[chance.one_of(4)],
            failing: shares[chance.one_of(4)],
            median_ms: chance.between(1.0_f64.ln(), 500.0_f64.ln()).exp(),
            tail,
            depth,
            depth_noise: depth * chance.between(0.03, 0.12),
            memory: if family == Family::B { chance.between(0.8, 0.95) } else { 0.0 },
            remembered: 0.0,
            jobs: chance.between(5.0, 50.0),
            totals: [0.0; 2],
            phase: chance.next(),
            burst: (1.0, 0),
            dispersion: chance.between(5.0, 20.0),
        }
    }

    /// The load of a window, as a share of the usual.
    fn load(&mut self, window: u32, family: Family, chance: &mut Chance) -> f64 {
        let bursts = match (self.shape, family) {
            (Shape::Bursts, _) => 1.0 / 300.0,
            (_, Family::B) => 1.0 / 1_000.0,
            _ => 0.0,
        };
        if self.burst.1 == 0 {
            self.burst = (1.0, 1);
            if chance.is_true(bursts) {
                self.burst = (chance.between(3.0, 6.0), 2 + chance.one_of(8) as u32);
            }
        }
        self.burst.1 -= 1;
        let shape = match self.shape {
            Shape::Steady | Shape::Bursts => 1.0,
            Shape::Daily => 0.45f64.mul_add(((f64::from(window) / DAY + self.phase) * TAU).cos(), 0.55),
            Shape::Ramp => {
                1.0 + 2.0 * ((f64::from(window) - 500.0 * self.phase - 200.0) / 360.0).clamp(0.0, 1.0)
            }
            Shape::Seldom => f64::from(u8::from(chance.is_true(0.2))),
        };
        shape * self.burst.0
    }

    fn events(&self, mean: f64, family: Family, chance: &mut Chance) -> u64 {
        match family {
            Family::A => chance.poisson(mean),
            Family::B if mean > 0.0 => chance.over_dispersed(mean, self.dispersion),
            Family::B => 0,
        }
    }

    /// What it sends in a window, with what is wrong with it just then.
    pub(super) fn speak(
        &mut self,
        window: u32,
        family: Family,
        fault: Option<&Fault>,
        chance: &mut Chance,
        world: &mut World,
    ) {
        let load = self.load(window, family, chance);
        let now = |kind: Kind| fault.filter(|fault| fault.kind == kind && fault.is_now(window));
        let moment = Now { window, family, load };
        let is_silent = |signal: usize| now(Kind::Silence).is_some_and(|fault| fault.signals[signal]);
        if !is_silent(0) {
            self.log(moment, now(Kind::Errors), now(Kind::New), chance, world);
        }
        if !is_silent(1) {
            self.trace(moment, now(Kind::Failed), now(Kind::Latency), chance, world);
        }
        let jobs = self.jobs * now(Kind::Counter).map_or(1.0, |fault| fault.height(window));
        for total in &mut self.totals {
            *total += chance.poisson(jobs * WINDOW_SECONDS) as f64;
        }
        let depth = self.measure(family, chance)
            + now(Kind::Gauge).map_or(0.0, |fault| fault.height(window) * self.depth_noise);
        // Metrics come once a minute.
        if !is_silent(2)
            && (window + (self.phase * 6.0) as u32).is_multiple_of(6)
            && self.shape != Shape::Seldom
        {
            world.add_points(&self.name, 40);
            world.add_number(&self.name, GAUGE, depth.max(0.0));
            for (series, total) in self.totals.into_iter().enumerate() {
                world.add_total(&self.name, COUNTER, series as u64, total);
            }
        }
    }

    fn log(
        &self,
        now: Now,
        errors: Option<&Fault>,
        new: Option<&Fault>,
        chance: &mut Chance,
        world: &mut World,
    ) {
        let Now { window, family, load } = now;
        let mut records = self.events(self.logs * load, family, chance);
        let mut failed = self.failures(records, self.share, errors, family, chance);
        for _ in 0..failed.min(8) {
            world.say(&self.name, &usual_error(chance.one_of(USUAL_ERRORS), window), 1);
        }
        if window.is_multiple_of(50) && (window as usize / 50) < USUAL_ERRORS {
            world.say(&self.name, &usual_error(window as usize / 50, window), 1);
            (records, failed) = (records + 1, failed + 1);
        }
        if let Some(new) = new {
            let number = 1 + chance.poisson(1.0);
            world.say(&self.name, &format!("{} (attempt {window})", new.message), number);
            (records, failed) = (records + number, failed + number);
        }
        if records > 0 {
            world.add(&self.name, records, failed);
        }
    }

    fn trace(
        &self,
        now: Now,
        failed: Option<&Fault>,
        slow: Option<&Fault>,
        chance: &mut Chance,
        world: &mut World,
    ) {
        let Now { window, family, load } = now;
        let spans = self.events(self.spans * load, family, chance);
        let failed = self.failures(spans, self.failing, failed, family, chance);
        world.add_spans(&self.name, spans, failed);
        if spans == 0 {
            return;
        }
        // A little slower under load.
        let median = self.median_ms * load.max(0.1).powf(0.1);
        let mut buckets: Buckets = [0; 32];
        for _ in 0..spans.min(DURATIONS_MAX) {
            let mut ms = match family {
                Family::A => chance.lognormal(median, self.tail),
                Family::B => chance.pareto(median, self.tail),
            };
            if let Some(slow) = slow
                && (slow.share >= 1.0 || chance.is_true(slow.share))
            {
                ms *= slow.height(window);
            }
            // One in some thousands waits for something.
            if chance.is_true(0.0003) {
                ms *= 50.0;
            }
            let value = latency::value((ms * 1e6) as u64);
            buckets[(value.max(1e-9).log2().floor() + 16.0).clamp(0.0, 31.0) as usize] += 1;
        }
        world.add_latency(&self.name, &buckets);
    }

    fn failures(
        &self,
        records: u64,
        share: f64,
        fault: Option<&Fault>,
        family: Family,
        chance: &mut Chance,
    ) -> u64 {
        let share = match family {
            Family::A => share,
            Family::B => share * chance.gamma(self.dispersion) / self.dispersion,
        };
        let share = share + fault.map_or(0.0, |fault| fault.share);
        chance.poisson(records as f64 * share).min(records)
    }

    fn measure(&mut self, family: Family, chance: &mut Chance) -> f64 {
        let fresh = (1.0 - self.memory * self.memory).sqrt();
        self.remembered = self.memory * self.remembered + fresh * chance.normal();
        // Sometimes a single value is far off.
        let spike = if family == Family::B && chance.is_true(0.002) { 6.0 } else { 0.0 };
        self.depth + self.depth_noise * (self.remembered + spike)
    }
}

/// What varies in it is another in each window.
fn usual_error(kind: usize, window: u32) -> String {
    let id = u64::from(window).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match kind {
        0 => format!(
            "timeout after {}.{} ms at 10.0.{}.7:{}",
            20 + window % 80,
            window % 10,
            window % 200,
            1024 + window
        ),
        1 => format!(
            "order {id:016x} of /srv/shops/{window}/orders.db was refused: {} of {window} left",
            window / 3
        ),
        _ => format!("no such user: 'ada-{window}' (request {id:08x}-0000-4000-8000-{:012x})", id >> 16),
    }
}
