//! Gauges that are set at each scrape, and counters whose totals are kept elsewhere.

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::register::{counter, counters, float_gauge, float_gauges, gauge, gauges};

/// What is in memory and what is being evaluated.
pub(super) struct ResidentGauges {
    pub(super) adapters_resident: IntGauge,
    pub(super) adapter_versions_resident: IntGauge,
    pub(super) adapter_resident_bytes: IntGaugeVec,
    pub(super) adapters_registered: IntGauge,
    pub(super) memory_bytes: IntGauge,
    pub(super) memory_budget_bytes: IntGauge,
    pub(super) evictions: IntCounter,
    pub(super) evaluations: IntGaugeVec,
}

/// What the engine is doing.
pub(super) struct EngineGauges {
    pub(super) running: IntGauge,
    pub(super) waiting: IntGauge,
    pub(super) kv_blocks_used: IntGauge,
    pub(super) kv_blocks: IntGauge,
    pub(super) prefix_hits: IntCounter,
    pub(super) prefix_queries: IntCounter,
    pub(super) steps: IntCounter,
    pub(super) step_rows: IntCounter,
    pub(super) batch_rows: Gauge,
    pub(super) draft_tokens: IntCounterVec,
    pub(super) panics: IntCounter,
}

/// What the Kubernetes gateway schedules by, under vLLM's names.
pub(super) struct GatewayGauges {
    pub(super) waiting: IntGauge,
    pub(super) running: IntGauge,
    pub(super) kv_usage: Gauge,
    pub(super) cache_info: IntGaugeVec,
    pub(super) lora_info: GaugeVec,
}

impl ResidentGauges {
    pub(super) fn new(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            adapters_resident: gauge(r, "quickchange_adapters_resident", "Adapters in memory.")?,
            adapters_registered: gauge(
                r,
                "quickchange_adapters_registered",
                "Adapters that can be asked for, in memory or not.",
            )?,
            memory_bytes: gauge(
                r,
                "quickchange_adapter_memory_bytes",
                "Bytes that adapters and blends take in memory together.",
            )?,
            memory_budget_bytes: gauge(
                r,
                "quickchange_adapter_memory_budget_bytes",
                "Bytes that they may take; 0 is without limit.",
            )?,
            evictions: counter(
                r,
                "adapter_residency_evictions_total",
                "Adapter versions that left memory to make room for others.",
            )?,
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
        })
    }
}

impl EngineGauges {
    pub(super) fn new(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
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
            draft_tokens: counters(
                r,
                "draft_tokens_total",
                "Tokens guessed by prompt lookup, by what became of them.",
                &["outcome"],
            )?,
            panics: counter(
                r,
                "engine_panics_total",
                "Panics of the engine; each cost no more than the requests it was for.",
            )?,
        })
    }
}

impl GatewayGauges {
    pub(super) fn new(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            waiting: gauge(
                r,
                "vllm:num_requests_waiting",
                "Requests waiting to be processed.",
            )?,
            running: gauge(
                r,
                "vllm:num_requests_running",
                "Requests in execution batches.",
            )?,
            kv_usage: float_gauge(
                r,
                "vllm:kv_cache_usage_perc",
                "Fraction of the key-value cache in use, 0 to 1.",
            )?,
            cache_info: gauges(
                r,
                "vllm:cache_config_info",
                "Shape of the key-value cache.",
                &["block_size", "num_gpu_blocks"],
            )?,
            lora_info: float_gauges(
                r,
                "vllm:lora_requests_info",
                "Unix time of the scrape; the labels list resident adapters and those with waiting requests.",
                &["max_lora", "running_lora_adapters", "waiting_lora_adapters"],
            )?,
        })
    }
}
