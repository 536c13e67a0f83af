//! The arithmetic of one decoder layer and of the loss, forward and backward, on plain row-major `f32` slices.
//!
//! Belongs here: functions of slices that know shapes and nothing else, each with its gradient beside it.
//! Does not belong here: candle tensors, adapters' names, files, the training loop.

pub(crate) mod attention;
pub(crate) mod exponential;
pub(crate) mod frozen_matrix;
pub(crate) mod head_loss;
pub(crate) mod lora_linear;
pub(crate) mod rms_norm;
pub(crate) mod rotary;
pub(crate) mod swiglu;

#[cfg(test)]
mod gradient_oracle;
#[cfg(test)]
mod gradient_tests;

/// Rows handed to a thread at a time by the element-wise operations; below this the hand-over costs more than the work.
pub(crate) const ROWS_PER_TASK: usize = 16;
