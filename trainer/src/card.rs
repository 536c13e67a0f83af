//! The model card: what the adapter is for, what it was trained on and with, and what was held out.
//!
//! Belongs here: the text of `README.md`. The tables of a later evaluation are filled in by whoever runs it.

use std::fmt::Write;

use adapters::{Manifest, Version};
use tasks::{Kind, Task};

use crate::arguments::TrainArguments;
use crate::parameters::Target;
use crate::publication::{Finished, name_of};

/// Everything the card tells.
pub(crate) struct Card<'a> {
    pub(crate) arguments: &'a TrainArguments,
    pub(crate) manifest: &'a Manifest,
    pub(crate) version: &'a Version,
    pub(crate) command_line: &'a str,
    pub(crate) parameters: usize,
    pub(crate) finished: &'a Finished<'a>,
    pub(crate) shortened: usize,
}

impl Card<'_> {
    /// The whole file.
    pub(crate) fn render(&self) -> String {
        let mut text = self.heading();
        text += &self.training();
        text += &self.held_out();
        text += "## Evaluation\n\n\
            Not measured yet. In-domain, out-of-domain and cross-task figures belong here before this adapter meets users.\n";
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
            finished,
            ..
        } = self;
        let recipe = &arguments.recipe;
        let adapted: Vec<String> = recipe.adapted().iter().map(adapted).collect();
        format!(
            "## Training\n\n```\n{command}\n```\n\n| | |\n|---|---|\n\
             | Training data | {data} |\n\
             | Examples | {examples} |\n\
             | Inputs cut to fit | {shortened} (longest sequence {max_length} tokens) |\n\
             | Prompt | {prompt} |\n\
             | Epochs, optimizer steps | {epochs}, {steps} done, values of step {best_step} |\n\
             | Batch | {batch_size} examples × {accumulate} accumulated |\n\
             | Learning rate | {learning_rate}, {warmup} warm-up steps, then {schedule} |\n\
             | Alpha, dropout | {alpha}, {dropout} |\n\
             | Targets, rank and scale | {adapted} |\n\
             | Trained values | {parameters} |\n\
             | Weight decay, clipping | {weight_decay}, {clip} |\n\
             | Seed | {seed} |\n\
             | Time of the optimizer steps | {seconds:.0} s |\n\
             \nThe loss counts the tokens of the output and the end-of-turn token after it.\n\n",
            command = self.command_line,
            data = manifest.trained_on.as_deref().unwrap_or_default(),
            examples = manifest.train_examples.unwrap_or_default(),
            shortened = self.shortened,
            max_length = recipe.max_length,
            prompt = manifest.prompt,
            epochs = recipe.epochs,
            steps = finished.steps,
            best_step = finished.best_step,
            batch_size = recipe.batch_size,
            accumulate = recipe.accumulate,
            learning_rate = recipe.learning_rate,
            warmup = recipe.warmup,
            schedule = name_of(recipe.schedule),
            alpha = recipe.alpha,
            dropout = recipe.dropout,
            adapted = adapted.join(", "),
            parameters = self.parameters,
            weight_decay = recipe.weight_decay,
            clip = recipe.clip,
            seed = recipe.seed,
            seconds = finished.seconds,
        )
    }

    fn held_out(&self) -> String {
        let Some(last) = self.finished.held_out.last() else {
            return "## Held-out examples\n\nNone were held out.\n\n".to_owned();
        };
        let mut text = format!(
            "## Held-out examples\n\n{} examples of the training file that were not trained on. \
             This measures the fit to that data and says nothing of other domains.\n\n",
            last.examples
        );
        let labelled = last.accuracy.is_some();
        text += if labelled {
            "| step | loss | accuracy |\n|---|---|---|\n"
        } else {
            "| step | loss |\n|---|---|\n"
        };
        for score in self.finished.held_out {
            let accuracy = score
                .accuracy
                .map_or_else(String::new, |accuracy| format!(" {accuracy:.3} |"));
            write_line(
                &mut text,
                format_args!("| {} | {:.4} |{accuracy}", score.step, score.loss),
            );
        }
        text + "\nStep 0 is the base model before training.\n\n![Loss by step](loss.svg)\n\n"
    }
}

/// One projection as the card names it.
fn adapted(target: &Target) -> String {
    let name = target.projection.peft_name();
    format!("{name} {} × {}", target.rank, target.scale)
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
