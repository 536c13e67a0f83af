//! What the registry does with one name at a time, in one thread.

use std::sync::Weak;

use insta::assert_snapshot;

use super::*;
use crate::{Canary, Cause, Manifest, Method};

/// Weights of a version: its number, and how many bytes it takes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fake(pub(super) u8, pub(super) usize);

impl Weights for Fake {
    fn bytes(&self) -> usize {
        self.1
    }
}

/// The version whose digits all repeat those of `number`.
pub(super) fn version(number: u8) -> Version {
    format!("{number:02x}")
        .repeat(32)
        .parse()
        .expect("64 hex digits")
}

pub(super) fn summary(number: u8) -> Summary {
    Summary {
        version: version(number),
        created: 1_000 + u64::from(number),
        bytes: 4_096,
        task: Some("sentiment".to_owned()),
        method: Method::Ft,
        rank: 3,
        alpha: 12.0,
        target_modules: vec!["q_proj".to_owned(), "v_proj".to_owned()],
        base_model: "tiny".to_owned(),
        manifest: Manifest::default(),
        proof: None,
    }
}

/// Publishes a version, active from now on, with weights of 10 bytes; hands back a look at them.
pub(super) fn load(registry: &Registry<Fake>, name: &str, number: u8) -> Weak<Fake> {
    let pointer = match registry.get(name) {
        None => ActivePointer::first(version(number), 0),
        Some(entry) => entry.pointer.activated(&version(number), 0, Cause::Load),
    };
    registry
        .publish(name, [summary(number)], (pointer, None))
        .expect("its versions are retained");
    let weights = Arc::new(Fake(number, 10));
    let watched = Arc::downgrade(&weights);
    let hold = registry.hold_version(name, version(number).as_str());
    let _lease = registry
        .place(hold.expect("published"), &weights)
        .expect("there is room");
    watched
}

pub(super) fn lease(registry: &Registry<Fake>, name: &str) -> Lease<Fake> {
    let hold = registry.hold(name).expect("published");
    hold.lease().expect("in memory")
}

fn loaded(count: u8) -> Registry<Fake> {
    let registry = Registry::new(1_000);
    for number in 1..=count {
        load(&registry, "mood", number);
    }
    registry
}

/// (digits, active, in flight, bytes in memory) of each version.
fn statuses(registry: &Registry<Fake>, name: &str) -> Vec<(String, bool, usize, usize)> {
    let entry = registry.get(name).expect("published");
    let statuses = entry.versions.iter().map(|status| {
        let digits = status.summary.version.as_str()[..2].to_owned();
        (
            digits,
            status.active,
            status.in_flight,
            status.resident_bytes,
        )
    });
    statuses.collect()
}

fn of(number: u8, active: bool, in_flight: usize, bytes: usize) -> (String, bool, usize, usize) {
    (format!("{number:02x}"), active, in_flight, bytes)
}

#[test]
fn a_lease_held_across_a_swap_keeps_the_old_weights_until_it_drops() {
    let registry = Registry::new(1_000);
    let old = load(&registry, "mood", 1);
    let held = lease(&registry, "mood");
    load(&registry, "mood", 2);
    let entry = registry.entry("mood").expect("published");
    let pointer = entry.without(&version(1)).expect("not active any more");
    let pointer = pointer.map(|pointer| (pointer, None));
    registry
        .remove_version("mood", &version(1), pointer)
        .expect("not named any more");

    assert_eq!(held.weights().0, 1);
    assert_eq!(held.summary().version, version(1));
    assert_eq!(lease(&registry, "mood").weights().0, 2);
    assert!(old.upgrade().is_some());
    assert_eq!(registry.memory().used(), 20);
    drop(held);
    assert!(old.upgrade().is_none());
    assert_eq!(registry.memory().used(), 10);
}

#[test]
fn leases_are_counted_by_version_clones_included() {
    let registry = loaded(1);
    let first = lease(&registry, "mood");
    let clone = first.clone();
    load(&registry, "mood", 2);
    let second = lease(&registry, "mood");
    let count = |first, second| vec![of(1, false, first, 10), of(2, true, second, 10)];

    assert_eq!(statuses(&registry, "mood"), count(2, 1));
    let old = registry.hold_version("mood", "01010101").expect("retained");
    assert_eq!(old.name(), "mood");
    assert_eq!(statuses(&registry, "mood"), count(3, 1));
    drop((first, second));
    assert_eq!(statuses(&registry, "mood"), count(2, 0));
    drop((clone, old));
    assert_eq!(statuses(&registry, "mood"), count(0, 0));
}

#[test]
fn removal_frees_what_nobody_leases() {
    let registry = Registry::new(1_000);
    let one = load(&registry, "mood", 1);
    let two = load(&registry, "mood", 2);
    let held = lease(&registry, "mood");
    registry.remove("mood").expect("published");

    assert!(one.upgrade().is_none());
    assert_eq!(held.weights().0, 2);
    assert!(registry.get("mood").is_none());
    assert_eq!(registry.remove("mood"), Err(not_loaded("mood")));
    drop(held);
    assert!(two.upgrade().is_none());
    assert_eq!(registry.memory().used(), 0);
}

#[test]
fn publishing_the_same_content_again_keeps_the_weights_that_are_there() {
    let registry = loaded(2);
    let before = Arc::clone(lease(&registry, "mood").weights());
    let again = load(&registry, "mood", 2);
    assert!(again.upgrade().is_none());
    assert!(Arc::ptr_eq(&before, lease(&registry, "mood").weights()));
    let entry = registry.entry("mood").expect("published");
    assert_eq!(entry.pointer.previous, Some(version(1)));
    assert_eq!((entry.created, entry.versions.len()), (1_001, 2));
    assert_eq!(registry.memory().used(), 20);
}

