//! `eˣ` written so that the compiler vectorises it in a portable build.

const ROUND_TO_INTEGER: f32 = 12_582_912.0;
const ROUND_TO_INTEGER_BITS: u32 = 0x4B40_0000;

/// `eˣ` for −87 ≤ x ≤ 87 (clamped), within 2·10⁻⁷ relative.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2; `eʳ` by its Taylor polynomial of degree 6, `2ⁿ` by writing the exponent bits.
/// Adding 1.5·2²³ rounds to the nearest integer and leaves it in the low bits, with no call that blocks vectorisation.
#[inline(always)]
pub(crate) fn exponential(x: f32) -> f32 {
    let x = x.clamp(-87.0, 87.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND_TO_INTEGER;
    let n = shifted - ROUND_TO_INTEGER;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let polynomial = 1.0
        + r * (1.0
            + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r / 720.0)))));
    let exponent = shifted
        .to_bits()
        .wrapping_sub(ROUND_TO_INTEGER_BITS)
        .wrapping_add(127)
        << 23;
    polynomial * f32::from_bits(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_standard_library() {
        for step in -8600..=8600 {
            let x = step as f32 * 0.01;
            let expected = f64::from(x).exp();
            let error = (f64::from(exponential(x)) - expected).abs() / expected;
            assert!(error < 5e-7, "e^{x}: relative error {error}");
        }
    }
}
