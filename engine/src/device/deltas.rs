//! What adapters add to the rows of a batch, all adapters in two products.
//!
//! The `A`s of the batch's adapters stand below each other, so one product gives every row's reduction by every
//! adapter; a mask keeps each row's own; one product with the stacked `B`s expands them. With ranks of 8 and some
//! adapters that is narrow work for a GPU, and its cost does not depend on how rows and adapters are mixed.

use std::collections::HashMap;
use std::sync::Arc;

use adapters::Version;
use candle_core::{DType, Device, Result, Tensor};

use crate::adapter::{PreparedAdapter, PreparedLayer};
use crate::batch::Segment;
use crate::kernels::LowRank;

/// Adapters that are kept on the device; the least recently used goes first.
const MOST_ADAPTERS: usize = 64;

/// Where in a layer something is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    QueryKeyValue,
    Output,
    GateUp,
    Down,
}

impl Place {
    const ALL: [Self; 4] = [Self::QueryKeyValue, Self::Output, Self::GateUp, Self::Down];

    fn of(self, layer: &PreparedLayer) -> &Option<LowRank> {
        match self {
            Self::QueryKeyValue => &layer.query_key_value,
            Self::Output => &layer.output,
            Self::GateUp => &layer.gate_up,
            Self::Down => &layer.down,
        }
    }
}

/// One adapter in one place: `x · reduce · expand`.
struct Delta {
    /// `[inputs, rank]`.
    reduce: Tensor,
    /// `[rank, outputs]`; outputs are counted up to the last that changes.
    expand: Tensor,
}

/// One adapter on the device, in every layer and place.
struct DeviceAdapter {
    layers: Vec<[Option<Delta>; 4]>,
}

/// Adapters on the device by version, and the stack of the last batch.
pub(super) struct DeltaCache {
    device: Device,
    adapters: HashMap<Version, (u64, DeviceAdapter)>,
    clock: u64,
    stacked: Option<(Vec<Version>, Arc<Stack>)>,
}

/// The deltas of several adapters below each other, in every layer and place.
struct Stack {
    layers: Vec<[Option<StackedDelta>; 4]>,
    /// Which adapter each column of a reduction belongs to, `[1, sum of ranks]`: the different lists that there are.
    owners: Vec<Tensor>,
}

struct StackedDelta {
    /// `[inputs, sum of ranks]`.
    reduce: Tensor,
    /// `[sum of ranks, outputs]`.
    expand: Tensor,
    /// The number of its columns' list of owners.
    owners: usize,
}

/// The deltas of one batch's rows.
pub(super) struct BatchDeltas {
    stack: Arc<Stack>,
    /// 1 where a row's adapter is the column's and 0 elsewhere, `[rows, sum of ranks]`, for each list of the stack's.
    masks: Vec<Tensor>,
}

impl DeltaCache {
    pub(super) fn new(device: Device) -> Self {
        Self {
            device,
            adapters: HashMap::new(),
            clock: 0,
            stacked: None,
        }
    }

