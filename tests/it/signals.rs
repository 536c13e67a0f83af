//! The signals that `/v1/classify` gives beside a label: how sure the model is, and how much an input looks like those that the
//! adapter was trained on.

use std::sync::Arc;

use ::adapters::{Adapter, AdapterFiles, DomainProfile, Limits, Manifest};
use engine::{Engine, EngineConfig, LoadOptions, Model, Priority, ScoreRequest, own_part};
use serde_json::{Value, json};
use tasks::{Catalog, Fields, Task, context};

use crate::harness::{AdapterDirectory, App, Random};

const LIMITS: Limits = Limits {
    max_rank: 16,
    max_bytes: 1 << 24,
};
const STRANGE: &str = "{\"0x7f\": [1234567890, ~~~~, ####], \"$$$$\": <<|>>}";

/// A review; the numbers choose its words.
fn review(index: usize) -> String {
    let things = ["phone", "cable", "case", "screen", "charger"];
    let words = ["works well", "broke soon", "looks nice", "feels cheap"];
    let ends = ["I like it.", "Not for me.", "Would buy again."];
    format!(
        "The {} {} and {}. {}",
        things[index % 5],
        words[index % 4],
        words[(index / 4) % 4],
        ends[index % 3]
    )
}

/// A manifest that says what the adapter was trained with.
fn manifest(shots: usize, domain: Option<DomainProfile>) -> Manifest {
    Manifest {
        task: Some("sentiment".to_owned()),
        labels: vec!["positive".to_owned(), "negative".to_owned()],
        trained_on: Some("amazon".to_owned()),
        shots,
        domain,
        ..Manifest::default()
    }
}

fn adapter(app: &App, manifest: Manifest) -> AdapterDirectory {
    let mut adapter = Random::new(&app.base, 3);
    adapter.manifest = manifest;
    adapter.write()
}

/// Mean hidden states of the inputs' parts of their prompts, through an engine beside the server's.
fn states(app: &App, shots: usize, inputs: &[String]) -> Vec<Vec<f32>> {
    let kernels = std::env::var("QUICKCHANGE_KERNELS").ok();
    let options = LoadOptions {
        kernels: kernels.map(|name| name.parse().unwrap()),
        ..LoadOptions::default()
    };
    let model = Model::load(&app.base.path, &options).unwrap();
    let config = EngineConfig {
        prefix_cache: false,
        ..EngineConfig::default()
    };
    let engine = Engine::start(model, config).unwrap();
    let directory = adapter(app, manifest(shots, None));
    let files = AdapterFiles::read(&directory.path(), &LIMITS).unwrap();
    let weights = Adapter::parse(&files, engine.base(), &LIMITS).unwrap();
    let weights = Arc::new(engine.prepare(&weights));
    let catalog = Catalog::open(None).unwrap();
    let task = Task::Sentiment;
    let demonstrations = catalog.demonstrations(task, "amazon", shots).unwrap();
    let before = context(catalog.prompts(), 0, task, &demonstrations).unwrap();
    let state = |input: &String| {
        let fields = Fields::input(input.clone());
        let prompt = catalog.prompts().render(0, task, &fields).unwrap();
        let encode = |text: &str| engine.tokenizer().encode_prompt(text);
        let ids = encode(&format!("{before}{prompt}"));
        let request = ScoreRequest {
            pooled_from: Some(own_part(&encode(&before), &ids)),
            prompt: ids,
            continuations: Vec::new(),
            adapter: Some(Arc::clone(&weights)),
            priority: Priority::Interactive,
            deadline: None,
        };
        let reply = engine.score(request).unwrap();
        // A test's own thread is part of a runtime, which must not be blocked.
        let reply = std::thread::spawn(|| reply.blocking_recv().unwrap().unwrap());
        reply.join().unwrap().mean_hidden.unwrap()
    };
    inputs.iter().map(state).collect()
}

fn reviews(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(review).collect()
}

/// A profile of forty reviews, and an adapter that carries it under the name `moods`.
async fn with_profile(app: &App, shots: usize) -> DomainProfile {
    let profile = DomainProfile::measure(&states(app, shots, &reviews(0..40))).unwrap();
    let files = adapter(app, manifest(shots, Some(profile.clone())));
    app.client.upload("moods", &files).await.expect(201);
    profile
}

fn numbers(reply: &Value, signal: &str) -> Vec<f64> {
    let results = reply["results"].as_array().unwrap().iter();
    results
        .map(|result| result["ood"][signal].as_f64().unwrap())
        .collect()
}

#[tokio::test]
async fn an_inputs_distance_is_that_from_the_training_inputs() {
    let app = App::start().await;
    for shots in [0, 2] {
        let profile = with_profile(&app, shots).await;
        let mut inputs = reviews(40..56);
        inputs.push(STRANGE.to_owned());
        let body = json!({"model": "moods", "inputs": inputs});
        let reply = app.client.classify(&body).await.expect(200);
        let expected: Vec<f64> = states(&app, shots, &inputs)
            .iter()
            .map(|state| profile.distance(state))
            .collect();
        assert_eq!(numbers(&reply, "distance"), expected, "{shots} shots");
        let scores: Vec<f64> = expected
            .iter()
            .map(|distance| profile.in_domain(*distance))
            .collect();
        assert_eq!(numbers(&reply, "in_domain"), scores);
        let (strange, known) = scores.split_last().unwrap();
        let mean = known.iter().sum::<f64>() / known.len() as f64;
        assert!(*strange < 0.05 && mean > 0.2, "{strange} {known:?}");
        for result in reply["results"].as_array().unwrap() {
            let probs = ["positive", "negative"].map(|l| result["probs"][l].as_f64().unwrap());
            let margin = (probs[0] - probs[1]).abs();
            assert_eq!(result["ood"]["margin"].as_f64().unwrap(), margin);
        }
        let again = app.client.classify(&body).await.expect(200);
        assert_eq!(again["results"], reply["results"]);
        app.client.unload("moods").await.expect(204);
    }
}

