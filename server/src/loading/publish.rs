//! Changing what a name means: in the store first, then in the registry, then in the metrics. Callers hold the name's lock, except
//! where a function takes it itself.

use std::sync::Arc;

use actix_web::web::Data;
use adapters::{ActivePointer, Cause, Entry, Incoming, MemoryError, StoreError, Version};

use super::pointing::{ATTEMPTS, change_pointer, keep_original, moved, store_and_point};
use super::{Prepared, Replace, blocking, follow, report};
use crate::audit::note;
use crate::error::ApiError;
use crate::evaluations::gate::{Gate, GateReport};
use crate::state::{State, unix_seconds};

/// Stores a version that was prepared and is on the disk, and registers it, if the name is still what the request wants it to be.
///
/// # Errors
/// Those of [`Replace::check`] when another server was first, and the store's; the version is not kept then.
pub(super) async fn publish(
    state: &Data<State>,
    name: &str,
    (prepared, incoming): (Prepared, Incoming),
    (replace, activate): (&Replace, bool),
) -> Result<Entry, ApiError> {
    let version = prepared.summary.version.clone();
    let known = state.registry.get(name);
    if let Some(known) = &known {
        keep_original(state, known).await?;
    }
    let report = report::to_json(&prepared.summary);
    commit(state, name, &version, (incoming, report)).await?;
    if let Some(Entry { pointer, tag, .. }) = known.clone() {
        // In memory before the name points at it, so that no request has to wait for it.
        let summary = prepared.summary.clone();
        state.registry.publish(name, [summary], (pointer, tag))?;
        keep_in_memory(state, name, &version, &prepared);
    }
    let next = |entry: Option<&Entry>| {
        replace.check(name, entry)?;
        let now = unix_seconds();
        Ok(match entry {
            None => ActivePointer::first(version.clone(), now),
            Some(entry) if activate => entry.pointer.activated(&version, now, Cause::Load),
            Some(entry) => entry.pointer.clone(),
        })
    };
    let point = |pointed| {
        let summary = prepared.summary.clone();
        Ok(state.registry.publish(name, [summary], pointed)?)
    };
    let entry = match store_and_point(state, name, next, point).await {
        Ok(entry) => entry,
        Err(error) => {
            if !known.is_some_and(|known| known.retains(&version)) {
                withdraw(state, name, &version).await;
            }
            return Err(error);
        }
    };
    keep_in_memory(state, name, &version, &prepared);
    state.metrics.adapter_added(name);
    let before = known.as_ref().map(|known| known.active().as_str());
    note::changed(before, Some(entry.active().as_str()));
    if known.is_some_and(|known| known.active() != entry.active()) {
        count_swap(state, name);
    }
    retain(state, entry).await
}

/// Takes a version back that the name did not come to point at. What cannot be deleted is left, retained and whole.
async fn withdraw(state: &Data<State>, name: &str, version: &Version) {
    if let Some(entry) = state.registry.get(name) {
        if entry.pointer.versions().any(|named| named == version) {
            return;
        }
        let pointer = Some((entry.pointer, entry.tag));
        if let Err(error) = state.registry.remove_version(name, version, pointer) {
            tracing::warn!(adapter = name, %version, %error, "a version that lost could not be given up");
        }
    }
    let (store, owned, gone) = (Arc::clone(&state.store), name.to_owned(), version.clone());
    if let Err(error) = blocking(move || Ok(store.remove_version(&owned, &gone)?)).await {
        tracing::warn!(adapter = name, %version, %error, "a version that lost could not be deleted");
    }
}

/// What must hold for a version to become active.
#[derive(Debug)]
pub struct Conditions<'a> {
    /// This version, or the one that starts so, is active.
    pub expected: Option<&'a str>,
    /// What an evaluation found.
    pub gate: Option<&'a Gate>,
    /// What the history will say.
    pub cause: Cause,
}

