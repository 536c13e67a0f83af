//! Extractors that a handler lists to say which scope its callers need.

use std::future::{Ready, ready};
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpMessage, HttpRequest};

use crate::access::{Key, Scope};
use crate::audit::note;
use crate::error::{AccessError, ApiError};
use crate::state::State;

/// The caller may run inference.
#[derive(Debug)]
pub struct InferenceKey;

/// The caller may manage adapters and evaluations.
#[derive(Debug)]
pub struct AdminKey;

/// The caller may read metrics.
#[derive(Debug)]
pub struct MetricsKey;

impl FromRequest for InferenceKey {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(authorize(request, Scope::Inference).map(|()| Self))
    }
}

impl FromRequest for AdminKey {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(authorize(request, Scope::Admin).map(|()| Self))
    }
}

impl FromRequest for MetricsKey {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(authorize(request, Scope::Metrics).map(|()| Self))
    }
}

/// Lets a request in if it may do what needs a scope, and leaves its key on it for limits and the audit log.
fn authorize(request: &HttpRequest, needed: Scope) -> Result<(), ApiError> {
    let state = request
        .app_data::<Data<State>>()
        .ok_or_else(|| ApiError::internal(anyhow::anyhow!("the application has no state")))?;
    let keyring = &state.access.keyring;
    if !keyring.is_required() {
        return Ok(());
    }
    let key = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(bearer)
        .and_then(|key| keyring.find(key))
        .ok_or(AccessError::Unauthenticated)?;
    let checked = check(&key, needed);
    // Of a refused request too: the audit log says whose it was.
    note::key(&key.id);
    request.extensions_mut().insert(key);
    Ok(checked?)
}

fn check(key: &Arc<Key>, needed: Scope) -> Result<(), AccessError> {
    if let Some(at) = key.expired() {
        return Err(AccessError::Expired { at });
    }
    if !key.scopes.allow(needed) {
        let held = key.scopes.clone();
        return Err(AccessError::Forbidden { held, needed });
    }
    Ok(())
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, key) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bearer_headers_carry_a_key() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer abc"), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("abc"), None);
    }
}
