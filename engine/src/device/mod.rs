//! The same step through candle's operations, on a device of candle's: a GPU, or the CPU where tests hold it against
//! the kernels.
//!
//! What a batch-invariant kernel promises is not promised here: a GPU's products choose their order of additions by
//! shape, so an answer may differ in its last bits with the company it has. What does not belong here: our own kernels.

mod attention;
mod deltas;
mod operations;
mod weights;

use candle_core::{DType, Device, Result, Tensor};

use crate::batch::{Layout, Output, Segment, WantedRow};
use crate::config::{Activation, ModelConfig, Rotary};
use crate::kernels::BLOCK_TOKENS;

use attention::AttentionPlan;
use deltas::{BatchDeltas, DeltaCache, Place};
use operations::{rms_norm, rotate};
pub(crate) use weights::DeviceWeights;
use weights::{DeviceLayer, Linear};

/// Rows whose logits come back to the CPU at a time.
const LOGIT_ROWS: usize = 32;

/// The model on a device, with its cache.
pub(crate) struct DeviceExecutor {
    config: ModelConfig,
    device: Device,
    weights: DeviceWeights,
    /// Cosines and sines of each rotary embedding, `[positions, pairs]`.
    rotaries: Vec<[Tensor; 2]>,
    /// Keys and values of every layer, `[blocks * BLOCK_TOKENS, kv_width]` in f16.
    cache: Vec<[Tensor; 2]>,
    deltas: DeltaCache,
}

/// What all layers of a step share.
struct Step {
    /// Cosines and sines of every row by each rotary embedding, `[rows, pairs]`.
    rotaries: Vec<[Tensor; 2]>,
    /// Where every row's key and value go, `[rows, kv_width]`, the same index all along a row.
    slots: Tensor,
    attention: AttentionPlan,
    deltas: Option<BatchDeltas>,
}

impl DeviceExecutor {
    /// An executor for sequences of up to `positions` tokens whose keys and values fill `blocks` blocks.
    pub(crate) fn new(
        config: ModelConfig,
        weights: DeviceWeights,
        (blocks, positions): (usize, usize),
    ) -> Result<Self> {
        let device = weights.device().clone();
        let slots = (blocks * BLOCK_TOKENS, config.kv_width());
        let cache = (0..config.layers)
            .map(|_| {
                Ok([
                    Tensor::zeros(slots, DType::F16, &device)?,
                    Tensor::zeros(slots, DType::F16, &device)?,
                ])
            })
            .collect::<Result<_>>()?;
        let rotaries = (config.decoder.rotaries.iter())
            .map(|rotary| rotary_table(rotary, positions, &device))
            .collect::<Result<_>>()?;
        Ok(Self {
            deltas: DeltaCache::new(device.clone()),
            config,
            device,
            weights,
            rotaries,
            cache,
        })
    }

    /// Copies a block's keys and values.
    pub(crate) fn copy_block(&mut self, from: u32, to: u32) -> Result<()> {
        let [from, to] = [from, to].map(|block| block as usize * BLOCK_TOKENS);
        for tensor in self.cache.iter().flatten() {
            // A copy of its own: source and destination share their storage.
            let block = tensor.narrow(0, from, BLOCK_TOKENS)?.copy()?;
            tensor.slice_set(&block, 0, to)?;
        }
        Ok(())
    }

