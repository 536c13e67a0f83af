//! The chat template among the files of a Hugging Face directory. Compiling and running it is the parent's.

use std::path::Path;

use serde::Deserialize;

use super::TemplateError;
use crate::tokenizer::{TOKENIZER_CONFIGURATION, json_file};

/// The source of a directory's template: `chat_template.jinja`, otherwise what `tokenizer_config.json` has.
pub(super) fn source(directory: &Path) -> Result<Option<String>, TemplateError> {
    let path = directory.join("chat_template.jinja");
    match fs_err::read_to_string(&path) {
        Ok(source) => Ok(Some(source)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => configured(directory),
        Err(error) => {
            let reason = error.to_string();
            Err(TemplateError::Read { path, reason })
        }
    }
}

/// `chat_template` as `tokenizer_config.json` may write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Configured {
    One(String),
    Several(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

#[derive(Deserialize)]
struct TokenizerConfiguration {
    chat_template: Option<Configured>,
}

fn configured(directory: &Path) -> Result<Option<String>, TemplateError> {
    let path = directory.join(TOKENIZER_CONFIGURATION);
    let configuration: Option<TokenizerConfiguration> = match json_file(&path) {
        Ok(configuration) => configuration,
        Err(reason) => return Err(TemplateError::Read { path, reason }),
    };
    match configuration.and_then(|configuration| configuration.chat_template) {
        None => Ok(None),
        Some(Configured::One(source)) => Ok(Some(source)),
        Some(Configured::Several(templates)) => {
            let names: Vec<String> = templates.iter().map(|t| format!("`{}`", t.name)).collect();
            let default = templates.into_iter().find(|t| t.name == "default");
            let missing = || TemplateError::NoDefault {
                path,
                found: names.join(", "),
            };
            default.map(|t| Some(t.template)).ok_or_else(missing)
        }
    }
}
