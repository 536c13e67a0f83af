//! Requests that are refused with 400, and what the message must name.

use serde_json::{Value, json};

use crate::harness::App;

/// A completion of "a" with one field changed is refused with 400, and the error names the field.
async fn refused(app: &App, field: &str, value: Value) {
    let mut body = json!({"prompt": "a", "max_tokens": 1, "temperature": 0});
    body[field] = value.clone();
    let reply = app.client.completions(&body).await;
    assert_eq!(reply.status, 400, "{field} = {value}: {}", reply.body);
    let error = &reply.json()["error"];
    assert_eq!(error["type"], "invalid_request_error", "{error}");
    assert!(
        error["message"].as_str().unwrap().contains(field),
        "{field} = {value}: {error}"
    );
    assert!(
        error["param"]
            .as_str()
            .is_some_and(|param| param.starts_with(field)),
        "{field} = {value}: {error}"
    );
}

#[tokio::test]
async fn values_out_of_range_name_their_field() {
    let app = App::start().await;
    for (field, value) in [
        ("max_tokens", json!(-1)),
        ("temperature", json!(-0.5)),
        ("temperature", json!(2.5)),
        ("top_p", json!(0)),
        ("top_p", json!(1.5)),
        ("top_k", json!(-2)),
        ("min_p", json!(1.5)),
        ("n", json!(0)),
        ("logprobs", json!(21)),
        ("presence_penalty", json!(3)),
        ("frequency_penalty", json!(-3)),
        ("repetition_penalty", json!(0)),
        ("logit_bias", json!({"320": 1})),
        ("logit_bias", json!({"word": 1})),
        ("logit_bias", json!({"7": 101})),
        ("stop", json!(vec!["x"; 17])),
        ("stop", json!([""])),
        ("min_tokens", json!(5)),
    ] {
        refused(&app, field, value).await;
    }
}

#[tokio::test]
async fn wrong_types_name_their_field() {
    let app = App::start().await;
    for (field, value) in [
        ("prompt", json!(7)),
        ("prompt", json!({"text": "a"})),
        ("prompt", json!(["a", 7])),
        ("prompt", json!([-1])),
        ("model", json!(7)),
        ("max_tokens", json!("ten")),
        ("max_tokens", json!(1.5)),
        ("temperature", json!("hot")),
        ("stream", json!("yes")),
        ("seed", json!("seven")),
        ("stop", json!(7)),
        ("logit_bias", json!([1])),
        ("echo", json!(1)),
    ] {
        refused(&app, field, value).await;
    }
}

#[tokio::test]
async fn known_parameters_without_support_are_not_ignored() {
    let app = App::start().await;
    for (field, value) in [("best_of", json!(3)), ("suffix", json!("end"))] {
        refused(&app, field, value).await;
    }
}

#[tokio::test]
async fn a_prompt_there_must_be() {
    let app = App::start().await;
    for body in [
        json!({}),
        json!({"prompt": ""}),
        json!({"prompt": []}),
        json!({"prompt": [[]]}),
        json!({"prompt": null}),
    ] {
        let reply = app.client.completions(&body).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.body);
        assert!(
            reply.json()["error"]["message"]
                .as_str()
                .unwrap()
                .contains("prompt"),
            "{body}: {}",
            reply.body
        );
    }
}

#[tokio::test]
async fn token_ids_must_be_in_the_vocabulary() {
    let app = App::start().await;
    let reply = app.client.completions(&json!({"prompt": [7, 320]})).await;
    assert_eq!(reply.status, 400, "{}", reply.body);
    assert!(
        reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("320"),
        "{}",
        reply.body
    );
}

#[tokio::test]
async fn bytes_that_are_not_json_are_refused_on_every_route() {
    let app = App::start().await;
    let routes = [
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/classify",
        "/v1/score",
        "/tokenize",
        "/detokenize",
        "/v1/adapters",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/v1/evaluations",
        "/v1/evaluations/ood",
        "/v1/evaluations/cross-task",
    ];
    let bodies: [&[u8]; 5] = [
        b"",
        b"{\"prompt\": \"a\"",
        b"[1, 2]",
        b"{\"prompt\": \"\xff\xfe\"}",
        b"\x00\x01\x02",
    ];
    for route in routes {
        for body in bodies {
            let reply = app.client.post_bytes(route, body.to_vec()).await;
            assert_eq!(reply.status, 400, "{route} {body:?}: {}", reply.body);
            assert_eq!(
                reply.json()["error"]["type"],
                "invalid_request_error",
                "{route} {body:?}"
            );
        }
    }
    assert_eq!(app.client.get("/health").await.status, 200);
}
