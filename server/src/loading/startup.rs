//! Registering what is on disk when the process starts. A bad adapter is logged and counted; the others are served.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adapters::{
    AdapterFiles, AdapterName, CONFIG_FILE, Policy, StoredAdapter, Version, WEIGHTS_FILE,
};

use super::{count_failure, prepare_files, probe};
use crate::error::ApiError;
use crate::state::{State, unix_seconds};

/// One version to register.
struct Found<'a> {
    name: &'a str,
    directory: &'a Path,
    activate: bool,
}

/// Registers every adapter under `--pretrained`, then everything in the store; where both have a name, the store decides which
/// version is active.
///
/// # Errors
/// When the store cannot be read at all.
pub async fn register_all(state: &mut State) -> Result<(), ApiError> {
    let pretrained = pretrained_directories(state);
    for (name, directory) in &pretrained {
        let found = Found {
            name,
            directory,
            activate: true,
        };
        register(state, &found, "pretrained").await;
    }
    state.pretrained = pretrained;
    let contents = state.store.contents()?;
    for ignored in &contents.ignored {
        state
            .metrics
            .adapters
            .load_failures
            .with_label_values(&["stored_damaged"])
            .inc();
        tracing::warn!(path = %ignored.path.display(), reason = %ignored.reason, "not loaded from the store");
    }
    for stored in &contents.adapters {
        register_stored(state, stored).await;
    }
    Ok(())
}

/// The oldest first and the active one last, so that the version active before is the one to roll back to.
async fn register_stored(state: &State, stored: &StoredAdapter) {
    let rank = |version: &Version| {
        usize::from(stored.previous.as_ref() == Some(version))
            + 2 * usize::from(*version == stored.active)
    };
    let mut versions: Vec<&(Version, PathBuf)> = stored.versions.iter().collect();
    versions.sort_by_key(|(version, _)| rank(version));
    for (version, directory) in versions {
        let found = Found {
            name: &stored.name,
            directory,
            activate: rank(version) > 0,
        };
        register(state, &found, "store").await;
    }
}

async fn register(state: &State, found: &Found<'_>, source: &str) {
    match try_register(state, found).await {
        Ok(()) => {
            state.metrics.adapter_added(found.name);
            state
                .metrics
                .adapters
                .loads
                .with_label_values(&[source])
                .inc();
            tracing::info!(adapter = found.name, source, "adapter loaded");
        }
        Err(error) => {
            count_failure(state, &error);
            tracing::error!(
                adapter = found.name,
                path = %found.directory.display(),
                error = %error,
                "adapter not loaded at start"
            );
        }
    }
}

async fn try_register(state: &State, found: &Found<'_>) -> Result<(), ApiError> {
    AdapterName::parse(found.name, &state.reserved_names())?;
    let files = AdapterFiles::read(found.directory, &state.limits())?;
    let prepared = prepare_files(state, &files, created(found.directory))?;
    probe::effect(&state.engine, found.name, &prepared.weights).await?;
    let weights = Arc::clone(&prepared.weights);
    let version = prepared.summary.version.clone();
    state.registry.insert(
        found.name,
        prepared.summary,
        weights,
        Policy::Upsert,
        found.activate,
    )?;
    if found.activate {
        // A version that was there already, from the other folder, still becomes the active one.
        state
            .registry
            .activate(found.name, version.as_str(), None)?;
    }
    Ok(())
}

/// Folders of `--pretrained` that hold an adapter, by name.
fn pretrained_directories(state: &State) -> HashMap<String, PathBuf> {
    let Some(root) = &state.configuration.pretrained else {
        return HashMap::new();
    };
    let entries = match fs_err::read_dir(root) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::error!(error = %error, "the folder of pretrained adapters cannot be read");
            return HashMap::new();
        }
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.join(CONFIG_FILE).exists() || path.join(WEIGHTS_FILE).exists())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some((name, path))
        })
        .collect()
}

/// When a directory's weights were written, seconds since 1970.
fn created(directory: &Path) -> u64 {
    fs_err::metadata(directory.join(WEIGHTS_FILE))
        .and_then(|metadata| metadata.modified())
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or_else(unix_seconds, |duration| duration.as_secs())
}
