//! Examples as token ids, joined the way serving joins them.
//!
//! Belongs here: prompt and completion of one example, and cutting inputs that are too long. Does not belong here: the
//! wording of prompts (`tasks`) and batches ([`crate::batch`]).
//!
//! Context and prompt are one text and are tokenised as one, as a client's request is. The output is tokenised apart and
//! follows without a space, then the end-of-turn token: for generation so that the model learns to stop, for labels too,
//! because one more counted row costs nothing and a served completion then ends after the label. A label's score, the
//! log-probability of its own tokens right after the prompt, does not depend on what follows it.

use engine::Tokenizer;
use tasks::{Example, Fields, Prompts, Task};

use crate::error::TrainerError;

/// One example ready for training.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizedExample {
    /// Its place in the training file, from 0.
    pub record: usize,
    /// Context and prompt.
    pub prompt: Vec<u32>,
    /// The tokens the loss counts: output, then end of turn.
    pub completion: Vec<u32>,
    /// Which label the output is, for a classification task.
    pub label: Option<usize>,
}

/// Turns examples of one task into token ids.
pub struct ExampleTokenizer<'a> {
    /// Of the base model.
    pub tokenizer: &'a Tokenizer,
    /// Where the wording comes from.
    pub prompts: &'a Prompts,
    /// The task.
    pub task: Task,
    /// Which prompt of the map.
    pub prompt: usize,
    /// The demonstrations, already rendered; empty without any.
    pub context: String,
    /// Ends every completion.
    pub end_of_turn: u32,
    /// Most tokens of prompt and completion together.
    pub max_length: usize,
}

impl ExampleTokenizer<'_> {
    /// The ids of example `index` of its file, and whether its input had to be cut.
    ///
    /// # Errors
    /// [`TrainerError::ExampleTooLong`] when it does not fit without any input; prompt errors.
    pub fn tokenize(
        &self,
        index: usize,
        example: &Example,
    ) -> Result<(TokenizedExample, bool), TrainerError> {
        let completion = self.completion(&example.output);
        let label = self
            .task
            .labels()
            .iter()
            .position(|label| *label == example.output);
        let mut fields = example.fields.clone();
        let mut cut = false;
        loop {
            let text =
                self.context.clone() + &self.prompts.render(self.prompt, self.task, &fields)?;
            let prompt = self.tokenizer.encode_prompt(&text);
            let tokens = prompt.len() + completion.len();
            if tokens <= self.max_length {
                return Ok((
                    TokenizedExample {
                        record: index,
                        prompt,
                        completion,
                        label,
                    },
                    cut,
                ));
            }
            cut = true;
            if !self.shorten(&mut fields, tokens - self.max_length) {
                let (target, limit) = (completion.len(), self.max_length);
                return Err(TrainerError::ExampleTooLong {
                    index,
                    tokens,
                    target,
                    limit,
                });
            }
        }
    }

    /// An output's tokens and the end of turn.
    #[must_use]
    pub fn completion(&self, output: &str) -> Vec<u32> {
        let mut tokens = self.tokenizer.encode_continuation(output);
        tokens.push(self.end_of_turn);
        tokens
    }

    /// The completion of each label, in the task's order.
    #[must_use]
    pub fn labels(&self) -> Vec<Vec<u32>> {
        self.task
            .labels()
            .iter()
            .map(|label| self.completion(label))
            .collect()
    }

    /// Cuts `excess` tokens off the end of the longest field; false when nothing is left to cut.
    fn shorten(&self, fields: &mut Fields, excess: usize) -> bool {
        let Some(text) = fields
            .0
            .values_mut()
            .max_by_key(|text| text.len())
            .filter(|text| !text.is_empty())
        else {
            return false;
        };
        let tokens = self.tokenizer.encode(text, false);
        let kept = &tokens[..tokens.len().saturating_sub(excess)];
        let mut shorter = self.tokenizer.decode(kept);
        shorter.truncate(shorter.trim_end_matches(char::REPLACEMENT_CHARACTER).len());
        if shorter.len() >= text.len() {
            shorter.clear();
        }
        *text = shorter;
        true
    }
}
