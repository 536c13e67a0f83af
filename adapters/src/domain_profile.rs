//! What an adapter's training inputs look like to the model that carries it, so that an input unlike them can be told.
//!
//! Here belong the numbers and what is computed from them. Where mean hidden states come from does not belong here.

use serde::{Deserialize, Serialize};

use crate::AdapterError;

/// Quantiles of the training inputs' distances that are kept: every hundredth from the smallest to the largest.
const QUANTILES: usize = 101;

/// A deviation is at least this share of all dimensions' root mean square of deviations, so that a dimension which never
/// moved in training does not decide alone.
const LEAST_DEVIATION: f64 = 0.01;

/// The training inputs' mean hidden states, summed up per dimension.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DomainProfile {
    /// How many training inputs were measured.
    pub examples: usize,
    /// Mean of their mean hidden states, `[hidden]`.
    pub mean: Vec<f32>,
    /// Standard deviation of each dimension, `[hidden]`, above 0.
    pub deviation: Vec<f32>,
    /// Quantiles of their own distances in equal steps from the smallest to the largest, ascending, at least two.
    pub distances: Vec<f32>,
}

impl DomainProfile {
    /// Sums up mean hidden states, `[inputs][hidden]`.
    ///
    /// # Errors
    /// `InvalidManifest` for fewer than two, for different widths and for values that are not finite.
    pub fn measure(states: &[Vec<f32>]) -> Result<Self, AdapterError> {
        let width = states.first().map_or(0, Vec::len);
        if states.len() < 2 || states.iter().any(|state| state.len() != width) {
            return Err(invalid(format!(
                "{} states were measured; at least two of one width are needed",
                states.len()
            )));
        }
        let count = states.len() as f64;
        let column = |dimension: usize| states.iter().map(move |state| f64::from(state[dimension]));
        let mean: Vec<f64> = (0..width)
            .map(|dimension| column(dimension).sum::<f64>() / count)
            .collect();
        let variance = |(dimension, mean): (usize, &f64)| {
            column(dimension).map(|x| (x - mean).powi(2)).sum::<f64>() / count
        };
        let variances: Vec<f64> = mean.iter().enumerate().map(variance).collect();
        let typical = (variances.iter().sum::<f64>() / width.max(1) as f64).sqrt();
        let least = (typical * LEAST_DEVIATION).max(f64::from(f32::MIN_POSITIVE));
        let mut profile = Self {
            examples: states.len(),
            mean: mean.iter().map(|x| *x as f32).collect(),
            deviation: (variances.iter())
                .map(|variance| variance.sqrt().max(least) as f32)
                .collect(),
            distances: Vec::new(),
        };
        let distances = states.iter().map(|state| profile.distance(state));
        let mut distances: Vec<f64> = distances.collect();
        distances.sort_by(f64::total_cmp);
        profile.distances = (0..QUANTILES)
            .map(|step| quantile(&distances, step as f64 / (QUANTILES - 1) as f64) as f32)
            .collect();
        profile.check().map_err(invalid)?;
        Ok(profile)
    }

    /// The width of the hidden states it is about.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// How far a mean hidden state, `[hidden]`, lies from the training inputs', in standard deviations: the root mean
    /// square over the dimensions of `(hidden - mean) / deviation`. Lee et al. 2018 (*A Simple Unified Framework for
    /// Detecting Out-of-Distribution Samples and Adversarial Attacks*) with a diagonal covariance, divided by the
    /// square root of the number of dimensions.
    pub fn distance(&self, hidden: &[f32]) -> f64 {
        let scale = self.mean.iter().zip(&self.deviation);
        let squares = hidden.iter().zip(scale).map(|(x, (mean, deviation))| {
            ((f64::from(*x) - f64::from(*mean)) / f64::from(*deviation)).powi(2)
        });
        (squares.sum::<f64>() / self.width().max(1) as f64).sqrt()
    }

    /// The share of the training inputs that lie at least as far, 0 to 1, interpolated between the quantiles: about
    /// uniform for inputs like them, near 0 for strange ones.
    pub fn in_domain(&self, distance: f64) -> f64 {
        let distances = &self.distances;
        let nearer = distances.partition_point(|quantile| f64::from(*quantile) < distance);
        if nearer == 0 || nearer == distances.len() {
            return if nearer == 0 { 1.0 } else { 0.0 };
        }
        let [below, above] = [distances[nearer - 1], distances[nearer]].map(f64::from);
        let place = (nearer - 1) as f64 + (distance - below) / (above - below);
        1.0 - place / (distances.len() - 1) as f64
    }

