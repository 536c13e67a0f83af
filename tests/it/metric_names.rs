//! The names of metrics: what docs/METRICS.md says and what the dashboard and the alerts ask for, held to a server that has
//! served requests of every kind.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::Path;

use ::adapters::{DomainProfile, Manifest};
use serde_json::json;
use server::access::{KeyLimits, Scope};

use crate::harness::{AdapterDirectory, App, Keys, Options, Random};

/// A metric: its type and the names of its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
}

type Metrics = BTreeMap<String, Metric>;

fn repository(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs_err::read_to_string(root.join(path)).unwrap()
}

/// The metrics of a Prometheus text that have at least one series.
fn served(text: &str) -> Metrics {
    let kinds: BTreeMap<&str, &str> = (text.lines())
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let mut found = Metrics::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once(' ').unwrap().0;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let parts = ["_bucket", "_sum", "_count"];
        let family = (parts.iter())
            .filter_map(|part| name.strip_suffix(part))
            .find(|family| kinds.get(family) == Some(&"histogram"))
            .unwrap_or(name);
        let metric = found.entry(family.to_owned()).or_insert_with(|| Metric {
            kind: kinds[family].to_owned(),
            labels: BTreeSet::new(),
        });
        let labels = labels
            .split("\",")
            .filter_map(|label| label.split_once("=\""))
            .map(|(label, _)| label.to_owned())
            .filter(|label| label != "le");
        metric.labels.extend(labels);
    }
    found
}

/// The metrics in the tables of a page: name, type and labels stand in the first three columns.
fn documented(page: &str) -> Metrics {
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let metric = |row: &str| {
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = columns[3].split(", ").filter(|label| *label != "–");
        let metric = Metric {
            kind: columns[2].to_owned(),
            labels: labels.map(str::to_owned).collect(),
        };
        (columns[1].trim_matches('`').to_owned(), metric)
    };
    let listed: Vec<_> = rows.map(metric).collect();
    let count = listed.len();
    let found: Metrics = listed.into_iter().collect();
    assert_eq!(found.len(), count, "a metric stands there twice");
    found
}

/// The words of a text that are names of the server's metrics, or of what rules record from them.
fn named(text: &str) -> BTreeSet<&str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && !"_:".contains(letter))
        .filter(|word| {
            let of_ours = ["quickchange_", "vllm:"].iter();
            of_ours.clone().any(|prefix| word.starts_with(prefix)) || word.contains(":quickchange_")
        })
        .collect()
}

/// What rules record.
fn recorded(rules: &str) -> BTreeSet<&str> {
    rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- record: "))
        .collect()
}

/// An adapter that knows what its training inputs looked like.
fn with_profile(app: &App) -> AdapterDirectory {
    let width = app.base.shapes[0].inputs;
    let states = [0.5, -0.25, 1.0].map(|value| vec![value; width]);
    let mut adapter = Random::new(&app.base, 7);
    adapter.manifest = Manifest {
        task: Some("sentiment".to_owned()),
        labels: vec!["positive".to_owned(), "negative".to_owned()],
        trained_on: Some("amazon".to_owned()),
        domain: Some(DomainProfile::measure(&states).unwrap()),
        ..Manifest::default()
    };
    adapter.write()
}

