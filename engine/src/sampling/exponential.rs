//! The exponential function as straight-line f32 arithmetic, which the compiler turns into vector instructions; a row
//! of logits has one call for each token of the vocabulary.

/// Below this, `exp` is zero: the smallest normal f32 is about e^-87.3.
const LOWEST: f32 = -87.0;

/// Adding and subtracting 1.5 * 2^23 rounds an f32 of small magnitude to the nearest integer.
const ROUNDING: f32 = 12_582_912.0;

/// `e^x` for `x <= 0`, within 3e-7 of the true value relative to it; 0 below -87, for minus infinity
/// and for NaN.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`; `e^r` is the Taylor polynomial of degree 7 (remainder below 6e-9), `2^n` goes
/// straight into the exponent's bits. No fused multiply-add, so the bits are the same on every machine.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let bounded = if x > LOWEST { x } else { LOWEST };
    let shifted = bounded * std::f32::consts::LOG2_E + ROUNDING;
    let n = shifted - ROUNDING;
    // ln 2 in two parts, the first short enough for `n * LN_2_HIGH` to be exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let r = (bounded - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut series = 1.0 / 5040.0;
    for factorial in [720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
        series = series * r + 1.0 / factorial;
    }
    // The last bits of `shifted` are `n`, those of `ROUNDING` are 0; the shift drops all others.
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x >= LOWEST { series * power } else { 0.0 }
}

/// The largest value of a row, ignoring NaN; minus infinity for an empty row.
pub(super) fn maximum(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    (lanes.iter().chain(rest).copied()).fold(f32::NEG_INFINITY, f32::max)
}

/// The sum of `exp(logit - maximum)` over a row, always added in the same order: 16 lanes within 512 values in f32, the
/// lanes and the blocks in f64.
pub(super) fn sum_of_exponentials(row: &[f32], maximum: f32) -> f64 {
    row.chunks(512)
        .map(|block| {
            let mut lanes = [0.0f32; 16];
            let (chunks, rest) = block.as_chunks::<16>();
            for chunk in chunks {
                for (lane, &value) in lanes.iter_mut().zip(chunk) {
                    *lane += exp(value - maximum);
                }
            }
            let rest = rest.iter().map(|&value| f64::from(exp(value - maximum)));
            lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>() + rest.sum::<f64>()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_exact_exponential() {
        for step in 0..87_000 {
            let x = -(step as f32) / 1000.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 3e-7, "exp({x}) is off by {error:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::NAN), 0.0);
    }

    #[test]
    fn the_maximum_ignores_nan_and_sees_every_lane() {
        let mut row = vec![-3.5f32; 37];
        row[4] = f32::NAN;
        for place in [0, 5, 15, 16, 31, 32, 36] {
            let mut row = row.clone();
            row[place] = 2.25;
            assert_eq!(maximum(&row), 2.25);
        }
        assert_eq!(maximum(&[]), f32::NEG_INFINITY);
    }

    #[test]
    fn the_sum_is_right_over_blocks_lanes_and_rest() {
        let row: Vec<f32> = (0..1061).map(|i| ((i * 37) % 101) as f32 * -0.11).collect();
        let exact: f64 = row.iter().map(|&x| f64::from(x - 0.5).exp()).sum();
        let sum = sum_of_exponentials(&row, 0.5);
        assert!((sum / exact - 1.0).abs() < 1e-7, "{sum} against {exact}");
    }
}
