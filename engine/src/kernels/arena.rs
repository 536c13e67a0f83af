//! Memory for weights that every step reads from end to end, in huge pages.
//!
//! In pages of 4 KiB a model has more of them than the CPU remembers translations of, and reading it waits for page tables as
//! well as for memory. Matrices are smaller than a huge page, so they share an arena's.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use memmap2::{MmapMut, MmapRaw};

/// What Linux calls a huge page on x86-64 and, by default, on AArch64.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes that are mapped at a time. What is not written to takes no memory, up to the end of a huge page.
const REGION: usize = 64 << 20;

/// Where values begin; the width of a cache line, and of a register that reads one.
const ALIGNMENT: usize = 64;

/// Takes values in one after another. A region is given back when the last of its values is dropped.
#[derive(Default)]
pub struct Arena(Mutex<Option<Filling>>);

/// A region with room left.
struct Filling {
    region: Arc<MmapRaw>,
    /// Bytes from the beginning of the mapping.
    next: usize,
    end: usize,
}

/// Values in an arena, or in memory of their own.
pub(super) struct ArenaVec<T>(Place<T>);

enum Place<T> {
    Own(Vec<T>),
    Region {
        region: Arc<MmapRaw>,
        /// Bytes from the beginning of the mapping.
        first: usize,
        count: usize,
        values: PhantomData<T>,
    },
}

impl Arena {
    /// Moves values here; they stay where they are when there is no memory for another region.
    pub(super) fn keep<T: Copy>(&self, values: Vec<T>) -> ArenaVec<T> {
        const { assert!(align_of::<T>() <= ALIGNMENT) };
        let Some((region, first)) = self.reserve(size_of_val(values.as_slice())) else {
            return ArenaVec::from(values);
        };
        let count = values.len();
        // SAFETY: `reserve` gave away this many bytes of the mapping, aligned for any T, once and to nobody else. The
        // mapping does not move, and nothing refers to these bytes before this function returns.
        unsafe {
            let to = region.as_mut_ptr().add(first).cast::<T>();
            std::ptr::copy_nonoverlapping(values.as_ptr(), to, count);
        }
        ArenaVec(Place::Region {
            region,
            first,
            count,
            values: PhantomData,
        })
    }

    /// A region and where in it there are `bytes` bytes that nobody else has.
    fn reserve(&self, bytes: usize) -> Option<(Arc<MmapRaw>, usize)> {
        let mut filling = self.0.lock().expect("nothing panics while it holds this");
        if filling
            .as_ref()
            .is_none_or(|one| one.end - one.next < bytes)
        {
            *filling = Some(Filling::new(bytes.max(REGION)).ok()?);
        }
        let filling = filling.as_mut()?;
        let first = filling.next;
        filling.next = filling.end.min((first + bytes).next_multiple_of(ALIGNMENT));
        Some((Arc::clone(&filling.region), first))
    }
}

impl Filling {
    /// A region of `bytes` bytes that begins with a huge page.
    fn new(bytes: usize) -> std::io::Result<Self> {
        let bytes = bytes.next_multiple_of(HUGE_PAGE);
        let map = MmapMut::map_anon(bytes + HUGE_PAGE)?;
        let next = map.as_ptr().align_offset(HUGE_PAGE);
        // A kernel that has no huge pages, or is told not to give any, gives its usual ones.
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(memmap2::Advice::HugePage, next, bytes);
        Ok(Self {
            region: Arc::new(map.into()),
            next,
            end: next + bytes,
        })
    }
}

impl<T> From<Vec<T>> for ArenaVec<T> {
    fn from(values: Vec<T>) -> Self {
        Self(Place::Own(values))
    }
}

impl<T> Deref for ArenaVec<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match &self.0 {
            Place::Own(values) => values,
            Place::Region {
                region,
                first,
                count,
                ..
            } => {
                // SAFETY: `keep` wrote `count` values there, aligned, before it made this; nobody writes to them again, and
                // the mapping lives as long as `region`.
                unsafe {
                    let first = region.as_ptr().add(*first).cast::<T>();
                    std::slice::from_raw_parts(first, *count)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_come_back_as_they_were(lengths in prop::collection::vec(0usize..3000, 1..40)) {
            let arena = Arena::default();
            let bytes = |length: usize| vec![length as u8; length];
            let floats = |length: usize| (0..length).map(|at| at as f32).collect::<Vec<_>>();
            let kept: Vec<_> = lengths
                .iter()
                .map(|&length| (arena.keep(bytes(length)), arena.keep(floats(length))))
                .collect();
            drop(arena);
            for ((kept_bytes, kept_floats), &length) in kept.iter().zip(&lengths) {
                prop_assert_eq!(&kept_bytes[..], bytes(length));
                prop_assert_eq!(&kept_floats[..], floats(length));
            }
        }
    }

    #[test]
    fn what_is_larger_than_a_region_gets_one_of_its_own() {
        let arena = Arena::default();
        let before = arena.keep(vec![1.5f32; 5]);
        let large = arena.keep(vec![7u8; REGION + 1]);
        let after = arena.keep(vec![2.5f32; 5]);
        drop(arena);
        assert!(large.len() == REGION + 1 && large.iter().all(|byte| *byte == 7));
        assert_eq!((&before[..], &after[..]), (&[1.5; 5][..], &[2.5; 5][..]));
    }
}
