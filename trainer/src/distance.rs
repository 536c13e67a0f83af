//! How far an adapter moves the base's weights.
//!
//! Belongs here: norms and means of factors and deltas. Does not belong here: what the weights do to outputs; that is the
//! server's evaluation.

use adapters::LoraModule;
use engine::DenseWeights;
use serde::Serialize;

use crate::opened::add_delta;

/// Norms of one layer, all of them Euclidean over the adapted matrices of the layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LayerDistance {
    /// Of the factors `A`.
    pub a: f64,
    /// Of the factors `B`.
    pub b: f64,
    /// Of the deltas, `scale · B A`.
    pub delta: f64,
    /// Of the base's own matrices.
    pub base: f64,
    /// Mean absolute value of the deltas' entries.
    pub mean_absolute_change: f64,
    /// How many entries that is the mean of.
    pub entries: usize,
}

/// Of a whole adapter.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Distance {
    /// By layer.
    pub layers: Vec<LayerDistance>,
    /// Over all layers.
    pub all: LayerDistance,
}

impl Distance {
    /// Of an adapter that fits these weights.
    #[must_use]
    pub fn of(weights: &DenseWeights, modules: &[LoraModule]) -> Self {
        let layers: Vec<LayerDistance> = weights
            .layers
            .iter()
            .enumerate()
            .map(|(layer, base)| {
                let own = modules.iter().filter(|module| module.layer == layer);
                let parts = own.map(|module| of_module(base.matrix(module.projection), module));
                LayerDistance::together(parts)
            })
            .collect();
        Self {
            all: LayerDistance::together(layers.iter().copied()),
            layers,
        }
    }
}

impl LayerDistance {
    /// The norm of the deltas over that of the matrices they change.
    #[must_use]
    pub fn relative(&self) -> f64 {
        if self.base > 0.0 {
            self.delta / self.base
        } else {
            0.0
        }
    }

    fn together(parts: impl Iterator<Item = Self>) -> Self {
        let mut sum = Self::default();
        for part in parts {
            sum.a += part.a.powi(2);
            sum.b += part.b.powi(2);
            sum.delta += part.delta.powi(2);
            sum.base += part.base.powi(2);
            sum.mean_absolute_change += part.mean_absolute_change * part.entries as f64;
            sum.entries += part.entries;
        }
        Self {
            a: sum.a.sqrt(),
            b: sum.b.sqrt(),
            delta: sum.delta.sqrt(),
            base: sum.base.sqrt(),
            mean_absolute_change: sum.mean_absolute_change / sum.entries.max(1) as f64,
            entries: sum.entries,
        }
    }
}

fn of_module(base: &[f32], module: &LoraModule) -> LayerDistance {
    let mut delta = vec![0.0; base.len()];
    add_delta(module, &mut delta);
    let absolute = delta.iter().map(|value| f64::from(value.abs()));
    LayerDistance {
        a: norm(&module.a),
        b: norm(&module.b),
        delta: norm(&delta),
        base: norm(base),
        mean_absolute_change: absolute.sum::<f64>() / delta.len() as f64,
        entries: delta.len(),
    }
}

fn norm(values: &[f32]) -> f64 {
    let squares = values.iter().map(|value| f64::from(*value).powi(2));
    squares.sum::<f64>().sqrt()
}
