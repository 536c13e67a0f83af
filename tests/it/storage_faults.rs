//! A disk that is full, a store that cannot be written, descriptors that run out: what is there goes on being served, what cannot be
//! kept is refused whole, and when the trouble is over nothing is left of it. The server is a process of its own with mounts of its
//! own; where a test may not mount, it says so.

use std::io::Write as _;

use serde_json::json;

use crate::harness::client::{form, send, try_send};
use crate::harness::{AdapterDirectory, Process, serve_as_told};

/// No test: the process that these tests start runs this.
#[test]
fn serve() {
    serve_as_told();
}

const SERVE: &str = "storage_faults::serve";

/// A server whose store is a file system of 4 MiB, or nothing where that cannot be had.
fn on_a_small_disk(test: &str) -> Option<Process> {
    if !Process::can_mount() {
        engine::testing::say_skipped(test, "this process may not mount a file system");
        return None;
    }
    Some(Process::start_after(SERVE, |store| {
        format!("mount -t tmpfs -o size=4m tmpfs '{}'", store.display())
    }))
}

/// What a server that cannot write must still do, and must not do.
async fn refuses_whole(process: &Process, code: &str) {
    let client = &process.client;
    let before = client.adapter("kept").await.expect(200);
    let text = client.greedy("kept", "The weather").await;
    let other = AdapterDirectory::random(&process.base, 2);
    let refused = client.upload("new", &other).await;
    assert_eq!(refused.status, 507, "{}", refused.body);
    assert_eq!(refused.json()["error"]["code"], code, "{}", refused.body);
    let refused = client.replace("kept", &other).await;
    assert_eq!(refused.status, 507, "{}", refused.body);
    let body =
        json!({"kind": "in_domain", "adapters": ["base"], "tasks": ["sentiment"], "limit": 1});
    let refused = client.post("/v1/evaluations", &body).await;
    assert_eq!(refused.status, 507, "{}", refused.body);
    let records = vec![json!({"input": "a", "output": "positive"}); 500];
    let dataset =
        json!({"name": "mine", "task": "sentiment", "domain": "out", "examples": records});
    let refused = client.post("/v1/datasets", &dataset).await;
    assert!(matches!(refused.status, 400 | 507), "{}", refused.body);
    assert_eq!(client.adapter_names().await, ["kept"]);
    assert_eq!(client.adapter("kept").await.expect(200), before);
    assert_eq!(client.greedy("kept", "The weather").await, text);
    assert_eq!(client.get("/ready").await.status, 200);
    let evaluations = client.get("/v1/evaluations").await.expect(200);
    assert_eq!(evaluations["data"], json!([]), "{evaluations}");
}

#[tokio::test]
async fn a_full_disk_refuses_what_is_new_and_serves_what_is_there() {
    let Some(mut process) =
        on_a_small_disk("a_full_disk_refuses_what_is_new_and_serves_what_is_there")
    else {
        return;
    };
    let files = AdapterDirectory::random(&process.base, 1);
    process.client.upload("kept", &files).await.expect(201);
    let filler = process.store().join("filler");
    let mut file = fs_err::File::create(&filler).unwrap();
    // Ends with the error that there is no space left.
    for piece in [64 * 1024, 4096, 1] {
        while file.write_all(&vec![7; piece]).is_ok() {}
    }
    drop(file);
    refuses_whole(&process, "storage_full").await;
    fs_err::remove_file(&filler).unwrap();
    let other = AdapterDirectory::random(&process.base, 2);
    process.client.upload("new", &other).await.expect(201);
    assert_eq!(process.client.adapter_names().await, ["kept", "new"]);
    assert!(
        process.staged_inside().is_empty(),
        "{:?}",
        process.staged_inside()
    );
    process.kill();
}

#[tokio::test]
async fn a_store_that_cannot_be_written_refuses_what_is_new_and_serves_what_is_there() {
    let Some(mut process) = on_a_small_disk(
        "a_store_that_cannot_be_written_refuses_what_is_new_and_serves_what_is_there",
    ) else {
        return;
    };
    let files = AdapterDirectory::random(&process.base, 1);
    process.client.upload("kept", &files).await.expect(201);
    let store = process.store_path();
    // A second mount on top, as the first has files that are open for writing.
    process.run_inside(&["mount", "--bind", &store, &store]);
    process.run_inside(&["mount", "-o", "remount,bind,ro", &store]);
    refuses_whole(&process, "storage_read_only").await;
    let removed = process.client.unload("kept").await;
    assert_eq!(removed.status, 507, "{}", removed.body);
    assert_eq!(process.client.adapter_names().await, ["kept"]);
    process.run_inside(&["umount", &store]);
    let other = AdapterDirectory::random(&process.base, 2);
    process.client.upload("new", &other).await.expect(201);
    process.kill();
}

#[tokio::test]
async fn connections_leave_descriptors_for_the_store() {
    // Of 96 descriptors a server gives half to connections.
    let process = Process::start_after(SERVE, |_| "ulimit -n 96".to_owned());
    let client = &process.client;
    let files = AdapterDirectory::random(&process.base, 1);
    let address = client.address().trim_start_matches("http://").to_owned();
    client.get("/health").await.expect(200);
    let mut held = Vec::new();
    for _ in 0..80 {
        held.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    // Through the connection that is there already.
    send(
        client
            .request(reqwest::Method::POST, "/v1/adapters")
            .multipart(form(&files).text("name", "kept")),
    )
    .await
    .expect(201);
    drop(held);
    let text = client.greedy("kept", "The weather").await;
    assert!(!text.is_empty());
    try_send(client.request(reqwest::Method::GET, "/ready"))
        .await
        .unwrap()
        .expect(200);
}
