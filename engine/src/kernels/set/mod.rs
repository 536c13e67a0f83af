//! What the kernels need of an instruction set. Algorithms are written once over [`KernelSet`]; this module has the
//! trait and the choice at run time, its children one set each. No algorithm belongs here.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use half::{bf16, f16};

use super::KernelChoice;

/// Lanes of a vector, and output rows of a tile.
pub(super) const LANES: usize = 16;

/// Sixteen lanes of an instruction set, whatever registers they take.
///
/// A value of a set's type is proof that this CPU has its instructions: only the entry point that [`KernelChoice::run`]
/// guards makes one. All methods, and all functions between the entry point and them, are inlined, so that they are
/// compiled for the instructions of the entry point; a closure or a call that is not inlined would lose them.
pub(super) trait KernelSet: Copy {
    /// 16 × f32.
    type Floats: Copy;
    /// 16 × i32.
    type Ints: Copy;
    /// 16 rows × 32 inputs of weights, ready to be multiplied by bytes.
    type Weights: Copy;

    /// What `dot_8` leaves on every weight: the caller subtracts it times the sum of the quants.
    const OFFSET_8: i32;
    /// Sums that a float product runs side by side, so that one addition need not wait for the last.
    const CHAINS: usize;
    /// Whether eight rows' sums fit the registers; four do otherwise.
    const EIGHT_ROWS: bool;

    fn splat(self, value: f32) -> Self::Floats;
    fn load(self, from: &[f32; LANES]) -> Self::Floats;
    fn store(self, values: Self::Floats, to: &mut [f32; LANES]);
    fn load_f16(self, from: &[f16; LANES]) -> Self::Floats;
    fn load_bf16(self, from: &[bf16; LANES]) -> Self::Floats;
    fn load_u8(self, from: &[u8; LANES]) -> Self::Floats;
    fn load_i8(self, from: &[i8; LANES]) -> Self::Floats;

    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn div(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a · b + c`, rounded once where the CPU can.
    fn fma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// The smaller; `b` where one is not a number.
    fn min(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The larger; `b` where one is not a number.
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn abs(self, a: Self::Floats) -> Self::Floats;
    /// The largest lane.
    fn largest(self, a: Self::Floats) -> f32;
    /// The sum of the lanes, in one fixed order.
    fn sum(self, a: Self::Floats) -> f32;
    /// To the nearest integer, ties to even; magnitudes below 2²².
    fn round(self, a: Self::Floats) -> Self::Ints;

    fn splat_int(self, value: i32) -> Self::Ints;
    fn add_ints(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// `254 · coarse + fine`: both bytes of an activation in one number.
    fn combine(self, coarse: Self::Ints, fine: Self::Ints) -> Self::Ints;
    fn to_floats(self, a: Self::Ints) -> Self::Floats;
    /// `2ᵃ` for -126 ≤ a ≤ 127.
    fn power_of_two(self, a: Self::Ints) -> Self::Floats;
    fn sum_ints(self, a: Self::Ints) -> i32;
    /// Stores lanes within ±127 as bytes.
    fn store_bytes(self, a: Self::Ints, to: &mut [i8; LANES]);

    /// 4-bit weights, see `packed::tiles`.
    fn unpack_4(self, quants: &[u8; 256]) -> Self::Weights;
    /// 5-bit weights: the fifth bits are in `high`.
    fn unpack_5(self, quants: &[u8; 256], high: &[u8; 64]) -> Self::Weights;
    /// 6-bit weights: the fifth and sixth bits are in `high`.
    fn unpack_6(self, quants: &[u8; 256], high: &[u8; 128]) -> Self::Weights;
    /// 8-bit weights, stored plus 128.
    fn unpack_8(self, quants: &[u8; 512]) -> Self::Weights;
    /// Products with 32 activations, exact, of weights of `bits` ≤ 5 unsigned bits. `bits` is a constant of the caller.
    fn dot(self, weights: &Self::Weights, bits: u32, activations: &[i8; 32]) -> Self::Ints;
    /// Products of 6-bit weights with the first and the last 16 activations, exact.
    fn dot_halves(self, weights: &Self::Weights, activations: &[i8; 32]) -> [Self::Ints; 2];
    /// Products of 8-bit weights plus [`KernelSet::OFFSET_8`] with 32 activations, exact.
    fn dot_8(self, weights: &Self::Weights, activations: &[i8; 32]) -> Self::Ints;
}

/// An algorithm over any kernel set.
pub(super) trait Operation {
    type Output;

    /// Implementations must be `#[inline(always)]`, see [`KernelSet`].
    fn run<S: KernelSet>(self, set: S) -> Self::Output;
}

impl KernelChoice {
    /// Runs an operation compiled for this choice's instructions.
    #[inline]
    pub(super) fn run<O: Operation>(self, operation: O) -> O::Output {
        match self {
            Self::Portable => portable::run(operation),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this choice is only made on CPUs that have the features (`KernelChoice::is_available`).
            Self::Avx2 => unsafe { avx2::run(operation) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this choice is only made on CPUs that have the features (`KernelChoice::is_available`).
            Self::Avx512Vnni => unsafe { avx512::run(operation) },
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512Vnni => portable::run(operation),
        }
    }

    /// Queries that share one pass over keys: as many as leave their sums in registers.
    pub(super) fn query_group(self) -> usize {
        match self {
            Self::Avx512Vnni => 8,
            Self::Avx2 => 3,
            Self::Portable => 4,
        }
    }

    /// Rows that share one pass over weights.
    pub(super) fn row_group(self) -> usize {
        match self {
            Self::Avx512Vnni => 8,
            Self::Portable | Self::Avx2 => 4,
        }
    }
}
