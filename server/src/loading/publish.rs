//! Changing what a name means: on disk first, then in the registry, then in the metrics. Callers hold the name's lock, except where
//! a function takes it itself.

use std::sync::Arc;

use actix_web::web::Data;
use adapters::{AdapterFiles, Entry, Policy, Staged, Version};

use super::{Prepared, blocking};
use crate::error::ApiError;
use crate::state::State;

/// Stores a version that was prepared and staged, and registers it.
pub(super) async fn publish(
    state: &Data<State>,
    name: &str,
    (prepared, staged): (Prepared, Staged),
    activate: bool,
) -> Result<Entry, ApiError> {
    let version = prepared.summary.version.clone();
    save(state, name, &version, staged).await?;
    let known = state.registry.get(name);
    state.registry.insert(
        name,
        prepared.summary,
        Arc::clone(&prepared.weights),
        Policy::Upsert,
        activate,
    )?;
    state.metrics.adapter_added(name);
    let entry = record_active(state, name).await?;
    if known.is_some_and(|known| known.active != entry.active) {
        count_swap(state, name);
    }
    Ok(entry)
}

/// Makes a retained version the active one.
///
/// # Errors
/// The registry's: unknown name or version, lost compare-and-swap.
pub async fn activate(
    state: &Data<State>,
    name: &str,
    version: &str,
    expected: Option<&str>,
) -> Result<Entry, ApiError> {
    let _one_at_a_time = state.name_locks.lock(name).await;
    let before = state.registry.get(name).map(|entry| entry.active);
    let now = state.registry.activate(name, version, expected)?;
    if before.as_ref() != Some(&now) {
        count_swap(state, name);
    }
    record_active(state, name).await
}

/// Returns to the version that was active before.
///
/// # Errors
/// The registry's: unknown name, nothing to roll back to.
pub async fn rollback(state: &Data<State>, name: &str) -> Result<Entry, ApiError> {
    let _one_at_a_time = state.name_locks.lock(name).await;
    state.registry.rollback(name)?;
    count_swap(state, name);
    record_active(state, name).await
}

/// Unloads a name with all its versions and deletes what the store has of it.
///
/// # Errors
/// `NotLoaded`, and the store's.
pub async fn remove(state: &Data<State>, name: &str) -> Result<(), ApiError> {
    let _one_at_a_time = state.name_locks.lock(name).await;
    state.registry.remove(name)?;
    forget(state, name);
    let (state, name) = (state.clone(), name.to_owned());
    blocking(move || Ok(state.store.remove(&name)?)).await
}

/// Unloads one version and deletes what the store has of it.
///
/// # Errors
/// Unknown name or version, the active version of several, and the store's.
pub async fn remove_version(state: &Data<State>, name: &str, prefix: &str) -> Result<(), ApiError> {
    let _one_at_a_time = state.name_locks.lock(name).await;
    let version = state.registry.resolve(name, prefix)?;
    state.registry.remove_version(name, version.as_str())?;
    if state.registry.get(name).is_none() {
        forget(state, name);
    }
    let (state, name) = (state.clone(), name.to_owned());
    blocking(move || Ok(state.store.remove_version(&name, &version)?)).await
}

fn forget(state: &State, name: &str) {
    state.metrics.adapter_removed(name);
    state.metrics.adapters.unloads.inc();
    tracing::info!(adapter = name, "adapter unloaded");
}

fn count_swap(state: &State, name: &str) {
    let label = state.metrics.labels.label(name);
    state
        .metrics
        .adapters
        .swaps
        .with_label_values(&[&label])
        .inc();
}

/// Writes a version to the store; the version that came with `--pretrained` goes along, so that a restart can return to it.
async fn save(
    state: &Data<State>,
    name: &str,
    version: &Version,
    staged: Staged,
) -> Result<(), ApiError> {
    let (state, name, version) = (state.clone(), name.to_owned(), version.clone());
    blocking(move || {
        if let Some(directory) = state.pretrained.get(&name)
            && state.registry.get(&name).is_some()
        {
            let original = AdapterFiles::read(directory, &state.limits())?;
            state.store.save(&name, &original.version()?, &original)?;
        }
        Ok(state.store.commit(staged, &version)?)
    })
    .await
}

/// Records the registry's active version in the store.
async fn record_active(state: &Data<State>, name: &str) -> Result<Entry, ApiError> {
    let entry = state
        .registry
        .get(name)
        .ok_or_else(|| ApiError::ModelNotFound {
            model: name.to_owned(),
        })?;
    let (state, recorded) = (state.clone(), entry.clone());
    blocking(move || {
        Ok(state
            .store
            .set_active(&recorded.name, &recorded.active, recorded.previous.as_ref())?)
    })
    .await?;
    Ok(entry)
}
