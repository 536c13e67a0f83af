//! Data folders for tests: every data set of every task, small, in the paper's layout.

use std::path::Path;

use serde_json::{Value, json};

use crate::task::Task;

/// How many test examples each data set of [`write_everything`] has.
pub(crate) const TEST_EXAMPLES: usize = 5;

/// How many demonstrations each data set of [`write_everything`] has; the most that any default asks for is 7.
pub(crate) const DEMONSTRATIONS: usize = 8;

/// Writes all data sets under `root`, with a training file of 6 and one of 12 examples for each task.
pub(crate) fn write_everything(root: &Path) {
    for task in Task::ALL {
        for role in task.datasets() {
            write_records(
                root,
                task,
                &format!("{}_test_500", role.id),
                &records(task, role.id, TEST_EXAMPLES),
            );
            write_records(
                root,
                task,
                &format!("few_shot/{}_few_shot", role.id),
                &records(task, &format!("shown {}", role.id), DEMONSTRATIONS),
            );
        }
        for size in [6, 12] {
            let name = format!("{}_train_{size}", task.trained_on());
            write_records(root, task, &name, &records(task, "taught", size));
        }
    }
}

/// `count` well-formed records whose texts begin with `tag`; labels take turns.
pub(crate) fn records(task: Task, tag: &str, count: usize) -> Vec<Value> {
    (0..count)
        .map(|index| {
            let mut record = json!({ "idx": index });
            for field in task.fields() {
                record[*field] = format!("{tag} {field} {index}").into();
            }
            record["output"] = match task.labels() {
                [] => format!("{tag} output {index}").into(),
                labels => labels[index % labels.len()].into(),
            };
            record
        })
        .collect()
}

/// Writes `<task>/<name>.json`.
pub(crate) fn write_records(root: &Path, task: Task, name: &str, records: &[Value]) {
    let json = serde_json::to_vec(records).expect("plain JSON values");
    write_file(root, &format!("{task}/{name}.json"), &json);
}

/// Writes any file under `root`, making its folders.
pub(crate) fn write_file(root: &Path, path: &str, contents: &[u8]) {
    let path = root.join(path);
    fs_err::create_dir_all(path.parent().expect("a file has a folder")).expect("folders");
    fs_err::write(path, contents).expect("file");
}
