//! Gates: what an evaluation must have found before a version becomes active.
//!
//! A gate compares a version with the base or with the active version on the examples that both answered, in all cells of one
//! kind and metric together, and holds the lower end of the paired 95 % bootstrap interval of the mean difference against
//! a limit. Whether a version then becomes active is for `loading` to say.

#[cfg(test)]
mod tests;

use adapters::Version;
use evaluation::{CellReport, Evaluation, Status};
use serde::{Deserialize, Serialize};
use tasks::{EvaluationKind, bootstrap_paired};
use utoipa::ToSchema;

/// A condition on an evaluation's figures.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct Gate {
    /// The evaluation that measured the version; a promotion runs one itself unless this is given.
    pub evaluation: Option<String>,
    /// Which cells count, by their metric.
    pub metric: GateMetric,
    /// Which cells count, by what their data set is to the adapter.
    pub kind: GateKind,
    /// The least that the lower end of the interval of the difference may be, -1 to 1; 0 unless given.
    #[serde(default)]
    pub min_delta: f64,
    /// What the version is compared with; the active version unless given.
    #[serde(default)]
    pub against: Against,
}

/// The metric of a gate's cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateMetric {
    /// Of classification.
    Accuracy,
    /// Of generation.
    RougeL,
}

/// The domain of a gate's cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateKind {
    /// The adapter's task and domain.
    InDomain,
    /// The adapter's task, other domains.
    OutOfDomain,
    /// Other tasks.
    CrossTask,
}

/// What a gate compares with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// The version that is active now.
    #[default]
    Active,
    /// The base model.
    Base,
}

/// What a gate found.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct GateReport {
    /// Whether the version may become active.
    pub passed: bool,
    /// The condition.
    pub gate: Gate,
    /// The version it is about.
    pub version: String,
    /// The version it was compared with; null for the base.
    pub against_version: Option<String>,
    /// Mean over the examples of `version`, 0 to 1.
    pub value: f64,
    /// Mean over the same examples of what it was compared with.
    pub reference: f64,
    /// `value - reference`.
    pub delta: f64,
    /// Paired 95 % bootstrap interval of `delta`.
    pub delta_ci95: [f64; 2],
    /// How many examples were compared.
    pub n: usize,
    /// The cells they are from, as measured.
    pub cells: Vec<CellReport>,
}

/// Why a gate's condition cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// The evaluation is still running, or did not come to its end.
    #[error("evaluation {id} is {}; a gate needs one that is completed", status.name())]
    NotCompleted {
        /// The evaluation.
        id: String,
        /// Where it stands.
        status: Status,
    },
    /// It did not measure the version, or nothing of that kind and metric.
    #[error(
        "evaluation {id} has no cell of kind {kind:?} with metric {metric:?} for version {version}"
    )]
    NotMeasured {
        /// The evaluation.
        id: String,
        /// The kind asked for.
        kind: GateKind,
        /// The metric asked for.
        metric: GateMetric,
        /// The version.
        version: Version,
    },
    /// It measured the version where it did not measure the active one.
    #[error(
        "evaluation {id} measured version {version} on {dataset} with {shots} demonstrations and not the active version {active}; evaluate both, as name@version, or compare with the base"
    )]
    NotCompared {
        /// The evaluation.
        id: String,
        /// The version.
        version: Version,
        /// The version that is active.
        active: Version,
        /// Where.
        dataset: String,
        /// How.
        shots: usize,
    },
    /// An evaluation from before the scores of single examples were kept.
    #[error("evaluation {id} kept no scores of its examples; run it again")]
    NoScores {
        /// The evaluation.
        id: String,
    },
}

/// Scores of the same examples.
#[derive(Default)]
struct Compared {
    own: Vec<f64>,
    reference: Vec<f64>,
    /// The cells they are from.
    cells: Vec<CellReport>,
}

