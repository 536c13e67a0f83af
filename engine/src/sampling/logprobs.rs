//! Log-probabilities of tokens, always of the model's own distribution: the logits as the model gave them, before any
//! bias, penalty, temperature or filter.

use super::exponential::{maximum, sum_of_exponentials};

/// The log-softmax of one row of logits, its normaliser computed once.
///
/// Every value is computed in the same fixed order, so the same logits give the same floats, and a token has the same
/// float from [`LogSoftmax::of`] and in [`LogSoftmax::top`].
#[derive(Debug, Clone, Copy)]
pub struct LogSoftmax<'a> {
    logits: &'a [f32],
    log_sum_exp: f64,
}

impl<'a> LogSoftmax<'a> {
    /// Prepares a row of logits, one for each token of the vocabulary.
    pub fn new(logits: &'a [f32]) -> Self {
        Self {
            logits,
            log_sum_exp: log_sum_exp(logits),
        }
    }

    /// The log-probability of a token, nats; minus infinity for an id outside the row.
    pub fn of(&self, token: u32) -> f32 {
        (self.logits.get(token as usize)).map_or(f32::NEG_INFINITY, |&logit| self.normalised(logit))
    }

    /// The `count` likeliest tokens with their log-probabilities, best first; equal ones by id, lower first.
    pub fn top(&self, count: usize) -> Vec<(u32, f32)> {
        largest(self.logits, count)
            .into_iter()
            .map(|(token, logit)| (token, self.normalised(logit)))
            .collect()
    }

    /// The logarithm of the sum of the exponentials of the logits.
    pub fn log_sum_exp(&self) -> f64 {
        self.log_sum_exp
    }

    fn normalised(&self, logit: f32) -> f32 {
        (f64::from(logit) - self.log_sum_exp) as f32
    }
}

/// `ln Σ exp(logit)` of a row, without overflow. Its negative is the free energy of the distribution.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let maximum = maximum(logits);
    if !maximum.is_finite() {
        return f64::from(maximum);
    }
    f64::from(maximum) + sum_of_exponentials(logits, maximum).ln()
}

/// The log-probability of one token of a row; [`LogSoftmax`] serves several tokens at the price of one.
pub fn logprob_of(logits: &[f32], token: u32) -> f32 {
    LogSoftmax::new(logits).of(token)
}

/// The `count` likeliest tokens of a row with their log-probabilities, best first; see [`LogSoftmax::top`].
pub fn top_logprobs(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    LogSoftmax::new(logits).top(count)
}

/// The token with the largest logit, the lowest id among equals: the first of [`top_logprobs`]. A row without a number
/// in it gives 0.
pub fn argmax(logits: &[f32]) -> u32 {
    let maximum = maximum(logits);
    let place = logits.iter().position(|&logit| logit == maximum);
    place.map_or(0, id_of)
}

/// A position in a row as a token id.
pub(super) fn id_of(position: usize) -> u32 {
    u32::try_from(position).expect("token ids are 32 bits wide")
}

/// The largest logits in descending order, equal ones by id. NaN is never among them.
fn largest(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(count.min(logits.len()) + 1);
    let mut threshold = f32::NEG_INFINITY;
    for (position, &logit) in logits.iter().enumerate() {
        let full = best.len() >= count;
        if logit.is_nan() || full && logit <= threshold {
            continue;
        }
        let place = best.partition_point(|&(_, kept)| kept >= logit);
        best.insert(place, (id_of(position), logit));
        best.truncate(count);
        threshold = best.last().map_or(f32::INFINITY, |&(_, kept)| kept);
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// ln of the weights 1 to 4: probabilities 0.1 to 0.4.
    fn tenths() -> Vec<f32> {
        [1.0f32, 4.0, 2.0, 3.0]
            .map(|weight| weight.ln() + 7.0)
            .to_vec()
    }

    #[test]
    fn log_probabilities_are_those_of_the_softmax() {
        let logits = tenths();
        for (token, probability) in [(0, 0.1f32), (1, 0.4), (2, 0.2), (3, 0.3)] {
            assert!((logprob_of(&logits, token) - probability.ln()).abs() < 1e-6);
        }
        assert!((log_sum_exp(&logits) - (10f64.ln() + 7.0)).abs() < 1e-6);
        assert_eq!(logprob_of(&logits, 4), f32::NEG_INFINITY);
    }

    #[test]
    fn the_top_is_sorted_and_holds_the_same_floats() {
        let logits = tenths();
        let top = top_logprobs(&logits, 3);
        assert_eq!(
            top.iter().map(|&(token, _)| token).collect::<Vec<_>>(),
            [1, 3, 2]
        );
        for (token, logprob) in top {
            assert_eq!(logprob.to_bits(), logprob_of(&logits, token).to_bits());
        }
        assert_eq!(top_logprobs(&logits, 9).len(), 4);
        assert_eq!(top_logprobs(&logits, 0), []);
    }

    #[test]
    fn equal_logits_are_ordered_by_id() {
        let logits = [0.5, 2.0, -1.0, 2.0, 2.0, f32::NAN];
        let tokens: Vec<u32> = top_logprobs(&logits, 2)
            .into_iter()
            .map(|(token, _)| token)
            .collect();
        assert_eq!(tokens, [1, 3]);
        assert_eq!(argmax(&logits), 1);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let logits = [3.0e4f32, 3.0e4, -3.0e4];
        assert!((logprob_of(&logits, 0) + 2f32.ln()).abs() < 1e-6);
        assert!((logprob_of(&logits, 2) + 6.0e4 + 2f32.ln()).abs() < 4e-3);
    }

    proptest! {
        #[test]
        fn any_row_agrees_with_double_precision(logits in prop::collection::vec(-40.0f32..40.0, 1..700), count in 1usize..8) {
            let exact = logits.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>().ln();
            prop_assert!((log_sum_exp(&logits) - exact).abs() < 1e-6 * exact.abs().max(1.0));
            let mut order: Vec<u32> = (0..logits.len() as u32).collect();
            order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
            order.truncate(count);
            let top: Vec<u32> = top_logprobs(&logits, count).into_iter().map(|(token, _)| token).collect();
            prop_assert_eq!(&top, &order);
            prop_assert_eq!(argmax(&logits), order[0]);
        }
    }
}
