//! `/v1/evaluations`: start, list, get, watch, report, cancel.

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::{Bytes, Data, Path};
use evaluation::{Evaluation, report};
use futures_util::StreamExt;
use futures_util::stream::{self, Stream};
use serde::{Deserialize, Serialize};
use tasks::EvaluationKind;
use tokio::sync::watch;
use utoipa::{IntoParams, ToSchema};

use crate::audit::note;
use crate::authorization::AdminKey;
use crate::body::Json;
use crate::error::ApiError;
use crate::evaluations::EvaluationRequest;
use crate::evaluations::predictions::PredictionLine;
use crate::inference::stream::{event_stream, json};
use crate::loading::blocking;
use crate::openapi::{InferenceErrors, ServerSentEvent};
use crate::query::Query;
use crate::state::State;

/// What the page of a report may do: show its own styles and the empty icon it names.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// The evaluations.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvaluationList {
    /// `list`.
    pub object: &'static str,
    /// Oldest first.
    pub data: Vec<Evaluation>,
}

/// The form of a report.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReportOptions {
    /// `json` (unless given), `csv`, `md` or `html`.
    pub format: Option<String>,
}

/// Starts an evaluation of any kind.
#[utoipa::path(post, path = "/v1/evaluations", tag = "evaluation", request_body = EvaluationRequest,
    responses((status = 202, description = "Queued", body = Evaluation), InferenceErrors))]
pub async fn create_evaluation(
    _key: AdminKey,
    state: Data<State>,
    body: Json<EvaluationRequest>,
) -> Result<HttpResponse, ApiError> {
    start(&state, body.0).await
}

/// Starts an out-of-domain evaluation.
#[utoipa::path(post, path = "/v1/evaluations/ood", tag = "evaluation", request_body = EvaluationRequest,
    responses((status = 202, description = "Queued", body = Evaluation), InferenceErrors))]
pub async fn create_ood_evaluation(
    _key: AdminKey,
    state: Data<State>,
    body: Json<EvaluationRequest>,
) -> Result<HttpResponse, ApiError> {
    start(&state, body.0.of_kind(EvaluationKind::OutOfDomain)?).await
}

/// Starts a cross-task evaluation.
#[utoipa::path(post, path = "/v1/evaluations/cross-task", tag = "evaluation", request_body = EvaluationRequest,
    responses((status = 202, description = "Queued", body = Evaluation), InferenceErrors))]
pub async fn create_cross_task_evaluation(
    _key: AdminKey,
    state: Data<State>,
    body: Json<EvaluationRequest>,
) -> Result<HttpResponse, ApiError> {
    start(&state, body.0.of_kind(EvaluationKind::CrossTask)?).await
}

/// Lists the evaluations.
#[utoipa::path(get, path = "/v1/evaluations", tag = "evaluation",
    responses((status = 200, description = "Every evaluation", body = EvaluationList), InferenceErrors))]
pub async fn list_evaluations(_key: AdminKey, state: Data<State>) -> HttpResponse {
    HttpResponse::Ok().json(EvaluationList {
        object: "list",
        data: state.evaluations.list(),
    })
}

/// Describes an evaluation.
#[utoipa::path(get, path = "/v1/evaluations/{id}", tag = "evaluation", params(("id" = String, Path, description = "The evaluation")),
    responses((status = 200, description = "The evaluation with its cells so far", body = Evaluation), InferenceErrors))]
pub async fn get_evaluation(
    _key: AdminKey,
    state: Data<State>,
    id: Path<String>,
) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(state.evaluations.get(&id)?.snapshot()))
}

/// Streams the progress until the evaluation ends.
#[utoipa::path(get, path = "/v1/evaluations/{id}/events", tag = "evaluation", params(("id" = String, Path, description = "The evaluation")),
    responses((status = 200, description = "Events named `progress`, then one named after the final status with the whole evaluation", body = ServerSentEvent, content_type = "text/event-stream"), InferenceErrors))]
pub async fn watch_evaluation(
    _key: AdminKey,
    state: Data<State>,
    id: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let mut changes = state.evaluations.get(&id)?.subscribe();
    changes.mark_changed();
    Ok(event_stream(events(changes)))
}

/// The results for people, spreadsheets or programs; `html` is a page that fetches nothing.
#[utoipa::path(get, path = "/v1/evaluations/{id}/report", tag = "evaluation", params(("id" = String, Path, description = "The evaluation"), ReportOptions),
    responses((status = 200, description = "The report", content((Evaluation = "application/json"), (String = "text/markdown"), (String = "text/csv"), (String = "text/html"))), InferenceErrors))]
