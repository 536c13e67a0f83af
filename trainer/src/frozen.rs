//! The base model's weights as training reads them: frozen, dequantised, projections of one input stacked.
//!
//! Belongs here: weights and shapes that never change. Does not belong here: trained values ([`crate::parameters`]) and
//! the forward pass ([`crate::model`]).

use adapters::{BaseModel, Projection};
use engine::{
    Architecture, DenseLayer, DenseWeights, ModelConfig, Resolution, ServedMatrix, ServedWeights,
};
use rayon::prelude::*;

use crate::layout::GROUPS;
use crate::operations::attention::Attention;
use crate::operations::frozen_matrix::FrozenMatrix;
use crate::operations::head_loss::Head;
use crate::operations::rms_norm::RmsNorm;
use crate::operations::rotary::{Rotary, RotatedRows};

/// Everything frozen.
pub(crate) struct FrozenModel {
    /// Shapes and constants.
    pub(crate) config: ModelConfig,
    /// In order.
    pub(crate) layers: Vec<FrozenLayer>,
    /// Of the heads.
    pub(crate) attention: Attention,
    /// Of every position of the context.
    pub(crate) rotary: Rotary,
    embedding: Vec<f32>,
    output_norm: Vec<f32>,
    head: FrozenMatrix,
}

/// One decoder layer.
pub(crate) struct FrozenLayer {
    /// `[hidden]`.
    pub(crate) attention_norm: Vec<f32>,
    /// `[hidden]`.
    pub(crate) feed_forward_norm: Vec<f32>,
    /// Stacked weights in the order of [`crate::layout::GROUPS`], each `[outputs, inputs]`.
    pub(crate) groups: [FrozenMatrix; 4],
}

impl FrozenModel {
    /// `served` holds the same matrices as serving has them, to go forward with.
    pub(crate) fn new(weights: DenseWeights, served: Option<(ServedWeights, Resolution)>) -> Self {
        let DenseWeights {
            config,
            embedding,
            layers,
            output_norm,
            head,
        } = weights;
        let attention = Attention {
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_width: config.head_dim,
        };
        let rotary = Rotary::new(config.context_length, config.head_dim, config.rope_theta);
        let count = layers.len();
        let (served_head, served_layers) = match served {
            Some((served, resolution)) => (
                Some((served.head, resolution)),
                served
                    .layers
                    .into_iter()
                    .map(|groups| groups.map(|group| Some((group, resolution))))
                    .collect(),
            ),
            None => (
                None,
                (0..count)
                    .map(|_| [None, None, None, None])
                    .collect::<Vec<_>>(),
            ),
        };
        let layers = layers
            .into_par_iter()
            .zip(served_layers)
            .map(|(layer, served)| FrozenLayer::new(&config, layer, served))
            .collect();
        let output_weight = head.as_ref().unwrap_or(&embedding);
        let head = FrozenMatrix::new(output_weight, config.hidden, served_head);
        Self {
            config,
            layers,
            attention,
            rotary,
            embedding,
            output_norm,
            head,
        }
    }

    /// Rows of the embedding, `[tokens, hidden]`.
    pub(crate) fn embed(&self, tokens: &[u32]) -> Vec<f32> {
        let hidden = self.config.hidden;
        tokens
            .iter()
            .flat_map(|&token| &self.embedding[token as usize * hidden..][..hidden])
            .copied()
            .collect()
    }

    /// The final normalisation and output projection, the embedding itself where they are tied.
    pub(crate) fn head(&self) -> Head<'_> {
        Head {
            norm: self.norm(&self.output_norm),
            weight: &self.head,
        }
    }

    /// A normalisation with this model's ε.
    pub(crate) fn norm<'a>(&self, weight: &'a [f32]) -> RmsNorm<'a> {
        RmsNorm {
            weight,
            epsilon: self.config.rms_epsilon,
        }
    }

    /// The heads to rotate in a buffer of queries, keys and values.
    pub(crate) fn rotated<'a>(&self, positions: &'a [usize]) -> RotatedRows<'a> {
        RotatedRows {
            row_width: self.attention.row_width(),
            heads: self.attention.heads + self.attention.kv_heads,
            positions,
        }
    }
}

impl FrozenLayer {
    fn new(
        config: &ModelConfig,
        layer: DenseLayer,
        served: [Option<(ServedMatrix, Resolution)>; 4],
    ) -> Self {
        let mut served = served.into_iter();
        let packed = |projections: &[Projection]| {
            let parts = projections.iter().map(|&own| layer.matrix(own));
            let inputs = config.projection_shapes()[projections[0] as usize].inputs;
            let served = served.next().flatten();
            FrozenMatrix::new(&parts.collect::<Vec<_>>().concat(), inputs, served)
        };
        Self {
            groups: GROUPS.map(packed),
            attention_norm: layer.attention_norm,
            feed_forward_norm: layer.feed_forward_norm,
        }
    }
}

/// What `adapters` needs to know of a model file: its name, content digest and projection shapes.
pub(crate) fn describe(config: &ModelConfig, digest: &str) -> BaseModel {
    BaseModel {
        name: config.name.clone(),
        digest: digest.to_owned(),
        layers: config.layers,
        shapes: config.projection_shapes(),
        fused: config.decoder.architecture == Architecture::Phi3,
    }
}
