//! The forward pass of the tiny decoders straight from the definitions, in f64, one token after another. Slow, and
//! written to be seen to be right.

use std::collections::HashMap;

use adapters::{LoraModule, Projection};

use crate::testing::TinyDecoder;
use crate::testing::decoder::{HEADS, HIDDEN, KV_HEADS, TinyTensor};
use crate::testing::layouts::LONG_ROPE;

/// Logits of the token after `prompt`, on a server whose longest sequence is `served` tokens.
pub(super) fn logits(
    decoder: TinyDecoder,
    prompt: &[u32],
    served: usize,
    adapter: &[LoraModule],
) -> Vec<f64> {
    let model = Reference::new(decoder, served, adapter);
    let rows = model.hidden(prompt);
    let head = match decoder.sizes().tied {
        true => "model.embed_tokens.weight",
        false => "lm_head.weight",
    };
    let last = rows.last().expect("a prompt has tokens");
    product(&model.tensors[head].values, last)
}

/// The mean of the hidden states after the output norm over the prompt's tokens from `from` on, as in [`logits`].
pub(super) fn mean_hidden(
    decoder: TinyDecoder,
    (prompt, from): (&[u32], usize),
    served: usize,
    adapter: &[LoraModule],
) -> Vec<f64> {
    let rows = Reference::new(decoder, served, adapter).hidden(prompt);
    let mut mean = vec![0.0; HIDDEN];
    for row in &rows[from..] {
        add(&mut mean, row);
    }
    mean.iter()
        .map(|sum| sum / (rows.len() - from) as f64)
        .collect()
}

struct Reference<'a> {
    decoder: TinyDecoder,
    served: usize,
    tensors: HashMap<String, TinyTensor>,
    adapter: &'a [LoraModule],
}

impl<'a> Reference<'a> {
    fn new(decoder: TinyDecoder, served: usize, adapter: &'a [LoraModule]) -> Self {
        let tensors = decoder.tensors().into_iter();
        Self {
            decoder,
            served,
            tensors: tensors.map(|one| (one.name.clone(), one)).collect(),
            adapter,
        }
    }

    /// The hidden states of the prompt's tokens after the output norm.
    fn hidden(&self, prompt: &[u32]) -> Vec<Vec<f64>> {
        let mut rows: Vec<Vec<f64>> = prompt.iter().map(|token| self.embed(*token)).collect();
        for layer in 0..self.decoder.sizes().layers {
            let normed: Vec<_> = (rows.iter())
                .map(|row| self.norm(row, &format!("model.layers.{layer}.input_layernorm")))
                .collect();
            let attended = self.attention(layer, &normed);
            for (row, mut added) in rows.iter_mut().zip(attended) {
                if self.decoder == TinyDecoder::Gemma3 {
                    added = self.norm(
                        &added,
                        &format!("model.layers.{layer}.post_attention_layernorm"),
                    );
                }
                add(row, &added);
                let added = self.feed_forward(layer, row);
                add(row, &added);
            }
        }
        let normed = rows.iter().map(|row| self.norm(row, "model.norm"));
        normed.collect()
    }

    fn embed(&self, token: u32) -> Vec<f64> {
        let table = &self.tensors["model.embed_tokens.weight"].values;
        let row = &table[token as usize * HIDDEN..(token as usize + 1) * HIDDEN];
        let scale = match self.decoder {
            TinyDecoder::Gemma3 => (HIDDEN as f64).sqrt(),
            _ => 1.0,
        };
        row.iter().map(|x| f64::from(*x) * scale).collect()
    }

    /// `x / sqrt(mean(x²) + 1e-5) · weight`, where Gemma keeps `weight - 1`.
    fn norm(&self, x: &[f64], name: &str) -> Vec<f64> {
        let weight = &self.tensors[&format!("{name}.weight")].values;
        assert_eq!(weight.len(), x.len());
        let offset = f64::from(u8::from(self.decoder == TinyDecoder::Gemma3));
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let root = (mean + 1e-5).sqrt();
        let pairs = x.iter().zip(weight);
        pairs
            .map(|(x, w)| x / root * (f64::from(*w) + offset))
            .collect()
    }

