//! What the registry does with one name at a time, in one thread.

use std::sync::Weak;

use insta::assert_snapshot;

use super::*;
use crate::{Manifest, Method};

/// The version whose digits all repeat those of `number`.
pub(super) fn version(number: u8) -> Version {
    format!("{number:02x}")
        .repeat(32)
        .parse()
        .expect("64 hex digits")
}

pub(super) fn summary(version: Version, created: u64) -> Summary {
    Summary {
        version,
        created,
        bytes: 4_096,
        task: Some("sentiment".to_owned()),
        method: Method::Ft,
        rank: 3,
        alpha: 12.0,
        target_modules: vec!["q_proj".to_owned(), "v_proj".to_owned()],
        base_model: "tiny".to_owned(),
        manifest: Manifest::default(),
    }
}

/// Loads version `number` with `number` for weights; hands back a look at them.
pub(super) fn load(
    registry: &Registry<u8>,
    number: u8,
    policy: Policy,
    activate: bool,
) -> Result<Weak<u8>, RegistryError> {
    let weights = Arc::new(number);
    let watched = Arc::downgrade(&weights);
    let summary = summary(version(number), 1_000 + u64::from(number));
    registry.insert("mood", summary, weights, policy, activate)?;
    Ok(watched)
}

/// Versions 1 to `count`, each activated in turn.
pub(super) fn loaded(count: u8) -> Registry<u8> {
    let registry = Registry::new();
    for number in 1..=count {
        load(&registry, number, Policy::Upsert, true).expect("upsert takes everything");
    }
    registry
}

pub(super) fn entry(registry: &Registry<u8>) -> Entry {
    registry.get("mood").expect("loaded above")
}

/// (digits, active, in flight) of each version.
pub(super) fn statuses(registry: &Registry<u8>) -> Vec<(String, bool, usize)> {
    entry(registry)
        .versions
        .iter()
        .map(|status| {
            let digits = status.summary.version.as_str()[..2].to_owned();
            (digits, status.active, status.in_flight)
        })
        .collect()
}

#[test]
fn a_lease_held_across_a_swap_keeps_the_old_weights_until_it_drops() {
    let registry = Registry::new();
    let old = load(&registry, 1, Policy::Create, true).expect("the name is free");
    let lease = registry.lease("mood").expect("loaded");
    load(&registry, 2, Policy::Upsert, true).expect("upsert");
    registry
        .remove_version("mood", version(1).as_str())
        .expect("not active any more");

    assert_eq!(**lease.weights(), 1);
    assert_eq!(lease.summary().version, version(1));
    assert_eq!(**registry.lease("mood").expect("loaded").weights(), 2);
    assert!(old.upgrade().is_some());
    drop(lease);
    assert!(old.upgrade().is_none());
}

#[test]
fn leases_are_counted_by_version_clones_included() {
    let registry = loaded(1);
    let first = registry.lease("mood").expect("loaded");
    let clone = first.clone();
    load(&registry, 2, Policy::Upsert, true).expect("upsert");
    let second = registry.lease("mood").expect("loaded");
    let count = |first, second| {
        vec![
            ("01".to_owned(), false, first),
            ("02".to_owned(), true, second),
        ]
    };

    assert_eq!(statuses(&registry), count(2, 1));
    let old = registry
        .lease_version("mood", "01010101")
        .expect("retained");
    assert_eq!((old.name(), **old.weights()), ("mood", 1));
    assert_eq!(statuses(&registry), count(3, 1));
    drop((first, second));
    assert_eq!(statuses(&registry), count(2, 0));
    drop((clone, old));
    assert_eq!(statuses(&registry), count(0, 0));
}

#[test]
fn removal_frees_what_nobody_leases() {
    let registry = Registry::new();
    let one = load(&registry, 1, Policy::Create, true).expect("free");
    let two = load(&registry, 2, Policy::Upsert, true).expect("upsert");
    let lease = registry.lease("mood").expect("loaded");
    registry.remove("mood").expect("loaded");

    assert!(one.upgrade().is_none());
    assert_eq!(**lease.weights(), 2);
    assert!(registry.get("mood").is_none());
    assert_eq!(registry.remove("mood"), Err(not_loaded("mood")));
    drop(lease);
    assert!(two.upgrade().is_none());
}

#[test]
fn create_wants_a_free_name() {
    let registry = loaded(1);
    for number in [1, 2] {
        let error = load(&registry, number, Policy::Create, true).unwrap_err();
        assert_eq!(
            error,
            RegistryError::AlreadyLoaded {
                name: "mood".to_owned(),
                active: version(1)
            }
        );
    }
    assert_eq!(entry(&registry).versions.len(), 1);
}

