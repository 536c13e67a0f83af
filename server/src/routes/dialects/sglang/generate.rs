//! `POST /generate` as SGLang takes it: a prompt or a batch of them, each with its own adapter if wanted.

use std::slice::from_ref;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::answer::Answer;
use super::parameters::{OneOrMany, SglangParameters, refuse_parameters};
use crate::body::{RequestBody, read};
use crate::error::ApiError;
use crate::inference::generation::{Running, collect, cost, submit_paid};
use crate::inference::parameters::{Generation, alternatives};
use crate::inference::prompts::{EncodedPrompt, Prompt};
use crate::inference::stream::{StreamPlan, respond};
use crate::inference::target::{Selection, Target};
use crate::inference::unsupported::{Refused, is_empty, is_false, never, refuse, refused};
use crate::state::State;

const REFUSED: &[Refused] = &[
    refused("image_data", is_empty, "only text is read"),
    refused("video_data", is_empty, "only text is read"),
    refused("audio_data", is_empty, "only text is read"),
    refused("input_embeds", is_empty, "send `text` or `input_ids`"),
    refused("session_params", is_empty, "prefixes are cached by content"),
    refused("custom_logit_processor", never, "use `logit_bias`"),
    refused("token_ids_logprob", is_empty, "use `top_logprobs_num`"),
    refused("return_hidden_states", is_false, "only text is produced"),
];

/// Prompts to continue, SGLang's way.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct SglangRequest {
    /// A text, or a list of them.
    pub text: Option<Prompt>,
    /// Token ids instead, or a list of such lists.
    pub input_ids: Option<Prompt>,
    /// How to generate, for all prompts or for each.
    pub sampling_params: Option<OneOrMany<SglangParameters>>,
    /// The adapter's name, for all prompts or for each; null is the base model.
    pub lora_path: Option<OneOrMany<Option<String>>>,
    /// Report each token's log-probability.
    pub return_logprob: Option<OneOrMany<bool>>,
    /// With `return_logprob`: the prompt's too, from this position on; -1 for none of them.
    pub logprob_start_len: Option<OneOrMany<i64>>,
    /// With `return_logprob`: this many alternatives.
    pub top_logprobs_num: Option<OneOrMany<i64>>,
    /// With `return_logprob`: the tokens' texts too.
    pub return_text_in_logprobs: Option<bool>,
    /// Server-sent events, each with the whole text so far.
    pub stream: Option<bool>,
    /// The request's id, for all prompts or for each.
    pub rid: Option<OneOrMany<String>>,
}

/// One prompt, checked.
pub struct Item {
    /// What answers it; held to the end of the answer, so that the adapter counts as in use for as long.
    pub target: Target,
    /// The prompt.
    pub prompt: EncodedPrompt,
    /// How to generate.
    pub generation: Generation,
    /// The first position of the prompt whose log-probability is told.
    pub logprobs_from: usize,
    /// The request's id.
    pub id: Option<String>,
}

impl RequestBody for SglangRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        refuse(&object, REFUSED)?;
        object
            .get("sampling_params")
            .map_or(Ok(()), refuse_parameters)?;
        read(&Value::Object(object))
    }
}

/// The answer to `/generate`.
///
/// # Errors
/// The request's and the engine's.
pub async fn generate(
    state: &Data<State>,
    request: &HttpRequest,
    object: Map<String, Value>,
) -> Result<HttpResponse, ApiError> {
    let body = SglangRequest::from_object(object)?;
    let (streamed, texts) = (body.stream, body.return_text_in_logprobs);
    let is_batch = body.is_batch();
    let items = check(state, request, body).await?;
    if streamed == Some(true) && items.iter().any(|item| item.generation.echo) {
        return Err(ApiError::not_supported(
            "logprob_start_len",
            "a stream tells nothing about the prompt; leave out `stream`",
        ));
    }
    let running = submit_all(state, &items)?;
    let prompt_tokens = items.iter().map(|item| item.prompt.tokens.len()).collect();
    let several = is_batch || running.len() > 1;
    let answer = Answer::new(state, items, &running, texts == Some(true));
    if streamed == Some(true) {
        let plan = StreamPlan {
            running,
            prompt_tokens,
            include_usage: false,
        };
        return Ok(respond(plan, answer.numbered(several)));
    }
    let mut generations = answer.whole(collect(running).await?);
    match (several, generations.pop()) {
        (false, Some(only)) => Ok(HttpResponse::Ok().json(only)),
        (_, last) => {
            generations.extend(last);
            Ok(HttpResponse::Ok().json(generations))
        }
    }
}

