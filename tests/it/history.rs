//! What a name was: its activations, the versions that are kept, and the way back to any of them.

use serde_json::json;

use crate::harness::{AdapterDirectory, App, Options};

#[tokio::test]
async fn every_activation_is_remembered_with_its_cause_and_survives_a_restart() {
    let app = App::start().await;
    let files: Vec<_> = (1..4)
        .map(|seed| AdapterDirectory::random(&app.base, seed))
        .collect();
    app.client.upload("tone", &files[0]).await.expect(201);
    for files in &files[1..] {
        app.client.replace("tone", files).await.expect(200);
    }
    let body = json!({"version": files[1].version()});
    app.client.activate("tone", &body).await.expect(200);
    app.client.rollback("tone").await.expect(200);
    app.client
        .rollback_to("tone", &files[0].version()[..8])
        .await
        .expect(200);
    // Activating what is active is no activation.
    app.client
        .activate("tone", &json!({"version": files[0].version()}))
        .await
        .expect(200);

    let app = app.restart().await;
    let history = app.client.history("tone").await.expect(200);
    let seen: Vec<_> = history["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["version"].as_str().unwrap().to_owned(),
                one["cause"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let of = |number: usize, cause: &str| (files[number].version(), cause.to_owned());
    assert_eq!(
        seen,
        [
            of(0, "load"),
            of(1, "load"),
            of(2, "load"),
            of(1, "activate"),
            of(2, "rollback"),
            of(0, "rollback"),
        ]
    );
    let times: Vec<u64> = history["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["activated"].as_u64().unwrap())
        .collect();
    assert!(times.is_sorted() && times[0] > 1_700_000_000, "{times:?}");
    let card = app.client.adapter("tone").await.expect(200);
    assert_eq!(card["history"], history["data"]);
    assert_eq!(card["active_version"], files[0].version().as_str());
    assert_eq!(card["previous_version"], files[2].version().as_str());
    app.client
        .history("gist")
        .await
        .expect_error(404, "adapter_not_found", &["gist"]);
    let reply = app.client.rollback_to("tone", "00000000").await;
    reply.expect_error(404, "version_not_found", &["00000000"]);
}

#[tokio::test]
async fn a_rollback_with_an_expectation_loses_to_who_was_first() {
    let app = App::start().await;
    let (first, second) = (
        AdapterDirectory::random(&app.base, 1),
        AdapterDirectory::random(&app.base, 2),
    );
    app.client.upload("tone", &first).await.expect(201);
    app.client.replace("tone", &second).await.expect(200);
    let body = json!({"expected": first.version()});
    let reply = app.client.post("/v1/adapters/tone/rollback", &body).await;
    reply.expect_error(409, "compare_and_swap_lost", &[&second.version()]);
}

/// A process killed between the files and the pointer of a first version leaves that.
#[tokio::test]
async fn what_is_active_without_a_pointer_stays_so_when_another_version_comes() {
    let app = App::start().await;
    let (first, second) = (
        AdapterDirectory::random(&app.base, 1),
        AdapterDirectory::random(&app.base, 2),
    );
    app.client.upload("tone", &first).await.expect(201);
    let pointer = app.store_root().join("tone/active");
    fs_err::remove_file(&pointer).unwrap();
    let app = app.restart().await;
    assert!(app.store_root().join("tone/active").exists());
    let path = app.adapters_root().join("next");
    copy(&second.path(), &path);
    let body = json!({"path": "next"});
    app.client
        .put("/v1/adapters/tone?activate=false", &body)
        .await
        .expect(200);
    let app = app.restart().await;
    let card = app.client.adapter("tone").await.expect(200);
    assert_eq!(card["active_version"], first.version().as_str());
    assert_eq!(card["previous_version"], json!(null));
    app.client
        .rollback("tone")
        .await
        .expect_error(409, "nothing_to_roll_back", &[]);
}

#[tokio::test]
async fn old_versions_go_unless_somebody_points_at_them() {
    let app = App::start_with(Options {
        retain_versions: 2,
        ..Options::default()
    })
    .await;
    let files: Vec<_> = (1..6)
        .map(|seed| AdapterDirectory::random(&app.base, seed))
        .collect();
    app.client.upload("tone", &files[0]).await.expect(201);
    // Not activated, so that the first one stays what it is.
    for files in &files[1..4] {
        let path = app.adapters_root().join("next");
        let _ = fs_err::remove_dir_all(&path);
        copy(&files.path(), &path);
        let body = json!({"path": "next"});
        app.client
            .put("/v1/adapters/tone?activate=false", &body)
            .await
            .expect(200);
    }
    let kept = |card: serde_json::Value| -> Vec<String> {
        let versions = card["versions"].as_array().unwrap();
        versions
            .iter()
            .map(|version| version["version"].as_str().unwrap().to_owned())
            .collect()
    };
    let card = app.client.adapter("tone").await.expect(200);
    assert_eq!(
        kept(card),
        [files[0].version(), files[2].version(), files[3].version()]
    );
    app.client
        .canary("tone", &files[2].version(), 10.0)
        .await
        .expect(200);
    let card = app.client.replace("tone", &files[4]).await.expect(200);
    // The new one and the one before it in age; the former active one and the canary because they are pointed at.
    let left = [&files[0], &files[2], &files[3], &files[4]].map(AdapterDirectory::version);
    assert_eq!(kept(card), left);
    assert_eq!(app.stored_weights(), 4);
    let app = app.restart().await;
    let card = app.client.adapter("tone").await.expect(200);
    let mut found = kept(card);
    found.sort();
    let mut left = left.to_vec();
    left.sort();
    assert_eq!(found, left);
    let reply = app.client.rollback_to("tone", &files[1].version()).await;
    reply.expect_error(404, "version_not_found", &[]);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs_err::create_dir(to).unwrap();
    for entry in fs_err::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs_err::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}
