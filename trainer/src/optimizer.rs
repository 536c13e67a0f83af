//! AdamW with moments of its own, gradient sums and the norm they are clipped to, and the learning-rate schedule.
//!
//! Belongs here: what turns gradients into new values. Does not belong here: where gradients come from.

use candle_core::{Tensor, Var};
use clap::ValueEnum;
use serde::Serialize;

use crate::parameters::LoraParameters;

/// Gradients of every trained value, per layer; `None` where a layer received none at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gradients {
    layers: Vec<Option<Vec<f32>>>,
}

/// Constants of [`AdamW`]; the defaults are those of `torch.optim.AdamW`, weight decay apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWOptions {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled: values shrink by `learning rate · weight_decay` a step.
    pub weight_decay: f64,
}

/// Adam with decoupled weight decay (Loshchilov and Hutter, 2019, algorithm 2), moments in the open.
#[derive(Clone, Debug)]
pub struct AdamW {
    options: AdamWOptions,
    step: i32,
    moments: Vec<Moments>,
}

/// The moments of one layer's values, in the order of its layout.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Moments {
    /// Mean of gradients.
    pub(crate) first: Vec<f32>,
    /// Mean of squared gradients.
    pub(crate) second: Vec<f32>,
}

/// How the learning rate falls after its rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decline {
    /// In equal steps.
    Linear,
    /// Half a cosine (Loshchilov and Hutter, 2017, without restarts).
    Cosine,
    /// Not at all.
    Constant,
}

/// A linear rise over `warmup` steps to `peak`, then a fall to 0 at `total`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The form of the fall.
    pub decline: Decline,
    /// Highest learning rate.
    pub peak: f64,
    /// Steps of the rise.
    pub warmup: usize,
    /// Steps in all.
    pub total: usize,
}

impl Gradients {
    pub(crate) fn collect(
        layers: impl Iterator<Item = Option<Tensor>>,
    ) -> candle_core::Result<Self> {
        let layers = layers.map(|tensor| {
            tensor
                .map(|tensor| tensor.flatten_all()?.to_vec1())
                .transpose()
        });
        Ok(Self {
            layers: layers.collect::<candle_core::Result<_>>()?,
        })
    }

    /// The gradient of one layer's trained values, in the order of its layout.
    #[must_use]
    pub fn layer(&self, index: usize) -> Option<&[f32]> {
        self.layers.get(index)?.as_deref()
    }

    /// Adds those of another pass of the same step.
    pub fn add(&mut self, other: Self) {
        if self.layers.is_empty() {
            self.layers = other.layers;
            return;
        }
        for (sum, layer) in self.layers.iter_mut().zip(other.layers) {
            match (sum, layer) {
                (Some(sum), Some(layer)) => sum
                    .iter_mut()
                    .zip(layer)
                    .for_each(|(sum, value)| *sum += value),
                (sum @ None, layer) => *sum = layer,
                (Some(_), None) => {}
            }
        }
    }

    /// The Euclidean norm over all values.
    #[must_use]
    pub fn norm(&self) -> f64 {
        let squares = |layer: &Vec<f32>| {
            layer
                .iter()
                .map(|&value| f64::from(value).powi(2))
                .sum::<f64>()
        };
        self.layers
            .iter()
            .flatten()
            .map(squares)
            .sum::<f64>()
            .sqrt()
    }

    /// Shrinks everything so that the norm is at most `limit`; returns the norm before. 0 means no limit.
    pub fn clip(&mut self, limit: f64) -> f64 {
        let norm = self.norm();
        if limit > 0.0 && norm > limit {
            let factor = (limit / norm) as f32;
            self.layers
                .iter_mut()
                .flatten()
                .flatten()
                .for_each(|value| *value *= factor);
        }
        norm
    }
}

impl Default for AdamWOptions {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
        }
    }
}

impl AdamW {
    /// Moments of zero for every value of `parameters`.
    #[must_use]
    pub fn new(parameters: &LoraParameters, options: AdamWOptions) -> Self {
        let zeros = |layer: &Var| Moments {
            first: vec![0.0; layer.elem_count()],
            second: vec![0.0; layer.elem_count()],
        };
        Self {
            options,
            step: 0,
            moments: parameters.layers().iter().map(zeros).collect(),
        }
    }