/// Makes a retained version the active one, if the conditions hold; with a gate, what that found. Its weights are in memory then.
///
/// # Errors
/// The registry's: unknown name or version, lost compare-and-swap; those of a gate that did not pass or cannot be told;
/// those of loading its weights. Nothing has changed then.
pub async fn activate(
    state: &Data<State>,
    name: &str,
    version: &str,
    conditions: Conditions<'_>,
) -> Result<(Entry, Option<GateReport>), ApiError> {
    let _one_at_a_time = state.name_locks.lock(name).await;
    follow::refresh_shared(state, name).await?;
    note_active(state, name);
    // Loaded first, so that no request by name has to wait for it.
    let hold = state.registry.hold_version(name, version)?;
    let _loaded = super::residency::lease(state, hold, super::residency::Origin::Stored).await?;
    let mut report = None;
    let entry = change_pointer(state, name, |entry| {
        if let Some(expected) = conditions.expected {
            entry.expect_active(expected)?;
        }
        let version = entry.resolve(version)?;
        report = match conditions.gate {
            Some(gate) => Some(pass(state, entry, version, gate)?),
            None => None,
        };
        let now = unix_seconds();
        Ok(entry.pointer.activated(version, now, conditions.cause))
    })
    .await?;
    Ok((entry, report))
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
fn pass(
    state: &State,
    entry: &Entry,
    version: &Version,
    gate: &Gate,
) -> Result<GateReport, ApiError> {
    check_limit(gate)?;
    let id = gate
        .evaluation
        .as_deref()
        .ok_or_else(|| ApiError::MissingField {
            param: "gate.evaluation".to_owned(),
            message: "`gate.evaluation` is missing; name an evaluation that measured the version, or POST …/promote to have one run"
                .to_owned(),
        })?;
    let evaluation = state.evaluations.get(id)?.snapshot();
    let report = gate.judge(&evaluation, version, entry.active())?;
    match report.passed {
        true => Ok(report),
        false => Err(ApiError::GateNotPassed(Box::new(report))),
    }
}

/// Returns to the version that was active before, or to any other that is retained.
///
/// # Errors
/// The registry's: unknown name or version, lost compare-and-swap, nothing to roll back to; those of loading its weights.
pub async fn rollback(
    state: &Data<State>,
    name: &str,
    version: Option<&str>,
    expected: Option<&str>,
) -> Result<Entry, ApiError> {
    let entry = state.registry.entry(name)?;
    let version = match version {
        Some(version) => entry.resolve(version)?.clone(),
        None => entry.rolled_back(unix_seconds())?.active,
    };
    let seen = entry.active().to_string();
    let conditions = Conditions {
        // Without an expectation of its own, a rollback is from what was active when it was asked for.
        expected: Some(expected.unwrap_or(&seen)),
        gate: None,
        cause: Cause::Rollback,
    };
    Ok(activate(state, name, version.as_str(), conditions).await?.0)
}

/// Unloads a name.
///
/// # Errors
/// `NotLoaded`, and the store's.
pub async fn remove(state: &Data<State>, name: &str) -> Result<(), ApiError> {
    let _one_at_a_time = state.name_locks.lock(name).await;
    for _ in 0..ATTEMPTS {
        follow::refresh_shared(state, name).await?;
        let entry = state.registry.entry(name)?;
        let active = entry.active().to_string();
        note::about(name, Some(&active));
        let (store, stored) = (Arc::clone(&state.store), entry);
        let removed = blocking(move || Ok(store.remove(&stored.name, stored.tag.as_ref()))).await?;
        match removed {
            Ok(()) => {
                state.registry.remove(name)?;
                forget(state, name);
                note::changed(Some(&active), None);
                return Ok(());
            }
            Err(StoreError::PointerMoved { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(moved(name))
}

/// Unloads one version, and the name with its last one.
///
/// # Errors
/// The registry's: unknown name or version, the active version of several, and the store's.
pub async fn remove_version(state: &Data<State>, name: &str, prefix: &str) -> Result<(), ApiError> {
    let lock = state.name_locks.lock(name).await;
    follow::refresh_shared(state, name).await?;
    let entry = state.registry.entry(name)?;
    let version = entry.resolve(prefix)?.clone();
    note::about(&format!("{name}@{version}"), Some(version.as_str()));
    if entry.without(&version)?.is_none() {
        drop(lock);
        return remove(state, name).await;
    }
    give_up(state, name, &version).await?;
    note::changed(Some(version.as_str()), None);
    Ok(())
}

/// Gives a name's canary, pin or the like another value.
///
/// # Errors
/// The registry's, `next`'s, and the store's.
pub async fn adjust(
    state: &Data<State>,
    name: &str,
    next: impl FnMut(&Entry) -> Result<ActivePointer, ApiError>,
) -> Result<Entry, ApiError> {
    let _one_at_a_time = state.name_locks.lock(name).await;
    follow::refresh_shared(state, name).await?;
    note_active(state, name);
    change_pointer(state, name, next).await
}

/// Tells the audit log which version the name has before it is changed.
fn note_active(state: &State, name: &str) {
    if let Some(entry) = state.registry.get(name) {
        note::about(name, Some(entry.active().as_str()));
    }
}

async fn commit(
    state: &Data<State>,
    name: &str,
    version: &Version,
    (incoming, report): (Incoming, Vec<u8>),
) -> Result<(), ApiError> {
    let (store, name, version) = (Arc::clone(&state.store), name.to_owned(), version.clone());
    blocking(move || {
        incoming
            .write(adapters::REPORT_FILE, &report)
            .map_err(StoreError::from)?;
        Ok(store.commit(incoming, &name, &version)?)
    })
    .await
}

/// The weights are there, so they stay if there is room; else they are loaded when they are needed.
fn keep_in_memory(state: &State, name: &str, version: &Version, prepared: &Prepared) {
    let placed = state
        .registry
        .hold_version(name, version.as_str())
        .map(|hold| state.registry.place(hold, &prepared.weights));
    if let Ok(Err(MemoryError::Full { .. })) = placed {
        tracing::info!(adapter = name, %version, "memory for adapters is full of others in use; it will be loaded when it is needed");
    }
}

/// Keeps the active version of a name in memory from now on, used or not, or no longer does.
///
/// # Errors
/// The registry's, the store's, and `Memory` when there is no room for what is to be kept.
pub async fn pin(state: &Data<State>, name: &str, pinned: bool) -> Result<Entry, ApiError> {
    if pinned {
        // In memory first: what does not fit cannot be kept there.
        let hold = state.registry.hold(name)?;
        drop(super::residency::lease(state, hold, super::residency::Origin::Stored).await?);
    }
    adjust(state, name, |entry| {
        Ok(ActivePointer {
            pinned,
            ..entry.pointer.clone()
        })
    })
    .await
}

/// Gives up versions that are more than `--retain-versions`.
async fn retain(state: &Data<State>, mut entry: Entry) -> Result<Entry, ApiError> {
    let keep = state.configuration.retain_versions;
    if keep == 0 {
        return Ok(entry);
    }
    for version in entry.superfluous(keep) {
        tracing::info!(adapter = entry.name, %version, "version given up, newer ones are retained");
        entry = give_up(state, &entry.name, &version).await?;
    }
    Ok(entry)
}

/// Removes a version that is not active: first from the pointer, then its files, so that no pointer outlives what it names.
async fn give_up(state: &Data<State>, name: &str, version: &Version) -> Result<Entry, ApiError> {
    let entry = change_pointer(state, name, |entry| {
        let left = entry.without(version)?;
        Ok(left.unwrap_or_else(|| entry.pointer.clone()))
    })
    .await?;
    state
        .registry
        .remove_version(name, version, Some((entry.pointer, entry.tag)))?;
    let (store, owned, gone) = (Arc::clone(&state.store), name.to_owned(), version.clone());
    blocking(move || Ok(store.remove_version(&owned, &gone)?)).await?;
    state.metrics.version_removed(name, version);
    Ok(state.registry.entry(name)?)
}

pub(super) fn forget(state: &State, name: &str) {
    state.metrics.adapter_removed(name);
    state.metrics.adapters.unloads.inc();
    tracing::info!(adapter = name, "adapter unloaded");
}

pub(super) fn count_swap(state: &State, name: &str) {
    let label = state.metrics.labels.label(name);
    state
        .metrics
        .adapters
        .swaps
        .with_label_values(&[&label])
        .inc();
}
