//! llama.cpp's server: its completions and its adapters by number.

use serde_json::{Value, json};

use crate::harness::App;

const PROMPT: &str = "The weather in the north";

/// What the page that comes with llama.cpp's server sends to `/completion`, greedy, not streamed, 12 tokens.
fn body() -> Value {
    json!({"prompt": PROMPT, "stream": false, "n_predict": 12, "temperature": 0, "stop": [], "repeat_last_n": 0, "repeat_penalty": 1,
        "penalize_nl": false, "dry_multiplier": 0, "dry_base": 1.75, "dry_allowed_length": 2, "dry_penalty_last_n": -1, "top_k": 0,
        "top_p": 1.0, "min_p": 0.05, "xtc_probability": 0, "xtc_threshold": 0.1, "typical_p": 1.0, "presence_penalty": 0,
        "frequency_penalty": 0, "mirostat": 0, "mirostat_tau": 5, "mirostat_eta": 0.1, "grammar": "", "n_probs": 0, "min_keep": 0,
        "image_data": [], "cache_prompt": true, "api_key": "", "slot_id": -1})
}

fn with(field: &str, value: Value) -> Value {
    let mut body = body();
    body[field] = value;
    body
}

#[tokio::test]
async fn a_prompt_is_continued_as_in_the_other_interfaces() {
    let app = App::start().await;
    let answer = app.client.llama_cpp_completion(&body()).await.expect(200);
    let expected = app.client.greedy_choice("tiny", PROMPT, 12).await;
    assert_eq!(answer["content"], expected["text"]);
    for (field, value) in [
        ("stop", json!(true)),
        ("index", json!(0)),
        ("model", json!("tiny")),
        ("adapter", Value::Null),
        ("prompt", json!(PROMPT)),
        ("tokens_predicted", json!(12)),
        (
            "tokens_evaluated",
            json!(app.client.tokenize(PROMPT).await.len()),
        ),
        ("tokens", json!([])),
        ("truncated", json!(false)),
        ("stop_type", json!("limit")),
        ("stopped_limit", json!(true)),
        ("stopped_eos", json!(false)),
        ("stopping_word", json!("")),
    ] {
        assert_eq!(answer[field], value, "{field}");
    }
    assert_eq!(answer["generation_settings"]["n_predict"], 12);
    assert_eq!(answer["generation_settings"]["temperature"], 0.0);
    assert!(answer.get("completion_probabilities").is_none());
    let alias = app.client.llama_cpp_completions(&body()).await.expect(200);
    assert_eq!(alias["content"], answer["content"]);
}

#[tokio::test]
async fn adapters_have_numbers_in_the_order_of_their_names_and_are_off_until_scaled() {
    let app = App::with_adapters(&["two", "one"]).await;
    let listed =
        json!([{"id": 0, "path": "one", "scale": 0.0}, {"id": 1, "path": "two", "scale": 0.0}]);
    assert_eq!(app.client.lora_adapters().await, listed);
    let base = app.client.llama_cpp_completion(&body()).await.expect(200);
    assert_eq!(base["adapter"], Value::Null);

    let scaled = app
        .client
        .scale_lora_adapters(&json!([{"id": 1, "scale": 1.0}, {"id": 0, "scale": 0}]))
        .await;
    assert_eq!(scaled.expect(200), json!({"success": true}));
    assert_eq!(app.client.lora_adapters().await[1]["scale"], 1.0);
    let answer = app.client.llama_cpp_completion(&body()).await.expect(200);
    assert_eq!(answer["adapter"]["name"], "two");
    assert_eq!(
        answer["content"],
        app.client.greedy_choice("two", PROMPT, 12).await["text"]
    );
    assert_ne!(answer["content"], base["content"]);

    // The other interfaces choose per request and know nothing of it.
    let other = app
        .client
        .completions(&json!({"prompt": PROMPT, "max_tokens": 12, "temperature": 0}))
        .await
        .expect(200);
    assert_eq!(other["choices"][0]["text"], base["content"]);

    assert_eq!(app.client.scale_lora_adapters(&json!([])).await.status, 200);
    assert_eq!(app.client.lora_adapters().await, listed);
}

