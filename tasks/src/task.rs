//! The five tasks and the fixed facts of each: kind, metric, labels, shots, data sets. Not their wording (`prompts`) and
//! not their examples (`catalog`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::dataset::{self, DatasetRole};

/// One of the five tasks of Yang et al. (NAACL 2024), section 3. In JSON, in folder names and on command lines a task is
/// its [`Task::id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// A short summary of an article.
    Summary,
    /// A question that the given answer answers in the given context.
    Question,
    /// Whether a text is positive or negative.
    Sentiment,
    /// Whether two sentences say the same (paraphrase detection).
    Detection,
    /// Whether the second text follows from the first (natural language inference).
    Inference,
}

/// What a model is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Free text.
    Generation,
    /// One label out of a closed set.
    Classification,
}

/// The figure a task is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of examples whose predicted label is the gold label, 0..=1.
    Accuracy,
    /// Mean F-measure of the longest common subsequence with the reference, 0..=1.
    RougeL,
}

/// A task id that names no task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no task is called {given:?}; the tasks are summary, question, sentiment, detection, inference"
)]
pub struct UnknownTask {
    /// The id as it was given.
    pub given: String,
}

struct Profile {
    id: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    fields: &'static [&'static str],
    shots_evaluated: &'static [usize],
    shots_trained: &'static [usize],
    max_new_tokens: usize,
    datasets: &'static [DatasetRole],
}

const SUMMARY: Profile = Profile {
    id: "summary",
    kind: Kind::Generation,
    labels: &[],
    fields: &["input"],
    shots_evaluated: &[0, 1, 2, 4],
    shots_trained: &[1, 2],
    max_new_tokens: 60,
    datasets: dataset::SUMMARY,
};

const QUESTION: Profile = Profile {
    id: "question",
    fields: &["input", "answer"],
    datasets: dataset::QUESTION,
    ..SUMMARY
};

const SENTIMENT: Profile = Profile {
    id: "sentiment",
    kind: Kind::Classification,
    labels: &["positive", "negative"],
    fields: &["input"],
    shots_evaluated: &[0, 2, 4, 6],
    shots_trained: &[2, 4],
    // Labels are scored, not generated; when one is generated after all, it is a single word of a few tokens.
    max_new_tokens: 8,
    datasets: dataset::SENTIMENT,
};

const DETECTION: Profile = Profile {
    id: "detection",
    labels: &["yes", "no"],
    fields: &["input_1", "input_2"],
    datasets: dataset::DETECTION,
    ..SENTIMENT
};

const INFERENCE: Profile = Profile {
    id: "inference",
    labels: &["entailment", "neutral", "contradiction"],
    fields: &["input_1", "input_2"],
    shots_evaluated: &[0, 3, 5, 7],
    shots_trained: &[3, 5],
    datasets: dataset::INFERENCE,
    ..SENTIMENT
};

impl Task {
    /// Every task, generation first, in the order reports list them.
    pub const ALL: [Task; 5] = [
        Task::Summary,
        Task::Question,
        Task::Sentiment,
        Task::Detection,
        Task::Inference,
    ];

    /// The name of the task, which is also the name of its data folder.
    pub fn id(self) -> &'static str {
        self.profile().id
    }

    /// Whether the task asks for text or for a label.
    pub fn kind(self) -> Kind {
        self.profile().kind
    }

    /// ROUGE-L for generation, accuracy for classification.
    pub fn metric(self) -> Metric {
        match self.kind() {
            Kind::Generation => Metric::RougeL,
            Kind::Classification => Metric::Accuracy,
        }
    }

    /// The closed label set in the order of all label indices; empty for a generation task.
    pub fn labels(self) -> &'static [&'static str] {
        self.profile().labels
    }

    /// The index of a label in [`Task::labels`]; `None` for any other text.
    pub fn label_index(self, label: &str) -> Option<usize> {
        self.labels().iter().position(|known| *known == label)
    }

    /// The data set whose training file the task's adapters are tuned on.
    pub fn trained_on(self) -> &'static str {
        self.datasets()[0].id
    }

    /// The numbers of demonstrations an evaluation asks for by default, ascending, 0 included.
    pub fn shots_evaluated(self) -> &'static [usize] {
        self.profile().shots_evaluated
    }

    /// The numbers of demonstrations FTICL adapters are trained with.
    pub fn shots_trained(self) -> &'static [usize] {
        self.profile().shots_trained
    }

    /// How many tokens a generated answer may have.
    pub fn max_new_tokens(self) -> usize {
        self.profile().max_new_tokens
    }

    /// The task's data sets with their roles; the one it trains on is first.
    pub fn datasets(self) -> &'static [DatasetRole] {
        self.profile().datasets
    }

    /// The names of the input fields of one example, in the order a prompt shows them.
    pub fn fields(self) -> &'static [&'static str] {
        self.profile().fields
    }

    fn profile(self) -> &'static Profile {
        match self {
            Task::Summary => &SUMMARY,
            Task::Question => &QUESTION,
            Task::Sentiment => &SENTIMENT,
            Task::Detection => &DETECTION,
            Task::Inference => &INFERENCE,
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.id())
    }
}