#[tokio::test]
async fn the_prefix_cache_serves_demonstrations_and_all_of_what_is_not_measured() {
    let app = App::start().await;
    with_profile(&app, 2).await;
    let input = review(50).repeat(4);
    let cached = async |shots: usize| {
        let body = json!({"model": "moods", "inputs": [input], "shots": shots});
        app.client.classify(&body).await.expect(200);
        let usage = app.client.classify(&body).await.expect(200)["usage"].clone();
        let cached = usage["prompt_tokens_details"]["cached_tokens"].clone();
        [&usage["prompt_tokens"], &cached].map(|count| count.as_u64().unwrap())
    };
    let own = app.client.tokenize(&input).await.len() as u64;
    let [prompt, measured] = cached(2).await;
    assert!(
        measured > 0 && measured + own <= prompt,
        "{measured} of {prompt}"
    );
    let [prompt, unmeasured] = cached(1).await;
    assert!(unmeasured + 16 >= prompt, "{unmeasured} of {prompt}");
}

#[tokio::test]
async fn without_a_profile_that_applies_there_is_no_distance() {
    let app = App::start().await;
    with_profile(&app, 0).await;
    let bare = adapter(&app, manifest(0, None));
    app.client.upload("bare", &bare).await.expect(201);
    let other_task = json!([{"input_1": "A man eats.", "input_2": "Somebody eats."}]);
    for body in [
        json!({"task": "sentiment", "inputs": ["Fine."]}),
        json!({"model": "bare", "inputs": ["Fine."]}),
        json!({"model": "moods", "inputs": ["Fine."], "shots": 2}),
        json!({"model": "moods", "inputs": ["Fine."], "prompt": 1}),
        json!({"model": "moods", "inputs": other_task, "task": "inference"}),
        json!({"adapter_weights": {"moods": 0.5, "bare": 0.5}, "inputs": ["Fine."], "task": "sentiment"}),
    ] {
        let reply = app.client.classify(&body).await.expect(200);
        let ood = reply["results"][0]["ood"].as_object().unwrap();
        assert_eq!(ood["distance"], Value::Null, "{body}");
        assert_eq!(ood["in_domain"], Value::Null, "{body}");
        assert!(
            ood["margin"].is_number() && ood["energy"].is_number(),
            "{body}"
        );
    }
    let labels = json!({"model": "moods", "inputs": ["Fine."], "labels": ["good", "bad"]});
    let reply = app.client.classify(&labels).await.expect(200);
    assert!(reply["results"][0]["ood"]["distance"].is_number());
}

#[tokio::test]
async fn a_profile_of_another_width_is_refused_by_name() {
    let app = App::start().await;
    let profile = DomainProfile::measure(&[vec![1.0; 5], vec![2.0; 5]]).unwrap();
    let reply = app
        .client
        .upload("moods", &adapter(&app, manifest(0, Some(profile))))
        .await;
    assert_eq!(reply.status, 422, "{}", reply.body);
    let error = reply.json()["error"].clone();
    assert_eq!(error["code"], "wrong_base");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("domain profile") && message.contains("5 wide"),
        "{message}"
    );
}

#[tokio::test]
async fn drift_is_shown_by_adapter_and_leaves_with_it() {
    let app = App::start().await;
    with_profile(&app, 0).await;
    let strange = vec![STRANGE; 3];
    let body = json!({"model": "moods", "inputs": strange});
    let reply = app.client.classify(&body).await.expect(200);
    app.client
        .classify(&json!({"task": "sentiment", "inputs": ["Fine."]}))
        .await
        .expect(200);
    let text = app.client.metrics().await;
    let value = |series: &str| -> Option<f64> {
        let line = text.lines().find(|line| line.starts_with(series))?;
        line.rsplit_once(' ')?.1.parse().ok()
    };
    for signal in ["max_prob", "energy", "margin", "distance", "in_domain"] {
        let series =
            format!("quickchange_classification_signal{{adapter=\"moods\",signal=\"{signal}\"}}");
        let expected = numbers(&reply, signal)[0];
        let mean = value(&series).unwrap();
        assert!(
            (mean - expected).abs() < 1e-5,
            "{signal}: {mean}, {expected}"
        );
    }
    let of = |name: &str, adapter: &str| {
        value(&format!(
            "quickchange_classification_{name}{{adapter=\"{adapter}\"}}"
        ))
    };
    assert_eq!(of("inputs_total", "moods"), Some(3.0));
    assert_eq!(of("out_of_domain_inputs_total", "moods"), Some(3.0));
    assert_eq!(of("inputs_total", "base"), Some(1.0));
    assert_eq!(of("out_of_domain_inputs_total", "base"), None);
    assert!(
        !text.contains("adapter=\"base\",signal=\"distance\""),
        "{text}"
    );
    app.client.unload("moods").await.expect(204);
    let left = app.client.metrics().await;
    assert!(!left.contains("adapter=\"moods\""), "{left}");
}
