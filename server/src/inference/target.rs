//! What a request runs on: what its `model`, or the weights of a blend, mean.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use actix_web::web::Data;
use actix_web::{HttpMessage, HttpRequest};
use adapters::{Lease, Version};
use engine::PreparedAdapter;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::deadline;
use super::named::Named;
use crate::access::Admission;
use crate::error::ApiError;
use crate::loading::residency::{self, Origin};
use crate::middleware::RequestId;
use crate::state::State;

/// The adapter and version that serve a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdapterReference {
    /// The adapter's name; of a blend, its parts and weights.
    pub name: String,
    /// SHA-256 of its content, hex; of a blend, over its parts' versions and weights.
    pub version: String,
    /// The parts of a blend.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blend: Vec<BlendPart>,
}

/// One adapter of a blend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BlendPart {
    /// The adapter's name.
    pub name: String,
    /// SHA-256 of its content, hex.
    pub version: String,
    /// What its change of the base is multiplied by.
    pub weight: f64,
}

/// What a request says about the model it wants.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Its `model`.
    pub model: Option<String>,
    /// The weights of a blend, by the names of its parts, each optionally with `@<version prefix>`.
    pub adapter_weights: Option<BTreeMap<String, f64>>,
    /// Its `user`: the same user stays on one side of a canary.
    pub user: Option<String>,
}

impl Selection {
    /// A model name and nothing else.
    pub fn of_model(model: Option<&str>) -> Self {
        Self {
            model: model.map(str::to_owned),
            ..Self::default()
        }
    }
}

/// What a request runs on: the base model, or one adapter version that stays alive until the request ends.
#[derive(Clone)]
pub struct Target {
    /// The name to answer with: the request's own, or the base model's when it named none.
    pub model: String,
    pub(super) lease: Option<Lease<PreparedAdapter>>,
    pub(super) blend: Vec<BlendPart>,
    /// When the answer is worth nothing any more.
    pub(super) deadline: Option<Instant>,
    /// The place of the request among those of its key, held as long as anything of the answer lives.
    pub(super) admission: Admission,
    /// The seed of what is sampled from it, for the receipt.
    pub(super) seed: Arc<OnceLock<u64>>,
}

/// What served a request, left on it for the metrics and the receipt.
#[derive(Debug, Clone)]
pub struct ServedAdapter {
    /// The adapter's name, or `base`, or `blend`.
    pub name: String,
    /// The adapter's version.
    pub version: Option<Version>,
    /// All of it, unless several served parts of the request.
    pub reference: Option<Option<AdapterReference>>,
    seed: Arc<OnceLock<u64>>,
}

impl ServedAdapter {
    /// The seed, once something is being sampled.
    pub fn seed(&self) -> Option<u64> {
        self.seed.get().copied()
    }
}

impl Target {
    /// Finds what a selection means, and has its weights in memory when it returns.
    ///
    /// # Errors
    /// Those of [`Named::resolve`] and of [`residency::lease`], `Blend` for weights that make no blend, `InvalidValue` for a blend
    /// beside a model.
    pub async fn resolve(
        state: &Data<State>,
        selection: &Selection,
        key: &str,
    ) -> Result<Self, ApiError> {
        let mut requested = selection.model.as_deref().unwrap_or_default();
        if let Some(weights) = &selection.adapter_weights {
            match weights.first_key_value() {
                // Nothing is blended, so nothing is made.
                Some((only, 1.0)) if weights.len() == 1 && requested.is_empty() => requested = only,
                _ => return Self::blend(state, requested, weights, key).await,
            }
        }
        let (lease, model) = match Named::resolve(state, requested, Some(key))? {
            Named::Base if requested.is_empty() => (None, state.served_name()),
            Named::Base => (None, requested),
            Named::Adapter(hold) => {
                let lease = residency::lease(state, hold, Origin::Stored).await?;
                (Some(lease), requested)
            }
        };
        Ok(Self {
            model: model.to_owned(),
            lease,
            blend: Vec::new(),
            deadline: None,
            admission: Admission::default(),
            seed: Arc::default(),
        })
    }

    /// Lets the request in under the limits of its key.
    ///
    /// # Errors
    /// `Access` when it has to wait.
    pub fn admit(&mut self, state: &Data<State>, request: &HttpRequest) -> Result<(), ApiError> {
        self.admission = Admission::of(state, request)?;
        Ok(())
    }

    /// Pays for all tokens that the request may cost, before any of them is computed.
    ///
    /// # Errors
    /// `Access` when the request's key may not use so many, now or at all.
    pub fn pay(&self, tokens: usize) -> Result<(), ApiError> {
        self.admission.pay(tokens)
    }

    /// Resolves a request's selection under the limits of its key, and leaves the adapter's name on the request for the metrics.
    ///
    /// # Errors
    /// Those of [`Target::resolve`] and of [`deadline::of_request`], and `Access` when a limit is reached.
    pub async fn of_request(
        state: &Data<State>,
        request: &HttpRequest,
        selection: &Selection,
    ) -> Result<Self, ApiError> {
        state.check_open()?;
        // Before any weights are loaded for it.
        let admission = Admission::of(state, request)?;
        let id = request.extensions().get::<RequestId>().cloned();
        let own = id.map(|id| id.0).unwrap_or_default();
        let key = selection.user.as_deref().unwrap_or(&own);
        let deadline = deadline::of_request(state, request)?;
        let target = Self {
            admission,
            deadline: Some(deadline),
            ..Self::resolve(state, selection, key).await?
        };
        let mut served = target.served();
        let mut extensions = request.extensions_mut();
        if extensions.get::<ServedAdapter>().is_some() {
            served.reference = None;
        }
        extensions.insert(served);
        Ok(target)
    }

    /// Exactly this version.
    ///
    /// # Errors
    /// Those of [`Target::resolve`].
    pub async fn pinned(state: &Data<State>, name: &str, version: &str) -> Result<Self, ApiError> {
        let selection = Selection::of_model(Some(&format!("{name}@{version}")));
        Self::resolve(state, &selection, "").await
    }

    /// When the answer is worth nothing any more.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Notes the seed of what is sampled; the first one counts.
    pub fn sampled_with(&self, seed: u64) {
        self.seed.get_or_init(|| seed);
    }

    /// The adapter and version, `None` for the base.
    pub fn reference(&self) -> Option<AdapterReference> {
        self.lease.as_ref().map(|lease| AdapterReference {
            name: lease.name().to_owned(),
            version: lease.summary().version.to_string(),
            blend: self.blend.clone(),
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

    /// The adapter's name, `blend`, or `base`.
    pub fn label(&self) -> &str {
        match &self.lease {
            None => "base",
            Some(_) if !self.blend.is_empty() => "blend",
            Some(lease) => lease.name(),
        }
    }

    /// The adapter's version, `None` for the base and for blends.
    pub fn version(&self) -> Option<&Version> {
        let own = self.lease.as_ref().filter(|_| self.blend.is_empty());
        own.map(|lease| &lease.summary().version)
    }

    fn served(&self) -> ServedAdapter {
        ServedAdapter {
            name: self.label().to_owned(),
            version: self.version().cloned(),
            reference: Some(self.reference()),
            seed: Arc::clone(&self.seed),
        }
    }
}
