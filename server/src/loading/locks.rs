//! One lock per adapter name, and a bound on how many adapters are being loaded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, Semaphore, SemaphorePermit};

/// Adapters whose files are in memory twice, as read and as prepared, at the same time.
const LOADING_AT_ONCE: usize = 2;

/// Serialises what changes one name, without holding back other names.
#[derive(Debug)]
pub struct NameLocks {
    // Weak, so that a name nobody is changing costs nothing after the next lock is taken.
    locks: Mutex<HashMap<String, Weak<AsyncMutex<()>>>>,
    slots: Semaphore,
}

impl Default for NameLocks {
    fn default() -> Self {
        Self {
            locks: Mutex::default(),
            slots: Semaphore::new(LOADING_AT_ONCE),
        }
    }
}

impl NameLocks {
    /// Waits until nobody else changes what the name means.
    pub async fn lock(&self, name: &str) -> OwnedMutexGuard<()> {
        let lock = self.named(name);
        lock.lock_owned().await
    }

    /// Waits until there is memory for another load.
    pub async fn loading_slot(&self) -> SemaphorePermit<'_> {
        self.slots
            .acquire()
            .await
            .expect("the semaphore is never closed")
    }

    fn named(&self, name: &str) -> Arc<AsyncMutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(name).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(AsyncMutex::new(()));
        locks.insert(name.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_name_is_changed_by_one_at_a_time() {
        let locks = NameLocks::default();
        let held = locks.lock("tone").await;
        assert!(locks.lock("tone").now_or_never().is_none());
        assert!(locks.lock("style").now_or_never().is_some());
        drop(held);
        assert!(locks.lock("tone").now_or_never().is_some());
    }
}
