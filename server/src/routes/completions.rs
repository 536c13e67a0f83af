//! `POST /v1/completions`.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use engine::TokenLogprob;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::authorization::InferenceKey;
use crate::body::{Json, RequestBody, read};
use crate::error::ApiError;
use crate::inference::generation::{Finished, collect, reason_name, submit};
use crate::inference::logprobs::{LegacyBuilder, LegacyLogprobs};
use crate::inference::parameters::{Generation, SamplingFields, Streaming, alternatives};
use crate::inference::prompts::{EncodedPrompt, Prompt};
use crate::inference::stream::{Dialect, Part, StreamPlan, json, respond};
use crate::inference::target::{AdapterReference, Target};
use crate::inference::unsupported::refuse_for_completion;
use crate::inference::usage::Usage;
use crate::openapi::{InferenceErrors, ServerSentEvent};
use crate::state::{State, unix_seconds};

const DEFAULT_MAX_TOKENS: i64 = 16;

/// A request to continue prompts.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CompletionRequest {
    /// Fields of completions alone.
    #[serde(flatten)]
    pub fields: CompletionFields,
    /// Fields shared with chat.
    #[serde(flatten)]
    pub sampling: SamplingFields,
}

/// Fields of completions alone.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CompletionFields {
    /// What to continue.
    pub prompt: Prompt,
    /// Most tokens per choice, 16 unless given; 0 only with `echo`.
    pub max_tokens: Option<i64>,
    /// Report each token's log-probability with this many alternatives, 0 to 20.
    pub logprobs: Option<i64>,
    /// Answer with the prompt in front.
    pub echo: Option<bool>,
}

/// The answer, or one chunk of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Completion {
    /// `cmpl-…`.
    pub id: String,
    /// `text_completion`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model as it was named.
    pub model: String,
    /// The adapter version that answered; null for the base model.
    pub adapter: Option<AdapterReference>,
    /// One per prompt and choice.
    pub choices: Vec<CompletionChoice>,
    /// Token counts; in chunks null, and only there when usage was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Usage>)]
    pub usage: Option<Option<Usage>>,
}

/// One choice, or a part of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct CompletionChoice {
    /// The text.
    pub text: String,
    /// `prompt * n + choice`.
    pub index: usize,
    /// When asked for.
    pub logprobs: Option<LegacyLogprobs>,
    /// `stop` or `length`; null in chunks before the last.
    pub finish_reason: Option<&'static str>,
}

/// What all chunks and the whole answer share.
struct Answer {
    state: Data<State>,
    id: String,
    created: u64,
    /// Held to the end of the answer, so that the adapter counts as in use for as long.
    target: Target,
    prompts: Vec<EncodedPrompt>,
    echo: bool,
    logprobs: bool,
    include_usage: bool,
    /// Characters sent so far, by choice.
    characters: Vec<usize>,
}

/// A checked request.
struct Checked {
    prompts: Vec<EncodedPrompt>,
    generation: Generation,
    streaming: Streaming,
}

impl RequestBody for CompletionRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        refuse_for_completion(&object)?;
        let object = Value::Object(object);
        Ok(Self {
            fields: read(&object)?,
            sampling: read(&object)?,
        })
    }
}

/// Continues one prompt or several.
#[utoipa::path(post, path = "/v1/completions", tag = "inference", request_body = CompletionRequest,
    responses((status = 200, description = "The choices, or chunks of them as server-sent events", content((Completion = "application/json"), (ServerSentEvent = "text/event-stream"))), InferenceErrors))]
pub async fn create_completion(
    _key: InferenceKey,
    state: Data<State>,
    request: HttpRequest,
    body: Json<CompletionRequest>,
) -> Result<HttpResponse, ApiError> {
    let target = Target::of_request(&state, &request, &body.0.sampling.selection()).await?;
    let checked = check(&state, &body.0)?;
    answer(&state, target, checked).await
}

/// Continues the prompts with what a request runs on.
async fn answer(
    state: &Data<State>,
    target: Target,
    checked: Checked,
) -> Result<HttpResponse, ApiError> {
    let running = submit(state, &target, &checked.prompts, &checked.generation)?;
    let streaming = checked.streaming;
    let prompt_tokens = checked.prompt_tokens();
    let answer = Answer::new(state, target, checked);
    if streaming.stream {
        let plan = StreamPlan {
            running,
            prompt_tokens,
            include_usage: streaming.include_usage,
        };
        return Ok(respond(plan, answer));
    }
    Ok(HttpResponse::Ok().json(answer.whole(collect(running).await?)))
}

/// Makes a completion again with exactly this model and seed.
///
/// # Errors
/// Those of [`create_completion`].
pub async fn repeat(
    state: &Data<State>,
    mut request: CompletionRequest,
    (target, seed): (Target, Option<u64>),
) -> Result<HttpResponse, ApiError> {
    request.sampling.seed = seed.map(u64::cast_signed);
    request.sampling.stream = None;
    request.sampling.stream_options = None;
    let checked = check(state, &request)?;
    answer(state, target, checked).await
}

