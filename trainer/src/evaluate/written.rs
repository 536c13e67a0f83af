//! What an evaluation leaves behind: files in `--out`, and the cards of the adapters.

use evaluation::report::{self, CardFacts};
use evaluation::{CellReport, Evaluation};
use fs_err as fs;

use super::arguments::EvaluateArguments;
use super::models::Adapters;
use crate::error::TrainerError;
use crate::evaluation_card::write_section;

/// Writes the reports and the cards that are asked for.
pub(super) fn write(
    arguments: &EvaluateArguments,
    record: &Evaluation,
    adapters: &Adapters,
    kernels: &str,
) -> Result<(), TrainerError> {
    if let Some(out) = &arguments.out {
        fs::create_dir_all(out)?;
        let json = serde_json::to_vec_pretty(record).map_err(std::io::Error::from)?;
        fs::write(out.join("evaluation.json"), json)?;
        fs::write(out.join("report.md"), report::markdown(record))?;
        fs::write(out.join("report.csv"), report::csv(record))?;
        fs::write(out.join("report.html"), report::html(record))?;
    }
    if arguments.card {
        let command = command_line(arguments);
        for (path, adapter) in arguments.adapters.iter().zip(adapters.measured()) {
            let own = record.cells.iter();
            let own = own.filter(|cell| cell.version == adapter.model.version);
            let own: Vec<CellReport> = own.cloned().collect();
            let facts = CardFacts {
                command: &command,
                kernels,
                held_out: adapter.held_out,
            };
            write_section(path, &report::card(&own, facts))?;
        }
    }
    Ok(())
}

/// The command that measures again. Paths of this machine stay out of it, because it is published.
fn command_line(arguments: &EvaluateArguments) -> String {
    let mut line = "trainer evaluate ADAPTER --card".to_owned();
    let mut flag = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            line += &format!(" --{name} {value}");
        }
    };
    let joined = |numbers: &Option<Vec<usize>>| {
        let numbers = numbers.as_ref()?.iter().map(usize::to_string);
        Some(numbers.collect::<Vec<_>>().join(","))
    };
    let request = arguments.plan_request();
    flag("data", arguments.data.as_ref().map(|_| "DIR".to_owned()));
    flag("kind", Some(request.kind.id().to_owned()));
    flag("shots", joined(&request.shots));
    flag("prompts", joined(&request.prompts));
    flag("limit", request.limit.map(|limit| limit.to_string()));
    flag("seed", Some(request.seed.to_string()));
    line
}
