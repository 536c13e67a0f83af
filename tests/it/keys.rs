//! Keys from a file: what they open, and how the file is read again while the server runs.

use serde_json::json;
use server::access::{KeyFile, Scope};

use crate::harness::{App, Keys, Options};
use crate::metrics::sum;

async fn serving(keys: &Keys) -> App {
    App::start_with(Options {
        keys: Some(keys.path()),
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn a_key_of_the_file_opens_what_its_scopes_say() {
    let keys = Keys::new();
    let made = [Scope::Inference, Scope::Metrics, Scope::Admin].map(|scope| keys.add(scope));
    let app = serving(&keys).await;
    let statuses = |key: &str| {
        let client = app.client.with_key(key);
        async move {
            let body = json!({"prompt": "a", "max_tokens": 1});
            [
                client.completions(&body).await.status,
                client.get("/metrics").await.status,
                client.get("/v1/adapters").await.status,
            ]
        }
    };
    assert_eq!(statuses(&made[0].key).await, [200, 403, 403]);
    assert_eq!(statuses(&made[1].key).await, [403, 200, 403]);
    assert_eq!(statuses(&made[2].key).await, [200, 200, 200]);
    assert_eq!(statuses(&made[0].key[..66]).await, [401, 401, 401]);
    assert_eq!(statuses(&made[0].id).await, [401, 401, 401]);
    let refused = app.client.with_key(&made[1].key).get("/v1/models").await;
    let words = ["has the scope `metrics`", "needs the scope `inference`"];
    refused.expect_error(403, "insufficient_scope", &words);
}

#[tokio::test]
async fn a_file_without_keys_lets_nobody_in() {
    let keys = Keys::new();
    let app = serving(&keys).await;
    assert_eq!(app.client.get("/v1/models").await.status, 401);
    assert_eq!(app.client.get("/health").await.status, 200);
}

#[tokio::test]
async fn keys_of_flags_and_of_the_file_are_known_side_by_side() {
    let keys = Keys::new();
    let made = keys.add(Scope::Inference);
    let app = App::start_with(Options {
        keys: Some(keys.path()),
        admin_key: vec!["of-a-flag".to_owned()],
        ..Options::default()
    })
    .await;
    assert_eq!(
        app.client
            .with_key("of-a-flag")
            .get("/v1/adapters")
            .await
            .status,
        200
    );
    assert_eq!(
        app.client
            .with_key(&made.key)
            .get("/v1/models")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_reload_takes_in_new_keys_and_refuses_revoked_ones() {
    let keys = Keys::new();
    let old = keys.add(Scope::Inference);
    let app = serving(&keys).await;
    let new = keys.add(Scope::Inference);
    keys.revoke(&old);
    let status = async |key: &str| app.client.with_key(key).get("/v1/models").await.status;
    assert_eq!(status(&old.key).await, 200, "before the reload");
    assert_eq!(status(&new.key).await, 401, "before the reload");
    app.reload().await;
    assert_eq!(status(&old.key).await, 401);
    assert_eq!(status(&new.key).await, 200);
}

#[tokio::test]
async fn a_broken_file_keeps_the_keys_that_were_there_and_is_counted() {
    let keys = Keys::new();
    let admin = keys.add(Scope::Admin);
    let app = serving(&keys).await;
    let client = app.client.with_key(&admin.key);
    let whole = KeyFile::read(&keys.path()).unwrap().to_text().unwrap();
    for broken in [
        "",
        "{",
        r#"{"keys": [{}]}"#,
        &whole.replace("admin", "root"),
    ] {
        keys.write(broken);
        app.reload().await;
        assert_eq!(client.get("/v1/adapters").await.status, 200, "{broken:?}");
    }
    fs_err::remove_file(keys.path()).unwrap();
    app.reload().await;
    let failures = "quickchange_reload_failures_total";
    assert_eq!(sum(&client.metrics().await, failures), 5.0);
    keys.write(&whole);
    app.reload().await;
    assert_eq!(sum(&client.metrics().await, failures), 5.0);
    let reloads: Vec<_> = app.audited();
    let of_keys = reloads
        .iter()
        .filter(|line| line["action"] == "keys.reload");
    let errors: Vec<_> = of_keys.map(|line| line["error"].as_str()).collect();
    let failed = Some("reload_failed");
    assert_eq!(errors, [failed, failed, failed, failed, failed, None]);
}

#[tokio::test]
async fn an_expired_key_is_told_so() {
    let keys = Keys::new();
    let made = keys.add(Scope::Inference);
    keys.edit(&made, |key| {
        key.expires = Some("2026-01-01T00:00:00Z".parse().unwrap());
    });
    let other = keys.add(Scope::Inference);
    keys.edit(&other, |key| {
        key.expires = Some("9000-01-01T00:00:00Z".parse().unwrap());
    });
    let app = serving(&keys).await;
    let refused = app.client.with_key(&made.key).get("/v1/models").await;
    let words = ["expired at 2026-01-01T00:00:00Z", "a valid key is needed"];
    refused.expect_error(401, "invalid_api_key", &words);
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    let other = app.client.with_key(&other.key);
    assert_eq!(other.get("/v1/models").await.status, 200);
}
