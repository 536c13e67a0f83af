//! Chat turns to the text a model was trained to read: the Jinja template from the model's files, run as Hugging Face
//! transformers runs it. Turning the text into ids is the tokenizer's.

mod files;
mod limits;
mod python;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::Value as MetadataValue;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, context};
use serde::{Deserialize, Serialize};

use crate::tokenizer::Tokenizer;
use limits::{FUEL, MOST_SOURCE, MOST_TEXT, Text};
use python::Raised;

/// The GGUF key of the template.
const TEMPLATE_KEY: &str = "tokenizer.chat_template";

/// The template's name in its own error messages.
const TEMPLATE_NAME: &str = "chat template";

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who speaks: `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// A model's own chat template.
///
/// It sees `messages`, `add_generation_prompt`, `bos_token` and `eos_token`, and `tools` and `documents` as none. It may
/// call `raise_exception` and `strftime_now`; Python's methods on strings, lists and dictionaries work. It runs for a limited number
/// of instructions and writes a limited text.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    environment: Environment<'static>,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

/// Why a chat template could not be read or run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The metadata holds something else than text.
    #[error("`{TEMPLATE_KEY}` in the model file must be a string")]
    NotText,
    /// A file of a Hugging Face directory cannot be read.
    #[error("{path}: cannot read the chat template: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// A model has several templates and none is the default.
    #[error("{path}: `chat_template` has no template called `default`; it has {found}")]
    NoDefault {
        /// The file.
        path: PathBuf,
        /// The names of those there are.
        found: String,
    },
    /// The template is not valid Jinja.
    #[error("the model's chat template does not parse: {reason}")]
    Syntax {
        /// What is wrong, and in which line.
        reason: String,
    },
    /// The template is longer than any that a model needs.
    #[error("the model's chat template has {bytes} bytes, at most {MOST_SOURCE} are read")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
    },
    /// The template took more instructions than a conversation may.
    #[error(
        "the model's chat template did not end within {FUEL} instructions; send fewer messages, or use another template"
    )]
    Endless,
    /// The template wrote more than a conversation may have.
    #[error(
        "the model's chat template makes more than {MOST_TEXT} bytes of these messages; send less"
    )]
    TooMuchText,
    /// The template refuses these messages, in its own words.
    #[error("the model's chat template refuses these messages: {message}")]
    Refused {
        /// What the template said.
        message: String,
    },
    /// The template fails on these messages.
    #[error("the model's chat template fails on these messages: {reason}")]
    Failed {
        /// What went wrong, and in which line.
        reason: String,
    },
}

impl ChatTemplate {
    /// Reads the template of a GGUF file; `None` when it has none.
    pub fn from_metadata(
        metadata: &HashMap<String, MetadataValue>,
        tokenizer: &Tokenizer,
    ) -> Result<Option<Self>, TemplateError> {
        let source = match metadata.get(TEMPLATE_KEY) {
            None => return Ok(None),
            Some(MetadataValue::String(source)) => source.clone(),
            Some(_) => return Err(TemplateError::NotText),
        };
        Self::with_tokens_of(source, tokenizer).map(Some)
    }

    /// Reads the template of a Hugging Face directory: `chat_template.jinja`, otherwise `chat_template` in
    /// `tokenizer_config.json`; of several, the one called `default`. `None` when neither is there.
    ///
    /// # Errors
    /// When a file cannot be read, none of several templates is the default, or the template does not parse.
    pub fn from_directory(
        directory: &Path,
        tokenizer: &Tokenizer,
    ) -> Result<Option<Self>, TemplateError> {
        let source = files::source(directory)?;
        (source.map(|source| Self::with_tokens_of(source, tokenizer))).transpose()
    }

    fn with_tokens_of(source: String, tokenizer: &Tokenizer) -> Result<Self, TemplateError> {
        let bos_token = tokenizer.token_string(tokenizer.bos());
        let eos_token = tokenizer.token_string(tokenizer.eos());
        Self::new(source, bos_token, eos_token)
    }

    /// Compiles a template; the tokens are what it sees as `bos_token` and `eos_token`.
    pub fn new(
        source: String,
        bos_token: Option<String>,
        eos_token: Option<String>,
    ) -> Result<Self, TemplateError> {
        if source.len() > MOST_SOURCE {
            let bytes = source.len();
            return Err(TemplateError::TooLarge { bytes });
        }
        let mut environment = Environment::new();
        python::extend(&mut environment);
        limits::set(&mut environment);
        let readable = python::without_generation_tags(&source).into_owned();
        environment
            .add_template_owned(TEMPLATE_NAME, readable)
            .map_err(|error| TemplateError::Syntax {
                reason: error.to_string(),
            })?;
        Ok(Self {
            source,
            environment,
            bos_token,
            eos_token,
        })
    }

    /// The text of a conversation; with `add_generation_prompt`, up to where the assistant's next turn begins.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let defined = |token: &Option<String>| token.as_ref().map_or(Value::UNDEFINED, Value::from);
        let variables = context! {
            messages,
            // Defined and none, as transformers leaves them: templates ask with `is not none`.
            tools => (),
            documents => (),
            add_generation_prompt,
            bos_token => defined(&self.bos_token),
            eos_token => defined(&self.eos_token),
        };
        let mut text = Text::default();
        let template = self.environment.get_template(TEMPLATE_NAME);
        let rendered = template.and_then(|template| {
            template.render_captured_to(variables, &mut text)?;
            Ok(())
        });
        match rendered {
            Err(_) if text.is_full => Err(TemplateError::TooMuchText),
            Err(error) => Err(failure(&error)),
            Ok(()) => Ok(String::from_utf8(text.bytes).expect("templates write text")),
        }
    }

    /// The template as it stands in the model file.
    pub fn source(&self) -> &str {
        &self.source
    }
}

fn failure(error: &Error) -> TemplateError {
    let first: &(dyn std::error::Error + 'static) = error;
    let mut causes = std::iter::successors(Some(first), |error| error.source());
    match causes.find_map(|cause| cause.downcast_ref::<Raised>()) {
        Some(Raised(message)) => TemplateError::Refused {
            message: message.clone(),
        },
        None if error.kind() == ErrorKind::OutOfFuel => TemplateError::Endless,
        None => TemplateError::Failed {
            reason: error.to_string(),
        },
    }
}
