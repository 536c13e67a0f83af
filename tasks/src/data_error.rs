//! What can be wrong with a data folder, each error naming the file and the record.

use std::fmt;
use std::path::PathBuf;

use crate::prompts::PromptError;
use crate::task::Task;

/// The part a file plays in a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileRole {
    /// The examples an evaluation scores: `<dataset>_test_<N>.json`.
    Test,
    /// The demonstrations: `few_shot/<dataset>_few_shot.json`.
    Demonstrations,
    /// The examples an adapter is trained on: `<dataset>_train_<N>.json`.
    Train,
}

/// Why examples or prompts could not be had. Records are counted from 0, as `idx` does in the paper's files.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The data folder is not a folder.
    #[error("the data folder {} is not a directory", path.display())]
    NotADirectory {
        /// As it was given.
        path: PathBuf,
    },
    /// The data folder has nothing in the layout this crate reads.
    #[error(
        "the data folder {} holds none of the known data sets; it must hold files such as \
         sentiment/amazon_test_500.json and sentiment/few_shot/amazon_few_shot.json, or a prompt_map.json",
        path.display()
    )]
    NothingFound {
        /// As it was given.
        path: PathBuf,
    },
    /// A file or folder could not be read; the message names it.
    #[error(transparent)]
    Read(#[from] std::io::Error),
    /// The name is none of the task's data sets.
    #[error("task {task} has no data set {dataset:?}; it has {known}")]
    UnknownDataset {
        /// The task asked for.
        task: Task,
        /// The name asked for.
        dataset: String,
        /// The names there are.
        known: String,
    },
    /// The data set, wherever it comes from, lacks a file of this role.
    #[error("data set {task}/{dataset} has no {role} file in {origin}; expected {expected}")]
    NoFile {
        /// The task asked for.
        task: Task,
        /// The data set asked for.
        dataset: String,
        /// Which file is missing.
        role: FileRole,
        /// The data folder, or the words for the built-in data.
        origin: String,
        /// The file name that would have been taken.
        expected: String,
    },
    /// Not a JSON list of objects.
    #[error("{}: {}not valid: {message}; expected a JSON list of objects, or one object a line", path.display(), at(*record))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The record being read, or `None` before the first and after the last.
        record: Option<usize>,
        /// What the JSON parser says, with line and column.
        message: String,
    },
    /// A record lacks a field.
    #[error("{}: record {record} has no field {field:?}; {task} records have {}", path.display(), record_fields(*task))]
    MissingField {
        /// The file.
        path: PathBuf,
        /// The record.
        record: usize,
        /// The field it lacks.
        field: &'static str,
        /// The task whose records these are.
        task: Task,
    },
    /// A field is not a string.
    #[error("{}: record {record} has {found} in field {field:?}; expected a string", path.display())]
    NotAString {
        /// The file.
        path: PathBuf,
        /// The record.
        record: usize,
        /// The field.
        field: &'static str,
        /// The JSON type found.
        found: &'static str,
    },
    /// The output of a classification record is not one of the task's labels.
    #[error("{}: record {record} has the label {label:?}; {task} has {}", path.display(), task.labels().join(", "))]
    UnknownLabel {
        /// The file.
        path: PathBuf,
        /// The record.
        record: usize,
        /// The label found.
        label: String,
        /// The task whose labels are meant.
        task: Task,
    },
    /// Two records with one id.
    #[error("{}: record {record} has the {field} {id}, which record {first} has too; ids must differ", path.display())]
    DuplicateId {
        /// The file.
        path: PathBuf,
        /// The later record.
        record: usize,
        /// The earlier one.
        first: usize,
        /// The field that holds the id.
        field: &'static str,
        /// The id, as JSON.
        id: String,
    },
    /// A name that no data set may have.
    #[error(
        "{name:?} is no name for a data set; it must be up to 64 letters, digits, dots, hyphens and underscores, the first a letter or a digit"
    )]
    InvalidName {
        /// As it was given.
        name: String,
    },
    /// A name that is taken.
    #[error("there is a data set {name} already, {of}; choose another name")]
    NameTaken {
        /// The name.
        name: String,
        /// Which one it is.
        of: &'static str,
    },
    /// A data set that says of itself that it is of another task.
    #[error(
        "the domain of a data set must be in or out; it is cross to adapters of other tasks anyway"
    )]
    CrossRole,
    /// A file has no record that counts.
    #[error("{}: no examples ({dropped} dropped for the gold label \"-\")", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// How many records had the gold label `-`.
        dropped: usize,
    },
    /// More demonstrations are asked for than the file holds.
    #[error("{}: {wanted} demonstrations wanted, the file has {present}", path.display())]
    TooFewDemonstrations {
        /// The file.
        path: PathBuf,
        /// How many it has.
        present: usize,
        /// How many were asked for.
        wanted: usize,
    },
    /// The prompts of the data folder cannot be used.
    #[error("{}: {source}", path.display())]
    Prompts {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PromptError,
    },
}

