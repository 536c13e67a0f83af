//! Pointers in a bucket: read, compared and swapped.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use futures_util::future::try_join_all;
use object_store::{Error, ObjectStore as _, ObjectStoreExt as _, PutMode, UpdateVersion};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::{ActivePointer, Pointed, PointerTag, RESERVED_NAMES, StoreError};
use super::{Bucket, moved, not_stored, remote};
use crate::{AdapterName, Version};

/// The JSON in a pointer's place.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Another one with every write. It tells who won when an answer was lost; and as tags are digests of the content, it makes
    /// them differ even where a pointer returns to what it was, or where two servers write the same.
    write: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pointer: Option<ActivePointer>,
    /// In place of a pointer. The object stays, because a tag that is gone could not be compared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    removed: bool,
}

/// What is in a pointer's place.
#[derive(Debug)]
pub(super) struct Slot {
    /// As the header of a condition has to give it.
    e_tag: String,
    pub(super) tag: PointerTag,
    pub(super) held: Held,
    write: Option<String>,
}

#[derive(Debug)]
pub(super) enum Held {
    Pointer(ActivePointer),
    Removed,
    /// What is wrong with it.
    Damaged(String),
}

impl Slot {
    fn read(e_tag: String, bytes: &[u8]) -> Self {
        let (write, held) = match serde_json::from_slice::<Record>(bytes) {
            Ok(Record {
                write,
                removed: true,
                ..
            }) => (Some(write), Held::Removed),
            Ok(Record {
                write,
                pointer: Some(pointer),
                ..
            }) => (Some(write), Held::Pointer(pointer)),
            Ok(Record { pointer: None, .. }) => (
                None,
                Held::Damaged("it holds neither a pointer nor its removal".to_owned()),
            ),
            Err(error) => (None, Held::Damaged(error.to_string())),
        };
        Self {
            tag: tag_of(&e_tag),
            e_tag,
            held,
            write,
        }
    }

    /// Whether a caller that expects `expected` may replace it. Who expects none may replace what cannot be read.
    fn is(&self, expected: Option<&PointerTag>) -> bool {
        match expected {
            Some(expected) => self.tag == *expected,
            None => !matches!(self.held, Held::Pointer(_)),
        }
    }

    pub(super) fn is_removed(&self) -> bool {
        matches!(self.held, Held::Removed)
    }

    pub(super) fn names(&self, version: &Version) -> bool {
        match &self.held {
            Held::Pointer(pointer) => pointer.versions().any(|named| named == version),
            Held::Removed | Held::Damaged(_) => false,
        }
    }
}

impl Bucket {
    pub(super) async fn pointer(&self, name: &str) -> Result<Option<Pointed>, StoreError> {
        let Some(Slot { tag, held, .. }) = self.slot(name).await? else {
            return Ok(None);
        };
        match held {
            Held::Pointer(pointer) => Ok(Some(Pointed { pointer, tag })),
            Held::Removed => Ok(None),
            Held::Damaged(reason) => Err(StoreError::Damaged {
                name: name.to_owned(),
                reason: format!("its pointer cannot be read: {reason}"),
            }),
        }
    }

    pub(super) async fn pointer_tags(&self) -> Result<BTreeMap<String, PointerTag>, StoreError> {
        let listed: Vec<_> = self
            .objects
            .list(Some(&self.pointer_folder()))
            .try_collect()
            .await
            .map_err(remote)?;
        let mut tags = BTreeMap::new();
        for object in listed {
            let name = object.location.filename().unwrap_or_default();
            let is_pointer = object.location == self.pointer_key(name)
                && AdapterName::parse(name, &RESERVED_NAMES).is_ok();
            if is_pointer {
                tags.insert(name.to_owned(), tag_of(&given(object.e_tag)?));
            }
        }
        Ok(tags)
    }

    pub(super) async fn replace_pointer(
        &self,
        name: &str,
        pointer: &ActivePointer,
        expected: Option<&PointerTag>,
    ) -> Result<PointerTag, StoreError> {
        let before = self.slot(name).await?;
        let is_expected = match &before {
            Some(slot) => slot.is(expected),
            None => expected.is_none(),
        };
        if !is_expected {
            return Err(moved(name));
        }
        self.check_stored(name, pointer).await?;
        let before_tag = before.as_ref().map(|slot| slot.e_tag.as_str());
        let e_tag = self.write(name, Some(pointer), before_tag).await?;

        // Another server may have removed one of them before it could see this pointer.
        match self.check_stored(name, pointer).await {
            Err(error @ StoreError::NotStored { .. }) => {
                self.step_back(name, before, &e_tag).await?;
                Err(error)
            }
            // When it cannot be asked, that they were there a moment ago has to do.
            Ok(()) | Err(_) => Ok(tag_of(&e_tag)),
        }
    }

