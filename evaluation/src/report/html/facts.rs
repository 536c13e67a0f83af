//! What was evaluated and how.

use serde::Serialize;

use crate::labels::LabelScoring;
use crate::record::{Evaluation, Stages, Status};
use crate::report::models::first;
use crate::report::words::plural;

/// The head of the page.
#[derive(Debug, Serialize)]
pub(super) struct Facts {
    id: String,
    title: &'static str,
    explained: &'static str,
    status: &'static str,
    error: Option<String>,
    /// Said of an evaluation that is not completed.
    standing: Option<&'static str>,
    cells_done: usize,
    cells_total: usize,
    items: Vec<Item>,
    datasets: Vec<Dataset>,
}

/// A fact with its name.
#[derive(Debug, Serialize)]
struct Item {
    name: &'static str,
    value: String,
}

/// The content that was measured on.
#[derive(Debug, Serialize)]
struct Dataset {
    name: String,
    short: String,
    digest: String,
}

/// All that is told of an evaluation before its figures.
pub(super) fn facts(evaluation: &Evaluation) -> Facts {
    let (title, explained) = kind(&evaluation.kind);
    Facts {
        id: evaluation.id.clone(),
        title,
        explained,
        status: evaluation.status.name(),
        error: evaluation.error.clone(),
        standing: standing(evaluation.status),
        cells_done: evaluation.progress.cells_done,
        cells_total: evaluation.progress.cells_total,
        items: items(evaluation),
        datasets: (evaluation.datasets.iter())
            .map(|(name, digest)| Dataset {
                name: name.clone(),
                short: first(digest, 12).to_owned(),
                digest: digest.clone(),
            })
            .collect(),
    }
}

fn standing(status: Status) -> Option<&'static str> {
    match status {
        Status::Queued => Some("It waits for its turn"),
        Status::Running => Some("It is running"),
        Status::Paused => Some("It is paused"),
        Status::Completed => None,
        Status::Cancelled => Some("It was cancelled"),
        Status::Failed => Some("It did not end"),
    }
}

fn kind(kind: &str) -> (&'static str, &'static str) {
    match kind {
        "in_domain" => (
            "In-domain evaluation",
            "on the data that each adapter was trained for",
        ),
        "out_of_domain" => (
            "Out-of-domain evaluation",
            "the task of each adapter, on data from elsewhere",
        ),
        "cross_task" => (
            "Cross-task evaluation",
            "on tasks that the adapters were not trained for",
        ),
        "matrix" => (
            "Evaluation matrix",
            "every adapter, in its domain, out of it and across tasks",
        ),
        _ => ("Evaluation", "adapters beside their base model"),
    }
}

fn items(evaluation: &Evaluation) -> Vec<Item> {
    let progress = &evaluation.progress;
    let limit = match evaluation.limit {
        Some(limit) => format!("at most {limit} of each data set"),
        None => "all of each data set".to_owned(),
    };
    let labels = match evaluation.scoring.labels {
        LabelScoring::Sum => "by the log-probability of all their tokens",
        LabelScoring::FirstToken => "by the log-probability of their first token",
    };
    let calibration = match evaluation.scoring.calibrate {
        true => "contextual: what each label gets for the input N/A is divided out",
        false => "none",
    };
    let against = (evaluation.against.as_ref()).map_or_else(
        || "the base".to_owned(),
        |other| format!("the base, and {other}"),
    );
    let mut items = vec![
        ("Models", evaluation.adapters.join(", ")),
        ("Compared with", against),
        (
            "Examples",
            format!("{limit}; {} answered", progress.examples_done),
        ),
        ("Seed of intervals", evaluation.seed.to_string()),
        ("Labels are chosen", labels.to_owned()),
        ("Calibration", calibration.to_owned()),
        ("Asked for", time(evaluation.created)),
    ];
    items.extend(evaluation.started.map(|started| ("Began", time(started))));
    items.extend(
        evaluation
            .finished
            .map(|finished| ("Ended", time(finished))),
    );
    if let (Some(started), Some(finished)) = (evaluation.started, evaluation.finished) {
        items.push(("Took", duration(finished.saturating_sub(started) as f64)));
    }
    let stages = stages(&evaluation.stages);
    items.extend((!stages.is_empty()).then_some(("Time by stage", stages)));
    let item = |(name, value)| Item { name, value };
    items.into_iter().map(item).collect()
}

/// Seconds since 1970 as people write them.
fn time(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok();
    let time = time.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(
        || seconds.to_string(),
        |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    )
}

fn duration(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let minutes = (seconds / 60.0).floor() as u64;
    if minutes < 60 {
        return format!("{minutes} min {:.0} s", (seconds % 60.0).floor());
    }
    format!(
        "{} hour{} {} min",
        minutes / 60,
        plural(minutes as usize / 60),
        minutes % 60
    )
}

fn stages(stages: &Stages) -> String {
    let stages = [
        ("classification", stages.classification_seconds),
        ("generation", stages.generation_seconds),
        ("of them preparing", stages.preparing_seconds),
        ("scoring", stages.scoring_seconds),
        ("saving", stages.saving_seconds),
    ];
    let spent = stages.iter().filter(|(_, seconds)| *seconds > 0.0);
    let spent = spent.map(|(name, seconds)| format!("{name} {}", duration(*seconds)));
    spent.collect::<Vec<_>>().join(", ")
}
