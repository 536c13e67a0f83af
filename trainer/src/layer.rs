//! One decoder layer as a differentiable candle operation of its input and its trained values.
//!
//! The whole layer is one operation, so candle's graph holds a layer's output and nothing between: forward keeps the
//! five buffers backward cannot cheaply recompute, and backward takes and frees them layer by layer. Without memory for
//! them it keeps nothing, and backward begins with the layer's forward.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use crate::frozen::{FrozenLayer, FrozenModel};
use crate::layout::LayerLayout;
use crate::operations::lora_linear::{Dropout, LoraLinear};
use crate::operations::swiglu;
use crate::segments::Segments;
use crate::tensors::{contiguous_slice, with_values};

const QUERY_KEY_VALUE: usize = 0;
const ATTENTION_OUTPUT: usize = 1;
const GATE_UP: usize = 2;
const DOWN: usize = 3;

/// One layer over one batch; an operation is used once.
pub(crate) struct DecoderLayer {
    pub(crate) model: Arc<FrozenModel>,
    pub(crate) index: usize,
    pub(crate) layout: Arc<LayerLayout>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) dropout: Option<Dropout>,
    /// Whether anything before this layer is trained.
    pub(crate) input_gradient: bool,
    /// Whether forward leaves what backward needs; it is computed again otherwise.
    pub(crate) keeps: bool,
    pub(crate) kept: Mutex<Option<Kept>>,
}

/// What forward leaves for backward. Widths are per row.
pub(crate) struct Kept {
    /// Queries and keys rotated, and values.
    query_key_value: Vec<f32>,
    /// Attention's output, before its projection.
    attended: Vec<f32>,
    /// The residual stream between attention and feed-forward.
    middle: Vec<f32>,
    /// Gate and up before the activation.
    gate_up: Vec<f32>,
    /// The low-rank inner values of the four groups.
    inner: [Vec<f32>; 4],
}

impl DecoderLayer {
    fn weights(&self) -> &FrozenLayer {
        &self.model.layers[self.index]
    }

    fn linear<'a>(&'a self, group: usize, parameters: &'a [f32]) -> LoraLinear<'a> {
        LoraLinear {
            layout: &self.layout.groups[group],
            weight: &self.weights().groups[group],
            parameters,
            dropout: self.dropout.map(|dropout| dropout.for_group(group)),
        }
    }

    /// `[rows, hidden]` to `[rows, hidden]`.
    fn forward(&self, input: &[f32], parameters: &[f32]) -> (Vec<f32>, Kept) {
        let rows = self.segments.rows();
        let linear = |group| self.linear(group, parameters);
        let project = |group: usize, input: &[f32]| {
            let mut output = vec![0.0; rows * self.layout.groups[group].outputs];
            let inner = linear(group).forward(input, &mut output, false);
            (output, inner)
        };

        let normed = self
            .model
            .norm(&self.weights().attention_norm)
            .forward(input);
        let (mut query_key_value, inner_qkv) = project(QUERY_KEY_VALUE, &normed);
        drop(normed);
        self.model.rotary.rotate(
            &mut query_key_value,
            self.model.rotated(self.segments.positions()),
        );
        let attended = self
            .model
            .attention
            .forward(&query_key_value, &self.segments);
        let mut middle = input.to_vec();
        let inner_output = linear(ATTENTION_OUTPUT).forward(&attended, &mut middle, true);

        let normed = self
            .model
            .norm(&self.weights().feed_forward_norm)
            .forward(&middle);
        let (gate_up, inner_gate_up) = project(GATE_UP, &normed);
        drop(normed);
        let activated = swiglu::forward(&gate_up, self.model.config.intermediate);
        let mut output = middle.clone();
        let inner_down = linear(DOWN).forward(&activated, &mut output, true);

        let inner = [inner_qkv, inner_output, inner_gate_up, inner_down];
        (
            output,
            Kept {
                query_key_value,
                attended,
                middle,
                gate_up,
                inner,
            },
        )
    }

    /// What the forward pass kept, or would have.
    fn take_kept(&self, input: &[f32], parameters: &[f32]) -> Kept {
        let kept = self
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        kept.unwrap_or_else(|| self.forward(input, parameters).1)
    }

    /// The gradients of the trained values and, where somebody needs it, of the input.
    fn backward(
        &self,
        input: &[f32],
        parameters: &[f32],
        gradient: &[f32],
    ) -> (Vec<f32>, Option<Vec<f32>>) {
        let Kept {
            query_key_value,
            attended,
            middle,
            gate_up,
            inner,
        } = self.take_kept(input, parameters);
        let mut trained = vec![0.0; parameters.len()];
        let mut step = |group: usize, input: &[f32], gradient: &[f32], to_input: bool| {
            let linear = self.linear(group, parameters);
            let inner_gradient = linear.backward(input, &inner[group], gradient, &mut trained);
            if to_input {
                linear.input_gradient(gradient, &inner_gradient)
            } else {
                Vec::new()
            }
        };

        let intermediate = self.model.config.intermediate;
        let activated = swiglu::forward(&gate_up, intermediate);
        let activated_gradient = step(DOWN, &activated, gradient, true);
        drop(activated);
        let gate_up_gradient = swiglu::backward(&gate_up, &activated_gradient, intermediate);
        drop((activated_gradient, gate_up));
        let norm = self.model.norm(&self.weights().feed_forward_norm);
        let normed_gradient = step(GATE_UP, &norm.forward(&middle), &gate_up_gradient, true);
        drop(gate_up_gradient);
        let mut middle_gradient = gradient.to_vec();
        norm.backward(&middle, &normed_gradient, &mut middle_gradient);
        drop((middle, normed_gradient));

        let attended_gradient = step(ATTENTION_OUTPUT, &attended, &middle_gradient, true);
        drop(attended);
        let attention = self.model.attention;
        let mut rotated_gradient =
            attention.backward(&query_key_value, &self.segments, &attended_gradient);
        drop((query_key_value, attended_gradient));
        self.model.rotary.rotate_back(
            &mut rotated_gradient,
            self.model.rotated(self.segments.positions()),
        );
        let norm = self.model.norm(&self.weights().attention_norm);
        let normed_gradient = step(
            QUERY_KEY_VALUE,
            &norm.forward(input),
            &rotated_gradient,
            self.input_gradient,
        );
        let input_gradient = self.input_gradient.then(|| {
            norm.backward(input, &normed_gradient, &mut middle_gradient);
            middle_gradient
        });
        (trained, input_gradient)
    }
}

impl CustomOp2 for DecoderLayer {
    fn name(&self) -> &'static str {
        "decoder-layer"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        parameters: &CpuStorage,
        parameters_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let input = contiguous_slice(input, input_layout)?;
        let parameters = contiguous_slice(parameters, parameters_layout)?;
        let (output, kept) = self.forward(input, parameters);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = self.keeps.then_some(kept);
        Ok((CpuStorage::F32(output), input_layout.shape().clone()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        parameters: &Tensor,
        _output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (trained, input_gradient) = with_values(input, |input| {
            with_values(parameters, |parameters| {
                with_values(gradient, |gradient| {
                    Ok(self.backward(input, parameters, gradient))
                })
            })
        })?;
        let input_gradient = input_gradient
            .map(|values| Tensor::from_vec(values, input.shape(), input.device()))
            .transpose()?;
        Ok((
            input_gradient,
            Some(Tensor::from_vec(
                trained,
                parameters.shape(),
                parameters.device(),
            )?),
        ))
    }
}