#[tokio::test]
async fn a_request_can_choose_for_itself() {
    let app = App::with_adapters(&["one", "two"]).await;
    let scales = json!([{"id": 0, "scale": 1.0}]);
    app.client.scale_lora_adapters(&scales).await.expect(200);
    for (field, value, model) in [
        ("lora", json!([{"id": 1, "scale": 1.0}]), "two"),
        ("lora", json!([{"id": 0, "scale": 0.0}]), "tiny"),
        ("lora", json!([]), "tiny"),
        ("model", json!("two"), "two"),
        ("model", json!("tiny"), "tiny"),
    ] {
        let answer = app
            .client
            .llama_cpp_completion(&with(field, value.clone()))
            .await
            .expect(200);
        let expected = app.client.greedy_choice(model, PROMPT, 12).await;
        assert_eq!(answer["content"], expected["text"], "{field}: {value}");
    }
}

#[tokio::test]
async fn scales_of_several_adapters_are_a_blend() {
    let app = App::with_adapters(&["one", "two"]).await;
    let scales = json!([{"id": 0, "scale": 0.5}, {"id": 1, "scale": -0.25}]);
    let answer = app.client.llama_cpp_completion(&with("lora", scales)).await;
    let answer = answer.expect(200);
    let blended = json!({"prompt": PROMPT, "max_tokens": 12, "temperature": 0, "adapter_weights": {"one": 0.5, "two": -0.25}});
    let expected = app.client.completions(&blended).await.expect(200);
    assert_eq!(answer["content"], expected["choices"][0]["text"]);
    assert_eq!(answer["adapter"], expected["adapter"]);
}

#[tokio::test]
async fn a_scale_follows_its_adapter_when_numbers_change_and_goes_with_it() {
    let app = App::with_adapters(&["middle"]).await;
    let scales = json!([{"id": 0, "scale": 1.0}]);
    app.client.scale_lora_adapters(&scales).await.expect(200);
    app.place("first", 7);
    app.client.load_path("first", "first").await.expect(201);
    let listed = json!([{"id": 0, "path": "first", "scale": 0.0}, {"id": 1, "path": "middle", "scale": 1.0}]);
    assert_eq!(app.client.lora_adapters().await, listed);
    assert_eq!(app.client.unload("middle").await.status, 204);
    let answer = app.client.llama_cpp_completion(&body()).await.expect(200);
    assert_eq!(answer["adapter"], Value::Null);
}

#[tokio::test]
async fn the_parts_of_a_stream_are_followed_by_an_end_without_text() {
    let app = App::with_adapters(&["one"]).await;
    let request = with("lora", json!([{"id": 0, "scale": 1.0}]));
    let whole = app.client.llama_cpp_completion(&request).await.expect(200);
    let stream = app.client.stream_llama_cpp(&request).await;
    assert!(!stream.done, "this interface knows no [DONE]");
    let (end, parts) = stream.chunks.split_last().unwrap();
    assert_eq!(parts.len(), 12);
    assert!(parts.iter().all(|part| part["stop"] == false));
    let texts = parts.iter().map(|part| part["content"].as_str().unwrap());
    assert_eq!(
        texts.collect::<String>(),
        whole["content"].as_str().unwrap()
    );
    assert!(
        parts
            .iter()
            .all(|part| part["tokens"].as_array().unwrap().len() == 1)
    );
    assert_eq!(end["stop"], true);
    assert_eq!(end["content"], "");
    for field in [
        "tokens_predicted",
        "tokens_evaluated",
        "stop_type",
        "model",
        "adapter",
        "prompt",
    ] {
        assert_eq!(end[field], whole[field], "{field}");
    }
}

#[tokio::test]
async fn several_prompts_get_a_list_of_answers() {
    let app = App::start().await;
    let answers = app
        .client
        .llama_cpp_completion(&with("prompt", json!([PROMPT, "Positive"])))
        .await
        .expect(200);
    for (index, prompt) in [PROMPT, "Positive"].into_iter().enumerate() {
        let expected = app.client.greedy_choice("tiny", prompt, 12).await;
        assert_eq!(answers[index]["content"], expected["text"]);
        assert_eq!(answers[index]["index"], index);
    }
    let ids = app.client.tokenize(PROMPT).await;
    let answer = app
        .client
        .llama_cpp_completion(&with("prompt", json!(ids)))
        .await
        .expect(200);
    assert_eq!(answer["content"], answers[0]["content"]);
}

