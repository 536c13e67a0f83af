//! What the small files of a Hugging Face directory say of special tokens. Vocabulary and merges are `directory`'s.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokenizers::tokenizer::AddedToken;

use super::TokenizerError;

/// The file that names special tokens and may hold the chat template.
pub(crate) const TOKENIZER_CONFIGURATION: &str = "tokenizer_config.json";

/// Special tokens as the files name them.
#[derive(Debug, Default)]
pub(super) struct SpecialTokens {
    /// What `tokenizer_config.json` says, `special_tokens_map.json` filling in.
    pub(super) names: Names,
    /// What `config.json` says, used for BOS, EOS and padding where no file names them.
    pub(super) model: Ids,
    /// What `generation_config.json` says.
    pub(super) generation: Ids,
    /// Whether either file of names exists.
    pub(super) are_named: bool,
}

/// Special tokens by name.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Names {
    pub(super) bos_token: Option<Name>,
    pub(super) eos_token: Option<Name>,
    pub(super) pad_token: Option<Name>,
    /// Whether BOS goes before a text; the post-processor decides when this is absent.
    pub(super) add_bos_token: Option<bool>,
    /// Whether EOS goes after a text.
    pub(super) add_eos_token: Option<bool>,
    /// Tokens that may be missing in `tokenizer.json`, by id.
    #[serde(default)]
    pub(super) added_tokens_decoder: BTreeMap<String, AddedToken>,
}

/// A token's name, plain or with its properties.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Name {
    Plain(String),
    Token { content: String },
}

impl Name {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Plain(text) | Self::Token { content: text } => text,
        }
    }
}

/// Special tokens by id. Some files write -1 for none.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Ids {
    #[serde(default)]
    pub(super) bos_token_id: OneOrMany,
    #[serde(default)]
    pub(super) eos_token_id: OneOrMany,
    #[serde(default)]
    pub(super) pad_token_id: OneOrMany,
}

/// Nothing, one id or a list of them.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    #[default]
    None,
    One(i64),
    Many(Vec<i64>),
}

impl OneOrMany {
    /// The ids that are any.
    pub(super) fn ids(&self) -> Vec<u32> {
        let ids = match self {
            Self::None => &[][..],
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        };
        (ids.iter().filter(|id| **id >= 0))
            .map(|&id| u32::try_from(id).unwrap_or(u32::MAX))
            .collect()
    }
}

impl SpecialTokens {
    /// Reads the files that exist.
    pub(super) fn read(directory: &Path) -> Result<Self, TokenizerError> {
        let configured: Option<Names> = part(directory, TOKENIZER_CONFIGURATION)?;
        let mapped: Option<Names> = part(directory, "special_tokens_map.json")?;
        let are_named = configured.is_some() || mapped.is_some();
        let (mut names, mapped) = (configured.unwrap_or_default(), mapped.unwrap_or_default());
        names.bos_token = names.bos_token.or(mapped.bos_token);
        names.eos_token = names.eos_token.or(mapped.eos_token);
        names.pad_token = names.pad_token.or(mapped.pad_token);
        Ok(Self {
            names,
            are_named,
            model: part(directory, "config.json")?.unwrap_or_default(),
            generation: part(directory, "generation_config.json")?.unwrap_or_default(),
        })
    }
}

fn part<T: DeserializeOwned>(directory: &Path, file: &str) -> Result<Option<T>, TokenizerError> {
    let path = directory.join(file);
    json_file(&path).map_err(|reason| TokenizerError::Read { path, reason })
}

/// The content of a JSON file, `None` when there is no such file; otherwise why it cannot be read.
pub(crate) fn json_file<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    match fs_err::read(path) {
        Ok(bytes) => (serde_json::from_slice(&bytes).map(Some)).map_err(|error| error.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}
