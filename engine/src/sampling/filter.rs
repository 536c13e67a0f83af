//! Which tokens may be drawn and with what weight: temperature, min-p, top-k and top-p over one row of logits, without
//! sorting the row.

use super::Sampling;
use super::exponential::{exp, maximum};
use super::logprobs::id_of;

/// A token that may be drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// The token.
    pub(super) token: u32,
    /// Its logit after penalties, for the order.
    logit: f32,
    /// Its probability relative to the likeliest token's.
    pub(super) weight: f32,
}

/// The tokens of one row that may be drawn, with room that is used again from row to row.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    weights: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl Selection {
    /// The tokens that min-p, then top-k, then top-p leave, each step on what the one before left. Nothing is left of
    /// a row without a finite logit.
    pub(super) fn of(&mut self, logits: &[f32], sampling: &Sampling) -> &[Candidate] {
        let maximum = maximum(logits);
        let temperature = sampling.temperature;
        self.weights.clear();
        (self.weights).extend(logits.iter().map(|&l| exp((l - maximum) / temperature)));
        // The likeliest token has weight 1; NaN and masked tokens weigh nothing.
        let lowest = sampling.min_p.max(f32::MIN_POSITIVE);
        let by_share = sampling.top_p < 1.0;
        if sampling.top_k > 0 {
            self.collect(logits, lowest);
            if sampling.top_k < self.candidates.len() {
                (self.candidates).select_nth_unstable_by(sampling.top_k - 1, likelier_first);
                self.candidates.truncate(sampling.top_k);
            }
            if by_share {
                let wanted = f64::from(sampling.top_p) * total(&self.candidates);
                keep_share(&mut self.candidates, wanted);
            }
        } else if by_share {
            let (mass, count) = mass_above(&self.weights, lowest);
            // Tokens below the mean weight of what may be lost cannot add up to it, so none of them is needed.
            let lost = f64::from(1.0 - sampling.top_p) * mass;
            self.collect(logits, lowest.max((0.999 * lost / count) as f32));
            keep_share(&mut self.candidates, f64::from(sampling.top_p) * mass);
        } else {
            self.collect(logits, lowest);
        }
        &self.candidates
    }

    fn collect(&mut self, logits: &[f32], lowest: f32) {
        self.candidates.clear();
        for (position, (&logit, &weight)) in logits.iter().zip(&self.weights).enumerate() {
            if weight >= lowest {
                self.candidates.push(Candidate {
                    token: id_of(position),
                    logit,
                    weight,
                });
            }
        }
    }
}

/// The sum of the weights, in the order of the candidates.
pub(super) fn total(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|kept| f64::from(kept.weight)).sum()
}

/// The sum and the number of the weights that are not below `lowest`.
fn mass_above(weights: &[f32], lowest: f32) -> (f64, f64) {
    (weights.iter().filter(|&&weight| weight >= lowest))
        .fold((0.0, 0.0), |(mass, count), &weight| {
            (mass + f64::from(weight), count + 1.0)
        })
}

/// Keeps the likeliest candidates, sorted, up to the one with which their weights reach `wanted`.
fn keep_share(candidates: &mut Vec<Candidate>, wanted: f64) {
    let mut share = 0.0;
    let mut sorted = 0;
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let block = rest.len().min(64.max(3 * sorted));
        if block < rest.len() {
            rest.select_nth_unstable_by(block - 1, likelier_first);
        }
        rest[..block].sort_unstable_by(likelier_first);
        for (place, kept) in rest[..block].iter().enumerate() {
            share += f64::from(kept.weight);
            if share >= wanted {
                candidates.truncate(sorted + place + 1);
                return;
            }
        }
        sorted += block;
    }
}

