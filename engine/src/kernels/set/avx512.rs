//! AVX-512 with VNNI: one register holds 16 lanes, and one instruction multiplies 64 bytes.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{KernelSet, LANES, Operation};

/// Proof that the CPU has AVX-512 F/BW/VL/DQ, VNNI and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx512Vnni(());

/// Runs an operation with these instructions; the caller has checked that the CPU has them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")]
pub(super) fn run<O: Operation>(operation: O) -> O::Output {
    operation.run(Avx512Vnni(()))
}

/// Wraps intrinsics that need nothing but the CPU's features and memory behind references of the right size.
macro_rules! intrinsics {
    ($expression:expr) => {
        // SAFETY: an `Avx512Vnni` exists only where the CPU has the features, and every pointer comes from a reference to as
        // many bytes as are read or written, without assumptions on alignment.
        unsafe { $expression }
    };
}

impl Avx512Vnni {
    /// Word `part` of the activations, in every lane.
    #[inline(always)]
    fn word(self, activations: &[i8; 32], part: usize) -> __m512i {
        let word = activations.as_chunks::<4>().0[part];
        intrinsics!(_mm512_set1_epi32(i32::from_le_bytes(
            word.map(|byte| byte as u8)
        )))
    }

    #[inline(always)]
    fn bytes(self, from: &[u8; 64]) -> __m512i {
        intrinsics!(_mm512_loadu_si512(from.as_ptr().cast()))
    }
}

impl KernelSet for Avx512Vnni {
    type Floats = __m512;
    type Ints = __m512i;
    type Weights = [__m512i; 8];

    const OFFSET_8: i32 = 128;
    const CHAINS: usize = 2;
    const EIGHT_ROWS: bool = true;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        intrinsics!(_mm512_set1_ps(value))
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> __m512 {
        intrinsics!(_mm512_loadu_ps(from.as_ptr()))
    }

    #[inline(always)]
    fn store(self, values: __m512, to: &mut [f32; LANES]) {
        intrinsics!(_mm512_storeu_ps(to.as_mut_ptr(), values))
    }

    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> __m512 {
        intrinsics!(_mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())))
    }

    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> __m512 {
        intrinsics!({
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        })
    }

    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> __m512 {
        intrinsics!(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(
            from.as_ptr().cast()
        ))))
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> __m512 {
        intrinsics!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(
            from.as_ptr().cast()
        ))))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        intrinsics!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        intrinsics!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        intrinsics!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        intrinsics!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        intrinsics!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        intrinsics!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        intrinsics!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        intrinsics!(_mm512_abs_ps(a))
    }

    #[inline(always)]
    fn largest(self, a: __m512) -> f32 {
        intrinsics!(_mm512_reduce_max_ps(a))
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        intrinsics!(_mm512_reduce_add_ps(a))
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512i {
        intrinsics!(_mm512_cvtps_epi32(a))
    }

    #[inline(always)]
    fn splat_int(self, value: i32) -> __m512i {
        intrinsics!(_mm512_set1_epi32(value))
    }

    #[inline(always)]
    fn add_ints(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsics!(_mm512_add_epi32(a, b))
    }

    #[inline(always)]
    fn combine(self, coarse: __m512i, fine: __m512i) -> __m512i {
        // Two shifts take less time than the 32-bit multiplication.
        intrinsics!({
            let most = _mm512_sub_epi32(fine, _mm512_slli_epi32::<1>(coarse));
            _mm512_add_epi32(_mm512_slli_epi32::<8>(coarse), most)
        })
    }

    #[inline(always)]
    fn to_floats(self, a: __m512i) -> __m512 {
        intrinsics!(_mm512_cvtepi32_ps(a))
    }

    #[inline(always)]
    fn power_of_two(self, a: __m512i) -> __m512 {
        intrinsics!({
            let exponent = _mm512_add_epi32(a, _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        })
    }

    #[inline(always)]
    fn sum_ints(self, a: __m512i) -> i32 {
        intrinsics!(_mm512_reduce_add_epi32(a))
    }

    #[inline(always)]
    fn store_bytes(self, a: __m512i, to: &mut [i8; LANES]) {
        intrinsics!(_mm_storeu_si128(
            to.as_mut_ptr().cast(),
            _mm512_cvtepi32_epi8(a)
        ))
    }

    #[inline(always)]
    fn unpack_4(self, quants: &[u8; 256]) -> Self::Weights {
        let quants = quants.as_chunks::<64>().0;
        intrinsics!({
            let mask = _mm512_set1_epi8(15);
            let mut weights = [_mm512_setzero_si512(); 8];
            for part in 0..4 {
                let bytes = self.bytes(&quants[part]);
                weights[part] = _mm512_and_si512(bytes, mask);
                weights[part + 4] = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask);
            }
            weights
        })
    }

    #[inline(always)]
    fn unpack_5(self, quants: &[u8; 256], high: &[u8; 64]) -> Self::Weights {
        let mut weights = self.unpack_4(quants);
        let high = self.bytes(high);
        for (part, weights) in weights.iter_mut().enumerate() {
            intrinsics!({
                let set = _mm512_test_epi8_mask(high, _mm512_set1_epi8((1u8 << part) as i8));
                *weights = _mm512_mask_add_epi8(*weights, set, *weights, _mm512_set1_epi8(16));
            });
        }
        weights
    }

    #[inline(always)]
    fn unpack_6(self, quants: &[u8; 256], high: &[u8; 128]) -> Self::Weights {
        let mut weights = self.unpack_4(quants);
        for (half, high) in high.as_chunks::<64>().0.iter().enumerate() {
            let high = self.bytes(high);
            intrinsics!({
                let mask = _mm512_set1_epi8(0x30);
                let shifted = [
                    _mm512_slli_epi16::<4>(high),
                    _mm512_slli_epi16::<2>(high),
                    high,
                    _mm512_srli_epi16::<2>(high),
                ];
                for part in 0..4 {
                    let bits = _mm512_and_si512(shifted[part], mask);
                    weights[half * 4 + part] = _mm512_or_si512(weights[half * 4 + part], bits);
                }
            });
        }
        weights
    }

    #[inline(always)]
    fn unpack_8(self, quants: &[u8; 512]) -> Self::Weights {
        let quants = quants.as_chunks::<64>().0;
        let mut weights = intrinsics!([_mm512_setzero_si512(); 8]);
        for (weights, quants) in weights.iter_mut().zip(quants) {
            *weights = self.bytes(quants);
        }
        weights
    }

    #[inline(always)]
    fn dot(self, weights: &Self::Weights, _: u32, activations: &[i8; 32]) -> __m512i {
        let [first, last] = self.dot_halves(weights, activations);
        self.add_ints(first, last)
    }

    #[inline(always)]
    fn dot_halves(self, weights: &Self::Weights, activations: &[i8; 32]) -> [__m512i; 2] {
        intrinsics!({
            let mut sums = [_mm512_setzero_si512(); 2];
            for part in 0..8 {
                let word = self.word(activations, part);
                sums[part / 4] = _mm512_dpbusd_epi32(sums[part / 4], weights[part], word);
            }
            sums
        })
    }

    #[inline(always)]
    fn dot_8(self, weights: &Self::Weights, activations: &[i8; 32]) -> __m512i {
        self.dot(weights, 8, activations)
    }
}
