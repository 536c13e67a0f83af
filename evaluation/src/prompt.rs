//! A task's prompt as token ids, demonstrations first. Prompt, with its demonstrations, and answer are tokenised apart and joined
//! without special tokens, so that training, serving and evaluation see the same ids.

use engine::Tokenizer;
use tasks::{Example, Fields, PromptError, Prompts, Task, context};

/// The input that says nothing, for contextual calibration.
const CONTENT_FREE: &str = "N/A";

/// A task's prompt with demonstrations in front, ready to be filled in.
pub struct TaskPrompt<'a> {
    prompts: &'a Prompts,
    prompt: usize,
    task: Task,
    context: String,
}

impl<'a> TaskPrompt<'a> {
    /// Renders the demonstrations.
    ///
    /// # Errors
    /// For a prompt number that does not exist, or a demonstration without a field the prompt needs.
    pub fn new(
        prompts: &'a Prompts,
        prompt: usize,
        task: Task,
        demonstrations: &[Example],
    ) -> Result<Self, PromptError> {
        // Looked up now, so that a wrong number is reported before any example.
        prompts.template(prompt, task)?;
        Ok(Self {
            prompts,
            prompt,
            task,
            context: context(prompts, prompt, task, demonstrations)?,
        })
    }

    /// The token ids of one example's prompt, demonstrations first.
    ///
    /// # Errors
    /// When the example lacks a field.
    pub fn encode(&self, fields: &Fields, tokenizer: &Tokenizer) -> Result<Vec<u32>, PromptError> {
        let text = self.context.clone() + &self.prompts.render(self.prompt, self.task, fields)?;
        Ok(tokenizer.encode_prompt(&text))
    }

    /// The token ids of what stands before every example: the demonstrations, if any.
    pub fn encode_context(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        tokenizer.encode_prompt(&self.context)
    }

    /// The token ids of the prompt whose every field is the content-free input `N/A` (Zhao et al. 2021, *Calibrate Before Use*).
    ///
    /// # Errors
    /// None that is known: every field of the task is filled.
    pub fn encode_content_free(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>, PromptError> {
        let fields = self.task.fields().iter();
        let empty = fields.map(|&name| (name.to_owned(), CONTENT_FREE.to_owned()));
        self.encode(&Fields(empty.collect()), tokenizer)
    }
}
