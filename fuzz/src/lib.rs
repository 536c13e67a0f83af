//! What the fuzz targets share: taking bytes apart, a folder for files, and the small models that hostile input is laid over.
//! Which parser gets which bytes is said in each target.
#![forbid(unsafe_code)]

pub mod gguf;
pub mod models;
#[cfg(feature = "service")]
pub mod service;

use std::alloc::System;
use std::path::Path;
use std::sync::OnceLock;

use adapters::{BaseModel, ProjectionShape};
use cap::Cap;
use tempfile::TempDir;

/// Most bytes that a target may hold at a time. The small models take a few megabytes, an input at most one: whoever asks for more
/// has believed a number in it, and the process ends with the input in hand.
const MOST_MEMORY: usize = 1 << 30;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, MOST_MEMORY);

/// Most bytes of tensor data that are made up for a header: enough for every shape of the small models.
const MOST_DATA: usize = 1 << 16;

/// Cuts `data` at its first `COUNT - 1` zero bytes. Text has none, so every part can be text, and what is missing is empty.
pub fn parts<const COUNT: usize>(data: &[u8]) -> [&[u8]; COUNT] {
    let mut pieces = data.splitn(COUNT, |byte| *byte == 0);
    std::array::from_fn(|_| pieces.next().unwrap_or_default())
}

/// A first byte of choices and what follows it.
pub fn choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first()
        .map_or((0, data), |(first, rest)| (*first, rest))
}

/// A folder of this process for files that a parser wants to open by path.
pub fn scratch() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| TempDir::new().expect("a temporary folder"))
        .path()
}

/// A safetensors file of this header. With `whole`, as many bytes of data follow as the header claims, so that what is checked
/// behind the sizes is reached; otherwise `data` as it is.
pub fn safetensors(header: &[u8], data: &[u8], whole: bool) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    let claimed = claimed_bytes(header).filter(|_| whole);
    match claimed {
        Some(bytes) => file.extend((0..bytes).map(|at| data.get(at).copied().unwrap_or_default())),
        None => file.extend_from_slice(data),
    }
    file
}

/// Where the last tensor of a header ends, when that is believable.
fn claimed_bytes(header: &[u8]) -> Option<usize> {
    let header: serde_json::Value = serde_json::from_slice(header).ok()?;
    let tensors = header.as_object()?.values();
    let ends = tensors.filter_map(|tensor| tensor["data_offsets"][1].as_u64());
    let end = usize::try_from(ends.max()?).ok()?;
    (end <= MOST_DATA).then_some(end)
}

/// A base of two layers: hidden size 4, key and value size 2, feed-forward size 6.
pub fn base(fused: bool) -> BaseModel {
    let shape = |inputs, outputs| ProjectionShape { inputs, outputs };
    BaseModel {
        name: "two-layers".to_owned(),
        digest: "ab".repeat(32),
        layers: 2,
        shapes: [
            shape(4, 4),
            shape(4, 2),
            shape(4, 2),
            shape(4, 4),
            shape(4, 6),
            shape(4, 6),
            shape(6, 4),
        ],
        fused,
    }
}
