//! The registry: which names there are, the versions each one retains, and which of them is active.
//!
//! Here belong names, what they point at, and the snapshots that describe them. What is served of a version (`W`, the weights
//! the engine prepared) is opaque, and comes and goes as the memory allows; files are the store's business.
//!
//! A name maps to one immutable state behind an `Arc`; a change builds the next state and exchanges the pointer, so
//! a reader sees the state before or the state after and nothing between. The exchanged state, and with it any
//! weights that nobody leases, is dropped after the map's lock is released. Which state may follow which is decided on an
//! [`Entry`] by whoever changes the name, one at a time, because the store has to agree first.

mod entry;
mod error;
mod name_state;
#[cfg(test)]
mod race_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;

pub use self::entry::{Entry, VersionStatus};
pub use self::error::RegistryError;
use self::name_state::NameState;
use crate::lease::{Hold, Lease};
use crate::memory::{Memory, MemoryError};
use crate::{ActivePointer, PointerTag, Summary, Version, Weights};

/// Adapters by name; `W` is whatever the engine makes of an adapter.
///
/// Shared between threads behind an `Arc`. No call blocks on anything slower than the edit of a map entry, so all
/// are safe to make from asynchronous code.
pub struct Registry<W: Weights> {
    names: DashMap<String, Arc<NameState<W>>>,
    memory: Arc<Memory<W>>,
}

impl<W: Weights> Registry<W> {
    /// A registry without names, whose weights may take that many bytes of memory.
    pub fn new(memory_bytes: usize) -> Self {
        Self {
            names: DashMap::new(),
            memory: Arc::new(Memory::new(memory_bytes)),
        }
    }

    /// A registry without names, whose weights share the memory of this one's.
    pub fn beside(&self) -> Self {
        Self {
            names: DashMap::new(),
            memory: Arc::clone(&self.memory),
        }
    }

    /// What the weights take of the memory.
    pub fn memory(&self) -> &Memory<W> {
        &self.memory
    }

    /// Retains versions under `name`, a new one or not, and lets the name point at what `pointer` says, as one atomic step.
    /// The versions have no weights yet; see [`Registry::place`]. One that is retained already stays as it is.
    ///
    /// # Errors
    /// `UnknownVersion` when the pointer names another version that is not retained. Nothing changes then.
    pub fn publish(
        &self,
        name: &str,
        versions: impl IntoIterator<Item = Summary>,
        pointer: (ActivePointer, Option<PointerTag>),
    ) -> Result<(), RegistryError> {
        self.edit(name, |state| {
            let mut retained = state.map_or_else(Vec::new, |state| state.retained().to_vec());
            for summary in versions {
                if !(retained.iter()).any(|slot| slot.summary.version == summary.version) {
                    retained.push(self.memory.slot(name, summary));
                }
            }
            NameState::new(name, retained, pointer).map(Some)
        })
    }

    /// Lets a name point at other versions it retains.
    ///
    /// # Errors
    /// `NotLoaded`, `UnknownVersion`.
    pub fn point(
        &self,
        name: &str,
        pointer: (ActivePointer, Option<PointerTag>),
    ) -> Result<(), RegistryError> {
        self.edit(name, |state| {
            let state = state.ok_or_else(|| not_loaded(name))?;
            NameState::new(name, state.retained().to_vec(), pointer).map(Some)
        })
    }

    /// Puts a version's weights in memory, where those of others that are idle may have to make room, and leases them. Weights
    /// that are there already stay.
    ///
    /// # Errors
    /// When there is no room for them; the hold is given up.
    pub fn place(&self, hold: Hold<W>, weights: &Arc<W>) -> Result<Lease<W>, MemoryError> {
        let mut hold = hold;
        loop {
            self.memory.place(hold.slot(), Arc::clone(weights))?;
            // While it is held nothing evicts it, so this succeeds the first time.
            match hold.lease() {
                Ok(lease) => return Ok(lease),
                Err(back) => hold = back,
            }
        }
    }

    /// A hold on the active version of `name`.
    ///
    /// # Errors
    /// `NotLoaded`.
    pub fn hold(&self, name: &str) -> Result<Hold<W>, RegistryError> {
        Ok(self.memory.hold(self.state(name)?.active()))
    }

