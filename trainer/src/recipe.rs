//! The flags that `trainer train` and `trainer suite` share: model, data, and how an adapter is trained.

use std::path::PathBuf;
use std::str::FromStr;

use adapters::Projection;
use clap::{Args, ValueEnum};
use engine::Resolution;
use serde::Serialize;

use crate::error::TrainerError;
use crate::optimizer::Decline;
use crate::parameters::Target;

/// Where `make model` puts the default base.
pub(crate) const DEFAULT_MODEL: &str = ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf";

/// How adapters are trained, whatever the task.
#[derive(Args, Clone, Debug)]
pub struct Recipe {
    /// Folder of data sets in the paper's layout; those found there replace the built-in ones of the same name
    #[arg(long, env = "QUICKCHANGE_DATA")]
    pub data: Option<PathBuf>,

    /// The base model, a GGUF file
    #[arg(long, env = "QUICKCHANGE_MODEL", default_value = DEFAULT_MODEL)]
    pub model: PathBuf,

    /// Passes over the training examples
    #[arg(long, default_value_t = 2)]
    pub epochs: usize,

    /// Highest learning rate
    #[arg(long = "lr", default_value_t = 1e-3)]
    pub learning_rate: f64,

    /// Optimizer steps over which the learning rate rises
    #[arg(long, default_value_t = 10)]
    pub warmup: usize,

    /// How the learning rate falls after that, towards 0 at the last step
    #[arg(long, value_enum, default_value_t = Decline::Linear)]
    pub schedule: Decline,

    /// Rank of the low-rank factors
    #[arg(long, default_value_t = 8)]
    pub rank: usize,

    /// The delta is scaled by alpha / rank, or by alpha / √rank with --rslora
    #[arg(long, default_value_t = 16.0)]
    pub alpha: f64,

    /// Other ranks for some projections, such as q_proj=16,down_proj=4
    #[arg(long, value_delimiter = ',', value_parser = RankOf::from_str)]
    pub ranks: Vec<RankOf>,

    /// Rank-stabilised scaling (Kalajdzievski, 2023)
    #[arg(long)]
    pub rslora: bool,

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

    /// Examples of the training file that are kept out of training and evaluated [default: a tenth of them, at most 64]
    #[arg(long)]
    pub held_out: Option<usize>,

    /// Optimizer steps between evaluations of the held-out examples [default: one epoch's]
    #[arg(long)]
    pub evaluate_every: Option<usize>,

    /// Stop after so many evaluations without a smaller held-out loss, 0 for never; the adapter written is the best one either way
    #[arg(long, default_value_t = 0)]
    pub patience: usize,

    /// Stop after so many minutes and write what there is; --resume --overwrite goes on from there
    #[arg(long)]
    pub max_minutes: Option<f64>,

    /// Optimizer steps between checkpoints
    #[arg(long, default_value_t = 20)]
    pub checkpoint_every: usize,

    /// Bits of the activations where they meet the base's quantised weights on the way forward, as the server's flag of this
    /// name; with 8 and mixed, gradients meet those weights in bytes on the way back, in f32 otherwise; 32 is f32 both ways
    #[arg(long, value_enum, default_value_t = ActivationBits::Mixed)]
    pub activation_bits: ActivationBits,

    /// Which prompt of the prompt map
    #[arg(long, default_value_t = 0)]
    pub prompt: usize,

    /// Chooses initial values, order and held-out examples
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    /// Threads of the matrix products [default: one per core]
    #[arg(long, env = "QUICKCHANGE_THREADS")]
    pub threads: Option<usize>,

    /// Rows computed at once; bounds memory (about 0.7 MB a row for the default model)
    #[arg(long, default_value_t = 2048)]
    pub rows_per_pass: usize,

    /// Compute each layer again on the way back instead of keeping its inner values: slower, in a fraction of the memory
    #[arg(long)]
    pub recompute: bool,
}

/// See [`Recipe::activation_bits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
pub enum ActivationBits {
    /// One byte.
    #[value(name = "8")]
    #[serde(rename = "8")]
    Eight,
    /// Two bytes where one would lose much.
    #[value(name = "mixed")]
    #[serde(rename = "mixed")]
    Mixed,
    /// Two bytes.
    #[value(name = "16")]
    #[serde(rename = "16")]
    Sixteen,
    /// No quantised products.
    #[value(name = "32")]
    #[serde(rename = "32")]
    ThirtyTwo,
}

impl ActivationBits {
    /// As the engine calls it; `None` for f32.
    #[must_use]
    pub fn resolution(self) -> Option<Resolution> {
        match self {
            Self::Eight => Some(Resolution::Coarse),
            Self::Mixed => Some(Resolution::Mixed),
            Self::Sixteen => Some(Resolution::Fine),
            Self::ThirtyTwo => None,
        }
    }
}

