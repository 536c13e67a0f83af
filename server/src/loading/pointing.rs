//! Moving a name's pointer: decided on what the name is, stored, and only then told to the registry.

use std::sync::Arc;

use actix_web::web::Data;
use adapters::{ActivePointer, AdapterFiles, Entry, PointerTag, RegistryError, StoreError};

use super::publish::count_swap;
use super::{blocking, follow, report};
use crate::audit::note;
use crate::error::ApiError;
use crate::state::State;

/// How often a change is tried anew on what another server has stored meanwhile.
pub(super) const ATTEMPTS: usize = 8;

/// Stores what follows from a name's pointer, then lets the registry point there.
pub(super) async fn change_pointer(
    state: &Data<State>,
    name: &str,
    mut next: impl FnMut(&Entry) -> Result<ActivePointer, ApiError>,
) -> Result<Entry, ApiError> {
    let known = state.registry.entry(name)?;
    // Whether it may change at all is said before anything is written.
    next(&known)?;
    keep_original(state, &known).await?;
    let before = known.pointer;
    let not_loaded = || RegistryError::NotLoaded {
        name: name.to_owned(),
    };
    let entry = store_and_point(
        state,
        name,
        |entry| next(entry.ok_or_else(not_loaded)?),
        |pointed| Ok(state.registry.point(name, pointed)?),
    )
    .await?;
    if entry.pointer.active != before.active {
        count_swap(state, name);
    }
    note_change(&before, &entry.pointer);
    Ok(entry)
}

/// Tells the audit log which version gave way to which: the active one, or the one on trial when that is what changed.
fn note_change(before: &ActivePointer, after: &ActivePointer) {
    let on_trial = |pointer: &ActivePointer| {
        let canary = pointer.canary.as_ref();
        canary.map(|canary| canary.version.to_string())
    };
    if before.active == after.active && before.canary != after.canary {
        return note::changed(on_trial(before).as_deref(), on_trial(after).as_deref());
    }
    note::changed(Some(before.active.as_str()), Some(after.active.as_str()));
}

/// Stores the successor of a name's pointer in its place, tries anew on what another server stored meanwhile, and hands what is
/// stored to the registry.
pub(super) async fn store_and_point(
    state: &Data<State>,
    name: &str,
    mut next: impl FnMut(Option<&Entry>) -> Result<ActivePointer, ApiError>,
    point: impl Fn((ActivePointer, Option<PointerTag>)) -> Result<(), ApiError>,
) -> Result<Entry, ApiError> {
    let mut of_another_life = None;
    for _ in 0..ATTEMPTS {
        let entry = state.registry.get(name);
        let pointer = next(entry.as_ref())?;
        let tag = match &entry {
            Some(entry) => entry.tag.clone(),
            None => of_another_life.take(),
        };
        if let Some(entry) = &entry
            && entry.pointer == pointer
            && tag.is_some()
        {
            point((pointer, tag))?;
            return Ok(state.registry.entry(name)?);
        }
        let (store, owned) = (Arc::clone(&state.store), name.to_owned());
        let stored = pointer.clone();
        let outcome =
            blocking(move || Ok(store.replace_pointer(&owned, &stored, tag.as_ref()))).await?;
        match outcome {
            Ok(tag) => {
                point((pointer, Some(tag)))?;
                return Ok(state.registry.entry(name)?);
            }
            Err(StoreError::PointerMoved { .. }) => {
                follow::refresh(state, name).await?;
                // A stored name that cannot be served here gives way to one that can.
                if state.registry.get(name).is_none() {
                    of_another_life = follow::stored_pointer(state, name).await?.map(|it| it.tag);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(moved(name))
}

/// Stores the version that came with `--pretrained`, before its name points anywhere else, so that a restart can return to it.
pub(super) async fn keep_original(state: &Data<State>, entry: &Entry) -> Result<(), ApiError> {
    let Some(directory) = state.pretrained.get(&entry.name).cloned() else {
        return Ok(());
    };
    let (state, entry) = (state.clone(), entry.clone());
    blocking(move || {
        let files = AdapterFiles::read(&directory, &state.limits())?;
        let version = files.version()?;
        if state.store.read_report(&entry.name, &version)?.is_some() {
            return Ok(());
        }
        let incoming = state.store.incoming()?;
        incoming.write_files(&files).map_err(StoreError::from)?;
        if let Some(status) = entry.status(&version) {
            let report = report::to_json(&status.summary);
            incoming
                .write(adapters::REPORT_FILE, &report)
                .map_err(StoreError::from)?;
        }
        Ok(state.store.commit(incoming, &entry.name, &version)?)
    })
    .await
}

/// The answer when others were always first.
pub(super) fn moved(name: &str) -> ApiError {
    StoreError::PointerMoved {
        name: name.to_owned(),
    }
    .into()
}
