//! A name as it was at one moment, and what may follow from it.

use super::{RegistryError, one_of};
use crate::{ActivePointer, PointerTag, Summary, Version};

/// One name as it was at one moment.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The adapter's name.
    pub name: String,
    /// Unix seconds at which the oldest version loaded under this name was created.
    pub created: u64,
    /// What it points at.
    pub pointer: ActivePointer,
    /// The stored pointer's tag, `None` when none is stored.
    pub tag: Option<PointerTag>,
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
    /// Bytes that its weights take in memory, 0 when they are not there.
    pub resident_bytes: usize,
}

impl Entry {
    /// The version that requests by name get.
    pub fn active(&self) -> &Version {
        &self.pointer.active
    }

    /// Whether a version is retained.
    pub fn retains(&self, version: &Version) -> bool {
        self.status(version).is_some()
    }

    /// A retained version.
    pub fn status(&self, version: &Version) -> Option<&VersionStatus> {
        (self.versions.iter()).find(|status| status.summary.version == *version)
    }

    /// The full version that `prefix`, at least 8 hex digits, stands for.
    ///
    /// # Errors
    /// `UnknownVersion`, `AmbiguousVersion`.
    pub fn resolve(&self, prefix: &str) -> Result<&Version, RegistryError> {
        let versions = self.versions().collect::<Vec<_>>();
        Ok(versions[one_of(&self.name, prefix, &versions)?])
    }

    /// Refuses to go on from another active version than the expected one, or the one that starts so.
    ///
    /// # Errors
    /// `LostCompareAndSwap`.
    pub fn expect_active(&self, expected: &str) -> Result<(), RegistryError> {
        if self.active().matches_prefix(expected) {
            return Ok(());
        }
        Err(RegistryError::LostCompareAndSwap {
            name: self.name.clone(),
            expected: expected.to_owned(),
            active: self.active().clone(),
        })
    }

    /// The pointer after a rollback.
    ///
    /// # Errors
    /// `NothingToRollBack`.
    pub fn rolled_back(&self, at: u64) -> Result<ActivePointer, RegistryError> {
        let next = self.pointer.rolled_back(at);
        next.ok_or_else(|| RegistryError::NothingToRollBack {
            name: self.name.clone(),
            active: self.active().clone(),
        })
    }

    /// The pointer without a retained version; `None` when that is the only one, and the name goes with it.
    ///
    /// # Errors
    /// `ActiveVersion` when it is the active one of several.
    pub fn without(&self, version: &Version) -> Result<Option<ActivePointer>, RegistryError> {
        if self.versions.len() == 1 {
            return Ok(None);
        }
        if version == self.active() {
            let others = self.versions().filter(|other| *other != version);
            return Err(RegistryError::ActiveVersion {
                name: self.name.clone(),
                version: version.clone(),
                others: others.cloned().collect(),
            });
        }
        Ok(Some(self.pointer.without(version)))
    }

    /// Retained versions beyond the newest `keep`, oldest first, that the pointer does not name and no request uses.
    pub fn superfluous(&self, keep: usize) -> Vec<Version> {
        let beyond = self.versions.len().saturating_sub(keep);
        self.versions
            .iter()
            .take(beyond)
            .filter(|status| status.in_flight == 0)
            .map(|status| &status.summary.version)
            .filter(|version| self.pointer.versions().all(|named| named != *version))
            .cloned()
            .collect()
    }

    fn versions(&self) -> impl Iterator<Item = &Version> {
        self.versions.iter().map(|status| &status.summary.version)
    }
}
