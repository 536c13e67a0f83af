//! `/v1/completions` answered as a whole.

use serde_json::{Value, json};

use crate::harness::App;

const PROMPT: &str = "The weather in the north";

async fn complete(app: &App, body: Value) -> Value {
    app.client.completions(&body).await.expect(200)
}

#[tokio::test]
async fn a_greedy_answer_has_the_usual_shape_and_repeats() {
    let app = App::start().await;
    let body = json!({"model": "tiny", "prompt": PROMPT, "max_tokens": 12, "temperature": 0, "ignore_eos": true});
    let first = complete(&app, body.clone()).await;
    assert_eq!(first["object"], "text_completion");
    assert_eq!(first["model"], "tiny");
    assert_eq!(first["adapter"], Value::Null);
    assert_eq!(first["choices"].as_array().unwrap().len(), 1);
    assert_eq!(first["choices"][0]["finish_reason"], "length");
    assert_eq!(first["choices"][0]["logprobs"], Value::Null);
    let prompt_tokens = app.client.tokenize(PROMPT).await.len();
    assert_eq!(first["usage"]["prompt_tokens"], prompt_tokens);
    assert_eq!(first["usage"]["completion_tokens"], 12);
    assert_eq!(first["usage"]["total_tokens"], prompt_tokens + 12);
    let second = complete(&app, body).await;
    assert_eq!(first["choices"], second["choices"]);
    assert_ne!(first["id"], second["id"]);
}