    /// The deltas of a batch; `None` when all of it runs on the base.
    pub(super) fn of_batch(&mut self, segments: &[Segment<'_>]) -> Result<Option<BatchDeltas>> {
        let mut used: Vec<&PreparedAdapter> = segments.iter().filter_map(|s| s.adapter).collect();
        used.sort_by_key(|adapter| adapter.version());
        used.dedup_by_key(|adapter| adapter.version());
        if used.is_empty() {
            return Ok(None);
        }
        let stack = self.stack_of(&used)?;
        let owners: Vec<f32> = (segments.iter())
            .flat_map(|segment| {
                let owner = segment.adapter.and_then(|adapter| {
                    used.iter()
                        .position(|one| one.version() == adapter.version())
                });
                std::iter::repeat_n(owner.map_or(-1.0, |at| at as f32), segment.tokens.len())
            })
            .collect();
        let rows = owners.len();
        let owners = Tensor::from_vec(owners, (rows, 1), &self.device)?;
        let masks = (stack.owners.iter())
            .map(|columns| owners.broadcast_eq(columns)?.to_dtype(DType::F32))
            .collect::<Result<_>>()?;
        Ok(Some(BatchDeltas { stack, masks }))
    }

    fn stack_of(&mut self, used: &[&PreparedAdapter]) -> Result<Arc<Stack>> {
        let versions: Vec<Version> = used.iter().map(|one| one.version().clone()).collect();
        if let Some((last, stack)) = &self.stacked
            && *last == versions
        {
            return Ok(Arc::clone(stack));
        }
        self.clock += 1;
        for adapter in used {
            match self.adapters.get_mut(adapter.version()) {
                Some((last_use, _)) => *last_use = self.clock,
                None => {
                    let uploaded = DeviceAdapter::new(adapter, &self.device)?;
                    let entry = (self.clock, uploaded);
                    self.adapters.insert(adapter.version().clone(), entry);
                }
            }
        }
        let members: Vec<&DeviceAdapter> = (versions.iter())
            .map(|version| &self.adapters[version].1)
            .collect();
        let stack = Arc::new(Stack::new(&members, &self.device)?);
        self.evict();
        self.stacked = Some((versions, Arc::clone(&stack)));
        Ok(stack)
    }

    fn evict(&mut self) {
        while self.adapters.len() > MOST_ADAPTERS {
            let oldest = self
                .adapters
                .iter()
                .min_by_key(|(_, (last_use, _))| *last_use);
            let Some(version) = oldest.map(|(version, _)| version.clone()) else {
                return;
            };
            self.adapters.remove(&version);
        }
    }
}

impl DeviceAdapter {
    fn new(adapter: &PreparedAdapter, device: &Device) -> Result<Self> {
        let layers = (adapter.layers.iter())
            .map(|layer| {
                let [a, b, c, d] = Place::ALL.map(|place| {
                    let delta = place.of(layer).as_ref();
                    delta.map(|delta| Delta::new(delta, device)).transpose()
                });
                Ok([a?, b?, c?, d?])
            })
            .collect::<Result<_>>()?;
        Ok(Self { layers })
    }
}

impl Delta {
    fn new(delta: &LowRank, device: &Device) -> Result<Self> {
        let (ranks, inputs) = (delta.reduction.outputs(), delta.reduction.inputs());
        let mut reduce = vec![0.0; ranks * inputs];
        for (rank, row) in reduce.chunks_exact_mut(inputs).enumerate() {
            delta.reduction.read_row(rank, row);
        }
        let last = delta.expansions.last();
        let outputs = last.map_or(0, |one| one.output_column + one.matrix.outputs());
        let mut expand = vec![0.0; outputs * ranks];
        for expansion in &delta.expansions {
            for row in 0..expansion.matrix.outputs() {
                let start = (expansion.output_column + row) * ranks + expansion.reduced_column;
                let columns = &mut expand[start..start + expansion.matrix.inputs()];
                expansion.matrix.read_row(row, columns);
            }
        }
        let upload = |values, shape| Tensor::from_vec(values, shape, device)?.t()?.contiguous();
        Ok(Self {
            reduce: upload(reduce, (ranks, inputs))?,
            expand: upload(expand, (outputs, ranks))?,
        })
    }
}

impl Stack {
    fn new(members: &[&DeviceAdapter], device: &Device) -> Result<Self> {
        let mut owners = Vec::new();
        let layers = (0..members[0].layers.len())
            .map(|layer| {
                let [a, b, c, d] = Place::ALL.map(|place| {
                    let deltas = members.iter().map(|one| &one.layers[layer][place as usize]);
                    StackedDelta::new(deltas, &mut owners)
                });
                Ok([a?, b?, c?, d?])
            })
            .collect::<Result<_>>()?;
        let owners = (owners.into_iter())
            .map(|owners| Tensor::new(owners, device)?.unsqueeze(0))
            .collect::<Result<_>>()?;
        Ok(Self { layers, owners })
    }
}

impl StackedDelta {
    /// `None` when no adapter changes this place; a list of owners that `known` lacks is added to it.
    fn new<'a>(
        deltas: impl Iterator<Item = &'a Option<Delta>>,
        known: &mut Vec<Vec<f32>>,
    ) -> Result<Option<Self>> {
        let present: Vec<(usize, &Delta)> = deltas
            .enumerate()
            .filter_map(|(owner, delta)| Some((owner, delta.as_ref()?)))
            .collect();
        let widths = (present.iter())
            .map(|(_, delta)| delta.expand.dim(1))
            .collect::<Result<Vec<_>>>()?;
        let Some(&outputs) = widths.iter().max() else {
            return Ok(None);
        };
        let (mut reduce, mut expand, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for (owner, delta) in present {
            let (rank, width) = delta.expand.dims2()?;
            reduce.push(delta.reduce.clone());
            expand.push(delta.expand.pad_with_zeros(1, 0, outputs - width)?);
            owners.extend(std::iter::repeat_n(owner as f32, rank));
        }
        let place = known.iter().position(|one| *one == owners);
        Ok(Some(Self {
            reduce: Tensor::cat(&reduce, 1)?,
            expand: Tensor::cat(&expand, 0)?,
            owners: place.unwrap_or_else(|| {
                known.push(owners);
                known.len() - 1
            }),
        }))
    }
}

impl BatchDeltas {
    /// `output` with the deltas of one layer and place of its rows added; `input` is what the base product took.
    pub(super) fn add(
        &self,
        output: Tensor,
        input: &Tensor,
        layer: usize,
        place: Place,
    ) -> Result<Tensor> {
        let Some(delta) = &self.stack.layers[layer][place as usize] else {
            return Ok(output);
        };
        let reduced = (input.matmul(&delta.reduce)? * &self.masks[delta.owners])?;
        let added = reduced.matmul(&delta.expand)?;
        let missing = output.dim(1)? - added.dim(1)?;
        output + added.pad_with_zeros(1, 0, missing)?
    }
}
