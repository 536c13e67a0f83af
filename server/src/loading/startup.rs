//! Registering what is stored when the process starts. A bad adapter is logged and counted; the others are served.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actix_web::web::Data;
use adapters::{
    ActivePointer, AdapterFiles, AdapterName, CONFIG_FILE, IgnoredEntry, PointerTag, StoredAdapter,
    Version, WEIGHTS_FILE,
};

use super::follow::{summary_of, without_unserved};
use super::residency::{self, Origin};
use super::{count_failure, prove};
use crate::error::ApiError;
use crate::state::{State, unix_seconds};

/// Active versions whose weights are loaded before the first request, if there is room; others when they are needed.
const WARM: usize = 32;

/// Folders of `--pretrained` that hold an adapter, by name.
pub fn pretrained_directories(root: Option<&Path>) -> HashMap<String, PathBuf> {
    let Some(root) = root else {
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

/// Registers everything in the store, then every adapter under `--pretrained`; where both have a name, the store decides which
/// version is active.
///
/// # Errors
/// When the store cannot be read at all.
pub async fn register_all(state: &Data<State>) -> Result<(), ApiError> {
    let store = Arc::clone(&state.store);
    let contents = super::blocking(move || Ok(store.contents()?)).await?;
    for ignored in &contents.ignored {
        pass_over(state, ignored);
    }
    for stored in &contents.adapters {
        register_stored(state, stored).await;
    }
    let mut pretrained: Vec<_> = state.pretrained.iter().collect();
    pretrained.sort();
    for (name, directory) in pretrained {
        if let Err(error) = register_pretrained(state, name, directory).await {
            refuse(state, name, &error);
        }
    }
    warm_up(state).await;
    Ok(())
}

/// Names what the store passed over, and takes it out of the way when it is a version.
fn pass_over(state: &State, ignored: &IgnoredEntry) {
    state
        .metrics
        .adapters
        .load_failures
        .with_label_values(&["stored_damaged"])
        .inc();
    tracing::warn!(path = %ignored.path.display(), reason = %ignored.reason, "not loaded from the store");
    if let Some((name, version)) = &ignored.version {
        match state.store.quarantine(name, version) {
            Ok(()) => tracing::warn!(adapter = name, %version, "put in quarantine"),
            Err(error) => {
                tracing::error!(adapter = name, %version, %error, "it could not be put in quarantine");
            }
        }
    }
}

async fn register_stored(state: &Data<State>, stored: &StoredAdapter) {
    let name = &stored.name;
    if let Err(error) = AdapterName::parse(name, &state.reserved_names()) {
        return refuse(state, name, &error.into());
    }
    let mut summaries = Vec::new();
    for version in stored.versions.iter().map(|one| &one.version) {
        match summary_of(state, name, version).await {
            Ok(summary) => summaries.push(summary),
            Err(error) => refuse(state, name, &error),
        }
    }
    let served: Vec<Version> = summaries.iter().map(|one| one.version.clone()).collect();
    let Some(pointer) = without_unserved(&stored.pointer, &served) else {
        return;
    };
    if pointer.active != stored.pointer.active {
        tracing::error!(adapter = name, active = %pointer.active, instead_of = %stored.pointer.active, "the active version cannot be served, another one is");
    }
    let tag = match recorded(state, stored, &pointer).await {
        Ok(tag) => tag,
        Err(error) => return refuse(state, name, &error),
    };
    match state.registry.publish(name, summaries, (pointer, tag)) {
        Ok(()) => added(state, name, "store"),
        Err(error) => refuse(state, name, &error.into()),
    }
}

/// The tag of a name's pointer, which is stored now if it was not: a process killed before it could say what is active leaves a
/// name whose newest version is, and that must not change with the next version that comes. Where others store too, one of
/// them may be about to say it.
async fn recorded(
    state: &Data<State>,
    stored: &StoredAdapter,
    pointer: &ActivePointer,
) -> Result<Option<PointerTag>, ApiError> {
    if stored.tag.is_some() || state.store.is_shared() {
        return Ok(stored.tag.clone());
    }
    let (store, name, pointer) = (
        Arc::clone(&state.store),
        stored.name.clone(),
        pointer.clone(),
    );
    super::blocking(move || Ok(Some(store.replace_pointer(&name, &pointer, None)?))).await
}

async fn register_pretrained(
    state: &Data<State>,
    name: &str,
    directory: &Path,
) -> Result<(), ApiError> {
    AdapterName::parse(name, &state.reserved_names())?;
    let files = AdapterFiles::read(directory, &state.limits())?;
    let version = files.version()?;
    let known = state.registry.get(name);
    if known.as_ref().is_some_and(|entry| entry.retains(&version)) {
        return Ok(());
    }
    let (prepared, _) = prove(state, name, Arc::new(files), created(directory)).await?;
    let pointer = match known {
        Some(entry) => (entry.pointer, entry.tag),
        None => (ActivePointer::first(version.clone(), unix_seconds()), None),
    };
    state.registry.publish(name, [prepared.summary], pointer)?;
    let hold = state.registry.hold_version(name, version.as_str())?;
    // Without room for it, it is loaded when it is needed.
    drop(state.registry.place(hold, &prepared.weights));
    added(state, name, "pretrained");
    Ok(())
}

/// Loads active versions, the pinned ones first, until the memory is full.
async fn warm_up(state: &Data<State>) {
    let mut entries = state.registry.list();
    entries.sort_by_key(|entry| !entry.pointer.pinned);
    for entry in entries.iter().take(WARM) {
        let Ok(hold) = state.registry.hold(&entry.name) else {
            continue;
        };
        let size = usize::try_from(hold.summary().bytes).unwrap_or(usize::MAX);
        let memory = state.registry.memory();
        if memory.used().saturating_add(size) > memory.budget() && !entry.pointer.pinned {
            continue;
        }
        if let Err(error) = residency::lease(state, hold, Origin::Stored).await {
            refuse(state, &entry.name, &error);
        }
    }
}

fn added(state: &State, name: &str, source: &str) {
    state.metrics.adapter_added(name);
    state
        .metrics
        .adapters
        .loads
        .with_label_values(&[source])
        .inc();
    tracing::info!(adapter = name, source, "adapter registered");
}

fn refuse(state: &State, name: &str, error: &ApiError) {
    count_failure(state, error);
    tracing::error!(adapter = name, error = %error, "adapter not loaded at start");
}

/// When a directory's weights were written, seconds since 1970.
fn created(directory: &Path) -> u64 {
    fs_err::metadata(directory.join(WEIGHTS_FILE))
        .and_then(|metadata| metadata.modified())
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or_else(unix_seconds, |duration| duration.as_secs())
}
