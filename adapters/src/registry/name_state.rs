//! What one name means at one moment, and the states that can follow it.
//!
//! Everything here is a pure function of the state: locking and dropping are left to the registry.

use std::sync::Arc;

use super::{Entry, RegistryError, VersionStatus};
use crate::lease::Slot;
use crate::{ActivePointer, PointerTag, Version, Weights};

/// The immutable state of a name. Every version its pointer names is among `retained`.
pub(super) struct NameState<W: Weights> {
    pointer: ActivePointer,
    tag: Option<PointerTag>,
    active: Arc<Slot<W>>,
    /// With its share of the requests, in percent.
    canary: Option<(Arc<Slot<W>>, f64)>,
    retained: Vec<Arc<Slot<W>>>,
}

impl<W: Weights> NameState<W> {
    /// A name that points at some of `retained`.
    ///
    /// # Errors
    /// `UnknownVersion` when the pointer names a version that is not retained.
    pub(super) fn new(
        name: &str,
        retained: Vec<Arc<Slot<W>>>,
        (pointer, tag): (ActivePointer, Option<PointerTag>),
    ) -> Result<Self, RegistryError> {
        let slot_of = |version: &Version| {
            let slot = retained
                .iter()
                .find(|slot| slot.summary.version == *version);
            slot.cloned().ok_or_else(|| RegistryError::UnknownVersion {
                name: name.to_owned(),
                requested: version.to_string(),
                known: versions(&retained).cloned().collect(),
            })
        };
        for version in pointer.versions() {
            slot_of(version)?;
        }
        let active = slot_of(&pointer.active)?;
        let canary = match &pointer.canary {
            Some(canary) => Some((slot_of(&canary.version)?, canary.percent)),
            None => None,
        };
        for slot in &retained {
            slot.pin(pointer.pinned && Arc::ptr_eq(slot, &active));
        }
        Ok(Self {
            pointer,
            tag,
            active,
            canary,
            retained,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.active.name
    }

    pub(super) fn active(&self) -> &Arc<Slot<W>> {
        &self.active
    }

    /// The version for a request that drew `draw` of 100: the canary's share lies at the low end.
    pub(super) fn drawn(&self, draw: f64) -> &Arc<Slot<W>> {
        match &self.canary {
            Some((slot, percent)) if draw < *percent => slot,
            Some(_) | None => &self.active,
        }
    }

    pub(super) fn retained(&self) -> &[Arc<Slot<W>>] {
        &self.retained
    }

    /// The one retained version that starts with `prefix`.
    pub(super) fn find(&self, prefix: &str) -> Result<&Arc<Slot<W>>, RegistryError> {
        let position = super::one_of(
            self.name(),
            prefix,
            &versions(&self.retained).collect::<Vec<_>>(),
        )?;
        Ok(&self.retained[position])
    }

    pub(super) fn entry(&self) -> Entry {
        let versions: Vec<_> = self
            .retained
            .iter()
            .map(|slot| VersionStatus {
                summary: slot.summary.clone(),
                active: Arc::ptr_eq(slot, &self.active),
                in_flight: slot.in_flight(),
                resident_bytes: slot.resident_bytes(),
            })
            .collect();
        Entry {
            name: self.name().to_owned(),
            created: versions
                .iter()
                .map(|status| status.summary.created)
                .min()
                .expect("a name retains its active version at least"),
            pointer: self.pointer.clone(),
            tag: self.tag.clone(),
            versions,
        }
    }
}

fn versions<W: Weights>(retained: &[Arc<Slot<W>>]) -> impl Iterator<Item = &Version> {
    retained.iter().map(|slot| &slot.summary.version)
}
