//! Byte-level BPE from the metadata of a GGUF file (`tokenizer.ggml.model` is `gpt2`). The words it works on are cut
//! by `pre_tokenizer`.

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::tokenizer::AddedToken;

use super::metadata::Metadata;
use super::pre_tokenizer::Scheme;
use super::vocabulary::{Entry, Kind, Style, entries};
use super::{Codec, TokenizerError};

/// The tokenizer of a file, and whether its family starts a sequence with BOS when the file does not say.
pub(super) fn build(metadata: Metadata<'_>) -> Result<(Codec, bool), TokenizerError> {
    let scheme = Scheme::named(metadata.text("tokenizer.ggml.pre")?.unwrap_or("default"))?;
    let starts_with_bos = scheme.starts_with_bos;
    let entries = entries(metadata, Style::ByteLevel)?;
    let codec = Codec {
        encoder: byte_pairs(metadata, scheme, &entries)?,
        continuing: None,
        strips_leading_space: false,
        entries,
    };
    Ok((codec, starts_with_bos))
}

fn byte_pairs(
    metadata: Metadata<'_>,
    scheme: Scheme,
    entries: &[Entry],
) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let vocabulary: Vocab = (0..)
        .zip(entries)
        .map(|(id, e)| (e.spelling.clone(), id))
        .collect();
    let merges = merges(metadata, &vocabulary)?;
    let model = BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .ignore_merges(scheme.whole_words_first)
        .build()
        .map_err(TokenizerError::build)?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    if scheme.normal_form_c {
        (tokenizer.with_normalizer(Some(NFC))).map_err(TokenizerError::build)?;
    }
    tokenizer.with_pre_tokenizer(Some(scheme.words));
    let added = entries
        .iter()
        .filter(|entry| entry.kind != Kind::Text)
        .map(|entry| {
            AddedToken::from(entry.spelling.clone(), entry.kind == Kind::Control).normalized(false)
        });
    (tokenizer.add_tokens(added)).map_err(TokenizerError::build)?;
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
