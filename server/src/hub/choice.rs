//! Which of a repository's files make a model that can be served. Fetching them is for `transfer`.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::is_relative;

/// The list of a model's weight files, when there are several.
const INDEX: &str = "model.safetensors.index.json";

/// What a directory must have besides weights.
const NEEDED: [&str; 2] = ["config.json", "tokenizer.json"];

/// What is read of a directory when it is there.
const READ_TOO: [&str; 5] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    INDEX,
];

/// The quantisation taken of several: the smallest that is close to the full model on most tasks.
const PREFERRED: &str = "q4_k_m";

/// The files to be fetched, weights last.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// One GGUF file.
    Gguf([String; 1]),
    /// Configuration, tokenizer and safetensors.
    Directory(Vec<String>),
}

/// Why no files are chosen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// The file that was asked for is not there.
    Absent(String),
    /// Several GGUF files and none preferred.
    Several,
    /// Nothing that can be served.
    Nothing,
}

impl Choice {
    pub(super) fn files(&self) -> &[String] {
        match self {
            Self::Gguf(file) => file,
            Self::Directory(files) => files,
        }
    }

    /// What the engine loads, the files being under `folder`.
    pub(super) fn path_in(&self, folder: &Path) -> PathBuf {
        match self {
            Self::Gguf([file]) => folder.join(file),
            Self::Directory(_) => folder.to_path_buf(),
        }
    }

    /// Whether no weight file that the index names is missing.
    pub(super) fn is_whole_in(&self, folder: &Path) -> bool {
        let files = self.files();
        if !files.iter().any(|file| file == INDEX) {
            return true;
        }
        let index = fs_err::read(folder.join(INDEX)).unwrap_or_default();
        let index: Option<Index> = serde_json::from_slice(&index).ok();
        index.is_some_and(|index| {
            let named: BTreeSet<&String> = index.weight_map.values().collect();
            named.into_iter().all(|file| files.contains(file))
        })
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

/// The files of the one that is `wanted`; otherwise of a directory with safetensors; otherwise of one GGUF file.
pub(super) fn choose(files: &[String], wanted: Option<&str>) -> Result<Choice, Problem> {
    let has = |name: &str| files.iter().any(|file| file == name);
    if let Some(wanted) = wanted {
        return match has(wanted) && wanted.ends_with(".gguf") {
            true => Ok(Choice::Gguf([wanted.to_owned()])),
            false => Err(Problem::Absent(wanted.to_owned())),
        };
    }
    let weights = weights(files);
    if NEEDED.iter().all(|name| has(name)) && !weights.is_empty() {
        let small = NEEDED.into_iter().chain(READ_TOO);
        let mut chosen: Vec<String> = small.filter(|name| has(name)).map(str::to_owned).collect();
        chosen.extend(weights);
        return Ok(Choice::Directory(chosen));
    }
    let mut gguf = ggufs(files);
    let preferred = gguf
        .iter()
        .position(|file| file.to_lowercase().contains(PREFERRED));
    match (gguf.len(), preferred) {
        (0, _) => Err(Problem::Nothing),
        (1, _) => Ok(Choice::Gguf([gguf.remove(0)])),
        (_, Some(position)) => Ok(Choice::Gguf([gguf.remove(position)])),
        (_, None) => Err(Problem::Several),
    }
}

/// The GGUF files that hold a whole language model.
pub(super) fn ggufs(files: &[String]) -> Vec<String> {
    let whole = |file: &&String| {
        let name = file.to_lowercase();
        name.ends_with(".gguf") && !name.contains("mmproj") && !name.contains("-of-")
    };
    let mut found: Vec<String> = (files.iter())
        .filter(whole)
        .filter(|file| is_relative(file))
        .cloned()
        .collect();
    found.sort();
    found
}

fn weights(files: &[String]) -> Vec<String> {
    let single = "model.safetensors".to_owned();
    if files.contains(&single) {
        return vec![single];
    }
    let part = |file: &&String| {
        file.starts_with("model-") && file.ends_with(".safetensors") && is_relative(file)
    };
    let mut parts: Vec<String> = files.iter().filter(part).cloned().collect();
    parts.sort();
    parts
}
