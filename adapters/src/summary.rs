//! What the registry remembers about a version once its files are parsed.

use std::collections::BTreeSet;

use crate::{Adapter, Manifest, Method, Version};

/// The facts about one loaded version that lists and reports show.
#[derive(Debug, Clone, PartialEq)]
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
        let base_model = if manifest.base_model.is_empty() {
            adapter.config.base_model_name().unwrap_or_default()
        } else {
            &manifest.base_model
        };
        Self {
            version: adapter.version.clone(),
            created,
            bytes: adapter.bytes,
            task: manifest.task.clone(),
            method: manifest.method,
            rank: adapter.max_rank(),
            alpha: adapter.config.alpha(),
            target_modules: targets.into_iter().map(str::to_owned).collect(),
            base_model: base_model.to_owned(),
            manifest: manifest.clone(),
        }
    }
}
