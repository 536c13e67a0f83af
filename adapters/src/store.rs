//! The store: adapter versions outside of the process, so that they outlive it, and the pointers that say which one is active.
//!
//! Here belong the layout, the order of writes that makes every change atomic, and the cleaning of what a killed process left
//! behind: [`DirectoryStore`] for a folder of one server, [`BucketStore`] for an object store that several share. Whether an
//! adapter can be served is for [`crate::Adapter::parse`] to say, and what is loaded is the registry's business.
//!
//! A version is immutable, so only pointers are ever contended. [`AdapterStore::replace_pointer`] is a compare-and-swap on
//! them: of any number of servers that start from the same pointer exactly one gets its successor stored.

mod bucket;
mod contents;
#[cfg(test)]
mod crash_tests;
mod directory;
mod disk;
mod error;
mod incoming;
mod pointer;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

pub use self::bucket::BucketStore;
pub use self::contents::{
    IgnoredEntry, IgnoredReason, StoreContents, StoredAdapter, StoredVersion,
};
pub use self::directory::DirectoryStore;
pub use self::error::StoreError;
pub use self::incoming::Incoming;
pub use self::pointer::{Activation, ActivePointer, Canary, Cause, Pointed, PointerTag};
use crate::{AdapterFiles, Version};

/// Names that a store keeps for others than adapters.
pub const RESERVED_NAMES: [&str; 2] = ["evaluations", AUDIT_FILE];

/// The file of a folder's root that a server may write of who did what.
pub const AUDIT_FILE: &str = "audit.jsonl";

/// The file of a version that says what was found when it was loaded; the store does not look into it.
pub const REPORT_FILE: &str = "report.json";

/// Where adapter versions and pointers are kept. Calls block, on a disk or on a network; the threads that make them may be many.
pub trait AdapterStore: Send + Sync + fmt::Debug {
    /// Every stored adapter by name, and what was passed over, with the reason.
    ///
    /// # Errors
    /// When the store cannot be listed at all.
    fn contents(&self) -> Result<StoreContents, StoreError>;

    /// An empty directory for the files of a version on its way in; deleted with what is in it unless it is committed.
    ///
    /// # Errors
    /// `Io`.
    fn incoming(&self) -> Result<Incoming, StoreError>;

    /// Makes incoming files a version of `name`. They are durable and whole when the call returns; which version is active does
    /// not change. A version that is there and intact stays as it is, a damaged one is replaced.
    ///
    /// `version` must be that of the files; [`Incoming`] does not check it.
    ///
    /// # Errors
    /// `Adapter` for a name that is not one, `Io`, `Remote`.
    fn commit(&self, incoming: Incoming, name: &str, version: &Version) -> Result<(), StoreError>;

    /// The files of a stored version, checked to be that version.
    ///
    /// # Errors
    /// `NotStored`, `Damaged`, `Io`, `Remote`.
    fn read(&self, name: &str, version: &Version) -> Result<AdapterFiles, StoreError>;

    /// The [`REPORT_FILE`] of a stored version, `None` when it has none.
    ///
    /// # Errors
    /// `Io`, `Remote`.
    fn read_report(&self, name: &str, version: &Version) -> Result<Option<Vec<u8>>, StoreError>;

    /// The pointer of `name`, `None` when it is not stored or was removed.
    ///
    /// # Errors
    /// `Adapter` for a name that is not one, `Damaged`, `Io`, `Remote`.
    fn pointer(&self, name: &str) -> Result<Option<Pointed>, StoreError>;

    /// Stores a pointer in the place of the one with the tag `expected`, or of none; durable when the call returns.
    ///
    /// # Errors
    /// `PointerMoved` when the stored one is another, `NotStored` when a version it names has not been committed, `Adapter`
    /// for a name that is not one, `Io`, `Remote`. Nothing has changed then.
    fn replace_pointer(
        &self,
        name: &str,
        pointer: &ActivePointer,
        expected: Option<&PointerTag>,
    ) -> Result<PointerTag, StoreError>;

    /// The tag of every pointer, by name; what another server changed since is told by comparing.
    ///
    /// # Errors
    /// `Io`, `Remote`.
    fn pointer_tags(&self) -> Result<BTreeMap<String, PointerTag>, StoreError>;

    /// Removes `name` with all its versions, if its pointer still has the tag `expected`; nothing to do when it is not stored.
    ///
    /// # Errors
    /// `PointerMoved`, `Adapter` for a name that is not one, `Io`, `Remote`.
    fn remove(&self, name: &str, expected: Option<&PointerTag>) -> Result<(), StoreError>;

    /// Removes one version of `name`; nothing to do when it is not stored. The pointer must have let go of it before.
    ///
    /// # Errors
    /// `PointerMoved` when another server points at it meanwhile, `Adapter` for a name that is not one, `Io`, `Remote`.
    fn remove_version(&self, name: &str, version: &Version) -> Result<(), StoreError>;

    /// Takes a damaged version out of the way of a good copy, without deleting it where that costs nothing; nothing to do when
    /// it is not stored.
    ///
    /// # Errors
    /// `Io`, `Remote`.
    fn quarantine(&self, name: &str, version: &Version) -> Result<(), StoreError>;

    /// Whether other servers may change it.
    fn is_shared(&self) -> bool;

    /// Where it is, for logs.
    fn location(&self) -> String;
}
