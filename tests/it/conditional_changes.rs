//! Changes of an adapter that depend on something: on the version that is active, on an evaluation, on being meant at all.

use serde_json::{Value, json};

use crate::harness::{AdapterDirectory, App, client};

#[tokio::test]
async fn a_replacement_by_entity_tag_is_a_compare_and_swap() {
    let app = App::start().await;
    let files = [1, 2, 3].map(|seed| AdapterDirectory::random(&app.base, seed));
    let created = app.client.upload("one", &files[0]).await;
    let tag = created.header("etag").unwrap().to_owned();
    assert_eq!(tag, format!("\"{}\"", files[0].version()));
    let replaced = app.client.replace_if(&tag, "one", &files[1]).await;
    assert_eq!(replaced.status, 200, "{}", replaced.body);
    let lost = app.client.replace_if(&tag, "one", &files[2]).await;
    let active = files[1].version();
    lost.expect_error(409, "compare_and_swap_lost", &[&active]);
    let now = app.client.adapter("one").await;
    assert_eq!(now.header("etag").unwrap(), format!("\"{active}\""));
    assert_eq!(now.expect(200)["versions"].as_array().unwrap().len(), 2);

    let nobody = app.client.replace_if(&tag, "nobody", &files[0]).await;
    nobody.expect_error(404, "adapter_not_found", &["nobody"]);
    for tag in ["*", "W/\"12345678\"", "12345678", "\"a\", \"b\""] {
        let unclear = app.client.replace_if(tag, "one", &files[2]).await;
        unclear.expect_error(400, "invalid_value", &["If-Match", "double quotes"]);
    }
}

#[tokio::test]
async fn activation_and_rollback_take_the_entity_tag_too() {
    let app = App::start().await;
    let files = [1, 2].map(|seed| AdapterDirectory::random(&app.base, seed));
    let [first, second] = files.each_ref().map(AdapterDirectory::version);
    app.client.upload("one", &files[0]).await.expect(201);
    app.client.replace("one", &files[1]).await.expect(200);
    let post = |path: &'static str, tag: &str, body: &Value| {
        let request = app.client.request(reqwest::Method::POST, path);
        client::send(request.header("if-match", format!("\"{tag}\"")).json(body))
    };
    let activate = "/v1/adapters/one/activate";
    let body = json!({"version": first});
    let lost = post(activate, &first, &body).await;
    lost.expect_error(409, "compare_and_swap_lost", &[&second]);
    let both = json!({"version": first, "expected": first});
    let unclear = post(activate, &second, &both).await;
    unclear.expect_error(400, "invalid_value", &["expected", "If-Match"]);
    assert_eq!(post(activate, &second, &body).await.status, 200);
    let rollback = "/v1/adapters/one/rollback";
    let lost = post(rollback, &second, &json!({})).await;
    lost.expect_error(409, "compare_and_swap_lost", &[&first]);
    let back = post(rollback, &first, &json!({})).await;
    assert_eq!(back.expect(200)["active_version"], second);
}

#[tokio::test]
async fn a_dry_run_says_what_loading_would_do_and_does_none_of_it() {
    let app = App::start().await;
    let files = [1, 2].map(|seed| AdapterDirectory::random(&app.base, seed));
    let dry = app.client.examine("one", &files[0]).await.expect(200);
    assert_eq!(dry["object"], "dry_run");
    assert_eq!(
        (&dry["id"], &dry["would"]),
        (&json!("one"), &json!("create"))
    );
    assert_eq!(dry["version"], files[0].version());
    assert!(dry["report"]["effect_kl"].as_f64().unwrap() > 0.0);
    assert!(app.client.adapter_names().await.is_empty());
    assert_eq!(app.stored_weights(), 0);

    let created = app.client.upload("one", &files[0]).await.expect(201);
    assert_eq!(created["report"]["effect_kl"], dry["report"]["effect_kl"]);
    let taken = app.client.examine("one", &files[1]).await;
    taken.expect_error(409, "adapter_already_loaded", &["one"]);
    let path = "/v1/adapters/one?dry_run=true";
    let put = |files: &AdapterDirectory| {
        let request = app.client.request(reqwest::Method::PUT, path);
        client::send(request.multipart(client::form(files)))
    };
    assert_eq!(put(&files[0]).await.expect(200)["would"], "nothing");
    assert_eq!(put(&files[1]).await.expect(200)["would"], "add_version");
    app.client.replace("one", &files[1]).await.expect(200);
    assert_eq!(put(&files[0]).await.expect(200)["would"], "activate");
    let adapter = app.client.adapter("one").await.expect(200);
    assert_eq!(adapter["active_version"], files[1].version());
    assert_eq!(app.stored_weights(), 2);
}

/// The moods adapter with a second version that is not active.
async fn with_candidate() -> (App, String, String) {
    let app = App::with_moods().await;
    let candidate = app.moods(2);
    let path = "/v1/adapters/moods?activate=false";
    let request = app.client.request(reqwest::Method::PUT, path);
    let form = client::form(&candidate);
    let added = client::send(request.multipart(form)).await;
    let added = added.expect(200);
    let active = added["active_version"].as_str().unwrap().to_owned();
    let version = candidate.version();
    assert_ne!(active, version);
    (app, active, version)
}

