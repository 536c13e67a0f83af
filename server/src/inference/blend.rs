//! Blends that requests ask for: checked, registered beside the adapters, made when they are needed.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::web::Data;
use adapters::{ActivePointer, BlendError, Entry, Hold, Summary, Version, blend_version};
use engine::PreparedAdapter;

use super::named::Named;
use super::target::{BlendPart, Target};
use crate::access::Admission;
use crate::error::ApiError;
use crate::loading::residency::{self, Origin};
use crate::loading::same_model;
use crate::state::State;

/// Blends that are remembered while nobody uses them.
const BLENDS: usize = 1024;

impl Target {
    /// The blend with these weights, in memory when it is returned.
    pub(super) async fn blend(
        state: &Data<State>,
        requested: &str,
        weights: &BTreeMap<String, f64>,
        key: &str,
    ) -> Result<Self, ApiError> {
        if !matches!(Named::resolve(state, requested, None)?, Named::Base) {
            return Err(ApiError::invalid(
                "adapter_weights",
                format!(
                    "`model` is {requested:?} and `adapter_weights` names adapters too; leave one out"
                ),
            ));
        }
        BlendError::check_weights(weights)?;
        let mut parts = Vec::new();
        for (name, weight) in weights {
            match Named::resolve(state, name, Some(key))? {
                Named::Adapter(hold) => parts.push((hold, *weight)),
                Named::Base => {
                    return Err(ApiError::invalid(
                        "adapter_weights",
                        format!(
                            "`adapter_weights` has a weight for {name:?}, which is the base model; it always counts whole"
                        ),
                    ));
                }
            }
        }
        check_bases(&parts)?;
        let hold = hold_blend(state, &parts)?;
        let origin = parts
            .iter()
            .map(|(part, weight)| (part.name().to_owned(), version_of(part), *weight))
            .collect();
        let lease = residency::lease(state, hold, Origin::Blend(origin)).await?;
        Ok(Self {
            model: match requested {
                "" => state.served_name().to_owned(),
                named => named.to_owned(),
            },
            lease: Some(lease),
            admission: Admission::default(),
            blend: parts
                .iter()
                .map(|(part, weight)| BlendPart {
                    name: part.name().to_owned(),
                    version: version_of(part).to_string(),
                    weight: *weight,
                })
                .collect(),
            deadline: None,
            seed: Arc::default(),
        })
    }
}

/// A hold on a blend, which is registered beside the adapters when it is new.
fn hold_blend(
    state: &State,
    parts: &[(Hold<PreparedAdapter>, f64)],
) -> Result<Hold<PreparedAdapter>, ApiError> {
    let versions: Vec<_> = parts
        .iter()
        .map(|(part, weight)| (version_of(part), *weight))
        .collect();
    let name: Vec<String> = parts
        .iter()
        .map(|(part, weight)| format!("{weight}*{}", part.name()))
        .collect();
    let (name, version) = (name.join(" + "), blend_version(&versions));
    if let Ok(hold) = state.blends.hold_version(&name, version.as_str()) {
        return Ok(hold);
    }
    forget_idle_blends(state);
    let (first, _) = &parts[0];
    let summary = Summary {
        version: version.clone(),
        ..first.summary().clone()
    };
    let pointer = ActivePointer::first(version.clone(), summary.created);
    state.blends.publish(&name, [summary], (pointer, None))?;
    Ok(state.blends.hold_version(&name, version.as_str())?)
}

/// Keeps clients who try many weights from filling the memory with names.
fn forget_idle_blends(state: &State) {
    let known = state.blends.list();
    if known.len() < BLENDS {
        return;
    }
    let idle = |entry: &&Entry| entry.versions.iter().all(|version| version.in_flight == 0);
    for entry in known.iter().filter(idle) {
        // Somebody else may have removed it; it is gone either way.
        let _ = state.blends.remove(&entry.name);
    }
}

/// Refuses adapters that say they were made for different base models.
fn check_bases(parts: &[(Hold<PreparedAdapter>, f64)]) -> Result<(), BlendError> {
    let mut named = parts
        .iter()
        .map(|(part, _)| (part.name(), part.summary().base_model.as_str()))
        .filter(|(_, base)| !base.is_empty());
    let Some((first, first_base)) = named.next() else {
        return Ok(());
    };
    match named.find(|(_, base)| !same_model(base, first_base)) {
        None => Ok(()),
        Some((second, second_base)) => Err(BlendError::BasesDiffer {
            first: first.to_owned(),
            first_base: first_base.to_owned(),
            second: second.to_owned(),
            second_base: second_base.to_owned(),
        }),
    }
}

fn version_of(hold: &Hold<PreparedAdapter>) -> Version {
    hold.summary().version.clone()
}
