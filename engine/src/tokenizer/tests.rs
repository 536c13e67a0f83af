mod directory;
mod sentence_piece;

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;
use proptest::prelude::*;

use super::*;
use crate::testing::TinyModel;

fn tiny_metadata() -> HashMap<String, Value> {
    (TinyModel::default().metadata().into_iter())
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

fn tiny() -> Tokenizer {
    Tokenizer::from_metadata(&tiny_metadata()).expect("a valid tokenizer")
}

fn changed(key: &str, value: Value) -> Result<Tokenizer, TokenizerError> {
    let mut metadata = tiny_metadata();
    metadata.insert(key.to_owned(), value);
    Tokenizer::from_metadata(&metadata)
}

fn refusal(key: &str, value: Value) -> String {
    changed(key, value).expect_err("a refusal").to_string()
}

fn spelled(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    let ids = tokenizer.encode(text, false);
    ids.into_iter()
        .map(|id| String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned())
        .collect()
}

#[test]
fn merges_apply_in_their_order_within_words() {
    let tokenizer = tiny();
    assert_eq!(
        spelled(&tokenizer, "positive negative"),
        ["positive", " ", "negative"]
    );
    assert_eq!(spelled(&tokenizer, "the the"), ["t", "he", " the"]);
    assert_eq!(spelled(&tokenizer, "a 12"), ["a", " ", "1", "2"]);
}

#[test]
fn special_tokens_are_found_in_text_and_left_out_of_it() {
    let tokenizer = tiny();
    let ids = tokenizer.encode("<|im_start|>hé<|im_end|>", false);
    assert_eq!((ids[0], *ids.last().expect("five ids")), (1, 2));
    assert_eq!(ids.len(), 5);
    assert_eq!(tokenizer.decode(&ids), "<|im_start|>hé<|im_end|>");
    assert_eq!(tokenizer.decode_text(&ids), "hé");
    assert!(tokenizer.is_special(2) && !tokenizer.is_special(ids[1]));
    assert_eq!(tokenizer.decode(&ids[..3]), "<|im_start|>h\u{fffd}");
}

#[test]
fn the_file_names_its_special_tokens() {
    let tokenizer = tiny();
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.pad()),
        (Some(1), Some(2), Some(2))
    );
    assert_eq!(tokenizer.end_of_turn(), [0, 2]);
    assert_eq!(
        tokenizer.token_string(tokenizer.eos()).as_deref(),
        Some("<|im_end|>")
    );
    assert_eq!(tokenizer.token_string(None), None);
    assert_eq!(tokenizer.vocabulary(), 320);
    assert_eq!(
        (tokenizer.token_bytes(320), tokenizer.is_special(320)),
        (&[][..], false)
    );
}

#[test]
fn bos_and_eos_are_added_where_the_file_says_and_the_caller_asks() {
    let plain = tiny();
    assert_eq!(plain.encode("the", true), plain.encode("the", false));
    let both = |key: &str| changed(key, Value::Bool(true)).expect("a valid tokenizer");
    let bos = both("tokenizer.ggml.add_bos_token").encode("the", true);
    assert_eq!(bos, [&[1][..], &plain.encode("the", false)].concat());
    let eos = both("tokenizer.ggml.add_eos_token").encode("the", true);
    assert_eq!(eos, [&plain.encode("the", false), &[2][..]].concat());
    let mut llama = tiny_metadata();
    llama.insert(
        "tokenizer.ggml.pre".into(),
        Value::String("llama-bpe".into()),
    );
    llama.remove("tokenizer.ggml.add_bos_token");
    let llama = Tokenizer::from_metadata(&llama).expect("a valid tokenizer");
    assert_eq!(llama.encode("the", true)[0], 1);
    assert_ne!(llama.encode("the", false)[0], 1);
}

#[test]
fn user_defined_tokens_are_text() {
    let mut metadata = tiny_metadata();
    let Some(Value::Array(types)) = metadata.get_mut("tokenizer.ggml.token_type") else {
        unreachable!("the tiny model has token types");
    };
    types[3] = Value::I32(4);
    let tokenizer = Tokenizer::from_metadata(&metadata).expect("a valid tokenizer");
    assert_eq!(tokenizer.encode("<|pad|>", false), [3]);
    assert_eq!(tokenizer.decode_text(&[3, 2]), "<|pad|>");
}

