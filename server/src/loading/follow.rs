//! Following a store that other servers change too: their activations, uploads and removals, within a second or two.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix_web::web::Data;
use adapters::{ActivePointer, Entry, Pointed, PointerTag, Summary, Version};

use super::publish::{count_swap, forget};
use super::residency::{self, Origin};
use super::{blocking, prove, report};
use crate::error::ApiError;
use crate::state::{State, unix_seconds};

/// How often the pointers are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// Every how many looks the versions are listed too: those that no pointer names, and those that are gone.
const LISTING: u32 = 30;

/// Follows the store for as long as the server runs, if others can change it.
pub fn start(state: &Data<State>) {
    if !state.store.is_shared() {
        return;
    }
    let known = state.registry.list().into_iter();
    let mut seen: BTreeMap<String, PointerTag> = known
        .filter_map(|entry| Some((entry.name, entry.tag?)))
        .collect();
    let state = Arc::downgrade(&state.clone().into_inner());
    tokio::spawn(async move {
        let mut looks = 0u32;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let Some(state) = Weak::upgrade(&state) else {
                return;
            };
            let state = Data::from(state);
            if state.is_draining() {
                return;
            }
            looks = looks.wrapping_add(1);
            let followed = match looks.is_multiple_of(LISTING) {
                true => list(&state).await,
                false => look(&state, &mut seen).await,
            };
            if let Err(error) = followed {
                state.metrics.adapters.follow_failures.inc();
                tracing::warn!(%error, "the store could not be followed");
            }
        }
    });
}

/// Refreshes every name whose pointer is not the one seen last.
async fn look(
    state: &Data<State>,
    seen: &mut BTreeMap<String, PointerTag>,
) -> Result<(), ApiError> {
    let store = Arc::clone(&state.store);
    let tags = blocking(move || Ok(store.pointer_tags()?)).await?;
    let gone = seen
        .keys()
        .filter(|name| !tags.contains_key(*name))
        .cloned();
    let moved = tags
        .iter()
        .filter(|(name, tag)| seen.get(*name) != Some(tag));
    let names: Vec<String> = gone.chain(moved.map(|(name, _)| name.clone())).collect();
    for name in names {
        let _one_at_a_time = state.name_locks.lock(&name).await;
        match refresh(state, &name).await {
            // Looked at again only when it changes again.
            Ok(()) => {}
            Err(error) => {
                state.metrics.adapters.follow_failures.inc();
                tracing::warn!(adapter = name, %error, "what another server stored cannot be served here");
            }
        }
    }
    *seen = tags;
    Ok(())
}

/// Takes over versions that no pointer names, and lets go of those that are gone.
async fn list(state: &Data<State>) -> Result<(), ApiError> {
    let store = Arc::clone(&state.store);
    let contents = blocking(move || Ok(store.contents()?)).await?;
    for stored in &contents.adapters {
        let _one_at_a_time = state.name_locks.lock(&stored.name).await;
        let Some(entry) = state.registry.get(&stored.name) else {
            continue;
        };
        let is_stored =
            |version: &Version| stored.versions.iter().any(|one| one.version == *version);
        for status in &entry.versions {
            let version = &status.summary.version;
            let named = entry.pointer.versions().any(|named| named == version);
            if entry.tag.is_some() && !named && !is_stored(version) {
                let pointer = (entry.pointer.clone(), entry.tag.clone());
                state
                    .registry
                    .remove_version(&stored.name, version, Some(pointer))?;
                state.metrics.version_removed(&stored.name, version);
            }
        }
        for version in stored.versions.iter().map(|one| &one.version) {
            if !entry.retains(version) {
                let summary = summary_of(state, &stored.name, version).await?;
                let entry = state.registry.entry(&stored.name)?;
                state
                    .registry
                    .publish(&stored.name, [summary], (entry.pointer, entry.tag))?;
            }
        }
    }
    Ok(())
}

/// [`refresh`], where others can have changed anything.
pub(super) async fn refresh_shared(state: &Data<State>, name: &str) -> Result<(), ApiError> {
    match state.store.is_shared() {
        true => refresh(state, name).await,
        false => Ok(()),
    }
}

