//! Operations on single rows: RMSNorm, rotary embedding, gated activations.

use super::{KernelChoice, portable};

/// Partial sums of a reduction; fixed, so that the order of additions never changes.
const LANES: usize = 16;

/// `out = x / sqrt(mean(x²) + epsilon) · weight` (Zhang & Sennrich 2019, *Root Mean Square Layer Normalization*).
pub fn rms_norm_row(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let mut sums = [0.0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    for (sum, x) in sums.iter_mut().zip(chunks.remainder()) {
        *sum += x * x;
    }
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x * x;
        }
    }
    let inverse = 1.0 / (sums.iter().sum::<f32>() / x.len() as f32 + epsilon).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * inverse * weight;
    }
}

/// Rotates one head's vector in place: element `j` pairs with `j + head_dim / 2` (Su et al. 2021, *RoFormer*, in the
/// half-split layout of Hugging Face). `cosines` and `sines` hold `head_dim / 2` values for the row's position.
pub fn rope_row(head: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let (first, second) = head.split_at_mut(cosines.len());
    for (((x, y), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
        let (a, b) = (*x, *y);
        *x = a * cosine - b * sine;
        *y = b * cosine + a * sine;
    }
}

/// `out = silu(gate) · up` (Shazeer 2020, *GLU Variants Improve Transformer*), one row.
pub fn swiglu_row(kernels: KernelChoice, gate: &[f32], up: &[f32], out: &mut [f32]) {
    match kernels {
        #[cfg(target_arch = "x86_64")]
        KernelChoice::Avx512Vnni if out.len().is_multiple_of(16) => {
            assert!(gate.len() == out.len() && up.len() == out.len());
            // SAFETY: this choice is only made on CPUs that have the features (KernelChoice::is_available).
            unsafe { super::avx512::swiglu(gate, up, out) }
        }
        _ => portable::swiglu(gate, up, out),
    }
}

/// `out = gelu(gate) · up`, one row, with the tanh form of GELU (Hendrycks & Gimpel 2016, *Gaussian Error Linear Units*),
/// which PyTorch calls `approximate="tanh"`.
pub fn geglu_row(kernels: KernelChoice, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == out.len() && up.len() == out.len());
    match kernels {
        KernelChoice::Portable | KernelChoice::Avx512Vnni => portable::geglu(gate, up, out),
    }
}
