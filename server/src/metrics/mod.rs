//! Everything /metrics shows: one struct with its own registry, help text beside each metric.
//!
//! A metric belongs here when it is cheap to keep while serving; what can be read off the engine or the registry at the moment of
//! a scrape is set in `scrape`. Adapter labels are bounded: `base`, the adapters that exist, and `other`.

mod labels;
mod scrape;

use std::sync::Mutex;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

pub use labels::AdapterLabels;

/// Seconds, from a fast token to a long prompt.
const LATENCY: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// The metrics of one server process.
pub struct Metrics {
    registry: Registry,
    /// Adapters that may appear as a label.
    pub adapters: AdapterLabels,
    /// Requests answered, by route pattern, method, status and adapter.
    pub requests: IntCounterVec,
    /// Seconds from the arrival of a request to its answer's first byte, by route pattern.
    pub request_duration: HistogramVec,
    /// Requests being handled.
    pub requests_in_flight: IntGauge,
    /// Seconds from submission to the first token, by adapter.
    pub time_to_first_token: HistogramVec,
    /// Seconds between two tokens of one answer, by adapter.
    pub inter_token: HistogramVec,
    /// Seconds in the engine's queue.
    pub queue_time: Histogram,
    /// Prompt tokens, by adapter.
    pub prompt_tokens: IntCounterVec,
    /// Generated tokens, by adapter.
    pub generation_tokens: IntCounterVec,
    /// Adapter versions loaded, by how.
    pub adapter_loads: IntCounterVec,
    /// Adapter loads that were refused, by code.
    pub adapter_load_failures: IntCounterVec,
    /// Times the active version of a name changed, by adapter.
    pub adapter_swaps: IntCounterVec,
    /// Adapters unloaded.
    pub adapter_unloads: IntCounter,
    /// Seconds an adapter load took.
    pub adapter_load_duration: Histogram,
    /// The last measured value, by adapter, task and domain.
    pub evaluation_value: GaugeVec,
    scraped: Scraped,
    /// Held while a scrape replaces gauges, so that no other scrape sees half of them.
    scrape: Mutex<()>,
}

/// Gauges that are set at each scrape from the engine, the registry and the evaluations.
struct Scraped {
    adapters_resident: IntGauge,
    adapter_versions_resident: IntGauge,
    adapter_resident_bytes: IntGaugeVec,
    evaluations: IntGaugeVec,
    running: IntGauge,
    waiting: IntGauge,
    kv_blocks_used: IntGauge,
    kv_blocks: IntGauge,
    prefix_hits: IntCounter,
    prefix_queries: IntCounter,
    steps: IntCounter,
    step_rows: IntCounter,
    batch_rows: Gauge,
    vllm_waiting: IntGauge,
    vllm_running: IntGauge,
    vllm_kv_usage: Gauge,
    vllm_cache_info: IntGaugeVec,
    vllm_lora_info: GaugeVec,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When two metrics have the same name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        Ok(Self {
            adapters: AdapterLabels::default(),
            requests: counters(
                r,
                "requests_total",
                "Requests answered.",
                &["route", "method", "status", "adapter"],
            )?,
            request_duration: histograms(
                r,
                "request_duration_seconds",
                "Time from the arrival of a request to the head of its answer.",
                &["route"],
            )?,
            requests_in_flight: gauge(
                r,
                "quickchange_requests_in_flight",
                "Requests being handled.",
            )?,
            time_to_first_token: histograms(
                r,
                "time_to_first_token_seconds",
                "Time from submission to the first token of an answer.",
                &["adapter"],
            )?,
            inter_token: histograms(
                r,
                "inter_token_latency_seconds",
                "Time between two tokens of one answer.",
                &["adapter"],
            )?,
            queue_time: histogram(
                r,
                "queue_time_seconds",
                "Time a request waits before the engine first works on it.",
            )?,
            prompt_tokens: counters(
                r,
                "prompt_tokens_total",
                "Prompt tokens of requests that started.",
                &["adapter"],
            )?,
            generation_tokens: counters(
                r,
                "generation_tokens_total",
                "Tokens generated.",
                &["adapter"],
            )?,
            adapter_loads: counters(
                r,
                "adapter_loads_total",
                "Adapter versions loaded.",
                &["source"],
            )?,
            adapter_load_failures: counters(
                r,
                "adapter_load_failures_total",
                "Adapter loads refused, by error code.",
                &["code"],
            )?,
            adapter_swaps: counters(
                r,
                "adapter_swaps_total",
                "Times the active version of an adapter changed.",
                &["adapter"],
            )?,
            adapter_unloads: counter(r, "adapter_unloads_total", "Adapters unloaded.")?,
            adapter_load_duration: histogram(
                r,
                "adapter_load_duration_seconds",
                "Time to read, validate, prepare and probe an adapter.",
            )?,
            evaluation_value: float_gauges(
                r,
                "quickchange_evaluation_value",
                "Last measured value of the task's metric, mean over an evaluation's cells.",
                &["adapter", "task", "domain"],
            )?,
            scraped: Scraped::new(r)?,
            scrape: Mutex::new(()),
            registry,
        })
    }

    /// Lets an adapter's name appear as a label from now on.
    pub fn adapter_added(&self, name: &str) {
        self.adapters.add(name);
    }

    /// Drops every series of an adapter; later observations count as `other`.
    pub fn adapter_removed(&self, name: &str) {
        self.adapters.remove(name);
        for vector in [
            &self.requests,
            &self.prompt_tokens,
            &self.generation_tokens,
            &self.adapter_swaps,
        ] {
            labels::drop_series(vector, name);
        }
        for vector in [&self.time_to_first_token, &self.inter_token] {
            labels::drop_series(vector, name);
        }
        labels::drop_series(&self.evaluation_value, name);
        labels::drop_series(&self.scraped.adapter_resident_bytes, name);
    }
}

