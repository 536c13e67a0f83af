//! What an adapter has to know of the base model it changes: names and shapes, no weights.

use crate::Projection;

/// Size of one linear map `y = W x` with `W` of shape `[outputs, inputs]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProjectionShape {
    /// Length of `x`.
    pub inputs: usize,
    /// Length of `y`.
    pub outputs: usize,
}

/// The base model as seen by its adapters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseModel {
    /// The name it is served under.
    pub name: String,
    /// SHA-256 of the model file, 64 lower-case hex digits.
    pub digest: String,
    /// Number of decoder layers.
    pub layers: usize,
    /// Shapes in the order of [`Projection::ALL`], the same in every layer.
    pub shapes: [ProjectionShape; 7],
    /// Whether query, key and value are one module, `qkv_proj`, and gate and up another, `gate_up_proj`, as in Phi-3.
    pub fused: bool,
}

impl BaseModel {
    /// The shape of one projection.
    pub fn shape(&self, projection: Projection) -> ProjectionShape {
        self.shapes[projection.index()]
    }
}
