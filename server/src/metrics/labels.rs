//! The bounded set of adapter labels, and the removal of an adapter's series.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock};

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};

/// Adapters that may appear as a label value.
#[derive(Debug, Default)]
pub struct AdapterLabels {
    // A lock and not a concurrent map: written on load and unload only, and tiny.
    known: RwLock<HashSet<String>>,
}

impl AdapterLabels {
    /// The label of an adapter: its name while it exists, `base`, `blend`, or `other`.
    pub fn label(&self, name: &str) -> String {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if matches!(name, "base" | "blend") || known.contains(name) {
            return name.to_owned();
        }
        "other".to_owned()
    }

    pub(super) fn add(&self, name: &str) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(name.to_owned());
    }

    pub(super) fn remove(&self, name: &str) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.remove(name);
    }
}

/// Removes every series of a metric that has all of these labels.
pub(super) fn drop_series<B: MetricVecBuilder>(vector: &MetricVec<B>, wanted: &[(&str, &str)])
where
    MetricVec<B>: Collector,
{
    for family in vector.collect() {
        for metric in family.get_metric() {
            let labels: HashMap<&str, &str> = metric
                .get_label()
                .iter()
                .map(|pair| (pair.name(), pair.value()))
                .collect();
            if wanted
                .iter()
                .all(|(label, value)| labels.get(label) == Some(value))
            {
                // A series that another thread removed first is just as gone.
                let _ = vector.remove(&labels);
            }
        }
    }
}
