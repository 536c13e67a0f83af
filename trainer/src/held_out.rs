//! Loss and label accuracy on held-out training examples.
//!
//! Belongs here: what is measured between steps. Does not belong here: the evaluation of a finished adapter on test
//! sets, which is the server's.

use serde::{Deserialize, Serialize};

use crate::batch::{Pass, PassBuilder, shared_start};
use crate::error::TrainerError;
use crate::examples::TokenizedExample;
use crate::model::TrainingModel;
use crate::parameters::LoraParameters;

/// What held-out examples say of the values after a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOutScore {
    /// Optimizer steps done; 0 is the base model.
    pub step: usize,
    /// How many examples.
    pub examples: usize,
    /// Mean negative log-probability per completion token.
    pub loss: f64,
    /// Share of examples whose label is the likeliest of all labels; none for a generation task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
}

/// Where the log-probabilities of one candidate completion stand among a pass's targets.
struct Candidate {
    example: usize,
    /// The label it spells, or the gold output of a generation task.
    choice: usize,
    targets: std::ops::Range<usize>,
}

/// Scores every example by the values after `step` steps; `labels` holds the completion of each label, or nothing for a generation task.
///
/// # Errors
/// Those of candle.
pub fn held_out(
    model: &TrainingModel,
    (parameters, step): (&LoraParameters, usize),
    examples: &[TokenizedExample],
    labels: &[Vec<u32>],
    rows_per_pass: usize,
) -> Result<HeldOutScore, TrainerError> {
    let (mut loss, mut tokens, mut correct) = (0.0, 0, 0);
    let shared = shared_start(examples.iter().map(|example| example.prompt.as_slice()));
    for (pass, candidates) in scoring_passes(examples, labels, shared, rows_per_pass) {
        let log_probabilities = model.log_probabilities(parameters, &pass.inputs, &pass.targets)?;
        for choices in candidates.chunk_by(|left, right| left.example == right.example) {
            let example = &examples[choices[0].example];
            let gold = choices
                .iter()
                .find(|candidate| example.label.is_none_or(|label| label == candidate.choice));
            if let Some(gold) = gold {
                loss -= log_probabilities[gold.targets.clone()].iter().sum::<f64>();
                tokens += gold.targets.len();
            }
            let score = |candidate: &Candidate| {
                let own_tokens = candidate.targets.start..candidate.targets.end - 1;
                log_probabilities[own_tokens].iter().sum::<f64>()
            };
            let best = choices
                .iter()
                .max_by(|left, right| score(left).total_cmp(&score(right)));
            correct += usize::from(best.is_some_and(|best| Some(best.choice) == example.label));
        }
    }
    Ok(HeldOutScore {
        step,
        examples: examples.len(),
        loss: loss / tokens.max(1) as f64,
        accuracy: (!labels.is_empty()).then(|| correct as f64 / examples.len().max(1) as f64),
    })
}

/// Every prompt once, followed by its candidate completions, each of which sees the prompt and not the others.
fn scoring_passes(
    examples: &[TokenizedExample],
    labels: &[Vec<u32>],
    shared: usize,
    rows_per_pass: usize,
) -> Vec<(Pass, Vec<Candidate>)> {
    let mut passes = Vec::new();
    let mut open: Option<(PassBuilder, std::ops::Range<usize>, Vec<Candidate>, usize)> = None;
    for (index, example) in examples.iter().enumerate() {
        let own = std::slice::from_ref(&example.completion);
        let choices = if labels.is_empty() { own } else { labels };
        let rows = example.prompt.len() - shared
            + choices.iter().map(|choice| choice.len() - 1).sum::<usize>();
        if let Some((full, _, candidates, _)) =
            open.take_if(|(builder, ..)| builder.rows() + rows > rows_per_pass)
        {
            passes.push((full.finish(), candidates));
        }
        let (builder, context, candidates, targets) = open.get_or_insert_with(|| {
            let mut builder = PassBuilder::default();
            let context = builder.segment(&example.prompt[..shared], &[]);
            (builder, context, Vec::new(), 0)
        });
        let prompt = builder.segment(&example.prompt[shared..], std::slice::from_ref(context));
        for (choice, completion) in choices.iter().enumerate() {
            let tokens = &completion[..completion.len() - 1];
            let rows = builder.segment(tokens, &[context.clone(), prompt.clone()]);
            let predicting = std::iter::once(prompt.end - 1).chain(rows);
            predicting
                .zip(completion)
                .for_each(|(row, &token)| builder.target(row, token));
            let targets_end = *targets + completion.len();
            candidates.push(Candidate {
                example: index,
                choice,
                targets: *targets..targets_end,
            });
            *targets = targets_end;
        }
    }
    passes.extend(open.map(|(builder, _, candidates, _)| (builder.finish(), candidates)));
    passes
}
