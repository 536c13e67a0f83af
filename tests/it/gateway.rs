//! What the Kubernetes inference gateway reads under load: its scheduler takes one value of each gauge, and of the adapters' series the
//! one with the newest time as its value.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{Fault, FaultHook};
use reqwest::Method;
use serde_json::json;

use crate::harness::{AdapterDirectory, App, Options};

/// What the gateway knows about a server.
#[derive(Debug, PartialEq)]
struct Seen {
    waiting: f64,
    running: f64,
    kv_usage: f64,
    block_size: u64,
    blocks: u64,
    max_lora: u64,
    running_adapters: BTreeSet<String>,
    waiting_adapters: BTreeSet<String>,
}

impl Seen {
    /// Reads the text as the gateway's scraper does.
    fn of(metrics: &str) -> Self {
        let adapters = series(metrics, "vllm:lora_requests_info");
        let newest = adapters
            .iter()
            .max_by(|one, other| one.1.total_cmp(&other.1));
        let (labels, _) = newest.unwrap();
        let cache = series(metrics, "vllm:cache_config_info");
        Self {
            waiting: only(metrics, "vllm:num_requests_waiting"),
            running: only(metrics, "vllm:num_requests_running"),
            kv_usage: only(metrics, "vllm:kv_cache_usage_perc"),
            block_size: label(&cache[0].0, "block_size").parse().unwrap(),
            blocks: label(&cache[0].0, "num_gpu_blocks").parse().unwrap(),
            max_lora: label(labels, "max_lora").parse().unwrap(),
            running_adapters: list(&label(labels, "running_lora_adapters")),
            waiting_adapters: list(&label(labels, "waiting_lora_adapters")),
        }
    }
}

/// Labels and value of every series of a metric.
fn series(metrics: &str, name: &str) -> Vec<(String, f64)> {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
    lines
        .filter(|rest| rest.starts_with(['{', ' ']))
        .map(|rest| {
            let (labels, value) = rest.rsplit_once(' ').unwrap();
            (labels.to_owned(), value.parse().unwrap())
        })
        .collect()
}

fn only(metrics: &str, name: &str) -> f64 {
    let all = series(metrics, name);
    assert_eq!(all.len(), 1, "{name}");
    all[0].1
}

fn label(labels: &str, name: &str) -> String {
    let (_, rest) = labels.split_once(&format!("{name}=\"")).unwrap();
    rest.split('"').next().unwrap().to_owned()
}

/// Names between commas; the gateway skips empty ones.
fn list(names: &str) -> BTreeSet<String> {
    let names = names.split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn the_gateway_sees_who_runs_and_who_waits() {
    let held = Arc::new(AtomicBool::new(false));
    let holds = Arc::clone(&held);
    let app = App::start_with(Options {
        max_running: 1,
        fault_hook: Some(FaultHook::new(move |fault| {
            while matches!(fault, Fault::Answer(..)) && holds.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
        })),
        ..Options::default()
    })
    .await;
    for (seed, name) in ["a", "b", "c"].into_iter().enumerate() {
        let files = AdapterDirectory::random(&app.base, seed as u64);
        app.client.upload(name, &files).await.expect(201);
    }
    let idle = Seen::of(&app.client.metrics().await);
    assert_eq!((idle.waiting, idle.running, idle.kv_usage), (0.0, 0.0, 0.0));
    assert_eq!(idle.running_adapters, names(&["a", "b", "c"]));
    assert_eq!(idle.waiting_adapters, names(&[]));

    held.store(true, Ordering::Release);
    let ask = |model: &'static str| {
        let body = json!({"model": model, "prompt": "a b c", "max_tokens": 4, "ignore_eos": true});
        tokio::spawn(
            app.client
                .request(Method::POST, "/v1/completions")
                .json(&body)
                .send(),
        )
    };
    let mut asked = vec![ask("a")];
    app.seen_by_the_gateway(|seen| seen.running == 1.0).await;
    asked.extend([ask("b"), ask("b"), ask("c")]);
    // The step that is held shows nothing new; the next one does.
    app.seen_by_the_gateway(|seen| seen.waiting == 3.0).await;
    held.store(false, Ordering::Release);
    for reply in asked {
        assert_eq!(reply.await.unwrap().unwrap().status(), 200);
    }
    app.engine_is_idle().await;
    let after = Seen::of(&app.client.metrics().await);
    assert_eq!((after.waiting, after.running), (0.0, 0.0));
    assert_eq!(after.running_adapters, names(&["a", "b", "c"]));
    let gauges = (after.block_size, after.blocks, after.max_lora);
    assert_eq!(gauges, (idle.block_size, idle.blocks, idle.max_lora));
    assert!(gauges.0 > 0 && gauges.1 > 0 && gauges.2 >= 1);
}

impl App {
    /// Waits until the gateway would see that.
    async fn seen_by_the_gateway(&self, what: impl Fn(&Seen) -> bool) {
        self.shown(|metrics| what(&Seen::of(metrics))).await;
    }
}
