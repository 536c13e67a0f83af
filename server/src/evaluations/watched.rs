//! One evaluation that can be watched, paused and cancelled.

use evaluation::{Evaluation, Status};
use tokio::sync::watch;

use crate::state::unix_seconds;

/// An evaluation with those who wait for it.
pub struct Watched {
    pub(super) record: watch::Sender<Evaluation>,
    /// What somebody asked it to become: `Paused` or `Cancelled`.
    stop: watch::Sender<Option<Status>>,
}

impl Watched {
    pub(super) fn new(record: Evaluation) -> Self {
        Self {
            record: watch::Sender::new(record),
            stop: watch::Sender::new(None),
        }
    }

    /// The evaluation as it is now.
    pub fn snapshot(&self) -> Evaluation {
        self.record.borrow().clone()
    }

    /// Its id.
    pub fn id(&self) -> String {
        self.record.borrow().id.clone()
    }

    /// The evaluation as it ended.
    pub async fn ended(&self) -> Evaluation {
        self.wait_for(Status::is_final).await
    }

    /// A receiver of every change from now on.
    pub fn subscribe(&self) -> watch::Receiver<Evaluation> {
        self.record.subscribe()
    }

    /// Asks the evaluation to stop and waits until it has; one that is finished stays as it is.
    pub async fn cancel(&self) -> Evaluation {
        self.stop.send_replace(Some(Status::Cancelled));
        // One that waits is reached only after the running one, and must not wait for that.
        self.change(|record| {
            if matches!(record.status, Status::Queued | Status::Paused) {
                record.finish(Status::Cancelled, None, unix_seconds());
            }
        });
        self.ended().await
    }

    /// Asks the evaluation to pause and waits until it does, or has ended.
    pub(super) async fn pause(&self) -> Evaluation {
        self.stop.send_replace(Some(Status::Paused));
        self.change(|record| {
            if record.status == Status::Queued {
                record.status = Status::Paused;
            }
        });
        self.wait_for(|status| status == Status::Paused || status.is_final())
            .await
    }

    /// Makes a paused evaluation wait for its turn; returns whether it was paused.
    pub(super) fn resume(&self) -> bool {
        self.turn(Status::Paused, Status::Queued)
    }

    /// From one status to another, if it is in that one; what was asked of it before is forgotten.
    pub(super) fn turn(&self, from: Status, to: Status) -> bool {
        self.record.send_if_modified(|record| {
            let turns = record.status == from;
            if turns {
                record.status = to;
                if to == Status::Queued {
                    self.stop.send_replace(None);
                }
            }
            turns
        })
    }

    /// What somebody asked it to become.
    pub(super) async fn until_stopped(&self) -> Status {
        let mut stop = self.stop.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let asked = stop.wait_for(Option::is_some).await;
        asked
            .ok()
            .and_then(|asked| *asked)
            .unwrap_or(Status::Cancelled)
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Evaluation)) {
        self.record.send_modify(change);
    }

    async fn wait_for(&self, is: impl Fn(Status) -> bool) -> Evaluation {
        let mut record = self.record.subscribe();
        match record.wait_for(|record| is(record.status)).await {
            Ok(record) => record.clone(),
            Err(_) => self.snapshot(),
        }
    }
}
