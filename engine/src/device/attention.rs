//! Attention of a mixed batch over the paged cache: sequences that decode go through one padded product, each prompt
//! through its own.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use candle_core::{DType, Device, Result, Tensor};

use super::operations::softmax;
use crate::batch::Segment;
use crate::config::ModelConfig;
use crate::kernels::BLOCK_TOKENS;

/// Which rows attend to which slots of the cache, for all layers of a step.
pub(super) struct AttentionPlan {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    scale: f64,
    groups: Vec<Group>,
    /// Where each batch row stands in the concatenation of the groups' rows.
    back: Tensor,
}

/// Sequences with the same number of rows.
struct Group {
    sequences: usize,
    rows: usize,
    /// Slots of the longest sequence; the others are padded.
    width: usize,
    /// The batch's rows, `[sequences * rows]`.
    batch_rows: Tensor,
    /// The cache's slots, `[sequences * width]`.
    slots: Tensor,
    /// 0 where a row may look and minus infinity elsewhere, `[sequences, 1, 1, rows, width]`, for each window in use.
    masks: BTreeMap<Option<usize>, Tensor>,
}

impl AttentionPlan {
    pub(super) fn new(
        segments: &[Segment<'_>],
        config: &ModelConfig,
        device: &Device,
    ) -> Result<Self> {
        let mut first_row = 0;
        let starts: Vec<usize> = (segments.iter())
            .map(|segment| {
                first_row += segment.tokens.len();
                first_row - segment.tokens.len()
            })
            .collect();
        let decoding = |index: &usize| segments[*index].tokens.len() == 1;
        let (decodes, prompts): (Vec<usize>, Vec<usize>) = (0..segments.len()).partition(decoding);
        let members = [decodes]
            .into_iter()
            .chain(prompts.into_iter().map(|index| vec![index]))
            .filter(|members| !members.is_empty());
        let windows: Vec<Option<usize>> = config.decoder.layers.iter().map(|l| l.window).collect();
        let mut order = Vec::with_capacity(first_row);
        let mut groups = Vec::new();
        for members in members {
            let rows = members
                .iter()
                .flat_map(|&index| starts[index]..starts[index] + segments[index].tokens.len());
            let rows: Vec<u32> = rows.map(|row| row as u32).collect();
            order.extend_from_slice(&rows);
            let members: Vec<&Segment<'_>> =
                members.iter().map(|&index| &segments[index]).collect();
            groups.push(Group::new(&members, rows, &windows, device)?);
        }
        let mut back = vec![0u32; order.len()];
        for (place, row) in (0..).zip(order) {
            back[row as usize] = place;
        }
        Ok(Self {
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            scale: f64::from(config.decoder.attention_scale),
            groups,
            back: Tensor::new(back, device)?,
        })
    }

    /// `[rows, heads * head_dim]` queries to what they read, over one layer's keys and values `[slots, kv_width]`.
    pub(super) fn attend(
        &self,
        queries: &Tensor,
        [keys, values]: [&Tensor; 2],
        window: Option<usize>,
    ) -> Result<Tensor> {
        let attended = (self.groups.iter())
            .map(|group| self.attend_group(group, queries, [keys, values], window))
            .collect::<Result<Vec<_>>>()?;
        Tensor::cat(&attended, 0)?.index_select(&self.back, 0)
    }

    fn attend_group(
        &self,
        group: &Group,
        queries: &Tensor,
        [keys, values]: [&Tensor; 2],
        window: Option<usize>,
    ) -> Result<Tensor> {
        let (n, rows, width) = (group.sequences, group.rows, group.width);
        let (kv, dim, shared) = (self.kv_heads, self.head_dim, self.heads / self.kv_heads);
        let queries = (queries.index_select(&group.batch_rows, 0)?)
            .reshape((n, rows, kv, shared, dim))?
            .permute((0, 2, 3, 1, 4))?
            .contiguous()?
            .reshape((n * kv, shared * rows, dim))?;
        let gathered = |cache: &Tensor| {
            (cache.index_select(&group.slots, 0)?)
                .to_dtype(DType::F32)?
                .reshape((n, width, kv, dim))?
                .permute((0, 2, 1, 3))?
                .contiguous()?
                .reshape((n * kv, width, dim))
        };
        let scores = queries.matmul(&gathered(keys)?.t()?)?;
        let scores = (scores.affine(self.scale, 0.0)?)
            .reshape((n, kv, shared, rows, width))?
            .broadcast_add(&group.masks[&window])?;
        let weights = softmax(&scores)?.reshape((n * kv, shared * rows, width))?;
        (weights.matmul(&gathered(values)?)?)
            .reshape((n, kv, shared, rows, dim))?
            .permute((0, 3, 1, 2, 4))?
            .contiguous()?
            .reshape((n * rows, self.heads * dim))
    }
}

impl Group {
    fn new(
        members: &[&Segment<'_>],
        batch_rows: Vec<u32>,
        windows: &[Option<usize>],
        device: &Device,
    ) -> Result<Self> {
        let (sequences, rows) = (members.len(), members[0].tokens.len());
        let tokens = |segment: &Segment<'_>| segment.start + segment.tokens.len();
        let longest = members.iter().map(|segment| tokens(segment)).max();
        let width = longest.unwrap_or_default();
        let slots: Vec<u32> = (members.iter())
            .flat_map(|segment| {
                (0..width).map(|position| match position < tokens(segment) {
                    true => {
                        let block = segment.table[position / BLOCK_TOKENS];
                        block * BLOCK_TOKENS as u32 + (position % BLOCK_TOKENS) as u32
                    }
                    false => 0,
                })
            })
            .collect();
        let mask = |window: Option<usize>| {
            let visible = |row: usize, position: usize| {
                position <= row && window.is_none_or(|window| position + window > row)
            };
            let values: Vec<f32> = (members.iter())
                .flat_map(|segment| segment.start..segment.start + rows)
                .flat_map(|row| (0..width).map(move |position| (row, position)))
                .map(|(row, position)| match visible(row, position) {
                    true => 0.0,
                    false => f32::NEG_INFINITY,
                })
                .collect();
            Tensor::from_vec(values, (sequences, 1, 1, rows, width), device)
        };
        let mut masks = BTreeMap::new();
        for &window in windows {
            if let Entry::Vacant(entry) = masks.entry(window) {
                entry.insert(mask(window)?);
            }
        }
        Ok(Self {
            sequences,
            rows,
            width,
            batch_rows: Tensor::new(batch_rows, device)?,
            slots: Tensor::new(slots, device)?,
            masks,
        })
    }
}
