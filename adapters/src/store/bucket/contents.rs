//! What a bucket holds, from one listing and the pointers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStore as _};

use super::super::contents::among;
use super::super::{
    ActivePointer, IgnoredEntry, IgnoredReason, REPORT_FILE, RESERVED_NAMES, StoreContents,
    StoreError, StoredAdapter, StoredVersion,
};
use super::pointers::{Held, Slot};
use super::versions::{Found, is_older_than};
use super::{ACTIVE, Bucket, QUARANTINE, remote};
use crate::{AdapterError, AdapterName, Version, WEIGHTS_FILE};

/// Pointers that are read at a time.
const POINTERS_AT_ONCE: usize = 16;

/// A listing, sorted by what the keys mean.
#[derive(Debug, Default)]
struct Listing {
    names: BTreeMap<String, BTreeMap<Version, Found>>,
    pointers: BTreeMap<String, ObjectMeta>,
}

/// What is passed over, by its path below the prefix: many objects may share one.
type Ignored = BTreeMap<String, (Option<(String, Version)>, IgnoredReason)>;

impl Listing {
    fn add(&mut self, path: &[&str], object: ObjectMeta, ignored: &mut Ignored) {
        let is_name = |name: &str| AdapterName::parse(name, &RESERVED_NAMES).is_ok();
        let (length, reason) = match *path {
            [ACTIVE, name] if is_name(name) => {
                self.pointers.insert(name.to_owned(), object);
                return;
            }
            [first, ..] if first == QUARANTINE || RESERVED_NAMES.contains(&first) => return,
            [ACTIVE, ..] => (path.len(), IgnoredReason::NotAName),
            [name, ..] if !is_name(name) => (1, IgnoredReason::NotAName),
            [name, version, file] => match version.parse::<Version>() {
                Ok(version) => {
                    let versions = self.names.entry(name.to_owned()).or_default();
                    let files = versions.entry(version).or_default();
                    files.0.insert(file.to_owned(), object);
                    return;
                }
                Err(_) => (2, IgnoredReason::NotAVersion),
            },
            [_] => (1, IgnoredReason::NotADirectory),
            _ => (path.len(), IgnoredReason::NotAVersion),
        };
        let path = path.get(..length).unwrap_or(path).join("/");
        ignored.insert(path, (None, reason));
    }
}

impl Bucket {
    pub(super) async fn contents(&self) -> Result<StoreContents, StoreError> {
        let mut ignored = Ignored::new();
        let mut listing = self.listing(&mut ignored).await?;
        let mut slots = self.slots(listing.pointers.keys()).await?;
        let names: BTreeSet<String> = (listing.names.keys())
            .chain(slots.keys())
            .cloned()
            .collect();
        let mut adapters = Vec::new();
        for name in names {
            let found = listing.names.remove(&name).unwrap_or_default();
            let slot = slots.remove(&name);
            let is_removed = slot.as_ref().is_some_and(Slot::is_removed);
            let abandoned = match listing.pointers.get(&name) {
                Some(note) if is_removed => self.left_behind(note, &found),
                _ => self.abandoned(slot.as_ref(), &found),
            };
            if let Err(error) = self.delete(abandoned).await {
                let reason = IgnoredReason::Io(std::io::Error::other(error));
                ignored.insert(name.clone(), (None, reason));
            }
            if !is_removed {
                adapters.extend(stored_adapter(name, slot, &found, &mut ignored));
            }
        }
        let ignored = ignored
            .into_iter()
            .map(|(path, (version, reason))| IgnoredEntry {
                path: PathBuf::from(format!("{}/{path}", self.url)),
                version,
                reason,
            });
        Ok(StoreContents {
            adapters,
            ignored: ignored.collect(),
        })
    }

