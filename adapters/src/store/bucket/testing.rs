//! Servers that share a bucket, and adapters to put into it.

use std::ops::Deref;

use futures_util::TryStreamExt as _;
use object_store::ObjectStoreExt as _;
use tempfile::TempDir;

use super::super::REPORT_FILE;
use super::*;

/// One server's view of a bucket.
pub(super) struct Server {
    pub(super) store: BucketStore,
    _scratch: TempDir,
}

impl Deref for Server {
    type Target = BucketStore;

    fn deref(&self) -> &BucketStore {
        &self.store
    }
}

impl Server {
    pub(super) fn over(objects: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let url = format!("s3://models/{prefix}");
        let store = BucketStore::over(objects, prefix, &url, scratch.path()).expect("it opens");
        Self {
            store,
            _scratch: scratch,
        }
    }

    fn key(&self, path: &str) -> Key {
        Key::from(format!("{}/{path}", self.bucket.prefix))
    }

    pub(super) fn put(&self, path: &str, bytes: &[u8]) {
        let key = self.key(path);
        let put = self.bucket.put(&key, bytes.to_vec());
        self.runtime.wait(put).expect("stored");
    }

    pub(super) fn get(&self, path: &str) -> Vec<u8> {
        let key = self.key(path);
        let bytes = self
            .runtime
            .wait(async { self.bucket.objects.get(&key).await?.bytes().await });
        bytes.expect("stored").to_vec()
    }

    pub(super) fn delete(&self, path: &str) {
        let deleted = self.bucket.delete(vec![self.key(path)]);
        self.runtime.wait(deleted).expect("deleted");
    }

    /// All keys below the prefix, with versions as the numbers of their files.
    pub(super) fn keys(&self) -> Vec<String> {
        let listed = self.bucket.objects.list(Some(&self.bucket.prefix));
        let listed: Vec<_> = self.runtime.wait(listed.try_collect()).expect("listed");
        let mut keys: Vec<String> = listed
            .iter()
            .map(|object| readable(object.location.as_ref()))
            .map(|key| key[self.bucket.prefix.as_ref().len() + 1..].to_owned())
            .collect();
        keys.sort();
        keys
    }

    pub(super) fn save(&self, name: &str, number: u8) {
        self.save_with(name, number, None).expect("stored");
    }

    pub(super) fn save_with(
        &self,
        name: &str,
        number: u8,
        report: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let incoming = self.incoming().expect("the disk works");
        incoming.write_files(&files(number)).expect("writable");
        if let Some(report) = report {
            incoming.write(REPORT_FILE, report).expect("writable");
        }
        self.commit(incoming, name, &version(number))
    }

    /// Stores what `name` points at first.
    pub(super) fn point(&self, name: &str, number: u8) -> PointerTag {
        let pointer = ActivePointer::first(version(number), 7);
        self.replace_pointer(name, &pointer, None).expect("stored")
    }

    pub(super) fn active(&self, name: &str) -> Option<Version> {
        let pointed = self.pointer(name).expect("readable");
        pointed.map(|pointed| pointed.pointer.active)
    }

    /// Each name with what it points at, whether that is stored, and its versions.
    pub(super) fn summary(&self) -> Vec<String> {
        let contents = self.contents().expect("listed");
        let lines = contents.adapters.iter().map(|adapter| {
            let versions: Vec<_> = adapter
                .versions
                .iter()
                .map(|stored| &stored.version)
                .collect();
            let mut numbers: Vec<u8> = (1..10)
                .filter(|n| versions.contains(&&version(*n)))
                .collect();
            numbers.sort_unstable();
            let tag = if adapter.tag.is_some() {
                "stored"
            } else {
                "taken"
            };
            let active = readable(adapter.pointer.active.as_str());
            format!("{} -> {active} ({tag}) of {numbers:?}", adapter.name)
        });
        lines.collect()
    }

    pub(super) fn ignored(&self) -> Vec<String> {
        let contents = self.contents().expect("listed");
        let lines = contents.ignored.iter().map(|entry| {
            let of_version = if entry.version.is_some() {
                "version "
            } else {
                ""
            };
            readable(&format!(
                "{of_version}{}: {}",
                entry.path.display(),
                entry.reason
            ))
        });
        lines.collect()
    }
}

/// Files whose content, and so whose version, depends on `number`; even ones have a manifest.
pub(super) fn files(number: u8) -> AdapterFiles {
    AdapterFiles {
        config: format!(r#"{{"peft_type": "LORA", "r": {number}}}"#).into_bytes(),
        weights: vec![number; 40],
        manifest: number
            .is_multiple_of(2)
            .then(|| br#"{"schema": 1}"#.to_vec()),
    }
}

pub(super) fn version(number: u8) -> Version {
    files(number).version().expect("valid JSON")
}

/// `text` with numbers in the place of versions.
pub(super) fn readable(text: &str) -> String {
    (1..10).fold(text.to_owned(), |text, number| {
        text.replace(version(number).as_str(), &format!("v{number}"))
    })
}

pub(super) fn code<T: std::fmt::Debug>(result: Result<T, StoreError>) -> &'static str {
    result.expect_err("must be refused").code()
}

/// Opens the same place for another server.
pub(super) type Open<'a> = &'a (dyn Fn() -> Server + Sync);
