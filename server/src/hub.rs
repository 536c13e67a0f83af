//! Models by name: `org/name` is fetched from a Hugging Face hub into the standard cache, once, and taken from there
//! afterwards. Which files a model needs is for `choice` to say, reading them for the engine.

mod choice;
mod error;
mod settings;
#[cfg(test)]
mod tests;
mod transfer;

use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo, RepoType};

use choice::{Choice, choose};
pub use error::HubError;
pub use settings::HubSettings;
use transfer::Transfer;

/// A model on the hub: `org/name`, `org/name@revision`, `org/name:file.gguf`, or `org/name@revision:file.gguf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubModel {
    /// `org/name`.
    pub repository: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// The one file that is wanted.
    pub file: Option<String>,
}

impl HubModel {
    /// Reads a name; `None` for what is no such name but looks like a path.
    pub fn parse(text: &str) -> Option<Self> {
        let (text, file) = match text.split_once(':') {
            Some((text, file)) => (text, Some(file.to_owned())),
            None => (text, None),
        };
        let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (organisation, name) = repository.split_once('/')?;
        let is_file = |name: &str| name.ends_with(".gguf") || name.ends_with(".safetensors");
        let valid = [organisation, name].iter().all(|part| is_name(part))
            && !is_file(name)
            && is_relative(revision)
            && file.as_deref().is_none_or(is_relative);
        valid.then(|| Self {
            repository: repository.to_owned(),
            revision: revision.to_owned(),
            file,
        })
    }

    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(
            self.repository.clone(),
            RepoType::Model,
            revision.to_owned(),
        )
    }
}

impl std::fmt::Display for HubModel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.repository)?;
        if self.revision != "main" {
            write!(formatter, "@{}", self.revision)?;
        }
        (self.file.iter()).try_for_each(|file| write!(formatter, ":{file}"))
    }
}

/// What a name in the configuration stands for: what is there under that path, otherwise a model on the hub.
pub fn named(model: &Path) -> Option<HubModel> {
    if model.exists() {
        return None;
    }
    HubModel::parse(model.to_str()?)
}

/// The model's files, from the cache or else the hub: the path of a GGUF file, or of a directory with safetensors.
/// Blocks while files are downloaded; an interrupted download goes on where it stopped.
///
/// # Errors
/// When the model is not in the cache and the hub cannot be reached, does not have it or does not show it; when it has
/// no file that can be served.
pub fn fetch(model: &HubModel, settings: &HubSettings) -> Result<PathBuf, HubError> {
    let cache = Cache::new(settings.cache.clone());
    if let Some(found) = cached(model, &cache) {
        tracing::info!(%model, path = %found.display(), "model found in the cache");
        return Ok(found);
    }
    if settings.offline {
        return Err(HubError::Offline {
            model: model.to_string(),
            cache: settings.cache.clone(),
        });
    }
    let transfer = Transfer::new(model, settings)?;
    let listing = transfer.listing()?;
    let choice = choose(&listing.files, model.file.as_deref()).map_err(|problem| {
        let files = listing.files.clone();
        HubError::from_problem(model, problem, files)
    })?;
    tracing::info!(%model, revision = listing.commit, files = choice.files().join(", "), "downloading");
    let folder = transfer.download(&listing.commit, choice.files())?;
    // Only now, so that an interrupted download is never taken for a whole model.
    let named = cache.repo(model.repo(&model.revision));
    (named.create_ref(&listing.commit)).map_err(|error| HubError::Cache {
        cache: settings.cache.clone(),
        reason: error.to_string(),
    })?;
    Ok(choice.path_in(&folder))
}

/// The model as an earlier download, by this program or another, left it in the cache.
fn cached(model: &HubModel, cache: &Cache) -> Option<PathBuf> {
    let repository = cache.path().join(model.repo("main").folder_name());
    let reference = repository.join("refs").join(&model.revision);
    let commit = match fs_err::read_to_string(reference) {
        Ok(commit) => commit.trim().to_owned(),
        Err(_) => model.revision.clone(),
    };
    let folder = repository.join("snapshots").join(commit);
    let mut files = Vec::new();
    list(&folder, "", &mut files);
    let choice: Choice = choose(&files, model.file.as_deref()).ok()?;
    (choice.is_whole_in(&folder)).then(|| choice.path_in(&folder))
}

/// The files under a folder by their path from it, those in folders below it too.
fn list(folder: &Path, prefix: &str, files: &mut Vec<String>) {
    let Ok(entries) = fs_err::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let (path, name) = (entry.path(), format!("{prefix}{name}"));
        match path.is_dir() {
            true => list(&path, &format!("{name}/"), files),
            // Follows the link, so that one whose blob is gone does not count.
            false if path.exists() => files.push(name),
            false => {}
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(['.', '-'])
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Whether a path from the hub stays under the folder it is put in.
fn is_relative(path: &str) -> bool {
    let ordinary = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.split('/').all(ordinary) && !path.contains('\\')
}
