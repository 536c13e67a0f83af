//! What is read off the engine, the registry and the evaluations at the moment of a scrape.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use adapters::Entry;
use engine::Statistics;
use prometheus::{Encoder, IntCounter, IntGauge, TextEncoder};

use super::Metrics;
use crate::error::ApiError;
use crate::state::{State, unix_seconds};

impl Metrics {
    /// Reads the state and renders everything in the Prometheus text format.
    ///
    /// # Errors
    /// When the text cannot be encoded.
    pub fn scrape(&self, state: &State) -> Result<String, ApiError> {
        let _one_at_a_time = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        let statistics = state.engine.statistics();
        let entries = state.registry.list();
        self.set_engine(&statistics);
        self.set_adapters(state, &entries);
        self.set_lora_info(state, &statistics, &entries);
        self.resident.evaluations.reset();
        for (status, number) in state.evaluations.by_status() {
            self.resident
                .evaluations
                .with_label_values(&[status.name()])
                .set(integer(number));
        }
        self.encode()
    }

    /// Renders the metrics as they are.
    ///
    /// # Errors
    /// When the text cannot be encoded.
    pub fn encode(&self) -> Result<String, ApiError> {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .map_err(ApiError::internal)?;
        String::from_utf8(text).map_err(ApiError::internal)
    }

    fn set_engine(&self, statistics: &Statistics) {
        let (engine, gateway) = (&self.engine, &self.gateway);
        for gauge in [&engine.running, &gateway.running] {
            gauge.set(integer(statistics.running));
        }
        for gauge in [&engine.waiting, &gateway.waiting] {
            gauge.set(integer(statistics.waiting));
        }
        set(&engine.kv_blocks_used, statistics.kv_blocks_used);
        set(&engine.kv_blocks, statistics.kv_blocks_total);
        gateway.kv_usage.set(ratio(
            statistics.kv_blocks_used as u64,
            statistics.kv_blocks_total as u64,
        ));
        let steps = statistics.steps.saturating_sub(engine.steps.get());
        let rows = statistics.step_rows.saturating_sub(engine.step_rows.get());
        engine.batch_rows.set(ratio(rows, steps));
        raise(&engine.steps, statistics.steps);
        raise(&engine.step_rows, statistics.step_rows);
        raise(&engine.panics, statistics.panics);
        raise(&engine.prefix_hits, statistics.prefix_hit_tokens);
        raise(&engine.prefix_queries, statistics.prefix_query_tokens);
        let (drafted, accepted) = (statistics.draft_tokens, statistics.accepted_tokens);
        let rejected = drafted.saturating_sub(accepted);
        let outcomes = [("accepted", accepted), ("rejected", rejected)];
        for (outcome, total) in outcomes {
            raise(&engine.draft_tokens.with_label_values(&[outcome]), total);
        }
        gateway.cache_info.reset();
        gateway
            .cache_info
            .with_label_values(&[
                &statistics.block_size.to_string(),
                &statistics.kv_blocks_total.to_string(),
            ])
            .set(1);
    }

    fn set_adapters(&self, state: &State, entries: &[Entry]) {
        let resident = &self.resident;
        let versions = entries.iter().flat_map(|entry| &entry.versions);
        let in_memory = versions
            .filter(|version| version.resident_bytes > 0)
            .count();
        set(&resident.adapters_registered, entries.len());
        set(&resident.adapters_resident, resident_names(entries).len());
        set(&resident.adapter_versions_resident, in_memory);
        let memory = state.registry.memory();
        set(&resident.memory_bytes, memory.used());
        set(
            &resident.memory_budget_bytes,
            state.configuration.adapter_memory_bytes,
        );
        raise(&resident.evictions, memory.evictions());
        resident.adapter_resident_bytes.reset();
        for entry in entries {
            let bytes = entry.versions.iter().map(|version| version.resident_bytes);
            resident
                .adapter_resident_bytes
                .with_label_values(&[&entry.name])
                .set(integer(bytes.sum()));
        }
    }

    /// Keeps exactly one series: the gateway takes the newest and is confused by any other.
    fn set_lora_info(&self, state: &State, statistics: &Statistics, entries: &[Entry]) {
        let names: BTreeMap<&str, &str> = entries
            .iter()
            .flat_map(|entry| {
                let name = entry.name.as_str();
                entry
                    .versions
                    .iter()
                    .map(move |version| (version.summary.version.as_str(), name))
            })
            .collect();
        let resident = resident_names(entries);
        let mut waiting: Vec<&str> = statistics
            .waiting_by_version
            .iter()
            .filter_map(|(version, _)| names.get(version.as_str()).copied())
            .collect();
        waiting.sort_unstable();
        waiting.dedup();
        // There is no limit on adapters but the batch: every running sequence may use another one.
        let most = state.configuration.max_running.max(resident.len());
        self.gateway.lora_info.reset();
        self.gateway
            .lora_info
            .with_label_values(&[&most.to_string(), &resident.join(","), &waiting.join(",")])
            .set(unix_seconds() as f64);
    }
}

/// Adapters with a version in memory.
fn resident_names(entries: &[Entry]) -> Vec<&str> {
    let is_resident =
        |entry: &&Entry| (entry.versions.iter()).any(|version| version.resident_bytes > 0);
    let resident = entries.iter().filter(is_resident);
    resident.map(|entry| entry.name.as_str()).collect()
}

fn set(gauge: &IntGauge, value: usize) {
    gauge.set(integer(value));
}

/// Brings a counter up to a total that is kept elsewhere.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn integer(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 / whole as f64
}
