//! The report card that travels with an adapter version: a section of its README.

use crate::cell_report::CellReport;

use super::difference::{Reference, interval, signed, signed_interval};
use super::markdown::{AGAINST, against};
use super::models::other;
use super::table::Table;
use super::words::{by_domain, listed, of_bare_labels, of_one_label, plural};

/// A gain on held-out training examples below this means that training did not learn the task.
const LEARNT: f64 = 0.05;

/// What a card says beside the cells.
#[derive(Debug, Clone, Copy, Default)]
pub struct CardFacts<'a> {
    /// The command line that measured the cells.
    pub command: &'a str,
    /// The kernels that it ran on.
    pub kernels: &'a str,
    /// Accuracy on held-out training examples before and after training, if it was measured.
    pub held_out: Option<(f64, f64)>,
}

/// The section "Evaluation" of an adapter version's README, from its heading on: how its cells were measured, what they say in words, and the
/// table.
pub fn card(cells: &[CellReport], facts: CardFacts<'_>) -> String {
    let cells: Vec<&CellReport> = cells.iter().collect();
    let mut paragraphs = vec![
        "## Evaluation".to_owned(),
        format!(
            "Measured with `{}` (kernels: {}). *base* is the untouched model in the same cell with the same demonstrations; intervals are \
             bootstrap, paired for the difference. *in*: the data it was trained on and its sibling; *out*: the same task elsewhere; \
             *cross*: other tasks. By the interval of its difference an adapter gains (above 0), loses (below 0) or keeps (0 is in it).",
            facts.command, facts.kernels
        ),
    ];
    if cells.is_empty() {
        paragraphs.push("Nothing was measured.".to_owned());
        return paragraphs.join("\n\n") + "\n";
    }
    let remarks = [
        in_its_domain(&cells, facts.held_out),
        of_one_label(&cells),
        of_bare_labels(&cells),
    ];
    let remarks: Vec<String> = remarks.into_iter().flatten().collect();
    if !remarks.is_empty() {
        paragraphs.push(remarks.join(" "));
    }
    let against = format!(" against {}", other(&cells));
    for (reference, than) in [(Reference::Base, ""), (Reference::Other, &against)] {
        let domains = by_domain(&cells, reference);
        let lines: Vec<String> = (domains.iter())
            .map(|domain| format!("- {}{than}: {}.", domain.title, domain.counts()))
            .collect();
        if !lines.is_empty() {
            paragraphs.push(lines.join("\n"));
        }
    }
    paragraphs.join("\n\n") + "\n\n" + &table(&cells)
}

/// Whether the adapter beats the base where it was trained, with the fewest demonstrations, and if not, whether training learnt the task.
fn in_its_domain(cells: &[&CellReport], held_out: Option<(f64, f64)>) -> Option<String> {
    let own = || cells.iter().filter(|cell| cell.domain == "in");
    let fewest = own().map(|cell| cell.shots).min()?;
    let mut found = Vec::new();
    let mut missed = Vec::new();
    for cell in own().filter(|cell| cell.shots == fewest) {
        let above = cell.delta_ci95().is_some_and(|[low, _]| low > 0.0);
        let names = if above { &mut found } else { &mut missed };
        if !names.contains(&cell.dataset) {
            names.push(cell.dataset.clone());
        }
    }
    let with = match fewest {
        0 => "Without demonstrations".to_owned(),
        fewest => format!("With {fewest} demonstration{}", plural(fewest)),
    };
    if missed.is_empty() {
        return Some(format!(
            "{with} it is above the base on {}, by intervals that exclude 0.",
            listed(&found)
        ));
    }
    let learnt = held_out.map_or_else(String::new, |(before, after)| learnt(before, after));
    Some(format!(
        "{with} it is **not** above the base on {} by an interval that excludes 0{learnt}.",
        listed(&missed)
    ))
}

fn learnt(before: f64, after: f64) -> String {
    let went = format!(
        "ts accuracy on the held-out training examples went from {before:.3} to {after:.3}"
    );
    match after - before < LEARNT {
        true => {
            format!(". I{went}: what is missing on the test set is what training did not learn")
        }
        false => format!(", although i{went}"),
    }
}

fn table(cells: &[&CellReport]) -> String {
    let mut header: Vec<&str> = vec![
        "domain",
        "task",
        "data set",
        "shots",
        "n",
        "metric",
        "value",
        "95 % interval",
        "base",
        "difference",
        "95 % interval of it",
        "verdict",
    ];
    let prompts = cells.iter().any(|cell| cell.prompt != 0);
    if prompts {
        header.insert(4, "prompt");
    }
    let compared = cells.iter().any(|cell| cell.against.is_some());
    if compared {
        header.extend(AGAINST);
    }
    let rows = cells.iter().map(|cell| {
        let mut fields = row(cell);
        if prompts {
            fields.insert(4, cell.prompt.to_string());
        }
        if compared {
            fields.extend(against(cell));
        }
        fields
    });
    let table = Table {
        header: header.into_iter().map(ToOwned::to_owned).collect(),
        rows: rows.collect(),
    };
    table.markdown()
}

fn row(cell: &CellReport) -> Vec<String> {
    let difference = Reference::Base.difference(cell);
    vec![
        cell.domain.clone(),
        cell.task.clone(),
        cell.dataset.clone(),
        cell.shots.to_string(),
        cell.n.to_string(),
        cell.metric.clone(),
        format!("{:.3}", cell.value),
        interval(cell.ci95),
        format!("{:.3}", cell.baseline),
        signed(cell.delta),
        cell.delta_ci95().map_or_else(String::new, signed_interval),
        difference.map_or_else(String::new, |found| found.verdict.word().to_owned()),
    ]
}
