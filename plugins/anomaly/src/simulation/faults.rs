//! What is made to go wrong, with its label: what, where, and from when to when.

use crate::simulation::load::{COUNTER, GAUGE, Service, Shape};
use crate::tests::world::Chance;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Errors,
    Failed,
    New,
    Silence,
    Latency,
    Gauge,
    Counter,
}

impl Kind {
    pub(super) const ALL: [Kind; 7] =
        [Kind::Errors, Kind::Failed, Kind::New, Kind::Silence, Kind::Latency, Kind::Gauge, Kind::Counter];

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Errors => "error rate of logs",
            Kind::Failed => "error rate of spans",
            Kind::New => "new error",
            Kind::Silence => "silence",
            Kind::Latency => "latency",
            Kind::Gauge => "metric, a gauge",
            Kind::Counter => "metric, a counter",
        }
    }

    /// Of an alert's key, with the service.
    pub(super) fn of_key(key: &str) -> (Kind, String) {
        let (rule, rest) = key.split_once(":shop/").unwrap();
        let (service, rest) = rest.split_once(':').unwrap_or((rest, ""));
        let kind = match (rule, rest) {
            ("error-rate", "") => Kind::Errors,
            ("error-rate", "spans") => Kind::Failed,
            ("new-error", _) => Kind::New,
            ("silence", "") => Kind::Silence,
            ("latency", "") => Kind::Latency,
            ("metric", GAUGE) => Kind::Gauge,
            ("metric", COUNTER) => Kind::Counter,
            _ => panic!("{key}"),
        };
        (kind, service.to_owned())
    }
}

#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) service: String,
    /// Windows: it begins, has its whole height, ends.
    pub(super) begin: u32,
    pub(super) full: u32,
    pub(super) end: u32,
    /// Of records that fail besides, or of requests that are slow.
    pub(super) share: f64,
    /// Times the duration or the rate; of a gauge, standard deviations of its noise.
    by: f64,
    /// Which of them are silent.
    pub(super) signals: [bool; 3],
    pub(super) message: String,
}

impl Fault {
    /// For a service that such a fault can be told of: one with enough load that the settings call it worth an alert.
    pub(super) fn new(kind: Kind, service: &mut Service, chance: &mut Chance) -> Fault {
        let begin = 420 + chance.one_of(300) as u32;
        let mut fault = Fault {
            kind,
            service: service.name.clone(),
            begin,
            full: begin,
            end: begin + 40 + chance.one_of(80) as u32,
            share: 0.0,
            by: 0.0,
            signals: [false; 3],
            message: format!("{} is broken", ["the disk", "a lease", "our hope"][chance.one_of(3)]),
        };
        match kind {
            // Ten errors of a window are needed, and three times the usual share.
            Kind::Errors => {
                service.logs = service.logs.max(60.0);
                fault.share = chance.between(0.25, 0.6);
            }
            Kind::Failed => {
                service.spans = service.spans.max(60.0);
                fault.share = chance.between(0.25, 0.6);
            }
            Kind::New => {}
            Kind::Silence => {
                fault.signals = [[true; 3], [true, false, false], [false, true, false], [false, false, true]]
                    [chance.one_of(4)];
                // Metrics come once a minute: two of them must be missed.
                fault.end = fault.end.max(begin + 60);
            }
            // Of all at once, of all little by little, or of every fifth.
            Kind::Latency => {
                (fault.share, fault.by) = (1.0, chance.between(2.5, 6.0));
                match chance.one_of(3) {
                    0 => {}
                    1 => {
                        fault.full = begin + 60 + chance.one_of(120) as u32;
                        fault.end = fault.full + 40;
                    }
                    _ => (fault.share, fault.by) = (0.2, chance.between(10.0, 20.0)),
                }
            }
            Kind::Gauge => {
                let sign = if chance.is_true(0.3) { -1.0 } else { 1.0 };
                fault.by = sign * chance.between(8.0, 16.0);
                fault.end = fault.end.max(begin + 60);
            }
            Kind::Counter => {
                fault.by =
                    if chance.is_true(0.5) { chance.between(2.0, 5.0) } else { chance.between(0.0, 0.3) };
                fault.end = fault.end.max(begin + 60);
            }
        }
        fault
    }

    pub(super) fn is_now(&self, window: u32) -> bool {
        (self.begin..self.end).contains(&window)
    }

    /// How high it is by then.
    pub(super) fn height(&self, window: u32) -> f64 {
        let ramp = f64::from(self.full - self.begin).max(1.0);
        let done = (f64::from(window + 1 - self.begin) / ramp).min(1.0);
        match self.kind {
            Kind::Latency | Kind::Counter => 1.0 + (self.by - 1.0) * done,
            _ => self.by * done,
        }
    }
}

/// The load of a service that has such a fault: one that has enough of what goes wrong, at any time.
pub(super) fn shape_for(kind: Option<Kind>, chance: &mut Chance) -> Shape {
    let shapes = [Shape::Steady, Shape::Bursts, Shape::Ramp, Shape::Daily, Shape::Seldom];
    match kind {
        Some(_) => shapes[chance.one_of(3)],
        None => shapes[chance.one_of(5)],
    }
}
