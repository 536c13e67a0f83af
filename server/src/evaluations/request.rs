//! From the body of a request to a plan: names resolved, cells planned, examples counted.

use evaluation::{Evaluation, EvaluationPlan, LabelScoring, ModelVersion, Scoring, Stages, Status};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::Arc;
use tasks::{EvaluationKind, PlanRequest, Task};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::body::{RequestBody, read};
use crate::error::ApiError;
use crate::inference::named::Named;
use crate::routes::classify::parse_task;
use crate::state::{State, unix_seconds};

const MAX_ADAPTERS: usize = 64;

/// What to evaluate.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct EvaluationRequest {
    /// `in_domain`, `out_of_domain`, `cross_task` or `matrix`; fixed on the routes that name one.
    #[schema(value_type = Option<String>)]
    pub kind: Option<EvaluationKind>,
    /// Names of adapters, `base` among them for the base model alone.
    pub adapters: Vec<String>,
    /// A model that is measured in every cell too, for the paired differences `against` in each.
    pub against: Option<String>,
    /// Only these tasks.
    pub tasks: Option<Vec<String>>,
    /// Only these data sets.
    pub datasets: Option<Vec<String>>,
    /// Numbers of demonstrations; those of the task unless given.
    pub shots: Option<Vec<usize>>,
    /// Numbers of prompts; 0 unless given.
    pub prompts: Option<Vec<usize>>,
    /// At most this many examples of each cell.
    pub limit: Option<usize>,
    /// Seed of the confidence intervals; 0 unless given.
    pub seed: Option<u64>,
    /// Which of a label's tokens count; all unless given.
    pub label_scoring: Option<LabelScoring>,
    /// Divide out what each label gets for the input `N/A` (contextual calibration).
    pub calibrate: Option<bool>,
}

impl RequestBody for EvaluationRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        if object.get("gate").is_some_and(|gate| !gate.is_null()) {
            return Err(ApiError::not_supported(
                "gate",
                "an evaluation changes nothing; send the gate with POST /v1/adapters/{name}/activate or …/promote",
            ));
        }
        read(&Value::Object(object))
    }
}

impl EvaluationRequest {
    /// Resolves every name and plans every cell: the record of an evaluation that is to be queued.
    ///
    /// # Errors
    /// For unknown models, tasks, data sets or prompts, and for contradictions.
    pub fn plan(self, state: &State) -> Result<Evaluation, ApiError> {
        state.check_open()?;
        let request = self.plan_request()?;
        if self.adapters.is_empty() || self.adapters.len() > MAX_ADAPTERS {
            return Err(ApiError::invalid(
                "adapters",
                format!("`adapters` must name 1 to {MAX_ADAPTERS} models, for example [\"base\"]"),
            ));
        }
        let models = self.adapters.iter().map(|name| resolve(state, name));
        let models = models.collect::<Result<Vec<_>, _>>()?;
        let against = self.against.as_ref().map(|name| resolve(state, name));
        let against = against.transpose()?.map(|(model, _)| model);
        let scoring = Scoring {
            labels: self.label_scoring.unwrap_or_default(),
            calibrate: self.calibrate.unwrap_or_default(),
        };
        let plan = EvaluationPlan::new(request, scoring, models, against, &state.catalog)?;
        Ok(self.record(plan))
    }

    fn record(self, plan: EvaluationPlan) -> Evaluation {
        let unique = Uuid::new_v4().simple().to_string();
        let milliseconds = jiff::Timestamp::now().as_millisecond();
        let datasets = plan.datasets.iter();
        Evaluation {
            // The time first, so that ids sort by it.
            id: format!("eval_{milliseconds:011x}{}", &unique[..8]),
            object: "evaluation".to_owned(),
            status: Status::Queued,
            kind: plan.request.kind.id().to_owned(),
            adapters: self.adapters,
            limit: plan.request.limit,
            seed: plan.request.seed,
            scoring: plan.scoring,
            against: self.against,
            datasets: datasets
                .map(|(id, dataset)| (id.clone(), dataset.digest.clone()))
                .collect(),
            created: unix_seconds(),
            started: None,
            finished: None,
            error: None,
            progress: plan.progress(),
            stages: Stages::default(),
            cells: Vec::new(),
            scores: Vec::new(),
            plan: Some(Arc::new(plan)),
        }
    }

    /// Fixes the kind.
    ///
    /// # Errors
    /// `InvalidValue` when the body names another.
    pub fn of_kind(mut self, kind: EvaluationKind) -> Result<Self, ApiError> {
        match self.kind {
            Some(own) if own != kind => Err(ApiError::invalid(
                "kind",
                format!("this route evaluates `{}`; leave `kind` out", kind.id()),
            )),
            _ => {
                self.kind = Some(kind);
                Ok(self)
            }
        }
    }

    fn plan_request(&self) -> Result<PlanRequest, ApiError> {
        let kind = self.kind.ok_or_else(|| ApiError::MissingField {
            param: "kind".to_owned(),
            message: "`kind` is missing; send in_domain, out_of_domain, cross_task or matrix"
                .to_owned(),
        })?;
        let tasks = self
            .tasks
            .as_ref()
            .map(|tasks| tasks.iter().map(|task| parse_task(task)).collect())
            .transpose()?;
        Ok(PlanRequest {
            kind,
            tasks,
            datasets: self.datasets.clone(),
            shots: self.shots.clone(),
            prompts: self.prompts.clone(),
            limit: self.limit,
            seed: self.seed.unwrap_or(0),
        })
    }
}

/// The version that a name means now, and the task it was trained for.
fn resolve(state: &State, name: &str) -> Result<(ModelVersion, Option<Task>), ApiError> {
    let named = Named::resolve(state, name, None)?;
    let task = named.summary().and_then(|summary| summary.task.as_deref());
    let task = task.and_then(|task| task.parse().ok());
    Ok(match &named {
        Named::Base => (ModelVersion::base(), task),
        Named::Adapter(hold) => {
            let version = hold.summary().version.as_str();
            (ModelVersion::adapter(hold.name(), version), task)
        }
    })
}
