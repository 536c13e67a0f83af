//! The audit log: a line for every admin action that was tried.

use reqwest::Method;
use serde_json::{Value, json};
use server::access::Scope;

use crate::harness::{AdapterDirectory, App, Keys, Made, Options};

/// Requests after which something that happens in the background has happened, or never will.
const MOST_ATTEMPTS: usize = 20_000;

struct Audited {
    app: App,
    admin: Made,
    inference: Made,
}

async fn audited() -> Audited {
    let keys = Keys::new();
    let (admin, inference) = (keys.add(Scope::Admin), keys.add(Scope::Inference));
    let mut app = App::start_with(Options {
        keys: Some(keys.path()),
        ..Options::default()
    })
    .await;
    app.client = app.client.with_key(&admin.key);
    Audited {
        app,
        admin,
        inference,
    }
}

/// The last line of the log, without what differs from run to run.
fn last(app: &App) -> Value {
    let mut line = app.audited().pop().unwrap();
    let time = line["time"].as_str().unwrap();
    assert!(time.ends_with('Z') && time.contains('T'), "{line}");
    let peer = line["peer"].as_str().unwrap();
    assert!(peer.starts_with("127.0.0.1:"), "{line}");
    for name in ["time", "peer"] {
        line.as_object_mut().unwrap().remove(name);
    }
    line
}

#[tokio::test]
async fn a_line_says_who_tried_what_on_what_and_what_came_of_it() {
    let Audited { app, admin, .. } = audited().await;
    let files = AdapterDirectory::random(&app.base, 1);
    let reply = app.client.upload("tone", &files).await;
    reply.expect(201);
    let expected = json!({
        "action": "adapter.create", "request_id": reply.header("x-request-id").unwrap(), "key": admin.id,
        "method": "POST", "route": "/v1/adapters", "subject": "tone", "before": null, "after": files.version(),
        "status": 201, "error": null
    });
    assert_eq!(last(&app), expected);
    let refused = app.client.upload("tone", &files).await;
    refused.expect(409);
    let expected = json!({
        "action": "adapter.create", "request_id": refused.header("x-request-id").unwrap(), "key": admin.id,
        "method": "POST", "route": "/v1/adapters", "subject": "tone", "before": files.version(), "after": files.version(),
        "status": 409, "error": "adapter_already_loaded"
    });
    assert_eq!(last(&app), expected);
}

/// What the last line must be but for who and by which route.
#[track_caller]
fn expect_last(app: &App, action: &str, subject: &str, versions: [Option<&str>; 2], status: u16) {
    let line = last(app);
    let expected = json!([action, subject, versions[0], versions[1], status]);
    let found = ["action", "subject", "before", "after", "status"].map(|name| &line[name]);
    assert_eq!(json!(found), expected, "{line}");
}

#[tokio::test]
async fn every_change_of_an_adapter_has_the_version_before_and_after() {
    let app = audited().await.app;
    let files = [1, 2].map(|seed| AdapterDirectory::random(&app.base, seed));
    let versions = [files[0].version(), files[1].version()];
    let [one, two] = [0, 1].map(|at| Some(versions[at].as_str()));
    app.client.upload("a", &files[0]).await.expect(201);
    app.client.replace("a", &files[1]).await;
    expect_last(&app, "adapter.replace", "a", [one, two], 200);
    app.client.rollback("a").await.expect(200);
    expect_last(&app, "adapter.rollback", "a", [two, one], 200);
    let body = json!({"version": versions[1]});
    let path = "/v1/adapters/a/activate";
    app.client.post(path, &body).await.expect(200);
    expect_last(&app, "adapter.activate", "a", [one, two], 200);
    app.client.canary("a", &versions[0], 5.0).await.expect(200);
    expect_last(&app, "adapter.canary.start", "a", [None, one], 200);
    app.client.end_canary("a").await.expect(200);
    expect_last(&app, "adapter.canary.end", "a", [one, None], 200);
    app.client.pin("a").await.expect(200);
    expect_last(&app, "adapter.pin", "a", [two, two], 200);
    app.client.unpin("a").await.expect(200);
    expect_last(&app, "adapter.unpin", "a", [two, two], 200);
    let none = json!({"version": "00000000"});
    app.client.post(path, &none).await.expect(404);
    expect_last(&app, "adapter.activate", "a", [two, two], 404);
    let gate = json!({"version": versions[0], "gate": {"kind": "own_task", "min_delta": 9.0}});
    let promoted = app.client.post("/v1/adapters/a/promote", &gate).await;
    assert_eq!(promoted.status, 400, "{}", promoted.body);
    expect_last(&app, "adapter.promote", "a", [None, None], 400);
    app.client
        .unload_version("a", &versions[0])
        .await
        .expect(204);
    let subject = format!("a@{}", versions[0]);
    expect_last(&app, "adapter.delete", &subject, [one, None], 204);
    app.client.unload("a").await.expect(204);
    expect_last(&app, "adapter.delete", "a", [two, None], 204);
    app.client.unload("a").await.expect(404);
    expect_last(&app, "adapter.delete", "a", [None, None], 404);
}

