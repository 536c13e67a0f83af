//! `POST /v1/classify`.

use std::collections::BTreeMap;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use adapters::DomainProfile;
use engine::{Priority, own_part};
use evaluation::{LabelScorer, LabelScores, LabelScoring, TaskPrompt, argmax};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tasks::{Fields, Kind, Task};
use utoipa::ToSchema;

use crate::authorization::InferenceKey;
use crate::body::{Json, RequestBody, read};
use crate::error::ApiError;
use crate::inference::signals::{self, OutOfDomain};
use crate::inference::target::{AdapterReference, Selection, Target};
use crate::inference::usage::Usage;
use crate::openapi::InferenceErrors;
use crate::state::State;

/// Most inputs of one request.
const MAX_INPUTS: usize = 1024;
/// Most labels to choose among.
const MAX_LABELS: usize = 256;
/// Inputs of one request in the engine at the same time, so that one request leaves room in the queue.
const IN_FLIGHT: usize = 32;

/// A request to choose among labels.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ClassifyRequest {
    /// The base model, an adapter, or `<adapter>@<version>`.
    pub model: Option<String>,
    /// A blend in the place of one adapter, as in completions.
    pub adapter_weights: Option<BTreeMap<String, f64>>,
    /// An identifier of the end user, as in completions.
    pub user: Option<String>,
    /// What to classify, up to 1024 inputs.
    pub inputs: Vec<Input>,
    /// The task whose prompt is used; the adapter's own unless given.
    pub task: Option<String>,
    /// The labels to choose among, 2 to 256; the task's unless given.
    pub labels: Option<Vec<String>>,
    /// Number of the prompt; the adapter's own unless given.
    pub prompt: Option<usize>,
    /// Demonstrations in front of each input; as many as the adapter was trained with unless given.
    pub shots: Option<usize>,
    /// Divide out what each label gets for the input `N/A` (contextual calibration).
    pub calibrate: Option<bool>,
    /// Which of a label's tokens count; all unless given.
    pub label_scoring: Option<LabelScoring>,
}

/// A text, or the fields of a task with several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or an object of strings")]
pub enum Input {
    /// The one field of the task.
    Text(String),
    /// The task's fields by name.
    Fields(BTreeMap<String, String>),
}

/// The chosen labels.
#[derive(Debug, Serialize, ToSchema)]
pub struct Classification {
    /// `classification`.
    pub object: &'static str,
    /// The model as it was named.
    pub model: String,
    /// The adapter version that answered; null for the base model.
    pub adapter: Option<AdapterReference>,
    /// The task whose prompt was used.
    pub task: &'static str,
    /// The labels.
    pub labels: Vec<String>,
    /// The prompt's number.
    pub prompt: usize,
    /// Demonstrations in front of each input.
    pub shots: usize,
    /// One per input, in order.
    pub results: Vec<ClassificationResult>,
    /// Token counts.
    pub usage: Usage,
}

/// The choice for one input.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClassificationResult {
    /// Position of the input.
    pub index: usize,
    /// The likeliest label.
    pub label: String,
    /// Probability of each label among the labels; they sum to 1.
    pub probs: BTreeMap<String, f64>,
    /// Log-probability of each label under the model, uncalibrated, nats.
    pub logprobs: BTreeMap<String, f64>,
    /// How sure and how much at home the model is.
    pub ood: OutOfDomain,
}

/// A checked request.
struct Checked {
    task: Task,
    labels: Vec<String>,
    prompt: usize,
    shots: usize,
    calibrate: bool,
    label_scoring: LabelScoring,
    inputs: Vec<Fields>,
    demonstrations_of: String,
    /// Whether the adapter was trained with this task, prompt and number of demonstrations.
    as_trained: bool,
}

impl RequestBody for ClassifyRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        read(&Value::Object(object))
    }
}

/// Chooses a label for each input by the likelihood of the labels.
#[utoipa::path(post, path = "/v1/classify", tag = "inference", request_body = ClassifyRequest,
    responses((status = 200, description = "A label for each input", body = Classification), InferenceErrors))]
pub async fn classify(
    _key: InferenceKey,
    state: Data<State>,
    request: HttpRequest,
    body: Json<ClassifyRequest>,
) -> Result<HttpResponse, ApiError> {
    let selection = Selection {
        model: body.0.model.clone(),
        adapter_weights: body.0.adapter_weights.clone(),
        user: body.0.user.clone(),
    };
    let target = Target::of_request(&state, &request, &selection).await?;
    let answer = answer(&state, body.0, &target).await?;
    let inputs = answer.results.iter().map(|result| &result.ood);
    signals::take(&state, &target, inputs);
    Ok(HttpResponse::Ok().json(answer))
}

