//! An adapter in memory: its configuration, its manifest and its matrices, checked against a base.

use crate::json::shorten;
use crate::module::ModuleKind;
use crate::targets::resolve;
use crate::tensors::{self, Calls, Wanted};
use crate::{AdapterError, AdapterFiles, BaseModel, LoraConfig, Manifest, Projection, Version};

/// What a server accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest rank of any module.
    pub max_rank: usize,
    /// Largest weights file, in bytes.
    pub max_bytes: u64,
}

/// The two matrices that change one linear map: `y += scale · B (A x)`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraModule {
    /// The decoder layer, from 0.
    pub layer: usize,
    /// The map within the layer.
    pub projection: Projection,
    /// Rows of A and columns of B, at least 1.
    pub rank: usize,
    /// See [`LoraConfig::scale_for`].
    pub scale: f32,
    /// A, `[rank, inputs]`, row-major, finite.
    pub a: Vec<f32>,
    /// B, `[outputs, rank]`, row-major, finite.
    pub b: Vec<f32>,
}

/// An adapter that fits its base model.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// Version of its content.
    pub version: Version,
    /// Its `adapter_config.json`.
    pub config: LoraConfig,
    /// Its `manifest.json`, or the default.
    pub manifest: Manifest,
    /// Every adapted module, sorted by layer and projection.
    pub modules: Vec<LoraModule>,
    /// Size of the weights file in bytes.
    pub bytes: u64,
    /// Number of tensors in the weights file; all of them are in `modules`, fused ones in several.
    pub tensors_matched: usize,
}

impl Adapter {
    /// Parses `files` and checks everything that can be checked without running the model: the
    /// tensors are exactly those that the configuration calls for in every layer of `base`, have
    /// the shapes of `base`, ranks and sizes within `limits`, and finite values.
    ///
    /// # Errors
    /// The first thing found wrong, in the order sizes, configuration, manifest, base, tensors.
    pub fn parse(
        files: &AdapterFiles,
        base: &BaseModel,
        limits: &Limits,
    ) -> Result<Adapter, AdapterError> {
        files.check_sizes(limits)?;
        let config = LoraConfig::parse(&files.config)?;
        let manifest = match &files.manifest {
            Some(bytes) => Manifest::parse(bytes)?,
            None => Manifest::default(),
        };
        let made_for = made_for(&config, &manifest).to_owned();
        if let Some(digest) = &manifest.base_digest
            && !digest.eq_ignore_ascii_case(&base.digest)
        {
            return Err(AdapterError::WrongBase {
                made_for,
                served: base.name.clone(),
                reason: format!(
                    "its manifest names the base with SHA-256 {}, this one has {}",
                    shorten(digest),
                    base.digest
                ),
            });
        }
        check_width(&manifest, &made_for, base)?;
        let wanted = wanted(&config, base, limits)?;
        let calls = Calls {
            wanted: &wanted,
            base,
            made_for: &made_for,
        };
        let modules = tensors::read(&files.weights, &calls)?;
        Ok(Adapter {
            version: files.version()?,
            config,
            manifest,
            tensors_matched: 2 * wanted.len(),
            modules,
            bytes: files.weights.len() as u64,
        })
    }

    /// The largest rank of any module.
    pub fn max_rank(&self) -> usize {
        let ranks = self.modules.iter().map(|module| module.rank);
        ranks.max().unwrap_or_default()
    }
}

/// A domain profile is about hidden states as wide as those of `base`.
fn check_width(manifest: &Manifest, made_for: &str, base: &BaseModel) -> Result<(), AdapterError> {
    let hidden = base.shape(Projection::Query).inputs;
    match &manifest.domain {
        Some(domain) if domain.width() != hidden => Err(AdapterError::WrongBase {
            made_for: made_for.to_owned(),
            served: base.name.clone(),
            reason: format!(
                "the domain profile of its manifest is {} wide and this one's hidden states are {hidden}",
                domain.width()
            ),
        }),
        _ => Ok(()),
    }
}

/// The base an adapter says it was made for, empty when it does not.
pub(crate) fn made_for<'a>(config: &'a LoraConfig, manifest: &'a Manifest) -> &'a str {
    match manifest.base_model.as_str() {
        "" => config.base_model_name().unwrap_or_default(),
        name => name,
    }
}

/// What the configuration calls for, with ranks and scales checked.
pub(crate) fn wanted(
    config: &LoraConfig,
    base: &BaseModel,
    limits: &Limits,
) -> Result<Vec<Wanted>, AdapterError> {
    resolve(config, base)?
        .into_iter()
        .map(|(layer, kind)| {
            let module = ModuleKind::all(base)[kind].path(layer);
            let rank = config.rank_for(&module);
            if rank > limits.max_rank {
                return Err(AdapterError::RankTooHigh {
                    module,
                    rank,
                    limit: limits.max_rank,
                });
            }
            let scale = config.scale_for(&module);
            if !scale.is_finite() {
                return Err(AdapterError::InvalidField {
                    field: format!("lora_alpha of {module}"),
                    expected: "a number whose scale is finite in single precision",
                    got: config.alpha_for(&module).to_string(),
                });
            }
            Ok(Wanted {
                layer,
                kind,
                rank,
                scale,
            })
        })
        .collect()
}

#[cfg(test)]
#[path = "adapter_tests.rs"]
mod tests;
