//! The cells of a record by the model they measure, and what can be read from a cell beside its figures.

use crate::cell_report::CellReport;

/// The cells of one version of one model.
pub(super) struct Model<'a> {
    pub(super) name: &'a str,
    /// `None` for the base.
    pub(super) version: Option<&'a str>,
    pub(super) trained_task: Option<&'a str>,
    pub(super) cells: Vec<&'a CellReport>,
}

impl Model<'_> {
    /// The first digits of the version; empty for the base.
    pub(super) fn short_version(&self) -> &str {
        self.version.map_or("", |version| first(version, 8))
    }
}

/// The models of some cells, in their order.
pub(super) fn models(cells: &[CellReport]) -> Vec<Model<'_>> {
    let mut models: Vec<Model> = Vec::new();
    for cell in cells {
        let version = cell.version.as_deref();
        let known = models
            .iter_mut()
            .find(|model| model.name == cell.adapter && model.version == version);
        match known {
            Some(model) => model.cells.push(cell),
            None => models.push(Model {
                name: &cell.adapter,
                version,
                trained_task: cell.trained_task.as_deref(),
                cells: vec![cell],
            }),
        }
    }
    models
}

/// The name of what some cells are compared with beside the base, empty where there is nothing.
pub(super) fn other<'a>(cells: &[&'a CellReport]) -> &'a str {
    let mut others = cells.iter().filter_map(|cell| cell.against.as_ref());
    others.next().map_or("", |other| &other.adapter)
}

/// The first characters of a text.
pub(super) fn first(text: &str, characters: usize) -> &str {
    text.char_indices()
        .nth(characters)
        .map_or(text, |(end, _)| &text[..end])
}

/// Rows of the confusion matrix are true labels, columns the chosen ones; `None` for generation.
pub(super) fn confusion(cell: &CellReport) -> Option<Vec<Vec<u64>>> {
    serde_json::from_value(cell.extra.get("confusion")?.clone()).ok()
}

/// The labels of the confusion matrix.
pub(super) fn labels(cell: &CellReport) -> Vec<String> {
    let labels = cell.extra.get("labels").cloned().unwrap_or_default();
    serde_json::from_value(labels).unwrap_or_default()
}

/// Whether every example was given the same label, which makes the accuracy that label's share of the examples.
pub(super) fn gives_one_label(cell: &CellReport) -> bool {
    let Some(confusion) = confusion(cell) else {
        return false;
    };
    let columns = confusion.iter().map(Vec::len).max().unwrap_or(0);
    let chosen = |column: &usize| {
        confusion
            .iter()
            .any(|row| row.get(*column).is_some_and(|&count| count > 0))
    };
    (0..columns).filter(chosen).count() == 1
}

/// The share of outputs that are nothing but a label of another task; `None` for classification.
pub(super) fn collapse(cell: &CellReport) -> Option<f64> {
    number(cell, "collapse")
        // Records of earlier versions hold the count only.
        .or_else(|| Some(number(cell, "bare_labels")? / cell.n.max(1) as f64))
}

/// A number of `extra`.
pub(super) fn number(cell: &CellReport, name: &str) -> Option<f64> {
    cell.extra.get(name)?.as_f64()
}
