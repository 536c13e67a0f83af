//! Any bytes as a GGUF file: header, metadata, tensor index, configuration, tokenizer and chat template.
#![no_main]

use engine::gguf::GgufFile;
use engine::{ChatTemplate, Tokenizer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = fuzz::scratch().join("model.gguf");
    fs_err::write(&path, data).expect("a writable folder");
    let _ = Tokenizer::load(&path);
    let Ok(file) = GgufFile::open(&path) else {
        return;
    };
    let _ = file.config();
    if let Ok(tokenizer) = Tokenizer::from_metadata(file.metadata()) {
        let ids = tokenizer.encode("The sea <|im_end|> 12é", true);
        assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocabulary()));
        let _ = ChatTemplate::from_metadata(file.metadata(), &tokenizer);
    }
});
