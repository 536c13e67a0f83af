//! SentencePiece vocabularies from GGUF metadata, against ids of the reference programs. Byte-level ones are in the parent.

use super::*;

/// Pieces in the order of their scores, the best first; ids from 259, after three control tokens and 256 bytes.
const PIECES: [&str; 39] = [
    "▁t",
    "he",
    "in",
    "er",
    "▁a",
    "▁the",
    "on",
    "re",
    "▁s",
    "ll",
    "the",
    "▁▁",
    "ell",
    "▁in",
    "ing",
    "or",
    "▁w",
    "▁wor",
    "ld",
    "▁world",
    "▁h",
    "▁hell",
    "ello",
    "▁hello",
    "▁▁▁▁",
    "▁",
    "e",
    "t",
    "a",
    "o",
    "i",
    "n",
    "s",
    "r",
    "h",
    "l",
    "d",
    "w",
    "g",
];

/// The tokens above, and their types in GGUF's numbers.
pub(super) fn tokens() -> Vec<(String, i32)> {
    let marks = [("<unk>", 2), ("<s>", 3), ("</s>", 3)].map(|(name, kind)| (name.to_owned(), kind));
    let bytes = (0..=u8::MAX).map(|byte| (format!("<0x{byte:02X}>"), 6));
    let pieces = PIECES.map(|piece| (piece.to_owned(), 1));
    marks.into_iter().chain(bytes).chain(pieces).collect()
}

/// A file's metadata, with `more` user-defined tokens at the end.
fn metadata(more: &[&str]) -> HashMap<String, Value> {
    let mut tokens = tokens();
    tokens.extend(more.iter().map(|&token| (token.to_owned(), 4)));
    let score = |id: usize| match id {
        0..259 => 0.0,
        _ => 259.0 - u16::try_from(id).map_or(f32::MIN, f32::from),
    };
    let scores = (0..tokens.len()).map(|id| Value::F32(score(id))).collect();
    let (names, kinds) = (tokens.into_iter())
        .map(|(name, kind)| (Value::String(name), Value::I32(kind)))
        .unzip();
    [
        ("model", Value::String("llama".into())),
        ("tokens", Value::Array(names)),
        ("scores", Value::Array(scores)),
        ("token_type", Value::Array(kinds)),
        ("bos_token_id", Value::U32(1)),
        ("eos_token_id", Value::U32(2)),
        ("unknown_token_id", Value::U32(0)),
    ]
    .map(|(key, value)| (format!("tokenizer.ggml.{key}"), value))
    .into()
}

fn tokenizer(more: &[&str], changes: &[(&str, Value)]) -> Result<Tokenizer, TokenizerError> {
    let mut metadata = metadata(more);
    for (key, value) in changes {
        metadata.insert((*key).to_owned(), value.clone());
    }
    Tokenizer::from_metadata(&metadata)
}

fn with_prefix() -> Tokenizer {
    tokenizer(&[], &[]).expect("a valid tokenizer")
}

