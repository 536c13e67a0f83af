//! The registry: which names are loaded, the versions each one retains, and which of them is active.
//!
//! Here belong names, the policies by which they change, and the snapshots that describe them. What is served of a
//! version (`W`, the weights the engine prepared) is opaque, and files are the store's business.
//!
//! A name maps to one immutable state behind an `Arc`; a change builds the next state and exchanges the pointer, so
//! a reader sees the state before or the state after and nothing between. The exchanged state, and with it any
//! weights that nobody leases, is dropped after the map's lock is released.

mod error;
mod name_state;
#[cfg(test)]
mod race_tests;
#[cfg(test)]
mod sequence_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;

pub use self::error::RegistryError;
use self::name_state::{NameState, Next};
use crate::lease::{Lease, Loaded};
use crate::{Summary, Version};

/// Loaded adapters by name; `W` is whatever the engine makes of an adapter.
///
/// Shared between threads behind an `Arc`. No call blocks on anything slower than the edit of a map entry, so all
/// are safe to make from asynchronous code.
pub struct Registry<W> {
    names: DashMap<String, Arc<NameState<W>>>,
}

/// What [`Registry::insert`] demands of the name before it changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// The name must be free.
    Create,
    /// The name may be free or taken; a version that is there already is kept as it is.
    Upsert,
    /// The name must be loaded and this version of it active.
    CompareAndSwap(Version),
}

/// One name as it was at one moment.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The adapter's name.
    pub name: String,
    /// Unix seconds at which the oldest version loaded under this name was created.
    pub created: u64,
    /// The version that requests by name get.
    pub active: Version,
    /// The version [`Registry::rollback`] would return to.
    pub previous: Option<Version>,
    /// Every retained version, in the order in which they were loaded.
    pub versions: Vec<VersionStatus>,
}

/// One retained version of a name.
#[derive(Debug, Clone)]
pub struct VersionStatus {
    /// What the version is.
    pub summary: Summary,
    /// Whether requests by name get this version.
    pub active: bool,
    /// Leases held on it at the moment of the snapshot.
    pub in_flight: usize,
}

impl<W> Registry<W> {
    /// A registry without names.
    pub fn new() -> Self {
        Self {
            names: DashMap::new(),
        }
    }

