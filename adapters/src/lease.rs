//! Leases: how a request holds on to one version of an adapter from admission to its last token.
//!
//! Here belong a loaded version and the guard that counts its users. Which version a name means is the
//! registry's business.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Summary;

/// A hold on one loaded version of an adapter.
///
/// The weights stay alive at least as long as the lease, whatever happens to the name meanwhile: when it moves to
/// another version or is removed, the last lease to go frees them. Each lease, clones included, counts once in
/// [`VersionStatus::in_flight`](crate::registry::VersionStatus::in_flight).
pub struct Lease<W> {
    loaded: Arc<Loaded<W>>,
}

/// One version under one name, as the registry keeps it.
pub(crate) struct Loaded<W> {
    pub(crate) name: String,
    pub(crate) summary: Summary,
    pub(crate) weights: Arc<W>,
    leases: AtomicUsize,
}

impl<W> Lease<W> {
    /// Takes a hold; the only place that counts up, as `drop` is the only one that counts down.
    pub(crate) fn of(loaded: Arc<Loaded<W>>) -> Self {
        loaded.leases.fetch_add(1, Ordering::Relaxed);
        Self { loaded }
    }

    /// The name that was asked for.
    pub fn name(&self) -> &str {
        &self.loaded.name
    }

    /// What the leased version is: its digest, rank, task and so on.
    pub fn summary(&self) -> &Summary {
        &self.loaded.summary
    }

    /// The prepared weights of the leased version.
    pub fn weights(&self) -> &Arc<W> {
        &self.loaded.weights
    }
}

impl<W> Clone for Lease<W> {
    fn clone(&self) -> Self {
        Self::of(Arc::clone(&self.loaded))
    }
}

impl<W> Drop for Lease<W> {
    fn drop(&mut self) {
        self.loaded.leases.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<W> fmt::Debug for Lease<W> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Lease")
            .field("name", &self.loaded.name)
            .field("version", &self.loaded.summary.version)
            .finish_non_exhaustive()
    }
}

impl<W> Loaded<W> {
    pub(crate) fn new(name: &str, summary: Summary, weights: Arc<W>) -> Self {
        Self {
            name: name.to_owned(),
            summary,
            weights,
            leases: AtomicUsize::new(0),
        }
    }

    /// How many leases are held at this moment.
    pub(crate) fn in_flight(&self) -> usize {
        self.leases.load(Ordering::Relaxed)
    }
}
