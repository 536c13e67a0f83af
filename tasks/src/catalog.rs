//! The examples and prompts at hand: the built-in data, overlaid by a folder of the user's in the same layout, and beside them the
//! data sets that users added.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crate::data_error::{DataError, FileRole};
use crate::dataset::Domain;
use crate::example::Example;
use crate::prompts::Prompts;
use crate::records::{self, Ids, Records};
use crate::source::{PROMPT_MAP, Source, expected_name};
use crate::task::Task;
use crate::uploaded::{UploadedDataset, content_digest};

/// All data sets, built-in or the user's.
///
/// A data set found in the user's folder takes the place of the built-in one of the same name as a whole: its test file
/// is never mixed with built-in demonstrations. File names are read once, contents each time they are asked for.
#[derive(Debug)]
pub struct Catalog {
    built_in: Source,
    folder: Option<Source>,
    prompts: Prompts,
    sizes: OnceLock<HashMap<(Task, &'static str), usize>>,
    /// By name. Held for a look-up or a change only.
    uploaded: RwLock<BTreeMap<String, Arc<UploadedDataset>>>,
}

/// A data set of a task, wherever it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetEntry {
    /// Its name, unique over all tasks.
    pub id: String,
    /// What it is to an adapter of its task.
    pub domain: Domain,
    /// Whether a user added it.
    pub uploaded: bool,
    /// How many demonstrations a user added with it; `None` for those of the experiment, whose files are counted when they are read.
    pub demonstrations: Option<usize>,
}

/// The examples an adapter is trained on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainingSet {
    /// In file order.
    pub examples: Vec<Example>,
    /// The file they come from; under `built-in` for the data of the program itself.
    pub path: PathBuf,
    /// How many records of the file were left out because their gold label is `-`.
    pub dropped: usize,
}

impl Catalog {
    /// The built-in data, overlaid by the folder `data` if one is given.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read, holds nothing of the known layout, or has an unusable `prompt_map.json`. Its data
    /// sets are not read before they are asked for.
    pub fn open(data: Option<&Path>) -> Result<Catalog, DataError> {
        let folder = data.map(Source::folder).transpose()?;
        let mut prompts = Prompts::built_in();
        if let (Some(path), Some(folder)) = (data, &folder) {
            if folder.contains(PROMPT_MAP) {
                prompts = read_prompts(folder)?;
            } else if !dataset_ids().any(|(task, id)| folder.has_dataset(task, id)) {
                return Err(DataError::NothingFound {
                    path: path.to_owned(),
                });
            }
        }
        Ok(Catalog {
            built_in: Source::built_in(),
            folder,
            prompts,
            sizes: OnceLock::new(),
            uploaded: RwLock::default(),
        })
    }

    /// The data sets of a task: those of the experiment first, then users', by name.
    pub fn datasets(&self, task: Task) -> Vec<DatasetEntry> {
        let roles = task.datasets().iter().map(|role| DatasetEntry {
            id: role.id.to_owned(),
            domain: role.domain,
            uploaded: false,
            demonstrations: None,
        });
        let uploaded = self.uploaded();
        let own = uploaded.iter().filter(|dataset| dataset.task == task);
        let own = own.map(|dataset| DatasetEntry {
            id: dataset.id.clone(),
            domain: dataset.domain,
            uploaded: true,
            demonstrations: Some(dataset.demonstrations.len()),
        });
        roles.chain(own).collect()
    }

    /// Whether a user's data set would be new; the same content under the same name is not.
    ///
    /// # Errors
    ///
    /// [`DataError::NameTaken`] when another data set has the name.
    pub fn accepts(&self, dataset: &UploadedDataset) -> Result<bool, DataError> {
        let taken = |of| DataError::NameTaken {
            name: dataset.id.clone(),
            of,
        };
        if dataset_ids().any(|(_, id)| id == dataset.id) {
            return Err(taken("one of the experiment's"));
        }
        let uploaded = self.uploaded.read().unwrap_or_else(PoisonError::into_inner);
        match uploaded.get(&dataset.id) {
            Some(known) if **known == *dataset => Ok(false),
            Some(_) => Err(taken("with other content")),
            None => Ok(true),
        }
    }

