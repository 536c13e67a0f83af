//! What a model's figures say, in words: what it gains, keeps and loses in each domain, judged by intervals.

use std::collections::BTreeMap;

use serde::Serialize;

use super::difference::{Difference, Reference, signed};
use super::models::{collapse, gives_one_label};
use crate::cell_report::{CellReport, Verdict};

/// The domains of cells, with the words for them.
pub(super) const DOMAINS: [(&str, &str); 3] = [
    ("in", "In domain"),
    ("out", "Out of domain"),
    ("cross", "Across tasks"),
];

const VERDICTS: [Verdict; 3] = [Verdict::Gains, Verdict::Keeps, Verdict::Loses];

/// From this share on, outputs that are a bare label are worth a sentence.
const WORTH_SAYING: f64 = 0.1;

/// What the cells of one domain say.
#[derive(Debug, Serialize)]
pub(super) struct DomainWords {
    /// `In domain`, `Out of domain` or `Across tasks`.
    pub(super) title: &'static str,
    /// How many cells were compared.
    pub(super) cells: usize,
    /// One for each verdict that occurs: gains first, loses last.
    pub(super) phrases: Vec<Phrase>,
}

/// Where one verdict holds.
#[derive(Debug, Serialize)]
pub(super) struct Phrase {
    /// `gains`, `keeps` or `loses`.
    pub(super) verdict: &'static str,
    /// In how many cells.
    pub(super) cells: usize,
    /// On which data sets.
    pub(super) places: Vec<Place>,
}

/// A data set on which a verdict holds.
#[derive(Debug, Serialize)]
pub(super) struct Place {
    pub(super) dataset: String,
    /// ` with 0 and 2 demonstrations`, where that tells cells apart.
    pub(super) settings: String,
    /// One difference with its interval, or the least and the greatest of several.
    pub(super) numbers: String,
}

impl DomainWords {
    /// `gains on amazon (+0.120, +0.072 to +0.168); keeps on yelp (…)`.
    pub(super) fn text(&self) -> String {
        let phrases = self.phrases.iter().map(|phrase| {
            let places = phrase
                .places
                .iter()
                .map(|place| format!("{}{} ({})", place.dataset, place.settings, place.numbers));
            format!(
                "{} on {}",
                phrase.verdict,
                listed(&places.collect::<Vec<_>>())
            )
        });
        phrases.collect::<Vec<_>>().join("; ")
    }

    /// `gains in 7, keeps in 1 of 8 cells`.
    pub(super) fn counts(&self) -> String {
        let counts =
            (self.phrases.iter()).map(|phrase| format!("{} in {}", phrase.verdict, phrase.cells));
        let counts = counts.collect::<Vec<_>>().join(", ");
        format!("{counts} of {} cell{}", self.cells, plural(self.cells))
    }
}

/// What a model's cells say in each domain that has any.
pub(super) fn by_domain(cells: &[&CellReport], reference: Reference) -> Vec<DomainWords> {
    let domain = |(id, title): (&str, &'static str)| {
        let compared: Vec<(&CellReport, Difference)> = (cells.iter())
            .filter(|cell| cell.domain == id)
            .filter_map(|cell| Some((*cell, reference.difference(cell)?)))
            .collect();
        let phrases = VERDICTS.map(|verdict| phrase(verdict, &compared));
        (!compared.is_empty()).then(|| DomainWords {
            title,
            cells: compared.len(),
            phrases: phrases.into_iter().flatten().collect(),
        })
    };
    DOMAINS.into_iter().filter_map(domain).collect()
}

fn phrase(verdict: Verdict, compared: &[(&CellReport, Difference)]) -> Option<Phrase> {
    let told_apart = compared
        .iter()
        .any(|(cell, _)| setting(cell) != setting(compared[0].0));
    let prompts = compared.iter().any(|(cell, _)| cell.prompt != 0);
    let mut datasets: Vec<&str> = Vec::new();
    let judged = || {
        compared
            .iter()
            .filter(|(_, found)| found.verdict == verdict)
    };
    for (cell, _) in judged() {
        if !datasets.contains(&cell.dataset.as_str()) {
            datasets.push(&cell.dataset);
        }
    }
    let places = datasets.into_iter().map(|dataset| {
        let (cells, found): (Vec<&CellReport>, Vec<Difference>) = judged()
            .filter(|(cell, _)| cell.dataset == dataset)
            .copied()
            .unzip();
        Place {
            dataset: dataset.to_owned(),
            settings: match told_apart {
                true => format!(" {}", demonstrations(&cells, prompts)),
                false => String::new(),
            },
            numbers: numbers(&found),
        }
    });
    let places: Vec<Place> = places.collect();
    (!places.is_empty()).then(|| Phrase {
        verdict: verdict.word(),
        cells: judged().count(),
        places,
    })
}