#[tokio::test]
async fn a_repeated_prompt_comes_from_the_cache_and_gives_the_same_answer() {
    let app = App::start().await;
    let prompt = PROMPT.repeat(12);
    let body = json!({"prompt": prompt, "max_tokens": 12, "temperature": 0, "logprobs": 3, "ignore_eos": true});
    let cold = complete(&app, body.clone()).await;
    let warm = complete(&app, body).await;
    assert_eq!(cold["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    assert!(
        warm["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
            > 0,
        "{}",
        warm["usage"]
    );
    assert_eq!(cold["choices"], warm["choices"]);
}

#[tokio::test]
async fn token_ids_and_text_are_the_same_prompt() {
    let app = App::start().await;
    let ids = app.client.tokenize(PROMPT).await;
    let by_text = complete(
        &app,
        json!({"prompt": PROMPT, "max_tokens": 8, "temperature": 0}),
    )
    .await;
    let by_ids = complete(
        &app,
        json!({"prompt": ids, "max_tokens": 8, "temperature": 0}),
    )
    .await;
    assert_eq!(by_text["choices"], by_ids["choices"]);
}

#[tokio::test]
async fn several_prompts_answer_in_their_order() {
    let app = App::start().await;
    let prompts = ["one and", "the other", PROMPT];
    let mut ids = Vec::new();
    let mut alone = Vec::new();
    for prompt in prompts {
        ids.push(app.client.tokenize(prompt).await);
        alone.push(app.client.greedy("tiny", prompt).await);
    }
    for prompt in [json!(prompts), json!(ids)] {
        let body =
            json!({"prompt": prompt, "max_tokens": 16, "temperature": 0, "ignore_eos": true});
        let reply = complete(&app, body).await;
        for (index, text) in alone.iter().enumerate() {
            assert_eq!(reply["choices"][index]["index"], index);
            assert_eq!(reply["choices"][index]["text"], *text);
        }
        assert_eq!(reply["usage"]["completion_tokens"], 48);
    }
}

#[tokio::test]
async fn a_seed_decides_the_samples() {
    let app = App::start().await;
    let texts = |seed: u64| {
        let body = json!({"prompt": PROMPT, "n": 3, "seed": seed, "temperature": 1.0, "max_tokens": 12, "ignore_eos": true});
        let client = app.client.clone();
        async move {
            let reply = client.completions(&body).await.expect(200);
            let choices = reply["choices"].as_array().unwrap().clone();
            choices
                .iter()
                .map(|choice| choice["text"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        }
    };
    let first = texts(11).await;
    assert_eq!(first.len(), 3);
    assert!(first[0] != first[1] && first[1] != first[2], "{first:?}");
    assert_eq!(first, texts(11).await);
    assert_ne!(first, texts(12).await);
}

#[tokio::test]
async fn top_k_of_one_is_greedy_whatever_the_temperature() {
    let app = App::start().await;
    let greedy = app.client.greedy("tiny", PROMPT).await;
    let body = json!({"prompt": PROMPT, "top_k": 1, "temperature": 1.7, "max_tokens": 16, "ignore_eos": true});
    assert_eq!(complete(&app, body).await["choices"][0]["text"], greedy);
}

#[tokio::test]
async fn a_bias_forces_or_forbids_a_token() {
    let app = App::start().await;
    let positive = app.client.tokenize("positive").await[0].to_string();
    let body =
        json!({"prompt": PROMPT, "temperature": 0, "max_tokens": 3, "logit_bias": {positive: 100}});
    assert_eq!(
        complete(&app, body).await["choices"][0]["text"],
        "positivepositivepositive"
    );
}

#[tokio::test]
async fn echoed_log_probabilities_have_the_legacy_shape() {
    let app = App::start().await;
    let body = json!({"prompt": PROMPT, "max_tokens": 4, "temperature": 0, "logprobs": 2, "echo": true, "ignore_eos": true});
    let reply = complete(&app, body).await;
    let choice = &reply["choices"][0];
    let text = choice["text"].as_str().unwrap();
    assert!(text.starts_with(PROMPT));
    let logprobs = &choice["logprobs"];
    let count = app.client.tokenize(PROMPT).await.len() + 4;
    for field in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(logprobs[field].as_array().unwrap().len(), count, "{field}");
    }
    assert_eq!(logprobs["token_logprobs"][0], Value::Null);
    assert_eq!(logprobs["top_logprobs"][0], Value::Null);
    assert_eq!(logprobs["text_offset"][0], 0);
    for position in 1..count {
        let token = logprobs["tokens"][position].as_str().unwrap();
        let logprob = &logprobs["token_logprobs"][position];
        assert!(logprob.as_f64().unwrap() <= 0.0);
        let top = logprobs["top_logprobs"][position].as_object().unwrap();
        assert!((1..=3).contains(&top.len()), "{top:?}");
        assert_eq!(top[token], *logprob, "position {position}");
        let best = top
            .values()
            .map(|value| value.as_f64().unwrap())
            .fold(f64::NEG_INFINITY, f64::max);
        if position >= count - 4 {
            assert_eq!(
                logprob.as_f64().unwrap(),
                best,
                "greedy takes the likeliest"
            );
        }
    }
}

#[tokio::test]
async fn an_echo_of_nothing_generated_scores_the_prompt() {
    let app = App::start().await;
    let (context, continuation) = ("The weather in", " the north");
    let tokens = app.client.tokenize(context).await.len();
    let body = json!({"prompt": format!("{context}{continuation}"), "max_tokens": 0, "logprobs": 1, "echo": true});
    let reply = complete(&app, body).await;
    assert_eq!(
        reply["choices"][0]["text"],
        format!("{context}{continuation}")
    );
    let values = reply["choices"][0]["logprobs"]["token_logprobs"]
        .as_array()
        .unwrap();
    let echoed: f64 = values[tokens..]
        .iter()
        .map(|value| value.as_f64().unwrap())
        .sum();
    let scored = app
        .client
        .score(&json!({"pairs": [{"context": context, "continuation": continuation}]}))
        .await
        .expect(200);
    let scored = scored["data"][0]["logprob"].as_f64().unwrap();
    assert!((echoed - scored).abs() < 1e-4, "{echoed} against {scored}");
}

#[tokio::test]
async fn a_stop_string_across_a_token_border_ends_the_text_before_it() {
    let app = App::start().await;
    let mut found = 0;
    for seed in 0..20 {
        let mut body = json!({"prompt": PROMPT, "seed": seed, "temperature": 1.0, "max_tokens": 24, "ignore_eos": true, "logprobs": 0});
        let whole = complete(&app, body.clone()).await;
        let text = whole["choices"][0]["text"].as_str().unwrap();
        let Some(stop) = border(&whole["choices"][0]["logprobs"]["tokens"]) else {
            continue;
        };
        found += 1;
        body["stop"] = json!(["never in the text", stop]);
        let stopped = complete(&app, body).await;
        let expected = &text[..text.find(&stop).unwrap()];
        assert_eq!(
            stopped["choices"][0]["text"], expected,
            "stop {stop:?} in {text:?}"
        );
        assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    }
    assert!(found > 0, "no seed gave two neighbouring tokens of letters");
}

/// The last character of one token and the first of the next, where both are ASCII letters of plain text: neither a special token
/// nor a piece of a character, which is listed as `bytes:`.
fn border(tokens: &Value) -> Option<String> {
    let tokens: Vec<&str> = tokens
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token.as_str().unwrap())
        .collect();
    let plain = |token: &str| !token.starts_with("bytes:") && !token.starts_with("<|");
    tokens[2..].windows(2).find_map(|pair| {
        let (last, first) = (pair[0].chars().last()?, pair[1].chars().next()?);
        let letters = last.is_ascii_alphabetic() && first.is_ascii_alphabetic();
        (letters && pair.iter().all(|token| plain(token))).then(|| format!("{last}{first}"))
    })
}

#[tokio::test]
async fn unknown_fields_are_ignored() {
    let app = App::start().await;
    let body = json!({"prompt": PROMPT, "max_tokens": 2, "temperature": 0, "sidecar_field": {"a": 1}, "user": "me"});
    assert_eq!(
        complete(&app, body).await["usage"]["completion_tokens"]
            .as_u64()
            .map(|count| count <= 2),
        Some(true)
    );
}