    /// Adds a user's data set; returns whether it is new.
    ///
    /// # Errors
    ///
    /// As [`Catalog::accepts`].
    pub fn add(&self, dataset: UploadedDataset) -> Result<bool, DataError> {
        let new = self.accepts(&dataset)?;
        if new {
            let mut uploaded = self
                .uploaded
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            uploaded.insert(dataset.id.clone(), Arc::new(dataset));
        }
        Ok(new)
    }

    /// Takes a user's data set away; returns it if it was there.
    pub fn remove(&self, id: &str) -> Option<Arc<UploadedDataset>> {
        let mut uploaded = self
            .uploaded
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        uploaded.remove(id)
    }

    /// The users' data sets, by name.
    pub fn uploaded(&self) -> Vec<Arc<UploadedDataset>> {
        let uploaded = self.uploaded.read().unwrap_or_else(PoisonError::into_inner);
        uploaded.values().cloned().collect()
    }

    fn uploaded_of(&self, task: Task, id: &str) -> Option<Arc<UploadedDataset>> {
        let uploaded = self.uploaded.read().unwrap_or_else(PoisonError::into_inner);
        let found = uploaded.get(id).filter(|dataset| dataset.task == task);
        found.cloned()
    }

    /// The examples an evaluation scores, in file order, those with the gold label `-` dropped.
    ///
    /// Of several test files the one named `_test_500`, as in the paper, is taken, else the one of the largest number.
    ///
    /// # Errors
    ///
    /// When the data set is unknown or has no test file, or a record of it cannot be used.
    pub fn test(&self, task: Task, dataset: &str) -> Result<Vec<Example>, DataError> {
        if let Some(uploaded) = self.uploaded_of(task, dataset) {
            return Ok(uploaded.examples.clone());
        }
        let (source, file) = self.locate(task, dataset, FileRole::Test, None)?;
        Ok(read_records(source, task, &file)?.examples)
    }

    /// The first `shots` demonstrations of the data set; none need exist for 0.
    ///
    /// # Errors
    ///
    /// As [`Catalog::test`], and when there are fewer than `shots`.
    pub fn demonstrations(
        &self,
        task: Task,
        dataset: &str,
        shots: usize,
    ) -> Result<Vec<Example>, DataError> {
        let (mut examples, path) = match self.uploaded_of(task, dataset) {
            Some(uploaded) => (
                uploaded.demonstrations.clone(),
                Path::new("uploaded").join(dataset),
            ),
            None => {
                self.check_dataset(task, dataset)?;
                if shots == 0 {
                    return Ok(Vec::new());
                }
                let (source, file) = self.locate(task, dataset, FileRole::Demonstrations, None)?;
                (
                    read_records(source, task, &file)?.examples,
                    source.path(&file),
                )
            }
        };
        if examples.len() < shots {
            return Err(DataError::TooFewDemonstrations {
                path,
                present: examples.len(),
                wanted: shots,
            });
        }
        examples.truncate(shots);
        Ok(examples)
    }

    /// The training examples of the task's own training set; `size` is the number in the file's name, `None` the smallest
    /// there is.
    ///
    /// # Errors
    ///
    /// As [`Catalog::test`]; a missing size names those that are there.
    pub fn train(&self, task: Task, size: Option<usize>) -> Result<TrainingSet, DataError> {
        let (source, file) = self.locate(task, task.trained_on(), FileRole::Train, size)?;
        let Records { examples, dropped } = read_records(source, task, &file)?;
        Ok(TrainingSet {
            examples,
            path: source.path(&file),
            dropped,
        })
    }

    /// The sizes of the training files of the task, ascending.
    pub fn train_sizes(&self, task: Task) -> Vec<usize> {
        let dataset = task.trained_on();
        let source = self.source(task, dataset);
        let mut sizes: Vec<usize> = source.sizes(task, dataset, FileRole::Train).collect();
        sizes.sort_unstable();
        sizes
    }

    /// Whether the data set has a test file.
    pub fn present(&self, task: Task, dataset: &str) -> bool {
        self.uploaded_of(task, dataset).is_some()
            || self.locate(task, dataset, FileRole::Test, None).is_ok()
    }

