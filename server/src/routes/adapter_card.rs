//! What an adapter looks like in answers.

use adapters::{Cause, Entry, Method, VersionStatus};
use serde::Serialize;
use utoipa::ToSchema;

use crate::evaluations::gate::GateReport;
use crate::loading::{Examined, LoadReport, Loaded, Outcome};
use crate::state::State;

/// The adapters.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdapterList {
    /// `list`.
    pub object: &'static str,
    /// By name.
    pub data: Vec<AdapterCard>,
}

/// One adapter.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdapterCard {
    /// Its name.
    pub id: String,
    /// `adapter`.
    pub object: &'static str,
    /// The version that requests by name get.
    pub active_version: String,
    /// The version a rollback would return to.
    pub previous_version: Option<String>,
    /// The version on trial, and its share of the requests.
    pub canary: Option<CanaryCard>,
    /// Whether the active version stays in memory, used or not.
    pub pinned: bool,
    /// The latest activations, oldest first.
    pub history: Vec<ActivationCard>,
    /// Every version that is retained, in memory or not.
    pub versions: Vec<VersionCard>,
    /// Seconds since 1970.
    pub created: u64,
}

/// A version on trial.
#[derive(Debug, Serialize, ToSchema)]
pub struct CanaryCard {
    /// SHA-256 of its content, hex.
    pub version: String,
    /// Its share of the requests by name, in percent.
    pub percent: f64,
}

/// A moment at which a version became active.
#[derive(Debug, Serialize, ToSchema)]
pub struct ActivationCard {
    /// SHA-256 of its content, hex.
    pub version: String,
    /// Seconds since 1970.
    pub activated: u64,
    /// What made it active: `load`, `activate`, `promote` or `rollback`.
    #[schema(value_type = String)]
    pub cause: Cause,
}

/// One version of an adapter.
#[derive(Debug, Serialize, ToSchema)]
pub struct VersionCard {
    /// SHA-256 of its content, hex.
    pub version: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Size of its weights file.
    pub bytes: u64,
    /// Whether requests by name get it.
    pub active: bool,
    /// The task it was trained for.
    pub task: Option<String>,
    /// `ft`, `fticl` or `external`.
    #[schema(value_type = String)]
    pub method: Method,
    /// Largest rank of its modules.
    pub rank: usize,
    /// LoRA's alpha.
    pub alpha: f64,
    /// Modules of each layer that it changes.
    pub target_modules: Vec<String>,
    /// The base model it was trained on, as it says.
    pub base_model: String,
    /// Whether it is in memory; if not, it is loaded for the first request that needs it.
    pub resident: bool,
    /// What loading it found.
    pub report: Option<LoadReport>,
    /// Requests that use it.
    pub in_flight: usize,
    /// Evaluations of exactly this version.
    pub evaluations: Vec<String>,
}

/// An adapter that was just loaded.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoadedAdapter {
    /// The adapter.
    #[serde(flatten)]
    pub adapter: AdapterCard,
    /// What loading found.
    pub report: LoadReport,
}

/// An adapter whose version was changed.
#[derive(Debug, Serialize, ToSchema)]
pub struct GatedAdapter {
    /// The adapter.
    #[serde(flatten)]
    pub adapter: AdapterCard,
    /// What the gate found, when there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateReport>,
}

/// What loading an adapter would do.
#[derive(Debug, Serialize, ToSchema)]
pub struct DryRun {
    /// `dry_run`.
    pub object: &'static str,
    /// The name it would get.
    pub id: String,
    /// SHA-256 of its content, hex.
    pub version: String,
    /// What would happen to the name.
    pub would: Outcome,
    /// What was found.
    pub report: LoadReport,
}

impl AdapterCard {
    /// Describes a registry entry.
    pub fn of(state: &State, entry: &Entry) -> Self {
        Self {
            id: entry.name.clone(),
            object: "adapter",
            active_version: entry.active().to_string(),
            previous_version: entry.pointer.previous.as_ref().map(ToString::to_string),
            canary: entry.pointer.canary.as_ref().map(|canary| CanaryCard {
                version: canary.version.to_string(),
                percent: canary.percent,
            }),
            pinned: entry.pointer.pinned,
            history: ActivationCard::all(entry),
            versions: entry
                .versions
                .iter()
                .map(|status| VersionCard::of(state, status))
                .collect(),
            created: entry.created,
        }
    }
}

impl ActivationCard {
    /// The activations of a name that are remembered, oldest first.
    pub fn all(entry: &Entry) -> Vec<Self> {
        let activations = entry.pointer.history.iter();
        activations
            .map(|activation| Self {
                version: activation.version.to_string(),
                activated: activation.activated,
                cause: activation.cause,
            })
            .collect()
    }
}

impl VersionCard {
    fn of(state: &State, status: &VersionStatus) -> Self {
        let summary = &status.summary;
        Self {
            version: summary.version.to_string(),
            created: summary.created,
            bytes: summary.bytes,
            active: status.active,
            task: summary.task.clone(),
            method: summary.method,
            rank: summary.rank,
            alpha: summary.alpha,
            target_modules: summary.target_modules.clone(),
            base_model: summary.base_model.clone(),
            resident: status.resident_bytes > 0,
            report: summary.proof.as_ref().map(LoadReport::of),
            in_flight: status.in_flight,
            evaluations: state.evaluations.of_version(summary.version.as_str()),
        }
    }
}

impl LoadedAdapter {
    /// Describes what was loaded.
    pub fn of(state: &State, loaded: Loaded) -> Self {
        Self {
            adapter: AdapterCard::of(state, &loaded.entry),
            report: loaded.report,
        }
    }
}

impl DryRun {
    /// Describes what was examined.
    pub fn of(examined: Examined) -> Self {
        Self {
            object: "dry_run",
            id: examined.name,
            version: examined.version.to_string(),
            would: examined.would,
            report: examined.report,
        }
    }
}