#[tokio::test]
async fn other_interfaces_are_audited_as_their_own_routes() {
    let app = audited().await.app;
    let version = app.place("x", 3);
    let version = Some(version.as_str());
    let body = json!({"lora_name": "x", "lora_path": "x"});
    for prefix in ["/v1", ""] {
        let [load, unload] = ["load", "unload"].map(|what| format!("{prefix}/{what}_lora_adapter"));
        assert_eq!(app.client.post(&load, &body).await.status, 200);
        expect_last(&app, "adapter.create", "x", [None, version], 200);
        assert_eq!(last(&app)["route"], json!(load));
        assert_eq!(app.client.post(&load, &body).await.status, 400);
        expect_last(&app, "adapter.create", "x", [version, version], 400);
        assert_eq!(last(&app)["error"], "adapter_already_loaded");
        assert_eq!(app.client.post(&unload, &body).await.status, 200);
        expect_last(&app, "adapter.delete", "x", [version, None], 200);
    }
    let repository = "/v2/repository/models/x";
    let empty = json!({});
    app.client
        .post(&format!("{repository}/load"), &empty)
        .await
        .expect(200);
    expect_last(&app, "adapter.replace", "x", [None, version], 200);
    let scales = json!([{"id": 0, "scale": 0.5}]);
    app.client.post("/lora-adapters", &scales).await.expect(200);
    expect_last(&app, "adapter.scale", "x", [None, None], 200);
    app.client
        .post(&format!("{repository}/unload"), &empty)
        .await
        .expect(200);
    expect_last(&app, "adapter.delete", "x", [version, None], 200);
}

#[tokio::test]
async fn data_sets_and_evaluations_are_audited() {
    let app = audited().await.app;
    let examples = [
        json!({"id": 1, "input": "Calm.", "output": "positive"}),
        json!({"id": 2, "input": "Late.", "output": "negative"}),
    ];
    let body =
        json!({"name": "ferries", "task": "sentiment", "domain": "out", "examples": examples});
    let added = app.client.post("/v1/datasets", &body).await.expect(201);
    let digest = added["digest"].as_str();
    expect_last(&app, "dataset.create", "ferries", [None, digest], 201);
    app.client.delete("/v1/datasets/ferries").await.expect(204);
    expect_last(&app, "dataset.delete", "ferries", [digest, None], 204);
    let body = json!({"adapters": ["base"], "tasks": ["sentiment"], "shots": [0], "limit": 4});
    let path = "/v1/evaluations/ood";
    let started = app.client.post(path, &body).await.expect(202);
    let id = started["id"].as_str().unwrap();
    expect_last(&app, "evaluation.create", id, [None, None], 202);
    assert_eq!(last(&app)["route"], path);
    for (what, action) in [
        ("pause", "evaluation.pause"),
        ("resume", "evaluation.resume"),
    ] {
        let path = format!("/v1/evaluations/{id}/{what}");
        let status = app.client.post(&path, &json!({})).await.status;
        expect_last(&app, action, id, [None, None], status);
    }
    let path = format!("/v1/evaluations/{id}");
    let status = app.client.delete(&path).await.status;
    expect_last(&app, "evaluation.cancel", id, [None, None], status);
}

