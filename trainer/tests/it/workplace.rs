//! A folder with a tiny random model and a data set, and the trainer run on them.

use std::path::{Path, PathBuf};

use adapters::{Adapter, AdapterFiles, Limits};
use clap::Parser;
use engine::DenseWeights;
use engine::gguf::GgufFile;
use engine::testing::TinyModel;
use serde_json::{Value, json};
use trainer::model::TrainingModel;
use trainer::{TrainArguments, TrainerError, TrainingReport, run};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: TrainArguments,
}

const LIMITS: Limits = Limits {
    max_rank: 16,
    max_bytes: 1 << 20,
};

pub(crate) struct Workplace {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) model: PathBuf,
}

impl Workplace {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = TinyModel::write(folder.path(), 11);
        let data = folder.path().join("data/sentiment");
        fs_err::create_dir_all(data.join("few_shot")).unwrap();
        let example = |(index, text): (usize, &str)| {
            let output = if text.contains("good") {
                "positive"
            } else {
                "negative"
            };
            json!({"idx": index, "input": text, "output": output})
        };
        let texts = [
            "good tea",
            "a bad cup",
            "the good one",
            "bad and sad",
            "so good",
            "this is bad",
            "good good",
            "bad",
        ];
        let records: Vec<Value> = texts.into_iter().enumerate().map(example).collect();
        let write = |name: &str, records: &[Value]| {
            fs_err::write(data.join(name), serde_json::to_vec(records).unwrap()).unwrap();
        };
        write("amazon_train_8.json", &records);
        write("amazon_test_2.json", &records[..2]);
        write("few_shot/amazon_few_shot.json", &records[2..6]);
        Self { folder, model }
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.folder.path().join("adapter")
    }

    /// The flags of a training here, without the name of the command.
    pub(crate) fn flags(&self, more: &str) -> Vec<String> {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let data = self.folder.path().join("data");
        let fixed = ["--task", "sentiment", "--threads", "2", "--train-size", "8"];
        let paths = [
            ("--model", &self.model),
            ("--data", &data),
            ("--out", &self.out()),
        ];
        let paths = paths.map(|(flag, value)| [flag.to_owned(), path(value)]);
        fixed
            .map(str::to_owned)
            .into_iter()
            .chain(paths.into_iter().flatten())
            .chain(more.split_whitespace().map(str::to_owned))
            .collect()
    }

    pub(crate) fn arguments(&self, more: &str) -> TrainArguments {
        let line = std::iter::once("trainer".to_owned()).chain(self.flags(more));
        Line::try_parse_from(line).unwrap().arguments
    }

    /// A file of the directory that was written.
    pub(crate) fn written(&self, name: &str) -> Vec<u8> {
        fs_err::read(self.out().join(name)).unwrap()
    }

    /// A file beside that directory.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("adapter.{name}"))
    }

    pub(crate) fn run(&self, flags: &str) -> Result<TrainingReport, TrainerError> {
        run(&self.arguments(flags))
    }

    /// The folder of the data set.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn adapter(&self) -> Adapter {
        let file = GgufFile::open(&self.model).unwrap();
        let base = TrainingModel::new(DenseWeights::from_gguf(&file).unwrap()).base(&file.digest());
        Adapter::parse(
            &AdapterFiles::read(&self.out(), &LIMITS).unwrap(),
            &base,
            &LIMITS,
        )
        .unwrap()
    }
}
