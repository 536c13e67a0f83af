//! Fetching what will be read next while something else is computed.
//!
//! The CPU fetches ahead by itself only within a page of 4 KiB, and behind the arithmetic of several rows it sees too few
//! of the next loads to hide the memory's latency. On two cores with AVX-512 this nearly doubles what eight streams get
//! (`cargo bench -p engine streams`).

/// How far ahead of a product its weights are fetched.
const AHEAD: usize = 4096;

/// Bytes that the memory hands over together.
const LINE: usize = 64;

/// Asks for what stands [`AHEAD`] of these values, as much as they are.
#[inline(always)]
pub(super) fn prefetch_after<T>(values: &[T]) {
    prefetch_bytes(
        values.as_ptr().cast::<u8>().wrapping_add(AHEAD),
        size_of_val(values),
    );
}

/// Asks for what [`prefetch_after`] leaves out of these values: their beginning.
#[inline(always)]
pub(super) fn prefetch_beginning<T>(values: &[T]) {
    prefetch(&values[..values.len().min(AHEAD / size_of::<T>())]);
}

/// Asks for these values.
#[inline(always)]
pub(super) fn prefetch<T>(values: &[T]) {
    prefetch_bytes(values.as_ptr().cast(), size_of_val(values));
}

#[inline(always)]
fn prefetch_bytes(from: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..bytes.div_ceil(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint that never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(line * LINE).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, bytes, LINE);
}
