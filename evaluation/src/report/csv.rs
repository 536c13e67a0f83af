//! The report for spreadsheets: one row per cell, with every digit.

use crate::cell_report::CellReport;
use crate::record::Evaluation;

use super::difference::Reference;

/// The columns. New ones come at the end, so that what reads by place goes on working.
const COLUMNS: [&str; 25] = [
    "adapter",
    "version",
    "trained_task",
    "task",
    "dataset",
    "domain",
    "shots",
    "prompt",
    "n",
    "metric",
    "value",
    "ci95_low",
    "ci95_high",
    "baseline",
    "delta",
    "delta_ci95_low",
    "delta_ci95_high",
    "verdict",
    "against",
    "against_version",
    "against_value",
    "against_delta",
    "against_delta_ci95_low",
    "against_delta_ci95_high",
    "against_verdict",
];

/// The report as CSV (RFC 4180, lines end in a line feed). What a cell lacks is empty.
pub fn csv(evaluation: &Evaluation) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let written = std::iter::once(COLUMNS.map(ToOwned::to_owned))
        .chain(evaluation.cells.iter().map(row))
        .try_for_each(|row| writer.write_record(row));
    written.expect("every row has every column, and memory can be written to");
    let bytes = writer.into_inner().expect("memory can be written to");
    String::from_utf8(bytes).expect("texts joined by commas are text")
}

fn row(cell: &CellReport) -> [String; COLUMNS.len()] {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let number = |number: Option<f64>| number.map_or_else(String::new, |n| n.to_string());
    let difference = Reference::Base.difference(cell);
    let interval = cell.delta_ci95();
    let against = cell.against.as_ref();
    [
        cell.adapter.clone(),
        text(&cell.version),
        text(&cell.trained_task),
        cell.task.clone(),
        cell.dataset.clone(),
        cell.domain.clone(),
        cell.shots.to_string(),
        cell.prompt.to_string(),
        cell.n.to_string(),
        cell.metric.clone(),
        cell.value.to_string(),
        cell.ci95[0].to_string(),
        cell.ci95[1].to_string(),
        cell.baseline.to_string(),
        cell.delta.to_string(),
        number(interval.map(|interval| interval[0])),
        number(interval.map(|interval| interval[1])),
        difference.map_or_else(String::new, |found| found.verdict.word().to_owned()),
        against.map_or_else(String::new, |other| other.adapter.clone()),
        against.map_or_else(String::new, |other| text(&other.version)),
        number(against.map(|other| other.value)),
        number(against.map(|other| other.delta)),
        number(against.map(|other| other.delta_ci95[0])),
        number(against.map(|other| other.delta_ci95[1])),
        against.map_or_else(String::new, |other| other.verdict.word().to_owned()),
    ]
}
