//! The command `trainer`: parses arguments, sets up logging, reports errors. The work is in the library.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use trainer::TrainArguments;
use trainer::evaluate::{EvaluateArguments, evaluate};
use trainer::evaluation_card::{CardArguments, card};
use trainer::export::{ExportArguments, export};
use trainer::inspect::{InspectArguments, inspect};
use trainer::merge::{MergeArguments, merge};
use trainer::profile::{ProfileArguments, profile};
use trainer::suite::{Outcome, SuiteArguments, suite, table};

#[derive(Parser)]
#[command(
    name = "trainer",
    version,
    about = "Trains LoRA adapters for the quickchange server"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train an adapter for one task and write it as a PEFT directory
    Train(Box<TrainArguments>),
    /// Train a grid of adapters, going on where the last call stopped
    Suite(Box<SuiteArguments>),
    /// Measure adapters in and out of their domain and across tasks, as the server does
    Evaluate(Box<EvaluateArguments>),
    /// Write what the server's evaluations found of an adapter into its model card
    Card(CardArguments),
    /// Print what an adapter is and how far it moves the base
    Inspect(InspectArguments),
    /// Measure what an adapter's training inputs look like to it, and write that into its manifest
    Profile(ProfileArguments),
    /// Write base and adapter as one model that transformers loads
    Merge(MergeArguments),
    /// Write an adapter as the GGUF file that llama.cpp loads
    Export(ExportArguments),
}

fn main() -> anyhow::Result<()> {
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr)
        .init();
    match Cli::parse().command {
        Command::Train(arguments) => trainer::run(&arguments).map(drop)?,
        Command::Suite(arguments) => run_suite(&arguments)?,
        Command::Evaluate(arguments) => print!("{}", evaluate(&arguments)?),
        Command::Card(arguments) => card(&arguments)?,
        Command::Inspect(arguments) => print!("{}", inspect(&arguments)?),
        Command::Profile(arguments) => println!("{}", profile(&arguments)?),
        Command::Merge(arguments) => merge(&arguments)?,
        Command::Export(arguments) => export(&arguments)?,
    }
    Ok(())
}

fn run_suite(arguments: &SuiteArguments) -> anyhow::Result<()> {
    let runs = suite(arguments, |line| println!("{line}"))?;
    print!("\n{}", table(&runs));
    let failed = runs
        .iter()
        .filter(|run| matches!(run.outcome, Outcome::Failed(_)))
        .count();
    anyhow::ensure!(failed == 0, "{failed} of {} runs failed", runs.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_unknown_projection_is_refused_by_name() {
        let line = [
            "trainer",
            "train",
            "--task",
            "sentiment",
            "--out",
            "x",
            "--targets",
            "q_proj,w_proj",
        ];
        let error = Cli::try_parse_from(line)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(
            error.contains("w_proj") && error.contains("down_proj"),
            "{error}"
        );
    }
}
