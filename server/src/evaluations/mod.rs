//! Evaluations as background jobs: queued, run one at a time at the engine's lower priority, watched, paused, cancelled, written to
//! disk after every cell, and gone on with after a restart.
//!
//! What is measured and how it is scored is for `evaluation` and `tasks`; here is the keeping of jobs.

pub mod gate;
mod persistence;
pub mod predictions;
mod request;
mod runner;
mod watched;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use actix_web::web::Data;
use evaluation::{Evaluation, Measurements, Status};
use tokio::sync::mpsc;

pub use request::EvaluationRequest;
pub use watched::Watched;

use crate::error::ApiError;
use crate::state::State;

/// Every evaluation, finished ones included.
pub struct Evaluations {
    // Read on every scrape, written once per evaluation.
    known: RwLock<BTreeMap<String, Arc<Watched>>>,
    queue: mpsc::UnboundedSender<Arc<Watched>>,
    /// Taken by the one task that runs evaluations.
    waiting: Mutex<Option<mpsc::UnboundedReceiver<Arc<Watched>>>>,
    directory: PathBuf,
    /// How many finished evaluations keep their predictions.
    retained: usize,
}

impl Evaluations {
    /// Opens `<store>/evaluations`; what an earlier process left unfinished waits for its turn again, unless it was paused. So many
    /// finished evaluations keep their predictions.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(store: &Path, retained: usize) -> std::io::Result<Self> {
        let directory = store.join("evaluations");
        let records = persistence::load_all(&directory)?;
        let (queue, waiting) = mpsc::unbounded_channel();
        let mut known = BTreeMap::new();
        for record in records {
            let id = record.id.clone();
            let waits = record.status == Status::Queued;
            let watched = Arc::new(Watched::new(record));
            if waits {
                // The receiver is at hand, so there is one to take it.
                let _ = queue.send(Arc::clone(&watched));
            }
            known.insert(id, watched);
        }
        Ok(Self {
            known: RwLock::new(known),
            queue,
            waiting: Mutex::new(Some(waiting)),
            directory,
            retained,
        })
    }

    /// Starts the task that runs evaluations; the second call does nothing.
    pub fn start(state: &Data<State>) {
        let waiting = state
            .evaluations
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut waiting) = waiting {
            let state = state.clone();
            tokio::spawn(async move {
                let measurements = Measurements::default();
                while let Some(watched) = waiting.recv().await {
                    runner::run(&state, &watched, &measurements).await;
                    state.evaluations.forget_old_predictions().await;
                }
            });
        }
    }

    /// Queues an evaluation.
    ///
    /// # Errors
    /// When its record cannot be written.
    pub async fn submit(&self, record: Evaluation) -> Result<Evaluation, ApiError> {
        persistence::save(&self.directory, &record).await?;
        let watched = Arc::new(Watched::new(record.clone()));
        self.known
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(record.id.clone(), Arc::clone(&watched));
        self.enqueue(watched)?;
        Ok(record)
    }

    /// Stops an evaluation where it is, to be gone on with; what was measured is kept. One that is paused stays so.
    ///
    /// # Errors
    /// `NotFound`, and `WrongStatus` for one that has ended.
    pub async fn pause(&self, id: &str) -> Result<Evaluation, ApiError> {
        let record = self.get(id)?.pause().await;
        match record.status {
            Status::Paused => {
                persistence::save(&self.directory, &record).await?;
                Ok(record)
            }
            status => Err(wrong_status(record.id, status, "paused")),
        }
    }

    /// Queues a paused evaluation again; one that waits or runs is left alone.
    ///
    /// # Errors
    /// `NotFound`, and `WrongStatus` for one that has ended.
    pub async fn resume(&self, id: &str) -> Result<Evaluation, ApiError> {
        let watched = self.get(id)?;
        if watched.resume() {
            persistence::save(&self.directory, &watched.snapshot()).await?;
            self.enqueue(Arc::clone(&watched))?;
        }
        let record = watched.snapshot();
        match record.status.is_final() {
            false => Ok(record),
            true => Err(wrong_status(record.id, record.status, "resumed")),
        }
    }

    fn enqueue(&self, watched: Arc<Watched>) -> Result<(), ApiError> {
        self.queue.send(watched).map_err(|_| ApiError::Draining)
    }

    /// Whether an evaluation that is not finished measures on a data set, by `<task>/<id>`.
    pub fn unfinished_on(&self, dataset: &str) -> Option<String> {
        self.all().iter().find_map(|watched| {
            let record = watched.snapshot();
            let uses = !record.status.is_final() && record.datasets.contains_key(dataset);
            uses.then_some(record.id)
        })
    }

    /// Removes the predictions of finished evaluations but the newest.
    async fn forget_old_predictions(&self) {
        let finished = self.all();
        let finished = finished.iter().rev().map(|watched| watched.snapshot());
        let finished = finished.filter(|record| record.status.is_final());
        for record in finished.skip(self.retained) {
            if let Err(error) = persistence::forget_measurements(&self.directory, &record.id).await
            {
                tracing::warn!(evaluation = record.id, error = ?error, "predictions not removed");
            }
        }
    }

    /// Every evaluation, oldest first.
    pub fn list(&self) -> Vec<Evaluation> {
        self.all()
            .iter()
            .map(|watched| watched.snapshot())
            .collect()
    }

    /// One evaluation.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, id: &str) -> Result<Arc<Watched>, ApiError> {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
            .ok_or_else(|| ApiError::NotFound {
                kind: "evaluation",
                id: id.to_owned(),
                hint: "GET /v1/evaluations lists them".to_owned(),
            })
    }

    /// Ids of the evaluations that measured this adapter version.
    pub fn of_version(&self, version: &str) -> Vec<String> {
        self.all()
            .iter()
            .filter_map(|watched| {
                let record = watched.record.borrow();
                let measured = record
                    .cells
                    .iter()
                    .any(|cell| cell.version.as_deref() == Some(version));
                measured.then(|| record.id.clone())
            })
            .collect()
    }

    /// How many evaluations are in each state.
    pub fn by_status(&self) -> Vec<(Status, usize)> {
        let all = self.all();
        Status::ALL
            .into_iter()
            .map(|status| {
                let is = |watched: &&Arc<Watched>| watched.record.borrow().status == status;
                (status, all.iter().filter(is).count())
            })
            .collect()
    }

    /// Where records are kept.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn all(&self) -> Vec<Arc<Watched>> {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }
}

fn wrong_status(id: String, status: Status, wanted: &'static str) -> ApiError {
    ApiError::WrongStatus { id, status, wanted }
}