/// Classifies with what a request runs on.
///
/// # Errors
/// Those of [`classify`].
pub async fn repeat(
    state: &Data<State>,
    request: ClassifyRequest,
    target: Target,
) -> Result<HttpResponse, ApiError> {
    let answer = answer(state, request, &target).await?;
    Ok(HttpResponse::Ok().json(answer))
}

async fn answer(
    state: &State,
    request: ClassifyRequest,
    target: &Target,
) -> Result<Classification, ApiError> {
    let checked = check(target, request)?;
    let (results, usage) = score(state, target, &checked).await?;
    Ok(Classification {
        object: "classification",
        model: target.model.clone(),
        adapter: target.reference(),
        task: checked.task.id(),
        labels: checked.labels,
        prompt: checked.prompt,
        shots: checked.shots,
        results,
        usage,
    })
}

fn check(target: &Target, request: ClassifyRequest) -> Result<Checked, ApiError> {
    let manifest = target.lease().map(|lease| &lease.summary().manifest);
    let named = request
        .task
        .or_else(|| manifest.and_then(|manifest| manifest.task.clone()));
    let Some(named) = named else {
        return Err(ApiError::MissingField {
            param: "task".to_owned(),
            message: "`task` is missing and the model has none of its own; send one of sentiment, detection, inference"
                .to_owned(),
        });
    };
    let task = parse_task(&named)?;
    // What an adapter was trained with is the default for its own task only.
    let own = manifest.filter(|manifest| manifest.task.as_deref() == Some(task.id()));
    let labels = match (request.labels, own) {
        (Some(labels), _) => labels,
        (None, Some(manifest)) if !manifest.labels.is_empty() => manifest.labels.clone(),
        (None, _) => task
            .labels()
            .iter()
            .map(|&label| label.to_owned())
            .collect(),
    };
    check_labels(&labels, task)?;
    let prompt = request.prompt.or(own.map(|own| own.prompt)).unwrap_or(0);
    let shots = request.shots.or(own.map(|own| own.shots)).unwrap_or(0);
    Ok(Checked {
        task,
        labels,
        prompt,
        shots,
        as_trained: own.is_some_and(|own| (own.prompt, own.shots) == (prompt, shots)),
        calibrate: request.calibrate.unwrap_or(false),
        label_scoring: request.label_scoring.unwrap_or_default(),
        inputs: check_inputs(request.inputs, task)?,
        demonstrations_of: own
            .and_then(|own| own.trained_on.clone())
            .filter(|dataset| task.datasets().iter().any(|role| role.id == dataset))
            .unwrap_or_else(|| task.trained_on().to_owned()),
    })
}

/// The task of an id.
///
/// # Errors
/// `NotFound` that lists the ids.
pub fn parse_task(id: &str) -> Result<Task, ApiError> {
    id.parse().map_err(|_| ApiError::NotFound {
        kind: "task",
        id: id.to_owned(),
        hint: format!("the tasks are {}", Task::ALL.map(Task::id).join(", ")),
    })
}

fn check_labels(labels: &[String], task: Task) -> Result<(), ApiError> {
    if task.kind() == Kind::Generation && labels.is_empty() {
        return Err(ApiError::MissingField {
            param: "labels".to_owned(),
            message: format!(
                "`labels` is missing; {task} is a generation task and has none of its own"
            ),
        });
    }
    let distinct = labels
        .iter()
        .enumerate()
        .all(|(index, label)| !labels[..index].contains(label));
    if !(2..=MAX_LABELS).contains(&labels.len()) || !distinct || labels.iter().any(String::is_empty)
    {
        return Err(ApiError::invalid(
            "labels",
            "`labels` must hold 2 to 256 different texts, none of them empty",
        ));
    }
    Ok(())
}

