//! Rotary position embedding in the Hugging Face layout: value `j` of a head is rotated with value `j + head/2`.

use rayon::prelude::*;

use super::ROWS_PER_TASK;

/// Cosines and sines of every position, `[positions, head_width / 2]` each.
pub(crate) struct Rotary {
    half: usize,
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

/// Which rows of a buffer are rotated and how far.
#[derive(Clone, Copy)]
pub(crate) struct RotatedRows<'a> {
    /// Values per row of the buffer.
    pub(crate) row_width: usize,
    /// Leading heads of each row to rotate: queries, then keys.
    pub(crate) heads: usize,
    /// Position of each row.
    pub(crate) positions: &'a [usize],
}

impl Rotary {
    /// Angles `position / theta^(2j / head_width)` for `positions` positions (Su et al., 2021).
    pub(crate) fn new(positions: usize, head_width: usize, theta: f32) -> Self {
        let half = head_width / 2;
        let angle = |index: usize| {
            let (position, j) = (index / half, index % half);
            position as f64 / f64::from(theta).powf(j as f64 / half as f64)
        };
        Self {
            half,
            cosines: (0..positions * half)
                .map(|index| angle(index).cos() as f32)
                .collect(),
            sines: (0..positions * half)
                .map(|index| angle(index).sin() as f32)
                .collect(),
        }
    }

    /// How many positions the tables hold.
    pub(crate) fn positions(&self) -> usize {
        self.cosines.len() / self.half
    }

    /// Rotates in place.
    pub(crate) fn rotate(&self, buffer: &mut [f32], rows: RotatedRows<'_>) {
        self.turn(buffer, rows, 1.0);
    }

    /// Rotates back: the gradient of [`Rotary::rotate`], which is orthogonal.
    pub(crate) fn rotate_back(&self, buffer: &mut [f32], rows: RotatedRows<'_>) {
        self.turn(buffer, rows, -1.0);
    }

    fn turn(&self, buffer: &mut [f32], rows: RotatedRows<'_>, direction: f32) {
        let half = self.half;
        buffer
            .par_chunks_exact_mut(rows.row_width)
            .zip(rows.positions.par_iter())
            .with_min_len(ROWS_PER_TASK)
            .for_each(|(row, position)| {
                let cosines = &self.cosines[position * half..][..half];
                let sines = &self.sines[position * half..][..half];
                for head in row.chunks_exact_mut(2 * half).take(rows.heads) {
                    let (low, high) = head.split_at_mut(half);
                    for j in 0..half {
                        let (x, y, sine) = (low[j], high[j], direction * sines[j]);
                        low[j] = x * cosines[j] - y * sine;
                        high[j] = y * cosines[j] + x * sine;
                    }
                }
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotates_pairs_half_a_head_apart_and_back() {
        let rotary = Rotary::new(4, 4, 100.0);
        let original = [1.0, 2.0, 3.0, 4.0, 9.0];
        let mut row = original;
        let rows = RotatedRows {
            row_width: 5,
            heads: 1,
            positions: &[2],
        };
        rotary.rotate(&mut row, rows);
        let (c0, s0) = (2f32.cos(), 2f32.sin());
        let (c1, s1) = (0.2f32.cos(), 0.2f32.sin());
        let expected = [
            c0 - 3.0 * s0,
            2.0 * c1 - 4.0 * s1,
            3.0 * c0 + s0,
            4.0 * c1 + 2.0 * s1,
            9.0,
        ];
        for (value, expected) in row.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{row:?}");
        }
        rotary.rotate_back(&mut row, rows);
        for (value, expected) in row.iter().zip(original) {
            assert!((value - expected).abs() < 1e-6, "{row:?}");
        }
    }
}
