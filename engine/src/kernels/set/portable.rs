//! Plain Rust for any CPU: arrays of fixed size, in shapes that compilers turn into vector instructions.

use std::array::from_fn;

use half::{bf16, f16};

use super::{KernelSet, LANES, Operation};

#[derive(Clone, Copy)]
pub(super) struct Portable;

pub(super) fn run<O: Operation>(operation: O) -> O::Output {
    operation.run(Portable)
}

impl Portable {
    /// Products of some parts of the weights with their activations; as many are added in 16 bits as cannot overflow.
    #[inline(always)]
    fn dot_parts(
        self,
        weights: &[[i16; 64]; 8],
        activations: &[i8; 32],
        (first, parts, chain): (usize, usize, usize),
    ) -> [i32; LANES] {
        let words = activations.as_chunks::<4>().0;
        let mut totals = [0i32; LANES];
        for start in (first..first + parts).step_by(chain) {
            let range = start..start + chain;
            add_products(&weights[range.clone()], &words[range], &mut totals);
        }
        totals
    }
}

/// Adds to each lane the products of its four weights in every part with that part's four activations.
///
/// A function of its own with sums in memory: compilers see the lanes in order there and take them eight at a time.
#[inline(never)]
fn add_products(weights: &[[i16; 64]], words: &[[i8; 4]], totals: &mut [i32; LANES]) {
    let mut sums = [[0i16; 8]; 8];
    for (weights, word) in weights.iter().zip(words) {
        let twice: [i16; 8] = from_fn(|at| i16::from(word[at % 4]));
        for (sums, weights) in sums.iter_mut().zip(weights.as_chunks::<8>().0) {
            for ((sum, weight), value) in sums.iter_mut().zip(weights).zip(&twice) {
                *sum = sum.wrapping_add(weight.wrapping_mul(*value));
            }
        }
    }
    for (totals, sums) in totals.as_chunks_mut::<2>().0.iter_mut().zip(&sums) {
        let pairs: [i32; 4] = from_fn(|at| i32::from(sums[2 * at]) + i32::from(sums[2 * at + 1]));
        totals[0] += pairs[0] + pairs[1];
        totals[1] += pairs[2] + pairs[3];
    }
}

impl KernelSet for Portable {
    type Floats = [f32; LANES];
    type Ints = [i32; LANES];
    type Weights = [[i16; 64]; 8];

    const OFFSET_8: i32 = 0;
    const CHAINS: usize = 1;
    const EIGHT_ROWS: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Floats {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::Floats {
        *from
    }

    #[inline(always)]
    fn store(self, values: Self::Floats, to: &mut [f32; LANES]) {
        *to = values;
    }

    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> Self::Floats {
        from_fn(|lane| half_to_float(from[lane].to_bits()))
    }

    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> Self::Floats {
        from_fn(|lane| f32::from_bits(u32::from(from[lane].to_bits()) << 16))
    }

    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> Self::Floats {
        from.map(f32::from)
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::Floats {
        from.map(f32::from)
    }

    #[inline(always)]
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    fn div(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|lane| a[lane] / b[lane])
    }

    #[inline(always)]
    fn fma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        // Not `mul_add`, which is a slow function call where the CPU has no such instruction.
        from_fn(|lane| a[lane] * b[lane] + c[lane])
    }