pub async fn report_evaluation(
    _key: AdminKey,
    state: Data<State>,
    id: Path<String>,
    options: Query<ReportOptions>,
) -> Result<HttpResponse, ApiError> {
    let evaluation = state.evaluations.get(&id)?.snapshot();
    let text =
        |content_type: &'static str, body| HttpResponse::Ok().content_type(content_type).body(body);
    match options.0.format.as_deref().unwrap_or("json") {
        "json" => Ok(HttpResponse::Ok().json(evaluation)),
        "md" => Ok(text(
            "text/markdown; charset=utf-8",
            report::markdown(&evaluation),
        )),
        "csv" => Ok(text("text/csv; charset=utf-8", report::csv(&evaluation))),
        "html" => Ok(HttpResponse::Ok()
            .content_type("text/html; charset=utf-8")
            .insert_header((header::CONTENT_SECURITY_POLICY, PAGE_POLICY))
            .body(report::html(&evaluation))),
        other => Err(ApiError::invalid(
            "format",
            format!("`format` is {other:?}; send json, csv, md or html"),
        )),
    }
}

/// Which predictions are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PredictionOptions {
    /// Only those of this cell, by its place in `cells`.
    pub cell: Option<usize>,
}

/// The answers behind the figures: one JSON object a line for every example of every cell measured so far.
#[utoipa::path(get, path = "/v1/evaluations/{id}/predictions", tag = "evaluation", params(("id" = String, Path, description = "The evaluation"), PredictionOptions),
    responses((status = 200, description = "One prediction a line", body = PredictionLine, content_type = "application/x-ndjson"), InferenceErrors))]
pub async fn list_predictions(
    _key: AdminKey,
    state: Data<State>,
    id: Path<String>,
    options: Query<PredictionOptions>,
) -> Result<HttpResponse, ApiError> {
    let cells = state.evaluations.predictions(&id, options.0.cell)?;
    let lines = stream::iter(cells)
        .then(|cell| async move { blocking(move || cell.lines()).await.map(Bytes::from) });
    Ok(HttpResponse::Ok()
        .content_type("application/x-ndjson")
        .streaming(lines))
}

/// Stops an evaluation where it is, to be gone on with.
#[utoipa::path(post, path = "/v1/evaluations/{id}/pause", tag = "evaluation", params(("id" = String, Path, description = "The evaluation")),
    responses((status = 200, description = "The paused evaluation", body = Evaluation), InferenceErrors))]
pub async fn pause_evaluation(
    _key: AdminKey,
    state: Data<State>,
    id: Path<String>,
) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(state.evaluations.pause(&id).await?))
}

/// Goes on with a paused evaluation; what was measured is not measured again.
#[utoipa::path(post, path = "/v1/evaluations/{id}/resume", tag = "evaluation", params(("id" = String, Path, description = "The evaluation")),
    responses((status = 200, description = "The evaluation, which waits for its turn or runs", body = Evaluation), InferenceErrors))]
pub async fn resume_evaluation(
    _key: AdminKey,
    state: Data<State>,
    id: Path<String>,
) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(state.evaluations.resume(&id).await?))
}

/// Cancels an evaluation; one that has ended stays as it is.
#[utoipa::path(delete, path = "/v1/evaluations/{id}", tag = "evaluation", params(("id" = String, Path, description = "The evaluation")),
    responses((status = 200, description = "The evaluation as it ended", body = Evaluation), InferenceErrors))]
pub async fn cancel_evaluation(
    _key: AdminKey,
    state: Data<State>,
    id: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let watched = state.evaluations.get(&id)?;
    Ok(HttpResponse::Ok().json(watched.cancel().await))
}

async fn start(state: &Data<State>, request: EvaluationRequest) -> Result<HttpResponse, ApiError> {
    let planned = request.plan(state)?;
    let evaluation = state.evaluations.submit(planned).await?;
    note::about(&evaluation.id, None);
    Ok(HttpResponse::Accepted().json(evaluation))
}

/// One event per change that is seen; changes that come faster than the client reads are seen as one.
fn events(
    changes: watch::Receiver<Evaluation>,
) -> impl Stream<Item = Result<Bytes, ApiError>> + 'static {
    stream::unfold(Some(changes), |changes| async move {
        let mut changes = changes?;
        changes.changed().await.ok()?;
        let mut evaluation = changes.borrow_and_update().clone();
        let ended = evaluation.status.is_final();
        let name = match ended {
            true => evaluation.status.name(),
            false => {
                evaluation.cells.clear();
                "progress"
            }
        };
        let event = format!("event: {name}\ndata: {}\n\n", json(&evaluation));
        Some((Ok(Bytes::from(event)), (!ended).then_some(changes)))
    })
}
