//! What templates written for Hugging Face transformers find beyond Jinja itself: its functions, its JSON and its
//! `generation` blocks. The template and what it sees are the parent's.

use std::borrow::Cow;

use jiff::Zoned;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind};
use serde::Serialize;

use super::limits::{self, Text};

/// Marks an error that the template raised itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

/// Teaches an environment what transformers' has, Python's methods included.
pub(super) fn extend(environment: &mut Environment<'static>) {
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", tojson);
}

/// A template whose `generation` tags, which mark the assistant's words for training, are blocks that change nothing.
pub(super) fn without_generation_tags(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return Cow::Borrowed(source);
    }
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        // The percent sign of `{%}` does not close the tag that it opens.
        let inside = start + "{%".len();
        let Some(length) = rest[inside..].find("%}").map(|end| end + "{%%}".len()) else {
            break;
        };
        let (before, from) = rest.split_at(start);
        let (tag, after) = from.split_at(length);
        result.push_str(before);
        let name = tag["{%".len()..length - "%}".len()].trim_matches(['-', '+']);
        result.push_str(&match name.trim() {
            "generation" => tag.replacen("generation", "if true", 1),
            "endgeneration" => tag.replacen("endgeneration", "endif", 1),
            _ => tag.to_owned(),
        });
        rest = after;
    }
    result.push_str(rest);
    Cow::Owned(result)
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

/// JSON as Python's `json.dumps` writes it, with `ensure_ascii=False` unless told otherwise; minijinja's own filter escapes for HTML.
fn tojson(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent = options
        .get::<Option<usize>>("indent")?
        .map(limits::width)
        .transpose()?;
    let only_ascii = options.get::<Option<bool>>("ensure_ascii")? == Some(true);
    options.assert_all_used()?;
    let mut json = Text::default();
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
    let json = String::from_utf8(json.bytes).expect("serde_json writes UTF-8");
    Ok(if only_ascii { escaped(&json) } else { json })
}

/// JSON with every character outside ASCII as one or two UTF-16 escapes.
fn escaped(json: &str) -> String {
    let mut units = [0; 2];
    json.chars()
        .map(|character| match character {
            '\0'..='\x7f' => character.to_string(),
            _ => (character.encode_utf16(&mut units).iter())
                .map(|unit| format!("\\u{unit:04x}"))
                .collect(),
        })
        .collect()
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