#[test]
fn what_cannot_be_reproduced_is_refused() {
    let text = |text: &str| Value::String(text.into());
    insta::assert_snapshot!(refusal("tokenizer.ggml.model", text("bert")), @"tokenizer model `bert` is not supported; supported: gpt2 (byte-level BPE), llama (SentencePiece BPE)");
    insta::assert_snapshot!(refusal("tokenizer.ggml.pre", text("bloom")), @"pre-tokenizer `bloom` is not supported; supported: smollm, gpt-2, default, llama-bpe, llama3, llama-v3, dbrx, qwen2, tekken, gpt-4o, llama4");
    insta::assert_snapshot!(refusal("tokenizer.ggml.pre", Value::U32(1)), @"`tokenizer.ggml.pre` in the model file must be a string");
    insta::assert_snapshot!(refusal("tokenizer.ggml.eos_token_id", Value::U32(320)), @"`tokenizer.ggml.eos_token_id` is 320, outside the vocabulary of 320 tokens");
    insta::assert_snapshot!(refusal("tokenizer.ggml.merges", Value::Array(vec![text("t h"), text("t zz")])), @"merge 1, `t zz`, does not join two tokens of the vocabulary to a third");
    insta::assert_snapshot!(refusal("tokenizer.ggml.token_type", Value::Array(vec![Value::I32(1); 7])), @"`tokenizer.ggml.token_type` has 7 entries for 320 tokens; there must be one each");
    let mut metadata = tiny_metadata();
    metadata.remove("tokenizer.ggml.merges");
    insta::assert_snapshot!(Tokenizer::from_metadata(&metadata).expect_err("a refusal"), @"the model file has no `tokenizer.ggml.merges`; convert the model again with its tokenizer");
}

#[test]
fn a_tokenizer_loads_from_a_file_and_names_one_it_cannot_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = TinyModel::write(folder.path(), 5);
    let loaded = Tokenizer::load(&path).expect("a valid file");
    assert_eq!(
        loaded.encode("of the sea", false),
        tiny().encode("of the sea", false)
    );
    let missing = Tokenizer::load(&folder.path().join("absent.gguf")).expect_err("no such file");
    assert!(missing.to_string().contains("absent.gguf"), "{missing}");
}

proptest! {
    #[test]
    fn any_text_comes_back_from_its_ids(text in r"[\PC\s]{0,60}") {
        let tokenizer = tiny();
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text, false)), text);
    }
}

/// The tokenizer of the default base model.
fn base_model(test: &str) -> Option<Tokenizer> {
    let path = crate::testing::base_model(test)?;
    Some(Tokenizer::load(&path).expect("the base model's tokenizer"))
}

/// Ids from the tokenizers library set up by hand as SmolLM2's authors publish it.
#[test]
fn the_base_model_gives_the_published_ids() {
    let Some(tokenizer) = base_model("the_base_model_gives_the_published_ids") else {
        return;
    };
    let cases: [(&str, &[u32]); 6] = [
        (
            "Swap the adapter, keep the base.",
            &[14395, 512, 260, 33303, 28, 1446, 260, 3159, 30],
        ),
        (
            "room 404, 7th floor\t(+1)\n\n  it's   late",
            &[
                3066, 216, 36, 32, 36, 28, 216, 39, 373, 6289, 197, 24, 27, 33, 25, 8866, 357, 506,
                256, 3008,
            ],
        ),
        (
            "<|im_start|>assistant\nÇa va ? ½ 東京🚆<|im_end|>",
            &[
                1, 520, 9531, 198, 142, 225, 81, 46316, 9148, 216, 16738, 17097, 247, 126, 16736,
                122, 10813, 244, 224, 2,
            ],
        ),
        (
            "### Input:\ngreat phone\n### Sentiment:",
            &[
                3757, 18100, 42, 198, 18680, 5460, 198, 3757, 18279, 2572, 42,
            ],
        ),
        ("positive", &[16185]),
        (" \u{a0}\u{200b}!!", &[216, 15442, 321, 229, 10095]),
    ];
    for (text, ids) in cases {
        assert_eq!(tokenizer.encode(text, true), ids, "{text:?}");
        assert_eq!(tokenizer.decode(ids), text);
    }
    assert_eq!(tokenizer.vocabulary(), 49_152);
    assert_eq!(tokenizer.end_of_turn(), [0, 2]);
}

/// Strings and ids kept beside the checkout, from two other implementations.
#[test]
fn the_base_model_agrees_with_the_reference_ids_kept_outside() {
    let test = "the_base_model_agrees_with_the_reference_ids_kept_outside";
    let (Some(folder), Some(tokenizer)) =
        (crate::testing::reference_values(test), base_model(test))
    else {
        return;
    };
    let json = fs_err::read(folder.join("tokens_hf_and_llamacpp.json")).expect("a readable file");
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&json).expect("a list of cases");
    assert!(cases.len() >= 30, "{} cases", cases.len());
    for case in cases {
        let text = case["text"].as_str().expect("a text");
        let ids: Vec<u32> = serde_json::from_value(case["ids_llamacpp"].clone()).expect("ids");
        assert_eq!(tokenizer.encode(text, false), ids, "{text:?}");
    }
}
