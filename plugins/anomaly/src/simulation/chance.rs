//! Numbers that chance gives, the same for a seed at every run.

use crate::tests::world::Chance;
use std::f64::consts::TAU;

impl Chance {
    pub(super) fn seeded(seed: u64) -> Chance {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d);
        for _ in 0..8 {
            chance.next();
        }
        chance
    }

    pub(super) fn between(&mut self, least: f64, most: f64) -> f64 {
        least + (most - least) * self.next()
    }

    /// One of `count`, from 0 on.
    pub(super) fn one_of(&mut self, count: usize) -> usize {
        ((self.next() * count as f64) as usize).min(count - 1)
    }

    pub(super) fn is_true(&mut self, share: f64) -> bool {
        self.next() < share
    }

    /// After Gauss: mean 0, standard deviation 1.
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.next().max(1e-300).ln()).sqrt();
        radius * (TAU * self.next()).cos()
    }

    /// After Poisson, whatever the mean is.
    pub(super) fn poisson(&mut self, mean: f64) -> u64 {
        match mean {
            _ if mean <= 0.0 => 0,
            _ if mean < 30.0 => self.events(mean),
            _ => mean.sqrt().mul_add(self.normal(), mean).round().max(0.0) as u64,
        }
    }

    /// Negative binomial: the mean of a Poisson, itself drawn from a gamma distribution of this shape.
    pub(super) fn over_dispersed(&mut self, mean: f64, shape: f64) -> u64 {
        let mean = mean * self.gamma(shape) / shape;
        self.poisson(mean)
    }

    /// After Marsaglia and Tsang, for shapes of 1 and more; scale 1.
    pub(super) fn gamma(&mut self, shape: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.next().max(1e-300).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    pub(super) fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }

    /// The larger `shape`, the lighter the tail.
    pub(super) fn pareto(&mut self, median: f64, shape: f64) -> f64 {
        let least = median / 2.0_f64.powf(1.0 / shape);
        least / self.next().max(1e-12).powf(1.0 / shape)
    }
}

#[test]
fn what_is_drawn_has_the_moments_that_were_asked_for() {
    let mut chance = Chance::seeded(1);
    let mut moments = |draw: &mut dyn FnMut(&mut Chance) -> f64| {
        let drawn: Vec<f64> = (0..20_000).map(|_| draw(&mut chance)).collect();
        let mean = drawn.iter().sum::<f64>() / 20_000.0;
        (mean, drawn.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 20_000.0)
    };
    let near = |(mean, variance): (f64, f64), expected: (f64, f64)| {
        assert!((mean - expected.0).abs() < 0.05 * expected.0.max(1.0), "{mean} {expected:?}");
        assert!((variance - expected.1).abs() < 0.1 * expected.1, "{variance} {expected:?}");
    };
    near(moments(&mut Chance::normal), (0.0, 1.0));
    near(moments(&mut |chance| chance.poisson(7.0) as f64), (7.0, 7.0));
    near(moments(&mut |chance| chance.poisson(70.0) as f64), (70.0, 70.0));
    near(moments(&mut |chance| chance.over_dispersed(50.0, 10.0) as f64), (50.0, 50.0 + 250.0));
    let mut half = |draw: &mut dyn FnMut(&mut Chance) -> f64| {
        (0..20_000).filter(|_| draw(&mut chance) < 9.0).count() as f64 / 20_000.0
    };
    assert!((half(&mut |chance| chance.lognormal(9.0, 0.7)) - 0.5).abs() < 0.02);
    assert!((half(&mut |chance| chance.pareto(9.0, 1.5)) - 0.5).abs() < 0.02);
}