/// Lets a name be what the store says it is. The caller holds the name's lock.
///
/// # Errors
/// The store's, and those of a version that cannot be served here; the name is as it was then.
pub(super) async fn refresh(state: &Data<State>, name: &str) -> Result<(), ApiError> {
    let known = state.registry.get(name);
    let Some(pointed) = stored_pointer(state, name).await? else {
        // What came with `--pretrained` alone is not stored and stays.
        if known.is_some_and(|entry| entry.tag.is_some()) {
            state.registry.remove(name)?;
            forget(state, name);
        }
        return Ok(());
    };
    if known.as_ref().and_then(|entry| entry.tag.as_ref()) == Some(&pointed.tag) {
        return Ok(());
    }
    let before = known.as_ref().map(|entry| entry.pointer.active.clone());
    take_over(state, name, known.as_ref(), &pointed).await?;
    state.metrics.adapter_added(name);
    if before.is_some_and(|before| before != pointed.pointer.active) {
        count_swap(state, name);
    }
    tracing::info!(adapter = name, active = %pointed.pointer.active, "following the store");
    Ok(())
}

/// Retains what a pointer names, loads the active version, then points there.
async fn take_over(
    state: &Data<State>,
    name: &str,
    known: Option<&Entry>,
    pointed: &Pointed,
) -> Result<(), ApiError> {
    let mut missing: Vec<Summary> = Vec::new();
    for version in pointed.pointer.versions() {
        if !known.is_some_and(|entry| entry.retains(version)) {
            missing.push(summary_of(state, name, version).await?);
        }
    }
    // The old pointer stands until the new weights are there.
    let meanwhile = match known {
        Some(entry) => (entry.pointer.clone(), entry.tag.clone()),
        None => (pointed.pointer.clone(), Some(pointed.tag.clone())),
    };
    state.registry.publish(name, missing, meanwhile)?;
    let active = pointed.pointer.active.as_str();
    let hold = state.registry.hold_version(name, active)?;
    if let Err(error) = residency::lease(state, hold, Origin::Stored).await {
        tracing::warn!(adapter = name, %error, "the followed version is not in memory yet");
    }
    let pointer = (pointed.pointer.clone(), Some(pointed.tag.clone()));
    Ok(state.registry.point(name, pointer)?)
}

/// The facts about a stored version: those of its report if it was tried on this base, otherwise it is tried now.
pub(super) async fn summary_of(
    state: &Data<State>,
    name: &str,
    version: &Version,
) -> Result<Summary, ApiError> {
    let (owned, stored, wanted) = (state.clone(), name.to_owned(), version.clone());
    let known = blocking(move || {
        let report = owned.store.read_report(&stored, &wanted)?;
        Ok(report::proven(report.as_deref(), owned.engine.base()))
    })
    .await?;
    match known {
        Some(summary) if summary.version == *version => Ok(summary),
        Some(_) | None => {
            let (owned, stored, wanted) = (state.clone(), name.to_owned(), version.clone());
            let files = blocking(move || Ok(owned.store.read(&stored, &wanted)?)).await?;
            let (prepared, _) = prove(state, name, Arc::new(files), unix_seconds()).await?;
            Ok(prepared.summary)
        }
    }
}

/// What the store has a name point at.
pub(super) async fn stored_pointer(
    state: &Data<State>,
    name: &str,
) -> Result<Option<Pointed>, ApiError> {
    let (store, name) = (Arc::clone(&state.store), name.to_owned());
    blocking(move || Ok(store.pointer(&name)?)).await
}

/// A pointer without a version that cannot be served; `None` when nothing is left to be active.
pub(super) fn without_unserved(
    pointer: &ActivePointer,
    served: &[Version],
) -> Option<ActivePointer> {
    let mut left = pointer.clone();
    for version in pointer
        .versions()
        .filter(|version| !served.contains(version))
    {
        left = left.without(version);
    }
    if !served.contains(&left.active) {
        left.active = left.previous.take().or_else(|| served.last().cloned())?;
    }
    Some(left)
}