impl Gate {
    /// Whether `version` may become active in the place of `active`, by what `evaluation` found.
    ///
    /// # Errors
    /// When the evaluation does not tell.
    pub fn judge(
        &self,
        evaluation: &Evaluation,
        version: &Version,
        active: &Version,
    ) -> Result<GateReport, GateError> {
        let id = || evaluation.id.clone();
        if evaluation.status != Status::Completed {
            let status = evaluation.status;
            return Err(GateError::NotCompleted { id: id(), status });
        }
        if evaluation.scores.len() != evaluation.cells.len() {
            return Err(GateError::NoScores { id: id() });
        }
        let Compared {
            own,
            reference,
            cells,
        } = self.compared(evaluation, version, active)?;
        if own.is_empty() {
            return Err(GateError::NotMeasured {
                id: id(),
                kind: self.kind,
                metric: self.metric,
                version: version.clone(),
            });
        }
        let interval = bootstrap_paired(&own, &reference, evaluation.seed);
        let (value, reference) = (mean(&own), mean(&reference));
        Ok(GateReport {
            passed: interval.low >= self.min_delta,
            gate: Self {
                evaluation: Some(id()),
                ..self.clone()
            },
            version: version.to_string(),
            against_version: match self.against {
                Against::Active => Some(active.to_string()),
                Against::Base => None,
            },
            value,
            reference,
            delta: value - reference,
            delta_ci95: interval.into(),
            n: own.len(),
            cells,
        })
    }

    /// The scores of the version's cells that count, and of the same examples what they are compared with.
    fn compared(
        &self,
        evaluation: &Evaluation,
        version: &Version,
        active: &Version,
    ) -> Result<Compared, GateError> {
        let measured = || evaluation.cells.iter().zip(&evaluation.scores);
        let counts = |cell: &CellReport| {
            cell.domain == self.kind.domain() && cell.metric == self.metric.name()
        };
        let mut compared = Compared::default();
        for (cell, scores) in measured().filter(|(cell, _)| is_of(cell, version) && counts(cell)) {
            // The same version under two names would count twice and look surer than it is.
            if compared
                .cells
                .iter()
                .any(|earlier| same_place(earlier, cell))
            {
                continue;
            }
            compared.own.extend_from_slice(&scores.own);
            compared.reference.extend_from_slice(match self.against {
                Against::Base => &scores.base,
                Against::Active => match measured()
                    .find(|(other, _)| is_of(other, active) && same_place(other, cell))
                {
                    Some((_, scores)) => &scores.own,
                    None => {
                        return Err(GateError::NotCompared {
                            id: evaluation.id.clone(),
                            version: version.clone(),
                            active: active.clone(),
                            dataset: cell.dataset.clone(),
                            shots: cell.shots,
                        });
                    }
                },
            });
            compared.cells.push(cell.clone());
        }
        Ok(compared)
    }
}

impl GateKind {
    /// The evaluation that measures such cells.
    pub fn evaluation(self) -> EvaluationKind {
        match self {
            Self::InDomain => EvaluationKind::InDomain,
            Self::OutOfDomain => EvaluationKind::OutOfDomain,
            Self::CrossTask => EvaluationKind::CrossTask,
        }
    }

    fn domain(self) -> &'static str {
        match self {
            Self::InDomain => "in",
            Self::OutOfDomain => "out",
            Self::CrossTask => "cross",
        }
    }
}

impl GateMetric {
    fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::RougeL => "rouge_l",
        }
    }
}

impl std::fmt::Display for GateReport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            value,
            reference,
            delta,
            delta_ci95: [low, high],
            n,
            gate,
            ..
        } = self;
        let against = match gate.against {
            Against::Active => "the active version's",
            Against::Base => "the base's",
        };
        write!(
            formatter,
            "{} {value:.3} against {against} {reference:.3} on {n} examples in {} cells: a difference of {delta:+.3}, 95 % interval {low:+.3} to {high:+.3}, whose lower end must be {:+.3} or more",
            gate.metric.name(),
            self.cells.len(),
            gate.min_delta,
        )
    }
}

fn is_of(cell: &CellReport, version: &Version) -> bool {
    cell.version.as_deref() == Some(version.as_str())
}

fn same_place(a: &CellReport, b: &CellReport) -> bool {
    let place = |cell: &CellReport| (cell.shots, cell.prompt, cell.n);
    a.task == b.task && a.dataset == b.dataset && place(a) == place(b)
}

fn mean(scores: &[f64]) -> f64 {
    scores.iter().sum::<f64>() / scores.len() as f64
}
