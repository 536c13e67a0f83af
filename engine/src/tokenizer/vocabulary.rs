//! The tokens of a vocabulary and what each stands for, whichever file they came from. How text is cut into them
//! belongs to the modules that build a tokenizer.

use super::TokenizerError;
use super::alphabet::{ByteTable, bytes_of};
use super::metadata::Metadata;

/// What stands for a space in a SentencePiece vocabulary (Kudo and Richardson 2018).
pub(super) const SPACE: char = '▁';

/// One token of the vocabulary.
pub(super) struct Entry {
    /// As the vocabulary spells it.
    pub(super) spelling: String,
    /// The bytes of text it stands for.
    pub(super) bytes: Box<[u8]>,
    pub(super) kind: Kind,
}

/// What a token is for, from `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A piece of text.
    Text,
    /// A piece of text that is found before words are cut.
    UserDefined,
    /// A mark that is not text: turn borders, padding, unknown.
    Control,
}

/// How a vocabulary spells bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Each byte as one printable character.
    ByteLevel,
    /// Characters as they are, a space as [`SPACE`], a lone byte as `<0xHH>`.
    SentencePiece,
}

/// Makes entries of spellings.
pub(super) struct Speller {
    style: Style,
    table: ByteTable,
}

impl Speller {
    pub(super) fn new(style: Style) -> Self {
        Self {
            style,
            table: ByteTable::new(),
        }
    }

    /// The entry of one token.
    pub(super) fn entry(&self, spelling: String, kind: Kind) -> Entry {
        let literal = || spelling.as_bytes().to_vec();
        let bytes = match (kind, self.style) {
            (Kind::Control, _) | (Kind::UserDefined, Style::ByteLevel) => literal(),
            (Kind::UserDefined, Style::SentencePiece) => spaced(&spelling),
            (Kind::Text, Style::ByteLevel) => {
                bytes_of(&spelling, &self.table).unwrap_or_else(literal)
            }
            (Kind::Text, Style::SentencePiece) => match lone_byte(&spelling) {
                Some(byte) => vec![byte],
                None => spaced(&spelling),
            },
        };
        Entry {
            bytes: bytes.into_boxed_slice(),
            spelling,
            kind,
        }
    }
}

/// The entries of a GGUF file, by id.
pub(super) fn entries(metadata: Metadata<'_>, style: Style) -> Result<Vec<Entry>, TokenizerError> {
    let tokens = metadata.texts("tokenizer.ggml.tokens")?;
    let types =
        (metadata.numbers("tokenizer.ggml.token_type")?).unwrap_or_else(|| vec![1; tokens.len()]);
    if types.len() != tokens.len() {
        return Err(TokenizerError::LengthMismatch {
            key: "tokenizer.ggml.token_type",
            entries: types.len(),
            tokens: tokens.len(),
        });
    }
    let speller = Speller::new(style);
    let entry = |(token, number): (&str, u32)| {
        // The numbers are llama.cpp's `llama_token_type`: 2 unknown, 3 control, 4 user-defined.
        let kind = match number {
            2 | 3 => Kind::Control,
            4 => Kind::UserDefined,
            _ => Kind::Text,
        };
        speller.entry(token.to_owned(), kind)
    };
    Ok(tokens.into_iter().zip(types).map(entry).collect())
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

/// The ids that end a generation: those declared, and control tokens with a well-known name; ascending, each once.
pub(super) fn end_of_turn(entries: &[Entry], declared: impl Iterator<Item = u32>) -> Vec<u32> {
    let named = (0..).zip(entries).filter_map(|(id, entry)| {
        let ends = entry.kind == Kind::Control && END_NAMES.contains(&entry.spelling.as_str());
        ends.then_some(id)
    });
    let mut ids: Vec<u32> = named.chain(declared).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// A token's bytes with a space for every [`SPACE`].
fn spaced(spelling: &str) -> Vec<u8> {
    spelling.replace(SPACE, " ").into_bytes()
}

/// The byte that `<0xHH>` stands for.
pub(super) fn lone_byte(spelling: &str) -> Option<u8> {
    let digits = spelling.strip_prefix("<0x")?.strip_suffix('>')?;
    let both = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    (both.then(|| u8::from_str_radix(digits, 16).ok())).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentence_pieces_stand_for_spaces_and_lone_bytes() {
        let speller = Speller::new(Style::SentencePiece);
        let bytes = |spelling: &str, kind| speller.entry(spelling.to_owned(), kind).bytes.to_vec();
        assert_eq!(bytes("▁hé▁", Kind::Text), " hé ".as_bytes());
        assert_eq!(bytes("<0xE6>", Kind::Text), [0xe6]);
        assert_eq!(bytes("<0x+6>", Kind::Text), b"<0x+6>");
        assert_eq!(bytes("▁▁", Kind::UserDefined), b"  ");
        assert_eq!(bytes("<0xE6>", Kind::UserDefined), b"<0xE6>");
        assert_eq!(bytes("<▁>", Kind::Control), "<▁>".as_bytes());
    }
}
