//! Text to token ids and back, built from the metadata of the model file itself or from the files of a Hugging Face
//! directory. Chat turns are put into text by `chat`; a stream of tokens is put together as text by `text`.

pub(crate) mod alphabet;
mod byte_level;
mod directory;
mod error;
mod layout;
mod metadata;
mod pre_tokenizer;
mod sentence_piece;
mod special_tokens;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::collections::HashMap;
use std::path::Path;

use candle_core::quantized::gguf_file::Value;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;

use crate::kernels::MappedFile;
pub use error::TokenizerError;
use metadata::Metadata;
pub(crate) use special_tokens::{TOKENIZER_CONFIGURATION, json_file};
use vocabulary::{Entry, Kind, end_of_turn};

/// A BPE tokenizer, byte-level or SentencePiece.
///
/// Text in, ids out: text that spells a control or user-defined token becomes that token. A byte the vocabulary has no
/// token for (published vocabularies leave out bytes that UTF-8 seldom or never uses) produces none.
///
/// Some SentencePiece families (Llama 2, Mistral, Phi-3) put a space in front of a text. [`Tokenizer::encode`] does
/// so, [`Tokenizer::encode_continuation`] does not, and [`Tokenizer::decode`] takes it away again; the bytes of a token
/// keep their space, so that a generated answer goes on from its prompt.
pub struct Tokenizer {
    codec: Codec,
    beginning: Option<u32>,
    end: Option<u32>,
    padding: Option<u32>,
    end_of_turn: Vec<u32>,
    /// What stands before and after a text that is encoded with special tokens.
    before: Vec<u32>,
    after: Vec<u32>,
}

/// What a text becomes without special tokens, and what each token stands for.
struct Codec {
    encoder: tokenizers::Tokenizer,
    /// Encodes text that goes on from other text, where `encoder` puts a space in front.
    continuing: Option<tokenizers::Tokenizer>,
    /// Whether decoding takes one space from the front of a text.
    strips_leading_space: bool,
    /// By id.
    entries: Vec<Entry>,
}

