//! Typed access to the tokenizer's part of a GGUF file's metadata.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;

use super::TokenizerError;

/// The metadata of a file, read key by key; an absent key and one of the wrong type are told apart.
#[derive(Clone, Copy)]
pub(super) struct Metadata<'a>(pub(super) &'a HashMap<String, Value>);

impl<'a> Metadata<'a> {
    pub(super) fn required_text(self, key: &'static str) -> Result<&'a str, TokenizerError> {
        self.text(key)?.ok_or(TokenizerError::MissingKey { key })
    }

    pub(super) fn text(self, key: &'static str) -> Result<Option<&'a str>, TokenizerError> {
        self.typed(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    pub(super) fn flag(self, key: &'static str) -> Result<Option<bool>, TokenizerError> {
        self.typed(key, "a boolean", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    pub(super) fn texts(self, key: &'static str) -> Result<Vec<&'a str>, TokenizerError> {
        let texts = self.typed(key, "an array of strings", |value| match value {
            Value::Array(values) => values.iter().map(text_of).collect::<Option<Vec<&str>>>(),
            _ => None,
        })?;
        texts.ok_or(TokenizerError::MissingKey { key })
    }

    pub(super) fn numbers(self, key: &'static str) -> Result<Option<Vec<u32>>, TokenizerError> {
        self.typed(key, "an array of integers", |value| match value {
            Value::Array(values) => values.iter().map(number_of).collect(),
            _ => None,
        })
    }

    pub(super) fn decimals(self, key: &'static str) -> Result<Option<Vec<f32>>, TokenizerError> {
        self.typed(key, "an array of 32-bit floats", |value| match value {
            Value::Array(values) => values.iter().map(decimal_of).collect(),
            _ => None,
        })
    }

    /// A token id, which must be one of `vocabulary` tokens.
    pub(super) fn token(
        self,
        key: &'static str,
        vocabulary: usize,
    ) -> Result<Option<u32>, TokenizerError> {
        let id = self.typed(key, "an integer", number_of)?;
        match id {
            Some(token) if token as usize >= vocabulary => Err(TokenizerError::TokenOutOfRange {
                key,
                token,
                vocabulary,
            }),
            other => Ok(other),
        }
    }

    fn typed<T>(
        self,
        key: &'static str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, TokenizerError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(value) => match convert(value) {
                Some(converted) => Ok(Some(converted)),
                None => Err(TokenizerError::WrongType { key, expected }),
            },
        }
    }
}

fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn decimal_of(value: &Value) -> Option<f32> {
    match *value {
        Value::F32(decimal) => Some(decimal),
        _ => None,
    }
}

fn number_of(value: &Value) -> Option<u32> {
    match *value {
        Value::U8(number) => Some(number.into()),
        Value::U16(number) => Some(number.into()),
        Value::U32(number) => Some(number),
        Value::U64(number) => number.try_into().ok(),
        Value::I8(number) => number.try_into().ok(),
        Value::I16(number) => number.try_into().ok(),
        Value::I32(number) => number.try_into().ok(),
        Value::I64(number) => number.try_into().ok(),
        _ => None,
    }
}
