//! `POST /v1/chat/completions`.

mod message;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use engine::TokenLogprob;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

pub use self::message::{Content, ContentPart, Message};
use crate::authorization::InferenceKey;
use crate::body::{Json, RequestBody, read};
use crate::error::ApiError;
use crate::inference::generation::{Finished, collect, reason_name, submit};
use crate::inference::logprobs::{ChatLogprobs, chat_token};
use crate::inference::parameters::{Generation, SamplingFields, alternatives};
use crate::inference::prompts::EncodedPrompt;
use crate::inference::stream::{Dialect, Part, StreamPlan, json, respond};
use crate::inference::target::{AdapterReference, Target};
use crate::inference::unsupported::refuse_for_chat;
use crate::inference::usage::Usage;
use crate::openapi::{InferenceErrors, ServerSentEvent};
use crate::state::{State, unix_seconds};

/// A request to answer a conversation.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ChatRequest {
    /// Fields of chat alone.
    #[serde(flatten)]
    pub fields: ChatFields,
    /// Fields shared with completions.
    #[serde(flatten)]
    pub sampling: SamplingFields,
}

/// Fields of chat alone.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ChatFields {
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// Most tokens per choice; as many as the context holds unless given.
    pub max_tokens: Option<i64>,
    /// The newer name of `max_tokens`.
    pub max_completion_tokens: Option<i64>,
    /// Report each token's log-probability.
    pub logprobs: Option<bool>,
    /// With `logprobs`: this many alternatives, 0 to 20.
    pub top_logprobs: Option<i64>,
}

/// The whole answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatCompletion {
    /// `chatcmpl-…`.
    pub id: String,
    /// `chat.completion`, or `chat.completion.chunk`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model as it was named.
    pub model: String,
    /// The adapter version that answered; null for the base model.
    pub adapter: Option<AdapterReference>,
    /// The choices.
    pub choices: Vec<ChatChoice>,
    /// Token counts; in chunks null, and only there when usage was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Usage>)]
    pub usage: Option<Option<Usage>>,
}

/// One choice, or a part of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChoice {
    /// Position among the choices.
    pub index: usize,
    /// The message, when the answer is whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<AnswerMessage>,
    /// What is new, when it is streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<Delta>,
    /// When asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// `stop` or `length`; null in chunks before the last.
    pub finish_reason: Option<&'static str>,
}

/// The model's message.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnswerMessage {
    /// `assistant`.
    pub role: &'static str,
    /// The text.
    pub content: String,
}

/// What a chunk adds.
#[derive(Debug, Serialize, ToSchema)]
pub struct Delta {
    /// `assistant`, in the first chunk of a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// More text.
    pub content: String,
}

/// What all chunks and the whole answer share.
struct Answer {
    state: Data<State>,
    id: String,
    created: u64,
    /// Held to the end of the answer, so that the adapter counts as in use for as long.
    target: Target,
    logprobs: bool,
    include_usage: bool,
}

impl RequestBody for ChatRequest {
    fn from_object(object: Map<String, Value>) -> Result<Self, ApiError> {
        refuse_for_chat(&object)?;
        let object = Value::Object(object);
        Ok(Self {
            fields: read(&object)?,
            sampling: read(&object)?,
        })
    }
}

/// Answers a conversation with the base model's own chat template.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "inference", request_body = ChatRequest,
    responses((status = 200, description = "The choices, or chunks of them as server-sent events", content((ChatCompletion = "application/json"), (ServerSentEvent = "text/event-stream"))), InferenceErrors))]
pub async fn create_chat_completion(
    _key: InferenceKey,
    state: Data<State>,
    request: HttpRequest,
    body: Json<ChatRequest>,
) -> Result<HttpResponse, ApiError> {
    let target = Target::of_request(&state, &request, &body.0.sampling.selection()).await?;
    respond_to(&state, target, &body.0).await
}

/// Makes an answer again with exactly this model and seed.
///
/// # Errors
/// Those of [`create_chat_completion`].
pub async fn repeat(
    state: &Data<State>,
    mut request: ChatRequest,
    (target, seed): (Target, Option<u64>),
) -> Result<HttpResponse, ApiError> {
    request.sampling.seed = seed.map(u64::cast_signed);
    request.sampling.stream = None;
    request.sampling.stream_options = None;
    respond_to(state, target, &request).await
}

