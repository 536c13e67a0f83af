//! One JSON file per evaluation, replaced atomically.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::record::{CellScores, Evaluation, Status};
use crate::error::ApiError;
use crate::loading::blocking;

/// A record with what is not on the wire.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    record: &'a Evaluation,
    scores: Vec<&'a CellScores>,
}

#[derive(Deserialize)]
struct Read {
    #[serde(flatten)]
    record: Evaluation,
    /// Records from before gates have none.
    #[serde(default)]
    scores: Vec<CellScores>,
}

/// Writes a record aside, syncs it and renames it into place.
///
/// # Errors
/// When the disk refuses.
pub(super) async fn save(directory: &Path, record: &Evaluation) -> Result<(), ApiError> {
    let (directory, record) = (directory.to_owned(), record.clone());
    blocking(move || write(&directory, &record).map_err(ApiError::internal)).await
}

/// Reads every record, oldest first; those that were not finished are marked as failed.
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
        if !record.status.is_final() {
            let reason = "the server stopped before the evaluation was finished; start it again";
            record.finish(Status::Failed, Some(reason.to_owned()));
            write(directory, record)?;
        }
    }
    records.sort_by(|left, right| left.id.cmp(&right.id));
    Ok(records)
}

fn read(path: &Path) -> std::io::Result<Evaluation> {
    let Read { record, scores } = serde_json::from_slice(&fs_err::read(path)?)?;
    Ok(Evaluation {
        scores: scores.into_iter().map(Arc::new).collect(),
        ..record
    })
}

fn write(directory: &Path, record: &Evaluation) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    let scores = record.scores.iter().map(Arc::as_ref).collect();
    file.write_all(&serde_json::to_vec(&Written { record, scores })?)?;
    file.as_file().sync_all()?;
    file.persist(directory.join(format!("{}.json", record.id)))?;
    fs_err::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::record::Progress;
    use super::*;

    fn record(id: &str, status: Status) -> Evaluation {
        Evaluation {
            id: id.to_owned(),
            object: "evaluation".to_owned(),
            status,
            kind: "matrix".to_owned(),
            adapters: vec!["base".to_owned()],
            limit: Some(12),
            seed: 3,
            created: 1_700_000_000,
            started: Some(1_700_000_001),
            finished: None,
            error: None,
            progress: Progress {
                cells_done: 1,
                cells_total: 4,
                examples_done: 12,
                examples_total: 48,
            },
            cells: Vec::new(),
            scores: vec![Arc::new(CellScores {
                own: vec![1.0, 0.25],
                base: vec![0.0, 0.5],
            })],
        }
    }

    #[test]
    fn what_was_running_is_failed_with_a_reason_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), &record("eval_2", Status::Running)).expect("written");
        write(folder.path(), &record("eval_1", Status::Completed)).expect("written");
        fs_err::write(folder.path().join("eval_3.json"), "{\"id\": tr").expect("written");
        let loaded = load_all(folder.path()).expect("readable");
        let statuses: Vec<_> = loaded
            .iter()
            .map(|record| (record.id.as_str(), record.status))
            .collect();
        assert_eq!(
            statuses,
            [("eval_1", Status::Completed), ("eval_2", Status::Failed)]
        );
        assert!(
            loaded[1]
                .error
                .as_deref()
                .is_some_and(|reason| reason.contains("stopped"))
        );
        assert_eq!(loaded[1].progress.examples_done, 12);
        // The mark is on disk too, not only in memory.
        let again = load_all(folder.path()).expect("readable");
        assert_eq!(again, loaded);
    }
}