fn check(state: &State, request: &CompletionRequest) -> Result<Checked, ApiError> {
    let fields = &request.fields;
    let tokenizer = state.engine.tokenizer();
    let max_tokens = fields.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
    let mut generation = request
        .sampling
        .check(Some(max_tokens), tokenizer.vocabulary())?;
    generation.echo = fields.echo.unwrap_or(false);
    generation.logprobs = fields
        .logprobs
        .map(|value| alternatives("logprobs", value))
        .transpose()?;
    if max_tokens == 0 && !generation.echo {
        return Err(ApiError::invalid(
            "max_tokens",
            "`max_tokens` is 0; send at least 1, or `echo: true` to score the prompt alone",
        ));
    }
    Ok(Checked {
        prompts: fields.prompt.encode(tokenizer)?,
        streaming: request.sampling.streaming()?,
        generation,
    })
}

impl Checked {
    fn prompt_tokens(&self) -> Vec<usize> {
        self.prompts
            .iter()
            .map(|prompt| prompt.tokens.len())
            .collect()
    }
}

impl Answer {
    fn new(state: &Data<State>, target: Target, checked: Checked) -> Self {
        let choices = checked.prompts.len() * checked.generation.choices;
        Self {
            state: state.clone(),
            id: format!("cmpl-{}", Uuid::new_v4().simple()),
            created: unix_seconds(),
            target,
            echo: checked.generation.echo,
            logprobs: checked.generation.logprobs.is_some(),
            include_usage: checked.streaming.include_usage,
            prompts: checked.prompts,
            characters: vec![0; choices],
        }
    }

    fn envelope(&self, choices: Vec<CompletionChoice>, usage: Option<Option<Usage>>) -> Completion {
        Completion {
            id: self.id.clone(),
            object: "text_completion",
            created: self.created,
            model: self.target.model.clone(),
            adapter: self.target.reference(),
            choices,
            usage,
        }
    }

    fn whole(&self, finished: Vec<Finished>) -> Completion {
        let mut usage = Usage::default();
        let per_prompt = finished.len() / self.prompts.len().max(1);
        for choice in &finished {
            if choice.index % per_prompt.max(1) == 0 {
                let tokens = self.prompts[choice.prompt].tokens.len();
                usage.add_prompt(tokens, choice.cached_tokens);
            }
            usage.add_completion(choice.tokens.len());
        }
        let choices = finished
            .into_iter()
            .map(|finished| self.choice(finished))
            .collect();
        self.envelope(choices, Some(Some(usage)))
    }

    fn choice(&self, finished: Finished) -> CompletionChoice {
        let prompt = &self.prompts[finished.prompt];
        let logprobs = self.logprobs.then(|| {
            let mut builder = LegacyBuilder::new(self.state.engine.tokenizer(), 0);
            if let Some(logprobs) = &finished.prompt_logprobs {
                builder.prompt(&prompt.tokens, logprobs);
            }
            for (_, logprob) in &finished.tokens {
                logprob.iter().for_each(|logprob| builder.token(logprob));
            }
            builder.finish().0
        });
        let text = match self.echo {
            true => format!("{}{}", prompt.text, finished.text),
            false => finished.text,
        };
        CompletionChoice {
            text,
            index: finished.index,
            logprobs,
            finish_reason: Some(reason_name(finished.reason)),
        }
    }

    fn part_logprobs(
        &mut self,
        part: &Part,
        prompt: Option<&[TokenLogprob]>,
    ) -> Option<LegacyLogprobs> {
        if !self.logprobs {
            return None;
        }
        let tokenizer = self.state.engine.tokenizer();
        let mut builder = LegacyBuilder::new(tokenizer, self.characters[part.index]);
        if let Some(logprobs) = prompt {
            builder.prompt(&self.prompts[part.prompt].tokens, logprobs);
        }
        part.logprob
            .iter()
            .for_each(|logprob| builder.token(logprob));
        let (lists, characters) = builder.finish();
        self.characters[part.index] = characters;
        Some(lists)
    }
}

impl Dialect for Answer {
    fn part(&mut self, part: Part) -> String {
        let logprobs = self.part_logprobs(&part, part.echo.as_deref());
        let text = match part.echo {
            Some(_) => self.prompts[part.prompt].text.clone(),
            None => part.text,
        };
        let choice = CompletionChoice {
            text,
            index: part.index,
            logprobs,
            finish_reason: part.finish.map(reason_name),
        };
        // Some clients stumble over a null usage they did not ask for.
        let usage = self.include_usage.then_some(None);
        json(&self.envelope(vec![choice], usage))
    }

    fn usage(&self, usage: &Usage) -> String {
        json(&self.envelope(Vec::new(), Some(Some(*usage))))
    }

    fn echoes(&self) -> bool {
        self.echo
    }
}
