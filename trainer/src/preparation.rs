//! What a training needs before its first step: the model, the tokenised examples, the labels.

use std::path::Path;

use adapters::BaseModel;
use engine::gguf::GgufFile;
use engine::{LoadError, Resolution, Tokenizer};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tasks::{Catalog, TrainingSet, context};

use crate::arguments::TrainArguments;
use crate::checkpoint::{self, Identity};
use crate::error::TrainerError;
use crate::examples::{ExampleTokenizer, TokenizedExample};
use crate::measuring::{MOST_MEASURED, MeasuredPrompts};
use crate::model::TrainingModel;
use crate::opened::{read_adapter, unusable_model};
use crate::parameters::LoraParameters;

/// Most examples held out unless the command line says otherwise.
const MOST_HELD_OUT: usize = 64;
/// Keeps the choice of held-out examples apart from the order of training at the same seed.
const HELD_OUT_STREAM: u64 = 1;

/// Everything loaded.
pub(crate) struct Prepared {
    pub(crate) model: TrainingModel,
    pub(crate) base: BaseModel,
    pub(crate) training: Vec<TokenizedExample>,
    pub(crate) held_out: Vec<TokenizedExample>,
    /// What the adapter's domain profile is measured over.
    pub(crate) measured: MeasuredPrompts,
    /// The completion of each label, in the task's order; empty for a generation task.
    pub(crate) labels: Vec<Vec<u32>>,
    /// Where the examples come from, for the manifest.
    pub(crate) source: String,
    /// Inputs that were cut to fit.
    pub(crate) shortened: usize,
    /// Version of the adapter that training begins with.
    pub(crate) from: Option<String>,
}

impl Prepared {
    /// Factors to begin with.
    pub(crate) fn fresh_parameters(
        &self,
        arguments: &TrainArguments,
    ) -> Result<LoraParameters, TrainerError> {
        let recipe = &arguments.recipe;
        let fresh = LoraParameters::initialised(&self.base, &recipe.adapted(), recipe.seed)?;
        let Some(from) = &arguments.from else {
            return Ok(fresh);
        };
        let adapter = read_adapter(from, &self.base)?;
        let given = LoraParameters::from_modules(&self.base, &adapter.modules)?;
        if given.layout() != fresh.layout() {
            return Err(TrainerError::argument(
                "--from",
                &from.display().to_string(),
                "an adapter with the targets, ranks and scales of this training",
            ));
        }
        Ok(given)
    }

    /// What decides the outcome of a training with these arguments.
    pub(crate) fn identity(&self, arguments: &TrainArguments) -> Result<Identity, TrainerError> {
        let mut data = Sha256::new();
        for example in self.training.iter().chain(&self.held_out) {
            for tokens in [&example.prompt, &example.completion] {
                data.update((tokens.len() as u64).to_le_bytes());
                tokens
                    .iter()
                    .for_each(|token| data.update(token.to_le_bytes()));
            }
        }
        let recipe =
            serde_json::to_value(arguments.recipe.deciding()).map_err(std::io::Error::from)?;
        let mut identity = Identity::from_iter([
            ("task".to_owned(), arguments.task.id().into()),
            ("method".to_owned(), arguments.method.to_string().into()),
            ("shots".to_owned(), arguments.shots().into()),
            ("base".to_owned(), self.base.digest.as_str().into()),
            ("from".to_owned(), self.from.clone().into()),
            ("data".to_owned(), format!("{:x}", data.finalize()).into()),
        ]);
        if let Value::Object(fields) = recipe {
            identity.extend(fields);
        }
        Ok(identity)
    }
}

