//! What the errors of the other crates are on the wire.

use actix_web::http::StatusCode;
use adapters::{AdapterError, BlendError, MemoryError, RegistryError, StoreError};
use engine::{EngineError, SubmitError};
use tasks::{DataError, PlanError};

use crate::evaluations::gate::GateError;

use super::{Answer, CONFLICT, INVALID, NOT_FOUND, OVERLOADED, SERVER};

pub(super) fn submit_answer(error: &SubmitError) -> Answer {
    match error {
        SubmitError::QueueFull { .. } => {
            Answer(StatusCode::TOO_MANY_REQUESTS, OVERLOADED, "queue_full")
        }
        SubmitError::TooMuchWork { .. } => {
            Answer(StatusCode::TOO_MANY_REQUESTS, OVERLOADED, "too_much_work")
        }
        SubmitError::TooLate { .. } => {
            Answer(StatusCode::TOO_MANY_REQUESTS, OVERLOADED, "too_late")
        }
        SubmitError::Expired => Answer(StatusCode::GATEWAY_TIMEOUT, SERVER, "deadline_exceeded"),
        SubmitError::Draining => Answer(StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, "draining"),
        SubmitError::NothingToPool { .. } => {
            Answer(StatusCode::BAD_REQUEST, INVALID, "nothing_to_pool")
        }
        SubmitError::PromptEmpty => Answer(StatusCode::BAD_REQUEST, INVALID, "prompt_empty"),
        SubmitError::TooLong { .. } => {
            Answer(StatusCode::PAYLOAD_TOO_LARGE, INVALID, "prompt_too_long")
        }
        SubmitError::TokenOutOfRange { .. } => {
            Answer(StatusCode::BAD_REQUEST, INVALID, "token_out_of_range")
        }
        SubmitError::Stopped => Answer(StatusCode::INTERNAL_SERVER_ERROR, SERVER, "engine_stopped"),
    }
}

pub(super) fn engine_answer(error: &EngineError) -> Answer {
    const FAILED: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;
    match error {
        EngineError::Stopped => Answer(FAILED, SERVER, "engine_stopped"),
        EngineError::Panicked => Answer(FAILED, SERVER, "engine_panicked"),
        EngineError::Device { .. } => Answer(FAILED, SERVER, "device_failed"),
        EngineError::DeadlineExceeded => {
            Answer(StatusCode::GATEWAY_TIMEOUT, SERVER, "deadline_exceeded")
        }
    }
}

pub(super) fn gate_answer(error: &GateError) -> Answer {
    let code = match error {
        GateError::NotCompleted { .. } => "evaluation_not_completed",
        GateError::NotMeasured { .. } => "gate_not_measured",
        GateError::NotCompared { .. } => "gate_not_compared",
        GateError::NoScores { .. } => "evaluation_without_scores",
    };
    Answer(StatusCode::UNPROCESSABLE_ENTITY, INVALID, code)
}

pub(super) fn blend_answer(error: &BlendError) -> Answer {
    let status = match error {
        BlendError::Count { .. } | BlendError::Weight { .. } => StatusCode::BAD_REQUEST,
        BlendError::BasesDiffer { .. } => StatusCode::UNPROCESSABLE_ENTITY,
    };
    Answer(status, INVALID, error.code())
}

pub(super) fn memory_answer(error: &MemoryError) -> Answer {
    match error {
        MemoryError::TooLarge { .. } => {
            Answer(StatusCode::UNPROCESSABLE_ENTITY, INVALID, "exceeds_memory")
        }
        MemoryError::Full { .. } => {
            Answer(StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, "memory_full")
        }
    }
}

pub(super) fn store_answer(error: &StoreError) -> Answer {
    let code = error.code();
    match error {
        StoreError::Adapter(error) => adapter_answer(error),
        StoreError::PointerMoved { .. } => Answer(StatusCode::CONFLICT, CONFLICT, code),
        StoreError::NotStored { .. } => Answer(StatusCode::NOT_FOUND, NOT_FOUND, code),
        StoreError::Io(_)
        | StoreError::Damaged { .. }
        | StoreError::Remote(_)
        | StoreError::Location { .. } => Answer(StatusCode::INTERNAL_SERVER_ERROR, SERVER, code),
    }
}

pub(super) fn registry_answer(error: &RegistryError) -> Answer {
    let code = error.code();
    match error {
        RegistryError::NotLoaded { .. } | RegistryError::UnknownVersion { .. } => {
            Answer(StatusCode::NOT_FOUND, NOT_FOUND, code)
        }
        RegistryError::AmbiguousVersion { .. } => Answer(StatusCode::BAD_REQUEST, INVALID, code),
        RegistryError::AlreadyLoaded { .. }
        | RegistryError::LostCompareAndSwap { .. }
        | RegistryError::NothingToRollBack { .. }
        | RegistryError::ActiveVersion { .. } => Answer(StatusCode::CONFLICT, CONFLICT, code),
    }
}

