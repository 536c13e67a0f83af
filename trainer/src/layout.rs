//! Where each low-rank factor of a layer stands in the layer's flat vector of trained values.
//!
//! Belongs here: offsets and shapes. Does not belong here: the values ([`crate::parameters`]) and the products.

use std::ops::Range;

use adapters::{BaseModel, Projection};

/// The four groups of a decoder layer, each of projections that share one input.
pub(crate) const GROUPS: [&[Projection]; 4] = [
    &[Projection::Query, Projection::Key, Projection::Value],
    &[Projection::Output],
    &[Projection::Gate, Projection::Up],
    &[Projection::Down],
];

/// The trained values of one layer: per group the stacked `A`s, then each `B`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LayerLayout {
    /// In the order of [`GROUPS`].
    pub(crate) groups: [GroupLayout; 4],
    /// Values in all.
    pub(crate) length: usize,
}

/// One group of projections.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GroupLayout {
    /// Width of the shared input.
    pub(crate) inputs: usize,
    /// Sum of the projections' widths.
    pub(crate) outputs: usize,
    /// Sum of the ranks.
    pub(crate) rank: usize,
    /// The stacked `A`s, `[rank, inputs]`.
    pub(crate) a: Range<usize>,
    /// The projections in order.
    pub(crate) parts: Vec<PartLayout>,
}

/// One projection of a group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PartLayout {
    /// Which.
    pub(crate) projection: Projection,
    /// First column among the group's outputs.
    pub(crate) offset: usize,
    /// Width.
    pub(crate) outputs: usize,
    /// Its factors, when it is trained.
    pub(crate) slot: Option<Slot>,
}

/// The factors of one trained projection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slot {
    /// First row among the group's stacked `A`s.
    pub(crate) column: usize,
    /// Rows of `A`, columns of `B`.
    pub(crate) rank: usize,
    /// Factor of the delta.
    pub(crate) scale: f32,
    /// `B`, `[outputs, rank]`.
    pub(crate) b: Range<usize>,
}

/// Rank and scale of one trained projection.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Which.
    pub projection: Projection,
    /// Rank of its factors.
    pub rank: usize,
    /// Factor of its delta.
    pub scale: f32,
}

impl LayerLayout {
    /// Lays out one layer of `base` with the given projections trained.
    pub(crate) fn new(base: &BaseModel, targets: &[Target]) -> Self {
        let mut length = 0;
        let groups =
            GROUPS.map(|projections| GroupLayout::new(base, projections, targets, &mut length));
        Self { groups, length }
    }
}

impl GroupLayout {
    fn new(
        base: &BaseModel,
        projections: &[Projection],
        targets: &[Target],
        length: &mut usize,
    ) -> Self {
        let inputs = base.shape(projections[0]).inputs;
        let (mut outputs, mut rank) = (0, 0);
        let mut parts = Vec::with_capacity(projections.len());
        for &projection in projections {
            let width = base.shape(projection).outputs;
            let target = targets
                .iter()
                .find(|target| target.projection == projection);
            let slot = target.map(|target| {
                let slot = Slot {
                    column: rank,
                    rank: target.rank,
                    scale: target.scale,
                    b: 0..0,
                };
                rank += target.rank;
                slot
            });
            parts.push(PartLayout {
                projection,
                offset: outputs,
                outputs: width,
                slot,
            });
            outputs += width;
        }
        let mut take = |count: usize| {
            let start = *length;
            *length += count;
            start..*length
        };
        let a = take(rank * inputs);
        for part in &mut parts {
            if let Some(slot) = &mut part.slot {
                slot.b = take(part.outputs * slot.rank);
            }
        }
        Self {
            inputs,
            outputs,
            rank,
            a,
            parts,
        }
    }

    /// The trained projections with their factors.
    pub(crate) fn adapted(&self) -> impl Iterator<Item = (&PartLayout, &Slot)> {
        self.parts
            .iter()
            .filter_map(|part| part.slot.as_ref().map(|slot| (part, slot)))
    }

    /// Where the `A` of one trained projection stands.
    pub(crate) fn a_of(&self, slot: &Slot) -> Range<usize> {
        let start = self.a.start + slot.column * self.inputs;
        start..start + slot.rank * self.inputs
    }
}

/// The same rank and scale for every projection.
#[must_use]
pub fn targets_of(projections: &[Projection], rank: usize, scale: f32) -> Vec<Target> {
    projections
        .iter()
        .map(|&projection| Target {
            projection,
            rank,
            scale,
        })
        .collect()
}
