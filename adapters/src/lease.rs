//! Leases: how a request holds on to one version of an adapter from admission to its last token.
//!
//! Here belong one version under one name, whose weights come and go, and the guards that count its users. Which version a name
//! means is the registry's business, which weights have to go is the memory's.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Summary, Weights};

/// A hold on one version of an adapter, in memory or not.
///
/// It counts as a use, so that weights which are there, or are put there, stay for as long as it is held.
pub struct Hold<W: Weights> {
    slot: Arc<Slot<W>>,
}

/// A hold on one version of an adapter that is in memory.
///
/// The weights stay alive at least as long as the lease, whatever happens to the name meanwhile: when it moves to
/// another version or is removed, the last lease to go frees them. Each lease, clones included, counts once in
/// [`VersionStatus::in_flight`](crate::registry::VersionStatus::in_flight).
pub struct Lease<W: Weights> {
    hold: Hold<W>,
    weights: Arc<W>,
}

/// One version under one name, as the registry keeps it.
pub(crate) struct Slot<W: Weights> {
    pub(crate) name: String,
    pub(crate) summary: Summary,
    weights: Mutex<Option<Arc<W>>>,
    leases: AtomicUsize,
    /// A count of uses of all slots at the latest use of this one.
    last_used: AtomicU64,
    /// Whether idle weights stay all the same.
    pinned: AtomicBool,
    /// Where the bytes of weights that are there are counted.
    ledger: Arc<AtomicUsize>,
}

impl<W: Weights> Hold<W> {
    /// Takes a hold; the only place that counts up, as `drop` is the only one that counts down.
    pub(crate) fn of(slot: Arc<Slot<W>>) -> Self {
        slot.leases.fetch_add(1, Ordering::SeqCst);
        Self { slot }
    }

    /// The name that was asked for.
    pub fn name(&self) -> &str {
        &self.slot.name
    }

    /// What the version is: its digest, rank, task and so on.
    pub fn summary(&self) -> &Summary {
        &self.slot.summary
    }

    /// A lease if the weights are in memory.
    ///
    /// # Errors
    /// The hold itself when they are not.
    pub fn lease(self) -> Result<Lease<W>, Self> {
        let weights = self.slot.weights().clone();
        match weights {
            Some(weights) => Ok(Lease {
                hold: self,
                weights,
            }),
            None => Err(self),
        }
    }

    pub(crate) fn slot(&self) -> &Arc<Slot<W>> {
        &self.slot
    }
}

impl<W: Weights> Lease<W> {
    /// The name that was asked for.
    pub fn name(&self) -> &str {
        self.hold.name()
    }

    /// What the leased version is: its digest, rank, task and so on.
    pub fn summary(&self) -> &Summary {
        self.hold.summary()
    }

    /// The prepared weights of the leased version.
    pub fn weights(&self) -> &Arc<W> {
        &self.weights
    }
}

impl<W: Weights> Clone for Hold<W> {
    fn clone(&self) -> Self {
        Self::of(Arc::clone(&self.slot))
    }
}

impl<W: Weights> Clone for Lease<W> {
    fn clone(&self) -> Self {
        Self {
            hold: self.hold.clone(),
            weights: Arc::clone(&self.weights),
        }
    }
}

impl<W: Weights> Drop for Hold<W> {
    fn drop(&mut self) {
        self.slot.leases.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<W: Weights> fmt::Debug for Hold<W> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Hold")
            .field("name", &self.slot.name)
            .field("version", &self.slot.summary.version)
            .finish_non_exhaustive()
    }
}

impl<W: Weights> fmt::Debug for Lease<W> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Lease").field(&self.hold).finish()
    }
}

impl<W: Weights> Slot<W> {
    pub(crate) fn new(name: &str, summary: Summary, ledger: &Arc<AtomicUsize>) -> Self {
        Self {
            name: name.to_owned(),
            summary,
            weights: Mutex::new(None),
            leases: AtomicUsize::new(0),
            last_used: AtomicU64::new(0),
            pinned: AtomicBool::new(false),
            ledger: Arc::clone(ledger),
        }
    }

    /// How many holds and leases there are at this moment.
    pub(crate) fn in_flight(&self) -> usize {
        self.leases.load(Ordering::SeqCst)
    }

    /// Bytes of the weights, 0 when they are not in memory.
    pub(crate) fn resident_bytes(&self) -> usize {
        self.weights().as_ref().map_or(0, |weights| weights.bytes())
    }

    pub(crate) fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }

    pub(crate) fn used(&self, now: u64) {
        self.last_used.store(now, Ordering::Relaxed);
    }

    pub(crate) fn pin(&self, pinned: bool) {
        self.pinned.store(pinned, Ordering::SeqCst);
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.pinned.load(Ordering::SeqCst)
    }

    /// Puts weights in place and counts them; those that are there already stay, and are the same.
    pub(crate) fn fill(&self, weights: Arc<W>) {
        let mut place = self.weights();
        if place.is_none() {
            self.ledger.fetch_add(weights.bytes(), Ordering::SeqCst);
            *place = Some(weights);
        }
    }

    /// Lets go of the weights unless somebody uses them; whether it did.
    pub(crate) fn evict(&self) -> bool {
        let mut place = self.weights();
        // Counted under the lock: whoever takes a hold counts first and looks for the weights then.
        if self.in_flight() > 0 || self.is_pinned() {
            return false;
        }
        let Some(weights) = place.take() else {
            return false;
        };
        self.ledger.fetch_sub(weights.bytes(), Ordering::SeqCst);
        true
    }

    fn weights(&self) -> MutexGuard<'_, Option<Arc<W>>> {
        // Nothing in here panics half-way.
        self.weights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Weights> Drop for Slot<W> {
    fn drop(&mut self) {
        let bytes = self.resident_bytes();
        self.ledger.fetch_sub(bytes, Ordering::SeqCst);
    }
}
