//! Receipts: what an answer was made of, in a header of the answer, so that it can be made again or it can be said why not.

use std::collections::BTreeMap;

use actix_web::http::header::{HeaderName, HeaderValue};
use engine::{Engine, Resolution};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::named::Named;
use super::target::{AdapterReference, Selection, ServedAdapter};
use crate::error::ApiError;
use crate::state::State;

/// The header that carries a receipt, as compact JSON.
pub const RECEIPT: HeaderName = HeaderName::from_static("x-quickchange-receipt");

/// What all answers of a process have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fingerprint {
    /// SHA-256 of the base model's file, hex.
    pub base: String,
    /// SHA-256 of the chat template, hex; null when the base has none.
    pub template: Option<String>,
    /// SHA-256 over the tokens' bytes, hex.
    pub tokenizer: String,
    /// The kernel set, and how closely activations are kept.
    pub kernels: String,
    /// The server's version.
    pub server: String,
}

/// What one answer was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// What it has in common with others.
    #[serde(flatten)]
    pub fingerprint: Fingerprint,
    /// The adapter version; null for the base model.
    pub adapter: Option<AdapterReference>,
    /// The seed, of answers that are sampled.
    pub seed: Option<u64>,
}

impl Fingerprint {
    /// That of a running engine with activations of so many bits.
    pub fn of(engine: &Engine, activations: Resolution) -> Self {
        let tokenizer = engine.tokenizer();
        let mut tokens = Sha256::new();
        for id in 0..u32::try_from(tokenizer.vocabulary()).unwrap_or(u32::MAX) {
            let bytes = tokenizer.token_bytes(id);
            tokens.update((bytes.len() as u64).to_le_bytes());
            tokens.update(bytes);
        }
        let template = engine.chat_template();
        Self {
            base: engine.base().digest.clone(),
            template: template.map(|template| format!("{:x}", Sha256::digest(template.source()))),
            tokenizer: format!("{:x}", tokens.finalize()),
            kernels: format!("{}, activations {}", engine.kernels(), bits(activations)),
            server: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// As `--activation-bits` takes it.
fn bits(resolution: Resolution) -> &'static str {
    match resolution {
        Resolution::Coarse => "8",
        Resolution::Mixed => "mixed",
        Resolution::Fine => "16",
    }
}

impl Receipt {
    /// The receipt of a request's answer, `None` when several models had a part in it.
    pub fn of(state: &State, served: &ServedAdapter) -> Option<Self> {
        Some(Self {
            fingerprint: state.fingerprint.clone(),
            adapter: served.reference.clone()?,
            seed: served.seed(),
        })
    }

    /// The header that carries it.
    pub fn header(&self) -> Option<HeaderValue> {
        let text = serde_json::to_string(self).ok()?;
        HeaderValue::from_str(&text).ok()
    }

    /// The same model again, for a request whose own choice it takes the place of.
    ///
    /// # Errors
    /// `NotReproducible` with everything that is gone or different.
    pub fn selection(&self, state: &State) -> Result<Selection, ApiError> {
        let mut gone = self.differences(&state.fingerprint);
        let mut still_there = |name: &str, version: &str| {
            let named = format!("{name}@{version}");
            match Named::resolve(state, &named, None) {
                Ok(_) => {}
                Err(_) => gone.push(format!("version {version} of adapter '{name}' is gone")),
            }
            named
        };
        let selection = match &self.adapter {
            None => Selection::default(),
            Some(adapter) if adapter.blend.is_empty() => Selection {
                model: Some(still_there(&adapter.name, &adapter.version)),
                ..Selection::default()
            },
            Some(adapter) => Selection {
                adapter_weights: Some(
                    adapter
                        .blend
                        .iter()
                        .map(|part| (still_there(&part.name, &part.version), part.weight))
                        .collect::<BTreeMap<_, _>>(),
                ),
                ..Selection::default()
            },
        };
        match gone.is_empty() {
            true => Ok(selection),
            false => Err(ApiError::NotReproducible { gone }),
        }
    }

    fn differences(&self, here: &Fingerprint) -> Vec<String> {
        let own = &self.fingerprint;
        let none = || "none".to_owned();
        let pairs = [
            ("base model", own.base.clone(), here.base.clone()),
            (
                "chat template",
                own.template.clone().unwrap_or_else(none),
                here.template.clone().unwrap_or_else(none),
            ),
            ("tokenizer", own.tokenizer.clone(), here.tokenizer.clone()),
            ("kernel set", own.kernels.clone(), here.kernels.clone()),
            ("server version", own.server.clone(), here.server.clone()),
        ];
        pairs
            .into_iter()
            .filter(|(_, then, now)| then != now)
            .map(|(what, then, now)| format!("the {what} was {then} and is {now}"))
            .collect()
    }
}
