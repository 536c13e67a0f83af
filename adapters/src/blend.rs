//! Blends: linear combinations of adapters over one base, `Σ wᵢ · ΔWᵢ`.
//!
//! The low-rank matrices stand one below the other, `A = [A₁; A₂]` and `B = [w₁s₁B₁, w₂s₂B₂]` with `s` each adapter's own
//! scale, so that `B A` is the combination exactly and nothing is merged into the base. The rank is the sum of the ranks.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::{Adapter, LoraModule, Projection, Version};

/// Most adapters in one blend.
const MOST: usize = 8;

/// Why adapters cannot be blended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BlendError {
    /// None, or too many.
    #[error("a blend takes 1 to {MOST} adapters, {got} were given")]
    Count {
        /// How many there were.
        got: usize,
    },
    /// A weight that is not a number, or nothing.
    #[error(
        "the weight of adapter '{name}' in a blend is {weight}; it must be finite, not 0, and from -10 to 10"
    )]
    Weight {
        /// The adapter.
        name: String,
        /// Its weight as text.
        weight: String,
    },
    /// Adapters that say they were made for different base models.
    #[error(
        "adapters '{first}' and '{second}' cannot be blended: they were made for different base models, '{first_base}' and '{second_base}'"
    )]
    BasesDiffer {
        /// One adapter.
        first: String,
        /// What it was made for.
        first_base: String,
        /// Another.
        second: String,
        /// What that was made for.
        second_base: String,
    },
}

impl BlendError {
    /// A stable snake_case name of the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Count { .. } => "blend_count",
            Self::Weight { .. } => "blend_weight",
            Self::BasesDiffer { .. } => "blend_bases_differ",
        }
    }

    /// Checks the weights of a blend.
    ///
    /// # Errors
    /// `Count`, `Weight`.
    pub fn check_weights(weights: &BTreeMap<String, f64>) -> Result<(), Self> {
        if weights.is_empty() || weights.len() > MOST {
            return Err(Self::Count { got: weights.len() });
        }
        let is_usable = |weight: f64| weight.is_finite() && weight.abs() <= 10.0 && weight != 0.0;
        match weights.iter().find(|(_, weight)| !is_usable(**weight)) {
            None => Ok(()),
            Some((name, weight)) => Err(Self::Weight {
                name: name.clone(),
                weight: weight.to_string(),
            }),
        }
    }
}

/// The version of a blend: a SHA-256 over the versions of its parts and their weights.
pub fn blend_version(parts: &[(Version, f64)]) -> Version {
    let mut hash = Sha256::new();
    hash.update(b"adapter blend 1\n");
    for (version, weight) in parts {
        hash.update(version.as_str());
        hash.update(weight.to_le_bytes());
    }
    Version::from_digest(&hash.finalize())
}

/// The combination of adapters that were all validated against one base, with the weights of [`blend_version`].
///
/// # Panics
/// When there are no parts.
pub fn blend(parts: &[(Adapter, f64)]) -> Adapter {
    let mut places: BTreeMap<(usize, Projection), Vec<(&LoraModule, f64)>> = BTreeMap::new();
    for (adapter, weight) in parts {
        for module in &adapter.modules {
            let place = (module.layer, module.projection);
            places.entry(place).or_default().push((module, *weight));
        }
    }
    let versions: Vec<_> = parts
        .iter()
        .map(|(adapter, weight)| (adapter.version.clone(), *weight))
        .collect();
    let (first, _) = parts.first().expect("a blend has parts");
    Adapter {
        version: blend_version(&versions),
        config: first.config.clone(),
        manifest: crate::Manifest::default(),
        modules: places.into_values().map(|parts| beside(&parts)).collect(),
        bytes: parts.iter().map(|(adapter, _)| adapter.bytes).sum(),
        tensors_matched: parts
            .iter()
            .map(|(adapter, _)| adapter.tensors_matched)
            .sum(),
    }
}

