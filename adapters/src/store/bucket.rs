//! The store that several servers share: a bucket of an S3 or of what speaks like one.
//!
//! ```text
//! <prefix>/<name>/<version>/{adapter_config.json, adapter_model.safetensors, manifest.json?, report.json}
//! <prefix>/.active/<name>                  the pointer, as JSON, or the note that the name was removed
//! <prefix>/.quarantine/<name>/<version>/   a damaged version, as it was found
//! <prefix>/evaluations/                    not the store's; left alone
//! ```
//!
//! A bucket renames nothing, so the order of writes does what a rename does for a folder: `report.json` is written last and
//! deleted first, and a version is there when it is. Pointers lie side by side, so that one listing tells of every change.
//! They are replaced by conditional writes, which the bucket must know: S3, R2, MinIO, Ceph and others do.
//!
//! One server may point at a version while another removes it. Both write before they look: who points looks for the report
//! afterwards, who removes takes the report away and then reads the pointer. Whichever is later sees the other and steps back.
//!
//! A server killed while it uploads leaves objects without a report, which [`AdapterStore::contents`] deletes when they are a
//! day old, and parts that no listing shows: a bucket should have a rule that aborts unfinished multipart uploads.

mod contents;
#[cfg(test)]
mod contents_tests;
#[cfg(test)]
mod fault_tests;
mod location;
#[cfg(test)]
mod pointer_tests;
mod pointers;
mod runtime;
#[cfg(test)]
mod s3_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod transfer;
#[cfg(test)]
mod version_tests;
mod versions;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::path::Path as Key;

use self::runtime::Runtime;
use super::{
    ActivePointer, AdapterStore, Incoming, Pointed, PointerTag, RESERVED_NAMES, StoreContents,
    StoreError,
};
use crate::{AdapterFiles, AdapterName, Version};

/// Where the pointers are.
const ACTIVE: &str = ".active";
const QUARANTINE: &str = ".quarantine";
/// Where files are before they are uploaded, in the local folder.
const STAGING: &str = ".staging";

/// For how long a version without a report may still be on its way. No upload takes so long.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Adapters in a bucket, under a prefix that any number of servers may read and write.
#[derive(Debug)]
pub struct BucketStore {
    bucket: Bucket,
    runtime: Runtime,
    staging: PathBuf,
}

/// The bucket and where in it the store is. Its methods are the store's, for someone who can await them.
#[derive(Debug)]
struct Bucket {
    objects: Arc<dyn ObjectStore>,
    prefix: Key,
    url: String,
    abandoned_after: Duration,
}

impl BucketStore {
    /// Opens the store at `s3://bucket/prefix`. Credentials, region and endpoint come from the usual `AWS_*` environment
    /// variables; an endpoint (`AWS_ENDPOINT_URL`) that says `http://` is talked to in plain text. The bucket is not asked yet.
    ///
    /// Files are put into the local folder `scratch` before they are uploaded. It must be this process's alone: what another one
    /// left there is deleted.
    ///
    /// # Errors
    /// `Location` for what is no such URL or when the variables contradict each other, `Io` when `scratch` cannot be made.
    pub fn open(location: &str, scratch: &Path) -> Result<Self, StoreError> {
        let place = location::parse(location)?;
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let client = location::connect(&place, variables)?;
        Self::over(Arc::new(client), place.prefix.as_ref(), &place.url, scratch)
    }

    /// The store in the part of any `objects` whose keys begin with `prefix`. They must know conditional writes. `url` is for
    /// people to read, `scratch` as in [`BucketStore::open`].
    ///
    /// # Errors
    /// `Location` for a prefix that no key can have, `Io`.
    pub fn over(
        objects: Arc<dyn ObjectStore>,
        prefix: &str,
        url: &str,
        scratch: &Path,
    ) -> Result<Self, StoreError> {
        let prefix = location::prefix(prefix, url)?;
        let staging = scratch.join(STAGING);
        if staging.exists() {
            fs_err::remove_dir_all(&staging)?;
        }
        fs_err::create_dir_all(&staging)?;
        Ok(Self {
            bucket: Bucket {
                objects,
                prefix,
                url: url.to_owned(),
                abandoned_after: ABANDONED_AFTER,
            },
            runtime: Runtime::start()?,
            staging,
        })
    }
}

impl Bucket {
    fn name_folder(&self, name: &str) -> Key {
        self.prefix.clone().join(name)
    }

    fn version_folder(&self, name: &str, version: &Version) -> Key {
        self.name_folder(name).join(version.as_str())
    }

    fn pointer_folder(&self) -> Key {
        self.prefix.clone().join(ACTIVE)
    }

    fn pointer_key(&self, name: &str) -> Key {
        self.pointer_folder().join(name)
    }
}

impl AdapterStore for BucketStore {
    /// Reads keys and pointers, no weights. Deletes what killed servers left unfinished, once it is a day old.
    fn contents(&self) -> Result<StoreContents, StoreError> {
        self.runtime.wait(self.bucket.contents())
    }

    fn incoming(&self) -> Result<Incoming, StoreError> {
        Ok(Incoming::new(&self.staging)?)
    }

    /// Takes for intact what has all its files and weights of the right size.
    fn commit(&self, incoming: Incoming, name: &str, version: &Version) -> Result<(), StoreError> {
        checked(name)?;
        self.runtime
            .wait(self.bucket.upload_version(incoming.path(), name, version))
    }

    fn read(&self, name: &str, version: &Version) -> Result<AdapterFiles, StoreError> {
        checked(name)?;
        self.runtime.wait(self.bucket.read_version(name, version))
    }

    fn read_report(&self, name: &str, version: &Version) -> Result<Option<Vec<u8>>, StoreError> {
        checked(name)?;
        self.runtime.wait(self.bucket.read_report(name, version))
    }

    fn pointer(&self, name: &str) -> Result<Option<Pointed>, StoreError> {
        checked(name)?;
        self.runtime.wait(self.bucket.pointer(name))
    }

    fn replace_pointer(
        &self,
        name: &str,
        pointer: &ActivePointer,
        expected: Option<&PointerTag>,
    ) -> Result<PointerTag, StoreError> {
        checked(name)?;
        self.runtime
            .wait(self.bucket.replace_pointer(name, pointer, expected))
    }

    fn pointer_tags(&self) -> Result<BTreeMap<String, PointerTag>, StoreError> {
        self.runtime.wait(self.bucket.pointer_tags())
    }

    fn remove(&self, name: &str, expected: Option<&PointerTag>) -> Result<(), StoreError> {
        checked(name)?;
        self.runtime.wait(self.bucket.remove(name, expected))
    }

    fn remove_version(&self, name: &str, version: &Version) -> Result<(), StoreError> {
        checked(name)?;
        self.runtime.wait(self.bucket.remove_version(name, version))
    }

    fn quarantine(&self, name: &str, version: &Version) -> Result<(), StoreError> {
        checked(name)?;
        self.runtime.wait(self.bucket.quarantine(name, version))
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn location(&self) -> String {
        self.bucket.url.clone()
    }
}

fn checked(name: &str) -> Result<(), StoreError> {
    AdapterName::parse(name, &RESERVED_NAMES)?;
    Ok(())
}

fn not_stored(name: &str, version: &Version) -> StoreError {
    StoreError::NotStored {
        name: name.to_owned(),
        version: version.clone(),
    }
}

fn moved(name: &str) -> StoreError {
    StoreError::PointerMoved {
        name: name.to_owned(),
    }
}

/// What the bucket's client says, which names the request.
fn remote(error: object_store::Error) -> StoreError {
    StoreError::Remote(error.to_string())
}
