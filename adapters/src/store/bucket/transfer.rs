//! Files to a bucket and back. Large ones go in parts, several at a time, each within the time of one request.

use std::io::Read as _;
use std::path::Path;

use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path as Key;
use object_store::{MultipartUpload, ObjectMeta, ObjectStoreExt as _};

use super::super::StoreError;
use super::{Bucket, remote};

/// Bytes of a part; S3 takes 5 MiB at least, and 10,000 parts of an object.
const PART: u64 = 8 << 20;
const PARTS_AT_ONCE: usize = 4;

impl Bucket {
    pub(super) async fn put(&self, key: &Key, bytes: Vec<u8>) -> Result<(), StoreError> {
        let stored = self.objects.put(key, bytes.into()).await;
        stored.map(drop).map_err(remote)
    }

    pub(super) async fn upload(&self, path: &Path, key: &Key) -> Result<(), StoreError> {
        let mut file = fs_err::File::open(path)?;
        if file.metadata()?.len() <= PART {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            return self.put(key, bytes).await;
        }
        let mut upload = self.objects.put_multipart(key).await.map_err(remote)?;
        let sent = match send_parts(&mut file, upload.as_mut()).await {
            Ok(()) => upload.complete().await.map(drop).map_err(remote),
            Err(error) => Err(error),
        };
        if sent.is_err() {
            // When this fails too, the bucket's own rule for unfinished uploads is left.
            let _ = upload.abort().await;
        }
        sent
    }

    /// The bytes of an object that was listed.
    pub(super) async fn fetch(&self, object: &ObjectMeta) -> object_store::Result<Vec<u8>> {
        let part = usize::try_from(PART).expect("a part fits into memory");
        let starts = (0..object.size).step_by(part);
        let mut parts = stream::iter(starts)
            .map(|start| {
                let range = start..object.size.min(start + PART);
                async move { self.objects.get_range(&object.location, range).await }
            })
            .buffered(PARTS_AT_ONCE);
        let mut bytes = Vec::new();
        while let Some(part) = parts.try_next().await? {
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    }
}

async fn send_parts(
    file: &mut fs_err::File,
    upload: &mut dyn MultipartUpload,
) -> Result<(), StoreError> {
    let mut sending = FuturesUnordered::new();
    loop {
        let mut part = Vec::new();
        file.take(PART).read_to_end(&mut part)?;
        if part.is_empty() {
            break;
        }
        if sending.len() == PARTS_AT_ONCE {
            sending.try_next().await.map_err(remote)?;
        }
        sending.push(upload.put_part(part.into()));
    }
    sending.try_collect::<()>().await.map_err(remote)
}
