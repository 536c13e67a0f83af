//! Log-probabilities on the wire: the legacy shape of completions and the list of chat.

use engine::{TokenLogprob, Tokenizer};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

/// What stands for a probability of zero, which JSON cannot carry as a logarithm.
const LOWEST: f32 = -9999.0;

/// The legacy shape: four lists of one length.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct LegacyLogprobs {
    /// The tokens as text; a token that is no whole character is `bytes:` and its bytes in `\x` notation.
    pub tokens: Vec<String>,
    /// Their log-probabilities; null at the first position of a prompt.
    pub token_logprobs: Vec<Option<f32>>,
    /// Alternatives with the token itself among them; null where `token_logprobs` is.
    #[schema(value_type = Vec<Option<std::collections::BTreeMap<String, f32>>>)]
    pub top_logprobs: Vec<Option<Alternatives>>,
    /// Where each token starts, in characters of the choice's text.
    pub text_offset: Vec<usize>,
}

/// Alternatives of one position, best first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Alternatives(Vec<(String, f32)>);

/// Builds the legacy shape token by token.
pub struct LegacyBuilder<'a> {
    tokenizer: &'a Tokenizer,
    characters: usize,
    lists: LegacyLogprobs,
}

/// The log-probabilities of a chat answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ChatLogprobs {
    /// One entry per token.
    pub content: Vec<ChatTokenLogprob>,
}

/// One token of a chat answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ChatTokenLogprob {
    /// The token as text.
    pub token: String,
    /// Its log-probability.
    pub logprob: f32,
    /// Its UTF-8 bytes.
    pub bytes: Vec<u8>,
    /// Alternatives, best first.
    pub top_logprobs: Vec<ChatAlternative>,
}

/// An alternative to a token of a chat answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ChatAlternative {
    /// The token as text.
    pub token: String,
    /// Its log-probability.
    pub logprob: f32,
    /// Its UTF-8 bytes.
    pub bytes: Vec<u8>,
}

impl Serialize for Alternatives {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (token, logprob) in &self.0 {
            map.serialize_entry(token, logprob)?;
        }
        map.end()
    }
}

impl<'a> LegacyBuilder<'a> {
    /// An empty shape whose first token starts at character `characters` of the choice's text.
    pub fn new(tokenizer: &'a Tokenizer, characters: usize) -> Self {
        Self {
            tokenizer,
            characters,
            lists: LegacyLogprobs::default(),
        }
    }

    /// Adds a prompt: its first token without a value, the others with theirs.
    pub fn prompt(&mut self, tokens: &[u32], logprobs: &[TokenLogprob]) {
        if let Some(&first) = tokens.first() {
            self.push(first, None);
        }
        for logprob in logprobs {
            self.token(logprob);
        }
    }

    /// Adds a token.
    pub fn token(&mut self, logprob: &TokenLogprob) {
        self.push(logprob.token, Some(logprob));
    }

    /// The shape so far, and the characters its tokens span.
    pub fn finish(self) -> (LegacyLogprobs, usize) {
        (self.lists, self.characters)
    }

    fn push(&mut self, token: u32, logprob: Option<&TokenLogprob>) {
        let bytes = self.tokenizer.token_bytes(token);
        self.lists.tokens.push(spelled(bytes));
        self.lists
            .token_logprobs
            .push(logprob.map(|logprob| finite(logprob.logprob)));
        self.lists
            .top_logprobs
            .push(logprob.map(|logprob| alternatives(self.tokenizer, logprob)));
        self.lists.text_offset.push(self.characters);
        self.characters += characters(bytes);
    }
}

/// The chat shape of one token.
pub fn chat_token(tokenizer: &Tokenizer, logprob: &TokenLogprob) -> ChatTokenLogprob {
    let bytes = tokenizer.token_bytes(logprob.token);
    ChatTokenLogprob {
        token: String::from_utf8_lossy(bytes).into_owned(),
        logprob: finite(logprob.logprob),
        bytes: bytes.to_vec(),
        top_logprobs: logprob
            .top
            .iter()
            .map(|&(token, value)| {
                let bytes = tokenizer.token_bytes(token);
                ChatAlternative {
                    token: String::from_utf8_lossy(bytes).into_owned(),
                    logprob: finite(value),
                    bytes: bytes.to_vec(),
                }
            })
            .collect(),
    }
}

fn alternatives(tokenizer: &Tokenizer, logprob: &TokenLogprob) -> Alternatives {
    let own = (logprob.token, logprob.logprob);
    let missing = !logprob.top.iter().any(|&(token, _)| token == own.0);
    let mut named: Vec<(String, f32)> = Vec::with_capacity(logprob.top.len() + 1);
    for &(token, value) in logprob.top.iter().chain(missing.then_some(&own)) {
        let name = spelled(tokenizer.token_bytes(token));
        // Two ids may spell the same; a JSON object keeps one, and the likelier must win or greedy looks greedier than it was.
        if named.iter().all(|(known, _)| *known != name) {
            named.push((name, finite(value)));
        }
    }
    Alternatives(named)
}

/// Spells out tokens that are no whole characters, so that two different tokens never share a key.
fn spelled(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |text, byte| {
            format!("{text}\\x{byte:02x}")
        }),
    }
}

/// Characters that start in these bytes.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte & 0xC0 != 0x80).count()
}

/// A log-probability that JSON can carry.
pub fn finite(logprob: f32) -> f32 {
    logprob.max(LOWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_characters_are_spelled_and_counted_once() {
        let bytes = "é".as_bytes();
        assert_eq!(spelled(&bytes[..1]), "bytes:\\xc3");
        assert_eq!(spelled(&bytes[1..]), "bytes:\\xa9");
        assert_eq!(characters(&bytes[..1]) + characters(&bytes[1..]), 1);
        assert_eq!(spelled(b" good"), " good");
    }

    #[test]
    fn floats_are_the_same_in_both_places() {
        let value = -1.234_567_9_f32;
        let top =
            serde_json::to_string(&Alternatives(vec![("a".to_owned(), value)])).expect("JSON");
        let own = serde_json::to_string(&vec![Some(value)]).expect("JSON");
        assert_eq!(top, format!("{{\"a\":{}}}", own.trim_matches(['[', ']'])));
        assert_eq!(finite(f32::NEG_INFINITY), -9999.0);
    }
}
