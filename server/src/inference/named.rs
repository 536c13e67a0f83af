//! What the name of a model means, before its weights are asked for.

use adapters::{Hold, RegistryError, Summary};
use engine::PreparedAdapter;
use sha2::{Digest as _, Sha256};

use crate::error::ApiError;
use crate::state::State;

/// What a model name means.
pub enum Named {
    /// The base model.
    Base,
    /// A version of an adapter, in memory or not.
    Adapter(Hold<PreparedAdapter>),
}

impl Named {
    /// Finds what a model name means: empty, the base's name, `<adapter>`, `<base>:<adapter>`, each adapter optionally with
    /// `@<version prefix>`. With a `key` a canary gets its share, without one a name means the active version.
    ///
    /// # Errors
    /// `ModelNotFound`, or the registry's error for an unknown or ambiguous version.
    pub fn resolve(state: &State, requested: &str, key: Option<&str>) -> Result<Self, ApiError> {
        let base = state.served_name();
        if requested.is_empty() || requested == base || requested == "base" {
            return Ok(Self::Base);
        }
        let (name, version) = split(requested, base);
        let hold = match (version, key) {
            (Some(prefix), _) => state.registry.hold_version(name, prefix),
            (None, Some(key)) => state.registry.hold_drawn(name, draw(name, key)),
            (None, None) => state.registry.hold(name),
        };
        match hold {
            Ok(hold) => Ok(Self::Adapter(hold)),
            Err(RegistryError::NotLoaded { .. }) => Err(ApiError::ModelNotFound {
                model: requested.to_owned(),
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// The adapter's name, `None` for the base.
    pub fn adapter(&self) -> Option<&str> {
        match self {
            Self::Base => None,
            Self::Adapter(hold) => Some(hold.name()),
        }
    }

    /// The facts about the adapter version, `None` for the base.
    pub fn summary(&self) -> Option<&Summary> {
        match self {
            Self::Base => None,
            Self::Adapter(hold) => Some(hold.summary()),
        }
    }
}

/// A number from 0 to below 100 that depends on the adapter's name and a key and on nothing else, so that whoever sends the same
/// key stays on one side of a canary, on any server.
fn draw(name: &str, key: &str) -> f64 {
    let digest = Sha256::new()
        .chain_update(name)
        .chain_update([0])
        .chain_update(key)
        .finalize();
    let (bytes, _) = digest.split_at(4);
    let number = bytes
        .iter()
        .fold(0u32, |number, byte| number << 8 | u32::from(*byte));
    f64::from(number) / (f64::from(u32::MAX) + 1.0) * 100.0
}

/// Splits a model name into adapter and version prefix; the base's name may stand before the adapter.
fn split<'a>(requested: &'a str, base: &str) -> (&'a str, Option<&'a str>) {
    let adapter = requested
        .strip_prefix(base)
        .and_then(|rest| rest.strip_prefix(':'))
        .unwrap_or(requested);
    match adapter.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (adapter, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_an_adapter_mean_the_same() {
        assert_eq!(split("tone", "base-model"), ("tone", None));
        assert_eq!(split("base-model:tone", "base-model"), ("tone", None));
        assert_eq!(
            split("tone@12345678", "base-model"),
            ("tone", Some("12345678"))
        );
        assert_eq!(
            split("base-model:tone@12345678", "base-model"),
            ("tone", Some("12345678"))
        );
        assert_eq!(split("other:tone", "base-model"), ("other:tone", None));
    }

    #[test]
    fn draws_are_even_and_a_key_always_draws_the_same() {
        let low = (0..10_000)
            .filter(|number| draw("tone", &number.to_string()) < 20.0)
            .count();
        // Five standard deviations of 10,000 draws at 0.2 are 200.
        assert!((1_800..=2_200).contains(&low), "{low}");
        assert_eq!(draw("tone", "ada"), draw("tone", "ada"));
        assert_ne!(draw("tone", "ada"), draw("style", "ada"));
    }
}
