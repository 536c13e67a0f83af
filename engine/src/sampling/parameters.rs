//! What a request may ask of the sampler, and the ranges it must keep.

use std::collections::HashMap;
use std::ops::RangeInclusive;

/// How the next token is chosen. The default is greedy.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Keep the likeliest tokens until their probabilities sum to this (Holtzman et al. 2019); 1 keeps all, and the
    /// likeliest token is always kept.
    pub top_p: f32,
    /// Keep this many of the likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep tokens at least this fraction as probable as the likeliest one (Nguyen et al. 2024); 0 keeps all.
    pub min_p: f32,
    /// Subtracted from the logit of each token generated before.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token once for each time it was generated before.
    pub frequency_penalty: f32,
    /// Divides the positive and multiplies the negative logits of tokens of the prompt and of the text generated before
    /// (Keskar et al. 2019); 1 changes nothing.
    pub repetition_penalty: f32,
    /// Added to the logits of single tokens; ids outside the vocabulary are ignored.
    pub logit_bias: HashMap<u32, f32>,
    /// Decides every draw, together with the position in the answer and nothing else.
    pub seed: u64,
}

/// A sampling parameter out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is {value}; it must be {expected}")]
pub struct SamplingError {
    /// The field of [`Sampling`].
    pub field: &'static str,
    /// What was given.
    pub value: String,
    /// What would be right.
    pub expected: &'static str,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: HashMap::new(),
            seed: 0,
        }
    }
}

impl Sampling {
    /// Checks every parameter against its range, the ranges of the OpenAI API where it has one.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let checks: [(&'static str, f32, RangeInclusive<f32>, &'static str); 6] = [
            (
                "temperature",
                self.temperature,
                0.0..=2.0,
                "between 0 and 2",
            ),
            ("top_p", self.top_p, 0.0..=1.0, "between 0 and 1"),
            ("min_p", self.min_p, 0.0..=1.0, "between 0 and 1"),
            (
                "presence_penalty",
                self.presence_penalty,
                -2.0..=2.0,
                "between -2 and 2",
            ),
            (
                "frequency_penalty",
                self.frequency_penalty,
                -2.0..=2.0,
                "between -2 and 2",
            ),
            (
                "repetition_penalty",
                self.repetition_penalty,
                f32::MIN_POSITIVE..=100.0,
                "above 0 and at most 100",
            ),
        ];
        for (field, value, range, expected) in checks {
            in_range(field, value, range, expected)?;
        }
        let mut biases: Vec<_> = self.logit_bias.iter().collect();
        biases.sort_unstable_by_key(|(token, _)| **token);
        for (_, &bias) in biases {
            in_range(
                "logit_bias",
                bias,
                -100.0..=100.0,
                "between -100 and 100 for every token",
            )?;
        }
        Ok(())
    }

    /// Whether the likeliest token is taken, without a draw.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }
}

/// NaN is in no range.
fn in_range(
    field: &'static str,
    value: f32,
    range: RangeInclusive<f32>,
    expected: &'static str,
) -> Result<(), SamplingError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(SamplingError {
        field,
        value: value.to_string(),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(sampling: Sampling) -> String {
        (sampling.validate().expect_err("out of range")).to_string()
    }

    #[test]
    fn the_default_is_greedy_and_in_range() {
        assert!(Sampling::default().is_greedy());
        assert_eq!(Sampling::default().validate(), Ok(()));
    }

    #[test]
    fn a_value_out_of_range_is_named_with_its_range() {
        let default = Sampling::default;
        insta::assert_snapshot!(refused(Sampling { temperature: -0.5, ..default() }), @"`temperature` is -0.5; it must be between 0 and 2");
        insta::assert_snapshot!(refused(Sampling { top_p: f32::NAN, ..default() }), @"`top_p` is NaN; it must be between 0 and 1");
        insta::assert_snapshot!(refused(Sampling { repetition_penalty: 0.0, ..default() }), @"`repetition_penalty` is 0; it must be above 0 and at most 100");
        insta::assert_snapshot!(refused(Sampling { frequency_penalty: 2.5, ..default() }), @"`frequency_penalty` is 2.5; it must be between -2 and 2");
        insta::assert_snapshot!(refused(Sampling { logit_bias: HashMap::from([(5, 3.0), (7, f32::INFINITY)]), ..default() }), @"`logit_bias` is inf; it must be between -100 and 100 for every token");
    }

    #[test]
    fn the_borders_of_a_range_belong_to_it() {
        let sampling = Sampling {
            temperature: 2.0,
            top_p: 0.0,
            min_p: 1.0,
            presence_penalty: -2.0,
            logit_bias: HashMap::from([(1, -100.0)]),
            ..Sampling::default()
        };
        assert_eq!(sampling.validate(), Ok(()));
    }
}
