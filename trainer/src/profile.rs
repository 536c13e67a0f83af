//! `trainer profile`: adds the domain profile to an adapter that has none, or renews it.

use std::fmt;
use std::path::{Path, PathBuf};

use adapters::{Manifest, Version, write_manifest};
use clap::Args;
use engine::Tokenizer;
use fs_err as fs;
use serde_json::Value;
use tasks::{Catalog, Task, context};

use crate::engine_arguments::EngineArguments;
use crate::error::TrainerError;
use crate::examples::{ExampleTokenizer, TokenizedExample};
use crate::measuring::{self, MOST_MEASURED, MeasuredPrompts};
use crate::opened::{AdapterArguments, Opened, read_adapter, unusable_model};

/// The flags of `trainer profile`.
#[derive(Args, Clone, Debug)]
pub struct ProfileArguments {
    /// Which adapter
    #[command(flatten)]
    pub adapter: AdapterArguments,

    /// Folder of data sets in the paper's layout, the one it was trained with; those found there replace the built-in ones
    #[arg(long, env = "QUICKCHANGE_DATA")]
    pub data: Option<PathBuf>,

    /// Which training file, by the number in its name [default: the smallest there is]
    #[arg(long)]
    pub train_size: Option<usize>,

    /// Training inputs to measure, from the beginning of the file
    #[arg(long, default_value_t = MOST_MEASURED)]
    pub examples: usize,

    /// How prompts are computed
    #[command(flatten)]
    pub engine: EngineArguments,
}

/// What became of the adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// Its version before.
    pub before: Version,
    /// Its version now.
    pub after: Version,
    /// Training inputs measured.
    pub examples: usize,
}

impl fmt::Display for Renewed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            before,
            after,
            examples,
        } = self;
        write!(
            formatter,
            "profile of {examples} training inputs\nversion before {before}\nversion now    {after}"
        )
    }
}

/// Measures the adapter over its training inputs and replaces its manifest; a model card that names its version names
/// the new one afterwards.
///
/// # Errors
/// What is wrong with the adapter, the model file or the data; a manifest that does not say what it was trained on.
pub fn profile(arguments: &ProfileArguments) -> Result<Renewed, TrainerError> {
    let opened = Opened::open(&arguments.adapter)?;
    let prompts = prompts(arguments, &opened)?;
    let Opened { base, adapter, .. } = opened;
    let engine = measuring::start(&arguments.adapter.model, &arguments.engine, &prompts)?;
    let mut manifest = adapter.manifest.clone();
    manifest.domain = Some(measuring::measure(&engine, &adapter, &prompts)?);
    let directory = &arguments.adapter.adapter;
    write_manifest(directory, &manifest)?;
    let after = read_adapter(directory, &base)?.version;
    rename_version(&directory.join("README.md"), &adapter.version, &after)?;
    Ok(Renewed {
        before: adapter.version,
        after,
        examples: prompts.ids.len(),
    })
}

/// The prompts of the first training examples, as they were trained.
fn prompts(arguments: &ProfileArguments, opened: &Opened) -> Result<MeasuredPrompts, TrainerError> {
    let AdapterArguments {
        adapter: directory,
        model,
    } = &arguments.adapter;
    let manifest = &opened.adapter.manifest;
    let task = task_of(manifest, directory)?;
    let tokenizer = Tokenizer::from_metadata(opened.file.metadata())
        .map_err(|error| unusable_model(model, error.into()))?;
    let trained = manifest.training.get("max_length").and_then(Value::as_u64);
    let max_length = trained.map_or(usize::MAX, |tokens| tokens as usize);
    let catalog = Catalog::open(arguments.data.as_deref())?;
    let set = catalog.train(task, arguments.train_size)?;
    let demonstrations = catalog.demonstrations(task, task.trained_on(), manifest.shots)?;
    let end_of_turn = tokenizer.eos().or(tokenizer.end_of_turn().first().copied());
    let example_tokenizer = ExampleTokenizer {
        tokenizer: &tokenizer,
        prompts: catalog.prompts(),
        task,
        prompt: manifest.prompt,
        context: context(catalog.prompts(), manifest.prompt, task, &demonstrations)?,
        end_of_turn: end_of_turn.ok_or_else(|| TrainerError::NoEndOfTurn {
            path: model.clone(),
        })?,
        max_length: max_length.min(opened.config()?.context_length),
    };
    let first = set.examples.iter().take(arguments.examples).enumerate();
    let examples: Vec<TokenizedExample> = first
        .map(|(index, example)| Ok(example_tokenizer.tokenize(index, example)?.0))
        .collect::<Result<_, TrainerError>>()?;
    let most = arguments.examples;
    Ok(MeasuredPrompts::first(most, &example_tokenizer, &examples))
}

/// The task of an adapter that was trained on the data set which that task is trained on here.
fn task_of(manifest: &Manifest, directory: &Path) -> Result<Task, TrainerError> {
    let refuse = |field, found: &Option<String>, expected| TrainerError::NothingToMeasure {
        path: directory.to_path_buf(),
        field,
        found: found.clone().unwrap_or_else(|| "nothing".to_owned()),
        expected,
    };
    let named = manifest.task.as_ref().and_then(|task| task.parse().ok());
    let task: Task = named.ok_or_else(|| {
        let expected = "one of the tasks: summary, question, sentiment, detection, inference";
        refuse("task", &manifest.task, expected)
    })?;
    match manifest.trained_on.as_deref() == Some(task.trained_on()) {
        true => Ok(task),
        false => Err(refuse(
            "trained_on",
            &manifest.trained_on,
            task.trained_on(),
        )),
    }
}

/// Names the new version where a card named the old one.
fn rename_version(card: &Path, before: &Version, after: &Version) -> std::io::Result<()> {
    if !card.exists() {
        return Ok(());
    }
    let text = fs::read_to_string(card)?;
    let renamed = text.replace(before.as_str(), after.as_str());
    if renamed != text {
        fs::write(card, renamed)?;
    }
    Ok(())
}