#[test]
fn inserting_the_same_content_again_keeps_the_loaded_weights() {
    let registry = loaded(2);
    let before = Arc::clone(registry.lease("mood").expect("loaded").weights());
    let again = load(&registry, 2, Policy::Upsert, true).expect("upsert");

    assert!(again.upgrade().is_none());
    assert!(Arc::ptr_eq(
        &before,
        registry.lease("mood").expect("loaded").weights()
    ));
    let entry = entry(&registry);
    assert_eq!(
        (entry.active, entry.previous),
        (version(2), Some(version(1)))
    );
    assert_eq!(entry.versions.len(), 2);

    load(&registry, 1, Policy::Upsert, true).expect("activates what is retained");
    let entry = self::entry(&registry);
    assert_eq!(
        (entry.active, entry.previous),
        (version(1), Some(version(2)))
    );
    assert_eq!((entry.created, entry.versions.len()), (1_001, 2));
}

#[test]
fn without_activation_a_version_waits_beside_the_active_one() {
    let registry = Registry::new();
    load(&registry, 1, Policy::Create, false).expect("free");
    load(&registry, 2, Policy::Upsert, false).expect("upsert");
    let entry = entry(&registry);
    assert_eq!((entry.active, entry.previous), (version(1), None));
    assert_eq!(registry.activate("mood", "02020202", None), Ok(version(2)));
    assert_eq!(registry.activate("mood", "02020202", None), Ok(version(2)));
    assert_eq!(self::entry(&registry).previous, Some(version(1)));
}

#[test]
fn compare_and_swap_looks_at_the_active_version() {
    let registry = Registry::new();
    let swap = |expected| Policy::CompareAndSwap(version(expected));
    assert_eq!(
        load(&registry, 1, swap(1), true).unwrap_err(),
        not_loaded("mood")
    );
    load(&registry, 1, Policy::Create, true).expect("free");
    load(&registry, 2, swap(1), true).expect("1 is active");
    let lost = load(&registry, 3, swap(1), true).unwrap_err();
    assert_eq!(
        lost,
        RegistryError::LostCompareAndSwap {
            name: "mood".to_owned(),
            expected: version(1).as_str().to_owned(),
            active: version(2)
        }
    );
    assert_eq!(
        registry.activate("mood", "01010101", Some(version(1).as_str())),
        Err(lost)
    );
    assert_eq!(
        registry.activate("mood", "01010101", Some("02020202")),
        Ok(version(1))
    );
    assert_eq!(entry(&registry).versions.len(), 2);
}

#[test]
fn rolling_back_twice_toggles() {
    let registry = loaded(3);
    assert_eq!(registry.rollback("mood"), Ok(version(2)));
    assert_eq!(registry.rollback("mood"), Ok(version(3)));
    registry
        .remove_version("mood", "02020202")
        .expect("not active");
    assert_eq!(
        registry.rollback("mood"),
        Err(RegistryError::NothingToRollBack {
            name: "mood".to_owned(),
            active: version(3)
        })
    );
}

#[test]
fn the_active_version_of_several_stays() {
    let registry = loaded(2);
    assert_eq!(
        registry.remove_version("mood", "02020202"),
        Err(RegistryError::ActiveVersion {
            name: "mood".to_owned(),
            version: version(2),
            others: vec![version(1)]
        })
    );
    registry
        .remove_version("mood", "01010101")
        .expect("not active");
    registry
        .remove_version("mood", "02020202")
        .expect("the last one");
    assert!(registry.list().is_empty());
}

#[test]
fn a_prefix_names_exactly_one_version() {
    let registry = Registry::new();
    for tail in ["0", "1"] {
        let version: Version = format!("{}{}", "ab".repeat(31), tail.repeat(2))
            .parse()
            .expect("64 hex digits");
        let summary = summary(version, 5);
        registry
            .insert("mood", summary, Arc::new(tail), Policy::Upsert, true)
            .expect("upsert");
    }
    let whole = format!("{}00", "ab".repeat(31));
    assert_eq!(
        registry.resolve("mood", &whole),
        Ok(whole.parse().expect("64 hex digits"))
    );
    assert_snapshot!(registry.lease_version("mood", "abababab").unwrap_err(), @"'abababab' stands for 2 versions of adapter 'mood'; give more digits of one of these: ababababababababababababababababababababababababababababababab00, ababababababababababababababababababababababababababababababab11");
    assert_snapshot!(registry.resolve("mood", "cdcdcdcd").unwrap_err(), @"adapter 'mood' has no version 'cdcdcdcd'; give one of these, or its first 8 or more hex digits: ababababababababababababababababababababababababababababababab00, ababababababababababababababababababababababababababababababab11");
    assert_eq!(
        registry.resolve("mood", "abababa").unwrap_err().code(),
        "version_not_found"
    );
    assert_snapshot!(registry.lease("moody").unwrap_err(), @"no adapter named 'moody' is loaded");
}
