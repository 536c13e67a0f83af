//! An evaluation as a table for people: Markdown, and CSV for spreadsheets.

use std::fmt::Write;

use crate::cell_report::CellReport;
use crate::record::Evaluation;

/// Columns of both tables.
const COLUMNS: [&str; 14] = [
    "adapter",
    "version",
    "trained_task",
    "task",
    "dataset",
    "domain",
    "shots",
    "prompt",
    "n",
    "metric",
    "value",
    "ci95",
    "baseline",
    "delta",
];

/// The report as Markdown: what was evaluated, then one row per cell.
pub fn markdown(evaluation: &Evaluation) -> String {
    let mut text = format!(
        "# Evaluation {}\n\n{} of {}: {}, {} of {} cells.\n",
        evaluation.id,
        evaluation.kind,
        evaluation.adapters.join(", "),
        evaluation.status.name(),
        evaluation.progress.cells_done,
        evaluation.progress.cells_total,
    );
    if let Some(error) = &evaluation.error {
        let _ = write!(text, "\nIt failed: {error}\n");
    }
    let header = COLUMNS.map(|column| {
        if column == "ci95" {
            "95 % interval"
        } else {
            column
        }
    });
    let _ = write!(
        text,
        "\n| {} | delta 95 % interval |\n|{}\n",
        header.join(" | "),
        " --- |".repeat(COLUMNS.len() + 1)
    );
    for cell in &evaluation.cells {
        let interval = format!("{:.3} to {:.3}", cell.ci95[0], cell.ci95[1]);
        let delta = cell.delta_ci95().map_or_else(String::new, |[low, high]| {
            format!("{low:+.3} to {high:+.3}")
        });
        let _ = writeln!(
            text,
            "| {} | {:.3} | {interval} | {:.3} | {:+.3} | {delta} |",
            descriptors(cell, 12).join(" | "),
            cell.value,
            cell.baseline,
            cell.delta,
        );
    }
    text.push_str(
        "\nBaseline: the base model in the same cell. Intervals: bootstrap, paired for delta.\n",
    );
    text
}

/// The report as CSV, one row per cell, with every digit.
pub fn csv(evaluation: &Evaluation) -> String {
    let mut header = COLUMNS.to_vec();
    header.splice(11..12, ["ci95_low", "ci95_high"]);
    header.extend(["delta_ci95_low", "delta_ci95_high"]);
    let mut text = header.join(",") + "\n";
    for cell in &evaluation.cells {
        let mut fields: Vec<String> = descriptors(cell, 64)
            .iter()
            .map(|field| quoted(field))
            .collect();
        let delta = cell.delta_ci95();
        let numbers = [
            Some(cell.value),
            Some(cell.ci95[0]),
            Some(cell.ci95[1]),
            Some(cell.baseline),
            Some(cell.delta),
            delta.map(|delta| delta[0]),
            delta.map(|delta| delta[1]),
        ];
        fields.extend(numbers.map(|number| number.map_or_else(String::new, |n| n.to_string())));
        text.push_str(&fields.join(","));
        text.push('\n');
    }
    text
}

/// The columns before `value`, with the version cut to `digits`.
fn descriptors(cell: &CellReport, digits: usize) -> [String; 10] {
    let version = cell.version.as_deref().unwrap_or_default();
    [
        cell.adapter.clone(),
        version.chars().take(digits).collect(),
        cell.trained_task.clone().unwrap_or_default(),
        cell.task.clone(),
        cell.dataset.clone(),
        cell.domain.clone(),
        cell.shots.to_string(),
        cell.prompt.to_string(),
        cell.n.to_string(),
        cell.metric.clone(),
    ]
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n']) {
        return format!("\"{}\"", field.replace('"', "\"\""));
    }
    field.to_owned()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::*;
    use crate::cell_report::Verdict;
    use crate::record::{Progress, Status};

    fn evaluation() -> Evaluation {
        Evaluation {
            id: "eval_1".to_owned(),
            object: "evaluation".to_owned(),
            status: Status::Completed,
            kind: "out_of_domain".to_owned(),
            adapters: vec!["tone".to_owned()],
            progress: Progress {
                cells_done: 1,
                cells_total: 1,
                examples_done: 8,
                examples_total: 8,
                estimated_seconds_left: None,
            },
            cells: vec![CellReport {
                adapter: "tone".to_owned(),
                version: Some("ab".repeat(32)),
                trained_task: Some("sentiment".to_owned()),
                task: "sentiment".to_owned(),
                dataset: "yelp".to_owned(),
                domain: "out".to_owned(),
                shots: 2,
                prompt: 0,
                n: 4,
                metric: "accuracy".to_owned(),
                value: 0.75,
                ci95: [0.25, 1.0],
                baseline: 0.5,
                delta: 0.25,
                verdict: Verdict::Keeps,
                against: None,
                extra: json!({"delta_ci95": [-0.25, 0.75]}),
            }],
            ..Evaluation::default()
        }
    }

    #[test]
    fn a_report_reads_like_a_table() {
        assert_snapshot!(markdown(&evaluation()), @r"
        # Evaluation eval_1

        out_of_domain of tone: completed, 1 of 1 cells.

        | adapter | version | trained_task | task | dataset | domain | shots | prompt | n | metric | value | 95 % interval | baseline | delta | delta 95 % interval |
        | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
        | tone | abababababab | sentiment | sentiment | yelp | out | 2 | 0 | 4 | accuracy | 0.750 | 0.250 to 1.000 | 0.500 | +0.250 | -0.250 to +0.750 |

        Baseline: the base model in the same cell. Intervals: bootstrap, paired for delta.
        ");
    }

    #[test]
    fn every_row_of_the_csv_has_every_column() {
        let text = csv(&evaluation());
        let widths: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(widths, [17, 17]);
        assert!(
            text.ends_with("accuracy,0.75,0.25,1,0.5,0.25,-0.25,0.75\n"),
            "{text}"
        );
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
