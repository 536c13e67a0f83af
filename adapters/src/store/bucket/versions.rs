//! Versions in a bucket: whether they are there, and how they come and go.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use futures_util::future::try_join3;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path as Key;
use object_store::{Error, ObjectMeta, ObjectStore as _, ObjectStoreExt as _};

use super::super::{PointerTag, REPORT_FILE, StoreError};
use super::{Bucket, QUARANTINE, moved, not_stored, remote};
use crate::{AdapterFiles, CONFIG_FILE, MANIFEST_FILE, Version, WEIGHTS_FILE};

/// What stands for a report where there is none, because the object has to be there.
const NO_REPORT: &[u8] = b"{}";

/// The objects of one version, by the names of its files.
#[derive(Debug, Default)]
pub(super) struct Found(pub(super) BTreeMap<String, ObjectMeta>);

impl Found {
    pub(super) fn has(&self, file: &str) -> bool {
        self.0.contains_key(file)
    }

    /// A file without which a version is none, other than the report.
    pub(super) fn missing(&self) -> Option<&'static str> {
        [CONFIG_FILE, WEIGHTS_FILE]
            .into_iter()
            .find(|file| !self.has(file))
    }

    /// The report alone would tell, if nobody ever removed what somebody else is storing.
    pub(super) fn is_complete(&self) -> bool {
        self.has(REPORT_FILE) && self.missing().is_none()
    }

    /// Whether nothing has been added for `duration`.
    pub(super) fn is_older_than(&self, duration: Duration) -> bool {
        self.0
            .values()
            .all(|object| is_older_than(object, duration))
    }

    fn keys(&self, wanted: impl Fn(&str) -> bool) -> Vec<Key> {
        let objects = self.0.iter().filter(|(file, _)| wanted(file));
        objects.map(|(_, object)| object.location.clone()).collect()
    }

    pub(super) fn all_keys(&self) -> Vec<Key> {
        self.keys(|_| true)
    }
}

pub(super) fn is_older_than(object: &ObjectMeta, duration: Duration) -> bool {
    // The bucket's clock and this one may differ by a little; the duration is long.
    let age = SystemTime::now().duration_since(SystemTime::from(object.last_modified));
    age.unwrap_or_default() >= duration
}

impl Bucket {
    pub(super) async fn find(&self, name: &str, version: &Version) -> Result<Found, StoreError> {
        let folder = self.version_folder(name, version);
        let listed: Vec<ObjectMeta> = self
            .objects
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(remote)?;
        let files = listed.into_iter().filter_map(|object| {
            let file = object.location.filename()?.to_owned();
            (object.location == folder.clone().join(file.as_str())).then_some((file, object))
        });
        Ok(Found(files.collect()))
    }

    /// Stores the files in `directory`, the report last. What is there already and as large stays.
    pub(super) async fn upload_version(
        &self,
        directory: &Path,
        name: &str,
        version: &Version,
    ) -> Result<(), StoreError> {
        let found = self.find(name, version).await?;
        let bytes = fs_err::metadata(directory.join(WEIGHTS_FILE))?.len();
        let is_whole = |weights: &ObjectMeta| weights.size == bytes;
        if found.is_complete() && found.0.get(WEIGHTS_FILE).is_some_and(is_whole) {
            return Ok(());
        }
        self.delete(found.keys(|file| file == REPORT_FILE)).await?;
        let folder = self.version_folder(name, version);
        let key = |file: &str| folder.clone().join(file);
        for file in [WEIGHTS_FILE, CONFIG_FILE] {
            self.upload(&directory.join(file), &key(file)).await?;
        }
        match directory.join(MANIFEST_FILE) {
            path if path.exists() => self.upload(&path, &key(MANIFEST_FILE)).await?,
            _ => {
                self.delete(found.keys(|file| file == MANIFEST_FILE))
                    .await?
            }
        }
        match directory.join(REPORT_FILE) {
            path if path.exists() => self.upload(&path, &key(REPORT_FILE)).await?,
            _ => self.put(&key(REPORT_FILE), NO_REPORT.to_vec()).await?,
        }
        match self.find(name, version).await?.is_complete() {
            true => Ok(()),
            false => Err(StoreError::Remote(format!(
                "version {version} of adapter '{name}' was removed by another server while it was being stored"
            ))),
        }
    }

