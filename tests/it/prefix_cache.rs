//! What is computed once: prompts with a common beginning, turns of a chat, a text that repeats itself. Only times and
//! counts may differ for it.

use serde_json::{Value, json};

use crate::harness::{AdapterDirectory, App, Options};
use crate::metrics::sum;

const CONTEXT: &str = "### Input:\nthe weather in the north is fine\n### Sentiment:positive\n\n### Input:\nthe sea is far and cold\n### Sentiment:negative\n\n";

fn body(model: &str, prompt: &str) -> Value {
    json!({"model": model, "prompt": prompt, "max_tokens": 16, "temperature": 0, "ignore_eos": true, "logprobs": 4})
}

fn cached(answer: &Value) -> u64 {
    let details = &answer["usage"]["prompt_tokens_details"];
    details["cached_tokens"].as_u64().unwrap()
}

async fn complete(app: &App, model: &str, prompt: &str) -> Value {
    let reply = app.client.completions(&body(model, prompt)).await;
    reply.expect(200)
}

#[tokio::test]
async fn a_replaced_adapter_never_meets_its_predecessors_blocks() {
    let app = App::start().await;
    let [first, second] = [1, 2].map(|seed| AdapterDirectory::random(&app.base, seed));
    let prompt = format!("{CONTEXT}### Input:\nthe red box\n### Sentiment:");
    app.client.upload("x", &first).await.expect(201);
    let before = complete(&app, "x", &prompt).await;
    assert!(cached(&complete(&app, "x", &prompt).await) > 0);
    app.client.replace("x", &second).await;
    let after = complete(&app, "x", &prompt).await;
    assert_eq!(cached(&after), 0);
    assert_ne!(after["choices"], before["choices"]);

    let other = App::start().await;
    other.client.upload("x", &second).await.expect(201);
    let cold = complete(&other, "x", &prompt).await;
    assert_eq!(after["choices"], cold["choices"]);
    // And the first is still found under its version.
    let old = format!("x@{}", first.version());
    let again = complete(&app, &old, &prompt).await;
    assert!(cached(&again) > 0);
    assert_eq!(again["choices"], before["choices"]);
}

#[tokio::test]
async fn only_what_differs_behind_a_common_context_is_computed() {
    let app = App::start().await;
    let shared = app.client.tokenize(CONTEXT).await.len() as u64;
    complete(&app, "tiny", &format!("{CONTEXT}first question")).await;
    let hits = sum(
        &app.client.metrics().await,
        "quickchange_prefix_cache_hit_tokens_total",
    );
    let answer = complete(&app, "tiny", &format!("{CONTEXT}zebra")).await;
    // Blocks hold 16 tokens; the last token of the context may join the first of what follows.
    assert!(cached(&answer) >= (shared - 1) / 16 * 16, "{answer}");
    assert!(cached(&answer) >= 48, "{answer}");
    let text = app.client.metrics().await;
    let now = sum(&text, "quickchange_prefix_cache_hit_tokens_total");
    assert_eq!((now - hits) as u64, cached(&answer));
}

#[tokio::test]
async fn the_second_turn_of_a_chat_finds_the_first_with_its_answer() {
    let app = App::start().await;
    let the = app.client.tokenize(" the").await;
    assert_eq!(the.len(), 1);
    let user = |content: &str| json!({"role": "user", "content": content});
    let ask = |messages: Value| {
        let bias = json!({the[0].to_string(): 100});
        json!({"messages": messages, "max_tokens": 40, "temperature": 0, "ignore_eos": true, "logit_bias": bias})
    };
    let first = json!([user("What is in the red box?")]);
    let reply = app.client.chat(&ask(first)).await.expect(200);
    let content = reply["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(content, " the".repeat(40));
    let assistant = json!({"role": "assistant", "content": content});
    let second = json!([user("What is in the red box?"), assistant, user("And why?")]);
    let answer = app.client.chat(&ask(second)).await.expect(200);
    // The last token of the first answer was never computed.
    let computed = reply["usage"]["prompt_tokens"].as_u64().unwrap() + 39;
    assert_eq!(cached(&answer), computed / 16 * 16);
    let text = app.client.metrics().await;
    assert!(
        text.contains("quickchange_draft_tokens_total{outcome=\"accepted\"}"),
        "{text}"
    );
}

#[tokio::test]
async fn without_cache_and_guesses_the_answers_are_the_same() {
    let plain = App::start_with(Options {
        prefix_cache: false,
        draft_tokens: 0,
        ..Options::default()
    })
    .await;
    let usual = App::start().await;
    for prompt in [format!("{CONTEXT}a b a b a b"), format!("{CONTEXT}a b a b")] {
        let (without, with) = (
            complete(&plain, "tiny", &prompt).await,
            complete(&usual, "tiny", &prompt).await,
        );
        assert_eq!(without["choices"], with["choices"]);
        assert_eq!(cached(&without), 0);
    }
    let text = plain.client.metrics().await;
    for counter in ["prefix_cache_hit_tokens", "draft_tokens"] {
        assert_eq!(sum(&text, &format!("quickchange_{counter}_total")), 0.0);
    }
}
