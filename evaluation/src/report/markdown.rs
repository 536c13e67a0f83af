//! The report as Markdown: what was evaluated, what it says in words, then one row per cell.

use std::fmt::Write as _;

use crate::cell_report::CellReport;
use crate::record::Evaluation;

use super::difference::{Reference, interval, signed, signed_interval};
use super::models::{Model, first, models, other};
use super::table::Table;
use super::words::{by_domain, of_bare_labels, of_one_label};

/// The columns, of which those of another model come only where there is one.
const COLUMNS: [&str; 16] = [
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
    "95 % interval",
    "baseline",
    "delta",
    "delta 95 % interval",
    "verdict",
];

/// Columns of the comparison with another model.
pub(super) const AGAINST: [&str; 5] = [
    "against",
    "its value",
    "delta against it",
    "95 % interval",
    "verdict against it",
];

/// The report as Markdown.
pub fn markdown(evaluation: &Evaluation) -> String {
    let mut text = format!(
        "# Evaluation {}\n\n{} of {}: {}, {} of {} cells.\n",
        evaluation.id,
        evaluation.kind,
        evaluation.adapters.join(", "),
        evaluation.status.name(),
        evaluation.progress.cells_done,
        evaluation.progress.cells_total,
    );
    if let Some(error) = &evaluation.error {
        let _ = write!(text, "\nIt failed: {error}\n");
    }
    for model in models(&evaluation.cells) {
        text.push_str(&in_words(&model));
    }
    let compared = evaluation.cells.iter().any(|cell| cell.against.is_some());
    let mut header: Vec<String> = COLUMNS.map(ToOwned::to_owned).to_vec();
    if compared {
        header.extend(AGAINST.map(ToOwned::to_owned));
    }
    let rows = evaluation.cells.iter().map(|cell| row(cell, compared));
    let table = Table {
        header,
        rows: rows.collect(),
    };
    let _ = write!(
        text,
        "\n{}\nBaseline: the base model in the same cell. Intervals: bootstrap, paired for delta. A verdict is one by its interval: above 0 it \
         gains, below 0 it loses, otherwise it keeps.\n",
        table.markdown()
    );
    text
}

/// What a model's cells say; nothing of the base, with which they are compared.
fn in_words(model: &Model) -> String {
    if model.version.is_none() {
        return String::new();
    }
    let mut text = format!("\n## {}@{}\n\n", model.name, model.short_version());
    let against = format!(" against {}", other(&model.cells));
    for (reference, than) in [(Reference::Base, ""), (Reference::Other, &against)] {
        for domain in by_domain(&model.cells, reference) {
            let _ = writeln!(text, "- {}{than}: {}.", domain.title, domain.text());
        }
    }
    let remarks = [of_one_label(&model.cells), of_bare_labels(&model.cells)];
    for remark in remarks.into_iter().flatten() {
        let _ = writeln!(text, "- {remark}");
    }
    text
}

fn row(cell: &CellReport, compared: bool) -> Vec<String> {
    let version = cell.version.as_deref().unwrap_or_default();
    let difference = Reference::Base.difference(cell);
    let mut fields = vec![
        cell.adapter.clone(),
        first(version, 12).to_owned(),
        cell.trained_task.clone().unwrap_or_default(),
        cell.task.clone(),
        cell.dataset.clone(),
        cell.domain.clone(),
        cell.shots.to_string(),
        cell.prompt.to_string(),
        cell.n.to_string(),
        cell.metric.clone(),
        format!("{:.3}", cell.value),
        interval(cell.ci95),
        format!("{:.3}", cell.baseline),
        signed(cell.delta),
        cell.delta_ci95().map_or_else(String::new, signed_interval),
        difference.map_or_else(String::new, |found| found.verdict.word().to_owned()),
    ];
    if compared {
        fields.extend(against(cell));
    }
    fields
}

/// The fields of the columns [`AGAINST`].
pub(super) fn against(cell: &CellReport) -> [String; 5] {
    let Some(other) = &cell.against else {
        return Default::default();
    };
    [
        other.adapter.clone(),
        format!("{:.3}", other.value),
        signed(other.delta),
        signed_interval(other.delta_ci95),
        other.verdict.word().to_owned(),
    ]
}