#[tokio::test]
async fn probabilities_and_stop_words_are_told() {
    let app = App::start().await;
    let mut request = with("n_probs", json!(2));
    request["return_tokens"] = json!(true);
    let answer = app.client.llama_cpp_completion(&request).await.expect(200);
    let legacy = json!({"prompt": PROMPT, "max_tokens": 12, "temperature": 0, "logprobs": 2});
    let legacy =
        app.client.completions(&legacy).await.expect(200)["choices"][0]["logprobs"].clone();
    let told = answer["completion_probabilities"].as_array().unwrap();
    let values: Vec<&Value> = told.iter().map(|own| &own["logprob"]).collect();
    assert_eq!(json!(values), legacy["token_logprobs"]);
    let ids: Vec<&Value> = told.iter().map(|own| &own["id"]).collect();
    assert_eq!(json!(ids), answer["tokens"]);
    assert_eq!(told[0]["top_logprobs"].as_array().unwrap().len(), 2);
    assert_eq!(told[0]["top_logprobs"][0]["id"], told[0]["id"]);

    let text = answer["content"].as_str().unwrap();
    let stop: String = text.chars().skip(3).take(2).collect();
    let answer = app
        .client
        .llama_cpp_completion(&with("stop", json!([stop])))
        .await
        .expect(200);
    assert_eq!(answer["stop_type"], "word");
    assert_eq!(answer["stopped_word"], true);
    assert_eq!(answer["stopping_word"], stop);
    assert_eq!(answer["content"], text[..text.find(&stop).unwrap()]);
}

#[tokio::test]
async fn no_tokens_at_all_warm_the_cache() {
    let app = App::start().await;
    let prompt = PROMPT.repeat(12);
    let mut request = with("n_predict", json!(0));
    request["prompt"] = json!(prompt);
    for streamed in [false, true] {
        request["stream"] = json!(streamed);
        let reply = app.client.llama_cpp_completion(&request).await;
        let answer = match streamed {
            false => reply.expect(200),
            true => crate::harness::Stream::parse(&reply).chunks[0].clone(),
        };
        assert_eq!(
            (&answer["content"], &answer["tokens_predicted"]),
            (&json!(""), &json!(0))
        );
    }
    let mut request = body();
    request["prompt"] = json!(prompt);
    let answer = app.client.llama_cpp_completion(&request).await.expect(200);
    assert!(answer["tokens_cached"].as_u64().unwrap() > 0, "{answer}");
}

#[tokio::test]
async fn refusals_have_llama_cpps_shape() {
    let app = App::start().await;
    for (field, value, status, kind) in [
        ("n_predict", json!("x"), 400, "invalid_request_error"),
        (
            "grammar",
            json!("root ::= \"a\""),
            400,
            "invalid_request_error",
        ),
        ("top_p", json!(2), 400, "invalid_request_error"),
        (
            "lora",
            json!([{"id": 0, "scale": 1.0}]),
            400,
            "invalid_request_error",
        ),
        ("model", json!("nobody"), 404, "not_found_error"),
        (
            "prompt",
            json!(" positive".repeat(10_000)),
            400,
            "exceed_context_size_error",
        ),
    ] {
        let refused = app
            .client
            .llama_cpp_completion(&with(field, value))
            .await
            .expect(status);
        let error = &refused["error"];
        assert_eq!(
            (&error["code"], &error["type"]),
            (&json!(status), &json!(kind)),
            "{field}"
        );
        assert!(error["message"].is_string());
        assert_eq!(error["n_ctx"].is_u64(), kind == "exceed_context_size_error");
    }
    for body in [
        json!([{"id": 0, "scale": 1.0}]),
        json!({"id": 0}),
        json!([{"id": "one", "scale": 1}]),
    ] {
        let refused = app.client.scale_lora_adapters(&body).await.expect(400);
        assert_eq!(refused["error"]["type"], "invalid_request_error", "{body}");
    }
}
