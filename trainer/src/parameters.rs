//! The trained values: one candle variable per layer, addressed by projection and factor.
//!
//! Belongs here: initialisation, names, the way to and from `adapters`' modules. Does not belong here: offsets
//! (`layout`) and updates ([`crate::optimizer`]).

use std::ops::Range;
use std::sync::Arc;

use adapters::{BaseModel, LoraModule, Projection};
use candle_core::{Device, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::TrainerError;
use crate::layout::LayerLayout;
pub use crate::layout::{Target, targets_of};

/// Low-rank factors over every layer of a model.
pub struct LoraParameters {
    layout: Arc<LayerLayout>,
    layers: Vec<Var>,
}

/// One of the two factors of a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factor {
    /// `[rank, inputs]`, called `lora_A` by PEFT.
    A,
    /// `[outputs, rank]`, called `lora_B` by PEFT.
    B,
}

/// Where one factor stands in its layer's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactorPlace {
    /// Of the decoder.
    pub layer: usize,
    /// The projection it changes.
    pub projection: Projection,
    /// Which of the two.
    pub factor: Factor,
    /// Its values, row-major, among the layer's.
    pub range: Range<usize>,
}

impl LoraParameters {
    /// Fresh factors: `A` uniform within `±1/sqrt(inputs)` (Kaiming with a = √5, as PEFT does), `B` zero.
    ///
    /// # Errors
    /// Those of candle.
    pub fn initialised(
        base: &BaseModel,
        targets: &[Target],
        seed: u64,
    ) -> Result<Self, TrainerError> {
        let layout = LayerLayout::new(base, targets);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut layers = Vec::with_capacity(base.layers);
        for _ in 0..base.layers {
            let mut values = vec![0.0; layout.length];
            for group in &layout.groups {
                let bound = 1.0 / (group.inputs as f32).sqrt();
                values[group.a.clone()]
                    .iter_mut()
                    .for_each(|value| *value = random.random_range(-bound..bound));
            }
            layers.push(variable(values)?);
        }
        Ok(Self {
            layout: Arc::new(layout),
            layers,
        })
    }

    /// The factors of an adapter whose layers all have the same projections, ranks and scales.
    ///
    /// # Errors
    /// [`TrainerError::UnevenAdapter`] when they do not.
    pub fn from_modules(base: &BaseModel, modules: &[LoraModule]) -> Result<Self, TrainerError> {
        let target = |module: &LoraModule| Target {
            projection: module.projection,
            rank: module.rank,
            scale: module.scale,
        };
        let targets: Vec<Target> = modules
            .iter()
            .filter(|module| module.layer == 0)
            .map(target)
            .collect();
        let layout = LayerLayout::new(base, &targets);
        let mut layers = vec![vec![0.0; layout.length]; base.layers];
        let mut placed = 0;
        for place in places(&layout, base.layers) {
            let matches = |module: &&LoraModule| {
                (module.layer, module.projection) == (place.layer, place.projection)
            };
            let module = modules
                .iter()
                .find(matches)
                .ok_or(TrainerError::UnevenAdapter { layer: place.layer })?;
            let values = match place.factor {
                Factor::A => &module.a,
                Factor::B => &module.b,
            };
            if values.len() != place.range.len() {
                return Err(TrainerError::UnevenAdapter { layer: place.layer });
            }
            layers[place.layer][place.range].copy_from_slice(values);
            placed += 1;
        }
        if placed != 2 * modules.len() {
            return Err(TrainerError::UnevenAdapter { layer: base.layers });
        }
        let layers = layers.into_iter().map(variable).collect::<Result<_, _>>()?;
        Ok(Self {
            layout: Arc::new(layout),
            layers,
        })
    }

    /// The factors as `adapters` writes them, sorted by layer and projection.
    ///
    /// # Errors
    /// Those of candle.
    pub fn modules(&self) -> Result<Vec<LoraModule>, TrainerError> {
        let mut modules = Vec::new();
        for (layer, values) in self.values()?.iter().enumerate() {
            for group in &self.layout.groups {
                for (part, slot) in group.adapted() {
                    modules.push(LoraModule {
                        layer,
                        projection: part.projection,
                        rank: slot.rank,
                        scale: slot.scale,
                        a: values[group.a_of(slot)].to_vec(),
                        b: values[slot.b.clone()].to_vec(),
                    });
                }
            }
        }
        modules.sort_by_key(|module| (module.layer, module.projection));
        Ok(modules)
    }

    /// The values of every layer, in the order of its layout.
    ///
    /// # Errors
    /// Those of candle.
    pub(crate) fn values(&self) -> candle_core::Result<Vec<Vec<f32>>> {
        let layers = self.layers.iter();
        layers.map(|layer| layer.flatten_all()?.to_vec1()).collect()
    }

    /// Replaces the values of every layer.
    ///
    /// # Errors
    /// Those of candle, such as another number of values.
    pub(crate) fn set_values(&self, values: &[Vec<f32>]) -> candle_core::Result<()> {
        for (layer, values) in self.layers.iter().zip(values) {
            layer.set(&Tensor::from_slice(values, layer.shape(), layer.device())?)?;
        }
        Ok(())
    }

    /// Every factor with its place.
    #[must_use]
    pub fn places(&self) -> Vec<FactorPlace> {
        places(&self.layout, self.layers.len())
    }

    /// Number of trained values.
    #[must_use]
    pub fn count(&self) -> usize {
        self.layout.length * self.layers.len()
    }

    /// One variable per layer.
    pub(crate) fn layers(&self) -> &[Var] {
        &self.layers
    }

    pub(crate) fn layout(&self) -> &Arc<LayerLayout> {
        &self.layout
    }
}

impl FactorPlace {
    /// The name PEFT gives this tensor.
    #[must_use]
    pub fn tensor_name(&self) -> String {
        let Self {
            layer,
            projection,
            factor,
            ..
        } = self;
        let (parent, name) = (projection.parent(), projection.peft_name());
        format!("base_model.model.model.layers.{layer}.{parent}.{name}.lora_{factor:?}.weight")
    }
}

fn places(layout: &LayerLayout, layers: usize) -> Vec<FactorPlace> {
    let mut places = Vec::new();
    for layer in 0..layers {
        for group in &layout.groups {
            for (part, slot) in group.adapted() {
                let projection = part.projection;
                places.push(FactorPlace {
                    layer,
                    projection,
                    factor: Factor::A,
                    range: group.a_of(slot),
                });
                places.push(FactorPlace {
                    layer,
                    projection,
                    factor: Factor::B,
                    range: slot.b.clone(),
                });
            }
        }
    }
    places
}

fn variable(values: Vec<f32>) -> candle_core::Result<Var> {
    let count = values.len();
    Var::from_tensor(&Tensor::from_vec(values, count, &Device::Cpu)?)
}
