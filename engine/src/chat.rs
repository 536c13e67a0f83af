//! Chat turns to the text a model was trained to read: the Jinja template from the model file, run as Hugging Face
//! transformers runs it. Turning the text into ids is the tokenizer's.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value as MetadataValue;
use jiff::Zoned;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, context};
use serde::{Deserialize, Serialize};

use crate::tokenizer::Tokenizer;

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
/// It sees `messages`, `add_generation_prompt`, `bos_token` and `eos_token`, and may call `raise_exception` and
/// `strftime_now`; Python's methods on strings, lists and dictionaries work.
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
    /// The template is not valid Jinja.
    #[error("the model's chat template does not parse: {reason}")]
    Syntax {
        /// What is wrong, and in which line.
        reason: String,
    },
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

/// Marks an error that the template raised itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

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
        let bos_token = tokenizer.token_string(tokenizer.bos());
        let eos_token = tokenizer.token_string(tokenizer.eos());
        Self::new(source, bos_token, eos_token).map(Some)
    }

    /// Compiles a template; the tokens are what it sees as `bos_token` and `eos_token`.
    pub fn new(
        source: String,
        bos_token: Option<String>,
        eos_token: Option<String>,
    ) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", tojson);
        environment
            .add_template_owned(TEMPLATE_NAME, source.clone())
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
            add_generation_prompt,
            bos_token => defined(&self.bos_token),
            eos_token => defined(&self.eos_token),
        };
        self.environment
            .get_template(TEMPLATE_NAME)
            .and_then(|template| template.render(variables))
            .map_err(|error| failure(&error))
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
        None => TemplateError::Failed {
            reason: error.to_string(),
        },
    }
}

fn raise_exception(message: String) -> Result<Value, Error> {
    let error = Error::new(ErrorKind::InvalidOperation, message.clone());
    Err(error.with_source(Raised(message)))
}

/// The local time in the format of C's `strftime`.
fn strftime_now(format: String) -> Result<String, Error> {
    jiff::fmt::strtime::format(format.as_bytes(), &Zoned::now())
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// JSON as Python's `json.dumps` writes it with `ensure_ascii=False`; minijinja's own filter escapes for HTML.
fn tojson(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let mut json = Vec::new();
    let written = match indent {
        Some(width) => {
            let spaces = vec![b' '; width];
            let formatter = serde_json::ser::PrettyFormatter::with_indent(&spaces);
            value.serialize(&mut serde_json::Serializer::with_formatter(
                &mut json, formatter,
            ))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(
            &mut json, Spaced,
        )),
    };
    written.map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    Ok(String::from_utf8(json).expect("serde_json writes UTF-8"))
}

/// One line with a space after each comma and colon.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        self.begin_array_value(writer, first)
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: &str, content: &str) -> ChatMessage {
        ChatMessage {
            role: role.into(),
            content: content.into(),
        }
    }

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source.into(), Some("<s>".into()), None).expect("a valid template")
    }

    fn rendered(source: &str) -> String {
        let messages = [message("user", " <b>Hi</b> \"you\" é ")];
        (template(source).render(&messages, true)).expect("a template that runs")
    }

    #[test]
    fn turns_are_written_as_the_tiny_model_reads_them() {
        let template = template(crate::testing::CHAT_TEMPLATE);
        let messages = [
            message("system", "Be brief."),
            message("user", "a <b> {{ c }}\n"),
        ];
        let expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na <b> {{ c }}\n<|im_end|>\n";
        let render = |prompt| {
            template
                .render(&messages, prompt)
                .expect("a template that runs")
        };
        assert_eq!(render(false), expected);
        assert_eq!(render(true), format!("{expected}<|im_start|>assistant\n"));
        assert_eq!(template.source(), crate::testing::CHAT_TEMPLATE);
    }

    #[test]
    fn blocks_leave_no_blank_lines() {
        assert_eq!(
            rendered("a\n  {% if true %}\nb\n  {% endif %}\nc\n"),
            "a\nb\nc"
        );
    }

    #[test]
    fn python_methods_and_slices_work() {
        assert_eq!(
            rendered("{{ messages[0].content.strip().upper()[:5] }}"),
            "<B>HI"
        );
        assert_eq!(rendered("{{ messages[0].get('name', 'x') }}"), "x");
        assert_eq!(
            rendered("{{ messages[0]['role'].startswith('us') }}"),
            "True"
        );
    }

    #[test]
    fn missing_tokens_are_undefined() {
        assert_eq!(
            rendered("{{ bos_token }}{{ eos_token }}{{ eos_token is defined }}"),
            "<s>False"
        );
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        assert_eq!(
            rendered("{{ {'a': [1, '<é>']} | tojson }}"),
            "{\"a\": [1, \"<é>\"]}"
        );
        assert_eq!(rendered("{{ [1] | tojson(indent=2) }}"), "[\n  1\n]");
    }

    #[test]
    fn the_year_is_this_one() {
        let year = rendered("{{ strftime_now('%Y') }}");
        assert!(year.parse::<u32>().is_ok_and(|year| year >= 2025), "{year}");
    }

    #[test]
    fn a_template_refuses_in_its_own_words() {
        let template = template("{{ raise_exception('roles must ' ~ 'alternate') }}");
        let error = template.render(&[], false).expect_err("a refusal");
        assert_eq!(
            error,
            TemplateError::Refused {
                message: "roles must alternate".into()
            }
        );
        insta::assert_snapshot!(error, @"the model's chat template refuses these messages: roles must alternate");
    }

    #[test]
    fn failures_name_the_line() {
        let unparsed =
            ChatTemplate::new("a\n{% for x in %}".into(), None, None).expect_err("no Jinja");
        insta::assert_snapshot!(unparsed, @"the model's chat template does not parse: syntax error: unexpected end of block (in chat template:2)");
        let failed = template("\n{{ messages[7].content }}")
            .render(&[], false)
            .expect_err("no message");
        insta::assert_snapshot!(failed, @"the model's chat template fails on these messages: undefined value (in chat template:2)");
    }

    #[test]
    fn a_file_without_a_template_has_none() {
        let metadata: HashMap<_, _> = (crate::testing::TinyModel::default().metadata().into_iter())
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        let tokenizer = Tokenizer::from_metadata(&metadata).expect("a valid tokenizer");
        let of = |metadata: &_| ChatTemplate::from_metadata(metadata, &tokenizer);
        let found = of(&metadata)
            .expect("a valid template")
            .expect("a template");
        assert_eq!(found.eos_token.as_deref(), Some("<|im_end|>"));
        let mut other = metadata.clone();
        other.insert(TEMPLATE_KEY.into(), MetadataValue::Bool(true));
        assert_eq!(of(&other).err(), Some(TemplateError::NotText));
        other.remove(TEMPLATE_KEY);
        assert!(of(&other).expect("no template is no error").is_none());
    }
}
