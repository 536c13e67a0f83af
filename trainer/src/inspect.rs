//! `trainer inspect`: what an adapter is, and how far it moves the base, layer by layer.

use std::fmt::Write;

use adapters::Projection;
use clap::Args;
use serde_json::json;

use crate::distance::{Distance, LayerDistance};
use crate::error::TrainerError;
use crate::opened::{AdapterArguments, Opened};

/// The flags of `trainer inspect`.
#[derive(Args, Clone, Debug)]
pub struct InspectArguments {
    /// Which adapter
    #[command(flatten)]
    pub adapter: AdapterArguments,

    /// One JSON object instead of tables
    #[arg(long)]
    pub json: bool,
}

/// The text that the command prints.
///
/// # Errors
/// What is wrong with the adapter or the model file.
pub fn inspect(arguments: &InspectArguments) -> Result<String, TrainerError> {
    let opened = Opened::open(&arguments.adapter)?;
    let distance = Distance::of(&opened.weights()?, &opened.adapter.modules);
    if arguments.json {
        let object = json!({
            "version": opened.adapter.version.to_string(),
            "manifest": opened.adapter.manifest,
            "projections": projections(&opened),
            "distance": distance,
        });
        return Ok(serde_json::to_string_pretty(&object).map_err(std::io::Error::from)?);
    }
    Ok(tables(&opened, &distance))
}

fn tables(opened: &Opened, distance: &Distance) -> String {
    let (adapter, manifest) = (&opened.adapter, &opened.adapter.manifest);
    let mut text = String::new();
    let mut line = |text_of: std::fmt::Arguments<'_>| {
        writeln!(text, "{text_of}").expect("writing to a string cannot fail");
    };
    line(format_args!("version       {}", adapter.version));
    line(format_args!("base          {}", opened.base.name));
    let task = manifest.task.as_deref().unwrap_or("not stated");
    line(format_args!("task, method  {task}, {}", manifest.method));
    let trained_on = manifest.trained_on.as_deref().unwrap_or("not stated");
    line(format_args!("trained on    {trained_on}"));
    if let Some(domain) = &manifest.domain {
        let examples = domain.examples;
        line(format_args!("profile of    {examples} training inputs"));
    }
    let values: usize = adapter
        .modules
        .iter()
        .map(|module| module.a.len() + module.b.len())
        .sum();
    line(format_args!("values        {values}"));
    line(format_args!(
        "projections   {}",
        projections(opened).join(", ")
    ));
    line(format_args!(
        "\nlayer      ‖A‖      ‖B‖     ‖ΔW‖  ‖ΔW‖/‖W‖  mean |ΔW|"
    ));
    let rows = distance.layers.iter().enumerate();
    for (layer, own) in rows {
        line(format_args!("{layer:>5} {}", row(own)));
    }
    line(format_args!("  all {}", row(&distance.all)));
    text
}

fn row(own: &LayerDistance) -> String {
    format!(
        "{:>8.3} {:>8.3} {:>8.3} {:>9.5} {:>10.3e}",
        own.a,
        own.b,
        own.delta,
        own.relative(),
        own.mean_absolute_change
    )
}

/// Each adapted projection with its rank and scale, as they are in its first layer, and in how many layers it is.
fn projections(opened: &Opened) -> Vec<String> {
    let modules = &opened.adapter.modules;
    let describe = |projection: Projection| {
        let mut own = modules
            .iter()
            .filter(|module| module.projection == projection);
        let first = own.next()?;
        Some(format!(
            "{} (rank {}, scale {}, {} layers)",
            projection.peft_name(),
            first.rank,
            first.scale,
            1 + own.count()
        ))
    };
    Projection::ALL.into_iter().filter_map(describe).collect()
}
