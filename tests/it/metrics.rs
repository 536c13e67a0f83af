//! `/metrics`: what is there, what it counts, and that it stays bounded.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::App;

/// One line of the Prometheus text that is not a comment.
#[derive(Debug)]
struct Sample<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
}

fn samples(text: &str) -> Vec<Sample<'_>> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            Sample {
                name,
                labels,
                value: value
                    .parse()
                    .unwrap_or_else(|_| panic!("not a sample: {line}")),
            }
        })
        .collect()
}

/// The sum over all series of a name.
pub(crate) fn sum(text: &str, name: &str) -> f64 {
    let values: Vec<f64> = samples(text)
        .iter()
        .filter(|sample| sample.name == name)
        .map(|sample| sample.value)
        .collect();
    assert!(!values.is_empty(), "there is no series {name}");
    values.iter().sum()
}

async fn use_everything(app: &App) {
    for model in ["tiny", "one"] {
        app.client.greedy(model, "The weather").await;
        app.client
            .classify(&json!({"model": model, "task": "sentiment", "inputs": ["a"]}))
            .await
            .expect(200);
    }
    app.client.get("/v1/nothing").await;
    app.client
        .completions(&json!({"model": "nobody", "prompt": "a"}))
        .await;
}

#[tokio::test]
async fn every_family_is_described_and_every_value_is_a_number() {
    let app = App::with_adapters(&["one"]).await;
    use_everything(&app).await;
    let text = app.client.metrics().await;
    let samples = samples(&text);
    assert!(samples.len() > 30, "{text}");
    for sample in &samples {
        assert!(sample.value.is_finite(), "{sample:?}");
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| sample.name.strip_suffix(suffix))
            .unwrap_or(sample.name);
        for comment in ["HELP", "TYPE"] {
            let described = text.contains(&format!("# {comment} {family} "))
                || text.contains(&format!("# {comment} {} ", sample.name));
            assert!(described, "{} has no {comment}", sample.name);
        }
    }
}

#[tokio::test]
async fn requests_are_counted_by_route_pattern() {
    let app = App::with_adapters(&["one"]).await;
    use_everything(&app).await;
    app.client.adapter("one").await.expect(200);
    let text = app.client.metrics().await;
    assert!(text.contains("/v1/adapters/{name}"), "{text}");
    assert!(!text.contains("/v1/adapters/one"), "{text}");
    assert!(!text.contains("/v1/nothing"), "{text}");
    assert!(
        !text.contains("nobody"),
        "an unknown name must not become a label"
    );
}

#[tokio::test]
async fn the_gateway_finds_exactly_one_series_of_what_is_resident() {
    let app = App::with_adapters(&["one", "two"]).await;
    let text = app.client.metrics().await;
    let samples = samples(&text);
    let info: Vec<_> = samples
        .iter()
        .filter(|sample| sample.name == "vllm:lora_requests_info")
        .collect();
    assert_eq!(info.len(), 1, "{info:?}");
    for part in [
        "max_lora=",
        "running_lora_adapters=\"one,two\"",
        "waiting_lora_adapters=\"\"",
    ] {
        assert!(
            info[0].labels.contains(part),
            "{part} is not in {}",
            info[0].labels
        );
    }
    assert!(info[0].value > 1.7e9, "the value is the unix time");
    for name in [
        "vllm:num_requests_waiting",
        "vllm:num_requests_running",
        "vllm:kv_cache_usage_perc",
    ] {
        assert_eq!(
            samples.iter().filter(|sample| sample.name == name).count(),
            1,
            "{name}"
        );
    }
    let cache = samples
        .iter()
        .find(|sample| sample.name == "vllm:cache_config_info")
        .unwrap();
    assert!(
        cache.labels.contains("block_size=") && cache.labels.contains("num_gpu_blocks="),
        "{}",
        cache.labels
    );
    app.client.unload("one").await.expect(204);
    assert!(
        app.client
            .metrics()
            .await
            .contains("running_lora_adapters=\"two\"")
    );
}

#[tokio::test]
async fn unloading_drops_the_series_of_an_adapter() {
    let app = App::with_adapters(&["one", "two"]).await;
    use_everything(&app).await;
    assert!(app.client.metrics().await.contains("adapter=\"one\""));
    app.client.unload("one").await.expect(204);
    let text = app.client.metrics().await;
    assert!(!text.contains("adapter=\"one\""), "{text}");
}

#[tokio::test]
async fn tokens_are_counted_by_adapter() {
    let app = App::with_adapters(&["one"]).await;
    let prompt = app.client.tokenize("The weather").await.len();
    app.client.greedy("one", "The weather").await;
    let text = app.client.metrics().await;
    let of_one = |name: &str| -> f64 {
        let all = samples(&text);
        all.iter()
            .filter(|sample| sample.name == name && sample.labels.contains("adapter=\"one\""))
            .map(|sample| sample.value)
            .sum()
    };
    assert_eq!(of_one("quickchange_prompt_tokens_total"), prompt as f64);
    assert_eq!(of_one("quickchange_generation_tokens_total"), 16.0);
}

#[tokio::test]
async fn promtool_finds_nothing_to_complain_about() {
    let app = App::with_adapters(&["one"]).await;
    use_everything(&app).await;
    let text = app.client.metrics().await;
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        engine::testing::say_skipped(
            "promtool_finds_nothing_to_complain_about",
            "promtool is not installed (Debian package prometheus)",
        );
        return;
    };
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    // Names with a colon are vLLM's, which the gateway looks for; promtool reserves the colon for recording rules.
    let complaints: Vec<String> = [output.stdout, output.stderr]
        .iter()
        .flat_map(|bytes| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            text.lines()
                .filter(|line| !line.starts_with("vllm:"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(complaints, Vec::<String>::new());
}
