//! `/v1/score`.

use serde_json::json;

use crate::harness::App;

#[tokio::test]
async fn the_greedy_continuation_is_recognised() {
    let app = App::start().await;
    let body = json!({"prompt": "The weather in", "max_tokens": 1, "temperature": 0, "logprobs": 0, "ignore_eos": true});
    let mut found = None;
    for context in [
        "The weather in",
        "one and",
        "a positive",
        "### Input",
        " of the",
        "Nothing",
    ] {
        let mut body = body.clone();
        body["prompt"] = json!(context);
        let reply = app.client.completions(&body).await.expect(200);
        let token = reply["choices"][0]["text"].as_str().unwrap().to_owned();
        if token
            .chars()
            .all(|character| character.is_ascii_alphabetic())
            && !token.is_empty()
        {
            found = Some((
                context,
                token,
                reply["choices"][0]["logprobs"]["token_logprobs"][0]
                    .as_f64()
                    .unwrap(),
            ));
            break;
        }
    }
    let (context, token, logprob) = found.expect("one of six contexts is continued with letters");
    let pairs = [
        json!({"context": context, "continuation": token}),
        json!({"context": context, "continuation": "#"}),
    ];
    let reply = app.client.score(&json!({"pairs": pairs})).await.expect(200);
    assert_eq!(reply["data"][0]["is_greedy"], true);
    assert_eq!(reply["data"][1]["is_greedy"], false);
    let scored = reply["data"][0]["logprob"].as_f64().unwrap();
    assert!(
        (scored - logprob).abs() < 1e-5,
        "{scored} against {logprob}"
    );
    assert!(reply["data"][1]["logprob"].as_f64().unwrap() < scored);
}

#[tokio::test]
async fn tokens_of_the_continuation_are_counted() {
    let app = App::start().await;
    let pairs = [
        json!({"context": "a", "continuation": "2026"}),
        json!({"context": "a", "continuation": "positive"}),
    ];
    let reply = app.client.score(&json!({"pairs": pairs})).await.expect(200);
    assert_eq!(reply["data"][0]["tokens"], 4);
    assert_eq!(reply["data"][1]["tokens"], 1);
}

#[tokio::test]
async fn an_adapter_scores_differently_and_says_who_it_is() {
    let app = App::with_adapters(&["one", "two"]).await;
    let mut seen = Vec::new();
    for model in ["tiny", "one", "two"] {
        let reply = app
            .client
            .score(&json!({"model": model, "pairs": [{"context": "a", "continuation": "b"}]}))
            .await
            .expect(200);
        if model != "tiny" {
            assert_eq!(reply["adapter"]["name"], model);
        }
        seen.push(reply["data"][0]["logprob"].as_f64().unwrap());
    }
    assert!(
        seen[0] != seen[1] && seen[1] != seen[2] && seen[0] != seen[2],
        "{seen:?}"
    );
}

#[tokio::test]
async fn bad_pairs_are_refused() {
    let app = App::start().await;
    for (body, word) in [
        (json!({}), "pairs"),
        (json!({"pairs": []}), "pairs"),
        (json!({"pairs": [{"context": "a"}]}), "continuation"),
        (
            json!({"pairs": [{"context": 1, "continuation": "b"}]}),
            "context",
        ),
    ] {
        let reply = app.client.score(&body).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.body);
        assert!(
            reply.json()["error"]["message"]
                .as_str()
                .unwrap()
                .contains(word),
            "{body}: {}",
            reply.body
        );
    }
}