/// One module of several at the same place.
fn beside(parts: &[(&LoraModule, f64)]) -> LoraModule {
    let (first, _) = parts[0];
    let rank = parts.iter().map(|(module, _)| module.rank).sum();
    let outputs = first.b.len() / first.rank;
    let mut b = Vec::with_capacity(outputs * rank);
    for output in 0..outputs {
        for (module, weight) in parts {
            let row = &module.b[output * module.rank..][..module.rank];
            let scale = f64::from(module.scale) * weight;
            b.extend(row.iter().map(|value| scaled(*value, scale)));
        }
    }
    LoraModule {
        layer: first.layer,
        projection: first.projection,
        rank,
        scale: 1.0,
        a: parts
            .iter()
            .flat_map(|(module, _)| module.a.iter().copied())
            .collect(),
        b,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "what is stored has the precision of f32"
)]
fn scaled(value: f32, scale: f64) -> f32 {
    (f64::from(value) * scale) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    /// `scale · B A`, `[outputs][inputs]`.
    fn delta(module: &LoraModule) -> Vec<Vec<f32>> {
        let inputs = module.a.len() / module.rank;
        module
            .b
            .chunks(module.rank)
            .map(|row| {
                let cell = |input: usize| {
                    let terms = row.iter().enumerate();
                    terms
                        .map(|(rank, b)| b * module.a[rank * inputs + input])
                        .sum::<f32>()
                        * module.scale
                };
                (0..inputs).map(cell).collect()
            })
            .collect()
    }

    #[test]
    fn a_blend_is_the_linear_combination_of_the_deltas() {
        let one = crate::Adapter::parse(&fixture::files(), &fixture::base(), &fixture::LIMITS)
            .expect("fits");
        let mut two = one.clone();
        two.version = "cd".repeat(32).parse().expect("a version");
        // Only the first module, of rank 1 and another scale, with other values.
        two.modules.truncate(1);
        let module = &mut two.modules[0];
        let inputs = module.a.len() / module.rank;
        module.a.truncate(inputs);
        module.b = module.b.chunks(2).map(|row| row[0] + 1.0).collect();
        module.rank = 1;
        module.scale = 4.0;

        let blended = blend(&[(one.clone(), 0.5), (two.clone(), -0.25)]);
        assert_eq!(blended.modules.len(), one.modules.len());
        assert_eq!(blended.modules[0].rank, 3);
        let (first, second) = (delta(&one.modules[0]), delta(&two.modules[0]));
        for (row, got) in delta(&blended.modules[0]).iter().enumerate() {
            for (column, got) in got.iter().enumerate() {
                let expected = 0.5 * first[row][column] - 0.25 * second[row][column];
                assert!((got - expected).abs() < 1e-5, "{got} is not {expected}");
            }
        }
        for (got, one) in blended.modules.iter().zip(&one.modules).skip(1) {
            for (got, one) in delta(got).iter().flatten().zip(delta(one).iter().flatten()) {
                assert!((got - 0.5 * one).abs() < 1e-5);
            }
        }
        assert_ne!(
            blended.version,
            blend_version(&[(one.version, 0.5), (two.version, 0.25)])
        );
    }

    #[test]
    fn weights_that_say_nothing_are_refused() {
        let check = |weights: &[(&str, f64)]| {
            let weights = weights
                .iter()
                .map(|(name, weight)| ((*name).to_owned(), *weight));
            BlendError::check_weights(&weights.collect())
        };
        assert_eq!(check(&[("a", 0.5), ("b", -2.0)]), Ok(()));
        assert_eq!(check(&[]), Err(BlendError::Count { got: 0 }));
        for weight in [0.0, f64::NAN, f64::INFINITY, 11.0] {
            assert_eq!(
                check(&[("a", weight)]).expect_err("no weight").code(),
                "blend_weight"
            );
        }
    }
}