fn check_inputs(inputs: Vec<Input>, task: Task) -> Result<Vec<Fields>, ApiError> {
    if inputs.is_empty() || inputs.len() > MAX_INPUTS {
        return Err(ApiError::invalid(
            "inputs",
            format!(
                "`inputs` has {} entries; send 1 to {MAX_INPUTS}",
                inputs.len()
            ),
        ));
    }
    let needed = task.fields();
    let check = |(index, input): (usize, Input)| {
        let fields = match (input, needed) {
            (Input::Text(text), [_]) => Fields::input(text),
            (Input::Text(_), _) => {
                return Err(ApiError::invalid(
                    format!("inputs[{index}]"),
                    format!(
                        "{task} needs an object with the fields {}",
                        needed.join(", ")
                    ),
                ));
            }
            (Input::Fields(fields), _) => Fields(fields),
        };
        match fields.missing(task) {
            Some(field) => Err(ApiError::MissingField {
                param: format!("inputs[{index}].{field}"),
                message: format!(
                    "`inputs[{index}]` has no field `{field}`; {task} needs {}",
                    needed.join(", ")
                ),
            }),
            None => Ok(fields),
        }
    };
    inputs.into_iter().enumerate().map(check).collect()
}

async fn score(
    state: &State,
    target: &Target,
    checked: &Checked,
) -> Result<(Vec<ClassificationResult>, Usage), ApiError> {
    let tokenizer = state.engine.tokenizer();
    let demonstrations =
        state
            .catalog
            .demonstrations(checked.task, &checked.demonstrations_of, checked.shots)?;
    let template = TaskPrompt::new(
        state.catalog.prompts(),
        checked.prompt,
        checked.task,
        &demonstrations,
    )?;
    let scorer = LabelScorer::new(
        &state.engine,
        target.weights(),
        (&checked.labels, checked.label_scoring),
        Priority::Interactive,
    )
    .until(target.deadline());
    let neutral = match checked.calibrate {
        true => Some(template.encode_content_free(tokenizer)?),
        false => None,
    };
    let prompts = checked
        .inputs
        .iter()
        .map(|fields| template.encode(fields, tokenizer))
        .collect::<Result<Vec<_>, _>>()?;
    let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
    let read = lengths
        .iter()
        .copied()
        .chain(neutral.as_ref().map(Vec::len));
    target.pay(read.map(|prompt| prompt + scorer.label_tokens()).sum())?;
    let mut usage = Usage::default();
    let neutral = score_neutral(&scorer, neutral, &mut usage).await?;
    let domain = domain(target, checked);
    // Only where it is needed: what is pooled is not taken from the prefix cache.
    let context = domain.map(|_| template.encode_context(tokenizer));
    let pooled = prompts.into_iter().map(|prompt| {
        let from = context.as_ref().map(|context| own_part(context, &prompt));
        scorer.score_pooled(prompt, from)
    });
    let scores: Vec<LabelScores> = stream::iter(pooled)
        .buffered(IN_FLIGHT)
        .try_collect()
        .await?;
    for (tokens, scores) in lengths.into_iter().zip(&scores) {
        usage.add_prompt(tokens, scores.cached_tokens);
    }
    let results = scores.iter().enumerate().map(|(index, own)| {
        let relative = (own, neutral.as_ref());
        result(index, &checked.labels, relative, domain)
    });
    Ok((results.collect(), usage))
}

/// The labels' scores behind an empty input, if that is asked for.
async fn score_neutral(
    scorer: &LabelScorer,
    prompt: Option<Vec<u32>>,
    usage: &mut Usage,
) -> Result<Option<LabelScores>, ApiError> {
    let Some(prompt) = prompt else {
        return Ok(None);
    };
    let tokens = prompt.len();
    let scores = scorer.score(prompt).await?;
    usage.add_prompt(tokens, scores.cached_tokens);
    Ok(Some(scores))
}

/// What the adapter's training inputs look like to it, where this request is made as those were.
fn domain<'a>(target: &'a Target, checked: &Checked) -> Option<&'a DomainProfile> {
    let manifest = &target.lease()?.summary().manifest;
    manifest.domain.as_ref().filter(|_| checked.as_trained)
}

fn result(
    index: usize,
    labels: &[String],
    (scores, neutral): (&LabelScores, Option<&LabelScores>),
    domain: Option<&DomainProfile>,
) -> ClassificationResult {
    let probabilities = scores.probabilities(neutral);
    let best = argmax(&probabilities);
    let by_label = |values: &[f64]| labels.iter().cloned().zip(values.iter().copied()).collect();
    ClassificationResult {
        index,
        label: labels[best].clone(),
        probs: by_label(&probabilities),
        logprobs: by_label(&scores.logprobs),
        ood: OutOfDomain::of(&probabilities, scores, domain),
    }
}
