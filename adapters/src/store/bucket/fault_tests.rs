//! Lost answers, and another server at the worst moment: each put where it hurts by a bucket that misbehaves once.

use std::sync::{Barrier, Mutex};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::super::{Cause, REPORT_FILE};
use super::testing::{Server, code, version};
use super::*;

/// What goes wrong with the next pointer that is stored.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// It is stored, and the answer lost.
    AnswerLost,
    /// It is stored and the answer lost; the client asks again, and what it stored itself is in the way.
    AnswerLostAndRefused,
    /// It is not stored.
    RequestLost,
}

type Hook = Box<dyn FnOnce() + Send>;

/// A bucket with one fault, and moments at which others act.
#[derive(Default)]
struct Faulty {
    inner: Arc<InMemory>,
    fault: Mutex<Option<Fault>>,
    /// Before a key is stored that contains the text.
    before_put: Mutex<Option<(&'static str, Hook)>>,
    after_delete: Mutex<Option<Hook>>,
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Faulty")
    }
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        key: &Key,
        bytes: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let is_waited_for = |(part, _): &mut (&str, Hook)| key.as_ref().contains(*part);
        let hook = self
            .before_put
            .lock()
            .expect("no panic")
            .take_if(is_waited_for);
        if let Some((_, hook)) = hook {
            hook();
        }
        if !key.as_ref().contains(ACTIVE) {
            return self.inner.put_opts(key, bytes, options).await;
        }
        let fault = self.fault.lock().expect("no panic").take();
        let Some(fault) = fault else {
            return self.inner.put_opts(key, bytes, options).await;
        };
        if fault != Fault::RequestLost {
            self.inner.put_opts(key, bytes, options).await?;
        }
        let (path, source) = (key.to_string(), "the connection was reset".into());
        Err(match fault {
            Fault::AnswerLostAndRefused => Error::Precondition { path, source },
            Fault::AnswerLost | Fault::RequestLost => Error::Generic {
                store: "Faulty",
                source,
            },
        })
    }

    async fn put_multipart_opts(
        &self,
        key: &Key,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Key, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(key, options).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, Result<Key>>,
    ) -> BoxStream<'static, Result<Key>> {
        let inner = Arc::clone(&self.inner);
        let hook = self.after_delete.lock().expect("no panic").take();
        let deleted = async move {
            let deleted: Vec<_> = inner.delete_stream(keys).collect().await;
            if let Some(hook) = hook {
                hook();
            }
            futures_util::stream::iter(deleted)
        };
        futures_util::stream::once(deleted).flatten().boxed()
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A server whose bucket misbehaves, and one that shares it and whose does not.
fn servers() -> (Arc<Faulty>, Server, Arc<Server>) {
    let faulty = Arc::new(Faulty::default());
    let server = Server::over(Arc::clone(&faulty) as Arc<dyn ObjectStore>, "lora");
    let other = Server::over(Arc::clone(&faulty.inner) as Arc<dyn ObjectStore>, "lora");
    (faulty, server, Arc::new(other))
}

impl Faulty {
    fn fail(&self, fault: Fault) {
        *self.fault.lock().expect("no panic") = Some(fault);
    }

    fn before_put(&self, part: &'static str, action: impl FnOnce() + Send + 'static) {
        *self.before_put.lock().expect("no panic") = Some((part, Box::new(action)));
    }

    fn after_delete(&self, action: impl FnOnce() + Send + 'static) {
        *self.after_delete.lock().expect("no panic") = Some(Box::new(action));
    }
}

#[test]
fn a_lost_answer_is_looked_up() {
    for fault in [Fault::AnswerLost, Fault::AnswerLostAndRefused] {
        let (faulty, server, other) = servers();
        server.save("mood", 1);
        faulty.fail(fault);
        let first = server.point("mood", 1);
        let pointed = other.pointer("mood").expect("readable").expect("stored");
        assert_eq!(pointed.tag, first);

        faulty.fail(fault);
        let pinned = ActivePointer {
            pinned: true,
            ..pointed.pointer
        };
        let second = server
            .replace_pointer("mood", &pinned, Some(&first))
            .expect("stored");
        faulty.fail(fault);
        server.remove("mood", Some(&second)).expect("removed");
        assert_eq!(other.active("mood"), None);
        assert_eq!(other.keys(), [".active/mood"]);
    }
}

#[test]
fn a_lost_request_changes_nothing() {
    let (faulty, server, other) = servers();
    server.save("mood", 1);
    faulty.fail(Fault::RequestLost);
    let pointer = ActivePointer::first(version(1), 7);
    let error = server
        .replace_pointer("mood", &pointer, None)
        .expect_err("lost");
    insta::assert_snapshot!(error, @"adapter store: Generic Faulty error: the connection was reset");
    assert_eq!(other.active("mood"), None);
    let tag = server.point("mood", 1);
    faulty.fail(Fault::RequestLost);
    assert_eq!(code(server.remove("mood", Some(&tag))), "store_remote");
    assert_eq!(other.active("mood"), Some(version(1)));
}

#[test]
fn a_lost_answer_does_not_claim_what_another_server_wrote() {
    let (faulty, server, other) = servers();
    server.save("mood", 1);
    let pointer = ActivePointer::first(version(1), 7);
    let theirs = pointer.clone();
    faulty.before_put(ACTIVE, move || {
        // The very same pointer, so that only the write tells whose it is.
        other
            .replace_pointer("mood", &theirs, None)
            .expect("stored");
    });
    faulty.fail(Fault::RequestLost);
    assert_eq!(
        code(server.replace_pointer("mood", &pointer, None)),
        "pointer_moved"
    );
}

