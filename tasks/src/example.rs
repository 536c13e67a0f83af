//! One example of a task: its input fields and its gold output. Reading them from files is `records`' affair.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::task::Task;

/// The input fields of one example by name: `input`; `input` and `answer`; or `input_1` and `input_2`
/// (see [`Task::fields`]).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fields(pub BTreeMap<String, String>);

/// One example with its gold output: a label for classification, a reference text for generation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Example {
    /// The input fields.
    pub fields: Fields,
    /// The label or the reference text, verbatim from its file.
    pub output: String,
}

impl Fields {
    /// The one field `input`.
    pub fn input(text: impl Into<String>) -> Self {
        Fields::from([("input", text)])
    }

    /// The text of a field, if it is there.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The first field that `task` needs and these fields lack.
    pub fn missing(&self, task: Task) -> Option<&'static str> {
        task.fields()
            .iter()
            .copied()
            .find(|name| !self.0.contains_key(*name))
    }
}

impl<Name: Into<String>, Text: Into<String>, const COUNT: usize> From<[(Name, Text); COUNT]>
    for Fields
{
    fn from(pairs: [(Name, Text); COUNT]) -> Self {
        Fields(
            pairs
                .into_iter()
                .map(|(name, text)| (name.into(), text.into()))
                .collect(),
        )
    }
}
