//! What several threads see of one name and of a small memory, and what is dropped when.

use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::tests::{Fake, summary, version};
use super::*;
use crate::Cause;

/// Weights that note, when they are dropped, whether anybody holds a lock on their name.
struct Witness {
    registry: Weak<Registry<Witness>>,
    dropped: Arc<AtomicUsize>,
    locked: Arc<AtomicUsize>,
}

impl Weights for Witness {
    fn bytes(&self) -> usize {
        1
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
        if let Some(registry) = self.registry.upgrade()
            && registry.names.try_get_mut("mood").is_locked()
        {
            self.locked.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[test]
fn weights_are_dropped_outside_the_lock() {
    let registry = Arc::new(Registry::new(100));
    let (dropped, locked) = (Arc::default(), Arc::default());
    let load = |number| {
        let witness = Arc::new(Witness {
            registry: Arc::downgrade(&registry),
            dropped: Arc::clone(&dropped),
            locked: Arc::clone(&locked),
        });
        let pointer = match registry.get("mood") {
            None => ActivePointer::first(version(number), 0),
            Some(entry) => entry.pointer.activated(&version(number), 0, Cause::Load),
        };
        let published = registry.publish("mood", [summary(number)], (pointer, None));
        published.expect("all it names is retained");
        let hold = registry.hold("mood").expect("published");
        registry.place(hold, &witness).map(drop).expect("room");
    };
    load(1);
    load(1);
    assert_eq!(
        dropped.load(Ordering::SeqCst),
        1,
        "those that were there stay"
    );
    load(2);
    let entry = registry.entry("mood").expect("published");
    let rest = entry
        .without(&version(1))
        .expect("idle")
        .expect("one is left");
    registry
        .remove_version("mood", &version(1), Some((rest, None)))
        .expect("not named");
    assert_eq!(dropped.load(Ordering::SeqCst), 2);
    registry.remove("mood").expect("published");
    assert_eq!(dropped.load(Ordering::SeqCst), 3);
    assert_eq!(locked.load(Ordering::SeqCst), 0);
}

/// Four threads use eight names in a memory for three, two others swap a ninth: whoever has a lease has the weights of its
/// version, the budget holds at every moment, and nothing stays counted at the end.
#[test]
fn leases_swaps_and_evictions_see_whole_states() {
    const BYTES: usize = 10;
    let registry = Registry::new(3 * BYTES + BYTES / 2);
    for number in 1..=8 {
        let pointer = ActivePointer::first(version(number), 0);
        registry
            .publish(&number.to_string(), [summary(number)], (pointer, None))
            .expect("new");
    }
    let swapped = [summary(21), summary(22), summary(23)];
    let first = ActivePointer::first(version(21), 0);
    registry
        .publish("swapped", swapped, (first, None))
        .expect("new");
    let with_weights = |hold: Hold<Fake>| match hold.lease() {
        Ok(lease) => Some(lease),
        Err(hold) => {
            let digits = &hold.summary().version.as_str()[..2];
            let number = u8::from_str_radix(digits, 16).expect("two digits");
            // Refused while all others are in use.
            registry.place(hold, &Arc::new(Fake(number, BYTES))).ok()
        }
    };
    let use_it = &|name: &str| {
        let lease = with_weights(registry.hold(name).expect("never removed"));
        if let Some(lease) = lease {
            assert_eq!(lease.summary().version, version(lease.weights().0));
        }
        assert!(registry.memory().used() <= registry.memory().budget());
    };
    thread::scope(|scope| {
        for thread in 0..4_u32 {
            scope.spawn(move || {
                for round in 0..2_000_u32 {
                    use_it(&((round * (thread + 1) + thread) % 8 + 1).to_string());
                    use_it("swapped");
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for round in 0..2_000_u32 {
                    let entry = registry.entry("swapped").expect("never removed");
                    let number = 21 + u8::try_from(round % 3).expect("below 3");
                    let next = entry
                        .pointer
                        .activated(&version(number), 0, Cause::Activate);
                    registry.point("swapped", (next, None)).expect("retained");
                    let active = entry.versions.iter().filter(|status| status.active);
                    assert_eq!(active.count(), 1);
                }
            });
        }
    });
    for entry in registry.list() {
        assert!(entry.versions.iter().all(|version| version.in_flight == 0));
        registry.remove(&entry.name).expect("still there");
    }
    assert_eq!(registry.memory().used(), 0);
}

#[test]
fn everything_crosses_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<Registry<Fake>>();
    crosses::<Lease<Fake>>();
    crosses::<Entry>();
    crosses::<RegistryError>();
}
