//! Percentile bootstrap intervals of a mean and of a paired difference.
//!
//! Efron and Tibshirani (1993), *An Introduction to the Bootstrap*, chapter 13. The resamples come from ChaCha with the
//! given seed, so an interval is the same on every machine.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// How many resamples an interval is made of.
pub const RESAMPLES: usize = 2_000;

/// A 95 % confidence interval, in the unit of the values it was made of; in JSON the pair `[low, high]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(into = "[f64; 2]", from = "[f64; 2]")]
pub struct Interval {
    /// The 2.5th percentile.
    pub low: f64,
    /// The 97.5th percentile.
    pub high: f64,
}

impl Interval {
    /// Whether the interval holds `value`, its ends included.
    pub fn contains(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

impl From<[f64; 2]> for Interval {
    fn from([low, high]: [f64; 2]) -> Self {
        Interval { low, high }
    }
}

impl From<Interval> for [f64; 2] {
    fn from(interval: Interval) -> Self {
        [interval.low, interval.high]
    }
}

/// The interval of the mean of `values`; both ends 0 when there are none.
pub fn bootstrap_mean(values: &[f64], seed: u64) -> Interval {
    if values.is_empty() {
        return Interval {
            low: 0.0,
            high: 0.0,
        };
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sum: f64 = (0..values.len())
                .map(|_| values[random.random_range(0..values.len())])
                .sum();
            sum / values.len() as f64
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    Interval {
        low: percentile(&means, 0.025),
        high: percentile(&means, 0.975),
    }
}

/// The interval of `mean(a - b)`, where `a[i]` and `b[i]` are two scores of the same example.
///
/// # Panics
///
/// When the two slices differ in length.
pub fn bootstrap_paired(a: &[f64], b: &[f64], seed: u64) -> Interval {
    assert_eq!(a.len(), b.len(), "paired scores are of the same examples");
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    bootstrap_mean(&differences, seed)
}

/// Linear between the two nearest ranks, as numpy's default. `sorted` is not empty, `share` in 0..=1.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = share * (sorted.len() - 1) as f64;
    let below = rank.floor() as usize;
    let above = rank.ceil() as usize;
    sorted[below] + (sorted[above] - sorted[below]) * (rank - below as f64)
}
