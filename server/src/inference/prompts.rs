//! The `prompt` field of completions: text or token ids, one or many.

use engine::Tokenizer;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::error::ApiError;

/// Most prompts of one request.
const MAX_PROMPTS: usize = 1024;

/// One prompt or several, as text or as token ids.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a string, an array of strings, an array of token ids, or an array of arrays of token ids"
)]
pub enum Prompt {
    /// One text.
    Text(String),
    /// One prompt of token ids.
    Tokens(Vec<u32>),
    /// Several texts.
    Texts(Vec<String>),
    /// Several prompts of token ids.
    TokenLists(Vec<Vec<u32>>),
}

/// A prompt the engine can take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPrompt {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// The text, for `echo`.
    pub text: String,
}

impl Prompt {
    /// Encodes every prompt; token ids are taken as they are, with nothing added.
    ///
    /// # Errors
    /// `InvalidValue` for no prompt at all, an empty one, too many, or an id outside the vocabulary.
    pub fn encode(&self, tokenizer: &Tokenizer) -> Result<Vec<EncodedPrompt>, ApiError> {
        let count = match self {
            Self::Text(_) | Self::Tokens(_) => 1,
            Self::Texts(texts) => texts.len(),
            Self::TokenLists(lists) => lists.len(),
        };
        if count > MAX_PROMPTS {
            return Err(ApiError::invalid(
                "prompt",
                format!("`prompt` has {count} entries; send 1 to {MAX_PROMPTS}"),
            ));
        }
        let from_text = |text: &String| EncodedPrompt {
            tokens: tokenizer.encode(text, true),
            text: text.clone(),
        };
        let from_tokens = |tokens: &Vec<u32>| -> Result<EncodedPrompt, ApiError> {
            check_tokens(tokens, tokenizer.vocabulary(), "prompt")?;
            Ok(EncodedPrompt {
                tokens: tokens.clone(),
                text: tokenizer.decode(tokens),
            })
        };
        let prompts = match self {
            Self::Text(text) => vec![from_text(text)],
            Self::Texts(texts) => texts.iter().map(from_text).collect(),
            Self::Tokens(tokens) => vec![from_tokens(tokens)?],
            Self::TokenLists(lists) => lists.iter().map(from_tokens).collect::<Result<_, _>>()?,
        };
        if prompts.is_empty() || prompts.iter().any(|prompt| prompt.tokens.is_empty()) {
            return Err(ApiError::invalid(
                "prompt",
                "`prompt` is empty; send at least one character or token",
            ));
        }
        Ok(prompts)
    }
}

/// Checks that every id is in the vocabulary.
///
/// # Errors
/// `InvalidValue` naming the first id that is not.
pub fn check_tokens(tokens: &[u32], vocabulary: usize, param: &str) -> Result<(), ApiError> {
    match tokens.iter().find(|&&token| token as usize >= vocabulary) {
        Some(token) => Err(ApiError::invalid(
            param,
            format!("token id {token} is outside the vocabulary of {vocabulary} tokens"),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_four_shapes_are_read() {
        let read = |value| crate::body::read::<Prompt>(&value).expect("a prompt");
        assert!(matches!(read(json!("a")), Prompt::Text(text) if text == "a"));
        assert!(matches!(read(json!(["a", "b"])), Prompt::Texts(texts) if texts.len() == 2));
        assert!(matches!(read(json!([3, 4])), Prompt::Tokens(tokens) if tokens == [3, 4]));
        assert!(
            matches!(read(json!([[3], [4, 5]])), Prompt::TokenLists(lists) if lists[1] == [4, 5])
        );
    }

    #[test]
    fn mixtures_and_negative_ids_are_refused() {
        for value in [json!([1, "a"]), json!([-1]), json!({"text": "a"}), json!(5)] {
            assert!(crate::body::read::<Prompt>(&value).is_err(), "{value}");
        }
    }

    #[test]
    fn ids_outside_the_vocabulary_are_named() {
        let error = check_tokens(&[1, 50, 99], 50, "tokens").expect_err("50 is outside");
        assert!(error.to_string().contains("token id 50"), "{error}");
        assert_eq!(error.param(), Some("tokens"));
    }
}
