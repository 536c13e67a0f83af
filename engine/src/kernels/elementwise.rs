//! Operations on single rows: RMSNorm, rotary embedding, gated activations.

use super::KernelChoice;
use super::norm::inverse_rms;
use super::set::{KernelSet, LANES, Operation};

/// `out = x / sqrt(mean(x²) + epsilon) · weight` (Zhang & Sennrich 2019, *Root Mean Square Layer Normalization*).
pub fn rms_norm_row(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let inverse = inverse_rms(x, epsilon);
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
///
/// # Panics
///
/// If the lengths differ.
pub fn swiglu_row(kernels: KernelChoice, gate: &[f32], up: &[f32], out: &mut [f32]) {
    kernels.run(Gated {
        gate,
        up,
        out,
        activation: Silu,
    });
}

/// `out = gelu(gate) · up`, one row, with the tanh form of GELU (Hendrycks & Gimpel 2016, *Gaussian Error Linear Units*),
/// which PyTorch calls `approximate="tanh"`.
///
/// # Panics
///
/// If the lengths differ.
pub fn geglu_row(kernels: KernelChoice, gate: &[f32], up: &[f32], out: &mut [f32]) {
    kernels.run(Gated {
        gate,
        up,
        out,
        activation: GeluTanh,
    });
}

/// An activation `x · sigmoid(y(x))`.
trait Sigmoidal {
    fn exponent<S: KernelSet>(&self, set: S, x: S::Floats) -> S::Floats;
}

struct Silu;

impl Sigmoidal for Silu {
    #[inline(always)]
    fn exponent<S: KernelSet>(&self, _: S, x: S::Floats) -> S::Floats {
        x
    }
}

/// `x / 2 · (1 + tanh z)` is `x · sigmoid(2 z)`, here with `z = sqrt(2 / π) · (x + 0.044715 · x³)`.
struct GeluTanh;

impl Sigmoidal for GeluTanh {
    #[inline(always)]
    fn exponent<S: KernelSet>(&self, set: S, x: S::Floats) -> S::Floats {
        const TWICE_ROOT: f32 = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::SQRT_2;
        let square = set.mul(x, x);
        let inner = set.fma(square, set.splat(0.044_715), set.splat(1.0));
        set.mul(set.mul(x, inner), set.splat(TWICE_ROOT))
    }
}

struct Gated<'a, A> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
    activation: A,
}

impl<A: Sigmoidal> Operation for Gated<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run<S: KernelSet>(self, set: S) {
        let Self {
            gate,
            up,
            out,
            activation,
        } = self;
        assert!(gate.len() == out.len() && up.len() == out.len());
        let (gates, last_gate) = gate.as_chunks::<LANES>();
        let (ups, last_up) = up.as_chunks::<LANES>();
        let (outs, last_out) = out.as_chunks_mut::<LANES>();
        for ((gate, up), out) in gates.iter().zip(ups).zip(outs) {
            gated(set, &activation, (gate, up), out);
        }
        if !last_out.is_empty() {
            let (mut gate, mut up, mut out) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
            gate[..last_gate.len()].copy_from_slice(last_gate);
            up[..last_up.len()].copy_from_slice(last_up);
            gated(set, &activation, (&gate, &up), &mut out);
            last_out.copy_from_slice(&out[..last_out.len()]);
        }
    }
}

#[inline(always)]
fn gated<S: KernelSet>(
    set: S,
    activation: &impl Sigmoidal,
    (gate, up): (&[f32; LANES], &[f32; LANES]),
    out: &mut [f32; LANES],
) {
    let gate = set.load(gate);
    let y = activation.exponent(set, gate);
    let negative = exponential(set, set.sub(set.splat(0.0), y));
    let activated = set.div(gate, set.add(set.splat(1.0), negative));
    set.store(set.mul(activated, set.load(up)), out);
}

/// `exp(x)`, relative error below 2⁻²¹ between -87 and 88, which stand for all beyond: `2ⁿ · p(r)` with
/// `x = n·ln 2 + r` and p the Taylor polynomial of degree 6 on |r| ≤ ln 2 / 2. Not a number stays that.
#[inline(always)]
pub(super) fn exponential<S: KernelSet>(set: S, x: S::Floats) -> S::Floats {
    // ln 2 in two parts, the first so short that its product with n is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = set.min(set.splat(88.0), set.max(set.splat(-87.0), x));
    let power = set.round(set.mul(x, set.splat(std::f32::consts::LOG2_E)));
    let n = set.to_floats(power);
    let r = set.fma(n, set.splat(-LN_2_HIGH), x);
    let r = set.fma(n, set.splat(-LN_2_LOW), r);
    let mut p = set.splat(1.0 / 720.0);
    for coefficient in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = set.fma(p, r, set.splat(coefficient));
    }
    set.mul(p, set.power_of_two(power))
}
