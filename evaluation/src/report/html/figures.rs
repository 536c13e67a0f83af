//! The tables with every figure, each difference drawn beside its interval.

use serde::Serialize;

use super::labels::{Labels, ModelLabel};
use super::typographic;
use crate::cell_report::CellReport;
use crate::report::difference::{Difference, Reference, interval, signed, signed_interval};
use crate::report::models::{Model, gives_one_label, number};

/// Width of the drawing of an interval, in units of the picture.
const WIDTH: f64 = 120.0;
/// So many rows are shown unfolded.
const UNFOLDED: usize = 60;

/// The tables.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    unfolded: bool,
    prompts: bool,
    /// Whether some prompts were cut.
    truncated: bool,
    /// What is compared with beside the base, or empty.
    against: String,
    /// The end of the scale of the drawings.
    scale: String,
    tables: Vec<Table>,
}

/// The figures of one model.
#[derive(Debug, Serialize)]
struct Table {
    label: ModelLabel,
    rows: Vec<Row>,
}

/// A cell.
#[derive(Debug, Serialize)]
struct Row {
    task: String,
    dataset: String,
    domain: String,
    shots: usize,
    prompt: usize,
    n: usize,
    metric: &'static str,
    value: String,
    interval: String,
    baseline: String,
    truncated: u64,
    /// Whether every example got the same label.
    one_label: bool,
    difference: Option<Drawn>,
    against: Option<Drawn>,
}

/// A difference in numbers, in words, and as a point on a line.
#[derive(Debug, Serialize)]
struct Drawn {
    delta: String,
    interval: String,
    verdict: &'static str,
    /// Places in the picture of the lower end, the point and the upper end.
    low: f64,
    point: f64,
    high: f64,
}

/// The tables of all models.
pub(super) fn figures(models: &[Model], labels: &Labels) -> Figures {
    let cells = || models.iter().flat_map(|model| model.cells.iter().copied());
    let against = cells().find_map(|cell| cell.against.as_ref());
    let scale = scale(cells());
    let tables = models
        .iter()
        .zip(&labels.models)
        .map(|(model, label)| Table {
            label: label.clone(),
            rows: model.cells.iter().map(|cell| row(cell, scale)).collect(),
        });
    Figures {
        unfolded: cells().count() <= UNFOLDED,
        prompts: labels.prompts,
        truncated: cells().any(|cell| truncated(cell) > 0),
        against: against.map_or_else(String::new, |other| other.adapter.clone()),
        scale: format!("{scale}"),
        tables: tables.collect(),
    }
}

/// The end of a scale that holds every interval, the same for all.
fn scale<'a>(cells: impl Iterator<Item = &'a CellReport>) -> f64 {
    let bounds = cells.flat_map(|cell| {
        let differences =
            [Reference::Base, Reference::Other].map(|reference| reference.difference(cell));
        let ends = |found: Difference| found.interval.unwrap_or([found.delta; 2]);
        differences.into_iter().flatten().flat_map(ends)
    });
    let most = bounds.fold(0.0, |most: f64, bound| most.max(bound.abs()));
    [0.1, 0.25, 0.5]
        .into_iter()
        .find(|&end| most <= end)
        .unwrap_or(1.0)
}

fn row(cell: &CellReport, scale: f64) -> Row {
    let drawn = |reference: Reference| {
        let difference = reference.difference(cell)?;
        Some(draw(&difference, scale))
    };
    // The base beside itself is no difference.
    let is_base = cell.version.is_none();
    Row {
        task: cell.task.clone(),
        dataset: cell.dataset.clone(),
        domain: cell.domain.clone(),
        shots: cell.shots,
        prompt: cell.prompt,
        n: cell.n,
        metric: metric(cell),
        value: format!("{:.3}", cell.value),
        interval: interval(cell.ci95),
        baseline: format!("{:.3}", cell.baseline),
        truncated: truncated(cell),
        one_label: gives_one_label(cell),
        difference: drawn(Reference::Base).filter(|_| !is_base),
        against: drawn(Reference::Other),
    }
}

fn draw(difference: &Difference, scale: f64) -> Drawn {
    let place = |number: f64| {
        let share = (number / scale).clamp(-1.0, 1.0);
        (10.0 * WIDTH / 2.0 * (1.0 + 0.96 * share)).round() / 10.0
    };
    let [low, high] = difference.interval.unwrap_or([difference.delta; 2]);
    let interval = difference
        .interval
        .map_or_else(String::new, signed_interval);
    Drawn {
        delta: typographic(&signed(difference.delta)),
        interval: typographic(&interval),
        verdict: difference.verdict.word(),
        low: place(low),
        point: place(difference.delta),
        high: place(high),
    }
}

/// The metric's name for readers.
pub(super) fn metric(cell: &CellReport) -> &'static str {
    match cell.metric.as_str() {
        "accuracy" => "accuracy",
        "rouge_l" => "ROUGE-L",
        _ => "value",
    }
}

fn truncated(cell: &CellReport) -> u64 {
    number(cell, "truncated").unwrap_or(0.0) as u64
}
