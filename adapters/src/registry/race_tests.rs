//! What several threads see of one name, and what is dropped when.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Weak};
use std::thread;

use super::tests::{entry, load, loaded, statuses, summary, version};
use super::*;

/// Weights that note, when they are dropped, whether anybody holds a lock on their name.
struct Witness {
    registry: Weak<Registry<Witness>>,
    dropped: Arc<AtomicUsize>,
    locked: Arc<AtomicUsize>,
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
    let registry = Arc::new(Registry::new());
    let (dropped, locked) = (Arc::default(), Arc::default());
    let insert = |number, policy| {
        let witness = Witness {
            registry: Arc::downgrade(&registry),
            dropped: Arc::clone(&dropped),
            locked: Arc::clone(&locked),
        };
        let summary = summary(version(number), 7);
        registry.insert("mood", summary, Arc::new(witness), policy, true)
    };
    insert(1, Policy::Create).expect("free");
    insert(1, Policy::Create).unwrap_err();
    insert(1, Policy::Upsert).expect("kept as it is");
    insert(2, Policy::CompareAndSwap(version(2))).unwrap_err();
    insert(2, Policy::Upsert).expect("new");
    assert_eq!(dropped.load(Ordering::SeqCst), 3);
    registry
        .remove_version("mood", "01010101")
        .expect("not active");
    assert_eq!(dropped.load(Ordering::SeqCst), 4);
    registry
        .remove_version("mood", "02020202")
        .expect("the last");
    assert_eq!(dropped.load(Ordering::SeqCst), 5);
    insert(3, Policy::Create).expect("free again");
    registry.remove("mood").expect("loaded");
    assert_eq!(dropped.load(Ordering::SeqCst), 6);
    assert_eq!(locked.load(Ordering::SeqCst), 0);
}

#[test]
fn concurrent_leases_and_swaps_see_whole_states() {
    let registry = loaded(1);
    thread::scope(|scope| {
        for offset in 0..2 {
            let registry = &registry;
            scope.spawn(move || {
                for round in 0..400_u32 {
                    let number = u8::try_from((round + offset) % 5).expect("below 5") + 1;
                    load(registry, number, Policy::Upsert, true).expect("upsert");
                    // Refused when it has become active, or is gone already.
                    let _ = registry.remove_version("mood", version(number % 5 + 1).as_str());
                    let _ = registry.rollback("mood");
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let lease = registry.lease("mood").expect("never removed");
                    assert_eq!(lease.summary().version, version(**lease.weights()));
                    let entry = entry(&registry);
                    let active: Vec<_> = entry
                        .versions
                        .iter()
                        .filter(|status| status.active)
                        .map(|status| status.summary.version.clone())
                        .collect();
                    assert_eq!(active, std::slice::from_ref(&entry.active));
                    if let Some(previous) = entry.previous {
                        assert_ne!(previous, entry.active);
                        let mut versions = entry.versions.iter();
                        assert!(versions.any(|status| status.summary.version == previous));
                    }
                }
            });
        }
    });
    assert!(
        statuses(&registry)
            .iter()
            .all(|(_, _, in_flight)| *in_flight == 0)
    );
}

#[test]
fn a_compare_and_swap_race_has_one_winner() {
    for _ in 0..50 {
        let registry = loaded(1);
        let start = Barrier::new(4);
        let results: Vec<_> = thread::scope(|scope| {
            let racers: Vec<_> = (2..6)
                .map(|number| {
                    let (registry, start) = (&registry, &start);
                    scope.spawn(move || {
                        start.wait();
                        let swap = Policy::CompareAndSwap(version(1));
                        load(registry, number, swap, true).map(|_| number)
                    })
                })
                .collect();
            racers
                .into_iter()
                .map(|racer| racer.join().expect("racers do not panic"))
                .collect()
        });
        let winners: Vec<_> = results.iter().flatten().collect();
        assert_eq!(winners.len(), 1);
        let winner = version(*winners[0]);
        assert_eq!(entry(&registry).active, winner);
        assert_eq!(entry(&registry).versions.len(), 2);
        for error in results.into_iter().filter_map(Result::err) {
            assert_eq!(
                error,
                RegistryError::LostCompareAndSwap {
                    name: "mood".to_owned(),
                    expected: version(1).as_str().to_owned(),
                    active: winner.clone()
                }
            );
        }
    }
}

#[test]
fn everything_crosses_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<Registry<Vec<f32>>>();
    crosses::<Lease<Vec<f32>>>();
    crosses::<Entry>();
    crosses::<RegistryError>();
}
