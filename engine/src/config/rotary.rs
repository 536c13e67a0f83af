//! The frequencies of rotary embeddings and their scalings (Su et al. 2021, *RoFormer*).

use std::f32::consts::TAU;

/// A rotary embedding: which part of a head it turns, and how fast each pair turns.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotary {
    /// Elements of a head that are turned, from its first; even.
    pub dimensions: usize,
    /// Base of the frequencies.
    pub theta: f32,
    /// What each frequency is divided by, `dimensions / 2` of them; empty: by one.
    pub divisors: Vec<f32>,
    /// Other divisors for long contexts.
    pub long: Option<LongRotary>,
    /// What cosines and sines are multiplied by.
    pub magnitude: f32,
}

/// The long half of LongRoPE (Ding et al. 2024).
#[derive(Debug, Clone, PartialEq)]
pub struct LongRotary {
    /// Longest context that uses the ordinary divisors.
    pub beyond: usize,
    /// `dimensions / 2` divisors for longer ones.
    pub divisors: Vec<f32>,
}

impl Rotary {
    /// Frequencies as they are, over `dimensions` elements.
    pub fn plain(dimensions: usize, theta: f32) -> Self {
        Self {
            dimensions,
            theta,
            divisors: Vec::new(),
            long: None,
            magnitude: 1.0,
        }
    }

    /// Angle per position of each pair, `theta^(-2i / dimensions) / divisor`, for a server whose sequences have up to
    /// `positions` tokens.
    ///
    /// transformers chooses LongRoPE's divisors by the length of each sequence, which changes keys already computed
    /// when a sequence grows past the limit. Here the longest sequence that is served decides for all: cached keys stay
    /// valid and an answer never depends on company. Serve no more than the original context for the short divisors.
    pub fn frequencies(&self, positions: usize) -> Vec<f32> {
        let divisors = match &self.long {
            Some(long) if positions > long.beyond => &long.divisors,
            _ => &self.divisors,
        };
        unscaled(self.dimensions, self.theta)
            .enumerate()
            .map(|(pair, frequency)| divisors.get(pair).map_or(frequency, |by| frequency / by))
            .collect()
    }
}

fn unscaled(dimensions: usize, theta: f32) -> impl Iterator<Item = f32> {
    (0..dimensions / 2).map(move |pair| 1.0 / theta.powf(2.0 * pair as f32 / dimensions as f32))
}

/// The parameters of Llama 3.1's scaling, as its `config.json` has them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Llama3Scaling {
    pub(super) factor: f32,
    pub(super) low_frequency_factor: f32,
    pub(super) high_frequency_factor: f32,
    pub(super) original_context: f32,
}

impl Llama3Scaling {
    /// What each frequency is divided by: 1 for short waves, `factor` for long ones, and in between the harmonic mean
    /// weighted by where the wave stands (Llama 3.1's reference implementation). GGUF files carry these very numbers.
    pub(super) fn divisors(&self, dimensions: usize, theta: f32) -> Vec<f32> {
        let divisor = |frequency: f32| {
            let turns = self.original_context / (TAU / frequency);
            if turns > self.high_frequency_factor {
                1.0
            } else if turns < self.low_frequency_factor {
                self.factor
            } else {
                let smooth = (turns - self.low_frequency_factor)
                    / (self.high_frequency_factor - self.low_frequency_factor);
                1.0 / ((1.0 - smooth) / self.factor + smooth)
            }
        };
        unscaled(dimensions, theta).map(divisor).collect()
    }
}

/// The magnitude LongRoPE prescribes for a context stretched from `original` to `stretched` tokens.
pub(super) fn long_magnitude(stretched: f64, original: f64) -> f32 {
    let factor = stretched / original;
    if factor <= 1.0 {
        return 1.0;
    }
    (1.0 + factor.ln() / original.ln()).sqrt() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_waves_stay_and_long_waves_stretch() {
        let scaling = Llama3Scaling {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context: 64.0 * TAU,
        };
        // Frequencies 1, 1/16, 1/256 turn 64, 4 and 0.25 times in the original context; 1/32 would turn twice.
        let divisors = scaling.divisors(6, 4096.0);
        assert_eq!(divisors[0], 1.0);
        assert!((divisors[1] - 1.0).abs() < 1e-5, "{divisors:?}");
        assert_eq!(divisors[2], 8.0);
        // Two turns: smooth = 1/3, so 1 / (2/3 / 8 + 1/3) = 2.4.
        let middle = scaling.divisors(4, 1024.0);
        assert!((middle[1] - 2.4).abs() < 1e-5, "{middle:?}");
    }

    #[test]
    fn the_served_length_chooses_the_divisors() {
        let rotary = Rotary {
            divisors: vec![1.0, 2.0],
            long: Some(LongRotary {
                beyond: 100,
                divisors: vec![4.0, 8.0],
            }),
            ..Rotary::plain(4, 100.0)
        };
        assert_eq!(rotary.frequencies(100), [1.0, 0.05]);
        assert_eq!(rotary.frequencies(101), [0.25, 0.0125]);
        assert_eq!(Rotary::plain(4, 100.0).frequencies(101), [1.0, 0.1]);
    }

    #[test]
    fn a_stretched_context_has_a_magnitude() {
        // sqrt(1 + ln 4 / ln 16) = sqrt(1.5)
        assert!((long_magnitude(64.0, 16.0) - 1.5f32.sqrt()).abs() < 1e-6);
        assert_eq!(long_magnitude(16.0, 16.0), 1.0);
    }
}
