//! The differentiable forward pass: tokens and trained values in, hidden states, logits or a loss out.
//!
//! Belongs here: the order of the layers. Does not belong here: the arithmetic of a layer (`operations`), the
//! choice of examples ([`crate::batch`]), the optimizer.

use std::sync::{Arc, Mutex};

use adapters::BaseModel;
use candle_core::{Device, Tensor, Var};
use engine::gguf::GgufFile;
use engine::{DenseWeights, LoadError, Resolution, ServedWeights};

use crate::frozen::{self, FrozenModel};
use crate::layer::DecoderLayer;
use crate::loss::{HeadLoss, Targets};
use crate::operations::lora_linear::Dropout;
use crate::optimizer::Gradients;
use crate::parameters::LoraParameters;
use crate::segments::Segments;
use crate::tensors::with_values;

/// The base model, ready to be differentiated with respect to low-rank factors over it.
#[derive(Clone)]
pub struct TrainingModel {
    frozen: Arc<FrozenModel>,
}

/// Tokens of a ragged batch and how they see each other.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// One per row.
    pub tokens: Vec<u32>,
    /// Of all rows.
    pub segments: Arc<Segments>,
}

/// How one pass of training differs from another.
#[derive(Clone, Copy, Debug)]
pub struct PassOptions {
    /// Factor of the summed loss: one over the number of targets of the whole optimizer step.
    pub weight: f32,
    /// Chance of an input of the low-rank path to be dropped; 0 for none.
    pub dropout: f32,
    /// Chooses the dropout masks.
    pub seed: u64,
    /// Compute what a layer needs on the way back again instead of keeping it.
    pub recompute: bool,
}

impl TrainingModel {
    /// A model that computes in f32 throughout.
    #[must_use]
    pub fn new(weights: DenseWeights) -> Self {
        Self {
            frozen: Arc::new(FrozenModel::new(weights, None)),
        }
    }

    /// Both of the same file.
    fn served(weights: DenseWeights, served: ServedWeights, resolution: Resolution) -> Self {
        Self {
            frozen: Arc::new(FrozenModel::new(weights, Some((served, resolution)))),
        }
    }

    /// Reads a model: in f32 throughout, or with frozen matrices that go forward as in serving at that resolution.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn from_gguf(file: &GgufFile, resolution: Option<Resolution>) -> Result<Self, LoadError> {
        let weights = DenseWeights::from_gguf(file)?;
        let Some(resolution) = resolution else {
            return Ok(Self::new(weights));
        };
        let served = ServedWeights::from_gguf(file, rayon::current_num_threads())?;
        Ok(Self::served(weights, served, resolution))
    }

    /// What an adapter over this model must fit; `digest` is that of the model file.
    #[must_use]
    pub fn base(&self, digest: &str) -> BaseModel {
        frozen::describe(&self.frozen.config, digest)
    }

    /// How many positions a sequence may have.
    #[must_use]
    pub fn context_length(&self) -> usize {
        self.frozen.rotary.positions()
    }

    /// Logits `[rows.len(), vocabulary]` after the given rows.
    ///
    /// # Errors
    /// Those of candle.
    pub fn logits(
        &self,
        parameters: &LoraParameters,
        inputs: &Inputs,
        rows: &[usize],
    ) -> candle_core::Result<Vec<f32>> {
        let hidden = self.hidden(parameters, inputs)?;
        let selected = Targets {
            rows: rows.to_vec(),
            tokens: Vec::new(),
        };
        with_values(&hidden, |hidden| {
            Ok(self
                .frozen
                .head()
                .logits(&selected.select(hidden, self.frozen.config.hidden)))
        })
    }

    /// The natural logarithm of each target's probability, without gradients or dropout.
    ///
    /// # Errors
    /// Those of candle.
    pub fn log_probabilities(
        &self,
        parameters: &LoraParameters,
        inputs: &Inputs,
        targets: &Targets,
    ) -> candle_core::Result<Vec<f64>> {
        let hidden = self.hidden(parameters, inputs)?;
        with_values(&hidden, |hidden| {
            let selected = targets.select(hidden, self.frozen.config.hidden);
            Ok(self
                .frozen
                .head()
                .log_probabilities(&selected, &targets.tokens))
        })
    }

    /// `weight · Σ −ln p(target)` and its gradient by every trained value.
    ///
    /// # Errors
    /// Those of candle.
    pub fn loss_and_gradients(
        &self,
        parameters: &LoraParameters,
        inputs: &Inputs,
        targets: &Targets,
        options: PassOptions,
    ) -> candle_core::Result<(f32, Gradients)> {
        let trained: Vec<Tensor> = parameters
            .layers()
            .iter()
            .map(|layer| layer.as_tensor().clone())
            .collect();
        let hidden = self.forward(parameters, &trained, inputs, Some(options))?;
        let loss = hidden.apply_op1(HeadLoss {
            model: Arc::clone(&self.frozen),
            targets: targets.clone(),
            weight: options.weight,
            gradient: Mutex::default(),
        })?;
        drop(hidden);
        let mut store = loss.backward()?;
        let gradients = parameters
            .layers()
            .iter()
            .map(|layer| store.remove(layer.as_tensor()));
        Ok((loss.to_scalar()?, Gradients::collect(gradients)?))
    }

    fn hidden(&self, parameters: &LoraParameters, inputs: &Inputs) -> candle_core::Result<Tensor> {
        let constants: Vec<Tensor> = parameters
            .layers()
            .iter()
            .map(Var::as_detached_tensor)
            .collect();
        self.forward(parameters, &constants, inputs, None)
    }

    /// The last layer's output, `[rows, hidden]`, before the final normalisation.
    fn forward(
        &self,
        parameters: &LoraParameters,
        trained: &[Tensor],
        inputs: &Inputs,
        options: Option<PassOptions>,
    ) -> candle_core::Result<Tensor> {
        let shape = (inputs.tokens.len(), self.frozen.config.hidden);
        let mut state = Tensor::from_vec(self.frozen.embed(&inputs.tokens), shape, &Device::Cpu)?;
        let dropout = options.filter(|options| options.dropout > 0.0);
        for (index, trained) in trained.iter().enumerate() {
            let layer = DecoderLayer {
                model: Arc::clone(&self.frozen),
                index,
                layout: Arc::clone(parameters.layout()),
                segments: Arc::clone(&inputs.segments),
                dropout: dropout.map(|options| Dropout {
                    probability: options.dropout,
                    seed: options.seed.wrapping_add((index as u64) << 32),
                }),
                input_gradient: index > 0,
                keeps: options.is_some_and(|options| !options.recompute),
                kept: Mutex::default(),
            };
            state = state.apply_op2(trained, layer)?;
        }
        Ok(state)
    }
}