/// Answers with what a request runs on.
async fn respond_to(
    state: &Data<State>,
    target: Target,
    request: &ChatRequest,
) -> Result<HttpResponse, ApiError> {
    let streaming = request.sampling.streaming()?;
    let generation = check(state, request)?;
    let prompts = [encode(state, &request.fields.messages)?];
    let running = submit(state, &target, &prompts, &generation)?;
    let answer = Answer {
        state: state.clone(),
        id: format!("chatcmpl-{}", Uuid::new_v4().simple()),
        created: unix_seconds(),
        target,
        logprobs: generation.logprobs.is_some(),
        include_usage: streaming.include_usage,
    };
    let prompt_tokens = vec![prompts[0].tokens.len()];
    if streaming.stream {
        let plan = StreamPlan {
            running,
            prompt_tokens,
            include_usage: streaming.include_usage,
        };
        return Ok(respond(plan, answer));
    }
    let finished = collect(running).await?;
    Ok(HttpResponse::Ok().json(answer.whole(finished, prompt_tokens[0])))
}

fn check(state: &State, request: &ChatRequest) -> Result<Generation, ApiError> {
    let fields = &request.fields;
    let max_tokens = fields.max_completion_tokens.or(fields.max_tokens);
    if max_tokens == Some(0) {
        return Err(ApiError::invalid(
            "max_tokens",
            "`max_tokens` is 0; send at least 1",
        ));
    }
    let vocabulary = state.engine.tokenizer().vocabulary();
    let mut generation = request.sampling.check(max_tokens, vocabulary)?;
    generation.logprobs = match (fields.logprobs.unwrap_or(false), fields.top_logprobs) {
        (true, top) => Some(alternatives("top_logprobs", top.unwrap_or(0))?),
        (false, None) => None,
        (false, Some(_)) => {
            return Err(ApiError::invalid(
                "top_logprobs",
                "`top_logprobs` only goes with `logprobs: true`",
            ));
        }
    };
    Ok(generation)
}

fn encode(state: &State, messages: &[Message]) -> Result<EncodedPrompt, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::invalid(
            "messages",
            "`messages` is empty; send at least one message",
        ));
    }
    let Some(template) = state.engine.chat_template() else {
        return Err(ApiError::not_supported(
            "messages",
            "the base model has no chat template; use /v1/completions",
        ));
    };
    let messages = messages
        .iter()
        .enumerate()
        .map(|(index, message)| message.check(index))
        .collect::<Result<Vec<_>, _>>()?;
    let text = template.render(&messages, true)?;
    // The template writes its own special tokens.
    let tokens = state.engine.tokenizer().encode(&text, false);
    Ok(EncodedPrompt { tokens, text })
}

impl Answer {
    fn envelope(
        &self,
        object: &'static str,
        choices: Vec<ChatChoice>,
        usage: Option<Option<Usage>>,
    ) -> ChatCompletion {
        ChatCompletion {
            id: self.id.clone(),
            object,
            created: self.created,
            model: self.target.model.clone(),
            adapter: self.target.reference(),
            choices,
            usage,
        }
    }

    fn whole(&self, finished: Vec<Finished>, prompt_tokens: usize) -> ChatCompletion {
        let mut usage = Usage::default();
        usage.add_prompt(
            prompt_tokens,
            finished.first().map_or(0, |first| first.cached_tokens),
        );
        let mut choices = Vec::with_capacity(finished.len());
        for choice in finished {
            usage.add_completion(choice.tokens.len());
            let logprobs = choice.tokens.iter().filter_map(|(_, own)| own.as_ref());
            choices.push(ChatChoice {
                index: choice.index,
                logprobs: self.shape(logprobs),
                message: Some(AnswerMessage {
                    role: "assistant",
                    content: choice.text,
                }),
                delta: None,
                finish_reason: Some(reason_name(choice.reason)),
            });
        }
        self.envelope("chat.completion", choices, Some(Some(usage)))
    }

    fn shape<'a>(&self, logprobs: impl Iterator<Item = &'a TokenLogprob>) -> Option<ChatLogprobs> {
        let tokenizer = self.state.engine.tokenizer();
        self.logprobs.then(|| ChatLogprobs {
            content: logprobs
                .map(|logprob| chat_token(tokenizer, logprob))
                .collect(),
        })
    }
}

impl Dialect for Answer {
    fn part(&mut self, part: Part) -> String {
        let choice = ChatChoice {
            index: part.index,
            message: None,
            delta: Some(Delta {
                role: part.first.then_some("assistant"),
                content: part.text,
            }),
            logprobs: self.shape(part.logprob.iter()),
            finish_reason: part.finish.map(reason_name),
        };
        let usage = self.include_usage.then_some(None);
        json(&self.envelope("chat.completion.chunk", vec![choice], usage))
    }

    fn usage(&self, usage: &Usage) -> String {
        let usage = Some(Some(*usage));
        json(&self.envelope("chat.completion.chunk", Vec::new(), usage))
    }
}