    /// An optimizer in the middle of a training: after `step` steps, with the moments it had then.
    pub(crate) fn restored(options: AdamWOptions, step: usize, moments: Vec<Moments>) -> Self {
        Self {
            options,
            step: i32::try_from(step).unwrap_or(i32::MAX),
            moments,
        }
    }

    /// Of every layer.
    pub(crate) fn moments(&self) -> &[Moments] {
        &self.moments
    }

    /// One step with the given learning rate; layers without a gradient stay as they are.
    ///
    /// # Errors
    /// Those of candle.
    pub fn step(
        &mut self,
        parameters: &LoraParameters,
        gradients: &Gradients,
        learning_rate: f64,
    ) -> candle_core::Result<()> {
        self.step += 1;
        let AdamWOptions {
            beta1,
            beta2,
            epsilon,
            weight_decay,
        } = self.options;
        let step_size = (learning_rate / (1.0 - beta1.powi(self.step))) as f32;
        let second_root = (1.0 - beta2.powi(self.step)).sqrt() as f32;
        let keep = (1.0 - learning_rate * weight_decay) as f32;
        let (beta1, beta2, epsilon) = (beta1 as f32, beta2 as f32, epsilon as f32);
        for ((layer, gradient), moments) in parameters
            .layers()
            .iter()
            .zip(&gradients.layers)
            .zip(&mut self.moments)
        {
            let Some(gradient) = gradient else { continue };
            let mut values: Vec<f32> = layer.flatten_all()?.to_vec1()?;
            let moments = moments.first.iter_mut().zip(&mut moments.second);
            for ((value, g), (first, second)) in values.iter_mut().zip(gradient).zip(moments) {
                *first = beta1 * *first + (1.0 - beta1) * g;
                *second = beta2 * *second + (1.0 - beta2) * g * g;
                *value =
                    *value * keep - step_size * *first / (second.sqrt() / second_root + epsilon);
            }
            layer.set(&Tensor::from_vec(values, layer.shape(), layer.device())?)?;
        }
        Ok(())
    }
}

impl Schedule {
    /// The learning rate of step `step`, counted from 0: never 0 at the first step nor at the last.
    #[must_use]
    pub fn at(&self, step: usize) -> f64 {
        let warmup = self.warmup.min(self.total.saturating_sub(1));
        if step < warmup {
            return self.peak * (step + 1) as f64 / warmup as f64;
        }
        let falling = (self.total - warmup).max(1) as f64;
        let left = self.total.saturating_sub(step) as f64 / falling;
        self.peak
            * match self.decline {
                Decline::Linear => left,
                Decline::Cosine => 0.5 - 0.5 * (std::f64::consts::PI * left).cos(),
                Decline::Constant => 1.0,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_rises_then_falls() {
        let cases = [
            (Decline::Linear, [0.4, 0.8, 0.8, 0.6, 0.4, 0.2]),
            // 0.4 · (1 − cos(π · left)) with left = 1, 3/4, 1/2, 1/4.
            (
                Decline::Cosine,
                [0.4, 0.8, 0.8, 0.682_842_712, 0.4, 0.117_157_288],
            ),
            (Decline::Constant, [0.4, 0.8, 0.8, 0.8, 0.8, 0.8]),
        ];
        for (decline, expected) in cases {
            let schedule = Schedule {
                decline,
                peak: 0.8,
                warmup: 2,
                total: 6,
            };
            let rates: Vec<f64> = (0..6).map(|step| schedule.at(step)).collect();
            for (rate, expected) in rates.iter().zip(expected) {
                assert!((rate - expected).abs() < 1e-9, "{decline:?}: {rates:?}");
            }
        }
    }

    #[test]
    fn a_schedule_shorter_than_its_warm_up_still_moves() {
        let schedule = Schedule {
            decline: Decline::Linear,
            peak: 1.0,
            warmup: 10,
            total: 2,
        };
        assert_eq!((schedule.at(0), schedule.at(1)), (1.0, 1.0));
    }

    #[test]
    fn clipping_scales_the_whole_vector() {
        let mut gradients = Gradients {
            layers: vec![Some(vec![3.0]), None, Some(vec![0.0, 4.0])],
        };
        assert_eq!(gradients.clip(1.0), 5.0);
        assert_eq!(
            gradients.layers,
            [Some(vec![0.6]), None, Some(vec![0.0, 0.8])]
        );
        assert!((gradients.clip(0.0) - 1.0).abs() < 1e-6);
        assert_eq!(gradients.layers[0], Some(vec![0.6]));
    }
}
