//! Shots curves: for each data set that was measured with several numbers of demonstrations, the value by that number, of every model. Drawn here
//! rather than by a crate for charts, so that colours follow the page's and texts its font.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::figures::metric;
use super::labels::{Labels, ModelLabel};
use crate::cell_report::CellReport;
use crate::report::models::Model;

/// Left and right end of the plotted area, in units of the picture.
const ACROSS: (f64, f64) = (34.0, 308.0);
/// Bottom and top of the plotted area.
const UP: (f64, f64) = (158.0, 10.0);
/// Distance of two models' points at the same number of demonstrations.
const ASIDE: f64 = 3.5;
/// With more models than this, those that a data set's task is foreign to step back.
const CROWD: usize = 5;

/// The charts.
#[derive(Debug, Serialize)]
pub(super) struct Curves {
    legend: Vec<ModelLabel>,
    crowded: bool,
    charts: Vec<Chart>,
}

/// The chart of one data set.
#[derive(Debug, Serialize)]
struct Chart {
    task: String,
    dataset: String,
    /// Said where prompts differ.
    prompt: Option<usize>,
    metric: &'static str,
    /// In words, for those who do not see it.
    description: String,
    across: Vec<Tick>,
    up: Vec<Tick>,
    lines: Vec<Line>,
}

/// A place on an axis.
#[derive(Debug, Serialize)]
struct Tick {
    place: f64,
    label: String,
}

/// One model's values.
#[derive(Debug, Serialize)]
struct Line {
    label: ModelLabel,
    faint: bool,
    path: String,
    points: Vec<Point>,
}

/// One cell.
#[derive(Debug, Serialize)]
struct Point {
    x: f64,
    y: f64,
    /// Ends of the interval; none for the base where only its value is known.
    interval: Option<[f64; 2]>,
    title: String,
}

/// A value at a number of demonstrations.
type Values = BTreeMap<usize, (f64, Option<[f64; 2]>)>;

/// What a chart shows: task, data set, prompt, metric.
type Subject<'a> = (&'a str, &'a str, usize, &'static str);

/// The charts of all data sets that have more than one number of demonstrations.
pub(super) fn curves(models: &[Model], labels: &Labels) -> Curves {
    let cells = || models.iter().flat_map(|model| model.cells.iter().copied());
    let mut subjects: Vec<Subject> = Vec::new();
    for cell in cells() {
        let subject = subject(cell);
        let varies =
            cells().any(|other| self::subject(other) == subject && other.shots != cell.shots);
        if varies && !subjects.contains(&subject) {
            subjects.push(subject);
        }
    }
    let tasks: Vec<&str> = subjects.iter().map(|subject| subject.0).collect();
    subjects.sort_by_key(|subject| tasks.iter().position(|&task| task == subject.0));
    let mut legend: Vec<ModelLabel> = labels
        .models
        .iter()
        .filter(|label| !label.is_base)
        .cloned()
        .collect();
    let crowded = legend.len() > CROWD;
    legend.push(base());
    Curves {
        legend,
        crowded,
        charts: (subjects.into_iter())
            .map(|subject| chart(models, labels, subject))
            .collect(),
    }
}

fn subject(cell: &CellReport) -> Subject<'_> {
    (&cell.task, &cell.dataset, cell.prompt, metric(cell))
}

fn base() -> ModelLabel {
    ModelLabel {
        name: "base".to_owned(),
        version: String::new(),
        digest: String::new(),
        trained_task: String::new(),
        is_base: true,
        colour: "base".to_owned(),
        dashed: true,
    }
}

fn chart(models: &[Model], labels: &Labels, subject: Subject) -> Chart {
    let (task, dataset, prompt, metric) = subject;
    let shown = shown(models, labels, subject);
    let axes = Axes::new(models, subject, &shown);
    let lines = lines(&axes, shown, task);
    Chart {
        task: task.to_owned(),
        dataset: dataset.to_owned(),
        prompt: labels.prompts.then_some(prompt),
        metric,
        description: description(dataset, metric, &lines),
        across: axes.across(),
        up: axes.up(),
        lines,
    }
}

/// The base and every adapter that was measured.
fn shown(models: &[Model], labels: &Labels, subject: Subject) -> Vec<(ModelLabel, Values)> {
    let cells = |model: &'_ &Model| {
        let cells = model.cells.iter().copied();
        let cells: Vec<_> = cells
            .filter(|cell| self::subject(cell) == subject)
            .map(|cell| (cell.shots, cell.value, cell.ci95, cell.baseline))
            .collect();
        cells
    };
    let own = |model: &&Model| -> Values {
        let values = cells(model).into_iter();
        values
            .map(|(shots, value, interval, _)| (shots, (value, Some(interval))))
            .collect()
    };
    // The base's own cells have intervals, what others are compared with has none.
    let mut of_base = Values::new();
    for (shots, _, _, baseline) in models.iter().flat_map(|model| cells(&model)) {
        of_base.insert(shots, (baseline, None));
    }
    let (adapters, bases): (Vec<_>, Vec<_>) =
        (models.iter().zip(&labels.models)).partition(|(model, _)| model.version.is_some());
    of_base.extend(bases.iter().flat_map(|(model, _)| own(model)));
    let adapters = adapters
        .iter()
        .map(|(model, label)| ((*label).clone(), own(model)))
        .filter(|(_, values)| !values.is_empty());
    std::iter::once((base(), of_base)).chain(adapters).collect()
}

