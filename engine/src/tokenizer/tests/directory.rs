//! Tokenizers of Hugging Face directories, against those of GGUF files with the same vocabulary.

use serde_json::{Value as Json, json};

use super::sentence_piece::{PREFIXED, tokens};
use super::*;

/// A temporary directory with these files.
struct Directory(tempfile::TempDir);

impl Directory {
    fn new(files: &[(&str, &Json)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let directory = Self(folder);
        for (name, content) in files {
            fs_err::write(directory.0.path().join(name), content.to_string()).expect("writable");
        }
        directory
    }

    fn load(&self) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::from_directory(self.0.path())
    }

    fn refusal(&self) -> String {
        let error = self.load().expect_err("a refusal").to_string();
        error.replace(&self.0.path().display().to_string(), "DIR")
    }
}

fn load(files: &[(&str, &Json)]) -> Tokenizer {
    Directory::new(files).load().expect("a valid directory")
}

/// `tokenizer.json` of the SentencePiece vocabulary, as transformers' converter writes it for Llama 2.
fn sentence_piece() -> Json {
    let tokens = tokens();
    let vocabulary: serde_json::Map<String, Json> = (tokens.iter().zip(0u32..))
        .map(|((token, _), id)| (token.clone(), id.into()))
        .collect();
    // Its merges, in the order the converter derives for these scores.
    #[rustfmt::skip]
    let merges = [
        ("▁", "t"), ("h", "e"), ("i", "n"), ("e", "r"), ("▁", "a"), ("▁t", "he"), ("▁", "the"), ("o", "n"),
        ("r", "e"), ("▁", "s"), ("l", "l"), ("t", "he"), ("▁", "▁"), ("e", "ll"), ("▁", "in"), ("in", "g"),
        ("o", "r"), ("▁", "w"), ("▁w", "or"), ("l", "d"), ("▁wor", "ld"), ("▁", "h"), ("▁h", "ell"),
        ("ell", "o"), ("▁hell", "o"), ("▁h", "ello"), ("▁▁", "▁▁"),
    ];
    let added = |id: usize| json!({"id": id, "content": tokens[id].0, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": [added(0), added(1), added(2)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
            "vocab": vocabulary, "merges": merges,
        },
    })
}

/// `tokenizer.json` of the tiny model's byte-level vocabulary, with merges as older files have them.
fn byte_level() -> Json {
    let metadata = tiny_metadata();
    let texts = |key: &str| match &metadata[key] {
        Value::Array(values) => values.clone().into_iter(),
        other => unreachable!("{key} is {other:?}"),
    };
    let text = |value: Value| value.to_string().cloned().expect("a string");
    let vocabulary: serde_json::Map<String, Json> = texts("tokenizer.ggml.tokens")
        .zip(0u32..)
        .map(|(token, id)| (text(token), id.into()))
        .collect();
    let merges: Vec<String> = texts("tokenizer.ggml.merges").map(text).collect();
    let added: Vec<Json> = (crate::testing::SPECIAL_TOKENS.iter().zip(0..))
        .map(|(token, id)| json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}))
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "vocab": vocabulary, "merges": merges,
        },
    })
}

fn changed(mut file: Json, pointer: &str, value: Json) -> Json {
    *file.pointer_mut(pointer).expect("a part of the file") = value;
    file
}

#[test]
fn a_sentence_piece_directory_gives_the_ids_of_its_gguf() {
    let names = json!({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "pad_token": null});
    let generation = json!({"eos_token_id": [2, 260], "pad_token_id": -1});
    let tokenizer = load(&[
        ("tokenizer.json", &sentence_piece()),
        ("tokenizer_config.json", &names),
        ("generation_config.json", &generation),
    ]);
    for (text, ids) in PREFIXED {
        assert_eq!(tokenizer.encode(text, false), ids, "{text:?}");
        assert_eq!(tokenizer.encode(text, true), [&[1], ids].concat());
        assert_eq!(tokenizer.decode(ids), text);
    }
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.pad()),
        (Some(1), Some(2), None)
    );
    assert_eq!(tokenizer.end_of_turn(), [2, 260]);
    assert_eq!(tokenizer.encode_continuation("hello"), [260, 268, 288]);
    assert_eq!(
        (tokenizer.token_bytes(278), tokenizer.token_bytes(198)),
        (&b" world"[..], &[0xc3][..])
    );
    assert_eq!(tokenizer.vocabulary(), 298);
    assert!(tokenizer.is_special(2) && !tokenizer.is_special(260));
}

#[test]
fn a_metaspace_directory_puts_its_space_before_the_first_text_only() {
    let file = changed(sentence_piece(), "/normalizer", Json::Null);
    let metaspace =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    let tokenizer = load(&[(
        "tokenizer.json",
        &changed(file, "/pre_tokenizer", metaspace),
    )]);
    assert_eq!(
        tokenizer.encode("hello world", false),
        [284, 260, 268, 288, 278]
    );
    assert_eq!(tokenizer.encode("<s>hello", false), [1, 260, 268, 288]);
    assert_eq!(tokenizer.encode_continuation("hello"), [260, 268, 288]);
}

