//! The command line of `trainer train`, and its defaults.

use std::path::PathBuf;

use adapters::{Method, Projection};
use clap::Args;
use tasks::Task;

use crate::error::TrainerError;

/// Everything that decides what an adapter becomes.
#[derive(Args, Clone, Debug)]
pub struct TrainArguments {
    /// summary, question, sentiment, detection or inference
    #[arg(long, value_parser = parse_task)]
    pub task: Task,

    /// ft: examples as they are; fticl: the same demonstrations before every example
    #[arg(long, default_value = "ft", value_parser = parse_method)]
    pub method: Method,

    /// Demonstrations before every example [default: 0 for ft, the task's smaller FTICL number for fticl]
    #[arg(long)]
    pub shots: Option<usize>,

    /// Folder of data sets in the paper's layout; those found there replace the built-in ones of the same name
    #[arg(long, env = "QUICKCHANGE_DATA")]
    pub data: Option<PathBuf>,

    /// Which training file, by the number in its name [default: the smallest there is]
    #[arg(long)]
    pub train_size: Option<usize>,

    /// The base model, a GGUF file
    #[arg(
        long,
        env = "QUICKCHANGE_MODEL",
        default_value = ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"
    )]
    pub model: PathBuf,

    /// Where the adapter directory is written
    #[arg(long)]
    pub out: PathBuf,

    /// Replace an adapter that already stands in the output directory
    #[arg(long)]
    pub overwrite: bool,

    /// Passes over the training examples
    #[arg(long, default_value_t = 2)]
    pub epochs: usize,

    /// Highest learning rate; it falls linearly to 0
    #[arg(long = "lr", default_value_t = 5e-4)]
    pub learning_rate: f64,

    /// Optimizer steps over which the learning rate rises
    #[arg(long, default_value_t = 10)]
    pub warmup: usize,

    /// Rank of the low-rank factors
    #[arg(long, default_value_t = 8)]
    pub rank: usize,

    /// The delta is scaled by alpha / rank
    #[arg(long, default_value_t = 16.0)]
    pub alpha: f64,

    /// Projections to train, by their PEFT names
    #[arg(
        long,
        value_delimiter = ',',
        value_parser = parse_projection,
        default_value = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
    )]
    pub targets: Vec<Projection>,

    /// Examples per batch
    #[arg(long, default_value_t = 16)]
    pub batch_size: usize,

    /// Batches per optimizer step
    #[arg(long, default_value_t = 1)]
    pub accumulate: usize,

    /// Largest norm of the gradient, 0 for no limit
    #[arg(long, default_value_t = 1.0)]
    pub clip: f64,

    /// Decoupled weight decay
    #[arg(long, default_value_t = 0.0)]
    pub weight_decay: f64,

    /// Chance of an input of the low-rank path to be dropped
    #[arg(long, default_value_t = 0.0)]
    pub dropout: f32,

    /// Longest sequence in tokens; inputs of longer examples are cut at their end, targets never
    #[arg(long, default_value_t = 2048)]
    pub max_length: usize,

    /// Examples of the training file that are kept out of training and evaluated after each epoch [default: a tenth of
    /// them, at most 64]
    #[arg(long)]
    pub held_out: Option<usize>,

    /// Which prompt of the prompt map
    #[arg(long, default_value_t = 0)]
    pub prompt: usize,

    /// Chooses initial values, order and held-out examples
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    /// Threads of the matrix products [default: one per core]
    #[arg(long, env = "QUICKCHANGE_THREADS")]
    pub threads: Option<usize>,

    /// Rows computed at once; bounds memory (about 0.7 MB a row for the default model), not results
    #[arg(long, default_value_t = 2048)]
    pub rows_per_pass: usize,
}

impl TrainArguments {
    /// The number of demonstrations, the default filled in.
    #[must_use]
    pub fn shots(&self) -> usize {
        match (self.shots, self.method) {
            (Some(shots), _) => shots,
            (None, Method::Fticl) => self.task.shots_trained().first().copied().unwrap_or(1),
            (None, _) => 0,
        }
    }

    /// Checks what the parser cannot.
    ///
    /// # Errors
    /// [`TrainerError::Argument`] naming the flag and what would be right.
    pub fn validate(&self) -> Result<(), TrainerError> {
        let positive = [
            ("--epochs", self.epochs),
            ("--rank", self.rank),
            ("--batch-size", self.batch_size),
            ("--accumulate", self.accumulate),
            ("--max-length", self.max_length),
            ("--rows-per-pass", self.rows_per_pass),
            ("--threads", self.threads.unwrap_or(1)),
        ];
        if let Some((flag, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(TrainerError::argument(flag, "0", "at least 1"));
        }
        let check = |flag: &str, value: f64, valid: bool, expected: &str| match valid {
            true if value.is_finite() => Ok(()),
            _ => Err(TrainerError::argument(flag, &value.to_string(), expected)),
        };
        let rate = self.learning_rate;
        check("--lr", rate, rate > 0.0, "a number above 0, such as 5e-4")?;
        let twice = "a number above 0, usually twice the rank";
        check("--alpha", self.alpha, self.alpha > 0.0, twice)?;
        let norm = "a norm, or 0 for no limit";
        check("--clip", self.clip, self.clip >= 0.0, norm)?;
        let decay = self.weight_decay;
        check("--weight-decay", decay, decay >= 0.0, "0 or more")?;
        let chance = (0.0..1.0).contains(&self.dropout);
        let dropout = f64::from(self.dropout);
        check("--dropout", dropout, chance, "0 or more and below 1")?;
        match (self.method, self.shots()) {
            (Method::Ft, shots @ 1..) => Err(TrainerError::argument(
                "--shots",
                &shots.to_string(),
                "0 with --method ft; use --method fticl",
            )),
            (Method::Fticl, 0) => Err(TrainerError::argument(
                "--shots",
                "0",
                "at least 1 with --method fticl",
            )),
            _ => Ok(()),
        }
    }
}

fn parse_task(text: &str) -> Result<Task, String> {
    text.parse::<Task>().map_err(|error| error.to_string())
}

fn parse_method(text: &str) -> Result<Method, String> {
    match text {
        "ft" => Ok(Method::Ft),
        "fticl" => Ok(Method::Fticl),
        _ => Err("expected ft or fticl".into()),
    }
}

fn parse_projection(text: &str) -> Result<Projection, String> {
    Projection::from_peft_name(text.trim()).ok_or_else(|| {
        let known: Vec<&str> = Projection::ALL
            .iter()
            .map(|projection| projection.peft_name())
            .collect();
        format!("expected some of {}", known.join(", "))
    })
}
