//! Everything /metrics shows: one struct with its own registry, help text beside each metric.
//!
//! A metric belongs here when it is cheap to keep while serving; what can be read off the engine or the registry at the moment of
//! a scrape is set in `scrape`. Adapter labels are bounded: `base`, the adapters that exist, and `other`.

mod access;
mod gauges;
mod kept;
mod labels;
mod register;
mod scrape;
mod signals;

use std::sync::Mutex;

use adapters::Version;
use prometheus::{GaugeVec, Registry};

pub use self::access::AccessMetrics;
use self::gauges::{EngineGauges, GatewayGauges, ResidentGauges};
pub use self::kept::{
    AdapterMetrics, GenerationMetrics, HttpMetrics, ResidencyMetrics, VersionMetrics,
};
pub use self::labels::AdapterLabels;
use self::register::float_gauges;
pub use self::signals::SignalMetrics;

/// The metrics of one server process.
pub struct Metrics {
    registry: Registry,
    /// Adapters that may appear as a label.
    pub labels: AdapterLabels,
    /// Requests, whatever they ask for.
    pub http: HttpMetrics,
    /// Tokens and the time they take.
    pub generation: GenerationMetrics,
    /// Adapters coming, going and changing.
    pub adapters: AdapterMetrics,
    /// Adapter weights in memory or not.
    pub residency: ResidencyMetrics,
    /// The versions of an adapter beside each other.
    pub versions: VersionMetrics,
    /// What classified inputs look like.
    pub signals: SignalMetrics,
    /// Keys and their limits, the audit log.
    pub access: AccessMetrics,
    /// The last measured value, by adapter, task and domain.
    pub evaluation_value: GaugeVec,
    resident: ResidentGauges,
    engine: EngineGauges,
    gateway: GatewayGauges,
    /// Held while a scrape replaces gauges, so that no other scrape sees half of them.
    scrape: Mutex<()>,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When two metrics have the same name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        Ok(Self {
            labels: AdapterLabels::default(),
            http: HttpMetrics::new(&registry)?,
            generation: GenerationMetrics::new(&registry)?,
            adapters: AdapterMetrics::new(&registry)?,
            residency: ResidencyMetrics::new(&registry)?,
            versions: VersionMetrics::new(&registry)?,
            signals: SignalMetrics::new(&registry)?,
            access: AccessMetrics::new(&registry)?,
            evaluation_value: float_gauges(
                &registry,
                "quickchange_evaluation_value",
                "Last measured value of the task's metric, mean over an evaluation's cells.",
                &["adapter", "task", "domain"],
            )?,
            resident: ResidentGauges::new(&registry)?,
            engine: EngineGauges::new(&registry)?,
            gateway: GatewayGauges::new(&registry)?,
            scrape: Mutex::new(()),
            registry,
        })
    }

    /// Lets an adapter's name appear as a label from now on.
    pub fn adapter_added(&self, name: &str) {
        self.labels.add(name);
    }

    /// Drops every series of an adapter; later observations count as `other`.
    pub fn adapter_removed(&self, name: &str) {
        self.labels.remove(name);
        let counters = [
            &self.http.requests,
            &self.generation.prompt_tokens,
            &self.generation.generation_tokens,
            &self.adapters.swaps,
        ];
        let histograms = [
            &self.generation.time_to_first_token,
            &self.generation.inter_token,
        ];
        for vector in counters {
            labels::drop_series(vector, &[("adapter", name)]);
        }
        for vector in histograms {
            labels::drop_series(vector, &[("adapter", name)]);
        }
        labels::drop_series(&self.evaluation_value, &[("adapter", name)]);
        labels::drop_series(&self.resident.adapter_resident_bytes, &[("adapter", name)]);
        self.versions.drop_adapter(name);
        self.signals.drop_adapter(name);
    }

    /// Drops every series of one version of an adapter.
    pub fn version_removed(&self, name: &str, version: &Version) {
        self.versions.drop_version(name, version);
    }
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
            let label = metrics.labels.label(name);
            metrics
                .generation
                .prompt_tokens
                .with_label_values(&[&label])
                .inc_by(3);
            metrics
                .http
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
