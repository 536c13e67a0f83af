//! What an adapter *is*: the files PEFT writes, what they mean over a given base model, their content
//! version, their store on disk, and the registry of those that are loaded.
//!
//! Here belong: parsing and writing of adapter directories, every check that can be made without
//! running the model, names, versions, manifests, leases. Here do not belong: tensors of the base
//! model, prompts and labels, HTTP. The registry holds weights of a type it knows nothing about.
#![forbid(unsafe_code)]

mod adapter;
mod arrival;
mod base;
mod blend;
mod canonical;
mod config;
mod config_fields;
mod domain_profile;
mod error;
mod field_lines;
mod files;
#[cfg(test)]
mod fixture;
mod jail;
mod json;
mod lease;
mod manifest;
mod memory;
mod module;
mod name;
mod pattern;
mod projection;
mod registry;
mod store;
mod summary;
mod targets;
mod tensors;
mod version;
mod write;

pub use adapter::{Adapter, Limits, LoraModule};
pub use arrival::Arrival;
pub use base::{BaseModel, ProjectionShape};
pub use blend::{BlendError, blend, blend_version};
pub use config::LoraConfig;
pub use domain_profile::DomainProfile;
pub use error::AdapterError;
pub use files::{AdapterFiles, CONFIG_FILE, MANIFEST_FILE, WEIGHTS_FILE};
pub use jail::resolve_under;
pub use lease::{Hold, Lease};
pub use manifest::{Manifest, Method};
pub use memory::{Memory, MemoryError, Weights};
pub use name::AdapterName;
pub use projection::Projection;
pub use registry::{Entry, Registry, RegistryError, VersionStatus};
pub use store::{
    AUDIT_FILE, Activation, ActivePointer, AdapterStore, BucketStore, Canary, Cause,
    DirectoryStore, IgnoredEntry, IgnoredReason, Incoming, Pointed, PointerTag, REPORT_FILE,
    RESERVED_NAMES, StoreContents, StoreError, StoredAdapter, StoredVersion,
};
pub use summary::{Proof, Summary};
pub use targets::Targets;
pub use version::Version;
pub use write::{Precision, write_adapter, write_manifest};
