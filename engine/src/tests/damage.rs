//! Damaged model files: an error that names the file, never a panic, never half a model.

use proptest::prelude::*;

use super::*;
use crate::LoadError;

fn tiny_file() -> (Vec<u8>, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = TinyModel::write(directory.path(), 7);
    (fs_err::read(path).expect("a readable file"), directory)
}

fn load(bytes: &[u8], directory: &tempfile::TempDir) -> Result<Model, LoadError> {
    let path = directory.path().join("damaged.gguf");
    fs_err::write(&path, bytes).expect("a writable directory");
    Model::load(&path, &options(KernelChoice::Portable, false))
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let (bytes, directory) = tiny_file();
    for part in 0..64 {
        let length = bytes.len() * part / 64;
        let error = load(&bytes[..length], &directory).err();
        let message = error.expect("half a model is no model").to_string();
        assert!(message.contains("damaged.gguf"), "{length}: {message}");
    }
}

#[test]
fn a_file_that_is_not_there_says_what_to_do() {
    let error = Model::load("no/such.gguf".as_ref(), &LoadOptions::default()).err();
    let message = error.expect("there is no such file").to_string();
    assert!(
        message.contains("no/such.gguf") && message.contains("make model"),
        "{message}"
    );
}

#[test]
fn an_absurd_size_is_refused_before_anything_is_allocated_for_it() {
    let (mut bytes, directory) = tiny_file();
    let key = b"llama.context_length";
    let found = bytes.windows(key.len()).position(|window| window == key);
    // The key is followed by the value's type (four bytes) and the value.
    let at = found.expect("the key is there") + key.len() + 4;
    bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let message = load(&bytes, &directory)
        .err()
        .expect("a refusal")
        .to_string();
    assert!(message.contains("llama.context_length"), "{message}");
}

#[test]
fn a_number_of_layers_that_no_tensors_stand_for_is_refused_at_once() {
    let (mut bytes, directory) = tiny_file();
    let key = b"llama.block_count";
    let found = bytes.windows(key.len()).position(|window| window == key);
    let at = found.expect("the key is there") + key.len() + 4;
    bytes[at..at + 4].copy_from_slice(&(1_u32 << 20).to_le_bytes());
    let message = load(&bytes, &directory)
        .err()
        .expect("a refusal")
        .to_string();
    assert!(
        message.contains("1048576 layers and holds 20 tensors"),
        "{message}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_header_with_wrong_bytes_never_panics(at in 0usize..6000, value in any::<u8>()) {
        let (mut bytes, directory) = tiny_file();
        let at = at % bytes.len();
        bytes[at] = value;
        // Some bytes do not matter; whatever comes out, it comes out as a value.
        let _ = load(&bytes, &directory);
    }
}
