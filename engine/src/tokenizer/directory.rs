//! The tokenizer of a Hugging Face directory: the vocabulary and the steps that `tokenizer.json` describes. Which
//! tokens begin and end a sequence is read by `special_tokens`.

use std::collections::HashMap;
use std::path::Path;

use super::layout::{Layout, parsed};
use super::special_tokens::{Name, OneOrMany, SpecialTokens};
use super::vocabulary::{Entry, Kind, Speller, Style, end_of_turn};
use super::{Codec, Tokenizer, TokenizerError, encoded};

/// Most tokens a vocabulary may have: sixty times the largest published one, and still little memory.
const MOST_TOKENS: usize = 1 << 24;

/// Reads the directory; see [`Tokenizer::from_directory`].
pub(super) fn build(directory: &Path) -> Result<Tokenizer, TokenizerError> {
    let special = SpecialTokens::read(directory)?;
    let codec = codec(&directory.join("tokenizer.json"), &special)?;
    let named = |name: &Option<Name>, fallback: &OneOrMany, key| match name {
        Some(name) => Ok(codec.encoder.token_to_id(name.text())),
        None if special.are_named => Ok(None),
        None => Ok(in_range(fallback, key, &codec)?.first().copied()),
    };
    let (names, model) = (&special.names, &special.model);
    let beginning = named(&names.bos_token, &model.bos_token_id, "bos_token_id")?;
    let end = named(&names.eos_token, &model.eos_token_id, "eos_token_id")?;
    let padding = named(&names.pad_token, &model.pad_token_id, "pad_token_id")?;
    let mut ends = in_range(&special.generation.eos_token_id, "eos_token_id", &codec)?;
    ends.extend(in_range(&model.eos_token_id, "eos_token_id", &codec)?);
    ends.extend(end);
    let (mut before, mut after) = surroundings(&codec.encoder);
    add_or_remove(&mut before, names.add_bos_token, beginning);
    add_or_remove(&mut after, names.add_eos_token, end);
    Ok(Tokenizer {
        end_of_turn: end_of_turn(&codec.entries, ends.into_iter()),
        codec,
        beginning,
        end,
        padding,
        before,
        after,
    })
}

fn codec(path: &Path, special: &SpecialTokens) -> Result<Codec, TokenizerError> {
    let text = fs_err::read_to_string(path).map_err(|error| TokenizerError::Read {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })?;
    let layout = Layout::read(path, &text)?;
    let style = layout.style(path)?;
    let mut encoder: tokenizers::Tokenizer = parsed(path, &text)?;
    encoder
        .with_padding(None)
        .with_truncation(None)
        .map_err(TokenizerError::build)?;
    let missing = (special.names.added_tokens_decoder.values())
        .filter(|token| encoder.token_to_id(&token.content).is_none());
    let missing: Vec<_> = missing.cloned().collect();
    encoder.add_tokens(missing).map_err(TokenizerError::build)?;
    Ok(Codec {
        continuing: layout.continuing(&encoder)?,
        strips_leading_space: layout.strips_leading_space(),
        entries: entries(layout.into_vocabulary(), &encoder, style)?,
        encoder,
    })
}

/// Every token by id; ids that no token has stand for nothing.
fn entries(
    vocabulary: HashMap<String, u32>,
    encoder: &tokenizers::Tokenizer,
    style: Style,
) -> Result<Vec<Entry>, TokenizerError> {
    let added = encoder.get_added_tokens_decoder();
    let last = vocabulary.values().chain(added.keys()).copied().max();
    if let Some(token) = last.filter(|&id| id as usize >= MOST_TOKENS) {
        return Err(TokenizerError::TokenOutOfRange {
            key: "model.vocab",
            token,
            vocabulary: MOST_TOKENS,
        });
    }
    let speller = Speller::new(style);
    let count = last.map_or(0, |id| id as usize + 1);
    let blank = || speller.entry(String::new(), Kind::Text);
    let mut entries: Vec<Entry> = std::iter::repeat_with(blank).take(count).collect();
    for (spelling, id) in vocabulary {
        entries[id as usize] = speller.entry(spelling, Kind::Text);
    }
    for (id, token) in added {
        let kind = if token.special {
            Kind::Control
        } else {
            Kind::UserDefined
        };
        entries[id as usize] = speller.entry(token.content, kind);
    }
    Ok(entries)
}

/// The tokens that the post-processor puts before and after a text.
fn surroundings(encoder: &tokenizers::Tokenizer) -> (Vec<u32>, Vec<u32>) {
    let probe = "a";
    let plain = encoded(encoder, probe);
    let Ok(whole) = encoder.encode_fast(probe, true) else {
        return Default::default();
    };
    let whole = whole.get_ids();
    let starts = whole.len().saturating_sub(plain.len());
    let start = (0..=starts).find(|&start| whole[start..].starts_with(&plain));
    start.map_or_else(Default::default, |start| {
        let (before, rest) = whole.split_at(start);
        (before.to_vec(), rest[plain.len()..].to_vec())
    })
}

/// Does as a flag of `tokenizer_config.json` says, which transformers puts above the post-processor.
fn add_or_remove(surrounding: &mut Vec<u32>, flag: Option<bool>, token: Option<u32>) {
    let Some((wanted, token)) = flag.zip(token) else {
        return;
    };
    match (wanted, surrounding.contains(&token)) {
        (true, false) => surrounding.push(token),
        (false, true) => surrounding.retain(|&other| other != token),
        _ => {}
    }
}

fn in_range(ids: &OneOrMany, key: &'static str, codec: &Codec) -> Result<Vec<u32>, TokenizerError> {
    let vocabulary = codec.entries.len();
    let checked = |token: u32| match (token as usize) < vocabulary {
        true => Ok(token),
        false => Err(TokenizerError::TokenOutOfRange {
            key,
            token,
            vocabulary,
        }),
    };
    ids.ids().into_iter().map(checked).collect()
}