    /// How many test examples the data set has, those without a gold label left out; 0 when it is absent or unusable.
    /// Counted when first asked for.
    pub fn size(&self, task: Task, dataset: &str) -> usize {
        if let Some(uploaded) = self.uploaded_of(task, dataset) {
            return uploaded.examples.len();
        }
        let sizes = self.sizes.get_or_init(|| {
            dataset_ids()
                .filter_map(|(task, id)| Some(((task, id), self.test(task, id).ok()?.len())))
                .collect()
        });
        let role = task.datasets().iter().find(|role| role.id == dataset);
        role.and_then(|role| sizes.get(&(task, role.id)).copied())
            .unwrap_or(0)
    }

    /// SHA-256 of the data set's test examples and demonstrations, hex: what they are, whatever files they come from.
    ///
    /// # Errors
    ///
    /// As [`Catalog::test`]; demonstrations that are missing count as none.
    pub fn digest(&self, task: Task, dataset: &str) -> Result<String, DataError> {
        if let Some(uploaded) = self.uploaded_of(task, dataset) {
            return Ok(uploaded.digest());
        }
        let examples = self.test(task, dataset)?;
        let demonstrations = match self.locate(task, dataset, FileRole::Demonstrations, None) {
            Ok((source, file)) => read_records(source, task, &file)?.examples,
            Err(_) => Vec::new(),
        };
        Ok(content_digest(&examples, &demonstrations))
    }

    /// The prompts of the data folder if it has any, else the built-in ones.
    pub fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    fn check_dataset(&self, task: Task, dataset: &str) -> Result<(), DataError> {
        if task.datasets().iter().any(|role| role.id == dataset) {
            return Ok(());
        }
        let known = self.datasets(task).into_iter().map(|entry| entry.id);
        Err(DataError::UnknownDataset {
            task,
            dataset: dataset.to_owned(),
            known: known.collect::<Vec<_>>().join(", "),
        })
    }

    fn source(&self, task: Task, dataset: &str) -> &Source {
        self.folder
            .as_ref()
            .filter(|folder| folder.has_dataset(task, dataset))
            .unwrap_or(&self.built_in)
    }

    fn locate(
        &self,
        task: Task,
        dataset: &str,
        role: FileRole,
        size: Option<usize>,
    ) -> Result<(&Source, String), DataError> {
        self.check_dataset(task, dataset)?;
        let source = self.source(task, dataset);
        let file = match role {
            FileRole::Test => source.test_file(task, dataset),
            FileRole::Demonstrations => source.demonstrations_file(task, dataset),
            FileRole::Train => source.train_file(task, dataset, size),
        };
        match file {
            Some(file) => Ok((source, file)),
            None => Err(DataError::NoFile {
                task,
                dataset: dataset.to_owned(),
                role,
                origin: source.describe(),
                expected: self.expected(task, dataset, role, size),
            }),
        }
    }

    fn expected(&self, task: Task, dataset: &str, role: FileRole, size: Option<usize>) -> String {
        let name = expected_name(task, dataset, role, size);
        let sizes = match role {
            FileRole::Train => self.train_sizes(task),
            FileRole::Test | FileRole::Demonstrations => Vec::new(),
        };
        if sizes.is_empty() {
            return name;
        }
        let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
        format!(
            "{name}, or one of the sizes there are: {}",
            sizes.join(", ")
        )
    }
}

fn dataset_ids() -> impl Iterator<Item = (Task, &'static str)> {
    Task::ALL
        .into_iter()
        .flat_map(|task| task.datasets().iter().map(move |role| (task, role.id)))
}

fn read_records(source: &Source, task: Task, file: &str) -> Result<Records, DataError> {
    records::parse(task, &source.path(file), &source.read(file)?, Ids::Ignored)
}

fn read_prompts(source: &Source) -> Result<Prompts, DataError> {
    Prompts::parse(&source.read(PROMPT_MAP)?).map_err(|error| DataError::Prompts {
        path: source.path(PROMPT_MAP),
        source: error,
    })
}

#[cfg(test)]
mod tests;
