//! What the `model` field of a request means.

use std::sync::Arc;

use actix_web::{HttpMessage, HttpRequest};
use adapters::Lease;
use engine::PreparedAdapter;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::state::State;

/// The adapter and version that serve a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdapterReference {
    /// The adapter's name.
    pub name: String,
    /// SHA-256 of its content, hex.
    pub version: String,
}

/// What a request runs on: the base model, or one adapter version that stays alive until the request ends.
#[derive(Clone)]
pub struct Target {
    /// The name to answer with: the request's own, or the base model's when it named none.
    pub model: String,
    lease: Option<Lease<PreparedAdapter>>,
}

/// The adapter's name, left on the request for the metrics.
#[derive(Debug, Clone)]
pub struct ServedAdapter(pub String);

impl Target {
    /// Finds what a model name means: empty, the base's name, `<adapter>`, `<base>:<adapter>`, each adapter optionally with
    /// `@<version prefix>`.
    ///
    /// # Errors
    /// `ModelNotFound`, or the registry's error for an unknown or ambiguous version.
    pub fn resolve(state: &State, model: Option<&str>) -> Result<Self, ApiError> {
        let base = state.served_name();
        let requested = model.unwrap_or_default();
        if requested.is_empty() || requested == base || requested == "base" {
            let model = if requested.is_empty() {
                base
            } else {
                requested
            };
            return Ok(Self {
                model: model.to_owned(),
                lease: None,
            });
        }
        let (name, version) = split(requested, base);
        let not_found = || ApiError::ModelNotFound {
            model: requested.to_owned(),
        };
        if state.registry.get(name).is_none() {
            return Err(not_found());
        }
        let lease = match version {
            Some(prefix) => state.registry.lease_version(name, prefix)?,
            None => state.registry.lease(name)?,
        };
        Ok(Self {
            model: requested.to_owned(),
            lease: Some(lease),
        })
    }

    /// Resolves a request's model and leaves the adapter's name on the request for the metrics.
    ///
    /// # Errors
    /// Those of [`Target::resolve`].
    pub fn of_request(
        state: &State,
        request: &HttpRequest,
        model: Option<&str>,
    ) -> Result<Self, ApiError> {
        state.check_open()?;
        let target = Self::resolve(state, model)?;
        request
            .extensions_mut()
            .insert(ServedAdapter(target.label().to_owned()));
        Ok(target)
    }

    /// The adapter and version, `None` for the base.
    pub fn reference(&self) -> Option<AdapterReference> {
        self.lease.as_ref().map(|lease| AdapterReference {
            name: lease.name().to_owned(),
            version: lease.summary().version.to_string(),
        })
    }

    /// The lease on the adapter version, `None` for the base.
    pub fn lease(&self) -> Option<&Lease<PreparedAdapter>> {
        self.lease.as_ref()
    }

    /// The weights to send with engine requests, `None` for the base.
    pub fn weights(&self) -> Option<Arc<PreparedAdapter>> {
        self.lease.as_ref().map(|lease| Arc::clone(lease.weights()))
    }

    /// The adapter's name, or `base`.
    pub fn label(&self) -> &str {
        self.lease.as_ref().map_or("base", Lease::name)
    }
}

/// Splits a model name into adapter and version prefix; the base's name may stand before the adapter.
fn split<'a>(requested: &'a str, base: &str) -> (&'a str, Option<&'a str>) {
    let adapter = requested
        .strip_prefix(base)
        .and_then(|rest| rest.strip_prefix(':'))
        .unwrap_or(requested);
    match adapter.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (adapter, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_an_adapter_mean_the_same() {
        assert_eq!(split("tone", "base-model"), ("tone", None));
        assert_eq!(split("base-model:tone", "base-model"), ("tone", None));
        assert_eq!(
            split("tone@12345678", "base-model"),
            ("tone", Some("12345678"))
        );
        assert_eq!(
            split("base-model:tone@12345678", "base-model"),
            ("tone", Some("12345678"))
        );
        assert_eq!(split("other:tone", "base-model"), ("other:tone", None));
    }
}
