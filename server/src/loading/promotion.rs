//! Promotion: a version is evaluated and becomes active if its figures pass the gate.

use actix_web::web::Data;
use adapters::{Cause, Entry};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::publish::{Conditions, activate, check_limit};
use crate::body::{RequestBody, read};
use crate::error::ApiError;
use crate::evaluations::EvaluationRequest;
use crate::evaluations::gate::{Against, Gate, GateReport};
use crate::state::State;

/// A version to promote.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct PromoteRequest {
    /// The version, or a prefix of at least 8 hex digits.
    pub version: String,
    /// Only if this version, or prefix, is active; the one that is active when the promotion begins unless given.
    pub expected: Option<String>,
    /// What its figures must be. Without `evaluation`, one is run for it.
    pub gate: Gate,
    /// Of the evaluation that is run: only these data sets.
    pub datasets: Option<Vec<String>>,
    /// Of the evaluation that is run: only these tasks.
    pub tasks: Option<Vec<String>>,
    /// Of the evaluation that is run: numbers of demonstrations.
    pub shots: Option<Vec<usize>>,
    /// Of the evaluation that is run: at most this many examples of each cell.
    pub limit: Option<usize>,
}

impl RequestBody for PromoteRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        read(&Value::Object(object))
    }
}

/// Evaluates a version unless the gate names an evaluation, and makes it active if it passes.
///
/// A client that hangs up leaves the evaluation running, and nothing changes.
///
/// # Errors
/// Those of [`activate`] and of starting an evaluation; `LostCompareAndSwap` too when another version became active meanwhile.
pub async fn promote(
    state: &Data<State>,
    name: &str,
    mut request: PromoteRequest,
) -> Result<(Entry, Option<GateReport>), ApiError> {
    check_limit(&request.gate)?;
    let entry = state.registry.entry(name)?;
    let version = entry.resolve(&request.version)?.to_string();
    let expected = (request.expected.take()).unwrap_or_else(|| entry.active().to_string());
    if request.gate.evaluation.is_none() {
        let wanted = request.evaluation(&entry, &version);
        let started = state.evaluations.submit(wanted.plan(state)?).await?;
        state.evaluations.get(&started.id)?.ended().await;
        request.gate.evaluation = Some(started.id);
    }
    let conditions = Conditions {
        expected: Some(&expected),
        gate: Some(&request.gate),
        cause: Cause::Promote,
    };
    activate(state, name, &version, conditions).await
}

impl PromoteRequest {
    /// The evaluation that tells whether the gate passes.
    fn evaluation(&self, entry: &Entry, version: &str) -> EvaluationRequest {
        let mut adapters = vec![format!("{}@{version}", entry.name)];
        if self.gate.against == Against::Active && entry.active().as_str() != version {
            adapters.push(format!("{}@{}", entry.name, entry.active()));
        }
        EvaluationRequest {
            kind: Some(self.gate.kind.evaluation()),
            adapters,
            tasks: self.tasks.clone(),
            datasets: self.datasets.clone(),
            shots: self.shots.clone(),
            limit: self.limit,
            ..EvaluationRequest::default()
        }
    }
}
