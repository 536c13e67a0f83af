//! What SIGHUP does: keys and certificate are read again and the audit log is opened anew, each for itself. What is broken leaves what
//! was there before.

use std::fmt::Display;
use std::path::Path;

use actix_web::web::Data;
use tokio::signal::unix::{SignalKind, signal};

use crate::audit::log::Line;
use crate::audit::record;
use crate::state::State;

/// Who a reload is by in the audit log.
const SIGNAL: &str = "signal";

/// Tells a running server to read its files again.
#[derive(Clone)]
pub struct ReloadHandle(Data<State>);

impl ReloadHandle {
    pub(crate) fn new(state: &Data<State>) -> Self {
        Self(state.clone())
    }

    /// Reads keys and certificate again and opens the audit log anew; what cannot be read is logged and counted.
    pub async fn reload(&self) {
        let state = self.0.clone();
        let reloaded = tokio::task::spawn_blocking(move || reload(&state)).await;
        if let Err(error) = reloaded {
            tracing::error!(%error, "the files were not read again");
        }
    }

    /// Reloads on each SIGHUP from now on.
    ///
    /// # Errors
    /// When the signal cannot be listened to.
    pub fn on_hangup(self) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                self.reload().await;
            }
        });
        Ok(())
    }
}

fn reload(state: &State) {
    // First, so that what follows stands in the new file.
    if state.access.audit.is_on() {
        let reopened = state.access.audit.reopen();
        tell(state, ("audit.reopen", "audit_log"), None, reopened.err());
    }
    if let Some(file) = state.access.keyring.file() {
        let reloaded = state.access.keyring.reload();
        if let Ok(reloaded) = &reloaded {
            state.metrics.access.set_keys(state.access.keyring.ids());
            tracing::info!(
                keys = reloaded.keys,
                added = reloaded.added.join(","),
                revoked = reloaded.revoked.join(","),
                "keys read again"
            );
            state.access.warn_of_readers();
        }
        tell(state, ("keys.reload", "keys"), Some(file), reloaded.err());
    }
    if let Some(certificate) = &state.access.certificate {
        let reloaded = certificate.reload();
        let file = Some(certificate.file());
        let what = ("certificate.reload", "certificate");
        tell(state, what, file, reloaded.err());
    }
}

/// Logs, counts and audits what came of one file.
fn tell(
    state: &State,
    (action, what): (&'static str, &str),
    file: Option<&Path>,
    error: Option<impl Display>,
) {
    let mut line = Line {
        key: SIGNAL.to_owned(),
        subject: file.map(|file| file.display().to_string()),
        ..Line::now(action)
    };
    match error {
        None => tracing::info!(what, "read again"),
        Some(error) => {
            tracing::error!(what, %error, "cannot be read again; what was there before stays");
            let failures = &state.metrics.access.reload_failures;
            failures.with_label_values(&[what]).inc();
            line.error = Some("reload_failed".to_owned());
        }
    }
    record(state, &line);
}
