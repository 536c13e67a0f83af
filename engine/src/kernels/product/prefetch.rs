//! Fetching weights ahead of the products that read them.

/// How far ahead weights are fetched.
const AHEAD: usize = 4096;

/// Bytes that the memory hands over together.
const LINE: usize = 64;

/// Asks for what stands [`AHEAD`] of these values, as much as they are.
///
/// The CPU fetches ahead by itself only within a page of 4 KiB, and behind the products of a block with several rows it
/// sees too few of the next loads to hide the memory's latency. On two cores with AVX-512 this nearly doubles what eight
/// streams get (`cargo bench -p engine streams`).
#[inline(always)]
pub(super) fn prefetch_after<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let ahead = values.as_ptr().cast::<i8>().wrapping_add(AHEAD);
        for line in 0..size_of_val(values).div_ceil(LINE) {
            // SAFETY: a prefetch is a hint that never faults, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line * LINE)) }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, AHEAD, LINE);
}
