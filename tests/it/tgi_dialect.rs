//! Text-generation-inference's and LoRAX's interface, with the bodies that `text_generation`, `lorax` and `huggingface_hub` send.

use serde_json::{Value, json};

use crate::harness::App;

const PROMPT: &str = "The weather in the north";

/// What `text_generation.Client.generate` sends to `/`.
fn text_generation() -> Value {
    json!({"inputs": PROMPT, "parameters": {"do_sample": false, "max_new_tokens": 12, "repetition_penalty": null,
        "frequency_penalty": null, "return_full_text": false, "stop": [], "seed": 3, "temperature": null, "top_k": null, "top_p": null,
        "truncate": null, "typical_p": null, "best_of": null, "watermark": false, "details": true, "decoder_input_details": false,
        "top_n_tokens": null, "grammar": null}, "stream": false})
}

/// What `lorax.Client.generate` sends to `/`.
fn lorax(adapter: &str) -> Value {
    json!({"inputs": PROMPT, "parameters": {"adapter_id": adapter, "adapter_source": "local", "merged_adapters": null, "api_token": null,
        "do_sample": false, "max_new_tokens": 12, "ignore_eos_token": false, "repetition_penalty": null, "return_full_text": false,
        "stop": [], "seed": null, "temperature": null, "top_k": null, "top_p": null, "truncate": null, "typical_p": null,
        "best_of": null, "watermark": false, "details": true, "decoder_input_details": false, "return_k_alternatives": null,
        "response_format": null}, "stream": false})
}

#[tokio::test]
async fn the_base_and_an_adapter_answer_as_in_the_other_interfaces() {
    let app = App::with_adapters(&["one"]).await;
    for (request, model) in [(text_generation(), "tiny"), (lorax("one"), "one")] {
        let answers = app.client.tgi_root(&request).await.expect(200);
        assert_eq!(answers.as_array().unwrap().len(), 1);
        let answer = &answers[0];
        let expected = app.client.greedy_choice(model, PROMPT, 12).await;
        assert_eq!(answer["generated_text"], expected["text"], "{model}");
        let details = &answer["details"];
        assert_eq!(details["finish_reason"], "length");
        assert_eq!(details["generated_tokens"], 12);
        assert_eq!(
            details["prompt_tokens"],
            app.client.tokenize(PROMPT).await.len()
        );
        assert_eq!(details["prefill"], json!([]));
        assert_eq!(details["seed"], Value::Null, "nothing was drawn");
        let tokens = details["tokens"].as_array().unwrap().iter();
        let ids: Vec<u64> = tokens.map(|token| token["id"].as_u64().unwrap()).collect();
        let joined = app.client.detokenize(&ids).await.expect(200);
        assert_eq!(joined["prompt"], expected["text"]);
        assert!(details["tokens"][0]["logprob"].as_f64().unwrap() < 0.0);
        assert_eq!(
            app.client.generate(&request).await.expect(200)["generated_text"],
            answer["generated_text"]
        );
    }
}

#[tokio::test]
async fn details_come_only_when_asked_for() {
    let app = App::with_adapters(&["one"]).await;
    let plain = app
        .client
        .generate(&json!({"inputs": PROMPT, "parameters": {"max_new_tokens": 5}}))
        .await
        .expect(200);
    assert!(plain.get("details").is_none(), "{plain}");
    // huggingface_hub's.
    let request = json!({"inputs": PROMPT, "parameters": {"adapter_id": "one", "decoder_input_details": true, "details": true,
        "max_new_tokens": 5, "top_n_tokens": 2, "return_full_text": true}});
    let answer = app.client.generate(&request).await.expect(200);
    let legacy = json!({"model": "one", "prompt": PROMPT, "max_tokens": 5, "temperature": 0, "echo": true, "logprobs": 2});
    let legacy = app.client.completions(&legacy).await.expect(200)["choices"][0].clone();
    assert_eq!(answer["generated_text"], legacy["text"]);
    let expected = legacy["logprobs"]["token_logprobs"].as_array().unwrap();
    let values = |list: &Value| -> Vec<Value> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|token| token["logprob"].clone())
            .collect()
    };
    let details = &answer["details"];
    assert_eq!(
        [values(&details["prefill"]), values(&details["tokens"])].concat(),
        *expected
    );
    assert_eq!(details["top_tokens"].as_array().unwrap().len(), 5);
    assert_eq!(details["top_tokens"][0][0], details["tokens"][0]);
}

