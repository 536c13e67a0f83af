//! What the registry remembers about a version once its files are parsed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::adapter::made_for;
use crate::{Adapter, Manifest, Method, Version};

/// The facts about one loaded version that lists and reports show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The content version.
    pub version: Version,
    /// When it was loaded, in seconds since the Unix epoch.
    pub created: u64,
    /// Size of the weights file in bytes.
    pub bytes: u64,
    /// The task of the manifest.
    pub task: Option<String>,
    /// How it was made.
    pub method: Method,
    /// The largest rank of any module.
    pub rank: usize,
    /// The configured `lora_alpha`.
    pub alpha: f64,
    /// The projections that are changed in at least one layer, by PEFT name, sorted.
    pub target_modules: Vec<String>,
    /// The base model it was made for, as its own files say it, empty when they do not.
    pub base_model: String,
    /// The whole manifest.
    pub manifest: Manifest,
    /// What was found when it was tried on a base model.
    pub proof: Option<Proof>,
}

/// What loading a version found; it is kept with the version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Name of the base model it was tried on.
    pub base_model: String,
    /// SHA-256 of that model's file.
    pub base_digest: String,
    /// Tensors of the file that are part of the adapter.
    pub tensors_matched: usize,
    /// Modules of the base model that it changes.
    pub modules: usize,
    /// Mean Kullback-Leibler divergence of its next-token distribution from the base's on the probe prompts, nats.
    pub effect_kl: f64,
    /// Milliseconds from reading to publishing.
    pub load_ms: f64,
    /// What may be wrong and did not keep it from being served.
    pub warnings: Vec<String>,
}

impl Summary {
    /// Summarises `adapter`, loaded at `created` (Unix seconds).
    pub fn of(adapter: &Adapter, created: u64) -> Self {
        let manifest = &adapter.manifest;
        let targets: BTreeSet<&str> = adapter
            .modules
            .iter()
            .map(|module| module.projection.peft_name())
            .collect();
        Self {
            version: adapter.version.clone(),
            created,
            bytes: adapter.bytes,
            task: manifest.task.clone(),
            method: manifest.method,
            rank: adapter.max_rank(),
            alpha: adapter.config.alpha(),
            target_modules: targets.into_iter().map(str::to_owned).collect(),
            base_model: made_for(&adapter.config, manifest).to_owned(),
            manifest: manifest.clone(),
            proof: None,
        }
    }
}
