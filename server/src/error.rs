//! The one error of the HTTP layer and what each of its variants is on the wire.
//!
//! Domain errors (`adapters`, `engine`, `tasks`) know no HTTP; they become an [`ApiError`] by `From`, and `ApiError::answer`
//! is the only place that chooses a status. It has no wildcard arm, so a new variant does not compile until someone decides.

mod access;
mod answers;
mod blame;
mod body;
mod measuring;
mod storage;
#[cfg(test)]
mod tests;

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpResponse, ResponseError};
use adapters::{AdapterError, BlendError, MemoryError, RegistryError, StoreError};
use engine::{EngineError, SubmitError, TemplateError};
use evaluation::Status;
use tasks::{DataError, PlanError, PromptError};

pub use self::access::AccessError;
use self::access::access_answer;
use self::answers::{
    adapter_answer, blend_answer, data_answer, dataset_answer, engine_answer, gate_answer,
    memory_answer, plan_answer, registry_answer, store_answer, submit_answer,
};
pub use self::body::{Degeneration, ErrorBody, ErrorDetail};
use self::storage::StorageTrouble;
use crate::audit::note;
use crate::evaluations::gate::{GateError, GateReport};

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The body is not what its format says.
    #[error("{message}")]
    Malformed {
        /// What is wrong and where.
        message: String,
        /// The field that was being read, when one was.
        param: Option<String>,
    },
    /// A field has the wrong type or a value out of range.
    #[error("{message}")]
    InvalidValue {
        /// The field.
        param: String,
        /// What was found and what would be right.
        message: String,
    },
    /// A required field is absent.
    #[error("{message}")]
    MissingField {
        /// The field.
        param: String,
        /// What to send.
        message: String,
    },
    /// A field that is known and does nothing here, so it is refused rather than ignored.
    #[error("`{param}` is not supported: {message}")]
    NotSupported {
        /// The field.
        param: String,
        /// What to do instead.
        message: String,
    },
    /// Whoever asks may not, or not now.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// No such route.
    #[error("there is no route {path}; GET /openapi.json lists them all")]
    RouteNotFound {
        /// The requested path.
        path: String,
    },
    /// The route exists, for other methods.
    #[error("{method} is not allowed here; allowed: {allowed}")]
    MethodNotAllowed {
        /// The method of the request.
        method: String,
        /// The methods that would work.
        allowed: &'static str,
    },
    /// No such model or adapter.
    #[error("there is no model `{model}`; GET /v1/models lists the names that can be used")]
    ModelNotFound {
        /// The requested name.
        model: String,
    },
    /// Something else that was named does not exist.
    #[error("there is no {kind} `{id}`; {hint}")]
    NotFound {
        /// What was looked for: `task`, `dataset`, `evaluation`.
        kind: &'static str,
        /// The requested name.
        id: String,
        /// Where to look.
        hint: String,
    },
    /// A body over its limit.
    #[error("the body is larger than the limit of {limit} bytes")]
    BodyTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// A body that comes too slowly.
    #[error(
        "less than {bytes} bytes of the body came within {seconds} s; send it faster, or in parts"
    )]
    BodyTooSlow {
        /// What must come within the time.
        bytes: usize,
        /// The time.
        seconds: u64,
    },
    /// An adapter that changes nothing.
    #[error(
        "adapter `{name}` changes no logit of the base model; check that lora_B is trained and that the names of its tensors match the base"
    )]
    NoEffect {
        /// The adapter.
        name: String,
    },
    /// An adapter whose outputs make no sense.
    #[error("adapter `{name}` {what}")]
    Degenerate {
        /// The adapter.
        name: String,
        /// What its outputs are.
        what: Degeneration,
    },
    /// Adapters that cannot be blended.
    #[error(transparent)]
    Blend(#[from] BlendError),
    /// There is no room in memory for an adapter.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A receipt whose answer cannot be made again here.
    #[error("this answer cannot be reproduced here: {}", gone.join("; "))]
    NotReproducible {
        /// What is gone or different, and how.
        gone: Vec<String>,
    },
    /// A version whose figures are not those asked for.
    #[error("the gate did not pass: {0}; nothing was changed")]
    GateNotPassed(Box<GateReport>),
    /// A gate on figures that are not there.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The process is going down.
    #[error("the server is draining and takes no new requests")]
    Draining,
    /// The engine's thread has ended; the process is about to.
    #[error("the engine has stopped; the server is going down")]
    EngineGone,
    /// Handling the request made the server panic.
    #[error("handling this request failed; the server's log says more under its request id")]
    Panicked,
    /// The registry refused.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// An adapter's files or name were refused.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine did not take the request.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The engine could not finish the request.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The chat template could not be run.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A data set could not be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A data set that a user sent could not be used.
    #[error("{error}")]
    Dataset {
        /// Why.
        error: DataError,
        /// The part, record and field to blame.
        param: Option<String>,
    },
    /// A data set that cannot be removed.
    #[error("data set {id} is in use by {by}")]
    DatasetInUse {
        /// The data set.
        id: String,
        /// By what.
        by: String,
    },
    /// A prompt could not be rendered.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// An evaluation could not be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// An evaluation that cannot become what was asked, because it has ended.
    #[error("evaluation {id} is {}; it cannot be {wanted}", status.name())]
    WrongStatus {
        /// The evaluation.
        id: String,
        /// Where it stands.
        status: Status,
        /// What was asked.
        wanted: &'static str,
    },
    /// An error in the words of another server's interface.
    #[error("{message}")]
    InOtherWords {
        /// What it is.
        error: Box<Self>,
        /// What that server says.
        message: String,
        /// The status that it answers with.
        status: StatusCode,
    },
    /// Something that should not happen.
    #[error("internal error; the server's log says more")]
    Internal(#[source] anyhow::Error),
}

/// Status, type and code of one error.
struct Answer(StatusCode, &'static str, &'static str);

const UNPROCESSABLE: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;
const MISSING: StatusCode = StatusCode::NOT_FOUND;
const FAILED: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;
const INVALID: &str = "invalid_request_error";
const NOT_FOUND: &str = "not_found_error";
const CONFLICT: &str = "conflict_error";
const OVERLOADED: &str = "overloaded_error";
const AUTHENTICATION: &str = "authentication_error";
const SERVER: &str = "server_error";

impl ApiError {
    /// A field out of its range.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::InvalidValue {
            param: param.into(),
            message: message.into(),
        }
    }

    /// A field that is known and not supported.
    pub fn not_supported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::NotSupported {
            param: param.into(),
            message: message.into(),
        }
    }

    /// A data set that was sent and cannot be used.
    pub fn dataset(error: DataError) -> Self {
        let param = error.blame();
        Self::Dataset { error, param }
    }

    /// A failure that no request can cause.
    pub fn internal(error: impl Into<anyhow::Error>) -> Self {
        Self::Internal(error.into())
    }

    /// The body that tells a client about this error.
    pub fn body(&self) -> ErrorBody {
        let Answer(_, kind, code) = self.answer();
        ErrorBody {
            error: ErrorDetail {
                message: match StorageTrouble::of(self) {
                    Some(trouble) => trouble.to_string(),
                    None => self.to_string(),
                },
                kind,
                code,
                param: self.param().map(str::to_owned),
                gate: match self {
                    Self::GateNotPassed(report) => Some(GateReport::clone(report)),
                    _ => None,
                },
                gone: match self {
                    Self::NotReproducible { gone } => gone.clone(),
                    _ => Vec::new(),
                },
            },
        }
    }

    fn answer(&self) -> Answer {
        if let Some(trouble) = StorageTrouble::of(self) {
            return trouble.answer();
        }
        match self {
            Self::Malformed { .. } => Answer(StatusCode::BAD_REQUEST, INVALID, "malformed_body"),
            Self::InvalidValue { .. } => Answer(StatusCode::BAD_REQUEST, INVALID, "invalid_value"),
            Self::MissingField { .. } => Answer(StatusCode::BAD_REQUEST, INVALID, "missing_field"),
            Self::NotSupported { .. } => Answer(StatusCode::BAD_REQUEST, INVALID, "not_supported"),
            Self::Access(error) => access_answer(error),
            Self::RouteNotFound { .. } => Answer(MISSING, NOT_FOUND, "route_not_found"),
            Self::MethodNotAllowed { .. } => Answer(
                StatusCode::METHOD_NOT_ALLOWED,
                INVALID,
                "method_not_allowed",
            ),
            Self::ModelNotFound { .. } => Answer(MISSING, NOT_FOUND, "model_not_found"),
            Self::NotFound { .. } => Answer(MISSING, NOT_FOUND, "not_found"),
            Self::BodyTooLarge { .. } => {
                Answer(StatusCode::PAYLOAD_TOO_LARGE, INVALID, "body_too_large")
            }
            Self::NoEffect { .. } => Answer(UNPROCESSABLE, INVALID, "no_effect"),
            Self::Degenerate { .. } => Answer(UNPROCESSABLE, INVALID, "degenerate"),
            Self::Blend(error) => blend_answer(error),
            Self::Memory(error) => memory_answer(error),
            Self::NotReproducible { .. } => {
                Answer(StatusCode::CONFLICT, CONFLICT, "not_reproducible")
            }
            Self::GateNotPassed(_) => Answer(UNPROCESSABLE, INVALID, "gate_not_passed"),
            Self::Gate(error) => gate_answer(error),
            Self::Draining => Answer(StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, "draining"),
            Self::Registry(error) => registry_answer(error),
            Self::Adapter(error) => adapter_answer(error),
            Self::Store(error) => store_answer(error),
            Self::Submit(error) => submit_answer(error),
            Self::Engine(error) => engine_answer(error),
            Self::Panicked => Answer(FAILED, SERVER, "request_panicked"),
            Self::BodyTooSlow { .. } => {
                Answer(StatusCode::REQUEST_TIMEOUT, INVALID, "body_too_slow")
            }
            Self::EngineGone => Answer(StatusCode::SERVICE_UNAVAILABLE, SERVER, "engine_stopped"),
            Self::Template(_) => Answer(StatusCode::BAD_REQUEST, INVALID, "chat_template_failed"),
            Self::Data(error) => data_answer(error),
            Self::Dataset { error, .. } => dataset_answer(error),
            Self::DatasetInUse { .. } => Answer(StatusCode::CONFLICT, CONFLICT, "dataset_in_use"),
            Self::Prompt(_) => Answer(StatusCode::BAD_REQUEST, INVALID, "invalid_prompt"),
            Self::Plan(error) => plan_answer(error),
            Self::WrongStatus { .. } => Answer(StatusCode::CONFLICT, CONFLICT, "evaluation_ended"),
            Self::InOtherWords { error, status, .. } => {
                let Answer(_, kind, code) = error.answer();
                match *status {
                    StatusCode::BAD_REQUEST => Answer(*status, INVALID, code),
                    _ => Answer(*status, kind, code),
                }
            }
            Self::Internal(_) => Answer(FAILED, SERVER, "internal_error"),
        }
    }

    /// Seconds after which the same request may be served; `None` where time alone changes nothing.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Submit(error) => error.retry_after().map(|time| time.as_secs()),
            Self::InOtherWords { error, .. } => return error.retry_after(),
            Self::Access(error) => return error.retry_after(),
            _ => None,
        }
        .or_else(|| match self.answer().0 {
            StatusCode::TOO_MANY_REQUESTS => Some(1),
            StatusCode::SERVICE_UNAVAILABLE => Some(5),
            _ => None,
        })
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.answer().0
    }

    fn error_response(&self) -> HttpResponse {
        if matches!(
            self.status_code(),
            StatusCode::INTERNAL_SERVER_ERROR | StatusCode::INSUFFICIENT_STORAGE
        ) {
            tracing::error!(error = ?self, "request failed");
        }
        note::refused(self.answer().2);
        let mut response = HttpResponse::build(self.status_code());
        if let Some(seconds) = self.retry_after() {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        if let Self::MethodNotAllowed { allowed, .. } = self {
            response.insert_header((header::ALLOW, *allowed));
        }
        if matches!(self, Self::Access(error) if error.wants_key()) {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        response.json(self.body())
    }
}
