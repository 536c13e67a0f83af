//! Examples flattened into ragged batches: no padding, and what all examples start with only once.
//!
//! Belongs here: rows, segments and targets of token ids. Does not belong here: text and the forward pass.
//!
//! With FTICL every example starts with the same demonstrations. The longest run of tokens common to a batch becomes one
//! segment that all others see; each example then has rows only for what is its own. Loss and gradients are those of the
//! repeated context, computed once.

use std::ops::Range;
use std::sync::Arc;

use crate::examples::TokenizedExample;
use crate::loss::Targets;
use crate::model::Inputs;
use crate::segments::{Segment, Segments};

/// A shared start shorter than this is cheaper to repeat than to keep apart.
const SHORTEST_SHARED_START: usize = 16;

/// Rows that go through the model together.
#[derive(Clone, Debug)]
pub struct Pass {
    /// What the model reads.
    pub inputs: Inputs,
    /// What it should predict.
    pub targets: Targets,
}

/// Collects rows of one pass.
#[derive(Default)]
pub(crate) struct PassBuilder {
    tokens: Vec<u32>,
    segments: Vec<Segment>,
    targets: Targets,
}

impl PassBuilder {
    /// Adds a segment that sees the given rows before it; returns its rows, possibly none.
    pub(crate) fn segment(&mut self, tokens: &[u32], prefix: &[Range<usize>]) -> Range<usize> {
        let rows = self.tokens.len()..self.tokens.len() + tokens.len();
        if !tokens.is_empty() {
            self.tokens.extend_from_slice(tokens);
            let prefix = prefix
                .iter()
                .filter(|range| !range.is_empty())
                .cloned()
                .collect();
            self.segments.push(Segment {
                rows: rows.clone(),
                prefix,
            });
        }
        rows
    }

    /// Asks that `row` predict `token`.
    pub(crate) fn target(&mut self, row: usize, token: u32) {
        self.targets.rows.push(row);
        self.targets.tokens.push(token);
    }

    pub(crate) fn rows(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn finish(self) -> Pass {
        let segments = Arc::new(Segments::new(self.segments));
        Pass {
            inputs: Inputs {
                tokens: self.tokens,
                segments,
            },
            targets: self.targets,
        }
    }
}

/// Splits a batch into passes of at most `rows_per_pass` rows, or of one example where one alone has more.
#[must_use]
pub fn passes(examples: &[&TokenizedExample], rows_per_pass: usize) -> Vec<Pass> {
    let shared = shared_start(examples.iter().map(|example| example.prompt.as_slice()));
    let mut passes = Vec::new();
    let mut open: Option<(PassBuilder, Range<usize>)> = None;
    for example in examples {
        let own = example.prompt.len() - shared + example.completion.len() - 1;
        if let Some((full, _)) = open.take_if(|(builder, _)| builder.rows() + own > rows_per_pass) {
            passes.push(full.finish());
        }
        let (builder, context) = open.get_or_insert_with(|| {
            let mut builder = PassBuilder::default();
            let context = builder.segment(&example.prompt[..shared], &[]);
            (builder, context)
        });
        let (completion, last) = (&example.completion, example.completion.len() - 1);
        let tokens = [&example.prompt[shared..], &completion[..last]].concat();
        let rows = builder.segment(&tokens, std::slice::from_ref(context));
        let first_target = rows.end - completion.len();
        for (offset, &token) in completion.iter().enumerate() {
            builder.target(first_target + offset, token);
        }
    }
    passes.extend(open.map(|(builder, _)| builder.finish()));
    passes
}

/// How many tokens all prompts start with, leaving each at least one of its own; 0 where sharing would not pay.
pub(crate) fn shared_start<'a>(mut prompts: impl Iterator<Item = &'a [u32]>) -> usize {
    let Some(first) = prompts.next() else {
        return 0;
    };
    let mut alone = true;
    let shared = prompts.fold(first.len().saturating_sub(1), |shared, prompt| {
        alone = false;
        let common = first.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        shared.min(common).min(prompt.len().saturating_sub(1))
    });
    if alone || shared < SHORTEST_SHARED_START {
        0
    } else {
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(prompt: impl IntoIterator<Item = u32>, completion: &[u32]) -> TokenizedExample {
        TokenizedExample {
            record: 0,
            prompt: prompt.into_iter().collect(),
            completion: completion.to_vec(),
            label: None,
        }
    }

    #[test]
    fn a_common_start_is_one_segment_seen_by_all() {
        let first = example((1..=20).chain([50, 51]), &[7, 2]);
        let second = example((1..=20).chain([60]), &[8, 9, 2]);
        let passes = passes(&[&first, &second], 100);
        assert_eq!(passes.len(), 1);
        let expected: Vec<u32> = (1..=20).chain([50, 51, 7]).chain([60, 8, 9]).collect();
        assert_eq!(passes[0].inputs.tokens, expected);
        assert_eq!(
            passes[0].targets,
            Targets {
                rows: vec![21, 22, 23, 24, 25],
                tokens: vec![7, 2, 8, 9, 2]
            }
        );
        let positions = passes[0].inputs.segments.positions();
        assert_eq!(positions[18..], [18, 19, 20, 21, 22, 20, 21, 22]);
    }

    #[test]
    fn the_row_limit_splits_a_batch_and_repeats_the_common_start() {
        let example = |last| example((1..=20).chain([last]), &[7, 2]);
        let examples = [example(30), example(31), example(32)];
        let passes = passes(&examples.iter().collect::<Vec<_>>(), 24);
        let rows: Vec<usize> = passes.iter().map(|pass| pass.inputs.tokens.len()).collect();
        assert_eq!(rows, [24, 22]);
    }

    #[test]
    fn identical_prompts_keep_a_row_each() {
        let same = example(1..=20, &[7]);
        let passes = passes(&[&same, &same], 100);
        assert_eq!(passes[0].inputs.tokens.len(), 19 + 2);
        assert_eq!(passes[0].targets.rows, [19, 20]);
    }
}
