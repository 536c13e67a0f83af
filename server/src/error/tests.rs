//! Statuses and texts of the contract.

use std::time::Duration;

use super::*;
use crate::access::{Scope, Scopes};

fn check(error: ApiError) -> (u16, &'static str, &'static str, bool) {
    let response = error.error_response();
    let detail = error.body().error;
    let retry = response.headers().contains_key(header::RETRY_AFTER);
    (response.status().as_u16(), detail.kind, detail.code, retry)
}

#[test]
fn statuses_are_those_of_the_contract() {
    let full = SubmitError::QueueFull {
        waiting: 3,
        limit: 3,
        retry_after: Duration::from_secs(7),
    };
    let long = SubmitError::TooLong {
        tokens: 9_001,
        limit: 8_192,
    };
    let escapes = AdapterError::PathEscapes {
        requested: "../x".to_owned(),
    };
    let missing = RegistryError::NotLoaded {
        name: "tone".to_owned(),
    };
    let response = ApiError::from(full.clone()).error_response();
    let retry = response.headers().get(header::RETRY_AFTER);
    assert_eq!(retry.and_then(|value| value.to_str().ok()), Some("7"));
    assert_eq!(check(full.into()), (429, OVERLOADED, "queue_full", true));
    let late = ApiError::from(EngineError::DeadlineExceeded);
    assert_eq!(check(late), (504, SERVER, "deadline_exceeded", false));
    assert_eq!(
        check(ApiError::Draining),
        (503, OVERLOADED, "draining", true)
    );
    assert_eq!(check(long.into()), (413, INVALID, "prompt_too_long", false));
    assert_eq!(check(escapes.into()), (422, INVALID, "path_escapes", false));
    assert_eq!(check(missing.into()).0, 404);
    let forbidden = AccessError::Forbidden {
        held: Scopes::new(vec![Scope::Inference]),
        needed: Scope::Admin,
    };
    assert_eq!(
        check(forbidden.into()),
        (403, AUTHENTICATION, "insufficient_scope", false)
    );
    assert_eq!(
        check(ApiError::not_supported("suffix", "x")),
        (400, INVALID, "not_supported", false)
    );
}

#[test]
fn an_internal_error_keeps_its_cause_to_the_log() {
    let error = ApiError::internal(anyhow::anyhow!("secret path"));
    assert!(!error.body().error.message.contains("secret"));
    assert_eq!(check(error).0, 500);
}
