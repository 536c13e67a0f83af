//! What a name points at: the active version, the one before, a canary, and how it came to be so.
//!
//! Changes are pure functions from a pointer to its successor; storing them is the store's business.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Version;

/// Activations that are remembered of a name; the oldest go first.
const REMEMBERED: usize = 100;

/// The mutable state of a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActivePointer {
    /// The version that requests by name get.
    pub active: Version,
    /// The version that was active before, to which a rollback returns.
    pub previous: Option<Version>,
    /// A version that gets a share of the requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// Whether the active version stays in memory, used or not.
    #[serde(default)]
    pub pinned: bool,
    /// The latest activations, oldest first; the last one is that of `active`.
    #[serde(default)]
    pub history: Vec<Activation>,
}

/// A version on trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// The version.
    pub version: Version,
    /// Its share of the requests by name, in percent, from 0 to 100.
    pub percent: f64,
}

/// A moment at which a version became active.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// The version.
    pub version: Version,
    /// Seconds since 1970.
    pub activated: u64,
    /// What made it active.
    pub cause: Cause,
}

/// What makes a version active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It was loaded under the name.
    Load,
    /// It was activated.
    Activate,
    /// It passed a gate.
    Promote,
    /// Its successor was rolled back.
    Rollback,
}

/// A stored pointer and the tag that a compare-and-swap needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Pointed {
    /// The pointer.
    pub pointer: ActivePointer,
    /// Its tag.
    pub tag: PointerTag,
}

/// Tells one stored pointer of a name from another; opaque outside of the store that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointerTag(pub(super) String);

impl fmt::Display for PointerTag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl ActivePointer {
    /// The pointer of a new name.
    pub fn first(version: Version, activated: u64) -> Self {
        Self {
            previous: None,
            canary: None,
            pinned: false,
            history: vec![Activation {
                version: version.clone(),
                activated,
                cause: Cause::Load,
            }],
            active: version,
        }
    }

    /// Every version that must not be removed while this pointer stands.
    pub fn versions(&self) -> impl Iterator<Item = &Version> {
        let canary = self.canary.as_ref().map(|canary| &canary.version);
        [Some(&self.active), self.previous.as_ref(), canary]
            .into_iter()
            .flatten()
    }

    /// `version` is active from now on, and the one that was becomes `previous`; a canary of that version has arrived.
    /// Unchanged when it is active already.
    #[must_use]
    pub fn activated(&self, version: &Version, activated: u64, cause: Cause) -> Self {
        let mut next = self.clone();
        if next
            .canary
            .as_ref()
            .is_some_and(|canary| canary.version == *version)
        {
            next.canary = None;
        }
        if self.active == *version {
            return next;
        }
        next.previous = Some(std::mem::replace(&mut next.active, version.clone()));
        next.history.push(Activation {
            version: version.clone(),
            activated,
            cause,
        });
        let superfluous = next.history.len().saturating_sub(REMEMBERED);
        next.history.drain(..superfluous);
        next
    }

    /// The version before is active again; `None` when there is none.
    pub fn rolled_back(&self, activated: u64) -> Option<Self> {
        let previous = self.previous.as_ref()?;
        Some(self.activated(previous, activated, Cause::Rollback))
    }

    /// What is left to point at once a version that is not active is gone. The history still tells of it.
    #[must_use]
    pub fn without(&self, version: &Version) -> Self {
        let mut next = self.clone();
        next.previous = next.previous.filter(|previous| previous != version);
        next.canary = next.canary.filter(|canary| canary.version != *version);
        next
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a pointer has string keys and a finite share")
    }
}
