//! Keys and scopes: extractors that a handler lists to say who may call it.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest};
use sha2::{Digest, Sha256};

use crate::configuration::Configuration;
use crate::error::ApiError;
use crate::state::State;

/// The caller may run inference.
#[derive(Debug)]
pub struct InferenceKey;

/// The caller may manage adapters and evaluations.
#[derive(Debug)]
pub struct AdminKey;

/// What a key allows; every admin key also runs inference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Inference,
    Admin,
}

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

fn authorize(request: &HttpRequest, needed: Scope) -> Result<(), ApiError> {
    let state = request
        .app_data::<Data<State>>()
        .ok_or_else(|| ApiError::internal(anyhow::anyhow!("the application has no state")))?;
    if !state.configuration.requires_key() {
        return Ok(());
    }
    let key = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(bearer)
        .ok_or(ApiError::Unauthenticated)?;
    match scope_of(&state.configuration, key) {
        None => Err(ApiError::Unauthenticated),
        Some(scope) if scope < needed => Err(ApiError::Forbidden),
        Some(_) => Ok(()),
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, key) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn scope_of(configuration: &Configuration, key: &str) -> Option<Scope> {
    let known = |keys: &[String]| {
        // No early exit: the time taken says nothing about which key came near.
        keys.iter()
            .filter(|candidate| !candidate.is_empty())
            .fold(false, |found, candidate| found | same(candidate, key))
    };
    let (admin, inference) = (
        known(&configuration.admin_key),
        known(&configuration.api_key),
    );
    match (admin, inference) {
        (true, _) => Some(Scope::Admin),
        (false, true) => Some(Scope::Inference),
        (false, false) => None,
    }
}

/// Compares digests, so that the time taken does not depend on how much of the key is right.
fn same(left: &str, right: &str) -> bool {
    Sha256::digest(left.as_bytes()) == Sha256::digest(right.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_scope_it_was_configured_with() {
        let mut configuration = Configuration::defaults();
        configuration.api_key = vec!["user".to_owned(), String::new()];
        configuration.admin_key = vec!["root".to_owned()];
        assert_eq!(scope_of(&configuration, "user"), Some(Scope::Inference));
        assert_eq!(scope_of(&configuration, "root"), Some(Scope::Admin));
        assert_eq!(scope_of(&configuration, "guess"), None);
        assert_eq!(scope_of(&configuration, ""), None);
    }

    #[test]
    fn only_bearer_headers_carry_a_key() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer abc"), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("abc"), None);
    }
}