fn likelier_first(left: &Candidate, right: &Candidate) -> std::cmp::Ordering {
    (right.logit.total_cmp(&left.logit)).then(left.token.cmp(&right.token))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(logits: &[f32], sampling: &Sampling) -> Vec<u32> {
        let mut selection = Selection::default();
        let kept = selection.of(logits, sampling).iter();
        let mut tokens: Vec<u32> = kept.map(|kept| kept.token).collect();
        tokens.sort_unstable();
        tokens
    }

    fn warm() -> Sampling {
        Sampling {
            temperature: 1.0,
            ..Sampling::default()
        }
    }

    /// Probabilities 0.05, 0.4, 0.15, 0.3, 0.1.
    fn twentieths() -> Vec<f32> {
        [1.0f32, 8.0, 3.0, 6.0, 2.0].map(f32::ln).to_vec()
    }

    #[test]
    fn top_p_keeps_the_token_that_reaches_it() {
        let at = |top_p| kept(&twentieths(), &Sampling { top_p, ..warm() });
        assert_eq!(at(0.0), [1]);
        assert_eq!(at(0.39), [1]);
        assert_eq!(at(0.41), [1, 3]);
        assert_eq!(at(0.69), [1, 3]);
        assert_eq!(at(0.8), [1, 2, 3]);
        assert_eq!(at(0.96), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn min_p_is_relative_to_the_likeliest() {
        let at = |min_p| kept(&twentieths(), &Sampling { min_p, ..warm() });
        assert_eq!(at(0.13), [1, 2, 3, 4]);
        assert_eq!(at(0.38), [1, 3]);
        assert_eq!(at(1.0), [1]);
    }

    #[test]
    fn top_k_counts_exactly_and_prefers_lower_ids() {
        let logits = [1.0, 3.0, 2.0, 2.0, 2.0];
        assert_eq!(kept(&logits, &Sampling { top_k: 3, ..warm() }), [1, 2, 3]);
        assert_eq!(
            kept(&logits, &Sampling { top_k: 9, ..warm() }),
            [0, 1, 2, 3, 4]
        );
    }

    #[test]
    fn top_p_counts_shares_of_what_top_k_left() {
        // 8 : 6 : 3 are left, shares 0.47, 0.35, 0.18; of all five the second would reach only 0.7.
        let sampling = Sampling {
            top_k: 3,
            top_p: 0.8,
            ..warm()
        };
        assert_eq!(kept(&twentieths(), &sampling), [1, 3]);
    }

    #[test]
    fn temperature_comes_before_the_filters() {
        // Squared weights 1, 64, 9, 36, 4 of 114: the first alone has 0.56.
        let sampling = Sampling {
            temperature: 0.5,
            top_p: 0.55,
            ..warm()
        };
        assert_eq!(kept(&twentieths(), &sampling), [1]);
    }

    #[test]
    fn masked_tokens_are_never_candidates() {
        let logits = [f32::NEG_INFINITY, 0.3, f32::NAN, 0.1];
        assert_eq!(kept(&logits, &warm()), [1, 3]);
        assert!(kept(&[f32::NEG_INFINITY; 2], &warm()).is_empty());
    }

    proptest! {
        #[test]
        fn the_nucleus_is_that_of_a_full_sort(logits in prop::collection::vec(-6.0f32..6.0, 1..900), top_p in 0.01f32..0.99) {
            let mut sorted: Vec<(u32, f64)> = (0..).zip(&logits).map(|(t, &l)| (t, f64::from(l).exp())).collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
            let wanted = f64::from(top_p) * sorted.iter().map(|(_, w)| w).sum::<f64>();
            let mut share = 0.0;
            let mut expected = Vec::new();
            for (token, weight) in sorted {
                // A share this close to the border may fall to either side in single precision.
                prop_assume!((share - wanted).abs() > 1e-5 * wanted);
                if share >= wanted {
                    break;
                }
                expected.push(token);
                share += weight;
            }
            prop_assume!((share - wanted).abs() > 1e-5 * wanted);
            expected.sort_unstable();
            prop_assert_eq!(kept(&logits, &Sampling { top_p, ..warm() }), expected);
        }
    }
}
