//! Sixteen weights of an adapter as bytes.

use super::TILE_ROWS;

/// Sixteen weights as signed bytes with a scale of their own: off by at most 1/254 of the largest of them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::kernels) struct ByteLine {
    pub(in crate::kernels) scale: f32,
    pub(in crate::kernels) quants: [i8; TILE_ROWS],
}

impl ByteLine {
    /// The nearest to these values.
    pub(super) fn of(values: &[f32; TILE_ROWS]) -> Self {
        let largest = values
            .iter()
            .fold(0f32, |most, value| most.max(value.abs()));
        let scale = largest / 127.0;
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        Self {
            scale,
            quants: values.map(|value| (value * inverse).round() as i8),
        }
    }

    /// One of them, as products see it.
    pub(super) fn value(&self, lane: usize) -> f32 {
        self.scale * f32::from(self.quants[lane])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_within_half_a_step_and_keep_the_largest() {
        let values: [f32; TILE_ROWS] =
            std::array::from_fn(|lane| (lane as f32 - 5.3) * 0.7e-3 * (1.0 + lane as f32));
        let line = ByteLine::of(&values);
        for (lane, value) in values.iter().enumerate() {
            assert!((line.value(lane) - value).abs() <= 0.5001 * line.scale);
        }
        assert_eq!(line.quants[15], 127);
        assert_eq!(ByteLine::of(&[0.0; TILE_ROWS]).value(3), 0.0);
    }
}
