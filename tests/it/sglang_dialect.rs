//! SGLang's native interface, with the bodies its own clients send.

use serde_json::{Value, json};

use crate::harness::App;

const PROMPT: &str = "The weather in the north";

/// What `sglang.bench_serving` sends, not streamed.
fn body(model: Value) -> Value {
    json!({"text": PROMPT, "sampling_params": {"temperature": 0.0, "max_new_tokens": 12, "ignore_eos": false},
        "stream": false, "lora_path": model, "return_logprob": false, "return_routed_experts": false, "logprob_start_len": -1})
}

#[tokio::test]
async fn an_adapter_comes_and_goes_and_the_answer_lists_what_is_loaded() {
    let app = App::start().await;
    let version = app.place("files", 3);
    let request = json!({"rid": null, "lora_name": "x", "lora_path": "files", "pinned": true, "lora_id": null});
    let loaded = app.client.sglang_load(&request).await.expect(200);
    assert_eq!(loaded["success"], true);
    assert_eq!(loaded["error_message"], "");
    assert_eq!(loaded["loaded_adapters"].as_object().unwrap().len(), 1);
    assert!(loaded["loaded_adapters"]["x"].is_string(), "{loaded}");
    let card = app.client.adapter("x").await.expect(200);
    assert_eq!(card["active_version"], version);
    assert_eq!(card["pinned"], true);

    let again = app.client.sglang_load(&request).await.expect(400);
    assert_eq!(again["success"], false);
    let message = again["error_message"].as_str().unwrap();
    assert!(message.contains("already"), "{message}");
    assert!(again["loaded_adapters"]["x"].is_string(), "{again}");

    let request = json!({"rid": null, "lora_name": "x", "lora_id": null});
    let unloaded = app.client.sglang_unload(&request).await.expect(200);
    assert_eq!(
        unloaded,
        json!({"success": true, "error_message": "", "loaded_adapters": {}})
    );
    let again = app.client.sglang_unload(&request).await.expect(400);
    assert_eq!(again["success"], false);
}

#[tokio::test]
async fn a_folder_outside_the_root_is_not_read() {
    let app = App::start().await;
    let refused = app
        .client
        .sglang_load(&json!({"lora_name": "x", "lora_path": "../outside"}))
        .await;
    assert_eq!(refused.expect(400)["success"], false);
    let missing = app
        .client
        .sglang_load(&json!({"lora_name": "x"}))
        .await
        .expect(400);
    assert!(
        missing["error"]["message"]
            .as_str()
            .unwrap()
            .contains("lora_path"),
        "{missing}"
    );
}

#[tokio::test]
async fn a_text_is_continued_as_in_the_other_interfaces() {
    let app = App::with_adapters(&["one"]).await;
    for (model, name) in [(json!("one"), "one"), (Value::Null, "tiny")] {
        let answer = app.client.generate(&body(model)).await.expect(200);
        let expected = app.client.greedy_choice(name, PROMPT, 12).await;
        assert_eq!(answer["text"], expected["text"], "{name}");
        let about = &answer["meta_info"];
        assert_eq!(
            about["prompt_tokens"],
            app.client.tokenize(PROMPT).await.len()
        );
        assert_eq!(
            about["completion_tokens"],
            answer["output_ids"].as_array().unwrap().len()
        );
        assert_eq!(
            about["finish_reason"],
            json!({"type": "length", "length": 12})
        );
        assert!(
            about["id"].is_string() && about["cached_tokens"].is_u64(),
            "{about}"
        );
        assert!(answer.get("index").is_none());
    }
}

#[tokio::test]
async fn the_frontend_languages_request_is_understood() {
    let app = App::start().await;
    let request = json!({"text": PROMPT, "sampling_params": {"skip_special_tokens": true, "spaces_between_special_tokens": true,
        "max_new_tokens": 12, "min_new_tokens": 0, "n": 1, "stop": [], "stop_token_ids": [], "stop_regex": [], "temperature": 0.0,
        "top_p": 1.0, "top_k": -1, "min_p": 0.0, "frequency_penalty": 0.0, "presence_penalty": 0.0, "ignore_eos": false,
        "regex": null, "json_schema": null}});
    let answer = app.client.generate(&request).await.expect(200);
    let expected = app.client.greedy_choice("tiny", PROMPT, 12).await;
    assert_eq!(answer["text"], expected["text"]);
}

#[tokio::test]
async fn each_prompt_of_a_batch_has_its_own_adapter_and_settings() {
    let app = App::with_adapters(&["one", "two"]).await;
    let ids = app.client.tokenize(PROMPT).await;
    let request = json!({"input_ids": [ids, ids, ids], "lora_path": ["two", null, "one"], "rid": ["a", "b", "c"],
        "sampling_params": [{"temperature": 0, "max_new_tokens": 8}, {"temperature": 0, "max_new_tokens": 9}, {"temperature": 0, "max_new_tokens": 10}]});
    let answers = app.client.generate(&request).await.expect(200);
    for (index, (model, tokens)) in [("two", 8), ("tiny", 9), ("one", 10)]
        .into_iter()
        .enumerate()
    {
        let expected = app.client.greedy_choice(model, PROMPT, tokens).await;
        assert_eq!(answers[index]["text"], expected["text"], "{model}");
        assert_eq!(answers[index]["meta_info"]["id"], ["a", "b", "c"][index]);
    }
    let stream = app.client.stream_generate(&request).await;
    assert!(stream.done);
    for index in 0..3 {
        let mut parts = stream.chunks.iter().filter(|chunk| chunk["index"] == index);
        assert_eq!(parts.next_back().unwrap()["text"], answers[index]["text"]);
    }
}