    /// `W x + bias + scale · B (A x)` of one projection, cut out of a fused matrix where there is one.
    fn project(&self, layer: usize, projection: Projection, x: &[f64]) -> Vec<f64> {
        let head_dim = self.decoder.sizes().head_dim;
        let (query, kv) = (HEADS * head_dim, KV_HEADS * head_dim);
        let (path, rows) = match (self.decoder, projection) {
            (TinyDecoder::Phi3, Projection::Query) => ("self_attn.qkv_proj", 0..query),
            (TinyDecoder::Phi3, Projection::Key) => ("self_attn.qkv_proj", query..query + kv),
            (TinyDecoder::Phi3, Projection::Value) => {
                ("self_attn.qkv_proj", query + kv..query + 2 * kv)
            }
            (TinyDecoder::Phi3, Projection::Gate) => ("mlp.gate_up_proj", 0..96),
            (TinyDecoder::Phi3, Projection::Up) => ("mlp.gate_up_proj", 96..192),
            (_, Projection::Query) => ("self_attn.q_proj", 0..query),
            (_, Projection::Key) => ("self_attn.k_proj", 0..kv),
            (_, Projection::Value) => ("self_attn.v_proj", 0..kv),
            (_, Projection::Output) => ("self_attn.o_proj", 0..HIDDEN),
            (_, Projection::Gate) => ("mlp.gate_proj", 0..96),
            (_, Projection::Up) => ("mlp.up_proj", 0..96),
            (_, Projection::Down) => ("mlp.down_proj", 0..HIDDEN),
        };
        let name = format!("model.layers.{layer}.{path}");
        let matrix = &self.tensors[&format!("{name}.weight")].values;
        let mut y = product(&matrix[rows.start * x.len()..rows.end * x.len()], x);
        if let Some(bias) = self.tensors.get(&format!("{name}.bias")) {
            y.iter_mut()
                .zip(&bias.values)
                .for_each(|(y, b)| *y += f64::from(*b));
        }
        let is_here = |one: &&LoraModule| (one.layer, one.projection) == (layer, projection);
        if let Some(module) = self.adapter.iter().find(is_here) {
            let delta = product(&module.b, &product(&module.a, x));
            let scale = f64::from(module.scale);
            y.iter_mut()
                .zip(delta)
                .for_each(|(y, delta)| *y += scale * delta);
        }
        y
    }

    /// Softmax attention, each token over those its layer lets it see.
    fn attention(&self, layer: usize, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let width = self.decoder.sizes().head_dim;
        let heads = |projection: Projection, norm: &str| -> Vec<Vec<Vec<f64>>> {
            let tokens = rows.iter().enumerate().map(|(position, row)| {
                let projected = self.project(layer, projection, row);
                let heads = projected.chunks_exact(width).map(|head| {
                    if projection == Projection::Value {
                        return head.to_vec();
                    }
                    let normed = match self.decoder {
                        TinyDecoder::Qwen3 | TinyDecoder::Gemma3 => {
                            self.norm(head, &format!("model.layers.{layer}.self_attn.{norm}"))
                        }
                        _ => head.to_vec(),
                    };
                    self.turned(layer, position, &normed)
                });
                heads.collect()
            });
            tokens.collect()
        };
        let queries = heads(Projection::Query, "q_norm");
        let keys = heads(Projection::Key, "k_norm");
        let values = heads(Projection::Value, "");
        let window = match self.decoder {
            TinyDecoder::Mistral => 5,
            TinyDecoder::Phi3 => 7,
            TinyDecoder::Gemma3 if layer != 5 => 4,
            _ => usize::MAX,
        };
        let output = (0..rows.len()).map(|position| {
            let first = (position + 1).saturating_sub(window);
            let heads = (0..HEADS).map(|head| {
                let kv_head = head / (HEADS / KV_HEADS);
                let score = |token: usize| {
                    let pairs = queries[position][head].iter().zip(&keys[token][kv_head]);
                    pairs.map(|(q, k)| q * k).sum::<f64>() / (width as f64).sqrt()
                };
                let weights: Vec<f64> =
                    (first..=position).map(|token| score(token).exp()).collect();
                let total: f64 = weights.iter().sum();
                let mut mixed = vec![0.0; width];
                for (token, weight) in (first..=position).zip(weights) {
                    let values = values[token][kv_head].iter();
                    mixed
                        .iter_mut()
                        .zip(values)
                        .for_each(|(out, v)| *out += weight / total * v);
                }
                mixed
            });
            let heads: Vec<f64> = heads.flatten().collect();
            self.project(layer, Projection::Output, &heads)
        });
        output.collect()
    }

