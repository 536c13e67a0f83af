//! Data sets: records as a user adds them, a folder in the layout of the experiment, and its prompts.
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tasks::{Catalog, Domain, Prompts, Task, UploadedDataset, context};

/// A folder with one file of every kind that can be there.
struct Folder {
    root: PathBuf,
    test: PathBuf,
    demonstrations: PathBuf,
    prompts: PathBuf,
}

fn folder() -> &'static Folder {
    static FOLDER: OnceLock<Folder> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let root = fuzz::scratch().join("data");
        fs_err::create_dir_all(root.join("sentiment/few_shot")).expect("a writable folder");
        let folder = Folder {
            test: root.join("sentiment/sst2_test_500.json"),
            demonstrations: root.join("sentiment/few_shot/sst2_few_shot.jsonl"),
            prompts: root.join("prompt_map.json"),
            root,
        };
        fs_err::write(&folder.test, "[]").expect("a writable folder");
        fs_err::write(&folder.demonstrations, "").expect("a writable folder");
        folder
    })
}

// The first byte chooses; records, demonstrations and prompts follow, a zero byte between them.
fuzz_target!(|data: &[u8]| {
    let (choices, rest) = fuzz::choice(data);
    let [records, demonstrations, prompts] = fuzz::parts(rest);
    let task = Task::ALL[usize::from(choices & 7) % Task::ALL.len()];
    let domain = if choices & 8 == 0 {
        Domain::In
    } else {
        Domain::Out
    };
    if choices & 16 != 0 {
        in_a_folder(records, demonstrations, prompts);
        return;
    }
    let shown = (!demonstrations.is_empty()).then_some(demonstrations);
    let parsed = Prompts::parse(prompts);
    let prompts = parsed.unwrap_or_else(|_| Prompts::built_in());
    if let Ok(dataset) = UploadedDataset::parse("fuzzed", (task, domain), records, shown) {
        assert!(!dataset.examples.is_empty());
        for prompt in 0..prompts.count() {
            let shots = context(&prompts, prompt, task, &dataset.demonstrations);
            shots.expect("a record that was accepted has every field");
            for example in &dataset.examples {
                let text = prompts.render(prompt, task, &example.fields);
                text.expect("a record that was accepted has every field");
            }
        }
        let kept = serde_json::to_vec(&dataset).expect("plain data");
        let again: UploadedDataset = serde_json::from_slice(&kept).expect("own output");
        assert_eq!(again.digest(), dataset.digest());
    }
});

fn in_a_folder(records: &[u8], demonstrations: &[u8], prompts: &[u8]) {
    let folder = folder();
    fs_err::write(&folder.test, records).expect("a writable folder");
    fs_err::write(&folder.demonstrations, demonstrations).expect("a writable folder");
    if prompts.is_empty() {
        let _ = fs_err::remove_file(&folder.prompts);
    } else {
        fs_err::write(&folder.prompts, prompts).expect("a writable folder");
    }
    let Ok(catalog) = Catalog::open(Some(&folder.root)) else {
        return;
    };
    let _ = catalog.test(Task::Sentiment, "sst2");
    let _ = catalog.demonstrations(Task::Sentiment, "sst2", 2);
    let _ = catalog.digest(Task::Sentiment, "sst2");
}
