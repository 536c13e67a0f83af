//! `tokenizer.json` and the small files beside it: built, and used on a text.
#![no_main]

use engine::{ChatTemplate, Tokenizer};
use libfuzzer_sys::fuzz_target;

const FILES: [&str; 4] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
];
const TEXTS: [&str; 3] = ["The sea is 12é <s>", "", "\u{0}\u{fffd} \n\t漢字"];

// The files follow each other, a zero byte between them; one that is empty is not there.
fuzz_target!(|data: &[u8]| {
    let folder = fuzz::scratch().join("tokenizer");
    fs_err::create_dir_all(&folder).expect("a writable folder");
    for (name, text) in FILES.into_iter().zip(fuzz::parts::<4>(data)) {
        let path = folder.join(name);
        if text.is_empty() {
            let _ = fs_err::remove_file(&path);
        } else {
            fs_err::write(&path, text).expect("a writable folder");
        }
    }
    let Ok(tokenizer) = Tokenizer::from_directory(&folder) else {
        return;
    };
    for text in TEXTS {
        let ids = tokenizer.encode(text, true);
        assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocabulary()));
        let _ = tokenizer.encode_continuation(text);
        let _ = tokenizer.decode(&ids);
    }
    let _ = tokenizer.to_json();
    let _ = ChatTemplate::from_directory(&folder, &tokenizer);
});