#[test]
fn a_byte_level_directory_gives_the_ids_of_its_gguf() {
    let map =
        json!({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|pad|>"});
    let tokenizer = load(&[
        ("tokenizer.json", &byte_level()),
        ("special_tokens_map.json", &map),
    ]);
    let from_file = tiny();
    for text in [
        "<|im_start|>user\nthe 12 seas é🚆<|im_end|>",
        "",
        "  positive",
    ] {
        let ids = from_file.encode(text, false);
        assert_eq!(tokenizer.encode(text, true), ids);
        assert_eq!(tokenizer.encode_continuation(text), ids);
        assert_eq!(tokenizer.decode(&ids), text);
    }
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.pad()),
        (Some(1), Some(2), Some(3))
    );
    assert_eq!(tokenizer.end_of_turn(), from_file.end_of_turn());
    assert_eq!(
        tokenizer.token_string(Some(2)).as_deref(),
        Some("<|im_end|>")
    );
}

#[test]
fn ids_in_the_model_s_configuration_stand_in_for_missing_names() {
    let configuration = json!({"bos_token_id": 1, "eos_token_id": 2, "model_type": "llama"});
    let file = byte_level();
    let unnamed = load(&[("tokenizer.json", &file), ("config.json", &configuration)]);
    assert_eq!((unnamed.bos(), unnamed.eos()), (Some(1), Some(2)));
    let named = load(&[
        ("tokenizer.json", &file),
        ("config.json", &configuration),
        (
            "tokenizer_config.json",
            &json!({"bos_token": null, "eos_token": "<|pad|>"}),
        ),
    ]);
    assert_eq!((named.bos(), named.eos()), (None, Some(3)));
    assert_eq!(named.end_of_turn(), [0, 2, 3]);
}

#[test]
fn flags_go_above_the_post_processor() {
    let with = |bos: bool, eos: bool| {
        let names = json!({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": bos, "add_eos_token": eos});
        let tokenizer = load(&[
            ("tokenizer.json", &sentence_piece()),
            ("tokenizer_config.json", &names),
        ]);
        tokenizer.encode("in", true)
    };
    assert_eq!(with(true, false), [1, 272]);
    assert_eq!(with(false, true), [272, 2]);
}

#[test]
fn tokens_of_the_configuration_are_added_when_the_vocabulary_lacks_them() {
    let token = json!({"content": "<|more|>", "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": false});
    let tokenizer = load(&[
        ("tokenizer.json", &sentence_piece()),
        (
            "tokenizer_config.json",
            &json!({"added_tokens_decoder": {"298": token}}),
        ),
    ]);
    assert_eq!(tokenizer.encode("<|more|>in", false), [298, 272]);
    assert_eq!(tokenizer.decode_text(&[298, 272]), "<|more|> in");
}

#[test]
fn what_cannot_be_reproduced_in_a_directory_is_refused() {
    let refused = |pointer: &str, value: Json| {
        let file = changed(sentence_piece(), pointer, value);
        Directory::new(&[("tokenizer.json", &file)]).refusal()
    };
    insta::assert_snapshot!(refused("/model/type", json!("Unigram")), @"DIR/tokenizer.json: `model.type` is Unigram, which is not supported; supported: BPE");
    insta::assert_snapshot!(refused("/model/dropout", json!(0.1)), @"DIR/tokenizer.json: `model.dropout` is 0.1, which is not supported; supported: none");
    insta::assert_snapshot!(refused("/model/unk_token", json!("[UNK]")), @"DIR/tokenizer.json: `model.unk_token` is `[UNK]`, which is not supported; supported: a token of `model.vocab`");
    insta::assert_snapshot!(refused("/model/continuing_subword_prefix", json!("##")), @"DIR/tokenizer.json: `model.continuing_subword_prefix` is `##`, which is not supported; supported: none");
    insta::assert_snapshot!(refused("/model/merges", json!([["▁", "t"], ["▁", "zz"]])), @"merge 1, `▁ zz`, does not join two tokens of the vocabulary to a third");
    insta::assert_snapshot!(refused("/decoder", json!({"type": "WordPiece", "prefix": "##", "cleanup": true})), @"DIR/tokenizer.json: `decoder` is WordPiece, which is not supported; supported: ByteLevel, Metaspace, or Replace of `▁`");
    insta::assert_snapshot!(refused("/decoder", Json::Null), @"DIR/tokenizer.json: `decoder` is absent, which is not supported; supported: ByteLevel, Metaspace, or Replace of `▁`");
    insta::assert_snapshot!(refused("/model/vocab/ell", json!(4_000_000_000u32)), @"`model.vocab` is 4000000000, outside the vocabulary of 16777216 tokens");
    insta::assert_snapshot!(Directory::new(&[]).refusal(), @"DIR/tokenizer.json: cannot read the tokenizer: failed to open file `DIR/tokenizer.json`: No such file or directory (os error 2)");
    let outside = Directory::new(&[
        ("tokenizer.json", &sentence_piece()),
        ("generation_config.json", &json!({"eos_token_id": 298})),
    ]);
    insta::assert_snapshot!(outside.refusal(), @"`eos_token_id` is 298, outside the vocabulary of 298 tokens");
    let unreadable = Directory::new(&[
        ("tokenizer.json", &sentence_piece()),
        ("tokenizer_config.json", &json!({"bos_token": 5})),
    ]);
    insta::assert_snapshot!(unreadable.refusal(), @"DIR/tokenizer_config.json: cannot read the tokenizer: data did not match any variant of untagged enum Name at line 1 column 15");
}
