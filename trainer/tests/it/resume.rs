//! Trainings that do not run to their end at once: killed, stopped early, out of time, out of disk, out of range.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use trainer::{Ending, TrainerError};

use crate::workplace::Workplace;

const WEIGHTS: &str = "adapter_model.safetensors";
const FLAGS: &str =
    "--epochs 24 --lr 0.01 --batch-size 2 --held-out 2 --dropout 0.1 --checkpoint-every 3";

/// Runs the real command and kills it as soon as it says that it has done so many steps; false when it ended before.
fn killed(place: &Workplace, flags: &str, at_step: usize) -> bool {
    let mut trainer = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .arg("train")
        .args(place.flags(flags))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(trainer.stderr.take().unwrap()).lines();
    let said = format!("step {at_step} of 72");
    let interrupted = lines.map(Result::unwrap).any(|line| line.contains(&said));
    if interrupted {
        trainer.kill().unwrap();
    }
    let status = trainer.wait().unwrap();
    assert!(
        interrupted || status.success(),
        "the trainer failed: {status}"
    );
    interrupted
}

/// The log without what depends on the clock.
fn journal(place: &Workplace) -> Vec<serde_json::Value> {
    let text = String::from_utf8(place.written("metrics.jsonl")).unwrap();
    let entry = |line: &str| {
        let mut entry: serde_json::Value = serde_json::from_str(line).unwrap();
        entry.as_object_mut().unwrap().remove("seconds");
        entry
    };
    text.lines().map(entry).collect()
}

#[test]
fn a_training_killed_again_and_again_ends_in_the_same_bits() {
    let whole = Workplace::new();
    whole.run(FLAGS).unwrap();
    let place = Workplace::new();
    // Overwriting, in case a machine is so slow that a training ends before the kill reaches it.
    let flags = format!("{FLAGS} --resume --overwrite");
    for step in [10, 10, 30, 50] {
        assert!(killed(&place, &flags, step), "it ended before step {step}");
    }
    place.run(&flags).unwrap();
    assert_eq!(place.written(WEIGHTS), whole.written(WEIGHTS));
    assert_eq!(journal(&place), journal(&whole));
    assert!(!place.beside("checkpoint.safetensors").exists());
}

#[test]
fn out_of_time_leaves_an_adapter_and_a_checkpoint_that_goes_on() {
    let whole = Workplace::new();
    whole.run(FLAGS).unwrap();
    let place = Workplace::new();
    let report = place.run(&format!("{FLAGS} --max-minutes 1e-9")).unwrap();
    assert_eq!((report.ending, report.losses.len()), (Ending::OutOfTime, 1));
    assert_eq!(place.adapter().version, report.version);
    let refused = place.run(FLAGS).unwrap_err();
    assert!(
        matches!(refused, TrainerError::OutputExists { .. }),
        "{refused}"
    );
    let report = place.run(&format!("{FLAGS} --resume --overwrite")).unwrap();
    assert_eq!(report.ending, Ending::Complete);
    assert_eq!(place.written(WEIGHTS), whole.written(WEIGHTS));
    assert_eq!(journal(&place), journal(&whole));
}

#[test]
fn an_interrupted_training_is_neither_forgotten_nor_mixed_with_another() {
    let place = Workplace::new();
    assert!(killed(&place, FLAGS, 10));
    let refused = place.run(FLAGS).unwrap_err();
    assert!(
        matches!(refused, TrainerError::Interrupted { .. }),
        "{refused}"
    );
    let other = place
        .run(&format!("{FLAGS} --rank 4 --resume"))
        .unwrap_err();
    assert!(
        other
            .to_string()
            .contains("a training with rank 8, this one has 4"),
        "{other}"
    );
    let checkpoint = place.beside("checkpoint.safetensors");
    let mut bytes = fs_err::read(&checkpoint).unwrap();
    bytes.truncate(bytes.len() / 2);
    fs_err::write(&checkpoint, bytes).unwrap();
    let damaged = place.run(&format!("{FLAGS} --resume")).unwrap_err();
    assert!(
        matches!(damaged, TrainerError::Checkpoint { .. }),
        "{damaged}"
    );
    place.run(&format!("{FLAGS} --overwrite")).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_last_checkpoint_whole() {
    let place = Workplace::new();
    assert!(killed(&place, FLAGS, 10));
    let kept = fs_err::read(place.beside("checkpoint.safetensors")).unwrap();
    // Whatever is written to this device fails as on a full disk.
    let aside = place.beside("checkpoint.partial");
    let _ = fs_err::remove_file(&aside);
    std::os::unix::fs::symlink("/dev/full", &aside).unwrap();
    let error = place.run(&format!("{FLAGS} --resume")).unwrap_err();
    assert!(error.to_string().contains("No space left"), "{error}");
    let checkpoint = place.beside("checkpoint.safetensors");
    assert_eq!(fs_err::read(&checkpoint).unwrap(), kept);
    fs_err::remove_file(&aside).unwrap();
    let report = place.run(&format!("{FLAGS} --resume")).unwrap();
    assert_eq!(report.ending, Ending::Complete);
}

#[test]
fn training_stops_when_it_no_longer_helps_and_writes_the_best() {
    let flags = "--lr 0.05 --schedule constant --warmup 0 --batch-size 3 --held-out 2 --overwrite";
    let place = Workplace::new();
    let report = place
        .run(&format!("{flags} --epochs 60 --patience 2"))
        .unwrap();
    assert_eq!(report.ending, Ending::OutOfPatience);
    assert!(report.losses.len() < 2 * 60);
    let trained = &report.held_out[1..];
    let least = trained
        .iter()
        .min_by(|left, right| left.loss.total_cmp(&right.loss))
        .unwrap();
    assert_eq!(report.best_step, least.step);
    assert!(least.step < report.losses.len());
    let best = place.written(WEIGHTS);

    let epochs = least.step / 2;
    let shorter = place.run(&format!("{flags} --epochs {epochs}")).unwrap();
    assert_eq!(shorter.losses.len(), least.step);
    assert_eq!(place.written(WEIGHTS), best);
}

#[test]
fn a_loss_that_is_no_number_stops_with_the_step_and_the_batch() {
    let place = Workplace::new();
    let error = place
        .run("--epochs 3 --lr 1e30 --warmup 0 --batch-size 2 --held-out 2")
        .unwrap_err();
    let TrainerError::Diverged { step, examples, .. } = &error else {
        panic!("{error}");
    };
    assert!(*step >= 2 && examples.len() == 2, "{error}");
    assert!(
        error.to_string().contains("examples of the batch: "),
        "{error}"
    );
    assert!(!place.out().exists());
}