async fn check(
    state: &Data<State>,
    request: &HttpRequest,
    body: SglangRequest,
) -> Result<Vec<Item>, ApiError> {
    let tokenizer = state.engine.tokenizer();
    let prompts = body.prompts()?.encode(tokenizer)?;
    let count = prompts.len();
    let parameters = spread(body.sampling_params, count, "sampling_params")?;
    let models = spread(body.lora_path, count, "lora_path")?;
    let wanted = spread(body.return_logprob, count, "return_logprob")?;
    let starts = spread(body.logprob_start_len, count, "logprob_start_len")?;
    let tops = spread(body.top_logprobs_num, count, "top_logprobs_num")?;
    let ids = match body.rid {
        // An id names one request; a batch without a list of them gets ids of its own.
        Some(OneOrMany::One(id)) if count == 1 => vec![Some(id)],
        Some(OneOrMany::Many(ids)) => spread(Some(OneOrMany::Many(ids)), count, "rid")?,
        Some(OneOrMany::One(_)) | None => vec![None; count],
    };
    let mut items = Vec::with_capacity(count);
    for (index, (prompt, id)) in prompts.into_iter().zip(ids).enumerate() {
        let selection = Selection::of_model(models[index].as_ref().and_then(Option::as_deref));
        let target = Target::of_request(state, request, &selection).await?;
        let parameters = parameters[index].clone().unwrap_or_default();
        let mut generation = parameters.generation(tokenizer.vocabulary())?;
        let start = usize::try_from(starts[index].unwrap_or(-1));
        if wanted[index] == Some(true) {
            let top = tops[index].unwrap_or(0);
            generation.logprobs = Some(alternatives("top_logprobs_num", top)?);
            generation.echo = start.is_ok();
        }
        items.push(Item {
            target,
            prompt,
            generation,
            logprobs_from: start.unwrap_or(usize::MAX),
            id,
        });
    }
    Ok(items)
}

fn spread<T: Clone>(
    values: Option<OneOrMany<T>>,
    count: usize,
    param: &str,
) -> Result<Vec<Option<T>>, ApiError> {
    let Some(values) = values else {
        return Ok(vec![None; count]);
    };
    let values = values.spread(count, param)?;
    Ok(values.into_iter().map(Some).collect())
}

/// Submits every prompt with its own adapter; choices are numbered through. All are paid for at once.
fn submit_all(state: &Data<State>, items: &[Item]) -> Result<Vec<Running>, ApiError> {
    let costs = items
        .iter()
        .map(|item| cost(state, from_ref(&item.prompt), &item.generation));
    if let Some(first) = items.first() {
        first.target.pay(costs.sum())?;
    }
    let mut all = Vec::new();
    for (prompt, item) in items.iter().enumerate() {
        let submitted = submit_paid(
            state,
            &item.target,
            from_ref(&item.prompt),
            &item.generation,
        )?;
        for mut running in submitted {
            running.index = all.len();
            running.prompt = prompt;
            all.push(running);
        }
    }
    Ok(all)
}

impl SglangRequest {
    fn prompts(&self) -> Result<&Prompt, ApiError> {
        match (&self.text, &self.input_ids) {
            (Some(prompt), None) | (None, Some(prompt)) => Ok(prompt),
            (Some(_), Some(_)) => Err(ApiError::invalid(
                "input_ids",
                "`input_ids` and `text` exclude each other; send one",
            )),
            (None, None) => Err(ApiError::MissingField {
                param: "text".to_owned(),
                message: "`text` is missing; send it or `input_ids`".to_owned(),
            }),
        }
    }

    fn is_batch(&self) -> bool {
        let prompts = self.text.as_ref().or(self.input_ids.as_ref());
        matches!(prompts, Some(Prompt::Texts(_) | Prompt::TokenLists(_)))
    }
}
