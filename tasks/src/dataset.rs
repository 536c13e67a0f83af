//! Which data sets a task has and what each is to an adapter of that task. Their examples are the `catalog`'s.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far a data set lies from what an adapter was trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Domain {
    /// The adapter's own task, from the domain it was trained on or one like it.
    In,
    /// The adapter's own task, from another domain.
    Out,
    /// Another task. A data set has this role only towards an adapter, never by itself.
    Cross,
}

/// A data set of a task and its role towards an adapter of that task: [`Domain::In`] or [`Domain::Out`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct DatasetRole {
    /// The name, unique over all tasks; files are `<id>_test_<N>.json` and the like.
    pub id: &'static str,
    /// In-domain or out-of-domain.
    pub domain: Domain,
}

impl Domain {
    /// `in`, `out` or `cross`.
    pub fn id(self) -> &'static str {
        match self {
            Domain::In => "in",
            Domain::Out => "out",
            Domain::Cross => "cross",
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.id())
    }
}

pub(crate) const SUMMARY: &[DatasetRole] = &[
    inside("xsum"),
    inside("xlsum"),
    outside("pdfs"),
    outside("cnn"),
];
pub(crate) const QUESTION: &[DatasetRole] =
    &[inside("socialqa"), outside("tweetqa"), outside("sciqa")];
pub(crate) const SENTIMENT: &[DatasetRole] = &[
    inside("amazon"),
    inside("amazonfood"),
    outside("yelp"),
    outside("sst2"),
];
pub(crate) const DETECTION: &[DatasetRole] = &[inside("paws"), outside("qqp"), outside("stsb")];
pub(crate) const INFERENCE: &[DatasetRole] = &[
    inside("multinli"),
    inside("multinli2"),
    outside("rte"),
    outside("gptnli"),
];

const fn inside(id: &'static str) -> DatasetRole {
    DatasetRole {
        id,
        domain: Domain::In,
    }
}

const fn outside(id: &'static str) -> DatasetRole {
    DatasetRole {
        id,
        domain: Domain::Out,
    }
}
