//! The map of adapters by data sets: in each field one line per number of demonstrations, coloured by the difference.

use std::collections::BTreeSet;

use serde::Serialize;

use super::labels::{Labels, ModelLabel};
use super::summary::name_of;
use super::typographic;
use crate::cell_report::{CellReport, Verdict};
use crate::report::difference::{Difference, Reference, with_sign};
use crate::report::models::{Model, gives_one_label};
use crate::report::words::DOMAINS;

/// Differences from which on a colour is one step stronger. Fixed, so that two reports can be laid side by side.
const STEPS: [f64; 4] = [0.02, 0.05, 0.1, 0.2];

/// A map.
#[derive(Debug, Serialize)]
pub(super) struct HeatMap {
    /// The name of what is compared with, empty for the base.
    against: String,
    groups: Vec<Group>,
    columns: Vec<Column>,
    rows: Vec<Row>,
    /// Whether the fields say which setting a line is of.
    settings: bool,
    /// Whether some line is of a cell in which every example got the same label.
    one_label: bool,
    /// The colours from the greatest loss to the greatest gain, with what they stand for.
    legend: Vec<(String, String)>,
}

/// Columns side by side that belong together.
#[derive(Debug, Serialize)]
struct Group {
    task: String,
    /// Of the columns for every adapter; empty where adapters differ.
    domain: &'static str,
    span: usize,
}

/// A data set.
#[derive(Debug, Serialize)]
struct Column {
    dataset: String,
    /// Whether a group begins.
    first: bool,
}

/// An adapter.
#[derive(Debug, Serialize)]
struct Row {
    label: ModelLabel,
    fields: Vec<Field>,
}

/// An adapter on a data set.
#[derive(Debug, Serialize)]
struct Field {
    /// `in`, `out` or `cross`; empty where nothing was measured.
    domain: String,
    /// Whether a group begins.
    first: bool,
    lines: Vec<Line>,
}

/// A cell.
#[derive(Debug, Serialize)]
struct Line {
    setting: String,
    value: String,
    /// The colour.
    step: String,
    /// Whether the interval holds 0.
    unsure: bool,
    verdict: &'static str,
    title: String,
    /// Whether every example got the same label.
    one_label: bool,
}

/// The map of all adapters; `None` where nothing is compared.
pub(super) fn heat_map(models: &[Model], labels: &Labels, reference: Reference) -> Option<HeatMap> {
    let pairs = models.iter().zip(&labels.models);
    let adapters: Vec<(&Model, &ModelLabel)> = pairs
        .filter(|(model, _)| model.version.is_some())
        .filter(|(model, _)| (model.cells.iter()).any(|cell| reference.difference(cell).is_some()))
        .collect();
    let (first, _) = adapters.first()?;
    let places = places(
        adapters
            .iter()
            .flat_map(|(model, _)| model.cells.iter().copied()),
    );
    let row = |(model, label): &(&Model, &ModelLabel)| Row {
        label: (*label).clone(),
        fields: (places.iter())
            .map(|place| field(model, place, labels, reference))
            .collect(),
    };
    Some(HeatMap {
        against: name_of(first, reference),
        groups: groups(&places),
        columns: (places.iter())
            .map(|place| Column {
                dataset: place.dataset.to_owned(),
                first: place.first,
            })
            .collect(),
        rows: adapters.iter().map(row).collect(),
        settings: labels.shots || labels.prompts,
        one_label: (adapters.iter())
            .flat_map(|(model, _)| &model.cells)
            .any(|cell| gives_one_label(cell)),
        legend: legend(),
    })
}

/// A column of the map: a data set of a task.
struct Place<'a> {
    task: &'a str,
    dataset: &'a str,
    /// The domains that it has for the adapters, by their place in [`DOMAINS`].
    domains: BTreeSet<usize>,
    /// Whether a group begins.
    first: bool,
}

