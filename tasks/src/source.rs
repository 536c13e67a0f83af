//! Where data files come from: the folder built into the program, or a folder on disk. Both have the paper's layout, and
//! nothing here looks inside a file.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

use crate::data_error::{DataError, FileRole};
use crate::task::Task;

static BUILT_IN: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/data");

/// The file of the prompts that take the place of the built-in ones.
pub(crate) const PROMPT_MAP: &str = "prompt_map.json";

/// How the names of files end: a JSON list, or one object a line.
const ENDINGS: [&str; 2] = [".json", ".jsonl"];

/// The test file the paper's data comes with; taken before any other test file of the data set.
const PAPER_TEST_SIZE: usize = 500;

/// The names of the files of one folder of data, read once; contents are read when asked for.
#[derive(Debug)]
pub(crate) struct Source {
    origin: Origin,
    /// Paths relative to the folder, with `/`.
    files: BTreeSet<String>,
}

#[derive(Debug)]
enum Origin {
    BuiltIn,
    Folder(PathBuf),
}

impl Source {
    /// The data set written for this project.
    pub(crate) fn built_in() -> Self {
        let mut files = BTreeSet::new();
        collect_built_in(&BUILT_IN, &mut files);
        Source {
            origin: Origin::BuiltIn,
            files,
        }
    }

    /// A folder on disk: its `prompt_map.json` and the JSON files of its task folders.
    pub(crate) fn folder(root: &Path) -> Result<Self, DataError> {
        if !root.is_dir() {
            return Err(DataError::NotADirectory {
                path: root.to_owned(),
            });
        }
        let mut files = BTreeSet::new();
        if root.join(PROMPT_MAP).is_file() {
            files.insert(PROMPT_MAP.to_owned());
        }
        for task in Task::ALL {
            for folder in [task.id().to_owned(), format!("{task}/few_shot")] {
                collect_folder(root, &folder, &mut files)?;
            }
        }
        Ok(Source {
            origin: Origin::Folder(root.to_owned()),
            files,
        })
    }

    /// Whether any file of the data set is here, whatever its role.
    pub(crate) fn has_dataset(&self, task: Task, dataset: &str) -> bool {
        self.sizes(task, dataset, FileRole::Test).next().is_some()
            || self.sizes(task, dataset, FileRole::Train).next().is_some()
            || self.demonstrations_file(task, dataset).is_some()
    }

    /// The test file: the one of the paper's size if it is here, else the largest.
    pub(crate) fn test_file(&self, task: Task, dataset: &str) -> Option<String> {
        let sizes: BTreeSet<usize> = self.sizes(task, dataset, FileRole::Test).collect();
        let size = sizes.get(&PAPER_TEST_SIZE).or(sizes.last())?;
        self.here(&sized_path(task, dataset, FileRole::Test, *size))
    }

    /// The file of demonstrations.
    pub(crate) fn demonstrations_file(&self, task: Task, dataset: &str) -> Option<String> {
        self.here(&demonstrations_path(task, dataset))
    }

    /// The file that is here of a JSON list and of one object a line; the list before the lines.
    fn here(&self, list: &str) -> Option<String> {
        let stem = list.strip_suffix(ENDINGS[0])?;
        let names = ENDINGS.iter().map(|ending| format!("{stem}{ending}"));
        names.into_iter().find(|name| self.files.contains(name))
    }

    /// The training file of the given size, or of the smallest size that is here.
    pub(crate) fn train_file(
        &self,
        task: Task,
        dataset: &str,
        size: Option<usize>,
    ) -> Option<String> {
        let sizes: BTreeSet<usize> = self.sizes(task, dataset, FileRole::Train).collect();
        let size = match size {
            Some(size) => sizes.get(&size),
            None => sizes.first(),
        }?;
        self.here(&sized_path(task, dataset, FileRole::Train, *size))
    }

    /// The sizes in the names of the data set's test or training files, in no order.
    pub(crate) fn sizes(
        &self,
        task: Task,
        dataset: &str,
        role: FileRole,
    ) -> impl Iterator<Item = usize> {
        let prefix = format!("{task}/{dataset}_{role}_");
        self.files.iter().filter_map(move |path| {
            let rest = path.strip_prefix(&prefix)?;
            let digits = ENDINGS
                .iter()
                .find_map(|ending| rest.strip_suffix(ending))?;
            // Only the canonical spelling, so that a size names one file.
            let size: usize = digits.parse().ok()?;
            (size.to_string() == digits).then_some(size)
        })
    }

    /// Whether the file is here.
    pub(crate) fn contains(&self, file: &str) -> bool {
        self.files.contains(file)
    }

    /// The contents of a file that is here.
    pub(crate) fn read(&self, file: &str) -> io::Result<Cow<'static, [u8]>> {
        match &self.origin {
            Origin::BuiltIn => BUILT_IN
                .get_file(file)
                .map(|file| Cow::Borrowed(file.contents()))
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, file.to_owned())),
            Origin::Folder(root) => fs_err::read(root.join(file)).map(Cow::Owned),
        }
    }

    /// The path of a file as messages name it.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        match &self.origin {
            Origin::BuiltIn => Path::new("built-in").join(file),
            Origin::Folder(root) => root.join(file),
        }
    }

    /// The folder as messages name it.
    pub(crate) fn describe(&self) -> String {
        match &self.origin {
            Origin::BuiltIn => "the built-in data".to_owned(),
            Origin::Folder(root) => root.display().to_string(),
        }
    }
}

/// The name of a file of this role, with the size or, where any would do, a placeholder.
pub(crate) fn expected_name(
    task: Task,
    dataset: &str,
    role: FileRole,
    size: Option<usize>,
) -> String {
    let size = size.map_or_else(|| "<N>".to_owned(), |size| size.to_string());
    match role {
        FileRole::Demonstrations => demonstrations_path(task, dataset),
        FileRole::Test | FileRole::Train => format!("{task}/{dataset}_{role}_{size}.json"),
    }
}

fn sized_path(task: Task, dataset: &str, role: FileRole, size: usize) -> String {
    expected_name(task, dataset, role, Some(size))
}

fn demonstrations_path(task: Task, dataset: &str) -> String {
    format!("{task}/few_shot/{dataset}_few_shot.json")
}

fn collect_built_in(folder: &Dir<'static>, files: &mut BTreeSet<String>) {
    files.extend(folder.files().filter_map(|file| {
        let components = file.path().iter().map(|part| part.to_str());
        Some(components.collect::<Option<Vec<&str>>>()?.join("/"))
    }));
    for inner in folder.dirs() {
        collect_built_in(inner, files);
    }
}

fn collect_folder(root: &Path, folder: &str, files: &mut BTreeSet<String>) -> io::Result<()> {
    let path = root.join(folder);
    if !path.is_dir() {
        return Ok(());
    }
    for entry in fs_err::read_dir(path)? {
        if let Some(name) = entry?
            .file_name()
            .to_str()
            .filter(|name| ENDINGS.iter().any(|ending| name.ends_with(ending)))
        {
            files.insert(format!("{folder}/{name}"));
        }
    }
    Ok(())
}