impl DataError {
    /// A stable name for the error in snake case.
    pub fn code(&self) -> &'static str {
        match self {
            DataError::NotADirectory { .. } => "data_not_a_directory",
            DataError::NothingFound { .. } => "data_nothing_found",
            DataError::Read(_) => "data_unreadable",
            DataError::UnknownDataset { .. } => "unknown_dataset",
            DataError::NoFile { .. } => "dataset_file_missing",
            DataError::Malformed { .. } => "dataset_malformed",
            DataError::MissingField { .. } => "dataset_missing_field",
            DataError::NotAString { .. } => "dataset_not_a_string",
            DataError::UnknownLabel { .. } => "dataset_unknown_label",
            DataError::DuplicateId { .. } => "dataset_duplicate_id",
            DataError::InvalidName { .. } => "invalid_dataset_name",
            DataError::NameTaken { .. } => "dataset_name_taken",
            DataError::CrossRole => "invalid_domain",
            DataError::Empty { .. } => "dataset_empty",
            DataError::TooFewDemonstrations { .. } => "too_few_demonstrations",
            DataError::Prompts { .. } => "prompt_map_invalid",
        }
    }
}

impl DataError {
    /// What to blame in a data set that was sent: a part, a record of it by number, the record's field.
    pub fn blame(&self) -> Option<String> {
        let at = |path: &PathBuf, record: &usize, field: &str| {
            format!("{}[{record}].{field}", path.display())
        };
        match self {
            DataError::Malformed { path, record, .. } => Some(match record {
                Some(record) => format!("{}[{record}]", path.display()),
                None => path.display().to_string(),
            }),
            DataError::MissingField {
                path,
                record,
                field,
                ..
            }
            | DataError::NotAString {
                path,
                record,
                field,
                ..
            }
            | DataError::DuplicateId {
                path,
                record,
                field,
                ..
            } => Some(at(path, record, field)),
            DataError::UnknownLabel { path, record, .. } => Some(at(path, record, "output")),
            DataError::Empty { path, .. } | DataError::TooFewDemonstrations { path, .. } => {
                Some(path.display().to_string())
            }
            DataError::InvalidName { .. } | DataError::NameTaken { .. } => Some("name".to_owned()),
            DataError::CrossRole => Some("domain".to_owned()),
            DataError::NotADirectory { .. }
            | DataError::NothingFound { .. }
            | DataError::Read(_)
            | DataError::UnknownDataset { .. }
            | DataError::NoFile { .. }
            | DataError::Prompts { .. } => None,
        }
    }
}

impl fmt::Display for FileRole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            FileRole::Test => "test",
            FileRole::Demonstrations => "few_shot",
            FileRole::Train => "train",
        })
    }
}

fn at(record: Option<usize>) -> String {
    record.map_or_else(String::new, |record| format!("record {record} "))
}

fn record_fields(task: Task) -> String {
    format!("{}, output", task.fields().join(", "))
}