/// The lines of a chart, those that step back first, so that they lie below.
fn lines(axes: &Axes, mut shown: Vec<(ModelLabel, Values)>, task: &str) -> Vec<Line> {
    let crowded = shown.len() > CROWD + 1;
    let faint = |label: &ModelLabel| crowded && !label.is_base && label.trained_task != task;
    shown.sort_by_key(|(label, _)| !faint(label));
    let behind = shown.iter().filter(|(label, _)| faint(label)).count();
    let middle = (shown.len() - behind) as f64 / 2.0 - 0.5;
    let line = |(place, (label, values)): (usize, (ModelLabel, Values))| match faint(&label) {
        true => axes.line(label, &values, true, 0.0),
        false => {
            let aside = (place - behind) as f64 - middle;
            axes.line(label, &values, false, ASIDE * aside)
        }
    };
    shown.into_iter().enumerate().map(line).collect()
}

fn description(dataset: &str, metric: &str, lines: &[Line]) -> String {
    let lines = lines.iter().map(|line| {
        let points: Vec<&str> = line
            .points
            .iter()
            .map(|point| point.title.as_str())
            .collect();
        points.join("; ")
    });
    format!(
        "{metric} on {dataset} by number of demonstrations. {}",
        lines.collect::<Vec<_>>().join(". ")
    )
}

/// The scales of a chart.
struct Axes {
    shots: Vec<usize>,
    highest: f64,
}

impl Axes {
    /// Of the values of a chart. Charts of the same task have the same scale, so that they can be compared.
    fn new(
        models: &[Model],
        (task, _, _, metric): Subject,
        shown: &[(ModelLabel, Values)],
    ) -> Self {
        let shots: BTreeSet<usize> = (shown.iter())
            .flat_map(|(_, values)| values.keys().copied())
            .collect();
        let all = models.iter().flat_map(|model| &model.cells);
        let highest = all
            .filter(|cell| cell.task == task && self::metric(cell) == metric)
            .flat_map(|cell| [cell.value, cell.ci95[1], cell.baseline])
            .fold(0.0, f64::max);
        let ends = [0.1, 0.2, 0.4, 0.6, 0.8];
        Self {
            shots: shots.into_iter().collect(),
            highest: ends.into_iter().find(|&end| highest <= end).unwrap_or(1.0),
        }
    }

    fn x(&self, shots: usize) -> f64 {
        let least = self.shots.first().copied().unwrap_or(0);
        let most = self.shots.last().copied().unwrap_or(0);
        let share = (shots - least) as f64 / (most - least).max(1) as f64;
        // Room for the points that stand aside.
        let (left, right) = (ACROSS.0 + 16.0, ACROSS.1 - 16.0);
        left + share * (right - left)
    }

    fn y(&self, value: f64) -> f64 {
        UP.0 + (value / self.highest).clamp(0.0, 1.0) * (UP.1 - UP.0)
    }

    fn across(&self) -> Vec<Tick> {
        let tick = |&shots: &usize| Tick {
            place: tenths(self.x(shots)),
            label: shots.to_string(),
        };
        self.shots.iter().map(tick).collect()
    }

    fn up(&self) -> Vec<Tick> {
        let tick = |quarter: u32| {
            let value = self.highest * f64::from(quarter) / 4.0;
            Tick {
                place: tenths(self.y(value)),
                label: format!("{value:.2}"),
            }
        };
        (0..=4).map(tick).collect()
    }

    fn line(&self, label: ModelLabel, values: &Values, faint: bool, aside: f64) -> Line {
        let points = values.iter().map(|(&shots, &(value, interval))| Point {
            x: tenths(self.x(shots) + aside),
            y: tenths(self.y(value)),
            interval: interval.map(|ends| ends.map(|end| tenths(self.y(end)))),
            title: title(&label.name, shots, value, interval),
        });
        let points: Vec<Point> = points.collect();
        let path: Vec<String> = points
            .iter()
            .map(|point| format!("{},{}", point.x, point.y))
            .collect();
        Line {
            label,
            faint,
            path: path.join(" "),
            points,
        }
    }
}

fn title(name: &str, shots: usize, value: f64, interval: Option<[f64; 2]>) -> String {
    let interval = interval.map_or_else(String::new, |[low, high]| {
        format!(" ({low:.3} to {high:.3})")
    });
    format!("{name}, {shots}: {value:.3}{interval}")
}

/// A place in a picture, as precise as anyone can see.
fn tenths(place: f64) -> f64 {
    (10.0 * place).round() / 10.0
}