    /// Loads a version under `name`, as one atomic step.
    ///
    /// With `activate` it becomes the active version and the one it displaces becomes `previous`; without, it is
    /// retained beside the active one. The first version of a name is active in either case, since a name must
    /// always mean something. A version the name holds already keeps its loaded weights and `weights` is dropped.
    ///
    /// # Errors
    /// `AlreadyLoaded` under [`Policy::Create`] when the name is taken; under [`Policy::CompareAndSwap`]
    /// `NotLoaded` when the name is free and `LostCompareAndSwap` when another version is active. Nothing changes then.
    #[expect(
        clippy::too_many_arguments,
        reason = "five facts of one load, each of its own type, so that none can take another's place"
    )]
    pub fn insert(
        &self,
        name: &str,
        summary: Summary,
        weights: Arc<W>,
        policy: Policy,
        activate: bool,
    ) -> Result<(), RegistryError> {
        let loaded = Arc::new(Loaded::new(name, summary, weights));
        self.edit(name, |state| match (state, &policy) {
            (None, Policy::CompareAndSwap(_)) => Err(not_loaded(name)),
            (None, Policy::Create | Policy::Upsert) => {
                Ok((Next::Replaced(NameState::first(Arc::clone(&loaded))), ()))
            }
            (Some(state), Policy::Create) => Err(RegistryError::AlreadyLoaded {
                name: name.to_owned(),
                active: state.active().clone(),
            }),
            (Some(state), Policy::CompareAndSwap(expected)) if expected != state.active() => {
                Err(lost(state, expected.as_str()))
            }
            (Some(state), Policy::CompareAndSwap(_) | Policy::Upsert) => {
                Ok((state.with(&loaded, activate), ()))
            }
        })
    }

    /// A hold on the active version of `name`.
    ///
    /// # Errors
    /// `NotLoaded`.
    pub fn lease(&self, name: &str) -> Result<Lease<W>, RegistryError> {
        Ok(Lease::of(Arc::clone(&self.state(name)?.active)))
    }

    /// A hold on the one retained version of `name` that starts with `prefix`, at least 8 hex digits, active or not.
    ///
    /// # Errors
    /// `NotLoaded`, `UnknownVersion`, `AmbiguousVersion`.
    pub fn lease_version(&self, name: &str, prefix: &str) -> Result<Lease<W>, RegistryError> {
        Ok(Lease::of(Arc::clone(self.state(name)?.find(prefix)?)))
    }

    /// The full version that `prefix`, at least 8 hex digits, stands for under `name`.
    ///
    /// # Errors
    /// `NotLoaded`, `UnknownVersion`, `AmbiguousVersion`.
    pub fn resolve(&self, name: &str, prefix: &str) -> Result<Version, RegistryError> {
        Ok(self.state(name)?.find(prefix)?.summary.version.clone())
    }

    /// Makes a retained version the active one and returns it; the one active until now becomes `previous`.
    ///
    /// Activating the active version changes nothing. With `expected`, a version or a prefix of at least 8 hex
    /// digits, it is a compare-and-swap against the active version.
    ///
    /// # Errors
    /// `NotLoaded`, `UnknownVersion`, `AmbiguousVersion`, and `LostCompareAndSwap` when `expected` is not active.
    pub fn activate(
        &self,
        name: &str,
        version_prefix: &str,
        expected: Option<&str>,
    ) -> Result<Version, RegistryError> {
        self.edit_loaded(name, |state| {
            if let Some(expected) = expected
                && !state.active().matches_prefix(expected)
            {
                return Err(lost(state, expected));
            }
            let target = state.find(version_prefix)?;
            Ok((state.activated(target), target.summary.version.clone()))
        })
    }

    /// Returns to the version that was active before, and names it; a second call undoes the first.
    ///
    /// # Errors
    /// `NotLoaded`, and `NothingToRollBack` when no other version was active before or it has been removed.
    pub fn rollback(&self, name: &str) -> Result<Version, RegistryError> {
        self.edit_loaded(name, |state| {
            let Some(target) = state.previous_loaded() else {
                return Err(RegistryError::NothingToRollBack {
                    name: name.to_owned(),
                    active: state.active().clone(),
                });
            };
            Ok((state.activated(target), target.summary.version.clone()))
        })
    }

    /// Forgets `name` and all its versions. Their weights go with the last lease on each.
    ///
    /// # Errors
    /// `NotLoaded`.
    pub fn remove(&self, name: &str) -> Result<(), RegistryError> {
        self.edit_loaded(name, |_| Ok((Next::Removed, ())))
    }

    /// Forgets one version of `name`; when it is the only one, the name with it.
    ///
    /// # Errors
    /// `NotLoaded`, `UnknownVersion`, `AmbiguousVersion`, and `ActiveVersion` when it is the active one of several.
    pub fn remove_version(&self, name: &str, prefix: &str) -> Result<(), RegistryError> {
        self.edit_loaded(name, |state| {
            Ok((state.without(&state.find(prefix)?.summary.version)?, ()))
        })
    }

    /// Every name, in alphabetical order; each entry is consistent in itself.
    pub fn list(&self) -> Vec<Entry> {
        let states: Vec<_> = self
            .names
            .iter()
            .map(|item| Arc::clone(item.value()))
            .collect();
        let mut entries: Vec<_> = states.iter().map(|state| state.entry()).collect();
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        entries
    }

    /// One name as it is now.
    pub fn get(&self, name: &str) -> Option<Entry> {
        self.state(name).ok().map(|state| state.entry())
    }

    fn state(&self, name: &str) -> Result<Arc<NameState<W>>, RegistryError> {
        self.names
            .get(name)
            .map(|item| Arc::clone(item.value()))
            .ok_or_else(|| not_loaded(name))
    }

    fn edit_loaded<T>(
        &self,
        name: &str,
        change: impl FnOnce(&NameState<W>) -> Result<(Next<W>, T), RegistryError>,
    ) -> Result<T, RegistryError> {
        self.edit(name, |state| change(state.ok_or_else(|| not_loaded(name))?))
    }

    /// Runs `change` on the state of `name` with its map entry locked, and puts the next state in its place.
    /// The displaced state is declared first so that it is dropped last, when the lock is gone.
    fn edit<T>(
        &self,
        name: &str,
        change: impl FnOnce(Option<&NameState<W>>) -> Result<(Next<W>, T), RegistryError>,
    ) -> Result<T, RegistryError> {
        let displaced: Option<Arc<NameState<W>>>;
        let outcome;
        match self.names.entry(name.to_owned()) {
            MapEntry::Occupied(mut occupied) => {
                let (next, result) = change(Some(occupied.get()))?;
                outcome = result;
                displaced = match next {
                    Next::Unchanged => None,
                    Next::Replaced(state) => Some(occupied.insert(Arc::new(state))),
                    Next::Removed => Some(occupied.remove()),
                };
            }
            MapEntry::Vacant(vacant) => {
                let (next, result) = change(None)?;
                outcome = result;
                displaced = None;
                if let Next::Replaced(state) = next {
                    vacant.insert(Arc::new(state));
                }
            }
        }
        drop(displaced);
        Ok(outcome)
    }
}

impl<W> Default for Registry<W> {
    fn default() -> Self {
        Self::new()
    }
}

fn not_loaded(name: &str) -> RegistryError {
    RegistryError::NotLoaded {
        name: name.to_owned(),
    }
}

fn lost<W>(state: &NameState<W>, expected: &str) -> RegistryError {
    RegistryError::LostCompareAndSwap {
        name: state.name().to_owned(),
        expected: expected.to_owned(),
        active: state.active().clone(),
    }
}