fn setting(cell: &CellReport) -> (usize, usize) {
    (cell.shots, cell.prompt)
}

fn numbers(found: &[Difference]) -> String {
    if let [only] = found {
        return only.text();
    }
    let deltas = || found.iter().map(|difference| difference.delta);
    let least = deltas().fold(f64::INFINITY, f64::min);
    let greatest = deltas().fold(f64::NEG_INFINITY, f64::max);
    format!("differences from {} to {}", signed(least), signed(greatest))
}

/// `without demonstrations`, `with 1 demonstration`, `with 0 and 2 demonstrations`; if other prompts are about, ` in prompt 0` too.
fn demonstrations(cells: &[&CellReport], prompts: bool) -> String {
    let with = |shots: &[usize]| match shots {
        [0] => "without demonstrations".to_owned(),
        [only] => format!("with {only} demonstration{}", plural(*only)),
        several => {
            let several: Vec<String> = several.iter().map(ToString::to_string).collect();
            format!("with {} demonstrations", listed(&several))
        }
    };
    let mut by_prompt: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for cell in cells {
        let prompt = if prompts { cell.prompt } else { 0 };
        by_prompt.entry(prompt).or_default().push(cell.shots);
    }
    let of_prompts = by_prompt.iter().map(|(prompt, shots)| match prompts {
        true => format!("{} in prompt {prompt}", with(shots)),
        false => with(shots),
    });
    listed(&of_prompts.collect::<Vec<_>>())
}

/// Where a classifier does not tell examples apart; `None` if it does everywhere.
pub(super) fn of_one_label(cells: &[&CellReport]) -> Option<String> {
    let found: Vec<&CellReport> = (cells.iter().copied())
        .filter(|cell| gives_one_label(cell))
        .collect();
    (!found.is_empty()).then(|| {
        format!(
            "It gives every example the same label on {}: the accuracy there is that label's share, and says nothing of the adapter.",
            listed(&by_dataset(&found, |_| String::new()))
        )
    })
}

/// Where texts were asked for and bare labels came; `None` if that is rare.
pub(super) fn of_bare_labels(cells: &[&CellReport]) -> Option<String> {
    let share = |cell: &CellReport| collapse(cell).unwrap_or(0.0);
    let found: Vec<&CellReport> = (cells.iter().copied())
        .filter(|cell| share(cell) >= WORTH_SAYING)
        .collect();
    let percent = |cells: &[&CellReport]| {
        let shares = || cells.iter().map(|cell| 100.0 * share(cell));
        let least = shares().fold(f64::INFINITY, f64::min);
        let greatest = shares().fold(0.0, f64::max);
        match format!("{least:.0}") == format!("{greatest:.0}") {
            true => format!(" ({least:.0} %)"),
            false => format!(" ({least:.0} to {greatest:.0} %)"),
        }
    };
    (!found.is_empty()).then(|| {
        format!(
            "Where texts are asked for it answers with a bare label on {}.",
            listed(&by_dataset(&found, percent))
        )
    })
}

/// The data sets of some cells, each with the settings of its cells and what else is to be said of them.
fn by_dataset(cells: &[&CellReport], more: impl Fn(&[&CellReport]) -> String) -> Vec<String> {
    let prompts = cells.iter().any(|cell| cell.prompt != 0);
    let mut places: Vec<(&str, Vec<&CellReport>)> = Vec::new();
    for cell in cells {
        match places
            .iter_mut()
            .find(|(dataset, _)| *dataset == cell.dataset)
        {
            Some((_, known)) => known.push(cell),
            None => places.push((&cell.dataset, vec![cell])),
        }
    }
    let place = |(dataset, cells): &(&str, Vec<&CellReport>)| {
        format!(
            "{dataset} {}{}",
            demonstrations(cells, prompts),
            more(cells)
        )
    };
    places.iter().map(place).collect()
}

/// `a, b and c`.
pub(super) fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [only] => only.clone(),
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}

/// The ending of a noun that is counted.
pub(super) fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
