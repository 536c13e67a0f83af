//! The audit log: one JSON line for every admin action that was tried, by whom, on what, and what it changed.
//!
//! Which routes are admin actions is in `actions`, the file in `log`, what is learnt while a request is handled in `note`. A line has
//! neither keys nor bodies.

pub mod actions;
pub mod log;
pub mod note;

use std::cell::RefCell;
use std::rc::Rc;

use actix_web::Error;
use actix_web::HttpMessage;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web::Data;

use self::log::Line;
use self::note::Note;
use crate::middleware::RequestId;
use crate::state::State;

pub use self::log::AuditLog;

/// Who it was when no key was needed, or none was known.
const ANONYMOUS: &str = "anonymous";
/// What a line says in the place of a code when nobody waited for the answer.
const ABANDONED: &str = "abandoned";
/// Most characters of a subject, which is the client's choice.
const LONGEST_SUBJECT: usize = 200;

/// Writes a line for an admin action, before it is answered.
///
/// # Errors
/// Those of the route; a line that cannot be written is none.
pub async fn audit(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let Some(mut tried) = Tried::of(&request) else {
        return next.call(request).await;
    };
    let note = Rc::clone(&tried.note);
    let outcome = note::keep(note, next.call(request)).await;
    let status = match &outcome {
        Ok(response) => response.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    if let Some((state, mut line)) = tried.line() {
        line.status = Some(status.as_u16());
        write(&state, line).await;
    }
    outcome
}

/// An action under way. Dropped with its request, when the client hung up, it still leaves a line.
struct Tried {
    state: Option<Data<State>>,
    line: Line,
    note: Rc<RefCell<Note>>,
}

impl Tried {
    fn of(request: &ServiceRequest) -> Option<Self> {
        // The path as the router reads it, or `%61dapters` would be a way around the log.
        let path = request.match_info().as_str();
        let route = request.resource_map().match_pattern(path)?;
        let method = request.method().as_str();
        let action = actions::of(method, &route)?;
        let state = request.app_data::<Data<State>>()?.clone();
        state.access.audit.is_on().then(|| {
            let id = request.extensions().get::<RequestId>().cloned();
            let line = Line {
                request_id: id.map(|id| id.0),
                peer: request.peer_addr().map(|peer| peer.to_string()),
                method: Some(method.to_owned()),
                subject: actions::subject(&route, path),
                route: Some(route),
                ..Line::now(action)
            };
            Self {
                state: Some(state),
                line,
                note: Rc::default(),
            }
        })
    }

    /// What is known by now, once.
    fn line(&mut self) -> Option<(Data<State>, Line)> {
        let state = self.state.take()?;
        let mut line = self.line.clone();
        let note = self.note.take();
        line.key = note.key.unwrap_or_else(|| ANONYMOUS.to_owned());
        line.error = note.code.map(str::to_owned);
        line.after = note.after.unwrap_or_else(|| note.before.clone());
        line.before = note.before;
        let subject = note.subject.or(line.subject);
        line.subject = subject.map(|name| name.chars().take(LONGEST_SUBJECT).collect());
        Some((state, line))
    }
}

impl Drop for Tried {
    fn drop(&mut self) {
        if let Some((state, mut line)) = self.line() {
            line.error = Some(ABANDONED.to_owned());
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(move || record(&state, &line))),
                Err(_) => record(&state, &line),
            }
        }
    }
}

/// Writes a line on a thread that may block.
async fn write(state: &Data<State>, line: Line) {
    let state = state.clone();
    let written = tokio::task::spawn_blocking(move || record(&state, &line)).await;
    if let Err(error) = written {
        tracing::error!(%error, "a line of the audit log was not written");
    }
}

/// Writes a line; what goes wrong is counted and logged.
pub fn record(state: &State, line: &Line) {
    if let Err(error) = state.access.audit.write(line) {
        state.metrics.access.audit_write_failures.inc();
        tracing::error!(%error, action = line.action, "a line of the audit log was not written");
    }
}