    /// The rotary embedding: element `i` of the turned part and element `i + half` form a pair.
    fn turned(&self, layer: usize, position: usize, head: &[f64]) -> Vec<f64> {
        let turned = match self.decoder {
            TinyDecoder::Phi3 => head.len() / 4 * 3,
            _ => head.len(),
        };
        // sqrt(1 + ln(48 / 16) / ln(16)), LongRoPE's magnitude for a context stretched from 16 to 48.
        let magnitude = match self.decoder {
            TinyDecoder::Phi3 => (1.0 + 3f64.ln() / 16f64.ln()).sqrt(),
            _ => 1.0,
        };
        let half = turned / 2;
        let mut out = head.to_vec();
        for pair in 0..half {
            let angle = position as f64 * self.frequency(layer, pair, turned);
            let (sine, cosine) = (angle.sin() * magnitude, angle.cos() * magnitude);
            let (x, y) = (head[pair], head[pair + half]);
            out[pair] = x * cosine - y * sine;
            out[pair + half] = y * cosine + x * sine;
        }
        out
    }

    fn frequency(&self, layer: usize, pair: usize, turned: usize) -> f64 {
        let plain = |theta: f64| theta.powf(-2.0 * pair as f64 / turned as f64);
        match self.decoder {
            TinyDecoder::Llama3 => {
                // As transformers writes it: blended frequencies instead of divisors.
                let frequency = plain(10_000.0);
                let wavelength = std::f64::consts::TAU / frequency;
                let smooth = ((64.0 / wavelength - 1.0) / 3.0).clamp(0.0, 1.0);
                (1.0 - smooth) * frequency / 8.0 + smooth * frequency
            }
            TinyDecoder::Mistral => plain(1000.0),
            TinyDecoder::Qwen2 => plain(500.0),
            TinyDecoder::Qwen3 => plain(10_000.0) / 2.0,
            TinyDecoder::Gemma3 if layer == 5 => plain(100_000.0) / 8.0,
            TinyDecoder::Gemma3 => plain(100.0),
            TinyDecoder::Phi3 => {
                plain(1000.0) / f64::from(LONG_ROPE[usize::from(self.served > 16)][pair])
            }
        }
    }

    fn feed_forward(&self, layer: usize, row: &[f64]) -> Vec<f64> {
        let gemma = self.decoder == TinyDecoder::Gemma3;
        let before = match gemma {
            true => "pre_feedforward_layernorm",
            false => "post_attention_layernorm",
        };
        let normed = self.norm(row, &format!("model.layers.{layer}.{before}"));
        let gate = self.project(layer, Projection::Gate, &normed);
        let up = self.project(layer, Projection::Up, &normed);
        let activation = |x: f64| match gemma {
            true => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            }
            false => x / (1.0 + (-x).exp()),
        };
        let inner: Vec<f64> = gate
            .iter()
            .zip(up)
            .map(|(g, u)| activation(*g) * u)
            .collect();
        let out = self.project(layer, Projection::Down, &inner);
        match gemma {
            true => self.norm(
                &out,
                &format!("model.layers.{layer}.post_feedforward_layernorm"),
            ),
            false => out,
        }
    }
}

/// A row-major matrix times a vector.
fn product(matrix: &[f32], x: &[f64]) -> Vec<f64> {
    let rows = matrix.chunks_exact(x.len());
    rows.map(|row| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum())
        .collect()
}

fn add(row: &mut [f64], added: &[f64]) {
    row.iter_mut().zip(added).for_each(|(x, added)| *x += added);
}
