//! The sampler of one sequence: it remembers what was generated, changes the logits as the request asks, and chooses.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Sampling;
use super::filter::{Selection, total};
use super::logprobs::argmax;

/// Chooses the tokens of one sequence.
///
/// The steps, in vLLM's order: end tokens masked below the minimum length, logit bias, repetition penalty (prompt and
/// answer, as in Hugging Face transformers), frequency and presence penalties (answer only), then greedy choice, or
/// temperature, min-p, top-k, top-p and a draw. The draw for position *i* of the answer is number *i* of the ChaCha
/// stream of the seed, so it depends on nothing else in the batch.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    /// The prompt's tokens; empty unless the repetition penalty asks for them.
    prompt: BTreeSet<u32>,
    counts: BTreeMap<u32, u32>,
    generated: usize,
    min_tokens: usize,
    end_tokens: Vec<u32>,
    random: ChaCha8Rng,
    selection: Selection,
}

impl Sampler {
    /// A sampler at the start of an answer to `prompt`. The parameters are taken as valid, see [`Sampling::validate`].
    pub fn new(sampling: &Sampling, prompt: &[u32]) -> Self {
        let repetition = sampling.repetition_penalty != 1.0;
        Self {
            sampling: sampling.clone(),
            prompt: (prompt.iter().copied().filter(|_| repetition)).collect(),
            counts: BTreeMap::new(),
            generated: 0,
            min_tokens: 0,
            end_tokens: Vec::new(),
            random: ChaCha8Rng::seed_from_u64(sampling.seed),
            selection: Selection::default(),
        }
    }

    /// The same sampler, choosing none of `end_tokens` before `min_tokens` tokens are generated.
    #[must_use]
    pub fn with_min_tokens(mut self, min_tokens: usize, end_tokens: &[u32]) -> Self {
        self.min_tokens = min_tokens;
        self.end_tokens = end_tokens.to_vec();
        self
    }

    /// Chooses the next token from its logits, one for each token of the vocabulary, and remembers it. The logits are
    /// changed in place; log-probabilities are read from them before.
    pub fn sample(&mut self, logits: &mut [f32]) -> u32 {
        self.adjust(logits);
        let token = if self.sampling.is_greedy() {
            argmax(logits)
        } else {
            self.draw(logits)
        };
        self.generated += 1;
        if self.counts_matter() {
            *self.counts.entry(token).or_default() += 1;
        }
        token
    }

    /// Whether the next [`Sampler::sample`] may change the logits it is given.
    pub fn changes_logits(&self) -> bool {
        self.generated < self.min_tokens
            || !self.sampling.logit_bias.is_empty()
            || self.counts_matter()
    }

    /// Whether what was generated changes what is likely next.
    fn counts_matter(&self) -> bool {
        let Sampling {
            repetition_penalty,
            frequency_penalty,
            presence_penalty,
            ..
        } = self.sampling;
        repetition_penalty != 1.0 || frequency_penalty != 0.0 || presence_penalty != 0.0
    }

    /// Tokens chosen so far.
    pub fn generated(&self) -> usize {
        self.generated
    }