/// A rank of its own for one projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RankOf {
    /// Which.
    pub projection: Projection,
    /// Its rank in every layer.
    pub rank: usize,
}

/// The part of a recipe that decides, with the data and the model, what an adapter becomes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Deciding<'a> {
    epochs: usize,
    learning_rate: f64,
    warmup: usize,
    schedule: Decline,
    rank: usize,
    alpha: f64,
    ranks: Vec<String>,
    rslora: bool,
    targets: Vec<&'a str>,
    batch_size: usize,
    accumulate: usize,
    clip: f64,
    weight_decay: f64,
    dropout: f32,
    activation_bits: ActivationBits,
    max_length: usize,
    /// `held_out` is what a manifest calls their scores.
    held_out_examples: Option<usize>,
    evaluate_every: Option<usize>,
    patience: usize,
    prompt: usize,
    seed: u64,
    rows_per_pass: usize,
}

impl Recipe {
    /// Rank and scale of every projection that is trained.
    pub(crate) fn adapted(&self) -> Vec<Target> {
        let rank_of = |projection| {
            let own = self.ranks.iter().find(|own| own.projection == projection);
            own.map_or(self.rank, |own| own.rank)
        };
        let target = |&projection: &Projection| {
            let rank = rank_of(projection);
            let divisor = match self.rslora {
                true => (rank as f64).sqrt(),
                false => rank as f64,
            };
            Target {
                projection,
                rank,
                scale: (self.alpha / divisor) as f32,
            }
        };
        self.targets.iter().map(target).collect()
    }

    /// See [`Deciding`].
    pub(crate) fn deciding(&self) -> Deciding<'_> {
        Deciding {
            epochs: self.epochs,
            learning_rate: self.learning_rate,
            warmup: self.warmup,
            schedule: self.schedule,
            rank: self.rank,
            alpha: self.alpha,
            ranks: self.ranks.iter().map(ToString::to_string).collect(),
            rslora: self.rslora,
            targets: self
                .targets
                .iter()
                .map(|target| target.peft_name())
                .collect(),
            batch_size: self.batch_size,
            accumulate: self.accumulate,
            clip: self.clip,
            weight_decay: self.weight_decay,
            dropout: self.dropout,
            activation_bits: self.activation_bits,
            max_length: self.max_length,
            held_out_examples: self.held_out,
            evaluate_every: self.evaluate_every,
            patience: self.patience,
            prompt: self.prompt,
            seed: self.seed,
            rows_per_pass: self.rows_per_pass,
        }
    }

    /// Checks what the parser cannot.
    ///
    /// # Errors
    /// [`TrainerError::Argument`] naming the flag and what would be right.
    pub(crate) fn validate(&self) -> Result<(), TrainerError> {
        let positive = [
            ("--epochs", self.epochs),
            ("--rank", self.rank),
            ("--batch-size", self.batch_size),
            ("--accumulate", self.accumulate),
            ("--max-length", self.max_length),
            ("--rows-per-pass", self.rows_per_pass),
            ("--checkpoint-every", self.checkpoint_every),
            ("--evaluate-every", self.evaluate_every.unwrap_or(1)),
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
        check("--lr", rate, rate > 0.0, "a number above 0, such as 1e-3")?;
        let twice = "a number above 0, usually twice the rank";
        check("--alpha", self.alpha, self.alpha > 0.0, twice)?;
        let norm = "a norm, or 0 for no limit";
        check("--clip", self.clip, self.clip >= 0.0, norm)?;
        let decay = self.weight_decay;
        check("--weight-decay", decay, decay >= 0.0, "0 or more")?;
        let chance = (0.0..1.0).contains(&self.dropout);
        let dropout = f64::from(self.dropout);
        check("--dropout", dropout, chance, "0 or more and below 1")?;
        let minutes = self.max_minutes.unwrap_or(1.0);
        check("--max-minutes", minutes, minutes > 0.0, "above 0")?;
        self.validate_ranks()
    }

    fn validate_ranks(&self) -> Result<(), TrainerError> {
        for (index, own) in self.ranks.iter().enumerate() {
            let same = |other: &RankOf| other.projection == own.projection;
            let wrong = if !self.targets.contains(&own.projection) {
                "only projections that --targets names"
            } else if self.ranks[..index].iter().any(same) {
                "every projection once"
            } else {
                continue;
            };
            return Err(TrainerError::argument("--ranks", &own.to_string(), wrong));
        }
        Ok(())
    }
}

impl FromStr for RankOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected a projection and its rank, such as q_proj=16".to_owned();
        let (projection, rank) = text.split_once('=').ok_or_else(expected)?;
        match rank.trim().parse() {
            Ok(rank @ 1..) => Ok(Self {
                projection: parse_projection(projection)?,
                rank,
            }),
            _ => Err(expected()),
        }
    }
}

impl std::fmt::Display for RankOf {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}={}", self.projection.peft_name(), self.rank)
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