    /// Computes the segments and hands what is wanted of them to `sink(segment, row of the segment, output)`.
    pub(crate) fn run(
        &mut self,
        segments: &[Segment<'_>],
        mut sink: impl FnMut(usize, usize, Output<'_>),
    ) -> Result<()> {
        let mut layout = Layout::default();
        layout.fill(segments);
        let step = self.plan(segments, &layout)?;
        let tokens: Vec<u32> = segments.iter().flat_map(|s| s.tokens).copied().collect();
        let mut hidden = (self.weights.embed(&tokens)?)
            .affine(f64::from(self.config.decoder.embedding_scale), 0.0)?;
        for layer in 0..self.config.layers {
            let attended = self.attention(layer, &hidden, &step)?;
            hidden = (hidden + attended)?;
            let fed = self.feed_forward(layer, &hidden, &step)?;
            hidden = (hidden + fed)?;
        }
        if !layout.hidden.is_empty() {
            let normed = self.normed(&hidden, &layout.hidden)?.to_vec2::<f32>()?;
            for (wanted, normed) in layout.hidden.iter().zip(normed) {
                sink(wanted.segment, wanted.row, Output::Hidden(&normed));
            }
        }
        for rows in layout.wanted.chunks(LOGIT_ROWS) {
            let normed = self.normed(&hidden, rows)?;
            let logits = self.weights.head().forward(&normed)?.to_vec2::<f32>()?;
            for (wanted, mut logits) in rows.iter().zip(logits) {
                sink(wanted.segment, wanted.row, Output::Logits(&mut logits));
            }
        }
        Ok(())
    }

    /// The chosen rows' hidden states after the output norm, `[rows, hidden]`.
    fn normed(&self, hidden: &Tensor, rows: &[WantedRow]) -> Result<Tensor> {
        let indices: Vec<u32> = rows.iter().map(|wanted| wanted.batch_row as u32).collect();
        let chosen = hidden.index_select(&Tensor::new(indices, &self.device)?, 0)?;
        self.norm(&chosen, &self.weights.output_norm)
    }

    fn plan(&mut self, segments: &[Segment<'_>], layout: &Layout) -> Result<Step> {
        let places = &layout.places;
        let positions: Vec<u32> = places.iter().map(|place| place.position as u32).collect();
        let slots: Vec<u32> = (places.iter())
            .map(|place| place.block * BLOCK_TOKENS as u32 + (place.position % BLOCK_TOKENS) as u32)
            .collect();
        let slots = Tensor::new(slots, &self.device)?.unsqueeze(1)?;
        let positions = Tensor::new(positions, &self.device)?;
        let of_rows = |table: &Tensor| table.index_select(&positions, 0);
        let rotaries = (self.rotaries.iter())
            .map(|[cosines, sines]| Ok([of_rows(cosines)?, of_rows(sines)?]))
            .collect::<Result<_>>()?;
        Ok(Step {
            rotaries,
            slots: slots
                .broadcast_as((places.len(), self.config.kv_width()))?
                .contiguous()?,
            attention: AttentionPlan::new(segments, &self.config, &self.device)?,
            deltas: self.deltas.of_batch(segments)?,
        })
    }

    /// What a layer's attention adds to the residual stream.
    fn attention(&self, layer: usize, hidden: &Tensor, step: &Step) -> Result<Tensor> {
        let (config, weights) = (&self.config, &self.weights.layers[layer]);
        let normed = self.norm(hidden, &weights.attention_norm)?;
        let place = Place::QueryKeyValue;
        let stacked = project(&weights.query_key_value, &normed, (layer, place), step)?;
        let stacked = match &weights.query_key_value_bias {
            Some(bias) => stacked.broadcast_add(bias)?,
            None => stacked,
        };
        let (query_width, kv_width) = (config.query_width(), config.kv_width());
        let query = stacked.narrow(1, 0, query_width)?;
        let key = stacked.narrow(1, query_width, kv_width)?;
        let value = stacked.narrow(1, query_width + kv_width, kv_width)?;
        let query = self.turned(query, config.heads, (layer, 0), step)?;
        let key = self.turned(key, config.kv_heads, (layer, 1), step)?;
        let [keys, values] = &self.cache[layer];
        keys.scatter_set(&step.slots, &key.to_dtype(DType::F16)?.contiguous()?, 0)?;
        values.scatter_set(&step.slots, &value.to_dtype(DType::F16)?.contiguous()?, 0)?;
        let window = config.decoder.layers[layer].window;
        let attended = step.attention.attend(&query, [keys, values], window)?;
        let output = project(&weights.output, &attended, (layer, Place::Output), step)?;
        self.post_norm(output, &weights.post_attention_norm)
    }

    /// What a layer's feed-forward block adds to the residual stream.
    fn feed_forward(&self, layer: usize, hidden: &Tensor, step: &Step) -> Result<Tensor> {
        let weights: &DeviceLayer = &self.weights.layers[layer];
        let normed = self.norm(hidden, &weights.feed_forward_norm)?;
        let both = project(&weights.gate_up, &normed, (layer, Place::GateUp), step)?;
        let gate = both.narrow(1, 0, self.config.intermediate)?.contiguous()?;
        let up = both.narrow(1, self.config.intermediate, self.config.intermediate)?;
        let gate = match self.config.decoder.activation {
            Activation::SwiGlu => gate.silu()?,
            Activation::GeGlu => gate.gelu()?,
        };
        let activated = (gate * up)?;
        let down = project(&weights.down, &activated, (layer, Place::Down), step)?;
        self.post_norm(down, &weights.post_feed_forward_norm)
    }

    /// Query (`which` 0) or key (1) heads, normed where the model does that, and rotated; `[rows, heads * head_dim]`.
    fn turned(
        &self,
        flat: Tensor,
        heads: usize,
        (layer, which): (usize, usize),
        step: &Step,
    ) -> Result<Tensor> {
        let rows = flat.dim(0)?;
        let split = flat
            .contiguous()?
            .reshape((rows, heads, self.config.head_dim))?;
        let split = match &self.weights.layers[layer].query_key_norms {
            Some(norms) => self.norm(&split, &norms[which])?,
            None => split,
        };
        let [cosines, sines] = &step.rotaries[self.config.decoder.layers[layer].rotary];
        rotate(&split, cosines, sines)?.reshape((rows, heads * self.config.head_dim))
    }

    fn norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        rms_norm(x, weight, self.config.rms_epsilon)
    }

    fn post_norm(&self, x: Tensor, weight: &Option<Tensor>) -> Result<Tensor> {
        match weight {
            Some(weight) => self.norm(&x, weight),
            None => Ok(x),
        }
    }
}

/// What a matrix makes of the rows, with what their adapters add to it.
fn project(
    matrix: &Linear,
    input: &Tensor,
    (layer, place): (usize, Place),
    step: &Step,
) -> Result<Tensor> {
    let output = matrix.forward(input)?;
    match &step.deltas {
        Some(deltas) => deltas.add(output, input, layer, place),
        None => Ok(output),
    }
}

fn rotary_table(rotary: &Rotary, positions: usize, device: &Device) -> Result<[Tensor; 2]> {
    let frequencies = rotary.frequencies(positions);
    let angles: Vec<f32> = (0..positions)
        .flat_map(|position| frequencies.iter().map(move |f| position as f32 * f))
        .collect();
    let table = |function: fn(f32) -> f32| {
        let values: Vec<f32> = (angles.iter())
            .map(|angle| function(*angle) * rotary.magnitude)
            .collect();
        Tensor::from_vec(values, (positions, frequencies.len()), device)
    };
    Ok([table(f32::cos)?, table(f32::sin)?])
}
