//! The report for browsers: one page that fetches nothing, in the reader's light or dark. What stands on it is put together here; how it looks is in
//! `templates/`.

mod curves;
mod details;
mod facts;
mod figures;
mod heat_map;
mod labels;
mod summary;

use minijinja::{Environment, context};

use super::difference::Reference;
use super::models::models;
use crate::record::Evaluation;

const PAGE: &str = include_str!("../../templates/report.html");
const PARTS: &str = include_str!("../../templates/parts.html");
const STYLE: &str = include_str!("../../templates/report.css");

/// The report as a page that stands alone. It has no script, so a content security policy of styles and `data:` images is enough for it.
pub fn html(evaluation: &Evaluation) -> String {
    page(evaluation).expect("the templates are part of the program and fit what is put into them")
}

fn page(evaluation: &Evaluation) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.add_template("report.html", PAGE)?;
    environment.add_template("parts.html", PARTS)?;
    environment.add_template("report.css", STYLE)?;
    let models = models(&evaluation.cells);
    let labels = labels::Labels::new(&models);
    let maps = [Reference::Base, Reference::Other]
        .map(|reference| heat_map::heat_map(&models, &labels, reference));
    environment.get_template("report.html")?.render(context! {
        facts => facts::facts(evaluation),
        models => summary::summaries(&models, &labels),
        maps => maps.into_iter().flatten().collect::<Vec<_>>(),
        curves => curves::curves(&models, &labels),
        figures => figures::figures(&models, &labels),
        texts => details::texts(&models, &labels),
        choices => details::choices(&models, &labels),
    })
}

/// Numbers with a minus sign instead of a hyphen.
fn typographic(numbers: &str) -> String {
    numbers.replace('-', "\u{2212}")
}
