//! A base of two layers and an adapter over it whose values can be checked by hand.

use crate::write::{Precision, to_files};
use crate::{
    AdapterFiles, BaseModel, Limits, LoraConfig, LoraModule, Manifest, Projection, ProjectionShape,
};

pub(crate) const LIMITS: Limits = Limits {
    max_rank: 4,
    max_bytes: 1 << 20,
};

/// Hidden size 4, key and value size 2, feed-forward size 6.
pub(crate) fn base() -> BaseModel {
    let shape = |inputs, outputs| ProjectionShape { inputs, outputs };
    BaseModel {
        name: "two-layers".to_owned(),
        digest: "ab".repeat(32),
        layers: 2,
        shapes: [
            shape(4, 4),
            shape(4, 2),
            shape(4, 2),
            shape(4, 4),
            shape(4, 6),
            shape(4, 6),
            shape(6, 4),
        ],
        fused: false,
    }
}

/// Rank 2, scale 1.5, on the values and the narrowing map.
pub(crate) fn config() -> LoraConfig {
    let targets = vec![Projection::Down, Projection::Value];
    LoraConfig::new("two-layers", 2, 3.0, targets, 0.05)
}

/// Distinct halves and quarters, exact in every float type.
pub(crate) fn modules() -> Vec<LoraModule> {
    let base = base();
    let module = |layer: usize, projection: Projection| {
        let shape = base.shape(projection);
        let value = |index: usize| (index as f32 + 1.0) * 0.25 - layer as f32;
        LoraModule {
            layer,
            projection,
            rank: 2,
            scale: 1.5,
            a: (0..2 * shape.inputs).map(value).collect(),
            b: (0..2 * shape.outputs)
                .map(|index| -0.5 * value(index))
                .collect(),
        }
    };
    (0..2)
        .flat_map(|layer| [Projection::Value, Projection::Down].map(|name| module(layer, name)))
        .collect()
}

pub(crate) fn files() -> AdapterFiles {
    to_files(&config(), &modules(), &Manifest::default(), Precision::F32)
        .expect("the fixture is consistent")
}
