//! An adapter as a step uses it: matrices of projections that share an input stacked, scale folded in, packed.

use adapters::{Adapter, BaseModel, LoraModule, Projection, Version};

use crate::kernels::{Expansion, LowRank, PackedMatrix, PackedReduction, Resolution};

/// An adapter's weights, ready for the kernels and immutable.
pub struct PreparedAdapter {
    version: Version,
    bytes: usize,
    pub(crate) layers: Vec<PreparedLayer>,
}

/// The deltas of one block; `None` where the adapter changes nothing.
pub(crate) struct PreparedLayer {
    /// Query, key and value, which share the normed input.
    pub(crate) query_key_value: Option<LowRank>,
    pub(crate) output: Option<LowRank>,
    /// Gate and up, which share the normed input.
    pub(crate) gate_up: Option<LowRank>,
    pub(crate) down: Option<LowRank>,
}

impl std::fmt::Debug for PreparedAdapter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "PreparedAdapter({})", self.version)
    }
}

impl PreparedAdapter {
    /// Packs an adapter that was validated against `base`, as closely as activations of that resolution follow their values:
    /// in f16 where they have two bytes, in bytes otherwise.
    pub fn new(adapter: &Adapter, base: &BaseModel, resolution: Resolution) -> Self {
        let layers: Vec<_> = (0..base.layers)
            .map(|layer| {
                let stacked = |projections: &[Projection]| {
                    let place = (layer, projections);
                    stack(&adapter.modules, base, place, resolution)
                };
                PreparedLayer {
                    query_key_value: stacked(&[
                        Projection::Query,
                        Projection::Key,
                        Projection::Value,
                    ]),
                    output: stacked(&[Projection::Output]),
                    gate_up: stacked(&[Projection::Gate, Projection::Up]),
                    down: stacked(&[Projection::Down]),
                }
            })
            .collect();
        Self {
            version: adapter.version.clone(),
            bytes: layers.iter().map(PreparedLayer::bytes).sum(),
            layers,
        }
    }

    /// The adapter's content version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Bytes of memory the packed matrices occupy.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl adapters::Weights for PreparedAdapter {
    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl PreparedLayer {
    fn bytes(&self) -> usize {
        let deltas = [
            &self.query_key_value,
            &self.output,
            &self.gate_up,
            &self.down,
        ];
        let size = |delta: &LowRank| {
            let expansions = delta.expansions.iter().map(|one| one.matrix.bytes());
            delta.reduction.bytes() + expansions.sum::<usize>()
        };
        deltas.into_iter().flatten().map(size).sum()
    }
}

/// The deltas of projections with one input, whose outputs stand side by side in the base's stacked matrix.
fn stack(
    modules: &[LoraModule],
    base: &BaseModel,
    (layer, projections): (usize, &[Projection]),
    resolution: Resolution,
) -> Option<LowRank> {
    let (pack_a, pack_b) = match resolution {
        Resolution::Fine => (
            PackedReduction::from_floats as fn(&[f32], usize, usize) -> PackedReduction,
            PackedMatrix::from_floats as fn(&[f32], usize, usize) -> PackedMatrix,
        ),
        Resolution::Mixed | Resolution::Coarse => (
            PackedReduction::from_floats_as_bytes as _,
            PackedMatrix::from_floats_as_bytes as _,
        ),
    };
    let inputs = base.shape(projections[0]).inputs;
    let mut reduction = Vec::new();
    let mut expansions = Vec::new();
    let mut output_column = 0;
    let mut last_a: &[f32] = &[];
    for &projection in projections {
        let outputs = base.shape(projection).outputs;
        let wanted = (layer, projection);
        if let Ok(at) =
            modules.binary_search_by_key(&wanted, |module| (module.layer, module.projection))
        {
            let module = &modules[at];
            let scaled: Vec<f32> = module.b.iter().map(|b| b * module.scale).collect();
            // Parts of a module that the base fuses have one A between them.
            if module.a != last_a {
                reduction.extend_from_slice(&module.a);
                last_a = &module.a;
            }
            expansions.push(Expansion {
                matrix: pack_b(&scaled, outputs, module.rank),
                reduced_column: reduction.len() / inputs - module.rank,
                output_column,
            });
        }
        output_column += outputs;
    }
    let ranks = reduction.len() / inputs;
    (ranks > 0).then(|| LowRank {
        reduction: pack_a(&reduction, ranks, inputs),
        expansions,
    })
}