impl Scraped {
    fn new(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            adapters_resident: gauge(r, "quickchange_adapters_resident", "Adapters in memory.")?,
            adapter_versions_resident: gauge(
                r,
                "quickchange_adapter_versions_resident",
                "Adapter versions in memory.",
            )?,
            adapter_resident_bytes: gauges(
                r,
                "quickchange_adapter_resident_bytes",
                "Bytes of an adapter's versions in memory.",
                &["adapter"],
            )?,
            evaluations: gauges(
                r,
                "quickchange_evaluations",
                "Evaluations, by state.",
                &["state"],
            )?,
            running: gauge(
                r,
                "quickchange_requests_running",
                "Sequences the engine works on.",
            )?,
            waiting: gauge(
                r,
                "quickchange_requests_waiting",
                "Requests in the engine's queue.",
            )?,
            kv_blocks_used: gauge(
                r,
                "quickchange_kv_blocks_used",
                "Blocks of the key-value cache in use.",
            )?,
            kv_blocks: gauge(r, "quickchange_kv_blocks", "Blocks of the key-value cache.")?,
            prefix_hits: counter(
                r,
                "prefix_cache_hit_tokens_total",
                "Prompt tokens found in the prefix cache.",
            )?,
            prefix_queries: counter(
                r,
                "prefix_cache_query_tokens_total",
                "Prompt tokens looked up in the prefix cache.",
            )?,
            steps: counter(r, "engine_steps_total", "Steps of the engine.")?,
            step_rows: counter(
                r,
                "engine_step_rows_total",
                "Rows, prompt and generated tokens alike, over all steps; divided by the steps it is the batch size.",
            )?,
            batch_rows: float_gauge(
                r,
                "quickchange_batch_rows",
                "Mean rows per step since the last scrape.",
            )?,
            vllm_waiting: gauge(
                r,
                "vllm:num_requests_waiting",
                "Requests waiting to be processed.",
            )?,
            vllm_running: gauge(
                r,
                "vllm:num_requests_running",
                "Requests in execution batches.",
            )?,
            vllm_kv_usage: float_gauge(
                r,
                "vllm:kv_cache_usage_perc",
                "Fraction of the key-value cache in use, 0 to 1.",
            )?,
            vllm_cache_info: gauges(
                r,
                "vllm:cache_config_info",
                "Shape of the key-value cache.",
                &["block_size", "num_gpu_blocks"],
            )?,
            vllm_lora_info: float_gauges(
                r,
                "vllm:lora_requests_info",
                "Unix time of the scrape; the labels list resident adapters and those with waiting requests.",
                &["max_lora", "running_lora_adapters", "waiting_lora_adapters"],
            )?,
        })
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn prefixed(name: &str) -> String {
    format!("quickchange_{name}")
}

fn counter(r: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    register(r, IntCounter::new(prefixed(name), help)?)
}

fn counters(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    register(
        r,
        IntCounterVec::new(Opts::new(prefixed(name), help), labels)?,
    )
}

fn histogram(r: &Registry, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
    let options = HistogramOpts::new(prefixed(name), help).buckets(LATENCY.to_vec());
    register(r, Histogram::with_opts(options)?)
}

fn histograms(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<HistogramVec, prometheus::Error> {
    let options = HistogramOpts::new(prefixed(name), help).buckets(LATENCY.to_vec());
    register(r, HistogramVec::new(options, labels)?)
}

fn gauge(r: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    register(r, IntGauge::new(name, help)?)
}

fn gauges(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    register(r, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

fn float_gauge(r: &Registry, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
    register(r, Gauge::new(name, help)?)
}

fn float_gauges(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<GaugeVec, prometheus::Error> {
    register(r, GaugeVec::new(Opts::new(name, help), labels)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(metrics: &Metrics) -> Vec<String> {
        let text = metrics.encode().expect("metrics encode");
        text.lines()
            .filter(|line| !line.starts_with('#') && line.contains("adapter=\""))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn an_adapter_that_goes_takes_its_series_along() {
        let metrics = Metrics::new().expect("distinct names");
        metrics.adapter_added("tone");
        for name in ["tone", "stranger", "base"] {
            let label = metrics.adapters.label(name);
            metrics.prompt_tokens.with_label_values(&[&label]).inc_by(3);
            metrics
                .requests
                .with_label_values(&["/v1/completions", "POST", "200", &label])
                .inc();
        }
        assert!(
            series(&metrics)
                .iter()
                .any(|line| line.contains("\"tone\""))
        );
        assert!(
            series(&metrics)
                .iter()
                .all(|line| !line.contains("stranger"))
        );
        metrics.adapter_removed("tone");
        let left = series(&metrics);
        assert!(
            left.iter().all(|line| !line.contains("\"tone\"")),
            "{left:?}"
        );
        assert!(
            left.iter().any(|line| line.contains("\"other\"")),
            "{left:?}"
        );
        assert!(
            left.iter().any(|line| line.contains("\"base\"")),
            "{left:?}"
        );
    }
}
