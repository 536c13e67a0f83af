//! What lies behind the figures: other metrics and bare labels of generated texts, and which labels were chosen.

use serde::Serialize;

use super::labels::{Labels, ModelLabel};
use crate::cell_report::CellReport;
use crate::report::models::{
    Model, collapse, confusion, gives_one_label, labels as label_names, number,
};

/// The cells whose answers are texts.
#[derive(Debug, Serialize)]
pub(super) struct Texts {
    /// Those with bare labels, the most collapsed first.
    collapsed: Vec<Text>,
    all: Vec<Text>,
}

/// A cell whose answers are texts.
#[derive(Debug, Clone, Serialize)]
struct Text {
    label: ModelLabel,
    dataset: String,
    task: String,
    setting: String,
    n: usize,
    /// ROUGE-1, ROUGE-2, ROUGE-L, BLEU.
    scores: [String; 4],
    /// Percent of the texts that are a bare label.
    collapse: f64,
    collapsed: String,
}

/// The labels that one model chose.
#[derive(Debug, Serialize)]
pub(super) struct Choices {
    label: ModelLabel,
    matrices: Vec<Matrix>,
}

/// The labels chosen in one cell.
#[derive(Debug, Serialize)]
struct Matrix {
    dataset: String,
    task: String,
    setting: String,
    macro_f1: String,
    one_label: bool,
    labels: Vec<String>,
    rows: Vec<MatrixRow>,
}

/// The examples of one true label.
#[derive(Debug, Serialize)]
struct MatrixRow {
    label: String,
    fields: Vec<Count>,
}

/// How many of them were given one label.
#[derive(Debug, Serialize)]
struct Count {
    count: u64,
    /// Percent of the row.
    share: u64,
    right: bool,
}

/// The cells whose answers are texts.
pub(super) fn texts(models: &[Model], labels: &Labels) -> Texts {
    let mut all = Vec::new();
    for (model, label) in models.iter().zip(&labels.models) {
        for cell in &model.cells {
            if let Some(share) = collapse(cell) {
                all.push(text(cell, share, (label, labels)));
            }
        }
    }
    let mut collapsed: Vec<Text> = (all.iter())
        .filter(|text| text.collapse > 0.0)
        .cloned()
        .collect();
    collapsed.sort_by(|one, other| other.collapse.total_cmp(&one.collapse));
    Texts { collapsed, all }
}

fn text(cell: &CellReport, share: f64, (label, labels): (&ModelLabel, &Labels)) -> Text {
    let score = |name: &str| {
        number(cell, name).map_or_else(|| "\u{2013}".to_owned(), |score| format!("{score:.3}"))
    };
    Text {
        label: label.clone(),
        dataset: cell.dataset.clone(),
        task: cell.task.clone(),
        setting: match labels.prompts {
            true => labels.setting(cell),
            false => cell.shots.to_string(),
        },
        n: cell.n,
        scores: ["rouge_1", "rouge_2", "rouge_l", "bleu"].map(score),
        collapse: (1000.0 * share).round() / 10.0,
        collapsed: format!("{:.0} %", 100.0 * share),
    }
}

/// The confusion matrices, by model.
pub(super) fn choices(models: &[Model], labels: &Labels) -> Vec<Choices> {
    let pairs = models.iter().zip(&labels.models);
    let choices = pairs.map(|(model, label)| Choices {
        label: label.clone(),
        matrices: (model.cells.iter())
            .filter_map(|cell| matrix(cell, labels))
            .collect(),
    });
    choices
        .filter(|choices| !choices.matrices.is_empty())
        .collect()
}

fn matrix(cell: &CellReport, labels: &Labels) -> Option<Matrix> {
    let confusion = confusion(cell)?;
    let mut names = label_names(cell);
    // A record without names still has its counts.
    names.extend((names.len()..confusion.len()).map(|index| format!("label {index}")));
    let macro_f1 = number(cell, "macro_f1");
    let rows = confusion
        .iter()
        .enumerate()
        .map(|(index, counts)| MatrixRow {
            label: names[index].clone(),
            fields: row(index, counts),
        });
    Some(Matrix {
        dataset: cell.dataset.clone(),
        task: cell.task.clone(),
        setting: labels.setting(cell),
        macro_f1: macro_f1.map_or_else(|| "\u{2013}".to_owned(), |score| format!("{score:.3}")),
        one_label: gives_one_label(cell),
        rows: rows.collect(),
        labels: names,
    })
}

fn row(index: usize, counts: &[u64]) -> Vec<Count> {
    let whole: u64 = counts.iter().sum();
    let count = |(column, &count): (usize, &u64)| Count {
        count,
        share: 100 * count / whole.max(1),
        right: column == index,
    };
    counts.iter().enumerate().map(count).collect()
}
