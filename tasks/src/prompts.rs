//! The wording a task is put in, and the few-shot context before it. Training, scoring and serving all come through here,
//! so that a model sees the same text in each.

use std::collections::BTreeMap;

use crate::example::{Example, Fields};
use crate::task::Task;

/// Prompt templates by prompt number and task. A template names a field in braces: `{input}`.
///
/// Prompt 0 is the one adapters are trained with. No space stands between a prompt and its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompts {
    templates: Vec<BTreeMap<Task, String>>,
}

/// Why a prompt cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// There is no prompt of this number.
    #[error("there is no prompt {prompt}; the prompts are 0 to {}", count.saturating_sub(1))]
    UnknownPrompt {
        /// The number asked for.
        prompt: usize,
        /// How many prompts there are.
        count: usize,
    },
    /// The fields to fill in lack one that the template names.
    #[error("the {task} prompt needs the field {field:?}")]
    MissingField {
        /// The task.
        task: Task,
        /// The field.
        field: String,
    },
    /// A prompt map is not a JSON list of objects of strings.
    #[error("not a prompt map: {message}; expected a JSON list of objects from task to template")]
    Malformed {
        /// What the JSON parser says, with line and column.
        message: String,
    },
    /// A prompt map has no entries.
    #[error("the prompt map is empty; expected at least prompt 0")]
    NoPrompts,
    /// An entry of a prompt map lacks a task.
    #[error("prompt {prompt} of the prompt map has no template for {task}")]
    MissingTask {
        /// The entry.
        prompt: usize,
        /// The task it lacks.
        task: Task,
    },
    /// A template names a field that the task's examples do not have.
    #[error("prompt {prompt} for {task} names the field {{{field}}}; {task} has {}", task.fields().join(", "))]
    UnknownField {
        /// The entry of the prompt map.
        prompt: usize,
        /// The task.
        task: Task,
        /// The field named.
        field: String,
    },
    /// A template leaves out a field, so the model would not see a part of the example.
    #[error("prompt {prompt} for {task} does not show the field {{{field}}}")]
    UnusedField {
        /// The entry of the prompt map.
        prompt: usize,
        /// The task.
        task: Task,
        /// The field left out.
        field: &'static str,
    },
}

impl PromptError {
    /// A stable name for the error in snake case.
    pub fn code(&self) -> &'static str {
        match self {
            PromptError::UnknownPrompt { .. } => "unknown_prompt",
            PromptError::MissingField { .. } => "missing_field",
            PromptError::Malformed { .. }
            | PromptError::NoPrompts
            | PromptError::MissingTask { .. }
            | PromptError::UnknownField { .. }
            | PromptError::UnusedField { .. } => "prompt_map_invalid",
        }
    }
}

impl Prompts {
    /// Prompt 0, the paper's plain form, and prompt 1, the same tasks asked in sentences.
    pub fn built_in() -> Self {
        Prompts {
            templates: vec![
                Task::ALL.map(|task| (task, plain(task))).into(),
                Task::ALL.map(|task| (task, worded(task).to_owned())).into(),
            ],
        }
    }

    /// Reads a prompt map: a JSON list whose entry `i` holds, for each task id, the template of prompt `i`.
    ///
    /// # Errors
    ///
    /// When it is no such list, or a template lacks a field of its task or names one that the task does not have.
    pub fn parse(json: &[u8]) -> Result<Self, PromptError> {
        let entries: Vec<BTreeMap<String, String>> =
            serde_json::from_slice(json).map_err(|error| PromptError::Malformed {
                message: error.to_string(),
            })?;
        if entries.is_empty() {
            return Err(PromptError::NoPrompts);
        }
        let templates = entries
            .into_iter()
            .enumerate()
            .map(|(prompt, entry)| entry_templates(prompt, entry))
            .collect::<Result<_, _>>()?;
        Ok(Prompts { templates })
    }

    /// How many prompts there are.
    pub fn count(&self) -> usize {
        self.templates.len()
    }

    /// The template of a prompt for a task.
    ///
    /// # Errors
    ///
    /// When there is no prompt of this number.
    pub fn template(&self, prompt: usize, task: Task) -> Result<&str, PromptError> {
        let entry = self.templates.get(prompt);
        entry
            .map(|entry| entry[&task].as_str())
            .ok_or(PromptError::UnknownPrompt {
                prompt,
                count: self.count(),
            })
    }

