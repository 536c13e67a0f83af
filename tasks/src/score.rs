//! The score of one cell: what a model put out against the gold examples.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::example::Example;
use crate::generation::{bare_label, cut_generation};
use crate::metrics::{
    ConfusionMatrix, Interval, Rouge, accuracy, bleu, bootstrap_mean, macro_f1, rouge,
};
use crate::task::{Kind, Metric, Task};

/// What a model put out, one for each gold example, in the same order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outputs {
    /// Predicted labels of a classification task, as indices into [`Task::labels`].
    Labels(Vec<usize>),
    /// Generated texts, uncut.
    Texts(Vec<String>),
}

/// The measured cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellResult {
    /// How many examples were scored.
    pub n: usize,
    /// What `value` is.
    pub metric: Metric,
    /// The mean of `per_example`, 0..=1.
    pub value: f64,
    /// 95 % bootstrap interval of `value`.
    pub ci95: Interval,
    /// The metric of each example, 0..=1, in the order of the golds; what paired intervals are made of.
    pub per_example: Vec<f64>,
    /// Classification: `macro_f1`, `labels`, `confusion` (rows are golds). Generation: `rouge_1`, `rouge_2`, `rouge_l`,
    /// `bleu`, `bare_labels` (outputs that are nothing but a label of a classification task), `collapse` (their share).
    pub extra: Value,
}

/// Why outputs cannot be scored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// There is nothing to score.
    #[error("no examples to score for {task}")]
    NoExamples {
        /// The task.
        task: Task,
    },
    /// Outputs and golds differ in number.
    #[error("{outputs} outputs for {golds} examples of {task}")]
    Unequal {
        /// The task.
        task: Task,
        /// How many outputs.
        outputs: usize,
        /// How many gold examples.
        golds: usize,
    },
    /// Labels for a generation task or texts for a classification task.
    #[error("{task} is a {} task and takes {}", task.kind(), match task.kind() { Kind::Generation => "texts", Kind::Classification => "label indices" })]
    WrongKind {
        /// The task.
        task: Task,
    },
    /// A predicted label index beyond the label set.
    #[error("output {index} is label {label}; {task} has labels 0 to {}", task.labels().len().saturating_sub(1))]
    LabelOutOfRange {
        /// The task.
        task: Task,
        /// Which output.
        index: usize,
        /// The label index found.
        label: usize,
    },
    /// A gold output that is none of the labels.
    #[error("example {index} has the gold label {label:?}; {task} has {}", task.labels().join(", "))]
    UnknownGold {
        /// The task.
        task: Task,
        /// Which example.
        index: usize,
        /// The gold output found.
        label: String,
    },
}

/// Scores the outputs of one cell. The interval depends on `seed` alone besides the scores.
///
/// # Errors
///
/// When outputs and golds do not fit each other or the task, or there are none.
pub fn score_cell(
    task: Task,
    golds: &[Example],
    outputs: &Outputs,
    seed: u64,
) -> Result<CellResult, ScoreError> {
    let count = match outputs {
        Outputs::Labels(labels) => labels.len(),
        Outputs::Texts(texts) => texts.len(),
    };
    if count != golds.len() {
        return Err(ScoreError::Unequal {
            task,
            outputs: count,
            golds: golds.len(),
        });
    }
    if count == 0 {
        return Err(ScoreError::NoExamples { task });
    }
    let (value, per_example, extra) = match (task.kind(), outputs) {
        (Kind::Classification, Outputs::Labels(labels)) => score_labels(task, golds, labels)?,
        (Kind::Generation, Outputs::Texts(texts)) => score_texts(golds, texts),
        _ => return Err(ScoreError::WrongKind { task }),
    };
    Ok(CellResult {
        n: count,
        metric: task.metric(),
        value,
        ci95: bootstrap_mean(&per_example, seed),
        per_example,
        extra,
    })
}

type Scores = (f64, Vec<f64>, Value);

fn score_labels(task: Task, golds: &[Example], labels: &[usize]) -> Result<Scores, ScoreError> {
    let classes = task.labels().len();
    if let Some(index) = labels.iter().position(|label| *label >= classes) {
        return Err(ScoreError::LabelOutOfRange {
            task,
            index,
            label: labels[index],
        });
    }
    let gold = |(index, example): (usize, &Example)| {
        task.label_index(&example.output)
            .ok_or_else(|| ScoreError::UnknownGold {
                task,
                index,
                label: example.output.clone(),
            })
    };
    let golds: Vec<usize> = golds
        .iter()
        .enumerate()
        .map(gold)
        .collect::<Result<_, _>>()?;
    let confusion = ConfusionMatrix::new(labels, &golds, classes);
    let per_example = labels.iter().zip(&golds);
    let per_example = per_example.map(|(label, gold)| f64::from(u8::from(label == gold)));
    let extra = json!({
        "macro_f1": macro_f1(&confusion),
        "labels": task.labels(),
        "confusion": confusion,
    });
    Ok((accuracy(labels, &golds), per_example.collect(), extra))
}

fn score_texts(golds: &[Example], texts: &[String]) -> Scores {
    let candidates: Vec<&str> = texts.iter().map(|text| cut_generation(text)).collect();
    let references: Vec<&str> = golds.iter().map(|gold| gold.output.as_str()).collect();
    let pairs = candidates.iter().zip(&references);
    let rouges: Vec<Rouge> = pairs.map(|(text, gold)| rouge(text, gold)).collect();
    let mean = |part: fn(&Rouge) -> f64| rouges.iter().map(part).sum::<f64>() / rouges.len() as f64;
    let rouge_l = mean(|rouge| rouge.rouge_l);
    let bare_labels = candidates.iter().filter(|text| bare_label(text).is_some());
    let bare_labels = bare_labels.count();
    let extra = json!({
        "rouge_1": mean(|rouge| rouge.rouge_1),
        "rouge_2": mean(|rouge| rouge.rouge_2),
        "rouge_l": rouge_l,
        "bleu": bleu(&candidates, &references),
        "bare_labels": bare_labels,
        "collapse": bare_labels as f64 / candidates.len() as f64,
    });
    let per_example = rouges.iter().map(|rouge| rouge.rouge_l).collect();
    (rouge_l, per_example, extra)
}

#[cfg(test)]
mod tests;
