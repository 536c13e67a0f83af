//! The picture of a training: loss by step, of the batches and of the held-out examples.

use std::path::Path;

use fs_err as fs;
use plotters::prelude::*;

use crate::error::TrainerError;
use crate::held_out::HeldOutScore;

/// Name of the picture inside the output directory.
pub(crate) const FILE_NAME: &str = "loss.svg";

/// In pixels.
const SIZE: (u32, u32) = (720, 400);
/// Weight of a new loss in the smoothed line: about the last twenty steps count.
const SMOOTHING: f64 = 0.1;
const FONT: (&str, u32) = ("sans-serif", 14);

/// Draws into the output directory.
pub(crate) fn write(
    out: &Path,
    losses: &[f64],
    held_out: &[HeldOutScore],
) -> Result<(), TrainerError> {
    let mut text = String::new();
    draw(&mut text, losses, held_out).map_err(|error| TrainerError::Picture(error.to_string()))?;
    Ok(fs::write(out.join(FILE_NAME), text)?)
}

fn draw(
    text: &mut String,
    losses: &[f64],
    held_out: &[HeldOutScore],
) -> Result<(), Box<dyn std::error::Error>> {
    let held_out: Vec<(f64, f64)> = held_out
        .iter()
        .map(|score| (score.step as f64, score.loss))
        .collect();
    let steps = |losses: Vec<f64>| (1..).map(f64::from).zip(losses);
    let largest = losses
        .iter()
        .chain(held_out.iter().map(|(_, loss)| loss))
        .fold(0f64, |largest, loss| largest.max(*loss));
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..losses.len() as f64, 0.0..1.05 * largest.max(1e-3))?;
    chart
        .configure_mesh()
        .x_desc("optimizer step")
        .y_desc("loss per completion token")
        .label_style(FONT)
        .draw()?;
    let lines = [
        ("batches", RGBColor(190, 205, 225), losses.to_vec()),
        ("batches, smoothed", RGBColor(40, 90, 160), smoothed(losses)),
    ];
    for (label, colour, losses) in lines {
        chart
            .draw_series(LineSeries::new(steps(losses), colour))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
    }
    if !held_out.is_empty() {
        let colour = RGBColor(200, 80, 30);
        chart
            .draw_series(LineSeries::new(held_out, colour.stroke_width(2)).point_size(3))?
            .label("held-out examples")
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font(FONT)
        .draw()?;
    area.present()?;
    Ok(())
}

/// An exponential moving average.
fn smoothed(losses: &[f64]) -> Vec<f64> {
    let mut mean = losses.first().copied().unwrap_or_default();
    losses
        .iter()
        .map(|loss| {
            mean += SMOOTHING * (loss - mean);
            mean
        })
        .collect()
}
