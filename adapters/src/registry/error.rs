//! What the registry refuses, with the facts of each refusal.

use thiserror::Error;

use crate::Version;

/// Why the registry did not do as asked; it has not changed then.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RegistryError {
    /// Nothing is loaded under the name.
    #[error("no adapter named '{name}' is loaded")]
    NotLoaded {
        /// The name asked for.
        name: String,
    },
    /// The name is taken.
    #[error(
        "an adapter named '{name}' is loaded already, its active version is {active}; add a version to it or choose another name"
    )]
    AlreadyLoaded {
        /// The name asked for.
        name: String,
        /// What the name means now.
        active: Version,
    },
    /// No retained version starts with what was given.
    #[error("adapter '{name}' has no version '{requested}'; give one of these, or its first 8 or more hex digits: {}", listed(.known))]
    UnknownVersion {
        /// The adapter's name.
        name: String,
        /// The version or prefix asked for.
        requested: String,
        /// Every version the name retains.
        known: Vec<Version>,
    },
    /// Several retained versions start with what was given.
    #[error("'{requested}' stands for {} versions of adapter '{name}'; give more digits of one of these: {}", .candidates.len(), listed(.candidates))]
    AmbiguousVersion {
        /// The adapter's name.
        name: String,
        /// The prefix asked for.
        requested: String,
        /// The versions it fits.
        candidates: Vec<Version>,
    },
    /// Another version than the expected one is active.
    #[error(
        "adapter '{name}' was expected to be at version '{expected}' and is at {active}; read it again and retry"
    )]
    LostCompareAndSwap {
        /// The adapter's name.
        name: String,
        /// The version the caller took for the active one.
        expected: String,
        /// The version that is active.
        active: Version,
    },
    /// There is no earlier version to return to.
    #[error("adapter '{name}' has no earlier version to roll back to; {active} stays active")]
    NothingToRollBack {
        /// The adapter's name.
        name: String,
        /// The version that stays active.
        active: Version,
    },
    /// The active version of several cannot be removed.
    #[error("version {version} of adapter '{name}' is active and cannot be removed; activate one of these first, or remove the adapter: {}", listed(.others))]
    ActiveVersion {
        /// The adapter's name.
        name: String,
        /// The active version.
        version: Version,
        /// The versions that could take its place.
        others: Vec<Version>,
    },
}

impl RegistryError {
    /// A stable snake_case name of the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotLoaded { .. } => "adapter_not_found",
            Self::AlreadyLoaded { .. } => "adapter_already_loaded",
            Self::UnknownVersion { .. } => "version_not_found",
            Self::AmbiguousVersion { .. } => "version_ambiguous",
            Self::LostCompareAndSwap { .. } => "compare_and_swap_lost",
            Self::NothingToRollBack { .. } => "nothing_to_roll_back",
            Self::ActiveVersion { .. } => "version_is_active",
        }
    }
}

fn listed(versions: &[Version]) -> String {
    let versions: Vec<_> = versions.iter().map(Version::as_str).collect();
    versions.join(", ")
}