    #[inline(always)]
    fn min(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|lane| if a[lane] < b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn abs(self, a: Self::Floats) -> Self::Floats {
        from_fn(|lane| a[lane].abs())
    }

    #[inline(always)]
    fn largest(self, a: Self::Floats) -> f32 {
        let four: [f32; 4] = from_fn(|at| a[at].max(a[at + 4]).max(a[at + 8].max(a[at + 12])));
        four[0].max(four[1]).max(four[2].max(four[3]))
    }

    #[inline(always)]
    fn sum(self, a: Self::Floats) -> f32 {
        let eight: [f32; 8] = from_fn(|at| a[at] + a[at + 8]);
        let four: [f32; 4] = from_fn(|at| eight[at] + eight[at + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }

    #[inline(always)]
    fn round(self, a: Self::Floats) -> Self::Ints {
        // Beside 1.5 · 2²³ a float has no fraction bits left: adding rounds, and the integer stands in the low bits.
        const ROUNDER: f32 = 12_582_912.0;
        from_fn(|lane| (a[lane] + ROUNDER).to_bits() as i32 - ROUNDER.to_bits() as i32)
    }

    #[inline(always)]
    fn splat_int(self, value: i32) -> Self::Ints {
        [value; LANES]
    }

    #[inline(always)]
    fn add_ints(self, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn combine(self, coarse: Self::Ints, fine: Self::Ints) -> Self::Ints {
        from_fn(|lane| (coarse[lane] << 8) - (coarse[lane] << 1) + fine[lane])
    }

    #[inline(always)]
    fn to_floats(self, a: Self::Ints) -> Self::Floats {
        from_fn(|lane| a[lane] as f32)
    }

    #[inline(always)]
    fn power_of_two(self, a: Self::Ints) -> Self::Floats {
        from_fn(|lane| f32::from_bits((a[lane].wrapping_add(127) as u32) << 23))
    }

    #[inline(always)]
    fn sum_ints(self, a: Self::Ints) -> i32 {
        a.iter().sum()
    }

    #[inline(always)]
    fn store_bytes(self, a: Self::Ints, to: &mut [i8; LANES]) {
        *to = from_fn(|lane| a[lane] as i8);
    }

    #[inline(always)]
    fn unpack_4(self, quants: &[u8; 256]) -> Self::Weights {
        let quants = quants.as_chunks::<64>().0;
        from_fn(|part| from_fn(|at| i16::from((quants[part % 4][at] >> (part / 4 * 4)) & 15)))
    }

    #[inline(always)]
    fn unpack_5(self, quants: &[u8; 256], high: &[u8; 64]) -> Self::Weights {
        let low = self.unpack_4(quants);
        from_fn(|part| from_fn(|at| low[part][at] | i16::from((high[at] >> part) & 1) << 4))
    }

    #[inline(always)]
    fn unpack_6(self, quants: &[u8; 256], high: &[u8; 128]) -> Self::Weights {
        let low = self.unpack_4(quants);
        let high = high.as_chunks::<64>().0;
        from_fn(|part| {
            let high = &high[part / 4];
            from_fn(|at| low[part][at] | i16::from((high[at] >> (part % 4 * 2)) & 3) << 4)
        })
    }

    #[inline(always)]
    fn unpack_8(self, quants: &[u8; 512]) -> Self::Weights {
        let quants = quants.as_chunks::<64>().0;
        from_fn(|part| from_fn(|at| i16::from(quants[part][at]) - 128))
    }

    #[inline(always)]
    fn dot(self, weights: &Self::Weights, _: u32, activations: &[i8; 32]) -> Self::Ints {
        // 8 · 127 · 31 stays below 2¹⁵.
        self.dot_parts(weights, activations, (0, 8, 8))
    }

    #[inline(always)]
    fn dot_halves(self, weights: &Self::Weights, activations: &[i8; 32]) -> [Self::Ints; 2] {
        // 4 · 127 · 63 stays below 2¹⁵.
        [
            self.dot_parts(weights, activations, (0, 4, 4)),
            self.dot_parts(weights, activations, (4, 4, 4)),
        ]
    }

    #[inline(always)]
    fn dot_8(self, weights: &Self::Weights, activations: &[i8; 32]) -> Self::Ints {
        // 2 · 127 · 128 stays below 2¹⁵.
        self.dot_parts(weights, activations, (0, 8, 2))
    }
}

/// Exact and without branches. Shifted into place, a half's bits are a float 2¹¹² times too small, subnormal or not.
#[inline(always)]
fn half_to_float(bits: u16) -> f32 {
    const UP: f32 = f32::from_bits((127 + 112) << 23);
    const INFINITE: u32 = 0x7f80_0000;
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let scaled = (f32::from_bits(magnitude) * UP).to_bits();
    let finite = magnitude < 0x7c00 << 13;
    let magnitude = if finite { scaled } else { magnitude | INFINITE };
    f32::from_bits(magnitude | u32::from(bits & 0x8000) << 16)
}