    async fn listing(&self, ignored: &mut Ignored) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        let mut objects = self.objects.list(Some(&self.prefix));
        while let Some(object) = objects.try_next().await.map_err(remote)? {
            let key = object.location.clone();
            let parts: Vec<_> = key
                .prefix_match(&self.prefix)
                .into_iter()
                .flatten()
                .collect();
            let path: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
            listing.add(&path, object, ignored);
        }
        Ok(listing)
    }

    /// What is in the place of each pointer. One that cannot be had is an error: its name would seem to have no pointer.
    async fn slots(
        &self,
        names: impl Iterator<Item = &String>,
    ) -> Result<BTreeMap<String, Slot>, StoreError> {
        let names: Vec<String> = names.cloned().collect();
        let slots: Vec<(Option<Slot>, String)> = stream::iter(names)
            .map(async |name| self.slot(&name).await.map(|slot| (slot, name)))
            .buffer_unordered(POINTERS_AT_ONCE)
            .try_collect()
            .await?;
        let slots = slots
            .into_iter()
            .filter_map(|(slot, name)| Some((name, slot?)));
        Ok(slots.collect())
    }

    /// Objects that a killed server did not come to remove with their name.
    fn left_behind(&self, note: &ObjectMeta, found: &BTreeMap<Version, Found>) -> Vec<Key> {
        if !is_older_than(note, self.abandoned_after) {
            return Vec::new();
        }
        let versions = found.values();
        versions
            .filter(|found| found.is_older_than(self.abandoned_after))
            .flat_map(Found::all_keys)
            .collect()
    }

    /// Objects of versions that a killed server did not finish. What a pointer names may only want its report back.
    fn abandoned(&self, slot: Option<&Slot>, found: &BTreeMap<Version, Found>) -> Vec<Key> {
        let is_abandoned = |version: &Version, found: &Found| {
            !found.has(REPORT_FILE)
                && found.is_older_than(self.abandoned_after)
                && !slot.is_some_and(|slot| slot.names(version))
        };
        let versions = found.iter();
        versions
            .filter(|(version, found)| is_abandoned(version, found))
            .flat_map(|(_, found)| found.all_keys())
            .collect()
    }
}

fn stored_adapter(
    name: String,
    slot: Option<Slot>,
    found: &BTreeMap<Version, Found>,
    ignored: &mut Ignored,
) -> Option<StoredAdapter> {
    let versions = complete(&name, found, ignored);
    let (held, tag) = match slot {
        Some(Slot { held, tag, .. }) => (Some(held), Some(tag)),
        None => (None, None),
    };
    let usable = match held {
        Some(Held::Pointer(pointer)) => among(pointer, &versions).map(Some),
        Some(Held::Damaged(reason)) => Err(IgnoredReason::Pointer(reason)),
        Some(Held::Removed) | None => Ok(None),
    };
    let stored = usable.unwrap_or_else(|reason| {
        ignored.insert(format!("{ACTIVE}/{name}"), (None, reason));
        None
    });
    let newest = versions.last();
    let newest = newest.map(|newest| ActivePointer::first(newest.version.clone(), newest.written));
    Some(StoredAdapter {
        pointer: stored.or(newest)?,
        name,
        tag,
        versions,
    })
}

/// The versions that are whole, oldest first.
fn complete(
    name: &str,
    found: &BTreeMap<Version, Found>,
    ignored: &mut Ignored,
) -> Vec<StoredVersion> {
    let mut versions = Vec::new();
    for (version, found) in found {
        // Without a report it may be on its way.
        if !found.has(REPORT_FILE) {
            continue;
        }
        match (found.missing(), found.0.get(WEIGHTS_FILE)) {
            (None, Some(weights)) => versions.push(StoredVersion {
                written: (weights.last_modified.timestamp())
                    .try_into()
                    .unwrap_or_default(),
                version: version.clone(),
            }),
            (missing, _) => {
                let path = format!("{name}/{version}");
                let file = missing.unwrap_or(WEIGHTS_FILE);
                let reason = IgnoredReason::Unreadable(AdapterError::MissingFile {
                    path: PathBuf::from(&path).join(file),
                });
                ignored.insert(path, (Some((name.to_owned(), version.clone())), reason));
            }
        }
    }
    versions.sort();
    versions
}