impl Tokenizer {
    /// Builds the tokenizer of a GGUF file; the weights are not read.
    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        let unreadable = |reason: String| TokenizerError::Read {
            path: path.to_path_buf(),
            reason,
        };
        let bytes = MappedFile::open(path).map_err(|error| unreadable(error.to_string()))?;
        let content = crate::gguf::content(&bytes).map_err(unreadable)?;
        Self::from_metadata(&content.metadata)
    }

    /// Builds the tokenizer from the metadata of a GGUF file (the `tokenizer.ggml.*` keys).
    pub fn from_metadata(metadata: &HashMap<String, Value>) -> Result<Self, TokenizerError> {
        let metadata = Metadata(metadata);
        let (codec, starts_with_bos) = match metadata.required_text("tokenizer.ggml.model")? {
            "gpt2" => byte_level::build(metadata)?,
            "llama" => (sentence_piece::build(metadata)?, true),
            other => {
                return Err(TokenizerError::UnsupportedModel {
                    model: other.to_owned(),
                });
            }
        };
        let token = |key| metadata.token(key, codec.entries.len());
        let beginning = token("tokenizer.ggml.bos_token_id")?;
        let end = token("tokenizer.ggml.eos_token_id")?;
        let padding = token("tokenizer.ggml.padding_token_id")?;
        let turn_ends = [
            end,
            token("tokenizer.ggml.eot_token_id")?,
            token("tokenizer.ggml.eom_token_id")?,
        ];
        let starts = (metadata.flag("tokenizer.ggml.add_bos_token")?).unwrap_or(starts_with_bos);
        let ends = metadata.flag("tokenizer.ggml.add_eos_token")? == Some(true);
        Ok(Self {
            end_of_turn: end_of_turn(&codec.entries, turn_ends.into_iter().flatten()),
            before: beginning.filter(|_| starts).into_iter().collect(),
            after: end.filter(|_| ends).into_iter().collect(),
            codec,
            beginning,
            end,
            padding,
        })
    }

    /// Builds the tokenizer of a Hugging Face directory: `tokenizer.json`, and what `tokenizer_config.json`,
    /// `special_tokens_map.json`, `generation_config.json` and `config.json` say of special tokens where they exist.
    ///
    /// # Errors
    /// For a file that cannot be read, a kind of tokenizer that is not BPE, and parts that do not go together.
    pub fn from_directory(directory: &Path) -> Result<Self, TokenizerError> {
        directory::build(directory)
    }

    /// The ids of `text`. With `add_special_tokens`, BOS and EOS stand around them where the model file asks for it.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Vec<u32> {
        let ids = encoded(&self.codec.encoder, text);
        if add_special_tokens {
            [&self.before[..], &ids, &self.after].concat()
        } else {
            ids
        }
    }

    /// The ids of a prompt that an answer goes on from: BOS where the model file asks for it, and never EOS.
    pub fn encode_prompt(&self, text: &str) -> Vec<u32> {
        [&self.before[..], &self.encode(text, false)].concat()
    }

    /// The ids of a text that goes on from other text, such as a label after its prompt: no special tokens, and no
    /// space in front that the text does not have.
    pub fn encode_continuation(&self, text: &str) -> Vec<u32> {
        let encoder = (self.codec.continuing.as_ref()).unwrap_or(&self.codec.encoder);
        encoded(encoder, text)
    }

    /// The text of `ids` with control tokens spelled out, without the space that encoding put in front. Bytes that are
    /// not UTF-8 become U+FFFD; an id outside the vocabulary adds nothing.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.text_of(ids.iter().copied())
    }

    /// Like [`Tokenizer::decode`], without the control tokens.
    pub fn decode_text(&self, ids: &[u32]) -> String {
        self.text_of(ids.iter().copied().filter(|&id| !self.is_special(id)))
    }

    /// The bytes a token stands for: part of a character, perhaps; a control token's own name; nothing for an id
    /// outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.codec
            .entries
            .get(id as usize)
            .map_or(&[], |entry| &entry.bytes)
    }

    /// Whether a token is a mark and not text.
    pub fn is_special(&self, id: u32) -> bool {
        (self.codec.entries.get(id as usize)).is_some_and(|entry| entry.kind == Kind::Control)
    }

    /// The `tokenizer.json` that the libraries of Hugging Face read, of a byte-level tokenizer.
    ///
    /// # Errors
    /// For a SentencePiece vocabulary, whose rules a GGUF file does not hold.
    pub fn to_json(&self) -> Result<String, TokenizerError> {
        let failed = |reason: String| TokenizerError::Json { reason };
        let mut written = self.codec.encoder.clone();
        if written.get_pre_tokenizer().is_none() {
            return Err(failed(
                "it is a SentencePiece vocabulary; take the files of the original model".to_owned(),
            ));
        }
        written.with_decoder(Some(ByteLevel::default()));
        if !(self.before.is_empty() && self.after.is_empty()) {
            let spelled = |ids: &[u32]| -> Vec<(String, u32)> {
                let token = |&id| self.token_string(Some(id)).map(|spelling| (spelling, id));
                ids.iter().filter_map(token).collect()
            };
            let (before, after) = (spelled(&self.before), spelled(&self.after));
            let names = |tokens: &[(String, u32)]| -> Vec<String> {
                tokens
                    .iter()
                    .map(|(spelling, _)| spelling.clone())
                    .collect()
            };
            let template = [names(&before), vec!["$A".to_owned()], names(&after)].concat();
            let template = TemplateProcessing::builder()
                .try_single(template)
                .map_err(failed)?
                .special_tokens([before, after].concat())
                .build()
                .map_err(|error| failed(error.to_string()))?;
            written.with_post_processor(Some(template));
        }
        written
            .to_string(true)
            .map_err(|error| failed(error.to_string()))
    }

    /// Tokens in the vocabulary; every id is below it.
    pub fn vocabulary(&self) -> usize {
        self.codec.entries.len()
    }

    /// The token that begins a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.beginning
    }

    /// The token that ends a sequence.
    pub fn eos(&self) -> Option<u32> {
        self.end
    }

    /// The token that fills a batch.
    pub fn pad(&self) -> Option<u32> {
        self.padding
    }

    /// The ids that end a generation, ascending: EOS, the end of a turn or message, and the end of a document.
    pub fn end_of_turn(&self) -> &[u32] {
        &self.end_of_turn
    }

    /// A token as the vocabulary spells it (bytes in the byte alphabet), for clients that ask for special tokens by
    /// name.
    pub fn token_string(&self, id: Option<u32>) -> Option<String> {
        (self.codec.entries.get(id? as usize)).map(|entry| entry.spelling.clone())
    }

    fn text_of(&self, ids: impl Iterator<Item = u32>) -> String {
        let bytes: Vec<u8> = ids.flat_map(|id| self.token_bytes(id)).copied().collect();
        let text = match bytes.strip_prefix(b" ") {
            Some(stripped) if self.codec.strips_leading_space => stripped,
            _ => &bytes,
        };
        String::from_utf8_lossy(text).into_owned()
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Tokenizer")
            .field("vocabulary", &self.vocabulary())
            .field("end_of_turn", &self.end_of_turn)
            .finish_non_exhaustive()
    }
}

fn encoded(encoder: &tokenizers::Tokenizer, text: &str) -> Vec<u32> {
    let encoding = (encoder.encode_fast(text, false))
        .expect("merging refuses no text once the unknown token is known to be in the vocabulary");
    encoding.get_ids().to_vec()
}
