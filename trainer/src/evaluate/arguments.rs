//! The command line of `trainer evaluate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use evaluation::{LabelScoring, Scoring};
use tasks::{EvaluationKind, PlanRequest, Task};

use crate::arguments::parse_task;
use crate::engine_arguments::EngineArguments;
use crate::recipe::DEFAULT_MODEL;

/// What is measured, on what, and where the figures go.
#[derive(Args, Clone, Debug)]
pub struct EvaluateArguments {
    /// Adapters, directories in PEFT's layout; with none, the base model alone
    pub adapters: Vec<PathBuf>,

    /// The base model, a GGUF file or a Hugging Face directory
    #[arg(long, env = "QUICKCHANGE_MODEL", default_value = DEFAULT_MODEL)]
    pub model: PathBuf,

    /// Folder of data sets that take the place of the built-in ones of the same name
    #[arg(long, env = "QUICKCHANGE_DATA")]
    pub data: Option<PathBuf>,

    /// Which side of the adapters is measured
    #[arg(long, value_enum, default_value_t = Side::Matrix)]
    pub kind: Side,

    /// Measure the base model as well, for cells of its own; every adapter's cells say what it has in them anyway
    #[arg(long)]
    pub base: bool,

    /// An adapter that is measured in every cell too, for the paired differences against it
    #[arg(long)]
    pub against: Option<PathBuf>,

    /// Only these tasks
    #[arg(long, value_delimiter = ',', value_parser = parse_task)]
    pub tasks: Option<Vec<Task>>,

    /// Only these data sets
    #[arg(long, value_delimiter = ',')]
    pub datasets: Option<Vec<String>>,

    /// Numbers of demonstrations [default: those of the task]
    #[arg(long, value_delimiter = ',')]
    pub shots: Option<Vec<usize>>,

    /// Numbers of prompts [default: 0]
    #[arg(long, value_delimiter = ',')]
    pub prompts: Option<Vec<usize>>,

    /// At most this many examples of each cell
    #[arg(long)]
    pub limit: Option<usize>,

    /// Seed of the confidence intervals
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    /// Which of a label's tokens count
    #[arg(long, value_enum, default_value_t = LabelTokens::All)]
    pub label_scoring: LabelTokens,

    /// Divide out what each label gets for the input N/A (contextual calibration)
    #[arg(long)]
    pub calibrate: bool,

    /// How prompts are computed
    #[command(flatten)]
    pub engine: EngineArguments,

    /// Folder for evaluation.json, report.md, report.csv and report.html, and for measurements to go on from
    #[arg(long)]
    pub out: Option<PathBuf>,

    /// Write the figures into each adapter's directory: the section "Evaluation" of its README.md
    #[arg(long)]
    pub card: bool,
}

/// Which side of an adapter is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Side {
    /// Its own task, in-domain data sets
    #[value(name = "in_domain")]
    InDomain,
    /// Its own task, out-of-domain data sets
    #[value(name = "out_of_domain")]
    OutOfDomain,
    /// The training sets' domains of the other tasks
    #[value(name = "cross_task")]
    CrossTask,
    /// All three
    Matrix,
}

/// Which of a label's tokens count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LabelTokens {
    /// The sum over all of them
    #[value(name = "sum")]
    All,
    /// The first one only, as in the paper
    #[value(name = "first_token")]
    First,
}

impl EvaluateArguments {
    /// The plan that is asked for.
    pub(super) fn plan_request(&self) -> PlanRequest {
        PlanRequest {
            kind: match self.kind {
                Side::InDomain => EvaluationKind::InDomain,
                Side::OutOfDomain => EvaluationKind::OutOfDomain,
                Side::CrossTask => EvaluationKind::CrossTask,
                Side::Matrix => EvaluationKind::Matrix,
            },
            tasks: self.tasks.clone(),
            datasets: self.datasets.clone(),
            shots: self.shots.clone(),
            prompts: self.prompts.clone(),
            limit: self.limit,
            seed: self.seed,
        }
    }

    /// How labels are chosen.
    pub(super) fn scoring(&self) -> Scoring {
        Scoring {
            labels: match self.label_scoring {
                LabelTokens::All => LabelScoring::Sum,
                LabelTokens::First => LabelScoring::FirstToken,
            },
            calibrate: self.calibrate,
        }
    }
}
