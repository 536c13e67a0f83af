//! The memory that adapters share: how much of it they may take, and who has to go when it is full.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use thiserror::Error;

use crate::lease::{Hold, Slot};

/// What the engine makes of an adapter, as far as the registry must know.
pub trait Weights: Send + Sync + 'static {
    /// Bytes of memory they take.
    fn bytes(&self) -> usize;
}

/// Adapters that are in memory, within a budget of bytes.
///
/// When it is full, the version that has gone unused for longest leaves. One that is in use or pinned never does.
pub struct Memory<W: Weights> {
    budget: usize,
    /// Bytes of all weights that are held, those of removed names with requests in flight included.
    used: Arc<AtomicUsize>,
    uses: AtomicU64,
    evictions: AtomicU64,
    resident: Mutex<Vec<Weak<Slot<W>>>>,
}

/// Why weights did not find a place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MemoryError {
    /// They alone are more than the budget.
    #[error(
        "adapter '{name}' takes {needed} bytes in memory and all adapters together may take {budget}; start the server with a larger --adapter-memory-bytes"
    )]
    TooLarge {
        /// The adapter's name.
        name: String,
        /// Bytes of its weights.
        needed: usize,
        /// Bytes of the budget.
        budget: usize,
    },
    /// All others are in use or pinned.
    #[error(
        "adapter '{name}' takes {needed} bytes in memory; of {budget} bytes {used} are taken by adapters that are in use or pinned; try again later"
    )]
    Full {
        /// The adapter's name.
        name: String,
        /// Bytes of its weights.
        needed: usize,
        /// Bytes of the budget.
        budget: usize,
        /// Bytes that are taken and cannot be freed now.
        used: usize,
    },
}

impl<W: Weights> Memory<W> {
    /// Room for that many bytes of weights.
    pub fn new(budget: usize) -> Self {
        Self {
            budget,
            used: Arc::default(),
            uses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            resident: Mutex::default(),
        }
    }

    /// Bytes that adapters may take together.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// Bytes that adapters take together.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    /// Versions that have had to leave so far.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// A slot without weights whose bytes will be counted here.
    pub(crate) fn slot(&self, name: &str, summary: crate::Summary) -> Arc<Slot<W>> {
        Arc::new(Slot::new(name, summary, &self.used))
    }

    /// A hold that counts as a use.
    pub(crate) fn hold(&self, slot: &Arc<Slot<W>>) -> Hold<W> {
        slot.used(self.uses.fetch_add(1, Ordering::Relaxed) + 1);
        Hold::of(Arc::clone(slot))
    }

    /// Puts weights into a slot, and evicts what must make room.
    ///
    /// # Errors
    /// See [`MemoryError`]; what was evicted until it was clear that it does not suffice stays out.
    pub(crate) fn place(&self, slot: &Arc<Slot<W>>, weights: Arc<W>) -> Result<(), MemoryError> {
        let needed = weights.bytes();
        if needed > self.budget {
            return Err(MemoryError::TooLarge {
                name: slot.name.clone(),
                needed,
                budget: self.budget,
            });
        }
        // Held to the end, so that two do not fill the same room.
        let mut resident = self.resident.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.resident_bytes() > 0 {
            return Ok(());
        }
        resident.retain(|slot| slot.strong_count() > 0);
        if self.used() + needed > self.budget {
            self.make_room(&mut resident, needed);
        }
        let used = self.used();
        if used + needed > self.budget {
            return Err(MemoryError::Full {
                name: slot.name.clone(),
                needed,
                budget: self.budget,
                used,
            });
        }
        slot.fill(weights);
        resident.push(Arc::downgrade(slot));
        Ok(())
    }

    fn make_room(&self, resident: &mut Vec<Weak<Slot<W>>>, needed: usize) {
        let mut idle: Vec<Arc<Slot<W>>> = resident.iter().filter_map(Weak::upgrade).collect();
        idle.retain(|slot| slot.in_flight() == 0 && !slot.is_pinned());
        idle.sort_by_key(|slot| slot.last_used());
        for slot in idle {
            if self.used() + needed <= self.budget {
                break;
            }
            if slot.evict() {
                self.evictions.fetch_add(1, Ordering::Relaxed);
            }
        }
        resident.retain(|slot| slot.upgrade().is_some_and(|slot| slot.resident_bytes() > 0));
    }
}
