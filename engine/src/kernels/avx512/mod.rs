//! The kernels in AVX-512 with VNNI. Callers guarantee the CPU features; see `KernelChoice::is_available`.

mod attention;
mod product;

use std::arch::x86_64::*;

pub(super) use attention::attend_group;
pub(super) use product::{float_tile, quantize_row, quantized_tile};

/// See `portable::swiglu`; lengths are equal multiples of 16.
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    let rows = gate.chunks_exact(16).zip(up.chunks_exact(16));
    for ((gate, up), out) in rows.zip(out.chunks_exact_mut(16)) {
        // SAFETY: each chunk holds 16 floats.
        unsafe {
            let gate = _mm512_loadu_ps(gate.as_ptr());
            let up = _mm512_loadu_ps(up.as_ptr());
            let negative = exponential(_mm512_sub_ps(_mm512_setzero_ps(), gate));
            let sigmoid = _mm512_div_ps(gate, _mm512_add_ps(_mm512_set1_ps(1.0), negative));
            _mm512_storeu_ps(out.as_mut_ptr(), _mm512_mul_ps(sigmoid, up));
        }
    }
}

/// `exp(x)` for x ≤ 88, relative error below 2⁻²²: `2ⁿ · p(r)` with `x = n·ln 2 + r` and p the Taylor polynomial of
/// degree 6 on |r| ≤ ln 2 / 2.
#[target_feature(enable = "avx512f,avx512dq")]
fn exponential(x: __m512) -> __m512 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = _mm512_max_ps(x, _mm512_set1_ps(-87.0));
    let n = _mm512_roundscale_ps::<0>(_mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E)));
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN_2_HIGH), x);
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN_2_LOW), r);
    let mut p = _mm512_set1_ps(1.0 / 720.0);
    for coefficient in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(coefficient));
    }
    _mm512_scalef_ps(p, n)
}
