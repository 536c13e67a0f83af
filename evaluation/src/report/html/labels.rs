//! How models and settings are told apart on the page.

use serde::Serialize;

use crate::cell_report::CellReport;
use crate::report::models::Model;

/// Colours there are; with more models than that, lines of the next round are dashed.
const COLOURS: usize = 8;

/// A model as it is shown.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ModelLabel {
    pub(super) name: String,
    /// First digits of the version; empty for the base.
    pub(super) version: String,
    /// The whole version.
    pub(super) digest: String,
    /// The task it was trained for, or empty.
    pub(super) trained_task: String,
    pub(super) is_base: bool,
    /// Its colour, `base` or a number below [`COLOURS`].
    pub(super) colour: String,
    pub(super) dashed: bool,
}

/// The labels of a page's models, in their order, and what has to be said of settings.
pub(super) struct Labels {
    pub(super) models: Vec<ModelLabel>,
    /// Whether cells differ in their prompt.
    pub(super) prompts: bool,
    /// Whether cells differ in their number of demonstrations.
    pub(super) shots: bool,
}

impl Labels {
    pub(super) fn new(models: &[Model]) -> Self {
        let mut adapters = 0;
        let label = |model: &Model| {
            let is_base = model.version.is_none();
            let place = adapters;
            adapters += usize::from(!is_base);
            ModelLabel {
                name: model.name.to_owned(),
                version: model.short_version().to_owned(),
                digest: model.version.unwrap_or_default().to_owned(),
                trained_task: model.trained_task.unwrap_or_default().to_owned(),
                is_base,
                colour: match is_base {
                    true => "base".to_owned(),
                    false => (place % COLOURS).to_string(),
                },
                dashed: is_base || place >= COLOURS,
            }
        };
        let cells = || models.iter().flat_map(|model| &model.cells);
        Self {
            models: models.iter().map(label).collect(),
            prompts: cells().any(|cell| cell.prompt != 0),
            shots: differ(cells().map(|cell| cell.shots)),
        }
    }

    /// What tells a cell from the others of its model on its data set: `2`, or `2·p1` where prompts differ; empty where nothing has to be told.
    pub(super) fn setting(&self, cell: &CellReport) -> String {
        match (self.shots, self.prompts) {
            (false, false) => String::new(),
            (true, false) => cell.shots.to_string(),
            (_, true) => format!("{}·p{}", cell.shots, cell.prompt),
        }
    }
}

fn differ(mut numbers: impl Iterator<Item = usize>) -> bool {
    let first = numbers.next();
    numbers.any(|number| Some(number) != first)
}
