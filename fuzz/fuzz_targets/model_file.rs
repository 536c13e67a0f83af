//! A good GGUF file of any architecture with a few things wrong in it, loaded as the server loads it.
#![no_main]

use arbitrary::Arbitrary;
use engine::Model;
use fuzz::gguf::Edit;
use fuzz::models;
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Case {
    base: u8,
    edits: Vec<Edit>,
}

fuzz_target!(|case: Case| {
    let files = models::files();
    // The smallest one half of the time: it is the fastest.
    let base = usize::from(case.base) % (2 * files.len());
    let file = files.get(base).unwrap_or(&files[0]);
    let path = fuzz::scratch().join("model.gguf");
    fs_err::write(&path, file.edited(case.edits)).expect("a writable folder");
    match Model::load(&path, &models::load_options()) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(model) => {
            let tokenizer = model.tokenizer();
            let ids = tokenizer.encode("The sea is 12é", true);
            assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocabulary()));
            assert!(model.base().layers > 0);
        }
    }
});
