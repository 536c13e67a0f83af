//! How text is cut into words before byte-pair merging: the schemes a GGUF file can name under `tokenizer.ggml.pre`.

use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;

use super::TokenizerError;

/// The names [`Scheme::named`] knows, for error messages.
const SUPPORTED: &str =
    "smollm, gpt-2, default, llama-bpe, llama3, llama-v3, dbrx, qwen2, tekken, gpt-4o, llama4";

/// How one family of models cuts text into words.
pub(super) struct Scheme {
    /// Text to words spelled in the byte alphabet.
    pub(super) words: PreTokenizerWrapper,
    /// Whether text is brought into Unicode normal form C first.
    pub(super) normal_form_c: bool,
    /// Whether a word that is itself a token skips the merges.
    pub(super) whole_words_first: bool,
    /// Whether the family starts a sequence with BOS when the file does not say.
    pub(super) starts_with_bos: bool,
}

impl Scheme {
    /// The scheme a file names; a name that is not known is refused, because a wrong scheme gives wrong ids silently.
    pub(super) fn named(name: &str) -> Result<Self, TokenizerError> {
        let plain = |words| Self {
            words,
            normal_form_c: false,
            whole_words_first: false,
            starts_with_bos: false,
        };
        match name {
            "smollm" => Ok(plain(
                Sequence::new(vec![Digits::new(true).into(), byte_level(true).into()]).into(),
            )),
            "gpt-2" | "gpt2" | "default" => Ok(plain(byte_level(true).into())),
            "llama-bpe" | "llama3" | "llama-v3" => Ok(Self {
                whole_words_first: true,
                starts_with_bos: true,
                ..plain(words_with_digits(r"\p{N}{1,3}")?)
            }),
            // Phi-4's.
            "dbrx" => Ok(plain(words_with_digits(r"\p{N}{1,3}")?)),
            "qwen2" => Ok(Self {
                normal_form_c: true,
                ..plain(words_with_digits(r"\p{N}")?)
            }),
            "tekken" => Ok(Self {
                whole_words_first: true,
                ..plain(words_by_case("", r"\p{N}")?)
            }),
            "gpt-4o" | "llama4" => Ok(plain(words_by_case(CONTRACTIONS, r"\p{N}{1,3}")?)),
            _ => Err(TokenizerError::UnsupportedPreTokenizer {
                name: name.to_owned(),
                supported: SUPPORTED,
            }),
        }
    }
}

/// GPT-2's words when `split`, otherwise only the spelling in the byte alphabet; never a space put in front.
fn byte_level(split: bool) -> ByteLevel {
    ByteLevel::new(false, false, split)
}

/// English contractions in either case.
const CONTRACTIONS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)";

/// The words of the cl100k family: contractions in either case, letters with one leading non-letter, numbers as
/// `digits` says, punctuation with the line ends after it, and blank space that leaves one space to the next word.
fn words_with_digits(digits: &str) -> Result<PreTokenizerWrapper, TokenizerError> {
    split_by(&[
        CONTRACTIONS,
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        digits,
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ])
}

/// The words of the o200k family: as [`words_with_digits`], but a word also ends before a capital that follows small
/// letters, and `contraction` stays with the word it follows.
fn words_by_case(contraction: &str, digits: &str) -> Result<PreTokenizerWrapper, TokenizerError> {
    let optional = match contraction {
        "" => String::new(),
        contraction => format!("{contraction}?"),
    };
    let (capital, small) = (
        r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]",
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]",
    );
    split_by(&[
        &format!(r"[^\r\n\p{{L}}\p{{N}}]?{capital}*{small}+{optional}"),
        &format!(r"[^\r\n\p{{L}}\p{{N}}]?{capital}+{small}*{optional}"),
        digits,
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ])
}

/// Every match of one of the alternatives, the earlier ones first, is a word.
fn split_by(alternatives: &[&str]) -> Result<PreTokenizerWrapper, TokenizerError> {
    let pattern = SplitPattern::Regex(alternatives.join("|"));
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
        .map_err(TokenizerError::build)?;
    Ok(Sequence::new(vec![split.into(), byte_level(false).into()]).into())
}

#[cfg(test)]
mod tests {
    use tokenizers::tokenizer::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::*;

    fn words(scheme: &str, text: &str) -> Vec<String> {
        let mut split = PreTokenizedString::from(text);
        Scheme::named(scheme)
            .expect("a supported scheme")
            .words
            .pre_tokenize(&mut split)
            .expect("any text can be split");
        split
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .into_iter()
            .map(|(word, ..)| word.to_owned())
            .collect()
    }

    const TEXT: &str = "We'LL pay  1234 €\n\n ok";

    #[test]
    fn smollm_takes_digits_one_by_one() {
        insta::assert_compact_debug_snapshot!(words("smollm", TEXT), @r#"["We", "'", "LL", "Ġpay", "ĠĠ", "1", "2", "3", "4", "ĠâĤ¬", "ĊĊ", "Ġok"]"#);
    }

    #[test]
    fn gpt_2_keeps_a_number_with_its_space() {
        insta::assert_compact_debug_snapshot!(words("gpt-2", TEXT), @r#"["We", "'", "LL", "Ġpay", "Ġ", "Ġ1234", "ĠâĤ¬", "ĊĊ", "Ġok"]"#);
    }

    #[test]
    fn llama_3_takes_digits_by_three_and_contractions_in_capitals() {
        insta::assert_compact_debug_snapshot!(words("llama-bpe", TEXT), @r#"["We", "'LL", "Ġpay", "Ġ", "Ġ", "123", "4", "ĠâĤ¬ĊĊ", "Ġok"]"#);
    }

    #[test]
    fn qwen_2_takes_digits_one_by_one_and_contractions_in_capitals() {
        insta::assert_compact_debug_snapshot!(words("qwen2", TEXT), @r#"["We", "'LL", "Ġpay", "Ġ", "Ġ", "1", "2", "3", "4", "ĠâĤ¬ĊĊ", "Ġok"]"#);
    }

    #[test]
    fn tekken_and_gpt_4o_cut_words_where_capitals_begin() {
        let text = "don't useTwoWords/NOW 1234 a//\n";
        insta::assert_compact_debug_snapshot!(words("tekken", text), @r#"["don", "'t", "Ġuse", "Two", "Words", "/NOW", "Ġ", "1", "2", "3", "4", "Ġa", "//Ċ"]"#);
        insta::assert_compact_debug_snapshot!(words("gpt-4o", text), @r#"["don't", "Ġuse", "Two", "Words", "/NOW", "Ġ", "123", "4", "Ġa", "//Ċ"]"#);
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = Scheme::named("deepseek-coder").err().expect("a refusal");
        insta::assert_snapshot!(error, @"pre-tokenizer `deepseek-coder` is not supported; supported: smollm, gpt-2, default, llama-bpe, llama3, llama-v3, dbrx, qwen2, tekken, gpt-4o, llama4");
    }
}
