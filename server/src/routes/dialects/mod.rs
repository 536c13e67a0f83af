//! Other servers' HTTP interfaces over the one registry and engine, so that their clients work unchanged. A file here translates:
//! fields into those of `inference` and `loading`, answers and errors into the other server's shapes. It decides nothing of its own.

pub mod ending;
pub mod generate;
pub mod llama_cpp;
pub mod open_inference;
pub mod registered;
pub mod sglang;
pub mod spoken;
pub mod tgi;
pub mod vllm;
