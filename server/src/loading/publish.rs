//! Changing what a name means: on disk first, then in the registry, then in the metrics. Callers hold the name's lock, except where
//! a function takes it itself.

use std::sync::Arc;

use actix_web::web::Data;
use adapters::{AdapterFiles, Entry, Policy, Staged, Version};

use super::{Prepared, blocking, expect_active};
use crate::error::ApiError;
use crate::evaluation::gate::{Gate, GateReport};
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

/// What must hold for a version to become active.
#[derive(Debug, Default)]
pub struct Conditions<'a> {
    /// This version, or the one that starts so, is active.
    pub expected: Option<&'a str>,
    /// What an evaluation found.
    pub gate: Option<&'a Gate>,
}

/// Makes a retained version the active one, if the conditions hold; with a gate, what that found.
///
/// # Errors
/// The registry's: unknown name or version, lost compare-and-swap; those of a gate that did not pass or cannot be told.
/// Nothing has changed then.
pub async fn activate(
    state: &Data<State>,
    name: &str,
    version: &str,
    conditions: Conditions<'_>,
) -> Result<(Entry, Option<GateReport>), ApiError> {
    let _one_at_a_time = state.name_locks.lock(name).await;
    let before = state.registry.get(name);
    if let (Some(entry), Some(expected)) = (&before, conditions.expected) {
        expect_active(entry, expected)?;
    }
    let report = match (&before, conditions.gate) {
        (Some(entry), Some(gate)) => Some(pass(state, entry, version, gate)?),
        _ => None,
    };
    let now = state
        .registry
        .activate(name, version, conditions.expected)?;
    if before.is_none_or(|before| before.active != now) {
        count_swap(state, name);
    }
    Ok((record_active(state, name).await?, report))
}

/// Refuses a limit that nothing or everything would pass.
///
/// # Errors
/// `InvalidValue` for a limit that no difference of two shares can have.
pub(super) fn check_limit(gate: &Gate) -> Result<(), ApiError> {
    if (-1.0..=1.0).contains(&gate.min_delta) {
        return Ok(());
    }
    Err(ApiError::invalid(
        "gate.min_delta",
        format!(
            "`gate.min_delta` is {}; it is a difference of two values between 0 and 1, so -1 to 1",
            gate.min_delta
        ),
    ))
}

/// What a gate found that lets the version pass.
fn pass(state: &State, entry: &Entry, version: &str, gate: &Gate) -> Result<GateReport, ApiError> {
    check_limit(gate)?;
    let version = state.registry.resolve(&entry.name, version)?;
    let id = gate
        .evaluation
        .as_deref()
        .ok_or_else(|| ApiError::MissingField {
            param: "gate.evaluation".to_owned(),
            message: "`gate.evaluation` is missing; name an evaluation that measured the version, or POST …/promote to have one run"
                .to_owned(),
        })?;
    let evaluation = state.evaluations.get(id)?.snapshot();
    let report = gate.judge(&evaluation, &version, &entry.active)?;
    match report.passed {
        true => Ok(report),
        false => Err(ApiError::GateNotPassed(Box::new(report))),
    }
}

/// Returns to the version that was active before.
///
/// # Errors
/// The registry's: unknown name, lost compare-and-swap, nothing to roll back to.
pub async fn rollback(
    state: &Data<State>,
    name: &str,
    expected: Option<&str>,
) -> Result<Entry, ApiError> {
    let _one_at_a_time = state.name_locks.lock(name).await;
    if let (Some(entry), Some(expected)) = (state.registry.get(name), expected) {
        expect_active(&entry, expected)?;
    }
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
