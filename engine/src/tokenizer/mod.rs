//! Text to token ids and back, built from the metadata of the model file itself. Chat turns are put into text by
//! `chat`; a stream of tokens is put together as text by `text`.

pub(crate) mod alphabet;
mod error;
mod metadata;
mod pre_tokenizer;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::BufReader;
use std::path::Path;

use candle_core::quantized::gguf_file::{Content, Value};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::tokenizer::AddedToken;

use alphabet::{ByteTable, bytes_of};
pub use error::TokenizerError;
use metadata::Metadata;
use pre_tokenizer::Scheme;

/// A byte-level BPE tokenizer.
///
/// Text in, ids out: text that spells a control or user-defined token becomes that token. A byte the vocabulary has no
/// token for (published vocabularies leave out bytes that UTF-8 seldom or never uses) produces none.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    entries: Vec<Entry>,
    beginning: Option<u32>,
    end: Option<u32>,
    padding: Option<u32>,
    end_of_turn: Vec<u32>,
    adds_beginning: bool,
    adds_end: bool,
}

/// One token of the vocabulary.
struct Entry {
    /// As the vocabulary spells it.
    spelling: String,
    /// The bytes of text it stands for.
    bytes: Box<[u8]>,
    kind: Kind,
}

/// What a token is for, from `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A piece of text.
    Text,
    /// A piece of text that is found before words are cut.
    UserDefined,
    /// A mark that is not text: turn borders, padding, unknown.
    Control,
}