#[tokio::test]
async fn the_last_event_of_a_stream_carries_the_text_and_every_event_a_token() {
    let app = App::with_adapters(&["one"]).await;
    let mut request = lorax("one");
    request["stream"] = json!(true);
    let whole = app.client.greedy_choice("one", PROMPT, 12).await["text"]
        .as_str()
        .unwrap()
        .to_owned();
    let streams = [
        app.client.generate_stream(&request).await,
        crate::harness::Stream::parse(&app.client.tgi_root(&request).await),
    ];
    for stream in streams {
        assert!(!stream.done, "this interface knows no [DONE]");
        assert_eq!(stream.chunks.len(), 12);
        let texts = stream
            .chunks
            .iter()
            .map(|chunk| chunk["token"]["text"].as_str().unwrap());
        assert_eq!(texts.collect::<String>(), whole);
        let (last, others) = stream.chunks.split_last().unwrap();
        assert!(
            others
                .iter()
                .all(|chunk| chunk["generated_text"].is_null() && chunk["details"].is_null())
        );
        assert_eq!(last["generated_text"], whole);
        assert_eq!(last["details"]["finish_reason"], "length");
        assert_eq!(last["details"]["generated_tokens"], 12);
        assert_eq!(
            last["details"]["input_length"],
            app.client.tokenize(PROMPT).await.len()
        );
        assert_eq!(last["index"], 12);
    }
}

#[tokio::test]
async fn a_stop_string_ends_the_last_tokens_event() {
    let app = App::start().await;
    let whole = app.client.greedy_choice("tiny", PROMPT, 12).await["text"]
        .as_str()
        .unwrap()
        .to_owned();
    // Ends inside of the answer, wherever the tokens' borders are.
    for skipped in 2..6 {
        let stop: String = whole.chars().skip(skipped).take(2).collect();
        let mut request = text_generation();
        request["parameters"]["stop"] = json!([stop]);
        let stream = app.client.generate_stream(&request).await;
        let (last, others) = stream.chunks.split_last().unwrap();
        let expected = &whole[..whole.find(&stop).unwrap()];
        assert_eq!(last["generated_text"], expected);
        assert_eq!(last["details"]["finish_reason"], "stop_sequence");
        assert_eq!(last["details"]["generated_tokens"], stream.chunks.len());
        assert!(others.iter().all(|chunk| chunk["generated_text"].is_null()));
        let texts = stream
            .chunks
            .iter()
            .map(|chunk| chunk["token"]["text"].as_str().unwrap());
        assert_eq!(texts.collect::<String>(), expected);
    }
}

#[tokio::test]
async fn drawn_answers_tell_their_seed_and_repeat() {
    let app = App::start().await;
    let mut request = text_generation();
    request["parameters"]["do_sample"] = json!(true);
    let first = app.client.generate(&request).await.expect(200);
    assert_eq!(first["details"]["seed"], 3);
    let again = app.client.generate(&request).await.expect(200);
    assert_eq!(first["generated_text"], again["generated_text"]);
    request["parameters"]["seed"] = json!(4);
    let other = app.client.generate(&request).await.expect(200);
    assert_ne!(first["generated_text"], other["generated_text"]);
}

#[tokio::test]
async fn a_prompt_can_be_cut_to_its_end() {
    let app = App::start().await;
    let ids = app.client.tokenize(PROMPT).await;
    let mut request = text_generation();
    request["parameters"]["truncate"] = json!(3);
    let answer = app.client.generate(&request).await.expect(200);
    assert_eq!(answer["details"]["prompt_tokens"], 3);
    let body = json!({"prompt": ids[ids.len() - 3..], "max_tokens": 12, "temperature": 0});
    let expected = app.client.completions(&body).await.expect(200);
    assert_eq!(answer["generated_text"], expected["choices"][0]["text"]);
}

#[tokio::test]
async fn the_info_says_what_fits() {
    let app = App::start().await;
    let info = app.client.tgi_info().await;
    assert_eq!(info["model_id"], "tiny");
    assert_eq!(info["max_total_tokens"], 4096);
    assert_eq!(info["max_input_length"], 4095);
    assert_eq!(info["model_sha"], app.base.digest);
}

#[tokio::test]
async fn refusals_have_this_interfaces_shape_and_statuses() {
    let app = App::start().await;
    for (parameters, word) in [
        (json!({"adapter_id": "nobody"}), "nobody"),
        (json!({"temperature": 3}), "temperature"),
        (json!({"max_new_tokens": 0}), "`max_new_tokens`"),
        (json!({"max_new_tokens": -1}), "max_new_tokens"),
        (json!({"typical_p": 0.5}), "typical_p"),
        (
            json!({"grammar": {"type": "regex", "value": "a"}}),
            "grammar",
        ),
        (
            json!({"adapter_id": "x", "adapter_source": "s3"}),
            "adapter_source",
        ),
    ] {
        let request = json!({"inputs": PROMPT, "parameters": parameters});
        for reply in [
            app.client.generate(&request).await,
            app.client.tgi_root(&request).await,
        ] {
            let refused = reply.expect(422);
            assert_eq!(refused["error_type"], "validation");
            assert!(
                refused["error"].as_str().unwrap().contains(word),
                "{parameters}: {refused}"
            );
        }
    }
    for body in [json!({}), json!({"inputs": 7}), json!({"inputs": ""})] {
        let refused = app.client.generate(&body).await.expect(422);
        assert!(
            refused["error"].as_str().unwrap().contains("inputs"),
            "{body}: {refused}"
        );
    }
    let reply = app.client.post_bytes("/generate", b"{".to_vec()).await;
    assert_eq!(reply.expect(422)["error_type"], "validation");
}
