//! Pointers are compared and swapped, by one server and by two at a time.

use std::sync::Barrier;

use super::super::Cause;
use super::testing::{Open, code, readable, version};
use super::*;

pub(super) fn pointers_are_compared(open: Open<'_>) {
    let (one, other) = (open(), open());
    for number in [1, 2] {
        one.save("mood", number);
    }
    let first = one.point("mood", 1);
    let pointer = ActivePointer::first(version(1), 7);
    let pinned = ActivePointer {
        pinned: true,
        ..pointer.clone()
    };
    assert_eq!(
        code(other.replace_pointer("mood", &pinned, None)),
        "pointer_moved"
    );
    let second = other
        .replace_pointer("mood", &pinned, Some(&first))
        .expect("stored");
    assert_eq!(
        code(one.replace_pointer("mood", &pointer, Some(&first))),
        "pointer_moved"
    );
    // What it was before, and yet another one: who has seen only the first must not take it for that.
    let third = one
        .replace_pointer("mood", &pointer, Some(&second))
        .expect("stored");
    assert_ne!(first, third);
    assert_eq!(
        code(other.replace_pointer("mood", &pinned, Some(&first))),
        "pointer_moved"
    );

    let missing = pointer.activated(&version(3), 9, Cause::Activate);
    let error = other
        .replace_pointer("mood", &missing, Some(&third))
        .expect_err("not stored");
    assert_eq!(
        readable(&error.to_string()),
        "version v3 of adapter 'mood' is not in the store"
    );
    assert_eq!(
        code(other.replace_pointer("mood", &missing, Some(&first))),
        "pointer_moved"
    );
    let pointed = one.pointer("mood").expect("readable").expect("stored");
    assert_eq!((pointed.pointer, pointed.tag), (pointer, third));

    one.put(".active/mood", b"{\"write\": \"x\"}");
    assert_eq!(code(one.pointer("mood")), "stored_damaged");
    let tag = one.pointer_tags().expect("listed")["mood"].clone();
    one.replace_pointer("mood", &pinned, Some(&tag))
        .expect("stored");
    one.put(".active/mood", b"half a poi");
    one.replace_pointer("mood", &pinned, None).expect("stored");
    assert_eq!(one.active("mood"), Some(version(1)));
}

pub(super) fn of_two_servers_one_wins(open: Open<'_>) {
    let servers = [open(), open()];
    for number in [1, 2, 3] {
        servers[0].save("mood", number);
    }
    let mut tag = None;
    let mut pointer = ActivePointer::first(version(1), 0);
    let barrier = Barrier::new(2);
    for round in 1..=50 {
        if round % 10 == 0 {
            // The next two come back to a name that was removed.
            let gone = servers[0].remove("mood", tag.take().as_ref());
            gone.expect("removed");
            for number in [1, 2, 3] {
                servers[0].save("mood", number);
            }
        }
        // In every other round both write the same.
        let wanted = |server: u8| match round % 2 {
            0 => pointer.activated(&version(1 + (round % 3) as u8), round, Cause::Activate),
            _ => pointer.activated(&version(1 + server), round, Cause::Activate),
        };
        let results = std::thread::scope(|scope| {
            let threads = [0, 1].map(|server: u8| {
                let (wanted, tag, barrier) = (wanted(server), tag.as_ref(), &barrier);
                let server = &servers[usize::from(server)];
                scope.spawn(move || {
                    barrier.wait();
                    (server.replace_pointer("mood", &wanted, tag), wanted)
                })
            });
            threads.map(|thread| thread.join().expect("no panic"))
        });
        let winners: Vec<_> = results
            .iter()
            .filter(|(result, _)| result.is_ok())
            .collect();
        assert_eq!(winners.len(), 1, "round {round}: {results:?}");
        for (result, _) in &results {
            assert!(
                matches!(result, Ok(_) | Err(StoreError::PointerMoved { .. })),
                "{result:?}"
            );
        }
        let stored = servers[1]
            .pointer("mood")
            .expect("readable")
            .expect("stored");
        assert_eq!(Ok(&stored.tag), winners[0].0.as_ref().map_err(|_| ()));
        assert_eq!(stored.pointer, winners[0].1);
        (tag, pointer) = (Some(stored.tag), stored.pointer);
    }
}

pub(super) fn pointing_and_removing_never_part(open: Open<'_>) {
    let servers = [open(), open()];
    servers[0].save("mood", 1);
    let pointer = ActivePointer::first(version(1), 7);
    let mut tag = servers[0]
        .replace_pointer("mood", &pointer, None)
        .expect("stored");
    let barrier = Barrier::new(2);
    for round in 0..30 {
        servers[0].save("mood", 2);
        let next = pointer.activated(&version(2), round, Cause::Activate);
        let (pointed, removed) = std::thread::scope(|scope| {
            let pointing = scope.spawn(|| {
                barrier.wait();
                servers[0].replace_pointer("mood", &next, Some(&tag))
            });
            barrier.wait();
            let removed = servers[1].remove_version("mood", &version(2));
            (pointing.join().expect("no panic"), removed)
        });
        let stored = servers[1]
            .pointer("mood")
            .expect("readable")
            .expect("stored");
        for named in stored.pointer.versions() {
            servers[1].read("mood", named).expect("whole");
        }
        assert_eq!(
            pointed.is_ok(),
            stored.pointer == next,
            "round {round}: {pointed:?}"
        );
        assert!(pointed.is_err() || removed.is_err(), "round {round}");
        tag = servers[0]
            .replace_pointer("mood", &pointer, Some(&stored.tag))
            .expect("stored");
    }
}
