//! What goes into a step: segments of sequences, and which of the batch's rows belongs where.

use std::ops::Range;

use smallvec::SmallVec;

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
    /// Position from which on the tokens' hidden states are wanted, `usize::MAX` for none.
    pub(crate) hidden_from: usize,
}

/// What a step hands out of a row. A row's hidden state comes before any logits do.
pub(crate) enum Output<'a> {
    /// The last layer's hidden state after the output norm, `[hidden]`.
    Hidden(&'a [f32]),
    /// The logits of the token after it, `[vocabulary]`.
    Logits(&'a mut [f32]),
}

/// Where every row of the batch belongs, in buffers that are used again from step to step.
#[derive(Default)]
pub(crate) struct Layout {
    /// The segment of each row.
    pub(crate) segments: Vec<usize>,
    /// The place of each row's keys and values.
    pub(crate) places: Vec<KvRow>,
    /// The rows that get logits, in order.
    pub(crate) wanted: Vec<WantedRow>,
    /// The rows whose hidden state is handed out, in order.
    pub(crate) hidden: Vec<WantedRow>,
}

/// A row of which something is handed out.
pub(crate) struct WantedRow {
    pub(crate) segment: usize,
    /// Row of the segment.
    pub(crate) row: usize,
    /// Row of the batch.
    pub(crate) batch_row: usize,
}

impl Layout {
    /// Lays the segments' rows out, one segment behind the other.
    pub(crate) fn fill(&mut self, segments: &[Segment<'_>]) {
        self.segments.clear();
        self.places.clear();
        self.wanted.clear();
        self.hidden.clear();
        for (index, segment) in segments.iter().enumerate() {
            let count = segment.tokens.len();
            let first_wanted = match segment.wanted {
                Wanted::Nothing => count,
                Wanted::Last => count - 1,
                Wanted::Every => 0,
            };
            let first_hidden = segment.hidden_from.saturating_sub(segment.start);
            let before = self.places.len();
            let row = |row| WantedRow {
                segment: index,
                row,
                batch_row: before + row,
            };
            self.wanted.extend((first_wanted..count).map(row));
            self.hidden.extend((first_hidden..count).map(row));
            self.segments.extend(std::iter::repeat_n(index, count));
            let positions = segment.start..segment.start + count;
            self.places.extend(positions.map(|position| KvRow {
                position,
                block: segment.table[position / BLOCK_TOKENS],
            }));
        }
    }
}

/// Adapters in a step for which lists of them need no memory of their own: the usual most of running requests.
const USUAL_ADAPTERS: usize = 64;

/// Runs of batch rows with their adapters.
pub(crate) type AdapterSpans<'a> = SmallVec<[(Range<usize>, &'a PreparedAdapter); USUAL_ADAPTERS]>;

/// What each adapter adds to its rows.
pub(crate) type RowGroups<'a> = SmallVec<[RowGroup<'a>; USUAL_ADAPTERS]>;

/// Runs of batch rows with one adapter.
pub(crate) fn adapter_spans<'a>(segments: &[Segment<'a>]) -> AdapterSpans<'a> {
    let mut spans = AdapterSpans::new();
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
) -> RowGroups<'a> {
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
