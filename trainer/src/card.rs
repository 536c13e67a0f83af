//! The model card: what the adapter is for, what it was trained on and with, and what was held out.
//!
//! Belongs here: the text of `README.md`. The tables of a later evaluation are filled in by whoever runs it.

use std::fmt::Write;

use adapters::{Manifest, Version};
use tasks::{Kind, Task};

use crate::arguments::TrainArguments;
use crate::evaluation::HeldOutScore;

/// Everything the card tells.
pub(crate) struct Card<'a> {
    pub(crate) arguments: &'a TrainArguments,
    pub(crate) manifest: &'a Manifest,
    pub(crate) version: &'a Version,
    pub(crate) command_line: &'a str,
    pub(crate) parameters: usize,
    pub(crate) steps: usize,
    pub(crate) shortened: usize,
    pub(crate) seconds: f64,
    pub(crate) held_out: &'a [HeldOutScore],
}

impl Card<'_> {
    /// The whole file.
    pub(crate) fn render(&self) -> String {
        let mut text = self.heading();
        text += &self.training();
        text += &self.held_out();
        text += "## Evaluation\n\n\
            Not measured yet. In-domain, out-of-domain and cross-task figures belong here before this adapter meets users.\n\n\
            <!-- evaluation -->\n";
        text
    }

    fn heading(&self) -> String {
        let Self {
            arguments,
            manifest,
            version,
            ..
        } = self;
        let name = arguments
            .out
            .file_name()
            .map_or_else(|| "adapter".into(), |name| name.to_string_lossy());
        let task = arguments.task;
        let kind = match task.kind() {
            Kind::Classification => format!("classification into {}", manifest.labels.join(", ")),
            Kind::Generation => "generation".to_owned(),
        };
        let method = match manifest.shots {
            0 => "the examples as they are (FT)".to_owned(),
            shots => format!("the same {shots} demonstrations before every example (FTICL)"),
        };
        format!(
            "---\nbase_model: {base}\nlibrary_name: peft\ntags:\n- lora\n---\n\n# {name}\n\n\
             A LoRA adapter of {base} for the task *{task}* ({kind}), trained on {method}.\n\n\
             Version `{version}`, PEFT layout: the quickchange server loads this directory, and so does PEFT.\n\n",
            base = manifest.base_model,
        )
    }

    fn training(&self) -> String {
        let Self {
            arguments,
            manifest,
            ..
        } = self;
        let targets: Vec<&str> = arguments
            .targets
            .iter()
            .map(|target| target.peft_name())
            .collect();
        format!(
            "## Training\n\n```\n{command}\n```\n\n| | |\n|---|---|\n\
             | Training data | {data} |\n\
             | Examples | {examples} |\n\
             | Inputs cut to fit | {shortened} (longest sequence {max_length} tokens) |\n\
             | Prompt | {prompt} |\n\
             | Epochs, optimizer steps | {epochs}, {steps} |\n\
             | Batch | {batch_size} examples × {accumulate} accumulated |\n\
             | Learning rate | {learning_rate}, {warmup} warm-up steps, linear decay |\n\
             | Rank, alpha, dropout | {rank}, {alpha}, {dropout} |\n\
             | Targets | {targets} |\n\
             | Trained values | {parameters} |\n\
             | Weight decay, clipping | {weight_decay}, {clip} |\n\
             | Seed | {seed} |\n\
             | Time | {seconds:.0} s |\n\
             \nThe loss counts the tokens of the output and the end-of-turn token after it.\n\n",
            command = self.command_line,
            data = manifest.trained_on.as_deref().unwrap_or_default(),
            examples = manifest.train_examples.unwrap_or_default(),
            shortened = self.shortened,
            max_length = arguments.max_length,
            prompt = manifest.prompt,
            epochs = arguments.epochs,
            steps = self.steps,
            batch_size = arguments.batch_size,
            accumulate = arguments.accumulate,
            learning_rate = arguments.learning_rate,
            warmup = arguments.warmup,
            rank = arguments.rank,
            alpha = arguments.alpha,
            dropout = arguments.dropout,
            targets = targets.join(", "),
            parameters = self.parameters,
            weight_decay = arguments.weight_decay,
            clip = arguments.clip,
            seed = arguments.seed,
            seconds = self.seconds,
        )
    }

    fn held_out(&self) -> String {
        let Some(last) = self.held_out.last() else {
            return "## Held-out examples\n\nNone were held out.\n\n".to_owned();
        };
        let mut text = format!(
            "## Held-out examples\n\n{} examples of the training file that were not trained on. \
             This measures the fit to that data and says nothing of other domains.\n\n",
            last.examples
        );
        let labelled = last.accuracy.is_some();
        text += if labelled {
            "| epoch | loss | accuracy |\n|---|---|---|\n"
        } else {
            "| epoch | loss |\n|---|---|\n"
        };
        for (epoch, score) in self.held_out.iter().enumerate() {
            let accuracy = score
                .accuracy
                .map_or_else(String::new, |accuracy| format!(" {accuracy:.3} |"));
            write_line(
                &mut text,
                format_args!("| {} | {:.4} |{accuracy}", epoch, score.loss),
            );
        }
        text + "\nEpoch 0 is the base model before training.\n\n"
    }
}

fn write_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a string cannot fail");
}

/// The labels a manifest lists for a task.
pub(crate) fn labels(task: Task) -> Vec<String> {
    task.labels()
        .iter()
        .map(|&label| label.to_owned())
        .collect()
}