/// Loads model and data, and fails on what would only show after hours.
pub(crate) fn prepare(arguments: &TrainArguments) -> Result<Prepared, TrainerError> {
    check_output(arguments)?;
    let recipe = &arguments.recipe;
    let catalog = Catalog::open(recipe.data.as_deref())?;
    let set = catalog.train(arguments.task, arguments.train_size)?;
    let held_out = held_out(recipe.held_out, &set)?;
    let demonstrations = catalog.demonstrations(
        arguments.task,
        arguments.task.trained_on(),
        arguments.shots(),
    )?;
    let context = context(
        catalog.prompts(),
        recipe.prompt,
        arguments.task,
        &demonstrations,
    )?;

    let (model, tokenizer, digest) = read_model(&recipe.model, recipe.activation_bits.resolution())
        .map_err(|error| unusable_model(&recipe.model, error))?;
    // The one that the model file declares is the one that the model was taught to end with.
    let known = tokenizer.end_of_turn().first().copied();
    let end_of_turn = tokenizer.eos().or(known);
    let example_tokenizer = ExampleTokenizer {
        tokenizer: &tokenizer,
        prompts: catalog.prompts(),
        task: arguments.task,
        prompt: recipe.prompt,
        context,
        end_of_turn: end_of_turn.ok_or_else(|| TrainerError::NoEndOfTurn {
            path: recipe.model.clone(),
        })?,
        max_length: recipe.max_length.min(model.context_length()),
    };
    let (mut training, shortened) = tokenize(&example_tokenizer, &set)?;
    let measured = MeasuredPrompts::first(MOST_MEASURED, &example_tokenizer, &training);
    let mut random = ChaCha8Rng::seed_from_u64(recipe.seed);
    random.set_stream(HELD_OUT_STREAM);
    training.shuffle(&mut random);
    let held_out = training.split_off(training.len() - held_out);
    let base = model.base(&digest);
    let from = match &arguments.from {
        Some(from) => Some(read_adapter(from, &base)?.version.to_string()),
        None => None,
    };
    Ok(Prepared {
        base,
        from,
        model,
        training,
        held_out,
        measured,
        labels: example_tokenizer.labels(),
        source: arguments.task.trained_on().to_owned(),
        shortened,
    })
}

/// How many examples are kept out of training.
fn held_out(wanted: Option<usize>, set: &TrainingSet) -> Result<usize, TrainerError> {
    let examples = set.examples.len();
    let held_out = wanted.unwrap_or((examples / 10).min(MOST_HELD_OUT));
    if examples > held_out {
        return Ok(held_out);
    }
    Err(TrainerError::NoExamples {
        path: set.path.clone(),
        examples,
        held_out,
    })
}

/// Fails where something would be lost that nobody gave up.
fn check_output(arguments: &TrainArguments) -> Result<(), TrainerError> {
    if arguments.out.join("adapter_config.json").exists() && !arguments.overwrite {
        return Err(TrainerError::OutputExists {
            path: arguments.out.clone(),
        });
    }
    if checkpoint::exists(&arguments.out) && !arguments.resume && !arguments.overwrite {
        return Err(TrainerError::Interrupted {
            path: arguments.out.clone(),
        });
    }
    Ok(())
}

/// The model, its tokenizer, and the digest of its file.
fn read_model(
    path: &Path,
    resolution: Option<Resolution>,
) -> Result<(TrainingModel, Tokenizer, String), LoadError> {
    let file = GgufFile::open(path)?;
    let tokenizer = Tokenizer::from_metadata(file.metadata())?;
    let model = TrainingModel::from_gguf(&file, resolution)?;
    Ok((model, tokenizer, file.digest()))
}

fn tokenize(
    tokenizer: &ExampleTokenizer<'_>,
    set: &TrainingSet,
) -> Result<(Vec<TokenizedExample>, usize), TrainerError> {
    let (mut examples, mut shortened) = (Vec::with_capacity(set.examples.len()), 0);
    for (index, example) in set.examples.iter().enumerate() {
        let (example, cut) = tokenizer.tokenize(index, example)?;
        shortened += usize::from(cut);
        examples.push(example);
    }
    if shortened > 0 {
        tracing::warn!(
            "{shortened} of {} inputs were cut at {} tokens",
            examples.len(),
            tokenizer.max_length
        );
    }
    if set.dropped > 0 {
        tracing::warn!(
            "{} examples without a gold label were left out",
            set.dropped
        );
    }
    Ok((examples, shortened))
}
