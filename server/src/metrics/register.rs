//! Making a metric and registering it, in one call each.

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// Seconds, from a fast token to a long prompt.
const LATENCY: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

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

pub(super) fn counter(
    r: &Registry,
    name: &str,
    help: &str,
) -> Result<IntCounter, prometheus::Error> {
    register(r, IntCounter::new(prefixed(name), help)?)
}

pub(super) fn counters(
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

pub(super) fn histogram(
    r: &Registry,
    name: &str,
    help: &str,
) -> Result<Histogram, prometheus::Error> {
    let options = HistogramOpts::new(prefixed(name), help).buckets(LATENCY.to_vec());
    register(r, Histogram::with_opts(options)?)
}

pub(super) fn histograms(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<HistogramVec, prometheus::Error> {
    let options = HistogramOpts::new(prefixed(name), help).buckets(LATENCY.to_vec());
    register(r, HistogramVec::new(options, labels)?)
}

pub(super) fn gauge(r: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    register(r, IntGauge::new(name, help)?)
}

pub(super) fn gauges(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    register(r, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

pub(super) fn float_gauge(
    r: &Registry,
    name: &str,
    help: &str,
) -> Result<Gauge, prometheus::Error> {
    register(r, Gauge::new(name, help)?)
}

pub(super) fn float_gauges(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<GaugeVec, prometheus::Error> {
    register(r, GaugeVec::new(Opts::new(name, help), labels)?)
}