    fn adjust(&self, logits: &mut [f32]) {
        let mut change = |token: u32, new: &dyn Fn(f32) -> f32| {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = new(*logit);
            }
        };
        if self.generated < self.min_tokens {
            for &token in &self.end_tokens {
                change(token, &|_| f32::NEG_INFINITY);
            }
        }
        for (&token, &bias) in &self.sampling.logit_bias {
            change(token, &|logit| logit + bias);
        }
        let penalty = self.sampling.repetition_penalty;
        if penalty != 1.0 {
            let unseen = self
                .counts
                .keys()
                .filter(|token| !self.prompt.contains(token));
            for &token in self.prompt.iter().chain(unseen) {
                change(token, &|logit| {
                    if logit > 0.0 {
                        logit / penalty
                    } else {
                        logit * penalty
                    }
                });
            }
        }
        let (frequency, presence) = (
            self.sampling.frequency_penalty,
            self.sampling.presence_penalty,
        );
        if frequency != 0.0 || presence != 0.0 {
            for (&token, &count) in &self.counts {
                change(token, &|logit| logit - frequency * count as f32 - presence);
            }
        }
    }

    fn draw(&mut self, logits: &[f32]) -> u32 {
        let uniform = self.uniform();
        let candidates = self.selection.of(logits, &self.sampling);
        let target = uniform * total(candidates);
        let mut sum = 0.0;
        let drawn = candidates.iter().find(|candidate| {
            sum += f64::from(candidate.weight);
            sum > target
        });
        (drawn.or(candidates.last())).map_or_else(|| argmax(logits), |kept| kept.token)
    }

    /// Number `generated` of the stream, in `[0, 1)` with 53 bits.
    fn uniform(&mut self) -> f64 {
        self.random.set_word_pos(2 * self.generated as u128);
        (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn greedy(sampling: Sampling, prompt: &[u32], logits: [f32; 4], tokens: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(&sampling, prompt);
        (0..tokens)
            .map(|_| sampler.sample(&mut logits.clone()))
            .collect()
    }

    #[test]
    fn greedy_takes_the_likeliest_and_the_lower_of_equals() {
        assert_eq!(
            greedy(Sampling::default(), &[], [0.5, 1.5, 1.5, -2.0], 2),
            [1, 1]
        );
    }

    #[test]
    fn presence_and_frequency_count_generated_tokens_only() {
        let presence = Sampling {
            presence_penalty: 0.7,
            ..Sampling::default()
        };
        assert_eq!(
            greedy(presence, &[0], [2.0, 1.5, 1.0, 0.9], 4),
            [0, 1, 0, 0]
        );
        let frequency = Sampling {
            frequency_penalty: 0.6,
            ..Sampling::default()
        };
        // Token 0 at 2.0; at 1.4 below token 1; above it again; at 0.8 below token 2, which was never generated.
        assert_eq!(
            greedy(frequency, &[0, 0], [2.0, 1.5, 1.0, 0.9], 4),
            [0, 1, 0, 2]
        );
    }

    #[test]
    fn repetition_counts_the_prompt_and_knows_the_sign() {
        let sampling = Sampling {
            repetition_penalty: 2.0,
            ..Sampling::default()
        };
        assert_eq!(
            greedy(sampling.clone(), &[0], [2.0, 1.5, -1.0, 0.7], 2),
            [1, 0]
        );
        assert_eq!(
            greedy(sampling, &[1, 1], [-3.0, -1.0, -1.9, -2.5], 2),
            [2, 1]
        );
    }

    #[test]
    fn bias_moves_single_tokens_and_ignores_unknown_ones() {
        let logit_bias = HashMap::from([(3, 2.5), (1, -100.0), (99, 50.0)]);
        let sampling = Sampling {
            logit_bias,
            ..Sampling::default()
        };
        assert_eq!(greedy(sampling, &[], [0.5, 1.5, 0.1, -1.0], 1), [3]);
    }

    #[test]
    fn end_tokens_wait_for_the_minimum() {
        let mut sampler = Sampler::new(&Sampling::default(), &[]).with_min_tokens(2, &[1, 3]);
        let tokens: Vec<u32> = (0..3)
            .map(|_| sampler.sample(&mut [0.1, 2.0, 0.2, 1.0]))
            .collect();
        assert_eq!(tokens, [2, 2, 1]);
        assert_eq!(sampler.generated(), 3);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let sampling = Sampling {
            temperature: 1.0,
            seed: 11,
            ..Sampling::default()
        };
        let mut sampler = Sampler::new(&sampling, &[]);
        let logits = [1.0f32, 4.0, 2.0, 3.0].map(f32::ln);
        let mut counts = [0.0f64; 4];
        for _ in 0..20_000 {
            counts[sampler.sample(&mut logits.clone()) as usize] += 1.0 / 20_000.0;
        }
        for (share, expected) in counts.into_iter().zip([0.1, 0.4, 0.2, 0.3]) {
            assert!((share - expected).abs() < 0.015, "{counts:?}");
        }
    }

    #[test]
    fn a_draw_depends_on_seed_and_position_alone() {
        let sampling = |seed| Sampling {
            temperature: 1.5,
            seed,
            ..Sampling::default()
        };
        let logits: Vec<f32> = (0..64).map(|i| ((i * 29) % 17) as f32 * 0.1).collect();
        let answer = |seed| -> Vec<u32> {
            let mut sampler = Sampler::new(&sampling(seed), &[5, 6]);
            (0..12)
                .map(|_| sampler.sample(&mut logits.clone()))
                .collect()
        };
        assert_eq!(answer(3), answer(3));
        assert_ne!(answer(3), answer(4));
        // Another first step, the same draws after it.
        let mut sampler = Sampler::new(&sampling(3), &[]);
        let mut first = vec![f32::NEG_INFINITY; 64];
        first[9] = 1.0;
        assert_eq!(sampler.sample(&mut first), 9);
        let rest: Vec<u32> = (1..12)
            .map(|_| sampler.sample(&mut logits.clone()))
            .collect();
        assert_eq!(rest, answer(3)[1..]);
    }

    #[test]
    fn a_row_without_numbers_still_gives_a_token() {
        let sampling = Sampling {
            temperature: 1.0,
            ..Sampling::default()
        };
        assert_eq!(Sampler::new(&sampling, &[]).sample(&mut [f32::NAN; 3]), 0);
    }
}
