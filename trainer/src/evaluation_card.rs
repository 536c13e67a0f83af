//! `trainer card`: what evaluations found of an adapter, written into the model card that travels with it.

use std::path::{Path, PathBuf};

use adapters::{AdapterFiles, Manifest};
use clap::Args;
use evaluation::CellReport;
use evaluation::report::{self, CardFacts};
use fs_err as fs;
use serde::Deserialize;

use crate::error::TrainerError;
use crate::held_out::HeldOutScore;
use crate::opened::LIMITS;

/// The heading of a model card's last section.
const HEADING: &str = "## Evaluation\n";

/// The flags of `trainer card`.
#[derive(Args, Clone, Debug)]
pub struct CardArguments {
    /// The adapter, a directory in PEFT's layout
    pub adapter: PathBuf,

    /// Evaluations as JSON, as `GET /v1/evaluations/{id}` and `trainer evaluate --out` give them
    #[arg(required = true)]
    pub evaluations: Vec<PathBuf>,

    /// The kernel set that they ran on, as `GET /version` names it
    #[arg(long)]
    pub kernels: String,

    /// How to measure again, for whoever reads the card
    #[arg(long, default_value = "POST /v1/evaluations")]
    pub command: String,
}

/// An evaluation, as far as a card goes.
#[derive(Deserialize)]
struct Measured {
    cells: Vec<CellReport>,
}

/// Puts the cells of this version of the adapter in the place of those that its card has.
///
/// # Errors
/// A file that is missing or no evaluation, or evaluations that measured other versions only.
pub fn card(arguments: &CardArguments) -> Result<(), TrainerError> {
    let adapter = &arguments.adapter;
    let files = AdapterFiles::read(adapter, &LIMITS)?;
    let version = files.version()?;
    let mut cells = Vec::new();
    for path in &arguments.evaluations {
        let measured = serde_json::from_slice::<Measured>(&fs::read(path)?);
        let measured = measured.map_err(|error| TrainerError::NoEvaluation {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let own = |cell: &CellReport| cell.version.as_deref() == Some(version.as_str());
        cells.extend(measured.cells.into_iter().filter(own));
    }
    if cells.is_empty() {
        return Err(TrainerError::NotMeasured {
            path: adapter.clone(),
            version,
        });
    }
    let manifest = files.manifest.as_deref().map(Manifest::parse).transpose()?;
    let facts = CardFacts {
        command: &arguments.command,
        kernels: &arguments.kernels,
        held_out: manifest.as_ref().and_then(held_out),
    };
    write_section(adapter, &report::card(&cells, facts))
}

/// Puts a section in the place of the one that a model card has, or behind what it has.
pub(crate) fn write_section(adapter: &Path, section: &str) -> Result<(), TrainerError> {
    let path = adapter.join("README.md");
    let card = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        card => card?,
    };
    let before = card.split(HEADING).next().unwrap_or_default();
    fs::write(path, format!("{before}{section}"))?;
    Ok(())
}

/// The accuracies of the base, step 0, and of the step that was kept.
pub(crate) fn held_out(manifest: &Manifest) -> Option<(f64, f64)> {
    let training = &manifest.training;
    let scores: Vec<HeldOutScore> =
        serde_json::from_value(training.get("held_out")?.clone()).ok()?;
    let best = training.get("best_step")?.as_u64()?;
    let at = |step: u64| {
        let score = scores.iter().find(|score| score.step as u64 == step)?;
        score.accuracy
    };
    Some((at(0)?, at(best)?))
}
