//! The command from its arguments to the directory it writes, on a tiny random model and data written by the test.

use adapters::{Method, Projection};
use serde_json::Value;
use trainer::TrainerError;

use crate::workplace::Workplace;

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

    let log = fs_err::read_to_string(place.out().join("metrics.jsonl")).unwrap();
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
    let curve = fs_err::read_to_string(place.out().join("loss.svg")).unwrap();
    assert!(curve.starts_with("<svg") && curve.contains("held-out examples"));
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
        "--lr is 0; expected a number above 0, such as 1e-3"
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

#[test]
fn training_goes_on_from_an_adapter_that_fits() {
    let place = Workplace::new();
    let flags = "--batch-size 6 --held-out 2 --overwrite";
    let first = place
        .run(&format!("{flags} --epochs 20 --lr 0.02"))
        .unwrap();
    let begun = place.folder.path().join("begun");
    fs_err::rename(place.out(), &begun).unwrap();
    let from = format!("{flags} --epochs 1 --from {}", begun.display());
    let second = place.run(&from).unwrap();
    assert!(second.losses[0] < 0.5 * first.losses[0]);
    let refused = place
        .run(&format!("{from} --rank 4"))
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("an adapter with the targets, ranks and scales"),
        "{refused}"
    );
}