    /// A hold on the version of `name` for a request that drew `draw`, from 0 to below 100: the canary's if that is below its
    /// share, or else the active one.
    ///
    /// # Errors
    /// `NotLoaded`.
    pub fn hold_drawn(&self, name: &str, draw: f64) -> Result<Hold<W>, RegistryError> {
        Ok(self.memory.hold(self.state(name)?.drawn(draw)))
    }

    /// A hold on the one retained version of `name` that starts with `prefix`, at least 8 hex digits, active or not.
    ///
    /// # Errors
    /// `NotLoaded`, `UnknownVersion`, `AmbiguousVersion`.
    pub fn hold_version(&self, name: &str, prefix: &str) -> Result<Hold<W>, RegistryError> {
        Ok(self.memory.hold(self.state(name)?.find(prefix)?))
    }

    /// Forgets `name`; leases on its versions stay good.
    ///
    /// # Errors
    /// `NotLoaded`.
    pub fn remove(&self, name: &str) -> Result<(), RegistryError> {
        self.edit(name, |state| match state {
            Some(_) => Ok(None),
            None => Err(not_loaded(name)),
        })
    }

    /// Forgets one version of `name`, which points at what `pointer` says from now on; with `None` the name goes too.
    ///
    /// # Errors
    /// `NotLoaded`, `UnknownVersion` when the pointer still names it.
    pub fn remove_version(
        &self,
        name: &str,
        version: &Version,
        pointer: Option<(ActivePointer, Option<PointerTag>)>,
    ) -> Result<(), RegistryError> {
        self.edit(name, |state| {
            let state = state.ok_or_else(|| not_loaded(name))?;
            let Some(pointer) = pointer else {
                return Ok(None);
            };
            let rest = (state.retained().iter())
                .filter(|slot| slot.summary.version != *version)
                .cloned()
                .collect();
            NameState::new(name, rest, pointer).map(Some)
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

    /// One name as it is now.
    ///
    /// # Errors
    /// `NotLoaded`.
    pub fn entry(&self, name: &str) -> Result<Entry, RegistryError> {
        Ok(self.state(name)?.entry())
    }

    fn state(&self, name: &str) -> Result<Arc<NameState<W>>, RegistryError> {
        self.names
            .get(name)
            .map(|item| Arc::clone(item.value()))
            .ok_or_else(|| not_loaded(name))
    }

    /// Runs `change` on the state of `name` with its map entry locked, and puts the next state, or none, in its place.
    /// The displaced state is declared first so that it is dropped last, when the lock is gone.
    fn edit(
        &self,
        name: &str,
        change: impl FnOnce(Option<&NameState<W>>) -> Result<Option<NameState<W>>, RegistryError>,
    ) -> Result<(), RegistryError> {
        let displaced: Option<Arc<NameState<W>>>;
        match self.names.entry(name.to_owned()) {
            MapEntry::Occupied(mut occupied) => {
                displaced = Some(match change(Some(occupied.get()))? {
                    Some(state) => occupied.insert(Arc::new(state)),
                    None => occupied.remove(),
                });
            }
            MapEntry::Vacant(vacant) => {
                displaced = None;
                if let Some(state) = change(None)? {
                    vacant.insert(Arc::new(state));
                }
            }
        }
        drop(displaced);
        Ok(())
    }
}

fn not_loaded(name: &str) -> RegistryError {
    RegistryError::NotLoaded {
        name: name.to_owned(),
    }
}

/// Position of the one version that starts with `prefix`.
fn one_of(name: &str, prefix: &str, versions: &[&Version]) -> Result<usize, RegistryError> {
    let candidates: Vec<usize> = (0..versions.len())
        .filter(|&position| versions[position].matches_prefix(prefix))
        .collect();
    match candidates.as_slice() {
        [only] => Ok(*only),
        [] => Err(RegistryError::UnknownVersion {
            name: name.to_owned(),
            requested: prefix.to_owned(),
            known: versions.iter().map(|version| (*version).clone()).collect(),
        }),
        several => Err(RegistryError::AmbiguousVersion {
            name: name.to_owned(),
            requested: prefix.to_owned(),
            candidates: several
                .iter()
                .map(|&position| versions[position].clone())
                .collect(),
        }),
    }
}
