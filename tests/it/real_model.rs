//! The default base model over HTTP; each test is skipped by name when `make model` has not fetched it.

use std::path::Path;

use engine::testing::reference_values;
use serde_json::{Value, json};

use crate::harness::{AdapterDirectory, App, BaseFile, Options, real_model};

async fn start(base: BaseFile) -> App {
    App::start_with(Options {
        base,
        threads: 2,
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn the_capital_of_france() {
    let Some(base) = real_model("the_capital_of_france") else {
        return;
    };
    let app = start(base).await;
    let text = app
        .client
        .greedy("smollm2-135m-instruct", "The capital of France is")
        .await;
    assert!(text.starts_with(" Paris"), "{text}");
}

/// The f32 reference prefers each token of this answer to the next best by at least 0.5.
#[tokio::test]
async fn the_days_of_a_week() {
    let Some(base) = real_model("the_days_of_a_week") else {
        return;
    };
    let app = start(base).await;
    let messages = [json!({"role": "user", "content": "How many days are in a week?"})];
    let chat = app
        .client
        .chat(&json!({"messages": messages, "max_tokens": 24, "temperature": 0}))
        .await
        .expect(200);
    let content = chat["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(content, "A week is approximately 7 days.");
    assert_eq!(chat["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn an_adapter_of_one_request_leaves_the_base_alone() {
    let Some(base) = real_model("an_adapter_of_one_request_leaves_the_base_alone") else {
        return;
    };
    let app = start(base).await;
    let before = app
        .client
        .greedy("smollm2-135m-instruct", "Once upon a time")
        .await;
    let files = AdapterDirectory::random(&app.base, 7);
    let created = app.client.upload("seven", &files).await.expect(201);
    assert_eq!(created["report"]["tensors_matched"], 420);
    let adapted = app.client.greedy("seven", "Once upon a time").await;
    assert_ne!(adapted, before);
    assert_eq!(
        app.client
            .greedy("smollm2-135m-instruct", "Once upon a time")
            .await,
        before
    );
}

/// The last-token logits of the five reference prompts, made with PyTorch in f32: rows of a NumPy file of f32 `[5, 49152]`.
fn rows(path: &Path) -> Vec<Vec<f32>> {
    let bytes = fs_err::read(path).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let values: Vec<f32> = bytes[header..]
        .chunks_exact(4)
        .map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap()))
        .collect();
    values
        .chunks(values.len() / 5)
        .map(<[f32]>::to_vec)
        .collect()
}

/// The five largest log-probabilities of a row of logits.
fn top(logits: &[f32]) -> Vec<(u64, f64)> {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let total = logits
        .iter()
        .map(|logit| (f64::from(*logit) - largest).exp())
        .sum::<f64>()
        .ln()
        + largest;
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    order[..5]
        .iter()
        .map(|id| (*id as u64, f64::from(logits[*id]) - total))
        .collect()
}

/// With the activations of the default, the served log-probabilities are within 0.25 of the reference on its five likeliest tokens, and the likeliest token is the
/// same wherever the reference is sure of it by more than 0.3.
async fn check_against_reference(
    app: &App,
    model: &str,
    folder: &Path,
    logits: &str,
    prompts: &str,
) {
    let prompts: Value =
        serde_json::from_slice(&fs_err::read(folder.join(prompts)).unwrap()).unwrap();
    for (row, prompt) in rows(&folder.join(logits))
        .iter()
        .zip(prompts.as_array().unwrap())
    {
        let expected = top(row);
        let body = json!({"model": model, "prompt": prompt["prompt_ids"], "max_tokens": 1, "temperature": 0, "logprobs": 20, "ignore_eos": true});
        let reply = app.client.completions(&body).await.expect(200);
        let served = &reply["choices"][0]["logprobs"];
        for (position, (id, logprob)) in expected.iter().enumerate() {
            let token = app.client.detokenize(&[*id]).await.expect(200)["prompt"]
                .as_str()
                .unwrap()
                .to_owned();
            let got = served["top_logprobs"][0][&token]
                .as_f64()
                .unwrap_or_else(|| panic!("{token:?} is not among the first 20: {served}"));
            assert!(
                (got - logprob).abs() <= 0.25,
                "{prompt}, {token:?}: {got} against {logprob}"
            );
            if position == 0 && logprob - expected[1].1 > 0.3 {
                assert_eq!(served["tokens"][0], token, "{prompt}");
            }
        }
    }
}

#[tokio::test]
async fn log_probabilities_agree_with_the_reference() {
    let name = "log_probabilities_agree_with_the_reference";
    let (Some(base), Some(folder)) = (real_model(name), reference_values(name)) else {
        return;
    };
    let app = start(base).await;
    check_against_reference(
        &app,
        "smollm2-135m-instruct",
        &folder,
        "logits_last_base.npy",
        "greedy_base.json",
    )
    .await;
}

#[tokio::test]
async fn an_adapter_made_by_peft_agrees_with_the_reference() {
    let name = "an_adapter_made_by_peft_agrees_with_the_reference";
    let (Some(base), Some(folder)) = (real_model(name), reference_values(name)) else {
        return;
    };
    let app = start(base).await;
    let files = app.adapters_root().join("reference");
    fs_err::create_dir_all(&files).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs_err::copy(folder.join("adapter0").join(file), files.join(file)).unwrap();
    }
    app.client
        .load_path("reference", "reference")
        .await
        .expect(201);
    check_against_reference(
        &app,
        "reference",
        &folder,
        "logits_last_adapter0.npy",
        "greedy_adapter0.json",
    )
    .await;
}

#[tokio::test]
async fn the_trained_adapters_know_good_from_bad() {
    let Some(base) = real_model("the_trained_adapters_know_good_from_bad") else {
        return;
    };
    let app = start(base).await;
    for name in ["sentiment-ft", "sentiment-fticl"] {
        place_pretrained(&app, name);
        app.client.load_path(name, name).await.expect(201);
        let inputs = [
            "Wonderful headphones, the sound is rich and they are so comfortable. I love them.",
            "Terrible. It stopped working after one day and the seller refused a refund.",
            "Best purchase this year, works perfectly and arrived early.",
            "A complete waste of money, flimsy and useless. I hate it.",
        ];
        let reply = app
            .client
            .classify(&json!({"model": name, "inputs": inputs}))
            .await
            .expect(200);
        let labels: Vec<&str> = reply["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| result["label"].as_str().unwrap())
            .collect();
        assert_eq!(
            labels,
            ["positive", "negative", "positive", "negative"],
            "{name}"
        );
    }
}

/// Fine-tuning on one kind of question helped there and hurt on others; only the gate on the others sees it.
#[tokio::test]
async fn the_gate_refuses_what_is_better_at_home_and_worse_abroad() {
    let Some(base) = real_model("the_gate_refuses_what_is_better_at_home_and_worse_abroad") else {
        return;
    };
    let app = start(base).await;
    place_pretrained(&app, "sentiment-ft");
    place_pretrained(&app, "question-ft");
    app.client
        .load_path("question", "sentiment-ft")
        .await
        .expect(201);
    let before = app.client.adapter("question").await.expect(200)["active_version"].clone();
    let body = json!({"path": "question-ft"});
    let card = app
        .client
        .put("/v1/adapters/question?activate=false", &body)
        .await
        .expect(200);
    let candidate = card["versions"][1]["version"].clone();
    let promotion = |kind: &str, dataset: &str| {
        json!({
            "version": candidate, "datasets": [dataset], "shots": [4], "limit": 16,
            "gate": {"metric": "rouge_l", "kind": kind, "min_delta": -0.02, "against": "base"},
        })
    };

    let refused = app
        .client
        .promote("question", &promotion("out_of_domain", "sciqa"))
        .await;
    refused.expect_error(422, "gate_not_passed", &["nothing was changed"]);
    let found = &refused.json()["error"]["gate"];
    assert_eq!(found["passed"], false);
    assert_eq!(found["n"], 16);
    let (value, reference) = (
        found["value"].as_f64().unwrap(),
        found["reference"].as_f64().unwrap(),
    );
    assert!(value < reference, "{found}");
    assert!(found["delta_ci95"][0].as_f64().unwrap() < -0.02, "{found}");
    assert_eq!(
        app.client.adapter("question").await.expect(200)["active_version"],
        before
    );

    let passed = app
        .client
        .promote("question", &promotion("in_domain", "socialqa"))
        .await
        .expect(200);
    assert_eq!(passed["active_version"], candidate);
    assert!(
        passed["gate"]["delta_ci95"][0].as_f64().unwrap() > 0.0,
        "{passed}"
    );
    assert_eq!(passed["history"][1]["cause"], "promote");
}

/// Puts an adapter that was trained here under the adapters root of a server.
fn place_pretrained(app: &App, name: &str) {
    let pretrained = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pretrained");
    let target = app.adapters_root().join(name);
    fs_err::create_dir_all(&target).unwrap();
    for file in [
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ] {
        fs_err::copy(pretrained.join(name).join(file), target.join(file)).unwrap();
    }
}
