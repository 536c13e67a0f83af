//! One JSON file per evaluation, replaced atomically, and beside it a folder of its measurements.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evaluation::{CellScores, Evaluation, EvaluationPlan, Status};
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::loading::blocking;
use crate::state::unix_seconds;

/// A record with what is not on the wire.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    record: &'a Evaluation,
    scores: Vec<&'a CellScores>,
    plan: Option<&'a EvaluationPlan>,
}

#[derive(Deserialize)]
struct Read {
    #[serde(flatten)]
    record: Evaluation,
    /// Records from before gates have none.
    #[serde(default)]
    scores: Vec<CellScores>,
    /// Records from before evaluations could be gone on with have none.
    #[serde(default)]
    plan: Option<EvaluationPlan>,
}

/// Writes a record aside, syncs it and renames it into place.
///
/// # Errors
/// When the disk refuses.
pub(super) async fn save(directory: &Path, record: &Evaluation) -> Result<(), ApiError> {
    let (directory, record) = (directory.to_owned(), record.clone());
    blocking(move || write(&directory, &record).map_err(ApiError::internal)).await
}

/// The folder of an evaluation's measurements.
pub(super) fn measurements_of(directory: &Path, id: &str) -> PathBuf {
    directory.join(id)
}

/// Removes an evaluation's measurements.
///
/// # Errors
/// When the disk refuses.
pub(super) async fn forget_measurements(directory: &Path, id: &str) -> Result<(), ApiError> {
    let folder = measurements_of(directory, id);
    blocking(move || match fs_err::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ApiError::internal(error))
        }
        _ => Ok(()),
    })
    .await
}

/// Reads every record, oldest first. Those that were not finished wait for their turn again, unless they were paused.
///
/// # Errors
/// When the folder cannot be made or listed. A file that cannot be read is logged and left alone.
pub(super) fn load_all(directory: &Path) -> std::io::Result<Vec<Evaluation>> {
    fs_err::create_dir_all(directory)?;
    let mut records = Vec::new();
    for entry in fs_err::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read(&path) {
            Ok(record) => records.push(record),
            Err(error) => {
                tracing::warn!(path = %path.display(), error = %error, "evaluation cannot be read");
            }
        }
    }
    for record in &mut records {
        if matches!(record.status, Status::Queued | Status::Running) {
            record.status = Status::Queued;
            if record.plan.is_none() {
                let reason =
                    "the server stopped before the evaluation was finished; start it again";
                let now = unix_seconds();
                record.finish(Status::Failed, Some(reason.to_owned()), now);
            }
            write(directory, record)?;
        }
    }
    records.sort_by(|left, right| left.id.cmp(&right.id));
    Ok(records)
}

fn read(path: &Path) -> std::io::Result<Evaluation> {
    let Read {
        record,
        scores,
        plan,
    } = serde_json::from_slice(&fs_err::read(path)?)?;
    Ok(Evaluation {
        plan: plan.map(Arc::new),
        scores: scores.into_iter().map(Arc::new).collect(),
        ..record
    })
}

fn write(directory: &Path, record: &Evaluation) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    let written = Written {
        record,
        scores: record.scores.iter().map(Arc::as_ref).collect(),
        plan: record.plan.as_deref(),
    };
    file.write_all(&serde_json::to_vec(&written)?)?;
    file.as_file().sync_all()?;
    file.persist(directory.join(format!("{}.json", record.id)))?;
    fs_err::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests;
