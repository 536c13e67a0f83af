//! Sixteen weights of an adapter as bytes.

use half::bf16;

use super::TILE_ROWS;

/// Sixteen weights as signed bytes with a scale of their own: off by at most 1/252 of the largest of them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(C)]
pub(in crate::kernels) struct ByteLine {
    scale: bf16,
    pub(in crate::kernels) quants: [i8; TILE_ROWS],
}

impl ByteLine {
    /// The nearest to these finite values.
    pub(super) fn of(values: &[f32; TILE_ROWS]) -> Self {
        let largest = values
            .iter()
            .fold(0f32, |most, value| most.max(value.abs()));
        let scale = at_least(largest / 127.0);
        let mut line = Self {
            scale,
            ..Self::default()
        };
        if line.scale().is_normal() {
            let inverse = 1.0 / line.scale();
            line.quants = values.map(|value| nearest(value * inverse));
        }
        line
    }

    /// What a quant of 1 stands for.
    #[inline(always)]
    pub(in crate::kernels) fn scale(&self) -> f32 {
        f32::from_bits(u32::from(self.scale.to_bits()) << 16)
    }

    /// One of them, as products see it.
    pub(super) fn value(&self, lane: usize) -> f32 {
        self.scale() * f32::from(self.quants[lane])
    }
}

/// The nearest whole number to a value of -127 to 127. `f32::round` would be a call for each of millions of weights on the
/// CPU that the binary is compiled for; this addition leaves the whole number in the last bits.
fn nearest(value: f32) -> i8 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2^23
    (value + SHIFT).to_bits() as i8
}

/// The smallest scale not below this one, so that no quant is cut off.
fn at_least(scale: f32) -> bf16 {
    let cut = bf16::from_bits((scale.to_bits() >> 16) as u16);
    match cut.to_f32() < scale {
        true => bf16::from_bits(cut.to_bits() + 1),
        false => cut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_within_half_a_step_of_a_scale_that_reaches_the_largest() {
        let values: [f32; TILE_ROWS] =
            std::array::from_fn(|lane| (lane as f32 - 5.3) * 0.7e-3 * (1.0 + lane as f32));
        for size in [1e-30, 1e-6, 1.0, 3e4] {
            let values = values.map(|value| value * size);
            let line = ByteLine::of(&values);
            let scale = line.scale();
            for (lane, value) in values.iter().enumerate() {
                assert!((line.value(lane) - value).abs() <= 0.5001 * scale);
            }
            assert!(scale <= values[15] / 126.0 && line.quants[15] >= 126);
        }
    }

    #[test]
    fn the_nearest_whole_number_is_found_for_every_byte() {
        for whole in -127..=127i8 {
            for off in [-0.499, 0.0, 0.499] {
                assert_eq!(nearest(f32::from(whole) + off), whole);
            }
        }
    }

    #[test]
    fn nothing_and_next_to_nothing_are_zeros() {
        for values in [[0.0; TILE_ROWS], [1e-42; TILE_ROWS]] {
            assert_eq!(ByteLine::of(&values).value(3), 0.0);
        }
    }
}