#[tokio::test]
async fn a_gate_holds_a_version_back_with_the_figures_and_lets_it_pass() {
    let (app, active, candidate) = with_candidate().await;
    let names = [&active, &candidate].map(|version| format!("moods@{version}"));
    let body = json!({"kind": "out_of_domain", "adapters": names, "shots": [0], "limit": 6});
    let evaluation = app.client.evaluate_to_the_end(&body).await;
    let gate = |min_delta: f64| json!({"evaluation": evaluation["id"], "metric": "accuracy", "kind": "out_of_domain", "min_delta": min_delta, "against": "active"});
    let body = json!({"version": candidate, "gate": gate(1.0)});
    let refused = app.client.activate("moods", &body).await;
    refused.expect_error(
        422,
        "gate_not_passed",
        &["95 % interval", "12 examples in 2 cells"],
    );
    let found = &refused.json()["error"]["gate"];
    let mean = |version: &str| -> f64 {
        let cells = evaluation["cells"].as_array().unwrap().iter();
        let values = cells.filter(|cell| cell["version"] == version);
        values
            .map(|cell| cell["value"].as_f64().unwrap())
            .sum::<f64>()
            / 2.0
    };
    let delta = mean(&candidate) - mean(&active);
    assert!(
        (found["delta"].as_f64().unwrap() - delta).abs() < 1e-9,
        "{found}"
    );
    assert_eq!(found["against_version"], active);
    assert_eq!(found["cells"].as_array().unwrap().len(), 2);
    let before = app.client.adapter("moods").await.expect(200);
    assert_eq!(before["active_version"], active);

    // What decides outlives the process.
    let app = app.restart().await;
    let body = json!({"version": candidate, "gate": gate(-1.0)});
    let passed = app.client.activate("moods", &body).await.expect(200);
    assert_eq!(passed["active_version"], candidate);
    assert_eq!(passed["gate"]["passed"], true);
}

#[tokio::test]
async fn a_gate_on_figures_that_are_not_there_changes_nothing() {
    let (app, active, candidate) = with_candidate().await;
    let body = json!({"kind": "out_of_domain", "adapters": [format!("moods@{candidate}")], "shots": [0], "limit": 2});
    let evaluation = app.client.evaluate_to_the_end(&body).await;
    let try_gate = async |gate: Value| {
        let body = json!({"version": candidate, "gate": gate});
        app.client.activate("moods", &body).await
    };
    let id = &evaluation["id"];
    let gate = json!({"evaluation": id, "metric": "accuracy", "kind": "out_of_domain"});
    let compared = try_gate(gate).await;
    compared.expect_error(422, "gate_not_compared", &[&active, "name@version"]);
    let gate =
        json!({"evaluation": id, "metric": "accuracy", "kind": "in_domain", "against": "base"});
    let measured = try_gate(gate).await;
    measured.expect_error(422, "gate_not_measured", &["InDomain"]);
    let gate = json!({"evaluation": "eval_0", "metric": "accuracy", "kind": "in_domain"});
    let unknown = try_gate(gate).await;
    unknown.expect_error(404, "not_found", &["eval_0"]);
    let nameless = try_gate(json!({"metric": "accuracy", "kind": "in_domain"})).await;
    nameless.expect_error(400, "missing_field", &["gate.evaluation", "promote"]);
    let gate = json!({"evaluation": id, "metric": "beauty", "kind": "in_domain"});
    assert_eq!(try_gate(gate).await.status, 400);
    let gate =
        json!({"evaluation": id, "metric": "accuracy", "kind": "out_of_domain", "min_delta": 2});
    let outside = try_gate(gate).await;
    outside.expect_error(400, "invalid_value", &["gate.min_delta", "-1 to 1"]);
    let adapter = app.client.adapter("moods").await.expect(200);
    assert_eq!(adapter["active_version"], active);
}

#[tokio::test]
async fn a_promotion_runs_the_evaluation_and_then_decides() {
    let (app, active, candidate) = with_candidate().await;
    let body = |min_delta: f64| {
        let gate = json!({"metric": "accuracy", "kind": "in_domain", "min_delta": min_delta});
        json!({"version": candidate[..12], "gate": gate, "shots": [0], "limit": 3})
    };
    let refused = app.client.promote("moods", &body(1.0)).await;
    refused.expect_error(422, "gate_not_passed", &["accuracy"]);
    let evaluation = &refused.json()["error"]["gate"]["gate"]["evaluation"];
    let evaluation = app.client.evaluation(evaluation.as_str().unwrap()).await;
    assert_eq!(evaluation.expect(200)["cells"].as_array().unwrap().len(), 4);
    let adapter = app.client.adapter("moods").await.expect(200);
    assert_eq!(adapter["active_version"], active);

    let promoted = app.client.promote("moods", &body(-1.0)).await.expect(200);
    assert_eq!(promoted["active_version"], candidate);
    assert_eq!(promoted["gate"]["against_version"], active);
    let mut stale = body(-1.0);
    stale["version"] = json!(active);
    stale["expected"] = json!(active);
    let lost = app.client.promote("moods", &stale).await;
    lost.expect_error(409, "compare_and_swap_lost", &[&candidate]);
}
