//! SentencePiece BPE from the metadata of a GGUF file (`tokenizer.ggml.model` is `llama`): Llama 2, Mistral, Phi-3,
//! Gemma. Whole texts are merged, not words; the order of the merges follows from the scores of the pieces.

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence, Strip};
use tokenizers::tokenizer::AddedToken;

use super::metadata::Metadata;
use super::vocabulary::{Entry, Kind, SPACE, Style, entries, lone_byte};
use super::{Codec, TokenizerError};

/// The tokenizer of a file.
///
/// Ids agree with those of Hugging Face's conversion of the same model: a piece is made by every pair of pieces that
/// spell it, better scores first; characters without a piece fall back to their bytes.
pub(super) fn build(metadata: Metadata<'_>) -> Result<Codec, TokenizerError> {
    let entries = entries(metadata, Style::SentencePiece)?;
    let scores = (metadata.decimals("tokenizer.ggml.scores")?).ok_or({
        TokenizerError::MissingKey {
            key: "tokenizer.ggml.scores",
        }
    })?;
    if scores.len() != entries.len() {
        return Err(TokenizerError::LengthMismatch {
            key: "tokenizer.ggml.scores",
            entries: scores.len(),
            tokens: entries.len(),
        });
    }
    let unknown = metadata.token("tokenizer.ggml.unknown_token_id", entries.len())?;
    let collapses = metadata.flag("tokenizer.ggml.remove_extra_whitespaces")? == Some(true);
    // SentencePiece's own default; the keys are written only where a model departs from it.
    let prefixed = metadata.flag("tokenizer.ggml.add_space_prefix")? != Some(false);

    let mut continuing = tokenizers::Tokenizer::new(model(&entries, &scores, unknown)?);
    (continuing.with_normalizer(Some(normalizer(false, collapses)?)))
        .map_err(TokenizerError::build)?;
    let strips_right = metadata.text("general.architecture")? == Some("phi3");
    (continuing.add_tokens(
        entries
            .iter()
            .filter_map(|entry| added(entry, strips_right)),
    ))
    .map_err(TokenizerError::build)?;
    let (encoder, continuing) = if prefixed {
        let mut encoder = continuing.clone();
        (encoder.with_normalizer(Some(normalizer(true, collapses)?)))
            .map_err(TokenizerError::build)?;
        (encoder, Some(continuing))
    } else {
        (continuing, None)
    };
    Ok(Codec {
        encoder,
        continuing,
        strips_leading_space: prefixed,
        entries,
    })
}

fn model(entries: &[Entry], scores: &[f32], unknown: Option<u32>) -> Result<BPE, TokenizerError> {
    let vocabulary: Vocab = (0..)
        .zip(entries)
        .map(|(id, entry)| (spelled(entry), id))
        .collect();
    let merges = merges(entries, scores, &vocabulary);
    let mut builder = BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .fuse_unk(true)
        .byte_fallback(true);
    if let Some(unknown) = unknown {
        builder = builder.unk_token(spelled(&entries[unknown as usize]));
    }
    builder.build().map_err(TokenizerError::build)
}

/// How text spells a token: user-defined pieces are looked for before spaces are rewritten.
fn spelled(entry: &Entry) -> String {
    match entry.kind {
        Kind::UserDefined => entry.spelling.replace(SPACE, " "),
        Kind::Text | Kind::Control => entry.spelling.clone(),
    }
}

/// One way of making a piece of two others.
struct Split {
    score: f32,
    /// Characters of the left half and of the right.
    characters: (usize, usize),
    piece: usize,
    /// Bytes of the left half.
    at: usize,
}

/// Every pair of pieces whose joined text is a piece. Better scores come first, then longer left halves: the order of
/// Hugging Face's converter, to which SentencePiece's own (the leftmost of equals) is the same in the absence of
/// overlaps.
fn merges(entries: &[Entry], scores: &[f32], vocabulary: &Vocab) -> Merges {
    let merges_at_all = |entry: &Entry| entry.kind == Kind::Text;
    let half =
        |text: &str| (vocabulary.get(text)).is_some_and(|&id| merges_at_all(&entries[id as usize]));
    let mut splits = Vec::with_capacity(2 * entries.len());
    for (piece, entry) in entries.iter().enumerate() {
        let text = entry.spelling.as_str();
        if !merges_at_all(entry) || lone_byte(text).is_some() {
            continue;
        }
        let length = text.chars().count();
        for (left, (at, _)) in text.char_indices().enumerate().skip(1) {
            if half(&text[..at]) && half(&text[at..]) {
                splits.push(Split {
                    // Files have both zeros, which are one score.
                    score: scores[piece] + 0.0,
                    characters: (left, length - left),
                    piece,
                    at,
                });
            }
        }
    }
    splits.sort_unstable_by(|one, other| {
        (other.score.total_cmp(&one.score))
            .then_with(|| other.characters.cmp(&one.characters))
            .then_with(|| one.piece.cmp(&other.piece))
    });
    let halves = |split: Split| {
        let (left, right) = entries[split.piece].spelling.split_at(split.at);
        (left.to_owned(), right.to_owned())
    };
    splits.into_iter().map(halves).collect()
}

/// Spaces as [`SPACE`]; with `prefixed`, one more in front of every stretch of text between special tokens.
fn normalizer(prefixed: bool, collapses: bool) -> Result<Sequence, TokenizerError> {
    let replaced = |pattern, by: &str| Replace::new(pattern, by).map_err(TokenizerError::build);
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if collapses {
        steps.push(Strip::new(true, true).into());
        let several = tokenizers::normalizers::replace::ReplacePattern::Regex(" {2,}".into());
        steps.push(replaced(several, " ")?.into());
    }
    if prefixed {
        steps.push(Prepend::new(SPACE.into()).into());
    }
    steps.push(replaced(" ".into(), &SPACE.to_string())?.into());
    Ok(Sequence::new(steps))
}

/// A token that is found in text before it is merged. Phi-3's marks swallow the blank space after them, as its
/// published tokenizer declares token by token and GGUF cannot; the three that do not are those of Llama 2.
fn added(entry: &Entry, strips_right: bool) -> Option<AddedToken> {
    let plain = ["<unk>", "<s>", "<|endoftext|>"].contains(&entry.spelling.as_str());
    let mark = entry.kind == Kind::Control || entry.spelling == "</s>";
    (entry.kind != Kind::Text).then(|| {
        AddedToken::from(spelled(entry), entry.kind == Kind::Control)
            .normalized(false)
            .rstrip(strips_right && mark && !plain)
    })
}
