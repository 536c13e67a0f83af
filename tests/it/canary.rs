//! A version on trial: who gets it, and what becomes of it.

use serde_json::json;

use crate::harness::{AdapterDirectory, App};

/// A server with an adapter at its first version, and a second one beside it.
async fn two_versions() -> (App, String, String) {
    let app = App::start().await;
    let (first, second) = (
        AdapterDirectory::random(&app.base, 1),
        AdapterDirectory::random(&app.base, 2),
    );
    app.client.upload("tone", &first).await.expect(201);
    app.client.replace("tone", &second).await.expect(200);
    app.client.rollback("tone").await.expect(200);
    (app, first.version(), second.version())
}

/// The version that answers a user.
async fn answered(app: &App, user: &str) -> String {
    let body = json!({"model": "tone", "prompt": "I", "max_tokens": 1, "user": user});
    let reply = app.client.completions(&body).await.expect(200);
    reply["adapter"]["version"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_share_of_the_users_gets_the_canary_and_keeps_it() {
    let (app, active, canary) = two_versions().await;
    let card = app
        .client
        .canary("tone", &canary[..12], 30.0)
        .await
        .expect(200);
    assert_eq!(card["canary"], json!({"version": canary, "percent": 30.0}));
    assert_eq!(card["active_version"], active.as_str());
    let mut tried = 0;
    for number in 0..100 {
        let user = format!("user-{number}");
        let got = answered(&app, &user).await;
        assert!(got == active || got == canary);
        assert_eq!(answered(&app, &user).await, got, "a user stays on one side");
        tried += usize::from(got == canary);
    }
    // The users are fixed, so this is too; five standard deviations are 23.
    assert!((7..=53).contains(&tried), "{tried} of 100");
    // Who names a version gets it.
    let named = format!("tone@{}", &active[..8]);
    let body = json!({"model": named, "prompt": "I", "max_tokens": 1, "user": "user-1"});
    let reply = app.client.completions(&body).await.expect(200);
    assert_eq!(reply["adapter"]["version"], active.as_str());

    let metrics = app.client.metrics().await;
    for version in [&active, &canary] {
        let series = format!(
            "quickchange_version_requests_total{{adapter=\"tone\",status=\"200\",version=\"{}\"}}",
            &version[..12]
        );
        assert!(metrics.contains(&series), "{series} is not in {metrics}");
    }
}

#[tokio::test]
async fn without_a_user_requests_are_split_one_by_one() {
    let (app, active, canary) = two_versions().await;
    app.client.canary("tone", &canary, 50.0).await.expect(200);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..64 {
        let body = json!({"model": "tone", "prompt": "I", "max_tokens": 1});
        let reply = app.client.completions(&body).await.expect(200);
        seen.insert(reply["adapter"]["version"].as_str().unwrap().to_owned());
    }
    // All on one side has a chance of 2^-63.
    assert_eq!(seen, [active, canary].into());
}

#[tokio::test]
async fn a_trial_ends_by_word_by_activation_and_not_by_a_restart() {
    let (app, active, canary) = two_versions().await;
    app.client.canary("tone", &canary, 100.0).await.expect(200);
    assert_eq!(answered(&app, "ada").await, canary);
    let app = app.restart().await;
    assert_eq!(answered(&app, "ada").await, canary);
    assert_eq!(
        app.client.end_canary("tone").await.expect(200)["canary"],
        json!(null)
    );
    assert_eq!(answered(&app, "ada").await, active);
    app.client.canary("tone", &canary, 100.0).await.expect(200);
    let card = app
        .client
        .activate("tone", &json!({"version": canary}))
        .await
        .expect(200);
    assert_eq!(card["canary"], json!(null), "it has arrived");
    let card = app.client.canary("tone", &active, 0.0).await.expect(200);
    assert_eq!(card["canary"]["percent"], 0.0);
    assert_eq!(answered(&app, "ada").await, canary);
    // A version that goes takes its trial along.
    app.client.unload_version("tone", &active).await.expect(204);
    assert_eq!(
        app.client.adapter("tone").await.expect(200)["canary"],
        json!(null)
    );
}

#[tokio::test]
async fn what_cannot_be_tried_is_refused() {
    let (app, active, canary) = two_versions().await;
    let refused = app.client.canary("tone", &canary, 101.0).await;
    refused.expect_error(400, "invalid_value", &["101", "0 to 100"]);
    let refused = app.client.canary("tone", &active, 10.0).await;
    refused.expect_error(400, "invalid_value", &["is active"]);
    let refused = app.client.canary("tone", "00000000", 10.0).await;
    refused.expect_error(404, "version_not_found", &["00000000"]);
    let refused = app.client.canary("gist", &canary, 10.0).await;
    refused.expect_error(404, "adapter_not_found", &["gist"]);
    assert_eq!(
        app.client.adapter("tone").await.expect(200)["canary"],
        json!(null)
    );
}
