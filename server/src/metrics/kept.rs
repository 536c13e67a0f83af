//! Metrics that are kept while serving, each with its help text.

use adapters::Version;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry};

use super::labels::drop_series;
use super::register::{counter, counters, gauge, histogram, histograms};

/// Requests, whatever they ask for.
pub struct HttpMetrics {
    /// Requests answered, by route pattern, method, status and adapter.
    pub requests: IntCounterVec,
    /// Seconds from the arrival of a request to its answer's first byte, by route pattern.
    pub request_duration: HistogramVec,
    /// Requests being handled.
    pub requests_in_flight: IntGauge,
    /// Handlers and streams that panicked.
    pub panics: IntCounter,
}

/// Tokens and the time they take.
pub struct GenerationMetrics {
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
}

/// Adapters coming, going and changing.
pub struct AdapterMetrics {
    /// Adapter versions loaded, by how.
    pub loads: IntCounterVec,
    /// Adapter loads that were refused, by code.
    pub load_failures: IntCounterVec,
    /// Times the active version of a name changed, by adapter.
    pub swaps: IntCounterVec,
    /// Adapters unloaded.
    pub unloads: IntCounter,
    /// Seconds an adapter load took.
    pub load_duration: Histogram,
    /// Times a shared store, or a change in it, could not be followed.
    pub follow_failures: IntCounter,
}

/// Adapter weights in memory or not.
pub struct ResidencyMetrics {
    /// Requests whose weights were in memory.
    pub hits: IntCounter,
    /// Requests whose weights had to be loaded first.
    pub misses: IntCounter,
    /// Seconds a request waited for weights to be loaded.
    pub load_duration: Histogram,
}

/// The versions of an adapter beside each other, so that a canary can be told from the active one.
pub struct VersionMetrics {
    requests: IntCounterVec,
    time_to_first_token: HistogramVec,
}

impl VersionMetrics {
    pub(super) fn new(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            requests: counters(
                r,
                "version_requests_total",
                "Inference requests answered, by adapter and version (first 12 digits).",
                &["adapter", "version", "status"],
            )?,
            time_to_first_token: histograms(
                r,
                "version_time_to_first_token_seconds",
                "Time from submission to the first token of an answer, by adapter and version (first 12 digits).",
                &["adapter", "version"],
            )?,
        })
    }

    /// Counts an answer.
    pub fn answered(&self, adapter: &str, version: &Version, status: u16) {
        self.requests
            .with_label_values(&[adapter, short(version), &status.to_string()])
            .inc();
    }

    /// Takes the time to a first token.
    pub fn first_token(&self, adapter: &str, version: &Version, seconds: f64) {
        self.time_to_first_token
            .with_label_values(&[adapter, short(version)])
            .observe(seconds);
    }

    pub(super) fn drop_adapter(&self, name: &str) {
        drop_series(&self.requests, &[("adapter", name)]);
        drop_series(&self.time_to_first_token, &[("adapter", name)]);
    }

    pub(super) fn drop_version(&self, name: &str, version: &Version) {
        let labels = [("adapter", name), ("version", short(version))];
        drop_series(&self.requests, &labels);
        drop_series(&self.time_to_first_token, &labels);
    }
}

/// What tells versions apart in a label.
fn short(version: &Version) -> &str {
    &version.as_str()[..12]
}

impl ResidencyMetrics {
    pub(super) fn new(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            hits: counter(
                r,
                "adapter_residency_hits_total",
                "Requests for adapters whose weights were in memory.",
            )?,
            misses: counter(
                r,
                "adapter_residency_misses_total",
                "Requests for adapters whose weights had to be loaded first.",
            )?,
            load_duration: histogram(
                r,
                "adapter_residency_load_seconds",
                "Time a request waited for an adapter's weights to be loaded.",
            )?,
        })
    }
}

impl HttpMetrics {
    pub(super) fn new(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
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
            panics: counter(
                r,
                "request_panics_total",
                "Requests whose handler or stream panicked; each failed alone.",
            )?,
        })
    }
}

impl GenerationMetrics {
    pub(super) fn new(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
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
        })
    }
}

impl AdapterMetrics {
    pub(super) fn new(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            loads: counters(
                r,
                "adapter_loads_total",
                "Adapter versions loaded.",
                &["source"],
            )?,
            load_failures: counters(
                r,
                "adapter_load_failures_total",
                "Adapter loads refused, by error code.",
                &["code"],
            )?,
            swaps: counters(
                r,
                "adapter_swaps_total",
                "Times the active version of an adapter changed.",
                &["adapter"],
            )?,
            unloads: counter(r, "adapter_unloads_total", "Adapters unloaded.")?,
            load_duration: histogram(
                r,
                "adapter_load_duration_seconds",
                "Time to read, validate, prepare and probe an adapter.",
            )?,
            follow_failures: counter(
                r,
                "store_follow_failures_total",
                "Times a shared store, or a change in it, could not be followed.",
            )?,
        })
    }
}
