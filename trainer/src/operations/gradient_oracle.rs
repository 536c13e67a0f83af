//! A decoder layer in candle's own differentiable operations, the yardstick of the gradient tests.

use candle_core::{D, Device, Result, Tensor};

use crate::frozen::FrozenModel;
use crate::layout::{GroupLayout, LayerLayout};
use crate::segments::Segments;

pub(super) const HEADS: usize = 4;
pub(super) const KV_HEADS: usize = 2;
pub(super) const HEAD_WIDTH: usize = 6;
pub(super) const HIDDEN: usize = 20;
pub(super) const INTERMEDIATE: usize = 28;
pub(super) const VOCABULARY: usize = 37;

/// The layer in candle's own differentiable operations: every segment an ordinary causal sequence of its keys.
pub(super) struct Oracle<'a> {
    pub(super) model: &'a FrozenModel,
    pub(super) layout: &'a LayerLayout,
    pub(super) segments: &'a Segments,
}

impl Oracle<'_> {
    pub(super) fn layer(&self, input: &Tensor, parameters: &Tensor) -> Result<Tensor> {
        let weights = &self.model.layers[0];
        let normed = norm(input, &weights.attention_norm, 1e-3)?;
        let attended = self.attention(&self.linear(0, &normed, parameters)?)?;
        let middle = (input + self.linear(1, &attended, parameters)?)?;
        let gate_up = self.linear(
            2,
            &norm(&middle, &weights.feed_forward_norm, 1e-3)?,
            parameters,
        )?;
        let gate = gate_up.narrow(1, 0, INTERMEDIATE)?;
        let up = gate_up.narrow(1, INTERMEDIATE, INTERMEDIATE)?;
        let activated = (gate.silu()? * up)?;
        &middle + self.linear(3, &activated, parameters)?
    }

    fn linear(&self, group: usize, input: &Tensor, parameters: &Tensor) -> Result<Tensor> {
        let GroupLayout {
            inputs, outputs, ..
        } = self.layout.groups[group];
        let transposed = self.model.layers[0].groups[group].transposed_values();
        let transposed = Tensor::from_vec(transposed, (inputs, outputs), &Device::Cpu)?;
        let dense = input.matmul(&transposed)?;
        let group = &self.layout.groups[group];
        let mut deltas = Vec::new();
        for part in &group.parts {
            deltas.push(match &part.slot {
                None => {
                    Tensor::zeros((input.dim(0)?, part.outputs), input.dtype(), input.device())?
                }
                Some(slot) => {
                    let range = group.a_of(slot);
                    let a = parameters
                        .narrow(0, range.start, range.len())?
                        .reshape((slot.rank, inputs))?;
                    let b = parameters
                        .narrow(0, slot.b.start, slot.b.len())?
                        .reshape((part.outputs, slot.rank))?;
                    (input.matmul(&a.t()?)?.matmul(&b.t()?)? * f64::from(slot.scale))?
                }
            });
        }
        dense + Tensor::cat(&deltas, 1)?
    }

    fn attention(&self, rows: &Tensor) -> Result<Tensor> {
        let mut outputs = Vec::new();
        for segment in self.segments.iter() {
            let keys: Vec<u32> = segment
                .key_ranges(segment.rows.len())
                .flatten()
                .map(|row| row as u32)
                .collect();
            let (count, prefix) = (keys.len(), segment.prefix_length());
            let sequence = rows.index_select(&Tensor::new(keys, &Device::Cpu)?, 0)?;
            let mask: Vec<f32> = (prefix..count)
                .flat_map(|query| {
                    (0..count).map(move |key| if key > query { f32::NEG_INFINITY } else { 0.0 })
                })
                .collect();
            let mask = Tensor::from_vec(mask, (count - prefix, count), &Device::Cpu)?;
            let mut heads = Vec::new();
            for head in 0..HEADS {
                let column = |index: usize| sequence.narrow(1, index * HEAD_WIDTH, HEAD_WIDTH);
                let kv_head = head / (HEADS / KV_HEADS);
                let query = rotate(&column(head)?)?.narrow(0, prefix, count - prefix)?;
                let key = rotate(&column(HEADS + kv_head)?)?;
                let scores = (query.matmul(&key.t()?)? / (HEAD_WIDTH as f64).sqrt())?.add(&mask)?;
                let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
                heads.push(weights.matmul(&column(HEADS + KV_HEADS + kv_head)?.contiguous()?)?);
            }
            outputs.push(Tensor::cat(&heads, 1)?);
        }
        Tensor::cat(&outputs, 0)
    }
}

pub(super) fn norm(input: &Tensor, weight: &[f32], epsilon: f64) -> Result<Tensor> {
    let root = (input.sqr()?.mean_keepdim(D::Minus1)? + epsilon)?.sqrt()?;
    input
        .broadcast_div(&root)?
        .broadcast_mul(&Tensor::new(weight, &Device::Cpu)?)
}

/// Rotation of one head `[positions, width]` from position 0, the second half with the first.
fn rotate(head: &Tensor) -> Result<Tensor> {
    let (positions, width) = head.dims2()?;
    let half = width / 2;
    let angles: Vec<f32> = (0..positions * half)
        .map(|index| (index / half) as f32 / 100f32.powf((index % half) as f32 / half as f32))
        .collect();
    let angles = Tensor::from_vec(angles, (positions, half), &Device::Cpu)?;
    let (cosines, sines) = (angles.cos()?, angles.sin()?);
    let (low, high) = (head.narrow(1, 0, half)?, head.narrow(1, half, half)?);
    Tensor::cat(
        &[
            ((&low * &cosines)? - (&high * &sines)?)?,
            ((&high * &cosines)? + (&low * &sines)?)?,
        ],
        1,
    )
}
