//! What the limits of keys refused, and what the audit log missed. Labels are the ids of keys that exist, and `other`.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::labels::drop_series;
use super::register::{counter, counters};

/// Keys and their limits, the audit log.
pub struct AccessMetrics {
    rate_limited: IntCounterVec,
    admitted: IntCounterVec,
    /// Lines of the audit log that could not be written.
    pub audit_write_failures: IntCounter,
    /// Files that could not be read again when the server was told to, by which.
    pub reload_failures: IntCounterVec,
    known: RwLock<HashSet<String>>,
}

impl AccessMetrics {
    pub(super) fn new(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            rate_limited: counters(
                r,
                "rate_limited_total",
                "Requests refused by a limit of their key, by key and limit.",
                &["key", "limit"],
            )?,
            admitted: counters(
                r,
                "key_requests_total",
                "Requests for a model that the limits of their key let in, by key.",
                &["key"],
            )?,
            audit_write_failures: counter(
                r,
                "audit_write_failures_total",
                "Lines of the audit log that could not be written.",
            )?,
            reload_failures: counters(
                r,
                "reload_failures_total",
                "Files that could not be read again on SIGHUP, by which: keys, certificate, audit_log.",
                &["file"],
            )?,
            known: RwLock::default(),
        })
    }

    /// Counts a request that a limit refused.
    pub fn limited(&self, key: &str, limit: &str) {
        self.rate_limited
            .with_label_values(&[&self.label(key), limit])
            .inc();
    }

    /// Counts a request that was let in.
    pub fn admitted(&self, key: &str) {
        self.admitted.with_label_values(&[&self.label(key)]).inc();
    }

    /// The keys there are from now on; the series of the others are dropped.
    pub fn set_keys(&self, ids: Vec<String>) {
        let ids: HashSet<String> = ids.into_iter().collect();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for gone in known.difference(&ids) {
            drop_series(&self.rate_limited, &[("key", gone)]);
            drop_series(&self.admitted, &[("key", gone)]);
        }
        *known = ids;
    }

    fn label(&self, key: &str) -> String {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        match known.contains(key) {
            true => key.to_owned(),
            false => "other".to_owned(),
        }
    }
}
