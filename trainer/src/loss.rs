//! The cross-entropy of some rows of the last layer as a differentiable candle operation.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use crate::frozen::FrozenModel;
use crate::tensors::{contiguous_slice, with_values};

/// Rows whose next token is counted, and which token that is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Rows of the batch, ascending.
    pub rows: Vec<usize>,
    /// The token each row should predict.
    pub tokens: Vec<u32>,
}

/// `weight · Σ −ln p(target)` over the target rows, a scalar; an operation is used once.
///
/// The gradient falls out of the same logits, so it is computed in forward and kept (`[target rows, hidden]`).
pub(crate) struct HeadLoss {
    pub(crate) model: Arc<FrozenModel>,
    pub(crate) targets: Targets,
    pub(crate) weight: f32,
    pub(crate) gradient: Mutex<Vec<f32>>,
}

impl Targets {
    /// The target rows of `[rows, width]`.
    pub(crate) fn select(&self, hidden: &[f32], width: usize) -> Vec<f32> {
        self.rows
            .iter()
            .flat_map(|row| &hidden[row * width..][..width])
            .copied()
            .collect()
    }
}

impl CustomOp1 for HeadLoss {
    fn name(&self) -> &'static str {
        "head-loss"
    }

    fn cpu_fwd(&self, hidden: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let selected = self
            .targets
            .select(contiguous_slice(hidden, layout)?, self.model.config.hidden);
        let head = self.model.head();
        let (losses, gradient) =
            head.loss_and_gradient(&selected, &self.targets.tokens, self.weight);
        *self.gradient.lock().unwrap_or_else(PoisonError::into_inner) = gradient;
        let loss = losses.iter().sum::<f64>() * f64::from(self.weight);
        Ok((CpuStorage::F32(vec![loss as f32]), Shape::from(())))
    }

    fn bwd(&self, hidden: &Tensor, _loss: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        let gradient =
            std::mem::take(&mut *self.gradient.lock().unwrap_or_else(PoisonError::into_inner));
        let factor = with_values(upstream, |values| Ok(values[0]))?;
        let width = self.model.config.hidden;
        let mut scattered = vec![0.0; hidden.elem_count()];
        for (row, values) in self.targets.rows.iter().zip(gradient.chunks_exact(width)) {
            for (destination, value) in scattered[row * width..].iter_mut().zip(values) {
                *destination += value * factor;
            }
        }
        Ok(Some(Tensor::from_vec(
            scattered,
            hidden.shape(),
            hidden.device(),
        )?))
    }
}
