//! What goes into a step: segments of sequences, and which of the batch's rows belongs where.

use std::ops::Range;

use crate::adapter::{PreparedAdapter, PreparedLayer};
use crate::kernels::{BLOCK_TOKENS, KvRow, LowRank, RowGroup};

/// Which rows of a segment get logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// None: there is more of the prompt to come.
    Nothing,
    /// The last row.
    Last,
    /// Every row.
    Every,
}

/// Consecutive tokens of one sequence.
pub(crate) struct Segment<'a> {
    /// The tokens to compute.
    pub(crate) tokens: &'a [u32],
    /// Position of the first of them in its sequence.
    pub(crate) start: usize,
    /// The sequence's blocks, with room for the tokens.
    pub(crate) table: &'a [u32],
    pub(crate) adapter: Option<&'a PreparedAdapter>,
    pub(crate) wanted: Wanted,
}

/// Where a batch row belongs.
pub(crate) struct RowPlace {
    pub(crate) segment: usize,
    pub(crate) kv: KvRow,
}

/// The place of every row of the batch.
pub(crate) fn places(segments: &[Segment<'_>]) -> Vec<RowPlace> {
    let mut places = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        places.extend((0..segment.tokens.len()).map(|row| {
            let position = segment.start + row;
            RowPlace {
                segment: index,
                kv: KvRow {
                    position,
                    block: segment.table[position / BLOCK_TOKENS],
                },
            }
        }));
    }
    places
}

/// Runs of batch rows with one adapter.
pub(crate) fn adapter_spans<'a>(
    segments: &[Segment<'a>],
) -> Vec<(Range<usize>, &'a PreparedAdapter)> {
    let mut spans: Vec<(Range<usize>, &PreparedAdapter)> = Vec::new();
    let mut row = 0;
    for segment in segments {
        let rows = row..row + segment.tokens.len();
        row = rows.end;
        let Some(adapter) = segment.adapter else {
            continue;
        };
        match spans.last_mut() {
            Some((last, same)) if last.end == rows.start && same.version() == adapter.version() => {
                last.end = rows.end;
            }
            _ => spans.push((rows, adapter)),
        }
    }
    spans
}

/// What each adapter adds to its rows in one place of one layer.
pub(crate) fn row_groups<'a>(
    spans: &[(Range<usize>, &'a PreparedAdapter)],
    layer: usize,
    pick: fn(&PreparedLayer) -> &Option<LowRank>,
) -> Vec<RowGroup<'a>> {
    spans
        .iter()
        .filter_map(|(rows, adapter)| {
            let delta = pick(&adapter.layers[layer]).as_ref()?;
            Some(RowGroup {
                rows: rows.clone(),
                delta,
            })
        })
        .collect()
}

/// (segment, row of the segment, row of the batch) of every row that gets logits.
pub(crate) fn wanted_rows(segments: &[Segment<'_>]) -> Vec<(usize, usize, usize)> {
    let mut wanted = Vec::new();
    let mut batch_row = 0;
    for (index, segment) in segments.iter().enumerate() {
        let count = segment.tokens.len();
        let first = match segment.wanted {
            Wanted::Nothing => count,
            Wanted::Last => count - 1,
            Wanted::Every => 0,
        };
        wanted.extend((first..count).map(|row| (index, row, batch_row + row)));
        batch_row += count;
    }
    wanted
}