/// Adapters that cannot be served are the client's to fix, whichever check they fail.
pub(super) fn adapter_answer(error: &AdapterError) -> Answer {
    let code = error.code();
    match error {
        AdapterError::Io(_) => Answer(StatusCode::INTERNAL_SERVER_ERROR, SERVER, code),
        AdapterError::TooLarge { .. } => Answer(StatusCode::PAYLOAD_TOO_LARGE, INVALID, code),
        AdapterError::PathNotFound { .. } => Answer(StatusCode::NOT_FOUND, NOT_FOUND, code),
        AdapterError::InvalidName { .. }
        | AdapterError::ReservedName { .. }
        | AdapterError::InvalidVersion { .. } => Answer(StatusCode::BAD_REQUEST, INVALID, code),
        AdapterError::MissingFile { .. }
        | AdapterError::NotAFile { .. }
        | AdapterError::PickledWeights { .. }
        | AdapterError::InvalidJson { .. }
        | AdapterError::InvalidField { .. }
        | AdapterError::Unsupported { .. }
        | AdapterError::UnknownTarget { .. }
        | AdapterError::InvalidPattern { .. }
        | AdapterError::InvalidManifest { .. }
        | AdapterError::WrongBase { .. }
        | AdapterError::CorruptWeights { .. }
        | AdapterError::UnsupportedDtype { .. }
        | AdapterError::UnmatchedTensors { .. }
        | AdapterError::MissingTensors { .. }
        | AdapterError::DuplicateTensor { .. }
        | AdapterError::WrongShape { .. }
        | AdapterError::RankTooHigh { .. }
        | AdapterError::NotFinite { .. }
        | AdapterError::InvalidModule { .. }
        | AdapterError::PathEscapes { .. } => {
            Answer(StatusCode::UNPROCESSABLE_ENTITY, INVALID, code)
        }
    }
}

pub(super) fn data_answer(error: &DataError) -> Answer {
    let code = error.code();
    match error {
        DataError::UnknownDataset { .. } | DataError::NoFile { .. } => {
            Answer(StatusCode::NOT_FOUND, NOT_FOUND, code)
        }
        DataError::TooFewDemonstrations { .. } => Answer(StatusCode::BAD_REQUEST, INVALID, code),
        DataError::NotADirectory { .. }
        | DataError::NothingFound { .. }
        | DataError::Read(_)
        | DataError::Malformed { .. }
        | DataError::MissingField { .. }
        | DataError::NotAString { .. }
        | DataError::UnknownLabel { .. }
        | DataError::DuplicateId { .. }
        | DataError::InvalidName { .. }
        | DataError::NameTaken { .. }
        | DataError::CrossRole
        | DataError::Empty { .. }
        | DataError::Prompts { .. } => Answer(StatusCode::INTERNAL_SERVER_ERROR, SERVER, code),
    }
}

/// What is wrong with a data set that was sent is for whoever sent it to mend.
pub(super) fn dataset_answer(error: &DataError) -> Answer {
    let code = error.code();
    match error {
        DataError::NameTaken { .. } => Answer(StatusCode::CONFLICT, CONFLICT, code),
        DataError::Malformed { .. } | DataError::InvalidName { .. } | DataError::CrossRole => {
            Answer(StatusCode::BAD_REQUEST, INVALID, code)
        }
        DataError::MissingField { .. }
        | DataError::NotAString { .. }
        | DataError::UnknownLabel { .. }
        | DataError::DuplicateId { .. }
        | DataError::Empty { .. } => Answer(StatusCode::UNPROCESSABLE_ENTITY, INVALID, code),
        DataError::UnknownDataset { .. }
        | DataError::NoFile { .. }
        | DataError::TooFewDemonstrations { .. }
        | DataError::NotADirectory { .. }
        | DataError::NothingFound { .. }
        | DataError::Read(_)
        | DataError::Prompts { .. } => data_answer(error),
    }
}

pub(super) fn plan_answer(error: &PlanError) -> Answer {
    let code = error.code();
    match error {
        PlanError::UnknownDataset { .. } => Answer(StatusCode::NOT_FOUND, NOT_FOUND, code),
        PlanError::EmptyList { .. }
        | PlanError::ZeroLimit
        | PlanError::NoOwnTask
        | PlanError::NothingLeft { .. }
        | PlanError::Prompt(_) => Answer(StatusCode::BAD_REQUEST, INVALID, code),
        PlanError::Data(error) => data_answer(error),
    }
}
