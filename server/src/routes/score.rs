//! `POST /v1/score`.

use std::collections::BTreeMap;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use engine::{EngineError, Priority, ScoreRequest as EngineScoreRequest, ScoreResult};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::authorization::InferenceKey;
use crate::body::{Json, RequestBody, read};
use crate::error::ApiError;
use crate::inference::target::{AdapterReference, Selection, Target};
use crate::inference::usage::Usage;
use crate::openapi::InferenceErrors;
use crate::state::State;

const MAX_PAIRS: usize = 1024;
const IN_FLIGHT: usize = 32;

/// Continuations whose likelihood is asked for.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ScoreRequest {
    /// The base model, an adapter, or `<adapter>@<version>`.
    pub model: Option<String>,
    /// A blend in the place of one adapter, as in completions.
    pub adapter_weights: Option<BTreeMap<String, f64>>,
    /// An identifier of the end user, as in completions.
    pub user: Option<String>,
    /// What to score, up to 1024 pairs.
    pub pairs: Vec<Pair>,
}

/// A context and what might follow it. Both are tokenised apart, without special tokens.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Pair {
    /// What stands before.
    pub context: String,
    /// What is scored.
    pub continuation: String,
}

/// The likelihoods.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScoreResponse {
    /// `list`.
    pub object: &'static str,
    /// The model as it was named.
    pub model: String,
    /// The adapter version that answered; null for the base model.
    pub adapter: Option<AdapterReference>,
    /// One per pair, in order.
    pub data: Vec<Score>,
    /// Token counts.
    pub usage: Usage,
}

/// The likelihood of one continuation.
#[derive(Debug, Serialize, ToSchema)]
pub struct Score {
    /// Position of the pair.
    pub index: usize,
    /// Sum of the tokens' log-probabilities, nats.
    pub logprob: f64,
    /// Tokens of the continuation.
    pub tokens: usize,
    /// Whether greedy decoding would have written exactly this.
    pub is_greedy: bool,
}

/// A pair as token ids.
struct Encoded {
    context: Vec<u32>,
    continuation: Vec<u32>,
}

impl RequestBody for ScoreRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        read(&Value::Object(object))
    }
}

/// Scores continuations of contexts.
#[utoipa::path(post, path = "/v1/score", tag = "inference", request_body = ScoreRequest,
    responses((status = 200, description = "A score for each pair", body = ScoreResponse), InferenceErrors))]
pub async fn score(
    _key: InferenceKey,
    state: Data<State>,
    request: HttpRequest,
    body: Json<ScoreRequest>,
) -> Result<HttpResponse, ApiError> {
    let selection = Selection {
        model: body.0.model,
        adapter_weights: body.0.adapter_weights,
        user: body.0.user,
    };
    let target = Target::of_request(&state, &request, &selection).await?;
    repeat(&state, &body.0.pairs, target).await
}

/// Scores pairs with what a request runs on.
///
/// # Errors
/// Those of [`score`].
pub async fn repeat(
    state: &Data<State>,
    pairs: &[Pair],
    target: Target,
) -> Result<HttpResponse, ApiError> {
    let pairs = encode(state, pairs)?;
    let lengths: Vec<(usize, usize)> = pairs
        .iter()
        .map(|pair| (pair.context.len(), pair.continuation.len()))
        .collect();
    target.pay(
        lengths
            .iter()
            .map(|(context, tokens)| context + tokens)
            .sum(),
    )?;
    let results: Vec<ScoreResult> =
        stream::iter(pairs.into_iter().map(|pair| run(state, &target, pair)))
            .buffered(IN_FLIGHT)
            .try_collect()
            .await?;
    Ok(HttpResponse::Ok().json(respond(&target, &lengths, &results)))
}

fn encode(state: &State, pairs: &[Pair]) -> Result<Vec<Encoded>, ApiError> {
    if pairs.is_empty() || pairs.len() > MAX_PAIRS {
        return Err(ApiError::invalid(
            "pairs",
            format!("`pairs` has {} entries; send 1 to {MAX_PAIRS}", pairs.len()),
        ));
    }
    let tokenizer = state.engine.tokenizer();
    let named = |index: usize, field: &str, tokens: Vec<u32>| {
        let param = format!("pairs[{index}].{field}");
        match tokens {
            tokens if tokens.is_empty() => Err(ApiError::invalid(
                &param,
                format!("`{param}` is empty; send at least one character"),
            )),
            tokens => Ok(tokens),
        }
    };
    pairs
        .iter()
        .enumerate()
        .map(|(index, pair)| {
            Ok(Encoded {
                context: named(index, "context", tokenizer.encode_prompt(&pair.context))?,
                continuation: named(
                    index,
                    "continuation",
                    tokenizer.encode_continuation(&pair.continuation),
                )?,
            })
        })
        .collect()
}

async fn run(state: &State, target: &Target, pair: Encoded) -> Result<ScoreResult, ApiError> {
    let reply = state.engine.score(EngineScoreRequest {
        prompt: pair.context,
        continuations: vec![pair.continuation],
        adapter: target.weights(),
        pooled_from: None,
        priority: Priority::Interactive,
        deadline: target.deadline(),
    })?;
    Ok(reply.await.map_err(|_| EngineError::Stopped)??)
}

fn respond(target: &Target, lengths: &[(usize, usize)], results: &[ScoreResult]) -> ScoreResponse {
    let mut usage = Usage::default();
    let mut data = Vec::with_capacity(results.len());
    for (index, (result, (context, tokens))) in results.iter().zip(lengths).enumerate() {
        usage.add_prompt(context + tokens, result.cached_tokens);
        if let [score] = result.continuations.as_slice() {
            data.push(Score {
                index,
                logprob: score.logprob,
                tokens: *tokens,
                is_greedy: score.is_greedy,
            });
        }
    }
    ScoreResponse {
        object: "list",
        model: target.model.clone(),
        adapter: target.reference(),
        data,
        usage,
    }
}
