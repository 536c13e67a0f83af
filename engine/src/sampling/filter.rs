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

/// Fills `candidates` with the tokens that min-p, then top-k, then top-p leave, each step on what the one before left.
/// The row must have one finite logit at least, or nothing is left.
pub(super) fn filter(logits: &[f32], sampling: &Sampling, candidates: &mut Vec<Candidate>) {
    candidates.clear();
    let maximum = maximum(logits);
    let all = logits
        .iter()
        .enumerate()
        .map(|(position, &logit)| Candidate {
            token: id_of(position),
            logit,
            weight: exp((logit - maximum) / sampling.temperature),
        });
    // The likeliest token has weight 1; NaN and masked tokens compare false or weigh nothing.
    candidates.extend(all.filter(|kept| kept.weight > 0.0 && kept.weight >= sampling.min_p));
    if (1..candidates.len()).contains(&sampling.top_k) {
        candidates.select_nth_unstable_by(sampling.top_k - 1, likelier_first);
        candidates.truncate(sampling.top_k);
    }
    if sampling.top_p < 1.0 {
        nucleus(candidates, sampling.top_p);
    }
}

/// The sum of the weights, in the order of the candidates.
pub(super) fn total(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|kept| f64::from(kept.weight)).sum()
}

/// Keeps the likeliest candidates, sorted, up to the one with which their share reaches `top_p`.
fn nucleus(candidates: &mut Vec<Candidate>, top_p: f32) {
    let wanted = f64::from(top_p) * total(candidates);
    // Candidates below the mean weight of what may be lost cannot add up to it, so the nucleus lies above that weight.
    let lost = f64::from(1.0 - top_p) * total(candidates);
    let floor = lost / (candidates.len() as f64) * 0.999;
    candidates.retain(|kept| f64::from(kept.weight) >= floor);
    let mut share = 0.0;
    let mut sorted = 0;
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let block = rest.len().min(64.max(3 * sorted));
        if block < rest.len() {
            rest.select_nth_unstable_by(block - 1, likelier_first);
        }
        rest[..block].sort_unstable_by(likelier_first);
        for place in 0..block {
            share += f64::from(rest[place].weight);
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
        let mut candidates = Vec::new();
        filter(logits, sampling, &mut candidates);
        let mut tokens: Vec<u32> = candidates.iter().map(|kept| kept.token).collect();
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
