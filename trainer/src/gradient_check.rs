//! Proof that the graph is whole: every trained tensor must receive a gradient.

use crate::error::TrainerError;
use crate::optimizer::Gradients;
use crate::parameters::{Factor, LoraParameters};

/// Fails naming the first tensor without a gradient. `step` counts from 1.
///
/// A gradient of zeros counts as none, except for `A` at step 1, where it is zero because `B` is.
pub(crate) fn check(
    parameters: &LoraParameters,
    gradients: &Gradients,
    step: usize,
) -> Result<(), TrainerError> {
    let reached = |place: &crate::parameters::FactorPlace| {
        let zero_is_right = step == 1 && place.factor == Factor::A;
        gradients.layer(place.layer).is_some_and(|layer| {
            zero_is_right || layer[place.range.clone()].iter().any(|value| *value != 0.0)
        })
    };
    let missing: Vec<String> = parameters
        .places()
        .iter()
        .filter(|place| !reached(place))
        .map(crate::parameters::FactorPlace::tensor_name)
        .collect();
    match missing.first() {
        None => Ok(()),
        Some(first) => Err(TrainerError::MissingGradients {
            step,
            count: missing.len(),
            first: first.clone(),
        }),
    }
}
