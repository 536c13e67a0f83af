//! The command from its arguments to the directory it writes, on a tiny random model and data written by the test.

use std::path::{Path, PathBuf};

use adapters::{Adapter, AdapterFiles, Limits, Method, Projection};
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

struct Workplace {
    folder: tempfile::TempDir,
    model: PathBuf,
}

impl Workplace {
    fn new() -> Self {
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

    fn out(&self) -> PathBuf {
        self.folder.path().join("adapter")
    }

    fn arguments(&self, flags: &str) -> TrainArguments {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let fixed = [
            "trainer",
            "--task",
            "sentiment",
            "--threads",
            "2",
            "--train-size",
            "8",
        ]
        .map(str::to_owned);
        let paths = [
            "--model".to_owned(),
            path(&self.model),
            "--data".to_owned(),
            path(&self.folder.path().join("data")),
            "--out".to_owned(),
            path(&self.out()),
        ];
        let line = fixed
            .into_iter()
            .chain(paths)
            .chain(flags.split_whitespace().map(str::to_owned));
        Line::try_parse_from(line).unwrap().arguments
    }

    fn run(&self, flags: &str) -> Result<TrainingReport, TrainerError> {
        run(&self.arguments(flags))
    }

    fn adapter(&self) -> Adapter {
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

const OVERFIT: &str = "--epochs 30 --lr 0.02 --batch-size 4 --held-out 2";

#[test]
fn a_few_examples_are_learnt_and_the_directory_loads() {
    let place = Workplace::new();
    let report = place.run(OVERFIT).unwrap();
    let (first, last) = (report.losses[0], *report.losses.last().unwrap());
    assert!(
        last < 0.2 * first,
        "the loss fell from {first} to {last} only"
    );
    assert_eq!(report.held_out.len(), 31);

    let adapter = place.adapter();
    assert_eq!(adapter.version.to_string(), report.version.to_string());
    assert_eq!(adapter.modules.len(), 2 * 7);
    assert_eq!(
        (adapter.modules[0].rank, adapter.modules[0].scale),
        (8, 2.0)
    );
    assert!(
        adapter
            .modules
            .iter()
            .all(|module| module.b.iter().any(|value| *value != 0.0))
    );
    assert_eq!(adapter.manifest.method, Method::Ft);
    assert_eq!(adapter.manifest.labels, ["positive", "negative"]);
    assert_eq!(
        (
            adapter.manifest.task.as_deref(),
            adapter.manifest.train_examples
        ),
        (Some("sentiment"), Some(6))
    );

    let log = fs_err::read_to_string(place.out().join("training_log.jsonl")).unwrap();
    let entries: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        entries
            .iter()
            .filter(|entry| entry["event"] == "step")
            .count(),
        report.losses.len()
    );
    assert_eq!(
        entries
            .iter()
            .filter(|entry| entry["event"] == "held_out")
            .count(),
        31
    );
    let card = fs_err::read_to_string(place.out().join("README.md")).unwrap();
    assert!(
        card.contains(&report.version.to_string()) && card.contains("--lr 0.02"),
        "{card}"
    );
    assert!(
        !card.contains(place.folder.path().to_str().unwrap()),
        "the card names a path of this machine"
    );
}

#[test]
fn the_same_seed_gives_the_same_adapter_and_another_does_not() {
    let place = Workplace::new();
    let run = |seed: usize| {
        place
            .run(&format!(
                "--epochs 2 --batch-size 4 --held-out 2 --overwrite --seed {seed}"
            ))
            .unwrap();
        place
            .adapter()
            .modules
            .into_iter()
            .flat_map(|module| [module.a, module.b])
            .collect::<Vec<_>>()
    };
    let first = run(7);
    assert_eq!(first, run(7));
    assert_ne!(first, run(8));
}

#[test]
fn demonstrations_are_recorded_and_only_the_targets_trained() {
    let place = Workplace::new();
    let flags = "--method fticl --shots 2 --epochs 2 --batch-size 6 --held-out 2 --targets v_proj,down_proj --rank 3";
    let report = place.run(flags).unwrap();
    assert!(
        report.tokens_per_second > 1.5 * report.rows_per_second,
        "the demonstrations were not shared"
    );
    let adapter = place.adapter();
    assert_eq!(
        (adapter.manifest.method, adapter.manifest.shots),
        (Method::Fticl, 2)
    );
    let trained: Vec<Projection> = adapter
        .modules
        .iter()
        .map(|module| module.projection)
        .collect();
    assert_eq!(
        trained,
        [
            Projection::Value,
            Projection::Down,
            Projection::Value,
            Projection::Down
        ]
    );
}

#[test]
fn accumulated_batches_and_split_passes_take_the_steps_of_one_large_batch() {
    let place = Workplace::new();
    let losses = |flags: &str| {
        place
            .run(&format!("{flags} --epochs 3 --held-out 2 --overwrite"))
            .unwrap()
            .losses
    };
    let whole = losses("--batch-size 6");
    for flags in [
        "--batch-size 2 --accumulate 3",
        "--batch-size 6 --rows-per-pass 40",
    ] {
        for (whole, split) in whole.iter().zip(losses(flags)) {
            assert!(
                (whole - split).abs() < 1e-3 * whole,
                "{flags}: {split} against {whole}"
            );
        }
    }
}

#[test]
fn long_inputs_are_cut_and_long_targets_refused() {
    let place = Workplace::new();
    let tokenizer = engine::Tokenizer::load(&place.model).unwrap();
    let length = |text: &str| tokenizer.encode(text, false).len();
    let longest = length("### Input:\nthis is bad\n### Sentiment:") + length("negative") + 1;
    let report = place
        .run(&format!(
            "--epochs 1 --held-out 2 --max-length {}",
            longest - 1
        ))
        .unwrap();
    assert!(
        (1..8).contains(&report.shortened),
        "{} inputs were cut",
        report.shortened
    );
    let report = place.run("--epochs 1 --held-out 2 --overwrite").unwrap();
    assert_eq!(report.shortened, 0);
    let error = place
        .run("--epochs 1 --held-out 2 --overwrite --max-length 5")
        .unwrap_err();
    assert!(
        matches!(error, TrainerError::ExampleTooLong { limit: 5, .. }),
        "{error}"
    );
}

#[test]
fn what_cannot_train_is_refused_before_training() {
    let place = Workplace::new();
    let message = |flags: &str| place.run(flags).unwrap_err().to_string();
    assert_eq!(
        message("--shots 2"),
        "--shots is 2; expected 0 with --method ft; use --method fticl"
    );
    assert_eq!(
        message("--lr 0"),
        "--lr is 0; expected a number above 0, such as 5e-4"
    );
    assert_eq!(message("--epochs 0"), "--epochs is 0; expected at least 1");
    assert!(
        message("--held-out 8").ends_with(
            "holds 8 examples, 8 of them held out; at least one must remain for training"
        )
    );
    fs_err::create_dir_all(place.out()).unwrap();
    fs_err::write(place.out().join("adapter_config.json"), "{}").unwrap();
    assert!(message("--held-out 2").contains("already holds an adapter"));
}