    /// The text to put to a model for one example, without demonstrations. The output follows with no space.
    ///
    /// # Errors
    ///
    /// When there is no prompt of this number, or a field is missing.
    pub fn render(
        &self,
        prompt: usize,
        task: Task,
        fields: &Fields,
    ) -> Result<String, PromptError> {
        let mut text = String::new();
        for piece in pieces(self.template(prompt, task)?) {
            text.push_str(match piece {
                Piece::Text(literal) => literal,
                Piece::Field(name) => {
                    fields.get(name).ok_or_else(|| PromptError::MissingField {
                        task,
                        field: name.to_owned(),
                    })?
                }
            });
        }
        Ok(text)
    }
}

/// The few-shot context: for each demonstration, in order, its prompt, its output and a blank line. The prompt of the
/// example itself follows.
///
/// # Errors
///
/// As [`Prompts::render`].
pub fn context(
    prompts: &Prompts,
    prompt: usize,
    task: Task,
    demonstrations: &[Example],
) -> Result<String, PromptError> {
    let mut text = String::new();
    for demonstration in demonstrations {
        text.push_str(&prompts.render(prompt, task, &demonstration.fields)?);
        text.push_str(&demonstration.output);
        text.push_str("\n\n");
    }
    Ok(text)
}

fn plain(task: Task) -> String {
    let mut template = String::new();
    for field in task.fields() {
        let title = capitalized(field);
        template.push_str(&format!("### {title}:\n{{{field}}}\n"));
    }
    let closing = match task {
        Task::Detection => "Paraphrase Classification".to_owned(),
        Task::Summary | Task::Question | Task::Sentiment | Task::Inference => {
            capitalized(task.id())
        }
    };
    template.push_str(&format!("### {closing}:"));
    template
}

fn capitalized(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_uppercase() + rest
}

fn worded(task: Task) -> &'static str {
    match task {
        Task::Summary => {
            "Here is an article.\n{input}\nIts main point, put into one or two short sentences, is:"
        }
        Task::Question => {
            "Someone was told this: {input}\nThen they were asked something, and they said: {answer}\nWhat they were asked was:"
        }
        Task::Sentiment => {
            "A customer wrote: {input}\nSay in one word, positive or negative, how the customer felt:"
        }
        Task::Detection => {
            "First sentence: {input_1}\nSecond sentence: {input_2}\nSay yes if both sentences mean the same and no if they do not:"
        }
        Task::Inference => {
            "Suppose this is true: {input_1}\nThen consider this claim: {input_2}\nFor the claim the first text is an entailment, neutral or a contradiction, namely:"
        }
    }
}

fn entry_templates(
    prompt: usize,
    mut entry: BTreeMap<String, String>,
) -> Result<BTreeMap<Task, String>, PromptError> {
    let template = |task: Task| {
        let template = entry
            .remove(task.id())
            .ok_or(PromptError::MissingTask { prompt, task })?;
        check_fields(prompt, task, &template)?;
        Ok((task, template))
    };
    Task::ALL.into_iter().map(template).collect()
}

fn check_fields(prompt: usize, task: Task, template: &str) -> Result<(), PromptError> {
    let named: Vec<&str> = pieces(template)
        .filter_map(|piece| match piece {
            Piece::Field(name) => Some(name),
            Piece::Text(_) => None,
        })
        .collect();
    if let Some(field) = named.iter().find(|name| !task.fields().contains(*name)) {
        return Err(PromptError::UnknownField {
            prompt,
            task,
            field: (*field).to_owned(),
        });
    }
    match task.fields().iter().find(|field| !named.contains(*field)) {
        Some(field) => Err(PromptError::UnusedField {
            prompt,
            task,
            field,
        }),
        None => Ok(()),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Field(&'a str),
}

/// Splits a template into literal text and fields. Braces around anything but a field-like name are literal text. The
/// template is split before any field is filled in, so braces inside an example stay as they are.
fn pieces(template: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = template;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some((name, after)) = leading_field(rest) {
            rest = after;
            return Some(Piece::Field(name));
        }
        let end = rest
            .match_indices('{')
            .map(|(position, _)| position)
            .find(|position| leading_field(&rest[*position..]).is_some())
            .unwrap_or(rest.len());
        let (literal, after) = rest.split_at(end);
        rest = after;
        Some(Piece::Text(literal))
    })
}

fn leading_field(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.strip_prefix('{')?.split_once('}')?;
    let field_like = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    (!name.is_empty() && name.chars().all(field_like)).then_some((name, after))
}

#[cfg(test)]
mod tests;