#[test]
fn of_two_that_looked_one_writes() {
    let memory = Arc::new(InMemory::new());
    let buckets = [0, 1].map(|_| {
        Arc::new(Faulty {
            inner: Arc::clone(&memory),
            ..Faulty::default()
        })
    });
    let servers = [0, 1].map(|server: usize| {
        Server::over(Arc::clone(&buckets[server]) as Arc<dyn ObjectStore>, "lora")
    });
    for number in [1, 2] {
        servers[0].save("mood", number);
    }
    let mut before: Option<Pointed> = None;
    for round in 0..50 {
        let barrier = Arc::new(Barrier::new(2));
        for bucket in &buckets {
            let barrier = Arc::clone(&barrier);
            bucket.before_put(ACTIVE, move || {
                barrier.wait();
            });
        }
        let next = match &before {
            None => ActivePointer::first(version(1), round),
            Some(Pointed { pointer, .. }) => {
                let number = if pointer.active == version(1) { 2 } else { 1 };
                pointer.activated(&version(number), round, Cause::Activate)
            }
        };
        let tag = before.as_ref().map(|pointed| &pointed.tag);
        let results = std::thread::scope(|scope| {
            let threads = [0, 1].map(|server: usize| {
                let (server, next) = (&servers[server], &next);
                scope.spawn(move || server.replace_pointer("mood", next, tag))
            });
            threads.map(|thread| thread.join().expect("no panic"))
        });
        let pointed = servers[0]
            .pointer("mood")
            .expect("readable")
            .expect("stored");
        match results {
            [Ok(tag), Err(StoreError::PointerMoved { .. })]
            | [Err(StoreError::PointerMoved { .. }), Ok(tag)] => assert_eq!(tag, pointed.tag),
            other => panic!("round {round}: {other:?}"),
        }
        before = Some(pointed);
    }
}

#[test]
fn a_pointer_steps_back_from_a_version_that_went_meanwhile() {
    let (faulty, server, other) = servers();
    for number in [1, 2] {
        server.save("mood", number);
    }
    let tag = server.point("mood", 1);
    let before = server
        .pointer("mood")
        .expect("readable")
        .expect("stored")
        .pointer;
    let next = before.activated(&version(2), 8, Cause::Activate);
    let remover = Arc::clone(&other);
    faulty.before_put(ACTIVE, move || {
        remover
            .remove_version("mood", &version(2))
            .expect("removed");
    });
    assert_eq!(
        code(server.replace_pointer("mood", &next, Some(&tag))),
        "version_not_stored"
    );
    let pointed = other.pointer("mood").expect("readable").expect("stored");
    assert_eq!(pointed.pointer, before);

    // A name that was new is removed again.
    server.save("gist", 2);
    let remover = Arc::clone(&other);
    faulty.before_put(ACTIVE, move || {
        remover
            .remove_version("gist", &version(2))
            .expect("removed");
    });
    let first = ActivePointer::first(version(2), 7);
    assert_eq!(
        code(server.replace_pointer("gist", &first, None)),
        "version_not_stored"
    );
    assert_eq!(other.pointer("gist").expect("readable"), None);
}

#[test]
fn a_removal_steps_back_from_a_version_that_is_pointed_at_meanwhile() {
    let (faulty, server, other) = servers();
    for number in [1, 2] {
        server.save("mood", number);
    }
    let tag = server.point("mood", 1);
    let before = server
        .pointer("mood")
        .expect("readable")
        .expect("stored")
        .pointer;
    let next = before.activated(&version(2), 8, Cause::Activate);
    // It looked for the versions before the report went, and will look again.
    let stored = serde_json::to_string(&next).expect("JSON");
    let pointing = Arc::clone(&other);
    faulty.after_delete(move || {
        pointing.put(
            ".active/mood",
            format!(r#"{{"write":"w","pointer":{stored}}}"#).as_bytes(),
        );
    });
    assert_eq!(
        code(server.remove_version("mood", &version(2))),
        "pointer_moved"
    );
    assert_eq!(other.active("mood"), Some(version(2)));
    other.read("mood", &version(2)).expect("whole");

    // The whole name, which comes back while its versions are being deleted.
    let tag_now = other.pointer_tags().expect("listed")["mood"].clone();
    assert_ne!(tag_now, tag);
    let pointing = Arc::clone(&other);
    let stored = serde_json::to_string(&before).expect("JSON");
    faulty.after_delete(move || {
        pointing.put(
            ".active/mood",
            format!(r#"{{"write":"x","pointer":{stored}}}"#).as_bytes(),
        );
    });
    server
        .remove("mood", Some(&tag_now))
        .expect("removed, and back");
    assert_eq!(other.active("mood"), Some(version(1)));
    other.read("mood", &version(1)).expect("whole");
}

#[test]
fn a_version_that_is_removed_while_it_is_stored_is_not_called_stored() {
    let (faulty, server, other) = servers();
    let remover = Arc::clone(&other);
    faulty.before_put(REPORT_FILE, move || {
        remover
            .remove_version("mood", &version(2))
            .expect("removed");
    });
    let error = server
        .save_with("mood", 2, None)
        .expect_err("it is not there");
    assert_eq!(error.code(), "store_remote");
    assert!(
        error.to_string().contains("removed by another server"),
        "{error}"
    );
    // What is left of it is no obstacle.
    assert_eq!(other.keys(), ["mood/v2/report.json"]);
    let first = ActivePointer::first(version(2), 7);
    assert_eq!(
        code(other.replace_pointer("mood", &first, None)),
        "version_not_stored"
    );
    server.save("mood", 2);
    other.read("mood", &version(2)).expect("whole");
}