#[tokio::test]
async fn what_was_refused_for_want_of_a_key_or_scope_is_audited_and_reading_is_not() {
    let Audited { app, inference, .. } = audited().await;
    let nobody = app.client.with_key("qc_of_nobody");
    nobody.unload("tone").await.expect(401);
    let line = last(&app);
    assert_eq!(line["key"], "anonymous");
    assert_eq!(line["error"], "invalid_api_key");
    assert_eq!(line["subject"], "tone");
    let user = app.client.with_key(&inference.key);
    user.unload("tone").await.expect(403);
    let line = last(&app);
    assert_eq!(line["key"], json!(inference.id));
    assert_eq!(line["error"], "insufficient_scope");
    // The same route, written another way.
    user.delete("/v1/%61dapters/%74one").await.expect(403);
    let line = last(&app);
    assert_eq!(
        [&line["action"], &line["subject"]],
        ["adapter.delete", "tone"]
    );
    let before = app.audited().len();
    app.client.get("/v1/adapters").await.expect(200);
    app.client.greedy("tiny", "a prompt that nobody logs").await;
    assert_eq!(app.audited().len(), before);
    let text = format!("{:?}", app.audited());
    for secret in ["qc_", "nobody logs"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_its_line() {
    let Audited { app, admin, .. } = audited().await;
    let files = [1, 2].map(|seed| AdapterDirectory::random(&app.base, seed));
    app.client.upload("a", &files[0]).await.expect(201);
    app.client.replace("a", &files[1]).await.expect(200);
    let before = app.audited().len();
    // It is answered when an evaluation over all examples has ended.
    let gate = json!({"metric": "accuracy", "kind": "in_domain", "min_delta": -1});
    let body = json!({"version": files[0].version(), "gate": gate});
    let path = "/v1/adapters/a/promote";
    let request = app.client.request(Method::POST, path).json(&body);
    let request = request.header("x-request-id", "hung-up");
    let sending = tokio::spawn(request.send());
    // Beside the request that asks for them.
    until(async || app.client.metric("quickchange_requests_in_flight").await == 2.0).await;
    sending.abort();
    until(async || {
        app.client.get("/health").await.expect(200);
        app.audited().len() > before
    })
    .await;
    let line = last(&app);
    assert_eq!(line["request_id"], "hung-up");
    assert_eq!(line["key"], json!(admin.id));
    assert_eq!(line["status"], Value::Null);
    assert_eq!(line["error"], "abandoned");
}

/// Asks again until it is so.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..MOST_ATTEMPTS {
        if is_so().await {
            return;
        }
    }
    panic!("what was waited for did not come");
}

#[tokio::test]
async fn a_full_disk_fails_no_request_and_is_counted() {
    let app = App::start_with(Options {
        // Every write to it fails as on a full disk.
        audit_log: Some("/dev/full".into()),
        ..Options::default()
    })
    .await;
    let files = AdapterDirectory::random(&app.base, 1);
    app.client.upload("tone", &files).await.expect(201);
    app.client.unload("tone").await.expect(204);
    let failures = app
        .client
        .metric("quickchange_audit_write_failures_total")
        .await;
    assert_eq!(failures, 2.0);
}

#[tokio::test]
async fn the_log_goes_on_in_a_new_file_after_a_reload_and_outlives_a_restart() {
    let app = App::start().await;
    let path = app.store_root().join("audit.jsonl");
    app.client.unload("tone").await.expect(404);
    let rotated = app.outside();
    fs_err::rename(&path, &rotated).unwrap();
    app.reload().await;
    app.client.unload("tone").await.expect(404);
    let actions = |lines: Vec<Value>| -> Vec<String> {
        let lines = lines.iter();
        lines
            .map(|line| line["action"].as_str().unwrap().to_owned())
            .collect()
    };
    let expected = ["audit.reopen", "adapter.delete"];
    assert_eq!(actions(app.audited()), expected);
    assert_eq!(fs_err::read_to_string(rotated).unwrap().lines().count(), 1);
    let app = app.restart().await;
    assert_eq!(actions(app.audited()), expected);
    let metrics = app.client.metrics().await;
    assert!(!metrics.contains("stored_damaged"), "{metrics}");
    // The file's name is not an adapter's.
    let files = AdapterDirectory::random(&app.base, 1);
    let refused = app.client.upload("audit.jsonl", &files).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
}

#[tokio::test]
async fn a_log_that_is_off_leaves_no_file() {
    let app = App::start_with(Options {
        audit_log: Some("off".into()),
        ..Options::default()
    })
    .await;
    app.client.unload("tone").await.expect(404);
    app.reload().await;
    assert!(!app.store_root().join("audit.jsonl").exists());
}