#[test]
fn a_pointer_names_retained_versions_only() {
    let registry = loaded(2);
    let entry = registry.entry("mood").expect("published");
    let elsewhere = entry.pointer.activated(&version(7), 0, Cause::Activate);
    let error = registry
        .point("mood", (elsewhere, None))
        .expect_err("7 is not there");
    assert_snapshot!(error, @"adapter 'mood' has no version '0707070707070707070707070707070707070707070707070707070707070707'; give one of these, or its first 8 or more hex digits: 0101010101010101010101010101010101010101010101010101010101010101, 0202020202020202020202020202020202020202020202020202020202020202");
    assert_eq!(
        registry.entry("mood").expect("published").pointer,
        entry.pointer
    );
}

#[test]
fn what_may_follow_an_entry() {
    let registry = loaded(3);
    let entry = registry.entry("mood").expect("published");
    assert_eq!(entry.resolve("02020202"), Ok(&version(2)));
    assert_eq!(
        entry.resolve("0202").expect_err("short").code(),
        "version_not_found"
    );
    assert_eq!(entry.expect_active("03030303"), Ok(()));
    let lost = entry.expect_active("01010101").expect_err("3 is active");
    assert_eq!(lost.code(), "compare_and_swap_lost");
    assert_eq!(
        entry.rolled_back(9).expect("2 was before").active,
        version(2)
    );
    let stuck = entry.without(&version(3)).expect_err("3 is active");
    assert_eq!(stuck.code(), "version_is_active");
    let rest = entry
        .without(&version(2))
        .expect("idle")
        .expect("two are left");
    assert_eq!((rest.active, rest.previous), (version(3), None));
    // 1 is neither active nor the one before.
    assert_eq!(entry.superfluous(1), [version(1)]);
    assert_eq!(entry.superfluous(3), []);
    let alone = loaded(1).entry("mood").expect("published");
    assert_eq!(alone.without(&version(1)), Ok(None));
    assert_eq!(
        alone.rolled_back(9).expect_err("nothing before").code(),
        "nothing_to_roll_back"
    );
}

#[test]
fn a_canary_gets_its_share_of_the_draws() {
    let registry = loaded(2);
    let mut pointer = registry.entry("mood").expect("published").pointer;
    pointer.canary = Some(Canary {
        version: version(1),
        percent: 25.0,
    });
    registry
        .point("mood", (pointer, None))
        .expect("both are retained");
    let drawn = |draw| {
        let hold = registry.hold_drawn("mood", draw).expect("published");
        hold.summary().version.clone()
    };
    assert_eq!(drawn(0.0), version(1));
    assert_eq!(drawn(24.9), version(1));
    assert_eq!(drawn(25.0), version(2));
    assert_eq!(
        registry.hold("mood").expect("published").summary().version,
        version(2)
    );
}

#[test]
fn the_longest_unused_leaves_and_comes_back() {
    let registry = Registry::new(25);
    load(&registry, "one", 1);
    load(&registry, "two", 2);
    drop(lease(&registry, "one"));
    load(&registry, "three", 3);
    assert_eq!(statuses(&registry, "one"), [of(1, true, 0, 10)]);
    assert_eq!(statuses(&registry, "two"), [of(2, true, 0, 0)]);
    assert_eq!(
        (registry.memory().used(), registry.memory().evictions()),
        (20, 1)
    );

    let hold = registry.hold("two").expect("still registered");
    let hold = hold.lease().expect_err("not in memory");
    let back = registry
        .place(hold, &Arc::new(Fake(2, 10)))
        .expect("one is idle");
    assert_eq!(back.weights().0, 2);
    assert_eq!(statuses(&registry, "one"), [of(1, true, 0, 0)]);
}

#[test]
fn what_is_in_use_or_pinned_stays() {
    let registry = Registry::new(20);
    load(&registry, "one", 1);
    load(&registry, "two", 2);
    let mut pinned = registry.entry("one").expect("published").pointer;
    pinned.pinned = true;
    registry.point("one", (pinned, None)).expect("retained");
    let used = lease(&registry, "two");
    let pointer = ActivePointer::first(version(3), 0);
    registry
        .publish("three", [summary(3)], (pointer, None))
        .expect("new");
    let place = |bytes| {
        let hold = registry.hold("three").expect("published");
        registry.place(hold, &Arc::new(Fake(3, bytes))).map(drop)
    };
    assert_snapshot!(place(10).expect_err("full"), @"adapter 'three' takes 10 bytes in memory; of 20 bytes 20 are taken by adapters that are in use or pinned; try again later");
    assert_snapshot!(place(21).expect_err("too large"), @"adapter 'three' takes 21 bytes in memory and all adapters together may take 20; start the server with a larger --adapter-memory-bytes");
    drop(used);
    place(10).expect("two is idle now");
    assert_eq!(statuses(&registry, "one"), [of(1, true, 0, 10)]);
    assert_eq!(statuses(&registry, "two"), [of(2, true, 0, 0)]);
}

#[test]
fn registries_beside_each_other_share_the_memory() {
    let registry = Registry::new(25);
    let blends = registry.beside();
    load(&registry, "one", 1);
    load(&blends, "both", 2);
    load(&blends, "other", 3);
    assert_eq!(statuses(&registry, "one"), [of(1, true, 0, 0)]);
    assert_eq!(registry.memory().used(), 20);
    assert!(registry.get("both").is_none());
}
