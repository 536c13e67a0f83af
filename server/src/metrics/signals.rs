//! Drift: what the classified inputs of each adapter look like lately.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use prometheus::{GaugeVec, IntCounterVec, Registry};

use super::labels::drop_series;
use super::register::{counters, float_gauges};
use crate::inference::signals::OutOfDomain;

/// Classified inputs after which an input counts half.
const HALF_LIFE: f64 = 128.0;
/// Below this share of training inputs that are as strange, an input counts as out of domain.
const STRANGE: f64 = 0.05;

/// The signals of classified inputs, by adapter.
pub struct SignalMetrics {
    inputs: IntCounterVec,
    strange: IntCounterVec,
    signal: GaugeVec,
    /// By adapter. Held for the arithmetic only.
    recent: Mutex<HashMap<String, [Average; 5]>>,
}

/// A mean in which older values count less.
#[derive(Debug, Clone, Copy, Default)]
struct Average {
    sum: f64,
    /// What the values weigh together; below the limit at first, so that the first ones are not mixed with zeros.
    weight: f64,
}

impl Average {
    fn take(&mut self, value: f64) -> f64 {
        let kept = 0.5f64.powf(1.0 / HALF_LIFE);
        self.sum = self.sum * kept + value;
        self.weight = self.weight * kept + 1.0;
        self.sum / self.weight
    }
}

impl SignalMetrics {
    pub(super) fn new(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            inputs: counters(
                r,
                "classification_inputs_total",
                "Inputs classified.",
                &["adapter"],
            )?,
            strange: counters(
                r,
                "classification_out_of_domain_inputs_total",
                "Inputs classified that are stranger than all but 5 % of the adapter's training inputs.",
                &["adapter"],
            )?,
            signal: float_gauges(
                r,
                "quickchange_classification_signal",
                "Mean of a signal over the inputs classified lately; an input counts half after 128 more.",
                &["adapter", "signal"],
            )?,
            recent: Mutex::default(),
        })
    }

    /// Takes classified inputs.
    pub(crate) fn take<'a>(&self, adapter: &str, inputs: impl Iterator<Item = &'a OutOfDomain>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let averages = recent.entry(adapter.to_owned()).or_default();
        for input in inputs {
            self.inputs.with_label_values(&[adapter]).inc();
            if let Some(in_domain) = input.in_domain {
                let strange = self.strange.with_label_values(&[adapter]);
                strange.inc_by(u64::from(in_domain < STRANGE));
            }
            let signals = [
                ("max_prob", Some(input.max_prob)),
                ("energy", Some(f64::from(input.energy))),
                ("margin", Some(input.margin)),
                ("distance", input.distance),
                ("in_domain", input.in_domain),
            ];
            for (average, (signal, value)) in averages.iter_mut().zip(signals) {
                if let Some(value) = value {
                    let mean = average.take(value);
                    self.signal.with_label_values(&[adapter, signal]).set(mean);
                }
            }
        }
    }

    pub(super) fn drop_adapter(&self, name: &str) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.remove(name);
        drop_series(&self.inputs, &[("adapter", name)]);
        drop_series(&self.strange, &[("adapter", name)]);
        drop_series(&self.signal, &[("adapter", name)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(energy: f32, in_domain: Option<f64>) -> OutOfDomain {
        OutOfDomain {
            max_prob: 0.75,
            energy,
            margin: 0.5,
            distance: in_domain.map(|_| 2.0),
            in_domain,
        }
    }

    #[test]
    fn an_input_counts_half_after_as_many_as_a_half_life() {
        let mut average = Average::default();
        assert_eq!(average.take(3.0), 3.0);
        for _ in 0..2000 {
            average.take(0.0);
        }
        for _ in 0..128 {
            average.take(1.0);
        }
        let mean = average.take(1.0);
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
    }

    #[test]
    fn signals_are_kept_by_adapter_and_dropped_with_it() {
        let registry = Registry::new();
        let metrics = SignalMetrics::new(&registry).expect("distinct names");
        let inputs = [
            input(-1.0, Some(0.5)),
            input(-1.0, Some(0.01)),
            input(-1.0, Some(0.05)),
        ];
        metrics.take("moods", inputs.iter());
        metrics.take("base", [input(-3.0, None)].iter());
        let energy = |adapter| metrics.signal.with_label_values(&[adapter, "energy"]).get();
        assert_eq!((energy("moods"), energy("base")), (-1.0, -3.0));
        assert_eq!(metrics.inputs.with_label_values(&["moods"]).get(), 3);
        assert_eq!(metrics.strange.with_label_values(&["moods"]).get(), 1);
        let text = |registry: &Registry| {
            let families = registry.gather();
            prometheus::TextEncoder::new().encode_to_string(&families)
        };
        let before = text(&registry).expect("metrics encode");
        assert!(before.contains(r#"adapter="moods",signal="in_domain""#));
        assert!(!before.contains(r#"adapter="base",signal="in_domain""#));
        metrics.drop_adapter("moods");
        let after = text(&registry).expect("metrics encode");
        assert!(
            !after.contains("moods") && after.contains("base"),
            "{after}"
        );
        // What comes under that name later starts anew.
        metrics.take("moods", [input(-9.0, None)].iter());
        assert_eq!(energy("moods"), -9.0);
    }
}