impl FromStr for Task {
    type Err = UnknownTask;

    fn from_str(given: &str) -> Result<Self, UnknownTask> {
        Task::ALL
            .into_iter()
            .find(|task| task.id() == given)
            .ok_or_else(|| UnknownTask {
                given: given.to_owned(),
            })
    }
}

impl Kind {
    /// `generation` or `classification`.
    pub fn id(self) -> &'static str {
        match self {
            Kind::Generation => "generation",
            Kind::Classification => "classification",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.id())
    }
}

impl Metric {
    /// `accuracy` or `rouge_l`.
    pub fn id(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::RougeL => "rouge_l",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.id())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Kind, Task};
    use crate::dataset::Domain;

    #[test]
    fn the_facts_of_the_experiment() {
        let facts = Task::ALL.map(|task| {
            let datasets = task
                .datasets()
                .iter()
                .map(|role| format!("{} {}", role.id, role.domain));
            format!(
                "{task} {} {} {:?} on {} [{}] shots {:?} trained {:?}",
                task.kind(),
                task.metric(),
                task.labels(),
                task.trained_on(),
                datasets.collect::<Vec<_>>().join(", "),
                task.shots_evaluated(),
                task.shots_trained(),
            )
        });
        insta::assert_snapshot!(facts.join("\n"), @r#"
        summary generation rouge_l [] on xsum [xsum in, xlsum in, pdfs out, cnn out] shots [0, 1, 2, 4] trained [1, 2]
        question generation rouge_l [] on socialqa [socialqa in, tweetqa out, sciqa out] shots [0, 1, 2, 4] trained [1, 2]
        sentiment classification accuracy ["positive", "negative"] on amazon [amazon in, amazonfood in, yelp out, sst2 out] shots [0, 2, 4, 6] trained [2, 4]
        detection classification accuracy ["yes", "no"] on paws [paws in, qqp out, stsb out] shots [0, 2, 4, 6] trained [2, 4]
        inference classification accuracy ["entailment", "neutral", "contradiction"] on multinli [multinli in, multinli2 in, rte out, gptnli out] shots [0, 3, 5, 7] trained [3, 5]
        "#);
    }

    #[test]
    fn names_are_unique_and_the_training_set_is_in_domain() {
        let roles = || Task::ALL.into_iter().flat_map(Task::datasets);
        assert_eq!(
            roles().map(|role| role.id).collect::<HashSet<_>>().len(),
            18
        );
        for task in Task::ALL {
            assert_eq!(task.datasets()[0].domain, Domain::In);
            assert_eq!(task.labels().is_empty(), task.kind() == Kind::Generation);
        }
    }

    #[test]
    fn a_task_is_its_id_in_text_and_json() {
        for task in Task::ALL {
            assert_eq!(task.id().parse(), Ok(task));
            assert_eq!(serde_json::to_value(task).expect("a string"), task.id());
        }
        let error = "Sentiment".parse::<Task>().expect_err("ids are lower case");
        insta::assert_snapshot!(error, @r#"no task is called "Sentiment"; the tasks are summary, question, sentiment, detection, inference"#);
    }
}