    /// Puts back what was there before the pointer that is `now`.
    async fn step_back(
        &self,
        name: &str,
        before: Option<Slot>,
        now: &str,
    ) -> Result<(), StoreError> {
        let before = before.and_then(|slot| match slot.held {
            Held::Pointer(pointer) => Some(pointer),
            Held::Removed | Held::Damaged(_) => None,
        });
        match self.write(name, before.as_ref(), Some(now)).await {
            // Who went on from this pointer has looked for the versions too.
            Ok(_) | Err(StoreError::PointerMoved { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Puts the note that `name` was removed in the place of a pointer that may be replaced; `false` when there is nothing to
    /// remove.
    pub(super) async fn mark_removed(
        &self,
        name: &str,
        expected: Option<&PointerTag>,
    ) -> Result<bool, StoreError> {
        match self.slot(name).await? {
            Some(slot) if slot.is_removed() => return Ok(false),
            Some(slot) if slot.is(expected) => self.write(name, None, Some(&slot.e_tag)).await?,
            Some(_) => return Err(moved(name)),
            None if !self.has_versions(name).await? => return Ok(false),
            None if expected.is_some() => return Err(moved(name)),
            None => self.write(name, None, None).await?,
        };
        Ok(true)
    }

    /// Whether the pointer of `name` keeps `version` from being removed.
    pub(super) async fn is_named(&self, name: &str, version: &Version) -> Result<bool, StoreError> {
        let slot = self.slot(name).await?;
        Ok(slot.is_some_and(|slot| slot.names(version)))
    }

    pub(super) async fn slot(&self, name: &str) -> Result<Option<Slot>, StoreError> {
        let found = match self.objects.get(&self.pointer_key(name)).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(remote(error)),
        };
        let e_tag = given(found.meta.e_tag.clone())?;
        let bytes = found.bytes().await.map_err(remote)?;
        Ok(Some(Slot::read(e_tag, &bytes)))
    }

    async fn check_stored(&self, name: &str, pointer: &ActivePointer) -> Result<(), StoreError> {
        let check = async |version: &Version| match self.find(name, version).await?.is_complete() {
            true => Ok(()),
            false => Err(not_stored(name, version)),
        };
        try_join_all(pointer.versions().map(check)).await?;
        Ok(())
    }

    /// Stores a pointer, or for `None` the note that the name was removed, where the tag is `expected` or nothing is.
    async fn write(
        &self,
        name: &str,
        pointer: Option<&ActivePointer>,
        expected: Option<&str>,
    ) -> Result<String, StoreError> {
        let record = Record {
            write: Uuid::new_v4().to_string(),
            pointer: pointer.cloned(),
            removed: pointer.is_none(),
        };
        let bytes = serde_json::to_vec(&record).expect("a record has string keys");
        let mode = match expected {
            None => PutMode::Create,
            Some(e_tag) => PutMode::Update(UpdateVersion {
                e_tag: Some(e_tag.to_owned()),
                version: None,
            }),
        };
        let key = self.pointer_key(name);
        let stored = self.objects.put_opts(&key, bytes.into(), mode.into()).await;
        let error = match stored {
            Ok(stored) => return given(stored.e_tag),
            Err(error) => error,
        };
        // The pointer may be stored all the same: an answer was lost, and when the client asked again, its own first attempt had
        // moved the tag. Whoever finds this write there has made it.
        let found = self.slot(name).await.map_err(|_| {
            StoreError::Remote(format!(
                "whether the pointer of {name} was stored is unknown: {error}"
            ))
        })?;
        let is_conflict = matches!(
            error,
            Error::AlreadyExists { .. } | Error::Precondition { .. }
        );
        match found {
            Some(slot) if slot.write.as_ref() == Some(&record.write) => Ok(slot.e_tag),
            // Without a change, it is a conflict with a write that did not succeed either.
            found if is_conflict || found.as_ref().map(|slot| slot.e_tag.as_str()) != expected => {
                Err(moved(name))
            }
            _ => Err(remote(error)),
        }
    }
}

/// Listings and answers need not agree on the quotes.
fn tag_of(e_tag: &str) -> PointerTag {
    PointerTag(e_tag.trim_matches('"').to_owned())
}

fn given(e_tag: Option<String>) -> Result<String, StoreError> {
    e_tag.ok_or_else(|| {
        StoreError::Remote(
            "the object store gives no ETag, without which pointers cannot be compared".to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_the_same_with_and_without_quotes() {
        assert_eq!(tag_of("\"5d41\""), tag_of("5d41"));
        assert_ne!(tag_of("\"5d41\""), tag_of("5d42"));
    }
}
