//! What one name means at one moment, and the states that can follow it.
//!
//! Everything here is a pure function of the state: locking and dropping are left to the registry.

use std::sync::Arc;

use super::{Entry, RegistryError, VersionStatus};
use crate::Version;
use crate::lease::Loaded;

/// The immutable state of a name. `active` and, when there is one, `previous` are among `retained`.
pub(super) struct NameState<W> {
    pub(super) active: Arc<Loaded<W>>,
    previous: Option<Version>,
    retained: Vec<Arc<Loaded<W>>>,
}

/// What follows a state.
pub(super) enum Next<W> {
    Unchanged,
    Replaced(NameState<W>),
    Removed,
}

impl<W> NameState<W> {
    pub(super) fn first(loaded: Arc<Loaded<W>>) -> Self {
        Self {
            active: Arc::clone(&loaded),
            previous: None,
            retained: vec![loaded],
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.active.name
    }

    pub(super) fn active(&self) -> &Version {
        &self.active.summary.version
    }

    pub(super) fn previous_loaded(&self) -> Option<&Arc<Loaded<W>>> {
        self.previous
            .as_ref()
            .and_then(|previous| self.retained(previous))
    }

    /// The one retained version that starts with `prefix`.
    pub(super) fn find(&self, prefix: &str) -> Result<&Arc<Loaded<W>>, RegistryError> {
        let candidates: Vec<_> = self
            .retained
            .iter()
            .filter(|loaded| loaded.summary.version.matches_prefix(prefix))
            .collect();
        match candidates.as_slice() {
            [only] => Ok(only),
            [] => Err(RegistryError::UnknownVersion {
                name: self.name().to_owned(),
                requested: prefix.to_owned(),
                known: self.versions().cloned().collect(),
            }),
            several => Err(RegistryError::AmbiguousVersion {
                name: self.name().to_owned(),
                requested: prefix.to_owned(),
                candidates: several
                    .iter()
                    .map(|loaded| loaded.summary.version.clone())
                    .collect(),
            }),
        }
    }

    /// Retains `loaded` too, unless its version is retained already, and makes it active when asked to.
    pub(super) fn with(&self, loaded: &Arc<Loaded<W>>, activate: bool) -> Next<W> {
        match self.retained(&loaded.summary.version) {
            Some(present) if activate => self.activated(present),
            Some(_) => Next::Unchanged,
            None => {
                let mut retained = self.retained.clone();
                retained.push(Arc::clone(loaded));
                let (active, previous) = if activate {
                    (Arc::clone(loaded), Some(self.active().clone()))
                } else {
                    (Arc::clone(&self.active), self.previous.clone())
                };
                Next::Replaced(Self {
                    active,
                    previous,
                    retained,
                })
            }
        }
    }

    /// Makes `target`, one of the retained, the active version.
    pub(super) fn activated(&self, target: &Arc<Loaded<W>>) -> Next<W> {
        if &target.summary.version == self.active() {
            return Next::Unchanged;
        }
        Next::Replaced(Self {
            active: Arc::clone(target),
            previous: Some(self.active().clone()),
            retained: self.retained.clone(),
        })
    }

    /// Gives up a retained version.
    pub(super) fn without(&self, version: &Version) -> Result<Next<W>, RegistryError> {
        if self.retained.len() == 1 {
            return Ok(Next::Removed);
        }
        if version == self.active() {
            return Err(RegistryError::ActiveVersion {
                name: self.name().to_owned(),
                version: version.clone(),
                others: self
                    .versions()
                    .filter(|other| *other != version)
                    .cloned()
                    .collect(),
            });
        }
        Ok(Next::Replaced(Self {
            active: Arc::clone(&self.active),
            previous: self.previous.clone().filter(|previous| previous != version),
            retained: self
                .retained
                .iter()
                .filter(|loaded| &loaded.summary.version != version)
                .cloned()
                .collect(),
        }))
    }

    pub(super) fn entry(&self) -> Entry {
        let versions: Vec<_> = self
            .retained
            .iter()
            .map(|loaded| VersionStatus {
                summary: loaded.summary.clone(),
                active: &loaded.summary.version == self.active(),
                in_flight: loaded.in_flight(),
            })
            .collect();
        Entry {
            name: self.name().to_owned(),
            created: versions
                .iter()
                .map(|status| status.summary.created)
                .min()
                .expect("a name retains its active version at least"),
            active: self.active().clone(),
            previous: self.previous.clone(),
            versions,
        }
    }

    fn retained(&self, version: &Version) -> Option<&Arc<Loaded<W>>> {
        self.retained
            .iter()
            .find(|loaded| &loaded.summary.version == version)
    }

    fn versions(&self) -> impl Iterator<Item = &Version> {
        self.retained.iter().map(|loaded| &loaded.summary.version)
    }
}