/// The data sets of some cells by task, and within a task by the nearest domain they have for any adapter. Where no data set of a task has
/// several, the domains are groups of their own.
fn places<'a>(cells: impl Iterator<Item = &'a CellReport>) -> Vec<Place<'a>> {
    let mut places: Vec<Place> = Vec::new();
    for cell in cells {
        let domain = DOMAINS.iter().position(|(id, _)| *id == cell.domain);
        let known = places
            .iter_mut()
            .find(|place| place.task == cell.task && place.dataset == cell.dataset);
        match known {
            Some(place) => place.domains.extend(domain),
            None => places.push(Place {
                task: &cell.task,
                dataset: &cell.dataset,
                domains: domain.into_iter().collect(),
                first: false,
            }),
        }
    }
    let tasks: Vec<&str> = places.iter().map(|place| place.task).collect();
    let task = |place: &Place| tasks.iter().position(|&task| task == place.task);
    places.sort_by_key(|place| (task(place), place.domains.first().copied()));
    let mixed: Vec<&str> = (places.iter())
        .filter(|place| place.domains.len() > 1)
        .map(|place| place.task)
        .collect();
    let mut before = None;
    for place in &mut places {
        if mixed.contains(&place.task) {
            place.domains.clear();
        }
        let group = (place.task, place.domains.first().copied());
        place.first = before != Some(group);
        before = Some(group);
    }
    places
}

fn groups(places: &[Place]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for place in places {
        match groups.last_mut() {
            Some(group) if !place.first => group.span += 1,
            _ => groups.push(Group {
                task: place.task.to_owned(),
                domain: (place.domains.first())
                    .and_then(|&domain| DOMAINS.get(domain))
                    .map_or("", |(_, title)| title),
                span: 1,
            }),
        }
    }
    groups
}

fn field(model: &Model, place: &Place, labels: &Labels, reference: Reference) -> Field {
    let mut cells: Vec<&CellReport> = (model.cells.iter().copied())
        .filter(|cell| cell.task == place.task && cell.dataset == place.dataset)
        .collect();
    cells.sort_by_key(|cell| (cell.shots, cell.prompt));
    let lines = cells.iter().filter_map(|cell| {
        let difference = reference.difference(cell)?;
        Some(line(cell, &difference, labels))
    });
    Field {
        domain: cells
            .first()
            .map_or_else(String::new, |cell| cell.domain.clone()),
        first: place.first,
        lines: lines.collect(),
    }
}

fn line(cell: &CellReport, difference: &Difference, labels: &Labels) -> Line {
    Line {
        setting: labels.setting(cell),
        value: typographic(&with_sign(difference.delta, 2)),
        step: step(difference.delta),
        unsure: difference.verdict == Verdict::Keeps,
        verdict: difference.verdict.word(),
        title: typographic(&difference.text()),
        one_label: gives_one_label(cell),
    }
}

/// The colour of a difference: `loses-4` to `gains-4`, with `none` between.
fn step(delta: f64) -> String {
    // As many digits as are shown to a reader, so that 0.0999… is no step below 0.1.
    let size = (1000.0 * delta.abs()).round() / 1000.0;
    match STEPS.iter().filter(|&&least| size >= least).count() {
        0 => "none".to_owned(),
        step if delta > 0.0 => format!("gains-{step}"),
        step => format!("loses-{step}"),
    }
}

fn legend() -> Vec<(String, String)> {
    let text = |sign: &str, index: usize| match STEPS.get(index + 1) {
        Some(next) => format!("{sign}{} to {sign}{next}", STEPS[index]),
        None => format!("beyond {sign}{}", STEPS[index]),
    };
    let steps = 0..STEPS.len();
    let losses = steps
        .clone()
        .rev()
        .map(|index| (step(-STEPS[index]), text("\u{2212}", index)));
    let gains = steps.map(|index| (step(STEPS[index]), text("+", index)));
    let none = (step(0.0), format!("within ±{}", STEPS[0]));
    losses.chain([none]).chain(gains).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_grow_with_the_difference() {
        let steps = [-0.5, -0.2, -0.07, -0.019, 0.0, 0.02, 0.0999999, 0.3].map(step);
        assert_eq!(
            steps,
            [
                "loses-4", "loses-4", "loses-2", "none", "none", "gains-1", "gains-3", "gains-4"
            ]
        );
        assert_eq!(legend().len(), 9);
    }
}
