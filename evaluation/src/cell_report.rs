//! What is reported of one cell.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tasks::{Cell, bootstrap_paired};
use utoipa::ToSchema;

use crate::measurement::Measurement;
use crate::plan::{ModelVersion, PlannedModel};

/// One measurement of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CellReport {
    /// The adapter's name, or `base`.
    pub adapter: String,
    /// Its version; null for the base model.
    pub version: Option<String>,
    /// The task it was trained for.
    pub trained_task: Option<String>,
    /// The task measured.
    pub task: String,
    /// The data set.
    pub dataset: String,
    /// `in`, `out` or `cross`.
    pub domain: String,
    /// Demonstrations in front of each example.
    pub shots: usize,
    /// The prompt's number.
    pub prompt: usize,
    /// Examples.
    pub n: usize,
    /// `accuracy` or `rouge_l`.
    pub metric: String,
    /// The measured value, 0 to 1.
    pub value: f64,
    /// 95 % bootstrap interval of `value`.
    pub ci95: [f64; 2],
    /// The base model's value in the same cell.
    pub baseline: f64,
    /// `value - baseline`.
    pub delta: f64,
    /// What `delta` says by its interval.
    #[serde(default)]
    pub verdict: Verdict,
    /// The same cell of the model that all are compared with.
    #[serde(default)]
    pub against: Option<CellComparison>,
    /// macro_f1 and confusion, or rouge_1, rouge_2, rouge_l, bleu, bare_labels and their share, collapse; always `delta_ci95`, the paired 95 % bootstrap
    /// interval of `delta`, and `truncated`, the examples whose prompt had to be cut at its beginning to fit.
    #[schema(value_type = Object)]
    pub extra: Value,
}

/// A cell beside the same cell of another model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CellComparison {
    /// The other adapter's name, or `base`.
    pub adapter: String,
    /// Its version; null for the base model.
    pub version: Option<String>,
    /// Its value.
    pub value: f64,
    /// The cell's value less that.
    pub delta: f64,
    /// Paired 95 % bootstrap interval of `delta`.
    pub delta_ci95: [f64; 2],
    /// What `delta` says by its interval.
    pub verdict: Verdict,
}

/// What a difference says, judged by its paired 95 % interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The interval lies above 0.
    Gains,
    /// The interval holds 0: there is no telling the two apart.
    #[default]
    Keeps,
    /// The interval lies below 0.
    Loses,
}

impl Verdict {
    /// Of the interval of a difference.
    pub fn of([low, high]: [f64; 2]) -> Self {
        if low > 0.0 {
            Self::Gains
        } else if high < 0.0 {
            Self::Loses
        } else {
            Self::Keeps
        }
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Gains => "gains",
            Self::Keeps => "keeps",
            Self::Loses => "loses",
        }
    }
}

impl CellReport {
    /// The report of a model's measurement beside the base's and, if there is one, that of the model compared with. The intervals depend
    /// on `seed`.
    pub(crate) fn new(
        model: &PlannedModel,
        cell: &Cell,
        (own, base, against): (
            &Measurement,
            &Measurement,
            Option<(&ModelVersion, &Measurement)>,
        ),
        seed: u64,
    ) -> Self {
        let (delta, delta_ci95) = difference(own, base, seed);
        Self {
            adapter: model.model.name.clone(),
            version: model.model.version.clone(),
            trained_task: model.trained_task.map(|task| task.id().to_owned()),
            task: cell.task.id().to_owned(),
            dataset: cell.dataset.clone(),
            domain: cell.domain.id().to_owned(),
            shots: cell.shots,
            prompt: cell.prompt,
            n: own.result.n,
            metric: own.result.metric.id().to_owned(),
            value: own.result.value,
            ci95: own.result.ci95.into(),
            baseline: base.result.value,
            delta,
            verdict: Verdict::of(delta_ci95),
            against: against.map(|(other, measured)| {
                let (delta, delta_ci95) = difference(own, measured, seed);
                CellComparison {
                    adapter: other.name.clone(),
                    version: other.version.clone(),
                    value: measured.result.value,
                    delta,
                    delta_ci95,
                    verdict: Verdict::of(delta_ci95),
                }
            }),
            extra: with_more(own, delta_ci95),
        }
    }

    /// Paired 95 % bootstrap interval of `delta`.
    pub fn delta_ci95(&self) -> Option<[f64; 2]> {
        serde_json::from_value(self.extra.get("delta_ci95")?.clone()).ok()
    }
}

/// The difference of two measurements of the same examples, and its interval.
fn difference(own: &Measurement, other: &Measurement, seed: u64) -> (f64, [f64; 2]) {
    let interval = bootstrap_paired(&own.result.per_example, &other.result.per_example, seed);
    (own.result.value - other.result.value, interval.into())
}

fn with_more(own: &Measurement, delta_ci95: [f64; 2]) -> Value {
    let mut extra = own.result.extra.clone();
    if let Some(fields) = extra.as_object_mut() {
        fields.insert("delta_ci95".to_owned(), json!(delta_ci95));
        fields.insert("truncated".to_owned(), json!(own.truncated));
    }
    extra
}