    /// Says what is wrong with a profile that was read.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (width, deviations) = (self.mean.len(), self.deviation.len());
        if width == 0 || width != deviations {
            return Err(format!(
                "mean has {width} values and deviation {deviations}; they must have one each per dimension"
            ));
        }
        if let Some(index) = self.mean.iter().position(|x| !x.is_finite()) {
            return Err(format!("mean holds {} at index {index}", self.mean[index]));
        }
        let unfit = |x: &f32| !x.is_finite() || *x <= 0.0;
        if let Some(index) = self.deviation.iter().position(unfit) {
            let value = self.deviation[index];
            return Err(format!(
                "deviation holds {value} at index {index}, expected a finite number above 0"
            ));
        }
        let ascending = self.distances.windows(2).all(|pair| pair[0] <= pair[1]);
        let unfit = |x: &f32| !x.is_finite() || *x < 0.0;
        if self.distances.len() < 2 || !ascending || self.distances.iter().any(unfit) {
            return Err(
                "distances must be at least two ascending finite numbers from 0".to_owned(),
            );
        }
        Ok(())
    }
}

fn invalid(reason: String) -> AdapterError {
    AdapterError::InvalidManifest {
        reason: format!("domain: {reason}"),
    }
}

/// The value below which that share of ascending values lies, interpolated linearly.
fn quantile(ascending: &[f64], share: f64) -> f64 {
    let place = share * (ascending.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    let (low, high) = (ascending[below], ascending[above]);
    low + (high - low) * (place - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> DomainProfile {
        DomainProfile {
            examples: 4,
            mean: vec![1.0, -2.0],
            deviation: vec![0.5, 2.0],
            distances: vec![0.5, 1.0, 1.0, 3.0, 5.0],
        }
    }

    #[test]
    fn a_distance_counts_deviations() {
        // (2 - 1) / 0.5 = 2 and (2 + 2) / 2 = 2.
        assert_eq!(profile().distance(&[2.0, 2.0]), 2.0);
        // sqrt((9 + 1) / 2).
        let distance = profile().distance(&[-0.5, 0.0]);
        assert!((distance - 5f64.sqrt()).abs() < 1e-12, "{distance}");
        assert_eq!(profile().distance(&[1.0, -2.0]), 0.0);
    }

    #[test]
    fn the_score_is_the_share_that_lies_at_least_as_far() {
        let scores: Vec<f64> = [0.0, 0.5, 0.75, 1.0, 2.0, 4.0, 5.0, 5.1]
            .map(|distance| profile().in_domain(distance))
            .to_vec();
        assert_eq!(scores, [1.0, 1.0, 0.875, 0.75, 0.375, 0.125, 0.0, 0.0]);
    }

    #[test]
    fn measured_inputs_score_about_evenly() {
        let wave = |i: usize, step: f32| (i as f32 * step).sin();
        let states: Vec<Vec<f32>> = (0..300)
            .map(|i| {
                vec![
                    3.0 + wave(i, 1.7),
                    -7.0 * wave(i, 0.9),
                    wave(i, 2.3) + wave(i, 0.4),
                    1.0,
                ]
            })
            .collect();
        let profile = DomainProfile::measure(&states).expect("three hundred states");
        assert_eq!((profile.examples, profile.width()), (300, 4));
        assert_eq!(profile.distances.len(), 101);
        // The deviation of a sine is sqrt(1/2).
        assert!((profile.mean[0] - 3.0).abs() < 0.05);
        assert!((profile.deviation[1] - 7.0 * 0.5f32.sqrt()).abs() < 0.1);
        // The last one never moved.
        assert!(profile.deviation[3] > 0.01);
        let scores = states
            .iter()
            .map(|state| profile.in_domain(profile.distance(state)));
        let mean = scores.sum::<f64>() / 300.0;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        assert_eq!(
            profile.in_domain(profile.distance(&[30.0, 0.0, 0.0, 1.0])),
            0.0
        );
    }

    #[test]
    fn too_little_to_measure_is_refused() {
        let refuse = |states: &[Vec<f32>]| DomainProfile::measure(states).unwrap_err().to_string();
        insta::assert_snapshot!(refuse(&[vec![1.0]]), @"manifest.json: domain: 1 states were measured; at least two of one width are needed");
        assert!(refuse(&[vec![1.0], vec![1.0, 2.0]]).contains("2 states"));
        assert!(refuse(&[vec![1.0], vec![f32::NAN]]).contains("mean holds NaN at index 0"));
        assert!(refuse(&[vec![], vec![]]).contains("mean has 0 values"));
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let refuse = |change: fn(&mut DomainProfile)| {
            let mut changed = profile();
            change(&mut changed);
            changed.check().unwrap_err()
        };
        insta::assert_snapshot!(refuse(|p| p.deviation.push(1.0)), @"mean has 2 values and deviation 3; they must have one each per dimension");
        insta::assert_snapshot!(refuse(|p| p.deviation[1] = 0.0), @"deviation holds 0 at index 1, expected a finite number above 0");
        insta::assert_snapshot!(refuse(|p| p.mean[0] = f32::INFINITY), @"mean holds inf at index 0");
        insta::assert_snapshot!(refuse(|p| p.distances.swap(0, 4)), @"distances must be at least two ascending finite numbers from 0");
        assert!(refuse(|p| p.distances.truncate(1)).contains("at least two"));
        assert!(refuse(|p| p.distances[0] = -1.0).contains("from 0"));
        assert!(profile().check().is_ok());
    }
}
