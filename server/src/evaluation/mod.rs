//! Evaluations as background jobs: queued, run one at a time at the engine's lower priority, watched, cancelled, and written to disk
//! after every cell.
//!
//! What is measured and how it is scored is for `tasks`; here is the running of it.

mod baselines;
mod cell;
pub mod gate;
mod persistence;
pub mod record;
pub mod report;
mod request;
mod runner;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use actix_web::web::Data;
use tokio::sync::{mpsc, watch};

pub use record::{CellReport, Evaluation, Progress, Status};
pub use request::{EvaluationRequest, Job};

use baselines::Baselines;

use crate::error::ApiError;
use crate::state::State;

/// Every evaluation, finished ones included.
pub struct Evaluations {
    // Read on every scrape, written once per evaluation.
    known: RwLock<BTreeMap<String, Arc<Watched>>>,
    queue: mpsc::UnboundedSender<Queued>,
    /// Taken by the one task that runs evaluations.
    waiting: Mutex<Option<mpsc::UnboundedReceiver<Queued>>>,
    directory: PathBuf,
}

/// One evaluation that can be watched and cancelled.
pub struct Watched {
    record: watch::Sender<Evaluation>,
    cancelled: watch::Sender<bool>,
}

struct Queued {
    watched: Arc<Watched>,
    job: Job,
}

impl Evaluations {
    /// Opens `<store>/evaluations`; what an earlier process left unfinished is marked as failed.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(store: &Path) -> std::io::Result<Self> {
        let directory = store.join("evaluations");
        let records = persistence::load_all(&directory)?;
        let (queue, waiting) = mpsc::unbounded_channel();
        Ok(Self {
            known: RwLock::new(
                records
                    .into_iter()
                    .map(|record| (record.id.clone(), Arc::new(Watched::new(record))))
                    .collect(),
            ),
            queue,
            waiting: Mutex::new(Some(waiting)),
            directory,
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
                let mut baselines = Baselines::default();
                while let Some(queued) = waiting.recv().await {
                    runner::run(&state, &queued.watched, &queued.job, &mut baselines).await;
                }
            });
        }
    }

    /// Queues an evaluation.
    ///
    /// # Errors
    /// When its record cannot be written.
    pub async fn submit(&self, job: Job) -> Result<Evaluation, ApiError> {
        let record = job.record();
        persistence::save(&self.directory, &record).await?;
        let watched = Arc::new(Watched::new(record.clone()));
        self.known
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(record.id.clone(), Arc::clone(&watched));
        self.queue
            .send(Queued { watched, job })
            .map_err(|_| ApiError::Draining)?;
        Ok(record)
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

impl Watched {
    fn new(record: Evaluation) -> Self {
        Self {
            record: watch::Sender::new(record),
            cancelled: watch::Sender::new(false),
        }
    }

    /// The evaluation as it is now.
    pub fn snapshot(&self) -> Evaluation {
        self.record.borrow().clone()
    }

    /// The evaluation as it ended.
    pub async fn ended(&self) -> Evaluation {
        let mut record = self.record.subscribe();
        match record.wait_for(|record| record.status.is_final()).await {
            Ok(record) => record.clone(),
            Err(_) => self.snapshot(),
        }
    }

    /// A receiver of every change from now on.
    pub fn subscribe(&self) -> watch::Receiver<Evaluation> {
        self.record.subscribe()
    }

    /// Asks the evaluation to stop and waits until it has; one that is finished stays as it is.
    pub async fn cancel(&self) -> Evaluation {
        self.cancelled.send_replace(true);
        // A queued evaluation is reached only after the running one, and must not wait for that.
        self.change(|record| {
            if record.status == Status::Queued {
                record.finish(Status::Cancelled, None);
            }
        });
        self.ended().await
    }

    /// Resolves when somebody asked to stop.
    async fn until_cancelled(&self) {
        let mut cancelled = self.cancelled.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = cancelled.wait_for(|cancelled| *cancelled).await;
    }

    fn change(&self, change: impl FnOnce(&mut Evaluation)) {
        self.record.send_modify(change);
    }
}
