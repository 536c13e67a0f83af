//! The reader's verdict: of each adapter, what it gains, keeps and loses in each domain.

use serde::Serialize;

use super::labels::{Labels, ModelLabel};
use super::typographic;
use crate::report::difference::Reference;
use crate::report::models::{Model, other};
use crate::report::words::{DomainWords, by_domain, of_bare_labels, of_one_label};

/// What is said of one adapter.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    label: ModelLabel,
    comparisons: Vec<Comparison>,
    remarks: Vec<String>,
}

/// An adapter beside what it is compared with.
#[derive(Debug, Serialize)]
struct Comparison {
    /// Empty for the base.
    against: String,
    domains: Vec<DomainWords>,
}

/// The summaries of all adapters; the base has none.
pub(super) fn summaries(models: &[Model], labels: &Labels) -> Vec<Summary> {
    let pairs = models.iter().zip(&labels.models);
    let adapters = pairs.filter(|(model, _)| model.version.is_some());
    adapters
        .map(|(model, label)| summary(model, label))
        .collect()
}

fn summary(model: &Model, label: &ModelLabel) -> Summary {
    let comparisons = [Reference::Base, Reference::Other].map(|reference| Comparison {
        against: name_of(model, reference),
        domains: domains(model, reference),
    });
    let compared = comparisons
        .into_iter()
        .filter(|comparison| !comparison.domains.is_empty());
    Summary {
        label: label.clone(),
        comparisons: compared.collect(),
        remarks: [of_one_label(&model.cells), of_bare_labels(&model.cells)]
            .into_iter()
            .flatten()
            .collect(),
    }
}

/// The name of what a model is compared with, empty for the base.
pub(super) fn name_of(model: &Model, reference: Reference) -> String {
    match reference {
        Reference::Base => String::new(),
        Reference::Other => other(&model.cells).to_owned(),
    }
}

fn domains(model: &Model, reference: Reference) -> Vec<DomainWords> {
    let mut domains = by_domain(&model.cells, reference);
    let phrases = domains.iter_mut().flat_map(|domain| &mut domain.phrases);
    for place in phrases.flat_map(|phrase| &mut phrase.places) {
        place.numbers = typographic(&place.numbers);
    }
    domains
}