impl Tokenizer {
    /// Builds the tokenizer of a GGUF file; the weights are not read.
    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        let unreadable = |reason: String| TokenizerError::Read {
            path: path.to_path_buf(),
            reason,
        };
        let file = fs_err::File::open(path).map_err(|error| unreadable(error.to_string()))?;
        let content = Content::read(&mut BufReader::new(file))
            .map_err(|error| unreadable(error.to_string()))?;
        Self::from_metadata(&content.metadata)
    }

    /// Builds the tokenizer from the metadata of a GGUF file (the `tokenizer.ggml.*` keys).
    pub fn from_metadata(metadata: &HashMap<String, Value>) -> Result<Self, TokenizerError> {
        let metadata = Metadata(metadata);
        let model = metadata.required_text("tokenizer.ggml.model")?;
        if model != "gpt2" {
            return Err(TokenizerError::UnsupportedModel {
                model: model.to_owned(),
            });
        }
        let scheme = Scheme::named(metadata.text("tokenizer.ggml.pre")?.unwrap_or("default"))?;
        let entries = entries(metadata)?;
        let token = |key| metadata.token(key, entries.len());
        let beginning = token("tokenizer.ggml.bos_token_id")?;
        let end = token("tokenizer.ggml.eos_token_id")?;
        let padding = token("tokenizer.ggml.padding_token_id")?;
        let turn_ends = [
            end,
            token("tokenizer.ggml.eot_token_id")?,
            token("tokenizer.ggml.eom_token_id")?,
        ];
        let adds_beginning = metadata.flag("tokenizer.ggml.add_bos_token")?;
        Ok(Self {
            end_of_turn: end_of_turn(&entries, &turn_ends),
            adds_beginning: adds_beginning.unwrap_or(scheme.starts_with_bos),
            adds_end: metadata.flag("tokenizer.ggml.add_eos_token")? == Some(true),
            inner: byte_pairs(metadata, scheme, &entries)?,
            entries,
            beginning,
            end,
            padding,
        })
    }

    /// The ids of `text`. With `add_special_tokens`, BOS and EOS stand around them where the model file asks for it.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Vec<u32> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .expect("byte-level merging without an unknown token refuses no text");
        let beginning = self
            .beginning
            .filter(|_| add_special_tokens && self.adds_beginning);
        let end = self.end.filter(|_| add_special_tokens && self.adds_end);
        let mut ids = Vec::with_capacity(encoding.len() + 2);
        ids.extend(beginning);
        ids.extend_from_slice(encoding.get_ids());
        ids.extend(end);
        ids
    }

    /// The text of `ids` with control tokens spelled out. Bytes that are not UTF-8 become U+FFFD; an id outside the
    /// vocabulary adds nothing.
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
        self.entries
            .get(id as usize)
            .map_or(&[], |entry| &entry.bytes)
    }

    /// Whether a token is a mark and not text.
    pub fn is_special(&self, id: u32) -> bool {
        (self.entries.get(id as usize)).is_some_and(|entry| entry.kind == Kind::Control)
    }

    /// Tokens in the vocabulary; every id is below it.
    pub fn vocabulary(&self) -> usize {
        self.entries.len()
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
        (self.entries.get(id? as usize)).map(|entry| entry.spelling.clone())
    }

    fn text_of(&self, ids: impl Iterator<Item = u32>) -> String {
        let bytes: Vec<u8> = ids.flat_map(|id| self.token_bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
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

fn entries(metadata: Metadata<'_>) -> Result<Vec<Entry>, TokenizerError> {
    let tokens = metadata.texts("tokenizer.ggml.tokens")?;
    let types =
        (metadata.numbers("tokenizer.ggml.token_type")?).unwrap_or_else(|| vec![1; tokens.len()]);
    if types.len() != tokens.len() {
        return Err(TokenizerError::TypesMismatch {
            types: types.len(),
            tokens: tokens.len(),
        });
    }
    let table = ByteTable::new();
    let entry = |(token, number): (&str, u32)| {
        // The numbers are llama.cpp's `llama_token_type`: 2 unknown, 3 control, 4 user-defined.
        let kind = match number {
            2 | 3 => Kind::Control,
            4 => Kind::UserDefined,
            _ => Kind::Text,
        };
        let literal = || token.as_bytes().to_vec();
        let bytes = match kind {
            Kind::Text => bytes_of(token, &table).unwrap_or_else(literal),
            Kind::UserDefined | Kind::Control => literal(),
        };
        Entry {
            spelling: token.to_owned(),
            bytes: bytes.into_boxed_slice(),
            kind,
        }
    };
    Ok(tokens.into_iter().zip(types).map(entry).collect())
}

fn byte_pairs(
    metadata: Metadata<'_>,
    scheme: Scheme,
    entries: &[Entry],
) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let unbuildable = |error: tokenizers::Error| TokenizerError::Build {
        reason: error.to_string(),
    };
    let vocabulary: Vocab = (0..)
        .zip(entries)
        .map(|(id, e)| (e.spelling.clone(), id))
        .collect();
    let merges = merges(metadata, &vocabulary)?;
    let model = BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .ignore_merges(scheme.whole_words_first)
        .build()
        .map_err(unbuildable)?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    if scheme.normal_form_c {
        tokenizer.with_normalizer(Some(NFC)).map_err(unbuildable)?;
    }
    tokenizer.with_pre_tokenizer(Some(scheme.words));
    let added = entries
        .iter()
        .filter(|entry| entry.kind != Kind::Text)
        .map(|entry| {
            AddedToken::from(entry.spelling.clone(), entry.kind == Kind::Control).normalized(false)
        });
    tokenizer.add_tokens(added).map_err(unbuildable)?;
    Ok(tokenizer)
}

/// The merges, each checked against the vocabulary: the library trusts their lengths.
fn merges(metadata: Metadata<'_>, vocabulary: &Vocab) -> Result<Merges, TokenizerError> {
    let mut joined = String::new();
    let merge = |(index, line): (usize, &str)| {
        let halves = line.split_once(' ').filter(|(left, right)| {
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            [*left, *right, joined.as_str()]
                .iter()
                .all(|&token| vocabulary.contains_key(token))
        });
        match halves {
            Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
            None => Err(TokenizerError::InvalidMerge {
                index,
                merge: line.to_owned(),
            }),
        }
    };
    let lines = metadata.texts("tokenizer.ggml.merges")?;
    lines.into_iter().enumerate().map(merge).collect()
}

/// Names under which published models keep the end of a turn, a message or a document; a file names only one of them
/// as EOS.
const END_NAMES: [&str; 9] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end_of_turn|>",
    "</s>",
];

fn end_of_turn(entries: &[Entry], declared: &[Option<u32>]) -> Vec<u32> {
    let named = (0..).zip(entries).filter_map(|(id, entry)| {
        let ends = entry.kind == Kind::Control && END_NAMES.contains(&entry.spelling.as_str());
        ends.then_some(id)
    });
    let mut ids: Vec<u32> = named.chain(declared.iter().copied().flatten()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
