//! The small good models that hostile input is laid over, written once in each process.

use std::path::PathBuf;
use std::sync::OnceLock;

use candle_core::quantized::gguf_file::Value;
use engine::testing::{TinyDecoder, TinyModel};
use engine::{KernelChoice, LoadOptions, Tokenizer};

use crate::gguf::File;
use crate::scratch;

/// One block as narrow as the quantised formats allow.
pub const SMALLEST: TinyModel = TinyModel {
    seed: 0,
    layers: 1,
    hidden: 32,
    intermediate: 32,
    heads: 2,
    kv_heads: 1,
    head_dim: 16,
    context_length: 64,
};

/// What every target loads with: one thread, and the kernels that any CPU has.
pub fn load_options() -> LoadOptions {
    LoadOptions {
        threads: 1,
        kernels: Some(KernelChoice::Portable),
        ..LoadOptions::default()
    }
}

/// GGUF files: the smallest model, then one of every architecture.
pub fn files() -> &'static [File] {
    static FILES: OnceLock<Vec<File>> = OnceLock::new();
    FILES.get_or_init(|| {
        let path = scratch().join("base.gguf");
        SMALLEST.write_to(&path).expect("a writable folder");
        let mut files = vec![File::read(&path)];
        for decoder in TinyDecoder::ALL {
            decoder.write_gguf(&path).expect("a writable folder");
            files.push(File::read(&path));
        }
        files
    })
}

/// Model directories, one of every architecture, each in a folder of its own.
pub fn directories() -> &'static [PathBuf] {
    static DIRECTORIES: OnceLock<Vec<PathBuf>> = OnceLock::new();
    DIRECTORIES.get_or_init(|| {
        let write = |decoder: TinyDecoder| {
            let path = scratch().join(format!("{decoder:?}"));
            decoder
                .write_directory(&path, false)
                .expect("a writable folder");
            path
        };
        TinyDecoder::ALL.into_iter().map(write).collect()
    })
}

/// Ways in which text is cut into words before it is merged.
const WORDS: [&str; 7] = [
    "smollm",
    "gpt-2",
    "llama-bpe",
    "dbrx",
    "qwen2",
    "tekken",
    "gpt-4o",
];

/// A tokenizer for every way of cutting words, one over sentence pieces, and one of a directory's files.
pub fn tokenizers() -> &'static [Tokenizer] {
    static TOKENIZERS: OnceLock<Vec<Tokenizer>> = OnceLock::new();
    TOKENIZERS.get_or_init(|| {
        let build = |changes: Vec<(&'static str, Value)>| {
            let metadata = SMALLEST.metadata().into_iter().chain(changes);
            let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
            Tokenizer::from_metadata(&metadata.collect()).expect("a valid tokenizer")
        };
        let words = |name: &str| vec![("tokenizer.ggml.pre", Value::String(name.to_owned()))];
        let mut all: Vec<Tokenizer> = WORDS.iter().map(|name| build(words(name))).collect();
        all.push(build(sentence_pieces()));
        all.push(Tokenizer::from_directory(&directories()[0]).expect("a valid tokenizer"));
        all
    })
}

/// A vocabulary of sentence pieces: every byte, and a few words.
fn sentence_pieces() -> Vec<(&'static str, Value)> {
    let bytes = (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>"));
    let words = ["▁", "t", "h", "e", "he", "▁t", "▁the", "é", "▁▁", "<extra>"];
    let marks = ["<unk>", "<s>", "</s>"].map(str::to_owned);
    let pieces: Vec<String> = marks
        .into_iter()
        .chain(bytes)
        .chain(words.map(str::to_owned))
        .collect();
    let kind = |piece: &String| match piece.as_str() {
        "<unk>" => 2,
        "<s>" | "</s>" => 3,
        "<extra>" | "▁▁" => 4,
        _ => 1,
    };
    let scores = (0..pieces.len()).map(|id| Value::F32(-(id as f32)));
    vec![
        ("tokenizer.ggml.model", Value::String("llama".to_owned())),
        ("tokenizer.ggml.scores", Value::Array(scores.collect())),
        (
            "tokenizer.ggml.token_type",
            Value::Array(pieces.iter().map(|piece| Value::I32(kind(piece))).collect()),
        ),
        (
            "tokenizer.ggml.tokens",
            Value::Array(pieces.into_iter().map(Value::String).collect()),
        ),
        ("tokenizer.ggml.add_space_prefix", Value::Bool(true)),
    ]
}
