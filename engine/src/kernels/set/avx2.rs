//! AVX2 with FMA and F16C: two registers hold 16 lanes. Bytes are multiplied in pairs that are added in 16 bits, with
//! saturation, so as many are added as cannot reach it: a pair is at most `2 · 127 · weight`.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{KernelSet, LANES, Operation};

/// Proof that the CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// Runs an operation with these instructions; the caller has checked that the CPU has them.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn run<O: Operation>(operation: O) -> O::Output {
    operation.run(Avx2(()))
}

/// Wraps intrinsics that need nothing but the CPU's features and memory behind references of the right size.
macro_rules! intrinsics {
    ($expression:expr) => {
        // SAFETY: an `Avx2` exists only where the CPU has the features, and every pointer comes from a reference to as many
        // bytes as are read or written, without assumptions on alignment.
        unsafe { $expression }
    };
}

/// One intrinsic for both halves of 16 lanes.
macro_rules! both {
    ($intrinsic:ident, $($argument:expr),+) => {
        intrinsics!([$intrinsic($($argument[0]),+), $intrinsic($($argument[1]),+)])
    };
}

impl Avx2 {
    /// Word `part` of the activations, in every lane.
    #[inline(always)]
    fn word(self, activations: &[i8; 32], part: usize) -> __m256i {
        let word = activations.as_chunks::<4>().0[part];
        intrinsics!(_mm256_set1_epi32(i32::from_le_bytes(
            word.map(|byte| byte as u8)
        )))
    }

    #[inline(always)]
    fn bytes(self, from: &[u8; 64]) -> [__m256i; 2] {
        let from = from.as_chunks::<32>().0;
        intrinsics!([
            _mm256_loadu_si256(from[0].as_ptr().cast()),
            _mm256_loadu_si256(from[1].as_ptr().cast())
        ])
    }

    #[inline(always)]
    fn zero(self) -> [__m256i; 2] {
        intrinsics!([_mm256_setzero_si256(); 2])
    }

    /// Products of four `parts` of the weights with their activations; `pairs` pairs are added in 16 bits.
    #[inline(always)]
    fn dot_parts(
        self,
        weights: &[[__m256i; 2]; 8],
        activations: &[i8; 32],
        (first, parts, pairs): (usize, usize, usize),
    ) -> [__m256i; 2] {
        let mut totals = self.zero();
        for start in (first..first + parts).step_by(pairs) {
            let mut sums = self.zero();
            let group = weights.iter().enumerate().skip(start).take(pairs);
            for (part, weights) in group {
                let word = self.word(activations, part);
                let products = both!(_mm256_maddubs_epi16, weights, [word, word]);
                sums = both!(_mm256_add_epi16, sums, products);
            }
            let ones = intrinsics!([_mm256_set1_epi16(1); 2]);
            totals = self.add_ints(totals, both!(_mm256_madd_epi16, sums, ones));
        }
        totals
    }

    #[inline(always)]
    fn four(self, a: __m128) -> [f32; 4] {
        let mut four = [0.0; 4];
        intrinsics!(_mm_storeu_ps(four.as_mut_ptr(), a));
        four
    }
}

impl KernelSet for Avx2 {
    type Floats = [__m256; 2];
    type Ints = [__m256i; 2];
    type Weights = [[__m256i; 2]; 8];