#[tokio::test]
async fn a_stream_repeats_the_text_so_far() {
    let app = App::with_adapters(&["one"]).await;
    let stream = app.client.stream_generate(&body(json!("one"))).await;
    assert!(stream.done);
    let expected = app.client.greedy_choice("one", PROMPT, 12).await;
    let texts: Vec<&str> = stream
        .chunks
        .iter()
        .map(|chunk| chunk["text"].as_str().unwrap())
        .collect();
    assert!(
        texts.windows(2).all(|pair| pair[1].starts_with(pair[0])),
        "{texts:?}"
    );
    assert_eq!(*texts.last().unwrap(), expected["text"]);
    let counts: Vec<u64> = stream
        .chunks
        .iter()
        .map(|chunk| chunk["meta_info"]["completion_tokens"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, (1..=12).collect::<Vec<u64>>());
    let reasons = stream
        .chunks
        .iter()
        .filter(|chunk| !chunk["meta_info"]["finish_reason"].is_null());
    assert_eq!(reasons.count(), 1);
}

#[tokio::test]
async fn log_probabilities_are_those_of_the_other_interfaces() {
    let app = App::with_adapters(&["one"]).await;
    let request = json!({"text": PROMPT, "lora_path": "one", "return_logprob": true, "logprob_start_len": 2, "top_logprobs_num": 2,
        "return_text_in_logprobs": true, "sampling_params": {"temperature": 0, "max_new_tokens": 5}});
    let answer = app.client.generate(&request).await.expect(200);
    let legacy = json!({"model": "one", "prompt": PROMPT, "max_tokens": 5, "temperature": 0, "echo": true, "logprobs": 2});
    let legacy =
        app.client.completions(&legacy).await.expect(200)["choices"][0]["logprobs"].clone();
    let ids = app.client.tokenize(PROMPT).await;
    let about = &answer["meta_info"];
    let values = |field: &str| -> Vec<Value> {
        let list = about[field].as_array().unwrap();
        list.iter().map(|own| own[0].clone()).collect()
    };
    let expected = legacy["token_logprobs"].as_array().unwrap();
    assert_eq!(values("input_token_logprobs"), expected[2..ids.len()]);
    assert_eq!(values("output_token_logprobs"), expected[ids.len()..]);
    assert_eq!(about["input_token_logprobs"][0][1], ids[2]);
    assert_eq!(about["input_token_logprobs"][0][2], legacy["tokens"][2]);
    assert_eq!(about["output_top_logprobs"][0].as_array().unwrap().len(), 2);
    assert_eq!(
        about["output_top_logprobs"][0][0],
        about["output_token_logprobs"][0]
    );

    let whole = json!({"input_ids": ids, "lora_path": "one", "return_logprob": true, "logprob_start_len": 0, "top_logprobs_num": 1,
        "sampling_params": {"temperature": 0, "max_new_tokens": 1}});
    let answer = app.client.generate(&whole).await.expect(200);
    assert_eq!(
        answer["meta_info"]["input_token_logprobs"][0],
        json!([null, ids[0], null])
    );
    assert_eq!(answer["meta_info"]["input_top_logprobs"][0], Value::Null);
}

#[tokio::test]
async fn what_ended_an_answer_is_named() {
    let app = App::start().await;
    let text = app.client.greedy_choice("tiny", PROMPT, 12).await["text"]
        .as_str()
        .unwrap()
        .to_owned();
    let stop: String = text.chars().skip(3).take(2).collect();
    let request = json!({"text": PROMPT, "sampling_params": {"temperature": 0, "max_new_tokens": 12, "stop": [stop, "never there"]}});
    let answer = app.client.generate(&request).await.expect(200);
    assert_eq!(
        answer["meta_info"]["finish_reason"],
        json!({"type": "stop", "matched": stop})
    );
    assert_eq!(answer["text"], text[..text.find(&stop).unwrap()]);

    let info = app.client.get("/tokenizer_info").await.expect(200);
    let end = info["eos_token_id"].clone();
    let request = json!({"text": PROMPT, "sampling_params": {"temperature": 0, "logit_bias": {end.to_string(): 100}}});
    let answer = app.client.generate(&request).await.expect(200);
    assert_eq!(
        answer["meta_info"]["finish_reason"],
        json!({"type": "stop", "matched": end})
    );
    assert_eq!(answer["text"], "");
}

#[tokio::test]
async fn refusals_have_sglangs_shape() {
    let app = App::start().await;
    for (change, word) in [
        (json!({"lora_path": "nobody"}), "nobody"),
        (json!({"lora_path": ["tiny", "tiny"]}), "lora_path"),
        (json!({"input_ids": [1]}), "input_ids"),
        (json!({"text": ""}), "`text`"),
        (
            json!({"sampling_params": {"temperature": 9}}),
            "temperature",
        ),
        (
            json!({"sampling_params": {"max_new_tokens": -1}}),
            "`max_new_tokens`",
        ),
        (
            json!({"sampling_params": [{"json_schema": "{}"}]}),
            "json_schema",
        ),
        (json!({"image_data": "x.png"}), "image_data"),
    ] {
        let mut request = body(Value::Null);
        for (field, value) in change.as_object().unwrap() {
            request[field] = value.clone();
        }
        let refused = app.client.generate(&request).await.expect(400);
        assert!(
            refused["error"]["message"].as_str().unwrap().contains(word),
            "{change}: {refused}"
        );
    }
}