/// What /metrics says after requests of every kind.
async fn metrics_after_everything() -> String {
    let keys = Keys::new();
    let admin = keys.add(Scope::Admin);
    let once = keys.add_limited(
        Scope::Inference,
        KeyLimits {
            requests_per_minute: NonZeroU32::new(1),
            ..KeyLimits::default()
        },
    );
    let app = App::start_with(Options {
        keys: Some(keys.path()),
        ..Options::default()
    })
    .await;
    let client = app.client.with_key(&admin.key);
    let random = |seed| AdapterDirectory::random(&app.base, seed);
    for (name, files) in [
        ("one", random(0)),
        ("two", random(1)),
        ("moods", with_profile(&app)),
    ] {
        client.upload(name, &files).await.expect(201);
    }
    for model in ["tiny", "one", "moods"] {
        client.greedy(model, "The weather").await;
        let body = json!({"model": model, "prompt": "The weather", "max_tokens": 4});
        client.stream_completions(&body).await;
    }
    let body = json!({"model": "moods", "inputs": ["Great sound."]});
    client.classify(&body).await.expect(200);
    client.replace("one", &random(8)).await.expect(200);
    client.unload("two").await.expect(204);
    client.load_path("absent", "absent").await.expect(404);
    let body = json!({"kind": "in_domain", "adapters": ["base", "moods"], "tasks": ["sentiment"], "shots": [0], "limit": 1});
    client.evaluate_to_the_end(&body).await;
    let limited = app.client.with_key(&once.key);
    let body = json!({"prompt": "The weather", "max_tokens": 1});
    for status in [200, 429] {
        limited.completions(&body).await.expect(status);
    }
    keys.write("not a file of keys");
    app.reload().await;
    client.metrics().await
}

#[tokio::test]
async fn every_metric_is_documented_with_its_type_and_labels_and_nothing_else_is() {
    let served = served(&metrics_after_everything().await);
    let documented = documented(&repository("docs/METRICS.md"));
    for (name, metric) in &served {
        assert_eq!(documented.get(name), Some(metric), "{name}");
    }
    let gone: Vec<&String> = (documented.keys())
        .filter(|name| !served.contains_key(*name))
        .collect();
    assert!(gone.is_empty(), "documented, but not served: {gone:?}");
}

#[tokio::test]
async fn the_dashboard_and_the_alerts_ask_for_metrics_that_exist() {
    let served = served(&metrics_after_everything().await);
    let rules = repository("deploy/prometheus/alerts.yml");
    let recorded = recorded(&rules);
    for path in [
        "deploy/prometheus/alerts.yml",
        "deploy/prometheus/alerts_test.yml",
        "deploy/grafana/quickchange.json",
    ] {
        let text = repository(path);
        let names = named(&text);
        assert!(names.len() > 10, "{path} asks for next to nothing");
        for name in names {
            let is_part = |part: &&str| {
                let family = name.strip_suffix(*part).and_then(|name| served.get(name));
                family.is_some_and(|metric| metric.kind == "histogram")
            };
            // The name of a histogram alone is the name of no series.
            let exists = served.get(name).is_some_and(|is| is.kind != "histogram")
                || ["_bucket", "_sum", "_count"].iter().any(is_part)
                || recorded.contains(name);
            assert!(exists, "{path} asks for {name}, which is not served");
        }
    }
}

#[test]
fn names_types_and_labels_are_found_where_they_stand() {
    let text = "# HELP a_seconds Time.\n# TYPE a_seconds histogram\na_seconds_bucket{route=\"/{x}\",le=\"1\"} 0\na_seconds_sum{route=\"/{x}\"} 0\n# TYPE b_count counter\nb_count 3\n";
    let page = "| metric | type | labels |\n|---|---|---|\n| `a_seconds` | histogram | route | x |\n| `b_count` | counter | – | x |\n";
    let labels = BTreeSet::from(["route".to_owned()]);
    let expected = [
        ("a_seconds", "histogram", labels),
        ("b_count", "counter", BTreeSet::new()),
    ];
    let expected: Metrics = expected
        .into_iter()
        .map(|(name, kind, labels)| {
            let kind = kind.to_owned();
            (name.to_owned(), Metric { kind, labels })
        })
        .collect();
    assert_eq!(served(text), expected);
    assert_eq!(documented(page), expected);
    let rules = "- record: job:quickchange_x:rate1m\n  expr: sum(rate(quickchange_x_total{a=\"quickchange\"}[1m])) / vllm:y";
    let names = BTreeSet::from(["job:quickchange_x:rate1m", "quickchange_x_total", "vllm:y"]);
    assert_eq!(named(rules), names);
    assert_eq!(recorded(rules), ["job:quickchange_x:rate1m"].into());
}
