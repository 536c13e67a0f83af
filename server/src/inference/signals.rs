//! Signs of an input unlike what the model knows, for each classified input.

use adapters::DomainProfile;
use evaluation::LabelScores;
use serde::Serialize;
use utoipa::ToSchema;

use super::target::Target;
use crate::state::State;

/// Signs of an input unlike what the model knows.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OutOfDomain {
    /// The largest of `probs`; low means unsure.
    pub max_prob: f64,
    /// `-logsumexp` of the logits after the prompt; high means unfamiliar.
    pub energy: f32,
    /// The largest of `probs` less the second largest; low means torn.
    pub margin: f64,
    /// How far the input's mean hidden state lies from those of the adapter's training inputs, in standard deviations; high means
    /// unlike them. Null for the base, for blends, for an adapter without a domain profile, and when task, prompt or demonstrations
    /// are not those that the adapter was trained with.
    pub distance: Option<f64>,
    /// The share of the adapter's training inputs that lie at least that far, 0 to 1: about even for inputs like them, near 0 for
    /// strange ones. Null where `distance` is.
    pub in_domain: Option<f64>,
}

impl OutOfDomain {
    /// Of an input with these probabilities of its labels.
    pub fn of(probabilities: &[f64], scores: &LabelScores, domain: Option<&DomainProfile>) -> Self {
        let [first, second] = two_largest(probabilities);
        let state = scores.mean_hidden.as_ref();
        let measured = domain.zip(state).map(|(domain, state)| {
            let distance = domain.distance(state);
            (distance, domain.in_domain(distance))
        });
        Self {
            max_prob: first,
            energy: scores.energy,
            margin: first - second,
            distance: measured.map(|(distance, _)| distance),
            in_domain: measured.map(|(_, in_domain)| in_domain),
        }
    }
}

/// Takes the inputs that a target has classified into the metrics.
pub fn take<'a>(state: &State, target: &Target, inputs: impl Iterator<Item = &'a OutOfDomain>) {
    let label = state.metrics.labels.label(target.label());
    state.metrics.signals.take(&label, inputs);
}

/// The two largest of at least two probabilities, the largest first.
fn two_largest(probabilities: &[f64]) -> [f64; 2] {
    probabilities
        .iter()
        .fold([0.0, 0.0], |[first, second], &value| match value > first {
            true => [value, first],
            false => [first, second.max(value)],
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(mean_hidden: Option<Vec<f32>>) -> LabelScores {
        LabelScores {
            logprobs: Vec::new(),
            energy: -12.5,
            cached_tokens: 0,
            mean_hidden,
        }
    }

    #[test]
    fn the_margin_is_between_the_two_largest_wherever_they_stand() {
        for (probabilities, margin) in [
            (&[0.5, 0.25, 0.25][..], 0.25),
            (&[0.25, 0.125, 0.625], 0.375),
            (&[0.5, 0.5], 0.0),
        ] {
            let signals = OutOfDomain::of(probabilities, &scores(None), None);
            assert_eq!(signals.margin, margin, "{probabilities:?}");
        }
    }

    #[test]
    fn distance_and_score_need_a_profile_and_a_state() {
        let domain = DomainProfile {
            examples: 3,
            mean: vec![1.0, 1.0],
            deviation: vec![0.5, 0.25],
            distances: vec![1.0, 3.0, 5.0],
        };
        let at = |state, domain| OutOfDomain::of(&[0.75, 0.25], &scores(state), domain);
        let measured = at(Some(vec![2.0, 1.5]), Some(&domain));
        assert_eq!(
            (measured.distance, measured.in_domain),
            (Some(2.0), Some(0.75))
        );
        assert_eq!((measured.max_prob, measured.energy), (0.75, -12.5));
        for signals in [at(None, Some(&domain)), at(Some(vec![2.0, 1.5]), None)] {
            assert_eq!((signals.distance, signals.in_domain), (None, None));
        }
    }
}
