//! The arithmetic of a step on the CPU: packed products, attention, element-wise operations, and the choice among
//! instruction sets at run time. All `unsafe` of the project lives here, each block with its reason.
//!
//! Every kernel computes a row by the same operations in the same order whatever rows stand beside it, so a result is
//! the same bits alone or in any batch. What does not belong here: what the numbers mean.
#![expect(
    unsafe_code,
    reason = "instruction sets, memory that threads share, and mapped files"
)]

mod activation;
mod arena;
mod attention;
mod dense;
mod elementwise;
pub mod float_product;
mod mapped;
mod norm;
mod packed;
mod pool;
mod prefetch;
mod product;
mod rotary;
mod set;
#[cfg(test)]
mod tests;

use std::str::FromStr;

pub use activation::{QuantizedRows, Resolution};
pub use arena::Arena;
pub use attention::{
    AttentionRows, AttentionShape, BLOCK_TOKENS, KvView, QueryGroups, attend_rows,
};
pub use dense::DenseMatrix;
pub use elementwise::{geglu_row, rms_norm_row, rope_row, swiglu_row};
pub use mapped::MappedFile;
pub use norm::add_normed;
pub(crate) use packed::BLOCK;
pub use packed::{PackError, PackedMatrix, PackedReduction, TILE_ROWS};
pub use pool::Pool;
pub use product::{BatchRows, Expansion, LowRank, ProjectionOutput, RowGroup, project};
pub use rotary::{HeadTransform, KvRow, RotaryTable, rotate_and_store};

/// An instruction set that a kernel set is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelChoice {
    /// Plain Rust, any CPU.
    Portable,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F/BW/VL/DQ with VNNI and F16C.
    Avx512Vnni,
}

impl KernelChoice {
    /// Every kernel set this build knows.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512Vnni];

    /// The name used in `QUICKCHANGE_KERNELS` and `GET /version`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512Vnni => "avx512vnni",
        }
    }

    /// Whether this CPU can run it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vnni")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512Vnni => false,
        }
    }

    /// The fastest kernel set this CPU can run.
    pub fn best() -> Self {
        let fastest_first = [Self::Avx512Vnni, Self::Avx2];
        let available = fastest_first
            .into_iter()
            .find(|choice| choice.is_available());
        available.unwrap_or(Self::Portable)
    }
}

/// A name that no kernel set has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {}", KernelChoice::ALL.map(KernelChoice::name).join(" or "))]
pub struct UnknownKernels;

impl FromStr for KernelChoice {
    type Err = UnknownKernels;

    fn from_str(name: &str) -> Result<Self, UnknownKernels> {
        let mut all = Self::ALL.into_iter();
        all.find(|choice| choice.name() == name)
            .ok_or(UnknownKernels)
    }
}

/// A pointer that several threads write through, each to its own part.
#[derive(Clone, Copy)]
struct SharedPointer(*mut f32);

// SAFETY: every user of a SharedPointer writes disjoint ranges from different threads and joins them before the buffer
// is read; the ranges are argued where they are taken.
unsafe impl Sync for SharedPointer {}

impl SharedPointer {
    fn get(&self) -> *mut f32 {
        self.0
    }

    fn offset(&self, elements: usize) -> Self {
        Self(self.0.wrapping_add(elements))
    }
}
