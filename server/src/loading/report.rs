//! What is kept of a load: the report of the answer, and the facts that stay with the version.

use adapters::{AdapterFiles, BaseModel, Proof, Summary};
use serde::Serialize;
use utoipa::ToSchema;

/// What a load found and did.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LoadReport {
    /// Tensors of the file that are part of the adapter.
    pub tensors_matched: usize,
    /// Tensors that are not; always empty, since an adapter is complete or refused.
    pub tensors_unmatched: Vec<String>,
    /// Modules of the base model that it changes.
    pub modules: usize,
    /// Mean Kullback-Leibler divergence of the adapter's next-token distribution from the base's on probe prompts, nats.
    pub effect_kl: f64,
    /// Milliseconds from reading to publishing.
    pub load_ms: f64,
    /// What may be wrong and did not keep it from being served.
    pub warnings: Vec<String>,
}

impl LoadReport {
    /// The report of a proof.
    pub fn of(proof: &Proof) -> Self {
        Self {
            tensors_matched: proof.tensors_matched,
            tensors_unmatched: Vec::new(),
            modules: proof.modules,
            effect_kl: proof.effect_kl,
            load_ms: proof.load_ms,
            warnings: proof.warnings.clone(),
        }
    }
}

/// The stored form of a summary.
///
/// # Panics
/// Never: a summary has string keys and finite numbers.
pub(super) fn to_json(summary: &Summary) -> Vec<u8> {
    serde_json::to_vec_pretty(summary).expect("a summary has string keys and finite numbers")
}

/// The summary that was stored with a version, if it was tried on this base; anything else has to be tried again.
pub(super) fn proven(stored: Option<&[u8]>, base: &BaseModel) -> Option<Summary> {
    let summary: Summary = serde_json::from_slice(stored?).ok()?;
    let on_this_base = |proof: &Proof| proof.base_digest == base.digest;
    summary
        .proof
        .as_ref()
        .is_some_and(on_this_base)
        .then_some(summary)
}

/// What may be wrong with an adapter that fits.
pub(super) fn warnings(files: &AdapterFiles, summary: &Summary, base: &str) -> Vec<String> {
    let made_for = summary.base_model.as_str();
    let mut warnings = Vec::new();
    // Manifests that carry the base's digest have been compared by it.
    if summary.manifest.base_digest.is_none() && !made_for.is_empty() && !same_model(made_for, base)
    {
        warnings.push(format!(
            "it was made for the base model '{made_for}' and the one being served is '{base}'; its shapes fit, its weights may not"
        ));
    }
    if files.manifest.is_none() {
        warnings.push(
            "it has no manifest.json, so it has no task, and evaluations cannot tell what is in its domain".to_owned(),
        );
    }
    warnings
}

/// Whether two names of a model mean the same one, as far as names can tell: without organisation, folder, file type and quantisation.
pub(crate) fn same_model(one: &str, other: &str) -> bool {
    let plain = |name: &str| {
        let last = name
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or(name);
        let lower = last.to_ascii_lowercase();
        let stem = lower.strip_suffix(".gguf").unwrap_or(&lower);
        match stem.split_once(".q") {
            Some((model, _)) => model.to_owned(),
            None => stem.to_owned(),
        }
    };
    plain(one) == plain(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_model_goes_by_several_names() {
        let served = "smollm2-135m-instruct.q4_1";
        assert!(same_model("HuggingFaceTB/SmolLM2-135M-Instruct", served));
        assert!(same_model("/models/SmolLM2-135M-Instruct/", served));
        assert!(same_model("SmolLM2-135M-Instruct.Q8_0.gguf", served));
        assert!(!same_model("HuggingFaceTB/SmolLM2-135M", served));
    }
}
