//! The tiny model's tokenizer as a model directory has it.

use serde_json::json;

use super::{CHAT_TEMPLATE, SPECIAL_TOKENS, TinyModel, vocabulary};

impl TinyModel {
    /// Names and contents of `tokenizer.json` and `tokenizer_config.json`: the tokens, merges and chat template of
    /// [`TinyModel::metadata`].
    pub fn tokenizer_files(&self) -> [(&'static str, String); 2] {
        let (tokens, merges) = vocabulary();
        let ids: serde_json::Map<_, _> = tokens
            .into_iter()
            .enumerate()
            .map(|(id, token)| (token, json!(id)))
            .collect();
        let added: Vec<_> = SPECIAL_TOKENS
            .iter()
            .enumerate()
            .map(|(id, token)| {
                json!({"id": id, "content": token, "special": true, "single_word": false,
                    "lstrip": false, "rstrip": false, "normalized": false})
            })
            .collect();
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": true},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            ]},
            "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": SPECIAL_TOKENS[0], "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": ids,
                "merges": merges},
        });
        let config = json!({
            "tokenizer_class": "GPT2Tokenizer", "add_prefix_space": false, "bos_token": SPECIAL_TOKENS[1],
            "eos_token": SPECIAL_TOKENS[2], "pad_token": SPECIAL_TOKENS[2], "unk_token": SPECIAL_TOKENS[0],
            "chat_template": CHAT_TEMPLATE,
        });
        [
            ("tokenizer.json", tokenizer.to_string()),
            ("tokenizer_config.json", config.to_string()),
        ]
    }
}