fn without_prefix(more: &[&str]) -> Tokenizer {
    let change = ("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    tokenizer(more, &[change]).expect("a valid tokenizer")
}

/// Ids from sentencepiece 0.2.3 on a model proto of these pieces (BPE, byte fallback, the dummy prefix on, extra white
/// space kept), which the tokenizers library 0.23.3 with transformers' converted merges gives too.
#[rustfmt::skip]
pub(super) const PREFIXED: [(&str, &[u32]); 6] = [
    ("hello world", &[284, 260, 268, 288, 278]),
    ("  the  ring", &[270, 264, 270, 292, 273]),
    ("", &[]),
    ("there's é\n🚆", &[264, 266, 42, 291, 284, 198, 172, 13, 243, 162, 157, 137]),
    (" ", &[270]),
    ("hellohello in the world", &[284, 260, 268, 288, 260, 268, 288, 272, 264, 278]),
];

#[test]
fn ids_are_those_of_sentencepiece_with_its_space_in_front() {
    let tokenizer = with_prefix();
    for (text, ids) in PREFIXED {
        assert_eq!(tokenizer.encode(text, false), ids, "{text:?}");
        assert_eq!(tokenizer.decode(ids), text);
    }
    // From the tokenizers library: each stretch of text between marks gets its space.
    let ids = [1, 284, 260, 268, 288, 2, 270, 261];
    assert_eq!(tokenizer.encode("<s>hello</s> in", false), ids);
    assert_eq!(tokenizer.decode(&ids), "<s> hello</s>  in");
    assert_eq!(tokenizer.decode_text(&ids), "hello  in");
}

/// The same programs with the prefix off, as Gemma has it.
#[test]
fn ids_are_those_of_sentencepiece_without_a_space_in_front() {
    let tokenizer = without_prefix(&[]);
    #[rustfmt::skip]
    let cases: [(&str, &[u32]); 6] = [
        ("hello world", &[260, 268, 288, 278]),
        ("  the  ring", &[284, 264, 270, 292, 273]),
        ("there's é\n🚆", &[269, 266, 42, 291, 284, 198, 172, 13, 243, 162, 157, 137]),
        (" ", &[284]),
        ("hellohello in the world", &[260, 268, 288, 260, 268, 288, 272, 264, 278]),
        ("<s>hello</s> in", &[1, 260, 268, 288, 2, 272]),
    ];
    for (text, ids) in cases {
        assert_eq!(tokenizer.encode(text, false), ids, "{text:?}");
        assert_eq!(tokenizer.decode(ids), text);
    }
}

/// Again from sentencepiece, these two tokens being user-defined.
#[test]
fn user_defined_pieces_are_found_before_anything_is_merged() {
    for spaces in ["▁▁▁", "   "] {
        let tokenizer = without_prefix(&[spaces, "\n\n"]);
        let text = "the   world\n\n\nhello";
        let ids = [269, 298, 296, 274, 277, 299, 13, 260, 268, 288];
        assert_eq!(tokenizer.encode(text, false), ids);
        assert_eq!(tokenizer.decode_text(&ids), text);
        assert_eq!(tokenizer.encode("       in", false), [298, 298, 272]);
    }
}

#[test]
fn a_continuation_has_no_space_that_its_text_has_not() {
    let tokenizer = with_prefix();
    assert_eq!(
        tokenizer.encode_continuation("hello"),
        without_prefix(&[]).encode("hello", false)
    );
    assert_eq!(tokenizer.token_bytes(278), b" world");
    // What a stream shows is the bytes of the tokens: an answer goes on from its prompt.
    assert_eq!(tokenizer.decode(&[284, 260, 268, 288, 278]), "hello world");
    assert_eq!(tokenizer.encode_prompt("hello")[..2], [1, 284]);
}

#[test]
fn a_sequence_begins_with_bos_unless_the_file_says_otherwise() {
    assert_eq!(
        with_prefix().encode("in", true),
        [&[1][..], &with_prefix().encode("in", false)].concat()
    );
    let changes = [
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        ("tokenizer.ggml.add_eos_token", Value::Bool(true)),
    ];
    let tokenizer = tokenizer(&[], &changes).expect("a valid tokenizer");
    assert_eq!(tokenizer.encode("in", true), [272, 2]);
    assert_eq!(tokenizer.encode_prompt("in"), [272]);
    assert_eq!(tokenizer.end_of_turn(), [2]);
    assert!(tokenizer.is_special(0) && !tokenizer.is_special(3));
}

#[test]
fn the_marks_of_phi_3_swallow_the_blank_space_after_them() {
    let architecture = |name: &str| {
        let change = ("general.architecture", Value::String(name.into()));
        tokenizer(&[], &[change]).expect("a valid tokenizer")
    };
    assert_eq!(
        architecture("phi3").encode("<s> in</s> \nin", false),
        [1, 270, 261, 2, 272]
    );
    assert_eq!(
        architecture("llama").encode("<s> in</s> \nin", false),
        [1, 270, 261, 2, 270, 13, 261]
    );
}

#[test]
fn extra_white_space_is_removed_where_the_file_says() {
    let change = ("tokenizer.ggml.remove_extra_whitespaces", Value::Bool(true));
    let tokenizer = tokenizer(&[], &[change]).expect("a valid tokenizer");
    let plain = with_prefix();
    assert_eq!(
        tokenizer.encode("  the   ring ", false),
        plain.encode("the ring", false)
    );
}

#[test]
fn scores_must_be_there_one_for_each_token() {
    let refused = |changes: &[(&str, Value)]| {
        let error = tokenizer(&[], changes).expect_err("a refusal");
        error.to_string()
    };
    let key = "tokenizer.ggml.scores";
    insta::assert_snapshot!(refused(&[(key, Value::Array(vec![Value::F32(0.5)]))]), @"`tokenizer.ggml.scores` has 1 entries for 298 tokens; there must be one each");
    insta::assert_snapshot!(refused(&[(key, Value::U32(1))]), @"`tokenizer.ggml.scores` in the model file must be an array of 32-bit floats");
    let mut metadata = metadata(&[]);
    metadata.remove(key);
    insta::assert_snapshot!(Tokenizer::from_metadata(&metadata).expect_err("a refusal"), @"the model file has no `tokenizer.ggml.scores`; convert the model again with its tokenizer");
}

proptest! {
    #[test]
    fn any_text_comes_back_from_its_pieces(text in r"[ a-z\PC\n]{0,40}") {
        // The sign that stands for a space cannot be told from one.
        prop_assume!(!text.contains('▁'));
        for tokenizer in [with_prefix(), without_prefix(&["  "])] {
            prop_assert_eq!(&tokenizer.decode(&tokenizer.encode(&text, false)), &text);
            let continued = tokenizer.encode_continuation(&text);
            let bytes: Vec<u8> = (continued.iter()).flat_map(|&id| tokenizer.token_bytes(id)).copied().collect();
            prop_assert_eq!(bytes, text.as_bytes());
        }
    }
}