    pub(super) async fn read_version(
        &self,
        name: &str,
        version: &Version,
    ) -> Result<AdapterFiles, StoreError> {
        let damaged = |reason: String| StoreError::Damaged {
            name: name.to_owned(),
            reason: format!("version {version}: {reason}"),
        };
        let found = self.find(name, version).await?;
        if !found.has(REPORT_FILE) {
            return Err(not_stored(name, version));
        }
        let (config, weights) = match (found.0.get(CONFIG_FILE), found.0.get(WEIGHTS_FILE)) {
            (Some(config), Some(weights)) => (config, weights),
            (None, _) => return Err(damaged(format!("{CONFIG_FILE} is missing"))),
            (_, None) => return Err(damaged(format!("{WEIGHTS_FILE} is missing"))),
        };
        let fetch = async |object| {
            let fetched = self.fetch(object).await;
            fetched.map_err(|error| match error {
                Error::NotFound { .. } => not_stored(name, version),
                error => remote(error),
            })
        };
        let manifest = async {
            match found.0.get(MANIFEST_FILE) {
                Some(manifest) => fetch(manifest).await.map(Some),
                None => Ok(None),
            }
        };
        let (config, weights, manifest) =
            try_join3(fetch(config), fetch(weights), manifest).await?;
        let files = AdapterFiles {
            config,
            weights,
            manifest,
        };
        match files.version() {
            Ok(got) if got == *version => Ok(files),
            Ok(got) => Err(damaged(format!("its content is that of version {got}"))),
            Err(error) => Err(damaged(error.to_string())),
        }
    }

    pub(super) async fn read_report(
        &self,
        name: &str,
        version: &Version,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let report = self.report(name, version).await?;
        Ok(report.filter(|bytes| bytes != NO_REPORT))
    }

    /// The report's object as it is.
    async fn report(&self, name: &str, version: &Version) -> Result<Option<Vec<u8>>, StoreError> {
        let key = self.version_folder(name, version).join(REPORT_FILE);
        match self.objects.get(&key).await {
            Ok(found) => Ok(Some(found.bytes().await.map_err(remote)?.to_vec())),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(remote(error)),
        }
    }

    pub(super) async fn remove(
        &self,
        name: &str,
        expected: Option<&PointerTag>,
    ) -> Result<(), StoreError> {
        if self.mark_removed(name, expected).await? {
            // The name is gone, and that is what was asked. Objects that stay behind go a day later, as those of the killed do.
            let _ = self.remove_versions(name).await;
        }
        Ok(())
    }

    async fn remove_versions(&self, name: &str) -> Result<(), StoreError> {
        let folder = self.name_folder(name);
        let listed = self.objects.list_with_delimiter(Some(&folder)).await;
        for folder in listed.map_err(remote)?.common_prefixes {
            let version = folder.filename().map(str::parse::<Version>);
            if let Some(Ok(version)) = version {
                self.remove_version(name, &version).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn has_versions(&self, name: &str) -> Result<bool, StoreError> {
        let folder = self.name_folder(name);
        let first = self.objects.list(Some(&folder)).try_next().await;
        Ok(first.map_err(remote)?.is_some())
    }

    /// Removes a version that no pointer names.
    ///
    /// # Errors
    /// `PointerMoved` when one does.
    pub(super) async fn remove_version(
        &self,
        name: &str,
        version: &Version,
    ) -> Result<(), StoreError> {
        if self.is_named(name, version).await? {
            return Err(moved(name));
        }
        let key = self.version_folder(name, version).join(REPORT_FILE);
        if let Some(report) = self.report(name, version).await? {
            self.delete(vec![key.clone()]).await?;
            // Who pointed at it in between saw it whole.
            if self.is_named(name, version).await? {
                self.put(&key, report).await?;
                return Err(moved(name));
            }
        }
        let rest = self.find(name, version).await?;
        self.delete(rest.keys(|file| file != REPORT_FILE)).await
    }

    pub(super) async fn quarantine(&self, name: &str, version: &Version) -> Result<(), StoreError> {
        let found = self.find(name, version).await?;
        let place = self.prefix.clone().join(QUARANTINE);
        let place = place.join(name).join(version.as_str());
        for (file, object) in &found.0 {
            let to = place.clone().join(file.as_str());
            self.objects
                .copy(&object.location, &to)
                .await
                .map_err(remote)?;
        }
        self.delete(found.keys(|file| file == REPORT_FILE)).await?;
        self.delete(found.keys(|file| file != REPORT_FILE)).await
    }

    pub(super) async fn delete(&self, keys: Vec<Key>) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        let keys = stream::iter(keys.into_iter().map(Ok)).boxed();
        let mut deleted = self.objects.delete_stream(keys);
        while let Some(result) = deleted.next().await {
            match result {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(remote(error)),
            }
        }
        Ok(())
    }
}
