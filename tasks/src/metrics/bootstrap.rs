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

#[cfg(test)]
mod tests {
    use super::{Interval, bootstrap_mean, bootstrap_paired};

    /// 250 scores, 200 of them 1: the mean is 0.8 with a standard error of sqrt(0.8 * 0.2 / 250) = 0.0253.
    fn mostly_right() -> Vec<f64> {
        (0..250)
            .map(|index| f64::from(u8::from(index % 5 != 0)))
            .collect()
    }

    #[test]
    fn agrees_with_the_normal_approximation() {
        let interval = bootstrap_mean(&mostly_right(), 7);
        assert!(
            (interval.low - (0.8 - 1.96 * 0.0253)).abs() < 0.008,
            "{interval:?}"
        );
        assert!(
            (interval.high - (0.8 + 1.96 * 0.0253)).abs() < 0.008,
            "{interval:?}"
        );
    }

    #[test]
    fn is_the_same_for_one_seed_on_every_machine() {
        let values = [0.11, 0.52, 0.23, 0.94, 0.35, 0.76, 0.47];
        insta::assert_debug_snapshot!(bootstrap_mean(&values, 3), @r#"
        Interval {
            low: 0.2885714285714286,
            high: 0.6942857142857142,
        }
        "#);
        assert_eq!(bootstrap_mean(&values, 3), bootstrap_mean(&values, 3));
        assert_ne!(bootstrap_mean(&values, 3), bootstrap_mean(&values, 4));
    }

    #[test]
    fn pairs_cancel_what_two_models_share() {
        let better = mostly_right();
        // Wrong in 10 more places, right in none that the other is not.
        let worse: Vec<f64> = better
            .iter()
            .enumerate()
            .map(|(index, score)| if index % 25 == 1 { 0.0 } else { *score })
            .collect();
        let paired = bootstrap_paired(&better, &worse, 5);
        assert!(paired.contains(0.04));
        assert!(paired.low > 0.0 && paired.high < 0.08, "{paired:?}");
        let alone = bootstrap_mean(&better, 5);
        assert!(alone.high - alone.low > paired.high - paired.low);
    }

    #[test]
    fn degenerate_samples_have_an_interval_without_width() {
        assert_eq!(
            bootstrap_mean(&[0.25; 9], 1),
            Interval {
                low: 0.25,
                high: 0.25
            }
        );
        assert_eq!(
            bootstrap_mean(&[], 1),
            Interval {
                low: 0.0,
                high: 0.0
            }
        );
    }

    #[test]
    fn is_a_pair_in_json() {
        let interval = Interval {
            low: 0.25,
            high: 0.75,
        };
        let json = serde_json::to_string(&interval).expect("two numbers");
        assert_eq!(json, "[0.25,0.75]");
        let back: Interval = serde_json::from_str(&json).expect("as written");
        assert_eq!(back, interval);
    }

    #[test]
    #[should_panic(expected = "paired scores are of the same examples")]
    fn refuses_unpaired_scores() {
        bootstrap_paired(&[0.5, 0.75], &[0.5], 2);
    }
}