    const OFFSET_8: i32 = 0;
    const CHAINS: usize = 1;
    const EIGHT_ROWS: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Floats {
        intrinsics!([_mm256_set1_ps(value); 2])
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::Floats {
        let from = from.as_chunks::<8>().0;
        intrinsics!([
            _mm256_loadu_ps(from[0].as_ptr()),
            _mm256_loadu_ps(from[1].as_ptr())
        ])
    }

    #[inline(always)]
    fn store(self, values: Self::Floats, to: &mut [f32; LANES]) {
        let to = to.as_chunks_mut::<8>().0;
        intrinsics!({
            _mm256_storeu_ps(to[0].as_mut_ptr(), values[0]);
            _mm256_storeu_ps(to[1].as_mut_ptr(), values[1]);
        })
    }

    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> Self::Floats {
        let from = from.as_chunks::<8>().0;
        intrinsics!([
            _mm256_cvtph_ps(_mm_loadu_si128(from[0].as_ptr().cast())),
            _mm256_cvtph_ps(_mm_loadu_si128(from[1].as_ptr().cast()))
        ])
    }

    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> Self::Floats {
        let from = from.as_chunks::<8>().0;
        let mut wide = self.splat(0.0);
        for half in 0..2 {
            intrinsics!({
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from[half].as_ptr().cast()));
                wide[half] = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits));
            });
        }
        wide
    }

    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> Self::Floats {
        let from = from.as_chunks::<8>().0;
        self.to_floats(intrinsics!([
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(from[0].as_ptr().cast())),
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(from[1].as_ptr().cast()))
        ]))
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::Floats {
        let from = from.as_chunks::<8>().0;
        self.to_floats(intrinsics!([
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(from[0].as_ptr().cast())),
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(from[1].as_ptr().cast()))
        ]))
    }

    #[inline(always)]
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        both!(_mm256_add_ps, a, b)
    }

    #[inline(always)]
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        both!(_mm256_sub_ps, a, b)
    }

    #[inline(always)]
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        both!(_mm256_mul_ps, a, b)
    }

    #[inline(always)]
    fn div(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        both!(_mm256_div_ps, a, b)
    }

    #[inline(always)]
    fn fma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        both!(_mm256_fmadd_ps, a, b, c)
    }

    #[inline(always)]
    fn min(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        both!(_mm256_min_ps, a, b)
    }

    #[inline(always)]
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        both!(_mm256_max_ps, a, b)
    }

    #[inline(always)]
    fn abs(self, a: Self::Floats) -> Self::Floats {
        let signs = self.splat(-0.0);
        both!(_mm256_andnot_ps, signs, a)
    }

    #[inline(always)]
    fn largest(self, a: Self::Floats) -> f32 {
        let four = self.four(intrinsics!({
            let eight = _mm256_max_ps(a[0], a[1]);
            _mm_max_ps(
                _mm256_castps256_ps128(eight),
                _mm256_extractf128_ps::<1>(eight),
            )
        }));
        four[0].max(four[1]).max(four[2].max(four[3]))
    }

    #[inline(always)]
    fn sum(self, a: Self::Floats) -> f32 {
        let four = self.four(intrinsics!({
            let eight = _mm256_add_ps(a[0], a[1]);
            _mm_add_ps(
                _mm256_castps256_ps128(eight),
                _mm256_extractf128_ps::<1>(eight),
            )
        }));
        (four[0] + four[1]) + (four[2] + four[3])
    }

    #[inline(always)]
    fn round(self, a: Self::Floats) -> Self::Ints {
        both!(_mm256_cvtps_epi32, a)
    }

    #[inline(always)]
    fn splat_int(self, value: i32) -> Self::Ints {
        intrinsics!([_mm256_set1_epi32(value); 2])
    }

    #[inline(always)]
    fn add_ints(self, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        both!(_mm256_add_epi32, a, b)
    }

    #[inline(always)]
    fn combine(self, coarse: Self::Ints, fine: Self::Ints) -> Self::Ints {
        let mut all = fine;
        for half in 0..2 {
            intrinsics!({
                let most = _mm256_slli_epi32::<8>(coarse[half]);
                let least = _mm256_sub_epi32(fine[half], _mm256_slli_epi32::<1>(coarse[half]));
                all[half] = _mm256_add_epi32(most, least);
            });
        }
        all
    }

    #[inline(always)]
    fn to_floats(self, a: Self::Ints) -> Self::Floats {
        both!(_mm256_cvtepi32_ps, a)
    }

    #[inline(always)]
    fn power_of_two(self, a: Self::Ints) -> Self::Floats {
        let exponents = self.add_ints(a, self.splat_int(127));
        intrinsics!([
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponents[0])),
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponents[1]))
        ])
    }

    #[inline(always)]
    fn sum_ints(self, a: Self::Ints) -> i32 {
        let mut lanes = [0i32; 8];
        intrinsics!(_mm256_storeu_si256(
            lanes.as_mut_ptr().cast(),
            _mm256_add_epi32(a[0], a[1])
        ));
        lanes.iter().sum()
    }

    #[inline(always)]
    fn store_bytes(self, a: Self::Ints, to: &mut [i8; LANES]) {
        intrinsics!({
            // Packing works on 128-bit halves, so the quarters come out as 0, 2, 1, 3.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a[0], a[1]));
            let high = _mm256_extracti128_si256::<1>(words);
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), high);
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
        })
    }

    #[inline(always)]
    fn unpack_4(self, quants: &[u8; 256]) -> Self::Weights {
        let quants = quants.as_chunks::<64>().0;
        let mut weights = [self.zero(); 8];
        for part in 0..4 {
            let bytes = self.bytes(&quants[part]);
            for half in 0..2 {
                intrinsics!({
                    let mask = _mm256_set1_epi8(15);
                    weights[part][half] = _mm256_and_si256(bytes[half], mask);
                    let high = _mm256_srli_epi16::<4>(bytes[half]);
                    weights[part + 4][half] = _mm256_and_si256(high, mask);
                });
            }
        }
        weights
    }

    #[inline(always)]
    fn unpack_5(self, quants: &[u8; 256], high: &[u8; 64]) -> Self::Weights {
        let mut weights = self.unpack_4(quants);
        let high = self.bytes(high);
        for (part, weights) in weights.iter_mut().enumerate() {
            for half in 0..2 {
                intrinsics!({
                    let bit = _mm256_set1_epi8((1u8 << part) as i8);
                    let set = _mm256_cmpeq_epi8(_mm256_and_si256(high[half], bit), bit);
                    let sixteen = _mm256_and_si256(set, _mm256_set1_epi8(16));
                    weights[half] = _mm256_or_si256(weights[half], sixteen);
                });
            }
        }
        weights
    }

    #[inline(always)]
    fn unpack_6(self, quants: &[u8; 256], high: &[u8; 128]) -> Self::Weights {
        let mut weights = self.unpack_4(quants);
        for (four, high) in high.as_chunks::<64>().0.iter().enumerate() {
            let high = self.bytes(high);
            for half in 0..2 {
                intrinsics!({
                    let mask = _mm256_set1_epi8(0x30);
                    let shifted = [
                        _mm256_slli_epi16::<4>(high[half]),
                        _mm256_slli_epi16::<2>(high[half]),
                        high[half],
                        _mm256_srli_epi16::<2>(high[half]),
                    ];
                    for part in 0..4 {
                        let bits = _mm256_and_si256(shifted[part], mask);
                        let weights = &mut weights[four * 4 + part][half];
                        *weights = _mm256_or_si256(*weights, bits);
                    }
                });
            }
        }
        weights
    }

    #[inline(always)]
    fn unpack_8(self, quants: &[u8; 512]) -> Self::Weights {
        let quants = quants.as_chunks::<64>().0;
        let mut weights = [self.zero(); 8];
        let signs = intrinsics!([_mm256_set1_epi8(-128); 2]);
        for (weights, quants) in weights.iter_mut().zip(quants) {
            *weights = both!(_mm256_xor_si256, self.bytes(quants), signs);
        }
        weights
    }

    #[inline(always)]
    fn dot(self, weights: &Self::Weights, bits: u32, activations: &[i8; 32]) -> Self::Ints {
        // 8 · 2 · 127 · 15 and 4 · 2 · 127 · 31 stay below 2¹⁵.
        let pairs = if bits == 4 { 8 } else { 4 };
        self.dot_parts(weights, activations, (0, 8, pairs))
    }

    #[inline(always)]
    fn dot_halves(self, weights: &Self::Weights, activations: &[i8; 32]) -> [Self::Ints; 2] {
        // 2 · 2 · 127 · 63 stays below 2¹⁵.
        [
            self.dot_parts(weights, activations, (0, 4, 2)),
            self.dot_parts(weights, activations, (4, 4, 2)),
        ]
    }

    #[inline(always)]
    fn dot_8(self, weights: &Self::Weights, activations: &[i8; 32]) -> Self::Ints {
        let mut totals = self.zero();
        for (part, weights) in weights.iter().enumerate() {
            let word = self.word(activations, part);
            // The sign moves to the activations: 2 · 127 · 128 stays below 2¹⁵, 2 · 127 · 255 would not.
            let magnitudes = both!(_mm256_abs_epi8, weights);
            let signed = both!(_mm256_sign_epi8, [word, word], weights);
            let products = both!(_mm256_maddubs_epi16, magnitudes, signed);
            let ones = intrinsics!([_mm256_set1_epi16(1); 2]);
            totals = self.add_ints(totals, both!(_mm256_madd_epi16, products, ones));
        }
        totals
    }
}
