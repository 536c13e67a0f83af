//! Where the sums of products go.

use crate::kernels::SharedPointer;
use crate::kernels::packed::{TILE_ROWS, TileRun};
use crate::kernels::set::KernelSet;

/// Row-major values that several threads write, each its own tiles.
#[derive(Clone, Copy)]
pub(super) struct Span {
    /// The first column of the first row.
    pub(super) pointer: SharedPointer,
    /// Elements from one row to the next.
    pub(super) stride: usize,
    /// Whether sums are added to what is there.
    pub(super) accumulate: bool,
}

/// The columns that a run of tiles computes, for some consecutive rows.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    span: &'a Span,
    first_row: usize,
    first_output: usize,
    /// Columns of the whole run; its last tile may have fewer than 16.
    outputs: usize,
}

impl Span {
    /// The same values from this row and column on.
    pub(super) fn from(&self, row: usize, column: usize) -> Self {
        Self {
            pointer: self.pointer.offset(row * self.stride + column),
            ..*self
        }
    }

    /// Where a run's products with rows from `first_row` on go.
    pub(super) fn target(&self, first_row: usize, run: &TileRun<'_>) -> Target<'_> {
        Target {
            span: self,
            first_row,
            first_output: run.first_output,
            outputs: run.outputs,
        }
    }
}

impl Target<'_> {
    /// Takes the sums of tile `tile` of the run, a vector for each row.
    #[inline(always)]
    pub(super) fn take<S: KernelSet, const ROWS: usize>(
        &self,
        set: S,
        tile: usize,
        sums: &[S::Floats; ROWS],
    ) {
        let column = tile * TILE_ROWS;
        let columns = TILE_ROWS.min(self.outputs - column);
        for (row, &sums) in sums.iter().enumerate() {
            let at = (self.first_row + row) * self.span.stride + self.first_output + column;
            let start = self.span.pointer.get().wrapping_add(at);
            // SAFETY: `project` made sure that every row and column lies inside the buffer. In one round, a tile's columns
            // of a row belong to one matrix (groups have disjoint rows, expansions disjoint columns), and one thread has
            // it.
            let out = unsafe { std::slice::from_raw_parts_mut(start, columns) };
            if let Ok(out) = <&mut [f32; TILE_ROWS]>::try_from(&mut *out) {
                let before = set.load(out);
                let after = if self.span.accumulate {
                    set.add(before, sums)
                } else {
                    sums
                };
                set.store(after, out);
                continue;
            }
            let mut lanes = [0.0; TILE_ROWS];
            set.store(sums, &mut lanes);
            for (out, sum) in out.iter_mut().zip(lanes) {
                *out = if self.span.accumulate {
                    *out + sum
                } else {
                    sum
                };
            }
        }
    }
}
