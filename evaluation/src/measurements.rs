//! Measurements that are made once: remembered while the process lives, and kept in an evaluation's folder, from which another process
//! goes on.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::error::EvaluationError;
use crate::measurement::Measurement;

/// Measurements that are remembered at most, some tens of kilobytes each; a full memory is emptied.
const MOST: usize = 256;

/// A measurement that is being made, or has been.
type Slot = Arc<OnceCell<Arc<Measurement>>>;

/// Measurements by their key, which names the model and all that was put to it.
#[derive(Default)]
pub struct Measurements {
    // Held for a look-up only.
    known: Mutex<HashMap<String, Slot>>,
}

impl Measurements {
    /// The measurement with this key: remembered, read from `folder`, or made now; whoever asks while it is being made waits for it.
    /// Afterwards it is in the folder, if there is one.
    ///
    /// # Errors
    /// Those of `make`, and of writing.
    pub(crate) async fn get_or_make<Made>(
        &self,
        key: &str,
        folder: Option<&Path>,
        make: impl FnOnce() -> Made,
    ) -> Result<Arc<Measurement>, EvaluationError>
    where
        Made: Future<Output = Result<Measurement, EvaluationError>>,
    {
        let slot = self.slot(key);
        let file = folder.map(|folder| file(folder, key));
        let measurement = slot.get_or_try_init(|| async {
            let kept = file.clone().map(|file| blocking(move || read(&file)));
            let kept = match kept {
                Some(kept) => kept.await?,
                None => None,
            };
            match kept {
                Some(kept) => Ok(Arc::new(kept)),
                None => make().await.map(Arc::new),
            }
        });
        let measurement = Arc::clone(measurement.await?);
        if let Some(file) = file {
            let measurement = Arc::clone(&measurement);
            blocking(move || keep(&file, &measurement)).await?;
        }
        Ok(measurement)
    }

    fn slot(&self, key: &str) -> Slot {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST && !known.contains_key(key) {
            known.clear();
        }
        Arc::clone(known.entry(key.to_owned()).or_default())
    }
}

/// A kept measurement.
///
/// # Errors
/// When it is not there, or cannot be read.
pub fn read_measurement(folder: &Path, key: &str) -> std::io::Result<Measurement> {
    Ok(serde_json::from_slice(&fs_err::read(file(folder, key))?)?)
}

fn file(folder: &Path, key: &str) -> PathBuf {
    folder.join(format!("{key}.json"))
}

/// A file that a crash cut short counts as none: it is made again.
fn read(file: &Path) -> std::io::Result<Option<Measurement>> {
    match fs_err::read(file) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn keep(file: &Path, measurement: &Measurement) -> std::io::Result<()> {
    if read(file)?.is_some() {
        return Ok(());
    }
    let folder = file.parent().unwrap_or(Path::new("."));
    fs_err::create_dir_all(folder)?;
    let mut aside = tempfile::NamedTempFile::new_in(folder)?;
    aside.write_all(&serde_json::to_vec(measurement)?)?;
    aside.as_file().sync_all()?;
    aside.persist(file)?;
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, EvaluationError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(std::io::Error::other)??)
}
